"""The record, which is also the queue: the only SQL in the product. SQLite or PostgreSQL, one set of statements."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from service.delivery import Clock
from service.store.engines import READERS, Engines, engines
from service.store.errors import SchemaOutdated
from service.store.record import SqlStore
from service.store.schema import bring_up, migrate, require_current
from service.store.sharing import sharing
from service.store.writer import PATIENCE

__all__ = ["SchemaOutdated", "SqlStore", "migrate", "open_store", "sharing"]


@asynccontextmanager
async def open_store(
    url: str, *, clock: Clock, migrate: bool = True, patience: float = PATIENCE
) -> AsyncIterator[SqlStore]:
    """Open the record at `url`; with `migrate` its tables are brought up to date first, one process at a time.

    Raises `StoreUnavailable`, `SchemaOutdated` (which is one) without `migrate`, and `ValueError` for a URL that is
    neither SQLite's nor PostgreSQL's. For `patience` seconds writes gather while several come at a time. On the way
    out, writes that were asked for are finished.
    """
    opened = engines(url)
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
    try:
        await asyncio.get_running_loop().run_in_executor(readers, _ready, opened, migrate)
        store = SqlStore(opened, clock, readers, patience=patience)
        try:
            yield store
        finally:
            await store.close()
    finally:
        await asyncio.to_thread(_shut, opened, readers)


def _ready(opened: Engines, mend: bool) -> None:  # noqa: FBT001 - called by position in a thread
    try:
        require_current(opened)
    except SchemaOutdated:
        if not mend:
            raise
        bring_up(opened)


def _shut(opened: Engines, readers: ThreadPoolExecutor) -> None:
    readers.shutdown()
    opened.dispose()
