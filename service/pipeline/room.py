"""How many bytes of invoices are in memory at once: what waits for room holds none."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

HELD_PER_BYTE = 2.4
"""Bytes held for each byte of a document: itself, and the message with it in base64 with line ends."""
_REMEMBERED = 64
_MARGIN = 1.25  # how much larger than any of the last ones the next document is expected to be at most


class Place:
    """Room that is taken by one delivery."""

    def __init__(self, room: "Room", expected: int) -> None:
        self._room = room
        self.bytes = expected

    def holds(self, document: bytes) -> None:
        """Say how large the document is, once it is here: what it does not need goes to those who wait."""
        self._room.learn(self, len(document))


class Room:
    """`limit` bytes, given out in the order of asking. One that needs more than there is at all goes alone."""

    def __init__(self, *, limit: int, largest: int) -> None:
        self._limit = limit
        self._largest = largest  # bytes of a document, before any was seen
        self._taken = 0
        self._seen: deque[int] = deque(maxlen=_REMEMBERED)
        self._waiting: deque[tuple[asyncio.Future[None], Place]] = deque()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Wait for room for one more document, and keep it until the message is out of hand."""
        place = Place(self, self._charge(self._expected()))
        await self._enter(place)
        try:
            yield place
        finally:
            self._taken -= place.bytes
            self._admit()

    def learn(self, place: Place, size: int) -> None:
        """Put what a document really takes in place of what was expected."""
        self._seen.append(size)
        self._taken -= place.bytes
        place.bytes = self._charge(size)
        self._taken += place.bytes
        self._admit()

    async def _enter(self, place: Place) -> None:
        if not self._waiting and self._fits(place):
            self._taken += place.bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, place))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was let in, and will not come
                self._taken -= place.bytes
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting:
            turn, place = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
                continue
            place.bytes = self._charge(self._expected())  # more may be known of documents than when it came
            if not self._fits(place):
                return
            self._waiting.popleft()
            self._taken += place.bytes
            turn.set_result(None)

    def _fits(self, place: Place) -> bool:
        return self._taken + place.bytes <= self._limit

    def _charge(self, size: int) -> int:
        return min(round(size * HELD_PER_BYTE), self._limit)

    def _expected(self) -> int:
        return min(self._largest, round(max(self._seen) * _MARGIN)) if self._seen else self._largest
