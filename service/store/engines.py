"""From a URL as a user writes it to two engines: one connection that writes, a few that read."""

import os
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
# And one that froze while it held a row must not hold up every process that comes to it: the server gives up waiting
# for it, and then ends it. Said in each transaction, for a pooler passes on no setting of a connection.
_BOUNDS = {"lock_timeout": "2s", "statement_timeout": "15s", "idle_in_transaction_session_timeout": "15s"}
_PATIENCE = {"connect_timeout": "5", "tcp_user_timeout": "15000", "keepalives_idle": "15", "keepalives_interval": "5"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The writer's engine (one connection), the readers', and what must not be told."""

    writer: Engine
    readers: Engine
    secrets: tuple[str, ...] = ()
    file: Path | None = None  # SQLite's; it may not exist yet

    def has_log(self) -> bool:
        """Say whether SQLite's log holds anything: pages of the file as they are now and as they were."""
        try:
            return self.file is not None and _log_of(self.file).stat().st_size > 0
        except OSError:
            return False  # there is none, or none that we could do anything about

    def empty_log(self) -> None:
        """Move SQLite's log into the file and cut it to nothing, unless others are at work just now.

        What was overwritten (an address given with `resend --to`) is in no file then. Only between transactions.
        """
        with self.writer.connect() as connection:
            driver = connection.connection.cursor()  # not the connection's own: that would begin a transaction
            driver.execute("PRAGMA busy_timeout=50")  # writes may be waiting behind this
            try:
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                driver.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000:.0f}")

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

    def engine(size: int) -> Engine:
        made = create_engine(
            url,
            connect_args=connect,
            pool_size=size,
            max_overflow=0,
            isolation_level="READ COMMITTED",
            hide_parameters=True,
        )
        event.listen(made, "begin", _bound)
        return made

    secrets = tuple({str(url.password), quote(str(url.password))}) if url.password else ()
    return Engines(writer=engine(1), readers=engine(READERS), secrets=secrets)


def _bound(connection: Connection) -> None:
    connection.exec_driver_sql(_setting(_BOUNDS))


def unbound(connection: Connection) -> None:
    """Let what follows in this transaction on PostgreSQL take as long as it takes: a migration."""
    connection.exec_driver_sql(_setting(dict.fromkeys(_BOUNDS, "0")))


def _setting(values: dict[str, str]) -> str:
    return "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in values.items())


def _sqlite(url: URL, file: Path) -> Engines:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")

    def connect(mode: str) -> Callable[[], sqlite3.Connection]:
        def connected() -> sqlite3.Connection:
            asked = {"mode": mode} | ({"immutable": "1"} if _at_rest(file) else {}) | dict(url.query)
            address = f"file:{quote(str(file))}?{urlencode(asked, doseq=True)}"
            # isolation_level None: the driver begins nothing by itself, so a read is one statement and a write says
            # BEGIN.
            return sqlite3.connect(
                address, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
            )

        return connected

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


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _at_rest(file: Path) -> bool:
    """Say whether nobody has the file open, and we could not either: SQLite wants to make a log beside it even to read.

    So it is with a record that is mounted for reading only. That nobody has it open shows by there being no log.
    """
    return file.exists() and not os.access(file.parent, os.W_OK) and not _log_of(file).exists()


def _prepare_writer(connection: sqlite3.Connection, _record: object) -> None:
    # What is overwritten is gone from the file (on PostgreSQL it is until vacuum comes by, as it does by itself).
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction that writes after it has read fails at once when another wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
