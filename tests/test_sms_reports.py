"""Delivery reports of SMS: proved before anything of them is believed, and told apart whatever their order."""

import base64
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from service.channels.sms import SmsChannel
from service.channels.sms_46elks import FATES as OF_46ELKS
from service.channels.sms_gatewayapi import FATES as OF_GATEWAYAPI
from service.channels.sms_gatewayapi import claims_of
from service.channels.sms_link import FATES as OF_LINK
from service.channels.sms_provider import member
from service.channels.sms_reports import moment
from service.channels.sms_sinch import FATES as OF_SINCH
from service.channels.sms_twilio import FATES as OF_TWILIO
from service.channels.sms_twilio import signature
from service.delivery import CallbackRefused, Fate, Forged, ReportRequest, Stale, Unusable
from service.simulator.sms import SmsServer, Text, open_sms_server
from service.simulator.sms_wire import KINDS, WORDS, Call, Kind, jwt
from tests.fakes import MovedClock
from tests.test_sms import INTENT, LOGIN, MESSAGE, PUBLIC, SECRET, context, opener, transaction

GATE = f"{PUBLIC}/receipts/sms-link?secret={SECRET}"


class Desk:
    """A channel whose provider has taken one text."""

    def __init__(self, kind: Kind, channel: SmsChannel, server: SmsServer) -> None:
        self.kind = kind
        self.channel = channel
        self.server = server

    @property
    def text(self) -> Text:
        return self.server.inbox[0]

    async def read(self, call: Call, **changes: Any) -> Any:
        return await self.channel.read_reports(replace(request_of(call), **changes), now=self.server.clock.now())


def request_of(call: Call) -> ReportRequest:
    headers = tuple((name.lower(), text) for name, text in call.headers.items())
    return ReportRequest(method="POST", url=call.url, headers=headers, body=call.body)


@pytest.fixture(params=KINDS)
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    kind: Kind = request.param
    async with AsyncExitStack() as stack:
        yield await a_desk(kind, stack)


async def a_desk(kind: Kind, stack: AsyncExitStack) -> Desk:
    given = context(kind, "https://unused.example")
    server = SmsServer(clock=given.clock, login=replace(LOGIN[kind], gate_url=GATE))
    await stack.enter_async_context(open_sms_server(server))
    channel = await stack.enter_async_context(opener(kind)(context(kind, server.url)))
    await channel.send(channel.compose(MESSAGE, None, channel.recipient(transaction()), INTENT))
    return Desk(kind, channel, server)


FATES = {
    "twilio": OF_TWILIO,
    "sinch": OF_SINCH,
    "link": OF_LINK,
    "46elks": OF_46ELKS,
    "gatewayapi": OF_GATEWAYAPI,
}


@pytest.mark.parametrize(
    ("word", "fate"),
    [("delivered", Fate.DELIVERED), ("failed", Fate.FAILED), ("pending", Fate.DEFERRED), ("unknown", Fate.UNKNOWN)],
)
async def test_what_became_of_a_text(desk: Desk, word: Any, fate: Fate) -> None:
    (report,) = await desk.read(desk.server.call(desk.text, word))
    assert (report.channel, report.reference, report.fate) == (f"sms-{desk.kind}", INTENT.key, fate)
    assert report.detail
    assert "91234567" not in report.detail
    if desk.kind not in ("twilio", "46elks"):
        assert abs(report.at - desk.server.clock.now()) < timedelta(seconds=5)


async def test_a_repeat_is_known_and_another_word_is_another_report(desk: Desk) -> None:
    said = [(await desk.read(desk.server.call(desk.text, word)))[0] for word in ("pending", "delivered", "delivered")]
    assert said[1].event_id == said[2].event_id != said[0].event_id
    assert desk.text.remote_id in said[0].event_id  # so that another text's is another


@pytest.mark.parametrize("kind", KINDS)
async def test_every_word_of_the_tables(kind: Kind) -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk(kind, stack)
        for word, fate in FATES[kind].items():
            found = await desk.read(desk.server.call(desk.text, "pending", word=word))
            assert [report.fate for report in found] == ([] if fate is None else [fate]), word


def test_words_that_are_final_and_tell_nothing_are_told_so() -> None:
    assert [OF_LINK[code] for code in ("4", "5", "1010")] == [Fate.UNKNOWN] * 3
    assert [OF_LINK[code] for code in ("1", "3", "1002", "1004", "2107", "4001", "4007")] == [Fate.FAILED] * 7
    # "Not delivered" in LINK's own table: an invoice that nobody got must not rest as an unknown one.
    not_delivered = ("0", "6", "104", "105", "1006", "1009", "2201", "2207", "3000", "3002", "4000")
    assert [OF_LINK[code] for code in not_delivered] == [Fate.FAILED] * 11


# --- forged, stale, altered ------------------------------------------------------------------------------------------


def altered(call: Call, kind: Kind) -> Call:
    """Say in a stranger's report that a text was delivered that was not."""
    if kind == "gatewayapi":
        token = dict(call.headers)["x-gwapi-signature"]
        head, _, signature = token.split(".")
        claims = jwt(json.dumps({"id": 1, "status": "DELIVERED", "userref": INTENT.key}).encode(), "x").split(".")[1]
        return replace(call, headers={"x-gwapi-signature": f"{head}.{claims}.{signature}"})
    if kind in ("link", "46elks"):  # nothing of them is signed: it is the URL that must be known
        return replace(call, url=call.url[:-1] + ("0" if call.url[-1] != "0" else "1"))
    failed, delivered = WORDS[kind]["failed"].encode(), WORDS[kind]["delivered"].encode()
    assert failed in call.body
    return replace(call, body=call.body.replace(failed, delivered))


async def test_what_was_altered_is_forged(desk: Desk) -> None:
    call = desk.server.call(desk.text, "failed")
    assert await desk.read(call)
    with pytest.raises(Forged):
        await desk.read(altered(call, desk.kind))


async def test_what_another_signed_is_forged(desk: Desk) -> None:
    other = replace(LOGIN[desk.kind], signing="another", gate_url=f"{PUBLIC}/receipts/sms-link?secret=another")
    stranger = SmsServer(clock=desk.server.clock, login=other, inbox=[desk.text])
    call = stranger.call(desk.text, "delivered")
    if desk.kind == "46elks":
        call = replace(call, url=call.url.replace("token=", "token=0"))
    with pytest.raises(Forged):
        await desk.read(call)


async def test_what_nobody_signed_is_forged(desk: Desk) -> None:
    call = desk.server.call(desk.text, "delivered")
    with pytest.raises(Forged):
        await desk.read(replace(call, url=call.url.partition("?")[0]), headers=())
    with pytest.raises(Forged):
        await desk.read(Call(url=f"{PUBLIC}/receipts/x?secret=&token=&intent=", headers={}, body=b""))


@pytest.mark.parametrize("kind", ["46elks", "twilio"])
async def test_a_proof_of_one_text_is_none_of_another(kind: Kind) -> None:
    """Where the URL says which text it is about."""
    async with AsyncExitStack() as stack:
        desk = await a_desk(kind, stack)
        call = desk.server.call(desk.text, "delivered")
        with pytest.raises(Forged):
            await desk.read(replace(call, url=call.url.replace(INTENT.key, "f" * 32)))


@pytest.mark.parametrize("late", [3 * 86400 + 1.0, 30 * 86400.0, -3 * 86400.0 - 5])
async def test_sinch_signs_the_time(late: float) -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk("sinch", stack)
        (told,) = await desk.read(desk.server.call(desk.text, "delivered", late=2 * 86400))  # we were away so long
        assert told.fate is Fate.DELIVERED
        call = desk.server.call(desk.text, "delivered", late=late)
        with pytest.raises(Stale):
            await desk.read(call)
        changed = {**call.headers, "x-sinch-webhook-signature-timestamp": str(int(desk.server.clock.now().timestamp()))}
        with pytest.raises(Forged):
            await desk.read(replace(call, headers=changed))


async def test_a_token_may_be_too_old() -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk("gatewayapi", stack)
        now = int(desk.server.clock.now().timestamp())
        claims = {"id": 1, "status": "DELIVERED", "userref": INTENT.key}
        for expiry, refused in ((now + 60, False), (now - 2 * 86400, False), (now - 4 * 86400, True)):
            token = jwt(json.dumps(claims | {"exp": expiry}).encode(), SECRET)
            call = Call(url=f"{PUBLIC}/receipts/sms-gatewayapi", headers={"x-gwapi-signature": token}, body=b"{}")
            if refused:
                with pytest.raises(Stale):
                    await desk.read(call)
            else:
                assert (await desk.read(call))[0].fate is Fate.DELIVERED


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "..", "é.é.é", "eyJhbGciOiJub25lIn0.e30."])
async def test_what_is_no_token(token: str) -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk("gatewayapi", stack)
        with pytest.raises(Forged):
            await desk.read(Call(url="https://x.example", headers={"x-gwapi-signature": token}, body=b"{}"))


@pytest.mark.parametrize("head", [b'{"alg":"none"}', b'{"alg":"HS512"}', b"{}", b"x"])
async def test_a_token_of_another_algorithm_is_forged(head: bytes) -> None:
    """Though it has the right signature."""
    claims = json.dumps({"id": 1, "status": "DELIVERED", "userref": INTENT.key}).encode()
    parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, claims))
    signature = base64.urlsafe_b64encode(hmac.new(SECRET.encode(), parts, "sha256").digest()).rstrip(b"=")
    headers = {"x-gwapi-signature": b".".join((parts, signature)).decode()}
    async with AsyncExitStack() as stack:
        desk = await a_desk("gatewayapi", stack)
        with pytest.raises(Forged):
            await desk.read(Call(url="https://x.example", headers=headers, body=b"{}"))


@pytest.mark.parametrize(
    ("given", "signed", "fine"),
    [
        ("https://shop.example:8443/base", "https://shop.example:8443/base", True),
        ("https://shop.example:8443/base", "https://shop.example/base", True),  # Twilio may leave out the port
        ("https://shop.example/base", "https://shop.example:443/base", True),  # or add the usual one
        ("https://shop.example/base", "https://shop.example:8443/base", False),
        ("https://shop.example/base", "https://shop.example/other", False),
        ("https://shop.example/base", "http://shop.example/base", False),
    ],
)
async def test_twilio_signs_an_address_with_or_without_its_port(given: str, signed: str, fine: bool) -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk("twilio", stack)
        rest = f"/receipts/sms-twilio?{urlencode({'intent': INTENT.key})}"
        pairs = [("MessageSid", "SM1"), ("MessageStatus", "delivered")]
        headers = {"x-twilio-signature": signature(SECRET, signed + rest, pairs).decode()}
        call = Call(url=given + rest, headers=headers, body=urlencode(pairs).encode())
        if fine:
            assert (await desk.read(call))[0].fate is Fate.DELIVERED
        else:
            with pytest.raises(Forged):
                await desk.read(call)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (
            "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309",
            b"RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        ("Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234", b"IK+Dwps556ElfBT0I3Rgjkr1wJU="),
    ],
)
def test_signatures_that_twilio_published(pairs: str, expected: bytes) -> None:
    """The simulator and the adapter are of one hand; these are Twilio's own."""
    assert signature("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", parse_qsl(pairs)) == expected


def test_a_token_that_gatewayapi_published() -> None:
    token = (
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpZCI6MjM4MTcwMywibXNpc2RuIjo0NTQyNjA5MDQ1LCJ0aW1lIjoxNTIyNzY0MDYyLCJzdG"
        "F0dXMiOiJERUxJVkVSRUQiLCJlcnJvciI6bnVsbCwiY29kZSI6bnVsbCwidXNlcnJlZiI6bnVsbCwiY2FsbGJhY2tfdXJsIjoiaHR0cDovL2Ji"
        "YWY3MTQyLm5ncm9rLmlvIiwiYXBpIjo0fQ.KdfDH65bnQtgxEkFnpAQodOciAJedZFB13r9wEo8t3Y"
    )
    found = claims_of(token, "secret", MovedClock().now())
    assert [member(found, name) for name in ("id", "status", "time")] == [2381703, "DELIVERED", 1522764062]
    with pytest.raises(Forged):
        claims_of(token, "Secret", MovedClock().now())


async def test_only_the_claims_are_believed() -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk("gatewayapi", stack)
        call = desk.server.call(desk.text, "failed")
        (report,) = await desk.read(call, body=call.body.replace(b"UNDELIVERABLE", b"DELIVERED"))
        assert report.fate is Fate.FAILED


# --- what cannot be used ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"[[]]", b"null", b"{", b'{"id": {}, "refId": []}', b'{"id":"a"}', b"[" * 50000]
)
async def test_authentic_and_of_no_use(body: bytes) -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk("link", stack)
        with pytest.raises(Unusable):
            await desk.read(Call(url=GATE, headers={}, body=body))


async def test_without_our_key_the_providers_id_will_do() -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk("link", stack)
        for key in (None, "somebody else's", "<script>"):
            body = json.dumps([{"id": "abc", "refId": key, "resultCode": 1001}, {"id": "b", "resultCode": 4}]).encode()
            first, second = await desk.read(Call(url=GATE, headers={}, body=body))
            assert (first.reference, first.fate) == ("abc", Fate.DELIVERED)
            assert (second.reference, second.fate) == ("b", Fate.UNKNOWN)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"", urlencode({f"a{n}": "" for n in range(300)}).encode()])
async def test_odd_forms_end_in_words_of_ours(body: bytes) -> None:
    async with AsyncExitStack() as stack:
        for kind in ("twilio", "46elks"):
            desk = await a_desk(kind, stack)
            with pytest.raises(CallbackRefused):
                await desk.read(desk.server.call(desk.text, "delivered"), body=body)


@pytest.mark.parametrize(
    ("written", "iso"),
    [
        ("2026-11-14T10:00:00Z", "2026-11-14T10:00:00+00:00"),
        ("2026-11-14T10:00:00.5", "2026-11-14T10:00:00.500000+00:00"),
        ("2026-11-14T11:00:00+01:00", "2026-11-14T10:00:00+00:00"),
        (1794650400, "2026-11-14T10:00:00+00:00"),
        (1794650400000, "2026-11-14T10:00:00+00:00"),
        ("1794650400", "2026-11-14T10:00:00+00:00"),
        ("yesterday", None),
        (None, None),
        (True, None),
        (-1, None),
        (10**30, None),
        (10**400, None),
        (-(10**400), None),
        ("0001-01-01T00:00:00+23:59", None),  # the record could not show it
        ("9999-12-31T23:59:59-23:59", None),
        (float("nan"), None),
    ],
)
def test_times_as_providers_write_them(written: object, iso: str | None) -> None:
    found = moment(written)
    assert (found.isoformat() if found else None) == iso


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        (1001, "1001 delivered"),
        (1006, "1006 not delivered"),
        (1007, "1007 on its way"),
        (1010, "1010 nobody knows whether it was delivered"),
        (2104, "2104 nobody has that number"),
        (2107, "2107 a fresh try may do better"),
        (9999, "9999"),
    ],
)
async def test_numbers_of_link_are_told_in_words(code: int, detail: str) -> None:
    async with AsyncExitStack() as stack:
        desk = await a_desk("link", stack)
        body = json.dumps({"id": "m", "refId": INTENT.key, "resultCode": code}).encode()
        (report,) = await desk.read(Call(url=GATE, headers={}, body=body))
    assert report.detail == detail
