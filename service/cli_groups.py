"""`groups`: the invoices of many purchases, those to come and those that were billed, from the record alone."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from service.cli_choice import text
from service.cli_frame import in_record, load, now, plain_trouble, print_json
from service.cli_groups_json import COMING, GROUP, MEMBER, coming_json, group_json, member_json, print_csv
from service.cli_groups_table import details, forecast_table, group_rows, group_table
from service.delivery import Kind, Member, Members, Store

if TYPE_CHECKING:
    from service.grouping import Period
    from service.groups import Calendar, Group
    from service.settings import Settings

_LEAST = 4  # letters of a group's id that are enough to name it
_HEX = re.compile(r"[0-9a-f]+")


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
    """Look at purchases that are billed together."""


@groups.command("list", short_help="Show groups by issue date.")
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
            print_json([group_json(group, said) for group in found])
        elif as_csv:
            print_csv([group_json(group, said) for group in found], GROUP)
        else:
            group_table(found, said)

    _look(period, customer, tell)


@groups.command(short_help="Add up what is not billed yet, by the day of its invoices.")
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
            print_json([coming_json(day) for day in days])
        elif as_csv:
            print_csv([coming_json(day) for day in days], COMING)
        else:
            forecast_table(days, totals(group for group in found if group.state in UNBILLED))

    _look(period, customer, tell)


@groups.command(short_help="Show one group and its purchases.")
@click.argument("reference", metavar="[GROUP]", required=False, callback=text)
@_in_period
@_of_customer
@_as_json
@_as_csv
def show(*, reference: str | None, period: "Period | None", customer: str | None, as_json: bool, as_csv: bool) -> None:
    """Show one group, its purchases, and in what they were billed otherwise than expected.

    GROUP is the id that the list shows, an invoice number, a transaction id, or an organisation number with --period;
    --period and --customer do without it.
    """
    if as_json and as_csv:
        raise click.UsageError("Say --json or --csv.")
    meant = reference or customer
    if meant is None:
        raise click.UsageError("Say which GROUP, or --period and --customer.")

    async def look(store: Store) -> None:
        found = await _named(store, meant, period)
        if customer:
            found = [one for one in found if _is_of(one[0].purchase.organization_number, customer)]
        if len(found) != 1:
            _not_one(meant, found, calendar)
        whole = await _with_neighbours(store, found[0])
        said, group = _judged(whole, calendar, found[0])
        if as_json:
            print_json(group_json(group, said) | {"members": [member_json(one, said) for one in group.members]})
        elif as_csv:
            print_csv([member_json(one, said) for one in group.members], MEMBER)
        else:
            click.echo(details(group, said))

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
        from service.comparing import unsettled, with_invoices  # noqa: PLC0415
        from service.groups import compared, groups_of  # noqa: PLC0415

        calendar = _calendar(settings)
        members = await store.members(Members(period_start=period.start)) if period else await unsettled(store)
        found = [one for one in groups_of(members, calendar) if period is None or one.period == period]
        if customer:
            found = [one for one in found if _is_of(one.key.organization_number, customer)]
        tell(found, compared(await with_invoices(store, members), calendar))

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
        click.echo(group_rows(several, {}), err=True)
    else:
        click.echo(f"No group is known by {reference}. An organisation number needs --period.", err=True)
    raise click.exceptions.Exit(1)


async def _with_neighbours(store: Store, members: tuple[Member, ...]) -> tuple[Member, ...]:
    """Add those of its period, to see what looks like it, and all else that is on its invoices."""
    from service.comparing import with_invoices  # noqa: PLC0415

    return await with_invoices(store, await store.members(Members(period_start=members[0].purchase.period_start)))


def _judged(
    members: tuple[Member, ...], calendar: "Calendar", of: tuple[Member, ...]
) -> "tuple[dict[str, str | None], Group]":
    from service.groups import compared, groups_of  # noqa: PLC0415

    group = next(one for one in groups_of(members, calendar) if one.id == of[0].purchase.group)
    return compared(members, calendar), group
