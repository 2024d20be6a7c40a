"""A person who looked says whether the customer has the invoice: on both databases, and through the pipeline."""

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from service.delivery import (
    HAD_IT,
    PROVIDER_LANE,
    AlreadySent,
    Capture,
    CaptureOrder,
    Claim,
    Condition,
    Outcome,
    PermanentFailure,
    Proof,
    Result,
    Schedule,
    Settled,
    Standing,
    Step,
    StoreUnavailable,
    TransientFailure,
    UnconfirmedFailure,
)
from service.store import SqlStore
from service.worker import POISONED_AFTER
from tests.fakes import ACCOUNT
from tests.store_values import AT, CLOSED, NEVER, SETTLED, capture, claimed, only, request, send
from tests.workbench import ID, RULES, Bench

LOST = UnconfirmedFailure("the mail relay's answer to the message was lost")
STATED = replace(request("the customer rang"), rests_on="post, 2026-11-20")


async def in_doubt(bench: Bench) -> None:
    """Use up all repeats of a send whose answer is lost."""
    bench.channel.plan = [LOST, LOST]
    await bench.arrive()
    await bench.work()
    assert (await bench.work(after=901)).outcome is Outcome.OPEN
    assert (await bench.work(after=901)).outcome is Outcome.FAILED


async def told(bench: Bench) -> list[Condition]:
    return [concern.condition for concern in await bench.store.concerns(ACCOUNT)]


async def test_delivered_goes_on_to_the_capture_and_sends_nothing(bench: Bench) -> None:
    await in_doubt(bench)
    await bench.store.resolve(ID, STATED, delivered=True)
    delivery = await bench.work()
    assert delivery.outcome is Outcome.COMPLETED
    assert delivery.delivery_proof is Proof.PERSON
    assert delivery.progress == ("delivered", "captured")
    assert bench.channel.sent == []
    assert len(bench.payments.captures) == 1
    said = [e.detail for e in await bench.store.history(ID) if e.step is Step.OPERATOR]
    assert said == ["stated as delivered by kari (post, 2026-11-20): the customer rang"]


async def test_not_delivered_sends_it_even_with_another_content(bench: Bench) -> None:
    await in_doubt(bench)
    bench.renderer.text = "a new template"
    await bench.store.resolve(ID, STATED, delivered=False)
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1
    assert [s.outcome for s in await bench.store.sends(ID)] == [Settled.REFUSED, Settled.REFUSED, Settled.ACCEPTED]


async def test_what_was_refused_keeps_its_own_answer(bench: Bench) -> None:
    bench.channel.plan = [TransientFailure("451 greylisted"), LOST]
    await bench.arrive()
    await bench.work()
    await bench.work(after=61)
    await bench.store.resolve(ID, STATED, delivered=False)
    assert [s.answer for s in await bench.store.sends(ID)] == ["451 greylisted", "stated as not delivered"]


async def test_accepted_by_the_relay_and_never_arrived_goes_out_once_more_before_the_capture(bench: Bench) -> None:
    bench.payments.plan["capture"] = [TransientFailure("503")]
    await bench.arrive()
    assert (await bench.work()).progress == ("delivered",)
    bench.channel.plan = [TransientFailure("451 greylisted")]
    await bench.store.resolve(ID, STATED, delivered=False)
    assert (await bench.work()).outcome is Outcome.OPEN
    assert len(bench.payments.captures) == 1, "what a person says did not arrive is not captured"
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 2


async def test_an_open_one_in_doubt_needs_no_waiting(bench: Bench) -> None:
    bench.channel.plan = [LOST]
    await bench.arrive()
    await bench.work()
    await bench.store.resolve(ID, STATED, delivered=False)
    assert (await bench.work()).outcome is Outcome.COMPLETED, "not before UNCONFIRMED_DELAY is about what is in doubt"


async def test_not_delivered_goes_where_its_resend_was_to_go(bench: Bench) -> None:
    """An older round that was stated says nothing of this one."""
    bench.payments.plan["capture"] = [TransientFailure("503")] * 50
    await bench.arrive()
    await bench.store.resolve(ID, STATED, delivered=True)
    await bench.work()
    await bench.store.resend(ID, replace(request(to="new@nordmann.example"), even_late=True))
    bench.channel.plan = [LOST]
    await bench.work()
    after = await bench.store.resolve(ID, STATED, delivered=False)
    assert (after.round, after.send_to, after.even_late) == (1, "new@nordmann.example", True)
    await bench.work()
    after = await bench.store.resolve(ID, STATED, delivered=False)
    assert (after.round, after.even_late) == (2, True)


async def test_a_failed_resend_that_a_person_brought_is_done(bench: Bench) -> None:
    await bench.arrive()
    await bench.work()
    await bench.store.resend(ID, request())
    bench.channel.plan = [PermanentFailure("550 5.1.1 no such user")]
    assert (await bench.work()).outcome is Outcome.FAILED
    await bench.store.resolve(ID, STATED, delivered=True)
    delivery = await bench.work()
    assert delivery.outcome is Outcome.COMPLETED
    assert delivery.delivery_proof is Proof.RELAY, "what the first rests on stays"
    assert len(bench.channel.sent) == 1


async def test_a_resend_after_a_statement_is_sent(bench: Bench) -> None:
    await in_doubt(bench)
    await bench.store.resolve(ID, STATED, delivered=True)
    await bench.work()
    await bench.store.resend(ID, request())
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_with_the_capture_first_a_statement_does_not_take_its_place(bench: Bench) -> None:
    bench.rules = replace(RULES, order=CaptureOrder.BEFORE_DELIVERY)
    bench.channel.plan = [PermanentFailure("550 5.1.1 no such user")]
    await bench.arrive()
    assert (await bench.work()).progress == ("captured",)
    await bench.store.resolve(ID, STATED, delivered=True)
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert len(bench.payments.captures) == 1


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.SKIPPED, Outcome.CANCELLED])
@pytest.mark.parametrize("delivered", [True, False])
async def test_what_is_closed_otherwise_stays(store: SqlStore, outcome: Outcome, delivered: bool) -> None:
    claim = await claimed(store)
    await store.save(claim, replace(claim.delivery, **(CLOSED | {"outcome": outcome})), NEVER)
    after = await store.resolve(claim.delivery.id, STATED, delivered=delivered)
    assert after.outcome is outcome
    assert await only(store) == after
    assert after.delivered_at is None
    assert (await store.history(after.id))[-1].result is Result.SKIPPED


async def test_a_step_in_hand_does_not_undo_a_statement(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.resolve(claim.delivery.id, STATED, delivered=True)
    with pytest.raises(AlreadySent):
        await store.begin_send(claim, send(claim.delivery.id))
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="no address"), NEVER)
    delivery = await only(store)
    assert delivery.outcome is Outcome.OPEN
    assert delivery.stated_round == 0
    assert delivery.delivered_at is not None


async def test_an_acceptance_that_comes_after_the_statement_counts(store: SqlStore) -> None:
    claim = await claimed(store)
    begun = send(claim.delivery.id)
    await store.begin_send(claim, begun)
    await store.resolve(claim.delivery.id, STATED, delivered=False)
    await store.settle_send(replace(begun, **SETTLED), ())
    await store.save(claim, claim.delivery, Schedule(due_in=0))
    delivery = await only(store)
    assert delivery.delivered_at is not None
    assert [s.outcome for s in await store.sends(delivery.id)] == [Settled.ACCEPTED]


async def test_a_step_in_hand_does_not_undo_a_release(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.release(claim.delivery.id, STATED)
    await store.save(claim, replace(claim.delivery, outcome=Outcome.FAILED, reason="held: too old"), NEVER)
    delivery = await only(store)
    assert (delivery.outcome, delivery.released) == (Outcome.OPEN, True)


@pytest.mark.parametrize("verb", ["resolve", "release"])
async def test_an_unknown_delivery_is_a_key_error(store: SqlStore, verb: str) -> None:
    with pytest.raises(KeyError):
        await (
            store.release("T12345678.9", STATED)
            if verb == "release"
            else store.resolve("T12345678.9", STATED, delivered=True)
        )


@pytest.mark.parametrize("late", [Settled.ACCEPTED, Settled.REFUSED])
async def test_what_is_under_way_when_it_is_stopped_is_in_doubt_until_somebody_knows(
    store: SqlStore, late: Settled
) -> None:
    claim = await claimed(store)
    begun, asked = send(claim.delivery.id), capture(claim.delivery.id)
    await store.begin_send(claim, begun)
    await store.begin_capture(claim, asked)
    await store.cancel(claim.delivery.id, request())
    assert [s.outcome for s in await store.sends(claim.delivery.id)] == [Settled.UNCONFIRMED]
    assert [c.outcome for c in await store.captures(claim.delivery.id)] == [Settled.UNCONFIRMED]
    await store.settle_send(replace(begun, outcome=late, answer="250 ok", settled_at=AT), ())
    await store.settle_capture(replace(asked, outcome=late, settled_at=AT), ())
    assert [s.outcome for s in await store.sends(claim.delivery.id)] == [late]
    assert [c.outcome for c in await store.captures(claim.delivery.id)] == [late]
    assert (await only(store)).outcome is Outcome.CANCELLED


async def test_a_voided_one_that_had_failed_after_its_delivery_is_over(bench: Bench) -> None:
    bench.payments.plan["capture"] = [PermanentFailure("400")]
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.FAILED
    bench.payments.change(ID, standing=Standing.VOIDED)
    await bench.arrive(event=True)
    with capture_logs() as logs:
        delivery = await bench.work()
    assert (delivery.outcome, delivery.progress) == (Outcome.CANCELLED, ("delivered",))
    assert delivery.voided_at is not None
    assert "alarm.voided_after_delivery" in [log["event"] for log in logs]


async def test_what_a_person_brought_and_could_not_be_captured_is_over_when_it_is_voided(bench: Bench) -> None:
    bench.payments.plan["capture"] = [PermanentFailure("400")]
    await bench.arrive()
    await bench.store.resolve(ID, STATED, delivered=True)
    failed = await bench.work()
    assert (failed.outcome, failed.attempt) == (Outcome.FAILED, 0)
    bench.payments.change(ID, standing=Standing.VOIDED)
    await bench.arrive(event=True)
    assert (await bench.work()).outcome is Outcome.CANCELLED
    assert await told(bench) == [Condition.VOIDED]


async def test_what_failed_in_doubt_and_is_voided_is_told_as_what_the_customer_had(bench: Bench) -> None:
    await in_doubt(bench)
    assert await told(bench) == [Condition.UNCONFIRMED]
    bench.payments.change(ID, standing=Standing.VOIDED)
    await bench.arrive(event=True)
    with capture_logs() as logs:
        delivery = await bench.work()
    assert (delivery.outcome, delivery.progress) == (Outcome.CANCELLED, ())
    assert delivery.reason == f"voided at Dintero {HAD_IT}"
    assert "alarm.voided_after_delivery" in [log["event"] for log in logs]
    assert await told(bench) == [Condition.VOIDED]


async def test_what_was_refused_and_is_voided_is_nobodys_concern(bench: Bench) -> None:
    bench.channel.plan = [PermanentFailure("550 5.1.1 no such user")]
    await bench.arrive()
    await bench.work()
    bench.payments.change(ID, standing=Standing.VOIDED)
    await bench.arrive(event=True)
    with capture_logs() as logs:
        delivery = await bench.work()
    assert (delivery.outcome, delivery.reason) == (Outcome.CANCELLED, "voided at Dintero after it had failed")
    assert "alarm.voided_after_delivery" not in [log["event"] for log in logs]
    assert await told(bench) == []


async def test_an_event_that_is_no_void_leaves_what_failed_as_it_is(bench: Bench) -> None:
    bench.channel.plan = [PermanentFailure("550 5.1.1 no such user")]
    await bench.arrive()
    before = await bench.work()
    await bench.arrive(event=True)
    after = await bench.work()
    assert (after.outcome, after.reason, after.due_at) == (Outcome.FAILED, before.reason, None)
    assert bench.channel.sent == []


async def test_a_pass_that_ends_early_says_what_a_dead_process_left_in_doubt(bench: Bench) -> None:
    await bench.arrive()
    (claim,) = await bench.store.claim(ACCOUNT, PROVIDER_LANE, 1, lease=60, suspects=False)
    await bench.store.begin_send(claim, send(ID))
    bench.payments.plan["read"] = [PermanentFailure("404")]
    assert (await bench.work(after=61)).outcome is Outcome.FAILED
    assert [s.outcome for s in await bench.store.sends(ID)] == [Settled.UNCONFIRMED]


async def poison(bench: Bench) -> None:
    """Let as many processes as are allowed end with it in hand, the first of them after it began a send."""
    await bench.arrive()
    for dead in range(POISONED_AFTER):
        (claim,) = await bench.store.claim(ACCOUNT, PROVIDER_LANE, 1, lease=60, suspects=dead > 0)
        if not dead:
            await bench.store.begin_send(claim, send(ID))
        bench.clock.advance(61)


async def test_poison_says_so_too(bench: Bench) -> None:
    await poison(bench)
    assert (await bench.work()).outcome is Outcome.FAILED
    assert [s.outcome for s in await bench.store.sends(ID)] == [Settled.UNCONFIRMED]
    assert bench.payments.reads == []


async def test_poison_ends_even_if_it_cannot_say_so(bench: Bench) -> None:
    await poison(bench)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    bench.store.settle_send = broken  # type: ignore[method-assign,assignment]
    with capture_logs() as logs:
        assert (await bench.work()).outcome is Outcome.FAILED
    assert [log["event"] for log in logs if log["event"].startswith("alarm.")] == [
        "alarm.unexpected_error",
        "alarm.failed",
    ]


async def test_poison_is_not_ended_while_the_store_does_not_take_what_it_left(bench: Bench) -> None:
    await poison(bench)
    real = bench.store.settle_send
    failures = iter([StoreUnavailable("database: gone")] * 15)  # more than one pass puts up with

    async def flaky(*args: object) -> None:
        for failure in failures:
            raise failure
        await real(*args)  # type: ignore[arg-type]

    bench.store.settle_send = flaky  # type: ignore[method-assign,assignment]
    async with asyncio.timeout(20):
        assert (await bench.work()).outcome is Outcome.FAILED
    assert [s.outcome for s in await bench.store.sends(ID)] == [Settled.UNCONFIRMED]


async def test_a_second_capture_that_meets_a_late_202_waits_for_it(bench: Bench) -> None:
    bench.payments.plan["capture"] = [LOST]
    await bench.arrive()
    await bench.work()
    (lost,) = await bench.store.captures(ID)
    begin = bench.store.begin_capture

    async def after_the_202(claim: Claim, capture: Capture) -> None:
        late = replace(lost, outcome=Settled.PENDING, event_request_id="r1")
        await bench.store.settle_capture(late, ())
        await begin(claim, capture)

    bench.store.begin_capture = after_the_202  # type: ignore[method-assign]
    with capture_logs() as logs:
        delivery = await bench.work(after=120)
    assert delivery.outcome is Outcome.OPEN
    assert len(bench.payments.captures) == 1
    assert "alarm.unexpected_error" not in [log["event"] for log in logs]
