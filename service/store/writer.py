"""The one thread that writes: it commits what has gathered in one transaction and answers each caller after that."""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from service.delivery import Clock, CommitInDoubt, IntentOpen, LeaseLost, StoreUnavailable
from service.store.book import Book
from service.store.clock import shift
from service.store.engines import Engines
from service.store.errors import Again, Unknown, at_commit, lost, nobodys_fault, passing, unavailable

T = TypeVar("T")

GROUP = 256
"""The most writes in one transaction."""
_TRIES = 3
# What a write may answer its own caller with while the rest of the group is committed; it has then changed nothing.
_ANSWERS = (LeaseLost, IntentOpen, Unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Generic[T]):
    """One write. With a `key`, that delivery's row is locked (and its intents read) before any of the group is applied.

    Without one, it comes after the others and goes by the book's connection alone; it must not wait for a row's lock.
    """

    apply: Callable[[Book], T]
    key: str | None = None
    intents: bool = False


@dataclass(frozen=True, slots=True)
class _Waiting:
    write: Write[Any]
    future: asyncio.Future[Any]


class Writer:
    """The thread and its queue; start, then `write` from the event loop, then `close`."""

    def __init__(self, opened: Engines, clock: Clock) -> None:
        self._engine = opened.writer
        self._secrets = opened.secrets
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def write(self, write: Write[T]) -> asyncio.Future[T]:
        """Return the future of a write's answer, done after its commit."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Waiting(write, future))
        return future

    async def close(self) -> None:
        """Finish what was asked for and end the thread."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (group := self._gathered())[0] is not None:
            waiting = [one for one in group if one is not None]
            answers = self._answers([one.write for one in waiting])
            self._loop.call_soon_threadsafe(_tell, list(zip(waiting, answers, strict=True)))
            if group[-1] is None:
                return

    def _gathered(self) -> list[_Waiting | None]:
        """Wait for a write; return it with all that came meanwhile, or up to the word to end."""
        group = [self._queue.get()]
        while group[-1] is not None and len(group) < GROUP:
            try:
                group.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return group

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
            return [answer for write in group for answer in self._answers([write])]

    def _ours(self, error: Exception) -> Exception:
        if isinstance(error, Again):
            return StoreUnavailable(f"database: others were in the way: {error}")
        return unavailable(error, self._secrets) if isinstance(error, DBAPIError) else error

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
                    raise unavailable(error, self._secrets) from error
                raise
        return self._committed(group, tries - 1)

    def _tried(self, group: Sequence[Write[Any]]) -> list[Any]:
        with self._engine.connect() as connection:
            answers = _applied(connection, group, shift(self._clock))
            try:
                connection.commit()
            except DBAPIError as error:
                raise at_commit(error, self._secrets) from error
            return answers


def _applied(connection: Connection, group: Sequence[Write[Any]], offset: int) -> list[Any]:
    book = Book(connection, shift=offset)
    keyed = {write.key for write in group if write.key is not None}
    book.lock(keyed, with_intents={write.key for write in group if write.key is not None and write.intents})
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
