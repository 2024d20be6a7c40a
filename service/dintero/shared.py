"""A value from far away that is fetched by one however many wait for it, and kept for a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.delivery import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched(Generic[T]):
    """A value, and for how many seconds it may be used."""

    value: T
    keep_for: float


class Shared(Generic[T]):
    """The value behind `fetch`. A failure reaches all who wait and is not kept; who gives up harms no other."""

    def __init__(self, clock: Clock, fetch: Callable[[], Awaitable[Fetched[T]]]) -> None:
        self._clock = clock
        self._fetch = fetch
        self._kept: Fetched[T] | None = None
        self._asked_at = 0.0
        self._fetching: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the value; raises what `fetch` raises."""
        if self._kept is not None and self.age() < self._kept.keep_for:
            return self._kept.value
        task = self._fetching
        if task is None or task.done():
            task = self._fetching = asyncio.create_task(self._fetch_and_keep())
            task.add_done_callback(_look_at)
        await asyncio.wait({task})  # unlike `await task`, this does not cancel it when the caller is cancelled
        return task.result()

    def age(self) -> float:
        """Return how many seconds ago the kept value was asked for."""
        return self._clock.monotonic() - self._asked_at

    def forget(self, value: T) -> None:
        """Drop the value that somebody found to be bad, unless another has taken its place."""
        if self._kept is not None and self._kept.value is value:
            self._kept = None

    async def aclose(self) -> None:
        """Stop a fetch that nobody waits for any more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    async def _fetch_and_keep(self) -> T:
        asked_at = self._clock.monotonic()
        fetched = await self._fetch()
        self._kept, self._asked_at = fetched, asked_at
        return fetched.value


def _look_at(task: asyncio.Task[T]) -> None:
    """Take note of a failure for which nobody waited any more, or asyncio would report it as lost."""
    if not task.cancelled():
        task.exception()
