"""The writes of the Store protocol, each a function of the group's book: life.py's rules applied to its rows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.delivery import (
    AlreadySent,
    Arrival,
    Bounced,
    Capture,
    Claim,
    Delivery,
    Entry,
    IntentOpen,
    Kind,
    LeaseLost,
    Outcome,
    Received,
    Request,
    Result,
    Schedule,
    Send,
    Settled,
    Step,
)
from service.store import life
from service.store.book import Book
from service.store.clock import database_now
from service.store.rows import Held, Intent
from service.store.tables import jobs, upsert

# What a function raises here it raises before it has put anything into the book: a failure of one write must not leave
# half of it in a group that is committed for the others.

_IN_DOUBT = frozenset({Settled.OPEN, Settled.UNCONFIRMED})
_UNDER_WAY = "under way when the delivery was stopped"
_UNANSWERED = frozenset({Settled.OPEN, Settled.PENDING})


def receive(book: Book, arrival: Arrival) -> Received:
    held = book.get(arrival.transaction_id)
    if held is None:
        book.enter(life.entered(arrival, book.now), _received(arrival, arrival.source))
        return Received.NEW
    after, received = life.arrived(held, arrival, book.now)
    if received is Received.REOPENED:
        book.put(after, _received(arrival, f"{arrival.source}: opened again"))
    else:
        book.put(after)
    return received


def renew(book: Book, claim: Claim, lease: float) -> bool:
    held = book.get(claim.delivery.id)
    after = held and life.renewed(held, claim.token, lease=lease, now=book.now)
    if after is None:
        return False
    book.put(after)
    return True


def save(book: Book, claim: Claim, delivery: Delivery, schedule: Schedule, entries: Sequence[Entry]) -> None:
    book.put(life.saved(_leased(book, claim), claim, delivery, schedule, book.now), *entries)


def begin_send(book: Book, claim: Claim, send: Send, delivery: Delivery | None) -> None:
    after = life.send_begun(_leased(book, claim), claim, send, book.now, turn=delivery)
    reached = (send.delivery_id, send.recipient_key, send.channel)
    others = [intent.value for intent in book.sends.all()]
    if after.delivery.stated_round == send.round:
        raise AlreadySent
    of_round = [o for o in others if (o.delivery_id, o.round) == (send.delivery_id, send.round)]
    # Beside the one that counts, each channel may have its own.
    if any(o.outcome is Settled.ACCEPTED and (send.round >= 0 or o.channel == send.channel) for o in of_round):
        raise AlreadySent
    for other in others:
        same = (other.delivery_id, other.recipient_key, other.channel) == reached
        if other.id == send.id or (same and other.outcome is Settled.OPEN):
            raise IntentOpen
    book.put(after)
    begun = replace(send, begun_at=book.now, outcome=Settled.OPEN)
    book.sends.put(send.id, Intent(value=begun, ordinal=after.delivery.attempt, lease_token=claim.token))


def settle_send(book: Book, send: Send, entries: Sequence[Entry]) -> None:
    held, known = book.row(send.delivery_id), book.sends.get(send.id)
    begun_under = None
    if known is None:
        # The intent's own commit was lost with the database it went to; what came of it must not be.
        held = replace(held, delivery=replace(held.delivery, attempt=held.delivery.attempt + 1))
        book.sends.put(send.id, Intent(value=send, ordinal=held.delivery.attempt, lease_token=None))
    else:
        begun_under = known.lease_token
        if known.value.outcome in (Settled.ACCEPTED, Settled.BOUNCED):  # a report was quicker: it names the message
            named = replace(
                known.value,
                answer=known.value.answer or send.answer,
                remote_id=known.value.remote_id or send.remote_id,
            )
            book.sends.put(send.id, replace(known, value=named))
        if known.value.outcome is send.outcome and known.value.answer is not None:
            return  # told twice
        if known.value.outcome is Settled.BOUNCED:
            book.put(held, *entries)  # that it was accepted first makes nothing of the delivery any more
            return
        if known.value.outcome is not Settled.ACCEPTED:
            settled = replace(
                known.value,
                outcome=send.outcome,
                answer=send.answer,
                proof=send.proof,
                settled_at=send.settled_at,
                remote_id=send.remote_id,
            )
            book.sends.put(send.id, replace(known, value=settled))
    book.put(life.send_settled(held, send, begun_under, book.now), *entries)


def begin_capture(book: Book, claim: Claim, capture: Capture) -> None:
    after = life.capture_begun(_leased(book, claim), claim, book.now)
    for other in (intent.value for intent in book.captures.all()):
        same = other.transaction_id == capture.transaction_id
        if other.id == capture.id or (same and other.outcome in _UNANSWERED):
            raise IntentOpen
    if _bounced(book, after.delivery):
        raise Bounced
    book.put(after)
    begun = replace(capture, begun_at=book.now, outcome=Settled.OPEN)
    book.captures.put(capture.id, Intent(value=begun, ordinal=after.captures_begun, lease_token=claim.token))


def _bounced(book: Book, delivery: Delivery) -> bool:
    """Tell whether this round was accepted and came back; its claim may be from before that."""
    sends = (intent.value for intent in book.sends.all())
    of_round = {send.outcome for send in sends if (send.delivery_id, send.round) == (delivery.id, delivery.round)}
    stated = delivery.stated_round == delivery.round
    return Settled.BOUNCED in of_round and Settled.ACCEPTED not in of_round and not stated


def settle_capture(book: Book, capture: Capture, entries: Sequence[Entry], began_at: datetime | None) -> None:
    held, known = book.row(capture.delivery_id), book.captures.get(capture.id)
    begun_under = None
    if known is None:  # as in `settle_send`
        held = replace(held, captures_begun=held.captures_begun + 1)
        book.captures.put(capture.id, Intent(value=capture, ordinal=held.captures_begun, lease_token=None))
    else:
        begun_under = known.lease_token
        settled = _answered(book, known.value, capture)
        if settled == known.value and capture.outcome is known.value.outcome:
            return  # told twice
        book.captures.put(capture.id, replace(known, value=settled))
    book.put(life.capture_settled(held, capture, begun_under, book.now, began_at=began_at), *entries)


def retry(book: Book, delivery_id: str, request: Request) -> Delivery:
    held = book.row(delivery_id)
    if life.has_moved_on(held, request):
        return held.delivery
    return _asked(book, life.retried(held, book.now), life.asked_for("retry", request))


def resend(book: Book, delivery_id: str, request: Request) -> Delivery:
    held = book.row(delivery_id)
    if life.has_moved_on(held, request):
        return held.delivery
    if held.delivery.kind is Kind.PURCHASE:  # nothing is ever sent of it alone: its invoice is another delivery
        return _asked(book, held, life.asked_for("a purchase is sent with its invoice only", request, Result.SKIPPED))
    return _asked(book, life.resent(held, request, book.now), life.asked_for("resend", request))


def cancel(book: Book, delivery_id: str, request: Request) -> Delivery:
    held = book.row(delivery_id)
    if life.has_moved_on(held, request):
        return held.delivery
    if held.delivery.outcome is Outcome.COMPLETED:  # there is nothing left to stop, and what happened stays true
        return _asked(book, held, life.asked_for("completed before it was cancelled", request, Result.SKIPPED))
    _leave_in_doubt(book, delivery_id, request.at)
    return _asked(book, life.cancelled(held, request), life.asked_for("cancel", request))


def _leave_in_doubt(book: Book, delivery_id: str, at: datetime) -> None:
    """Say of what is under way that its outcome is not known: no pass will, and whoever began it may still learn it."""
    for send in [i for i in book.sends.all() if (i.value.delivery_id, i.value.outcome) == (delivery_id, Settled.OPEN)]:
        value = replace(send.value, outcome=Settled.UNCONFIRMED, answer=_UNDER_WAY, settled_at=at)
        book.sends.put(value.id, replace(send, value=value))
    for asked in [
        i for i in book.captures.all() if (i.value.delivery_id, i.value.outcome) == (delivery_id, Settled.OPEN)
    ]:
        capture = replace(asked.value, outcome=Settled.UNCONFIRMED, detail=_UNDER_WAY, settled_at=at)
        book.captures.put(capture.id, replace(asked, value=capture))


def resolve(book: Book, delivery_id: str, request: Request, *, delivered: bool) -> Delivery:
    held = book.row(delivery_id)
    if life.has_moved_on(held, request):
        return held.delivery
    verb = "stated as delivered" if delivered else "stated as not delivered"
    if held.delivery.outcome not in (Outcome.OPEN, Outcome.FAILED):
        return _asked(book, held, life.asked_for(f"{held.delivery.outcome} when {verb}", request, Result.SKIPPED))
    if delivered:
        return _asked(book, life.stated(held, request, book.now), life.asked_for(verb, request))
    of_round = [
        i for i in book.sends.all() if (i.value.delivery_id, i.value.round) == (delivery_id, held.delivery.round)
    ]
    for intent in of_round:
        if intent.value.outcome in _IN_DOUBT:
            refused = replace(intent.value, outcome=Settled.REFUSED, answer=verb, settled_at=request.at)
            book.sends.put(refused.id, replace(intent, value=refused))
    # What was accepted, or stated, stays a fact; that the customer does not have it after all asks for another round.
    accepted = any(intent.value.outcome is Settled.ACCEPTED for intent in of_round)
    had = accepted or held.delivery.stated_round == held.delivery.round
    same = replace(request, to=held.delivery.send_to, even_late=held.delivery.even_late)
    # And one that is held for its age is held no more: whether the customer may have it has been answered.
    after = life.resent(held, same, book.now) if had else life.released(held, book.now)
    return _asked(book, after, life.asked_for(verb, request))


def release(book: Book, delivery_id: str, request: Request) -> Delivery:
    held = book.row(delivery_id)
    if not life.may_be_released(held):  # somebody else has decided on it meanwhile
        return _asked(book, held, life.asked_for(f"{held.delivery.outcome} when released", request, Result.SKIPPED))
    return _asked(book, life.released(held, book.now), life.asked_for("released", request))


def note(book: Book, delivery_id: str, entry: Entry) -> None:
    book.put(book.row(delivery_id), entry)


def ping(book: Book) -> None:
    """Write a row, so that a disk that is full or a database that only reads shows."""
    row = upsert(book.connection, jobs).values(name="ping", last_run_at=database_now())
    again = row.on_conflict_do_update(index_elements=["name"], set_={"last_run_at": row.excluded.last_run_at})
    book.connection.execute(again, {"shift": book.shift})


def _received(arrival: Arrival, detail: str) -> Entry:
    return Entry(at=arrival.at, step=Step.RECEIVE, result=Result.ACCEPTED, detail=detail)


def _leased(book: Book, claim: Claim) -> Held:
    held = book.get(claim.delivery.id)
    if held is None:
        raise LeaseLost
    return held


def _asked(book: Book, held: Held, entry: Entry) -> Delivery:
    book.put(held, entry)
    return book.row(held.delivery.id).delivery


def _answered(book: Book, known: Capture, told: Capture) -> Capture:
    """Return what is known of a capture after it was told. An accepted one stays so."""
    if known.outcome is Settled.ACCEPTED:
        return known
    outcome = told.outcome
    if outcome is Settled.PENDING and any(
        other.value.transaction_id == told.transaction_id
        and other.value.id != told.id
        and other.value.outcome in _UNANSWERED
        for other in book.captures.all()
    ):
        # It was given up for unconfirmed and another begun before its 202 became known: two cannot both be awaited.
        outcome = Settled.UNCONFIRMED
    return replace(
        known,
        outcome=outcome,
        event_request_id=told.event_request_id or known.event_request_id,
        event_id=told.event_id or known.event_id,
        detail=told.detail,
        settled_at=told.settled_at,
    )
