"""Groups of purchases: what is on the invoice to come, how it stands, and what of it was billed otherwise. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from service.delivery import NOT_BILLED, Member, Outcome, Purchase
from service.grouping import NEAR, Dates, Period, dates_of, local_midnight, period_of
from service.privacy import scrub
from service.purchases import OVERDUE_AFTER, billed_on, expected_between, period_bought_in

_SEEN_FOR = timedelta(hours=1)
"""How long an invoice is known before a purchase that is not on it is missed: the others are read meanwhile."""
_NO_DIGIT = re.compile(r"[^0-9]")
_NO_LETTER = re.compile(r"[\W_]")


class State(StrEnum):
    """How a group stands; in the order of its life."""

    OPEN = "open"  # the period has not ended
    EXPECTED = "expected"  # it has, and the invoice may come
    LATE = "late"  # it should have come two days ago
    BILLED = "billed"
    DELIVERED = "delivered"  # every purchase of it
    CAPTURED = "captured"  # likewise
    SKIPPED = "skipped"  # billed, and delivered by Kravia
    FAILED = "failed"  # a purchase of it needs a person
    VOIDED = "voided"  # every purchase of it


UNBILLED = frozenset({State.OPEN, State.EXPECTED, State.LATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """By which days groups are judged: this moment, in a zone, with a country's holidays (None: the customer's)."""

    now: datetime
    zone: ZoneInfo
    holiday_country: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Purchases that are expected on one invoice, the oldest first; those that were voided are among them.

    `near` are the ids of groups that look like the same customer and become other invoices; `changes` are the terms
    that changed within the period, in words.
    """

    id: str
    members: tuple[Member, ...]
    period: Period
    dates: Dates
    state: State
    near: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def key(self) -> Purchase:
        """A purchase that tells the customer: what is of the group is the same in each."""
        return self.members[-1].purchase

    @property
    def counted(self) -> tuple[Member, ...]:
        """Those that are to be billed, or were."""
        return tuple(member for member in self.members if member.counts)

    @property
    def total(self) -> int:
        """What they come to, in minor units of the group's currency."""
        return sum(member.purchase.amount for member in self.counted)

    @property
    def uncertain(self) -> int:
        """How many of them were bought so near to a boundary that they may be billed with the neighbouring period."""
        return sum(member.purchase.either_period for member in self.counted)

    @property
    def invoices(self) -> tuple[str, ...]:
        """The numbers of the invoices that they were billed with."""
        return tuple(sorted({number for one in self.counted if (number := one.purchase.invoice_number)}))


def groups_of(members: Iterable[Member], calendar: Calendar) -> tuple[Group, ...]:
    """Put each purchase into its group; by issue date, then by customer."""
    of: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        of[member.purchase.group].append(member)
    found = [_group(name, tuple(sorted(ones, key=_age)), calendar) for name, ones in of.items()]
    near, overlapping = _near_misses(found), _other_intervals(found)
    found = [
        replace(group, near=near.get(group.id, ()), changes=(*group.changes, *overlapping.get(group.id, ())))
        for group in found
    ]
    return tuple(sorted(found, key=lambda group: (group.dates.issue, _folded(group.key.business_name), group.id)))


def _age(member: Member) -> tuple[datetime, str]:
    return member.purchase.purchased_at, member.purchase.transaction_id


def _group(name: str, members: tuple[Member, ...], calendar: Calendar) -> Group:
    counted = [member for member in members if member.counts]
    newest = (counted or members)[-1].purchase
    return Group(
        id=name,
        members=members,
        period=period_bought_in(newest),
        dates=billed_on(newest, calendar.holiday_country),
        state=_state(counted, calendar),
        changes=_changed_days(counted),
    )


def _state(counted: Sequence[Member], calendar: Calendar) -> State:
    if not counted:
        return State.VOIDED
    deliveries = [member.delivery for member in counted]
    if any(delivery.outcome is Outcome.FAILED for delivery in deliveries):
        return State.FAILED
    if not any(member.purchase.invoice_id for member in counted):
        return _unbilled(counted, calendar)
    if not all(member.purchase.invoice_id for member in counted):
        return State.BILLED
    if all(delivery.outcome is Outcome.SKIPPED for delivery in deliveries):
        return State.SKIPPED
    if not all(delivery.delivered_at for delivery in deliveries):
        return State.BILLED
    return State.CAPTURED if all(delivery.captured_known_at for delivery in deliveries) else State.DELIVERED


def _unbilled(counted: Sequence[Member], calendar: Calendar) -> State:
    if any(_is_late(member.purchase, calendar) for member in counted):
        return State.LATE
    ends = local_midnight(period_bought_in(counted[0].purchase).following.start, calendar.zone)
    return State.OPEN if calendar.now < ends else State.EXPECTED


def _is_late(purchase: Purchase, calendar: Calendar) -> bool:
    _, last = expected_between(purchase, calendar.zone, calendar.holiday_country)
    return calendar.now >= local_midnight(last + OVERDUE_AFTER, calendar.zone)


def _changed_days(counted: Sequence[Member]) -> tuple[str, ...]:
    days = list(dict.fromkeys(member.purchase.days_until_due for member in counted))
    return (f"days_until_due changed within the period: {', then '.join(map(str, days))}",) if len(days) > 1 else ()


# --- what looks like one customer and becomes two invoices -----------------------------------------------------------


def _near_misses(groups: Iterable[Group]) -> dict[str, tuple[str, ...]]:
    """Return of each group those of its period and currency with the same digits, or a name that is only spelt so."""
    alike: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        key = group.key
        if group.state not in UNBILLED or group.members[-1].delivery.erased_at is not None:
            continue
        same = (key.account_id, key.interval, str(key.period_start), key.currency, _folded(key.customer_reference))
        digits, name = _NO_DIGIT.sub("", key.organization_number), _folded(key.business_name)
        for kind, text in (("digits", digits), ("name", name)):
            if text:
                alike[(*same, kind, text)].append(group)
    found: dict[str, set[str]] = defaultdict(set)
    for (*_, kind, _text), ones in alike.items():
        for group in ones:
            found[group.id] |= {
                other.id
                for other in ones
                if other.id != group.id and (kind == "digits" or other.key.business_name != group.key.business_name)
            }
    return {name: tuple(sorted(ids)) for name, ids in found.items() if ids}


def _folded(text: str) -> str:
    return _NO_LETTER.sub("", text).casefold()


def _other_intervals(groups: Iterable[Group]) -> dict[str, tuple[str, ...]]:
    """Return of each group that its customer has purchases of the same days that are billed by another interval."""
    of: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        key = group.key
        if group.state is not State.VOIDED and group.members[-1].delivery.erased_at is None:
            names = (key.business_name, key.organization_number, key.country, key.customer_reference, key.currency)
            of[(key.account_id, *names)].append(group)
    found: dict[str, tuple[str, ...]] = {}
    for ones in of.values():
        for group in ones:
            others = {o.period.label: o for o in ones if o.period.interval is not group.period.interval}
            over = sorted(label for label, o in others.items() if _overlap(o.period, group.period))
            if over:
                found[group.id] = (f"the interval changed within the period: some are billed with {', '.join(over)}",)
    return found


def _overlap(one: Period, other: Period) -> bool:
    return one.start <= other.end and other.start <= one.end


# --- what was billed, against what was expected ----------------------------------------------------------------------


def compared(members: Iterable[Member], calendar: Calendar) -> dict[str, str | None]:
    """Say of each purchase, by its transaction id, in what it was billed otherwise than expected; None: in nothing.

    The words name invoices and dates, and nobody. `members` are whole groups, and with them whole invoices. The
    provider tells no total of a consolidated invoice, so what is compared are the purchases on it.
    """
    counted = [member for member in members if member.counts]
    mains, homes = _mains(counted), _homes(counted)
    told: dict[str, str | None] = {}
    for member in counted:
        if member.purchase.invoice_id is None:
            words = _unbilled_words(member.purchase, homes.get(member.purchase.group), calendar)
        else:
            words = _billed_words(member.purchase, mains, homes, calendar)
        told[member.purchase.transaction_id] = "; ".join(words) or None
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class _Home:
    """The invoice that most of a group are on, and when the first of them was done with it."""

    number: str
    invoice_id: str
    since: datetime | None


def _homes(counted: Iterable[Member]) -> Mapping[str, _Home]:
    """Return for each group that was billed where most of it is."""
    of: dict[str, list[Member]] = defaultdict(list)
    for member in counted:
        if member.purchase.invoice_id is not None:
            of[member.purchase.group].append(member)
    found = {}
    for group, ones in of.items():
        numbers = Counter((one.purchase.invoice_id or "", one.purchase.invoice_number or "") for one in ones)
        (invoice_id, number), _ = min(numbers.items(), key=lambda item: (-item[1], item[0]))
        times = [at for one in ones if (at := one.delivery.delivered_at or one.delivery.closed_at) is not None]
        found[group] = _Home(number=number, invoice_id=invoice_id, since=min(times, default=None))
    return found


def _mains(counted: Iterable[Member]) -> Mapping[str, Purchase]:
    """Return for each invoice a purchase of the group that most of it belongs to; of equals, the newest."""
    of: dict[str, list[Purchase]] = defaultdict(list)
    for member in counted:
        if member.purchase.invoice_id is not None:
            of[member.purchase.invoice_id].append(member.purchase)
    found = {}
    for invoice_id, ones in of.items():
        sizes = Counter(one.group for one in ones)
        found[invoice_id] = max(ones, key=lambda one: (sizes[one.group], one.period_start, one.group))
    return found


def _unbilled_words(purchase: Purchase, home: _Home | None, calendar: Calendar) -> list[str]:
    since = home.since if home else None
    if home and since and not purchase.either_period and calendar.now - since >= _SEEN_FOR:
        return [f"missing: others of its group are on invoice {scrub(home.number)}"]
    if not _is_late(purchase, calendar):
        return []
    _, last = expected_between(purchase, calendar.zone, calendar.holiday_country)
    return [f"{NOT_BILLED}, and its invoice should have been issued on {last} at the latest"]


def _billed_words(
    purchase: Purchase, mains: Mapping[str, Purchase], homes: Mapping[str, _Home], calendar: Calendar
) -> list[str]:
    assert purchase.invoice_id is not None
    main, home = mains[purchase.invoice_id], homes[purchase.group]
    number = scrub(purchase.invoice_number or "")
    if main.group != purchase.group:
        if _same_customer(main, purchase) and purchase.either_period:
            return []  # so near to the end of a period, either will do
        what = f"with {period_bought_in(main).label}" if _same_customer(main, purchase) else "with another customer's"
        return [f"unknown on invoice {number}: billed {what}, expected with {period_bought_in(purchase).label}"]
    if home.invoice_id != purchase.invoice_id and not purchase.either_period:
        return [f"on invoice {number}, others of its group are on {scrub(home.number)}"]
    return _other_dates(purchase, calendar)


def _same_customer(one: Purchase, other: Purchase) -> bool:
    def told(purchase: Purchase) -> tuple[object, ...]:
        names = (purchase.business_name, purchase.organization_number, purchase.country, purchase.customer_reference)
        return (purchase.account_id, *names, purchase.interval, purchase.currency)

    return told(one) == told(other)


def _other_dates(purchase: Purchase, calendar: Calendar) -> list[str]:
    expected = _expected(purchase, calendar)
    issued = sorted({day for dates in expected for day in (dates.issue, dates.issue_business_day)})
    due = sorted({day for dates in expected for day in (dates.due, dates.due_business_day)})
    words = []
    if purchase.invoice_date is not None and purchase.invoice_date not in issued:
        words.append(f"invoice date {purchase.invoice_date}, expected {_or(issued)}")
        due.append(purchase.invoice_date + timedelta(days=purchase.days_until_due))  # a consequence, and no second
    if purchase.due_date is not None and purchase.due_date not in due:
        words.append(f"due on {purchase.due_date}, expected {_or(due)}")
    return words


def _expected(purchase: Purchase, calendar: Calendar) -> list[Dates]:
    """Return the dates of its period; of a purchase near to the end of one, those of both."""
    if not purchase.either_period:
        return [billed_on(purchase, calendar.holiday_country)]
    country = calendar.holiday_country or purchase.country
    periods = (period_of(purchase.purchased_at + lag, purchase.interval, calendar.zone) for lag in (-NEAR, NEAR))
    return [dates_of(period, days_until_due=purchase.days_until_due, country=country) for period in periods]


def _or(days: Iterable[date]) -> str:
    return " or ".join(map(str, days))


# --- what is to come -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """What is to be billed on a day, in one currency: how many invoices, of how many purchases, and the sum."""

    dates: Dates
    currency: str
    invoices: int
    purchases: int
    total: int


def forecast(groups: Iterable[Group]) -> tuple[Coming, ...]:
    """Add up what is not billed yet by issue date (both rules apart where they differ), then by currency."""
    of: dict[tuple[date, date, str], list[Group]] = defaultdict(list)
    for group in groups:
        if group.state in UNBILLED:
            of[(group.dates.issue, group.dates.issue_business_day, group.key.currency)].append(group)
    return tuple(
        Coming(
            dates=ones[0].dates,
            currency=currency,
            invoices=len(ones),
            purchases=sum(len(one.counted) for one in ones),
            total=sum(one.total for one in ones),
        )
        for (_, _, currency), ones in sorted(of.items())
    )


def totals(groups: Iterable[Group]) -> tuple[tuple[str, int], ...]:
    """Return what groups come to, by currency."""
    sums: Counter[str] = Counter()
    for group in groups:
        sums[group.key.currency] += group.total
    return tuple(sorted(sums.items()))


def remarks(group: Group, said: Mapping[str, str | None]) -> list[str]:
    """Return in what a group's purchases were billed otherwise than expected; `said` is what `compared` returned."""
    found = (said.get(member.purchase.transaction_id) for member in group.counted)
    return [words for words in found if words]
