"""Deliveries from arrival to close: the real pipeline, worker and store, with a provider and a channel of our own."""

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from service.delivery import (
    AccountFailure,
    BadDocument,
    CaptureAnswer,
    CaptureOrder,
    ChannelFinding,
    Collection,
    CommitInDoubt,
    Composed,
    DecidedBy,
    IntentOpen,
    Line,
    Outcome,
    Party,
    PermanentFailure,
    Proof,
    Purpose,
    Receipt,
    Request,
    Result,
    Settled,
    Standing,
    Step,
    StoreUnavailable,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)
from tests.fakes import (
    ACCOUNT,
    a_transaction,
)
from tests.store_values import capture, send
from tests.workbench import ID, RULES, Bench


def before(bench: Bench) -> None:
    bench.rules = replace(RULES, order=CaptureOrder.BEFORE_DELIVERY)


async def test_an_invoice_is_delivered_then_captured(bench: Bench) -> None:
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.reason, done.progress) == (Outcome.COMPLETED, None, ("delivered", "captured"))
    assert (done.channel, done.recipient, done.delivery_proof) == ("email", "o***@x.example", Proof.RELAY)
    assert (done.attempt, done.due_at, done.invoice_number) == (1, None, "A1B2C-000001")
    assert len(bench.channel.sent) == 1
    (capture,) = bench.payments.captures
    assert (capture.reference, capture.amount) == (f"{ID}:invoice", 50000)
    assert await bench.told() == [
        (Step.RECEIVE, Result.ACCEPTED),
        (Step.FETCH, Result.ACCEPTED),
        (Step.DELIVER, Result.ACCEPTED),
        (Step.CAPTURE, Result.ACCEPTED),
        (Step.CLOSE, Result.ACCEPTED),
    ]


async def test_it_is_read_again_before_the_capture(bench: Bench) -> None:
    bench.channel.plan = [lambda: bench.payments.change(ID, standing=Standing.VOIDED)]
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.progress) == (Outcome.CANCELLED, ("delivered",))
    assert "after the customer had" in (done.reason or "")
    assert done.voided_at is not None
    assert bench.payments.captures == []


async def test_capture_first_reads_transaction_and_document_again_and_sends_that(bench: Bench) -> None:
    before(bench)
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.progress) == (Outcome.COMPLETED, ("captured", "delivered"))
    assert len(bench.payments.documents) == 2
    assert len(bench.channel.sent) == 1


async def test_capture_first_captures_nothing_that_could_not_be_sent(bench: Bench) -> None:
    before(bench)
    bench.payments.change(ID, billing=Party(country="NO"))
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.reason) == (Outcome.FAILED, "no usable e-mail address")
    assert bench.payments.captures == []


async def test_capture_first_sends_nothing_without_begun_collection(bench: Bench) -> None:
    before(bench)
    bench.payments.plan["capture"] = [TransientFailure("Dintero answered 503")]
    await bench.arrive()
    waits = await bench.work()
    assert (waits.outcome, waits.reason) == (Outcome.OPEN, "Dintero answered 503")
    assert bench.channel.sent == []
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_a_duplicate_changes_nothing_on_what_is_completed(bench: Bench) -> None:
    await bench.arrive()
    done = await bench.work()
    reads = len(bench.payments.reads)
    await bench.arrive()
    assert await bench.work() == done
    assert len(bench.payments.reads) == reads


async def test_a_void_after_completion_leaves_the_outcome_and_says_so(bench: Bench) -> None:
    await bench.arrive()
    await bench.work()
    bench.payments.change(ID, standing=Standing.VOIDED)
    await bench.arrive(event=True)
    bench.payments.plan["read"] = [TransientFailure("Dintero answered 503")]
    await bench.work()
    done = await bench.work(after=61)
    assert done.outcome is Outcome.COMPLETED
    assert done.voided_at is not None
    assert done.due_at is None


@pytest.mark.parametrize(
    ("failure", "order"),
    [
        (TransientFailure("451 4.7.1 greylisted"), "after"),
        (AccountFailure("535 5.7.8 wrong password"), "after"),
        (TransientFailure("451 4.7.1 greylisted"), "before"),
    ],
)
async def test_a_refusal_for_now_comes_again_on_the_schedule(bench: Bench, failure: Exception, order: str) -> None:
    if order == "before":
        before(bench)
    bench.channel.plan = [failure, failure]
    await bench.arrive()
    first = await bench.work()
    assert (first.outcome, first.lane, first.attempt) == (Outcome.OPEN, "email", 1)
    assert first.reason == str(failure)
    assert (await bench.work(after=59)).attempt == 1
    assert (await bench.work(after=2)).attempt == 2
    assert (await bench.work(after=299)).attempt == 2
    done = await bench.work(after=2)
    assert (done.outcome, done.attempt, done.reason) == (Outcome.COMPLETED, 3, None)
    sends = await bench.store.sends(ID)
    assert [send.outcome for send in sends] == [Settled.REFUSED, Settled.REFUSED, Settled.ACCEPTED]
    assert len({send.message_id for send in sends}) == 1


async def test_a_servers_own_delay_lengthens_ours(bench: Bench) -> None:
    bench.channel.plan = [TransientFailure("451 wait", retry_after=120)]
    await bench.arrive()
    await bench.work()
    assert (await bench.work(after=119)).attempt == 1
    assert (await bench.work(after=2)).outcome is Outcome.COMPLETED


async def test_a_callback_does_not_bring_a_refused_send_forward(bench: Bench) -> None:
    bench.channel.plan = [TransientFailure("451 later")]
    await bench.arrive()
    await bench.work()
    await bench.arrive()
    woken = await bench.work(after=10)
    assert (woken.attempt, woken.outcome) == (1, Outcome.OPEN)
    assert (await bench.work(after=51)).outcome is Outcome.COMPLETED


async def test_it_gives_up_in_the_end_and_a_retry_starts_the_clock_afresh(bench: Bench) -> None:
    bench.channel.plan = [TransientFailure("451 later")] * 20
    await bench.arrive()
    await bench.work()
    for _ in range(13):
        delivery = await bench.work(after=301)
    assert delivery.outcome is Outcome.FAILED
    assert delivery.reason == "gave up after 60 minutes: 451 later"
    assert bench.payments.captures == []
    bench.channel.plan = [TransientFailure("451 later")]
    await bench.store.retry(ID, Request(by="kari", at=bench.clock.now()))
    assert (await bench.work()).outcome is Outcome.OPEN
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED


async def test_the_clock_stands_still_while_our_account_is_at_fault(bench: Bench) -> None:
    bench.channel.plan = [AccountFailure("535 wrong password")] * 20
    await bench.arrive()
    for _ in range(20):
        delivery = await bench.work(after=301)
    assert delivery.outcome is Outcome.OPEN
    assert (await bench.work(after=301)).outcome is Outcome.COMPLETED


async def test_a_refusal_for_good_is_final_and_captures_nothing(bench: Bench) -> None:
    bench.channel.plan = [PermanentFailure("550 5.1.1 no such user")]
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.reason, done.closed_at is not None) == (Outcome.FAILED, "550 5.1.1 no such user", True)
    assert bench.payments.captures == []
    await bench.arrive()
    assert (await bench.work(after=86400)).outcome is Outcome.FAILED


async def test_an_unconfirmed_send_is_repeated_to_the_byte(bench: Bench) -> None:
    bench.channel.plan = [UnconfirmedFailure("the connection broke after the content")]
    await bench.arrive()
    waits = await bench.work()
    assert (waits.outcome, waits.progress) == (Outcome.OPEN, ())
    assert (await bench.work(after=890)).attempt == 1
    done = await bench.work(after=11)
    assert (done.outcome, done.attempt) == (Outcome.COMPLETED, 2)
    first, repeat = await bench.store.sends(ID)
    assert (first.purpose, repeat.purpose) == (Purpose.FIRST, Purpose.REPEAT)
    assert (first.sha256, first.message_id) == (repeat.sha256, repeat.message_id)
    assert (Step.DELIVER, Result.UNCONFIRMED) in await bench.told()


async def test_a_repeat_that_would_differ_is_not_sent(bench: Bench) -> None:
    bench.channel.plan = [UnconfirmedFailure("lost")]
    await bench.arrive()
    await bench.work()
    bench.renderer.text = "another wording"
    done = await bench.work(after=901)
    assert (done.outcome, done.reason) == (Outcome.FAILED, "content changed since a send in doubt")
    assert bench.channel.sent == []


async def test_repeats_in_doubt_are_bounded(bench: Bench) -> None:
    bench.channel.plan = [UnconfirmedFailure("lost")] * 9
    await bench.arrive()
    for _ in range(5):
        done = await bench.work(after=901)
    assert (done.outcome, done.attempt) == (Outcome.FAILED, 2)
    assert bench.payments.captures == []


async def test_a_process_that_dies_in_a_send_leaves_it_unconfirmed(bench: Bench) -> None:
    reached = asyncio.Event()

    async def hang(_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    bench.channel.send = hang  # type: ignore[method-assign,assignment]
    await bench.arrive()
    dying = asyncio.create_task(bench.worker().run())
    await reached.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    del bench.channel.send
    assert (await bench.work(after=61)).outcome is Outcome.OPEN
    assert bench.channel.sent == []
    done = await bench.work(after=901)
    assert (done.outcome, len(bench.channel.sent)) == (Outcome.COMPLETED, 1)
    first, repeat = await bench.store.sends(ID)
    assert (first.outcome, repeat.purpose) == (Settled.UNCONFIRMED, Purpose.REPEAT)


async def test_a_lost_answer_to_a_capture_is_resolved_by_reading(bench: Bench) -> None:
    def happened() -> object:
        bench.payments.begin(ID, f"{ID}:invoice")
        raise UnconfirmedFailure("no answer within 30 s")

    bench.payments.plan["capture"] = [happened]
    await bench.arrive()
    waits = await bench.work()
    assert (waits.outcome, waits.progress) == (Outcome.OPEN, ("delivered",))
    done = await bench.work(after=61)
    assert done.outcome is Outcome.COMPLETED
    assert len(bench.payments.captures) == 1
    (capture,) = await bench.store.captures(ID)
    assert (capture.outcome, capture.event_id) == (Settled.ACCEPTED, "3")


async def test_a_capture_that_left_no_trace_is_asked_for_again_only_later(bench: Bench) -> None:
    bench.rules = replace(RULES, retry_delays=(20.0,))
    bench.payments.plan["capture"] = [UnconfirmedFailure("no answer")]
    await bench.arrive()
    await bench.work()
    assert (await bench.work(after=25)).outcome is Outcome.OPEN
    assert len(bench.payments.captures) == 1
    done = await bench.work(after=40)
    assert done.outcome is Outcome.COMPLETED
    assert len(bench.payments.captures) == 2
    assert len(bench.channel.sent) == 1


async def test_a_refused_capture_that_had_begun_is_success(bench: Bench) -> None:
    def elsewhere() -> object:
        bench.payments.begin(ID, "somebody")
        raise PermanentFailure("Dintero answered 409")

    bench.payments.plan["capture"] = [elsewhere]
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.COMPLETED


async def test_a_refused_capture_that_had_not_begun_fails_with_progress_kept(bench: Bench) -> None:
    bench.payments.plan["capture"] = [PermanentFailure("Dintero answered 400: no")]
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.progress, done.reason) == (Outcome.FAILED, ("delivered",), "Dintero answered 400: no")


@pytest.mark.parametrize(("retryable", "outcome"), [(True, Outcome.OPEN), (False, Outcome.FAILED)])
async def test_a_200_whose_own_event_failed_is_no_success(bench: Bench, *, retryable: bool, outcome: Outcome) -> None:
    def failed() -> object:
        bench.payments.begin(ID, f"{ID}:invoice", success=False, error="limit", retryable=retryable)
        return CaptureAnswer(transaction=bench.payments.transactions[ID])

    bench.payments.plan["capture"] = [failed]
    await bench.arrive()
    delivery = await bench.work()
    assert (delivery.outcome, delivery.progress) == (outcome, ("delivered",))
    assert "limit" in (delivery.reason or "")
    if retryable:
        assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_a_202_is_waited_for_and_nothing_else_is_captured(bench: Bench) -> None:
    bench.payments.plan["capture"] = [lambda: CaptureAnswer(event_request_id="req-1")]
    await bench.arrive()
    await bench.work()
    waits = await bench.work(after=86000)
    assert (waits.outcome, len(bench.payments.captures)) == (Outcome.OPEN, 1)
    bench.payments.begin(ID, None, answers="req-1")
    done = await bench.work(after=301)
    assert (done.outcome, len(bench.payments.captures)) == (Outcome.COMPLETED, 1)


async def test_collection_that_had_begun_counts_as_captured(bench: Bench) -> None:
    bench.payments.begin(ID, "somebody")
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.progress) == (Outcome.COMPLETED, ("captured", "delivered"))
    assert bench.payments.captures == []
    assert len(bench.channel.sent) == 1


async def test_already_paid_is_skipped(bench: Bench) -> None:
    bench.payments.change(ID, collection=Collection(begun=True, paid=True))
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.reason) == (Outcome.SKIPPED, "already paid")
    assert bench.channel.sent == []


async def test_on_hold_waits_for_ever_and_then_goes_out(bench: Bench) -> None:
    bench.payments.change(ID, standing=Standing.HELD, status="ON_HOLD")
    await bench.arrive()
    for _ in range(30):
        delivery = await bench.work(after=301)
    assert (delivery.outcome, delivery.attempt) == (Outcome.OPEN, 0)
    deferred = [told for told in await bench.told() if told[1] is Result.DEFERRED]
    assert len(deferred) == 1
    bench.payments.change(ID, standing=Standing.AUTHORIZED)
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.COMPLETED


async def test_a_missing_number_is_waited_for_and_a_callback_reopens_what_gave_up(bench: Bench) -> None:
    bench.payments.change(ID, invoice_number=None)
    await bench.arrive()
    for _ in range(15):
        delivery = await bench.work(after=301)
    assert (delivery.outcome, delivery.closed_waiting) == (Outcome.FAILED, True)
    bench.payments.change(ID, invoice_number="A1B2C-000002")
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.COMPLETED


async def test_an_unknown_transaction_is_looked_for_again(bench: Bench) -> None:
    bench.payments.plan["read"] = [TransientFailure("not known at Dintero (404)")]
    await bench.arrive()
    assert (await bench.work()).reason == "not known at Dintero (404)"
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED


async def test_skipped_by_default_is_looked_at_again_and_alarmed_about(bench: Bench) -> None:
    bench.payments.change(ID, findings=())
    await bench.arrive()
    skipped = await bench.work()
    assert (skipped.outcome, skipped.decided_by) == (Outcome.SKIPPED, "setting")
    assert skipped.due_at is not None
    bench.payments.plan["read"] = [TransientFailure("503")]
    assert (await bench.work(after=3601)).outcome is Outcome.SKIPPED
    alarmed = await bench.work(after=61)
    assert (alarmed.outcome, alarmed.due_at) == (Outcome.SKIPPED, None)
    assert "nobody delivers" in ((await bench.store.history(ID))[-1].detail or "")
    assert (alarmed.closed_at, bench.channel.sent) == (skipped.closed_at, [])


async def test_skipped_by_default_but_collected_by_kravia_is_no_alarm(bench: Bench) -> None:
    bench.payments.change(ID, findings=())
    await bench.arrive()
    await bench.work()
    told = await bench.told()
    bench.payments.begin(ID, None)
    looked = await bench.work(after=3601)
    assert (looked.outcome, looked.due_at) == (Outcome.SKIPPED, None)
    assert await bench.told() == told


async def test_a_skipped_delivery_that_became_ours_is_delivered(bench: Bench) -> None:
    bench.payments.change(ID, findings=())
    await bench.arrive()
    await bench.work()
    bench.payments.change(ID, findings=a_transaction().findings)
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.COMPLETED


async def test_a_bad_document_is_fetched_again_and_then_fails(bench: Bench) -> None:
    bad = BadDocument("the document is HTML, not a PDF")
    bench.payments.plan["invoice"] = [bad, bad, bad]
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.OPEN
    assert (await bench.work(after=61)).outcome is Outcome.OPEN
    done = await bench.work(after=301)
    assert (done.outcome, done.reason) == (Outcome.FAILED, "the document is HTML, not a PDF")
    assert bench.channel.sent == []
    assert bench.payments.captures == []


async def test_a_resend_is_one_more_mail_and_no_more_capture(bench: Bench) -> None:
    await bench.arrive()
    await bench.work()
    await bench.store.resend(ID, Request(by="kari", at=bench.clock.now(), to="new@nordmann.example"))
    done = await bench.work()
    assert (done.outcome, len(bench.channel.sent), len(bench.payments.captures)) == (Outcome.COMPLETED, 2, 1)
    assert bench.channel.sent[1].recipient.address == "new@nordmann.example"
    assert bench.channel.sent[0].message_id != bench.channel.sent[1].message_id
    assert (done.send_to, (await bench.store.sends(ID))[1].purpose) == (None, Purpose.RESEND)


async def test_a_cancelled_delivery_does_nothing_more(bench: Bench) -> None:
    await bench.arrive()
    await bench.store.cancel(ID, Request(by="kari", at=bench.clock.now(), reason="wrong customer"))
    done = await bench.work(after=86400)
    assert done.outcome is Outcome.CANCELLED
    assert bench.payments.reads == []


async def test_a_bug_is_bounded(bench: Bench) -> None:
    bench.payments.plan["invoice"] = [ZeroDivisionError("a bug")] * 9
    await bench.arrive()
    for _ in range(6):
        done = await bench.work(after=301)
    assert (done.outcome, done.reason) == (
        Outcome.FAILED,
        "5 unexpected errors in a row, the last a ZeroDivisionError",
    )


async def test_claims_that_are_never_saved_end(bench: Bench) -> None:
    await bench.arrive()
    for n in range(5):
        claims = await bench.store.claim(ACCOUNT, "provider", 9, lease=60, suspects=n > 0)
        assert len(claims) == 1
        bench.clock.advance(61)
    done = await bench.work()
    assert (done.outcome, bench.payments.reads) == (Outcome.FAILED, [])


@pytest.mark.parametrize("verb", ["send", "capture"])
async def test_an_intent_that_another_keeps_open_is_waited_for_on_the_schedule_and_not_for_ever(
    bench: Bench, verb: str
) -> None:
    async def refused(*_: object) -> None:
        raise IntentOpen

    setattr(bench.store, f"begin_{verb}", refused)
    await bench.arrive()
    async with asyncio.timeout(20):
        first = await bench.work()
        again = await bench.work(after=61)
        last = await bench.work(after=90000)
    assert (first.outcome, first.reason) == (Outcome.OPEN, f"an earlier {verb} has not ended")
    assert (again.outcome, again.postponed) == (Outcome.OPEN, first.postponed + 1)
    assert last.outcome is Outcome.FAILED
    assert len(bench.payments.documents) == (3 if verb == "send" else 1)


async def test_a_new_intent_takes_no_number_that_is_taken(bench: Bench) -> None:
    """A record that was restored may lack the first of two."""
    await bench.arrive()
    await bench.store.settle_send(send(ID, id=f"{ID}#2", outcome=Settled.REFUSED, answer="451"), ())
    await bench.store.settle_capture(capture(ID, id=f"{ID}#2", outcome=Settled.REFUSED, detail="503"), ())
    assert (await bench.work()).outcome is Outcome.COMPLETED
    for intents in (await bench.store.sends(ID), await bench.store.captures(ID)):
        assert [(intent.id, intent.outcome) for intent in intents] == [
            (f"{ID}#2", Settled.REFUSED),
            (f"{ID}#3", Settled.ACCEPTED),
        ]


async def test_a_fact_is_written_although_the_store_was_away(bench: Bench) -> None:
    real = bench.store.settle_send
    failures = iter([StoreUnavailable("gone"), StoreUnavailable("gone")])

    async def flaky(*args: object) -> None:
        for failure in failures:
            raise failure
        await real(*args)  # type: ignore[arg-type]

    bench.store.settle_send = flaky  # type: ignore[method-assign,assignment]
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, len(bench.channel.sent)) == (Outcome.COMPLETED, 1)


async def test_one_bad_delivery_leaves_every_other_alone(bench: Bench) -> None:
    for n in range(30):
        bench.payments.add(a_transaction(f"{ACCOUNT}.{n}", amount=0 if n % 10 == 0 else 50000))
        await bench.arrive(f"{ACCOUNT}.{n}")
    await bench.worker().drain()
    listed = await bench.store.listing()
    assert sorted(d.outcome for d in listed) == [Outcome.COMPLETED] * 27 + [Outcome.FAILED] * 3
    assert len(bench.channel.sent) == 27


async def test_a_transaction_that_changes_while_we_prepare_is_looked_at_afresh(bench: Bench) -> None:
    def slow() -> object:
        bench.clock.advance(31)
        bench.payments.change(ID, collection=Collection(begun=True, paid=True))
        return None

    bench.payments.plan["invoice"] = [slow]
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.reason) == (Outcome.SKIPPED, "already paid")
    assert bench.channel.sent == []


async def test_a_transaction_voided_while_we_prepare_to_capture_first_is_cancelled(bench: Bench) -> None:
    before(bench)

    def slow() -> object:
        bench.clock.advance(31)
        bench.payments.change(ID, standing=Standing.VOIDED)
        return None

    bench.payments.plan["invoice"] = [slow]
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.CANCELLED
    assert bench.payments.captures == []


async def test_what_waits_for_a_channel_that_is_gone_is_taken_up_by_another(bench: Bench) -> None:
    bench.channel.plan = [TransientFailure("451 later")]
    await bench.arrive()
    assert (await bench.work()).lane == "email"
    bench.channel.name = "pigeon"
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    assert [send.channel for send in await bench.store.sends(ID)] == ["email", "pigeon"]


async def test_nothing_is_sent_on_an_intent_whose_commit_is_in_doubt(bench: Bench) -> None:
    real = bench.store.begin_send

    async def doubtful(*args: object) -> None:
        bench.store.begin_send = real  # type: ignore[method-assign]
        await real(*args)  # type: ignore[arg-type]
        raise CommitInDoubt("the connection broke")

    bench.store.begin_send = doubtful  # type: ignore[method-assign,assignment]
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.OPEN
    assert bench.channel.sent == []
    done = await bench.work(after=61)
    assert (done.outcome, len(bench.channel.sent)) == (Outcome.COMPLETED, 1)
    assert [send.outcome for send in await bench.store.sends(ID)] == [Settled.REFUSED, Settled.ACCEPTED]


async def test_what_we_have_begun_stays_ours_whatever_the_settings_become(bench: Bench) -> None:
    bench.payments.plan["capture"] = [TransientFailure("503")]
    await bench.arrive()
    await bench.work()
    bench.payments.change(ID, findings=())
    done = await bench.work(after=61)
    assert (done.outcome, done.progress) == (Outcome.COMPLETED, ("delivered", "captured"))


async def test_deliveries_that_wait_for_a_slow_relay_do_not_stop_captures(bench: Bench) -> None:
    bench.payments.plan["capture"] = [TransientFailure("503")]
    await bench.arrive()
    assert (await bench.work()).progress == ("delivered",)
    bench.clock.advance(61)
    released, most, sending = asyncio.Event(), 0, 0
    real = bench.channel.send

    async def slow(composed: Composed) -> Receipt:
        nonlocal most, sending
        sending += 1
        most = max(most, sending)
        await released.wait()
        sending -= 1
        return await real(composed)

    bench.channel.send = slow  # type: ignore[method-assign]
    for n in range(20):
        bench.payments.add(a_transaction(f"{ACCOUNT}.{n}"))
        await bench.arrive(f"{ACCOUNT}.{n}")
    worker = bench.worker()
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while (await bench.delivery()).outcome is not Outcome.COMPLETED or most < 4:
            await asyncio.sleep(0.02)
        assert (most, len(bench.channel.sent)) == (4, 1)
        released.set()
        while any(delivery.outcome is Outcome.OPEN for delivery in await bench.store.listing()):
            await asyncio.sleep(0.02)
    worker.stop()
    await running
    assert len(bench.channel.sent) == 21
    assert most == 4


async def hold(bench: Bench) -> None:
    """Let a transaction be on hold for so long that the schedule is at its end, and then go on."""
    bench.payments.change(ID, standing=Standing.HELD, status="ON_HOLD")
    await bench.arrive()
    for _ in range(5):
        await bench.work(after=301)
    bench.payments.change(ID, standing=Standing.AUTHORIZED, status="AUTHORIZED")


async def test_waiting_for_others_leaves_our_own_schedule_unused(bench: Bench) -> None:
    await hold(bench)
    bench.payments.plan["invoice"] = [BadDocument("not a PDF")]
    assert (await bench.work(after=301)).reason == "not a PDF"
    bench.channel.plan = [TransientFailure("451 greylisted")]
    assert (await bench.work(after=61)).attempt == 1
    assert (await bench.work(after=301)).outcome is Outcome.COMPLETED


async def test_the_first_refusal_after_a_hold_waits_the_first_delay(bench: Bench) -> None:
    await hold(bench)
    bench.channel.plan = [TransientFailure("451 greylisted")]
    assert (await bench.work(after=301)).attempt == 1
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED


async def test_wake_ups_do_not_use_the_schedule_up(bench: Bench) -> None:
    bench.payments.plan["invoice"] = [BadDocument("not a PDF")] * 5
    await bench.arrive()
    await bench.work()
    for _ in range(3):
        await bench.arrive()
        delivery = await bench.work(after=1)
    assert (delivery.outcome, delivery.postponed) == (Outcome.OPEN, 1)
    assert (await bench.work(after=61)).outcome is Outcome.OPEN
    assert (await bench.work(after=301)).outcome is Outcome.COMPLETED


async def test_a_202_that_fails_for_good_is_not_asked_for_again(bench: Bench) -> None:
    bench.payments.plan["capture"] = [lambda: CaptureAnswer(event_request_id="req-1")]
    await bench.arrive()
    await bench.work()
    bench.payments.begin(ID, None, success=False, answers="req-1", retryable=False, error="blocked")
    done = await bench.work(after=61)
    assert (done.outcome, done.reason) == (Outcome.FAILED, "the capture failed at Dintero: blocked")
    assert len(bench.payments.captures) == 1


async def test_a_202_that_fails_for_now_is_asked_for_again_later(bench: Bench) -> None:
    bench.payments.plan["capture"] = [lambda: CaptureAnswer(event_request_id="req-1")]
    await bench.arrive()
    await bench.work()
    bench.payments.begin(ID, None, success=False, answers="req-1", retry_after=500, error="busy")
    assert (await bench.work(after=61)).outcome is Outcome.OPEN
    assert (await bench.work(after=490)).outcome is Outcome.OPEN
    assert len(bench.payments.captures) == 1
    assert (await bench.work(after=11)).outcome is Outcome.COMPLETED


async def test_by_amount_alone_is_told_also_when_the_answer_was_lost(bench: Bench) -> None:
    def happened() -> object:
        bench.payments.begin(ID, f"{ID}:invoice")
        raise UnconfirmedFailure("no answer")

    bench.payments.change(ID, lines=(Line(line_id="1", amount=1),))
    bench.payments.plan["capture"] = [happened]
    await bench.arrive()
    await bench.work()
    with capture_logs() as lines:
        assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    (capture,) = await bench.store.captures(ID)
    assert "by amount alone" in (capture.detail or "")
    captured = [line for line in lines if line["event"] == "delivery.captured"]
    assert [line["result"] for line in captured] == ["accepted"]


async def test_a_bug_met_when_looking_again_leaves_a_completed_delivery_as_it_is(bench: Bench) -> None:
    await bench.arrive()
    done = await bench.work()
    bench.payments.plan["read"] = [ZeroDivisionError("a bug")] * 9
    await bench.arrive(event=True)
    for _ in range(6):
        seen = await bench.work(after=301)
    assert (seen.outcome, seen.reason, seen.closed_at, seen.due_at) == (done.outcome, None, done.closed_at, None)


async def test_an_acceptance_that_becomes_known_late_stops_the_repeat(bench: Bench) -> None:
    bench.channel.plan = [UnconfirmedFailure("lost")]
    await bench.arrive()
    await bench.work()
    (first,) = await bench.store.sends(ID)
    entered = asyncio.Event()
    told = asyncio.Event()
    real = bench.payments.invoice

    async def slow(url: str) -> bytes:
        entered.set()
        await told.wait()
        return await real(url)

    bench.payments.invoice = slow  # type: ignore[method-assign]
    working = asyncio.create_task(bench.work(after=901))
    await entered.wait()
    accepted = replace(first, outcome=Settled.ACCEPTED, answer="250", proof=Proof.RELAY, settled_at=bench.clock.now())
    await bench.store.settle_send(accepted, ())
    told.set()
    done = await working
    assert (done.outcome, done.progress) == (Outcome.COMPLETED, ("delivered", "captured"))
    assert bench.channel.sent == []


async def test_stopping_does_not_wait_for_a_store_that_is_away(bench: Bench) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("gone")

    bench.store.settle_send = away  # type: ignore[method-assign,assignment]
    bench.clock.sleep = asyncio.sleep  # type: ignore[method-assign,assignment]
    await bench.arrive()
    worker = bench.worker(stop_grace=0.2)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        while not bench.channel.sent:
            await asyncio.sleep(0.01)
        worker.stop()
        await running


async def test_a_suspect_does_not_hold_up_the_others(bench: Bench) -> None:
    await bench.arrive()
    await bench.store.claim(ACCOUNT, "provider", 1, lease=60, suspects=False)
    bench.clock.advance(61)
    reached, released = asyncio.Event(), asyncio.Event()
    real = bench.channel.send

    async def silent_first(composed: Composed) -> Receipt:
        if not reached.is_set():
            reached.set()
            await released.wait()
        return await real(composed)

    bench.channel.send = silent_first  # type: ignore[method-assign]
    worker = bench.worker(alone=0.05)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        await reached.wait()
        bench.payments.add(a_transaction(f"{ACCOUNT}.b"))
        await bench.arrive(f"{ACCOUNT}.b")
        while (await bench.delivery(f"{ACCOUNT}.b")).outcome is not Outcome.COMPLETED:
            await asyncio.sleep(0.02)
        released.set()
        worker.stop()
        await running
    assert (await bench.delivery()).outcome is Outcome.COMPLETED


async def test_a_changed_address_or_owner_is_seen_before_the_send(bench: Bench) -> None:
    def slow() -> object:
        bench.clock.advance(31)
        kravia = (ChannelFinding(level=DecidedBy.TRANSACTION, value="kravia"),)
        bench.payments.change(ID, findings=kravia)
        return None

    bench.payments.plan["invoice"] = [slow]
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.SKIPPED
    assert bench.channel.sent == []


async def test_a_resend_is_no_copy_when_nothing_ever_arrived(bench: Bench) -> None:
    bench.channel.plan = [PermanentFailure("550 no such user")]
    await bench.arrive()
    await bench.work()
    await bench.store.resend(ID, Request(by="kari", at=bench.clock.now(), to="new@nordmann.example"))
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert b"again" not in bench.channel.sent[0].content
    await bench.store.resend(ID, Request(by="kari", at=bench.clock.now()))
    await bench.work()
    assert b"again" in bench.channel.sent[1].content


async def test_a_duplicate_during_the_first_look_brings_no_alarm_and_keeps_the_second_look(bench: Bench) -> None:
    real = bench.payments.read

    async def overtaken(transaction_id: str) -> Transaction:
        bench.payments.read = real  # type: ignore[method-assign]
        await bench.arrive()
        return await real(transaction_id)

    bench.payments.change(ID, findings=())
    bench.payments.read = overtaken  # type: ignore[method-assign]
    await bench.arrive()
    skipped = await bench.work()
    assert skipped.outcome is Outcome.SKIPPED
    assert skipped.due_at is not None
    assert not any("nobody delivers" in (entry.detail or "") for entry in await bench.store.history(ID))
    assert (await bench.work(after=3601)).due_at is None
    assert "nobody delivers" in ((await bench.store.history(ID))[-1].detail or "")


async def test_a_cancel_while_the_mail_is_under_way_says_that_the_customer_has_it(bench: Bench) -> None:
    real = bench.channel.send

    async def overtaken(composed: Composed) -> Receipt:
        await bench.store.cancel(ID, Request(by="kari", at=bench.clock.now(), reason="wrong customer"))
        return await real(composed)

    bench.channel.send = overtaken  # type: ignore[method-assign]
    await bench.arrive()
    done = await bench.work()
    assert (done.outcome, done.progress) == (Outcome.CANCELLED, ("delivered",))
    assert "the customer has the invoice" in (done.reason or "")
    assert bench.payments.captures == []


async def test_nothing_is_begun_after_a_stop(bench: Bench) -> None:
    await bench.arrive()
    await bench.store.claim(ACCOUNT, "provider", 1, lease=60, suspects=False)
    bench.payments.add(a_transaction(f"{ACCOUNT}.b"))
    await bench.arrive(f"{ACCOUNT}.b")
    reached, released = asyncio.Event(), asyncio.Event()
    real = bench.channel.send

    async def silent(composed: Composed) -> Receipt:
        reached.set()
        await released.wait()
        return await real(composed)

    bench.channel.send = silent  # type: ignore[method-assign]
    worker = bench.worker(alone=5, stop_grace=2)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        await reached.wait()
        bench.clock.advance(61)  # the dead process's lease ends: its delivery is a suspect, and waits for the other
        while len(worker._in_hand) < 2:
            bench.clock.advance(31)
            await asyncio.sleep(0.05)
        worker.stop()
        await asyncio.sleep(0.1)
        released.set()
        await running
    assert (await bench.delivery()).attempt == 0
    assert len(bench.channel.sent) == 1


async def test_suspects_come_one_at_a_time_and_leave_slots_to_others(bench: Bench) -> None:
    ids = [f"{ACCOUNT}.{n}" for n in range(8)]
    for transaction_id in ids:
        bench.payments.add(a_transaction(transaction_id))
        await bench.arrive(transaction_id)
    await bench.store.claim(ACCOUNT, "provider", 8, lease=60, suspects=False)
    bench.clock.advance(61)
    most = sending = 0
    real = bench.channel.send

    async def counted(composed: Composed) -> Receipt:
        nonlocal most, sending
        sending += 1
        most = max(most, sending)
        await asyncio.sleep(0.05)
        sending -= 1
        return await real(composed)

    bench.channel.send = counted  # type: ignore[method-assign]
    worker = bench.worker(alone=0.01)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while any(delivery.outcome is Outcome.OPEN for delivery in await bench.store.listing()):
            await asyncio.sleep(0.05)
    worker.stop()
    await running
    assert (most, len(bench.channel.sent)) == (1, 8)


async def test_what_a_crash_left_comes_back_soon_also_under_steady_work(bench: Bench) -> None:
    left = [f"{ACCOUNT}.left{number}" for number in range(8)]
    for id_ in left:
        bench.payments.add(a_transaction(id_))
        await bench.arrive(id_)
    await bench.store.claim(ACCOUNT, "provider", len(left), lease=60, suspects=False)
    bench.clock.advance(61)
    worker = bench.worker()
    running = asyncio.create_task(worker.run())
    began, number = bench.clock.monotonic(), 0
    async with asyncio.timeout(60):
        while any(delivery.outcome is Outcome.OPEN for delivery in await bench.store.known(left)):
            number += 1
            id_ = f"{ACCOUNT}.new{number}"
            bench.payments.add(a_transaction(id_))
            await bench.arrive(id_)
            worker.wake()
            bench.clock.advance(0.5)
            await asyncio.sleep(0.01)
    worker.stop()
    await running
    assert bench.clock.monotonic() - began < 180  # one every thirty seconds would take four minutes
