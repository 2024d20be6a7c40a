"""What becomes of mails after the relay took them: reports by ESPs over HTTP, and bounces as mails (channels.md 8)."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

from service.delivery import Report, ReportRequest
from service.receipts.amazon import Amazon, open_fetcher
from service.receipts.esp import Generic, Mailgun, Postmark, SendGrid
from service.receipts.events import Provider, report_of

EMAIL = "email"
"""The channel that these reports are about."""
PROVIDERS = ("postmark", "sendgrid", "mailgun", "ses", "generic")


class EmailReports:
    """`Reporting` of one ESP, opened by `open_email_reports`."""

    def __init__(self, provider: Provider, *, ignored: Iterable[str] = ()) -> None:
        self._provider = provider
        self._ignored = frozenset(address.casefold() for address in ignored)

    async def read_reports(self, request: ReportRequest, *, now: datetime) -> tuple[Report, ...]:
        """Return what a request of the ESP tells of our messages; what is about a blind copy is left out."""
        events = await self._provider.events(request, now=now)
        meant = [event for event in events if (event.recipient or "").casefold() not in self._ignored]
        return tuple(report for event in meant if (report := report_of(event, EMAIL)) is not None)


@asynccontextmanager
async def open_email_reports(name: str, secret: str, *, ignored: Iterable[str] = ()) -> AsyncIterator[EmailReports]:
    """Open what reads the reports of the ESP of this name (one of `PROVIDERS`); raises `ValueError` in kind words.

    `secret` proves that they are the ESP's: Postmark and generic know it as a password, Mailgun signs with it, for
    SendGrid it is the key to verify with, for SES the ARN of the SNS topic. `ignored` are addresses of blind copies.
    """
    if name == "ses":
        async with open_fetcher() as fetch:
            yield EmailReports(Amazon(topic=secret, fetch=fetch), ignored=ignored)
        return
    makers: dict[str, Callable[[str], Provider]] = {
        "postmark": Postmark,
        "sendgrid": SendGrid,
        "mailgun": Mailgun,
        "generic": Generic,
    }
    yield EmailReports(makers[name](secret), ignored=ignored)
