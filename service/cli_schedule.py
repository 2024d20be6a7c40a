"""`schedule`: when a grouped purchase is billed and due, by the calendar alone."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from service.cli_frame import print_json, width
from service.delivery import Interval

if TYPE_CHECKING:
    from service.grouping import Dates, Period

_YEARS = range(2000, 2100)
_DIFFER = "Dintero's documents give both rules, and here they differ: promise your customer neither date."
_NEAR = "It was bought within three hours of the end of a period: Kravia may bill it with the neighbouring one."
_NEAR_PERHAPS = "Bought within three hours of the end of a period, it may be billed with the neighbouring one."
_INTERVALS = click.Choice([interval.value for interval in Interval])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Purchase:
    """When something was bought: on a day, or at a moment; without an offset both are of the zone that is asked for."""

    at: datetime
    whole_day: bool


def _purchase(_context: click.Context, _parameter: click.Parameter, value: str) -> _Purchase:
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a date (2026-01-05) nor a time (2026-01-05T10:00+01:00)"
        ) from None
    if at.year not in _YEARS:
        raise click.BadParameter(f"the year must be from {_YEARS[0]} to {_YEARS[-1]}")
    return _Purchase(at=at, whole_day=_is_date(value))


def _is_date(value: str) -> bool:
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _zone(_context: click.Context, _parameter: click.Parameter, value: str) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder, as in "Europe"
        raise click.BadParameter(f"{value!r} is not a time zone, such as Europe/Oslo") from None


def _country(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    country = value.strip().upper()
    if len(country) != 2 or not (country.isascii() and country.isalpha()):  # noqa: PLR2004
        raise click.BadParameter("must be the two letters of a country, such as NO, SE, FI or DK")
    return country


@click.command()
@click.option("--interval", required=True, type=_INTERVALS, help="How long purchases gather for one invoice.")
@click.option(
    "--purchased", required=True, metavar="TIME", callback=_purchase, help="When: a date, or a date with a time."
)
@click.option(
    "--days-until-due",
    default=14,
    show_default=True,
    type=click.IntRange(0, 365),
    metavar="DAYS",
    help="From issue to due date.",
)
@click.option("--country", default="NO", show_default=True, callback=_country, help="Whose public holidays count.")
@click.option(
    "--timezone",
    "zone",
    default="Europe/Oslo",
    show_default=True,
    callback=_zone,
    metavar="ZONE",
    help="Whose days and months they are.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def schedule(
    *, interval: str, purchased: _Purchase, days_until_due: int, country: str, zone: ZoneInfo, as_json: bool
) -> None:
    """Say when a grouped purchase is billed and due.

    By both rules that Dintero's documents give for the issue date: the 1st, or the following Monday when it is a
    weekend; and the first business day after the period. No settings are read.
    """
    from service.grouping import dates_of, period_of  # noqa: PLC0415

    at = purchased.at if purchased.at.tzinfo else purchased.at.replace(tzinfo=zone)
    period = period_of(at, Interval(interval), zone)
    dates = dates_of(period, days_until_due=days_until_due, country=country)
    either = _either(at, period, zone, whole_day=purchased.whole_day)
    if dates.calendar is None:
        click.echo(f"The public holidays of {country} are not known: only weekends are counted.", err=True)
    if as_json:
        print_json(_json(period, dates, either=either))
    else:
        click.echo(_shown(period, dates, either=either))


def _either(at: datetime, period: "Period", zone: ZoneInfo, *, whole_day: bool) -> bool | None:
    """Tell whether it may be billed with the neighbouring period; None when it depends on the time of the day."""
    from service.grouping import either_period, local_midnight  # noqa: PLC0415

    if not whole_day:
        return either_period(at, period.interval, zone)
    midnights = (local_midnight(at.date() + timedelta(days=days), zone) for days in (0, 1))
    return None if any(either_period(moment, period.interval, zone) for moment in midnights) else False


def _json(period: "Period", dates: "Dates", *, either: bool | None) -> dict[str, Any]:
    return {
        "interval": period.interval.value,
        "period": period.label,
        "period_start": period.start.isoformat(),
        "period_end": period.end.isoformat(),
        "either_period": either,
        "issue_date": dates.issue.isoformat(),
        "due_date": dates.due.isoformat(),
        "issue_date_business_day": dates.issue_business_day.isoformat(),
        "due_date_business_day": dates.due_business_day.isoformat(),
        "payable_until": dates.payable_until.isoformat(),
        "certain": dates.certain,
        "holidays": dates.calendar,
    }


def _shown(period: "Period", dates: "Dates", *, either: bool | None) -> str:
    from service.terminal import table  # noqa: PLC0415

    rows = [
        ("issued", _day(dates.issue), _day(dates.issue_business_day)),
        ("due", _day(dates.due), _day(dates.due_business_day)),
        ("payable until", _day(dates.payable_until), ""),
    ]
    lines = [
        f"Billed with {period.label}: {_day(period.start)} to {_day(period.end)}.",
        "",
        table(("", "1ST OR MONDAY", "FIRST BUSINESS DAY"), rows, width=width()),
    ]
    if dates.issue != dates.issue_business_day:
        lines += ["", _DIFFER]
    if either is not False:
        lines += ["", _NEAR if either else _NEAR_PERHAPS]
    return "\n".join(lines)


def _day(day: date) -> str:
    return f"{day:%a} {day.isoformat()}"
