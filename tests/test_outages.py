"""Databases that break under a service at work: callbacks are put off meanwhile, and nothing is lost or doubled."""

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2 as httpx
import psycopg
import pytest

from service.clock import SystemClock
from service.delivery import Arrival, Received, StoreUnavailable
from service.simulator.deeds import Behaviour, Phase
from service.store import open_store
from tests.fakes import ACCOUNT
from tests.outside import HELD, Outside, an_hour_passes, open_outside, record, until
from tests.postgres import Server, installed_server
from tests.processes import Running
from tests.stage import open_stage


async def readiness(outside: Outside) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return (await client.get(f"{outside.url}/readyz")).status_code


@asynccontextmanager
async def an_outage(outside: Outside, name: str, begin: Callable[[], object]) -> AsyncIterator[None]:
    """Begin it while a mail is on its way; it is to be ended inside of the context.

    The mail is accepted while nobody can write that down, and the callback of one more sale meets the outage.
    """
    under_way = await outside.keep(f"{name} under way", Phase.CONTENT, Behaviour(delay=HELD))
    await asyncio.to_thread(begin)
    outside.gate.open()
    met = outside.sell(f"{name} met")
    assert await readiness(outside) == 503
    await until(lambda: 503 in outside.told(met))
    yield
    await outside.settled([under_way, met])
    assert outside.told(met)[-1] == 200
    assert await readiness(outside) == 200
    assert len(outside.copies(f"{name} under way")) == 1
    assert len(outside.copies(f"{name} met")) == 1


# --- SQLite, two processes --------------------------------------------------------------------------------------------


@contextmanager
def write_lock(database_url: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(
        database_url.removeprefix("sqlite:///"), timeout=20, isolation_level=None, check_same_thread=False
    )
    try:
        yield connection
    finally:
        connection.close()


def no_more_than(size: int, *processes: Running) -> None:
    """Let no file of these processes grow beyond a size in bytes; -1 for as they like."""
    for running in processes:
        _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (size, hard))


async def test_a_file_that_two_processes_share(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        open_outside(sqlite_url, tmp_path) as outside,
        outside.working() as worker,
        outside.serving("--no-worker") as front,
    ):
        with write_lock(sqlite_url) as other:
            async with an_outage(outside, "lock", lambda: other.execute("BEGIN IMMEDIATE")):
                other.execute("ROLLBACK")
        # A full disk, as far as a process can tell: what is written comes to an end in the midst of a page.
        async with an_outage(outside, "disk", lambda: no_more_than(6000, front, worker)):
            no_more_than(-1, front, worker)
        await outside.judge()


async def test_a_full_file_puts_callbacks_off(sqlite_url: str) -> None:
    async with open_store(sqlite_url, clock=SystemClock()) as store:
        with store._engines.writer.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")
        answers = await asyncio.gather(*(store.receive(arrival(n)) for n in range(400)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
        assert refused
        assert "full" in str(refused[0])
        assert len(refused) + answers.count(Received.NEW) == 400
        with store._engines.writer.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages * 100}")
        again = await asyncio.gather(*(store.receive(arrival(n)) for n in range(400)))
        assert again.count(Received.NEW) == len(refused)


def arrival(number: int) -> Arrival:
    return Arrival(account_id=ACCOUNT, transaction_id=f"{ACCOUNT}.{number}", at=SystemClock().now())


async def test_a_file_that_can_only_be_read_puts_callbacks_off(sqlite_url: str) -> None:
    async with open_stage(f"{sqlite_url}?mode=ro") as stage:
        stage.sell()
        await stage.running.caller.idle()
        assert {attempt.status for attempt in stage.running.caller.attempts} == {503}
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{stage.url}/readyz")).status_code == 503


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with installed_server() as server:
        server.start()
        yield server


def read_only(url: str, *, on: bool) -> None:
    with record(url) as execute:
        execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        execute("SELECT pg_reload_conf()")


def cut(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'merchant-delivery' AND pid <> pg_backend_pid()"
        )
        return len(ended.fetchall())


async def test_a_server_that_is_cut_off_read_only_and_restarted(server: Server, tmp_path: Path) -> None:
    url = f"postgresql://postgres@/postgres?host={server.folder}"
    async with open_outside(url, tmp_path) as outside, outside.serving():
        load = asyncio.create_task(sell_on(outside))
        for _ in range(8):
            await asyncio.sleep(0.1)
            while not await asyncio.to_thread(cut, url):
                await asyncio.sleep(0.02)
        async with an_outage(outside, "read-only", lambda: read_only(url, on=True)):
            await asyncio.to_thread(read_only, url, on=False)
        async with an_outage(outside, "restart", server.crash):
            await asyncio.to_thread(server.start)
        load.cancel()
        # What could not be begun, or saved, is taken up again when its lease ends.
        await asyncio.to_thread(an_hour_passes, url, outside.sold)
        await outside.settled()
        await outside.judge()


async def sell_on(outside: Outside) -> None:
    number = 0
    while True:
        outside.sell(f"buyer {number}")
        number += 1
        await asyncio.sleep(0.15)
