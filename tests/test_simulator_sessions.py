"""Creating sessions at the simulated provider: what toggles refuse, what a session states, lost and failed payments."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx2 as httpx
import pytest

from service.simulator.api import Running, open_provider
from service.simulator.sales import grouped_sale, sale
from tests.fakes import MovedClock

DATA = Path(__file__).parent / "data"
STRICT = {"Dintero-Feature-Toggles": "strict-merchant-reference"}
STRICT_SUCCESS = {"Dintero-Feature-Toggles": "other, strict-success-merchant-reference"}
PAY = {"payment_product_type": "kravia.invoice_b2b", "operation": "invoice_payment", "days_until_due": 14}


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with open_provider(clock=MovedClock()) as running:
        yield running


@pytest.fixture
async def http(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    account = running.provider.keys.account
    async with httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=0.5) as client:
        answer = await client.post(
            f"/accounts/{account.id}/auth/token",
            auth=(account.client_id, account.client_secret),
            json=json.loads((DATA / "token_request.json").read_text()),
        )
        client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


def one_step(reference: str = "order-1") -> dict[str, Any]:
    return sale(callback_url="", reference=reference, random=Random(7))


async def test_the_published_request_is_answered_as_documented(http: httpx.AsyncClient) -> None:
    body = json.loads((DATA / "sessions_pay_b2b_request.json").read_text())
    answer = (await http.post("/sessions/pay", json=body)).json()
    assert (answer["status"], answer["success"], answer["actions"]) == ("AUTHORIZED", True, [])
    session = (await http.get(f"/sessions/{answer['session_id']}")).json()
    assert session["transaction_id"] == answer["id"]


@pytest.mark.parametrize("path", ["/sessions", "/sessions-profile"])
async def test_in_two_steps_the_session_states_what_it_was_made_with(http: httpx.AsyncClient, path: str) -> None:
    body = one_step()["session"]
    details = {"enabled": True, "days_until_due": 30, "invoice_schedule": {"interval": "quarterly"}}
    body["configuration"] = {"kravia": {"invoice_b2b_grouped": details, "invoice_b2b": {"invoice_channel": "merchant"}}}
    created = (await http.post(path, json=body)).json()
    assert set(created) == {"id", "url"}
    session = (await http.get(f"/sessions/{created['id']}")).json()
    assert session["configuration"]["kravia"] == {
        "type": "payment_type",
        "invoice_b2b_grouped": {"type": "payment_product_type", **details},
        "invoice_b2b": {"type": "payment_product_type", "invoice_channel": "merchant"},
    }
    assert session["metadata"] == ({"session:profile_id": "default"} if path == "/sessions-profile" else {})
    paid = (await http.post(f"/sessions/{created['id']}/pay", json={"payment": PAY})).json()
    assert (paid["status"], paid["session_id"]) == ("AUTHORIZED", created["id"])
    assert paid["metadata"]["kravia:invoice_channel"] == "merchant"
    assert (await http.post(f"/sessions/{created['id']}/pay", json={"payment": PAY})).status_code == 400


async def test_in_one_step_it_states_the_payment(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/sessions/pay", json=grouped_sale(interval="quarterly"))).json()
    session = (await http.get(f"/sessions/{answer['session_id']}")).json()
    assert session["configuration"]["kravia"] == {
        "type": "payment_type",
        "invoice_b2b_grouped": {
            "type": "payment_product_type",
            "days_until_due": 14,
            "invoice_schedule": {"interval": "quarterly"},
            "invoice_channel": "merchant",
        },
    }


@pytest.mark.parametrize(
    "details",
    [
        {"days_until_due": 366},
        {"days_until_due": "14"},
        {"invoice_schedule": {"interval": "weekly"}},
        {"invoice_schedule": "monthly"},
        {"invoice_channel": "both"},
    ],
)
async def test_a_configuration_that_means_nothing_is_refused(http: httpx.AsyncClient, details: dict[str, Any]) -> None:
    body = one_step()["session"] | {"configuration": {"kravia": {"invoice_b2b_grouped": details}}}
    answer = await http.post("/sessions-profile", json=body)
    assert answer.status_code == 400
    assert "configuration.kravia.invoice_b2b_grouped." in answer.json()["error"]["errors"][0]["description"]


# --- the same reference twice ----------------------------------------------------------------------------------------


async def test_a_reference_may_be_used_twice_unless_a_toggle_forbids_it(
    running: Running, http: httpx.AsyncClient
) -> None:
    for headers in ({}, {}, STRICT, STRICT_SUCCESS):
        answer = await http.post("/sessions/pay", json=one_step(), headers=headers)
        assert answer.status_code == (400 if headers else 200)
        if headers:
            assert answer.json()["error"]["code"] == "INVALID_REQUEST_PARAMETER"
    assert (await http.post("/sessions/pay", json=one_step("order-2"), headers=STRICT)).status_code == 200
    assert len(running.provider.transactions) == len(running.provider.sessions) == 3
    found = (await http.get("/transactions", params={"merchant_reference": "order-1"})).json()
    assert [transaction["merchant_reference"] for transaction in found] == ["order-1", "order-1"]


@pytest.mark.parametrize("path", ["/sessions", "/sessions-profile"])
async def test_a_session_nobody_paid_uses_its_reference_up_only_for_the_stricter_toggle(
    http: httpx.AsyncClient, path: str
) -> None:
    body = one_step()["session"]
    for headers, status in (({}, 200), (STRICT, 400), (STRICT_SUCCESS, 200)):
        assert (await http.post(path, json=body, headers=headers)).status_code == status, headers


async def test_after_a_failed_payment_only_the_milder_toggle_lets_it_be_tried_again(
    running: Running, http: httpx.AsyncClient
) -> None:
    running.provider.faults.on("payment-fails", count=1, where="order-1")
    failed = await http.post("/sessions/pay", json=one_step(), headers=STRICT)
    assert failed.status_code == 200
    assert (failed.json()["status"], failed.json()["success"]) == ("FAILED", False)
    assert failed.json()["events"][-1]["error"]
    for headers, status in ((STRICT, 400), (STRICT_SUCCESS, 200), (STRICT_SUCCESS, 400)):
        assert (await http.post("/sessions/pay", json=one_step(), headers=headers)).status_code == status
    assert [t["status"] for t in running.provider.transactions.values()] == ["FAILED", "AUTHORIZED"]


async def test_strict_amounts(http: httpx.AsyncClient) -> None:
    body = one_step()["session"]
    body["order"]["amount"] += 1
    toggle = {"Dintero-Feature-Toggles": "strict-session-amounts"}
    assert (await http.post("/sessions-profile", json=body)).status_code == 200
    assert (await http.post("/sessions-profile", json=body, headers=toggle)).status_code == 400


# --- answers that are lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timeout-after", "dropped-after", "500-after", "truncated-json", "timeout-before"])
async def test_a_lost_answer_is_resolved_by_looking_the_reference_up(
    running: Running, http: httpx.AsyncClient, name: str
) -> None:
    running.provider.faults.on(name, count=1, where="pay")
    if name.startswith(("timeout", "dropped")):
        with pytest.raises((httpx.ReadTimeout, httpx.RemoteProtocolError)):
            await http.post("/sessions/pay", json=one_step(), headers=STRICT)
    else:
        answer = await http.post("/sessions/pay", json=one_step(), headers=STRICT)
        assert answer.status_code == (500 if name == "500-after" else 200)
    found = (await http.get("/transactions", params={"merchant_reference": "order-1"})).json()
    assert len(found) == (0 if name == "timeout-before" else 1)
    again = await http.post("/sessions/pay", json=one_step(), headers=STRICT)
    assert again.status_code == (200 if name == "timeout-before" else 400)
    assert len(running.provider.transactions) == 1
    assert running.provider.faults.struck == {name: 1}


async def test_a_purchase_may_be_of_another_day(running: Running) -> None:
    at = datetime(2027, 1, 5, 9, tzinfo=UTC)
    sold = running.provider.sell(at=at)
    assert {sold["created_at"], *(event["created_at"] for event in sold["events"])} == {"2027-01-05T09:00:00.000Z"}
