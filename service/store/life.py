"""The rules of a row's life, without SQL: what an arrival, a save, a fact or an operator makes of it."""

from dataclasses import replace
from datetime import datetime, timedelta

from service.delivery import (
    BESIDE,
    PROVIDER_LANE,
    RECONCILE,
    Arrival,
    Capture,
    Claim,
    Delivery,
    Entry,
    Kind,
    LeaseLost,
    Outcome,
    Proof,
    Received,
    Request,
    Result,
    Schedule,
    Send,
    Settled,
    Step,
)
from service.privacy import scrub
from service.store.rows import Held

_UNDELIVERED = frozenset({Outcome.OPEN, Outcome.FAILED})  # a retry of what failed goes where its resend was to go
_GIVEN_UP = frozenset({Outcome.FAILED, Outcome.SKIPPED})
_HAS_IT = "the customer has the invoice"


def entered(arrival: Arrival, now: datetime) -> Held:
    """Return the row of a transaction that nobody knew: open, and due now (`now` is the database's everywhere here)."""
    return Held(
        delivery=Delivery(
            id=arrival.transaction_id,
            account_id=arrival.account_id,
            transaction_id=arrival.transaction_id,
            received_at=arrival.at,
            source=arrival.source,
            due_at=now,
        )
    )


def arrived(held: Held, arrival: Arrival, now: datetime) -> tuple[Held, Received]:
    """Return what a further callback makes of a row. It touches neither the lease nor `no_send_before`."""
    delivery = held.delivery
    if delivery.source == RECONCILE != arrival.source:
        delivery = replace(delivery, source=arrival.source)  # its own notification has come after all
        held = replace(held, delivery=delivery)
    if delivery.outcome is Outcome.OPEN:
        return woken(held, now), Received.WOKEN
    if delivery.outcome is Outcome.SKIPPED or delivery.closed_waiting:
        reopened = replace(held, delivery=_reopened(delivery))
        return woken(reopened, now), Received.REOPENED
    if arrival.event and delivery.may_be_voided:
        return woken(held, now), Received.WOKEN
    return held, Received.UNCHANGED


def woken(held: Held, now: datetime) -> Held:
    """Return the row due now at the latest, and so that a save in flight sees that it was woken.

    It is the transaction that is looked at first: a channel that is paused, or full, must not keep anybody from that.
    """
    return replace(held, delivery=_due_by(held.delivery, now), wakes=held.wakes + 1)


def renewed(held: Held, token: str, *, lease: float, now: datetime) -> Held | None:
    """Return the row with its lease extended; None when it is not held by this token any more."""
    if not _in_hand(held, token, now):
        return None
    return replace(held, leased_until=now + timedelta(seconds=lease))


def saved(held: Held, claim: Claim, delivery: Delivery, schedule: Schedule, now: datetime) -> Held:
    """Return the row as whoever claimed it leaves it; raises `LeaseLost` when another has it.

    A lease that ran out and was taken by nobody is still the claim's: the token decides. What the claim cannot know
    stays: the facts, the attempts and captures begun, the round and the address that an operator gave (until its round
    is delivered or nothing is to be delivered any more). What came meanwhile counts as if it came after the save.
    """
    if held.lease_token != claim.token:
        raise LeaseLost
    kept = _keeping(held.delivery, delivery, claimed=claim.delivery)
    woken_since = held.wakes > claim.wakes
    if held.asked > claim.wakes:
        # An operator's retry or resend that came meanwhile is not lost, even if this step would have closed the row.
        kept = _as_asked(held.delivery, kept)
    elif woken_since:
        kept = _as_woken(delivery, kept, told=held.told > claim.wakes)
    if schedule.no_send_for is not None:
        kept = replace(kept, no_send_before=now + timedelta(seconds=schedule.no_send_for))
    due = None if schedule.due_in is None else now + timedelta(seconds=schedule.due_in)
    kept = replace(kept, due_at=due, send_to=kept.send_to if kept.outcome in _UNDELIVERED else None)
    if woken_since and (kept.outcome is Outcome.OPEN or kept.may_be_voided):
        kept = _due_by(kept, now)
    return replace(held, delivery=kept, lease_token=None, leased_until=None, seen=claim.wakes)


def send_begun(held: Held, claim: Claim, send: Send, now: datetime, *, turn: Delivery | None = None) -> Held:
    """Return the row with one more attempt; raises `LeaseLost` unless the lease is held and has not run out.

    Whose turn it is (`turn`) is written with it: who finds the intent in doubt must not begin with another channel. So
    is what it is found by, and how much it is about: the answer may take minutes, or the process die meanwhile.
    """
    if not _in_hand(held, claim.token, now):
        raise LeaseLost
    delivery = replace(held.delivery, attempt=held.delivery.attempt + 1)
    if turn is not None:
        delivery = replace(
            delivery,
            invoice_number=turn.invoice_number,
            merchant_reference=turn.merchant_reference,
            amount=turn.amount,
            currency=turn.currency,
        )
    if turn is not None and held.asked <= claim.wakes:  # a person's retry has begun with the first channel again
        delivery = replace(delivery, fallen=turn.fallen, turn=turn.turn, channel_since=turn.channel_since)
    delivery = replace(delivery, paced=False)  # its place in line is used up, whatever becomes of this process
    if send.purpose not in BESIDE:
        delivery = replace(delivery, channel=send.channel, recipient=send.recipient, recipient_key=send.recipient_key)
    return replace(held, delivery=delivery)


def capture_begun(held: Held, claim: Claim, now: datetime) -> Held:
    """Return the row with one more capture begun; raises `LeaseLost` as `send_begun`."""
    if not _in_hand(held, claim.token, now):
        raise LeaseLost
    return replace(held, captures_begun=held.captures_begun + 1)


def send_settled(held: Held, send: Send, begun_under: str | None, now: datetime) -> Held:
    """Return the row after a send's outcome became known; `begun_under` is the lease it was begun under.

    While that lease is in place its holder goes on from here and saves; otherwise the outcome is late. An open delivery
    is then woken, so that a repeat that was planned is reconsidered; one that was given up is opened again, so that the
    capture goes on; a cancelled one says that the customer has it. An address given for the resend
    goes as soon as that is accepted. A notice delivers nothing.
    """
    if send.outcome is not Settled.ACCEPTED or send.round < 0:  # a notice, or a copy: none of a delivery's own rounds
        return held
    delivery = held.delivery
    of_its_round = send.round == delivery.round  # an earlier one ends nothing: the resend stays as it ended
    if delivery.delivered_at is None:
        delivery = _in_order(delivery, replace(delivery, delivered_at=send.settled_at or now))
    if delivery.delivery_proof is None:
        delivery = replace(delivery, delivery_proof=send.proof)
    if of_its_round:
        delivery = replace(delivery, send_to=None)
    after = replace(held, delivery=delivery)
    if _in_step(held, begun_under):
        return after
    if delivery.outcome is Outcome.CANCELLED:
        return replace(after, delivery=_customer_has_it(delivery))
    return _told_late(after, now, opens=of_its_round)


def proved(send: Send, now: datetime) -> Send:
    """Return a send that another party knows of, whatever it will make of it: what was in doubt was accepted."""
    if send.outcome not in (Settled.OPEN, Settled.UNCONFIRMED):
        return send
    return replace(send, outcome=Settled.ACCEPTED, proof=Proof.RELAY, settled_at=send.settled_at or now)


def confirmed(send: Send, at: datetime, now: datetime) -> Send:
    """Return a send that another party reported as delivered; `at` is that party's time."""
    settled_at = send.settled_at or now
    return replace(send, outcome=Settled.ACCEPTED, proof=Proof.REPORT, reported_at=at, settled_at=settled_at)


def bounced(send: Send, at: datetime) -> Send:
    """Return a send that another party reported as never delivered; one that was refused stays so."""
    outcome = send.outcome if send.outcome is Settled.REFUSED else Settled.BOUNCED
    return replace(send, outcome=outcome, reported_at=at)


def send_confirmed(held: Held, before: Send, send: Send, begun_under: str | None, now: datetime) -> Held:
    """Return the row after a report that a send was delivered: proof enough, also of one that was in doubt."""
    after = held if before.outcome is Settled.ACCEPTED else send_settled(held, send, begun_under, now)
    if send.round != held.delivery.round:
        return after
    return replace(after, delivery=replace(after.delivery, delivery_proof=Proof.REPORT))


def send_bounced(held: Held, send: Send, now: datetime, why: str | None, *, has_it: bool) -> Held:
    """Return the row after a report that an accepted send was never delivered: open again, captured or not.

    Not if it was stopped, if somebody said that the customer has it, or (`has_it`) another send of the round arrived.
    """
    delivery = held.delivery
    stated = delivery.stated_round == delivery.round
    if send.outcome is not Settled.BOUNCED or send.round != delivery.round or stated or has_it:
        return held
    if delivery.outcome in (Outcome.CANCELLED, Outcome.SKIPPED):
        return held
    # What was given up before stays given up: this one's failure makes no other channel send again.
    again = replace(
        _fresh(delivery),
        reason=f"not delivered by {send.channel}: {why}",
        no_send_before=None,
        paced=False,
        delivery_proof=None,  # the next one's acceptance says by itself what it is worth
        fallen=delivery.fallen,
    )
    after = woken(replace(held, delivery=again), now)
    return replace(after, asked=after.wakes)  # whoever has it in hand must not close it, as delivered least of all


def capture_settled(
    held: Held, capture: Capture, begun_under: str | None, now: datetime, *, began_at: datetime | None
) -> Held:
    """Return the row after a capture's outcome became known, as `send_settled`; `began_at` is the provider's time."""
    if capture.outcome is not Settled.ACCEPTED and began_at is None:
        return held
    known_at = capture.settled_at or now
    delivery = held.delivery
    if delivery.captured_at is None:
        delivery = replace(delivery, captured_at=began_at or known_at)
    if delivery.captured_known_at is None:
        delivery = _in_order(delivery, replace(delivery, captured_known_at=known_at))
    after = replace(held, delivery=delivery)
    return after if _in_step(held, begun_under) else _told_late(after, now, opens=True)


def has_moved_on(held: Held, request: Request) -> bool:
    """Say whether the row is no longer what an operator decided about."""
    return request.only_if is not None and held.delivery.outcome is not request.only_if


def retried(held: Held, now: datetime) -> Held:
    """Return the row open and due now, with a new give-up clock. A lease stays; its save will honour this.

    So does a place in the line for a relay with a pace, for it is the others' pace, too. Of what is closed it is a
    copy's: that takes another, and nothing else waits for it.
    """
    in_line = held.delivery.paced and held.delivery.outcome is Outcome.OPEN
    place = held.delivery.no_send_before if in_line else None
    delivery = replace(_fresh(held.delivery), no_send_before=place, claims=0, due_at=now)
    return replace(held, delivery=delivery, wakes=held.wakes + 1, asked=held.wakes + 1)


def resent(held: Held, request: Request, now: datetime) -> Held:
    """Return the row as `retried`, in a new round that one more accepted send will end."""
    again = retried(held, now)
    round_ = held.delivery.round + 1
    delivery = replace(again.delivery, round=round_, send_to=request.to, even_late=request.even_late)
    return replace(again, delivery=delivery)


def stated(held: Held, request: Request, now: datetime) -> Held:
    """Return the row as `retried`, with its round delivered by a person's word."""
    again = retried(held, now)
    delivery = replace(
        again.delivery,
        stated_round=held.delivery.round,
        delivered_at=held.delivery.delivered_at or request.at,
        delivery_proof=held.delivery.delivery_proof or Proof.PERSON,
        send_to=None,
    )
    return replace(again, delivery=_in_order(held.delivery, delivery))


def may_be_released(held: Held) -> bool:
    """Tell whether the row is held, or may yet be: it is open, and its age not looked at."""
    return held.delivery.outcome is Outcome.OPEN or held.delivery.is_held


def released(held: Held, now: datetime) -> Held:
    """Return the row as `retried`, and not to be held again."""
    again = retried(held, now)
    return replace(again, delivery=replace(again.delivery, released=True))


def cancelled(held: Held, request: Request) -> Held:
    """Return the row stopped. The lease is taken away, so whoever works on it begins no new effect."""
    delivery = replace(
        held.delivery,
        outcome=Outcome.CANCELLED,
        reason=scrub(_said("stopped", request)),
        closed_at=request.at,
        closed_waiting=False,
        due_at=None,
        send_to=None,
    )
    return replace(held, delivery=delivery, lease_token=None, leased_until=None)


def asked_for(verb: str, request: Request, result: Result = Result.ACCEPTED) -> Entry:
    """Return the line of history about what an operator asked."""
    return Entry(at=request.at, step=Step.OPERATOR, result=result, detail=scrub(_said(verb, request)))


def _said(verb: str, request: Request) -> str:
    rests_on = f" ({request.rests_on})" if request.rests_on else ""
    return f"{verb} by {request.by}{rests_on}" + (f": {request.reason}" if request.reason else "")


def _in_hand(held: Held, token: str, now: datetime) -> bool:
    return held.lease_token == token and held.leased_until is not None and held.leased_until > now


def _in_step(held: Held, begun_under: str | None) -> bool:
    return begun_under is not None and held.lease_token == begun_under


def _told_late(held: Held, now: datetime, *, opens: bool) -> Held:
    if held.delivery.outcome is Outcome.OPEN:
        after = woken(held, now)
        return replace(after, told=after.wakes) if opens else after
    if opens and held.delivery.outcome in _GIVEN_UP:
        after = woken(replace(held, delivery=_fresh(held.delivery)), now)
        return replace(after, told=after.wakes)  # who is looking at what was given up must not close it again
    return held


def _customer_has_it(delivery: Delivery) -> Delivery:
    if delivery.reason and _HAS_IT in delivery.reason:
        return delivery
    return replace(delivery, reason=f"{delivery.reason} ({_HAS_IT})" if delivery.reason else _HAS_IT)


def _due_by(delivery: Delivery, now: datetime) -> Delivery:
    due_at = now if delivery.due_at is None else min(delivery.due_at, now)
    return replace(delivery, due_at=due_at, lane=PROVIDER_LANE)


def _as_asked(row: Delivery, kept: Delivery) -> Delivery:
    """Return `kept` open again, as a person's word or a bounce has left the row meanwhile.

    What the row knows of its delivery is newer than the step: what the step had proved may be what bounced.
    """
    return replace(
        _fresh(kept),
        reason=row.reason,
        no_send_before=row.no_send_before,
        fallen=row.fallen,
        # A purchase learns it from its invoice.
        delivery_proof=kept.delivery_proof if kept.kind is Kind.PURCHASE else row.delivery_proof,
    )


def _as_woken(step: Delivery, kept: Delivery, *, told: bool) -> Delivery:
    """Return `kept` as `arrived`, or a late fact, would have left it had the wake-up come after the save.

    `told` says that a fact of the delivery's round came late; `step` is what is saved, without what only the row knows.
    """
    if told and kept.outcome in _GIVEN_UP:
        return _fresh(kept)
    if kept.outcome is Outcome.SKIPPED or kept.closed_waiting:
        return _reopened(kept)
    sent = kept.delivered_at is not None and (told or step.delivered_at is None)
    return _customer_has_it(kept) if kept.outcome is Outcome.CANCELLED and sent else kept


def _reopened(delivery: Delivery) -> Delivery:
    return replace(
        delivery,
        outcome=Outcome.OPEN,
        reason=None,
        lane=PROVIDER_LANE,  # whatever it waited for last, the transaction is read first
        closed_at=None,
        closed_waiting=False,
        due_at=None,
        postponed=0,
        bad_documents=0,
        patience_used=0.0,
        patience_since=None,
        fallen="",
        channel_since=None,
    )


def _fresh(delivery: Delivery) -> Delivery:
    if delivery.outcome is not Outcome.OPEN:
        return replace(_reopened(delivery), errors=0)
    return replace(
        delivery,
        reason=None,
        lane=PROVIDER_LANE,
        postponed=0,
        bad_documents=0,
        errors=0,
        patience_used=0.0,
        patience_since=None,
        fallen="",
        channel_since=None,
    )


def _in_order(before: Delivery, after: Delivery) -> Delivery:
    """Return `after` so that it shows which of the two effects became known first, also where clocks do not agree.

    `captured_known_at` is bent for it, and not `delivered_at`: the order is all that the former is there for.
    """
    delivered, known = after.delivered_at, after.captured_known_at
    if delivered is None or known is None:
        return after
    if before.delivered_at is None and before.captured_known_at is not None and known >= delivered:
        return replace(after, captured_known_at=delivered - timedelta(microseconds=1))
    if before.captured_known_at is None and before.delivered_at is not None and known < delivered:
        return replace(after, captured_known_at=delivered)
    return after


def _keeping(old: Delivery, new: Delivery, *, claimed: Delivery) -> Delivery:
    """Return `new` with what is not the claim's to write taken from the row, and the facts of both."""
    kept = replace(
        new,
        id=old.id,
        account_id=old.account_id,
        transaction_id=old.transaction_id,
        received_at=old.received_at,
        kind=new.kind if old.kind is Kind.INVOICE else old.kind,  # it shows in the first read
        attempt=old.attempt,
        channel=new.channel or old.channel,
        recipient=new.recipient or old.recipient,
        recipient_key=new.recipient_key or old.recipient_key,
        claims=0,
        round=old.round,
        send_to=old.send_to,
        source=old.source,
        released=old.released,
        even_late=old.even_late,
        stated_round=old.stated_round,
        organization_key=new.organization_key or old.organization_key,
        erased_at=old.erased_at,
        delivered_at=old.delivered_at or new.delivered_at,
        delivery_proof=old.delivery_proof or new.delivery_proof,
        captured_at=old.captured_at or new.captured_at,
        captured_known_at=old.captured_known_at or new.captured_known_at,
        voided_at=old.voided_at or new.voided_at,
    )
    both_its_own = claimed.delivered_at is None and new.delivered_at == old.delivered_at
    return kept if both_its_own else _in_order(old, kept)
