"""What tests of several modules need: both databases, a store on each of them, and an environment without our settings."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from service.store import SqlStore, migrate, open_store
from tests.fakes import MovedClock
from tests.postgres import running_server

DATABASES = ("sqlite", "postgresql")
_numbers = count(1)


@pytest.fixture(scope="session", autouse=True)
def _no_settings() -> Iterator[None]:
    """Take the caller's own settings away: no test may use them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DELIVERY_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server's own database; `database_url` gives a fresh one on it to each test."""
    with running_server() as folder:
        yield f"postgresql://postgres@/postgres?host={folder}"


@pytest.fixture(scope="session")
def postgres_admin(postgres_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def postgres_template(postgres_admin: psycopg.Connection, postgres_url: str) -> str:
    """The name of a database with today's tables and nothing in them."""
    postgres_admin.execute("CREATE DATABASE template_of_tests")
    migrate(postgres_url.replace("/postgres?", "/template_of_tests?"))
    return "template_of_tests"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{file}")
    return file


def _fresh(request: pytest.FixtureRequest, tmp_path: Path, *, empty: bool) -> Iterator[str]:
    """Yield the URL of a database of this test's own; only what is asked for is started."""
    if request.param == "sqlite":
        file = tmp_path / "deliveries.db"
        if not empty:
            shutil.copy(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
        return
    admin: psycopg.Connection = request.getfixturevalue("postgres_admin")
    template = "template0" if empty else request.getfixturevalue("postgres_template")
    name = f"test_{next(_numbers)}"
    admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield request.getfixturevalue("postgres_url").replace("/postgres?", f"/{name}?")
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of either kind, of this test's own, with today's tables."""
    yield from _fresh(request, tmp_path, empty=False)


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The same before its first migration; the SQLite file does not exist yet."""
    yield from _fresh(request, tmp_path, empty=True)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def store(database_url: str, clock: MovedClock) -> AsyncIterator[SqlStore]:
    async with open_store(database_url, clock=clock, migrate=False) as opened:
        yield opened
