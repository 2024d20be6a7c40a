"""The Store protocol over a database: each method hands a write to the writer's thread or a read to the readers'."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from service.delivery import (
    Arrival,
    Capture,
    Claim,
    Clock,
    Counts,
    Delivery,
    Entry,
    Outcome,
    Received,
    Request,
    Schedule,
    Send,
)
from service.store import claims, queries, work
from service.store.book import Book
from service.store.clock import shift
from service.store.engines import Engines
from service.store.errors import lost, unavailable
from service.store.tables import storable
from service.store.writer import Write, Writer

T = TypeVar("T")


class SqlStore:
    """The record in SQLite or PostgreSQL. `open_store` opens it."""

    def __init__(self, opened: Engines, clock: Clock, readers: ThreadPoolExecutor) -> None:
        self._engines = opened
        self._clock = clock
        self._readers = readers
        self._writer = Writer(opened, clock)

    async def close(self) -> None:
        """Finish the writes that were asked for."""
        await self._writer.close()

    async def receive(self, arrival: Arrival) -> Received:
        """As `Store.receive`; raises `ValueError` for an id with a character that a database refuses."""
        _usable(arrival.transaction_id, arrival.account_id)
        return await self._change(arrival.transaction_id, partial(work.receive, arrival=arrival))

    async def claim(self, account_id: str, lane: str, limit: int, *, lease: float, suspects: bool) -> tuple[Claim, ...]:
        """As `Store.claim`."""

        def take(book: Book) -> tuple[Claim, ...]:
            length = timedelta(seconds=lease)
            return claims.take(
                book.connection, account_id, lane, limit, lease=length, suspects=suspects, shift=book.shift
            )

        return await self._writer.write(Write(apply=take))

    async def adopt(self, account_id: str, lanes: Sequence[str]) -> int:
        """As `Store.adopt`."""
        return await self._writer.write(
            Write(apply=lambda book: claims.adopt(book.connection, account_id, lanes, book.shift))
        )

    async def renew(self, claims: Sequence[Claim], *, lease: float) -> frozenset[str]:
        """As `Store.renew`."""
        renewals = [self._change(c.delivery.id, partial(work.renew, claim=c, lease=lease)) for c in claims]
        held = await asyncio.gather(*renewals)
        return frozenset(claim.token for claim, still in zip(claims, held, strict=True) if still)

    async def save(self, claim: Claim, delivery: Delivery, schedule: Schedule, entries: Sequence[Entry] = ()) -> None:
        """As `Store.save`; raises `ValueError` for an open delivery without a due time, for nobody would look at it."""
        if delivery.outcome is Outcome.OPEN and schedule.due_in is None:
            raise ValueError("an open delivery needs a due time")
        save = partial(work.save, claim=claim, delivery=delivery, schedule=schedule, entries=entries)
        await self._change(claim.delivery.id, save)

    async def begin_send(self, claim: Claim, send: Send) -> None:
        """As `Store.begin_send`; raises `ValueError` as `receive`."""
        _usable(send.id)
        await self._change(claim.delivery.id, partial(work.begin_send, claim=claim, send=send), intents=True)

    async def settle_send(self, send: Send, entries: Sequence[Entry]) -> None:
        """As `Store.settle_send`; raises `KeyError` for an unknown delivery."""
        await self._change(send.delivery_id, partial(work.settle_send, send=send, entries=entries), intents=True)

    async def begin_capture(self, claim: Claim, capture: Capture) -> None:
        """As `Store.begin_capture`; raises `ValueError` as `receive`."""
        _usable(capture.id)
        await self._change(claim.delivery.id, partial(work.begin_capture, claim=claim, capture=capture), intents=True)

    async def settle_capture(
        self, capture: Capture, entries: Sequence[Entry], *, began_at: datetime | None = None
    ) -> None:
        """As `Store.settle_capture`; raises `KeyError` for an unknown delivery."""
        settle = partial(work.settle_capture, capture=capture, entries=entries, began_at=began_at)
        await self._change(capture.delivery_id, settle, intents=True)

    async def retry(self, delivery_id: str, request: Request) -> Delivery:
        """As `Store.retry`."""
        return await self._change(delivery_id, partial(work.retry, delivery_id=delivery_id, request=request))

    async def resend(self, delivery_id: str, request: Request) -> Delivery:
        """As `Store.resend`."""
        return await self._change(delivery_id, partial(work.resend, delivery_id=delivery_id, request=request))

    async def cancel(self, delivery_id: str, request: Request) -> Delivery:
        """As `Store.cancel`; a completed delivery stays as it is, for there is nothing left to stop."""
        return await self._change(delivery_id, partial(work.cancel, delivery_id=delivery_id, request=request))

    async def find(self, reference: str) -> tuple[Delivery, ...]:
        """As `Store.find`."""
        return await self._read(partial(queries.find, reference=reference))

    async def listing(self, *, outcomes: Sequence[Outcome] = (), limit: int | None = None) -> tuple[Delivery, ...]:
        """As `Store.listing`."""
        return await self._read(partial(queries.listing, outcomes=outcomes, limit=limit))

    async def history(self, delivery_id: str) -> tuple[Entry, ...]:
        """As `Store.history`."""
        return await self._read(partial(queries.entries, delivery_id=delivery_id))

    async def sends(self, delivery_id: str) -> tuple[Send, ...]:
        """As `Store.sends`."""
        found = await self._read(partial(queries.sends_among, ids=[delivery_id]))
        return tuple(intent.value for intent in found)

    async def captures(self, delivery_id: str) -> tuple[Capture, ...]:
        """As `Store.captures`."""
        found = await self._read(partial(queries.captures_among, ids=[delivery_id]))
        return tuple(intent.value for intent in found)

    async def counts(self) -> Counts:
        """As `Store.counts`."""
        return await self._read(partial(queries.counts, shift=shift(self._clock)))

    async def ping(self) -> None:
        """As `Store.ping`: it writes a row and commits."""
        await self._writer.write(Write(apply=work.ping))

    def _change(self, key: str, apply: Callable[[Book], T], *, intents: bool = False) -> asyncio.Future[T]:
        return self._writer.write(Write(apply=apply, key=key, intents=intents))

    async def _read(self, read: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._answered, read)

    def _answered(self, read: Callable[[Connection], T], tries: int = 2) -> T:
        try:
            with self._engines.readers.connect() as connection:
                return read(connection)
        except DBAPIError as error:
            if tries == 1 or not lost(error):
                raise unavailable(error, self._engines.secrets) from error
        return self._answered(read, tries - 1)  # the connection was an old one: a server that came back has dropped it


def _usable(*ids: str) -> None:
    if any(storable(i) != i for i in ids):
        raise ValueError("an id holds a character that a database refuses")
