"""How an operator says which deliveries are meant: by name or by a filter, the same in every command."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import click

from service.cli_frame import one
from service.delivery import ALL, Filter, Outcome, Store

_OUTCOMES = click.Choice([outcome.value for outcome in Outcome])


def text(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what no database takes: bytes that are not UTF-8, and control characters."""
    if value is not None and not value.isprintable():
        raise click.BadParameter("holds what cannot be printed")
    return value


def texts(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """As `text`, for several."""
    return tuple(said for value in values if (said := text(context, parameter, value)))


def moment(value: str, *, end: bool = False) -> datetime:
    """Read a date or an ISO time, UTC unless it names a zone; a date is its first moment, or (`end`) the next day's."""
    try:
        at = datetime.fromisoformat(value)
        is_date = at.time() == time() and at.tzinfo is None and not set("T: ") & set(value.upper())
        if is_date and end:
            at += timedelta(days=1)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is neither a date (2026-11-22) nor a time (2026-11-22T10:00+01:00)"
        ) from None


def _end(value: str) -> datetime:
    return moment(value, end=True)


_BY = (
    click.option("--outcome", "outcomes", multiple=True, type=_OUTCOMES, help="This outcome; may be given again."),
    click.option("--channel", metavar="NAME", callback=text, help="Sent by this channel."),
    click.option(
        "--since",
        type=moment,
        metavar="TIME",
        help="Received then or later: a date or an ISO time, UTC unless it says.",
    ),
    click.option("--until", type=_end, metavar="TIME", help="Received before then; a date includes that day."),
)


def filters(*reason: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options of a filter and hands it over as `chosen`.

    `reason` is what the option for the reason is called: acts have a reason of their own.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def filtered(*, outcomes: tuple[str, ...], has: str | None, channel: str | None, **others: Any) -> None:
            span = {name: others.pop(name) for name in ("since", "until")}
            wanted = tuple(Outcome(outcome) for outcome in outcomes)
            command(chosen=Filter(outcomes=wanted, reason=has or None, channel=channel or None, **span), **others)

        said = "This is somewhere in the reason, whatever its case."
        by_reason = click.option(*reason, "has", metavar="TEXT", callback=text, help=said)
        for option in reversed((_BY[0], by_reason, *_BY[1:])):
            filtered = option(filtered)
        return filtered

    return decorated


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an operator points at: references, or all that a filter means."""

    references: tuple[str, ...]
    chosen: Filter
    sure: bool

    def __post_init__(self) -> None:
        if bool(self.references) == (self.chosen != ALL):
            raise click.UsageError("Name deliveries by ID, or choose them: --outcome, --reason-has, --channel, ...")

    async def ids(self, store: Store) -> tuple[tuple[str, Outcome], ...]:
        """Return id and outcome of each, as they are now; ends the command when a reference is not one delivery's."""
        if not self.references:
            return await store.ids(self.chosen)
        named = [await one(store, reference) for reference in self.references]
        return tuple({delivery.id: (delivery.id, delivery.outcome) for delivery in named}.values())


def targeted(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the ways to say which deliveries, and hand them over as `target`."""

    @functools.wraps(command)
    def pointed(*, references: tuple[str, ...], chosen: Filter, sure: bool, **others: Any) -> None:
        command(target=Target(references=references, chosen=chosen, sure=sure), **others)

    asked = filters("--reason-has")(click.option("--yes", "sure", is_flag=True, help="Do not ask.")(pointed))
    return click.argument("references", metavar="[ID]...", nargs=-1, callback=texts)(asked)
