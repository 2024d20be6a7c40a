"""The tables of `groups`: the list, the forecast, and all that there is to say of one group."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from service.cli_frame import width
from service.delivery import Member

if TYPE_CHECKING:
    from service.grouping import Dates
    from service.groups import Coming, Group

_SHOWN = 10  # letters of a group's id


def group_table(found: "Sequence[Group]", said: dict[str, str | None]) -> None:
    """Print groups, a row each, and what they come to."""
    from service.groups import totals  # noqa: PLC0415

    if not found:
        click.echo("No groups.", err=True)
        return
    click.echo(group_rows(found, said))
    click.echo(_sum(totals(found), f"{len(found)} group{'s' if len(found) > 1 else ''}"))


def group_rows(found: "Sequence[Group]", said: dict[str, str | None]) -> str:
    """Return the rows of groups; `said` is in what purchases were billed otherwise than expected, by transaction."""
    from service.terminal import money, table  # noqa: PLC0415

    head = ("GROUP", "PERIOD", "CUSTOMER", "NUMBER", "PURCHASES", "TOTAL", "ISSUED", "DUE", "STATE", "NOTES")
    rows = [
        (
            *(group.id[:_SHOWN], group.period.label, group.key.business_name or "-"),
            *(group.key.organization_number or "-", str(len(group.counted)), money(group.total, group.key.currency)),
            *_dates(group.dates),
            *(group.state.value, "; ".join(_notes(group, said))),
        )
        for group in found
    ]
    return table(head, rows, width=width())


def _dates(dates: "Dates") -> tuple[str, str]:
    """Return when it is issued and due, by both rules where they differ."""
    if dates.issue == dates.issue_business_day:
        return str(dates.issue), str(dates.due)
    return f"{dates.issue} or {dates.issue_business_day}", f"{dates.due} or {dates.due_business_day}"


def _notes(group: "Group", said: dict[str, str | None]) -> Iterable[str]:
    from service.groups import remarks  # noqa: PLC0415

    if group.key.customer_reference:
        yield f"reference {group.key.customer_reference}"
    if group.invoices:
        yield f"invoice {', '.join(group.invoices)}"
    if voided := len(group.members) - len(group.counted):
        yield f"{voided} voided"
    if group.uncertain:
        yield f"{group.uncertain} near the end of a period"
    if group.near:
        yield f"looks like {', '.join(name[:_SHOWN] for name in group.near)}, and becomes another invoice"
    yield from group.changes
    if differ := len(remarks(group, said)):
        yield f"{differ} billed otherwise than expected"


def _sum(sums: Iterable[tuple[str, int]], counted: str) -> str:
    from service.terminal import money  # noqa: PLC0415

    return f"{counted}: {', '.join(money(total, currency) for currency, total in sums)}."


def forecast_table(days: "Sequence[Coming]", sums: Sequence[tuple[str, int]]) -> None:
    """Print what is to be billed by the day that it is issued, and the sums by currency."""
    from service.terminal import money, table  # noqa: PLC0415

    if not days:
        click.echo("Nothing is to be billed.", err=True)
        return
    rows = [(*_dates(day.dates), str(day.invoices), str(day.purchases), money(day.total, day.currency)) for day in days]
    click.echo(table(("ISSUED", "DUE", "INVOICES", "PURCHASES", "TOTAL"), rows, width=width()))
    click.echo(_sum(sums, f"{sum(day.invoices for day in days)} invoices to come"))


def details(group: "Group", said: dict[str, str | None]) -> str:
    """Return all that there is to say of one group."""
    from service.terminal import money, table  # noqa: PLC0415

    key, (issued, due) = group.key, _dates(group.dates)
    facts = [
        ("Group", group.id),
        ("Customer", " ".join(filter(None, (key.business_name, key.organization_number, key.country)))),
        ("Reference", key.customer_reference),
        ("Period", f"{group.period.label}, {key.interval} by the {key.interval_from}"),
        ("State", group.state.value),
        ("Total", f"{money(group.total, key.currency)} of {len(group.counted)} purchases"),
        ("Issued", f"{issued} expected{_as_billed(group, 'invoice_date')}"),
        ("Due", f"{due} expected, {key.days_until_due} days by the {key.days_from}{_as_billed(group, 'due_date')}"),
        ("Invoice", ", ".join(group.invoices)),
        ("Looks like", ", ".join(group.near)),
        *(("Note", change) for change in group.changes),
    ]
    head = ("BOUGHT", "TRANSACTION", "AMOUNT", "OUTCOME", "INVOICE", "DONE", "COMPARED")
    rows = [_member_row(member, said) for member in group.members]
    lines = [f"{name:<12} {_printable(value)}" for name, value in facts if value]
    return "\n".join([*lines, "", "Purchases", table(head, rows, width=width())])


def _printable(value: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in value)


def _as_billed(group: "Group", name: str) -> str:
    days = sorted({str(day) for one in group.counted if (day := getattr(one.purchase, name)) is not None})
    return f", {' and '.join(days)} on the invoice" if days else ""


def _member_row(member: Member, said: dict[str, str | None]) -> tuple[str, ...]:
    from service.record_json import time_text  # noqa: PLC0415
    from service.terminal import money  # noqa: PLC0415

    purchase, delivery = member.purchase, member.delivery
    near = "near the end of a period" if purchase.either_period and not purchase.invoice_id else ""
    compared = said.get(purchase.transaction_id) or ("as expected" if purchase.invoice_id else near)
    return (
        *(time_text(purchase.purchased_at) or "-", purchase.transaction_id, money(purchase.amount, purchase.currency)),
        *(delivery.outcome.value, purchase.invoice_number or "-", ", ".join(delivery.progress) or "-"),
        compared if member.counts else "voided",
    )
