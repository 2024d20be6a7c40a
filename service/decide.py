"""What comes next for a delivery: pure functions of the record, the transaction and the time; nothing here acts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from service.capture import capture_reference
from service.delivery import (
    HAD_IT,
    HELD,
    PROVIDER_LANE,
    RECONCILE,
    AccountFailure,
    BadDocument,
    Capture,
    CaptureEvent,
    CaptureOrder,
    ContentGate,
    DecidedBy,
    Delivery,
    GroupAddresses,
    Guarantee,
    Kind,
    Outcome,
    PermanentFailure,
    Proof,
    Purpose,
    Resolution,
    Send,
    SendingBlocked,
    Settled,
    Standing,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)
from service.privacy import scrub

OURS = frozenset({"kravia.invoice_b2b", "kravia.invoice_b2c"})
NEVER_COMPLETED_AFTER = timedelta(hours=24)
OLDER_THAN_THE_RECORD = timedelta(hours=24)
LOOK_AGAIN_AFTER = 3600.0
CLOCKS_DIFFER = timedelta(seconds=60)
LONGEST_DELAY = 86400.0
WAIT_FOR_REPORT = 6 * 3600.0
"""Seconds before what may have arrived is sent again where a report may still tell (channels.md 2.3)."""
IN_DOUBT = frozenset({Settled.OPEN, Settled.UNCONFIRMED})
MAY_HAVE_ARRIVED = IN_DOUBT | {Settled.ACCEPTED}
_ENDED = {
    Standing.VOIDED: "voided",
    Standing.DECLINED: "declined",
    Standing.FAILED: "failed",
    Standing.REFUNDED: "refunded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a channel says of itself; see `Channel`."""

    channel: str
    guarantee: Guarantee
    reports: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that decide; durations in seconds."""

    order: CaptureOrder
    retry_delays: tuple[float, ...]
    give_up_after: float
    capture_give_up_after: float
    unconfirmed_retries: int
    unconfirmed_delay: float
    capture_timeout: float  # how long a capture request may still take effect after its answer was lost
    min_days_before_due: int  # nearer to its due date, an invoice needs a person
    timezone: ZoneInfo  # whose days they are
    group_give_up_days: int = 10  # without an invoice after its later issue date, a grouped purchase needs a person
    group_addresses: GroupAddresses = field(default=GroupAddresses())  # where consolidated invoices go before all else
    group_notice: bool = False  # whether customers are told at each grouped purchase on which invoice it will be
    holiday_country: str | None = None  # whose public holidays count, instead of the billing country's
    fallback_after: float = 86400.0  # of trying one channel, before the next one has its turn
    capture_delay: float = 0.0  # between a send and its capture, for early bounces
    content_gate: ContentGate = ContentGate.WARN
    cancel_notice: bool = False  # whether customers are told that an invoice they have was cancelled
    promises: tuple[Promise, ...] = ()

    def promise(self, channel: str) -> Promise:
        """Return what a channel promises; of one that is not there any more, nothing."""
        unknown = Promise(channel=channel, guarantee=Guarantee.AT_LEAST_ONCE)
        return next((promise for promise in self.promises if promise.channel == channel), unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What was met is our own trouble with a lane, or (`blocked`) may be: then it is when it comes again and again."""

    lane: str
    reason: str
    retry_after: float | None = None
    blocked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Look again later. Without `seconds` the retry schedule says when."""

    reason: str
    lane: str | None = None
    runs: bool = True  # whether the give-up clock runs meanwhile
    seconds: float | None = None
    retry_after: float | None = None
    no_send: bool = False  # a wake-up may bring the look forward, but not the send
    document: bool = False  # the document would not do: once through the schedule is enough
    nothing_yet: bool = False  # giving up on this leaves it open to a later callback
    at_most: float | None = None  # seconds, whatever the schedule says: another channel has its turn then
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Nothing more is to be done, or a person is needed."""

    outcome: Outcome
    reason: str | None = None
    look_again_in: float | None = None
    waiting: bool = False
    alarm: str | None = None
    voided: bool = False
    held: bool = False  # nothing went wrong, and nothing is sent until a person says so
    of_channel: str | None = None  # only this channel cannot do it: the next one of the route may


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Send the message; `again` is the send in doubt that is repeated to the byte."""

    purpose: Purpose
    again: Send | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCapture:
    """Ask the provider to capture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Everything is ready, but all slots of that lane are taken."""

    lane: str


Ending = Wait | Close | Requeue
Decision = Ending | Deliver | StartCapture


def by_standing(
    delivery: Delivery, transaction: Transaction, sends: Sequence[Send], now: datetime
) -> Wait | Close | None:
    """Say what the product and the status alone decide; None from AUTHORIZED on."""
    word = transaction.product_type or transaction.product
    if word and not word.startswith("kravia") and transaction.product != "kravia":
        return Close(outcome=Outcome.SKIPPED, reason=f"not a Kravia invoice but {scrub(word)}")
    if ended := _ENDED.get(transaction.standing):
        had_it = may_have_it(delivery, sends)
        return Close(
            outcome=Outcome.CANCELLED,
            reason=f"{ended} at Dintero" + (f" {HAD_IT}" if had_it else ""),
            alarm="alarm.voided_after_delivery" if had_it else None,
            voided=transaction.standing is Standing.VOIDED,
        )
    if transaction.standing is Standing.INITIATED:
        begun = transaction.created_at or delivery.received_at
        if now - begun >= NEVER_COMPLETED_AFTER:
            return Close(outcome=Outcome.SKIPPED, reason="never completed by the customer", waiting=True)
        return Wait(reason="the customer has not finished", runs=False, nothing_yet=True)
    if transaction.standing is Standing.HELD:
        return Wait(reason="on hold at Dintero", runs=False, nothing_yet=True)
    if transaction.standing is Standing.UNKNOWN:
        return Wait(reason=f"unknown status {scrub(transaction.status)} at Dintero", nothing_yet=True)
    return None


def by_ownership(transaction: Transaction, resolution: Resolution) -> Close | None:
    """Say whether the invoice is somebody else's to deliver; None when it is ours."""
    if transaction.product_type not in OURS:
        return Close(
            outcome=Outcome.SKIPPED, reason=f"{scrub(transaction.product_type) or 'this product'} is not delivered here"
        )
    if resolution.channel == "merchant":
        return None
    by_default = resolution.decided_by is DecidedBy.SETTING
    where = "nothing at Dintero says who delivers" if by_default else f"set in the {resolution.decided_by}"
    return Close(
        outcome=Outcome.SKIPPED,
        reason=f"invoice channel is {scrub(resolution.channel)} ({where})",
        look_again_in=LOOK_AGAIN_AFTER if by_default else None,
    )


def by_amount(transaction: Transaction) -> Close | None:
    """Say whether it is known how much money it is about."""
    if transaction.amount is None or transaction.amount <= 0:
        shown = "missing or not an integer" if transaction.amount is None else str(transaction.amount)
        return Close(outcome=Outcome.FAILED, reason=f"the amount is {shown}")
    return Close(outcome=Outcome.FAILED, reason="the currency is missing") if transaction.currency is None else None


def by_content(transaction: Transaction) -> Wait | Close | None:
    """Say whether an invoice that is ours can be delivered at all, as the provider describes it."""
    if verdict := by_amount(transaction):
        return verdict
    if transaction.collection.partial is not None:
        shares = f"{transaction.collection.partial} of {transaction.amount}"
        return Close(outcome=Outcome.FAILED, reason=f"{shares} (minor units) captured by someone else")
    if not transaction.invoice_number or not transaction.invoice_url:
        missing = "number" if not transaction.invoice_number else "document"
        return Wait(reason=f"no invoice {missing} at Dintero yet", nothing_yet=True)
    return None


def by_age(
    delivery: Delivery, transaction: Transaction, captures: Sequence[Capture], rules: Rules, born_at: datetime
) -> Close | None:
    """Keep an invoice from being mailed because our record is new, lost or restored (design.md, invariant 7).

    What the provider has our own capture of, and the record has none, was handled before: delivered, if that is what
    comes first. What is older than the record, or collected already when we hear of it, is for a person to release.
    """
    if delivery.delivered_at is not None or captures or delivery.round:
        return None
    begun = transaction.collection.begun
    ours = [e for e in transaction.collection.events if e.reference == capture_reference(transaction.id)]
    captured = any(event.success for event in ours)
    if captured and rules.order is CaptureOrder.AFTER_DELIVERY:
        reason = "delivered before this record knew of it: Dintero has our own capture"
        return Close(outcome=Outcome.COMPLETED, reason=reason)
    if delivery.released:
        return None
    if captured:
        return _held(delivery, "captured by us before this record knew of it, and not known whether it was delivered")
    if transaction.collection.paid:
        return None
    if ours and rules.order is CaptureOrder.AFTER_DELIVERY:
        return _held(delivery, "a capture of ours, which follows a delivery, had failed before this record knew of it")
    if delivery.attempt:
        return None
    created = transaction.created_at or delivery.received_at
    if created < born_at - OLDER_THAN_THE_RECORD:
        return _held(delivery, "older than this record")
    if begun and (delivery.source == RECONCILE or created < born_at):
        return _held(delivery, "its collection had begun before this record knew of it", waiting=True)
    return None


def _held(delivery: Delivery, why: str, *, waiting: bool = False) -> Close:
    # What Dintero lists are transactions: the invoice of several is not among them.
    by = "deliveries resolve --not-delivered" if delivery.kind is Kind.GROUPED else "reconcile --since DATE --yes"
    reason = f"{HELD} {why}; find out whether the customer has it, then release it by `{by}`"
    return Close(outcome=Outcome.FAILED, reason=reason, waiting=waiting, held=True)


def by_due_date(delivery: Delivery, transaction: Transaction, rules: Rules, now: datetime) -> Close | None:
    """Stop an invoice that the customer could not pay in time any more, unless a person wants it out all the same."""
    if transaction.due_date is None or delivery.even_late:
        return None
    days = (transaction.due_date - now.astimezone(rules.timezone).date()).days
    if days >= rules.min_days_before_due:
        return None
    span = f"{abs(days)} day" + ("" if abs(days) == 1 else "s")
    when = f"due in {span}" if days > 0 else f"due {span} ago" if days else "due today"
    return Close(outcome=Outcome.FAILED, reason=f"{when}; `deliveries resend --even-late` sends it all the same")


def delivered(delivery: Delivery, sends: Sequence[Send]) -> bool:
    """Tell whether this round is delivered: an accepted send of it that did not bounce, or a person's word."""
    of_round = [send.outcome for send in sends if send.round == delivery.round]
    if delivery.stated_round == delivery.round or Settled.ACCEPTED in of_round:
        return True
    return delivery.round == 0 and delivery.delivered_at is not None and Settled.BOUNCED not in of_round


def fallen(delivery: Delivery, sends: Sequence[Send]) -> frozenset[str]:
    """Return the channels that this round is done with: refused for good, out of time, or bounced."""
    of_round = {send.channel for send in sends if send.round == delivery.round and send.outcome is Settled.BOUNCED}
    return frozenset(delivery.fallen.split(",")) - {""} | of_round


def may_have_it(delivery: Delivery, sends: Sequence[Send]) -> bool:
    """Tell whether the customer has the invoice, or may have: of this round or an earlier one."""
    outcomes = {send.outcome for send in sends if send.round >= 0}
    if outcomes & MAY_HAVE_ARRIVED:
        return True
    return delivery.delivered_at is not None and Settled.BOUNCED not in outcomes


def is_copy(delivery: Delivery, sends: Sequence[Send]) -> bool:
    """Tell whether a resend is a copy of what the customer has, or may have; it may also be the first that arrives.

    Decided with the first send of a round and kept in its purpose, so that a repeat reads as what it repeats.
    """
    of_round = next((send for send in sends if send.round == delivery.round), None)
    if of_round is not None or delivery.round == 0:
        return of_round is not None and of_round.purpose is Purpose.RESEND
    return may_have_it(delivery, sends)


def next_effect(
    delivery: Delivery, transaction: Transaction, sends: Sequence[Send], rules: Rules, now: datetime
) -> Decision:
    """Say which effect comes first; `now` is the database's clock, for it is compared with the record's times."""
    has_it, begun = delivered(delivery, sends), transaction.collection.begun
    if transaction.collection.paid and not has_it and _nobody_asked(delivery, sends):
        return Close(outcome=Outcome.SKIPPED, reason="already paid")
    if has_it and begun:
        return Close(outcome=Outcome.COMPLETED, reason=by_fallback(delivery, sends))
    if has_it:
        return early_bounces(delivery, rules, now, since=_accepted_at(delivery, sends)) or StartCapture()
    capture_first = rules.order is CaptureOrder.BEFORE_DELIVERY and not begun
    effect = StartCapture() if capture_first else next_send(delivery, sends, rules, now)
    late = by_due_date(delivery, transaction, rules, now)
    if late is None or not isinstance(effect, Deliver | StartCapture):
        return effect
    if isinstance(effect, Deliver) and effect.again:
        reason = f"it is not known whether the customer got it, and it is {late.reason}"
        return replace(late, reason=reason, alarm="alarm.unconfirmed")
    return late


def _nobody_asked(delivery: Delivery, sends: Sequence[Send]) -> bool:
    """Tell whether a send would be of our own accord: it is the first, or takes the place of what bounced."""
    of_round = {send.outcome for send in sends if send.round == delivery.round}
    return delivery.delivered_at is None or (delivery.round == 0 and Settled.BOUNCED in of_round)


def _accepted_at(delivery: Delivery, sends: Sequence[Send]) -> datetime | None:
    """Return when the message was accepted that counts in this round, if one did: another may have bounced before."""
    of_round = [send for send in sends if send.round == delivery.round and send.outcome is Settled.ACCEPTED]
    return min((send.settled_at for send in of_round if send.settled_at), default=None)


def early_bounces(delivery: Delivery, rules: Rules, now: datetime, *, since: datetime | None = None) -> Wait | None:
    """Leave bounces time to come before the collection starts (CAPTURE_DELAY); nothing bounces that a person saw.

    It counts from `since`, or from when the customer first had it.
    """
    since = since or delivery.delivered_at
    if since is None or delivery.delivery_proof in (Proof.PERSON, Proof.REPORT):
        return None
    passed = max(0.0, (now - since).total_seconds())  # another process's clock may be ahead
    left = rules.capture_delay - passed
    if left <= 0:
        return None
    return Wait(reason="delivered; captured after CAPTURE_DELAY", lane=PROVIDER_LANE, runs=False, seconds=left)


def by_fallback(delivery: Delivery, sends: Sequence[Send]) -> str | None:
    """Say by what the customer has it, where that is not the channel that was to be, or not that alone."""
    over = fallen(delivery, sends)
    of_round = [send for send in sends if send.round == delivery.round]
    arrived = list(dict.fromkeys(send.channel for send in of_round if send.outcome is Settled.ACCEPTED))
    doubtful = {send.channel for send in of_round if send.outcome in IN_DOUBT} & over - {*arrived}
    failed = over - doubtful - {*arrived}
    if not arrived or not (failed or doubtful or arrived[1:]):
        return None
    words = [f"delivered by {' and '.join(arrived)}"]
    words += [f"after {', '.join(sorted(failed))} had not worked"] * bool(failed)
    words += [f"and it is not known whether by {', '.join(sorted(doubtful))}, too"] * bool(doubtful)
    return ", ".join(words)


def came_back(invoice: Delivery, sends: Sequence[Send]) -> bool:
    """Tell whether all that was accepted of an invoice bounced later, so that its customer has nothing of it."""
    outcomes = {send.outcome for send in sends if send.round >= 0}
    return Settled.BOUNCED in outcomes and Settled.ACCEPTED not in outcomes and invoice.stated_round is None


def by_invoice(
    delivery: Delivery,
    transaction: Transaction,
    invoice: Delivery,
    sends: Sequence[Send],
    *,
    rules: Rules,
    now: datetime,
) -> Decision:
    """Say what comes next for a purchase that was billed: it is captured once its invoice is delivered, or before.

    `sends` are the invoice's, for it may have come back since.
    """
    begun, number = transaction.collection.begun, transaction.invoice_number
    if delivery.delivered_at is not None:
        if begun:
            return Close(outcome=Outcome.COMPLETED)
        if not came_back(invoice, sends):
            return early_bounces(invoice, rules, now, since=_accepted_at(invoice, sends)) or StartCapture()
    if invoice.outcome in (Outcome.SKIPPED, Outcome.CANCELLED):
        return Close(outcome=invoice.outcome, reason=f"its invoice {number} was {invoice.outcome}: {invoice.reason}")
    if rules.order is CaptureOrder.BEFORE_DELIVERY and not begun:
        return StartCapture()
    return Wait(reason=f"waits for its invoice {number} to be delivered", runs=False, seconds=LOOK_AGAIN_AFTER)


def in_doubt(delivery: Delivery, sends: Sequence[Send]) -> list[Send]:
    """Return the sends in doubt of this round that may be repeated; the last of them is, before all else."""
    over = fallen(delivery, sends)
    return [s for s in sends if s.round == delivery.round and s.outcome in IN_DOUBT and s.channel not in over]


def next_send(delivery: Delivery, sends: Sequence[Send], rules: Rules, now: datetime) -> Decision:
    """Say whether a message may go now; a send in doubt has its own bounded repeats."""
    doubtful = in_doubt(delivery, sends)
    if doubtful and (verdict := _in_doubt(doubtful, rules, now)):
        return verdict
    if delivery.no_send_before and delivery.no_send_before > now:
        left = (delivery.no_send_before - now).total_seconds()
        reason = delivery.reason or "not to be sent yet"
        return Wait(reason=reason, seconds=left, no_send=True, runs=not delivery.paced)
    if doubtful:
        return Deliver(purpose=Purpose.REPEAT, again=doubtful[-1])
    return Deliver(purpose=Purpose.RESEND if is_copy(delivery, sends) else Purpose.FIRST)


def _in_doubt(doubtful: Sequence[Send], rules: Rules, now: datetime) -> Wait | Close | None:
    """Say whether what may have arrived is repeated now; that is as its channel can promise."""
    last = doubtful[-1]
    promise = rules.promise(last.channel)
    if promise.guarantee is Guarantee.IDEMPOTENT:
        return None
    repeats = 0 if promise.guarantee is Guarantee.AT_MOST_ONCE else rules.unconfirmed_retries
    used = sum(send.purpose is Purpose.REPEAT for send in doubtful if send.channel == last.channel)
    if used >= repeats:
        return Close(
            outcome=Outcome.FAILED,
            reason="it is not known whether the customer got it; find out, then `deliveries resolve`",
            alarm="alarm.unconfirmed",
            of_channel=last.channel,
        )
    delay = max(rules.unconfirmed_delay, WAIT_FOR_REPORT) if promise.reports else rules.unconfirmed_delay
    left = (last.begun_at - now).total_seconds() + delay
    if left > 0:
        return Wait(reason="it is not known whether the last send arrived", seconds=left, no_send=True)
    return None


def open_capture(captures: Sequence[Capture]) -> Capture | None:
    """Return the capture whose effect is not known yet, if there is one."""
    waiting = (Settled.OPEN, Settled.UNCONFIRMED, Settled.PENDING)
    return next((capture for capture in reversed(captures) if capture.outcome in waiting), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a read transaction says of a capture in doubt: how it ended, and what comes next if that is not plain."""

    capture: Capture
    then: Wait | Close | None = None


def resolve_capture(
    capture: Capture, transaction: Transaction, earlier: Sequence[Capture], rules: Rules, now: datetime
) -> Told | Wait:
    """Say how a capture in doubt ended, or that it must be waited for; `earlier` are all captures of the delivery."""
    own = own_events(capture, transaction)
    if transaction.collection.begun:
        event = next((event for event in own if event.success), None)
        detail = None if event else "collection has begun"
        settled = replace(capture, outcome=Settled.ACCEPTED, event_id=event.id if event else None, detail=detail)
        return Told(capture=settled)
    if failed := new_failure(capture, own, earlier):
        then = after_failed_capture(failed)
        return Told(
            capture=replace(capture, outcome=Settled.REFUSED, event_id=failed.id, detail=then.reason), then=then
        )
    if capture.outcome is Settled.PENDING:
        return Wait(reason="the capture is accepted by Dintero but not carried out yet", lane=PROVIDER_LANE)
    left = (capture.begun_at - now).total_seconds() + rules.capture_timeout
    if left > 0:
        return Wait(reason="the answer to the capture was lost; reading again", lane=PROVIDER_LANE, seconds=left)
    return Told(capture=replace(capture, outcome=Settled.REFUSED, detail="no trace of it at Dintero"))


def own_events(capture: Capture, transaction: Transaction) -> list[CaptureEvent]:
    """Return the events that are about our own capture: a failed one counts against us only if it is ours."""
    return [
        event
        for event in transaction.collection.events
        if event.reference == capture.reference
        or (capture.event_request_id is not None and event.answers == capture.event_request_id)
    ]


def new_failure(capture: Capture, own: Sequence[CaptureEvent], earlier: Sequence[Capture]) -> CaptureEvent | None:
    """Return our latest failed event that this capture left, and not one before it.

    What an earlier capture was settled by is known by its id; what one left that was refused without an answer, by its
    time, give or take what the provider's clock may differ. An event with neither tells nothing.
    """
    known = {before.event_id for before in earlier if before.event_id is not None}
    since = capture.begun_at - CLOCKS_DIFFER
    return next(
        (
            event
            for event in reversed(own)
            if not event.success
            and (event.id is None or event.id not in known)
            and (event.id is not None if event.at is None else event.at >= since)
        ),
        None,
    )


def after_failed_capture(event: CaptureEvent) -> Wait | Close:
    """Obey the retry policy of an own event that failed."""
    reason = f"the capture failed at Dintero: {event.error or 'no reason given'}"
    if not event.retryable:
        return Close(outcome=Outcome.FAILED, reason=reason)
    return Wait(reason=reason, lane=PROVIDER_LANE, retry_after=event.retry_after)


def on_failure(
    failure: Exception,
    *,
    lane: str,
    of: str | None = None,
    no_send: bool = False,
    nothing_yet: bool = False,
    of_channel: str | None = None,
) -> Wait | Close:
    """Turn an adapter's failure into what comes next; `of` is the lane that it came from, if not where to wait.

    `of_channel` is the channel that failed, where another one may do.
    """
    if isinstance(failure, PermanentFailure):
        return Close(outcome=Outcome.FAILED, reason=failure.reason, of_channel=of_channel)
    if isinstance(failure, UnconfirmedFailure):
        return Wait(reason=failure.reason, lane=lane, nothing_yet=nothing_yet)
    assert isinstance(failure, TransientFailure), failure
    ours, blocked = isinstance(failure, AccountFailure), isinstance(failure, SendingBlocked)
    fault = None
    if ours or blocked:
        at_fault = of or lane
        fault = Fault(lane=at_fault, reason=failure.reason, retry_after=failure.retry_after, blocked=blocked)
    return Wait(
        reason=failure.reason,
        lane=lane,
        runs=not ours,
        retry_after=failure.retry_after,
        no_send=no_send,
        document=isinstance(failure, BadDocument),
        nothing_yet=nothing_yet,
        fault=fault,
    )


def delay_of(wait: Wait, postponed: int, rules: Rules, jitter: Callable[[], float]) -> float:
    """Return the seconds to wait: the schedule's, give or take a tenth, or longer when the other side says so."""
    if wait.at_most is not None:
        return min(wait.at_most, delay_of(replace(wait, at_most=None), postponed, rules, jitter))
    if wait.seconds is not None:
        return wait.seconds
    planned = rules.retry_delays[min(postponed, len(rules.retry_delays) - 1)] * (0.9 + 0.2 * jitter())
    return max(planned, min(wait.retry_after or 0.0, LONGEST_DELAY))


def gives_up(delivery: Delivery, wait: Wait, rules: Rules, now: datetime, *, has_it: bool) -> str | None:
    """Return why no further attempt is made, or None; what the customer has may take longer to capture."""
    if wait.document and delivery.bad_documents >= len(rules.retry_delays):
        return wait.reason
    limit = rules.capture_give_up_after if has_it else rules.give_up_after
    if wait.runs and patience(delivery, now) >= limit:
        return f"gave up after {_span(limit)}: {wait.reason}"
    return None


def patience(delivery: Delivery, now: datetime) -> float:
    """Return the seconds that the give-up clock shows."""
    running = max(0.0, (now - delivery.patience_since).total_seconds()) if delivery.patience_since else 0.0
    return delivery.patience_used + running


def tick(delivery: Delivery, now: datetime, *, runs: bool) -> Delivery:
    """Set the give-up clock going, or stop it where it stands."""
    if not runs:
        return replace(delivery, patience_used=patience(delivery, now), patience_since=None)
    if delivery.patience_since:
        return delivery
    # Waiting for others is over, or has not begun: the schedule of our own tries starts at its beginning.
    return replace(delivery, patience_since=now, postponed=0)


def progressed(delivery: Delivery) -> Delivery:
    """Start the schedule and the give-up clock afresh, for a step has succeeded."""
    return replace(
        delivery,
        postponed=0,
        bad_documents=0,
        errors=0,
        patience_used=0.0,
        patience_since=None,
        no_send_before=None,
        reason=None,
    )


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:g} seconds"
