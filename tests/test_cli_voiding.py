"""`deliveries cancel --void`: stopped here, voided at the provider, and what is said when that did not work."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from service import delivery as d
from tests.commands import AT, command, enter, enter_sent, outcomes, shown
from tests.scripted_provider import ACCOUNT, Script
from tests.servers import Loopback, Reply, json_reply, serve
from tests.test_settings import env

REGISTERED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "kravia_timeline_synthetic.json").read_text()
)["registered"]
ONE, TWO = f"{ACCOUNT}.one", f"{ACCOUNT}.two"


class Provider:
    """What it answers, and what it was asked to void."""

    def __init__(self, script: Script, server: Loopback) -> None:
        self._script = script
        self._server = server

    def answers(self, name: str, *voiding: Reply, status: str = "AUTHORIZED") -> None:
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
    assert result.stdout == f"{ONE} is stopped here.\n{ONE} is voided at Dintero.\n"
    assert provider.asked == [ONE]
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
    assert f"{TWO} is voided at Dintero." in result.stdout
    assert "Of 2 stopped here, 1 are voided at Dintero." in result.stderr


async def test_an_account_at_fault_ends_it(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter, record_url, ONE, TWO)
    for name in (ONE, TWO):
        provider.answers(name, json_reply({}, 403))
    result = await cancel(ONE, TWO, "--yes")
    assert result.exit_code == 1
    assert provider.asked == [ONE]
    assert set((await asyncio.to_thread(outcomes)).values()) == {"cancelled"}
    assert (await last_line(ONE))[1] == "refused"
    assert "Of 2 stopped here, 0 are voided" in result.stderr


async def test_what_is_completed_is_not_voided(provider: Provider, record_url: str) -> None:
    await asyncio.to_thread(enter_sent, record_url, ONE)
    provider.answers(ONE)
    result = await cancel(ONE)
    assert (result.exit_code, result.stdout) == (1, f"{ONE} is completed and stays so.\n")
    assert provider.asked == []


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
