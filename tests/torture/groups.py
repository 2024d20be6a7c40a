"""Grouped purchases in the torture: sold last month, billed while all else goes wrong, and counted in the end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from random import Random

from service.delivery import RECONCILE, Arrival, Delivery, Members, Outcome, Store, StoreUnavailable
from service.simulator.billing import Bill
from service.simulator.documents import Json
from service.simulator.provider import Provider

SETTINGS = {"DELIVERY_GROUP_GIVE_UP_DAYS": "365"}  # what was sold last month is billed whenever the torture does it
OLD_ENOUGH = timedelta(days=120)
"""How long the record must be before now: what is older than it is held."""
_PER_GROUP = 3


def sell(provider: Provider, callback_url: str, number: int, random: Random) -> str:
    """Make a purchase of last month, the next one of a group of three; return its transaction's id."""
    customer = number // _PER_GROUP
    today = provider.clock.now()
    bought = today.replace(day=1, hour=12) - timedelta(days=10)
    sold = provider.sell(
        at=bought + timedelta(minutes=number),
        callback_url=callback_url,
        business_name=f"Kunde {customer} AS",
        organization_number=f"{100000000 + customer}",
        email=f"kunde{customer}@customer.example",
        amount=1000 * random.randint(1, 500),
        days_until_due=90,
        reference=f"purchase-{number}",
    )
    return str(sold["id"])


async def look(store: Store, account_id: str, transaction_ids: Iterable[str], at: datetime) -> None:
    """Have purchases looked at now, as their own time would: that is hours away, and grows."""
    for id_ in transaction_ids:
        try:
            await store.receive(Arrival(transaction_id=id_, account_id=account_id, at=at, source=RECONCILE))
        except StoreUnavailable:  # it is being tortured
            return


async def invoices(store: Store, purchases: Iterable[Delivery]) -> dict[str, tuple[Delivery, frozenset[str]]]:
    """Return the consolidated invoices of the record with the transactions that are on each."""
    on: dict[str, set[str]] = defaultdict(set)
    for purchase in purchases:
        for member in await store.members(Members(transaction_id=purchase.id)):
            if member.purchase.invoice_id is not None:
                on[member.purchase.invoice_id].add(purchase.transaction_id)
    found = {}
    for invoice_id, transactions in on.items():
        for delivery in await store.find(invoice_id):
            if delivery.id == invoice_id:
                found[invoice_id] = delivery, frozenset(transactions)
    return found


def check_sums(
    billed: Iterable[Bill],
    found: Mapping[str, tuple[Delivery, frozenset[str]]],
    transactions: Mapping[str, Json],
    entered: Mapping[str, datetime],
) -> None:
    """Raise `AssertionError` unless each number was one delivery, and its sum is what was billed and is not void.

    `entered` says when each purchase came into the record. Where every call of one was lost, it is found by `reconcile`
    after its invoice was told of, perhaps: it is on that invoice all the same, but its sum could not hold it.
    """
    bills = {bill.number: bill for bill in billed}
    numbers = [delivery.invoice_number for delivery, _ in found.values()]
    assert len(numbers) == len(set(numbers)), f"a number twice: {numbers}"
    for delivery, on in found.values():
        if delivery.outcome is not Outcome.COMPLETED:
            continue
        bill = bills[delivery.invoice_number or ""]
        assert on <= set(bill.transactions), f"{delivery.id} has what was not billed with it"
        amounts = {id_: transactions[id_]["amount"] for id_ in bill.transactions}
        voided = [id_ for id_ in amounts if transactions[id_]["status"] == "AUTHORIZATION_VOIDED"]
        late = {id_ for id_ in amounts if id_ not in entered or entered[id_] > delivery.received_at}
        least = sum(amount for id_, amount in amounts.items() if id_ not in {*voided, *late})
        # Voided before the mail or after it: either sum was right when it was told.
        assert least <= (delivery.amount or 0) <= sum(amounts.values()), f"{delivery}: billed {amounts}"
        if not voided:
            assert on == set(amounts), f"{delivery.id} lacks {set(amounts) - on}"
