"""A consolidated invoice: sent once when its purchases are known, and complete when they are captured."""

from dataclasses import replace
from datetime import timedelta

from service.decide import (
    Close,
    Decision,
    Ending,
    Wait,
    by_age,
    by_content,
    by_fallback,
    by_standing,
    delivered,
    next_effect,
)
from service.delivery import CaptureOrder, Member, Members, Outcome, Result, Standing, Step
from service.pipeline.consolidating import carrying, counted, wake, wake_one
from service.pipeline.work import Work, alarm, database_now, enter

_SETTLING = timedelta(minutes=15)
"""After so long it is a trouble that not all purchases of an invoice's group can be read."""
_READ_IN = timedelta(seconds=3)
_BEING_READ = "its other purchases are being read"
_AGAIN = 15.0  # seconds between two looks meanwhile


async def next_of_invoice(work: Work) -> Decision:
    """Say what comes next for a consolidated invoice whose carrier was read."""
    members = counted(work)
    if not members:
        return Close(outcome=Outcome.CANCELLED, reason="every purchase of it was voided", voided=True)
    speaks = carrying(work) or members[-1]
    work.delivery = replace(work.delivery, decided_by=speaks.purchase.decided_by)
    if work.known.standing is not Standing.AUTHORIZED:
        # One purchase tells nothing of the others: it leaves the invoice as soon as its own delivery has seen it.
        await wake_one(work, speaks.delivery.id)
        ended = by_standing(speaks.delivery, work.known, (), database_now(work))
        reason = ended.reason if ended and ended.reason else work.known.status
        return Wait(reason=f"a purchase of it: {reason}", runs=False)
    if delivered(work.delivery, work.sends):
        return await _captured(work, members)
    return by_content(work.known) or await _settled(work, members) or await _next(work, members, speaks)


async def _captured(work: Work, members: list[Member]) -> Ending:
    """See to the capture of every purchase: each is its own delivery's, and this one is complete when they are."""
    waiting = [member for member in members if member.delivery.outcome is Outcome.OPEN]
    if waiting:
        new = work.sent is not None  # after one that came back, those that had learned of it wait for this one
        await wake(work, [member for member in waiting if new or member.delivery.delivered_at is None])
        return Wait(reason=f"{len(waiting)} of {len(members)} purchases are not captured yet", runs=False)
    missing = len(members) - _learn_captures(work, members)
    if missing:
        reason = f"{missing} of {len(members)} purchases were not captured; see each of them"
        return Close(outcome=Outcome.COMPLETED, reason=reason)
    return Close(outcome=Outcome.COMPLETED, reason=by_fallback(work.delivery, work.sends))


def _learn_captures(work: Work, members: list[Member]) -> int:
    """Note that the collection of what there is has begun, where it has; return of how many purchases."""
    known = [at for member in members if (at := member.delivery.captured_at) is not None]
    if known and work.delivery.captured_known_at is None:
        now = work.parts.clock.now()
        work.delivery = replace(work.delivery, captured_at=max(known), captured_known_at=now)
    return len(known)


async def _settled(work: Work, members: list[Member]) -> Wait | None:
    """Wait until every purchase that may be on the invoice was read since it came, so that its sum is known."""
    since = work.delivery.received_at
    waited = database_now(work) - since
    if waited < _READ_IN:  # what the first that shows it is told by its own transaction is recorded by then
        return Wait(reason=_BEING_READ, runs=False, seconds=_READ_IN.total_seconds())
    groups = {member.purchase.group for member in members}
    found = [other for group in sorted(groups) for other in await work.parts.store.members(Members(group=group))]
    shown = {one.purchase.transaction_id for one in found if one.counts and one.purchase.invoice_id == work.delivery.id}
    if not shown <= {member.purchase.transaction_id for member in members}:
        return Wait(reason=_BEING_READ, runs=False, seconds=1.0)
    unread = [
        other
        for other in found
        if other.delivery.outcome is Outcome.OPEN
        and other.purchase.invoice_id is None
        and (other.purchase.looked_at is None or other.purchase.looked_at < since)
    ]
    if waited < _SETTLING and await work.parts.store.unread(work.delivery.account_id, since):
        return Wait(reason=_BEING_READ, runs=False, seconds=_AGAIN)  # one of those may be a purchase of it
    if not unread:
        return None
    if waited < _SETTLING:
        await wake(work, unread)  # whoever showed the invoice first may have died before it did
        return Wait(reason=_BEING_READ, runs=False, seconds=_AGAIN)
    # What the invoice comes to is not known, and a wrong sum is never sent: the give-up clock runs.
    reason = f"{len(unread)} of the purchases of its group cannot be read, so what it comes to is not known"
    alarm(work, "alarm.group_differs", reason)
    return Wait(reason=reason)


async def _next(work: Work, members: list[Member], speaks: Member) -> Decision:
    rules = work.parts.rules
    before = rules.order is CaptureOrder.BEFORE_DELIVERY
    known = work.delivery.delivered_at is not None  # by this record: it came back, and its purchases have learned of it
    if not known and work.delivery.round == 0 and any(m.delivery.delivered_at is not None for m in members):
        reason = "delivered before this record knew of it: a purchase of it was delivered"
        return Close(outcome=Outcome.COMPLETED, reason=reason)
    # A purchase that was CAPTURED from the start tells nothing of its invoice: only what initiated a collection does.
    initiated = any(event.success and event.initiates for event in work.known.collection.events)
    aged = replace(work.known, collection=replace(work.known.collection, begun=initiated))
    captures = await work.parts.store.captures(speaks.delivery.id)  # what it knows of those is no surprise
    if held := by_age(work.delivery, aged, captures, rules, work.parts.born_at):
        return held
    if before:
        if waits := _collecting(members):
            return waits
        _learn_captures(work, members)
    # What is begun here is up to each purchase; what is left to decide is the sending.
    collection = replace(work.known.collection, begun=before)
    decision = next_effect(
        work.delivery, replace(work.known, collection=collection), work.sends, rules, database_now(work)
    )
    keys = {member.purchase.recipient_key for member in members} - {None}
    if len(keys) > 1 and not work.sends:
        enter(work, Step.DELIVER, Result.DEFERRED, detail=f"{len(keys)} addresses on its purchases: the newest is used")
    return decision


def _collecting(members: list[Member]) -> Ending | None:
    """With `before_delivery`, say whether the collection of every purchase has begun."""
    not_begun = [member for member in members if member.delivery.captured_known_at is None]
    if any(member.delivery.outcome is not Outcome.OPEN for member in not_begun):
        return Close(outcome=Outcome.FAILED, reason="a purchase of it was not captured; see each of them")
    if not_begun:
        return Wait(reason=f"{len(not_begun)} of {len(members)} purchases are to be captured first", runs=False)
    return None
