"""`erase`: make the record forget a person now."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from service.cli_choice import text
from service.cli_frame import in_record, one, plain_trouble, request
from service.delivery import Delivery, Entry, Outcome, Result, Step, Store

_AT_ONCE = 100
_TELEPHONE = re.compile(r"(?:\+|00)[1-9]\d{6,14}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whom:
    """Whom it is about: exactly one of these."""

    reference: str | None
    addresses: tuple[str, ...]
    organization_number: str | None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.reference, self.addresses, self.organization_number))) != 1:
            raise click.UsageError("Name one ID, or one of --email, --phone and --organization.")

    async def deliveries(self, store: Store) -> tuple[Delivery, ...]:
        if self.reference:
            return (await one(store, self.reference),)
        return await store.concerning(addresses=self.addresses, organization_number=self.organization_number)


def _email(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    from service.addresses import mail_address  # noqa: PLC0415  # slow to import

    try:
        return (mail_address(value),)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def _phone(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    bare = re.sub(r"[\s().\-]", "", value)
    if not _TELEPHONE.fullmatch(bare):
        raise click.BadParameter("must be a telephone number with its country's code, such as +47 400 00 000")
    digits = bare.removeprefix("+").removeprefix("00")
    return (f"+{digits}", digits, f"00{digits}")


def _organization(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.search(r"[0-9]", value):
        raise click.BadParameter("must be an organisation number")
    return value


@click.command(short_help="Erase what is personal in closed deliveries, for good.")
@click.argument("reference", metavar="[ID]", required=False, callback=text)
@click.option("--email", metavar="ADDRESS", callback=_email, help="All that went to this mail address.")
@click.option("--phone", metavar="NUMBER", callback=_phone, help="All that went to this telephone number, +47...")
@click.option("--organization", metavar="NUMBER", callback=_organization, help="All that this organisation was billed.")
@click.option("--reason", callback=text, help="Why; it is recorded and stays, so name nobody.")
@click.option("--yes", "sure", is_flag=True, help="Do not ask.")
def erase(
    *,
    reference: str | None,
    email: tuple[str, ...],
    phone: tuple[str, ...],
    organization: str | None,
    reason: str | None,
    sure: bool,
) -> None:
    """Erase what is personal in closed deliveries: addresses, references and others' words, for good.

    That there was an invoice, what was done and when stays, and so does the proof of it. What is open is refused.
    """
    if email and phone:
        raise click.UsageError("Name one ID, or one of --email, --phone and --organization.")
    whom = _Whom(reference=reference, addresses=email or phone, organization_number=organization)

    async def work(store: Store) -> bool:
        found = await whom.deliveries(store)
        if not found:
            click.echo("No delivery is known by that.", err=True)
            return False
        closed = [delivery for delivery in found if delivery.outcome is not Outcome.OPEN and not delivery.erased_at]
        if closed:
            _make_sure(len(closed), sure=sure)
        erased = await _erase(store, closed, _entry(reason, whom.addresses))
        _tell(found, erased)
        return all(delivery.erased_at or delivery.id in erased for delivery in found)

    with plain_trouble():
        whole = in_record(work)
    sys.exit(0 if whole else 1)


def _entry(reason: str | None, addresses: Sequence[str]) -> Entry:
    from service.privacy import scrub  # noqa: PLC0415

    asked = request(reason)
    words = f"personal data erased by {asked.by}" + (f": {asked.reason}" if asked.reason else "")
    return Entry(at=asked.at, step=Step.OPERATOR, result=Result.ACCEPTED, detail=scrub(words, addresses))


def _make_sure(count: int, *, sure: bool) -> None:
    click.echo(f"erase: {'1 delivery' if count == 1 else f'{count} deliveries'}, for good", err=True)
    if sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on: say --yes if that is meant.")
    if not click.confirm("Go on?", err=True):
        click.echo("Nothing was done.", err=True)
        raise click.exceptions.Exit(1)


async def _erase(store: Store, closed: Sequence[Delivery], entry: Entry) -> set[str]:
    erased: set[str] = set()
    ids = [delivery.id for delivery in closed]
    for start in range(0, len(ids), _AT_ONCE):
        erased.update(await store.erase(ids[start : start + _AT_ONCE], entry))
    return erased


def _tell(found: Sequence[Delivery], erased: set[str]) -> None:
    for delivery in found:
        name = delivery.transaction_id
        if delivery.id in erased:
            click.echo(f"{name}: what was personal in it is erased.")
        elif delivery.erased_at:
            click.echo(f"{name} was erased before.")
        elif delivery.outcome is Outcome.OPEN:
            click.echo(
                f"{name} is open and was left alone: wait until it is closed, or stop it "
                f"(merchant-delivery deliveries cancel {name}), then erase again.",
                err=True,
            )
        else:
            click.echo(f"{name} is being worked on just now and was left alone: erase again in a minute.", err=True)
