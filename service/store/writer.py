"""The one thread that writes: it commits what has gathered in one transaction and answers each caller after that."""

import asyncio
import math
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from service.delivery import AlreadySent, Bounced, Clock, CommitInDoubt, IntentOpen, LeaseLost, StoreUnavailable
from service.store.book import Book
from service.store.clock import shift
from service.store.engines import Engines
from service.store.errors import (
    Again,
    RowLocked,
    Unknown,
    at_commit,
    locked,
    lost,
    nobodys_fault,
    passing,
    unavailable,
)

T = TypeVar("T")

_log = structlog.get_logger()

GROUP = 256
"""The most writes in one transaction."""
_TURNS = 2
"""Turns of the event loop that bring no further write, after which a group is committed.

A commit costs nearly as much for one write as for many, and whoever is about to write comes within a turn or two.
"""
PATIENCE = 0.02
"""Seconds for which writes that are not urgent gather beyond that, while several come at a time."""
_CROWD = 2  # writes in the last group, from which on several come at a time
_TRIES = 3
# What a write may answer its own caller with while the rest of the group is committed; it has then changed nothing.
_ANSWERS = (LeaseLost, AlreadySent, IntentOpen, Bounced, Unknown)
_QUIET = 0.1  # seconds without a write after which SQLite's log is emptied,
_TIDY_EVERY = 5.0  # and how many there are between two attempts at that


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Generic[T]):
    """One write. With a `key`, that delivery's row is locked before any of the group is applied.

    Its `sends` or `captures` are read then too, for a write that needs them. One without a key comes after the others
    and goes by the book's connection alone; it must not wait for a row's lock, unless it is a transaction of its own
    (`alone`), and locks rows in the order of their ids. Somebody outside waits for the answer to one that is `urgent`.
    """

    apply: Callable[[Book], T]
    key: str | None = None
    sends: bool = False
    captures: bool = False
    alone: bool = False
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class _Waiting:
    write: Write[Any]
    future: asyncio.Future[Any]


class Writer:
    """The thread and its queue; start, then `write` from the event loop, then `close`."""

    def __init__(self, opened: Engines, clock: Clock, patience: float) -> None:
        self._patience = patience
        self._opened = opened
        self._clock = clock
        self._wrote = False
        self._tidied = -math.inf
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._next_group: _Waiting | None = None  # one that goes alone, and came while a group was gathered
        self._coming: list[_Waiting] = []  # on the loop's side of the queue
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False  # the last group was a large one: more are likely to come at once
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def write(self, write: Write[T]) -> asyncio.Future[T]:
        """Return the future of a write's answer, done after its commit."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._coming.append(_Waiting(write, future))
        if write.urgent and self._timer is not None:
            self._timer.cancel()
            self._hand_over()
        elif len(self._coming) == 1:
            self._loop.call_soon(self._wait_for_more, 1, _TURNS)
        return future

    def _wait_for_more(self, count: int, turns: int) -> None:
        came, count = len(self._coming) > count, len(self._coming)
        if count < GROUP and turns:
            self._loop.call_soon(self._wait_for_more, count, _TURNS if came else turns - 1)
        elif self._busy and not any(one.write.urgent for one in self._coming):
            self._timer = self._loop.call_later(self._patience, self._hand_over)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._timer = None
        for one in self._coming:
            self._queue.put(one)
        self._coming.clear()

    async def close(self) -> None:
        """Finish what was asked for and end the thread."""
        self._closed = True
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (group := self._gathered())[0] is not None:
            waiting = [one for one in group if one is not None]
            self._wrote = True
            answers = self._answers([one.write for one in waiting])
            self._loop.call_soon_threadsafe(_tell, list(zip(waiting, answers, strict=True)))
            if group[-1] is None:
                break
        if self._wrote and self._opened.has_log():
            self._tidy()  # others may have the file open: then it is not emptied by closing it

    def _gathered(self) -> list[_Waiting | None]:
        """Wait for a write; return it with all that came meanwhile, or up to the word to end."""
        group: list[_Waiting | None] = [self._next_group or self._next()]
        self._next_group = None
        while (last := group[-1]) is not None and not last.write.alone and len(group) < GROUP:
            try:
                one = self._queue.get_nowait()
            except queue.Empty:
                break
            if one is not None and one.write.alone:
                self._next_group = one
                break
            group.append(one)
        self._busy = len(group) >= _CROWD
        return group

    def _next(self) -> _Waiting | None:
        while (quiet := self._quiet_for()) is not None:
            try:
                return self._queue.get(timeout=quiet)
            except queue.Empty:
                self._tidy()
        return self._queue.get()

    def _quiet_for(self) -> float | None:
        """Return how long nothing is to come before the log is emptied; None when there is nothing in it of ours."""
        if not (self._wrote and self._opened.has_log()):
            return None  # who never writes, a command that only looks, leaves the log to those who do
        return max(_QUIET, self._tidied + _TIDY_EVERY - self._clock.monotonic())

    def _tidy(self) -> None:
        self._tidied = self._clock.monotonic()
        try:
            self._opened.empty_log()
        except (sqlite3.Error, DBAPIError) as error:
            # Nothing is lost; if it is not just that others are at work, the next write meets it and says so.
            _log.debug("store.log_not_emptied", reason=type(error).__name__)

    def _answers(self, group: Sequence[Write[Any]]) -> list[Any]:
        """Commit a group; return for each write its result or the exception that its caller is to see."""
        try:
            return self._committed(group)
        except CommitInDoubt as error:
            return [CommitInDoubt(str(error)) for _ in group]
        except StoreUnavailable as error:
            return [StoreUnavailable(str(error)) for _ in group]
        except Exception as error:  # noqa: BLE001 - one of them is guilty, and is told; the thread lives on
            if len(group) == 1:
                return [self._ours(error)]
            return self._one_by_one(group)

    def _one_by_one(self, group: Sequence[Write[Any]]) -> list[Any]:
        """Commit each alone. A row that another holds is waited for once, not by each write that is about it."""
        answers: list[Any] = []
        held: dict[str, str] = {}
        for write in group:
            if write.key in held:
                answers.append(RowLocked(held[write.key]))
                continue
            (answer,) = self._answers([write])
            if isinstance(answer, RowLocked) and write.key is not None:
                held[write.key] = str(answer)
            answers.append(answer)
        return answers

    def _ours(self, error: Exception) -> Exception:
        if isinstance(error, Again):
            return StoreUnavailable(f"database: others were in the way: {error}")
        if not isinstance(error, DBAPIError):
            return error
        told = unavailable(error, self._opened.secrets)
        return RowLocked(str(told)) if locked(error) else told

    def _committed(self, group: Sequence[Write[Any]], tries: int = _TRIES) -> list[Any]:
        """Try a group until nobody is in its way. Nothing is written before the commit, so each try is as the first."""
        try:
            return self._tried(group)
        except Again:
            if tries == 1:
                raise
        except DBAPIError as error:
            if tries == 1 or not (passing(error) or lost(error)):
                if nobodys_fault(error):
                    raise unavailable(error, self._opened.secrets) from error
                raise
        return self._committed(group, tries - 1)

    def _tried(self, group: Sequence[Write[Any]]) -> list[Any]:
        with self._opened.writer.connect() as connection:
            answers = _applied(connection, group, shift(self._clock))
            try:
                connection.commit()
            except DBAPIError as error:
                raise at_commit(error, self._opened.secrets) from error
            return answers


def _applied(connection: Connection, group: Sequence[Write[Any]], offset: int) -> list[Any]:
    book = Book(connection, shift=offset)
    keyed = {write.key for write in group if write.key is not None}
    book.lock(
        keyed,
        with_sends={write.key for write in group if write.key is not None and write.sends},
        with_captures={write.key for write in group if write.key is not None and write.captures},
    )
    answers: list[Any] = [_answer(write, book) if write.key is not None else None for write in group]
    book.flush()
    for index, write in enumerate(group):
        if write.key is None:
            answers[index] = write.apply(book)
    return answers


def _answer(write: Write[T], book: Book) -> T | Exception:
    try:
        return write.apply(book)
    except _ANSWERS as error:
        return error


def _tell(told: Sequence[tuple[_Waiting, Any]]) -> None:
    for waiting, answer in told:
        if waiting.future.done():  # its caller has gone
            continue
        if isinstance(answer, Exception):
            waiting.future.set_exception(answer)
        else:
            waiting.future.set_result(answer)
