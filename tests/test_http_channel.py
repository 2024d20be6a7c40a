"""The channel `http` against a real server: what is posted and signed, what each answer means, where it may go."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import trustme

from service.channels import SETTINGS, UnusableSettings
from service.channels.http import HttpChannel, endpoint_of, open_http
from service.channels.private_addresses import NotPublic, addresses_of, is_public
from service.delivery import (
    AccountFailure,
    Brand,
    ChannelContext,
    Composed,
    DeliveryFailure,
    Guarantee,
    Intent,
    Message,
    MessageTooLarge,
    Outcome,
    PermanentFailure,
    Purpose,
    Settled,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)
from service.settings import Need, load_settings, secret_names
from tests.fakes import ACCOUNT, PDF, MovedClock, a_transaction
from tests.servers import Reply, Seen, serve
from tests.stage import open_stage

DATED = datetime(2026, 11, 22, 10, tzinfo=UTC)
INTENT = Intent(key="a" * 32, dated=DATED, purpose=Purpose.FIRST)
SECRETS = "first-secret, second-secret"


def context(url: str, *, clock: MovedClock | None = None, **given: str) -> ChannelContext:
    environ = {"HTTP_URL": url, "HTTP_SECRETS": SECRETS, "HTTP_ALLOW_PRIVATE": "true", **given}
    return ChannelContext(
        account_id=ACCOUNT,
        clock=clock or MovedClock(),
        environ=tuple((f"DELIVERY_{name}", text) for name, text in environ.items()),
        brand=Brand(name="Butikken AS", organization_number="923456783"),
    )


@asynccontextmanager
async def endpoint(*replies: Reply, clock: MovedClock | None = None, **given: str) -> AsyncIterator[tuple[Any, Any]]:
    """Open the channel to an endpoint that gives these answers, the last one again and again."""
    left = list(replies) or [Reply(status=200)]

    async def handler(_: Seen) -> Reply:
        return left.pop(0) if len(left) > 1 else left[0]

    async with serve(handler) as server, open_http(context(f"{server.url}/in?key=k", clock=clock, **given)) as channel:
        yield channel, server


def transaction() -> Transaction:
    return replace(
        a_transaction(), invoice_date=date(2026, 11, 22), due_date=date(2026, 12, 6), merchant_reference="order-\ud8001"
    )


def composed(channel: HttpChannel, *, document: bytes | None = PDF, intent: Intent = INTENT) -> Composed:
    link = None if document else "https://x.example/i/abc"
    message = Message(locale="nb", subject="", text="", about=transaction(), link=link)
    return channel.compose(message, document, channel.recipient(transaction()), intent)


async def failure(channel: HttpChannel) -> DeliveryFailure:
    with pytest.raises(DeliveryFailure) as caught:
        await channel.send(composed(channel))
    return caught.value


# --- what is posted --------------------------------------------------------------------------------------------------


async def test_an_invoice_is_posted_with_all_that_an_erp_needs() -> None:
    async with endpoint() as (channel, server):
        receipt = await channel.send(composed(channel))
    assert receipt.answer == "the endpoint answered 200"
    (seen,) = server.seen
    assert (seen.method, seen.target) == ("POST", "/in?key=k")
    assert seen.headers["idempotency-key"] == INTENT.key
    assert seen.headers["host"] == f"127.0.0.1:{server.port}"
    said, told = seen.json(), transaction()
    assert isinstance(said, dict)
    assert said | {"buyer": None, "document": None} == {
        "version": 1,
        "id": INTENT.key,
        "kind": "invoice",
        "dated": "2026-11-22T10:00:00Z",
        "account_id": ACCOUNT,
        "test": True,
        "locale": "nb",
        "transaction_id": told.id,
        "product": told.product_type,
        "invoice_number": told.invoice_number,
        "amount": told.amount,
        "vat_amount": told.vat_amount,
        "currency": told.currency,
        "invoice_date": "2026-11-22",
        "due_date": "2026-12-06",
        "merchant_reference": told.merchant_reference,
        "payment_reference": told.payment_reference,
        "seller": {
            "name": "Butikken AS",
            "organization_number": "923456783",
            "email": None,
            "phone_number": None,
            "website": None,
        },
        "buyer": None,
        "document": None,
    }
    assert told.billing is not None
    assert said["buyer"]["email"] == told.billing.email
    assert said["document"] == {
        "name": "invoice.pdf",
        "content_type": "application/pdf",
        "sha256": hashlib.sha256(PDF).hexdigest(),
        "base64": base64.b64encode(PDF).decode(),
    }


async def test_every_secret_signs_time_and_body() -> None:
    clock = MovedClock()
    async with endpoint(clock=clock) as (channel, server):
        await channel.send(composed(channel))
        clock.advance(100)
        await channel.send(composed(channel))
    times = []
    for seen in server.seen:
        (_, at), *signatures = [part.split("=") for part in seen.headers["delivery-signature"].split(",")]
        times.append(int(at))
        good = [
            hmac.new(secret, f"{at}.".encode() + seen.body, hashlib.sha256).hexdigest()
            for secret in (b"first-secret", b"second-secret")
        ]
        assert signatures == [["v1", one] for one in good]
    assert times[1] - times[0] in (100, 101)
    assert server.seen[0].body == server.seen[1].body


async def test_a_repeat_is_the_same_to_the_last_byte() -> None:
    clock = MovedClock()
    async with endpoint(clock=clock) as (channel, _):
        first = composed(channel)
        clock.advance(86400)
        again = composed(channel, intent=replace(INTENT, purpose=Purpose.REPEAT))
        resent = composed(channel, intent=replace(INTENT, purpose=Purpose.RESEND))
    assert first == again
    assert first.sha256 == hashlib.sha256(first.content).hexdigest()
    assert json.loads(resent.content)["kind"] == "copy"


async def test_the_document_may_be_a_link() -> None:
    async with endpoint(HTTP_DOCUMENT="link") as (channel, _):
        assert channel.largest_document == 0
        said = json.loads(composed(channel, document=None).content)
    assert said["document"] == {
        "name": "invoice.pdf",
        "content_type": "application/pdf",
        "link": "https://x.example/i/abc",
    }


async def test_it_says_what_it_is() -> None:
    async with endpoint() as (channel, _):
        assert (channel.guarantee, channel.reports, channel.template) == (Guarantee.IDEMPOTENT, False, "")
        assert channel.largest_document is None
        recipient = channel.recipient(transaction())
        assert (recipient.address, recipient.masked) == ("127.0.0.1", "127.0.0.1")
        with pytest.raises(PermanentFailure):
            channel.recipient(transaction(), to="other@nordmann.example")


# --- what answers mean -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 409])
async def test_accepted(status: int) -> None:
    async with endpoint(Reply(status=status)) as (channel, _):
        assert str(status) in (await channel.send(composed(channel))).answer


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, AccountFailure) for status in (301, 307, 401, 402, 403, 407, 410)),
        *((status, TransientFailure) for status in (425, 429, 503)),
        *((status, PermanentFailure) for status in (400, 404, 405, 422, 451)),
        (413, MessageTooLarge),
        *((status, UnconfirmedFailure) for status in (408, 500, 502, 504)),
    ],
)
async def test_refused(status: int, kind: type[DeliveryFailure]) -> None:
    body = b'{"error": "ola@nordmann.example is unknown"}'
    async with endpoint(Reply(status=status, body=body, headers={"location": "/elsewhere"})) as (channel, server):
        found = await failure(channel)
        assert len(server.seen) == 1
    assert type(found) is kind
    assert str(status) in found.reason
    assert "nordmann" not in found.reason


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), ("99999999999", 86400.0), ("soon", None), ("-5", None), ("Fri, 01 Jan 1999 00:00:00 GMT", 0.0)],
)
async def test_the_endpoint_may_name_a_wait(header: str, seconds: float | None) -> None:
    async with endpoint(Reply(status=503, headers={"retry-after": header})) as (channel, _):
        found = await failure(channel)
    assert isinstance(found, TransientFailure)
    assert found.retry_after == seconds


async def test_a_wait_may_be_a_date() -> None:
    clock = MovedClock()
    until = clock.now().timestamp() + 600
    header = datetime.fromtimestamp(until, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    async with endpoint(Reply(status=429, headers={"retry-after": header}), clock=clock) as (channel, _):
        found = await failure(channel)
    assert isinstance(found, TransientFailure)
    assert found.retry_after == pytest.approx(600, abs=5)


async def test_a_lost_answer_is_in_doubt() -> None:
    async with endpoint(Reply(cut=0)) as (channel, server):
        assert type(await failure(channel)) is UnconfirmedFailure
        assert len(server.seen) == 1


async def test_an_answer_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 X\r\n")
            while not writer.is_closing():
                writer.write(b"a: b\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        ended.set()

    monkeypatch.setattr("service.channels.http._WHOLE", 0.3)
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server, open_http(context(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")) as channel:
        async with asyncio.timeout(30):
            assert type(await failure(channel)) is UnconfirmedFailure
            await ended.wait()


async def test_nobody_there_is_our_own_trouble() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with open_http(context(f"http://127.0.0.1:{port}/")) as channel:
        assert type(await failure(channel)) is AccountFailure


async def test_gone_disables_until_a_person_or_a_success() -> None:
    async with endpoint(Reply(status=410), Reply(status=200)) as (channel, server):
        assert isinstance(await failure(channel), AccountFailure)
        with pytest.raises(AccountFailure, match="410"):
            await channel.check()
        assert len(server.seen) == 1, "a probe must not ask an endpoint that wants no more"
        await channel.send(composed(channel))
        assert await channel.check()


@pytest.mark.parametrize("status", [200, 204, 404, 405, 500])
async def test_a_check_sends_nothing(status: int) -> None:
    async with endpoint(Reply(status=status)) as (channel, server):
        assert str(status) in await channel.check()
    (seen,) = server.seen
    assert (seen.method, seen.body) == ("OPTIONS", b"")
    assert "idempotency-key" not in seen.headers


@pytest.mark.parametrize("status", [401, 403, 410, 503])
async def test_a_check_finds_what_would_fail(status: int) -> None:
    async with endpoint(Reply(status=status)) as (channel, _):
        with pytest.raises(TransientFailure):
            await channel.check()


async def test_a_cancelled_send_leaves_the_channel_fit_for_the_next() -> None:
    reached, free = asyncio.Event(), asyncio.Event()

    async def slow(_: Seen) -> Reply:
        if not reached.is_set():
            reached.set()
            await free.wait()
            return Reply(status=422)
        return Reply(status=200)

    async with serve(slow) as server, open_http(context(server.url)) as channel:
        sending = asyncio.create_task(channel.send(composed(channel)))
        await reached.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert (await channel.send(composed(channel))).answer.endswith("200")
        free.set()


# --- where it may go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "::127.0.0.1", "192.0.2.1", "2001:db8::1"),
        *("fec0::1", "64:ff9b:1::a00:1", "::ffff:0:10.0.0.1", "::8.8.8.8", "5f00::1", "4000::1", "240.0.0.1"),
    ],
)
def test_addresses_that_are_not_out_on_the_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


async def test_a_private_address_is_refused_after_resolution() -> None:
    async with endpoint(HTTP_ALLOW_PRIVATE="true") as (_, server):
        url = f"https://localhost:{server.port}/"
        async with open_http(context(url, HTTP_ALLOW_PRIVATE="false")) as channel:
            found = await failure(channel)
            with pytest.raises(AccountFailure):
                await channel.check()
    assert type(found) is AccountFailure
    assert "HTTP_ALLOW_PRIVATE" in found.reason
    assert not server.seen


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "[::1]"])
async def test_an_address_in_other_words_is_seen_through(host: str) -> None:
    async with open_http(context(f"https://{host}:9/", HTTP_ALLOW_PRIVATE="false")) as channel:
        found = await failure(channel)
    assert type(found) is AccountFailure
    assert "private address" in found.reason or "no address" in found.reason


@pytest.mark.parametrize("host", ["a..example", f"{'a' * 64}.example"])
async def test_a_host_that_is_no_name_is_our_own_trouble(host: str) -> None:
    async with open_http(context(f"https://{host}/")) as channel:
        assert type(await failure(channel)) is AccountFailure


async def test_a_name_is_asked_for_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own spelling of the second is `strasse.example`, which may be somebody else's."""
    asked: list[object] = []

    def answers(host: object, *_: object, **__: object) -> Any:
        asked.append(host)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    for host in ("bl\u00e5b\u00e6r.example", "stra\u00dfe.example"):
        async with open_http(context(f"https://{host}/")) as channel:
            await failure(channel)
    assert asked == ["xn--blbr-roah.example", "xn--strae-oqa.example"]


async def test_one_private_address_spoils_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(*_: object, **__: object) -> list[Any]:
        return [(2, 1, 6, "", (address, 443)) for address in ("1.1.1.1", "1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with pytest.raises(NotPublic):
        await addresses_of("erp.example", 443, allow_private=False)
    assert await addresses_of("erp.example", 443, allow_private=True) == ("1.1.1.1", "10.0.0.1")


async def test_the_connection_goes_to_the_address_that_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is asked for once: what it leads to a moment later does not matter."""
    asked: list[str] = []
    real: Callable[..., Any] = socket.getaddrinfo

    def answers(host: str, *rest: Any, **named: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if host == "erp.example" else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    async with endpoint() as (_, server), open_http(context(f"http://erp.example:{server.port}/x")) as channel:
        await channel.send(composed(channel))
    assert asked.count("erp.example") == 1
    assert server.seen[-1].headers["host"] == f"erp.example:{server.port}"


@pytest.mark.parametrize(("named", "fits"), [("erp.example", True), ("other.example", False), ("127.0.0.1", False)])
async def test_the_certificate_must_be_the_hosts_though_an_address_is_asked(
    monkeypatch: pytest.MonkeyPatch, named: str, fits: bool
) -> None:
    real: Callable[..., Any] = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: real("127.0.0.1", *rest, **more))
    authority, theirs, ours = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(named).configure_cert(theirs)
    authority.configure_trust(ours)

    async def handler(_: Seen) -> Reply:
        return Reply(status=200)

    async with serve(handler, tls=theirs) as server, httpx.AsyncClient(trust_env=False, verify=ours) as client:
        given = {"HTTP_URL": f"https://erp.example:{server.port}/", "HTTP_SECRETS": "s", "HTTP_ALLOW_PRIVATE": "true"}
        channel = HttpChannel(account_id=ACCOUNT, endpoint=endpoint_of(given), client=client, clock=MovedClock())
        if fits:
            await channel.send(composed(channel))
        else:
            assert "certificate" in (await failure(channel)).reason.lower()
    assert len(server.seen) == fits


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"HTTP_URL": ""}, "HTTP_URL"),
        ({"HTTP_URL": "ftp://erp.example/"}, "HTTP_URL"),
        ({"HTTP_URL": "http://erp.example/"}, "HTTP_URL"),
        ({"HTTP_URL": "https://user:pa55@erp.example/"}, "HTTP_URL"),
        ({"HTTP_SECRETS": " , "}, "HTTP_SECRETS"),
        ({"HTTP_DOCUMENT": "paper"}, "HTTP_DOCUMENT"),
        ({"HTTP_ALLOW_PRIVATE": "maybe"}, "HTTP_ALLOW_PRIVATE"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=f"DELIVERY_{named}") as caught:
        endpoint_of({"HTTP_URL": "https://erp.example/in", "HTTP_SECRETS": "s3cret"} | changed)
    assert "pa55" not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UnusableSettings) as caught:
        endpoint_of({"HTTP_URL": "ftp://erp.example/", "HTTP_DOCUMENT": "paper", "HTTP_ALLOW_PRIVATE": "maybe"})
    named = {line.partition(": ")[0] for line in caught.value.mistakes}
    assert named == {f"DELIVERY_HTTP_{name}" for name in ("URL", "SECRETS", "DOCUMENT", "ALLOW_PRIVATE")}


def test_settings_reach_the_channel_and_nobody_warns_of_them(tmp_path: Any) -> None:
    (tmp_path / "secrets").write_text("one-secret,two-secret\n")
    env = {
        "DELIVERY_ACCOUNT_ID": "T12345678",
        "DELIVERY_CLIENT_ID": "c",
        "DELIVERY_CLIENT_SECRET": "s",
        "DELIVERY_SIGNATURE_SECRETS": "s",
        "DELIVERY_PUBLIC_URL": "https://x.example",
        "DELIVERY_BRAND_NAME": "Butikken AS",
        "DELIVERY_CHANNELS": "http",
        "DELIVERY_ALLOW_REAL_RECIPIENTS": "true",
        "DELIVERY_HTTP_URL": "https://erp.example/in?token=t0ken",
        "DELIVERY_HTTP_SECRETS_FILE": str(tmp_path / "secrets"),
    }
    settings = load_settings(env, need=Need.SERVE)
    assert settings.warnings == ()
    assert dict(settings.channel_settings) == {
        "DELIVERY_HTTP_URL": "https://erp.example/in?token=t0ken",
        "DELIVERY_HTTP_SECRETS": "one-secret,two-secret",
    }
    assert {"https://erp.example/in?token=t0ken", "one-secret", "two-secret"} <= set(settings.secret_texts)


def test_the_table_marks_what_is_secret() -> None:
    secret = {name for name, is_secret, _ in SETTINGS["http"] if is_secret}
    assert secret == {"HTTP_URL", "HTTP_SECRETS"}
    assert {f"DELIVERY_{name}" for name in secret} <= set(secret_names())


# --- through the whole service ---------------------------------------------------------------------------------------


async def test_an_invoice_whose_answer_was_lost_comes_again_as_it_was(tmp_path: Path) -> None:
    """It is repeated along the schedule, as if refused for now; the endpoint knows it by its key."""
    left = [Reply(cut=0), Reply(status=503, headers={"retry-after": "30"}), Reply(status=409)]

    async def handler(_: Seen) -> Reply:
        return left.pop(0)

    async with serve(handler) as server:
        given = {
            "DELIVERY_CHANNELS": "http",
            "DELIVERY_HTTP_URL": f"{server.url}/in",
            "DELIVERY_HTTP_SECRETS": "s3cret",
            "DELIVERY_HTTP_ALLOW_PRIVATE": "true",
        }
        async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=given) as stage:
            transaction_id = stage.sell()
            await stage.settle()
            assert (await stage.delivery(transaction_id)).outcome is Outcome.OPEN
            await stage.settle(after=66)
            await stage.settle(after=330)
            delivery = await stage.delivery(transaction_id)
            sends = await stage.app.store.sends(transaction_id)
            assert stage.mails() == []
    assert (delivery.outcome, delivery.channel) == (Outcome.COMPLETED, "http")
    assert [send.outcome for send in sends] == [Settled.UNCONFIRMED, Settled.REFUSED, Settled.ACCEPTED]
    assert len(server.seen) == 3
    assert len({(seen.headers["idempotency-key"], seen.body) for seen in server.seen}) == 1
    said = server.seen[0].json()
    assert isinstance(said, dict)
    assert (said["transaction_id"], said["seller"]["name"]) == (transaction_id, "Butikken AS")
    assert base64.b64decode(said["document"]["base64"]).startswith(b"%PDF-")


async def test_an_endpoint_that_is_gone_pauses_the_channel(tmp_path: Path) -> None:
    async def handler(_: Seen) -> Reply:
        return Reply(status=410)

    async with serve(handler) as server:
        given = {
            "DELIVERY_CHANNELS": "http",
            "DELIVERY_HTTP_URL": f"{server.url}/in",
            "DELIVERY_HTTP_SECRETS": "s3cret",
            "DELIVERY_HTTP_ALLOW_PRIVATE": "true",
        }
        async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=given) as stage:
            stage.sell()
            await stage.settle()
            (pause,) = await stage.app.store.pauses(ACCOUNT)
            for _ in range(3):
                await stage.settle(after=120)
            assert len(await stage.app.store.pauses(ACCOUNT)) == 1
    assert (pause.lane, "gone" in pause.reason) == ("http", True)
    assert len(server.seen) == 1
