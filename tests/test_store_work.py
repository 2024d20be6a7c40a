"""Arrivals, claims and saves: a row's way from the callback to its end, on both databases."""

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from service.delivery import (
    DecidedBy,
    Delivery,
    Kind,
    LeaseLost,
    Outcome,
    Proof,
    Received,
    Schedule,
    Step,
)
from service.store import SqlStore, open_store
from tests.conftest import emptied
from tests.fakes import MovedClock
from tests.store_values import (
    ACCOUNT,
    AT,
    CLOSED,
    NEVER,
    SECOND,
    SETTLED,
    arrival,
    capture,
    claim_all,
    claimed,
    due_now,
    entry,
    near,
    only,
    plugged,
    request,
    send,
)


async def test_an_unknown_transaction_is_entered_open_and_due(store: SqlStore, clock: MovedClock) -> None:
    assert await store.receive(arrival()) is Received.NEW
    delivery = await only(store)
    assert delivery == Delivery(
        id=f"{ACCOUNT}.1",
        account_id=ACCOUNT,
        transaction_id=f"{ACCOUNT}.1",
        received_at=AT,
        due_at=delivery.due_at,
    )
    assert near(delivery.due_at, clock.now())
    (line,) = await store.history(delivery.id)
    assert (line.at, line.step, line.detail) == (AT, Step.RECEIVE, "callback")


async def test_a_duplicate_wakes_and_writes_no_history(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    await store.save(claim, claim.delivery, Schedule(due_in=3600, no_send_for=7200))
    before = await only(store)
    assert near(before.due_at, clock.now() + timedelta(hours=1))
    assert await store.receive(arrival()) is Received.WOKEN
    after = await only(store)
    assert due_now(after, clock)
    assert after.no_send_before == before.no_send_before
    assert len(await store.history(after.id)) == 1


async def test_duplicates_in_one_group_are_entered_once(store: SqlStore) -> None:
    async with plugged(store):
        asked = [asyncio.ensure_future(store.receive(arrival(n % 3))) for n in range(9)]
        await asyncio.sleep(0)
    received = await asyncio.gather(*asked)
    assert received == [Received.NEW] * 3 + [Received.WOKEN] * 6
    assert len(await store.listing()) == 3


async def test_two_stores_that_take_the_same_callbacks_at_once(database_url: str, clock: MovedClock) -> None:
    numbers = [n for n in range(60) for _ in range(4)]
    mixed = random.Random(7)
    async with (
        open_store(database_url, clock=clock, migrate=False) as one,
        open_store(database_url, clock=clock, migrate=False) as other,
    ):
        for turn in range(5):
            mixed.shuffle(numbers)
            calls = [store.receive(arrival(f"{turn}-{n}")) for n in numbers for store in (one, other)]
            received = await asyncio.gather(*calls)
            assert received.count(Received.NEW) == 60
            assert received.count(Received.WOKEN) == len(calls) - 60
        assert len(await one.listing()) == 300
        assert len(await one.history(f"{ACCOUNT}.0-0")) == 1


async def test_no_write_of_two_stores_on_the_same_rows_is_lost(database_url: str, clock: MovedClock) -> None:
    async with (
        open_store(database_url, clock=clock, migrate=False) as one,
        open_store(database_url, clock=clock, migrate=False) as other,
    ):
        keys = [arrival(number).transaction_id for number in range(5)]
        await asyncio.gather(*(one.receive(arrival(number)) for number in range(5)))

        async def resend(store: SqlStore) -> None:
            for _ in range(20):
                await asyncio.gather(*(store.resend(key, request()) for key in keys))

        await asyncio.gather(resend(one), resend(other))
        assert [delivery.round for delivery in await one.listing()] == [40] * 5


@pytest.mark.parametrize(("turns", "new"), [(10, 150), (30, 0)])
async def test_two_stores_never_wait_for_each_other_in_a_circle(
    postgres_database: str, clock: MovedClock, turns: int, new: int
) -> None:
    """Groups of the same new and known ids in every order: sorted, they deadlock in no round."""
    emptied(postgres_database)
    mixed = random.Random(11)
    before = deadlocks(postgres_database)
    async with open_store(postgres_database, clock=clock) as one, open_store(postgres_database, clock=clock) as other:
        for turn in range(turns):
            numbers = list(range(turn * new, turn * new + 200))  # the rest were entered in the turn before
            calls = []
            for store in (one, other):
                mixed.shuffle(numbers)
                calls += [store.receive(arrival(number)) for number in numbers]
            await asyncio.gather(*calls)
    assert deadlocks(postgres_database) == before


def deadlocks(url: str) -> int:
    """Return how many deadlocks the server has broken in this database. Connections that ended have told theirs."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


async def test_a_skipped_delivery_is_reopened_by_a_callback(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    gone = replace(
        claim.delivery,
        outcome=Outcome.SKIPPED,
        reason="not ours",
        closed_at=AT,
        lane="email",
        postponed=4,
        patience_used=99.0,
        patience_since=AT,
        errors=1,
    )
    await store.save(claim, gone, Schedule(due_in=3600))
    assert near((await only(store)).due_at, clock.now() + timedelta(hours=1))
    assert await store.receive(arrival()) is Received.REOPENED
    delivery = await only(store)
    assert (delivery.outcome, delivery.reason, delivery.closed_at) == (Outcome.OPEN, None, None)
    assert (delivery.postponed, delivery.patience_used, delivery.patience_since) == (0, 0.0, None)
    assert delivery.lane == "provider"
    assert due_now(delivery, clock)
    assert [line.detail for line in await store.history(delivery.id)] == ["callback", "callback: opened again"]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED])
async def test_what_closed_while_waiting_is_reopened_and_nothing_else(store: SqlStore, outcome: Outcome) -> None:
    await store.receive(arrival(1))
    await store.receive(arrival(2))
    for claim in await claim_all(store):
        waiting = claim.delivery.id.endswith(".1")
        closed = replace(claim.delivery, outcome=outcome, reason="x", closed_at=AT, closed_waiting=waiting)
        await store.save(claim, closed, NEVER)
    assert await store.receive(arrival(1)) is Received.REOPENED
    assert (await only(store, 1)).closed_waiting is False
    assert await store.receive(arrival(2, event=True)) is Received.UNCHANGED
    assert (await only(store, 2)).outcome is outcome
    assert (await only(store, 2)).due_at is None


async def test_an_event_makes_a_completed_delivery_due_and_leaves_it_completed(
    store: SqlStore, clock: MovedClock
) -> None:
    claim = await claimed(store)
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)
    assert await store.receive(arrival()) is Received.UNCHANGED
    assert (await only(store)).due_at is None
    assert await store.receive(arrival(event=True)) is Received.WOKEN
    delivery = await only(store)
    assert delivery.outcome is Outcome.COMPLETED
    assert due_now(delivery, clock)
    assert len(await claim_all(store)) == 1


async def test_a_claim_takes_what_is_due_longest_first_and_once(store: SqlStore, clock: MovedClock) -> None:
    for number in range(5):
        await store.receive(arrival(number))
        clock.advance(1)
    first = await store.claim(ACCOUNT, "provider", 2, lease=60, suspects=False)
    assert [claim.delivery.id[-1] for claim in first] == ["0", "1"]
    rest = await claim_all(store)
    assert [claim.delivery.id[-1] for claim in rest] == ["2", "3", "4"]
    assert len({claim.token for claim in first + rest}) == 5
    assert all(claim.delivery.claims == 1 and near(claim.now, clock.now()) for claim in first + rest)
    assert await claim_all(store) == ()


async def test_a_claim_is_of_one_account_and_one_lane(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.save(claim, replace(claim.delivery, lane="email"), Schedule(due_in=0))
    assert await claim_all(store) == ()
    assert await store.claim("T87654321", "email", 10, lease=60, suspects=False) == ()
    assert len(await claim_all(store, lane="email")) == 1


async def test_what_is_not_due_is_not_claimed(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    await store.save(claim, claim.delivery, Schedule(due_in=60))
    assert await claim_all(store) == ()
    clock.advance(59)
    assert await claim_all(store) == ()
    clock.advance(2)
    assert len(await claim_all(store)) == 1


async def test_two_stores_never_share_a_claim(database_url: str, clock: MovedClock) -> None:
    async with (
        open_store(database_url, clock=clock, migrate=False) as one,
        open_store(database_url, clock=clock, migrate=False) as other,
    ):
        await asyncio.gather(*(one.receive(arrival(number)) for number in range(200)))
        calls = [
            store.claim(ACCOUNT, "provider", 7, lease=60, suspects=False) for _ in range(25) for store in (one, other)
        ]
        taken = [claim.delivery.id for claims in await asyncio.gather(*calls) for claim in claims]
    assert len(taken) == 200
    assert len(set(taken)) == 200


async def test_a_lease_that_ran_out_makes_a_suspect(store: SqlStore, clock: MovedClock) -> None:
    dead = await claimed(store)
    clock.advance(59)
    assert await claim_all(store, suspects=True) == ()
    clock.advance(2)
    assert await claim_all(store, suspects=False) == ()
    (claim,) = await claim_all(store, suspects=True)
    assert claim.delivery.claims == 2
    assert claim.token != dead.token
    with pytest.raises(LeaseLost):
        await store.save(dead, dead.delivery, Schedule(due_in=0))
    await store.save(claim, claim.delivery, Schedule(due_in=0))
    (again,) = await claim_all(store, suspects=False)
    assert again.delivery.claims == 1


async def test_a_renewed_lease_lasts_and_a_lost_one_is_not_renewed(store: SqlStore, clock: MovedClock) -> None:
    for number in (1, 2):
        await store.receive(arrival(number))
    one, two = await claim_all(store)
    clock.advance(50)
    assert await store.renew([one], lease=60) == {one.token}
    clock.advance(20)
    assert await store.renew([one, two], lease=60) == {one.token}
    (taken,) = await claim_all(store, suspects=True)
    assert taken.delivery.id == two.delivery.id
    assert await store.renew([two, taken], lease=60) == {taken.token}


async def test_a_lease_that_ran_out_and_was_not_taken_can_be_saved(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    clock.advance(3600)
    await store.save(claim, replace(claim.delivery, reason="late"), Schedule(due_in=60))
    assert (await only(store)).reason == "late"
    with pytest.raises(LeaseLost):  # the lease was given back
        await store.save(claim, claim.delivery, Schedule(due_in=60))


async def test_a_save_writes_the_whole_delivery_and_its_entries(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    worked = replace(
        claim.delivery,
        reason="451 try again later",
        lane="email",
        errors=2,
        postponed=3,
        patience_used=12.5,
        patience_since=AT,
        decided_by=DecidedBy.SESSION,
        product_type="kravia.invoice_b2b",
        invoice_number="A1B2C-000001",
        merchant_reference="order-123",
        amount=50000,
        currency="NOK",
        channel="email",
        recipient="o***@nordmann.example",
        recipient_key="k1",
        delivered_at=AT,
        delivery_proof=Proof.PERSON,
        captured_at=AT - SECOND,
        captured_known_at=AT + SECOND,
        voided_at=AT + 2 * SECOND,
    )
    await store.save(claim, worked, Schedule(due_in=90, no_send_for=900), [entry("one"), entry("two")])
    saved = await only(store)
    assert saved == replace(worked, claims=0, due_at=saved.due_at, no_send_before=saved.no_send_before)
    assert near(saved.due_at, clock.now() + timedelta(seconds=90))
    assert near(saved.no_send_before, clock.now() + timedelta(seconds=900))
    assert [line.detail for line in await store.history(saved.id)] == ["callback", "one", "two"]
    assert (await store.history(saved.id))[1] == entry("one")


async def test_a_save_takes_no_fact_back_and_leaves_what_is_not_its_own(store: SqlStore) -> None:
    claim = await claimed(store)
    facts = replace(
        claim.delivery,
        kind=Kind.PURCHASE,
        delivered_at=AT,
        delivery_proof=Proof.RELAY,
        captured_at=AT,
        captured_known_at=AT,
        voided_at=AT,
    )
    await store.save(claim, facts, Schedule(due_in=0))
    (claim,) = await claim_all(store)
    later = replace(
        claim.delivery,
        delivered_at=AT + SECOND,
        delivery_proof=None,
        captured_at=None,
        captured_known_at=AT + SECOND,
        voided_at=None,
        attempt=99,
        round=99,
        send_to="x@y.example",
        kind=Kind.GROUPED,
        received_at=AT + SECOND,
    )
    await store.save(claim, later, Schedule(due_in=60))
    saved = await only(store)
    assert saved == replace(facts, claims=0, due_at=saved.due_at)


async def test_what_kind_it_is_shows_in_the_first_read_and_stays(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.save(claim, replace(claim.delivery, kind=Kind.PURCHASE), Schedule(due_in=0))
    (claim,) = await claim_all(store)
    await store.save(claim, replace(claim.delivery, kind=Kind.INVOICE), Schedule(due_in=60))
    assert (await only(store)).kind is Kind.PURCHASE


async def test_a_callback_during_the_step_makes_the_save_due_at_once(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    assert await store.receive(arrival()) is Received.WOKEN
    assert await claim_all(store) == ()  # a wake-up never touches a lease
    await store.save(claim, claim.delivery, Schedule(due_in=3600, no_send_for=900))
    woken = await only(store)
    assert due_now(woken, clock)
    assert near(woken.no_send_before, clock.now() + timedelta(seconds=900))
    (claim,) = await claim_all(store)
    await store.save(claim, claim.delivery, Schedule(due_in=3600))
    assert await claim_all(store) == ()


@pytest.mark.parametrize(
    ("outcome", "waiting", "becomes", "again"),
    [
        (Outcome.SKIPPED, False, Outcome.OPEN, True),
        (Outcome.SKIPPED, True, Outcome.OPEN, True),
        (Outcome.CANCELLED, True, Outcome.OPEN, True),
        (Outcome.FAILED, True, Outcome.OPEN, True),
        (Outcome.COMPLETED, False, Outcome.COMPLETED, True),
        (Outcome.FAILED, False, Outcome.FAILED, False),
        (Outcome.CANCELLED, False, Outcome.CANCELLED, False),
    ],
)
async def test_a_callback_during_the_step_that_closes_counts_as_if_it_came_after(
    store: SqlStore, clock: MovedClock, outcome: Outcome, becomes: Outcome, *, waiting: bool, again: bool
) -> None:
    closing: dict[str, Any] = {"outcome": outcome, "reason": "x", "closed_at": AT, "closed_waiting": waiting}
    worked: dict[str, Any] = {"lane": "email", "postponed": 4, "patience_used": 99.0, "patience_since": AT}
    ends = []
    for number in (1, 2):
        claim = await claimed(store, number)
        if number == 1:
            await store.receive(arrival(number, event=True))
        await store.save(claim, replace(claim.delivery, **closing, **worked), Schedule(due_in=3600 if again else None))
        if number == 2:
            await store.receive(arrival(number, event=True))
        delivery = await only(store, number)
        assert due_now(delivery, clock) if again else delivery.due_at is None
        ends.append(replace(delivery, id="", transaction_id="", due_at=None))
        (looking,) = await claim_all(store, lane=delivery.lane) if again else [None]
        assert looking is None or looking.woken
    assert ends[0] == ends[1]
    assert ends[0].outcome is becomes
    if becomes is Outcome.OPEN:
        assert (ends[0].lane, ends[0].postponed, ends[0].patience_used, ends[0].closed_at) == ("provider", 0, 0.0, None)


async def test_the_second_look_at_a_skipped_delivery_does_not_close_what_a_callback_opened(
    store: SqlStore, clock: MovedClock
) -> None:
    claim = await claimed(store)
    skipped = replace(claim.delivery, outcome=Outcome.SKIPPED, reason="not ours", closed_at=AT)
    await store.save(claim, skipped, Schedule(due_in=3600))
    clock.advance(3601)
    (claim,) = await claim_all(store)
    assert await store.receive(arrival()) is Received.REOPENED
    await store.save(claim, claim.delivery, NEVER)
    delivery = await only(store)
    assert (delivery.outcome, delivery.reason) == (Outcome.OPEN, None)
    assert due_now(delivery, clock)


async def test_what_waits_in_a_lane_that_is_gone_is_adopted_and_counted(store: SqlStore, clock: MovedClock) -> None:
    for number, lane in enumerate(("sms", "sms", "email", "provider", "sms")):
        claim = await claimed(store, number)
        await store.save(claim, replace(claim.delivery, lane=lane), Schedule(due_in=60))
    clock.advance(61)
    (leased, *_) = await store.claim(ACCOUNT, "sms", 1, lease=60, suspects=False)
    assert await store.adopt(ACCOUNT, ["email"]) == 2
    assert await store.adopt(ACCOUNT, ["email"]) == 0
    assert await store.adopt("T87654321", []) == 0
    assert (await store.find(leased.delivery.id))[0].lane == "sms"
    assert len(await claim_all(store)) == 3
    assert len(await claim_all(store, lane="email")) == 1


async def test_an_open_delivery_is_never_saved_without_a_due_time(store: SqlStore) -> None:
    claim = await claimed(store)
    with pytest.raises(ValueError, match="due time"):
        await store.save(claim, claim.delivery, NEVER)


async def test_a_claim_brings_its_sends_and_captures(store: SqlStore) -> None:
    claim = await claimed(store)
    assert (claim.sends, claim.captures) == ((), ())
    for number in (1, 2, 3):
        await store.begin_send(claim, send(claim.delivery.id, number, round=number))
        await store.settle_send(send(claim.delivery.id, number, round=number, **SETTLED), [])
    await store.begin_capture(claim, capture(claim.delivery.id))
    await store.save(claim, claim.delivery, Schedule(due_in=0))
    (again,) = await claim_all(store)
    assert again.sends == await store.sends(claim.delivery.id)
    assert [one.id[:2] for one in again.sends] == ["s1", "s2", "s3"]
    assert again.captures == await store.captures(claim.delivery.id)
    assert len(again.captures) == 1
    assert again.delivery.attempt == 3
