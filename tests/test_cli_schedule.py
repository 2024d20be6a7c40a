"""`schedule`, run as a command: dates for people and for programs, and kind words for what cannot be read."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run
from tests.test_cli import quickest

JANUARY = ("--interval", "monthly", "--purchased", "2026-01-05")


def told(*arguments: str) -> Any:
    done = run("schedule", *arguments, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_json_has_these_keys() -> None:
    assert told(*JANUARY) == {
        "interval": "monthly",
        "period": "2026-01",
        "period_start": "2026-01-01",
        "period_end": "2026-01-31",
        "either_period": False,
        "issue_date": "2026-02-02",
        "due_date": "2026-02-16",
        "issue_date_business_day": "2026-02-02",
        "due_date_business_day": "2026-02-16",
        "payable_until": "2026-02-16",
        "certain": True,
        "holidays": "NO",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--interval quarterly --purchased 2027-02-20", ("2027-04-01", "2027-04-15", "2027-04-01", "2027-04-15")),
        ("--interval quarterly --purchased 2027-04-10", ("2027-07-01", "2027-07-15", "2027-07-01", "2027-07-15")),
        ("--interval monthly --purchased 2026-12-10", ("2027-01-01", "2027-01-15", "2027-01-04", "2027-01-18")),
        ("--interval monthly --purchased 2021-03-10", ("2021-04-01", "2021-04-15", "2021-04-06", "2021-04-20")),
        (
            "--interval monthly --purchased 2021-03-10 --country se",
            ("2021-04-01", "2021-04-15", "2021-04-01", "2021-04-15"),
        ),
        (
            "--interval monthly --purchased 2029-03-10 --days-until-due 0",
            ("2029-04-02", "2029-04-02", "2029-04-03", "2029-04-03"),
        ),
        (
            "--interval monthly --purchased 2029-03-10 --days-until-due 365",
            ("2029-04-02", "2030-04-02", "2029-04-03", "2030-04-03"),
        ),
    ],
)
def test_options_reach_the_dates(arguments: str, expected: tuple[str, ...]) -> None:
    found = told(*arguments.split())
    keys = ("issue_date", "due_date", "issue_date_business_day", "due_date_business_day")
    assert tuple(found[key] for key in keys) == expected
    assert found["certain"] is (expected[0] == expected[2])


@pytest.mark.parametrize(
    ("more", "period", "either"),
    [
        ("2026-01-31T12:00", "2026-01", False),
        ("2026-01-31T23:30", "2026-01", True),  # of the zone, which is Oslo unless told
        ("2026-01-31T23:30Z", "2026-02", True),
        ("2026-01-31T23:30+00:00 --timezone UTC", "2026-01", True),
        ("2026-02-01T00:30+01:00 --timezone America/New_York", "2026-01", False),
        ("2026-01-31 --timezone Asia/Tokyo", "2026-01", None),  # a date is a day of the zone, and its hour is not known
        ("2026-02-01", "2026-02", None),
        ("2026-01-30", "2026-01", False),
        ("2026-02-02", "2026-02", False),
    ],
)
def test_times_and_zones(more: str, period: str, either: bool | None) -> None:
    found = told("--interval", "monthly", "--purchased", *more.split())
    assert (found["period"], found["either_period"]) == (period, either)


def test_table_shows_both_rules_and_says_where_they_agree() -> None:
    done = run("schedule", *JANUARY)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Billed with 2026-01: Thu 2026-01-01 to Sat 2026-01-31.",
        "",
        "               1ST OR MONDAY   FIRST BUSINESS DAY",
        "issued         Mon 2026-02-02  Mon 2026-02-02",
        "due            Mon 2026-02-16  Mon 2026-02-16",
        "payable until  Mon 2026-02-16",
    ]


def test_table_warns_where_no_date_can_be_promised() -> None:
    shown = run("schedule", "--interval", "monthly", "--purchased", "2026-12-31T22:30").stdout
    assert "issued         Fri 2027-01-01  Mon 2027-01-04\n" in shown
    assert "promise your customer neither date" in shown
    assert "It was bought within three hours" in shown
    only_a_day = run("schedule", "--interval", "monthly", "--purchased", "2026-01-31").stdout
    assert "Bought within three hours" in only_a_day
    assert "promise" not in only_a_day


def test_country_without_known_holidays_is_said_and_not_refused() -> None:
    done = run("schedule", "--interval", "monthly", "--purchased", "2026-12-10", "--country", "zz", "--json")
    assert done.exit_code == 0
    assert done.stderr == "The public holidays of ZZ are not known: only weekends are counted.\n"
    found = json.loads(done.stdout)
    assert (found["issue_date_business_day"], found["certain"], found["holidays"]) == ("2027-01-01", False, None)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "Missing option"),
        (("--purchased", "2026-01-05"), "--interval"),
        (("--interval", "monthly"), "--purchased"),
        (("--interval", "weekly", "--purchased", "2026-01-05"), "'monthly', 'quarterly'"),
        (("--interval", "monthly", "--purchased", "yesterday"), "neither a date (2026-01-05) nor a time"),
        (("--interval", "monthly", "--purchased", "2026-02-30"), "neither a date"),
        (("--interval", "monthly", "--purchased", ""), "neither a date"),
        (("--interval", "monthly", "--purchased", "0001-01-01"), "from 2000 to 2099"),
        (("--interval", "monthly", "--purchased", "9999-12-31T23:59-12:00"), "from 2000 to 2099"),
        ((*JANUARY, "--days-until-due", "366"), "0<=x<=365"),
        ((*JANUARY, "--days-until-due", "-1"), "0<=x<=365"),
        ((*JANUARY, "--days-until-due", "two"), "'two'"),
        ((*JANUARY, "--country", "Norway"), "two letters of a country"),
        ((*JANUARY, "--country", ""), "two letters of a country"),
        ((*JANUARY, "--country", "ÅØ"), "two letters of a country"),
        ((*JANUARY, "--timezone", "Europe"), "not a time zone, such as Europe/Oslo"),
        ((*JANUARY, "--timezone", "Mars/Olympus"), "not a time zone, such as Europe/Oslo"),
        ((*JANUARY, "--timezone", ""), "not a time zone, such as Europe/Oslo"),
        ((*JANUARY, "--timezone", "../etc/passwd"), "not a time zone, such as Europe/Oslo"),
    ],
)
def test_rubbish_is_refused_kindly(arguments: tuple[str, ...], word: str) -> None:
    done = run("schedule", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert word in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("year", [2000, 2099])
def test_ends_of_the_years_that_are_taken(year: int) -> None:
    for moment in (f"{year}-01-01T00:00+14:00", f"{year}-12-31T23:59-12:00"):
        assert told("--interval", "quarterly", "--purchased", moment, "--days-until-due", "365")["holidays"] == "NO"


def test_settings_are_not_read(tmp_path: Path) -> None:
    """Wrong ones would be reported, and a zone of one's own would count."""
    (tmp_path / ".env").write_text("DELIVERY_RUBBISH=1\nDELIVERY_TIMEZONE=Mars/Olympus\n")
    repository = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "service", "schedule", *JANUARY, "--json"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": repository,
            "DELIVERY_TIMEZONE": "nowhere",
            "DELIVERY_DATABASE_URL": "rubbish",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["issue_date"] == "2026-02-02"
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_it_is_quick(tmp_path: Path) -> None:
    assert quickest(tmp_path, "schedule", *JANUARY) < 1.0
