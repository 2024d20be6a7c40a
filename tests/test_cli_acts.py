"""`deliveries retry`, `resend`, `cancel` and `resolve`: what an operator's word does to the record."""

import asyncio
import getpass
import os
import pty
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from service import cli_acts
from service import delivery as d
from service.cli_choice import Target
from service.cli_frame import request
from tests.commands import ACCOUNT, AT, command, enter, enter_sent, outcomes, shown, within
from tests.test_cli import COMMAND, REPOSITORY, clean, to_nobody


@pytest.mark.parametrize("verb", ["show", "retry", "resend", "cancel", "resolve --delivered --reason asked"])
def test_what_is_not_known_is_1(record_url: str, verb: str) -> None:
    assert record_url
    result = command(*verb.split(), "T99")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "T99" in result.stderr


@pytest.mark.parametrize("verb", ["show", "retry", "resend", "cancel", "resolve --delivered --reason asked"])
def test_several_of_a_name_are_listed_and_left_alone(record_url: str, verb: str) -> None:
    enter(record_url, "T1", "T2", merchant_reference="order-1", outcome=d.Outcome.FAILED, closed_at=AT)
    result = command(*verb.split(), "order-1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "T1" in result.stderr
    assert "T2" in result.stderr
    assert set(outcomes().values()) == {"failed"}


def test_retry_reopens_and_says_who_and_why(record_url: str) -> None:
    enter(record_url, "T1", outcome=d.Outcome.FAILED, reason="no address", closed_at=AT)
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


def test_resend_goes_to_another_address_for_once(record_url: str) -> None:
    enter_sent(record_url, "T12345678.abc")
    result = command("resend", "order-123", "--to", "Kari@Nordmann.example")
    assert result.exit_code == 0
    assert result.stdout == "T12345678.abc will be delivered once more, if it is ours to deliver.\n"
    (found,) = within(record_url, lambda store: store.find("T12345678.abc"))
    assert (found.outcome, found.round) == (d.Outcome.OPEN, 1)
    assert found.send_to == "Kari@nordmann.example"


def test_cancel_says_that_the_invoice_lives_on(record_url: str) -> None:
    enter(record_url, "T1")
    result = command("cancel", "T1", "--reason", "wrong customer")
    assert result.exit_code == 0
    assert "still exists at Dintero" in result.stdout
    one = shown("T1")
    assert (one["outcome"], one["due_at"]) == ("cancelled", None)


@pytest.mark.parametrize("chosen", [("T1", "T2"), ("--outcome", "failed"), ("--outcome", "skipped")])
def test_several_or_a_filter_want_a_yes(record_url: str, chosen: tuple[str, ...]) -> None:
    enter(record_url, "T1", "T2", outcome=d.Outcome.FAILED, closed_at=AT)
    enter(record_url, "T3", outcome=d.Outcome.SKIPPED, closed_at=AT)
    before = outcomes()
    result = command("retry", *chosen)
    assert (result.exit_code, result.stdout) == (2, "")
    assert ("1 delivery (1 skipped)" if "skipped" in chosen else "2 deliveries (2 failed)") in result.stderr
    assert "--yes" in result.stderr
    assert outcomes() == before
    assert command("retry", *chosen, "--yes").exit_code == 0
    reopened = {"T3"} if "skipped" in chosen else {"T1", "T2"}
    assert {name for name, outcome in outcomes().items() if outcome == "open"} == reopened


def test_one_named_twice_is_one(record_url: str) -> None:
    enter(record_url, "T1", outcome=d.Outcome.FAILED, invoice_number="A1", closed_at=AT)
    assert command("retry", "T1", "A1").exit_code == 0
    assert len([entry for entry in shown("T1")["history"] if entry["step"] == "operator"]) == 1


def test_all_are_known_before_one_is_touched(record_url: str) -> None:
    enter(record_url, "T1", outcome=d.Outcome.FAILED, closed_at=AT)
    assert command("retry", "T1", "T99", "--yes").exit_code == 1
    assert outcomes() == {"T1": "failed"}


def test_a_filter_that_finds_nothing_does_nothing(record_url: str) -> None:
    assert record_url
    result = command("cancel", "--outcome", "open")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing was done" in result.stderr


@pytest.mark.parametrize(("answer", "status", "outcome"), [(b"n\n", 1, "failed"), (b"y\n", 0, "open")])
def test_on_a_terminal_it_asks(record_url: str, tmp_path: Path, answer: bytes, status: int, outcome: str) -> None:
    enter(record_url, "T1", "T2", outcome=d.Outcome.FAILED, closed_at=AT)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [*COMMAND, "deliveries", "retry", "--outcome", "failed"],
            cwd=tmp_path,
            env=clean(DELIVERY_DATABASE_URL=record_url),
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


def test_a_record_without_tables_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_url: str
) -> None:
    assert record_url
    monkeypatch.setenv("DELIVERY_DATABASE_URL", f"sqlite:///{tmp_path}/other.db")
    for arguments in (("list", "--json"), ("show", "T1"), ("cancel", "T1")):
        result = command(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "migrate" in result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_user_without_a_name_is_a_number() -> None:
    script = "import getpass, os; from service.cli_frame import the_user; os.setuid(54321); print(the_user())"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "uid 54321\n"


# --- chosen by a filter ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        ("--reason-has", "PASSWORD"),
        ("--channel", "sms"),
        ("--since", "2026-11-22T10:00:02"),
        ("--outcome", "failed", "--reason-has", "password", "--until", "2026-11-22"),
    ],
)
def test_acts_take_the_filters_of_the_listing(record_url: str, chosen: tuple[str, ...]) -> None:
    enter(record_url, "T1", outcome=d.Outcome.FAILED, reason="no address", channel="email", closed_at=AT)
    changes = {"outcome": d.Outcome.FAILED, "reason": "wrong password", "channel": "sms", "closed_at": AT}
    enter(record_url, "T2", later=2, **changes)
    result = command("retry", *chosen, "--yes", "--reason", "mended")
    assert (result.exit_code, result.stdout) == (0, "T2 is tried again now.\n")
    assert outcomes() == {"T1": "failed", "T2": "open"}
    (line,) = [entry for entry in shown("T2")["history"] if entry["step"] == "operator"]
    assert line["detail"].endswith(": mended")


def test_names_and_a_filter_together_are_2(record_url: str) -> None:
    enter(record_url, "T1", outcome=d.Outcome.FAILED, channel="email", closed_at=AT)
    for more in (("--channel", "email"), ("--reason-has", "x"), ("--since", "2026-01-01"), ("--until", "2026-12-31")):
        assert command("retry", "T1", *more, "--yes").exit_code == 2
    assert outcomes() == {"T1": "failed"}


def test_many_are_done_in_pages_and_each_is_told(record_url: str) -> None:
    names = [f"T{n:03d}" for n in range(250)]
    enter(record_url, *names, outcome=d.Outcome.FAILED, closed_at=AT)
    result = command("retry", "--outcome", "failed", "--yes")
    assert (result.exit_code, result.stderr) == (0, "retry: 250 deliveries (250 failed)\n")
    assert [line.split()[0] for line in result.stdout.splitlines()] == names[::-1]
    assert set(outcomes().values()) == {"open"}


def test_on_a_terminal_many_are_a_bar_and_a_sum(record_url: str, tmp_path: Path) -> None:
    enter(record_url, *(f"T{n:03d}" for n in range(120)), outcome=d.Outcome.FAILED, closed_at=AT)
    ours, theirs = pty.openpty()
    cancel = [*COMMAND, "deliveries", "cancel", "--outcome", "failed", "--yes"]
    env = clean(DELIVERY_DATABASE_URL=record_url)
    with subprocess.Popen(cancel, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                said += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0
    assert b"100%" in said
    assert b"T000" not in said
    assert said.decode().rstrip().endswith("cancel: 120 of 120 were done.")


@pytest.mark.parametrize(
    "verb", ["retry", "resend", "cancel", "resolve --delivered --reason asked", "resolve --not-delivered --reason no"]
)
def test_nobody_who_listens_does_not_end_the_work(record_url: str, verb: str) -> None:
    """It is done in pages of a hundred: the second is reached, and what is said fails with the first."""
    enter(record_url, *(f"T{n:03d}" for n in range(120)), outcome=d.Outcome.FAILED, closed_at=AT)
    asked = ["deliveries", *verb.split(), "--outcome", "failed", "--yes"]
    assert to_nobody(*asked, DELIVERY_DATABASE_URL=record_url) == 0
    assert set(outcomes().values()) == {"cancelled" if verb == "cancel" else "open"}


@dataclass
class Changing:
    """A record in which something happens between the look and the deed."""

    meanwhile: dict[str, d.Outcome]
    asked: list[tuple[str, d.Outcome | None]] = field(default_factory=list)
    broken: bool = False

    async def ids(self, chosen: d.Filter) -> tuple[tuple[str, d.Outcome], ...]:
        return tuple((name, d.Outcome.FAILED) for name in self.meanwhile if chosen != d.ALL)

    async def resend(self, name: str, asked: d.Request) -> d.Delivery:
        self.asked.append((name, asked.only_if))
        if self.broken and len(self.asked) > 1:
            raise d.StoreUnavailable("gone")
        outcome = self.meanwhile[name]
        outcome = d.Outcome.OPEN if outcome is asked.only_if else outcome
        return d.Delivery(id=name, account_id=ACCOUNT, transaction_id=name, received_at=AT, outcome=outcome)


FAILED = Target(references=(), chosen=d.Filter(outcomes=(d.Outcome.FAILED,)), sure=True)


def carried_out(store: Changing) -> list[d.Delivery]:
    deed = cli_acts._RESEND
    return asyncio.run(cli_acts.carry_out(cast("d.Store", store), FAILED, deed, request(None)))


def test_what_has_changed_since_the_question_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    store = Changing(meanwhile={"T1": d.Outcome.FAILED, "T2": d.Outcome.COMPLETED})
    carried_out(store)
    assert store.asked == [("T1", d.Outcome.FAILED), ("T2", d.Outcome.FAILED)]
    said = capsys.readouterr().out
    assert "T1 will be delivered once more" in said
    assert "T2 is completed and stays so." in said


def test_a_record_that_goes_away_in_between_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    store = Changing(meanwhile=dict.fromkeys(("T1", "T2", "T3"), d.Outcome.FAILED), broken=True)
    with pytest.raises(d.StoreUnavailable):
        carried_out(store)
    assert "1 of 3 were done." in capsys.readouterr().err


# --- cancel and resend -----------------------------------------------------------------------------------------------


def test_what_cannot_be_cancelled_is_1(record_url: str) -> None:
    enter_sent(record_url, "T1")
    result = command("cancel", "T1")
    assert (result.exit_code, result.stdout) == (1, "T1 is completed and stays so.\n")


@pytest.mark.parametrize("late", [True, False])
def test_a_resend_may_be_late(record_url: str, late: bool) -> None:
    enter_sent(record_url, "T1")
    assert command("resend", "T1", *(["--even-late"] if late else [])).exit_code == 0
    (found,) = within(record_url, lambda store: store.find("T1"))
    assert (found.round, found.even_late) == (1, late)


# --- resolve ---------------------------------------------------------------------------------------------------------


def test_a_person_says_that_it_was_delivered(record_url: str) -> None:
    enter(
        record_url, "T1", outcome=d.Outcome.FAILED, reason="it is not known whether the customer got it", closed_at=AT
    )
    result = command(
        "resolve", "T1", "--delivered", "--by", "post, 2026-11-20", "--reason", "ola@nordmann.example rang"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "capture is next" in result.stdout
    one = shown("T1")
    assert (one["outcome"], one["progress"], one["delivery_proof"]) == ("open", ["delivered"], "stated_by_person")
    (line,) = [entry for entry in one["history"] if entry["step"] == "operator"]
    for word in (getpass.getuser(), "post, 2026-11-20", "rang"):
        assert word in line["detail"]
    assert "nordmann" not in line["detail"]


def test_a_person_says_that_it_was_not_delivered(record_url: str) -> None:
    enter(record_url, "T1", outcome=d.Outcome.OPEN, reason="it is not known whether the last send arrived")
    result = command("resolve", "T1", "--not-delivered", "--reason", "not in the relay's log")
    assert result.exit_code == 0
    assert "is sent now" in result.stdout
    one = shown("T1")
    assert (one["outcome"], one["progress"], one["reason"]) == ("open", [], None)
    (found,) = within(record_url, lambda store: store.find("T1"))
    assert found.released  # not held again for being older than the record


@pytest.mark.parametrize("outcome", ["completed", "cancelled", "skipped"])
def test_what_is_settled_is_not_resolved(record_url: str, outcome: str) -> None:
    enter(record_url, "T1", outcome=d.Outcome(outcome), closed_at=AT)
    for how in ("--delivered", "--not-delivered"):
        result = command("resolve", "T1", how, "--reason", "asked")
        assert (result.exit_code, result.stdout) == (1, f"T1 is {outcome} and stays so.\n")
    assert (shown("T1")["outcome"], shown("T1")["delivered_at"]) == (outcome, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--delivered",),
        ("--delivered", "--reason", " "),
        ("--reason", "asked"),
        ("--not-delivered", "--by", "post", "--reason", "asked"),
    ],
)
def test_a_statement_is_whole(record_url: str, arguments: tuple[str, ...]) -> None:
    enter(record_url, "T1", outcome=d.Outcome.FAILED, closed_at=AT)
    assert command("resolve", "T1", *arguments).exit_code == 2
    assert outcomes() == {"T1": "failed"}
