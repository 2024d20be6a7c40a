"""`statement`: the provider's list against the record, and whether anything in it is unexplained."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

import click

from service.cli_frame import load, now, plain_trouble, print_json, width
from service.cli_progress import looking
from service.delivery import DeliveryFailure

if TYPE_CHECKING:
    from service.delivery import Transaction
    from service.reconcile import Span
    from service.settings import Settings
    from service.statement import Statement

_DAYS = 30
_DAY = click.DateTime(["%Y-%m-%d"])
_WORDS = {
    "expected": "in the record: grouped, its invoice is to come",
    "billed": "in the record: grouped, on an invoice",
    "captured": "in the record: grouped, delivered and captured",
    "grouped_failed": "in the record: grouped, failed",
    "grouped_skipped": "in the record: grouped, skipped",
    "open": "in the record: open",
    "not_ours": "not recorded: not ours to deliver",
    "ended": "not recorded: voided, declined, failed or refunded at Dintero",
    "unfinished": "not recorded: not finished by the customer",
    "unexplained": "UNEXPLAINED",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Days:
    """What is asked for: these days, the last one included, as they are in a time zone."""

    first: date
    last: date
    zone: tzinfo

    def span(self) -> "Span":
        from service.reconcile import Span  # noqa: PLC0415

        return Span(since=self._midnight(self.first), until=self._midnight(self.last + timedelta(days=1)))

    def _midnight(self, day: date) -> datetime:
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC)


@click.command()
@click.option(
    "--from", "first", type=_DAY, metavar="DATE", help=f"The first day.  [default: so that it is {_DAYS} days]"
)
@click.option("--to", "last", type=_DAY, metavar="DATE", help="The last day, itself included.  [default: today]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def statement(first: datetime | None, last: datetime | None, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Hold Dintero's list of Kravia transactions against the record.

    Each that was created on these days (in TIMEZONE) must be explained: it is in the record, or it is not ours to
    deliver, or it came to nothing at Dintero, or the customer has not finished. What is left is listed, and the exit
    status is 1.
    """
    with plain_trouble():
        from service.settings import Need  # noqa: PLC0415

        settings = load(Need.SERVE)
        days = _days(first, last, settings.timezone)
        try:
            found = asyncio.run(_look(settings, days))
        except DeliveryFailure as failure:
            click.echo(f"{failure.reason}. Nothing is said of what was not seen; run it again.", err=True)
            raise click.exceptions.Exit(1) from None
    if as_json:
        print_json(_json(found, days))
    else:
        _show(found, days)
    if found.unexplained:
        raise click.exceptions.Exit(1)


def _days(first: datetime | None, last: datetime | None, zone: tzinfo) -> _Days:
    ends = last.date() if last else now().astimezone(zone).date()
    try:
        begins = first.date() if first else ends - timedelta(days=_DAYS - 1)
        days = _Days(first=begins, last=ends, zone=zone)
        days.span()
    except OverflowError:
        raise click.UsageError("--from or --to is a day at the end of all calendars.") from None
    if begins > ends:
        raise click.UsageError("--from lies after --to.")
    return days


async def _look(settings: "Settings", days: _Days) -> "Statement":
    from service.app import open_auditor  # noqa: PLC0415
    from service.statement import Statement, added  # noqa: PLC0415

    found, span = Statement(), days.span()
    async with open_auditor(settings) as auditor:
        with looking(span) as advance:
            async for page in auditor.pages(span):
                found = added(found, page.statement)
                advance(page.created)
    return found


def _show(found: "Statement", days: _Days) -> None:
    from service.terminal import money, table  # noqa: PLC0415

    rows = [
        (
            _WORDS.get(line.explanation, f"in the record: {line.explanation}"),
            str(line.count),
            money(line.amount, line.currency),
        )
        for line in found.lines
    ]
    if rows:
        click.echo(table(("EXPLAINED BY", "COUNT", "AMOUNT"), rows, width=width()))
    noun = "transaction" if found.count == 1 else "transactions"
    missing = f"{len(found.unexplained)} unexplained" if found.unexplained else "all explained"
    click.echo(f"{found.count} {noun} created from {days.first} to {days.last} ({days.zone}), {missing}.")
    if found.unexplained:
        click.echo()
        click.echo(_listing(found.unexplained))
        click.echo("`merchant-delivery reconcile --since DATE` enters what nobody told us of.", err=True)


def _listing(unexplained: "tuple[Transaction, ...]") -> str:
    from service.record_json import time_text  # noqa: PLC0415
    from service.terminal import money, table  # noqa: PLC0415

    head = ("TRANSACTION", "CREATED", "INVOICE", "STATUS", "AMOUNT")
    rows = [
        (
            one.id,
            time_text(one.created_at) or "-",
            one.invoice_number or "-",
            one.status,
            money(one.amount, one.currency),
        )
        for one in unexplained
    ]
    return table(head, rows, width=width())


def _json(found: "Statement", days: _Days) -> dict[str, Any]:
    from service.record_json import time_text  # noqa: PLC0415

    span = days.span()
    return {
        "from": time_text(span.since),
        "to": time_text(span.until),
        "count": found.count,
        "lines": [
            {
                "explanation": line.explanation.value,
                "currency": line.currency,
                "count": line.count,
                "amount": line.amount,
            }
            for line in found.lines
        ],
        "unexplained": [
            {
                "transaction_id": one.id,
                "created_at": time_text(one.created_at),
                "status": one.status,
                "invoice_number": one.invoice_number,
                "merchant_reference": one.merchant_reference,
                "amount": one.amount,
                "currency": one.currency,
            }
            for one in found.unexplained
        ],
    }
