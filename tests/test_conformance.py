"""Every built-in channel runs the suite that any adapter runs; and the suite finds what is wrong with a bad one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.request import Request, urlopen

import pytest

from service.channels import BUILT_IN
from service.channels.conformance import Asked, Conformance, Peer, Plays, http_peer, open_http_peer
from service.channels.conformance.cancelling import cancelled_at
from service.channels.conformance.peer import REDIRECT_EMAIL, REDIRECT_PHONE
from service.channels.conformance.suite import earned_words
from service.channels.email import open_email
from service.channels.shape import mistakes_of
from service.delivery import (
    Channel,
    Composed,
    Fate,
    Forged,
    Guarantee,
    Intent,
    Mailbox,
    Message,
    Receipt,
    Recipient,
    Report,
    ReportRequest,
    TransientFailure,
    UnconfirmedFailure,
)
from service.simulator.mail import Behaviour, MailServer, Phase, open_mail_server
from service.simulator.sms import SmsServer, open_sms_server
from service.simulator.sms_wire import Kind
from tests.fakes import FakeChannel, MovedClock
from tests.test_sms import LOGIN, PUBLIC, SECRET, context, opener

HTTP_SETTINGS = {"DELIVERY_HTTP_SECRETS": "a-secret-to-sign-with", "DELIVERY_HTTP_ALLOW_PRIVATE": "true"}


class TestHttp(Conformance):
    factory = BUILT_IN["http"]

    def open_peer(self) -> AbstractAsyncContextManager[Peer]:
        return open_http_peer(self.factory, lambda url: HTTP_SETTINGS | {"DELIVERY_HTTP_URL": f"{url}/invoices"})


class TestHttpWithLinks(Conformance):
    factory = BUILT_IN["http"]

    def open_peer(self) -> AbstractAsyncContextManager[Peer]:
        given = HTTP_SETTINGS | {"DELIVERY_HTTP_DOCUMENT": "link"}
        return open_http_peer(self.factory, lambda url: given | {"DELIVERY_HTTP_URL": f"{url}/invoices"})


# --- e-mail ----------------------------------------------------------------------------------------------------------

_REPLIES: dict[Plays, tuple[Phase, Behaviour]] = {
    Plays.REFUSES_FOR_NOW: (Phase.RCPT, Behaviour(reply="451 4.3.0 {recipient}: try again later")),
    Plays.THROTTLES: (Phase.MAIL, Behaviour(reply="452 4.3.1 too much just now")),
    Plays.REFUSES_FOR_GOOD: (Phase.RCPT, Behaviour(reply="550 5.1.1 {recipient}: no such user")),
    Plays.ACCOUNT_AT_FAULT: (Phase.AUTH, Behaviour(reply="535 5.7.8 wrong password")),
    Plays.LOSES_THE_ANSWER: (Phase.CONTENT, Behaviour(drop=True, keep=True)),
    Plays.GARBLES_THE_ANSWER: (Phase.CONTENT, Behaviour(reply="<h1>Bad Gateway</h1>")),
}


@dataclass(slots=True)
class MailPeer:
    server: MailServer
    stop: Callable[[], Awaitable[None]]
    secrets: tuple[str, ...] = ("a-long-password",)

    @asynccontextmanager
    async def open_channel(self, *, redirected: bool = False) -> AsyncIterator[Channel]:
        async with open_email(
            account_id="T12345678",
            smtp_url=self.server.url,
            mail_from=Mailbox(name="Nordlys", address="faktura@nordlys.example"),
            reply_to=None,
            bcc=None,
            redirect_to=REDIRECT_EMAIL if redirected else None,
            connections=2,
            clock=MovedClock(),
        ) as channel:
            yield channel

    async def play(self, plays: Plays) -> None:
        self.server.script.clear()
        if plays is Plays.ABSENT:
            await self.stop()
        elif plays is not Plays.ACCEPTS:
            self.server.script.on(*_REPLIES[plays])

    def taken(self) -> int:
        return len(self.server.inbox)

    def report(self, composed: Composed, receipt: Receipt, fate: Fate, at: datetime) -> ReportRequest:
        raise NotImplementedError


class TestEmail(Conformance):
    factory = BUILT_IN["email"]

    @asynccontextmanager
    async def open_peer(self) -> AsyncIterator[Peer]:
        server = MailServer(clock=MovedClock(), random=Random(1), credentials=("kari", "a-long-password"))
        async with _stoppable(open_mail_server(server)) as stop:
            yield MailPeer(server, stop)


# --- texts -----------------------------------------------------------------------------------------------------------

_TROUBLES = {
    Plays.REFUSES_FOR_NOW: "sms-503",
    Plays.THROTTLES: "sms-throttled",
    Plays.REFUSES_FOR_GOOD: "sms-422",
    Plays.ACCOUNT_AT_FAULT: "sms-401",
    Plays.LOSES_THE_ANSWER: "sms-lost",
    Plays.GARBLES_THE_ANSWER: "sms-500-taken",
}


@dataclass(slots=True)
class SmsPeer:
    kind: Kind
    server: SmsServer
    stop: Callable[[], Awaitable[None]]
    secrets: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.secrets = (SECRET, LOGIN[self.kind].password)

    def open_channel(self, *, redirected: bool = False) -> AbstractAsyncContextManager[Channel]:
        told = context(self.kind, self.server.url)
        return opener(self.kind)(replace(told, redirect_phone=REDIRECT_PHONE) if redirected else told)

    async def play(self, plays: Plays) -> None:
        self.server.clear()
        if plays is Plays.ABSENT:
            await self.stop()
        elif plays is not Plays.ACCEPTS:
            self.server.on(_TROUBLES[plays])

    def taken(self) -> int:
        return len(self.server.inbox)

    def report(self, composed: Composed, receipt: Receipt, fate: Fate, at: datetime) -> ReportRequest:
        text = next(text for text in self.server.inbox if text.remote_id == receipt.remote_id)
        late = (self.server.clock.now() - at).total_seconds()
        call = self.server.call(text, "delivered" if fate is Fate.DELIVERED else "failed", late=late)
        headers = tuple((name.lower(), value) for name, value in call.headers.items())
        return ReportRequest(method="POST", url=call.url, headers=headers, body=call.body)


class _OfTexts(Conformance):
    kind: Kind

    @asynccontextmanager
    async def open_peer(self) -> AsyncIterator[Peer]:
        login = replace(LOGIN[self.kind], gate_url=f"{PUBLIC}/receipts/sms-link?secret={SECRET}")
        server = SmsServer(clock=MovedClock(), login=login)
        async with _stoppable(open_sms_server(server)) as stop:
            yield SmsPeer(self.kind, server, stop)


class TestTwilio(_OfTexts):
    factory = BUILT_IN["sms-twilio"]
    kind: Kind = "twilio"


class TestSinch(_OfTexts):
    factory = BUILT_IN["sms-sinch"]
    kind: Kind = "sinch"


class TestLink(_OfTexts):
    factory = BUILT_IN["sms-link"]
    kind: Kind = "link"


class Test46elks(_OfTexts):
    factory = BUILT_IN["sms-46elks"]
    kind: Kind = "46elks"


class TestGatewayApi(_OfTexts):
    factory = BUILT_IN["sms-gatewayapi"]
    kind: Kind = "gatewayapi"


def test_every_built_in_is_tried() -> None:
    tried = {
        suite.factory for suite in _suites(Conformance) if hasattr(suite, "factory") and suite.__module__ == __name__
    }
    assert tried == set(BUILT_IN.values())


def _suites(of: type[Conformance]) -> Iterable[type[Conformance]]:
    for suite in of.__subclasses__():
        yield suite
        yield from _suites(suite)


@asynccontextmanager
async def _stoppable(opening: AbstractAsyncContextManager[Any]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Open a server in a task of its own, so that it can be gone while the test goes on."""
    opened, over = asyncio.Event(), asyncio.Event()

    async def keep() -> None:
        async with opening:
            opened.set()
            await over.wait()

    task = asyncio.create_task(keep())
    await asyncio.wait([task, asyncio.create_task(opened.wait())], return_when=asyncio.FIRST_COMPLETED)

    async def stop() -> None:
        over.set()
        await task

    try:
        yield stop
    finally:
        await stop()


# --- what the suite finds --------------------------------------------------------------------------------------------


def test_what_keeps_an_object_from_being_a_channel() -> None:
    assert mistakes_of(FakeChannel()) == ()
    lacking = SimpleNamespace(name="", template="mail", guarantee="idempotent", reports=True, pace=None)
    lacking.send = lambda _: None
    found = [mistake.partition(";")[0].partition(" (")[0] for mistake in mistakes_of(lacking)]
    assert found == [
        "its `name` is not what it must be",
        "its `guarantee` is not what it must be",
        "it has no `largest_document`",
        "it has no method `recipient`",
        "it has no method `compose`",
        "its `send` must be `async def`",
        "it has no method `check`",
        "it has no method `read_reports`",
    ]


@pytest.mark.parametrize("name", ["", "provider", "a b", "letters/2", "Letters", "a,b", "x" * 41])
def test_a_name_that_will_not_do_in_an_address_or_as_a_lane_is_no_name(name: str) -> None:
    assert mistakes_of(FakeChannel("letters-2.b")) == ()
    (mistake,) = mistakes_of(FakeChannel(name))
    assert "a-z, 0-9, dots and dashes" in mistake


async def test_a_cancellation_comes_at_the_wait_that_was_asked_for() -> None:
    done: list[int] = []

    async def three() -> str:
        for number in range(3):
            await asyncio.sleep(0)
            done.append(number)
        return "done"

    assert await cancelled_at(three(), 2) is None
    assert done == [0]
    assert await cancelled_at(three(), 4) == "done"


@dataclass(slots=True)
class _Bad:
    """A channel that does one thing wrong."""

    inner: Any
    wrong: str
    redirected: bool = False
    left: asyncio.Task[Receipt] | None = None  # of a message that was cancelled, its answer still to come
    fate: Fate | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def guarantee(self) -> Guarantee:
        return Guarantee.IDEMPOTENT

    @property
    def template(self) -> str:
        return "letters" if self.wrong == "strays" else str(self.inner.template)

    @property
    def reports(self) -> bool:
        return self.wrong in ("sound", "credulous", "hasty", "late", "random", "fragile")

    def compose(self, message: Message, document: bytes | None, recipient: Recipient, intent: Intent) -> Composed:
        composed: Composed = self.inner.compose(message, document, recipient, intent)
        if self.wrong == "dates":
            return replace(composed, sha256=f"{datetime.now(UTC):%Y-%m-%d}")
        return composed

    async def send(self, composed: Composed) -> Any:
        if self.wrong in ("bool", "blocks", "mixes"):
            return await {"bool": self._bool, "blocks": self._blocking, "mixes": self._mixed}[self.wrong](composed)
        try:
            return await self.inner.send(composed)
        except asyncio.CancelledError:
            if self.wrong == "swallows":
                return Receipt(answer="well")
            if self.wrong == "doubts":
                raise UnconfirmedFailure("it may have been taken") from None
            raise
        except Exception as exc:
            if self.wrong == "resends" and isinstance(exc, UnconfirmedFailure):
                return await self.inner.send(replace(composed, message_id="again"))
            if self.wrong == "transient":
                raise TransientFailure("later") from exc
            if self.wrong == "telling":
                raise type(exc)("nobody is kari.nordmann@nordmann.example") from exc
            if self.wrong == "bug":
                raise ValueError from exc
            raise

    async def _bool(self, composed: Composed) -> bool:
        return bool(await self.inner.send(composed))

    async def _blocking(self, composed: Composed) -> Receipt:
        await asyncio.sleep(0)
        urlopen(Request(self.inner._endpoint.url, data=composed.content, method="POST")).read()  # noqa: ASYNC210
        return Receipt(answer="taken")

    async def _mixed(self, composed: Composed) -> Receipt:
        """As over a connection that is kept with the answer of a cancelled message still to come."""
        task, before = asyncio.create_task(self.inner.send(composed)), self.left
        self.left = task if before else None
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            self.left = task
            raise
        return await (before or task)

    async def read_reports(self, request: ReportRequest, *, now: datetime) -> tuple[Report, ...]:
        if self.wrong == "fragile":
            json.loads(request.body)
        if request.header("proof") != "proven" and not (self.wrong == "credulous" and request.header("proof")):
            raise Forged("bad_proof")
        told = json.loads(request.body)
        self.fate = self.fate if self.wrong == "hasty" and self.fate else Fate(told["fate"])
        at = now if self.wrong == "late" else datetime.fromisoformat(told["at"])
        event_id = f"{time.monotonic()}" if self.wrong == "random" else f"{told['at']}-{told['fate']}"
        fate = self.fate if self.wrong == "hasty" else Fate(told["fate"])
        return (Report(channel=self.inner.name, event_id=event_id, reference=told["id"], fate=fate, at=at),)


def _report(composed: Composed, _: Receipt, fate: Fate, at: datetime) -> ReportRequest:
    body = json.dumps({"id": composed.message_id, "fate": fate, "at": at.isoformat()}).encode()
    return ReportRequest(method="POST", url=f"{PUBLIC}/receipts/http", headers=(("proof", "proven"),), body=body)


@pytest.mark.parametrize(
    ("wrong", "attempt", "said"),
    [
        ("transient", Conformance.test_refused_for_good, "raise PermanentFailure, not TransientFailure"),
        ("transient", Conformance.test_the_answer_is_lost, "raise UnconfirmedFailure"),
        ("transient", Conformance.test_our_account_at_fault, "raise AccountFailure"),
        ("telling", Conformance.test_refused_for_now, "names what is personal"),
        ("bug", Conformance.test_throttled, "takes for a bug"),
        ("swallows", Conformance.test_cancelled_at_every_await, "swallows a cancellation"),
        ("doubts", Conformance.test_cancelled_at_every_await, "makes a UnconfirmedFailure of a cancellation"),
        ("mixes", Conformance.test_cancelled_at_every_await, "takes an answer for the next message's"),
        ("transient", Conformance.test_the_answer_says_neither_yes_nor_no, "raise UnconfirmedFailure"),
        ("resends", Conformance.test_the_answer_is_lost, "one `send` made 2 messages|as if it were accepted"),
        ("bool", Conformance.test_accepted, "`send` returned bool"),
        ("blocks", Conformance.test_accepted, "blocks the event loop"),
        ("dates", Conformance.test_a_repeat_is_the_same_to_the_last_byte, "`compose` asks for now"),
        ("strays", Conformance.test_what_is_redirected_reaches_no_customer, "writes to a customer all the same"),
        ("credulous", Conformance.test_reports_in_any_order, "believes a report of `failed` that proves nothing"),
        ("hasty", Conformance.test_reports_in_any_order, "read failed and failed"),
        ("late", Conformance.test_reports_in_any_order, "must be the time in the report"),
        ("random", Conformance.test_reports_in_any_order, "the same report must read the same"),
        ("fragile", Conformance.test_reports_in_any_order, "makes it raise UnicodeDecodeError"),
    ],
)
def test_the_suite_finds_it(
    wrong: str, attempt: Callable[[Conformance], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad(TestHttp):
        __test__ = False

        def open_peer(self) -> AbstractAsyncContextManager[Peer]:
            return _spoilt(open_http_peer(self.factory, _settings, reports=_report), wrong)

    monkeypatch.setattr(http_peer, "LONGEST_TURN", 0.5)
    with pytest.raises(AssertionError, match=said):
        attempt(Bad())


def test_the_suite_finds_nothing_wrong_with_what_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    class Sound(TestHttp):
        __test__ = False

        def open_peer(self) -> AbstractAsyncContextManager[Peer]:
            return _spoilt(open_http_peer(self.factory, _settings, reports=_report), "sound")

    Sound().test_the_guarantee(capsys)
    Sound().test_reports_in_any_order()
    Sound().test_cancelled_at_every_await()


def test_a_claim_that_does_not_hold_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    class Bad(TestHttp):
        __test__ = False

        def open_peer(self) -> AbstractAsyncContextManager[Peer]:
            return open_http_peer(self.factory, _settings, repeat=_knows_no_repeat)

    with pytest.raises(AssertionError, match="claims to be idempotent"):
        Bad().test_the_guarantee(capsys)


@pytest.mark.parametrize(
    ("claimed", "once", "said"),
    [
        (Guarantee.IDEMPOTENT, True, "idempotent, with receipts"),
        (Guarantee.IDEMPOTENT, False, "at least once, with receipts (it claims idempotent)"),
        (Guarantee.AT_LEAST_ONCE, True, "idempotent, with receipts (it claims at least once)"),
        (Guarantee.AT_MOST_ONCE, False, "at most once, with receipts"),
    ],
)
def test_what_was_earned_is_said_and_not_what_is_claimed(claimed: Guarantee, once: bool, said: str) -> None:
    assert earned_words("post", claimed, once=once, reports=True) == f"post: earned {said}"


def _settings(url: str) -> dict[str, str]:
    return HTTP_SETTINGS | {"DELIVERY_HTTP_URL": f"{url}/invoices"}


def _knows_no_repeat(_: Asked) -> None:
    return None


@asynccontextmanager
async def _spoilt(opening: AbstractAsyncContextManager[Any], wrong: str) -> AsyncIterator[Any]:
    async with opening as peer:
        opens = peer.opens

        @asynccontextmanager
        async def spoil(redirected: bool) -> AsyncIterator[Any]:
            async with opens(redirected) as channel:
                yield _Bad(channel, wrong)

        peer.opens = spoil
        yield peer


def test_work_at_import_is_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(Conformance):
        __test__ = False
        factory = "hasty:open_hasty"

    monkeypatch.syspath_prepend(str(tmp_path))
    for work, said in (
        ("import os\nos.environ.get('DELIVERY_LETTERS_URL')", "reads the setting DELIVERY_LETTERS_URL"),
        ("import socket\nsocket.socket().connect(('127.0.0.1', 9))", "opens a connection"),
        ("import threading\nthreading.Thread(target=print).start()", "starts a thread"),
        ("open('x', 'w')", "writes a file"),
        ("import socket\nsocket.getaddrinfo('127.0.0.1', 80)", "looks an address up"),
    ):
        (tmp_path / "hasty.py").write_text(work)
        with pytest.raises(AssertionError, match=said):
            Hasty().test_importing_it_does_nothing()
    (tmp_path / "hasty.py").write_text("x = 1")
    Hasty().test_importing_it_does_nothing()
