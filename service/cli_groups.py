"""`groups`: the invoices of many purchases, those to come and those that were billed, from the record alone."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from service.cli_choice import text
from service.cli_frame import in_record, load, now, plain_trouble, print_json, width
from service.delivery import Kind, Member, Members, Store

if TYPE_CHECKING:
    from service.grouping import Dates, Period
    from service.groups import Calendar, Coming, Group
    from service.settings import Settings

_SHOWN = 10  # letters of a group's id
_LEAST = 4  # of it that are enough to name one
_HEX = re.compile(r"[0-9a-f]+")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _period(_context: click.Context, _parameter: click.Parameter, value: str | None) -> "Period | None":
    if value is None:
        return None
    from service.grouping import period_labelled  # noqa: PLC0415

    try:
        return period_labelled(value.upper())
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


_in_period = click.option(
    "--period", metavar="PERIOD", callback=_period, help="A month (2026-11) or quarter (2026-Q4)."
)
_of_customer = click.option("--customer", metavar="ORG", callback=text, help="An organisation's number.")
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
_as_csv = click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values, amounts in minor units.")


@click.group()
def groups() -> None:
    """Look at purchases that are billed together, by month or quarter."""


@groups.command("list")
@_in_period
@_of_customer
@_as_json
@_as_csv
def list_(*, period: "Period | None", customer: str | None, as_json: bool, as_csv: bool) -> None:
    """Show groups by issue date: those of a period, or all that are open or were closed in the last 40 days."""
    if as_json and as_csv:
        raise click.UsageError("Say --json or --csv.")

    def tell(found: "Sequence[Group]", said: dict[str, str | None]) -> None:
        if as_json:
            print_json([_group_json(group, said) for group in found])
        elif as_csv:
            _print_csv([_group_json(group, said) for group in found])
        else:
            _table(found, said)

    _look(period, customer, tell)


@groups.command()
@_in_period
@_of_customer
@_as_json
@_as_csv
def forecast(*, period: "Period | None", customer: str | None, as_json: bool, as_csv: bool) -> None:
    """Add up what is not billed yet by the day on which its invoices are to be issued."""
    if as_json and as_csv:
        raise click.UsageError("Say --json or --csv.")

    def tell(found: "Sequence[Group]", _said: dict[str, str | None]) -> None:
        from service.groups import UNBILLED, totals  # noqa: PLC0415
        from service.groups import forecast as coming  # noqa: PLC0415

        days = coming(found)
        if as_json:
            print_json([_coming_json(day) for day in days])
        elif as_csv:
            _print_csv([_coming_json(day) for day in days])
        else:
            _forecast_table(days, totals(group for group in found if group.state in UNBILLED))

    _look(period, customer, tell)


@groups.command()
@click.argument("reference", metavar="GROUP", callback=text)
@_in_period
@_as_json
def show(*, reference: str, period: "Period | None", as_json: bool) -> None:
    """Show one group, its purchases, and in what they were billed otherwise than expected.

    GROUP is the id that the list shows, an invoice number, a transaction id, or an organisation number with --period.
    """

    async def look(store: Store) -> None:
        found = await _named(store, reference, period)
        if len(found) != 1:
            _not_one(reference, found, calendar)
        whole = await _with_neighbours(store, found[0])
        said, group = _judged(whole, calendar, found[0])
        if as_json:
            print_json(_group_json(group, said) | {"members": [_member_json(one, said) for one in group.members]})
        else:
            click.echo(_details(group, said))

    with plain_trouble():
        settings = _settings()
        calendar = _calendar(settings)
        in_record(look, settings)


def _settings() -> "Settings":
    from service.settings import Need  # noqa: PLC0415

    return load(Need.GROUPS)


def _calendar(settings: "Settings") -> "Calendar":
    from service.groups import Calendar  # noqa: PLC0415

    return Calendar(now=now(), zone=settings.timezone, holiday_country=settings.holiday_country)


def _look(
    period: "Period | None",
    customer: str | None,
    tell: "Callable[[Sequence[Group], dict[str, str | None]], None]",
) -> None:
    async def look(store: Store) -> None:
        from service.comparing import unsettled  # noqa: PLC0415
        from service.groups import compared, groups_of  # noqa: PLC0415

        calendar = _calendar(settings)
        members = await store.members(Members(period_start=period.start)) if period else await unsettled(store)
        found = [one for one in groups_of(members, calendar) if period is None or one.period == period]
        if customer:
            found = [one for one in found if _is_of(one.key.organization_number, customer)]
        tell(found, compared(members, calendar))

    with plain_trouble():
        settings = _settings()
        in_record(look, settings)


def _is_of(number: str, asked: str) -> bool:
    digits = _digits(asked)
    return number == asked or (bool(digits) and _digits(number) == digits)


def _digits(number: str) -> str:
    return "".join(letter for letter in number if letter.isascii() and letter.isdecimal())


# --- which group is meant --------------------------------------------------------------------------------------------


async def _named(store: Store, reference: str, period: "Period | None") -> list[tuple[Member, ...]]:
    """Return the purchases of each group that a reference fits."""
    if period is not None:
        members = [one for one in await store.members(Members(period_start=period.start)) if _in(one, period)]
        meant = [m for m in members if _is_of(m.purchase.organization_number, reference) or _begins(m, reference)]
    else:
        meant = list(await store.members(Members(group=reference)))
        if not meant and len(reference) >= _LEAST and _HEX.fullmatch(reference):
            from service.comparing import unsettled  # noqa: PLC0415

            lately = [member for member in await unsettled(store) if _begins(member, reference)]
            meant = lately or [member for member in await store.members(Members()) if _begins(member, reference)]
        for delivery in () if meant else await store.find(reference):
            billed = Members(invoice_id=delivery.id)
            own = Members(transaction_id=delivery.id)
            meant += await store.members(billed if delivery.kind is Kind.GROUPED else own)
    names = sorted({member.purchase.group for member in meant})
    return [await store.members(Members(group=name)) for name in names]


def _in(member: Member, period: "Period") -> bool:
    return member.purchase.interval is period.interval


def _begins(member: Member, reference: str) -> bool:
    return len(reference) >= _LEAST and member.purchase.group.startswith(reference)


def _not_one(reference: str, found: Sequence[tuple[Member, ...]], calendar: "Calendar") -> NoReturn:
    from service.groups import groups_of  # noqa: PLC0415

    if found:
        click.echo(f"{len(found)} groups are known by {reference}; name one by its id:", err=True)
        several = groups_of([member for members in found for member in members], calendar)
        click.echo(_rows(several, {}), err=True)
    else:
        click.echo(f"No group is known by {reference}. An organisation number needs --period.", err=True)
    raise click.exceptions.Exit(1)


async def _with_neighbours(store: Store, members: tuple[Member, ...]) -> tuple[Member, ...]:
    """Add those of its period, to see what looks like it, and all else that is on its invoices."""
    around = list(await store.members(Members(period_start=members[0].purchase.period_start)))
    for invoice in sorted({member.purchase.invoice_id for member in members} - {None}, key=str):
        around += await store.members(Members(invoice_id=invoice))
    return tuple({member.purchase.transaction_id: member for member in around}.values())


def _judged(
    members: tuple[Member, ...], calendar: "Calendar", of: tuple[Member, ...]
) -> "tuple[dict[str, str | None], Group]":
    from service.groups import compared, groups_of  # noqa: PLC0415

    group = next(one for one in groups_of(members, calendar) if one.id == of[0].purchase.group)
    return compared(members, calendar), group


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(found: "Sequence[Group]", said: dict[str, str | None]) -> None:
    from service.groups import totals  # noqa: PLC0415

    if not found:
        click.echo("No groups.", err=True)
        return
    click.echo(_rows(found, said))
    click.echo(_sum(totals(found), f"{len(found)} group{'s' if len(found) > 1 else ''}"))


def _rows(found: "Sequence[Group]", said: dict[str, str | None]) -> str:
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
    if differ := len(_remarks(group, said)):
        yield f"{differ} billed otherwise than expected"


def _remarks(group: "Group", said: dict[str, str | None]) -> list[str]:
    found = (said.get(member.purchase.transaction_id) for member in group.counted)
    return [words for words in found if words]


def _sum(sums: Iterable[tuple[str, int]], counted: str) -> str:
    from service.terminal import money  # noqa: PLC0415

    return f"{counted}: {', '.join(money(total, currency) for currency, total in sums)}."


def _forecast_table(days: "Sequence[Coming]", sums: Sequence[tuple[str, int]]) -> None:
    from service.terminal import money, table  # noqa: PLC0415

    if not days:
        click.echo("Nothing is to be billed.", err=True)
        return
    rows = [(*_dates(day.dates), str(day.invoices), str(day.purchases), money(day.total, day.currency)) for day in days]
    click.echo(table(("ISSUED", "DUE", "INVOICES", "PURCHASES", "TOTAL"), rows, width=width()))
    click.echo(_sum(sums, f"{sum(day.invoices for day in days)} invoices to come"))


def _details(group: "Group", said: dict[str, str | None]) -> str:
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


# --- JSON and CSV ----------------------------------------------------------------------------------------------------


def _group_json(group: "Group", said: dict[str, str | None]) -> dict[str, Any]:
    key = group.key
    return {
        "group": group.id,
        "account_id": key.account_id,
        "period": group.period.label,
        "interval": key.interval.value,
        "business_name": key.business_name,
        "organization_number": key.organization_number,
        "country": key.country,
        "customer_reference": key.customer_reference,
        "state": group.state.value,
        "purchases": len(group.counted),
        "voided": len(group.members) - len(group.counted),
        "either_period": group.uncertain,
        "amount": group.total,
        "currency": key.currency,
        **_dates_json(group.dates),
        "invoice_numbers": list(group.invoices),
        "looks_like": list(group.near),
        "changes": list(group.changes),
        "differences": sorted(set(_remarks(group, said))),
    }


def _dates_json(dates: "Dates") -> dict[str, Any]:
    return {
        "issue_date": dates.issue.isoformat(),
        "due_date": dates.due.isoformat(),
        "issue_date_business_day": dates.issue_business_day.isoformat(),
        "due_date_business_day": dates.due_business_day.isoformat(),
        "payable_until": dates.payable_until.isoformat(),
        "certain": dates.certain,
    }


def _coming_json(day: "Coming") -> dict[str, Any]:
    counts = {"invoices": day.invoices, "purchases": day.purchases, "amount": day.total, "currency": day.currency}
    return _dates_json(day.dates) | counts


def _member_json(member: Member, said: dict[str, str | None]) -> dict[str, Any]:
    from service.record_json import time_text  # noqa: PLC0415

    purchase, delivery = member.purchase, member.delivery
    return {
        "transaction_id": purchase.transaction_id,
        "purchased_at": time_text(purchase.purchased_at),
        "amount": purchase.amount,
        "currency": purchase.currency,
        "merchant_reference": purchase.merchant_reference,
        "counts": member.counts,
        "either_period": purchase.either_period,
        "outcome": delivery.outcome.value,
        "progress": list(delivery.progress),
        "channel": purchase.channel,
        "invoice_number": purchase.invoice_number,
        "invoice_date": purchase.invoice_date and purchase.invoice_date.isoformat(),
        "due_date": purchase.due_date and purchase.due_date.isoformat(),
        "difference": said.get(purchase.transaction_id),
    }


def _print_csv(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows under their names; several values of a cell are joined, and none of them is a formula."""
    if not rows:
        return
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    click.echo(out.getvalue(), nl=False)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    said = "; ".join(value) if isinstance(value, list) else str(value)
    return f"'{said}" if isinstance(value, str | list) and said.startswith(_FORMULA) else said
