import json
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx2 as httpx
import pytest

from service.serving import listen
from service.simulator.api import Running, open_provider
from service.simulator.documents import Personality
from service.simulator.sales import sale
from tests.fakes import MovedClock

DATA = Path(__file__).parent / "data"


class Merchant:
    """A client of the provider, as a merchant's system would be one."""

    def __init__(self, running: Running, http: httpx.AsyncClient) -> None:
        self.running = running
        self.provider = running.provider
        self.http = http

    async def sign_in(self) -> None:
        account = self.provider.keys.account
        answer = await self.http.post(
            f"/accounts/{account.id}/auth/token",
            auth=(account.client_id, account.client_secret),
            json=json.loads((DATA / "token_request.json").read_text()),
        )
        assert answer.status_code == 200
        assert answer.json()["expires_in"] == 14400
        self.http.headers["authorization"] = f"Bearer {answer.json()['access_token']}"

    async def bill(self, **changes: Any) -> dict[str, Any]:
        answer = await self.http.post("/sessions/pay", json=order(**changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def read(self, transaction_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/transactions/{transaction_id}", params={"includes": "session"})
        assert answer.status_code == 200
        return dict(answer.json())

    async def capture(self, transaction: dict[str, Any], **changes: Any) -> httpx.Response:
        body = {
            "amount": transaction["amount"],
            "capture_reference": "ours",
            "items": [{"line_id": item["line_id"], "amount": item["amount"]} for item in transaction["items"]],
        }
        return await self.http.post(f"/transactions/{transaction['id']}/capture", json=body | changes)


def order(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"callback_url": "", "random": Random(7)}
    return sale(**(arguments | changes))


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def personality() -> Personality:
    return "current"


@pytest.fixture
async def merchant(clock: MovedClock, personality: Personality) -> AsyncIterator[Merchant]:
    async with (
        open_provider(clock=clock, personality=personality) as running,
        httpx.AsyncClient(base_url=running.url, trust_env=False) as http,
    ):
        merchant = Merchant(running, http)
        await merchant.sign_in()
        yield merchant


seed = pytest.mark.parametrize("personality", ["seed"])


async def test_a_token_needs_the_right_client(merchant: Merchant) -> None:
    body = json.loads((DATA / "token_request.json").read_text())
    path = f"/accounts/{merchant.provider.keys.account.id}/auth/token"
    wrong = await merchant.http.post(path, auth=("simulated-client", "wrong"), json=body)
    assert wrong.status_code == 401
    right = ("simulated-client", "simulated-client-secret")
    assert (await merchant.http.post("/accounts/T00000000/auth/token", auth=right, json=body)).status_code == 401
    assert (await merchant.http.post(path, auth=right, json=body | {"grant_type": "password"})).status_code == 400
    assert merchant.provider.keys.issued == 1


@pytest.mark.parametrize("path", ["/transactions", "/transactions/T12345678.x", "/files/x", "/admin/checkout"])
async def test_nothing_without_a_token(merchant: Merchant, path: str) -> None:
    answer = await merchant.http.get(path, headers={"authorization": "Bearer other"})
    assert answer.status_code == 401
    assert answer.json() == {"error": {"message": "invalid JWT"}}


async def test_a_token_ends(merchant: Merchant, clock: MovedClock) -> None:
    clock.advance(14399)
    assert (await merchant.http.get("/transactions")).status_code == 200
    clock.advance(2)
    assert (await merchant.http.get("/transactions")).status_code == 401
    await merchant.sign_in()
    merchant.provider.keys.revoke()
    assert (await merchant.http.get("/transactions")).status_code == 401


async def test_unknown_things_are_404_in_the_documented_shape(merchant: Merchant) -> None:
    shape = json.loads((DATA / "error.json").read_text())["error"]
    for path in ("/transactions/T12345678.none", "/sessions/none", "/files/none"):
        answer = await merchant.http.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == shape["code"]
    assert (await merchant.http.get("/nothing")).json() == {"error": {"message": "Not found"}}
    assert (await merchant.http.delete("/transactions")).status_code == 405


async def test_a_new_transaction_has_the_documented_shape(merchant: Merchant) -> None:
    registered = json.loads((DATA / "kravia_timeline_synthetic.json").read_text())["registered"]
    answer = await merchant.bill()
    assert answer["success"]
    transaction = await merchant.read(answer["id"])
    assert set(registered) <= set(transaction)
    assert set(registered["metadata"]) == set(transaction["metadata"])
    assert set(registered["items"][0]) == set(transaction["items"][0])
    assert set(registered["billing_address"]) <= set(transaction["billing_address"])
    for theirs, ours in zip(registered["events"], transaction["events"], strict=True):
        assert set(theirs) == set(ours)
        assert (theirs["event"], theirs["transaction_status"]) == (ours["event"], ours["transaction_status"])
    assert set(registered["events"][1]["metadata"]) == set(transaction["events"][1]["metadata"])
    assert transaction["metadata"]["kravia:invoice_number"] == "A1B2C-000001"
    assert transaction["session"]["id"] == transaction["session_id"]
    second = await merchant.bill()
    assert second["metadata"]["kravia:invoice_number"] == "A1B2C-000002"


async def test_the_published_bill_is_taken(merchant: Merchant) -> None:
    body = json.loads((DATA / "sessions_pay_b2b_request.json").read_text())
    merchant.running.caller.schedule = (0,)
    body["session"]["url"] = {}
    answer = await merchant.http.post("/sessions/pay", json=body)
    assert answer.status_code == 200
    assert answer.json()["status"] == "AUTHORIZED"


async def test_a_session_is_paid_in_two_steps_and_once(merchant: Merchant) -> None:
    body = json.loads((DATA / "sessions_profile_request_merchant_channel_seed.json").read_text())
    body["url"] = {}
    session = (await merchant.http.post("/sessions-profile", json=body)).json()
    payment = {"payment_product_type": "kravia.invoice_b2b", "billing_address": {"email": "a@b.example"}}
    answer = await merchant.http.post(f"/sessions/{session['id']}/pay", json=payment)
    assert answer.json()["billing_address"] == {"email": "a@b.example"}
    assert answer.json()["metadata"]["kravia:invoice_channel"] == "merchant"
    read = (await merchant.http.get(f"/sessions/{session['id']}")).json()
    assert read["transaction_id"] == answer.json()["id"]
    assert read["metadata"] == {"session:profile_id": "default"}
    assert (await merchant.http.post(f"/sessions/{session['id']}/pay", json=payment)).status_code == 400


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("session", "order", "amount"), 0),
        (("session", "order", "amount"), 10.5),
        (("session", "order", "amount"), True),
        (("session", "order", "currency"), None),
        (("payment", "days_until_due"), None),
        (("payment", "days_until_due"), 366),
        (("payment", "operation"), "card"),
        (("payment", "payment_product_type"), None),
        (("session", "configuration"), "merchant"),
        (("session", "url"), {"callback_url": "ftp://x"}),
    ],
)
async def test_a_bad_order_is_refused(merchant: Merchant, path: tuple[str, ...], value: object) -> None:
    body = order()
    place = body
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    answer = await merchant.http.post("/sessions/pay", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "INVALID_REQUEST_PARAMETER"
    assert path[-1] in error["errors"][0]["description"]
    assert merchant.provider.transactions == {}


async def test_a_capture_begins_collection_and_payment_ends_it(merchant: Merchant) -> None:
    timeline = json.loads((DATA / "kravia_timeline_synthetic.json").read_text())
    transaction = await merchant.bill()
    answer = await merchant.capture(transaction)
    assert (answer.status_code, answer.json()["status"]) == (200, "AUTHORIZED")
    begun = answer.json()["events"][-1]
    assert begun["event_reference"] == "ours"
    assert set(timeline["collection_started"]["events"][-1]) <= set(begun)
    assert begun["event"] == "INITIATE_CAPTURE"
    merchant.provider.pay(transaction["id"])
    paid = await merchant.read(transaction["id"])
    assert paid["status"] == "CAPTURED"
    assert set(paid["events"][-1]) == set(timeline["paid"]["events"][-1])
    assert paid["events"][-1]["correlation_request_id"] == begun["request_id"]


@seed
async def test_the_seed_moves_to_captured(merchant: Merchant) -> None:
    transaction = await merchant.bill()
    assert "kravia:invoice_channel" not in transaction["metadata"]
    answer = await merchant.capture(transaction)
    assert answer.json()["status"] == "CAPTURED"
    assert answer.json()["events"][-1]["event"] == "CAPTURE"
    assert answer.json()["events"][-1]["event_reference"] == "ours"
    assert (await merchant.capture(transaction)).status_code == 400
    assert (await merchant.http.post(f"/transactions/{transaction['id']}/void")).status_code == 400


async def test_a_second_capture_is_refused(merchant: Merchant) -> None:
    transaction = await merchant.bill()
    assert (await merchant.capture(transaction)).status_code == 200
    assert (await merchant.capture(transaction)).status_code == 409
    merchant.provider.pay(transaction["id"])
    assert (await merchant.capture(transaction)).status_code == 409
    assert len(merchant.provider.captures) == 1
    assert merchant.provider.captures[0].body["amount"] == transaction["amount"]
    assert len(merchant.provider.captures_asked) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 1},
        {"amount": None},
        {"amount": "50000"},
        {"items": [{"line_id": "1", "amount": 1}]},
        {"items": [{"line_id": "9", "amount": 50000}]},
        {"items": [{"amount": 50000}]},
        {"items": [{"line_id": "1", "amount": 25000}, {"line_id": "1", "amount": 25000}]},
        {"items": [{"line_id": "1", "amount": 25000}, {"line_id": "2", "amount": 25000}], "amount": 49999},
    ],
)
async def test_a_capture_that_does_not_add_up_is_refused(merchant: Merchant, changes: dict[str, Any]) -> None:
    transaction = await merchant.bill()
    lines = [{"line_id": "1", "amount": 25000}, {"line_id": "2", "amount": 25000}]
    merchant.provider.edit(transaction["id"], lambda document: document.update(amount=50000, items=lines))
    answer = await merchant.capture({**transaction, "amount": 50000, "items": lines}, **changes)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_REQUEST_PARAMETER"
    assert not merchant.provider.begun(transaction["id"])
    assert (await merchant.capture({**transaction, "amount": 50000}, items=None)).status_code == 200


async def test_a_capture_may_name_the_shipping_option(merchant: Merchant) -> None:
    transaction = await merchant.bill()
    shipping = {"line_id": "s", "amount": 4900}
    merchant.provider.edit(
        transaction["id"], lambda document: document.update(amount=14900, shipping_option=shipping, items=[])
    )
    body = {"amount": 14900, "items": [shipping, {"line_id": "1", "amount": 10000}]}
    assert (await merchant.capture(transaction, **body)).status_code == 400
    merchant.provider.edit(transaction["id"], lambda document: document["items"].append({"line_id": "1"}))
    assert (await merchant.capture(transaction, **body)).status_code == 200


@pytest.mark.parametrize(("personality", "event"), [("seed", "CAPTURE"), ("current", "INITIATE_CAPTURE")])
async def test_kravia_collects_by_itself_what_it_delivers(merchant: Merchant, event: str) -> None:
    transaction = await merchant.bill(channel="kravia")
    assert transaction["events"][-1]["event"] == event
    assert (await merchant.capture(transaction)).status_code in (400, 409)
    assert merchant.provider.captures == []


async def test_who_delivers_is_found_along_the_levels(merchant: Merchant) -> None:
    def options(value: str, name: str = "invoice_channel") -> dict[str, Any]:
        return {"payment_options": [{"type": "kravia.invoice_b2b", "details": {name: value}}]}

    async def channel(profile_id: str | None = None, configuration: dict[str, Any] | None = None) -> str:
        body = order(channel=None)
        body["session"] |= {"profile_id": profile_id, "configuration": configuration or {}}
        answer = await merchant.http.post("/sessions/pay", json=body)
        return str(answer.json()["metadata"]["kravia:invoice_channel"])

    assert await channel() == "kravia"
    answer = await merchant.http.put("/admin/checkout", json={"configuration": options("merchant")})
    assert answer.status_code == 200
    assert (await merchant.http.get("/admin/checkout")).json() == {"configuration": options("merchant")}
    assert await channel() == "merchant"
    merchant.provider.profiles["p1"] = {
        "id": "p1",
        "configuration": options("provider", "invoice_delivery_method"),
    }
    assert (await merchant.http.get("/admin/session/profiles")).json() == [merchant.provider.profiles["p1"]]
    assert await channel("p1") == "kravia"
    assert await channel("p1", options("merchant")) == "merchant"


async def test_a_client_without_the_scope_reads_no_configuration(merchant: Merchant) -> None:
    merchant.provider.keys.reads_configuration = False
    for path in ("/admin/checkout", "/admin/session/profiles", "/admin/signature"):
        assert (await merchant.http.get(path)).status_code == 403
    assert (await merchant.http.get("/transactions")).status_code == 200


async def test_the_signature_secret_is_read_and_renewed(merchant: Merchant) -> None:
    shape = json.loads((DATA / "signature_secret_response.json").read_text())
    first = (await merchant.http.get("/admin/signature")).json()
    assert set(first) == set(shape)
    assert first["signature"] == {"type": "v0-hmac-sha256", "secret": merchant.provider.keys.signature_secret}
    second = (await merchant.http.post("/admin/signature")).json()
    assert second["signature"]["secret"] == merchant.provider.keys.signature_secret != first["signature"]["secret"]


async def test_a_listing_is_filtered_and_paged(merchant: Merchant, clock: MovedClock) -> None:
    ids = []
    for place in range(12):
        clock.advance(60)
        ids.append((await merchant.bill(reference=f"order-{place % 3}"))["id"])
    provider = merchant.provider
    provider.void(ids[0])
    provider.edit(ids[1], lambda document: document.update(payment_product="other", payment_product_type="other.card"))
    provider.edit(ids[2], lambda document: document.update(amount=7))

    async def in_order(**params: Any) -> list[str]:
        answer = await merchant.http.get("/transactions", params=params)
        assert answer.status_code == 200, answer.text
        return [transaction["id"] for transaction in answer.json()]

    async def listed(**params: Any) -> list[str]:
        """Return the ids, oldest first."""
        return sorted(await in_order(**params), key=ids.index)

    every = await in_order(limit=100)
    assert sorted(every) == sorted(ids)
    assert every not in (ids, ids[::-1])  # nobody may rely on an order
    assert await in_order() == every[:10]
    assert await in_order(limit=5, starting_after=every[6]) == every[7:]
    assert await in_order(limit=100, starting_after=every[-1]) == []
    assert await listed(status="AUTHORIZATION_VOIDED") == [ids[0]]
    assert await listed(limit=100, status=["AUTHORIZATION_VOIDED", "AUTHORIZED"]) == ids
    assert await listed(limit=100, payment_product="kravia") == [id_ for id_ in ids if id_ != ids[1]]
    assert await listed(payment_product_type="other.card") == [ids[1]]
    assert await listed(merchant_reference="order-2") == [ids[2], ids[5], ids[8], ids[11]]
    assert await listed(session_id=provider.transactions[ids[3]]["session_id"]) == [ids[3]]
    assert await listed(id=[ids[6], ids[4]]) == [ids[4], ids[6]]
    assert await listed(amount=7) == [ids[2]]
    assert await listed(**{"amount.lte": 7}) == [ids[2]]
    assert await listed(limit=100, **{"amount.gte": 8}) == [id_ for id_ in ids if id_ != ids[2]]
    edge = clock.now() - timedelta(seconds=90)
    assert await listed(**{"created_at.gte": edge.isoformat()}) == ids[10:]
    naive = edge.replace(tzinfo=None).isoformat()
    assert await listed(limit=100, **{"created_at.lte": naive}) == ids[:10]


async def test_a_listing_that_grows_while_it_is_paged_still_shows_what_was_there(merchant: Merchant) -> None:
    there = {(await merchant.bill())["id"] for _ in range(9)}
    seen: list[str] = []
    while len(page := (await merchant.http.get("/transactions", params=after(seen))).json()) == 2:
        seen += [transaction["id"] for transaction in page]
        await merchant.bill()
    assert there <= {*seen, *(transaction["id"] for transaction in page)}


def after(seen: list[str]) -> dict[str, str]:
    return {"limit": "2"} | ({"starting_after": seen[-1]} if seen else {})


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "created_at.gte=soon", "amount.gte=1.5"])
async def test_a_bad_filter_is_refused(merchant: Merchant, query: str) -> None:
    answer = await merchant.http.get(f"/transactions?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]["errors"][0]["description"]


async def test_a_file_comes_in_three_ways(merchant: Merchant) -> None:
    transaction = await merchant.bill()
    provider, url = merchant.provider, transaction["metadata"]["kravia:invoice_url"]
    content = provider.document(transaction["id"])
    descriptor = (await merchant.http.get(url)).json()
    assert set(descriptor) == set(json.loads((DATA / "file_descriptor.json").read_text()))
    async with httpx.AsyncClient(trust_env=False) as stranger:
        assert (await stranger.get(descriptor["url"])).content == content
        assert (await stranger.get(url)).status_code == 401
        assert (await stranger.get(merchant.running.cdn_url + "/files/none")).status_code == 404
    provider.file_way = "bytes"
    assert (await merchant.http.get(url)).content == content
    provider.file_ways[provider.file_of(transaction["id"])] = "redirect"
    answer = await merchant.http.get(url)
    assert (answer.status_code, answer.headers["location"]) == (302, descriptor["url"])
    assert httpx.URL(descriptor["url"]).port != httpx.URL(merchant.running.url).port
    provider.replace_document(transaction["id"], b"<html>")
    async with httpx.AsyncClient(trust_env=False) as stranger:
        assert (await stranger.get(descriptor["url"])).content == b"<html>"
    last = provider.requests[-1]
    assert (last.endpoint, last.headers["host"]) == ("cdn", httpx.URL(descriptor["url"]).netloc.decode())


async def test_void_and_cancel(merchant: Merchant) -> None:
    first, second = await merchant.bill(), await merchant.bill()
    voided = (await merchant.http.post(f"/transactions/{first['id']}/void")).json()
    assert voided["status"] == "AUTHORIZATION_VOIDED"
    assert voided["events"][-1]["event"] == "VOID"
    assert (await merchant.http.post(f"/transactions/{first['id']}/void")).status_code == 400
    session = (await merchant.http.post(f"/sessions/{second['session_id']}/cancel")).json()
    assert "cancelled_at" in session
    assert (await merchant.read(second["id"]))["status"] == "AUTHORIZATION_VOIDED"
    assert (await merchant.http.post(f"/sessions/{first['session_id']}/cancel")).status_code == 400


async def test_a_held_transaction_has_no_invoice_before_it_is_released(merchant: Merchant) -> None:
    answer = merchant.provider.bill(order(), start="ON_HOLD")
    assert "kravia:invoice_number" not in (await merchant.read(answer["id"]))["metadata"]
    merchant.provider.release(answer["id"])
    released = await merchant.read(answer["id"])
    assert released["status"] == "AUTHORIZED"
    assert released["metadata"]["kravia:invoice_number"] == "A1B2C-000001"
    merchant.provider.hold(answer["id"])
    assert (await merchant.read(answer["id"]))["status"] == "ON_HOLD"
    assert (await merchant.capture(released)).status_code == 409
    merchant.provider.release(answer["id"])
    assert (await merchant.read(answer["id"]))["metadata"] == released["metadata"]


@pytest.mark.parametrize(("personality", "status"), [("current", "AUTHORIZED"), ("seed", "CAPTURED")])
async def test_a_grouped_purchase_has_no_invoice_of_its_own(merchant: Merchant, status: str) -> None:
    body = order(channel=None)
    body["payment"]["payment_product_type"] = "kravia.invoice_b2b_grouped"
    answer = (await merchant.http.post("/sessions/pay", json=body)).json()
    assert answer["status"] == status
    assert "kravia:invoice_number" not in answer["metadata"]


async def test_a_declined_payment_says_so(merchant: Merchant) -> None:
    answer = merchant.provider.bill(order(), start="DECLINED")
    assert not answer["success"]
    read = await merchant.read(answer["id"])
    assert (read["status"], read["events"][-1]["success"]) == ("DECLINED", False)


async def test_the_same_seed_gives_the_same_ids() -> None:
    ids = []
    for _ in range(2):
        async with open_provider(clock=MovedClock(), seed=5) as running:
            ids.append(running.provider.bill(order())["id"])
    assert ids[0] == ids[1]


async def test_answers_do_not_wait_for_acknowledgements() -> None:
    sock = listen()
    assert sock.proto == socket.IPPROTO_TCP  # what asyncio asks for before it sets TCP_NODELAY
    sock.close()
