"""The five SMS channels against a simulated provider of each kind, over real HTTP on loopback."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from urllib.parse import parse_qs, urlsplit

import pytest

from service.channels import BUILT_IN, UnusableSettings
from service.channels.numbers import mobile
from service.channels.retry_after import wait
from service.channels.sms import SmsChannel, parts
from service.delivery import (
    AccountFailure,
    ChannelContext,
    Composed,
    DeliveryFailure,
    Guarantee,
    Intent,
    Message,
    Party,
    PermanentFailure,
    Purpose,
    RecipientRefused,
    SendingBlocked,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)
from service.simulator.sms import SmsServer, open_sms_server
from service.simulator.sms_wire import KINDS, Kind, Login
from tests.fakes import ACCOUNT, MovedClock, a_transaction
from tests.servers import Reply, Seen, json_reply, serve

NUMBER = "+4791234567"
LINK = "https://faktura.example/i/abcdefghijklmnopqrstuv"
TEXT = f"Faktura A1B2C-000001 fra Nordlys: kr 500,00. {LINK}"
MESSAGE = Message(locale="nb", subject="", text=TEXT, link=LINK)
INTENT = Intent(key="0123456789abcdef0123456789abcdef", dated=datetime(2026, 11, 14, tzinfo=UTC), purpose=Purpose.FIRST)
SECRET = "a-secret-that-signs-reports"
PUBLIC = "https://shop.example/base"


def settings(kind: Kind, url: str, login: Login, **changes: str | None) -> dict[str, str]:
    """Return the settings of a channel that is to use the simulated provider; a change to None leaves one out."""
    own: dict[Kind, dict[str, str]] = {
        "twilio": {"TWILIO_ACCOUNT_SID": login.user, "TWILIO_AUTH_TOKEN": login.password, "TWILIO_URL": url},
        "sinch": {
            "SINCH_SERVICE_PLAN_ID": "plan1",
            "SINCH_API_TOKEN": login.password,
            "SINCH_WEBHOOK_SECRET": login.signing,
            "SINCH_URL": url,
        },
        "link": {
            "LINKMOBILITY_URL": f"{url}/sms",
            "LINKMOBILITY_USER": login.user,
            "LINKMOBILITY_PASSWORD": login.password,
            "LINKMOBILITY_PLATFORM_ID": "p1",
            "LINKMOBILITY_PARTNER_ID": "q1",
            "LINKMOBILITY_GATE": "g1",
            "RECEIPT_SECRET": SECRET,
        },
        "46elks": {
            "46ELKS_USER": login.user,
            "46ELKS_PASSWORD": login.password,
            "46ELKS_URL": url,
            "RECEIPT_SECRET": SECRET,
        },
        "gatewayapi": {
            "GATEWAYAPI_TOKEN": login.password,
            "GATEWAYAPI_WEBHOOK_SECRET": login.signing,
            "GATEWAYAPI_URL": url,
        },
    }
    given: dict[str, str | None] = {"SMS_FROM": "Nordlys", **own[kind], **changes}
    return {f"DELIVERY_{name}": text for name, text in given.items() if text is not None}


def context(kind: Kind, url: str, **changes: str | None) -> ChannelContext:
    environ = tuple(settings(kind, url, LOGIN[kind], **changes).items())
    return ChannelContext(account_id=ACCOUNT, clock=MovedClock(), environ=environ, public_url=PUBLIC)


# Twilio signs reports with the very token of its API.
LOGIN: dict[Kind, Login] = {
    kind: Login(signing=SECRET, password=SECRET if kind == "twilio" else "a-token-of-the-api") for kind in KINDS
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A channel, and the provider behind it."""

    kind: Kind
    channel: SmsChannel
    server: SmsServer

    def composed(self, message: Message = MESSAGE, intent: Intent = INTENT) -> Composed:
        return self.channel.compose(message, None, self.channel.recipient(transaction()), intent)


def transaction(phone: str | None = "912 34 567", country: str | None = "NO", **changes: object) -> Transaction:
    return a_transaction(billing=Party(phone_number=phone, country=country), **changes)


def opener(kind: Kind) -> Callable[[ChannelContext], AbstractAsyncContextManager[SmsChannel]]:
    module, _, name = BUILT_IN[f"sms-{kind}"].partition(":")
    found: Callable[[ChannelContext], AbstractAsyncContextManager[SmsChannel]] = getattr(import_module(module), name)
    return found


@pytest.fixture(params=KINDS)
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    kind: Kind = request.param
    gate = f"{PUBLIC}/receipts/sms-link?secret={SECRET}"
    login = replace(LOGIN[kind], gate_url=gate)
    async with (
        open_sms_server(SmsServer(clock=MovedClock(), login=login)) as server,
        opener(kind)(context(kind, server.url)) as channel,
    ):
        yield Desk(kind=kind, channel=channel, server=server)


# --- accepted --------------------------------------------------------------------------------------------------------


async def test_text_is_taken_and_has_the_providers_id(desk: Desk) -> None:
    receipt = await desk.channel.send(desk.composed())
    (text,) = desk.server.inbox
    assert (text.asked.to, text.asked.text, text.asked.sender) == (NUMBER, TEXT, "Nordlys")
    assert receipt.remote_id == text.remote_id
    assert NUMBER[1:] not in receipt.answer
    assert (desk.channel.guarantee, desk.channel.reports) == (Guarantee.AT_LEAST_ONCE, True)
    assert (desk.channel.largest_document, desk.channel.template, desk.channel.pace) == (0, "sms", None)
    assert desk.channel.name == f"sms-{desk.kind}"


async def test_every_request_carries_the_intents_key_where_it_comes_back(desk: Desk) -> None:
    await desk.channel.send(desk.composed())
    asked = desk.server.inbox[0].asked
    if desk.kind in ("twilio", "46elks"):
        assert asked.callback is not None
        assert parse_qs(urlsplit(asked.callback).query)["intent"] == [INTENT.key]
        assert asked.callback.startswith(f"{PUBLIC}/receipts/sms-{desk.kind}?")
        assert SECRET not in asked.callback
    else:
        assert asked.reference == INTENT.key
        assert asked.callback == (None if desk.kind == "link" else f"{PUBLIC}/receipts/sms-{desk.kind}")


async def test_a_name_outside_gsm7_goes_out_whole(desk: Desk) -> None:
    text = f"Faktura fra Čáhppes AS: kr\u00a0500 \u2013 {LINK}"
    await desk.channel.send(desk.composed(replace(MESSAGE, text=text)))
    (taken,) = desk.server.inbox
    assert taken.asked.text == f"Faktura fra Čáhppes AS: kr 500 - {LINK}"
    assert taken.asked.encoding in (None, "UCS2", "TEXT")


async def test_plain_text_goes_out_as_gsm7(desk: Desk) -> None:
    await desk.channel.send(desk.composed())
    assert desk.server.inbox[0].asked.encoding in (None, "TEXT", "UTF8")


async def test_link_splits_long_texts_by_itself() -> None:
    """It does so with `TEXT` alone: in any other coding one request is one part of at most 140 bytes."""

    async def handle(request: Seen) -> Reply:
        found = json.loads(request.body)
        assert (found["dcs"], len(found["userData"])) == ("TEXT", len(TEXT) + 200)
        return json_reply({"messageId": "m", "resultCode": 1005})

    async with serve(handle) as server, opener("link")(context("link", server.url)) as channel:
        long = replace(MESSAGE, text=TEXT + "x" * 200)
        receipt = await channel.send(channel.compose(long, None, channel.recipient(transaction()), INTENT))
    assert receipt.remote_id == "m"


# --- every row of the failure classes --------------------------------------------------------------------------------

ROWS: dict[str, type[DeliveryFailure]] = {
    "sms-throttled": TransientFailure,
    "sms-503": TransientFailure,
    "sms-500": UnconfirmedFailure,
    "sms-500-taken": UnconfirmedFailure,
    "sms-502": UnconfirmedFailure,
    "sms-504": UnconfirmedFailure,
    "sms-lost": UnconfirmedFailure,
    "sms-lost-before": UnconfirmedFailure,
    "sms-401": AccountFailure,
    "sms-402": AccountFailure,
    "sms-403": AccountFailure,
    "sms-400": PermanentFailure,
    "sms-404": PermanentFailure,
    "sms-422": PermanentFailure,
    "sms-redirect": AccountFailure,
}


@pytest.mark.parametrize("fault", ROWS)
async def test_failures(desk: Desk, fault: str) -> None:
    desk.server.on(fault, count=1)
    with pytest.raises(DeliveryFailure) as caught:
        await desk.channel.send(desk.composed())
    assert type(caught.value) is ROWS[fault]
    assert desk.server.struck[fault] == 1
    if fault == "sms-throttled":
        assert isinstance(caught.value, TransientFailure)
        assert caught.value.retry_after == 120
    told(caught.value)
    await desk.channel.send(desk.composed())  # the channel is as good as before


async def test_a_bad_number(desk: Desk) -> None:
    desk.server.on("sms-bad-number")
    with pytest.raises(PermanentFailure) as caught:
        await desk.channel.send(desk.composed())
    named = desk.kind != "sinch"  # whose code says only that something is wrong
    assert isinstance(caught.value, RecipientRefused) is named
    told(caught.value)


def told(failure: DeliveryFailure) -> None:
    """Check that a failure names nobody, and gives nothing away."""
    for word in (NUMBER, NUMBER[1:], "91234567", LOGIN["link"].password, SECRET, LINK, "A1B2C"):
        assert word not in failure.reason


async def test_an_answer_that_never_comes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.channels.sms._WHOLE", 0.3)
    desk.server.on("sms-silent", count=1)
    with pytest.raises(UnconfirmedFailure):
        await desk.channel.send(desk.composed())
    assert len(desk.server.inbox) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_nobody_there(kind: Kind, host: str) -> None:
    with socket.socket() as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
    async with opener(kind)(context(kind, f"http://{host}:{port}")) as channel:
        recipient = channel.recipient(transaction())
        with pytest.raises(TransientFailure) as caught:
            await channel.send(channel.compose(MESSAGE, None, recipient, INTENT))
    assert isinstance(caught.value, AccountFailure)  # the channel pauses, and nobody's patience is used up


async def without_tls(kind: Kind, port: int) -> None:
    async with opener(kind)(context(kind, f"https://127.0.0.1:{port}")) as channel:
        recipient = channel.recipient(transaction())
        with pytest.raises(AccountFailure):
            await channel.send(channel.compose(MESSAGE, None, recipient, INTENT))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_certificate_that_is_none(kind: Kind) -> None:
    """TLS with a server that speaks none: nothing was handed over."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        await without_tls(kind, server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_says_nothing_at_all(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.channels.sms._CONNECT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as sock:  # nobody accepts
        await without_tls(kind, sock.getsockname()[1])


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("999999999999", 86400.0),
        ("Sat, 14 Nov 2026 00:02:00 GMT", 120.0),
        ("Fri, 13 Nov 2026 00:00:00 GMT", 0.0),
        ("Mon, 14 Dec 2026 00:00:00 GMT", 86400.0),
        ("-5", None),
        ("soon", None),
        (None, None),
    ],
)
def test_how_long_a_provider_wants_to_be_left_alone(said: str | None, seconds: float | None) -> None:
    """A day at most: what a broken clock or a wrong header says must not stop texts for weeks."""
    assert wait(said, datetime(2026, 11, 14, tzinfo=UTC)) == seconds


async def answered(kind: Kind, reply: Reply) -> tuple[DeliveryFailure | str | None, int]:
    async def handle(_: Seen) -> Reply:
        return reply

    async with serve(handle) as server, opener(kind)(context(kind, server.url)) as channel:
        composed = channel.compose(MESSAGE, None, channel.recipient(transaction()), INTENT)
        try:
            return (await channel.send(composed)).remote_id, len(server.seen)
        except DeliveryFailure as exc:
            return exc, len(server.seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "reply",
    [
        Reply(cut=0),
        json_reply({}),
        json_reply({"ids": []}),
        json_reply({"id": 1.5, "sid": None, "messageId": "x", "resultCode": 9999, "ids": ["" * 3]}),
        Reply(status=204),
        Reply(body=b"<html>"),
        Reply(body=b"[" * 60000),
        Reply(status=302, headers={"location": "http://127.0.0.1:9/"}, body=b"x", cut=0),
        Reply(status=408),
    ],
)
async def test_what_is_no_acceptance_is_in_doubt(kind: Kind, reply: Reply) -> None:
    found, asked = await answered(kind, reply)
    assert type(found) is UnconfirmedFailure
    assert asked == 1


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (21211, RecipientRefused),
        (21610, RecipientRefused),
        (30005, RecipientRefused),
        (30006, RecipientRefused),
        (30007, SendingBlocked),
        (30001, TransientFailure),
        (20429, TransientFailure),
        (20003, AccountFailure),
        (10001, AccountFailure),
        (20404, AccountFailure),
        (21408, SendingBlocked),  # one customer's country must not pause everybody's texts
        (21606, SendingBlocked),
        (21659, SendingBlocked),
        (21608, AccountFailure),
        (21703, AccountFailure),
        (21612, RecipientRefused),
        (21614, RecipientRefused),
        (21635, RecipientRefused),
        (99999, PermanentFailure),
    ],
)
async def test_codes_of_twilio(code: int, failure: type[DeliveryFailure]) -> None:
    found, _ = await answered("twilio", json_reply({"code": code, "message": f"no {NUMBER}"}, 400))
    assert type(found) is failure
    assert isinstance(found, DeliveryFailure)
    assert str(code) in found.reason


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (403, "0x0213", AccountFailure),
        (400, "0x0216", AccountFailure),  # without credit, whatever status it comes with
        (403, "0x0215", RecipientRefused),
        (403, "0x0214", TransientFailure),
        (403, "0x0217", SendingBlocked),
        (400, "0x0308", PermanentFailure),
        (403, "0x0999", AccountFailure),
        (500, "0x0215", UnconfirmedFailure),
    ],
)
async def test_codes_of_gatewayapi(status: int, code: str, failure: type[DeliveryFailure]) -> None:
    found, _ = await answered("gatewayapi", json_reply({"code": code, "message": f"no {NUMBER}"}, status))
    assert type(found) is failure


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("illegal_number_type", RecipientRefused),
        ("blocked_account", AccountFailure),
        ("missing_callback_url", AccountFailure),
        ("something_else", AccountFailure),
    ],
)
async def test_codes_of_sinch(code: str, failure: type[DeliveryFailure]) -> None:
    found, _ = await answered("sinch", json_reply({"code": code, "text": f"no {NUMBER}"}, 403))
    assert type(found) is failure


@pytest.mark.parametrize("code", [106000, 106100, 106101, 106200, 106201, 106300, 106301])
async def test_codes_of_link(code: int) -> None:
    found, _ = await answered("link", json_reply({"resultCode": code, "description": "x"}, 400))
    assert type(found) is AccountFailure


async def test_link_takes_a_code_in_an_answer_of_200() -> None:
    found, _ = await answered("link", json_reply({"messageId": "x", "resultCode": 2106}))
    assert type(found) is RecipientRefused


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_known_code_with_an_error_inside_proves_nothing(status: int) -> None:
    found, _ = await answered("twilio", json_reply({"code": 21211}, status))
    assert type(found) is (TransientFailure if status == 503 else UnconfirmedFailure)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("Not enough credits", AccountFailure),
        (f"Invalid to number {NUMBER}", RecipientRefused),
        ("Invalid from", AccountFailure),
        ("You are not allowed to do that", AccountFailure),
        ("Something else", AccountFailure),
    ],
)
async def test_words_of_46elks(text: str, failure: type[DeliveryFailure]) -> None:
    found, _ = await answered("46elks", Reply(status=403, body=text.encode()))
    assert type(found) is failure


async def test_46elks_repeats_the_text_which_is_no_error() -> None:
    found, _ = await answered("46elks", json_reply({"status": "created", "message": "Credit from Invalid to AS"}))
    assert type(found) is UnconfirmedFailure


async def test_a_foreign_code_cannot_carry_a_number() -> None:
    found, _ = await answered("sinch", json_reply({"code": NUMBER[1:], "text": "x"}, 400))
    assert isinstance(found, PermanentFailure)
    told(found)


# --- cancellation ----------------------------------------------------------------------------------------------------


async def test_cancelled_anywhere_the_channel_is_as_good_as_before(desk: Desk) -> None:
    composed = desk.composed()
    for steps in (0, 1, 2, 4, 8, 16, 32):
        task = asyncio.create_task(desk.channel.send(composed))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    before = len(desk.server.inbox)
    receipt = await desk.channel.send(composed)
    taken = desk.server.inbox[before:]
    assert receipt.remote_id in {text.remote_id for text in taken}


# --- who gets it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phone", "country", "expected"),
    [
        ("912 34 567", "NO", NUMBER),
        ("+47 912 34 567", None, NUMBER),
        ("0047 91234567", "NO", NUMBER),
        ("20 12 34 56", "DK", "+4520123456"),  # fixed line or mobile, for all anybody knows
        ("070-123 45 67", "SE", "+46701234567"),
        ("040 1234567", "FI", "+358401234567"),
        ("22 12 34 56", "NO", None),  # a landline
        ("08-123 456 78", "SE", None),
        ("91234567", None, None),  # of which country?
        ("123", "NO", None),
        ("ola@nordmann.example", "NO", None),
        ("", "NO", None),
        (None, "NO", None),
        ("+47" + "9" * 200, "NO", None),
    ],
)
def test_only_mobiles(phone: str | None, country: str | None, expected: str | None) -> None:
    assert mobile(phone, country) == expected


async def test_billing_comes_before_the_customer(desk: Desk) -> None:
    theirs = Party(phone_number="91234568", country="NO")
    assert desk.channel.recipient(transaction(customer=theirs)).address == NUMBER
    found = desk.channel.recipient(transaction("22 12 34 56", customer=theirs))
    assert (found.address, found.masked, found.redirected_from) == ("+4791234568", "***68", None)
    assert "91234568" not in found.key
    assert desk.channel.recipient(transaction(), to="+4791234569").address == "+4791234569"
    with pytest.raises(PermanentFailure, match="number given"):
        desk.channel.recipient(transaction(), to="22 12 34 56")
    with pytest.raises(PermanentFailure, match="transaction has no") as caught:
        desk.channel.recipient(transaction("22 12 34 56"))
    assert "22" not in caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
async def test_redirected(kind: Kind) -> None:
    given = replace(context(kind, "https://x.example"), redirect_email="a@b.example", redirect_phone="+4740000000")
    async with opener(kind)(given) as channel:
        found = channel.recipient(transaction())
        to = channel.recipient(transaction(), to="+4791234569")
    assert (found.address, found.masked, found.redirected_from) == ("+4740000000", "***00", "***67")
    assert (to.address, to.redirected_from) == ("+4740000000", "***69")


# --- the text --------------------------------------------------------------------------------------------------------


async def test_the_same_intent_makes_the_same_bytes(desk: Desk) -> None:
    first, again = desk.composed(), desk.composed()
    assert (first.content, first.sha256) == (again.content, again.sha256)
    other = desk.composed(intent=replace(INTENT, key="f" * 32))
    assert other.sha256 == first.sha256  # the recipient gets the same
    assert other.content != first.content
    assert desk.composed(replace(MESSAGE, text=TEXT + "!")).sha256 != first.sha256


async def test_an_invoice_needs_its_page(desk: Desk) -> None:
    bare, recipient = replace(MESSAGE, link=None), desk.channel.recipient(transaction())
    for purpose in (Purpose.FIRST, Purpose.REPEAT, Purpose.RESEND, Purpose.COURTESY):
        with pytest.raises(PermanentFailure, match="DELIVERY_LINK_KEY"):
            desk.composed(bare, replace(INTENT, purpose=purpose))
    with pytest.raises(PermanentFailure, match="DELIVERY_LINK_KEY"):
        desk.channel.compose(bare, b"%PDF-", recipient, replace(INTENT, purpose=Purpose.NOTICE))
    for purpose in (Purpose.NOTICE, Purpose.CANCELLED):
        assert desk.composed(bare, replace(INTENT, purpose=purpose)).content


async def test_the_link_is_never_left_out(desk: Desk) -> None:
    await desk.channel.send(desk.composed(replace(MESSAGE, text="Faktura fra Nordlys")))
    assert desk.server.inbox[0].asked.text == f"Faktura fra Nordlys\n{LINK}"


async def test_a_text_without_end_is_refused_here(desk: Desk) -> None:
    with pytest.raises(PermanentFailure, match="characters"):
        desk.composed(replace(MESSAGE, text=TEXT + "x" * 2000))
    assert parts(TEXT) == 1
    assert parts("x" * 161) == 2


# --- settings --------------------------------------------------------------------------------------------------------

REQUIRED: dict[Kind, tuple[str, ...]] = {
    "twilio": ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "SMS_FROM"),
    "sinch": ("SINCH_SERVICE_PLAN_ID", "SINCH_API_TOKEN", "SINCH_WEBHOOK_SECRET", "SMS_FROM"),
    "link": (
        "LINKMOBILITY_URL",
        "LINKMOBILITY_USER",
        "LINKMOBILITY_PASSWORD",
        "LINKMOBILITY_PLATFORM_ID",
        "LINKMOBILITY_PARTNER_ID",
        "LINKMOBILITY_GATE",
        "RECEIPT_SECRET",
        "SMS_FROM",
    ),
    "46elks": ("46ELKS_USER", "46ELKS_PASSWORD", "RECEIPT_SECRET", "SMS_FROM"),
    "gatewayapi": ("GATEWAYAPI_TOKEN", "GATEWAYAPI_WEBHOOK_SECRET", "SMS_FROM"),
}


def mistakes(kind: Kind, given: ChannelContext) -> tuple[str, ...]:
    with pytest.raises(UnusableSettings) as caught:
        opener(kind)(given)
    return caught.value.mistakes


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_is_missing_is_told_at_once(kind: Kind) -> None:
    given = ChannelContext(account_id=ACCOUNT, clock=MovedClock(), environ=(), public_url=PUBLIC)
    named = tuple(line.partition(":")[0].removeprefix("DELIVERY_") for line in mistakes(kind, given))
    assert named == REQUIRED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_name_settings_and_no_values(kind: Kind) -> None:
    url = "LINKMOBILITY_URL" if kind == "link" else f"{kind.upper()}_URL"
    changes = {"SMS_FROM": "4ever-young", url: "http://api.example/private", "RECEIPT_SECRET": "tiny-one"}
    given = replace(context(kind, "https://x.example", **changes), redirect_email="a@b.example", public_url=None)
    lines = mistakes(kind, given)
    named = {line.partition(":")[0].removeprefix("DELIVERY_") for line in lines}
    signs = {"RECEIPT_SECRET"} if kind in ("link", "46elks") else set()
    assert named == {"REDIRECT_TO", "PUBLIC_URL", "SMS_FROM", url, *signs}
    assert not any(word in line for line in lines for word in ("4ever", "private", "tiny", "a@b"))


@pytest.mark.parametrize(
    ("sender", "fits"),
    [
        ("Nordlys", True),
        ("ABC", True),
        ("Abcdefghij1", True),
        ("+4791234567", True),
        ("2440", True),
        ("AB", False),
        ("Abcdefghij12", False),
        ("4ever", False),
        ("Nord lys", False),
        ("Blåbær", False),
        ("INFO", False),
        ("sms", False),
        ("+0123456789", False),
    ],
)
async def test_senders(sender: str, fits: bool) -> None:  # a table's column
    given = context("sinch", "https://x.example", SMS_FROM=sender)
    if not fits:
        assert [line.partition(":")[0] for line in mistakes("sinch", given)] == ["DELIVERY_SMS_FROM"]
        return
    async with opener("sinch")(given) as channel:
        assert channel.name == "sms-sinch"


async def test_twilio_may_have_a_messaging_service_instead_of_a_sender() -> None:
    changes: dict[str, str | None] = {"SMS_FROM": None, "TWILIO_MESSAGING_SERVICE_SID": "MG123"}
    async with open_sms_server(SmsServer(clock=MovedClock(), login=LOGIN["twilio"])) as server:
        async with opener("twilio")(context("twilio", server.url, **changes)) as channel:
            await channel.send(channel.compose(MESSAGE, None, channel.recipient(transaction()), INTENT))
        assert server.inbox[0].asked.sender == "MG123"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1/x/", "http://[::1]:1", "https://x.example"])
async def test_http_is_for_loopback_only(url: str) -> None:
    async with opener("46elks")(context("46elks", url)) as channel:
        assert channel.name == "sms-46elks"


# --- check -----------------------------------------------------------------------------------------------------------


async def test_check_signs_in_and_sends_nothing(desk: Desk) -> None:
    found = await desk.channel.check()
    assert ("not tried" if desk.kind == "link" else "signed in") in found
    assert "Finland" in found
    assert desk.server.inbox == []
    assert not any(desk.server.requests.values())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "link"])
@pytest.mark.parametrize(
    ("status", "failure"),
    [(401, AccountFailure), (404, AccountFailure), (429, TransientFailure), (500, TransientFailure)],
)
async def test_check_finds_what_is_wrong(kind: Kind, status: int, failure: type[DeliveryFailure]) -> None:
    async def handle(_: Seen) -> Reply:
        return Reply(status=status)

    async with serve(handle) as server, opener(kind)(context(kind, server.url)) as channel:
        with pytest.raises(failure) as caught:
            await channel.check()
    assert type(caught.value) is failure
