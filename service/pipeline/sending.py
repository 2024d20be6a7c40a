"""Preparing and sending the message: the intent first, then the effect, then its outcome."""

import hashlib
from dataclasses import dataclass, replace

import structlog

from service.decide import Close, Deliver, Ending, Requeue, Wait, is_copy, on_failure, progressed
from service.delivery import (
    PROVIDER_LANE,
    AlreadySent,
    Channel,
    CommitInDoubt,
    Composed,
    DeliveryFailure,
    Entry,
    Intent,
    IntentOpen,
    Kind,
    Message,
    Outcome,
    PermanentFailure,
    Purpose,
    Receipt,
    Recipient,
    Result,
    Send,
    Settled,
    Step,
    UnconfirmedFailure,
)
from service.pipeline.reading import FRESH_SECONDS, contradicted, read, same
from service.pipeline.room import Place
from service.pipeline.work import Work, free_id, ids, record, so_far, took

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that must have succeeded once before anything irreversible happens."""

    channel: Channel
    recipient: Recipient
    document: bytes
    message: Message


async def deliver(work: Work, step: Deliver) -> Ending | None:
    """Send the message; None when it was accepted, or when the transaction changed meanwhile: look at it afresh."""
    try:
        channel, recipient = reach(work)
    except PermanentFailure as failure:
        return on_failure(failure, lane=work.delivery.lane)
    if not work.move(channel.name):
        return Requeue(lane=channel.name)
    async with work.parts.room.place() as place:
        return await _deliver(work, step, channel, recipient, place)


async def _deliver(work: Work, step: Deliver, channel: Channel, recipient: Recipient, place: Place) -> Ending | None:
    basis = work.known
    prepared = await _prepare(work, channel, recipient, place)
    if not isinstance(prepared, Prepared):
        return prepared
    if late := await read(work, fresh_for=FRESH_SECONDS):
        return late
    if not same(basis, work.known):
        return contradicted(basis, work.known)
    send, composed = _compose(work, step, prepared)
    if step.again is not None and composed.sha256 != step.again.sha256:
        return Close(outcome=Outcome.FAILED, reason="content changed since a send in doubt", alarm="alarm.unconfirmed")
    if late := await begin_send(work, send):
        return late
    return await _hand_over(work, prepared.channel, composed, send)


async def prepare(work: Work, place: Place) -> Prepared | Ending:
    """Find recipient and document and render the message once, so that no effect precedes what cannot be done."""
    try:
        channel, recipient = reach(work)
    except PermanentFailure as failure:
        return on_failure(failure, lane=work.delivery.lane)
    return await _prepare(work, channel, recipient, place)


async def _prepare(work: Work, channel: Channel, recipient: Recipient, place: Place) -> Prepared | Ending:
    try:
        url = work.known.invoice_url
        assert url is not None
        document = await work.parts.payments.invoice(url)
        place.holds(document)
        await work.parts.inspector.inspect(document)
        purpose = Purpose.RESEND if is_copy(work.delivery, work.sends) else Purpose.FIRST
        message = work.parts.renderer.render(channel.template, work.known, purpose=purpose, recipient=recipient)
    except DeliveryFailure as failure:
        return on_failure(failure, lane=work.delivery.lane, of=PROVIDER_LANE)
    return Prepared(channel=channel, recipient=recipient, document=document, message=message)


def reach(work: Work) -> tuple[Channel, Recipient]:
    """Return the first channel, in order of preference, that this customer can be reached by."""
    refusals: list[str] = []
    for channel in work.parts.channels:
        try:
            return channel, channel.recipient(work.known, to=work.delivery.send_to or _of_organization(work))
        except PermanentFailure as failure:
            refusals.append(failure.reason)
    raise PermanentFailure("; ".join(refusals))


def _of_organization(work: Work) -> str | None:
    """Return where this organisation's consolidated invoices are to go, if the merchant said so."""
    billing = work.known.billing
    if work.delivery.kind is Kind.INVOICE or billing is None:  # a purchase is tried as its invoice is sent
        return None
    return work.parts.rules.group_addresses.of(billing.country, billing.organization_number)


def _compose(work: Work, step: Deliver, prepared: Prepared) -> tuple[Send, Composed]:
    delivery = work.delivery
    text = "|".join((delivery.id, str(delivery.round), prepared.channel.name, prepared.recipient.key))
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    # Sends that share the key share the date, so that refused ones come again as the same message, too.
    earlier = next((send for send in work.sends if send.key == key), None)
    now = work.parts.clock.now()
    dated = earlier.dated if earlier else now.replace(microsecond=0)
    intent = Intent(key=key, dated=dated, purpose=step.purpose)
    composed = prepared.channel.compose(prepared.message, prepared.document, prepared.recipient, intent)
    send = Send(
        id=free_id(delivery.id, delivery.attempt + 1, work.sends),
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
        document_sha256=hashlib.sha256(prepared.document).hexdigest(),
        template_version=prepared.message.template_version or None,
        begun_at=now,
    )
    return send, composed


async def begin_send(work: Work, send: Send) -> Ending | None:
    """Commit the intent; None when it may go on, else what keeps it from that."""
    try:
        await work.parts.store.begin_send(work.claim, send)
    except AlreadySent:
        # Whoever made an earlier intent has written to it meanwhile: the next pass goes on from there.
        return Requeue(lane=PROVIDER_LANE)
    except IntentOpen:
        # Nothing that this pass could read, so the next may find no more: along the schedule, and not for ever.
        return Wait(reason="an earlier send has not ended", lane=PROVIDER_LANE)
    except CommitInDoubt:
        # Nothing is sent on a doubtful intent; if it did get in, it ends here as refused.
        never = replace(send, outcome=Settled.REFUSED, answer="never handed over")
        await settle_send(work, never)
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


async def _hand_over(work: Work, channel: Channel, composed: Composed, send: Send) -> Ending | None:
    began = work.parts.clock.monotonic()
    try:
        receipt = await channel.send(composed)
    except UnconfirmedFailure as failure:
        await _sent(work, send, Settled.UNCONFIRMED, failure.reason, began)
        wait = on_failure(failure, lane=channel.name)
        assert isinstance(wait, Wait)
        return replace(wait, seconds=work.parts.rules.unconfirmed_delay, no_send=True)
    except DeliveryFailure as failure:
        await _sent(work, send, Settled.REFUSED, failure.reason, began)
        return on_failure(failure, lane=channel.name, no_send=True)
    await _sent(work, send, Settled.ACCEPTED, receipt.answer, began, receipt=receipt)
    return None


async def _sent(
    work: Work, send: Send, outcome: Settled, answer: str, began: float, *, receipt: Receipt | None = None
) -> None:
    took_ms = took(work, "deliver", began)
    proof = receipt.proof if receipt else None
    settled = await settle_send(work, replace(send, outcome=outcome, answer=answer, proof=proof))
    work.sends[-1] = settled
    if receipt:
        work.sent = send.channel
        first = work.delivery.delivered_at is None
        work.delivery = replace(progressed(work.delivery), lane=PROVIDER_LANE)
        if first:
            work.delivery = replace(work.delivery, delivered_at=settled.settled_at, delivery_proof=receipt.proof)
    work.parts.metrics.send(send.channel, outcome)
    _log.info(
        "delivery.sent",
        **ids(work),
        channel=send.channel,
        result=outcome,
        duration_ms=took_ms,
        reason=None if receipt else answer,
    )


async def settle_open_sends(work: Work) -> None:
    """An open intent at the start of a pass is a send whose process died: its outcome is not known."""
    for index, send in enumerate(work.sends):
        if send.outcome is Settled.OPEN:
            work.sends[index] = await settle_send(
                work,
                replace(send, outcome=Settled.UNCONFIRMED, answer="the process ended before the answer was recorded"),
            )


async def settle_send(work: Work, send: Send) -> Send:
    """Write how a send ended, and return it as it is written."""
    results = {
        Settled.ACCEPTED: Result.ACCEPTED,
        Settled.UNCONFIRMED: Result.UNCONFIRMED,
        Settled.REFUSED: Result.REFUSED,
    }
    settled = replace(send, settled_at=work.parts.clock.now())
    entry = Entry(
        at=work.parts.clock.now(),
        step=Step.DELIVER,
        result=results[send.outcome],
        channel=send.channel,
        detail=f"notice: {send.answer}" if send.purpose is Purpose.NOTICE else send.answer,
        message_id=send.message_id,
    )
    told = so_far(work, entry)
    await record(work, lambda: work.parts.store.settle_send(settled, told))
    return settled
