"""When grouped purchases are billed: the documents' own tables, and what holds for any purchase, zone and calendar."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from holidays import country_holidays
from hypothesis import example, given
from hypothesis import strategies as st

from service.delivery import Interval
from service.grouping import (
    NEAR,
    Dates,
    Period,
    dates_of,
    either_period,
    local_midnight,
    period_labelled,
    period_of,
)

OSLO = ZoneInfo("Europe/Oslo")
MONTHLY, QUARTERLY = Interval.MONTHLY, Interval.QUARTERLY
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)

# The Nordic ones, UTC, far ones on both sides, and some whose clocks skip or repeat midnight.
ZONES = [
    *("Europe/Oslo", "Europe/Stockholm", "Europe/Helsinki", "Europe/Copenhagen", "Atlantic/Reykjavik", "UTC"),
    *("Pacific/Kiritimati", "Pacific/Niue", "America/Santiago", "Africa/Cairo", "Asia/Beirut", "America/Havana"),
    "Pacific/Apia",
]
FIRST, LAST = datetime(2000, 1, 2), datetime(2099, 12, 30)  # noqa: DTZ001 - the zone is told apart
MOMENTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC))
EACH_INTERVAL = st.sampled_from(Interval)
EACH_ZONE = st.sampled_from([ZoneInfo(name) for name in ZONES])
EACH_COUNTRY = st.sampled_from(["NO", "SE", "FI", "DK", "no", "ZZ", ""])
EACH_DUE = st.integers(min_value=0, max_value=365)


def day(text: str) -> date:
    return date.fromisoformat(text)


def at(text: str, zone: ZoneInfo = OSLO) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


def billed(purchased: str, interval: Interval, *, country: str = "NO", days_until_due: int = 14) -> Dates:
    """Return when what was bought at noon of a day is billed."""
    period = period_of(at(f"{purchased}T12:00"), interval, OSLO)
    return dates_of(period, days_until_due=days_until_due, country=country)


# --- the documents' tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "purchased", "issued", "due"),
    [
        (MONTHLY, "2027-01-05", "2027-02-01", "2027-02-15"),
        (MONTHLY, "2027-01-20", "2027-02-01", "2027-02-15"),
        (MONTHLY, "2027-02-15", "2027-03-01", "2027-03-15"),
        (QUARTERLY, "2027-01-15", "2027-04-01", "2027-04-15"),
        (QUARTERLY, "2027-02-20", "2027-04-01", "2027-04-15"),
        (QUARTERLY, "2027-04-10", "2027-07-01", "2027-07-15"),
        (MONTHLY, "2026-01-05", "2026-02-02", "2026-02-16"),
        (MONTHLY, "2026-01-20", "2026-02-02", "2026-02-16"),
    ],
)
def test_tables_of_the_documents_fit_both_rules(interval: Interval, purchased: str, issued: str, due: str) -> None:
    found = billed(purchased, interval)
    assert (found.issue, found.due) == (day(issued), day(due))
    assert (found.issue_business_day, found.due_business_day) == (found.issue, found.due)
    assert found.certain
    assert found.payable_until == found.due


@pytest.mark.parametrize(
    ("purchased", "country", "issue", "business_day"),
    [
        ("2026-12-15", "NO", "2027-01-01", "2027-01-04"),
        ("2021-03-15", "NO", "2021-04-01", "2021-04-06"),  # Maundy Thursday, Good Friday, Easter Monday
        ("2021-03-15", "SE", "2021-04-01", "2021-04-01"),
        ("2021-03-15", "FI", "2021-04-01", "2021-04-01"),
        ("2024-03-15", "NO", "2024-04-01", "2024-04-02"),
        ("2024-03-15", "SE", "2024-04-01", "2024-04-02"),
        ("2029-03-15", "NO", "2029-04-02", "2029-04-03"),  # a Sunday, then Easter Monday
        ("2029-03-15", "FI", "2029-04-02", "2029-04-03"),
        ("2026-04-15", "NO", "2026-05-01", "2026-05-04"),
        ("2026-04-15", "SE", "2026-05-01", "2026-05-04"),
        ("2026-04-15", "FI", "2026-05-01", "2026-05-04"),
        ("2026-04-15", "DK", "2026-05-01", "2026-05-01"),  # no public holiday there
        ("2022-12-15", "NO", "2023-01-02", "2023-01-02"),  # the 1st is a Sunday
        ("2027-12-15", "NO", "2028-01-03", "2028-01-03"),  # and a Saturday
    ],
)
def test_where_the_two_rules_differ_both_are_there(purchased: str, country: str, issue: str, business_day: str) -> None:
    found = billed(purchased, MONTHLY, country=country)
    assert (found.issue, found.issue_business_day) == (day(issue), day(business_day))
    assert (found.due, found.due_business_day) == (found.issue + 14 * DAY, found.issue_business_day + 14 * DAY)
    assert (found.earliest, found.latest) == (day(issue), day(business_day))
    assert found.certain is (issue == business_day)
    assert found.calendar == country


def test_they_differ_in_one_month_of_seven_or_eight() -> None:
    months = [(year, month) for year in range(2000, 2050) for month in range(1, 13)]
    found = [billed(f"{year}-{month:02}-15", MONTHLY) for year, month in months]
    uncertain = [dates for dates in found if not dates.certain]
    assert 7 <= round(len(months) / len(uncertain)) <= 8
    by_month = {month: sum(dates.issue.month == month for dates in uncertain) for month in range(1, 13)}
    weekdays = {month: sum(date(year, month, 1).weekday() < 5 for year in range(2000, 2050)) for month in (1, 5)}
    assert by_month[5] == weekdays[5]
    assert by_month[1] == sum(date(year + 1, 1, 1).weekday() < 5 for year in range(2000, 2050))
    assert {month for month, times in by_month.items() if times} == {1, 4, 5, 6}  # Easter, and once Whit Monday


# --- due dates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purchased", "days_until_due", "country", "due", "payable_until"),
    [
        ("2027-01-05", 0, "NO", "2027-02-01", "2027-02-01"),
        ("2027-01-05", 12, "NO", "2027-02-13", "2027-02-15"),  # a Saturday
        ("2027-02-15", 24, "NO", "2027-03-25", "2027-03-30"),  # Maundy Thursday, to Easter Monday
        ("2027-02-15", 24, "SE", "2027-03-25", "2027-03-25"),
        ("2027-02-15", 25, "SE", "2027-03-26", "2027-03-30"),  # Good Friday
        ("2026-11-15", 31, "NO", "2027-01-01", "2027-01-04"),  # a holiday of the year after
        ("2027-01-05", 365, "NO", "2028-02-01", "2028-02-01"),
    ],
)
def test_due_date_is_not_moved_and_payable_until_is(
    purchased: str, days_until_due: int, country: str, due: str, payable_until: str
) -> None:
    found = billed(purchased, MONTHLY, country=country, days_until_due=days_until_due)
    assert (found.due, found.payable_until) == (day(due), day(payable_until))


# --- calendars -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("country", ["NO", "SE", "FI", "DK"])
def test_calendars_of_the_countries_are_there_and_sundays_are_no_holidays(country: str) -> None:
    assert billed("2026-12-15", MONTHLY, country=country).issue_business_day == date(2027, 1, 4)
    holidays = country_holidays(country, years=2026)
    assert date(2026, 12, 25) in holidays
    assert date(2026, 11, 22) not in holidays  # a Sunday like another: they are counted as weekends, once


@pytest.mark.parametrize("country", ["no", " NO ", "No"])
def test_country_is_taken_as_people_write_it(country: str) -> None:
    assert billed("2026-12-15", MONTHLY, country=country) == billed("2026-12-15", MONTHLY)


@pytest.mark.parametrize("country", ["", "ZZ", "Norway", "NYSE", "ECB", "__", "NO\n2"])
def test_unknown_country_has_weekends_only_and_no_promise(country: str) -> None:
    found = billed("2026-12-15", MONTHLY, country=country)
    assert found.calendar is None
    assert found.issue_business_day == found.issue == date(2027, 1, 1)
    assert not found.certain
    over_a_weekend = billed("2026-01-05", MONTHLY, country=country, days_until_due=12)
    assert over_a_weekend.issue_business_day == date(2026, 2, 2)
    assert (over_a_weekend.due, over_a_weekend.payable_until) == (date(2026, 2, 14), date(2026, 2, 16))


# --- periods ---------------------------------------------------------------------------------------------------------


def test_period_is_that_of_the_zone() -> None:
    late = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    assert period_of(late, MONTHLY, OSLO).label == "2026-02"
    assert period_of(late, MONTHLY, ZoneInfo("UTC")).label == "2026-01"
    assert period_of(at("2026-03-31T23:59"), QUARTERLY, OSLO).label == "2026-Q1"
    assert period_of(at("2026-04-01T00:00"), QUARTERLY, OSLO).label == "2026-Q2"


def test_period_has_its_last_day() -> None:
    assert period_of(at("2028-02-29T12:00"), MONTHLY, OSLO) == Period(
        interval=MONTHLY, start=date(2028, 2, 1), end=date(2028, 2, 29)
    )
    assert period_of(at("2026-11-22T12:00"), QUARTERLY, OSLO) == Period(
        interval=QUARTERLY, start=date(2026, 10, 1), end=date(2026, 12, 31)
    )


@pytest.mark.parametrize("label", ["2026-01", "2026-12", "2026-Q1", "2026-Q4", "0001-Q1", "9998-12"])
def test_label_names_its_period(label: str) -> None:
    assert period_labelled(label).label == label


@pytest.mark.parametrize(
    "label", ["", "2026", "2026-0", "2026-00", "2026-13", "2026-Q0", "2026-Q5", "2026-q1", "٢٠٢٦-01", "2026-01\n"]
)
def test_what_is_no_label_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="such as 2026-10"):
        period_labelled(label)


@pytest.mark.parametrize("label", ["0000-01", "9999-12", "9999-Q4"])
def test_label_at_the_end_of_the_calendar_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="such as 2026-10"):
        period_labelled(label)


@pytest.mark.parametrize(
    ("moment", "interval", "expected"),
    [
        ("2026-01-31T20:59:59", MONTHLY, False),
        ("2026-01-31T21:00:00", MONTHLY, True),
        ("2026-01-31T23:59:59", MONTHLY, True),
        ("2026-02-01T00:00:00", MONTHLY, True),
        ("2026-02-01T02:59:59", MONTHLY, True),
        ("2026-02-01T03:00:00", MONTHLY, False),
        ("2026-02-01T00:00:00", QUARTERLY, False),
        ("2026-03-31T22:00:00", QUARTERLY, True),
        ("2026-01-15T00:00:00", MONTHLY, False),
    ],
)
def test_three_hours_on_either_side_are_either_period(moment: str, interval: Interval, expected: bool) -> None:
    assert either_period(at(moment), interval, OSLO) is expected


def test_three_hours_are_hours_that_passed_where_clocks_change() -> None:
    """In Beirut the clocks skipped midnight on 2018-03-25, and in Havana 01:00 was 00:00 again on 2026-11-01."""
    havana = ZoneInfo("America/Havana")
    boundary = local_midnight(date(2026, 11, 1), havana)
    assert boundary == datetime(2026, 11, 1, 4, tzinfo=UTC)
    assert either_period(boundary + NEAR - MICROSECOND, MONTHLY, havana)
    assert (boundary + NEAR).astimezone(havana).hour == 2  # by the clock on the wall only two
    assert not either_period(boundary + NEAR, MONTHLY, havana)
    beirut = ZoneInfo("Asia/Beirut")
    assert local_midnight(date(2018, 3, 25), beirut) == datetime(2018, 3, 24, 22, tzinfo=UTC)


def test_midnight_is_that_of_summer_or_winter() -> None:
    assert local_midnight(date(2026, 1, 1), OSLO) == datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert local_midnight(date(2026, 7, 1), OSLO) == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert local_midnight(date(2026, 3, 30), OSLO) - local_midnight(date(2026, 3, 29), OSLO) == timedelta(hours=23)
    assert local_midnight(date(2026, 7, 1), OSLO).tzinfo is UTC


# --- for any purchase ------------------------------------------------------------------------------------------------


@given(moment=MOMENTS, interval=EACH_INTERVAL, zone=EACH_ZONE)
@example(moment=at("2026-03-29T03:00"), interval=MONTHLY, zone=OSLO)
@example(moment=at("2026-10-25T02:30"), interval=QUARTERLY, zone=OSLO)
def test_every_purchase_is_in_exactly_one_period(moment: datetime, interval: Interval, zone: ZoneInfo) -> None:
    period = period_of(moment, interval, zone)
    assert local_midnight(period.start, zone) <= moment < local_midnight(period.end + DAY, zone)
    assert period.start.day == 1
    assert (period.start.year, period.start.month) in {
        (moment.astimezone(zone).year, moment.astimezone(zone).month - back) for back in range(3)
    }
    assert period_labelled(period.label) == period
    before = period_of(local_midnight(period.start, zone) - MICROSECOND, interval, zone)
    assert before.end + DAY == period.start  # nothing between them, and nothing twice
    assert before.following == period
    assert period.end.month - period.start.month + 1 == {MONTHLY: 1, QUARTERLY: 3}[interval]


@given(moment=MOMENTS, zone=EACH_ZONE)
def test_a_month_lies_in_one_quarter(moment: datetime, zone: ZoneInfo) -> None:
    month, quarter = (period_of(moment, interval, zone) for interval in (MONTHLY, QUARTERLY))
    assert quarter.start <= month.start <= month.end <= quarter.end


@given(moments=st.lists(MOMENTS, min_size=1), interval=EACH_INTERVAL, zone=EACH_ZONE)
def test_periods_of_any_purchases_do_not_overlap_and_keep_their_order(
    moments: list[datetime], interval: Interval, zone: ZoneInfo
) -> None:
    periods = [period_of(moment, interval, zone) for moment in sorted(moments)]
    for earlier, later in pairwise(periods):
        assert earlier == later or earlier.end < later.start


@given(moment=MOMENTS, interval=EACH_INTERVAL, zone=EACH_ZONE, days=EACH_DUE, country=EACH_COUNTRY)
def test_dates_hold_for_any_purchase(
    moment: datetime, interval: Interval, zone: ZoneInfo, days: int, country: str
) -> None:
    period = period_of(moment, interval, zone)
    found = dates_of(period, days_until_due=days, country=country)
    holidays = country_holidays(country.upper()) if country not in ("ZZ", "") else ()
    assert (found.calendar is None) == (country in ("ZZ", ""))
    first = period.end + DAY
    assert first <= found.issue <= first + 2 * DAY
    assert found.issue == first or first.weekday() >= 5
    assert found.earliest == found.issue <= found.issue_business_day == found.latest
    assert local_midnight(found.earliest, zone) > moment
    for issued in (found.issue, found.issue_business_day, found.payable_until):
        assert issued.weekday() < 5
    for business_day, since in ((found.issue_business_day, first), (found.payable_until, found.due)):
        assert business_day not in holidays
        skipped = [since + n * DAY for n in range((business_day - since).days)]
        assert all(one.weekday() >= 5 or one in holidays for one in skipped)  # the first one there is
    assert found.due - found.issue == found.due_business_day - found.issue_business_day == timedelta(days=days)
    assert found.certain == (found.calendar is not None and found.issue == found.issue_business_day)


@given(moment=MOMENTS, interval=EACH_INTERVAL, zone=EACH_ZONE, days=EACH_DUE, country=EACH_COUNTRY)
def test_only_the_period_decides_the_dates(
    moment: datetime, interval: Interval, zone: ZoneInfo, days: int, country: str
) -> None:
    """Any two purchases of a period are billed and due on the same days."""
    period = period_of(moment, interval, zone)
    last = local_midnight(period.end + DAY, zone) - MICROSECOND
    dates = [
        dates_of(period_of(one, interval, zone), days_until_due=days, country=country)
        for one in (local_midnight(period.start, zone), moment, last)
    ]
    assert dates[0] == dates[1] == dates[2]


@st.composite
def near_a_boundary(draw: st.DrawFn) -> tuple[datetime, Interval, ZoneInfo]:
    interval, zone = draw(EACH_INTERVAL), draw(EACH_ZONE)
    boundary = local_midnight(period_of(draw(MOMENTS), interval, zone).end + DAY, zone)
    off = st.timedeltas(min_value=-timedelta(hours=6), max_value=timedelta(hours=6))
    return (
        boundary + draw(off | st.sampled_from([-NEAR, -NEAR - MICROSECOND, NEAR, NEAR - MICROSECOND])),
        interval,
        zone,
    )


@given(case=near_a_boundary() | st.tuples(MOMENTS, EACH_INTERVAL, EACH_ZONE))
def test_either_period_is_what_three_hours_can_move(case: tuple[datetime, Interval, ZoneInfo]) -> None:
    moment, interval, zone = case
    period = period_of(moment, interval, zone)
    boundaries = (local_midnight(period.start, zone), local_midnight(period.end + DAY, zone))
    expected = moment - boundaries[0] < NEAR or boundaries[1] - moment <= NEAR
    assert either_period(moment, interval, zone) is expected
    moved = {period_of(moment + sign * NEAR, interval, zone) for sign in (-1, 0, 1)}
    assert expected is (len(moved) > 1)
