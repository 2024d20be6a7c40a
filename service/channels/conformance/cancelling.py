"""Cancelling a coroutine exactly where it waits for the n-th time, so that each of its awaits can be tried."""

import asyncio
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class CancelledAt(Generic[T]):
    """An awaitable whose task is cancelled when it waits for the `nth` time (from 1), as from outside."""

    of: Awaitable[T]
    nth: int
    waits: int = 0

    def __await__(self) -> Generator[Any, Any, T]:
        """Run it, and count its waits."""
        inner = self.of.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                waited_for = inner.send(None) if thrown is None else inner.throw(thrown)
            except StopIteration as done:
                result: T = done.value
                return result
            self.waits += 1
            if self.waits == self.nth:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            thrown = None
            try:
                yield waited_for
            except BaseException as exc:  # noqa: BLE001  # passed on to whom it is meant for
                thrown = exc


async def cancelled_at(of: Awaitable[T], nth: int) -> T | None:
    """Return the result of one that waits less often than `nth` times, None when it was cancelled there.

    Raises `AssertionError` when it went on all the same.
    """
    watched = CancelledAt(of, nth)

    async def run() -> T:
        return await watched

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return None
    failed = task.exception()
    became = "swallows" if failed is None else f"makes a {type(failed).__name__} of"
    assert watched.waits < nth, f"it {became} a cancellation at its await {nth}: let CancelledError pass"
    return task.result()
