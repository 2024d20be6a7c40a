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
