"""Webhook subscriptions at the simulated provider: made, told, pinged, and gone after failures."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.serving import listen, origin, serving
from service.simulator.api import Running, open_provider
from service.simulator.sales import sale
from tests.fakes import MovedClock

DATA = Path(__file__).parent / "data"
SECRET = "swordfish"


class Shop:
    """Where webhooks go; it answers what it is told to and remembers what it was sent."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[int] = []
        self.seen: list[tuple[dict[str, str], bytes]] = []

    async def answer(self, request: Request) -> Response:
        self.seen.append((dict(request.headers), await request.body()))
        status = self.answers.pop(0) if self.answers else 204
        return Response(status_code=status, headers={"location": self.url} if status == 302 else {})

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        return [(headers["event"], json.loads(body)) for headers, body in self.seen]


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    shop = Shop()
    sock = listen()
    shop.url = f"{origin(sock)}/w"
    async with serving(Starlette(routes=[Route("/w", shop.answer, methods=["POST"])]), sock):
        yield shop


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def running(clock: MovedClock) -> AsyncIterator[Running]:
    async with open_provider(clock=clock) as running:
        yield running


def subscribe(running: Running, shop: Shop, *events: str) -> dict[str, Any]:
    secret = {"type": "HMAC-SHA1", "secret": SECRET}
    config = {"url": shop.url, "content_type": "application/json", "secret": secret, "insecure_ssl": 0}
    wanted = events or ("checkout_authorization", "checkout_transaction")
    return running.provider.webhooks.create({"config": config, "events": list(wanted)})


def bill(running: Running, start: Any = "AUTHORIZED") -> str:
    return str(running.provider.bill(sale(callback_url="", random=Random(3)), start=start)["id"])


async def test_a_subscription_is_made_listed_pinged_and_deleted(running: Running, shop: Shop) -> None:
    keys = running.provider.keys
    path = f"/accounts/{keys.account.id}/hooks/subscriptions"
    wanted = json.loads((DATA / "webhook_subscription_create_request.json").read_text())
    wanted["config"]["url"] = shop.url
    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as http:
        assert (await http.post(path, json=wanted)).status_code == 401
        audience = {"grant_type": "client_credentials", "audience": f"/v1/accounts/{keys.account.id}"}
        login = (keys.account.client_id, keys.account.client_secret)
        token = await http.post(f"/accounts/{keys.account.id}/auth/token", auth=login, json=audience)
        http.headers["authorization"] = f"Bearer {token.json()['access_token']}"
        assert (await http.get("/accounts/T87654321/hooks/subscriptions")).status_code == 403
        created = await http.post(path, json=wanted)
        assert created.status_code == 201
        assert (await http.get(path)).json() == [created.json()]
        assert "<shared secret>" not in created.text
        assert (await http.post(f"{path}/{created.json()['id']}/ping")).status_code == 204
        await running.caller.idle()
        assert shop.told() == [("ping", created.json())] * 2
        assert (await http.delete(f"{path}/{created.json()['id']}")).status_code == 204
        assert (await http.get(path)).json() == []
        assert (await http.delete(f"{path}/{created.json()['id']}")).status_code == 404
        assert (await http.post(f"{path}/{created.json()['id']}/ping")).status_code == 404
        bad: dict[str, Any]
        for bad in ({}, wanted | {"events": ["odd"]}, wanted | {"config": {"url": shop.url}}):
            assert (await http.post(path, json=bad)).status_code == 400


async def test_webhooks_have_the_documented_shape_and_signature(running: Running, shop: Shop) -> None:
    subscribe(running, shop)
    transaction_id = bill(running)
    await running.caller.idle()
    (_, ping), (first, authorization), (second, transaction) = shop.told()
    assert (first, second) == ("checkout_authorization", "checkout_transaction")
    assert ping["events"] == [first, second]
    shape = json.loads((DATA / "webhook_checkout_transaction.json").read_text())
    assert set(transaction) == set(shape)
    assert set(transaction["transaction"]) <= set(shape["transaction"])
    assert transaction["transaction"]["id"] == transaction_id
    assert authorization["authorization"]["transaction_id"] == authorization["transaction"]["id"] == transaction_id
    for headers, body in shop.seen:
        assert headers["event-signature"] == hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()
        assert headers["user-agent"].startswith("Dintero-Hook/")
        assert headers["event-delivery"]
    assert shop.seen[1][0]["event-delivery"] == authorization["event_delivery"]


async def test_what_is_not_an_authorization_is_told_as_a_changed_transaction(running: Running, shop: Shop) -> None:
    subscribe(running, shop, "checkout_authorization")
    session_id = running.provider.open_session(sale(callback_url="", random=Random(3))["session"])["id"]
    running.provider.cancel(session_id)
    transaction_id = bill(running)
    running.provider.void(transaction_id)
    await running.caller.idle()
    (_, cancelled), (_, authorized) = shop.told()[1:]
    shape = json.loads((DATA / "webhook_checkout_authorization_cancelled.json").read_text())
    assert set(cancelled) == set(shape)
    assert cancelled["authorization"]["error"] == "cancelled"
    assert "error" not in authorized["authorization"]
    shop.seen.clear()
    subscribe(running, shop, "checkout_transaction")
    begun = bill(running)
    running.provider.capture(begun, {"amount": running.provider.transaction(begun)["amount"]})
    await running.caller.idle()
    assert [event for event, _ in shop.told()].count("checkout_transaction") == 2


async def test_any_2xx_acknowledges_and_anything_else_comes_again(running: Running, shop: Shop) -> None:
    subscribe(running, shop, "checkout_transaction")
    await running.caller.idle()
    shop.answers = [500, 404, 302, 202]
    bill(running)
    await running.caller.idle()
    sent = shop.seen[1:]
    assert len(sent) == 4
    assert len({(headers["event-delivery"], body) for headers, body in sent}) == 1
    assert len(running.provider.webhooks.listed()) == 1


async def test_five_failures_in_a_row_delete_a_subscription(running: Running, shop: Shop) -> None:
    subscribe(running, shop, "checkout_transaction")
    await running.caller.idle()
    shop.answers = [500] * 4 + [200] + [500] * 5
    bill(running)
    await running.caller.idle()
    assert len(running.provider.webhooks.listed()) == 1
    bill(running)
    await running.caller.idle()
    assert running.provider.webhooks.listed() == []
    heard = len(shop.seen)
    bill(running)
    await running.caller.idle()
    assert len(shop.seen) == heard


async def test_a_stranger_may_forge_a_webhook_and_one_may_get_lost(running: Running, shop: Shop) -> None:
    subscribe(running, shop, "checkout_transaction")
    await running.caller.idle()
    shop.seen.clear()
    running.provider.faults.on("callback-forged", count=1, where="webhook")
    bill(running)
    await running.caller.idle()
    right = [
        headers["event-signature"] == hmac.new(SECRET.encode(), body, "sha1").hexdigest() for headers, body in shop.seen
    ]
    assert right == [False, True]
    running.provider.faults.on("callback-lost", count=1)
    bill(running)
    await running.caller.idle()
    assert len(shop.seen) == 2
