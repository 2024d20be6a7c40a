"""What may not stay: an address that was given with `resend --to`, in any of SQLite's files."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from service.store import SqlStore, open_store
from tests.fakes import MovedClock
from tests.store_values import CLOSED, NEVER, arrival, claim_all, request

ADDRESS = "someone-else@nordmann.example"


def holders(folder: Path) -> list[str]:
    return [file.name for file in sorted(folder.iterdir()) if ADDRESS.encode() in file.read_bytes()]


def log_of(folder: Path) -> Path:
    return folder / "deliveries.db-wal"


async def resent(store: SqlStore, number: int) -> None:
    await store.receive(arrival(number))
    await store.resend(arrival(number).transaction_id, request("parcel " * (number % 9), to=ADDRESS))


async def completed(store: SqlStore) -> None:
    """Complete what is due, in no order and with rows that grow, so that pages are split and moved about."""
    claims = list(await claim_all(store))
    mixed = random.Random(3)
    mixed.shuffle(claims)
    for claim in claims:
        long = "r" * mixed.randrange(900)
        await store.save(claim, replace(claim.delivery, **CLOSED, reason=long), NEVER)


@pytest.mark.parametrize("number", [1, 300])
async def test_no_file_holds_the_address_after_the_log_was_emptied_nor_after_the_end(
    sqlite_url: str, tmp_path: Path, clock: MovedClock, number: int
) -> None:
    async with open_store(sqlite_url, clock=clock) as store:
        for each in range(number):
            await resent(store, each)
        store._engines.empty_log()
        assert holders(tmp_path) == ["deliveries.db"]
        await completed(store)
        assert log_of(tmp_path).name in holders(tmp_path)
        store._engines.empty_log()
        assert holders(tmp_path) == []
        await resent(store, number)
        await completed(store)
        assert holders(tmp_path)
    assert holders(tmp_path) == []
    assert not log_of(tmp_path).exists()


async def test_the_log_is_emptied_in_a_quiet_moment(sqlite_url: str, tmp_path: Path, clock: MovedClock) -> None:
    async with open_store(sqlite_url, clock=clock) as store:
        for turn in range(3):
            await resent(store, turn)
            await completed(store)
            clock.advance(10)
            await store.ping()
            async with asyncio.timeout(30):
                while log_of(tmp_path).stat().st_size:
                    await asyncio.sleep(0.01)
            assert holders(tmp_path) == []


async def test_the_log_is_emptied_now_and_then_only(sqlite_url: str, tmp_path: Path, clock: MovedClock) -> None:
    async with open_store(sqlite_url, clock=clock) as store:
        await store.ping()
        async with asyncio.timeout(30):
            while log_of(tmp_path).stat().st_size:
                await asyncio.sleep(0.01)
        assert store._writer._quiet_for() is None
        await store.ping()
        soon = store._writer._quiet_for()
        clock.advance(10)
        assert (soon or 0) > 1
        assert (store._writer._quiet_for() or 9) < 1


async def test_who_only_looks_leaves_the_log_alone(sqlite_url: str, clock: MovedClock) -> None:
    async with open_store(sqlite_url, clock=clock) as writing:
        await writing.receive(arrival())
        async with open_store(sqlite_url, clock=clock, migrate=False) as looking:
            assert looking._engines.has_log()
            assert looking._writer._quiet_for() is None


async def test_others_at_work_put_it_off_and_disturb_nobody(sqlite_url: str, tmp_path: Path, clock: MovedClock) -> None:
    async with open_store(sqlite_url, clock=clock) as store, open_store(sqlite_url, clock=clock) as other:
        await resent(store, 1)
        with other._engines.writer.connect() as connection:
            connection.exec_driver_sql("SELECT 1")  # begins, and so holds the write lock
            store._engines.empty_log()
            store._writer._tidy()
            assert log_of(tmp_path).stat().st_size
        await completed(store)
        store._engines.empty_log()
        assert holders(tmp_path) == []
