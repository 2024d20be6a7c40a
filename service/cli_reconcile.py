"""`reconcile`: look for missed callbacks by hand, and release what is held."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import click

from service.cli_choice import moment
from service.cli_frame import load, now, plain_trouble, print_json, request, width
from service.cli_progress import looking
from service.delivery import DeliveryFailure

if TYPE_CHECKING:
    from service.delivery import Request
    from service.reconcile import Found, Meaning, Span
    from service.settings import Settings


class _Reconciler(Protocol):
    """What `app.open_reconciler` opens, as far as it is needed here."""

    def look(self, span: "Span") -> AsyncIterator[tuple["Found", ...]]: ...

    async def enter(self, found: Sequence["Found"]) -> int: ...

    async def release(self, found: Sequence["Found"], request: "Request") -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """How the command was given."""

    since: datetime | None
    dry_run: bool
    sure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What a look has found: how often each meaning, and those that a person will want to see."""

    since: datetime
    counts: dict["Meaning", int]
    found: tuple["Found", ...]

    @property
    def held(self) -> tuple["Found", ...]:
        return tuple(one for one in self.found if one.holds is not None)


@click.command(short_help="Look for callbacks that never came.")
@click.option(
    "--since",
    metavar="DATE",
    type=moment,
    help="What was created then or later: a date or an ISO time, UTC unless it says.  [default: 24 hours ago]",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", "sure", is_flag=True, help="With --since: release all that is held, without asking.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def reconcile(since: datetime | None, dry_run: bool, sure: bool, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Look for callbacks that never came, as the worker does every RECONCILE_EVERY seconds.

    Goes through Dintero's list of transactions, and enters into the record those that nobody told us of; a worker then
    takes them up.

    An invoice that is older than the record, or whose collection had begun before the record knew of it, is held and
    not sent: the customer may have it. --since DATE, on a terminal, asks whether to release those created since
    then, and --yes says so without asking; they are sent, and captured if they are not. Without a terminal and without
    --yes they are listed and stay held. Before you release, find out whether the customers have their invoices.
    """
    if sure and since is None:
        raise click.UsageError("--yes releases what is held, and needs --since: from when on?")
    if since is not None and since > now():
        raise click.UsageError("--since lies ahead.")
    asked = _Asked(since=since, dry_run=dry_run, sure=sure)
    with plain_trouble():
        from service.settings import Need  # noqa: PLC0415

        settings = load(Need.SERVE)
        try:
            asyncio.run(_run(settings, asked, as_json=as_json))
        except DeliveryFailure as failure:
            click.echo(f"{failure.reason}. What was entered before stays; run it again.", err=True)
            raise click.exceptions.Exit(1) from None


async def _run(settings: "Settings", asked: _Asked, *, as_json: bool) -> None:
    from service.app import open_reconciler  # noqa: PLC0415
    from service.reconcile import RECENT  # noqa: PLC0415
    from service.record_json import time_text  # noqa: PLC0415

    since = asked.since or now() - RECENT
    async with open_reconciler(settings) as reconciler:
        looked = await _look(reconciler, since, enters=not asked.dry_run)
        if not as_json:
            _show(looked, dry_run=asked.dry_run)
        release = bool(looked.held) and not asked.dry_run and asked.since is not None
        release = release and (asked.sure or _agreed(looked, asks=not as_json))
        if release:
            await reconciler.release(looked.held, request(f"reconcile --since {time_text(looked.since)}"))
    if as_json:
        print_json(_json(looked, dry_run=asked.dry_run, released=release))
    elif looked.held:
        _say_of_held(looked, asked, released=release)


async def _look(reconciler: _Reconciler, since: datetime, *, enters: bool) -> _Looked:
    from service.reconcile import Meaning, Span  # noqa: PLC0415

    span = Span(since=since)
    counts = dict.fromkeys(Meaning, 0)
    shown: list[Found] = []
    with looking(span) as advance:
        async for page in reconciler.look(span):
            if enters:
                await reconciler.enter(page)
            for one in page:
                counts[one.meaning] += 1
            shown += [one for one in page if one.meaning in (Meaning.MISSED, Meaning.VOIDED, Meaning.HELD)]
            advance([one.transaction.created_at for one in page if one.transaction.created_at is not None])
    return _Looked(since=since, counts=counts, found=tuple(shown))


def _agreed(looked: _Looked, *, asks: bool) -> bool:
    """Ask whether to release, where there is somebody to ask."""
    if not asks or not sys.stdin.isatty():
        return False
    return click.confirm(f"Release {_invoices(len(looked.held))}, so that they are sent?", err=True)


def _show(looked: _Looked, *, dry_run: bool) -> None:
    from service.record_json import time_text  # noqa: PLC0415
    from service.terminal import table  # noqa: PLC0415

    if looked.found:
        rows = [
            (
                one.transaction.id,
                time_text(one.transaction.created_at) or "-",
                one.transaction.invoice_number or "-",
                _words(one, dry_run=dry_run),
            )
            for one in looked.found
        ]
        click.echo(table(("TRANSACTION", "CREATED", "INVOICE", "FOUND"), rows, width=width()))
    counts = ", ".join(f"{count} {name.value.replace('_', ' ')}" for name, count in looked.counts.items() if count)
    total = sum(looked.counts.values())
    noun = "transaction" if total == 1 else "transactions"
    click.echo(f"{total} {noun} created since {time_text(looked.since)}{': ' if counts else '.'}{counts}")


def _words(found: "Found", *, dry_run: bool) -> str:
    from service.reconcile import Meaning  # noqa: PLC0415

    if found.meaning is Meaning.HELD:
        return found.holds or "held"
    if found.meaning is Meaning.VOIDED:
        return "voided since it was delivered; " + ("would be looked at again" if dry_run else "is looked at again")
    entered = "would be entered" if dry_run else "entered"
    return f"{entered}, {'and ' if dry_run else 'will be '}{found.holds}" if found.holds else entered


def _say_of_held(looked: _Looked, asked: _Asked, *, released: bool) -> None:
    count = _invoices(len(looked.held))
    if released:
        click.echo(f"Released {count}; a worker sends them.", err=True)
    elif asked.since is None:
        click.echo(f"{count} held and not sent; `reconcile --since DATE` releases them.", err=True)
    else:
        click.echo(f"{count} held and not sent; --yes releases them.", err=True)


def _invoices(count: int) -> str:
    return "1 invoice" if count == 1 else f"{count} invoices"


def _json(looked: _Looked, *, dry_run: bool, released: bool) -> dict[str, Any]:
    from service.record_json import time_text  # noqa: PLC0415

    return {
        "since": time_text(looked.since),
        "dry_run": dry_run,
        "counts": {name.value: count for name, count in looked.counts.items()},
        "found": [
            {
                "transaction_id": one.transaction.id,
                "created_at": time_text(one.transaction.created_at),
                "invoice_number": one.transaction.invoice_number,
                "found": one.meaning.value,
                "held": one.holds,
                "released": released and one.holds is not None,
            }
            for one in looked.found
        ],
    }
