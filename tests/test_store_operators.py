"""What a person asks of a delivery: retry, resend, cancel."""

from dataclasses import replace
from typing import Any

import pytest

from service.delivery import Delivery, LeaseLost, Outcome, Received, Result, Schedule, Step
from service.store import SqlStore
from tests.fakes import MovedClock
from tests.store_values import (
    AT,
    CLOSED,
    NEVER,
    SETTLED,
    arrival,
    claim_all,
    claimed,
    due_now,
    only,
    request,
    send,
)

SPENT: dict[str, Any] = {
    "postponed": 5,
    "errors": 4,
    "patience_used": 432000.0,
    "patience_since": AT,
    "lane": "email",
    "closed_waiting": True,
}


async def closed(store: SqlStore, outcome: Outcome) -> Delivery:
    claim = await claimed(store)
    ended = replace(claim.delivery, outcome=outcome, reason="gave up", closed_at=AT, **SPENT)
    await store.save(claim, ended, Schedule(due_in=None, no_send_for=900))
    return await only(store)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED, Outcome.SKIPPED, Outcome.COMPLETED])
async def test_a_retry_opens_again_with_a_new_clock(store: SqlStore, clock: MovedClock, outcome: Outcome) -> None:
    before = await closed(store, outcome)
    after = await store.retry(before.id, request("call me on 22334455, ola@nordmann.example"))
    assert after == await only(store)
    assert due_now(after, clock)
    fresh = Delivery(
        id=before.id, account_id=before.account_id, transaction_id=before.id, received_at=AT, due_at=after.due_at
    )
    assert after == fresh
    line = (await store.history(before.id))[-1]
    assert (line.at, line.step, line.result) == (AT, Step.OPERATOR, Result.ACCEPTED)
    assert line.detail == "retry by kari: call me on ***, ***"


async def test_a_retry_leaves_a_lease_and_is_honoured_by_its_save(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    await store.retry(claim.delivery.id, request())
    assert await claim_all(store) == ()
    gave_up = replace(claim.delivery, outcome=Outcome.FAILED, reason="gave up", closed_at=AT, patience_used=9.0)
    await store.save(claim, gave_up, NEVER)
    delivery = await only(store)
    assert (delivery.outcome, delivery.reason, delivery.closed_at) == (Outcome.OPEN, None, None)
    assert delivery.patience_used == 0
    assert due_now(delivery, clock)
    (claim,) = await claim_all(store)
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="again", closed_at=AT), NEVER)
    assert (await only(store)).outcome is Outcome.FAILED


async def test_a_retry_clears_suspicion(store: SqlStore, clock: MovedClock) -> None:
    for suspects in (False, True, True):
        if not suspects:
            await store.receive(arrival())
        await claim_all(store, suspects=suspects)
        clock.advance(61)
    await store.retry((await only(store)).id, request())
    (claim,) = await claim_all(store, suspects=False)
    assert claim.delivery.claims == 1


async def test_a_resend_is_a_new_round_to_another_address(store: SqlStore, clock: MovedClock) -> None:
    before = await closed(store, Outcome.COMPLETED)
    after = await store.resend(before.id, request(to="kari@nordmann.example"))
    assert (after.outcome, after.round, after.send_to) == (Outcome.OPEN, 1, "kari@nordmann.example")
    assert due_now(after, clock)
    (line,) = (await store.history(before.id))[1:]
    assert line.detail == "resend by kari"
    (claim,) = await claim_all(store)
    await store.save(claim, replace(claim.delivery, send_to=None, round=0), Schedule(due_in=60))
    assert ((await only(store)).round, (await only(store)).send_to) == (1, "kari@nordmann.example")
    clock.advance(61)
    (claim,) = await claim_all(store)
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)
    assert ((await only(store)).round, (await only(store)).send_to) == (1, None)


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        (Outcome.FAILED, "kari@nordmann.example"),
        (Outcome.COMPLETED, None),
        (Outcome.CANCELLED, None),
        (Outcome.SKIPPED, None),
    ],
)
async def test_a_resend_that_failed_is_retried_to_its_own_address(
    store: SqlStore, outcome: Outcome, kept: str | None
) -> None:
    key = (await closed(store, Outcome.COMPLETED)).id
    await store.resend(key, request(to="kari@nordmann.example"))
    (claim,) = await claim_all(store)
    await store.save(claim, replace(claim.delivery, outcome=outcome, closed_at=AT), NEVER)
    assert (await only(store)).send_to == kept
    after = await store.retry(key, request())
    assert (after.send_to, after.round) == (kept, 1)
    assert (await store.resend(key, request())).send_to is None


async def test_a_resend_during_the_step_that_completes_is_not_lost(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.settle_send(send(claim.delivery.id, **SETTLED), [])
    await store.resend(claim.delivery.id, request(to="kari@nordmann.example"))
    await store.save(claim, replace(claim.delivery, **CLOSED), Schedule(due_in=None, no_send_for=900))
    delivery = await only(store)
    assert (delivery.outcome, delivery.round, delivery.send_to) == (Outcome.OPEN, 1, "kari@nordmann.example")
    assert delivery.no_send_before is not None
    assert due_now(delivery, clock)


async def test_a_cancelled_delivery_is_taken_from_whoever_works_on_it(store: SqlStore) -> None:
    claim = await claimed(store)
    after = await store.cancel(claim.delivery.id, request("customer phoned"))
    assert (after.outcome, after.reason) == (Outcome.CANCELLED, "stopped by kari: customer phoned")
    assert (after.closed_at, after.due_at) == (AT, None)
    for effect in (
        store.begin_send(claim, send(claim.delivery.id)),
        store.save(claim, claim.delivery, Schedule(due_in=0)),
    ):
        with pytest.raises(LeaseLost):
            await effect
    assert await store.renew([claim], lease=60) == frozenset()
    assert await store.receive(arrival(event=True)) is Received.UNCHANGED
    assert await only(store) == after


async def test_a_send_accepted_after_the_cancelling_is_still_told(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.cancel(claim.delivery.id, request())
    await store.settle_send(send(claim.delivery.id, **SETTLED), [])
    delivery = await only(store)
    assert (delivery.outcome, delivery.progress, delivery.due_at) == (Outcome.CANCELLED, ("delivered",), None)
    assert delivery.reason == "stopped by kari (the customer has the invoice)"


async def test_what_was_completed_stays_so_when_it_is_cancelled(store: SqlStore) -> None:
    before = await closed(store, Outcome.COMPLETED)
    assert await store.cancel(before.id, request()) == before
    line = (await store.history(before.id))[-1]
    assert (line.step, line.result) == (Step.OPERATOR, Result.SKIPPED)


async def test_a_cancelled_skipped_delivery_is_not_reopened_by_a_callback(store: SqlStore) -> None:
    before = await closed(store, Outcome.SKIPPED)
    await store.cancel(before.id, request())
    assert await store.receive(arrival()) is Received.UNCHANGED


async def test_an_unknown_id_is_a_key_error(store: SqlStore) -> None:
    for asked in (store.retry, store.resend, store.cancel):
        with pytest.raises(KeyError):
            await asked("nobody", request())
