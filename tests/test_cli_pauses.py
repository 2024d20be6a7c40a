"""`pause`, `resume` and `pauses`: what a person holds."""

import getpass
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest

from service import delivery as d
from tests.commands import ACCOUNT, run, within
from tests.fakes import FakeChannel
from tests.test_settings import env


@asynccontextmanager
async def open_post(_context: d.ChannelContext) -> AsyncIterator[FakeChannel]:
    yield FakeChannel("post")


def open_nothing(_context: d.ChannelContext) -> NoReturn:
    raise OSError("no such office")


@pytest.fixture
def record(record_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty record of a service with a channel that comes with it, and one from outside."""
    settings = env(DATABASE_URL=record_url, ACCOUNT_ID=ACCOUNT, CHANNELS=f"{__name__}:open_post,email")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return record_url


def paused(url: str) -> dict[str, d.Pause]:
    return {pause.lane: pause for pause in within(url, lambda store: store.pauses(ACCOUNT))}


@pytest.mark.parametrize("lane", ["email", "post", "provider"])
def test_a_person_pauses_and_resumes(record: str, lane: str) -> None:
    result = run("pause", lane, "--reason", "we move, ask ola@nordmann.example")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{lane} is paused, until `merchant-delivery resume {lane}`.\n"
    (pause,) = paused(record).values()
    assert (pause.lane, pause.by, pause.next_probe_at) == (lane, getpass.getuser(), None)
    assert pause.reason.startswith("we move, ask ")
    assert "nordmann" not in pause.reason
    result = run("resume", lane)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{lane} goes on.\n", "")
    assert paused(record) == {}
    result = run("resume", lane)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{lane} was not paused.\n")


def test_a_persons_pause_takes_the_place_of_a_faults(record: str) -> None:
    within(record, lambda store: store.pause(ACCOUNT, "email", "535 no", by=None, probe_in=60))
    assert "was paused already, and now is by you" in run("pause", "email", "--reason", "new server").stdout
    pause = paused(record)["email"]
    assert (pause.by, pause.reason, pause.next_probe_at) == (getpass.getuser(), "new server", None)


@pytest.mark.parametrize("command", [("pause", "fax", "--reason", "x"), ("resume", "fax")])
def test_another_name_is_2_and_names_those_there_are(record: str, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "fax is no channel here; there are: post, email, provider." in result.stderr
    assert paused(record) == {}


@pytest.mark.parametrize("why", [(), ("--reason", " ")])
def test_a_pause_has_a_reason(record: str, why: tuple[str, ...]) -> None:
    assert run("pause", "email", *why).exit_code == 2
    assert paused(record) == {}


def test_what_is_not_used_any_more_can_still_be_resumed(record: str) -> None:
    within(record, lambda store: store.pause(ACCOUNT, "fax", "broken", by=None, probe_in=60))
    assert run("resume", "fax").exit_code == 0
    assert paused(record) == {}


def test_a_channel_that_cannot_be_opened_is_2_and_holds_up_the_provider_not(
    record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DELIVERY_CHANNELS", f"{__name__}:open_nothing,email")
    result = run("pause", "email", "--reason", "x")
    assert result.exit_code == 2
    assert "no such office" in result.stderr
    assert paused(record) == {}
    assert run("pause", "provider", "--reason", "x").exit_code == 0
    assert set(paused(record)) == {"provider"}


@pytest.mark.parametrize("command", [("pause", "email", "--reason", "x"), ("resume", "email"), ("pauses",)])
def test_the_settings_are_needed(record_url: str, command: tuple[str, ...]) -> None:
    assert record_url
    result = run(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "DELIVERY_ACCOUNT_ID: is required" in result.stderr


def test_looking_and_going_on_need_the_record_and_the_account_alone(
    record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is on duty has a shell, and not always every secret of the service."""
    within(record, lambda store: store.pause(ACCOUNT, "email", "535 no", by=None, probe_in=60))
    for name in env():
        if name not in ("DELIVERY_ACCOUNT_ID", "DELIVERY_DATABASE_URL"):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DELIVERY_CONCURRENCY", "none")
    assert [one["channel"] for one in json.loads(run("pauses", "--json").stdout)] == ["email"]
    result = run("resume", "email")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "email goes on.\n", "")
    assert run("pause", "provider", "--reason", "stocktaking").exit_code == 0
    result = run("resume", "fax")  # is it a channel? Only the settings tell
    assert result.exit_code == 2
    assert "DELIVERY_CLIENT_ID: is required" in result.stderr
    assert set(paused(record)) == {"provider"}


def test_pauses_are_listed(record: str) -> None:
    empty = run("pauses")
    assert (empty.exit_code, empty.stdout, empty.stderr) == (0, "", "Nothing is paused.\n")
    assert json.loads(run("pauses", "--json").stdout) == []
    within(record, lambda store: store.pause(ACCOUNT, "email", "535 no", by=None, probe_in=60))
    run("pause", "provider", "--reason", "stocktaking")
    email, provider = json.loads(run("pauses", "--json").stdout)
    assert email.keys() == provider.keys() == {"channel", "reason", "since", "by", "next_probe_at"}
    assert (email["channel"], email["reason"], email["by"]) == ("email", "535 no", None)
    assert email["next_probe_at"] > email["since"]
    assert (provider["channel"], provider["by"], provider["next_probe_at"]) == ("provider", getpass.getuser(), None)
    head, first, second = run("pauses").stdout.splitlines()
    assert head.split()[0] == "CHANNEL"
    assert first.split()[0] == "email"
    assert first.endswith("535 no")
    assert getpass.getuser() in second
