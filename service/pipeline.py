"""The verbs: one pass over a claimed delivery, from reading the transaction to the capture, and what is said of it."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from service.capture import capture_request
from service.decide import (
    IN_DOUBT,
    Close,
    Decision,
    Deliver,
    Ending,
    Requeue,
    Rules,
    StartCapture,
    Told,
    Wait,
    after_failed_capture,
    by_content,
    by_ownership,
    by_standing,
    delay_of,
    delivered,
    gives_up,
    is_copy,
    new_failure,
    next_effect,
    on_failure,
    open_capture,
    own_events,
    progressed,
    resolve_capture,
    tick,
)
from service.delivery import (
    PROVIDER_LANE,
    AlreadySent,
    Capture,
    CaptureAnswer,
    CaptureOrder,
    CaptureRequest,
    Channel,
    Claim,
    Clock,
    CommitInDoubt,
    Composed,
    DecidedBy,
    Delivery,
    DeliveryFailure,
    Entry,
    Inspector,
    Intent,
    Message,
    Outcome,
    Payments,
    PermanentFailure,
    Purpose,
    Receipt,
    Recipient,
    Renderer,
    Result,
    Schedule,
    Send,
    Settled,
    Standing,
    Step,
    Store,
    StoreUnavailable,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)
from service.metrics import Metrics
from service.privacy import scrub

FRESH_SECONDS = 30.0
LAST_WRITE_SECONDS = 2.0
_SETTLE_AGAIN = (0.2, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0, 60.0)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What a pass leaves to be saved."""

    delivery: Delivery
    schedule: Schedule
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that must have succeeded once before anything irreversible happens."""

    channel: Channel
    recipient: Recipient
    document: bytes
    message: Message


@dataclass(slots=True, kw_only=True)
class _Work:
    """A pass under way: the one mutable thing here, never seen outside."""

    claim: Claim
    claimed_at: datetime  # by our clock; the claim carries the database's
    delivery: Delivery
    sends: list[Send]
    captures: list[Capture]
    entries: list[Entry]
    move: Callable[[str], bool]
    transaction: Transaction | None = None
    ours: bool = False  # resolved in this pass

    @property
    def known(self) -> Transaction:
        assert self.transaction is not None
        return self.transaction


class Pipeline:
    """Drives deliveries; everything it talks to is given to it."""

    def __init__(
        self,
        *,
        store: Store,
        payments: Payments,
        channels: Sequence[Channel],
        renderer: Renderer,
        inspector: Inspector,
        rules: Rules,
        clock: Clock,
        jitter: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._payments = payments
        self._channels = tuple(channels)
        self._renderer = renderer
        self._inspector = inspector
        self._rules = rules
        self._clock = clock
        self._jitter = jitter
        self._metrics = metrics

    async def advance(self, claim: Claim, move: Callable[[str], bool]) -> Passed:
        """Take a delivery as far as it goes now. `move` asks for a slot of a channel's lane and says if it got one.

        Raises `LeaseLost` and `StoreUnavailable`; the intents it committed tell the next pass where it was.
        """
        work = _Work(
            claim=claim,
            claimed_at=self._clock.now(),
            delivery=claim.delivery,
            sends=list(claim.sends),
            captures=list(claim.captures),
            entries=[],
            move=move,
        )
        if claim.delivery.outcome is Outcome.COMPLETED:
            return await self._look_at_completed(work)
        ending = await self._run(work)
        return self._end(work, ending)

    # --- the way through ---------------------------------------------------------------------------------------------

    async def _run(self, work: _Work) -> Ending:
        decision = await self._read(work) or await self._next(work)
        while isinstance(decision, Deliver | StartCapture):
            act = self._deliver(work, decision) if isinstance(decision, Deliver) else self._capture(work)
            # An effect that succeeded says nothing; what comes next rests on a new read.
            decision = await act or await self._read(work) or await self._next(work)
        return decision

    async def _read(self, work: _Work, *, fresh_for: float = 0.0) -> Ending | None:
        """Read the transaction unless a younger one is at hand; None means that it is there."""
        if work.transaction and (self._clock.now() - work.transaction.read_at).total_seconds() < fresh_for:
            return None
        began = self._clock.monotonic()
        try:
            transaction = await self._payments.read(work.delivery.transaction_id)
        except DeliveryFailure as failure:
            return on_failure(failure, lane=work.delivery.lane, nothing_yet=work.delivery.product_type is None)
        took = self._took("fetch", began)
        if work.transaction and work.transaction.findings != transaction.findings:
            work.ours = False  # who delivers is asked again; what has begun stays ours all the same
        if work.delivery.product_type is None:
            self._enter(
                work, Step.FETCH, Result.ACCEPTED, detail=scrub(f"{transaction.product_type} is {transaction.status}")
            )
        work.transaction = transaction
        work.delivery = replace(
            work.delivery,
            product_type=transaction.product_type or work.delivery.product_type,
            invoice_number=transaction.invoice_number or work.delivery.invoice_number,
            merchant_reference=transaction.merchant_reference or work.delivery.merchant_reference,
            amount=transaction.amount,
            currency=transaction.currency,
        )
        _log.info("delivery.fetched", **self._ids(work), status=transaction.status, duration_ms=took)
        return None

    async def _next(self, work: _Work) -> Decision:
        now, transaction = self._clock.now(), work.known
        await self._settle_open_sends(work)
        in_doubt = any(send.outcome in IN_DOUBT for send in work.sends)
        verdict: Ending | None = by_standing(work.delivery, transaction, in_doubt=in_doubt, now=now)
        verdict = verdict or await self._resolve(work) or by_content(transaction)
        verdict = verdict or await self._settle_open_capture(work)
        if verdict:
            return verdict
        self._learn_collection(work)
        return next_effect(work.delivery, transaction, work.sends, self._rules, self._database_now(work))

    async def _resolve(self, work: _Work) -> Ending | None:
        """Find out once in a pass whether it is ours; what we have begun stays ours, whatever the settings become."""
        if work.ours or work.sends or work.captures or work.delivery.delivered_at:
            return None
        try:
            resolution = await self._payments.resolve(work.known)
        except DeliveryFailure as failure:
            return on_failure(failure, lane=work.delivery.lane)
        work.delivery = replace(work.delivery, decided_by=resolution.decided_by)
        verdict = by_ownership(work.known, resolution)
        work.ours = verdict is None
        return verdict

    async def _settle_open_sends(self, work: _Work) -> None:
        """An open intent at the start of a pass is a send whose process died: its outcome is not known."""
        for index, send in enumerate(work.sends):
            if send.outcome is Settled.OPEN:
                work.sends[index] = await self._settle_send(
                    work,
                    replace(
                        send, outcome=Settled.UNCONFIRMED, answer="the process ended before the answer was recorded"
                    ),
                )

    async def _settle_open_capture(self, work: _Work) -> Ending | None:
        """Close a capture that a dead process or a lost answer left open, as far as the transaction tells its end."""
        capture = open_capture(work.captures)
        if capture is None:
            return None
        told = resolve_capture(capture, work.known, work.captures, self._rules, self._database_now(work))
        if isinstance(told, Wait):
            return told
        await self._captured(work, told.capture)
        return told.then

    def _learn_collection(self, work: _Work) -> None:
        collection = work.known.collection
        if collection.begun and work.delivery.captured_known_at is None:
            now = self._clock.now()
            work.delivery = replace(work.delivery, captured_at=collection.begun_at or now, captured_known_at=now)

    # --- delivering --------------------------------------------------------------------------------------------------

    async def _prepare(self, work: _Work) -> Prepared | Ending:
        """Find recipient and document and render the message once, so that no effect precedes what cannot be done."""
        try:
            channel, recipient = self._reach(work)
            url = work.known.invoice_url
            assert url is not None
            document = await self._payments.invoice(url)
            await self._inspector.inspect(document)
            purpose = Purpose.RESEND if is_copy(work.delivery, work.sends) else Purpose.FIRST
            message = self._renderer.render(channel.template, work.known, purpose=purpose, recipient=recipient)
        except DeliveryFailure as failure:
            return on_failure(failure, lane=work.delivery.lane)
        return Prepared(channel=channel, recipient=recipient, document=document, message=message)

    def _reach(self, work: _Work) -> tuple[Channel, Recipient]:
        """Return the first channel, in order of preference, that this customer can be reached by."""
        refusals: list[str] = []
        for channel in self._channels:
            try:
                return channel, channel.recipient(work.known, to=work.delivery.send_to)
            except PermanentFailure as failure:
                refusals.append(failure.reason)
        raise PermanentFailure("; ".join(refusals))

    async def _deliver(self, work: _Work, step: Deliver) -> Ending | None:
        """Send the message; None when it was accepted, or when the transaction changed meanwhile: look at it afresh."""
        try:
            channel, _ = self._reach(work)
        except PermanentFailure as failure:
            return on_failure(failure, lane=work.delivery.lane)
        if not work.move(channel.name):
            return Requeue(lane=channel.name)
        basis = work.known
        prepared = await self._prepare(work)
        if not isinstance(prepared, Prepared):
            return prepared
        if late := await self._read(work, fresh_for=FRESH_SECONDS):
            return late
        if not _same(basis, work.known):
            return None
        send, composed = self._compose(work, step, prepared)
        if step.again is not None and composed.sha256 != step.again.sha256:
            return Close(
                outcome=Outcome.FAILED, reason="content changed since a send in doubt", alarm="alarm.unconfirmed"
            )
        if late := await self._begin_send(work, send):
            return late
        return await self._hand_over(work, prepared.channel, composed, send)

    def _compose(self, work: _Work, step: Deliver, prepared: Prepared) -> tuple[Send, Composed]:
        delivery = work.delivery
        text = "|".join((delivery.id, str(delivery.round), prepared.channel.name, prepared.recipient.key))
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        # Sends that share the key share the date, so that refused ones come again as the same message, too.
        earlier = next((send for send in work.sends if send.key == key), None)
        now = self._clock.now()
        dated = earlier.dated if earlier else now.replace(microsecond=0)
        intent = Intent(key=key, dated=dated, purpose=step.purpose)
        composed = prepared.channel.compose(prepared.message, prepared.document, prepared.recipient, intent)
        send = Send(
            id=f"{delivery.id}#{delivery.attempt + 1}",
            delivery_id=delivery.id,
            round=delivery.round,
            channel=prepared.channel.name,
            recipient=prepared.recipient.masked,
            recipient_key=prepared.recipient.key,
            purpose=step.purpose,
            key=key,
            dated=dated,
            message_id=composed.message_id,
            sha256=composed.sha256,
            begun_at=now,
        )
        return send, composed

    async def _begin_send(self, work: _Work, send: Send) -> Ending | None:
        try:
            await self._store.begin_send(work.claim, send)
        except AlreadySent:
            # Whoever made an earlier intent has learned that it was accepted: the next pass goes on from there.
            return Requeue(lane=PROVIDER_LANE)
        except CommitInDoubt:
            # Nothing is sent on a doubtful intent; if it did get in, it ends here as refused.
            never = replace(send, outcome=Settled.REFUSED, answer="never handed over")
            await self._settle_send(work, never)
            raise
        work.sends.append(send)
        work.delivery = replace(
            work.delivery,
            attempt=work.delivery.attempt + 1,
            channel=send.channel,
            recipient=send.recipient,
            recipient_key=send.recipient_key,
        )
        return None

    async def _hand_over(self, work: _Work, channel: Channel, composed: Composed, send: Send) -> Ending | None:
        began = self._clock.monotonic()
        try:
            receipt = await channel.send(composed)
        except UnconfirmedFailure as failure:
            await self._sent(work, send, Settled.UNCONFIRMED, failure.reason, began)
            wait = on_failure(failure, lane=channel.name)
            assert isinstance(wait, Wait)
            return replace(wait, seconds=self._rules.unconfirmed_delay, no_send=True)
        except DeliveryFailure as failure:
            await self._sent(work, send, Settled.REFUSED, failure.reason, began)
            return on_failure(failure, lane=channel.name, no_send=True)
        await self._sent(work, send, Settled.ACCEPTED, receipt.answer, began, receipt=receipt)
        return None

    async def _sent(
        self, work: _Work, send: Send, outcome: Settled, answer: str, began: float, *, receipt: Receipt | None = None
    ) -> None:
        took = self._took("deliver", began)
        proof = receipt.proof if receipt else None
        settled = await self._settle_send(work, replace(send, outcome=outcome, answer=answer, proof=proof))
        work.sends[-1] = settled
        if receipt:
            first = work.delivery.delivered_at is None
            work.delivery = replace(progressed(work.delivery), lane=PROVIDER_LANE)
            if first:
                work.delivery = replace(work.delivery, delivered_at=settled.settled_at, delivery_proof=receipt.proof)
        self._metrics.send(send.channel, outcome)
        _log.info(
            "delivery.sent",
            **self._ids(work),
            channel=send.channel,
            result=outcome,
            duration_ms=took,
            reason=None if receipt else answer,
        )

    async def _settle_send(self, work: _Work, send: Send) -> Send:
        results = {
            Settled.ACCEPTED: Result.ACCEPTED,
            Settled.UNCONFIRMED: Result.UNCONFIRMED,
            Settled.REFUSED: Result.REFUSED,
        }
        settled = replace(send, settled_at=self._clock.now())
        entry = Entry(
            at=self._clock.now(),
            step=Step.DELIVER,
            result=results[send.outcome],
            channel=send.channel,
            detail=send.answer,
            message_id=send.message_id,
        )
        told = self._so_far(work, entry)
        await self._record(lambda: self._store.settle_send(settled, told))
        return settled

    # --- capturing ---------------------------------------------------------------------------------------------------

    async def _capture(self, work: _Work) -> Ending | None:
        """Ask for the capture; None when it took effect, or when the transaction changed meanwhile."""
        basis = work.known
        if not delivered(work.delivery, work.sends):
            prepared = await self._prepare(work)
            if not isinstance(prepared, Prepared):
                return prepared
        if late := await self._read(work, fresh_for=FRESH_SECONDS):
            return late
        if not _same(basis, work.known):
            return None
        # A relay's slot is for sending; if the provider's are all taken, this capture has waited long enough.
        work.move(PROVIDER_LANE)
        request = capture_request(work.known)
        capture = await self._begin_capture(work, request)
        began = self._clock.monotonic()
        try:
            answer = await self._payments.capture(request)
        except UnconfirmedFailure as failure:
            await self._captured(work, replace(capture, outcome=Settled.UNCONFIRMED, detail=failure.reason), began)
            return on_failure(failure, lane=PROVIDER_LANE)
        except PermanentFailure as failure:
            return await self._refused_capture(work, capture, failure, began)
        except TransientFailure as failure:
            await self._captured(work, replace(capture, outcome=Settled.REFUSED, detail=failure.reason), began)
            return on_failure(failure, lane=PROVIDER_LANE)
        return await self._answered(work, capture, answer, began)

    async def _begin_capture(self, work: _Work, request: CaptureRequest) -> Capture:
        capture = Capture(
            id=f"{request.transaction_id}#{len(work.captures) + 1}",
            delivery_id=work.delivery.id,
            transaction_id=request.transaction_id,
            reference=request.reference,
            amount=request.amount,
            begun_at=self._clock.now(),
        )
        try:
            await self._store.begin_capture(work.claim, capture)
        except CommitInDoubt:
            await self._settle_capture(work, replace(capture, outcome=Settled.REFUSED, detail="never asked for"))
            raise
        work.captures.append(capture)
        return capture

    async def _answered(self, work: _Work, capture: Capture, answer: CaptureAnswer, began: float) -> Ending | None:
        """Read the answer's own events: a 200 may carry a capture that failed, a 202 says that it comes later."""
        if answer.transaction is None:
            waiting = replace(capture, outcome=Settled.PENDING, event_request_id=answer.event_request_id)
            await self._captured(work, waiting, began)
            return Wait(reason="the capture is accepted by Dintero but not carried out yet", lane=PROVIDER_LANE)
        own = own_events(capture, answer.transaction)
        if answer.transaction.collection.begun:
            event = next((event for event in reversed(own) if event.success), None)
            done = replace(capture, outcome=Settled.ACCEPTED, event_id=event.id if event else None)
            work.transaction = answer.transaction
            await self._captured(work, done, began)
            after = self._rules.order is CaptureOrder.AFTER_DELIVERY and delivered(work.delivery, work.sends)
            return Close(outcome=Outcome.COMPLETED) if after else None
        if failed := new_failure(own, work.captures):
            then = after_failed_capture(failed)
            refused = replace(capture, outcome=Settled.REFUSED, event_id=failed.id, detail=then.reason)
            await self._captured(work, refused, began)
            return then
        reason = "no trace of the capture in Dintero's answer"
        await self._captured(work, replace(capture, outcome=Settled.UNCONFIRMED, detail=reason), began)
        return Wait(reason=reason, lane=PROVIDER_LANE)

    async def _refused_capture(
        self, work: _Work, capture: Capture, failure: PermanentFailure, began: float
    ) -> Ending | None:
        """A refusal may mean that it is captured already: read, then decide."""
        if late := await self._read(work):
            await self._captured(work, replace(capture, outcome=Settled.UNCONFIRMED, detail=failure.reason), began)
            return late
        if work.known.collection.begun:
            told = resolve_capture(capture, work.known, work.captures, self._rules, self._database_now(work))
            assert isinstance(told, Told)
            await self._captured(work, told.capture, began)
            return None
        await self._captured(work, replace(capture, outcome=Settled.REFUSED, detail=failure.reason), began)
        if work.known.standing is not Standing.AUTHORIZED:
            return None
        return Close(outcome=Outcome.FAILED, reason=failure.reason)

    async def _captured(self, work: _Work, capture: Capture, began: float | None = None) -> None:
        """Record how a capture ended; without `began` it is an earlier one, of which a read told."""
        took = None if began is None else self._took("capture", began)
        note = capture_request(work.known).note
        if capture.outcome is Settled.ACCEPTED and note:
            capture = replace(capture, detail="; ".join(filter(None, (capture.detail, note))))
        await self._settle_capture(work, capture)
        self._metrics.capture(capture.outcome)
        reason = None if capture.outcome is Settled.ACCEPTED else capture.detail
        _log.info("delivery.captured", **self._ids(work), result=capture.outcome, duration_ms=took, reason=reason)

    async def _settle_capture(self, work: _Work, capture: Capture) -> None:
        results = {
            Settled.ACCEPTED: Result.ACCEPTED,
            Settled.UNCONFIRMED: Result.UNCONFIRMED,
            Settled.REFUSED: Result.REFUSED,
            Settled.PENDING: Result.DEFERRED,
        }
        now = self._clock.now()
        settled = replace(capture, settled_at=now)
        entry = Entry(at=now, step=Step.CAPTURE, result=results[capture.outcome], detail=capture.detail)
        begun_at = None
        if capture.outcome is Settled.ACCEPTED:
            begun_at = work.known.collection.begun_at or now
            if work.delivery.captured_known_at is None:
                work.delivery = replace(work.delivery, captured_at=begun_at, captured_known_at=now)
            work.delivery = progressed(work.delivery)
        told = self._so_far(work, entry)
        await self._record(lambda: self._store.settle_capture(settled, told, began_at=begun_at))
        work.captures = [settled if known.id == settled.id else known for known in work.captures]

    # --- looking again, and ending -----------------------------------------------------------------------------------

    async def _look_at_completed(self, work: _Work) -> Passed:
        """See whether a completed delivery was voided since; its outcome stays what it is."""
        ending = await self._read(work)
        if isinstance(ending, Wait):
            delay = delay_of(ending, work.delivery.postponed, self._rules, self._jitter)
            again = replace(work.claim.delivery, postponed=work.delivery.postponed + 1)
            stop = work.delivery.postponed >= len(self._rules.retry_delays)
            return Passed(delivery=again, schedule=Schedule(due_in=None if stop else delay), entries=())
        if work.transaction and work.known.standing is Standing.VOIDED and work.delivery.voided_at is None:
            now = self._clock.now()
            work.delivery = replace(work.delivery, voided_at=work.known.voided_at or now)
            self._enter(work, Step.CLOSE, Result.ACCEPTED, detail="voided at Dintero after it was completed")
            self._alarm(work, "alarm.voided_after_delivery", "voided at Dintero after it was completed")
        closed = replace(work.delivery, postponed=0)
        return Passed(delivery=closed, schedule=Schedule(due_in=None), entries=tuple(work.entries))

    def _end(self, work: _Work, ending: Ending) -> Passed:
        if isinstance(ending, Requeue):
            moved = replace(work.delivery, lane=ending.lane, outcome=Outcome.OPEN, closed_at=None)
            return Passed(delivery=moved, schedule=Schedule(due_in=0.0), entries=tuple(work.entries))
        if isinstance(ending, Close):
            return self._close(work, ending)
        now = self._clock.now()
        work.delivery = tick(work.delivery, now, runs=ending.runs)
        has_it = delivered(work.delivery, work.sends)
        if reason := gives_up(work.delivery, ending, self._rules, now, has_it=has_it):
            return self._close(work, Close(outcome=Outcome.FAILED, reason=reason, waiting=ending.nothing_yet))
        return self._postpone(work, ending)

    def _postpone(self, work: _Work, wait: Wait) -> Passed:
        place = max(0, work.delivery.postponed - work.claim.woken)
        delay = delay_of(wait, place, self._rules, self._jitter)
        if wait.reason != work.claim.delivery.reason:  # a long wait is one line of history
            step = Step.CAPTURE if work.delivery.delivered_at else Step.FETCH
            if not self._told(work, wait.reason):
                self._enter(work, step, Result.DEFERRED, detail=wait.reason)
            if wait.alarm:
                self._alarm(work, wait.alarm, wait.reason)
        if work.claim.delivery.outcome is Outcome.SKIPPED and self._nothing_learned(work):
            return self._look_again_later(work, delay)
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
        _log.info("delivery.postponed", **self._ids(work), reason=wait.reason, due_in=round(delay, 1))
        schedule = Schedule(due_in=delay, no_send_for=no_send)
        return Passed(delivery=work.delivery, schedule=schedule, entries=tuple(work.entries))

    def _nothing_learned(self, work: _Work) -> bool:
        return work.transaction is None or (work.known.standing is Standing.AUTHORIZED and not work.ours)

    def _look_again_later(self, work: _Work, delay: float) -> Passed:
        """Put off the second look at a skipped delivery, along the schedule once; it stays skipped meanwhile."""
        skipped = work.claim.delivery
        again = delay if skipped.postponed < len(self._rules.retry_delays) else None
        kept = replace(skipped, postponed=skipped.postponed + 1)
        return Passed(delivery=kept, schedule=Schedule(due_in=again), entries=())

    def _close(self, work: _Work, close: Close) -> Passed:
        now = self._clock.now()
        before = work.claim.delivery
        looked_again = before.outcome is Outcome.SKIPPED and close.outcome in (Outcome.SKIPPED, Outcome.CANCELLED)
        if close.voided:
            work.delivery = replace(work.delivery, voided_at=work.known.voided_at or now)
        if looked_again:
            return self._still_skipped(work, close)
        work.delivery = replace(
            tick(work.delivery, now, runs=False),
            outcome=close.outcome,
            reason=close.reason,
            closed_at=now,
            closed_waiting=close.waiting,
            postponed=0,
        )
        results = {Outcome.COMPLETED: Result.ACCEPTED, Outcome.FAILED: Result.REFUSED}
        self._enter(work, Step.CLOSE, results.get(close.outcome, Result.SKIPPED), detail=close.reason)
        self._metrics.closed(close.outcome)
        _log.info("delivery.closed", **self._ids(work), outcome=close.outcome, reason=close.reason)
        failed = "alarm.failed" if close.outcome is Outcome.FAILED else None
        for alarm in filter(None, (close.alarm, failed)):
            self._alarm(work, alarm, close.reason or "")
        schedule = Schedule(due_in=close.look_again_in)
        return Passed(delivery=work.delivery, schedule=schedule, entries=tuple(work.entries))

    def _still_skipped(self, work: _Work, close: Close) -> Passed:
        """End the second look at a skipped delivery; nobody delivering it is what the look is for."""
        collected = work.known.collection.begun or work.known.standing is not Standing.AUTHORIZED
        if close.look_again_in is not None and not collected and work.delivery.decided_by is DecidedBy.SETTING:
            reason = (
                "nobody delivers this invoice: set invoice_channel to merchant at Dintero, "
                "or DELIVERY_INVOICE_CHANNEL=merchant here"
            )
            self._enter(work, Step.CLOSE, Result.SKIPPED, detail=reason)
            self._alarm(work, "alarm.nobody_delivers", reason)
        kept = replace(
            work.delivery, closed_at=work.claim.delivery.closed_at, reason=close.reason, outcome=Outcome.SKIPPED
        )
        return Passed(delivery=kept, schedule=Schedule(due_in=None), entries=tuple(work.entries))

    # --- small things ------------------------------------------------------------------------------------------------

    async def _record(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write a fact. It is worth waiting for the store, and it is finished even when the process is stopping."""
        writing = asyncio.ensure_future(self._insist(write))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # Not for long: the open intent says by itself that the outcome is not known.
            await asyncio.wait([writing], timeout=LAST_WRITE_SECONDS)
            writing.cancel()
            raise

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        for delay in _SETTLE_AGAIN:
            try:
                return await write()
            except StoreUnavailable as exc:
                self._metrics.alarm("alarm.store_unavailable")
                _log.warning("alarm.store_unavailable", reason=str(exc))
                await self._clock.sleep(delay)
        return await write()

    def _database_now(self, work: _Work) -> datetime:
        """The database's clock, carried on from the claim by the seconds that have passed here."""
        return work.claim.now + (self._clock.now() - work.claimed_at)

    def _took(self, step: str, began: float) -> float:
        seconds = self._clock.monotonic() - began
        self._metrics.step(step, seconds)
        return round(seconds * 1000, 1)

    def _enter(self, work: _Work, step: Step, result: Result, *, detail: str | None) -> None:
        work.entries.append(Entry(at=self._clock.now(), step=step, result=result, detail=detail))

    def _so_far(self, work: _Work, entry: Entry) -> tuple[Entry, ...]:
        """Return what the history has not been told yet, so that an effect's own line comes after it."""
        told = (*work.entries, entry)
        work.entries.clear()
        return told

    def _told(self, work: _Work, reason: str) -> bool:
        """Tell whether the history has this reason already, as the answer to an effect of this pass."""
        new = [send.answer for send in work.sends if send.settled_at and send not in work.claim.sends]
        return reason in new or any(c.detail == reason for c in work.captures if c not in work.claim.captures)

    def _ids(self, work: _Work) -> dict[str, object]:
        return {"transaction_id": work.delivery.transaction_id, "attempt": work.delivery.attempt}

    def _alarm(self, work: _Work, name: str, reason: str) -> None:
        self._metrics.alarm(name)
        _log.warning(name, **self._ids(work), reason=reason)


def _same(before: Transaction, after: Transaction) -> bool:
    """Tell whether a transaction that was read twice is still the one that an effect was decided and prepared on."""
    return before is after or before == replace(after, read_at=before.read_at)
