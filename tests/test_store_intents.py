"""Sends and captures: intents that are begun under a lease, and outcomes that are never fenced out."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table, insert
from sqlalchemy.exc import IntegrityError

from service.delivery import AlreadySent, Claim, IntentOpen, LeaseLost, Outcome, Proof, Schedule, Settled
from service.store import SqlStore
from service.store.rows import Intent, intent_values
from service.store.tables import captures, sends
from tests.fakes import MovedClock
from tests.store_values import (
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

LATER = Schedule(due_in=3600)


async def test_a_send_is_begun_and_accepted(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    begun = await only(store)
    assert (begun.attempt, begun.channel, begun.recipient_key) == (1, "email", "k1")
    (intent,) = await store.sends(begun.id)
    assert intent == send(begun.id, begun_at=intent.begun_at)
    assert near(intent.begun_at, clock.now())
    await store.settle_send(send(begun.id, **SETTLED), [entry()])
    (settled,) = await store.sends(begun.id)
    assert settled == replace(intent, **SETTLED)
    delivered = await only(store)
    assert (delivered.delivered_at, delivered.delivery_proof) == (SETTLED["settled_at"], Proof.RELAY)
    assert (await store.history(begun.id))[-1] == entry()


async def test_settling_within_the_step_costs_no_further_look(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.settle_send(send(claim.delivery.id, **SETTLED), [])
    await store.begin_capture(claim, capture(claim.delivery.id))
    await store.settle_capture(capture(claim.delivery.id, **accepted()), [], began_at=AT)
    await store.save(claim, claim.delivery, LATER)
    assert await claim_all(store) == ()
    assert (await only(store)).progress == ("delivered", "captured")


def accepted() -> dict[str, Any]:
    return {"outcome": Settled.ACCEPTED, "event_id": "e1", "detail": "ok", "settled_at": AT + 3 * SECOND}


async def test_a_send_settled_after_its_lease_was_given_back_wakes(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.save(claim, claim.delivery, LATER)
    await store.settle_send(send(claim.delivery.id, **SETTLED), [])
    assert due_now(await only(store), clock)


async def test_a_send_settled_under_anothers_lease_makes_that_ones_save_due_at_once(
    store: SqlStore, clock: MovedClock
) -> None:
    dead = await claimed(store)
    await store.begin_send(dead, send(dead.delivery.id))
    clock.advance(61)
    (claim,) = await claim_all(store, suspects=True)
    assert [one.outcome for one in claim.sends] == [Settled.OPEN]
    await store.settle_send(send(dead.delivery.id, **SETTLED), [])
    await store.save(claim, claim.delivery, LATER)
    delivery = await only(store)
    assert due_now(delivery, clock)
    assert delivery.delivered_at == SETTLED["settled_at"]


async def test_a_late_capture_wakes_too(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    await store.begin_capture(claim, capture(claim.delivery.id))
    await store.save(claim, claim.delivery, LATER)
    await store.settle_capture(capture(claim.delivery.id, **accepted()), [])
    delivery = await only(store)
    assert due_now(delivery, clock)
    assert (delivery.captured_at, delivery.captured_known_at) == (AT + 3 * SECOND, AT + 3 * SECOND)


async def test_a_late_refusal_wakes_nobody(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.save(claim, claim.delivery, LATER)
    await store.settle_send(send(claim.delivery.id, outcome=Settled.REFUSED, settled_at=AT), [])
    assert await claim_all(store) == ()
    assert (await only(store)).delivered_at is None


UNKNOWN: dict[str, Any] = {"outcome": Settled.UNCONFIRMED, "answer": "lost", "settled_at": AT}


async def closed(store: SqlStore, outcome: Outcome, reason: str | None = "gave up") -> str:
    """Close a delivery while a send of it is in doubt; return its id."""
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.settle_send(send(claim.delivery.id, **UNKNOWN), [])
    spent: dict[str, Any] = {"postponed": 4, "errors": 3, "patience_used": 99.0, "lane": "email"}
    await store.save(claim, replace(claim.delivery, outcome=outcome, reason=reason, closed_at=AT, **spent), NEVER)
    return claim.delivery.id


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SKIPPED])
async def test_a_late_acceptance_opens_what_was_given_up(store: SqlStore, clock: MovedClock, outcome: Outcome) -> None:
    key = await closed(store, outcome)
    await store.settle_send(send(key, **SETTLED), [entry()])
    delivery = await only(store)
    assert (delivery.outcome, delivery.reason, delivery.closed_at) == (Outcome.OPEN, None, None)
    assert (delivery.postponed, delivery.errors, delivery.patience_used, delivery.lane) == (0, 0, 0.0, "provider")
    assert delivery.progress == ("delivered",)
    assert due_now(delivery, clock)
    (claim,) = await claim_all(store)
    assert claim.woken
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="again", closed_at=AT), NEVER)
    await store.settle_send(send(key, **SETTLED), [entry()])  # told twice
    assert (await only(store)).outcome is Outcome.FAILED


async def test_a_late_capture_opens_what_was_given_up(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    key = claim.delivery.id
    await store.begin_capture(claim, capture(key))
    failed: dict[str, Any] = {"outcome": Outcome.FAILED, "reason": "x", "closed_at": AT}
    await store.save(claim, replace(claim.delivery, **failed), NEVER)
    await store.settle_capture(capture(key, **accepted()), [], began_at=AT)
    assert (await only(store)).outcome is Outcome.OPEN
    assert due_now(await only(store), clock)
    (claim,) = await claim_all(store)
    await store.save(claim, replace(claim.delivery, **failed), NEVER)
    await store.settle_capture(capture(key, **accepted()), [], began_at=AT)  # told twice
    assert (await only(store)).outcome is Outcome.FAILED


async def test_a_late_acceptance_leaves_what_is_completed(store: SqlStore) -> None:
    key = await closed(store, Outcome.COMPLETED, None)
    await store.settle_send(send(key, **SETTLED), [])
    delivery = await only(store)
    assert (delivery.outcome, delivery.reason, delivery.due_at) == (Outcome.COMPLETED, None, None)


async def test_a_late_acceptance_of_an_earlier_round_does_not_begin_a_failed_resend_again(store: SqlStore) -> None:
    key = await closed(store, Outcome.FAILED)
    await store.resend(key, request())
    (claim,) = await claim_all(store)
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="x", closed_at=AT), NEVER)
    await store.settle_send(send(key, **SETTLED), [])
    delivery = await only(store)
    assert (delivery.outcome, delivery.due_at, delivery.progress) == (Outcome.FAILED, None, ("delivered",))


@pytest.mark.parametrize("reason", ["voided at Dintero", None])
async def test_a_cancelled_delivery_says_once_that_the_customer_has_it(store: SqlStore, reason: str | None) -> None:
    key = await closed(store, Outcome.CANCELLED, reason)
    await store.settle_send(send(key, **SETTLED), [])
    await store.settle_send(send(key, 2, **SETTLED), [])
    await store.settle_capture(capture(key, **accepted()), [])
    delivery = await only(store)
    says = "the customer has the invoice"
    assert (delivery.outcome, delivery.due_at) == (Outcome.CANCELLED, None)
    assert delivery.reason == (f"{reason} ({says})" if reason else says)
    assert delivery.progress == ("delivered", "captured")


@pytest.mark.parametrize(
    ("outcome", "becomes", "reason"),
    [
        (Outcome.FAILED, Outcome.OPEN, None),
        (Outcome.SKIPPED, Outcome.OPEN, None),
        (Outcome.CANCELLED, Outcome.CANCELLED, "x (the customer has the invoice)"),
        (Outcome.COMPLETED, Outcome.COMPLETED, "x"),
    ],
)
async def test_a_late_acceptance_during_anothers_step_that_closes_counts_as_if_it_came_after(
    store: SqlStore, clock: MovedClock, outcome: Outcome, becomes: Outcome, reason: str | None
) -> None:
    dead = await claimed(store)
    await store.begin_send(dead, send(dead.delivery.id))
    clock.advance(61)
    (claim,) = await claim_all(store, suspects=True)
    await store.settle_send(send(dead.delivery.id, **SETTLED), [])
    await store.save(claim, replace(claim.delivery, outcome=outcome, reason="x", closed_at=AT), NEVER)
    delivery = await only(store)
    assert (delivery.outcome, delivery.reason, delivery.progress) == (becomes, reason, ("delivered",))
    assert due_now(delivery, clock) if becomes is not Outcome.CANCELLED else delivery.due_at is None


@pytest.mark.parametrize("fact", ["send", "capture"])
async def test_a_fact_that_comes_while_what_failed_is_looked_at_opens_it(
    store: SqlStore, clock: MovedClock, fact: str
) -> None:
    """Who looks saves it as it was; what became known meanwhile would be lost."""
    key = await closed(store, Outcome.FAILED)
    await store.receive(arrival(event=True))
    (claim,) = await claim_all(store)
    if fact == "send":
        await store.settle_send(send(key, **SETTLED), [])
    else:
        await store.settle_capture(capture(key, **accepted()), [])
    await store.save(claim, claim.delivery, NEVER)
    delivery = await only(store)
    assert (delivery.outcome, delivery.reason, delivery.closed_at) == (Outcome.OPEN, None, None)
    assert due_now(delivery, clock)


async def overtaken(store: SqlStore, clock: MovedClock, *, first: Settled) -> Claim:
    """Resend what was first sent with that outcome; lose the lease, the resend unconfirmed; return the next claim."""
    claim = await claimed(store)
    key = claim.delivery.id
    await store.begin_send(claim, send(key, 1))
    await store.settle_send(send(key, 1, **(SETTLED | {"outcome": first})), [])
    await store.save(claim, claim.delivery, LATER)
    await store.resend(key, request(to="kari@nordmann.example"))
    (dead,) = await claim_all(store)
    for number in (2, 3):
        await store.begin_send(dead, send(key, number, round=1))
        await store.settle_send(send(key, number, round=1, **UNKNOWN), [])
    clock.advance(61)
    (claim,) = await claim_all(store, suspects=True)
    return claim


@pytest.mark.parametrize("first", [Settled.ACCEPTED, Settled.UNCONFIRMED])
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SKIPPED])
@pytest.mark.parametrize("before", [True, False])
async def test_a_late_acceptance_of_a_resend_opens_what_was_given_up_before_or_after_the_save(
    store: SqlStore, clock: MovedClock, first: Settled, outcome: Outcome, before: bool
) -> None:
    claim = await overtaken(store, clock, first=first)
    key = claim.delivery.id
    if before:
        await store.settle_send(send(key, 2, round=1, **SETTLED), [])
    given_up = replace(claim.delivery, outcome=outcome, reason="x", closed_at=AT, errors=3, lane="email")
    await store.save(claim, given_up, NEVER)
    if not before:
        await store.settle_send(send(key, 2, round=1, **SETTLED), [])
    delivery = await only(store)
    assert (delivery.outcome, delivery.reason, delivery.closed_at) == (Outcome.OPEN, None, None)
    assert (delivery.errors, delivery.lane, delivery.send_to) == (0, "provider", None)
    assert due_now(delivery, clock)
    (claim,) = await claim_all(store)
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="x", closed_at=AT), NEVER)
    assert (await only(store)).outcome is Outcome.FAILED  # what the claim knew opens nothing


@pytest.mark.parametrize("before", [True, False])
async def test_a_late_acceptance_of_an_earlier_round_opens_no_failed_resend_before_or_after_the_save(
    store: SqlStore, clock: MovedClock, before: bool
) -> None:
    claim = await overtaken(store, clock, first=Settled.UNCONFIRMED)
    key = claim.delivery.id
    if before:
        await store.settle_send(send(key, 1, **SETTLED), [])
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="x", closed_at=AT), NEVER)
    if not before:
        await store.settle_send(send(key, 1, **SETTLED), [])
    delivery = await only(store)
    assert (delivery.outcome, delivery.progress) == (Outcome.FAILED, ("delivered",))
    assert (delivery.due_at is not None) == before  # woken in hand, it may have been voided: that is worth a look
    assert delivery.send_to == "kari@nordmann.example"  # its own round is not delivered yet


async def test_a_late_acceptance_of_an_earlier_round_still_wakes_an_open_resend(
    store: SqlStore, clock: MovedClock
) -> None:
    claim = await overtaken(store, clock, first=Settled.UNCONFIRMED)
    await store.settle_send(send(claim.delivery.id, 1, **SETTLED), [])
    await store.save(claim, claim.delivery, LATER)
    assert due_now(await only(store), clock)


async def test_a_late_acceptance_of_a_resend_shows_in_what_a_step_cancels(store: SqlStore, clock: MovedClock) -> None:
    claim = await overtaken(store, clock, first=Settled.ACCEPTED)
    await store.settle_send(send(claim.delivery.id, 2, round=1, **SETTLED), [])
    await store.save(claim, replace(claim.delivery, outcome=Outcome.CANCELLED, reason="x", closed_at=AT), NEVER)
    assert (await only(store)).reason == "x (the customer has the invoice)"


async def test_a_late_capture_during_anothers_step_opens_what_that_fails(store: SqlStore, clock: MovedClock) -> None:
    dead = await claimed(store)
    await store.begin_capture(dead, capture(dead.delivery.id))
    clock.advance(61)
    (claim,) = await claim_all(store, suspects=True)
    await store.settle_capture(capture(dead.delivery.id, **accepted()), [])
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="x", closed_at=AT), NEVER)
    assert (await only(store)).outcome is Outcome.OPEN
    assert due_now(await only(store), clock)


async def test_a_callback_does_not_open_what_a_step_closes_after_its_own_send(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.settle_send(send(claim.delivery.id, **SETTLED), [])
    await store.receive(arrival())
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="x", closed_at=AT), NEVER)
    assert (await only(store)).outcome is Outcome.FAILED


async def test_the_address_of_a_resend_goes_when_the_resend_is_accepted(store: SqlStore) -> None:
    claim = await claimed(store)
    key = claim.delivery.id
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)
    await store.resend(key, request(to="kari@nordmann.example"))
    (claim,) = await claim_all(store)
    await store.begin_send(claim, send(key, 1, round=1))
    assert (await only(store)).send_to == "kari@nordmann.example"
    await store.settle_send(send(key, 1, round=1, **SETTLED), [])
    assert (await only(store)).send_to is None
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="capture", closed_at=AT), NEVER)
    assert (await only(store)).send_to is None


async def test_what_a_step_itself_sent_does_not_open_what_it_closes(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.settle_send(send(claim.delivery.id, **SETTLED), [])
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="x", closed_at=AT), NEVER)
    delivery = await only(store)
    assert (delivery.outcome, delivery.due_at, delivery.progress) == (Outcome.FAILED, None, ("delivered",))


async def test_no_send_begins_in_a_round_that_a_late_acceptance_has_ended(store: SqlStore, clock: MovedClock) -> None:
    dead = await claimed(store)
    key = dead.delivery.id
    await store.begin_send(dead, send(key, 1))
    clock.advance(61)
    (claim,) = await claim_all(store, suspects=True)
    await store.settle_send(send(key, 1, **UNKNOWN), [])
    await store.settle_send(send(key, 1, **SETTLED), [])
    for other in (send(key, 2), send(key, 3, channel="sms"), send(key, 4, recipient_key="k2")):
        with pytest.raises(AlreadySent):
            await store.begin_send(claim, other)
    assert (await only(store)).attempt == 1
    with pytest.raises(LeaseLost):
        await store.begin_send(dead, send(key, 5))
    await store.begin_send(claim, send(key, 6, round=1))
    assert [one.id[:2] for one in await store.sends(key)] == ["s1", "s6"]


async def test_an_accepted_send_is_never_downgraded(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.settle_send(send(claim.delivery.id, **SETTLED), [])
    worse: dict[str, Any] = {"outcome": Settled.UNCONFIRMED, "answer": "it died", "settled_at": AT}
    await store.settle_send(send(claim.delivery.id, **worse), [])
    (kept,) = await store.sends(claim.delivery.id)
    assert (kept.outcome, kept.answer) == (Settled.ACCEPTED, "250 ok")


async def test_an_unconfirmed_send_may_turn_out_accepted(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.settle_send(send(claim.delivery.id, outcome=Settled.UNCONFIRMED, settled_at=AT), [entry("lost")])
    assert (await only(store)).delivered_at is None
    await store.settle_send(send(claim.delivery.id, **SETTLED), [entry("found")])
    assert (await only(store)).delivered_at == SETTLED["settled_at"]
    assert [line.detail for line in await store.history(claim.delivery.id)] == ["callback", "lost", "found"]


async def test_an_outcome_told_twice_is_written_once(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.begin_send(claim, send(claim.delivery.id))
    await store.begin_capture(claim, capture(claim.delivery.id))
    for _ in range(2):
        await store.settle_send(send(claim.delivery.id, **SETTLED), [entry("sent")])
        await store.settle_capture(capture(claim.delivery.id, **accepted()), [entry("captured")])
    assert [line.detail for line in await store.history(claim.delivery.id)] == ["callback", "sent", "captured"]


async def test_the_outcome_of_an_intent_that_the_database_lost_is_kept(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.save(claim, claim.delivery, LATER)
    await store.settle_send(send(claim.delivery.id, **SETTLED), [])
    await store.settle_capture(capture(claim.delivery.id, **accepted()), [])
    (again,) = await claim_all(store)
    assert [one.outcome for one in again.sends] == [Settled.ACCEPTED]
    assert [one.outcome for one in again.captures] == [Settled.ACCEPTED]
    assert (again.delivery.attempt, again.delivery.progress) == (1, ("delivered", "captured"))


async def test_what_is_being_sent_is_found_by_all_its_names(store: SqlStore) -> None:
    claim = await claimed(store)
    read = replace(claim.delivery, invoice_number="A1B2C-000001", merchant_reference="order-1", amount=50000)
    await store.begin_send(claim, send(read.id), replace(read, currency="NOK"))
    for name in (read.id, "A1B2C-000001", "order-1"):
        (found,) = await store.find(name)
        assert (found.outcome, found.amount, found.currency) == (Outcome.OPEN, 50000, "NOK")


async def test_no_effect_begins_without_a_lease(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    stranger = replace(claim, token="another")
    unknown = replace(claim, delivery=replace(claim.delivery, id="nobody"))
    for other in (stranger, unknown):
        with pytest.raises(LeaseLost):
            await store.begin_send(other, send(other.delivery.id))
        with pytest.raises(LeaseLost):
            await store.begin_capture(other, capture(other.delivery.id))
    clock.advance(61)
    with pytest.raises(LeaseLost):
        await store.begin_send(claim, send(claim.delivery.id))
    with pytest.raises(LeaseLost):
        await store.begin_capture(claim, capture(claim.delivery.id))
    assert (await only(store)).attempt == 0
    assert await store.sends(claim.delivery.id) == ()


async def test_one_open_send_per_recipient_and_channel(store: SqlStore) -> None:
    claim = await claimed(store)
    key = claim.delivery.id
    await store.begin_send(claim, send(key, 1))
    with pytest.raises(IntentOpen):
        await store.begin_send(claim, send(key, 2))
    with pytest.raises(IntentOpen):
        await store.begin_send(claim, send(key, 1))
    await store.begin_send(claim, send(key, 3, channel="sms"))
    await store.begin_send(claim, send(key, 4, recipient_key="k2"))
    await store.settle_send(send(key, 1, outcome=Settled.REFUSED, settled_at=AT), [])
    await store.begin_send(claim, send(key, 5))
    assert [one.id[:2] for one in await store.sends(key)] == ["s1", "s3", "s4", "s5"]
    assert (await only(store)).attempt == 4


@pytest.mark.parametrize("outcome", [Settled.OPEN, Settled.PENDING])
async def test_one_capture_awaited_per_transaction(store: SqlStore, outcome: Settled) -> None:
    claim = await claimed(store)
    key = claim.delivery.id
    await store.begin_capture(claim, capture(key, 1))
    if outcome is Settled.PENDING:
        await store.settle_capture(capture(key, 1, outcome=outcome, event_request_id="r1", settled_at=AT), [])
    with pytest.raises(IntentOpen):
        await store.begin_capture(claim, capture(key, 2))
    (awaited,) = await store.captures(key)
    assert awaited.outcome is outcome
    await store.settle_capture(capture(key, 1, outcome=Settled.REFUSED, settled_at=AT), [])
    await store.begin_capture(claim, capture(key, 2))
    assert [one.outcome for one in await store.captures(key)] == [Settled.REFUSED, Settled.OPEN]
    assert (await store.captures(key))[0].event_request_id == ("r1" if outcome is Settled.PENDING else None)


async def test_only_one_of_many_at_once_begins(store: SqlStore) -> None:
    claim = await claimed(store)
    async with plugged(store):
        tries = [asyncio.ensure_future(store.begin_send(claim, send(claim.delivery.id, n))) for n in range(5)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None)] + [IntentOpen] * 4


async def test_the_database_itself_refuses_a_second_open_intent(store: SqlStore) -> None:
    claim = await claimed(store)
    key = claim.delivery.id
    await store.begin_send(claim, send(key, 1))
    await store.begin_capture(claim, capture(key, 1))
    rows: list[tuple[Table, Intent[Any]]] = [
        (sends, Intent(value=send(key, 2), ordinal=2, lease_token=None)),
        (captures, Intent(value=capture(key, 2, outcome=Settled.PENDING), ordinal=2, lease_token=None)),
    ]
    await store.close()
    for table, row in rows:
        with store._engines.writer.connect() as connection, pytest.raises(IntegrityError):
            connection.execute(insert(table), intent_values(row))


async def test_a_202_that_comes_late_does_not_clash_with_the_next_capture(store: SqlStore) -> None:
    claim = await claimed(store)
    key = claim.delivery.id
    await store.begin_capture(claim, capture(key, 1))
    await store.settle_capture(capture(key, 1, outcome=Settled.UNCONFIRMED, settled_at=AT), [])
    await store.begin_capture(claim, capture(key, 2))
    pending = capture(key, 1, outcome=Settled.PENDING, event_request_id="r1", settled_at=AT)
    await store.settle_capture(pending, [])
    first, second = await store.captures(key)
    assert (first.outcome, first.event_request_id) == (Settled.UNCONFIRMED, "r1")
    assert second.outcome is Settled.OPEN


async def test_a_collection_that_others_began_counts_from_when_it_began(store: SqlStore) -> None:
    claim: Claim = await claimed(store)
    await store.begin_capture(claim, capture(claim.delivery.id))
    refused = capture(claim.delivery.id, outcome=Settled.REFUSED, settled_at=AT)
    await store.settle_capture(refused, [], began_at=AT - timedelta(days=1))
    delivery = await only(store)
    assert (delivery.captured_at, delivery.captured_known_at) == (AT - timedelta(days=1), AT)


async def test_an_outcome_for_an_unknown_delivery_is_an_error(store: SqlStore) -> None:
    with pytest.raises(KeyError):
        await store.settle_send(send("nobody", **SETTLED), [])
    with pytest.raises(KeyError):
        await store.settle_capture(capture("nobody", **accepted()), [])
