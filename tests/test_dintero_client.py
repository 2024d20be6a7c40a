"""Reading and capturing over real HTTP, with a provider that answers as providers and their gateways do."""

import asyncio
import json
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from service.delivery import (
    AccountFailure,
    BadDocument,
    CaptureRequest,
    ChannelFinding,
    DecidedBy,
    DeliveryFailure,
    Line,
    PermanentFailure,
    Standing,
    Subscription,
    TransientFailure,
    UnconfirmedFailure,
)
from service.dintero.effects import CAPTURE_TIMEOUT
from service.dintero.wire import Timeouts
from tests.scripted_provider import ACCOUNT, ID, SECRET, TOKEN_PATH, Scripted, scripted
from tests.servers import Reply, Seen, json_reply, serve

REGISTERED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "kravia_timeline_synthetic.json").read_text()
)["registered"]
WITH_SESSION = {**REGISTERED, "session": {"id": REGISTERED["session_id"]}}
LIST_PATH = "/checkout/v1/transactions"
SESSION_PATH = f"/checkout/v1/sessions/{REGISTERED['session_id']}"
HTML = Reply(status=502, headers={"content-type": "text/html"}, body=b"<html>ola@nordmann.no Bad gateway</html>")
REQUEST = CaptureRequest(
    transaction_id=ID, reference=f"{ID}:invoice", amount=50000, lines=(Line(line_id="1", amount=50000),)
)
SHORT = Timeouts(connect=1, read=0.1, whole=0.3)
SINCE = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
async def provider() -> AsyncIterator[Scripted]:
    async with scripted() as opened:
        opened.transaction(json_reply(WITH_SESSION))
        opened.capture(json_reply(REGISTERED))
        yield opened


def error(status: int, message: str = "no", **headers: str) -> Reply:
    return json_reply({"error": {"code": "E", "message": message}}, status, **headers)


async def hang(_: Seen) -> Reply:
    await asyncio.Event().wait()
    return Reply()


async def failure(doing: Awaitable[object]) -> DeliveryFailure:
    with pytest.raises(DeliveryFailure) as caught:
        await doing
    return caught.value


# --- the token --------------------------------------------------------------------------------------------------------


async def test_the_token_is_asked_for_as_documented(provider: Scripted) -> None:
    await provider.dintero.read(ID)
    (request,) = provider.server.to(TOKEN_PATH)
    assert request.method == "POST"
    assert request.headers["authorization"] == "Basic " + b64encode(f"client:{SECRET}".encode()).decode()
    assert request.json() == {
        "grant_type": "client_credentials",
        "audience": f"{provider.server.url}/api/v1/accounts/{ACCOUNT}",
    }
    (read,) = provider.server.to(f"/checkout/v1/transactions/{ID}")
    assert read.headers["authorization"] == "Bearer token-1"
    for seen in provider.server.seen:
        assert seen.headers["dintero-system-name"] == "merchant-delivery"
        assert seen.headers["dintero-system-version"] == "1.2.3"


@pytest.mark.parametrize(
    ("expires_in", "kept"),
    [(14400, 13800), (1000, 900), (90, 81), ("14400", 13800), (None, 60), (True, 60), ("soon", 60)],
)
async def test_the_token_is_kept_until_shortly_before_it_ends(expires_in: object, kept: float) -> None:
    async with scripted() as provider:
        provider.script.expires_in = expires_in
        provider.transaction(json_reply(WITH_SESSION))
        await provider.dintero.read(ID)
        provider.clock.advance(kept - 2)
        await provider.dintero.read(ID)
        assert provider.tokens_fetched() == 1
        provider.clock.advance(3)
        await provider.dintero.read(ID)
        assert provider.tokens_fetched() == 2


async def test_one_fetch_however_many_wait(provider: Scripted) -> None:
    await asyncio.gather(*(provider.dintero.read(ID) for _ in range(30)))
    assert provider.tokens_fetched() == 1
    assert len(provider.server.to(f"/checkout/v1/transactions/{ID}")) == 30


async def test_one_failed_fetch_however_many_wait(provider: Scripted) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def refuse(_: Seen) -> Reply:
        asked.set()
        await go_on.wait()
        return error(401)

    provider.script.on(TOKEN_PATH, refuse)
    readers = [asyncio.create_task(provider.dintero.read(ID)) for _ in range(10)]
    await asked.wait()
    go_on.set()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert all(isinstance(result, AccountFailure) for result in results)
    assert provider.tokens_fetched() == 1
    provider.script.on(TOKEN_PATH)
    assert (await provider.dintero.read(ID)).id == ID


async def test_a_waiter_that_gives_up_harms_no_other(provider: Scripted) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_: Seen) -> Reply:
        asked.set()
        await go_on.wait()
        return provider.script.token()

    provider.script.on(TOKEN_PATH, slowly)
    first = asyncio.create_task(provider.dintero.read(ID))
    await asked.wait()
    second = asyncio.create_task(provider.dintero.read(ID))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    assert (await second).id == ID
    assert provider.tokens_fetched() == 1


async def test_closing_ends_a_fetch_that_nobody_waits_for() -> None:
    async with scripted() as provider:
        asked = asyncio.Event()

        async def never(_: Seen) -> Reply:
            asked.set()
            return await hang(_)

        provider.script.on(TOKEN_PATH, never)
        reader = asyncio.create_task(provider.dintero.read(ID))
        await asked.wait()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def test_after_a_401_the_token_is_fetched_anew_once(provider: Scripted) -> None:
    provider.transaction(error(401), json_reply(WITH_SESSION))
    assert (await provider.dintero.read(ID)).id == ID
    reads = provider.server.to(f"/checkout/v1/transactions/{ID}")
    assert [read.headers["authorization"] for read in reads] == ["Bearer token-1", "Bearer token-2"]
    await provider.dintero.read(ID)
    assert provider.tokens_fetched() == 2


async def test_many_401s_at_once_fetch_one_token(provider: Scripted) -> None:
    await provider.dintero.read(ID)

    async def only_the_new(request: Seen) -> Reply:
        return error(401) if request.headers["authorization"] == "Bearer token-1" else json_reply(WITH_SESSION)

    provider.transaction(only_the_new)
    await asyncio.gather(*(provider.dintero.read(ID) for _ in range(10)))
    assert provider.tokens_fetched() == 2


async def test_a_second_401_is_about_the_account(provider: Scripted) -> None:
    provider.transaction(error(401))
    assert isinstance(await failure(provider.dintero.read(ID)), AccountFailure)
    assert len(provider.server.to(f"/checkout/v1/transactions/{ID}")) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301])
async def test_refused_credentials_are_about_the_account(provider: Scripted, status: int) -> None:
    provider.script.on(TOKEN_PATH, error(status))
    assert isinstance(await failure(provider.dintero.read(ID)), AccountFailure)
    assert isinstance(await failure(provider.dintero.check()), AccountFailure)


@pytest.mark.parametrize(
    "reply",
    [
        HTML,
        error(500),
        error(503, retry_after="7"),
        Reply(body=b"<html>"),
        Reply(body=b"{"),
        json_reply([]),
        json_reply({"access_token": 7}),
        json_reply({"access_token": "two\nlines"}),
        Reply(cut=0),
    ],
)
async def test_a_token_that_cannot_be_had_just_now(provider: Scripted, reply: Reply) -> None:
    provider.script.on(TOKEN_PATH, reply)
    for doing in (provider.dintero.read(ID), provider.dintero.capture(REQUEST)):
        raised = await failure(doing)
        assert isinstance(raised, TransientFailure)
        assert not isinstance(raised, AccountFailure | BadDocument)
        assert raised.retry_after == (7 if reply.status == 503 else None)


async def test_too_many_requests_hold_up_the_whole_account(provider: Scripted) -> None:
    dintero = provider.dintero
    many = error(429, retry_after="7")
    provider.script.on(LIST_PATH, many)
    provider.transaction(many)
    provider.capture(many)
    for path in ("/checkout/v1/files/f-1", f"/checkout/v1/transactions/{ID}/void"):
        provider.script.on(path, many)
    file = f"{provider.server.url}/checkout/v1/files/f-1"
    doing = [
        (dintero.read, ID), (dintero.capture, REQUEST), (dintero.void, ID), (dintero.list_created, SINCE),
        (dintero.invoice, file),
    ]  # fmt: skip
    for verb, about in doing:
        raised = await failure(verb(about))  # type: ignore[operator]
        assert isinstance(raised, AccountFailure)
        assert raised.retry_after == 7
    provider.script.on(TOKEN_PATH, many)
    provider.clock.advance(14400)
    raised = await failure(dintero.read(ID))
    assert isinstance(raised, AccountFailure)
    assert raised.retry_after == 7


async def test_no_secret_shows_in_a_failure(provider: Scripted) -> None:
    basic = b64encode(f"client:{SECRET}".encode()).decode()
    provider.transaction(error(401, "token-1 and token-2 of very-secret-SECRET, " + basic))
    provider.capture(error(400, "Bearer token-2 for ola@nordmann.no +4799999999"))
    for doing in (provider.dintero.read(ID), provider.dintero.capture(REQUEST)):
        raised = await failure(doing)
        shown = "".join(traceback.format_exception(raised)) + repr(provider.dintero)
        for secret in ("token-1", "token-2", basic, "nordmann.no", "99999999"):
            assert secret not in shown
        assert SECRET.lower() not in shown.lower()


async def test_check_reads_for_real_although_there_is_a_token(provider: Scripted) -> None:
    provider.script.on(LIST_PATH, json_reply([]))
    for _ in range(2):
        assert ACCOUNT in await provider.dintero.check()
    assert provider.tokens_fetched() == 1
    assert [seen.target for seen in provider.server.to(LIST_PATH)] == [f"{LIST_PATH}?limit=1"] * 2
    provider.script.on(LIST_PATH, error(403))
    assert isinstance(await failure(provider.dintero.check()), AccountFailure)


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_reading_with_the_session_in_one_call(provider: Scripted) -> None:
    transaction = await provider.dintero.read(ID)
    assert transaction.invoice_number == "A1B2C-000001"
    assert provider.clock.now() - transaction.read_at < timedelta(minutes=1)
    assert [seen.target for seen in provider.server.seen[1:]] == [f"/checkout/v1/transactions/{ID}?includes=session"]


async def test_the_session_is_read_apart_where_it_is_not_included(provider: Scripted) -> None:
    document = {**REGISTERED, "metadata": {}}
    session = {"configuration": {"kravia": {"invoice_b2b": {"invoice_channel": "merchant"}}}}
    provider.transaction(json_reply(document))
    provider.script.on(SESSION_PATH, json_reply(session))
    found = await provider.dintero.read(ID)
    assert found.findings == (ChannelFinding(level=DecidedBy.SESSION, value="merchant"),)
    for status in (404, 403):
        provider.script.on(SESSION_PATH, error(status))
        assert (await provider.dintero.read(ID)).findings == ()
    provider.script.on(SESSION_PATH, error(503, retry_after="9"))
    raised = await failure(provider.dintero.read(ID))
    assert isinstance(raised, TransientFailure)
    assert raised.retry_after == 9


async def test_a_session_id_that_is_none_is_not_asked_for(provider: Scripted) -> None:
    provider.transaction(json_reply({**REGISTERED, "session_id": "../admin"}))
    assert (await provider.dintero.read(ID)).findings[0].value == "merchant"
    assert len(provider.server.seen) == 2


async def test_ids_are_quoted_in_paths(provider: Scripted) -> None:
    odd = "T1/../x?a=b#c d%2e"
    await failure(provider.dintero.read(odd))
    assert provider.server.seen[-1].target == (
        "/checkout/v1/transactions/T1%2F..%2Fx%3Fa%3Db%23c%20d%252e?includes=session"
    )
    for way_up in ("..", ".", ""):
        assert isinstance(await failure(provider.dintero.read(way_up)), PermanentFailure)


@pytest.mark.parametrize(
    ("reply", "account", "words"),
    [
        (error(400), False, "answered 400 when reading the transaction: E: no"),
        (error(403, "ola@nordmann.no may not"), True, "answered 403 when reading the transaction: E: *** may not"),
        (error(404), False, "not known at the provider (404)"),
        (error(500), False, "answered 500"),
        (error(418), False, "answered 418"),
        (Reply(status=302, headers={"location": "/elsewhere"}), False, "answered 302"),
        (HTML, False, "answered 502 when reading the transaction"),
        (json_reply({"error": "plain"}, 503), False, "answered 503 when reading the transaction: plain"),
        (json_reply({"error": {"message": ["x"]}}, 503), False, "answered 503 when reading the transaction"),
        (json_reply([1], 503), False, "answered 503"),
        (Reply(body=b'{"id": "T1'), False, "without JSON"),
        (Reply(body=b"[" * 100_000), False, "without JSON"),
        (Reply(body=b"<html></html>"), False, "without JSON"),
        (Reply(body=b""), False, "without JSON"),
        (Reply(body=b"1" * 5000), False, "without JSON"),
        (json_reply({"id": "T12345678.other", "session": {"id": "s"}}), False, "another transaction"),
        (json_reply({}), False, "no transaction"),
        (Reply(cut=0), False, "broke"),
        (Reply(body=b'{"id": "T12345678.long"}', cut=5), False, "broke"),
        (Reply(headers={"content-encoding": "gzip"}, body=b"no gzip"), False, "broke"),
        (Reply(body=b" " * 9_000_000), False, "larger than"),
    ],
)
async def test_what_reading_may_come_to(provider: Scripted, reply: Reply, account: bool, words: str) -> None:
    provider.transaction(reply)
    raised = await failure(provider.dintero.read(ID))
    assert isinstance(raised, TransientFailure)
    assert isinstance(raised, AccountFailure) is account
    assert words in raised.reason
    assert "nordmann" not in raised.reason
    provider.transaction(json_reply(WITH_SESSION))
    assert (await provider.dintero.read(ID)).id == ID


async def test_a_foreign_transaction_does_not_hold_up_the_account(provider: Scripted) -> None:
    provider.script.on("/checkout/v1/transactions/P87654321.a", error(403))
    assert not isinstance(await failure(provider.dintero.read("P87654321.a")), AccountFailure)


async def test_retry_after_as_seconds_and_as_a_date(provider: Scripted) -> None:
    later = format_datetime(provider.clock.now() + timedelta(seconds=120), usegmt=True)
    for given, least, most in [("17", 17, 17), (later, 100, 121), ("1e99", 86400, 86400), ("-4", 0, 0)]:
        provider.transaction(error(503, retry_after=given))
        raised = await failure(provider.dintero.read(ID))
        assert isinstance(raised, TransientFailure)
        assert raised.retry_after is not None
        assert least <= raised.retry_after <= most
    for given in ("soon", "", "nan"):
        provider.transaction(error(503, retry_after=given))
        raised = await failure(provider.dintero.read(ID))
        assert isinstance(raised, TransientFailure)
        assert raised.retry_after is None


async def test_an_unreachable_provider_is_about_the_account() -> None:
    async with serve(hang) as gone:
        url = gone.url
    async with scripted(checkout_url=url) as provider:
        assert isinstance(await failure(provider.dintero.read(ID)), AccountFailure)
        assert isinstance(await failure(provider.dintero.capture(REQUEST)), AccountFailure)
    async with scripted(api_url=url) as provider:
        assert isinstance(await failure(provider.dintero.capture(REQUEST)), AccountFailure)


async def test_a_provider_that_does_not_answer_comes_again() -> None:
    async with scripted(timeouts=SHORT) as provider:
        provider.transaction(hang)
        raised = await failure(provider.dintero.read(ID))
        assert isinstance(raised, TransientFailure)
        assert not isinstance(raised, AccountFailure)
        assert "in time" in raised.reason


async def test_an_answer_that_only_drips_is_given_up() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    async with scripted(timeouts=SHORT) as provider:
        provider.transaction(Reply(drip=drip()))
        assert "in time" in (await failure(provider.dintero.read(ID))).reason


async def test_no_cookie_and_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with scripted() as provider:
        provider.transaction(json_reply(WITH_SESSION, set_cookie="a=b"))
        await provider.dintero.read(ID)
        await provider.dintero.read(ID)
        assert all("cookie" not in seen.headers for seen in provider.server.seen)


# --- capturing --------------------------------------------------------------------------------------------------------


async def test_a_capture_is_asked_for_as_documented(provider: Scripted) -> None:
    answer = await provider.dintero.capture(REQUEST)
    assert answer.transaction is not None
    assert answer.transaction.id == ID
    assert answer.event_request_id is None
    request = provider.server.seen[-1]
    assert (request.method, request.target) == ("POST", f"/checkout/v1/transactions/{ID}/capture")
    assert request.json() == {
        "amount": 50000,
        "capture_reference": f"{ID}:invoice",
        "items": [{"line_id": "1", "amount": 50000}],
    }


async def test_a_capture_by_amount_alone_names_no_items(provider: Scripted) -> None:
    await provider.dintero.capture(CaptureRequest(transaction_id=ID, reference="r", amount=7, note="no lines"))
    assert provider.server.seen[-1].json() == {"amount": 7, "capture_reference": "r"}


async def test_a_202_names_the_request_to_wait_for(provider: Scripted) -> None:
    provider.capture(json_reply(REGISTERED, 202, event_request_id="05c91a5b"))
    answer = await provider.dintero.capture(REQUEST)
    assert (answer.event_request_id, answer.transaction) == ("05c91a5b", None)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (json_reply(REGISTERED, 202), UnconfirmedFailure),
        (json_reply({}), UnconfirmedFailure),
        (json_reply({**REGISTERED, "id": "T12345678.other"}), UnconfirmedFailure),
        (Reply(body=b"<html>"), UnconfirmedFailure),
        (Reply(body=b""), UnconfirmedFailure),
        (Reply(body=b" " * 9_000_000), UnconfirmedFailure),
        (Reply(status=204), UnconfirmedFailure),
        (Reply(cut=0), UnconfirmedFailure),
        (Reply(body=b"{}" * 20, cut=3), UnconfirmedFailure),
        (HTML, UnconfirmedFailure),
        (error(408), UnconfirmedFailure),
        (error(500), UnconfirmedFailure),
        (error(503), UnconfirmedFailure),
        (error(504), UnconfirmedFailure),
        (error(400), PermanentFailure),
        (error(404), PermanentFailure),
        (error(409), PermanentFailure),
        (error(422), PermanentFailure),
        (error(401), AccountFailure),
        (error(403), AccountFailure),
        (error(429, retry_after="5"), AccountFailure),
        (Reply(status=307, headers={"location": "/elsewhere"}), TransientFailure),
    ],
)
async def test_what_capturing_may_come_to(provider: Scripted, reply: Reply, kind: type[DeliveryFailure]) -> None:
    provider.capture(reply)
    raised = await failure(provider.dintero.capture(REQUEST))
    assert type(raised) is kind
    assert "nordmann" not in raised.reason
    asked = provider.server.to(f"/checkout/v1/transactions/{ID}/capture")
    assert len(asked) == (2 if reply.status == 401 else 1)


async def test_a_capture_is_repeated_once_after_a_401(provider: Scripted) -> None:
    provider.capture(error(401), json_reply(REGISTERED))
    assert (await provider.dintero.capture(REQUEST)).transaction is not None


async def test_a_capture_without_an_answer_is_unconfirmed() -> None:
    assert Timeouts().whole < CAPTURE_TIMEOUT
    async with scripted(timeouts=SHORT) as provider:
        provider.capture(hang)
        assert isinstance(await failure(provider.dintero.capture(REQUEST)), UnconfirmedFailure)
        assert len(provider.server.to(f"/checkout/v1/transactions/{ID}/capture")) == 1


async def test_a_time_out_of_the_token_is_not_one_of_the_capture() -> None:
    async with scripted(timeouts=SHORT) as provider:
        provider.script.on(TOKEN_PATH, hang)
        assert type(await failure(provider.dintero.capture(REQUEST))) is TransientFailure


# --- voiding ----------------------------------------------------------------------------------------------------------

VOID_PATH = f"/checkout/v1/transactions/{ID}/void"


async def test_a_void_has_no_body_and_shows_the_transaction(provider: Scripted) -> None:
    provider.script.on(VOID_PATH, json_reply({**REGISTERED, "status": "AUTHORIZATION_VOIDED"}))
    assert (await provider.dintero.void(ID)).standing is Standing.VOIDED
    request = provider.server.seen[-1]
    assert (request.method, request.body) == ("POST", b"")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(body=b"<html>"), UnconfirmedFailure),
        (json_reply({**REGISTERED, "id": "T12345678.other"}), UnconfirmedFailure),
        (Reply(cut=0), UnconfirmedFailure),
        (error(503), UnconfirmedFailure),
        (error(400), PermanentFailure),
        (error(404), PermanentFailure),
        (error(409), PermanentFailure),
        (error(403), AccountFailure),
    ],
)
async def test_what_voiding_may_come_to(provider: Scripted, reply: Reply, kind: type[DeliveryFailure]) -> None:
    provider.script.on(VOID_PATH, reply)
    assert type(await failure(provider.dintero.void(ID))) is kind


# --- listing ----------------------------------------------------------------------------------------------------------


async def test_a_page_is_asked_for_as_documented(provider: Scripted) -> None:
    provider.script.on(LIST_PATH, json_reply([REGISTERED, {"id": f"{ACCOUNT}.b", "status": "ON_HOLD"}]))
    page = await provider.dintero.list_created(SINCE, SINCE + timedelta(hours=1), after=f"{ACCOUNT}.x")
    assert [found.id for found in page] == [ID, f"{ACCOUNT}.b"]
    assert page[0].invoice_number == "A1B2C-000001"
    assert page[1].standing is Standing.HELD
    asked = parse_qsl(provider.server.seen[-1].target.partition("?")[2])
    assert asked == [
        ("payment_product", "kravia"),
        ("created_at.gte", "2026-11-01T12:00:00.000Z"),
        ("created_at.lte", "2026-11-01T13:00:00.000Z"),
        ("limit", "100"),
        ("starting_after", f"{ACCOUNT}.x"),
    ]
    await provider.dintero.list_created(SINCE.astimezone(timezone(timedelta(hours=2))))
    asked = parse_qsl(provider.server.seen[-1].target.partition("?")[2])
    assert [name for name, _ in asked] == ["payment_product", "created_at.gte", "limit"]
    assert dict(asked)["created_at.gte"] == "2026-11-01T12:00:00.000Z"


@pytest.mark.parametrize(
    "reply",
    [
        json_reply({"transactions": []}),
        json_reply([REGISTERED, {"status": "AUTHORIZED"}]),  # leaving it out would make a full page look like the last
        json_reply([REGISTERED, None]),
        Reply(body=b"[{"),
        Reply(body=b"<html>"),
        error(503),
        Reply(cut=0),
    ],
)
async def test_a_page_that_cannot_be_had_just_now(provider: Scripted, reply: Reply) -> None:
    provider.script.on(LIST_PATH, reply)
    raised = await failure(provider.dintero.list_created(SINCE))
    assert isinstance(raised, TransientFailure)
    assert not isinstance(raised, AccountFailure)


# --- webhook subscriptions --------------------------------------------------------------------------------------------

HOOKS_PATH = f"/api/v1/accounts/{ACCOUNT}/hooks/subscriptions"
HOOK = {"id": "s-1", "active": True, "config": {"url": "https://shop.example/w"}, "events": ["checkout_transaction"]}


@pytest.mark.parametrize("wrap", [lambda listed: listed, lambda listed: {"subscriptions": listed}])
async def test_subscriptions_are_listed(provider: Scripted, wrap: Callable[[object], object]) -> None:
    odd = {"id": 7, "active": False, "config": "none", "events": [None, "ping"]}
    provider.script.on(HOOKS_PATH, json_reply(wrap([HOOK, odd])))
    assert await provider.dintero.subscriptions() == (
        Subscription(id="s-1", url="https://shop.example/w", events=("checkout_transaction",)),
        Subscription(id="7", url="", events=("ping",), active=False),
    )


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_a_right_that_is_missing_is_named_and_nothing_else_is_blamed_on_it(
    provider: Scripted, status: int
) -> None:
    provider.script.on(HOOKS_PATH, error(status))
    listing = (await failure(provider.dintero.subscriptions())).reason
    creating = (await failure(provider.dintero.subscribe("https://shop.example/w", "s", ["ping"]))).reason
    named = [scope in text for scope, text in (("read:hooks", listing), ("admin:hooks", creating))]
    assert named == [status in (401, 403)] * 2


async def test_a_list_of_subscriptions_that_is_none(provider: Scripted) -> None:
    """To take it for an empty one would make a second subscription, and every webhook come twice."""
    for reply in (json_reply({}), json_reply([{}]), Reply(body=b"<html>")):
        provider.script.on(HOOKS_PATH, reply)
        assert isinstance(await failure(provider.dintero.subscriptions()), TransientFailure)


async def test_a_subscription_is_created_as_documented(provider: Scripted) -> None:
    wanted = json.loads((Path(__file__).parent / "data" / "webhook_subscription_create_request.json").read_text())
    provider.script.on(HOOKS_PATH, json_reply(HOOK, 201))
    created = await provider.dintero.subscribe("https://example.com/webhook", "<shared secret>", wanted["events"])
    assert created.id == "s-1"
    assert provider.server.seen[-1].json() == wanted


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(400, "the secret swordfish is too short"), PermanentFailure),
        (error(403), AccountFailure),
        (error(500, "swordfish"), UnconfirmedFailure),
        (Reply(cut=0), UnconfirmedFailure),
        (Reply(body=b"<html>"), UnconfirmedFailure),
        (json_reply({}), UnconfirmedFailure),
    ],
)
async def test_what_subscribing_may_come_to(provider: Scripted, reply: Reply, kind: type[DeliveryFailure]) -> None:
    provider.script.on(HOOKS_PATH, reply)
    raised = await failure(provider.dintero.subscribe("https://shop.example/w", "swordfish", ["checkout_transaction"]))
    assert type(raised) is kind
    assert "swordfish" not in raised.reason


# --- the public URL ---------------------------------------------------------------------------------------------------


async def test_reaching_an_address_of_our_own(provider: Scripted) -> None:
    reach: Callable[[str], Awaitable[str]] = provider.dintero.reach
    ours = Reply(status=401, body=b'{"error":"bad_signature"}')
    theirs = Reply(status=401, body=b'{"error":{"message":"Unauthorized"}}')
    provider.script.on("/callback", ours, theirs, Reply(status=404, body=b"{}"), Reply(body=b"<html>"))
    url = f"{provider.server.url}/callback"
    assert await reach(url) == f"{url} leads here"
    assert "authorization" not in provider.server.seen[-1].headers
    for _ in range(3):
        assert isinstance(await failure(reach(url)), TransientFailure)
    assert isinstance(await failure(reach("nowhere")), PermanentFailure)


async def test_reaching_the_address_of_webhooks(provider: Scripted) -> None:
    provider.script.on("/webhooks/dintero", Reply(status=401, body=b'{"error":"bad_signature"}'))
    url = f"{provider.server.url}/webhooks/dintero"
    assert await provider.dintero.reach(url, method="POST") == f"{url} leads here"
    assert provider.server.seen[-1].method == "POST"
