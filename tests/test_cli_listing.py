"""`deliveries list`: what is shown, narrowed and paged."""

import json
import shlex
from datetime import UTC, datetime

import pytest

from service import delivery as d
from tests.commands import ACCOUNT, AT, command, enter, enter_sent, run, shown, within


def test_an_empty_record_is_an_empty_array(record_url: str) -> None:
    assert record_url
    result = command("list", "--json")
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (0, [], "")
    assert (command("list").exit_code, command("list").stdout) == (0, "")


def test_json_has_the_contracts_fields(record_url: str) -> None:
    enter_sent(record_url, "T12345678.abc")
    result = command("list", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (one,) = json.loads(result.stdout)
    delivered = one.pop("delivered_at")
    assert one == {
        "transaction_id": "T12345678.abc",
        "account_id": "T12345678",
        "kind": "invoice",
        "outcome": "completed",
        "progress": ["delivered", "captured"],
        "reason": None,
        "invoice_number": "A1B2C-000001",
        "channel": "email",
        "recipient": "o***@nordmann.example",
        "delivery_proof": "accepted_by_relay",
        "decided_by": "transaction",
        "amount": 50000,
        "currency": "NOK",
        "merchant_reference": "order-123",
        "attempt": 1,
        "due_at": None,
        "received_at": "2026-11-22T10:00:00Z",
        "captured_at": "2026-11-22T10:00:00Z",
        "voided_at": None,
        "closed_at": "2026-11-22T10:00:00Z",
        "source": "callback",
        "erased_at": None,
        "delivery_id": "T12345678.abc",
    }
    assert datetime.strptime(delivered, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert shown("T12345678.abc").keys() == {*one, "delivered_at", "history"}


def test_the_listing_is_newest_first_and_can_be_narrowed(record_url: str) -> None:
    enter(record_url, "T1", "T2", outcome=d.Outcome.FAILED, reason="no address", closed_at=AT)
    enter(record_url, "T3", outcome=d.Outcome.SKIPPED, closed_at=AT)
    within(record_url, lambda store: store.receive(d.Arrival(transaction_id="T0", account_id=ACCOUNT, at=AT)))

    assert set(ids()) == {"T0", "T1", "T2", "T3"}
    assert ids("--outcome", "failed") == ["T2", "T1"]
    assert ids("--outcome", "failed", "--limit", "1") == ["T2"]
    assert set(ids("--outcome", "failed", "--outcome", "open")) == {"T0", "T1", "T2"}
    assert ids("--outcome", "completed") == []


def test_the_table_shows_fifty_and_the_array_all(record_url: str) -> None:
    enter(record_url, *(f"T{n}" for n in range(55)))
    table = command("list")
    assert table.exit_code == 0
    assert len(table.stdout.splitlines()) == 1 + 50
    assert "T54 " in table.stdout
    assert "T4 " not in table.stdout
    assert "500.00 NOK" in table.stdout
    assert len(command("list", "--limit", "52").stdout.splitlines()) == 1 + 52
    assert len(json.loads(command("list", "--json").stdout)) == 55


def ids(*arguments: str) -> list[str]:
    result = command("list", "--json", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return [one["transaction_id"] for one in json.loads(result.stdout)]


def test_a_listing_is_narrowed_by_reason_and_channel(record_url: str) -> None:
    enter(record_url, "T1", outcome=d.Outcome.FAILED, reason="No address at 100% of_all", channel="email", closed_at=AT)
    enter(record_url, "T2", outcome=d.Outcome.FAILED, reason="no number", channel="sms", closed_at=AT)
    enter(record_url, "T3", outcome=d.Outcome.OPEN, reason="no number", channel="email")
    assert set(ids("--reason", "NO ")) == {"T1", "T2", "T3"}
    assert ids("--reason", "address") == ["T1"]
    assert ids("--reason-has", "100%") == ["T1"]
    assert ids("--reason", "of_all") == ["T1"]
    assert ids("--reason", "0%o") == ids("--reason", "ofxall") == []  # these stand for themselves
    assert set(ids("--channel", "email")) == {"T1", "T3"}
    assert ids("--channel", "Email") == []
    assert ids("--channel", "email", "--reason", "number", "--outcome", "open") == ["T3"]
    assert ids("--channel", "email", "--reason", "number", "--outcome", "failed") == []


@pytest.mark.parametrize(
    ("narrowed", "found"),
    [
        (("--since", "2026-11-22"), {"T0", "T1", "T2"}),
        (("--since", "2026-11-23"), set()),
        (("--until", "2026-11-22"), {"T0", "T1", "T2"}),  # the day that is named is in
        (("--until", "2026-11-21"), set()),
        (("--until", "2026-11-22T00:00"), set()),
        (("--since", "2026-11-22T10:00:01"), {"T1", "T2"}),  # T1 came a fraction of a second later
        (("--until", "2026-11-22T10:00:01"), {"T0"}),
        (("--since", "2026-11-22T11:00:01+01:00"), {"T1", "T2"}),
        (("--since", "2026-11-22T10:00:01Z", "--until", "2026-11-22 10:00:02"), {"T1"}),
    ],
)
def test_a_listing_is_narrowed_by_time(record_url: str, narrowed: tuple[str, ...], found: set[str]) -> None:
    enter(record_url, "T0", "T1", "T2")
    assert set(ids(*narrowed)) == found


@pytest.mark.parametrize("time", ["yesterday", "2026-13-01", "2026-11-22T25:00", "", "9999-12-31"])
def test_what_is_no_time_is_2(record_url: str, time: str) -> None:
    assert record_url
    result = command("list", "--until", time)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "2026-11-22T10:00+01:00" in result.stderr


def test_each_page_names_the_command_of_the_next(record_url: str) -> None:
    enter(record_url, *(f"T{n}" for n in range(7)), outcome=d.Outcome.FAILED, reason="it's lost", closed_at=AT)
    enter(record_url, *(f"U{n}" for n in range(7)), outcome=d.Outcome.OPEN, reason="it's lost")  # at the same times
    asked = ("list", "--reason", "IT'S", "--outcome", "open", "--outcome", "failed", "--limit", "4")
    seen, pages, result = [], 0, command(*asked, "--since", "2026-11-22", "--until", "2026-11-22")
    while True:
        pages += 1
        seen += [line.split()[1] for line in result.stdout.splitlines()[1:]]
        if not result.stderr:
            break
        assert len(result.stdout.splitlines()) == 1 + 4
        words = shlex.split(result.stderr.removeprefix("There are more: "))
        assert words[0] == "merchant-delivery"
        result = run(*words[1:])
    assert pages == 4
    assert seen == [f"{letter}{n}" for n in range(6, -1, -1) for letter in "TU"]


def test_the_last_page_names_no_next(record_url: str) -> None:
    enter(record_url, "T0", "T1", "T2")
    assert command("list", "--limit", "3").stderr == ""
    assert "--after T1" in command("list", "--limit", "2").stderr
    beyond = command("list", "--after", "T0")
    assert (beyond.exit_code, beyond.stdout, beyond.stderr) == (0, "", "No more deliveries.\n")


def test_an_array_goes_on_after_one(record_url: str) -> None:
    enter(record_url, "T0", "T1", "T2", "T3")
    assert ids("--limit", "2") == ["T3", "T2"]
    assert ids("--limit", "2", "--after", "T2") == ["T1", "T0"]
    assert ids("--after", "T3") == ["T2", "T1", "T0"]
    assert ids("--after", "T0") == []
    assert command("list", "--json", "--after", "T9").exit_code == 1


def test_after_may_be_newer_than_until(record_url: str) -> None:
    enter(record_url, "T0", "T1", "T2")
    assert ids("--after", "T2", "--until", "2026-11-22T10:00:01") == ["T0"]


def test_a_long_array_is_read_in_pages_and_printed_as_one(record_url: str) -> None:
    names = [f"T{n:04d}" for n in range(1203)]
    enter(record_url, *names)
    result = command("list", "--json")
    found = json.loads(result.stdout)
    assert [one["transaction_id"] for one in found] == names[::-1]
    assert result.stdout == json.dumps(found, indent=2) + "\n"
    assert len(ids("--limit", "1001")) == 1001
