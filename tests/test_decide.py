"""What comes next: the pure decisions, row by row."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from service.decide import (
    Close,
    Deliver,
    Rules,
    StartCapture,
    Told,
    Wait,
    by_content,
    by_ownership,
    by_standing,
    delay_of,
    gives_up,
    is_copy,
    new_failure,
    next_effect,
    patience,
    resolve_capture,
    tick,
)
from service.delivery import (
    HAD_IT,
    Capture,
    CaptureEvent,
    CaptureOrder,
    Collection,
    DecidedBy,
    Outcome,
    Purpose,
    Resolution,
    Send,
    Settled,
    Standing,
)
from tests.fakes import a_delivery, a_transaction

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = Rules(
    order=CaptureOrder.AFTER_DELIVERY,
    retry_delays=(60.0, 300.0, 900.0),
    give_up_after=3600,
    capture_give_up_after=7200,
    unconfirmed_retries=1,
    unconfirmed_delay=900,
    capture_timeout=60,
    min_days_before_due=3,
    timezone=ZoneInfo("Europe/Oslo"),
)
BEFORE = Rules(
    order=CaptureOrder.BEFORE_DELIVERY,
    retry_delays=(60.0,),
    give_up_after=1,
    capture_give_up_after=1,
    unconfirmed_retries=0,
    unconfirmed_delay=1,
    capture_timeout=60,
    min_days_before_due=3,
    timezone=ZoneInfo("Europe/Oslo"),
)
BEGUN = Collection(begun=True, begun_at=NOW)


def a_send(outcome: Settled, *, purpose: Purpose = Purpose.FIRST, begun_at: datetime = NOW, round_: int = 0) -> Send:
    return Send(
        id="s",
        delivery_id="d",
        round=round_,
        channel="email",
        recipient="o***",
        recipient_key="k",
        purpose=purpose,
        key="k",
        dated=NOW,
        message_id="<m>",
        sha256="h",
        begun_at=begun_at,
        outcome=outcome,
    )


def a_capture(outcome: Settled, **details: str) -> Capture:
    return Capture(
        id="c",
        delivery_id="d",
        transaction_id="t",
        reference="t:invoice",
        amount=1,
        begun_at=NOW,
        outcome=outcome,
        **details,  # type: ignore[arg-type]
    )


def an_event(*, success: bool, reference: str | None = "t:invoice", answers: str | None = None) -> CaptureEvent:
    return CaptureEvent(
        id="3",
        reference=reference,
        request_id=None,
        answers=answers,
        initiates=True,
        success=success,
        amount=1,
        at=NOW,
        error="no",
    )


@pytest.mark.parametrize(
    ("changes", "outcome", "words"),
    [
        ({"product": "payex", "product_type": "payex.creditcard"}, Outcome.SKIPPED, "payex.creditcard"),
        ({"product": "payex", "product_type": "payex.swish", "standing": Standing.VOIDED}, Outcome.SKIPPED, "payex"),
        ({"standing": Standing.VOIDED}, Outcome.CANCELLED, "voided"),
        ({"standing": Standing.DECLINED}, Outcome.CANCELLED, "declined"),
        ({"standing": Standing.FAILED}, Outcome.CANCELLED, "failed"),
        ({"standing": Standing.REFUNDED}, Outcome.CANCELLED, "refunded"),
        (
            {"standing": Standing.INITIATED, "created_at": NOW - timedelta(hours=24)},
            Outcome.SKIPPED,
            "never completed",
        ),
    ],
)
def test_status_and_product_close_a_delivery(changes: dict[str, object], outcome: Outcome, words: str) -> None:
    verdict = by_standing(a_delivery(), a_transaction(**changes), (), NOW)
    assert isinstance(verdict, Close)
    assert verdict.outcome is outcome
    assert words in (verdict.reason or "")
    assert verdict.alarm is None


@pytest.mark.parametrize(
    ("standing", "runs"), [(Standing.INITIATED, False), (Standing.HELD, False), (Standing.UNKNOWN, True)]
)
def test_waiting_stops_the_clock_only_while_the_provider_holds_it(standing: Standing, *, runs: bool) -> None:
    transaction = a_transaction(standing=standing, status="X", created_at=NOW - timedelta(hours=23))
    verdict = by_standing(a_delivery(), transaction, (), NOW)
    assert isinstance(verdict, Wait)
    assert verdict.runs is runs
    assert verdict.nothing_yet


def test_an_initiated_transaction_without_a_product_yet_waits() -> None:
    transaction = a_transaction(standing=Standing.INITIATED, product="", product_type="", created_at=NOW)
    assert isinstance(by_standing(a_delivery(), transaction, (), NOW), Wait)


@pytest.mark.parametrize("sent", [None, Settled.OPEN, Settled.UNCONFIRMED, Settled.ACCEPTED])
def test_a_void_alarms_when_the_customer_has_or_may_have_it(sent: Settled | None) -> None:
    delivery = a_delivery(delivered_at=None if sent else NOW)
    sends = [a_send(sent)] if sent else []
    verdict = by_standing(delivery, a_transaction(standing=Standing.VOIDED), sends, NOW)
    assert isinstance(verdict, Close)
    assert verdict.alarm == "alarm.voided_after_delivery"
    assert HAD_IT in (verdict.reason or "")
    assert verdict.voided


def test_a_void_of_what_was_refused_is_nothing_to_tell() -> None:
    verdict = by_standing(a_delivery(), a_transaction(standing=Standing.VOIDED), [a_send(Settled.REFUSED)], NOW)
    assert isinstance(verdict, Close)
    assert (verdict.reason, verdict.alarm) == ("voided at Dintero", None)


@pytest.mark.parametrize(
    ("product_type", "channel", "level", "again"),
    [
        ("kravia.invoice_b2b_grouped", "merchant", DecidedBy.TRANSACTION, None),
        ("kravia.invoice_b2b", "kravia", DecidedBy.SESSION, None),
        ("kravia.invoice_b2b", "pigeon", DecidedBy.TRANSACTION, None),
        ("kravia.invoice_b2b", "kravia", DecidedBy.SETTING, 3600),
    ],
)
def test_what_is_not_ours_is_skipped(product_type: str, channel: str, level: DecidedBy, again: float | None) -> None:
    resolution = Resolution(channel=channel, decided_by=level)
    verdict = by_ownership(a_transaction(product_type=product_type), resolution)
    assert isinstance(verdict, Close)
    assert verdict.outcome is Outcome.SKIPPED
    assert verdict.look_again_in == again


@pytest.mark.parametrize("product_type", ["kravia.invoice_b2b", "kravia.invoice_b2c"])
def test_the_merchants_own_channel_is_ours(product_type: str) -> None:
    resolution = Resolution(channel="merchant", decided_by=DecidedBy.CHECKOUT)
    assert by_ownership(a_transaction(product_type=product_type), resolution) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"amount": None}, "amount is missing"),
        ({"amount": 0}, "amount is 0"),
        ({"amount": -5}, "amount is -5"),
        ({"currency": None}, "currency is missing"),
        ({"collection": Collection(begun=True, partial=10000)}, "10000 of 50000 (minor units) captured by someone"),
    ],
)
def test_what_cannot_be_delivered_fails_with_its_reason(changes: dict[str, object], words: str) -> None:
    verdict = by_content(a_transaction(**changes))
    assert isinstance(verdict, Close)
    assert verdict.outcome is Outcome.FAILED
    assert words in (verdict.reason or "")


@pytest.mark.parametrize("changes", [{"invoice_number": None}, {"invoice_url": None}])
def test_a_missing_invoice_is_waited_for(changes: dict[str, object]) -> None:
    verdict = by_content(a_transaction(**changes))
    assert isinstance(verdict, Wait)
    assert verdict.runs
    assert verdict.nothing_yet


def test_delivery_comes_before_the_capture_or_after_it() -> None:
    assert next_effect(a_delivery(), a_transaction(), (), RULES, NOW) == Deliver(purpose=Purpose.FIRST)
    assert isinstance(next_effect(a_delivery(), a_transaction(), (), BEFORE, NOW), StartCapture)
    assert isinstance(next_effect(a_delivery(), a_transaction(collection=BEGUN), (), BEFORE, NOW), Deliver)


def test_both_done_is_completed_and_an_accepted_send_leads_to_the_capture() -> None:
    sent = a_send(Settled.ACCEPTED)
    done = next_effect(a_delivery(), a_transaction(collection=BEGUN), (sent,), RULES, NOW)
    assert done == Close(outcome=Outcome.COMPLETED)
    assert isinstance(next_effect(a_delivery(), a_transaction(), (sent,), RULES, NOW), StartCapture)


def test_paid_before_we_delivered_is_skipped() -> None:
    paid = a_transaction(collection=Collection(begun=True, paid=True))
    verdict = next_effect(a_delivery(), paid, (), RULES, NOW)
    assert verdict == Close(outcome=Outcome.SKIPPED, reason="already paid")
    assert next_effect(a_delivery(delivered_at=NOW), paid, (), RULES, NOW) == Close(outcome=Outcome.COMPLETED)


def test_a_resend_is_a_round_of_its_own() -> None:
    first = a_send(Settled.ACCEPTED)
    delivery = a_delivery(delivered_at=NOW, round=1)
    paid = a_transaction(collection=Collection(begun=True, paid=True))
    assert next_effect(delivery, paid, (first,), RULES, NOW) == Deliver(purpose=Purpose.RESEND)
    again = a_send(Settled.ACCEPTED, purpose=Purpose.RESEND, round_=1)
    assert next_effect(delivery, paid, (first, again), RULES, NOW) == Close(outcome=Outcome.COMPLETED)


@pytest.mark.parametrize("outcome", [Settled.OPEN, Settled.UNCONFIRMED])
def test_a_send_in_doubt_is_repeated_once_and_late(outcome: Settled) -> None:
    first = a_send(outcome)
    early = next_effect(a_delivery(), a_transaction(), (first,), RULES, NOW + timedelta(seconds=800))
    assert isinstance(early, Wait)
    assert early.seconds == 100
    assert early.no_send
    late = next_effect(a_delivery(), a_transaction(), (first,), RULES, NOW + timedelta(seconds=900))
    assert late == Deliver(purpose=Purpose.REPEAT, again=first)
    repeat = a_send(outcome, purpose=Purpose.REPEAT, begun_at=NOW + timedelta(seconds=900))
    over = next_effect(a_delivery(), a_transaction(), (first, repeat), RULES, NOW + timedelta(days=1))
    assert isinstance(over, Close)
    assert over.outcome is Outcome.FAILED
    assert over.alarm == "alarm.unconfirmed"


def test_a_wake_up_does_not_bring_a_send_forward() -> None:
    delivery = a_delivery(no_send_before=NOW + timedelta(seconds=30), reason="451 later")
    verdict = next_effect(delivery, a_transaction(), (a_send(Settled.REFUSED),), RULES, NOW)
    assert isinstance(verdict, Wait)
    assert verdict.seconds == 30
    assert verdict.reason == "451 later"


def test_a_capture_in_doubt_is_resolved_by_reading() -> None:
    lost = a_capture(Settled.UNCONFIRMED)
    ours = Collection(begun=True, begun_at=NOW, events=(an_event(success=True),))
    told = resolve_capture(lost, a_transaction(collection=ours), (lost,), RULES, NOW)
    assert isinstance(told, Told)
    assert (told.capture.outcome, told.capture.event_id, told.then) == (Settled.ACCEPTED, "3", None)
    waits = resolve_capture(lost, a_transaction(), (lost,), RULES, NOW + timedelta(seconds=59))
    assert isinstance(waits, Wait)
    assert waits.seconds == 1
    gone = resolve_capture(lost, a_transaction(), (lost,), RULES, NOW + timedelta(seconds=60))
    assert isinstance(gone, Told)
    assert (gone.capture.outcome, gone.then) == (Settled.REFUSED, None)


def test_a_capture_answered_by_202_waits_for_the_event_that_answers_it() -> None:
    pending = a_capture(Settled.PENDING, event_request_id="r-1")
    late = NOW + timedelta(days=3)
    assert isinstance(resolve_capture(pending, a_transaction(), (pending,), RULES, late), Wait)
    foreign = Collection(events=(an_event(success=False, reference="somebody"),))
    assert isinstance(resolve_capture(pending, a_transaction(collection=foreign), (pending,), RULES, late), Wait)


@pytest.mark.parametrize("outcome", [Settled.OPEN, Settled.UNCONFIRMED, Settled.PENDING])
@pytest.mark.parametrize("retryable", [True, False])
def test_an_own_event_that_failed_ends_the_capture_as_its_policy_says(outcome: Settled, *, retryable: bool) -> None:
    capture = a_capture(outcome, event_request_id="r-1")
    failed = replace(an_event(success=False, answers="r-1"), retryable=retryable, retry_after=700)
    transaction = a_transaction(collection=Collection(events=(failed,)))
    told = resolve_capture(capture, transaction, (capture,), RULES, NOW)
    assert isinstance(told, Told)
    assert (told.capture.outcome, told.capture.event_id) == (Settled.REFUSED, "3")
    if retryable:
        assert isinstance(told.then, Wait)
        assert told.then.retry_after == 700
    else:
        assert told.then == Close(outcome=Outcome.FAILED, reason="the capture failed at Dintero: no")
    known = (replace(capture, outcome=Settled.REFUSED, event_id="3"), capture)
    assert isinstance(resolve_capture(capture, transaction, known, RULES, NOW), Wait)


def test_the_schedule_repeats_its_last_delay_and_a_servers_word_only_lengthens() -> None:
    wait = Wait(reason="x")
    assert [delay_of(wait, n, RULES, lambda: 0.5) for n in (0, 1, 2, 9)] == [60, 300, 900, 900]
    assert delay_of(wait, 0, RULES, lambda: 0.0) == pytest.approx(54)
    assert delay_of(wait, 0, RULES, lambda: 1.0) == pytest.approx(66)
    assert delay_of(Wait(reason="x", retry_after=500), 0, RULES, lambda: 0.5) == 500
    assert delay_of(Wait(reason="x", retry_after=5), 0, RULES, lambda: 0.5) == 60


def test_the_give_up_clock_stands_still_and_goes_on() -> None:
    running = tick(a_delivery(), NOW, runs=True)
    later = NOW + timedelta(seconds=3000)
    assert patience(running, later) == 3000
    standing = tick(running, later, runs=False)
    much_later = later + timedelta(days=9)
    assert patience(standing, much_later) == 3000
    again = tick(standing, much_later, runs=True)
    assert gives_up(again, Wait(reason="x"), RULES, much_later + timedelta(seconds=599), has_it=False) is None
    end = much_later + timedelta(seconds=600)
    assert gives_up(again, Wait(reason="x"), RULES, end, has_it=False) == "gave up after 60 minutes: x"
    assert gives_up(again, Wait(reason="x"), RULES, end, has_it=True) is None
    assert gives_up(again, Wait(reason="x", runs=False), RULES, end, has_it=False) is None


def test_a_bad_document_is_fetched_once_through_the_schedule() -> None:
    wait = Wait(reason="not a PDF", document=True)
    assert gives_up(a_delivery(bad_documents=2, postponed=9), wait, RULES, NOW, has_it=False) is None
    assert gives_up(a_delivery(bad_documents=3), wait, RULES, NOW, has_it=False) == "not a PDF"


def test_a_repeat_reads_as_what_it_repeats_whatever_becomes_known_later() -> None:
    delivery = a_delivery(round=1)
    doubtful, refused = a_send(Settled.UNCONFIRMED), a_send(Settled.REFUSED)
    assert is_copy(delivery, (doubtful,))
    assert not is_copy(delivery, (refused,))
    copy = a_send(Settled.UNCONFIRMED, purpose=Purpose.RESEND, round_=1)
    first = a_send(Settled.UNCONFIRMED, purpose=Purpose.FIRST, round_=1)
    assert is_copy(delivery, (refused, copy))
    assert not is_copy(delivery, (a_send(Settled.ACCEPTED), first))
    assert not is_copy(a_delivery(), (a_send(Settled.ACCEPTED),))


def test_a_failure_that_an_earlier_capture_left_does_not_count_again() -> None:
    capture = replace(a_capture(Settled.UNCONFIRMED), begun_at=NOW + timedelta(hours=1))
    for old in (an_event(success=False), replace(an_event(success=False), id=None)):
        assert new_failure(capture, [old], (capture,)) is None
    unknown = replace(an_event(success=False), id=None, at=None)
    assert new_failure(capture, [unknown], (capture,)) is None
    late = replace(an_event(success=False), id=None, at=NOW + timedelta(hours=1))
    assert new_failure(capture, [late, unknown], (capture,)) == late
