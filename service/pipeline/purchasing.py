"""A grouped purchase: recorded under its group, watched until it is billed, and captured when its invoice is sent."""

from dataclasses import replace

from service.decide import (
    LOOK_AGAIN_AFTER,
    Close,
    Decision,
    Ending,
    Requeue,
    StartCapture,
    Wait,
    by_age,
    by_amount,
    by_content,
    by_due_date,
    by_invoice,
    came_back,
    on_failure,
)
from service.delivery import (
    PROVIDER_LANE,
    Delivery,
    DeliveryFailure,
    Kind,
    Member,
    Members,
    Outcome,
    PermanentFailure,
    Purchase,
    Result,
    Send,
    Step,
)
from service.pipeline.capturing import settle_open_capture
from service.pipeline.consolidating import aged, wake, wake_one
from service.pipeline.falling import reach
from service.pipeline.noticing import notify, with_notice
from service.pipeline.reading import learn_collection
from service.pipeline.work import Work, database_now, enter
from service.privacy import scrub
from service.purchases import expected_between, given_up, next_look, period_bought_in, purchase_of

MERCHANT = "merchant"


async def next_of_purchase(work: Work) -> Decision:
    """Say what comes next for a purchase that is not void."""
    purchase = await _recorded(work)
    if not isinstance(purchase, Purchase):
        return purchase
    if purchase.invoice_number is None:
        notice = await notify(work, purchase) if purchase.channel == MERCHANT else None
        return notice if isinstance(notice, Requeue) else with_notice(_unbilled(work, purchase), notice)
    if purchase.channel != MERCHANT:
        shown = f"invoice {scrub(purchase.invoice_number)}: its channel is {scrub(purchase.channel)}"
        return Close(outcome=Outcome.SKIPPED, reason=f"billed with {shown} (set in the {purchase.decided_by})")
    return await _billed(work, purchase)


async def _recorded(work: Work) -> Purchase | Ending:
    """Write down the purchase as it was read; when it shows an invoice first, the others of its group are looked at."""
    if verdict := by_amount(work.known):
        return verdict
    try:
        resolution = await work.parts.payments.resolve(work.known)
    except DeliveryFailure as failure:
        return on_failure(failure, lane=work.delivery.lane, of=PROVIDER_LANE)
    purchase = purchase_of(
        work.known,
        resolution,
        account_id=work.delivery.account_id,
        received_at=work.delivery.received_at,
        zone=work.parts.rules.timezone,
    )
    purchase = replace(purchase, recipient_key=_recipient_key(work))
    before = await _member(work)
    if before is not None and before.purchase.channel == MERCHANT and before.purchase.invoice_id is not None:
        purchase = replace(purchase, channel=MERCHANT)  # what we have begun stays ours, whatever is said later
    work.delivery = replace(work.delivery, kind=Kind.PURCHASE, decided_by=resolution.decided_by)
    _tell_change(work, before, purchase)
    await work.parts.store.record_purchase(work.claim, purchase)
    if purchase.invoice_id is not None and (before is None or before.purchase.invoice_id is None):
        others = await work.parts.store.members(Members(group=purchase.group))
        first = not any(other.purchase.invoice_id == purchase.invoice_id for other in others if _is_other(work, other))
        await wake(work, [other for other in others if first and other.purchase.invoice_id is None])
    return purchase


def _is_other(work: Work, member: Member) -> bool:
    return member.delivery.id != work.delivery.id


async def _member(work: Work) -> Member | None:
    found = await work.parts.store.members(Members(transaction_id=work.delivery.id))
    return found[0] if found else None


def _tell_change(work: Work, before: Member | None, purchase: Purchase) -> None:
    period = period_bought_in(purchase).label
    terms = f"{purchase.interval} ({purchase.interval_from}), {purchase.days_until_due} days ({purchase.days_from})"
    if before is None:
        enter(work, Step.FETCH, Result.ACCEPTED, detail=f"a purchase of {period}: {terms}")
    elif before.purchase.group != purchase.group or (before.purchase.days_until_due != purchase.days_until_due):
        enter(work, Step.FETCH, Result.ACCEPTED, detail=f"its group or terms have changed; now of {period}: {terms}")


def _recipient_key(work: Work) -> str | None:
    """Return the key of the address on it; None where no channel has one, which may still come."""
    try:
        return reach(work)[1].key
    except PermanentFailure:
        return None


def _unbilled(work: Work, purchase: Purchase) -> Ending:
    rules, now = work.parts.rules, database_now(work)
    first, last = expected_between(purchase, rules.timezone, rules.holiday_country)
    label = period_bought_in(purchase).label
    if not given_up(last, now, rules.timezone, rules.group_give_up_days):
        seconds = next_look(first, now, rules.timezone).total_seconds()
        # Not all at the same moment: a merchant's whole month becomes due at one midnight.
        seconds += min(seconds, 600.0) * work.parts.jitter()
        return Wait(
            reason=f"waits for the invoice of {label}, expected on {first} or later", runs=False, seconds=seconds
        )
    reason = f"no invoice for {label} {rules.group_give_up_days} days after it should have been issued on {last}"
    ours = purchase.channel == MERCHANT
    outcome = Outcome.FAILED if ours else Outcome.SKIPPED
    return Close(outcome=outcome, reason=reason, waiting=True, alarm=None if ours else "alarm.group_not_billed")


async def _billed(work: Work, purchase: Purchase) -> Decision:
    assert purchase.invoice_id is not None
    if verdict := by_content(work.known):
        return verdict
    invoice = await _invoice(work, purchase.invoice_id)
    if told := await settle_open_capture(work):
        return told
    learn_collection(work)
    sends = await work.parts.store.sends(invoice.id) if invoice.delivered_at is not None else ()
    has_it = invoice.delivered_at is not None and not came_back(invoice, sends)
    learned = work.delivery.delivered_at is None and has_it
    if learned:
        work.delivery = replace(work.delivery, delivered_at=invoice.delivered_at, delivery_proof=invoice.delivery_proof)
        enter(work, Step.DELIVER, Result.ACCEPTED, detail=f"with invoice {scrub(purchase.invoice_number or '')}")
    if work.claim.delivery.captured_known_at is None and work.delivery.captured_known_at is not None:
        await wake_one(work, invoice.id)  # with `before_delivery` it waits for this
    now = database_now(work)
    decision = by_invoice(work.delivery, work.known, invoice, sends, rules=work.parts.rules, now=now)
    if learned and isinstance(decision, StartCapture):
        return Requeue(lane=PROVIDER_LANE)  # written down first: the record says in which order things became known
    return _held_back(work, purchase, invoice) or decision if work.delivery.delivered_at is None else decision


def _held_back(work: Work, purchase: Purchase, invoice: Delivery) -> Ending | None:
    """Say whether this purchase was delivered before, or its invoice will not be sent as things stand."""
    rules = work.parts.rules
    as_old = aged(work, work.known, purchase)
    before = by_age(work.delivery, as_old, work.captures, rules, work.parts.born_at)
    if before is not None and before.outcome is Outcome.COMPLETED:
        return before
    stopped = invoice.outcome is Outcome.FAILED
    stopped = stopped or by_age(invoice, as_old, work.captures, rules, work.parts.born_at) is not None
    if stopped or by_due_date(invoice, as_old, rules, database_now(work)) is not None:
        reason = f"waits for its invoice {scrub(purchase.invoice_number or '')} to be delivered"
        return Wait(reason=reason, runs=False, seconds=LOOK_AGAIN_AFTER)
    return None


async def had_it(work: Work) -> tuple[Send, ...]:
    """Learn whether a purchase's invoice is delivered; return its sends, for it may be."""
    member = await _member(work) if work.delivery.kind is Kind.PURCHASE else None
    if member is None or member.purchase.invoice_id is None:
        return ()
    found = await work.parts.store.find(member.purchase.invoice_id)
    for invoice in (delivery for delivery in found if delivery.id == member.purchase.invoice_id):
        if invoice.delivered_at is not None and work.delivery.delivered_at is None:
            work.delivery = replace(
                work.delivery, delivered_at=invoice.delivered_at, delivery_proof=invoice.delivery_proof
            )
    return await work.parts.store.sends(member.purchase.invoice_id)


async def _invoice(work: Work, invoice_id: str) -> Delivery:
    """Return the delivery of the invoice, entered if this purchase is the first that shows it."""
    await work.parts.store.enter_invoice(invoice_id, work.delivery, work.parts.clock.now())
    found = await work.parts.store.find(invoice_id)
    return next(delivery for delivery in found if delivery.id == invoice_id)
