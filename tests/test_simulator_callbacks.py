import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.dintero.callback import signed_header
from service.serving import listen, origin, serving
from service.simulator.api import Running, open_provider
from service.simulator.sales import sale
from tests.fakes import MovedClock


class Merchant:
    """A callback URL that answers what it is told to and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[int] = []
        self.seen: list[tuple[str, list[tuple[str, str]], dict[str, str], bytes]] = []

    async def answer(self, request: Request) -> Response:
        query = parse_qsl(request.url.query, keep_blank_values=True)
        self.seen.append((request.method, query, dict(request.headers), await request.body()))
        status = self.answers.pop(0) if self.answers else 200
        return JSONResponse({}, status)

    def last(self, name: str) -> str | None:
        return dict(self.seen[-1][1]).get(name)


@asynccontextmanager
async def open_merchant() -> AsyncIterator[Merchant]:
    merchant = Merchant()
    app = Starlette(routes=[Route("/shop/callback", merchant.answer, methods=["GET", "POST"])])
    sock = listen()
    merchant.url = f"{origin(sock)}/shop/callback"
    async with serving(app, sock):
        yield merchant


@pytest.fixture
async def merchant() -> AsyncIterator[Merchant]:
    async with open_merchant() as merchant:
        yield merchant


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def running(clock: MovedClock) -> AsyncIterator[Running]:
    async with open_provider(clock=clock, callback_schedule=(30, 60)) as running:
        yield running


def bill(running: Running, callback_url: str, **changes: Any) -> dict[str, Any]:
    start = changes.pop("start", "AUTHORIZED")
    arguments: dict[str, Any] = {"random": Random(3), "reference": "Øre & sønn"} | changes
    return running.provider.bill(sale(callback_url=callback_url, **arguments), start=start)


async def test_a_callback_is_a_signed_get(running: Running, merchant: Merchant, clock: MovedClock) -> None:
    transaction = bill(running, merchant.url + "?B=b%20c&report_error=true")
    await running.caller.idle()
    [(method, query, headers, body)] = merchant.seen
    assert (method, body) == ("GET", b"")
    assert dict(query) == {
        "B": "b c",
        "report_error": "true",
        "transaction_id": transaction["id"],
        "session_id": transaction["session_id"],
        "merchant_reference": "Øre & sønn",
        "time": transaction["created_at"],
    }
    stamp, _, digest = headers["dintero-signature"].partition(",v0-hmac-sha256=")
    assert abs(int(stamp.removeprefix("t=")) - clock.now().timestamp()) < 5
    signed_query = (
        f"B=b+c&merchant_reference=%C3%98re+%26+s%C3%B8nn&report_error=true&session_id={transaction['session_id']}"
        f"&time={transaction['created_at'].replace(':', '%3A')}&transaction_id={transaction['id']}"
    )
    text = "\n".join((stamp[2:], "T12345678", "GET", "127.0.0.1", "/shop/callback", signed_query))
    secret = running.provider.keys.signature_secret.encode()
    assert digest == hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
    assert headers["event-delivery"]


async def test_a_callback_may_be_a_post_with_the_session(running: Running, merchant: Merchant) -> None:
    transaction = bill(running, merchant.url + "?method=POST&includes=session&sid_parameter_name=sid")
    await running.caller.idle()
    method, query, headers, body = merchant.seen[0]
    assert (method, headers["content-type"]) == ("POST", "application/json")
    sent = json.loads(body)
    assert (sent["id"], sent["session"]["id"]) == (transaction["id"], transaction["session_id"])
    assert dict(query)["sid"] == transaction["session_id"]
    assert "session_id" not in dict(query)


async def test_a_5xx_is_tried_again_with_a_new_signature_and_a_4xx_is_not(
    running: Running, merchant: Merchant, clock: MovedClock
) -> None:
    merchant.answers = [503, 500, 200]
    begun = clock.now()
    bill(running, merchant.url)
    await running.caller.idle()
    assert [attempt.status for attempt in running.caller.attempts] == [503, 500, 200]
    assert len({headers["dintero-signature"][:13] for _, _, headers, _ in merchant.seen}) == 3
    assert len({headers["event-delivery"] for _, _, headers, _ in merchant.seen}) == 1
    assert 90 <= (clock.now() - begun).total_seconds() < 100
    for status in (400, 401, 404):
        merchant.answers = [status]
        bill(running, merchant.url)
        await running.caller.idle()
    assert len(merchant.seen) == 6


async def test_nobody_answers_twenty_retries_long(clock: MovedClock) -> None:
    closed = listen()
    url = origin(closed)
    closed.close()
    async with open_provider(clock=clock, callback_schedule=(1,)) as running:
        bill(running, url)
        await running.caller.idle()
    assert [attempt.error for attempt in running.caller.attempts] == ["ConnectError"] * 21


async def test_a_slow_merchant_is_called_again(clock: MovedClock) -> None:
    deaf = listen()  # takes connections and never reads
    async with open_provider(clock=clock, callback_schedule=(1,), callback_timeout=0.02) as running:
        bill(running, origin(deaf))
        await running.caller.idle()
    deaf.close()
    assert {attempt.error for attempt in running.caller.attempts} == {"ReadTimeout"}
    assert len(running.caller.attempts) == 21


async def test_events_are_reported_to_those_who_asked(running: Running, merchant: Merchant) -> None:
    quiet = bill(running, merchant.url)
    asked = bill(running, merchant.url + "?report_event=VOID&report_event=CAPTURE")
    for transaction in (quiet, asked):
        running.provider.capture(transaction["id"], {"amount": transaction["amount"]})
        running.provider.pay(transaction["id"])
    await running.caller.idle()
    assert [dict(query).get("event") for _, query, _, _ in merchant.seen] == [None, None, "CAPTURE"]
    assert merchant.last("transaction_id") == asked["id"]
    assert merchant.last("event_id") == "4"
    voided = bill(running, merchant.url + "?report_event=VOID")
    running.provider.void(voided["id"])
    await running.caller.idle()
    assert merchant.last("event") == "VOID"


async def test_errors_are_reported_to_those_who_asked(running: Running, merchant: Merchant) -> None:
    bill(running, merchant.url, start="DECLINED")
    await running.caller.idle()
    assert merchant.seen == []
    bill(running, merchant.url + "?report_error=true", start="DECLINED")
    await running.caller.idle()
    assert merchant.last("error") == "authorization"
    body = sale(callback_url=merchant.url + "?report_error=true&method=POST", random=Random(1))["session"]
    running.provider.cancel(running.provider.open_session(body)["id"])
    await running.caller.idle()
    assert merchant.last("error") == "cancelled"
    assert merchant.last("transaction_id") is None
    assert merchant.seen[-1][3] == b""


async def test_a_held_transaction_is_called_about_twice(running: Running, merchant: Merchant) -> None:
    held = bill(running, merchant.url, start="ON_HOLD")
    begun = bill(running, merchant.url, start="INITIATED")
    await running.caller.idle()
    assert [dict(query)["transaction_id"] for _, query, _, _ in merchant.seen] == [held["id"]]
    running.provider.release(held["id"])
    running.provider.release(begun["id"])
    await running.caller.idle()
    assert len(merchant.seen) == 3


async def test_the_first_attempt_may_be_delayed(running: Running, merchant: Merchant, clock: MovedClock) -> None:
    begun = clock.now()
    bill(running, merchant.url + "?delay_callback=120")
    await running.caller.idle()
    assert 60 <= (clock.now() - begun).total_seconds() < 70
    assert len(merchant.seen) == 1


async def test_a_renewed_secret_signs(running: Running, merchant: Merchant) -> None:
    bill(running, merchant.url)
    await running.caller.idle()
    running.provider.keys.signature_secret = ""
    bill(running, merchant.url)
    await running.caller.idle()
    assert ["dintero-signature" in headers for _, _, headers, _ in merchant.seen] == [True, False]


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_callback_is_lost(running: Running, merchant: Merchant) -> None:
    running.provider.faults.on("callback-lost", count=1)
    bill(running, merchant.url)
    second = bill(running, merchant.url)
    await running.caller.idle()
    assert [dict(query)["transaction_id"] for _, query, _, _ in merchant.seen] == [second["id"]]


async def test_a_callback_is_sent_twice(running: Running, merchant: Merchant) -> None:
    running.provider.faults.on("callback-twice", count=1)
    bill(running, merchant.url)
    await running.caller.idle()
    first, second = merchant.seen
    assert first[1] == second[1]
    assert first[2]["event-delivery"] == second[2]["event-delivery"]


async def test_a_callback_is_sent_late_and_signed_when_it_is_sent(
    running: Running, merchant: Merchant, clock: MovedClock
) -> None:
    running.provider.faults.on("callback-late", count=1)
    begun = clock.now()
    bill(running, merchant.url)
    await running.caller.idle()
    assert (clock.now() - begun).total_seconds() >= 120
    assert abs(signed_at(merchant) - clock.now().timestamp()) < 5


async def test_a_callback_is_sent_after_the_next_one(running: Running, merchant: Merchant) -> None:
    running.provider.faults.on("callback-out-of-order", count=1)
    ids = [bill(running, merchant.url)["id"] for _ in range(3)]
    await running.caller.idle()
    assert sorted(seen_ids(merchant)) == sorted(ids)
    assert seen_ids(merchant).index(ids[0]) > seen_ids(merchant).index(ids[1])


async def test_a_callback_whose_signature_is_old_comes_again_with_a_new_one(
    running: Running, merchant: Merchant, clock: MovedClock
) -> None:
    running.provider.faults.on("callback-stale", count=1)
    merchant.answers = [503]
    bill(running, merchant.url)
    await running.caller.idle()
    ages = [clock.now().timestamp() - int(headers["dintero-signature"][2:12]) for _, _, headers, _ in merchant.seen]
    assert ages[0] > 3600
    assert ages[1] < 5


async def test_a_stranger_comes_first_with_a_signature_of_its_own(running: Running, merchant: Merchant) -> None:
    running.provider.faults.on("callback-forged", count=1)
    bill(running, merchant.url)
    await running.caller.idle()
    forged, real = merchant.seen
    assert forged[1] == real[1]
    assert [attempt.number for attempt in running.caller.attempts] == [0, 1]
    signed = running.caller.attempts[1].headers["Dintero-Signature"]
    url, at = running.caller.attempts[1].url, signed_at(merchant)
    assert signed == signed_header(running.provider.keys.signature_secret, "T12345678", "GET", url, at)
    assert forged[2]["dintero-signature"].partition(",")[2] != signed.partition(",")[2]


def seen_ids(merchant: Merchant) -> list[str]:
    return [dict(query)["transaction_id"] for _, query, _, _ in merchant.seen]


def signed_at(merchant: Merchant) -> int:
    return int(merchant.seen[-1][2]["dintero-signature"].removeprefix("t=").partition(",")[0])
