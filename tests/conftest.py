"""What tests of several modules need: both databases, a store on each, and an environment without our settings."""

import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
import structlog
from hypothesis import settings

from service.store import SqlStore, migrate, open_store
from service.store.tables import jobs, metadata
from tests.fakes import MovedClock
from tests.postgres import running_server
from tests.workbench import Bench, open_bench

# How long an example takes says more about the machine than about the code.
settings.register_profile("delivery", deadline=None)
settings.load_profile("delivery")

DATABASES = ("sqlite", "postgresql")
_numbers = count(1)


@pytest.fixture(scope="session", autouse=True)
def _no_settings() -> Iterator[None]:
    """Take the caller's own settings away: no test may use them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DELIVERY_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Let the commands that tests start hear Ctrl-C: who is started in the background of a shell does not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server's own database."""
    with running_server() as folder:
        yield f"postgresql://postgres@/postgres?host={folder}"


@pytest.fixture(scope="session")
def postgres_admin(postgres_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def postgres_database(postgres_admin: psycopg.Connection, postgres_url: str) -> str:
    """The URL of a database with today's tables, which each test finds empty: creating one takes longer than a test."""
    postgres_admin.execute("CREATE DATABASE tests")
    url = postgres_url.replace("/postgres?", "/tests?")
    migrate(url)
    return url


def emptied(url: str) -> str:
    tables = ", ".join(table.name for table in metadata.sorted_tables if table is not jobs)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
        connection.execute("DELETE FROM jobs WHERE name <> 'birth'")
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite file of this test's own with today's tables, empty."""
    file = tmp_path / "deliveries.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """A database of either kind with today's tables, empty. Only what is asked for is started."""
    if request.param == "postgresql":
        return emptied(request.getfixturevalue("postgres_database"))
    return str(request.getfixturevalue("sqlite_url"))


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of this test's own before its first migration; the SQLite file does not exist yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new' / 'deliveries.db'}"
        return
    admin: psycopg.Connection = request.getfixturevalue("postgres_admin")
    name = f"test_{next(_numbers)}"
    admin.execute(f"CREATE DATABASE {name}")
    yield request.getfixturevalue("postgres_url").replace("/postgres?", f"/{name}?")
    admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Take down the log that a command set up inside a test, or later tests would not see theirs."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture
def record_url(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty record that commands find when they run inside the test; the log that they set up is taken down."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELIVERY_DATABASE_URL", sqlite_url)
    yield sqlite_url
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def store(database_url: str, clock: MovedClock) -> AsyncIterator[SqlStore]:
    async with open_store(database_url, clock=clock, migrate=False, patience=0) as opened:
        yield opened


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One service without its edges, on SQLite."""
    async with open_bench(f"sqlite:///{tmp_path}/d.db") as opened:
        yield opened
