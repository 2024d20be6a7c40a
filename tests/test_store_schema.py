"""Opening and migrating: URLs as users write them, several processes at once, tables that are missing, old or newer."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select

from service.delivery import Received, Store, StoreUnavailable
from service.store import SchemaOutdated, SqlStore, migrate, open_store, schema
from service.store.engines import engines
from service.store.tables import deliveries, jobs, metadata
from tests.fakes import MovedClock
from tests.store_values import AT, arrival, near

ROOT = Path(__file__).parent.parent

NEWEST = schema.REVISIONS[-1]


def typed(store: SqlStore) -> Store:
    return store  # that it is one is the type checker's to say


async def test_the_first_opening_makes_the_tables(empty_database_url: str, clock: MovedClock) -> None:
    async with open_store(empty_database_url, clock=clock) as store:
        assert await typed(store).receive(arrival()) is Received.NEW
    assert migrate(empty_database_url) == f"the database is at version {NEWEST}: nothing to do"
    async with open_store(empty_database_url, clock=clock, migrate=False) as store:
        assert len(await store.listing()) == 1


async def test_the_record_knows_when_it_was_begun(empty_database_url: str, clock: MovedClock) -> None:
    def born() -> datetime:
        with opened.readers.connect() as connection:
            found: datetime = connection.execute(select(jobs.c.last_run_at).where(jobs.c.name == "birth")).scalar_one()
            return found

    assert migrate(empty_database_url) == f"the database was brought from nothing to version {NEWEST}"
    opened = engines(empty_database_url)
    with opened.writer.connect():
        first = born()
        assert near(first, clock.now(), within=60)
        migrate(empty_database_url)
        assert born() == first
    opened.dispose()


async def test_missing_tables_are_named_when_they_may_not_be_made(empty_database_url: str, clock: MovedClock) -> None:
    with pytest.raises(SchemaOutdated, match="run `merchant-delivery migrate`"):
        async with open_store(empty_database_url, clock=clock, migrate=False):
            pass
    file = engines(empty_database_url).file
    assert file is None or not file.exists()


async def test_to_look_at_a_record_takes_no_lock_and_makes_no_file(sqlite_url: str, clock: MovedClock) -> None:
    async with open_store(sqlite_url, clock=clock) as writing:
        await writing.receive(arrival())
        with writing._engines.writer.connect() as connection:
            connection.exec_driver_sql("SELECT 1")  # begins, and so holds the write lock
            async with open_store(sqlite_url, clock=clock, migrate=False) as looking:
                assert len(await looking.listing()) == 1
                assert "Connections in pool: 0" in looking._engines.writer.pool.status()  # none was opened
    missing = sqlite_url.replace("deliveries.db", "other.db")
    with pytest.raises(SchemaOutdated, match="there is no record in that place yet"):
        async with open_store(missing, clock=clock, migrate=False):
            pass
    file = engines(missing).file
    assert file is not None
    assert not file.exists()


LOOK = """
import asyncio, os, sys
from service.clock import SystemClock
from service.store import SchemaOutdated, open_store
from service.store.engines import engines

async def look(url):
    async with open_store(url, clock=SystemClock(), migrate=False) as store:
        print(len(await store.listing()))

engines(sys.argv[1])  # imports what only root may be able to read here
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(look(sys.argv[1]))
"""


async def look(url: str) -> str:
    """Return what a user sees who may write neither the file nor its folder."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOOK, url, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, complaint = await started.communicate()
    assert started.returncode == 0, complaint
    return out.decode().strip()


@contextmanager
def for_reading_only(folder: Path) -> Iterator[list[str]]:
    """Close a folder to writing; yields the names of its files."""
    folder.chmod(0o555)
    yield [file.name for file in folder.iterdir()]
    folder.chmod(0o755)


async def test_a_record_that_may_only_be_read_can_be_looked_at(clock: MovedClock) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        url = f"sqlite:///{name}/deliveries.db"
        async with open_store(url, clock=clock) as store:
            await store.receive(arrival(1))
            with for_reading_only(Path(name)) as files:
                assert "deliveries.db-wal" in files
                assert await look(url) == "1"
            await store.receive(arrival(2))
        with for_reading_only(Path(name)) as files:
            assert files == ["deliveries.db"]
            assert await look(url) == "2"


async def test_three_processes_migrate_at_once(empty_database_url: str) -> None:
    code = "import sys; from service.store import migrate; print(migrate(sys.argv[1]))"
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, empty_database_url, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    said = [await process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert sorted(out.decode().split()[2] for out, _ in said) == ["is", "is", "was"]


def test_a_migration_takes_as_long_as_it_takes(postgres_database: str) -> None:
    """And waits as long for the process that is at it: no limit that other transactions have ends it."""
    opened = engines(postgres_database)
    with opened.writer.connect() as connection, connection.begin():
        schema._upgraded(connection)
        names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        assert [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names] == ["0", "0", "0"]
    opened.dispose()


async def test_an_older_and_a_newer_version_are_told_apart(
    empty_database_url: str, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty_database_url)
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))
    with pytest.raises(SchemaOutdated, match=f"version {NEWEST}, which is too old"):
        async with open_store(empty_database_url, clock=clock, migrate=False):
            pass
    monkeypatch.setattr(schema, "REVISIONS", ("0000",))
    with pytest.raises(StoreUnavailable, match=f"version {NEWEST}, which is newer than this program") as raised:
        async with open_store(empty_database_url, clock=clock):
            pass
    assert not isinstance(raised.value, SchemaOutdated)


def test_the_migrations_make_the_tables_as_they_are_declared(empty_database_url: str) -> None:
    migrate(empty_database_url)
    opened = engines(empty_database_url)
    with opened.writer.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    opened.dispose()
    versions = ScriptDirectory(str(ROOT / "service" / "store" / "migrations")).walk_revisions()
    assert tuple(reversed([version.revision for version in versions])) == schema.REVISIONS


def test_whose_turn_it_was_is_known_after_an_upgrade(empty_database_url: str, tmp_path: Path) -> None:
    """By 0005 a turn was the channel's that was sent by last; what had none yet begins one."""
    row = {"account_id": "T12345678", "kind": "invoice", "outcome": "open", "lane": "email", "received_at": AT}
    (tmp_path / "new").mkdir()  # where SQLite's file is to be
    opened = engines(empty_database_url)
    with opened.writer.connect() as connection, connection.begin():
        schema._run_alembic(connection, "0005")
        for id_, channel in (("sent", "email"), ("new", None)):
            values = row | {"id": id_, "transaction_id": id_, "channel": channel, "channel_since": channel and AT}
            connection.execute(insert(deliveries).values(values))
        schema._run_alembic(connection)
        turns = connection.execute(select(deliveries.c.id, deliveries.c.turn).order_by(deliveries.c.id)).all()
    opened.dispose()
    assert [tuple(row) for row in turns] == [("new", None), ("sent", "email")]


@pytest.mark.parametrize(
    "url",
    [
        "mysql://kari:hemmelig@host/name",
        "sqlite://",
        "sqlite:///:memory:",
        "hemmelig",
        "postgresql://kari:hemmelig@h:p/n",
    ],
)
def test_other_urls_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="database URL") as raised:
        migrate(url)
    assert "hemmelig" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_a_relative_file_is_made_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: MovedClock
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store("sqlite:///data/ordinær 100%25 #1.db", clock=clock) as store:
        await store.ping()
    assert (tmp_path / "data" / "ordinær 100% #1.db").stat().st_size > 0


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path, clock: MovedClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="folder"):
        async with open_store(f"sqlite:///{tmp_path}/file/deliveries.db", clock=clock):
            pass


def test_importing_the_store_does_not_import_alembic() -> None:
    code = "import sys, service.store; sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
