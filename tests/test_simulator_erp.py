"""The simulated ERP, asked by the channel that posts to it: what it takes, what it checks, and its faults."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from random import Random

import httpx2 as httpx
import pytest

from service.channels.http import HttpChannel, open_http, signature
from service.delivery import (
    AccountFailure,
    ChannelContext,
    Composed,
    DeliveryFailure,
    MessageTooLarge,
    Party,
    PermanentFailure,
    TransientFailure,
    UnconfirmedFailure,
)
from service.simulator.erp import ErpServer, open_erp
from service.simulator.faults import KINDS, Faults
from service.simulator.troubles import INVOICES
from tests.fakes import ACCOUNT, MovedClock
from tests.test_sms import INTENT, MESSAGE, transaction

PDF = b"%PDF-1.4\n%%EOF\n"
SECRET = "a-secret-of-the-erp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The channel, and the ERP behind it."""

    channel: HttpChannel
    erp: ErpServer

    def composed(self) -> Composed:
        about = replace(transaction(), billing=Party(business_name="Fjordbygg AS", country="NO"))
        message = replace(MESSAGE, about=about, document_name="faktura.pdf")
        return self.channel.compose(message, PDF, self.channel.recipient(about), INTENT)

    async def send(self) -> str:
        return (await self.channel.send(self.composed())).answer


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    clock = MovedClock()
    async with AsyncExitStack() as stack:
        erp = await stack.enter_async_context(open_erp(ErpServer(clock=clock, secret=SECRET, faults=Faults(Random(1)))))
        given = {"HTTP_URL": erp.url, "HTTP_SECRETS": SECRET, "HTTP_ALLOW_PRIVATE": "true"}
        environ = tuple((f"DELIVERY_{name}", text) for name, text in given.items())
        context = ChannelContext(account_id=ACCOUNT, clock=clock, environ=environ)
        yield Desk(channel=await stack.enter_async_context(open_http(context)), erp=erp)


async def test_an_invoice_is_booked_once_however_often_it_comes(desk: Desk) -> None:
    assert [await desk.send(), await desk.send()] == ["the endpoint answered 200"] * 2
    (posted,) = desk.erp.inbox
    assert (posted.key, posted.document, posted.buyer) == (INTENT.key, PDF, "Fjordbygg AS")
    assert desk.erp.came == {INTENT.key: 2}
    assert "base64" not in json.loads(posted.content)["document"]
    assert "204" in await desk.channel.check()
    assert desk.erp.refused == []


FAILURES: dict[str, type[DeliveryFailure] | None] = {
    "erp-throttled": TransientFailure,
    "erp-503": TransientFailure,
    "erp-422": PermanentFailure,
    "erp-413": MessageTooLarge,
    "erp-401": AccountFailure,
    "erp-409": None,
    "erp-410": AccountFailure,
    "erp-500": UnconfirmedFailure,
    "erp-500-taken": UnconfirmedFailure,
    "erp-slow": None,
    "erp-silent": UnconfirmedFailure,
    "erp-silent-before": UnconfirmedFailure,
    "erp-redirect": AccountFailure,
}


def test_every_fault_of_the_erp_is_tried() -> None:
    assert set(FAILURES) == set(INVOICES) == {name for name, kind in KINDS.items() if "erp" in kind.at}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_fault_strikes_once_and_means_what_it_says(desk: Desk, name: str) -> None:
    expected, taken = FAILURES[name], INVOICES[name].keep
    desk.erp.faults.on(name, count=1)
    begun = desk.erp.clock.now()
    if name.startswith("erp-silent"):  # nobody waits a minute for that
        async with httpx.AsyncClient(trust_env=False, timeout=0.3) as client:
            composed = desk.composed()
            headers = {"delivery-signature": signature((SECRET.encode(),), composed.content, begun)}
            headers |= {"idempotency-key": composed.message_id}
            with pytest.raises(httpx.ReadTimeout):
                await client.post(desk.erp.url, content=composed.content, headers=headers)
    elif expected is None:
        await desk.send()
    else:
        with pytest.raises(expected) as caught:
            await desk.send()
        assert type(caught.value) is expected
        if name == "erp-throttled":
            assert isinstance(caught.value, TransientFailure)
            assert caught.value.retry_after == 10
    assert ((desk.erp.clock.now() - begun).total_seconds() > 5) is (name == "erp-slow")
    assert len(desk.erp.inbox) == taken
    await desk.send()
    assert len(desk.erp.inbox) == 1
    assert desk.erp.came == {INTENT.key: 1 + taken}


@pytest.mark.parametrize(
    ("posted", "status", "why"),
    [
        ((SECRET, 0, b""), 200, ""),
        (("another-secret", 0, b""), 401, "it is signed with another secret"),
        ((SECRET, 301, b""), 401, "it was signed at another time"),
        ((SECRET, 0, b" "), 401, "it is signed with another secret"),
        ((None, 0, b""), 401, "it is not signed"),
    ],
)
async def test_a_stranger_is_refused(
    desk: Desk, posted: tuple[str | None, float, bytes], status: int, why: str
) -> None:
    secret, late, change = posted
    composed, at = desk.composed(), desk.erp.clock.now()
    headers = {"idempotency-key": composed.message_id}
    if secret is not None:
        headers["delivery-signature"] = signature((secret.encode(),), composed.content, at)
    assert isinstance(desk.erp.clock, MovedClock)
    desk.erp.clock.advance(late)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(desk.erp.url, content=composed.content + change, headers=headers)
    assert answer.status_code == status
    assert (desk.erp.refused, len(desk.erp.inbox)) == ([why] if why else [], status == 200)


async def test_what_cannot_be_booked_is_refused(desk: Desk) -> None:
    told = json.loads(desk.composed().content)
    cases: list[tuple[bytes, str, int, str]] = [
        (json.dumps(told).encode(), "", 400, "there is no Idempotency-Key"),
        (b"no JSON", "k1", 400, "it cannot be read"),
        (b"[]", "k2", 400, "it cannot be read"),
        (json.dumps(told | {"amount": None}).encode(), "k3", 400, "it cannot be read"),
        (
            json.dumps(told | {"document": told["document"] | {"sha256": hashlib.sha256(b"x").hexdigest()}}).encode(),
            "k4",
            422,
            "the PDF is not the one that it names",
        ),
    ]
    async with httpx.AsyncClient(trust_env=False) as client:
        for content, key, status, why in cases:
            headers = {"delivery-signature": signature((SECRET.encode(),), content, desk.erp.clock.now())}
            headers |= {"idempotency-key": key} if key else {}
            answer = await client.post(desk.erp.url, content=content, headers=headers)
            assert (answer.status_code, desk.erp.refused[-1]) == (status, why)
    assert desk.erp.inbox == []
