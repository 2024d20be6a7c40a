"""Reports of messages in the record: once, in any order, early and late; and turns at a channel with a pace."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import select

from service.delivery import (
    PROVIDER_LANE,
    Claim,
    Delivery,
    Entry,
    Fate,
    Outcome,
    Pace,
    Proof,
    Report,
    Reported,
    Result,
    Schedule,
    Settled,
    Step,
)
from service.store import SqlStore, open_store
from service.store.tables import receipts
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
    claim_all,
    claimed,
    due_now,
    near,
    only,
    request,
    send,
)

LATER = Schedule(due_in=3600)
MINUTE = 60 * SECOND


@pytest.fixture
async def other(database_url: str, clock: MovedClock) -> AsyncIterator[SqlStore]:
    """Another process's store on the same record."""
    async with open_store(database_url, clock=clock, migrate=False) as opened:
        yield opened


def report(fate: Fate = Fate.FAILED, event: str = "e1", **changed: Any) -> Report:
    values: dict[str, Any] = {
        "channel": "email",
        "event_id": event,
        "reference": "<abc@merchant.example>",
        "fate": fate,
        "at": AT + MINUTE,
        "detail": "bounced: 5.1.1 unknown",
    }
    return Report(**(values | changed))


async def sent(store: SqlStore, number: int = 1, **changed: Any) -> Claim:
    """Begin a send and have it accepted; the claim is still held."""
    claim = await claimed(store, number)
    begun = send(claim.delivery.id, number, **changed)
    await store.begin_send(claim, begun)
    await store.settle_send(replace(begun, **SETTLED), [])
    return claim


async def completed(store: SqlStore, number: int = 1, **changed: Any) -> Claim:
    claim = await sent(store, number, **changed)
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)
    return claim


async def outcomes(store: SqlStore, delivery_id: str) -> list[Settled]:
    return [one.outcome for one in await store.sends(delivery_id)]


async def receipts_of(store: SqlStore, delivery_id: str) -> list[tuple[Result, str | None]]:
    history = await store.history(delivery_id)
    return [(entry.result, entry.detail) for entry in history if entry.step is Step.RECEIPT]


async def test_a_bounce_opens_a_completed_delivery_again(store: SqlStore, clock: MovedClock) -> None:
    claim = await completed(store)
    assert await store.report(ACCOUNT, report()) is Reported.BOUNCED
    opened = await only(store)
    assert (opened.outcome, opened.closed_at) == (Outcome.OPEN, None)
    assert opened.reason == "not delivered by email: bounced: 5.1.1 unknown"
    assert due_now(opened, clock)
    (told,) = await store.sends(claim.delivery.id)
    assert (told.outcome, told.reported_at) == (Settled.BOUNCED, AT + MINUTE)
    assert await receipts_of(store, claim.delivery.id) == [(Result.REFUSED, "bounced: 5.1.1 unknown")]
    (again,) = await claim_all(store)
    assert [one.outcome for one in again.sends] == [Settled.BOUNCED]


@pytest.mark.parametrize("reference", ["<abc@merchant.example>", "abc", "queue-id-7"])
async def test_a_message_is_known_by_any_of_its_names(store: SqlStore, reference: str) -> None:
    claim = await sent(store, remote_id="queue-id-7")
    assert await store.report(ACCOUNT, report(Fate.DELIVERED, reference=reference)) is Reported.RECORDED
    found = await store.reported(ACCOUNT, report(reference=reference))
    assert found is not None
    assert found.delivery_id == claim.delivery.id


@pytest.mark.parametrize(
    "changed", [{"reference": "<abd@merchant.example>"}, {"channel": "sms"}], ids=["reference", "channel"]
)
async def test_another_channels_and_anothers_message_are_not_meant(store: SqlStore, changed: dict[str, Any]) -> None:
    await completed(store)
    assert await store.report(ACCOUNT, report(**changed)) is Reported.UNMATCHED
    assert await store.reported(ACCOUNT, report(**changed)) is None
    assert (await only(store)).outcome is Outcome.COMPLETED


async def test_another_account_reports_nothing_of_ours(store: SqlStore) -> None:
    await completed(store)
    assert await store.report("T87654321", report()) is Reported.UNMATCHED
    assert (await only(store)).outcome is Outcome.COMPLETED
    assert await store.unmatched_reports(ACCOUNT) == ()


async def test_a_report_counts_once(store: SqlStore) -> None:
    claim = await completed(store)
    assert await store.report(ACCOUNT, report()) is Reported.BOUNCED
    (opened,) = await claim_all(store)
    await store.save(opened, replace(opened.delivery, outcome=Outcome.FAILED, closed_at=AT), NEVER)
    assert await store.report(ACCOUNT, report()) is Reported.DUPLICATE
    assert (await only(store)).outcome is Outcome.FAILED
    assert len(await receipts_of(store, claim.delivery.id)) == 1


async def test_the_same_report_to_two_processes_at_once_counts_once(store: SqlStore, other: SqlStore) -> None:
    claim = await completed(store)
    told = await asyncio.gather(*(one.report(ACCOUNT, report()) for one in (store, other, store, other)))
    assert sorted(told) == sorted([Reported.BOUNCED, *[Reported.DUPLICATE] * 3])
    assert len(await receipts_of(store, claim.delivery.id)) == 1


@pytest.mark.parametrize("late", [Fate.DELIVERED, Fate.FAILED])
async def test_what_happened_earlier_changes_nothing_later(store: SqlStore, late: Fate) -> None:
    """The fate that happened last counts, whichever report comes first."""
    claim = await completed(store)
    last = Fate.FAILED if late is Fate.DELIVERED else Fate.DELIVERED
    await store.report(ACCOUNT, report(last, at=AT + 2 * MINUTE))
    before = await only(store)
    assert await store.report(ACCOUNT, report(late, "e2", at=AT + MINUTE)) is Reported.RECORDED
    assert await only(store) == before
    wanted = Settled.BOUNCED if last is Fate.FAILED else Settled.ACCEPTED
    assert await outcomes(store, claim.delivery.id) == [wanted]
    assert len(await receipts_of(store, claim.delivery.id)) == 2


@pytest.mark.parametrize("last", [Fate.DELIVERED, Fate.FAILED])
async def test_of_two_at_one_time_the_one_that_is_told_last_counts(store: SqlStore, last: Fate) -> None:
    """Some tell whole seconds only."""
    claim = await completed(store)
    await store.report(ACCOUNT, report(Fate.FAILED if last is Fate.DELIVERED else Fate.DELIVERED))
    await store.report(ACCOUNT, report(last, "e2"))
    wanted = Settled.BOUNCED if last is Fate.FAILED else Settled.ACCEPTED
    assert await outcomes(store, claim.delivery.id) == [wanted]


async def test_a_mail_that_was_delivered_may_bounce_later(store: SqlStore) -> None:
    claim = await completed(store)
    await store.report(ACCOUNT, report(Fate.DELIVERED))
    assert (await only(store)).delivery_proof is Proof.REPORT
    assert await store.report(ACCOUNT, report(event="e2", at=AT + 2 * MINUTE)) is Reported.BOUNCED
    assert (await only(store)).outcome is Outcome.OPEN
    assert await outcomes(store, claim.delivery.id) == [Settled.BOUNCED]


@pytest.mark.parametrize("fate", [Fate.DEFERRED, Fate.UNKNOWN])
async def test_what_decides_nothing_is_noted_only(store: SqlStore, fate: Fate) -> None:
    claim = await completed(store)
    before = await only(store)
    assert await store.report(ACCOUNT, report(fate, detail=None)) is Reported.RECORDED
    assert await only(store) == before
    assert await outcomes(store, claim.delivery.id) == [Settled.ACCEPTED]
    ((_, detail),) = await receipts_of(store, claim.delivery.id)
    assert detail == fate.value


async def test_an_early_report_is_kept_until_its_message_is_known(store: SqlStore, clock: MovedClock) -> None:
    """The provider's report may come before our own write of its message's id."""
    early = report(Fate.FAILED, reference="queue-id-7")
    assert await store.report(ACCOUNT, early) is Reported.UNMATCHED
    assert await store.report(ACCOUNT, early) is Reported.DUPLICATE
    assert await store.unmatched_reports(ACCOUNT) == (early,)
    await completed(store, remote_id="queue-id-7")
    (waiting,) = await store.unmatched_reports(ACCOUNT)
    assert await store.report(ACCOUNT, waiting) is Reported.BOUNCED
    assert (await only(store)).outcome is Outcome.OPEN
    assert await store.unmatched_reports(ACCOUNT) == ()
    assert await store.report(ACCOUNT, waiting) is Reported.DUPLICATE
    await store.report(ACCOUNT, report(event="e9", reference="nobody's"))
    clock.advance(timedelta(days=31).total_seconds())
    assert await store.unmatched_reports(ACCOUNT) == ()


async def test_unmatched_reports_come_oldest_first_and_their_own_accounts(store: SqlStore, clock: MovedClock) -> None:
    for number in range(3):
        await store.report(ACCOUNT, report(event=f"e{number}", reference="nobody's"))
        clock.advance(1)
    await store.report("T87654321", report(event="foreign"))
    assert [one.event_id for one in await store.unmatched_reports(ACCOUNT)] == ["e0", "e1", "e2"]


async def test_an_early_report_does_not_wait_behind_those_of_others_mails(store: SqlStore, clock: MovedClock) -> None:
    await asyncio.gather(*(store.report(ACCOUNT, report(event=f"o{n}", reference="other")) for n in range(250)))
    clock.advance(1)
    await store.report(ACCOUNT, report(event="early"))
    found = await store.unmatched_reports(ACCOUNT)
    assert (len(found), found[-1].event_id) == (200, "early")


async def test_what_nobody_sent_is_forgotten(store: SqlStore, clock: MovedClock) -> None:
    """Reports of others' mails come in without end: they are not kept for ever, nor read through once a minute."""
    await store.report(ACCOUNT, report(event="old", reference="nobody's"))
    await completed(store)
    await store.report(ACCOUNT, report(event="ours"))
    clock.advance(timedelta(days=31).total_seconds())
    await store.report(ACCOUNT, report(event="new", reference="nobody's"))
    with store._engines.readers.connect() as connection:
        assert set(connection.execute(select(receipts.c.event_id)).scalars()) == {"ours", "new"}
        if connection.dialect.name == "sqlite":
            wanted = "SELECT * FROM receipts WHERE account_id = 'a' AND send_id IS NULL AND received_at > 0"
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {wanted} ORDER BY received_at DESC")
            assert [row[3] for row in rows] == [
                "SEARCH receipts USING INDEX receipts_unmatched (account_id=? AND received_at>?)"
            ]


async def test_a_persons_word_outweighs_a_bounce(store: SqlStore) -> None:
    claim = await sent(store)
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, closed_at=AT), NEVER)
    await store.resolve(claim.delivery.id, request("on the telephone"), delivered=True)
    (again,) = await claim_all(store)
    await store.save(again, replace(again.delivery, **CLOSED), NEVER)
    assert await store.report(ACCOUNT, report()) is Reported.RECORDED
    assert (await only(store)).outcome is Outcome.COMPLETED
    assert await outcomes(store, claim.delivery.id) == [Settled.BOUNCED]


async def test_another_accepted_send_of_the_round_outweighs_a_bounce(store: SqlStore) -> None:
    claim = await claimed(store)
    first = send(claim.delivery.id, 1)
    await store.begin_send(claim, first)
    await store.settle_send(replace(first, outcome=Settled.UNCONFIRMED, settled_at=AT), [])
    second = send(claim.delivery.id, 2, channel="sms", key="def", message_id="def")
    await store.begin_send(claim, second)
    await store.settle_send(replace(second, **SETTLED), [])
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)
    assert await store.report(ACCOUNT, report()) is Reported.RECORDED
    assert (await only(store)).outcome is Outcome.COMPLETED
    assert await outcomes(store, claim.delivery.id) == [Settled.BOUNCED, Settled.ACCEPTED]


async def test_a_bounce_of_an_earlier_round_opens_nothing(store: SqlStore) -> None:
    claim = await completed(store)
    await store.resend(claim.delivery.id, request("once more"))
    (again,) = await claim_all(store)
    second = send(claim.delivery.id, 2, round=1, key="def", message_id="<def@merchant.example>")
    await store.begin_send(again, second)
    await store.settle_send(replace(second, **SETTLED), [])
    await store.save(again, replace(again.delivery, **CLOSED), NEVER)
    assert await store.report(ACCOUNT, report()) is Reported.RECORDED
    assert (await only(store)).outcome is Outcome.COMPLETED


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.SKIPPED])
async def test_a_bounce_opens_nothing_that_was_called_off(store: SqlStore, outcome: Outcome) -> None:
    claim = await sent(store)
    await store.save(claim, replace(claim.delivery, outcome=outcome, closed_at=AT), NEVER)
    assert await store.report(ACCOUNT, report()) is Reported.RECORDED
    assert (await only(store)).outcome is outcome


async def test_a_bounce_keeps_whoever_has_it_in_hand_from_closing_it(store: SqlStore, clock: MovedClock) -> None:
    claim = await sent(store)
    assert await store.report(ACCOUNT, report()) is Reported.BOUNCED
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, closed_at=AT), NEVER)
    opened = await only(store)
    assert opened.outcome is Outcome.OPEN
    assert due_now(opened, clock)


async def test_a_bounce_keeps_whoever_has_it_in_hand_from_completing_it(store: SqlStore, clock: MovedClock) -> None:
    claim = await sent(store)
    assert await store.report(ACCOUNT, report()) is Reported.BOUNCED
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)
    opened = await only(store)
    assert opened.outcome is Outcome.OPEN
    assert due_now(opened, clock)


async def test_delivered_makes_an_unconfirmed_send_accepted(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    begun = send(claim.delivery.id)
    await store.begin_send(claim, begun)
    await store.settle_send(replace(begun, outcome=Settled.UNCONFIRMED, settled_at=AT), [])
    await store.save(claim, claim.delivery, LATER)
    assert await store.report(ACCOUNT, report(Fate.DELIVERED, detail="delivered")) is Reported.RECORDED
    found = await only(store)
    assert (found.delivery_proof, found.progress) == (Proof.REPORT, ("delivered",))
    assert due_now(found, clock)
    (told,) = await store.sends(claim.delivery.id)
    assert (told.outcome, told.proof, told.reported_at) == (Settled.ACCEPTED, Proof.REPORT, AT + MINUTE)
    assert await receipts_of(store, claim.delivery.id) == [(Result.ACCEPTED, "delivered")]


async def test_delivered_opens_what_was_given_up_in_doubt(store: SqlStore) -> None:
    claim = await claimed(store)
    begun = send(claim.delivery.id)
    await store.begin_send(claim, begun)
    await store.settle_send(replace(begun, outcome=Settled.UNCONFIRMED, settled_at=AT), [])
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, closed_at=AT), NEVER)
    await store.report(ACCOUNT, report(Fate.DELIVERED))
    assert (await only(store)).outcome is Outcome.OPEN


async def test_a_report_settles_a_send_that_nobody_has_settled(store: SqlStore) -> None:
    """The process died between intent and outcome; and what it writes late all the same does no harm."""
    claim = await claimed(store)
    begun = send(claim.delivery.id)
    await store.begin_send(claim, begun)
    assert await store.report(ACCOUNT, report(Fate.DELIVERED)) is Reported.RECORDED
    assert await outcomes(store, claim.delivery.id) == [Settled.ACCEPTED]
    await store.settle_send(replace(begun, outcome=Settled.UNCONFIRMED, settled_at=AT), [])
    assert await outcomes(store, claim.delivery.id) == [Settled.ACCEPTED]
    assert (await only(store)).delivery_proof is Proof.REPORT


@pytest.mark.parametrize("fate", [Fate.DEFERRED, Fate.UNKNOWN])
async def test_who_reports_on_a_send_in_doubt_has_it(store: SqlStore, clock: MovedClock, fate: Fate) -> None:
    """A text is "sent" hours before a telephone that is off takes it; nobody must send it again meanwhile."""
    claim = await claimed(store)
    begun = send(claim.delivery.id)
    await store.begin_send(claim, begun)
    await store.settle_send(replace(begun, outcome=Settled.UNCONFIRMED, answer="no answer", settled_at=AT), [])
    await store.save(claim, claim.delivery, LATER)
    assert await store.report(ACCOUNT, report(fate, detail="sent")) is Reported.RECORDED
    found = await only(store)
    assert (found.delivery_proof, found.progress) == (Proof.RELAY, ("delivered",))
    assert due_now(found, clock)
    (told,) = await store.sends(claim.delivery.id)
    assert (told.outcome, told.proof, told.reported_at) == (Settled.ACCEPTED, Proof.RELAY, None)
    await store.report(ACCOUNT, report(Fate.DELIVERED, "e2"))
    assert (await only(store)).delivery_proof is Proof.REPORT


@pytest.mark.parametrize(("outcome", "times"), [(Settled.UNCONFIRMED, 1), (Settled.ACCEPTED, 2)])
async def test_a_report_on_a_send_under_way_proves_it_and_hides_no_line(
    store: SqlStore, outcome: Settled, times: int
) -> None:
    """The report is there before the answer, or before we know that there is none."""
    claim = await claimed(store)
    begun = send(claim.delivery.id)
    await store.begin_send(claim, begun)
    assert await store.report(ACCOUNT, report(Fate.DEFERRED, detail="sent")) is Reported.RECORDED
    answered = replace(begun, outcome=outcome, answer="answered", settled_at=AT, remote_id="queue-id-7")
    line = Entry(at=AT, step=Step.DELIVER, result=Result.ACCEPTED, detail="answered")
    for _ in range(times):  # a commit in doubt is told again
        await store.settle_send(answered, [line])
    (told,) = await store.sends(claim.delivery.id)
    assert (told.outcome, told.answer, told.remote_id) == (Settled.ACCEPTED, "answered", "queue-id-7")
    lines = [entry.detail for entry in await store.history(claim.delivery.id) if entry.step is Step.DELIVER]
    assert lines.count("answered") == 1


async def test_an_acceptance_that_is_written_after_its_bounce_does_not_undo_it(store: SqlStore) -> None:
    claim = await claimed(store)
    begun = send(claim.delivery.id)
    await store.begin_send(claim, begun)
    await store.report(ACCOUNT, report())
    await store.settle_send(replace(begun, **SETTLED), [])
    assert await outcomes(store, claim.delivery.id) == [Settled.BOUNCED]


async def test_a_refused_send_stays_refused(store: SqlStore) -> None:
    claim = await claimed(store)
    begun = send(claim.delivery.id)
    await store.begin_send(claim, begun)
    await store.settle_send(replace(begun, outcome=Settled.REFUSED, settled_at=AT), [])
    await store.save(claim, claim.delivery, LATER)
    before = await only(store)
    assert await store.report(ACCOUNT, report()) is Reported.RECORDED
    assert await outcomes(store, claim.delivery.id) == [Settled.REFUSED]
    assert await only(store) == before


# --- turns -----------------------------------------------------------------------------------------------------------


async def test_turns_are_evenly_spaced_across_processes(store: SqlStore, other: SqlStore) -> None:
    pace = Pace(count=30, seconds=3000)  # far apart, for taking ten turns may last seconds itself
    waits = await asyncio.gather(*(one.take_turn(ACCOUNT, "email", pace) for one in (store, other) * 5))
    assert sorted(waits) == pytest.approx([100.0 * place for place in range(10)], abs=20.0)
    spaces = [later - earlier for earlier, later in zip(sorted(waits), sorted(waits)[1:], strict=False)]
    assert min(spaces) > 80.0


async def test_turns_do_not_gather_while_nobody_takes_them(store: SqlStore, clock: MovedClock) -> None:
    pace = Pace(count=1, seconds=10)
    assert await store.take_turn(ACCOUNT, "email", pace) == 0
    assert await store.take_turn(ACCOUNT, "email", pace) == pytest.approx(10, abs=1)
    clock.advance(1000)
    assert await store.take_turn(ACCOUNT, "email", pace) == 0
    assert await store.take_turn(ACCOUNT, "email", pace) == pytest.approx(10, abs=1)


async def test_each_lane_and_account_has_its_own_pace(store: SqlStore) -> None:
    pace = Pace(count=1, seconds=60)
    assert await store.take_turn(ACCOUNT, "email", pace) == 0
    assert await store.take_turn(ACCOUNT, "sms", pace) == 0
    assert await store.take_turn("T87654321", "email", pace) == 0


# --- falling ---------------------------------------------------------------------------------------------------------


async def waiting(store: SqlStore, clock: MovedClock, number: int, lane: str = "email") -> Delivery:
    claim = await claimed(store, number)
    await store.save(claim, replace(claim.delivery, lane=lane, channel_since=clock.now()), LATER)
    return await only(store, number)


async def test_what_waits_too_long_for_a_lane_falls_from_it(store: SqlStore, clock: MovedClock) -> None:
    await waiting(store, clock, 1)
    clock.advance(600)
    await waiting(store, clock, 2)
    await waiting(store, clock, 3, lane="sms")
    assert await store.fall_from(ACCOUNT, "email", 700) == 0
    clock.advance(200)
    assert await store.fall_from("T87654321", "email", 700) == 0
    assert await store.fall_from(ACCOUNT, "email", 700) == 1
    assert await store.fall_from(ACCOUNT, "email", 700) == 0
    fallen = await only(store, 1)
    assert (fallen.lane, near(fallen.due_at, clock.now())) == (PROVIDER_LANE, True)
    assert [(await only(store, number)).lane for number in (2, 3)] == ["email", "sms"]


async def test_what_somebody_has_in_hand_does_not_fall(store: SqlStore, clock: MovedClock) -> None:
    await waiting(store, clock, 1)
    clock.advance(3601)
    assert await claim_all(store, lane="email")
    clock.advance(30)
    assert await store.fall_from(ACCOUNT, "email", 600) == 0
    clock.advance(60)
    assert await store.fall_from(ACCOUNT, "email", 600) == 1


async def test_what_another_holds_the_lock_of_falls_next_time(postgres_database: str, clock: MovedClock) -> None:
    """Nobody waits for it: two processes that lock the same rows in another order would stop each other."""
    async with open_store(emptied(postgres_database), clock=clock, migrate=False) as store:
        await waiting(store, clock, 1)
        await waiting(store, clock, 2)
        clock.advance(3600)
        with psycopg.connect(postgres_database) as frozen:
            frozen.execute("SELECT 1 FROM deliveries WHERE id = %s FOR UPDATE", (arrival(1).transaction_id,))
            assert await store.fall_from(ACCOUNT, "email", 600) == 1
        assert await store.fall_from(ACCOUNT, "email", 600) == 1


async def test_a_closed_delivery_does_not_fall(store: SqlStore, clock: MovedClock) -> None:
    await store.receive(arrival(1))
    (claim,) = await claim_all(store)
    closed = replace(claim.delivery, lane="email", channel_since=clock.now(), **CLOSED)
    await store.save(claim, closed, NEVER)
    clock.advance(3600)
    assert await store.fall_from(ACCOUNT, "email", 600) == 0


@pytest.mark.parametrize("early", [True, False])
async def test_a_report_about_what_is_erased_leaves_no_words(store: SqlStore, clock: MovedClock, early: bool) -> None:
    """It may have come before the erasure and find its send only afterwards, or come long after it."""
    about = report(Fate.DEFERRED, reference="queue-id-7", detail="ola@example.com is on holiday")
    if early:
        assert await store.report(ACCOUNT, about) is Reported.UNMATCHED
    claim = await completed(store, remote_id="queue-id-7")
    entry = Entry(at=clock.now(), step=Step.OPERATOR, result=Result.ACCEPTED)
    assert await store.erase([claim.delivery.id], entry) == (claim.delivery.id,)
    assert await store.report(ACCOUNT, about) is Reported.RECORDED
    with store._engines.readers.connect() as connection:
        assert connection.execute(select(receipts.c.detail)).scalars().all() == [None]
    assert await receipts_of(store, claim.delivery.id) == [(Result.DEFERRED, None)]
