"""From a URL as a user writes it to two engines: one connection that writes, a few that read."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from service.delivery import StoreUnavailable

READERS = 4
_BUSY_SECONDS = 1.0  # each of the writer's tries waits so long for another process to finish writing
_OLDEST_SQLITE = (3, 35)  # RETURNING
# A host that went silent must not hold every callback for the quarter of an hour that the system would wait.
_PATIENCE = {"connect_timeout": "5", "tcp_user_timeout": "15000", "keepalives_idle": "15", "keepalives_interval": "5"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The writer's engine (one connection), the readers', and what must not be told."""

    writer: Engine
    readers: Engine
    secrets: tuple[str, ...] = ()
    file: Path | None = None  # SQLite's; it may not exist yet

    def dispose(self) -> None:
        """Close all connections, the writer's last: it is the one that may move SQLite's log into the file."""
        self.readers.dispose()
        self.writer.dispose()


def engines(url: str) -> Engines:
    """Return the engines for `url`, with nothing opened. Raises `ValueError` (never quoting the URL) for another one.

    `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user:password@host/name`; SQLite's own URI
    parameters and libpq's are passed on.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("the database URL cannot be read") from None
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return _sqlite(parsed, Path(parsed.database))
        case "postgresql" | "postgres":
            return _postgresql(parsed)
    raise ValueError("the database URL must begin with sqlite:/// and a file, or with postgresql://")


def _postgresql(url: URL) -> Engines:
    url = url.set(drivername="postgresql+psycopg")
    arguments = {
        "application_name": "merchant-delivery",
        **_PATIENCE,
    }
    # Prepared statements do not survive a pooler that changes the server between transactions.
    connect = {k: v for k, v in arguments.items() if k not in url.query} | {"prepare_threshold": None}

    def engine(size: int, isolation: str) -> Engine:
        return create_engine(
            url,
            connect_args=connect,
            pool_size=size,
            max_overflow=0,
            isolation_level=isolation,
            hide_parameters=True,
        )

    secrets = tuple({str(url.password), quote(str(url.password))}) if url.password else ()
    return Engines(writer=engine(1, "READ COMMITTED"), readers=engine(READERS, "AUTOCOMMIT"), secrets=secrets)


def _sqlite(url: URL, file: Path) -> Engines:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")

    def connect(mode: str) -> Callable[[], sqlite3.Connection]:
        address = f"file:{quote(str(file))}?{urlencode({'mode': mode, **url.query}, doseq=True)}"
        # isolation_level None: the driver begins nothing by itself, so a read is one statement and a write says BEGIN.
        return lambda: sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
        )

    def engine(size: int, mode: str) -> Engine:
        return create_engine(
            "sqlite+pysqlite://",
            creator=connect(mode),
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            hide_parameters=True,
        )

    # A connection that may only read never checkpoints, not at its close either.
    writer, readers = engine(1, "rwc"), engine(READERS, "ro")
    event.listen(writer, "connect", _prepare_writer)
    event.listen(writer, "begin", _begin_immediate)
    return Engines(writer=writer, readers=readers, file=file)


def _prepare_writer(connection: sqlite3.Connection, _record: object) -> None:
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction that writes after it has read fails at once when another wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
