"""What a consolidated invoice is made of: its purchases, which of them is read for all, and what they come to."""

from dataclasses import replace

from service.delivery import RECONCILE, Arrival, Kind, Member, Members, Outcome, Purchase, Transaction
from service.grouping import local_midnight
from service.pipeline.work import Work
from service.purchases import billed_on


async def gather(work: Work) -> None:
    """Find the purchases of a consolidated invoice, as they stand now."""
    if work.delivery.kind is Kind.GROUPED:
        work.members = await work.parts.store.members(Members(invoice_id=work.delivery.id))


def counted(work: Work) -> list[Member]:
    """Return those that are still billed, the oldest first."""
    return [member for member in work.members if member.counts]


def carrying(work: Work) -> Member | None:
    """Return the newest purchase of a consolidated invoice that can speak for all: it goes on, and has an address.

    So the address that all share is the one that is used, and where they differ the newest.
    """
    members = counted(work)
    going = [m for m in members if m.delivery.outcome in (Outcome.OPEN, Outcome.COMPLETED)] or members
    reached = [m for m in going if m.purchase.recipient_key] or going
    return reached[-1] if reached else None


def carrier(work: Work) -> str:
    """Return the transaction to read: a delivery's own; of a consolidated invoice, that of a purchase."""
    member = carrying(work)
    return member.purchase.transaction_id if member else work.delivery.transaction_id


def consolidated(work: Work, transaction: Transaction) -> Transaction:
    """Return a transaction as it is; one that carries a consolidated invoice, with what its purchases come to."""
    member = carrying(work)
    if work.delivery.kind is not Kind.GROUPED or member is None:
        return transaction
    return replace(
        aged(work, transaction, member.purchase),
        amount=sum(member.purchase.amount for member in counted(work)),
        vat_amount=None,
        merchant_reference=None,
        lines=(),
        shipping=None,
    )


def aged(work: Work, transaction: Transaction, purchase: Purchase) -> Transaction:
    """Return a transaction as old as its invoice, which is not held because its purchase is older than this record."""
    rules = work.parts.rules
    issued = transaction.invoice_date or billed_on(purchase, rules.holiday_country).earliest
    return replace(transaction, created_at=local_midnight(issued, rules.timezone))


async def wake(work: Work, members: list[Member]) -> None:
    """Have those looked at that are still open, or had given up on their invoice."""
    for member in members:
        if member.delivery.outcome is Outcome.OPEN or member.delivery.closed_waiting:
            await wake_one(work, member.delivery.id)


async def wake_one(work: Work, delivery_id: str) -> None:
    """Have an open delivery looked at now."""
    now, account_id = work.parts.clock.now(), work.delivery.account_id
    # The source of what nobody notified us of changes nothing in a row that is there.
    await work.parts.store.receive(Arrival(transaction_id=delivery_id, account_id=account_id, at=now, source=RECONCILE))
