"""What is read: finding, listing, the figures, and whether the statements find their way by index."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, text

from service.delivery import Counts, Filter, Outcome, Schedule
from service.store import SqlStore
from service.store.tables import deliveries
from tests.fakes import MovedClock
from tests.store_values import ACCOUNT, AT, CLOSED, NEVER, arrival, claim_all, claimed, only, request


async def test_a_delivery_is_found_by_any_of_its_names(store: SqlStore) -> None:
    claim = await claimed(store)
    named = replace(claim.delivery, invoice_number="A1B2C-1", merchant_reference="order-1")
    await store.save(claim, named, Schedule(due_in=60))
    for reference in (f"{ACCOUNT}.1", "A1B2C-1", "order-1"):
        assert [found.id for found in await store.find(reference)] == [f"{ACCOUNT}.1"]
    for reference in ("order-2", "", "order%", "order-1\0", "\ud800"):
        assert await store.find(reference) == ()


async def test_several_matches_come_newest_first_and_once(store: SqlStore) -> None:
    for number in range(3):
        await store.receive(replace(arrival(number), at=AT + timedelta(minutes=number)))
    for claim in await claim_all(store):
        same = replace(claim.delivery, merchant_reference=f"{ACCOUNT}.1", invoice_number="7")
        await store.save(claim, same, Schedule(due_in=60))
    assert [found.id[-1] for found in await store.find(f"{ACCOUNT}.1")] == ["2", "1", "0"]


async def test_a_listing_is_newest_first_limited_and_by_outcome(store: SqlStore) -> None:
    for number in range(4):
        await store.receive(replace(arrival(number), at=AT + timedelta(minutes=number // 2)))
    assert [found.id[-1] for found in await store.listing()] == ["2", "3", "0", "1"]
    assert [found.id[-1] for found in await store.listing(limit=3)] == ["2", "3", "0"]
    taken = {claim.delivery.id[-1]: claim for claim in await claim_all(store)}
    for name, outcome in (("1", Outcome.FAILED), ("3", Outcome.SKIPPED)):
        ended = replace(taken[name].delivery, outcome=outcome, reason="x", closed_at=AT)
        await store.save(taken[name], ended, NEVER)
    assert [found.id[-1] for found in await store.listing(Filter(outcomes=(Outcome.FAILED,)))] == ["1"]
    both = Filter(outcomes=(Outcome.FAILED, Outcome.SKIPPED))
    assert [found.id[-1] for found in await store.listing(both, limit=5)] == ["3", "1"]
    assert await store.listing(Filter(outcomes=(Outcome.COMPLETED,))) == ()


async def test_the_figures(store: SqlStore, clock: MovedClock) -> None:
    assert await store.counts() == Counts(outcomes=(), due=0, overdue=0, oldest_open_age=None)
    begun = clock.now()
    for number in range(4):
        await store.receive(replace(arrival(number), at=begun))
    first, second, third, _ = await claim_all(store)
    await store.save(first, replace(first.delivery, **CLOSED), Schedule(due_in=0))
    await store.save(second, second.delivery, Schedule(due_in=0))
    await store.save(third, third.delivery, Schedule(due_in=3600))
    figures = await store.counts()
    assert figures.outcomes == ((Outcome.COMPLETED, 1), (Outcome.OPEN, 3))
    assert (figures.due, figures.overdue) == (2, 0)
    clock.advance(280)
    assert (await store.counts()).overdue == 0
    clock.advance(30)
    figures = await store.counts()
    assert (figures.due, figures.overdue) == (2, 2)
    assert figures.oldest_open_age == pytest.approx(310, abs=5)
    await claim_all(store)
    figures = await store.counts()
    assert (figures.due, figures.overdue) == (2, 1)  # the fourth's lease ran out, and it is a suspect


async def test_reading_and_writing_do_not_wait_for_each_other(store: SqlStore) -> None:
    calls = [store.receive(arrival(number)) for number in range(50)]
    reads = [store.listing() for _ in range(50)]
    await asyncio.gather(*calls, *reads, store.ping(), store.counts())
    assert len(await store.listing()) == 50


async def test_what_an_operator_did_is_in_the_history_in_order(store: SqlStore) -> None:
    await store.receive(arrival())
    for reason in ("one", "two", "three"):
        await store.retry((await only(store)).id, request(reason))
    details = [line.detail for line in await store.history(f"{ACCOUNT}.1")]
    assert details == ["callback", "retry by kari: one", "retry by kari: two", "retry by kari: three"]
    assert await store.history("nobody") == ()


def _many(connection: Connection) -> None:
    """Five thousand rows as they are after a while: most are closed, some wait, a few are due."""
    rows = [
        {
            "id": f"{ACCOUNT}.{n}",
            "account_id": ACCOUNT,
            "transaction_id": f"{ACCOUNT}.{n}",
            "received_at": AT + timedelta(seconds=n),
            "kind": "invoice",
            "outcome": "completed" if n % 5 else "open",
            "lane": "provider" if n % 2 else "email",
            "due_at": None if n % 5 else AT + timedelta(days=n // 100 - 25),
            "invoice_number": f"A{n}",
            "merchant_reference": f"order-{n}",
        }
        for n in range(5000)
    ]
    connection.execute(insert(deliveries), rows)
    connection.execute(text("ANALYZE"))
    connection.commit()


async def test_claiming_and_finding_use_the_indexes(store: SqlStore) -> None:
    said: list[tuple[str, Any]] = []
    for engine in (store._engines.writer, store._engines.readers):
        event.listen(engine, "before_cursor_execute", lambda _c, _cur, sql, values, *_: said.append((sql, values)))
    with store._engines.writer.connect() as connection:
        _many(connection)
        said.clear()
    for suspects in (False, True):
        await store.claim(ACCOUNT, "email", 16, lease=60, suspects=suspects)
    assert len(await store.find("order-77")) == 1
    explained = [(sql, values) for sql, values in said if "deliveries" in sql]
    assert len(explained) == 4
    indexes = ("deliveries_due", "deliveries_due", "deliveries_merchant_reference", "deliveries_recipient_key")
    with store._engines.readers.connect() as connection:
        explain = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        for (sql, values), index in zip(explained, indexes, strict=True):
            plan = "\n".join(map(str, connection.exec_driver_sql(explain + sql, values)))
            assert index in plan
            assert "Seq Scan on deliveries" not in plan
            assert "SCAN deliveries" not in plan
