"""How a pass ends: the delivery waits, or is closed, or was only looked at again."""

from dataclasses import replace

import structlog

from service.decide import Close, Ending, Requeue, Wait, delay_of, delivered, gives_up, may_have_it, tick
from service.delivery import HAD_IT, DecidedBy, Outcome, Result, Schedule, Standing, Step
from service.pipeline.asides import courtesy, tell_cancelled
from service.pipeline.reading import read
from service.pipeline.work import Passed, Work, alarm, enter, ids, told_already

_log = structlog.get_logger()


def end(work: Work, ending: Ending) -> Passed:
    """Return what is to be saved, with what the worker is to know of the lanes that were met."""
    fault = ending.fault if isinstance(ending, Wait) else None
    return replace(_ended(work, ending), fault=fault, sent=work.sent)


def _ended(work: Work, ending: Ending) -> Passed:
    if isinstance(ending, Requeue):
        moved = replace(work.delivery, lane=ending.lane, outcome=Outcome.OPEN, closed_at=None)
        return Passed(delivery=moved, schedule=Schedule(due_in=0.0), entries=tuple(work.entries))
    if isinstance(ending, Close):
        return _close(work, ending)
    now = work.parts.clock.now()
    work.delivery = tick(work.delivery, now, runs=ending.runs)
    has_it = delivered(work.delivery, work.sends)
    if reason := gives_up(work.delivery, ending, work.parts.rules, now, has_it=has_it):
        return _close(work, Close(outcome=Outcome.FAILED, reason=reason, waiting=ending.nothing_yet))
    return _postpone(work, ending)


def _postpone(work: Work, wait: Wait) -> Passed:
    place = max(0, work.delivery.postponed - work.claim.woken)
    delay = delay_of(wait, place, work.parts.rules, work.parts.jitter)
    if wait.reason != work.claim.delivery.reason:  # a long wait is one line of history
        step = Step.CAPTURE if work.delivery.delivered_at else Step.FETCH
        if not told_already(work, wait.reason):
            enter(work, step, Result.DEFERRED, detail=wait.reason)
    if work.claim.delivery.outcome is Outcome.SKIPPED and _nothing_learned(work):
        return _look_again_later(work, delay)
    # A look that something brought forward is not a further try of ours, nor is a wait of known length.
    counts = wait.seconds is None and not work.claim.woken
    work.delivery = replace(
        work.delivery,
        outcome=Outcome.OPEN,
        closed_at=None,
        reason=wait.reason,
        lane=wait.lane or work.delivery.lane,
        errors=0,
        postponed=work.delivery.postponed + counts,
        bad_documents=work.delivery.bad_documents + counts if wait.document else 0,
    )
    no_send = delay if wait.no_send else None
    _log.info("delivery.postponed", **ids(work), reason=wait.reason, due_in=round(delay, 1))
    schedule = Schedule(due_in=delay, no_send_for=no_send)
    return Passed(delivery=work.delivery, schedule=schedule, entries=tuple(work.entries))


def _close(work: Work, close: Close) -> Passed:
    now = work.parts.clock.now()
    before = work.claim.delivery
    looked_again = before.outcome is Outcome.SKIPPED and close.outcome in (Outcome.SKIPPED, Outcome.CANCELLED)
    if close.outcome is Outcome.COMPLETED and work.delivery.delivered_at is None:  # adopted; see `by_age`
        work.delivery = replace(work.delivery, delivered_at=work.known.collection.begun_at or now)
    if close.voided:
        work.delivery = replace(work.delivery, voided_at=work.known.voided_at or now)
    if looked_again:
        return _still_skipped(work, close)
    work.delivery = replace(
        tick(work.delivery, now, runs=False),
        outcome=close.outcome,
        reason=close.reason,
        closed_at=now,
        closed_waiting=close.waiting,
        postponed=0,
    )
    results = {Outcome.COMPLETED: Result.ACCEPTED, Outcome.FAILED: Result.REFUSED}
    enter(work, Step.CLOSE, results.get(close.outcome, Result.SKIPPED), detail=close.reason)
    work.parts.metrics.closed(close.outcome)
    _log.info("delivery.closed", **ids(work), outcome=close.outcome, reason=close.reason)
    failed = "alarm.failed" if close.outcome is Outcome.FAILED and not close.held else None
    for name in filter(None, (close.alarm, failed, "alarm.held" if close.held else None)):
        alarm(work, name, close.reason or "")
    schedule = Schedule(due_in=close.look_again_in)
    return Passed(delivery=work.delivery, schedule=schedule, entries=tuple(work.entries))


def _still_skipped(work: Work, close: Close) -> Passed:
    """End the second look at a skipped delivery; nobody delivering it is what the look is for."""
    collected = work.known.collection.begun or work.known.standing is not Standing.AUTHORIZED
    reason = close.reason
    if close.look_again_in is not None and not collected and work.delivery.decided_by is DecidedBy.SETTING:
        reason = (
            "nobody delivers this invoice: set invoice_channel to merchant at Dintero, "
            "or DELIVERY_INVOICE_CHANNEL=merchant here"
        )
        enter(work, Step.CLOSE, Result.SKIPPED, detail=reason)
        alarm(work, "alarm.nobody_delivers", reason)
    kept = replace(work.delivery, closed_at=work.claim.delivery.closed_at, reason=reason, outcome=Outcome.SKIPPED)
    return Passed(delivery=kept, schedule=Schedule(due_in=None), entries=tuple(work.entries))


def _nothing_learned(work: Work) -> bool:
    return work.transaction is None or (work.known.standing is Standing.AUTHORIZED and not work.ours)


def _look_again_later(work: Work, delay: float) -> Passed:
    """Put off the second look at a skipped delivery, along the schedule once; it stays skipped meanwhile."""
    skipped = work.claim.delivery
    again = delay if skipped.postponed < len(work.parts.rules.retry_delays) else None
    kept = replace(skipped, postponed=skipped.postponed + 1)
    return Passed(delivery=kept, schedule=Schedule(due_in=again), entries=())


async def look_at_closed(work: Work) -> Passed:
    """See whether a delivery was voided since it was closed: what is completed stays so, what failed is over."""
    ending = await read(work)
    if isinstance(ending, Wait):
        delay = delay_of(ending, work.delivery.postponed, work.parts.rules, work.parts.jitter)
        again = replace(work.claim.delivery, postponed=work.delivery.postponed + 1)
        stop = work.delivery.postponed >= len(work.parts.rules.retry_delays)
        schedule = Schedule(due_in=None if stop else delay)
        return Passed(delivery=again, schedule=schedule, entries=(), fault=ending.fault)
    if work.transaction and work.known.standing is Standing.VOIDED and work.delivery.voided_at is None:
        now = work.parts.clock.now()
        completed = work.delivery.outcome is Outcome.COMPLETED
        had_it = completed or may_have_it(work.delivery, work.sends)
        since = "after it was completed" if completed else HAD_IT if had_it else "after it had failed"
        words = f"voided at Dintero {since}"
        work.delivery = replace(work.delivery, voided_at=work.known.voided_at or now)
        if not completed:
            work.delivery = replace(work.delivery, outcome=Outcome.CANCELLED, reason=words, closed_at=now)
        enter(work, Step.CLOSE, Result.ACCEPTED if completed else Result.SKIPPED, detail=words)
        if had_it:
            alarm(work, "alarm.voided_after_delivery", words)
            await tell_cancelled(work)
    late = await courtesy(work)
    closed = replace(work.delivery, postponed=0)
    return Passed(delivery=closed, schedule=Schedule(due_in=late), entries=tuple(work.entries))
