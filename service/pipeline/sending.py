"""Preparing and sending the message: the intent first, then the effect, then its outcome."""

import hashlib
import math
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from service.content import contradiction
from service.decide import Close, Deliver, Ending, Requeue, Wait, is_copy, on_failure, progressed
from service.delivery import (
    BESIDE,
    PROVIDER_LANE,
    AlreadySent,
    Channel,
    CommitInDoubt,
    Composed,
    DeliveryFailure,
    Entry,
    Guarantee,
    Inspected,
    Intent,
    IntentOpen,
    Message,
    MessageTooLarge,
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
from service.pipeline.falling import in_time, named, reach, route_of, took_its_turn
from service.pipeline.reading import FRESH_SECONDS, contradicted, read, same
from service.pipeline.room import Place
from service.pipeline.work import Work, alarm, database_now, enter, free_id, ids, record, so_far, took

_SAID = {Purpose.NOTICE: "notice", Purpose.CANCELLED: "cancellation", Purpose.COURTESY: "courtesy copy"}
_IN_LINE = "in line for the relay"
_PLACE_SECONDS = 30.0  # for which a place in it is kept: a poll, and a wait for a slot
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
        channel, recipient = reach(work, only=step.again.channel if step.again else None)
    except PermanentFailure as failure:
        if step.again is None:
            return on_failure(failure, lane=work.delivery.lane)
        return _not_again(step.again, "it is not known whether the customer got it, and it cannot be sent again")
    took_its_turn(work, channel.name)
    if not work.move(channel.name):
        return Requeue(lane=channel.name)
    if late := await turn(work, channel):
        return in_time(work, channel.name, late)
    async with work.parts.room.place() as place:
        return in_time(work, channel.name, await _deliver(work, step, channel, recipient, place))


async def turn(work: Work, channel: Channel) -> Wait | None:
    """Wait for a place where the channel has a pace; one is taken for each send, by whichever process comes to it.

    One that has long passed is worth nothing: after a pause all that stood in line would go at once.
    """
    if channel.pace is None:
        return None
    now, place = database_now(work), work.delivery.no_send_before if work.delivery.paced else None
    wait = (place - now).total_seconds() if place else -math.inf
    if wait < -_PLACE_SECONDS:
        wait = await work.parts.store.take_turn(work.delivery.account_id, channel.name, channel.pace)
    if wait <= 0:
        return None
    work.delivery = replace(work.delivery, paced=True, no_send_before=now + timedelta(seconds=wait))
    return Wait(reason=_IN_LINE, lane=channel.name, runs=False, seconds=wait, no_send=True)


def _warn(work: Work, channel: Channel) -> None:
    """Say once, with the first message in words, where a mailed PDF will not do."""
    before = (named(work, send.channel) for send in work.sends)
    if channel.template and not any(one is not None and one.template for one in before):
        for warning in route_of(work).warnings:
            enter(work, Step.DELIVER, Result.DEFERRED, detail=f"sent all the same: {warning}")


def _not_again(doubtful: Send, reason: str) -> Close:
    """Give up repeating a send in doubt; another channel may have its turn when this one's time is over."""
    return Close(outcome=Outcome.FAILED, reason=reason, alarm="alarm.unconfirmed", of_channel=doubtful.channel)


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
        return _not_again(step.again, "content changed since a send in doubt")
    _warn(work, prepared.channel)
    if late := await begin_send(work, send):
        return late
    return await _hand_over(work, prepared, composed, send)


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
        inspected = await work.parts.inspector.inspect(document)
    except DeliveryFailure as failure:
        return on_failure(failure, lane=work.delivery.lane, of=PROVIDER_LANE)
    if held := _by_document(work, inspected):
        return held
    try:
        link = await link_to(work, channel, document)
        purpose = Purpose.RESEND if is_copy(work.delivery, work.sends) else Purpose.FIRST
        message = message_of(work, channel, recipient, link, purpose)
    except DeliveryFailure as failure:
        return on_failure(failure, lane=work.delivery.lane, of=PROVIDER_LANE, of_channel=channel.name)
    return Prepared(channel=channel, recipient=recipient, document=document, message=message)


def _by_document(work: Work, inspected: Inspected) -> Close | None:
    """Stop what the document contradicts; what is only to be warned of is said once."""
    found = contradiction(inspected.text, work.known, work.parts.rules.content_gate)
    if found is None:
        return None
    if found.holds:
        return Close(outcome=Outcome.FAILED, reason=found.reason, alarm="alarm.content", held=False)
    if not work.sends:
        enter(work, Step.DELIVER, Result.DEFERRED, detail=f"sent all the same: {found.reason}")
        alarm(work, "alarm.content", found.reason)
    return None


async def link_to(work: Work, channel: Channel, document: bytes) -> str | None:
    """Return the link that goes out instead of the document, where that is too large to go along."""
    largest = channel.largest_document
    small = largest is None or len(document) <= largest
    if small and not (work.delivery.as_link and channel.template):
        return None
    if work.parts.links is None:
        size = f"the invoice has {len(document)} bytes; " if largest else ""
        raise PermanentFailure(f"{size}{channel.name} needs the invoice page: set DELIVERY_LINK_KEY")
    locale = work.parts.renderer.locale(work.known)
    return await work.parts.links.link(work.delivery, work.known, document, locale=locale)


def message_of(work: Work, channel: Channel, recipient: Recipient, link: str | None, purpose: Purpose) -> Message:
    """Return what a channel is to say; one without templates is given the transaction instead of words."""
    if not channel.template:
        locale = work.parts.renderer.locale(work.known)
        return Message(locale=locale, subject="", text="", about=work.known, link=link)
    rendered = work.parts.renderer.render(channel.template, work.known, purpose=purpose, recipient=recipient, link=link)
    return replace(rendered, about=work.known)


def _compose(work: Work, step: Deliver, prepared: Prepared) -> tuple[Send, Composed]:
    delivery = work.delivery
    text = "|".join((delivery.id, str(delivery.round), prepared.channel.name, prepared.recipient.key))
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    # Sends that share the key share the date, so that refused ones come again as the same message, too.
    earlier = next((send for send in work.sends if send.key == key), None)
    now = work.parts.clock.now()
    dated = earlier.dated if earlier else now.replace(microsecond=0)
    intent = Intent(key=key, dated=dated, purpose=step.purpose)
    document = None if prepared.message.link else prepared.document
    composed = prepared.channel.compose(prepared.message, document, prepared.recipient, intent)
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
        await work.parts.store.begin_send(work.claim, send, work.delivery)
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
    work.delivery = replace(work.delivery, attempt=work.delivery.attempt + 1, paced=False)
    if send.purpose not in BESIDE:
        work.delivery = replace(
            work.delivery, channel=send.channel, recipient=send.recipient, recipient_key=send.recipient_key
        )
    return None


async def _hand_over(work: Work, prepared: Prepared, composed: Composed, send: Send) -> Ending | None:
    channel = prepared.channel
    began = work.parts.clock.monotonic()
    try:
        receipt = await channel.send(composed)
    except UnconfirmedFailure as failure:
        await _sent(work, send, Settled.UNCONFIRMED, failure.reason, began)
        wait = on_failure(failure, lane=channel.name)
        assert isinstance(wait, Wait)
        if channel.guarantee is Guarantee.IDEMPOTENT:  # along the schedule, as if nothing had been handed over
            return replace(wait, no_send=True)
        return replace(wait, seconds=work.parts.rules.unconfirmed_delay, no_send=True)
    except MessageTooLarge as failure:
        await _sent(work, send, Settled.REFUSED, failure.reason, began)
        if prepared.message.link or not channel.template or work.parts.links is None:  # nothing smaller can go out
            return on_failure(failure, lane=channel.name, of_channel=channel.name)
        work.delivery = replace(work.delivery, as_link=True)
        return None
    except DeliveryFailure as failure:
        await _sent(work, send, Settled.REFUSED, failure.reason, began)
        return on_failure(failure, lane=channel.name, no_send=True, of_channel=channel.name)
    await _sent(work, send, Settled.ACCEPTED, receipt.answer, began, receipt=receipt)
    return None


async def _sent(
    work: Work, send: Send, outcome: Settled, answer: str, began: float, *, receipt: Receipt | None = None
) -> None:
    took_ms = took(work, "deliver", began)
    proof = receipt.proof if receipt else None
    remote_id = receipt.remote_id if receipt else None
    settled = await settle_send(work, replace(send, outcome=outcome, answer=answer, proof=proof, remote_id=remote_id))
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
        detail=f"{_SAID[send.purpose]}: {send.answer}" if send.purpose in _SAID else send.answer,
        message_id=send.message_id,
    )
    told = so_far(work, entry)
    await record(work, lambda: work.parts.store.settle_send(settled, told))
    return settled
