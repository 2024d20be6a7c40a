"""Plain mails to those who run the service, over the relay that the invoices take."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from service.channels.email import on_the_wire, own_hostname
from service.channels.mime import Envelope, build_plain
from service.channels.oauth import Grant, open_tokens
from service.channels.smtp import Relay, tls_context
from service.channels.smtp_url import parse_smtp_url
from service.delivery import Clock, DeliveryFailure, Mailbox


class Notices:
    """Sends a text to each of a few addresses, opened by `open_notices`."""

    def __init__(self, *, sender: Mailbox, to: Sequence[str], relay: Relay) -> None:
        self._sender = sender
        self._to = tuple(to)
        self._relay = relay

    async def send(self, subject: str, text: str, *, key: str, dated: datetime) -> tuple[str, ...]:
        """Hand one mail to the relay for each address; return why some were not taken.

        Raises `DeliveryFailure` only when nobody got it: a repeat would reach those who did. The Message-ID comes of
        `key`, which is hex digits.
        """
        failures = []
        for address in self._to:
            try:
                await self._relay.deliver(self._sender.address, address, self._mail(address, subject, text, key, dated))
            except DeliveryFailure as exc:
                failures.append(exc)
        if len(failures) == len(self._to):
            raise failures[-1]
        return tuple(failure.reason for failure in failures)

    def _mail(self, to: str, subject: str, text: str, key: str, dated: datetime) -> bytes:
        domain = self._sender.address.rpartition("@")[2]
        envelope = Envelope(
            sender=self._sender, reply_to=None, to=to, dated=dated, key=key, message_id=f"<{key}@{domain}>"
        )
        return build_plain(envelope, subject, text)


@asynccontextmanager
async def open_notices(
    *,
    smtp_url: str,
    mail_from: Mailbox,
    to: Sequence[str],
    clock: Clock,
    grant: Grant | None = None,
    hostname: str | None = None,
) -> AsyncIterator[Notices]:
    """Open the way with one connection of its own; none is made before the first mail. As `open_email`."""
    smtp = parse_smtp_url(smtp_url)
    context = tls_context(smtp.security)
    name = hostname or own_hostname()
    async with open_tokens(grant, clock) as tokens:
        relay = Relay(smtp, connections=1, clock=clock, hostname=name, context=context, tokens=tokens)
        try:
            yield Notices(sender=on_the_wire(mail_from), to=to, relay=relay)
        finally:
            await relay.close()
