"""How far a look through the provider's list has come, on a terminal."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from service.cli_frame import is_terminal, now

if TYPE_CHECKING:
    from service.reconcile import Span

_STEPS = 1000


@contextmanager
def looking(span: "Span") -> Iterator[Callable[[Iterable[datetime]], None]]:
    """Show a bar, and give what is to be told when the transactions of each page were created.

    The provider does not say how much there is, so the bar shows how much of the span has been seen.
    """
    from service.reconcile import progress  # noqa: PLC0415

    ends: list[datetime] = []  # the first and the last creation seen
    stream = sys.stderr
    with click.progressbar(length=_STEPS, label="Looking", file=stream, hidden=not is_terminal(stream)) as bar:

        def advance(created: Iterable[datetime]) -> None:
            if seen := [*ends, *created]:
                ends[:] = [min(seen), max(seen)]
            bar.update(max(0, round(progress(ends, span, now()) * _STEPS) - bar.pos))

        yield advance
        bar.update(_STEPS - bar.pos)
