"""Messages beside the one that counts: a courtesy copy, a notice that an invoice was cancelled. Each is tried once."""

import hashlib
from dataclasses import dataclass, replace

import structlog

from service.decide import MAY_HAVE_ARRIVED, Close, Ending, Requeue, delivered
from service.delivery import (
    CANCELLED_ROUND,
    COURTESY_ROUND,
    Channel,
    CommitInDoubt,
    Composed,
    DeliveryFailure,
    Intent,
    Kind,
    Message,
    Outcome,
    Purpose,
    Receipt,
    Recipient,
    Result,
    Send,
    Settled,
    Standing,
    Step,
    UnconfirmedFailure,
)
from service.pipeline.falling import named, route_of
from service.pipeline.sending import begin_send, link_to, message_of, settle_send, turn
from service.pipeline.work import Work, enter, free_id, ids, took

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """One such message, and its document where it has one."""

    channel: Channel
    recipient: Recipient
    message: Message
    document: bytes | None
    round: int
    purpose: Purpose


async def with_copies(work: Work, ending: Ending) -> Ending:
    """Send the copies that the route names beside the real message; return the ending, to be looked at again at need.

    They go out once it was accepted and everything else of the pass is done; what is closed stays closed meanwhile.
    """
    if isinstance(ending, Close) and ending.outcome is not Outcome.COMPLETED:
        return ending
    late = await courtesy(work)
    if late is None or isinstance(ending, Requeue):
        return ending
    if isinstance(ending, Close):
        return replace(ending, look_again_in=late)
    # Who said when to come again is not asked before that.
    return replace(ending, at_most=max(late, ending.retry_after or 0.0))


async def courtesy(work: Work) -> float | None:
    """Send the copies; return the seconds until the place of one that stands in line for its relay.

    What could not be read just now keeps its place; what is not in force any more has no copies.
    """
    if work.transaction is None or work.known.standing is not Standing.AUTHORIZED:
        return None
    if not delivered(work.delivery, work.sends) or not (work.sent or work.delivery.paced):
        return None
    for name in route_of(work).courtesy:
        channel = named(work, name)
        if channel is None or _may_have_come(work, name):
            continue
        if await _paused(work, channel):
            enter(work, Step.DELIVER, Result.SKIPPED, detail=f"no courtesy copy: {name} is paused", channel=name)
            continue
        if late := await turn(work, channel):
            return late.seconds
        try:
            aside = await _copy(work, channel)
        except DeliveryFailure as failure:
            enter(work, Step.DELIVER, Result.SKIPPED, detail=f"no courtesy copy: {failure.reason}", channel=name)
            continue
        await _tell(work, aside)
    work.delivery = replace(work.delivery, paced=False)
    return None


def _may_have_come(work: Work, channel: str) -> bool:
    """Tell whether the customer has it by this channel already, or may have, or was to have a copy by it."""
    of_round = [s for s in work.sends if (s.round, s.channel) == (work.delivery.round, channel)]
    return _tried(work, COURTESY_ROUND, channel) or any(s.outcome in MAY_HAVE_ARRIVED for s in of_round)


async def _paused(work: Work, channel: Channel) -> bool:
    pauses = await work.parts.store.pauses(work.delivery.account_id)
    return channel.name in {pause.lane for pause in pauses}


async def _copy(work: Work, channel: Channel) -> Aside:
    recipient = channel.recipient(work.known)
    url = work.known.invoice_url
    assert url is not None
    async with work.parts.room.place() as place:
        document = await work.parts.payments.invoice(url)
        place.holds(document)
        link = await link_to(work, channel, document)
    return Aside(
        channel=channel,
        recipient=recipient,
        message=message_of(work, channel, recipient, link, Purpose.COURTESY),
        document=None if link else document,
        round=COURTESY_ROUND,
        purpose=Purpose.COURTESY,
    )


async def tell_cancelled(work: Work) -> None:
    """Tell the customer who has an invoice that it was cancelled (CANCEL_NOTICE), by the channel that brought it."""
    arrived = [send for send in work.sends if send.round >= 0 and send.outcome is Settled.ACCEPTED]
    if not work.parts.rules.cancel_notice or not arrived or work.delivery.kind is Kind.PURCHASE:
        return
    channel = named(work, arrived[-1].channel)
    if channel is None or not channel.template or _tried(work, CANCELLED_ROUND, channel.name):
        return
    if await _paused(work, channel):
        enter(work, Step.DELIVER, Result.SKIPPED, detail=f"no notice: {channel.name} is paused", channel=channel.name)
        return
    try:
        recipient = channel.recipient(work.known)
        message = message_of(work, channel, recipient, None, Purpose.CANCELLED)
    except DeliveryFailure as failure:
        enter(work, Step.DELIVER, Result.SKIPPED, detail=f"no notice: {failure.reason}", channel=channel.name)
        return
    aside = Aside(
        channel=channel,
        recipient=recipient,
        message=message,
        document=None,
        round=CANCELLED_ROUND,
        purpose=Purpose.CANCELLED,
    )
    await _tell(work, aside)


def _tried(work: Work, round_: int, channel: str) -> bool:
    return any((send.round, send.channel) == (round_, channel) for send in work.sends)


async def _tell(work: Work, aside: Aside) -> None:
    send, composed = _compose(work, aside)
    try:
        if await begin_send(work, send):
            return
    except CommitInDoubt:
        return
    began = work.parts.clock.monotonic()
    try:
        receipt = await aside.channel.send(composed)
    except UnconfirmedFailure as failure:
        await _settle(work, replace(send, outcome=Settled.UNCONFIRMED, answer=failure.reason), began)
    except DeliveryFailure as failure:
        await _settle(work, replace(send, outcome=Settled.REFUSED, answer=failure.reason), began)
    else:
        await _settle(work, _accepted(send, receipt), began)


def _accepted(send: Send, receipt: Receipt) -> Send:
    return replace(
        send, outcome=Settled.ACCEPTED, answer=receipt.answer, proof=receipt.proof, remote_id=receipt.remote_id
    )


async def _settle(work: Work, send: Send, began: float) -> None:
    took_ms = took(work, "deliver", began)
    work.sends[-1] = await settle_send(work, send)
    work.parts.metrics.send(send.channel, send.outcome)
    accepted = send.outcome is Settled.ACCEPTED
    _log.info(
        "delivery.told",
        **ids(work),
        channel=send.channel,
        purpose=send.purpose,
        result=send.outcome,
        duration_ms=took_ms,
        reason=None if accepted else send.answer,
    )


def _compose(work: Work, aside: Aside) -> tuple[Send, Composed]:
    delivery, now = work.delivery, work.parts.clock.now()
    text = "|".join((delivery.id, str(aside.round), aside.channel.name, aside.recipient.key))
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    intent = Intent(key=key, dated=now.replace(microsecond=0), purpose=aside.purpose)
    composed = aside.channel.compose(aside.message, aside.document, aside.recipient, intent)
    document = aside.document
    send = Send(
        id=free_id(delivery.id, delivery.attempt + 1, work.sends),
        delivery_id=delivery.id,
        round=aside.round,
        channel=aside.channel.name,
        recipient=aside.recipient.masked,
        recipient_key=aside.recipient.key,
        purpose=aside.purpose,
        key=key,
        dated=intent.dated,
        message_id=composed.message_id,
        sha256=composed.sha256,
        document_sha256=None if document is None else hashlib.sha256(document).hexdigest(),
        template_version=aside.message.template_version or None,
        begun_at=now,
    )
    return send, composed
