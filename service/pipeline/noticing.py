"""The notice of a grouped purchase: a send that delivers no invoice, and delays nothing but itself."""

import hashlib
import math
from dataclasses import replace

import structlog

from service.decide import Ending, Requeue, Wait, delay_of, on_failure
from service.delivery import (
    NOTICE_ROUND,
    PROVIDER_LANE,
    Channel,
    Composed,
    DeliveryFailure,
    Intent,
    Message,
    PermanentFailure,
    Purchase,
    Purpose,
    Receipt,
    Recipient,
    Result,
    Send,
    Settled,
    Step,
    UnconfirmedFailure,
)
from service.pipeline.falling import reach
from service.pipeline.reading import FRESH_SECONDS, read, same
from service.pipeline.sending import begin_send, settle_send
from service.pipeline.work import Work, database_now, enter, free_id, ids, took
from service.purchases import NOTICE_RETRIES, notice_due, notice_within, upcoming

_log = structlog.get_logger()


async def notify(work: Work, purchase: Purchase) -> Wait | Requeue | None:
    """Tell the customer of a purchase that is not billed yet, where that is still to be done.

    Return when to try again, or that the purchase is to be looked at afresh; None when there is nothing more to do.
    """
    now = database_now(work)
    due = notice_due(work.delivery, purchase, work.sends, now) if work.parts.rules.group_notice else None
    if due is None or due > now:
        return None if due is None else _later((due - now).total_seconds())
    try:
        channel, recipient = reach(work)
        message = _message(work, purchase, channel, recipient)
    except PermanentFailure as failure:
        if work.claim.delivery.kind is not work.delivery.kind:  # said once, at the first look
            enter(work, Step.DELIVER, Result.SKIPPED, detail=f"no notice: {failure.reason}")
        return None
    if not work.move(channel.name):
        # It is not put into the channel's lane: while that is paused, nobody would look whether it has been billed.
        return _later(notice_within(work.delivery, purchase, now))
    basis = work.known
    if await read(work, fresh_for=FRESH_SECONDS) or not same(basis, work.known):
        return Requeue(lane=PROVIDER_LANE)
    send, composed = _compose(work, channel, recipient, message)
    if late := await begin_send(work, send):
        return late if isinstance(late, Requeue) else _later(math.inf)
    return await _hand_over(work, channel, composed, send)


def with_notice(ending: Ending, later: Wait | None) -> Ending:
    """Return what comes next for the purchase, sooner where its notice is to be tried again before that."""
    if later is None or not isinstance(ending, Wait) or ending.seconds is None or later.seconds is None:
        return ending
    seconds = min(ending.seconds, later.seconds)
    return replace(ending, seconds=seconds, no_send=later.no_send, fault=later.fault, lane=PROVIDER_LANE)


def _later(seconds: float) -> Wait:
    return Wait(reason="", seconds=seconds)


def _message(work: Work, purchase: Purchase, channel: Channel, recipient: Recipient) -> Message:
    promised = upcoming(purchase, work.parts.rules.holiday_country)
    return work.parts.renderer.notice(channel.template, work.known, upcoming=promised, recipient=recipient)


def _compose(work: Work, channel: Channel, recipient: Recipient, message: Message) -> tuple[Send, Composed]:
    delivery = work.delivery
    text = "|".join((delivery.id, str(NOTICE_ROUND), channel.name, recipient.key))
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    earlier = next((send for send in work.sends if send.key == key), None)  # as with an invoice: the same message
    now = work.parts.clock.now()
    dated = earlier.dated if earlier else now.replace(microsecond=0)
    composed = channel.compose(message, None, recipient, Intent(key=key, dated=dated, purpose=Purpose.NOTICE))
    send = Send(
        id=free_id(delivery.id, delivery.attempt + 1, work.sends),
        delivery_id=delivery.id,
        round=NOTICE_ROUND,
        channel=channel.name,
        recipient=recipient.masked,
        recipient_key=recipient.key,
        purpose=Purpose.NOTICE,
        key=key,
        dated=dated,
        message_id=composed.message_id,
        sha256=composed.sha256,
        template_version=message.template_version or None,
        begun_at=now,
    )
    return send, composed


async def _hand_over(work: Work, channel: Channel, composed: Composed, send: Send) -> Wait | None:
    began = work.parts.clock.monotonic()
    try:
        receipt = await channel.send(composed)
    except UnconfirmedFailure as failure:  # never repeated: not to be told is better than to be told twice
        await _sent(work, send, Settled.UNCONFIRMED, failure.reason, began)
        return None
    except DeliveryFailure as failure:
        await _sent(work, send, Settled.REFUSED, failure.reason, began)
        return _refused(work, failure, channel.name)
    await _sent(work, send, Settled.ACCEPTED, receipt.answer, began, receipt=receipt)
    return None


def _refused(work: Work, failure: DeliveryFailure, lane: str) -> Wait | None:
    """Return when to try again. That it is to be, the record knows by `no_send_before`; see `notice_due`."""
    work.delivery = replace(work.delivery, no_send_before=None)
    wait = on_failure(failure, lane=lane, no_send=True)
    if not isinstance(wait, Wait):
        return None
    refused = sum(send.round == NOTICE_ROUND for send in work.sends)
    if refused > NOTICE_RETRIES:
        return replace(wait, seconds=math.inf, no_send=False)  # what it tells of the lane still counts
    return replace(wait, seconds=delay_of(wait, refused - 1, work.parts.rules, work.parts.jitter))


async def _sent(
    work: Work, send: Send, outcome: Settled, answer: str, began: float, *, receipt: Receipt | None = None
) -> None:
    took_ms = took(work, "deliver", began)
    proof = receipt.proof if receipt else None
    work.sends[-1] = await settle_send(work, replace(send, outcome=outcome, answer=answer, proof=proof))
    if receipt:
        work.sent = send.channel
    work.parts.metrics.send(send.channel, outcome)
    reason = None if receipt else answer
    _log.info(
        "delivery.notified", **ids(work), channel=send.channel, result=outcome, duration_ms=took_ms, reason=reason
    )
