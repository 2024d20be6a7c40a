"""The version of the tables: whether it is today's, and bringing it there with Alembic, which is imported only then."""

from pathlib import Path

from sqlalchemy import Connection, Text, column, func, inspect, select, table
from sqlalchemy.exc import DBAPIError

from service.delivery import StoreUnavailable
from service.store.clock import database_now
from service.store.engines import Engines, engines, unbound
from service.store.errors import SchemaOutdated, unavailable
from service.store.tables import jobs, upsert

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""All versions this program knows, oldest first: the files in migrations/versions."""

_VERSION = select(column("version_num", Text)).select_from(table("alembic_version"))
_LOCK = 0x6D65726368616E74  # any number that no other program locks: "merchant"


def migrate(url: str) -> str:
    """Bring the tables to today's version, one process at a time; return a line for a person.

    Raises `StoreUnavailable`; `ValueError` for a URL that is not one of ours.
    """
    opened = engines(url)
    try:
        return bring_up(opened)
    finally:
        opened.dispose()


def bring_up(opened: Engines) -> str:
    """Do what `migrate` says with engines that are open already."""
    try:
        if opened.file is not None:
            opened.file.parent.mkdir(parents=True, exist_ok=True)
        with opened.writer.connect() as connection, connection.begin():
            return _upgraded(connection)
    except DBAPIError as error:
        raise unavailable(error, opened.secrets) from error
    except OSError as error:
        raise StoreUnavailable(f"the database's folder cannot be created: {error.strerror}") from error


def require_current(opened: Engines) -> None:
    """Return if the tables are today's; raises `SchemaOutdated` when they are missing or old."""
    try:
        if opened.file is not None and not opened.file.exists():
            raise SchemaOutdated("there is no record in that place yet, and only `serve` and `migrate` make one")
        # The readers' engine: to look takes no lock, and neither makes a file nor needs one that can be written.
        with opened.readers.connect() as connection:
            found = _found(connection)
    except DBAPIError as error:
        raise unavailable(error, opened.secrets) from error
    except OSError as error:
        raise StoreUnavailable(f"the database's file cannot be looked at: {error.strerror}") from error
    if found is None:
        raise SchemaOutdated("the database has no tables yet")
    if found != REVISIONS[-1]:
        raise SchemaOutdated(f"the database is at version {found}, which is too old")


def _found(connection: Connection) -> str | None:
    found: str | None = None
    if inspect(connection).has_table("alembic_version"):
        found = connection.scalar(_VERSION)
    if found is not None and found not in REVISIONS:
        raise StoreUnavailable(f"the database is at version {found}, which is newer than this program")
    return found


def _upgraded(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":  # SQLite's transaction holds its write lock already
        unbound(connection)
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    found = _found(connection)
    if found == REVISIONS[-1]:
        return f"the database is at version {found}: nothing to do"
    _run_alembic(connection)
    _record_birth(connection)
    return f"the database was brought from {found or 'nothing'} to version {REVISIONS[-1]}"


def _run_alembic(connection: Connection, to: str = REVISIONS[-1]) -> None:
    from alembic import command  # noqa: PLC0415 - it takes a second to import, and is needed once per version
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    command.upgrade(config, to)


def _record_birth(connection: Connection) -> None:
    born = upsert(connection, jobs).values(name="birth", last_run_at=database_now()).on_conflict_do_nothing()
    connection.execute(born, {"shift": 0})
