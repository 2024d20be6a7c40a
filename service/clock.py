"""The machine's time, for everybody who is given a clock."""

import asyncio
from datetime import UTC, datetime, timedelta
from time import monotonic


class SystemClock:
    """Implements `service.delivery.Clock`."""

    offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class MovableClock:
    """A clock that runs with the machine's and can be moved on: for the demo, where a month may pass in a moment.

    Whoever shares it moves together: the simulated provider, the service's process, and by `offset` its database's
    clock. Who sleeps wakes up when it has been moved past the time.
    """

    def __init__(self) -> None:
        self._offset = timedelta()
        self._moved = asyncio.Event()

    @property
    def offset(self) -> timedelta:
        return self._offset

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def monotonic(self) -> float:
        return monotonic() + self._offset.total_seconds()

    async def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while True:
            moved, left = self._moved, until - self.monotonic()
            try:
                async with asyncio.timeout(left):
                    await moved.wait()
            except TimeoutError:
                return

    def advance(self, seconds: float) -> None:
        """Move on. Raises `ValueError` for less than nothing: time does not go back."""
        if seconds < 0:
            raise ValueError("a clock is not moved back")
        self._offset += timedelta(seconds=seconds)
        self._moved.set()
        self._moved = asyncio.Event()

    def set(self, at: datetime) -> None:
        """Move on to a time. Raises `ValueError` for one that has passed."""
        self.advance((at - self.now()).total_seconds())
