"""What a listed transaction means, what a turn looks through, and that every page of the list is seen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.decide import Rules
from service.delivery import (
    LISTED_AT_ONCE,
    PROVIDER_LANE,
    AccountFailure,
    Arrival,
    CaptureOrder,
    ChannelFinding,
    Collection,
    DecidedBy,
    Delivery,
    Job,
    Kind,
    Outcome,
    Request,
    Schedule,
    Standing,
    Store,
    Transaction,
    TransientFailure,
)
from service.metrics import Metrics
from service.reconcile import Found, Meaning, Span, first_look, meaning, progress, spans, would_be_held
from service.reconciling import Reconciler, listed
from service.store import SqlStore, open_store
from tests.fakes import ACCOUNT, FakePayments, MovedClock, a_delivery, a_transaction

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
RULES = Rules(
    order=CaptureOrder.AFTER_DELIVERY,
    retry_delays=(60.0,),
    give_up_after=3600.0,
    capture_give_up_after=3600.0,
    unconfirmed_retries=1,
    unconfirmed_delay=60.0,
    capture_timeout=60.0,
    min_days_before_due=3,
    timezone=ZoneInfo("Europe/Oslo"),
)
GROUPED = "kravia.invoice_b2b_grouped"
HELD = "held: older than this record; find out"


# --- what is unknown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("standing", "means"),
    [
        (Standing.AUTHORIZED, Meaning.MISSED),
        (Standing.HELD, Meaning.MISSED),
        (Standing.UNKNOWN, Meaning.MISSED),  # better looked at once too often than never
        (Standing.INITIATED, Meaning.UNFINISHED),
        (Standing.VOIDED, Meaning.ENDED),
        (Standing.DECLINED, Meaning.ENDED),
        (Standing.FAILED, Meaning.ENDED),
        (Standing.REFUNDED, Meaning.ENDED),
    ],
)
def test_what_nobody_told_us_of_is_missed_unless_there_is_nothing_to_deliver(
    standing: Standing, means: Meaning
) -> None:
    assert meaning(a_transaction(standing=standing), None) is means


@pytest.mark.parametrize("product_type", ["kravia.invoice_b2b", "kravia.invoice_b2c", GROUPED])
def test_all_products_are_ours(product_type: str) -> None:
    assert meaning(a_transaction(product_type=product_type), None) is Meaning.MISSED


@pytest.mark.parametrize("product_type", ["payex.creditcard", ""])
def test_other_products_are_not(product_type: str) -> None:
    assert meaning(a_transaction(product_type=product_type), None) is Meaning.NOT_OURS


# --- what is recorded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("standing", Standing)
def test_what_is_recorded_stays_as_it_is(outcome: Outcome, standing: Standing) -> None:
    voided_now = outcome is Outcome.COMPLETED and standing is Standing.VOIDED
    expected = Meaning.VOIDED if voided_now else Meaning.RECORDED
    assert meaning(a_transaction(standing=standing), a_delivery(outcome=outcome)) is expected


@pytest.mark.parametrize(
    ("had", "means"),
    [
        ({"attempt": 1}, Meaning.VOIDED),
        ({"delivered_at": NOW}, Meaning.VOIDED),  # by a person's word
        ({}, Meaning.RECORDED),
    ],
)
def test_a_void_of_what_failed_matters_when_the_customer_has_it_or_may(had: dict[str, Any], means: Meaning) -> None:
    recorded = a_delivery(outcome=Outcome.FAILED, **had)
    assert meaning(a_transaction(standing=Standing.VOIDED), recorded) is means


def test_a_void_of_a_purchase_that_gathers_is_noticed() -> None:
    recorded = a_delivery(kind=Kind.PURCHASE)
    assert meaning(a_transaction(standing=Standing.VOIDED), recorded) is Meaning.VOIDED
    assert meaning(a_transaction(), recorded) is Meaning.RECORDED
    closed = replace(recorded, outcome=Outcome.CANCELLED)
    assert meaning(a_transaction(standing=Standing.VOIDED), closed) is Meaning.RECORDED


def test_a_purchase_is_never_held() -> None:
    old = a_transaction(created_at=NOW - timedelta(days=20), product_type=GROUPED)
    assert would_be_held(old, ACCOUNT, RULES, NOW) is None
    assert would_be_held(replace(old, product_type="kravia.invoice_b2b"), ACCOUNT, RULES, NOW) is not None


def test_the_first_look_goes_back_to_the_quarters_first_day_for_purchases() -> None:
    _, whole = spans(NOW, None)
    since = datetime(2026, 9, 30, 19, tzinfo=UTC)
    assert first_look(NOW, RULES.timezone) == Span(since=since, until=whole.since, grouped_only=True)
    assert first_look(datetime(2026, 10, 12, tzinfo=UTC), RULES.timezone) is None


@pytest.mark.parametrize("note", [None, NOW.isoformat()], ids=["new", "upgraded"])
async def test_the_first_look_for_purchases_is_done_once_also_after_an_upgrade(
    store: SqlStore, clock: MovedClock, note: str | None
) -> None:
    """A record in which an earlier release has reconciled for months has had no such look either."""
    while first_look(clock.now(), RULES.timezone) is None:  # the quarter is younger than what is looked through anyway
        clock.advance(10 * 86400)
    payments = FakePayments(clock)
    reconciler = Reconciler(
        store=store,
        payments=payments,
        clock=clock,
        metrics=Metrics(),
        account_id=ACCOUNT,
        holds=lambda _transaction, _born_at: None,
        timezone=RULES.timezone,
    )
    for _ in range(3):
        job = await store.take_job("reconcile", every=0.001, lease=60)
        assert job is not None
        await store.end_job(job, done=True, note=await reconciler.turn(replace(job, note=note)))
        clock.advance(3600)
    first = first_look(clock.now(), RULES.timezone)
    assert first is not None
    assert [since for since, _, _ in payments.listed].count(first.since) == 1


def test_a_void_that_is_known_is_not_looked_for_again() -> None:
    recorded = a_delivery(outcome=Outcome.COMPLETED, voided_at=NOW)
    assert meaning(a_transaction(standing=Standing.VOIDED), recorded) is Meaning.RECORDED


@pytest.mark.parametrize(
    ("standing", "means"),
    [
        (Standing.AUTHORIZED, Meaning.MISSED),
        (Standing.HELD, Meaning.MISSED),
        (Standing.INITIATED, Meaning.RECORDED),
        (Standing.DECLINED, Meaning.RECORDED),
        (Standing.UNKNOWN, Meaning.RECORDED),
    ],
)
def test_a_customer_who_finished_after_all_was_missed(standing: Standing, means: Meaning) -> None:
    waiting = a_delivery(outcome=Outcome.SKIPPED, closed_waiting=True, reason="never completed by the customer")
    assert meaning(a_transaction(standing=standing), waiting) is means


def test_what_is_held_is_told_from_what_failed() -> None:
    held = a_delivery(outcome=Outcome.FAILED, reason=HELD)
    assert held.is_held
    assert meaning(a_transaction(), held) is Meaning.HELD
    assert meaning(a_transaction(standing=Standing.VOIDED), held) is Meaning.RECORDED
    for other in (
        a_delivery(outcome=Outcome.FAILED, reason="withheld: no"),
        a_delivery(outcome=Outcome.FAILED, reason=None),
        a_delivery(outcome=Outcome.CANCELLED, reason=HELD),
    ):
        assert not other.is_held


# --- what would be held ----------------------------------------------------------------------------------------------


def test_what_would_be_held_is_what_the_pipeline_holds() -> None:
    hold = partial(would_be_held, account_id=ACCOUNT, rules=RULES, born_at=NOW)
    old = NOW - timedelta(hours=25)
    begun = Collection(begun=True, begun_at=NOW)
    assert hold(a_transaction(created_at=NOW)) is None
    assert hold(a_transaction(created_at=NOW - timedelta(hours=23))) is None
    for transaction in (a_transaction(created_at=old), a_transaction(created_at=NOW, collection=begun)):
        reason = hold(transaction)
        assert reason is not None
        assert a_delivery(outcome=Outcome.FAILED, reason=reason).is_held


def test_what_kravia_delivers_is_not_said_to_be_held() -> None:
    theirs = (ChannelFinding(level=DecidedBy.TRANSACTION, value="kravia"),)
    old = a_transaction(created_at=NOW - timedelta(days=3), findings=theirs)
    assert would_be_held(old, ACCOUNT, RULES, NOW) is None
    assert would_be_held(replace(old, findings=()), ACCOUNT, RULES, NOW) is not None


# --- what a turn looks through ---------------------------------------------------------------------------------------


def test_a_turn_looks_through_a_day_and_once_a_day_through_thirty() -> None:
    recent, rest = spans(NOW, None)
    assert recent == Span(since=NOW - timedelta(hours=24))
    assert rest == Span(since=NOW - timedelta(days=30), until=recent.since)
    assert spans(NOW, NOW - timedelta(hours=23, minutes=59)) == (recent,)
    assert spans(NOW, NOW - timedelta(hours=24)) == (recent, rest)


@pytest.mark.parametrize("backwards", [False, True])
def test_progress_follows_the_list_whichever_way_it_runs(backwards: bool) -> None:
    span = Span(since=NOW - timedelta(hours=10))
    seen = sorted((NOW - timedelta(hours=hours) for hours in range(11)), reverse=backwards)
    shown = [progress(seen[:count], span, NOW) for count in range(12)]
    assert shown[:2] == [0.0, 0.0]
    assert shown == sorted(shown)
    assert shown[6] == pytest.approx(0.5)
    assert shown[-1] == 1.0


def test_progress_of_nothing_is_none() -> None:
    assert progress([NOW, NOW], Span(since=NOW), NOW) == 0.0
    assert progress([NOW - timedelta(days=9), NOW], Span(since=NOW - timedelta(days=1)), NOW) == 1.0


# --- pages -----------------------------------------------------------------------------------------------------------


class Shuffled(FakePayments):
    """Lists in an order of its own, which stays the same while it is paged through."""

    async def list_created(
        self, since: datetime, until: datetime | None = None, *, after: str | None = None
    ) -> tuple[Transaction, ...]:
        self.listed.append((since, until, after))
        found = [t for t in self.transactions.values() if t.created_at and since <= t.created_at]
        Random(1).shuffle(found)
        start = 0 if after is None else [t.id for t in found].index(after) + 1
        return tuple(found[start : start + LISTED_AT_ONCE])


async def pages_of(payments: FakePayments, span: Span) -> list[tuple[Transaction, ...]]:
    return [page async for page in listed(payments, span)]


@pytest.mark.parametrize("order", [FakePayments, Shuffled])
@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (99, 1), (100, 2), (101, 2), (200, 3), (201, 3)])
async def test_every_page_is_read_to_the_first_short_one(
    clock: MovedClock, order: type[FakePayments], count: int, pages: int
) -> None:
    payments = order(clock)
    for number in range(count):
        payments.add(a_transaction(f"{ACCOUNT}.{number:03}"))
    seen = [t.id for page in await pages_of(payments, Span(since=clock.now() - timedelta(hours=1))) for t in page]
    assert sorted(seen) == sorted(payments.transactions)
    assert len(payments.listed) == pages
    assert [after is None for _, _, after in payments.listed] == [True] + [False] * (pages - 1)


async def test_a_transaction_that_comes_twice_is_one(clock: MovedClock) -> None:
    payments = FakePayments(clock)
    first = tuple(a_transaction(f"{ACCOUNT}.{number:03}") for number in range(LISTED_AT_ONCE))
    later = (first[-1], first[0], a_transaction(f"{ACCOUNT}.x"))
    payments.plan["list_created"] = [lambda: first, lambda: later]
    pages = await pages_of(payments, Span(since=NOW))
    assert [len(page) for page in pages] == [LISTED_AT_ONCE, 1]


async def test_a_list_that_does_not_move_on_is_a_failure_and_no_endless_turn(clock: MovedClock) -> None:
    payments = FakePayments(clock)
    page = tuple(a_transaction(f"{ACCOUNT}.{number:03}") for number in range(LISTED_AT_ONCE))
    payments.plan["list_created"] = [lambda: page] * 5
    with pytest.raises(TransientFailure, match="same page"):
        await pages_of(payments, Span(since=NOW))
    assert len(payments.listed) == 2


# --- turns, on a record ----------------------------------------------------------------------------------------------


class Bench:
    """A reconciler over a real record and a provider that is a dict."""

    def __init__(self, store: Store, clock: MovedClock) -> None:
        self.clock = clock
        self.store = store
        self.payments = FakePayments(clock)
        self.metrics = Metrics()
        self.held: dict[str, str] = {}
        self.reconciler = Reconciler(
            store=store,
            payments=self.payments,
            clock=clock,
            metrics=self.metrics,
            account_id=ACCOUNT,
            holds=lambda transaction, _: self.held.get(transaction.id),
        )

    def add(self, name: str, *, ago: timedelta = timedelta(), **changes: object) -> str:
        transaction = a_transaction(f"{ACCOUNT}.{name}", created_at=self.clock.now() - ago, **changes)
        self.payments.add(transaction)
        return transaction.id

    async def turn(self) -> bool:
        """Take a turn if there is one, as `Chores` does."""
        job = await self.store.take_job("reconcile", every=600, lease=60)
        if job is None:
            return False
        await self.store.end_job(job, done=True, note=await self.reconciler.turn(job))
        return True

    async def found(self) -> list[Found]:
        looked = self.reconciler.look(Span(since=self.clock.now() - timedelta(days=30)))
        return [one async for page in looked for one in page]

    async def record(self) -> dict[str, Delivery]:
        return {delivery.transaction_id: delivery for delivery in await self.store.listing()}

    async def close(self, outcome: Outcome, **changes: object) -> None:
        """Close whatever is due."""
        for claim in await self.store.claim(ACCOUNT, PROVIDER_LANE, 100, lease=60, suspects=False):
            closed = replace(claim.delivery, outcome=outcome, closed_at=self.clock.now(), **changes)  # type: ignore[arg-type]
            await self.store.save(claim, closed, Schedule(due_in=None))


@pytest.fixture
def bench(store: SqlStore, clock: MovedClock) -> Bench:
    return Bench(store, clock)


async def test_what_was_missed_is_entered_once_and_says_whence(bench: Bench) -> None:
    missed = bench.add("a")
    bench.add("b", standing=Standing.INITIATED)
    bench.add("c", product_type="payex.creditcard")
    bench.add("d", standing=Standing.VOIDED)
    assert await bench.turn()
    assert not await bench.turn()
    bench.clock.advance(601)
    assert await bench.turn()
    (delivery,) = (await bench.record()).values()
    assert (delivery.transaction_id, delivery.account_id, delivery.source) == (missed, ACCOUNT, "reconcile")
    assert delivery.due_at is not None
    assert [entry.detail for entry in await bench.store.history(delivery.id)] == ["reconcile"]
    assert b"merchant_delivery_missed_callbacks_total 1.0" in bench.metrics.render(None)


async def test_the_day_is_looked_through_at_each_turn_and_thirty_days_at_one_a_day(bench: Bench) -> None:
    start = bench.clock.now()
    for _ in range(144 + 2):
        assert await bench.turn()
        bench.clock.advance(601)
    asked = [(since - start, until is not None) for since, until, _ in bench.payments.listed]
    whole = [since for since, bounded in asked if bounded]
    assert len(whole) == 2
    assert len(asked) == 146 + 2
    assert abs(whole[0] + timedelta(days=30)) < timedelta(minutes=1)


async def test_what_is_older_than_a_day_comes_with_the_longer_look(bench: Bench) -> None:
    old = bench.add("a", ago=timedelta(days=29))
    bench.add("b", ago=timedelta(days=31))
    await bench.turn()
    assert set(await bench.record()) == {old}


async def test_a_page_that_fails_ends_the_turn_and_what_was_entered_stays(bench: Bench) -> None:
    for number in range(150):
        bench.add(f"{number:03}")
    first = tuple(list(bench.payments.transactions.values())[:LISTED_AT_ONCE])
    bench.payments.plan["list_created"] = [lambda: first, AccountFailure("Dintero answered 403")]
    job = await bench.store.take_job("reconcile", every=600, lease=60)
    assert job is not None
    with pytest.raises(AccountFailure):
        await bench.reconciler.turn(job)
    assert len(await bench.record()) == LISTED_AT_ONCE
    await bench.store.end_job(job, done=False)
    assert await bench.turn()
    assert len(await bench.record()) == 150


async def test_a_longer_look_that_failed_is_due_again_and_keeps_nobody_waiting(bench: Bench) -> None:
    old, new = bench.add("old", ago=timedelta(days=3)), bench.add("new")
    recent = (bench.payments.transactions[new],)
    bench.payments.plan["list_created"] = [lambda: recent, TransientFailure("Dintero answered 503")]
    job = await bench.store.take_job("reconcile", every=600, lease=60)
    assert job is not None
    with pytest.raises(TransientFailure):
        await bench.reconciler.turn(job)
    await bench.store.end_job(job, done=False)
    assert set(await bench.record()) == {new}
    assert await bench.turn()
    assert set(await bench.record()) == {old, new}


async def test_nothing_is_asked_of_a_provider_that_is_paused(bench: Bench) -> None:
    transaction_id = bench.add("a", ago=timedelta(days=3))
    await bench.store.pause(ACCOUNT, PROVIDER_LANE, "they are moving", by="kari", probe_in=None)
    assert await bench.turn()
    assert bench.payments.listed == []
    await bench.store.resume(ACCOUNT, PROVIDER_LANE)
    bench.clock.advance(601)
    assert await bench.turn()
    assert set(await bench.record()) == {transaction_id}  # the longer look was not counted as done meanwhile


async def test_a_void_after_delivery_makes_it_due_for_a_look_and_only_then(bench: Bench) -> None:
    transaction_id = bench.add("a")
    await bench.turn()
    await bench.close(Outcome.COMPLETED, delivered_at=bench.clock.now())
    bench.clock.advance(601)
    await bench.turn()
    assert (await bench.record())[transaction_id].due_at is None
    bench.payments.change(transaction_id, standing=Standing.VOIDED)
    bench.clock.advance(601)
    await bench.turn()
    assert (await bench.record())[transaction_id].due_at is not None
    await bench.close(Outcome.COMPLETED, voided_at=bench.clock.now())
    bench.clock.advance(601)
    await bench.turn()
    assert (await bench.record())[transaction_id].due_at is None


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.CANCELLED, Outcome.FAILED])
async def test_what_is_closed_stays_closed(bench: Bench, outcome: Outcome) -> None:
    transaction_id = bench.add("a")
    await bench.turn()
    await bench.close(outcome, reason="for a reason of its own")
    for standing in (Standing.AUTHORIZED, Standing.VOIDED):
        bench.payments.change(transaction_id, standing=standing)
        bench.clock.advance(601)
        await bench.turn()
        kept = (await bench.record())[transaction_id]
        assert (kept.outcome, kept.due_at) == (outcome, None)


async def test_who_never_finished_and_did_after_all_is_opened_again(bench: Bench) -> None:
    transaction_id = bench.add("a")
    await bench.turn()
    await bench.close(Outcome.SKIPPED, closed_waiting=True)
    bench.clock.advance(601)
    await bench.turn()
    assert (await bench.record())[transaction_id].outcome is Outcome.OPEN


async def test_a_callback_that_comes_after_all_changes_nothing_but_the_source(bench: Bench) -> None:
    transaction_id = bench.add("a")
    await bench.turn()
    await bench.store.receive(Arrival(transaction_id=transaction_id, account_id=ACCOUNT, at=bench.clock.now()))
    (delivery,) = (await bench.record()).values()
    assert delivery.source == "callback"


async def test_only_what_is_held_or_would_be_is_released(bench: Bench) -> None:
    held, old, new = bench.add("held"), bench.add("old"), bench.add("new")
    await bench.store.receive(Arrival(transaction_id=held, account_id=ACCOUNT, at=bench.clock.now()))
    await bench.close(Outcome.FAILED, reason=HELD)
    bench.held[old] = HELD
    found = await bench.found()
    assert {one.transaction.id: (one.meaning, one.holds) for one in found} == {
        held: (Meaning.HELD, HELD),
        old: (Meaning.MISSED, HELD),
        new: (Meaning.MISSED, None),
    }
    assert await bench.record() == {held: (await bench.record())[held]}
    await bench.reconciler.enter(found)
    assert await bench.reconciler.release(found, Request(by="kari", at=bench.clock.now())) == 2
    record = await bench.record()
    assert {one: record[one].released for one in (held, old, new)} == {held: True, old: True, new: False}
    assert {delivery.outcome for delivery in record.values()} == {Outcome.OPEN}


async def test_two_processes_and_one_of_them_reconciles(database_url: str, clock: MovedClock) -> None:
    """The second gets no turn while the first has it, nor when it has been done."""
    async with _bench(database_url, clock) as one, _bench(database_url, clock) as other:
        job = await one.store.take_job("reconcile", every=600, lease=60)
        assert isinstance(job, Job)
        assert not await other.turn()
        await one.store.end_job(job, done=True, note=await one.reconciler.turn(job))
        assert not await other.turn()
        clock.advance(601)
        assert await other.turn()
        assert not await one.turn()
        whole = [until is not None for bench in (one, other) for _, until, _ in bench.payments.listed]
        assert whole == [False, True, False]  # what the one had looked through, the other did not again


@asynccontextmanager
async def _bench(url: str, clock: MovedClock) -> AsyncIterator[Bench]:
    async with open_store(url, clock=clock) as store:
        yield Bench(store, clock)
