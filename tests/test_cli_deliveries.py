"""`deliveries show`: one delivery, by any of its names."""

import json
from dataclasses import replace

import pytest

from service import delivery as d
from service.terminal import details
from tests.commands import ACCOUNT, AT, command, enter, enter_sent, shown, within


@pytest.mark.parametrize("reference", ["T12345678.abc", "A1B2C-000001", "order-123"])
def test_one_delivery_has_many_names(record_url: str, reference: str) -> None:
    enter_sent(record_url, "T12345678.abc")
    one = shown(reference)
    assert one["transaction_id"] == "T12345678.abc"
    (sent,) = [entry for entry in one["history"] if entry["step"] == "deliver"]
    assert sent == {
        "at": "2026-11-22T10:00:00Z",
        "step": "deliver",
        "result": "accepted",
        "channel": "email",
        "detail": None,
        "message_id": "<m1@butikken.example>",
    }


def test_a_person_reads_all_of_a_delivery(record_url: str) -> None:
    enter_sent(record_url, "T12345678.abc")
    text = command("show", "order-123").stdout
    for word in (
        "completed",
        "delivered, captured",
        "A1B2C-000001",
        "500.00 NOK",
        "o***@nordmann.example by email",
        "250 queued as A1",
        "<m1@butikken.example>",
        "ref-1",
        "accepted_by_relay",
        "receive",
        "2026-11-22T10:00:00Z",
    ):
        assert word in text


def test_what_it_waits_for_is_shown(record_url: str) -> None:
    enter(record_url, "T1", lane="email", outcome=d.Outcome.OPEN)
    enter(record_url, "T2", lane="email", outcome=d.Outcome.FAILED, closed_at=AT)

    def pause(lane: str) -> None:
        within(record_url, lambda store: store.pause(ACCOUNT, lane, "wrong password", by=None, probe_in=60))

    pause("sms")
    assert "Paused" not in command("show", "T1").stdout
    pause("email")
    (line,) = [line for line in command("show", "T1").stdout.splitlines() if line.startswith("Paused")]
    assert "email since " in line
    assert line.endswith(": wrong password")
    pause(d.PROVIDER_LANE)
    assert [line.split()[1] for line in command("show", "T1").stdout.splitlines() if line.startswith("Paused")] == [
        "email",
        "provider",
    ]
    assert "Paused" not in command("show", "T2").stdout  # it waits for nothing


def test_what_a_person_said_of_it_is_shown() -> None:
    plain = d.Delivery(id="T1", account_id=ACCOUNT, transaction_id="T1", received_at=AT, source="reconcile")

    def text(delivery: d.Delivery) -> str:
        return details(delivery, history=(), sends=(), captures=(), width=None)

    assert "Received     2026-11-22T10:00:00Z by reconcile" in text(plain)
    assert not [word for word in ("Released", "Stated", "However late", "Erased") if word in text(plain)]
    said = replace(plain, released=True, stated_round=0, even_late=True, erased_at=AT)
    assert all(f"\n{word} " in text(said) for word in ("Released", "Stated", "However late", "Erased"))
    assert "Stated" not in text(replace(said, round=1))  # that was of an earlier round


def test_what_was_sent_is_shown_by_its_digests(record_url: str) -> None:
    enter_sent(record_url, "T1", document_sha256="ab" * 32, template_version="c0ffee" * 8)
    text = command("show", "T1").stdout
    assert "abababababab " in text
    assert "c0ffeec0ffee " in text


def test_the_source_is_in_the_json(record_url: str) -> None:
    arrival = d.Arrival(transaction_id="T1", account_id=ACCOUNT, at=AT, source="webhook")
    within(record_url, lambda store: store.receive(arrival))
    assert shown("T1")["source"] == "webhook"
    assert json.loads(command("list", "--json").stdout)[0]["source"] == "webhook"
