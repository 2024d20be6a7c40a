"""Reading the transaction, and what a read tells: who delivers, and whether its collection has begun."""

from dataclasses import replace

import structlog

from service.decide import Close, Ending, by_ownership, on_failure
from service.delivery import PROVIDER_LANE, DeliveryFailure, Kind, Outcome, Result, Step, Transaction
from service.pipeline.consolidating import carrier, consolidated
from service.pipeline.work import Work, enter, ids, took
from service.privacy import number_key, scrub
from service.purchases import is_grouped

FRESH_SECONDS = 30.0
"""Seconds for which a read counts before an effect (design.md, "Collection")."""
_log = structlog.get_logger()


def same(before: Transaction, after: Transaction) -> bool:
    """Tell whether a transaction that was read twice is still the one that an effect was decided and prepared on."""
    return before is after or before == replace(after, read_at=before.read_at)


def contradicted(before: Transaction, after: Transaction) -> Close | None:
    """Say whether the invoice became another one between two reads of one step: a person has to look."""
    for name, was, is_ in (
        ("number", before.invoice_number, after.invoice_number),
        ("amount", before.amount, after.amount),
        ("currency", before.currency, after.currency),
        ("due date", before.due_date, after.due_date),
    ):
        if was is not None and is_ is not None and was != is_:
            return Close(outcome=Outcome.FAILED, reason=f"the invoice's {name} changed while it was being prepared")
    return None


async def read(work: Work, *, fresh_for: float = 0.0) -> Ending | None:
    """Read the transaction unless a younger one is at hand; None means that it is there."""
    if work.transaction and (work.parts.clock.now() - work.transaction.read_at).total_seconds() < fresh_for:
        return None
    began = work.parts.clock.monotonic()
    try:
        transaction = consolidated(work, await work.parts.payments.read(carrier(work)))
    except DeliveryFailure as failure:
        nothing_yet = work.delivery.product_type is None
        return on_failure(failure, lane=work.delivery.lane, of=PROVIDER_LANE, nothing_yet=nothing_yet)
    took_ms = took(work, "fetch", began)
    if work.transaction and work.transaction.findings != transaction.findings:
        work.ours = False  # who delivers is asked again; what has begun stays ours all the same
    if work.delivery.product_type is None:
        enter(work, Step.FETCH, Result.ACCEPTED, detail=scrub(f"{transaction.product_type} is {transaction.status}"))
    work.transaction = transaction
    of_purchase = work.delivery.kind is not Kind.GROUPED and is_grouped(transaction.product_type)
    work.delivery = replace(
        work.delivery,
        product_type=transaction.product_type or work.delivery.product_type,
        # A purchase's invoice is another delivery, which alone is found by the number.
        invoice_number=(None if of_purchase else transaction.invoice_number) or work.delivery.invoice_number,
        merchant_reference=transaction.merchant_reference or work.delivery.merchant_reference,
        amount=transaction.amount,
        currency=transaction.currency,
        organization_key=_organization_key(work, transaction) or work.delivery.organization_key,
    )
    _log.info("delivery.fetched", **ids(work), status=transaction.status, duration_ms=took_ms)
    return None


def _organization_key(work: Work, transaction: Transaction) -> str | None:
    billing = transaction.billing
    return number_key(work.delivery.account_id, billing.organization_number) if billing else None


async def resolve(work: Work) -> Ending | None:
    """Find out once in a pass whether it is ours; what we have begun stays ours, whatever the settings become."""
    if work.ours or work.sends or work.captures or work.delivery.delivered_at:
        return None
    try:
        resolution = await work.parts.payments.resolve(work.known)
    except DeliveryFailure as failure:
        return on_failure(failure, lane=work.delivery.lane, of=PROVIDER_LANE)
    work.delivery = replace(work.delivery, decided_by=resolution.decided_by)
    verdict = by_ownership(work.known, resolution)
    work.ours = verdict is None
    return verdict


def learn_collection(work: Work) -> None:
    collection = work.known.collection
    if collection.begun and work.delivery.captured_known_at is None:
        now = work.parts.clock.now()
        work.delivery = replace(work.delivery, captured_at=collection.begun_at or now, captured_known_at=now)
