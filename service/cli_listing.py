"""`deliveries list`: a page as a table, or as much as is wanted as one JSON array, read page by page."""

import json
import shlex
from collections.abc import AsyncIterator

import click

from service.cli_choice import filters, text
from service.cli_frame import PROGRAM, in_record, one, plain_trouble, width
from service.delivery import Delivery, Filter, Store

_SHOWN = 50
_AT_ONCE = 500
_COMMAND = f"{PROGRAM} deliveries list"


@click.command("list")
@filters("--reason", "--reason-has")
@click.option("--limit", type=click.IntRange(min=1), help=f"At most this many.  [default: {_SHOWN}, all with --json]")
@click.option("--after", metavar="ID", callback=text, help="Go on after this delivery: the next page.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array on standard output.")
def list_(chosen: Filter, limit: int | None, after: str | None, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Show deliveries, newest first."""

    async def show(store: Store) -> None:
        last = await one(store, after) if after else None
        if as_json:
            await _array(_pages(store, chosen, limit, last))
        else:
            await _table(store, chosen, limit or _SHOWN, last)

    with plain_trouble():
        in_record(show)


async def _table(store: Store, chosen: Filter, limit: int, after: Delivery | None) -> None:
    from service.terminal import listing  # noqa: PLC0415

    found = await store.listing(chosen, limit=limit + 1, after=after)
    if not found:
        click.echo("No more deliveries." if after else "No deliveries.", err=True)
        return
    shown = found[:limit]
    click.echo(listing(shown, width=width()))
    if len(found) > limit:
        words = [*_options(chosen), *(["--limit", str(limit)] if limit != _SHOWN else [])]
        words += ["--after", shown[-1].id]
        click.echo(f"There are more: {_COMMAND} {shlex.join(words)}", err=True)


async def _pages(store: Store, chosen: Filter, limit: int | None, after: Delivery | None) -> AsyncIterator[Delivery]:
    left, last = limit, after
    while left is None or left > 0:
        most = _AT_ONCE if left is None else min(left, _AT_ONCE)
        found = await store.listing(chosen, limit=most, after=last)
        for delivery in found:
            yield delivery
        if len(found) < most:
            return
        last, left = found[-1], None if left is None else left - most


async def _array(deliveries: AsyncIterator[Delivery]) -> None:
    """Print an array as `print_json` would, without ever holding it whole."""
    from service.record_json import delivery_json  # noqa: PLC0415

    count = 0
    async for delivery in deliveries:
        item = json.dumps(delivery_json(delivery), indent=2).replace("\n", "\n  ")
        click.echo(",\n  " if count else "[\n  ", nl=False)
        click.echo(item, nl=False)
        count += 1
    click.echo("\n]" if count else "[]")


def _options(chosen: Filter) -> list[str]:
    """Return a filter as one would write it on the command line."""
    words = [word for outcome in chosen.outcomes for word in ("--outcome", outcome.value)]
    given = {
        "--reason": chosen.reason,
        "--channel": chosen.channel,
        "--since": chosen.since and chosen.since.isoformat(),
        "--until": chosen.until and chosen.until.isoformat(),
    }
    return words + [word for name, value in given.items() if value for word in (name, value)]
