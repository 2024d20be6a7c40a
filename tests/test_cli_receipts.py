"""`receipts ingest`, as a mail server runs it: exit status 0, 1 and 75, and nothing in the record that is not ours."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import cli
from service.delivery import Delivery, Outcome, Report, Store
from tests.commands import within
from tests.store_values import ACCOUNT, CLOSED, NEVER, SETTLED, claimed, only, send
from tests.test_dsn import ADDRESS, BOUNCE, KEY, OURS, VACATION

MAIL = BOUNCE.replace("\n", "\r\n").encode()


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY_ACCOUNT_ID", ACCOUNT)


def complete(url: str) -> None:
    async def work(store: Store) -> None:
        claim = await claimed(store)
        begun = send(claim.delivery.id, key=KEY, message_id=OURS)
        await store.begin_send(claim, begun)
        await store.settle_send(replace(begun, **SETTLED), [])
        await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)

    within(url, work)


def delivery(url: str) -> Delivery:
    return within(url, only)


def unmatched(url: str) -> tuple[Report, ...]:
    return within(url, lambda store: store.unmatched_reports(ACCOUNT))


def ingest(mail: bytes, file: str = "-") -> Result:
    runner = CliRunner()
    return runner.invoke(cli, ["receipts", "ingest", file], input=mail, prog_name="merchant-delivery")


def test_a_bounce_opens_its_delivery_again(record_url: str) -> None:
    complete(record_url)
    result = ingest(MAIL)
    assert result.exit_code == 0
    assert "recorded, and the delivery is open again" in result.stdout
    assert ADDRESS not in result.output
    opened = delivery(record_url)
    assert opened.outcome is Outcome.OPEN
    assert "5.1.1" in (opened.reason or "")
    again = ingest(MAIL)
    assert (again.exit_code, "was in the record already" in again.stdout) == (0, True)


def test_a_mail_may_be_in_a_file(record_url: str, tmp_path: Path) -> None:
    complete(record_url)
    (tmp_path / "bounce.eml").write_bytes(MAIL)
    assert ingest(b"", "bounce.eml").exit_code == 0
    assert delivery(record_url).outcome is Outcome.OPEN
    missing = ingest(b"", "nowhere.eml")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "nowhere.eml: cannot be read" in missing.stderr


@pytest.mark.parametrize("mail", [VACATION.encode(), b"", b"\xff\x00", MAIL.replace(KEY.encode(), b"somebody-elses")])
def test_nothing_of_ours_is_said_and_not_recorded(record_url: str, mail: bytes) -> None:
    complete(record_url)
    result = ingest(mail)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Nothing in this mail is about a mail of ours" in result.stderr
    assert delivery(record_url).outcome is Outcome.COMPLETED
    assert unmatched(record_url) == ()


def test_a_bounce_of_a_mail_that_is_not_known_yet_is_kept(record_url: str) -> None:
    result = ingest(MAIL)
    assert result.exit_code == 0
    assert "kept" in result.stdout
    assert [report.reference for report in unmatched(record_url)] == [OURS]


def test_a_bounce_of_a_blind_copy_is_nothing(record_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(record_url)
    monkeypatch.setenv("DELIVERY_MAIL_BCC", ADDRESS)
    assert ingest(MAIL).exit_code == 1
    assert delivery(record_url).outcome is Outcome.COMPLETED


def test_a_record_that_does_not_answer_lets_the_mail_server_try_again(
    record_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record_url
    monkeypatch.setenv("DELIVERY_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nowhere")
    result = ingest(MAIL)
    assert (result.exit_code, result.stdout) == (75, "")
    assert "The record cannot be used" in result.stderr


def test_a_record_that_is_not_there_yet_does_too(
    record_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert record_url
    monkeypatch.setenv("DELIVERY_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    assert ingest(MAIL).exit_code == 75


def test_a_record_that_may_not_be_looked_at_does_too(record_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail server runs what it pipes to as nobody, who may not even see whether the file is there."""
    assert record_url
    monkeypatch.setenv("DELIVERY_DATABASE_URL", f"sqlite:////{'x' * 300}.db")  # no right is needed to be told no
    result = ingest(MAIL)
    assert (result.exit_code, result.stdout) == (75, "")
    assert "The record cannot be used" in result.stderr


def test_an_account_is_needed(record_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert record_url
    monkeypatch.delenv("DELIVERY_ACCOUNT_ID")
    result = ingest(MAIL)
    assert result.exit_code == 2
    assert "DELIVERY_ACCOUNT_ID" in result.stderr
