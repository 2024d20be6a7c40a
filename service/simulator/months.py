"""The demo's grouped purchases: its three customers, what they buy, and how each group stands before and after."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random
from typing import Any

from service.money import in_units
from service.simulator.billing import Bill, Group, issue_date, period_of
from service.simulator.documents import Json
from service.simulator.provider import Provider
from service.simulator.sales import Country

_MORNING = time(9)  # when the clock is moved to: by then the provider has made its invoices
_UNKNOWN = "not yet known"
_TEXTS = ("Kontorrekvisita", "Lunsjlevering", "Møteromsleie", "Renhold", "Blomster til resepsjonen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A business that buys often and is invoiced once a period."""

    business_name: str
    organization_number: str
    country: Country
    email: str
    customer_reference: str | None = None


CUSTOMERS: dict[str, Customer] = {
    "fjordbygg": Customer(
        business_name="Fjordbygg AS",
        organization_number="999999999",
        country="NO",
        email="kari@fjordbygg.example",
        customer_reference="Prosjekt 17",
    ),
    "havn": Customer(
        business_name="Havn Kafé AS", organization_number="888888888", country="NO", email="post@havnkafe.example"
    ),
    "lind": Customer(
        business_name="Lind & Son AB", organization_number="5555555555", country="SE", email="astrid@lindochson.example"
    ),
}
"""By the name that the page's form uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A group that is not invoiced yet, for a row on the page."""

    customer: str
    period: str
    purchases: int
    references: str
    amount: str
    issued: date
    told: str  # by the service
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoiced:
    """A consolidated invoice, and what the service made of it, for a row on the page."""

    number: str
    customer: str
    period: str
    purchases: int
    references: str
    amount: str
    issued: date
    due: date
    record_id: str
    outcome: str  # "" while the service does not know it
    reason: str | None
    mails: tuple[int, ...]
    told: str  # by the service
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Everything that is grouped: what is to be invoiced, and what was, the newest first."""

    today: date
    moved: bool
    next_issue: date
    waiting: tuple[Expected, ...]
    bills: tuple[Invoiced, ...]


def buy(provider: Provider, customer: Customer, callback_url: str, random: Random) -> Json:
    """Make one purchase of a customer, now, and return it."""
    return provider.sell(
        callback_url=callback_url,
        business_name=customer.business_name,
        organization_number=customer.organization_number,
        customer_reference=customer.customer_reference,
        country=customer.country,
        email=customer.email,
        amount=random.randint(8, 90) * 12_500,
        reference=f"order-{1001 + len(provider.transactions)}",
        text=random.choice(_TEXTS),
        quantity=random.randint(1, 3),
    )


def next_issue(provider: Provider) -> datetime:
    """Return the next morning on which monthly invoices have been made."""
    zone, now = provider.billing.zone, provider.clock.now()
    day = issue_date(period_of(now, "monthly", zone)[0])
    if datetime.combine(day, _MORNING, zone) <= now:
        day = issue_date(period_of(now, "monthly", zone)[1])
    return datetime.combine(day, _MORNING, zone)


async def standing(
    provider: Provider,
    known: Sequence[Json],
    record: Callable[[str], Awaitable[dict[str, Any] | None]],
    mails: Callable[[str], Sequence[int]],
) -> Groups:
    """Return how the groups stand.

    `known` are the service's groups and `record` is the service's; `mails` gives the numbers of those about an invoice.
    """
    now, billing = provider.clock.now(), provider.billing
    waiting = tuple(_expected(provider, group, purchases, known) for group, purchases in provider.forecast().items())
    return Groups(
        today=now.astimezone(billing.zone).date(),
        moved=provider.clock.offset >= timedelta(hours=1),
        next_issue=next_issue(provider).date(),
        waiting=waiting,
        bills=tuple([await _invoiced(provider, bill, known, record, mails) for bill in reversed(billing.bills)]),
    )


def _expected(provider: Provider, group: Group, purchases: Sequence[Json], known: Sequence[Json]) -> Expected:
    meant = _meant(known, [purchase["id"] for purchase in purchases])
    return Expected(
        customer=_customer(group),
        period=_period(group),
        purchases=len(purchases),
        references=_references(purchases),
        amount=_money(sum(purchase["amount"] for purchase in purchases), group.currency),
        issued=issue_date(provider.billing.end_of(group)),
        told="; ".join(map(_forecast, meant)) or _UNKNOWN,
        differences=_differences(provider, meant),
    )


async def _invoiced(
    provider: Provider,
    bill: Bill,
    known: Sequence[Json],
    record: Callable[[str], Awaitable[dict[str, Any] | None]],
    mails: Callable[[str], Sequence[int]],
) -> Invoiced:
    record_id = f"{provider.account_id}.invoice.{bill.number}"
    own = await record(record_id) or {}
    meant = _meant(known, bill.transactions)
    return Invoiced(
        number=bill.number,
        customer=_customer(bill.group),
        period=_period(bill.group),
        purchases=len(bill.transactions),
        references=_references([provider.transactions[one] for one in bill.transactions]),
        amount=_money(bill.amount, bill.currency),
        issued=bill.issued,
        due=bill.due,
        record_id=record_id,
        outcome=str(own.get("outcome") or ""),
        reason=own.get("reason"),
        mails=tuple(mails(bill.number)),
        told=_comparison(provider, meant),
        differences=_differences(provider, meant),
    )


# --- what the service knows of it ------------------------------------------------------------------------------------


def _meant(known: Iterable[Json], ids: Iterable[str]) -> list[Json]:
    """Return the service's groups that have any of these purchases."""
    return [group for group in known if not set(ids).isdisjoint(group["purchases"])]


def _forecast(group: Json) -> str:
    """Say when the service expects what: by both rules where they differ."""
    issued, due = ([group[name], group[f"{name}_business_day"]] for name in ("issue_date", "due_date"))
    both = " (both rules)" if issued[0] != issued[1] else ""
    days = f"issued {_or(issued)}, due {_or(due)}{both}"
    return f"forecast {_money(group['amount'], group['currency'])}, {days}"


def _or(days: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(days))


def _comparison(provider: Provider, meant: Sequence[Json]) -> str:
    """Say what was forecast, and how it was billed; what is not on an invoice yet is not called as expected."""
    if not meant:
        return _UNKNOWN
    sums = " and ".join(_money(group["amount"], group["currency"]) for group in meant)
    waiting = [name for group in meant for name in group["purchases"] if name not in group["billed"]]
    if any(group["differences"] for group in meant):
        how = "billed otherwise than expected"
    elif waiting:
        how = f"not yet seen billed: {_references([provider.transactions[name] for name in waiting])}"
    else:
        how = "purchases and dates as expected"
    return f"forecast {sums}; {how}"


def _differences(provider: Provider, meant: Sequence[Json]) -> tuple[str, ...]:
    said = {name: words for group in meant for name, words in group["differences"].items()}
    return tuple(f"{_references([provider.transactions[name]])}: {words}" for name, words in said.items())


# --- in words --------------------------------------------------------------------------------------------------------


def _customer(group: Group) -> str:
    return ", ".join(filter(None, (group.business_name, group.customer_reference)))


def _period(group: Group) -> str:
    return f"{group.period:%B %Y}" if group.interval == "monthly" else f"the quarter from {group.period:%B %Y}"


def _references(purchases: Sequence[Json]) -> str:
    return ", ".join(str(purchase.get("merchant_reference") or purchase["id"]) for purchase in purchases)


def _money(amount: int, currency: str) -> str:
    return f"{in_units(amount, currency):,f} {currency}"
