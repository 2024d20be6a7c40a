"""Capturing the transaction: the intent first, then the request, then what came of it."""

from dataclasses import replace

import structlog

from service.capture import capture_request
from service.decide import (
    Close,
    Ending,
    Requeue,
    Told,
    Wait,
    after_failed_capture,
    by_fallback,
    delivered,
    new_failure,
    on_failure,
    open_capture,
    own_events,
    progressed,
    resolve_capture,
)
from service.delivery import (
    PROVIDER_LANE,
    Bounced,
    Capture,
    CaptureAnswer,
    CaptureOrder,
    CaptureRequest,
    CommitInDoubt,
    Entry,
    IntentOpen,
    Outcome,
    PermanentFailure,
    Result,
    Settled,
    Standing,
    Step,
    TransientFailure,
    UnconfirmedFailure,
)
from service.pipeline.reading import FRESH_SECONDS, contradicted, read, same
from service.pipeline.sending import Prepared, prepare
from service.pipeline.work import Work, database_now, free_id, ids, record, so_far, took

_log = structlog.get_logger()


async def start_capture(work: Work) -> Ending | None:
    """Ask for the capture; None when it took effect, or when the transaction changed meanwhile."""
    basis = work.known
    if not delivered(work.delivery, work.sends):
        async with work.parts.trial_room.place() as place:
            prepared = await prepare(work, place)
        if not isinstance(prepared, Prepared):
            return prepared
    if late := await read(work, fresh_for=FRESH_SECONDS):
        return late
    if not same(basis, work.known):
        return contradicted(basis, work.known)
    # A relay's slot is for sending; if the provider's are all taken, this capture has waited long enough.
    work.move(PROVIDER_LANE)
    request = capture_request(work.known)
    try:
        capture = await _begin_capture(work, request)
    except Bounced:
        return Requeue(lane=PROVIDER_LANE)  # as the record has it now, something else comes next
    if capture is None:
        return Wait(reason="an earlier capture has not ended", lane=PROVIDER_LANE)
    began = work.parts.clock.monotonic()
    try:
        answer = await work.parts.payments.capture(request)
    except UnconfirmedFailure as failure:
        await _captured(work, replace(capture, outcome=Settled.UNCONFIRMED, detail=failure.reason), began)
        return on_failure(failure, lane=PROVIDER_LANE)
    except PermanentFailure as failure:
        return await _refused_capture(work, capture, failure, began)
    except TransientFailure as failure:
        await _captured(work, replace(capture, outcome=Settled.REFUSED, detail=failure.reason), began)
        return on_failure(failure, lane=PROVIDER_LANE)
    return await _answered(work, capture, answer, began)


async def _begin_capture(work: Work, request: CaptureRequest) -> Capture | None:
    """Commit the intent; None when an earlier one, given up for lost, turns out to be under way after all."""
    capture = Capture(
        id=free_id(request.transaction_id, len(work.captures) + 1, work.captures),
        delivery_id=work.delivery.id,
        transaction_id=request.transaction_id,
        reference=request.reference,
        amount=request.amount,
        begun_at=work.parts.clock.now(),
    )
    try:
        await work.parts.store.begin_capture(work.claim, capture)
    except IntentOpen:
        return None
    except CommitInDoubt:
        await _settle_capture(work, replace(capture, outcome=Settled.REFUSED, detail="never asked for"))
        raise
    work.captures.append(capture)
    return capture


async def _answered(work: Work, capture: Capture, answer: CaptureAnswer, began: float) -> Ending | None:
    """Read the answer's own events: a 200 may carry a capture that failed, a 202 says that it comes later."""
    if answer.transaction is None:
        waiting = replace(capture, outcome=Settled.PENDING, event_request_id=answer.event_request_id)
        await _captured(work, waiting, began)
        return Wait(reason="the capture is accepted by Dintero but not carried out yet", lane=PROVIDER_LANE)
    own = own_events(capture, answer.transaction)
    if answer.transaction.collection.begun:
        event = next((event for event in reversed(own) if event.success), None)
        done = replace(capture, outcome=Settled.ACCEPTED, event_id=event.id if event else None)
        work.transaction = answer.transaction
        await _captured(work, done, began)
        after = work.parts.rules.order is CaptureOrder.AFTER_DELIVERY and delivered(work.delivery, work.sends)
        return Close(outcome=Outcome.COMPLETED, reason=by_fallback(work.delivery, work.sends)) if after else None
    if failed := new_failure(capture, own, work.captures):
        then = after_failed_capture(failed)
        refused = replace(capture, outcome=Settled.REFUSED, event_id=failed.id, detail=then.reason)
        await _captured(work, refused, began)
        return then
    reason = "no trace of the capture in Dintero's answer"
    await _captured(work, replace(capture, outcome=Settled.UNCONFIRMED, detail=reason), began)
    return Wait(reason=reason, lane=PROVIDER_LANE)


async def _refused_capture(work: Work, capture: Capture, failure: PermanentFailure, began: float) -> Ending | None:
    """A refusal may mean that it is captured already: read, then decide."""
    if late := await read(work):
        await _captured(work, replace(capture, outcome=Settled.UNCONFIRMED, detail=failure.reason), began)
        return late
    if work.known.collection.begun:
        told = resolve_capture(capture, work.known, work.captures, work.parts.rules, database_now(work))
        assert isinstance(told, Told)
        await _captured(work, told.capture, began)
        return None
    failed = new_failure(capture, own_events(capture, work.known), work.captures)
    event_id = failed.id if failed else None
    refused = replace(capture, outcome=Settled.REFUSED, event_id=event_id, detail=failure.reason)
    await _captured(work, refused, began)
    if work.known.standing is not Standing.AUTHORIZED:
        return None
    return Close(outcome=Outcome.FAILED, reason=failure.reason)


async def settle_open_capture(work: Work) -> Ending | None:
    """Close a capture that a dead process or a lost answer left open, as far as the transaction tells its end."""
    capture = open_capture(work.captures)
    if capture is None:
        return None
    told = resolve_capture(capture, work.known, work.captures, work.parts.rules, database_now(work))
    if isinstance(told, Wait):
        return told
    await _captured(work, told.capture)
    return told.then


async def _captured(work: Work, capture: Capture, began: float | None = None) -> None:
    """Record how a capture ended; without `began` it is an earlier one, of which a read told."""
    took_ms = None if began is None else took(work, "capture", began)
    note = capture_request(work.known).note
    if capture.outcome is Settled.ACCEPTED and note:
        capture = replace(capture, detail="; ".join(filter(None, (capture.detail, note))))
    await _settle_capture(work, capture)
    work.parts.metrics.capture(capture.outcome)
    reason = None if capture.outcome is Settled.ACCEPTED else capture.detail
    _log.info("delivery.captured", **ids(work), result=capture.outcome, duration_ms=took_ms, reason=reason)


async def _settle_capture(work: Work, capture: Capture) -> None:
    results = {
        Settled.ACCEPTED: Result.ACCEPTED,
        Settled.UNCONFIRMED: Result.UNCONFIRMED,
        Settled.REFUSED: Result.REFUSED,
        Settled.PENDING: Result.DEFERRED,
    }
    now = work.parts.clock.now()
    settled = replace(capture, settled_at=now)
    entry = Entry(at=now, step=Step.CAPTURE, result=results[capture.outcome], detail=capture.detail)
    begun_at = None
    if capture.outcome is Settled.ACCEPTED:
        begun_at = work.known.collection.begun_at or now
        if work.delivery.captured_known_at is None:
            work.delivery = replace(work.delivery, captured_at=begun_at, captured_known_at=now)
        work.delivery = progressed(work.delivery)
    told = so_far(work, entry)
    await record(work, lambda: work.parts.store.settle_capture(settled, told, began_at=begun_at))
    work.captures = [settled if known.id == settled.id else known for known in work.captures]
