"""`deliveries`: what is listed and shown, and what an operator's word does to the record."""

import asyncio
import getpass
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from click.testing import CliRunner, Result

from service import delivery as d
from service.cli import cli
from service.store import open_store
from tests.fakes import MovedClock
from tests.test_cli import COMMAND, REPOSITORY, clean

ACCOUNT = "T12345678"
AT = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)
T = TypeVar("T")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty record, and commands that find it; the log that they set up is taken down again."""
    made = f"sqlite:///{tmp_path}/record.db"
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELIVERY_DATABASE_URL", made)
    within(made, lambda _store: asyncio.sleep(0))
    yield made
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def within(url: str, work: Callable[[d.Store], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_store(url, clock=MovedClock()) as store:
            return await work(store)

    return asyncio.run(run())


def enter(url: str, *ids: str, **changes: Any) -> None:
    """Put deliveries into the record, a second apart, as a worker leaves them that has looked at each once."""

    async def work(store: d.Store) -> None:
        for second, name in enumerate(ids):
            at = AT + timedelta(seconds=second)
            await store.receive(d.Arrival(transaction_id=name, account_id=ACCOUNT, at=at))
        for claim in await store.claim(ACCOUNT, d.PROVIDER_LANE, 100, lease=60, suspects=False):
            entry = d.Entry(at=AT, step=d.Step.FETCH, result=d.Result.ACCEPTED, detail="read")
            found = replace(claim.delivery, amount=50000, currency="NOK", **changes)
            due_in = 60.0 if found.outcome is d.Outcome.OPEN else None
            await store.save(claim, found, d.Schedule(due_in=due_in), [entry])

    within(url, work)


def enter_sent(url: str, name: str) -> None:
    """Put a delivery into the record that was sent and captured."""

    async def work(store: d.Store) -> None:
        await store.receive(d.Arrival(transaction_id=name, account_id=ACCOUNT, at=AT))
        (claim,) = await store.claim(ACCOUNT, d.PROVIDER_LANE, 1, lease=60, suspects=False)
        send = d.Send(
            id="s1",
            delivery_id=claim.delivery.id,
            round=0,
            channel="email",
            recipient="o***@nordmann.example",
            recipient_key="k",
            purpose=d.Purpose.FIRST,
            key="key",
            dated=AT,
            message_id="<m1@butikken.example>",
            sha256="00",
            begun_at=AT,
        )
        await store.begin_send(claim, send)
        accepted = replace(
            send, outcome=d.Settled.ACCEPTED, answer="250 queued as A1", proof=d.Proof.RELAY, settled_at=AT
        )
        sent = d.Entry(
            at=AT, step=d.Step.DELIVER, result=d.Result.ACCEPTED, channel="email", message_id=send.message_id
        )
        await store.settle_send(accepted, [sent])
        capture = d.Capture(
            id="c1",
            delivery_id=claim.delivery.id,
            transaction_id=name,
            reference="ref-1",
            amount=50000,
            begun_at=AT,
        )
        await store.begin_capture(claim, capture)
        await store.settle_capture(replace(capture, outcome=d.Settled.ACCEPTED, settled_at=AT), [], began_at=AT)
        done = replace(
            claim.delivery,
            outcome=d.Outcome.COMPLETED,
            channel=send.channel,
            recipient=send.recipient,
            amount=50000,
            currency="NOK",
            invoice_number="A1B2C-000001",
            merchant_reference="order-123",
            decided_by=d.DecidedBy.TRANSACTION,
            closed_at=AT,
        )
        await store.save(claim, done, d.Schedule(due_in=None))

    within(url, work)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["deliveries", *arguments], prog_name="merchant-delivery")


def shown(reference: str) -> Any:
    result = command("show", reference, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def outcomes() -> dict[str, str]:
    return {one["transaction_id"]: one["outcome"] for one in json.loads(command("list", "--json").stdout)}


def test_an_empty_record_is_an_empty_array(url: str) -> None:
    assert url
    result = command("list", "--json")
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (0, [], "")
    assert (command("list").exit_code, command("list").stdout) == (0, "")


def test_json_has_the_contracts_fields(url: str) -> None:
    enter_sent(url, "T12345678.abc")
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
    }
    assert datetime.strptime(delivered, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert shown("T12345678.abc").keys() == {*one, "delivered_at", "history"}


def test_the_listing_is_newest_first_and_can_be_narrowed(url: str) -> None:
    enter(url, "T1", "T2", outcome=d.Outcome.FAILED, reason="no address", closed_at=AT)
    enter(url, "T3", outcome=d.Outcome.SKIPPED, closed_at=AT)
    within(url, lambda store: store.receive(d.Arrival(transaction_id="T0", account_id=ACCOUNT, at=AT)))

    def ids(*arguments: str) -> list[str]:
        return [one["transaction_id"] for one in json.loads(command("list", "--json", *arguments).stdout)]

    assert set(ids()) == {"T0", "T1", "T2", "T3"}
    assert ids("--outcome", "failed") == ["T2", "T1"]
    assert ids("--outcome", "failed", "--limit", "1") == ["T2"]
    assert set(ids("--outcome", "failed", "--outcome", "open")) == {"T0", "T1", "T2"}
    assert ids("--outcome", "completed") == []


def test_the_table_shows_fifty_and_the_array_all(url: str) -> None:
    enter(url, *(f"T{n}" for n in range(55)))
    table = command("list")
    assert table.exit_code == 0
    assert len(table.stdout.splitlines()) == 1 + 50
    assert "T54 " in table.stdout
    assert "T4 " not in table.stdout
    assert "500.00 NOK" in table.stdout
    assert len(command("list", "--limit", "52").stdout.splitlines()) == 1 + 52
    assert len(json.loads(command("list", "--json").stdout)) == 55


@pytest.mark.parametrize("reference", ["T12345678.abc", "A1B2C-000001", "order-123"])
def test_one_delivery_has_many_names(url: str, reference: str) -> None:
    enter_sent(url, "T12345678.abc")
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


def test_a_person_reads_all_of_a_delivery(url: str) -> None:
    enter_sent(url, "T12345678.abc")
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


@pytest.mark.parametrize("verb", ["show", "retry", "resend", "cancel"])
def test_what_is_not_known_is_1(url: str, verb: str) -> None:
    assert url
    result = command(verb, "T99")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "T99" in result.stderr


@pytest.mark.parametrize("verb", ["show", "retry", "resend", "cancel"])
def test_several_of_a_name_are_listed_and_left_alone(url: str, verb: str) -> None:
    enter(url, "T1", "T2", merchant_reference="order-1", outcome=d.Outcome.FAILED, closed_at=AT)
    result = command(verb, "order-1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "T1" in result.stderr
    assert "T2" in result.stderr
    assert set(outcomes().values()) == {"failed"}


def test_retry_reopens_and_says_who_and_why(url: str) -> None:
    enter(url, "T1", outcome=d.Outcome.FAILED, reason="no address", closed_at=AT)
    result = command("retry", "T1", "--reason", "ola@nordmann.example was mended")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "T1" in result.stdout
    one = shown("T1")
    assert (one["outcome"], one["closed_at"]) == ("open", None)
    assert one["due_at"] is not None
    (said,) = [entry for entry in one["history"] if entry["step"] == "operator"]
    assert getpass.getuser() in said["detail"]
    assert "was mended" in said["detail"]
    assert "nordmann" not in said["detail"]


def test_resend_goes_to_another_address_for_once(url: str) -> None:
    enter_sent(url, "T12345678.abc")
    result = command("resend", "order-123", "--to", "Kari@Nordmann.example")
    assert result.exit_code == 0
    assert result.stdout == "T12345678.abc will be delivered once more, if it is ours to deliver.\n"
    (found,) = within(url, lambda store: store.find("T12345678.abc"))
    assert (found.outcome, found.round) == (d.Outcome.OPEN, 1)
    assert found.send_to == "Kari@nordmann.example"


def test_cancel_says_that_the_invoice_lives_on(url: str) -> None:
    enter(url, "T1")
    result = command("cancel", "T1", "--reason", "wrong customer")
    assert result.exit_code == 0
    assert "still exists at Dintero" in result.stdout
    one = shown("T1")
    assert (one["outcome"], one["due_at"]) == ("cancelled", None)


@pytest.mark.parametrize("chosen", [("T1", "T2"), ("--outcome", "failed"), ("--outcome", "skipped")])
def test_several_or_a_filter_want_a_yes(url: str, chosen: tuple[str, ...]) -> None:
    enter(url, "T1", "T2", outcome=d.Outcome.FAILED, closed_at=AT)
    enter(url, "T3", outcome=d.Outcome.SKIPPED, closed_at=AT)
    before = outcomes()
    result = command("retry", *chosen)
    assert (result.exit_code, result.stdout) == (2, "")
    assert ("1 delivery (1 skipped)" if "skipped" in chosen else "2 deliveries (2 failed)") in result.stderr
    assert "--yes" in result.stderr
    assert outcomes() == before
    assert command("retry", *chosen, "--yes").exit_code == 0
    reopened = {"T3"} if "skipped" in chosen else {"T1", "T2"}
    assert {name for name, outcome in outcomes().items() if outcome == "open"} == reopened


def test_one_named_twice_is_one(url: str) -> None:
    enter(url, "T1", outcome=d.Outcome.FAILED, invoice_number="A1", closed_at=AT)
    assert command("retry", "T1", "A1").exit_code == 0
    assert len([entry for entry in shown("T1")["history"] if entry["step"] == "operator"]) == 1


def test_all_are_known_before_one_is_touched(url: str) -> None:
    enter(url, "T1", outcome=d.Outcome.FAILED, closed_at=AT)
    assert command("retry", "T1", "T99", "--yes").exit_code == 1
    assert outcomes() == {"T1": "failed"}


def test_a_filter_that_finds_nothing_does_nothing(url: str) -> None:
    assert url
    result = command("cancel", "--outcome", "open")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing was done" in result.stderr


@pytest.mark.parametrize(("answer", "status", "outcome"), [(b"n\n", 1, "failed"), (b"y\n", 0, "open")])
def test_on_a_terminal_it_asks(url: str, tmp_path: Path, answer: bytes, status: int, outcome: str) -> None:
    enter(url, "T1", "T2", outcome=d.Outcome.FAILED, closed_at=AT)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [*COMMAND, "deliveries", "retry", "--outcome", "failed"],
            cwd=tmp_path,
            env=clean(DELIVERY_DATABASE_URL=url),
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == status
    assert "2 deliveries (2 failed)" in done.stderr
    assert set(outcomes().values()) == {outcome}


def test_a_record_without_tables_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert url
    monkeypatch.setenv("DELIVERY_DATABASE_URL", f"sqlite:///{tmp_path}/other.db")
    for arguments in (("list", "--json"), ("show", "T1"), ("cancel", "T1")):
        result = command(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "migrate" in result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_user_without_a_name_is_a_number() -> None:
    script = "import getpass, os; from service.cli_deliveries import _user; os.setuid(54321); print(_user())"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "uid 54321\n"
