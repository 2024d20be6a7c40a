"""`deliveries cancel --void`: stopped here, voided at the provider, and what is said when that did not work."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import Result

from service import delivery as d
from service.cli_voiding import void_all
from service.settings import Need, load_settings
from tests.commands import AT, command, enter, enter_sent, outcomes, shown
from tests.scripted_provider import ACCOUNT, Script
from tests.servers import Handler, Loopback, Reply, Seen, json_reply, serve
from tests.test_cli import COMMAND, clean, to_nobody
from tests.test_settings import env

REGISTERED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "kravia_timeline_synthetic.json").read_text()
)["registered"]
ONE, TWO, THREE = f"{ACCOUNT}.one", f"{ACCOUNT}.two", f"{ACCOUNT}.three"


class Provider:
    """What it answers, and what it was asked to void."""

    def __init__(self, script: Script, server: Loopback) -> None:
        self._script = script
        self._server = server

    def answers(self, name: str, *voiding: Reply | Handler, status: str = "AUTHORIZED") -> None:
        """Answer the request to void so; `status` is what a read shows after it."""
        path = f"/checkout/v1/transactions/{name}"
        self._script.on(f"{path}/void", *(voiding or (transaction(name, "AUTHORIZATION_VOIDED"),)))
        self._script.on(path, transaction(name, status))

    @property
    def asked(self) -> list[str]:
        return [seen.target.split("/")[-2] for seen in self._server.seen if seen.target.endswith("/void")]


def transaction(name: str, status: str) -> Reply:
    return json_reply({**REGISTERED, "id": name, "status": status, "session": {"id": REGISTERED["session_id"]}})


@pytest.fixture
async def provider(record_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    script = Script()
    async with serve(script.handle) as server:
        at = {"CHECKOUT_URL": f"{server.url}/checkout/v1", "API_URL": f"{server.url}/api/v1"}
        for name, value in env(DATABASE_URL=record_url, ACCOUNT_ID=ACCOUNT, **at).items():
            monkeypatch.setenv(name, value)
        yield Provider(script, server)


def ours() -> dict[str, str]:
    """Return the settings of this test, for another process."""
    return {name: text for name, text in os.environ.items() if name.startswith("DELIVERY_")}


async def cancel(*arguments: str) -> Result:
    return await asyncio.to_thread(command, "cancel", *arguments, "--void")


async def last_line(name: str) -> tuple[str, str, str]:
    one = await asyncio.to_thread(shown, name)
    assert one["outcome"] == "cancelled"
    line = one["history"][-1]
    return line["step"], line["result"], line["detail"]


async def test_it_is_stopped_here_and_voided_there(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE)
    provider.answers(ONE)
    result = await cancel(ONE, "--reason", "sold twice")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{ONE} is stopped here, and voided at Dintero.\n"
    assert provider.asked == [ONE]
    stopped = (await asyncio.to_thread(shown, ONE))["history"][-2]["detail"]
    assert stopped.startswith("cancel by ")
    assert stopped.endswith(": sold twice; to be voided at Dintero")
    step, outcome, detail = await last_line(ONE)
    assert (step, outcome) == ("operator", "accepted")
    assert detail.startswith("void by ")
    assert detail.endswith(": voided at Dintero")


async def test_a_refusal_is_said_and_it_stays_stopped(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE)
    provider.answers(ONE, json_reply({"error": {"code": "NO", "message": "is captured, ask ola@nordmann.no"}}, 400))
    result = await cancel(ONE)
    assert result.exit_code == 1
    assert f"{ONE} is stopped here and was NOT voided at Dintero: " in result.stderr
    assert "is captured" in result.stderr
    assert "nordmann" not in result.stderr
    step, outcome, detail = await last_line(ONE)
    assert (step, outcome) == ("operator", "refused")
    assert "is captured" in detail
    assert "nordmann" not in detail


async def test_a_refusal_because_it_is_voided_is_good_news(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE)
    provider.answers(ONE, json_reply({}, 409), status="AUTHORIZATION_VOIDED")
    assert (await cancel(ONE)).exit_code == 0
    assert (await last_line(ONE))[1] == "accepted"


@pytest.mark.parametrize("lost", [Reply(cut=0), Reply(status=503, body=b"<html>")])
async def test_a_lost_answer_is_looked_up(provider: Provider, record_url: str, lost: Reply) -> None:
    await asyncio.to_thread(enter, record_url, ONE, TWO)
    provider.answers(ONE, lost, status="AUTHORIZATION_VOIDED")
    provider.answers(TWO, lost)
    assert (await cancel(ONE)).exit_code == 0
    result = await cancel(TWO)
    assert result.exit_code == 1
    assert "NOT KNOWN whether it is voided" in result.stderr
    assert "Backoffice" in result.stderr
    assert (await last_line(ONE))[1] == "accepted"
    assert (await last_line(TWO))[1] == "unconfirmed"


async def test_an_answer_that_shows_no_void_yet_is_not_known(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE)
    provider.answers(ONE, transaction(ONE, "AUTHORIZED"))
    result = await cancel(ONE)
    assert (result.exit_code, "still AUTHORIZED" in result.stderr) == (1, True)
    assert (await last_line(ONE))[1] == "unconfirmed"


async def test_one_that_fails_does_not_hold_up_the_next(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE, TWO)
    provider.answers(ONE, json_reply({}, 400))
    provider.answers(TWO)
    result = await cancel(ONE, TWO, "--yes")
    assert result.exit_code == 1
    assert provider.asked == [ONE, TWO]
    assert result.stdout == f"{TWO} is stopped here, and voided at Dintero.\n"
    assert "Of 2 stopped here, 1 are voided at Dintero." in result.stderr


async def test_an_account_at_fault_ends_it_before_the_next_is_touched(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE, TWO, THREE)
    for name in (ONE, TWO, THREE):
        provider.answers(name, json_reply({}, 403))
    result = await cancel(ONE, TWO, THREE, "--yes")
    assert result.exit_code == 1
    assert provider.asked == [ONE]
    assert await asyncio.to_thread(outcomes) == {ONE: "cancelled", TWO: "open", THREE: "open"}
    assert (await last_line(ONE))[1] == "refused"
    for name in (TWO, THREE):
        again = f"merchant-delivery deliveries cancel {name} --void"
        assert f"{name} was not reached. For this one: {again}\n" in result.stderr
    assert "Of 1 stopped here, 0 are voided" in result.stderr


async def test_what_is_completed_is_not_voided_and_that_is_said(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter_sent, record_url, ONE)
    provider.answers(ONE)
    result = await cancel(ONE)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{ONE} is completed and stays so. It was NOT voided at Dintero; " in result.stderr
    assert "Backoffice" in result.stderr
    assert provider.asked == []


class _Changed:
    """A record in which one has gone on while somebody thought about the question."""

    async def cancel(self, name: str, _asked: d.Request) -> d.Delivery:
        return d.Delivery(id=name, account_id=ACCOUNT, transaction_id=name, received_at=AT)


async def test_what_has_changed_meanwhile_is_not_voided(provider: Provider, capsys: pytest.CaptureFixture[str]) -> None:
    asked = d.Request(by="kari", at=AT, only_if=d.Outcome.FAILED)
    whole = await void_all(load_settings(need=Need.SERVE), cast("d.Store", _Changed()), [(ONE, asked)])
    assert not whole
    assert f"{ONE} is open and stays so. It was NOT voided at Dintero" in capsys.readouterr().err
    assert provider.asked == []


async def test_who_stops_it_halfway_learns_what_was_not_done(provider: Provider, record_url: str) -> None:
    """Each is voided before the next is stopped, so one at most is left in between, and the record says so."""
    await asyncio.to_thread(enter, record_url, ONE, TWO, THREE)
    provider.answers(ONE)
    process: list[asyncio.subprocess.Process] = []

    async def interrupts(_: Seen) -> Reply:
        process[0].send_signal(signal.SIGINT)
        await asyncio.sleep(30)
        raise AssertionError("it went on")

    provider.answers(TWO, interrupts)
    arguments = ["deliveries", "cancel", ONE, TWO, THREE, "--void", "--yes"]
    running = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=clean(**ours()), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    process.append(running)
    said = (await running.communicate())[1].decode()
    assert running.returncode == 1
    assert "Traceback" not in said
    assert await asyncio.to_thread(outcomes) == {ONE: "cancelled", TWO: "cancelled", THREE: "open"}
    assert f"{TWO} is stopped here. It is NOT KNOWN whether it is voided at Dintero" in said
    assert f"{THREE} was not reached" in said
    step, result, _detail = await last_line(TWO)
    assert (step, result) == ("operator", "unconfirmed")


async def test_nobody_who_listens_does_not_end_it(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE, TWO)
    for name in (ONE, TWO):
        provider.answers(name)
    arguments = ["deliveries", "cancel", ONE, TWO, "--void", "--yes"]
    status = await asyncio.to_thread(to_nobody, *arguments, **ours())
    assert status == 0
    assert provider.asked == [ONE, TWO]


async def test_a_void_can_be_said_again(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE, outcome=d.Outcome.CANCELLED, closed_at=AT)
    provider.answers(ONE)
    assert (await cancel(ONE)).exit_code == 0
    assert provider.asked == [ONE]


async def test_nothing_is_stopped_when_the_settings_will_not_do(
    record_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(enter, record_url, ONE)
    monkeypatch.delenv("DELIVERY_CLIENT_ID", raising=False)
    result = await cancel(ONE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "DELIVERY_CLIENT_ID: is required" in result.stderr
    assert await asyncio.to_thread(outcomes) == {ONE: "open"}
