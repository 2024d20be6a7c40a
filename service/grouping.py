"""When grouped purchases are billed: pure functions of a purchase's time, a time zone and a calendar of holidays."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from service.delivery import Interval

NEAR = timedelta(hours=3)
"""So near to the end of a period a purchase may be billed with the neighbouring one: Kravia's own zone is not known."""

_DAY = timedelta(days=1)
_SATURDAY = 5
_COUNTRY = re.compile(r"[A-Z]{2}")
_LABEL = re.compile(r"([0-9]{4})-(?:(0[1-9]|1[0-2])|Q([1-4]))")
_MONTHS = {Interval.MONTHLY: 1, Interval.QUARTERLY: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A month or a quarter whose purchases become one invoice; `end` is its last day."""

    interval: Interval
    start: date
    end: date

    @property
    def label(self) -> str:
        """Return what people call it: 2026-10, or 2026-Q4."""
        if self.interval is Interval.QUARTERLY:
            return f"{self.start.year:04}-Q{(self.start.month + 2) // 3}"
        return f"{self.start.year:04}-{self.start.month:02}"

    @property
    def following(self) -> "Period":
        """Return the period that begins on the day after."""
        return _holding(self.end + _DAY, self.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """When a period's invoice is issued and due, by both rules that Dintero's documents give.

    `issue` is the 1st, or the following Monday when that is a weekend; `issue_business_day` the first business day
    after the period. Each due date is so many calendar days later and is not moved from a weekend or holiday;
    `payable_until` is the first business day on or after `due`. Of the unlike pairs, the first is the one to show.
    `calendar` is the country whose public holidays were counted; None when they are not known, and then only
    weekends were.
    """

    issue: date
    issue_business_day: date
    due: date
    due_business_day: date
    payable_until: date
    calendar: str | None

    @property
    def earliest(self) -> date:
        """Return the day from which the invoice may be there."""
        return min(self.issue, self.issue_business_day)

    @property
    def latest(self) -> date:
        """Return the day on which the invoice should be there by either rule."""
        return max(self.issue, self.issue_business_day)

    @property
    def certain(self) -> bool:
        """Tell whether a customer may be promised these dates: both rules agree, by a calendar with its holidays."""
        return self.calendar is not None and self.issue == self.issue_business_day


def period_of(at: datetime, interval: Interval, zone: ZoneInfo) -> Period:
    """Return the period that a purchase of this moment (aware) belongs to, by the days of a time zone."""
    return _holding(at.astimezone(zone).date(), interval)


def period_labelled(label: str) -> Period:
    """Return the period of a label as in `Period.label`; ValueError for anything else."""
    found = _LABEL.fullmatch(label)
    if found is None or found[1] in ("0000", "9999"):
        raise ValueError("must be a month, such as 2026-10, or a quarter, such as 2026-Q4")
    year, month, quarter = found.groups()
    if quarter:
        return _holding(date(int(year), 3 * int(quarter), 1), Interval.QUARTERLY)
    return _holding(date(int(year), int(month), 1), Interval.MONTHLY)


def either_period(at: datetime, interval: Interval, zone: ZoneInfo) -> bool:
    """Tell whether a purchase is so near to the end of a period, on either side, that Kravia may see it in the other.

    What is billed with the neighbouring period is then no surprise, and raises no alarm.
    """
    return period_of(at - NEAR, interval, zone) != period_of(at + NEAR, interval, zone)


def dates_of(period: Period, *, days_until_due: int, country: str) -> Dates:
    """Return when a period is billed. `country` is that of the billing address, two letters, upper or lower case.

    The holidays are the public ones. Of a country that is not known (none is given, or nobody has its holidays) only
    the weekends count, and `calendar` is None; that is no error, for an invoice will be issued all the same.
    """
    calendar = country.strip().upper()
    first = period.end + _DAY
    issue = first
    while issue.weekday() >= _SATURDAY:
        issue += _DAY
    business = _business_day(first, calendar)
    due = issue + timedelta(days=days_until_due)
    return Dates(
        issue=issue,
        issue_business_day=business,
        due=due,
        due_business_day=business + timedelta(days=days_until_due),
        payable_until=_business_day(due, calendar),
        calendar=None if _public_holidays(calendar, first.year) is None else calendar,
    )


def local_midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the moment, in UTC, when a day begins in a zone: where clocks skip midnight, that of the change."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _holding(day: date, interval: Interval) -> Period:
    months = _MONTHS[interval]
    start = date(day.year, (day.month - 1) // months * months + 1, 1)
    last_month = date(start.year, start.month + months - 1, 1)
    end = (last_month + 31 * _DAY).replace(day=1) - _DAY
    return Period(interval=interval, start=start, end=end)


def _business_day(day: date, calendar: str) -> date:
    """Return the day itself, or the next that is neither of a weekend nor a public holiday."""
    while day.weekday() >= _SATURDAY or day in (_public_holidays(calendar, day.year) or ()):
        day += _DAY
    return day


@lru_cache(maxsize=256)
def _public_holidays(country: str, year: int) -> frozenset[date] | None:
    """Return a year's public holidays, other than Sundays as such; None of a country that the library does not have."""
    if not _COUNTRY.fullmatch(country):  # the library would take other names of its own, such as those of exchanges
        return None
    from holidays import country_holidays  # noqa: PLC0415  # slow to import

    try:
        found = country_holidays(country, years=year)
    except NotImplementedError:
        return None
    return frozenset(found)
