"""Our own small fakes, for all tests."""

from datetime import UTC, datetime, timedelta


class MovedClock:
    """A clock that runs with the machine's but can be moved on; sleeping moves it."""

    def __init__(self) -> None:
        self._offset = timedelta()

    @property
    def offset(self) -> timedelta:
        return self._offset

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def monotonic(self) -> float:
        return self.now().timestamp()

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._offset += timedelta(seconds=seconds)
