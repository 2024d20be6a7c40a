"""The writer's thread: groups, guilty writes, and a database that is away, full, read-only or breaks at the commit."""

import asyncio
import resource
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, insert
from sqlalchemy.exc import OperationalError

from service.delivery import CommitInDoubt, Outcome, Received, Schedule, StoreUnavailable
from service.store import SqlStore, open_store
from service.store.book import Book
from service.store.errors import RowLocked
from service.store.tables import deliveries
from service.store.writer import Write
from tests.conftest import emptied
from tests.fakes import MovedClock
from tests.store_values import (
    ACCOUNT,
    AT,
    arrival,
    capture,
    claim_all,
    claimed,
    entry,
    only,
    plugged,
    request,
    send,
)


async def together(store: SqlStore, *calls: Awaitable[Any]) -> list[Any]:
    """Have these in one group; return their answers, exceptions among them."""
    async with plugged(store):
        asked = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
    return await asyncio.gather(*asked, return_exceptions=True)


@contextmanager
def counted(engine: Engine, what: str) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(*_: object) -> None:
        seen.append(what)

    event.listen(engine, what, note)
    yield seen
    event.remove(engine, what, note)


async def test_what_gathers_is_committed_together(store: SqlStore) -> None:
    with counted(store._engines.writer, "commit") as commits:
        answers = await together(store, *(store.receive(arrival(number)) for number in range(100)))
    assert answers == [Received.NEW] * 100
    assert len(commits) == 1  # the plug's own transaction had nothing to commit


async def test_a_guilty_write_fails_alone(store: SqlStore) -> None:
    claim = await claimed(store, "guilty")
    too_much = capture(claim.delivery.id, amount=2**80)
    answers = await together(
        store,
        store.receive(arrival(1)),
        store.begin_capture(claim, too_much),
        store.receive(arrival(2)),
        store.begin_send(claim, send(claim.delivery.id)),
        store.claim(ACCOUNT, "provider", 10, lease=60, suspects=False),
    )
    assert isinstance(answers[1], StoreUnavailable | OverflowError)
    assert [answers[0], answers[2], answers[3]] == [Received.NEW, Received.NEW, None]
    assert [claim.delivery.id[-1] for claim in answers[4]] == ["1", "2"]
    assert await store.captures(claim.delivery.id) == ()
    assert len(await store.sends(claim.delivery.id)) == 1


async def test_a_refused_write_undoes_nothing_for_the_others(store: SqlStore) -> None:
    claim = await claimed(store, "mine")
    with counted(store._engines.writer, "commit") as commits:
        answers = await together(
            store,
            store.save(replace(claim, token="lost"), claim.delivery, Schedule(due_in=0)),
            store.receive(arrival(1)),
            store.retry("nobody", request()),
            store.begin_send(claim, send(claim.delivery.id)),
            store.begin_send(claim, send(claim.delivery.id, 2)),
        )
    kinds = [type(answer).__name__ for answer in answers]
    assert kinds == ["LeaseLost", "Received", "Unknown", "NoneType", "IntentOpen"]
    assert len(commits) == 1


async def test_a_group_is_at_most_so_many(store: SqlStore) -> None:
    with counted(store._engines.writer, "commit") as commits:
        await together(store, *(store.receive(arrival(number)) for number in range(300)))
    assert len(commits) == 2
    assert len(await store.listing()) == 300


async def test_texts_that_a_database_refuses_are_mended_and_ids_refused(store: SqlStore) -> None:
    claim = await claimed(store)
    odd = "NUL \0 and half \ud83d of a face"
    named = replace(claim.delivery, merchant_reference=odd, reason=odd, invoice_number="№ 😀 'x'")
    answers = await together(
        store,
        store.receive(replace(arrival(), transaction_id="T1\0")),
        store.receive(replace(arrival(), account_id="T1\udc80")),
        store.begin_send(claim, send(claim.delivery.id, id="\0")),
        store.begin_capture(claim, capture(claim.delivery.id, id="\0")),
        store.receive(arrival(2)),
        store.save(claim, named, Schedule(due_in=60), [entry(odd)]),
    )
    assert [type(answer).__name__ for answer in answers[:4]] == ["ValueError"] * 4
    assert answers[4:] == [Received.NEW, None]
    saved = await only(store)
    assert saved.merchant_reference == saved.reason == "NUL \ufffd and half \ufffd of a face"
    assert saved.invoice_number == "№ 😀 'x'"
    assert (await store.history(saved.id))[-1].detail == saved.reason


async def test_a_caller_that_went_away_disturbs_nobody(store: SqlStore) -> None:
    async with plugged(store):
        gone = asyncio.ensure_future(store.receive(arrival(1)))
        stays = asyncio.ensure_future(store.receive(arrival(2)))
        await asyncio.sleep(0)
        gone.cancel()
    assert await stays is Received.NEW
    assert len(await store.listing()) == 2


async def test_leaving_finishes_what_was_asked_for(database_url: str, clock: MovedClock) -> None:
    async with open_store(database_url, clock=clock) as store:
        asked = [asyncio.ensure_future(store.receive(arrival(number))) for number in range(20)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [Received.NEW] * 20
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.receive(arrival())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store-")]
    async with open_store(database_url, clock=clock) as store:
        assert len(await store.listing()) == 20


async def test_a_row_that_another_process_is_entering_is_waited_for(postgres_database: str, clock: MovedClock) -> None:
    emptied(postgres_database)
    rival = arrival("new")
    values = {"id": rival.transaction_id, "account_id": ACCOUNT, "transaction_id": rival.transaction_id}
    rest = {"received_at": AT, "due_at": AT, "kind": "invoice", "outcome": Outcome.OPEN, "lane": "provider"}
    async with open_store(postgres_database, clock=clock) as store:
        # The readers' engine commits each statement; told to use transactions it stands in for the other process.
        other = store._engines.readers.execution_options(isolation_level="READ COMMITTED")
        with other.connect() as connection:
            connection.execute(insert(deliveries), values | rest)
            ours = asyncio.ensure_future(store.receive(rival))
            while not await _waits(store):
                await asyncio.sleep(0)
            connection.commit()
        assert await ours is Received.WOKEN


async def _waits(store: SqlStore) -> bool:
    def waiting() -> bool:
        with store._engines.readers.connect() as connection:
            return bool(
                connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
                ).scalar()
            )

    return await asyncio.to_thread(waiting)


# --- a row that another holds ---------------------------------------------------------------------------------------


async def test_a_row_that_another_holds_costs_its_own_callers_only(postgres_database: str, clock: MovedClock) -> None:
    emptied(postgres_database)
    async with open_store(postgres_database, clock=clock) as store:
        await store.receive(arrival("a"))
        with psycopg.connect(postgres_database) as frozen:
            frozen.execute("SELECT 1 FROM deliveries WHERE id = %s FOR UPDATE", (arrival("a").transaction_id,))
            async with asyncio.timeout(8):  # two waits for the row: the group's, and its own
                answers = await together(
                    store,
                    *(store.receive(arrival("a")) for _ in range(5)),
                    store.receive(arrival("b")),
                    store.ping(),
                    store.claim(ACCOUNT, "provider", 10, lease=60, suspects=False),
                )
        assert [type(answer) for answer in answers[:5]] == [RowLocked] * 5
        assert all(isinstance(answer, StoreUnavailable) for answer in answers[:5])
        assert answers[5:7] == [Received.NEW, None]
        assert [claim.delivery.id for claim in answers[7]] == [arrival("b").transaction_id]
        assert await store.receive(arrival("a")) is Received.WOKEN


async def test_a_transaction_is_bounded_and_its_connection_is_not(postgres_database: str, clock: MovedClock) -> None:
    """What is said for a connection would stay with a pooler's, and be another program's."""
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")

    def bounds(book_or_connection: Book | Connection) -> list[str]:
        connection = book_or_connection.connection if isinstance(book_or_connection, Book) else book_or_connection
        return [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]

    async with open_store(postgres_database, clock=clock) as store:
        assert await store._writer.write(Write(apply=bounds)) == ["2s", "15s", "15s"]
        assert await store._read(bounds) == ["2s", "15s", "15s"]
        for engine in (store._engines.writer, store._engines.readers):
            with engine.connect() as connection:
                driver = connection.connection.cursor()
                driver.execute("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
                assert driver.fetchone() == ("0", "0")


async def test_a_statement_that_is_stopped_is_unavailable(
    postgres_database: str, postgres_admin: psycopg.Connection, clock: MovedClock
) -> None:
    """As the server stops one that takes too long."""
    stop = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
    )

    def sleep(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_sleep(60)")

    async with open_store(postgres_database, clock=clock) as store:
        for write in (False, True):
            call = (
                store._writer.write(Write(apply=lambda book: sleep(book.connection))) if write else store._read(sleep)
            )
            asked = asyncio.ensure_future(call)
            while not asked.done() and not postgres_admin.execute(stop).fetchall():
                await asyncio.sleep(0.01)
            with pytest.raises(StoreUnavailable, match="cancel"):
                await asked
        await store.ping()


# --- a database that is away -----------------------------------------------------------------------------------------


async def test_a_server_that_dropped_us_is_found_again(
    postgres_database: str, postgres_admin: psycopg.Connection, clock: MovedClock
) -> None:
    emptied(postgres_database)
    async with open_store(postgres_database, clock=clock) as store:
        await store.receive(arrival())
        await store.listing()
        for _ in range(2):
            _drop_all(postgres_admin)
            await store.receive(arrival())
            _drop_all(postgres_admin)
            assert len(await store.find(f"{ACCOUNT}.1")) == 1
            await store.ping()


def _drop_all(admin: psycopg.Connection) -> None:
    admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'tests'")


async def test_a_database_that_is_gone_is_unavailable_and_tells_no_password(
    postgres_url: str, postgres_admin: psycopg.Connection, clock: MovedClock
) -> None:
    postgres_admin.execute("CREATE DATABASE gone")
    url = postgres_url.replace("postgres@/postgres?", "postgres:hemmelig%2Ford@/gone?")
    async with open_store(url, clock=clock) as store:
        await store.receive(arrival())
        postgres_admin.execute("DROP DATABASE gone WITH (FORCE)")
        answers = await asyncio.gather(
            *(store.receive(arrival(number)) for number in range(20)),
            store.claim(ACCOUNT, "provider", 1, lease=1, suspects=False),
            store.ping(),
            store.listing(),
            store.counts(),
            return_exceptions=True,
        )
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert all('database "gone" does not exist' in str(answer) for answer in answers)
    assert not any("hemmelig" in str(answer) for answer in answers)


async def test_a_server_that_is_not_there_is_unavailable(clock: MovedClock) -> None:
    url = "postgresql://kari:hemmelig@/name?host=/nonexistent/hemmelig"
    with pytest.raises(StoreUnavailable) as raised:
        async with open_store(url, clock=clock):
            pass
    assert "hemmelig" not in str(raised.value)


async def test_a_connection_that_breaks_at_the_commit_leaves_doubt(
    postgres_database: str, postgres_admin: psycopg.Connection, clock: MovedClock
) -> None:
    async with open_store(postgres_database, clock=clock) as store:
        event.listen(store._engines.writer, "commit", lambda _: _drop_all(postgres_admin), once=True)
        answers = await together(store, store.receive(arrival("x")), store.receive(arrival("y")))
        assert {type(answer) for answer in answers} == {CommitInDoubt}
        await store.ping()


# --- a file that cannot be written -----------------------------------------------------------------------------------


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow: what SQLite meets when the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_unavailable_until_there_is_room(sqlite_url: str, clock: MovedClock) -> None:
    async with open_store(sqlite_url, clock=clock) as store:
        claim = await claimed(store)
        with full_disk():
            answers = await asyncio.gather(
                store.receive(arrival(2)),
                store.ping(),
                store.begin_send(claim, send(claim.delivery.id)),
                return_exceptions=True,
            )
            assert len(await store.listing()) == 1
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        await store.ping()
        assert await store.receive(arrival(2)) is Received.NEW
        await store.begin_send(claim, send(claim.delivery.id))


async def test_a_file_that_is_only_read_is_unavailable(sqlite_url: str, clock: MovedClock) -> None:
    async with (
        open_store(sqlite_url, clock=clock) as writing,
        open_store(f"{sqlite_url}?mode=ro", clock=clock, migrate=False) as reading,
    ):
        await writing.receive(arrival())
        assert len(await reading.listing()) == 1
        for write in (reading.ping(), reading.receive(arrival(2)), claim_all(reading)):
            with pytest.raises(StoreUnavailable, match="readonly"):
                await write
        await writing.ping()


async def test_a_file_that_another_holds_is_unavailable_and_nothing_of_it_is_kept(
    sqlite_url: str, clock: MovedClock
) -> None:
    async with open_store(sqlite_url, clock=clock) as store, open_store(sqlite_url, clock=clock) as other:
        with other._engines.writer.connect() as connection:
            connection.exec_driver_sql("SELECT 1")  # begins, and so holds the write lock
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.receive(arrival())
            assert await store.listing() == ()
        assert await store.receive(arrival()) is Received.NEW


async def test_a_damaged_file_is_unavailable(tmp_path: Path, clock: MovedClock) -> None:
    file = tmp_path / "deliveries.db"
    file.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        async with open_store(f"sqlite:///{file}", clock=clock):
            pass


async def test_the_file_is_written_durably_and_readers_leave_it_alone(sqlite_url: str, clock: MovedClock) -> None:
    async with open_store(sqlite_url, clock=clock) as store:
        await store.listing()
        store._engines.empty_log()  # leaves them as they are
        with store._engines.writer.connect() as connection:
            settings = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout")
            ]
        assert settings == ["wal", 2, 1, 1, 1000]
        with store._engines.readers.connect() as connection, pytest.raises(OperationalError, match="readonly"):
            connection.execute(deliveries.delete())
