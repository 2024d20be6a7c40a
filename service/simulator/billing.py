"""Grouped billing: which purchases make one invoice, when, and what may go otherwise than a merchant expects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from random import Random
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

from service.delivery import Clock
from service.simulator.deeds import Billed
from service.simulator.documents import Json, collection_begun
from service.simulator.faults import Faults
from service.simulator.invoices import Invoice, InvoiceLine, invoice_of

GROUPED = "kravia.invoice_b2b_grouped"

Interval = Literal["monthly", "quarterly"]
_MONTHS: dict[str, int] = {"monthly": 1, "quarterly": 3}
_SATURDAY = 5
_WEEK = 7
_FEE = 5_000  # minor units that a bill with another total is higher by
_DAYS_LATE = 5  # by which a bill with another date is dated later
_REST_AFTER = timedelta(hours=1)  # from the first purchase's metadata to the others'
_RENAMED = " Holding"


@dataclass(slots=True, kw_only=True)
class Terms:
    """What a payment was agreed on, kept for what comes later. `counted_at` decides its billing period."""

    product_type: str
    days_until_due: int
    channel: str
    interval: str
    counted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The purchases that one invoice is made of."""

    business_name: str
    organization_number: str
    country: str
    customer_reference: str
    interval: str
    currency: str  # empty when currencies are mixed
    period: date  # its first day
    alone: str = ""  # the id of a purchase that gets a number of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A consolidated invoice as it was made."""

    number: str
    url: str
    issued: date
    due: date
    amount: int  # in minor units, as printed
    currency: str
    group: Group
    transactions: tuple[str, ...]  # ids, in order of purchase


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """Metadata that a purchase does not show yet."""

    at: datetime
    transaction_id: str
    bill: Bill


class House(Protocol):
    """What billing needs of the provider that does it."""

    clock: Clock
    random: Random
    faults: Faults
    transactions: dict[str, Json]
    terms: dict[str, Terms]
    seller: str
    shows_channel: bool | None

    @property
    def account_id(self) -> str:
        """The account's id."""

    def next_number(self) -> str:
        """Return a new invoice's number."""

    def publish(self, invoice: Invoice, owner: str) -> str:
        """Draw an invoice, keep it, and return its URL."""

    def take_back(self, transaction: Json) -> None:
        """Void an authorisation."""

    def begin_collection(self, transaction: Json, body: Json) -> None:
        """Begin to collect."""


def period_of(at: datetime, interval: str, zone: ZoneInfo) -> tuple[date, date]:
    """Return the first day of a purchase's billing period and of the one after it."""
    day, months = at.astimezone(zone).date(), _MONTHS.get(interval, 1)
    first = date(day.year, (day.month - 1) // months * months + 1, 1)
    return first, _later(first, months)


def issue_date(after: date) -> date:
    """Return the day on which a period's invoices are made: the 1st after it, or the following Monday."""
    return after + timedelta(days=_WEEK - after.weekday()) if after.weekday() >= _SATURDAY else after


def _later(first: date, months: int) -> date:
    month = first.month - 1 + months
    return date(first.year + month // 12, month % 12 + 1, 1)


@dataclass(slots=True, kw_only=True)
class Billing:
    """The account's grouped bills. Everything public may be read and set by tests.

    `late`: what becomes of a purchase whose period was billed before it came: a number of its `own`, or the `next`
    invoice. With `by_itself` False nothing is billed but on `Provider.bill_due`.
    """

    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("Europe/Oslo"))
    late: Literal["own", "next"] = "own"
    by_itself: bool = True
    bills: list[Bill] = field(default_factory=list)
    _pending: list[_Pending] = field(default_factory=list)

    def counted(self, at: datetime, interval: str, now: datetime) -> datetime:
        """Return the time that decides the period of a purchase made `at` and known since `now`."""
        issued = issue_date(period_of(at, interval, self.zone)[1])
        return now if self.late == "next" and issued <= now.astimezone(self.zone).date() else at

    def run(self, house: House) -> list[Bill]:
        """Bill every group whose issue date has come, oldest period first, and return the bills."""
        self._show_pending(house)
        today, before = house.clock.now().astimezone(self.zone).date(), len(self.bills)
        while due := self.due(house.transactions, house.terms, today):
            for group, members in self._disturbed(house, self._together(house, due)).items():
                self._bill(house, group, members, today)
        return self.bills[before:]

    def due(
        self, transactions: Mapping[str, Json], terms: Mapping[str, Terms], today: date | None = None
    ) -> dict[Group, list[Json]]:
        """Return the unbilled purchases by group, oldest period first: those due `today`, or all."""
        billed = {transaction_id for bill in self.bills for transaction_id in bill.transactions}
        waiting = (t for t in transactions.values() if _unbilled(t, terms) and t["id"] not in billed)
        groups = self._sorted(waiting, terms)
        return {g: groups[g] for g in groups if today is None or issue_date(self.end_of(g)) <= today}

    def end_of(self, group: Group) -> date:
        """Return the first day after a group's period."""
        return _later(group.period, _MONTHS.get(group.interval, 1))

    def _sorted(self, purchases: Iterable[Json], terms: Mapping[str, Terms]) -> dict[Group, list[Json]]:
        groups: dict[Group, list[Json]] = {}
        for transaction in sorted(purchases, key=lambda t: (terms[t["id"]].counted_at, t["id"])):
            groups.setdefault(_group_of(transaction, terms[transaction["id"]], self.zone), []).append(transaction)
        return dict(sorted(groups.items(), key=lambda item: item[0].period))

    # --- what goes otherwise ------------------------------------------------------------------------------------------

    def _together(self, house: House, due: Mapping[Group, list[Json]]) -> dict[Group, list[Json]]:
        """Return the first due group alone, or with its other currencies under one number."""
        first = next(iter(due))
        mixed = replace(first, currency="")
        alike = [t for group, members in due.items() if replace(group, currency="") == mixed for t in members]
        if len(alike) > len(due[first]) and _asked(house, "mixed", alike):
            return {mixed: alike}
        return {first: due[first]}

    def _disturbed(self, house: House, due: Mapping[Group, list[Json]]) -> dict[Group, list[Json]]:
        """Return a group's purchases as they are to be billed, after what was asked for has happened to the newest."""
        ((group, purchases),) = due.items()
        newest = purchases[-1]
        if _asked(house, "void", purchases):
            house.take_back(newest)
        if _asked(house, "rename", purchases):
            _rename(newest)
        if _asked(house, "next", purchases):
            self._put_off(house.terms[newest["id"]])
        if _asked(house, "total", purchases):
            _raise(newest)
        alone = newest["id"] if len(purchases) > 1 and _asked(house, "own", purchases) else None
        groups: dict[Group, list[Json]] = {}
        for transaction in purchases:
            own = _group_of(transaction, house.terms[transaction["id"]], self.zone)
            if own.period == group.period and _unbilled(transaction, house.terms):
                currency = own.currency if group.currency else ""
                own = replace(own, currency=currency, alone=alone if transaction["id"] == alone else "")
                groups.setdefault(own, []).append(transaction)
        return groups

    def _put_off(self, terms: Terms) -> None:
        after = period_of(terms.counted_at, terms.interval, self.zone)[1]
        terms.counted_at = datetime(after.year, after.month, after.day, 12, tzinfo=self.zone)

    # --- a bill -------------------------------------------------------------------------------------------------------

    def _bill(self, house: House, group: Group, members: list[Json], today: date) -> Bill:
        issued = issue_date(self.end_of(group))
        if any(bill.group == group for bill in self.bills):
            issued = today  # the period has its invoice already: these came too late for it
        if _asked(house, "date", members):
            issued += timedelta(days=_DAYS_LATE)
        due = issued + timedelta(days=house.terms[members[-1]["id"]].days_until_due)
        number = house.next_number()
        invoice = consolidated(members, number, issued, due, seller=house.seller, account_id=house.account_id)
        bill = Bill(
            number=number,
            url=house.publish(invoice, members[0]["id"]),
            issued=issued,
            due=due,
            amount=invoice.amount,
            currency=invoice.currency,
            group=group,
            transactions=tuple(transaction["id"] for transaction in members),
        )
        first = 1 if _asked(house, "some", members) else len(members)
        for transaction in members[:first]:
            _show(house, transaction, bill)
        at = house.clock.now() + _REST_AFTER
        self._pending += [_Pending(at=at, transaction_id=t["id"], bill=bill) for t in members[first:]]
        self.bills.append(bill)
        return bill

    def _show_pending(self, house: House) -> None:
        now = house.clock.now()
        ripe = [pending for pending in self._pending if pending.at <= now]
        self._pending = [pending for pending in self._pending if pending.at > now]
        for pending in ripe:
            _show(house, house.transactions[pending.transaction_id], pending.bill)


def _show(house: House, transaction: Json, bill: Bill) -> None:
    """Put a bill's facts on a purchase; begin to collect if Kravia delivers it."""
    channel = house.terms[transaction["id"]].channel
    transaction["metadata"] |= {"kravia:invoice_number": bill.number, "kravia:invoice_url": bill.url}
    if house.shows_channel:
        transaction["metadata"]["kravia:invoice_channel"] = channel
    authorized = next(event for event in transaction["events"] if event["event"] == "AUTHORIZE")
    authorized["metadata"] = {
        **authorized.get("metadata", {}),
        "kravia:invoice_number": bill.number,
        "kravia:invoice_date": bill.issued.isoformat(),
        "kravia:invoice_due_date": bill.due.isoformat(),
    }
    if channel == "kravia" and transaction["status"] == "AUTHORIZED" and not collection_begun(transaction):
        house.begin_collection(transaction, {"amount": transaction["amount"]})


def _unbilled(transaction: Json, terms: Mapping[str, Terms]) -> bool:
    return (
        transaction["payment_product_type"] == GROUPED
        and transaction["id"] in terms
        and transaction["status"] in ("AUTHORIZED", "CAPTURED")
        and "kravia:invoice_number" not in transaction["metadata"]
    )


def _group_of(transaction: Json, terms: Terms, zone: ZoneInfo) -> Group:
    billing = transaction["billing_address"]

    def text(name: str) -> str:
        return str(billing.get(name) or "").strip()

    return Group(
        business_name=text("business_name"),
        organization_number=text("organization_number"),
        country=text("country").upper(),
        customer_reference=text("customer_reference"),
        interval=terms.interval,
        currency=transaction["currency"],
        period=period_of(terms.counted_at, terms.interval, zone)[0],
    )


def _asked(house: House, deed: str, purchases: list[Json]) -> bool:
    """Whether this is asked for, of these purchases; `where` may name one, their organisation or their reference."""
    billing = purchases[0]["billing_address"]
    words = [str(billing.get(name) or "") for name in ("organization_number", "customer_reference")]
    true = [*(t["id"] for t in purchases), *words]
    return house.faults.take(Billed, "billing", *true, fits=lambda billed: billed.deed == deed) is not None


def _rename(transaction: Json) -> None:
    billing = transaction["billing_address"]
    transaction["billing_address"] = billing | {"business_name": f"{billing.get('business_name', '')}{_RENAMED}"}


def _raise(transaction: Json) -> None:
    """Let a purchase be billed at another amount than it was made at; its lines still add up."""
    transaction["amount"] += _FEE
    if transaction["items"]:
        last = transaction["items"][-1]
        transaction["items"] = [*transaction["items"][:-1], last | {"amount": last["amount"] + _FEE}]


def consolidated(
    purchases: list[Json], number: str, issued: date, due: date, *, seller: str, account_id: str
) -> Invoice:
    """Return the invoice of several purchases: a line for each, and their total."""
    newest = purchases[-1]
    whole = newest | {"amount": sum(t["amount"] for t in purchases), "items": [], "vat_amount": None}
    invoice = invoice_of(whole, number, issued, due, seller=seller, account_id=account_id)
    lines = tuple(
        InvoiceLine(
            text=" · ".join(
                (
                    t.get("merchant_reference") or t["id"],
                    t["created_at"][:10],
                    *((t["currency"],) if t["currency"] != newest["currency"] else ()),
                )
            ),
            quantity=1,
            vat=None,
            amount=t["amount"],
        )
        for t in purchases
    )
    vats = [t.get("vat_amount") for t in purchases]
    known = [vat for vat in vats if vat is not None]
    return replace(
        invoice,
        lines=lines,
        reference=newest["billing_address"].get("customer_reference") or None,
        vat_amount=sum(known) if len(known) == len(vats) else None,
    )
