"""`deliveries`: look at the record, and act on what is in it as an operator."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import click

from service.cli_frame import load, plain_trouble, print_json
from service.delivery import Delivery, Outcome, Request, Store, StoreUnavailable

_T = TypeVar("_T")
_SHOWN = 50
_DONE = {
    "retry": (Outcome.OPEN, "is tried again now."),
    "resend": (Outcome.OPEN, "will be delivered once more, if it is ours to deliver."),
    "cancel": (
        Outcome.CANCELLED,
        "is stopped here. The invoice still exists at Dintero; void it there if nobody is to pay it.",
    ),
}
_OUTCOMES = click.Choice([outcome.value for outcome in Outcome])


def _text(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what no database takes: bytes that are not UTF-8, and control characters."""
    if value is not None and not value.isprintable():
        raise click.BadParameter("holds what cannot be printed")
    return value


def _texts(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for value in values if (text := _text(context, parameter, value)))


def _address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    from service.addresses import mail_address  # noqa: PLC0415  # slow to import

    try:
        return mail_address(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.group()
def deliveries() -> None:
    """Look at the record, and act on it.

    A delivery is named by its transaction id, invoice number or merchant reference.
    """


@deliveries.command("list")
@click.option("--outcome", "outcomes", multiple=True, type=_OUTCOMES, help="Only these; may be given more than once.")
@click.option("--limit", type=click.IntRange(min=1), help=f"At most this many.  [default: {_SHOWN}, all with --json]")
@click.option("--json", "as_json", is_flag=True, help="One JSON array on standard output.")
def list_(outcomes: tuple[str, ...], limit: int | None, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Show deliveries, newest first."""
    wanted = tuple(Outcome(outcome) for outcome in outcomes)
    most = limit if limit is not None or as_json else _SHOWN
    with plain_trouble():
        found = _in_record(lambda store: store.listing(outcomes=wanted, limit=most))
    if as_json:
        from service.record_json import delivery_json  # noqa: PLC0415

        print_json([delivery_json(delivery) for delivery in found])
    elif found:
        from service.terminal import listing  # noqa: PLC0415

        click.echo(listing(found, width=_width()))
        if limit is None and len(found) == _SHOWN:
            click.echo(f"The newest {_SHOWN}; --limit shows more.", err=True)
    else:
        click.echo("No deliveries.", err=True)


@deliveries.command()
@click.argument("reference", metavar="ID", callback=_text)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def show(reference: str, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Show one delivery with its history."""
    from service.record_json import delivery_json  # noqa: PLC0415
    from service.terminal import details  # noqa: PLC0415

    async def look(store: Store) -> None:
        delivery = await _one(store, reference)
        history = await store.history(delivery.id)
        if as_json:
            print_json(delivery_json(delivery, history))
            return
        sends, captures = await store.sends(delivery.id), await store.captures(delivery.id)
        click.echo(details(delivery, history=history, sends=sends, captures=captures, width=_width()))

    with plain_trouble():
        _in_record(look)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """What an operator points at: references, or all with one of these outcomes."""

    references: tuple[str, ...]
    outcomes: tuple[str, ...]
    sure: bool

    def __post_init__(self) -> None:
        if bool(self.references) == bool(self.outcomes):
            raise click.UsageError("Name deliveries by ID, or choose them by --outcome.")


_references = click.argument("references", metavar="[ID]...", nargs=-1, callback=_texts)
_by_outcome = click.option("--outcome", "outcomes", multiple=True, type=_OUTCOMES, help="All that have this outcome.")
_because = click.option("--reason", callback=_text, help="Why; it is recorded.")
_sure = click.option("--yes", "sure", is_flag=True, help="Do not ask.")


@deliveries.command()
@_references
@_by_outcome
@_because
@_sure
def retry(references: tuple[str, ...], outcomes: tuple[str, ...], reason: str | None, sure: bool) -> None:  # noqa: FBT001
    """Take the next due step now, with a new give-up clock; reopens what is closed."""
    chosen = _Chosen(references=references, outcomes=outcomes, sure=sure)
    _act(chosen, "retry", lambda store, id_: store.retry(id_, _request(reason)))


@deliveries.command()
@_references
@_by_outcome
@click.option("--to", metavar="ADDRESS", callback=_address, help="To another address, for this delivery only.")
@_because
@_sure
def resend(
    references: tuple[str, ...],
    outcomes: tuple[str, ...],
    to: str | None,
    reason: str | None,
    sure: bool,  # noqa: FBT001
) -> None:
    """Deliver once more on purpose; reopens what is closed."""
    chosen = _Chosen(references=references, outcomes=outcomes, sure=sure)
    if to is not None and len(references) != 1:
        raise click.UsageError("--to is for one delivery.")
    _act(chosen, "resend", lambda store, id_: store.resend(id_, _request(reason, to)))


@deliveries.command()
@_references
@_by_outcome
@_because
@_sure
def cancel(references: tuple[str, ...], outcomes: tuple[str, ...], reason: str | None, sure: bool) -> None:  # noqa: FBT001
    """Stop. The invoice still exists at Dintero."""
    chosen = _Chosen(references=references, outcomes=outcomes, sure=sure)
    _act(chosen, "cancel", lambda store, id_: store.cancel(id_, _request(reason)))


def _act(chosen: _Chosen, verb: str, act: Callable[[Store, str], Awaitable[Delivery]]) -> None:
    async def run(store: Store) -> None:
        found = await _all(store, chosen)
        if not found:
            click.echo("No deliveries match; nothing was done.", err=True)
            return
        if len(found) > 1 or chosen.outcomes:
            _make_sure(found, verb, sure=chosen.sure)
        for count, delivery in enumerate(found):
            try:
                after = await act(store, delivery.id)
            except StoreUnavailable:
                click.echo(f"{count} of {len(found)} were done.", err=True)
                raise
            wanted, words = _DONE[verb]
            said = words if after.outcome is wanted else f"is {after.outcome} and stays so."
            click.echo(f"{delivery.transaction_id} {said}")

    with plain_trouble():
        _in_record(run)


def _make_sure(found: Sequence[Delivery], verb: str, *, sure: bool) -> None:
    counts = {outcome: sum(d.outcome is outcome for d in found) for outcome in Outcome}
    kinds = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    noun = "delivery" if len(found) == 1 else "deliveries"
    click.echo(f"{verb}: {len(found)} {noun} ({kinds})", err=True)
    if sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on: say --yes if that is meant.")
    if not click.confirm("Go on?", err=True):
        click.echo("Nothing was done.", err=True)
        raise click.exceptions.Exit(1)


async def _all(store: Store, chosen: _Chosen) -> tuple[Delivery, ...]:
    if chosen.outcomes:
        return await store.listing(outcomes=tuple(Outcome(outcome) for outcome in chosen.outcomes))
    named = [await _one(store, reference) for reference in chosen.references]
    return tuple({delivery.id: delivery for delivery in named}.values())


async def _one(store: Store, reference: str) -> Delivery:
    """Return the one delivery that is meant, or end with what there is instead."""
    found = await store.find(reference)
    if len(found) == 1:
        return found[0]
    if not found:
        click.echo(f"No delivery is known by {reference}.", err=True)
    else:
        from service.terminal import listing  # noqa: PLC0415

        click.echo(f"{len(found)} deliveries are known by {reference}; name one by its transaction id:", err=True)
        click.echo(listing(found, width=_width()), err=True)
    raise click.exceptions.Exit(1)


def _request(reason: str | None, to: str | None = None) -> Request:
    from datetime import UTC, datetime  # noqa: PLC0415

    from service.privacy import scrub  # noqa: PLC0415

    return Request(by=_user(), at=datetime.now(UTC), reason=scrub(reason) if reason else None, to=to)


def _user() -> str:
    """Return the name of the system user; a container may run as a number that has none."""
    import getpass  # noqa: PLC0415
    import os  # noqa: PLC0415

    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        name = ""
    return name if name and name.isprintable() else f"uid {os.getuid()}"


def _in_record(work: Callable[[Store], Awaitable[_T]]) -> _T:
    """Open the record, do the work, close it."""
    from service.settings import Need  # noqa: PLC0415

    settings = load(Need.STORE)
    from service.app import open_record  # noqa: PLC0415

    async def run() -> _T:
        async with open_record(settings) as store:
            return await work(store)

    return asyncio.run(run())


def _width() -> int | None:
    """Return the terminal's width; what is piped on is not cut."""
    import shutil  # noqa: PLC0415

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
