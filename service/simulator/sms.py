"""Five SMS providers on one loopback port, with one inbox: faults by request, and delivery reports sent on request."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx2 as httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.delivery import Clock
from service.serving import listen, origin, serving
from service.simulator.answers import answer_instead
from service.simulator.deeds import Answer, Trouble
from service.simulator.faults import Faults
from service.simulator.sms_wire import (
    WORDS,
    Asked,
    Call,
    Fate,
    Kind,
    Login,
    Reply,
    asked,
    authorization,
    refusal,
    remote_id,
    report,
    taken,
)
from service.simulator.troubles import TEXTS

_SEND: dict[str, Kind] = {
    "/2010-04-01/Accounts/{account}/Messages.json": "twilio",
    "/xms/v1/{account}/batches": "sinch",
    "/sms/send": "link",
    "/a1/sms": "46elks",
    "/rest/mtsms": "gatewayapi",
}
_ASK: dict[str, Kind] = {
    "/2010-04-01/Accounts/{account}.json": "twilio",
    "/xms/v1/{account}/batches": "sinch",
    "/a1/me": "46elks",
    "/rest/me": "gatewayapi",
}
Handler = Callable[[Request], Awaitable[Response]]
_GIVEN_UP = 10.0  # seconds for a report's answer

TROUBLES: dict[str, Trouble] = TEXTS
"""What can go wrong when a text is handed over, by name."""


class NotReported(ValueError):
    """Nobody asked for reports of a text, or nobody answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text that was taken."""

    number: int  # from 1
    kind: Kind
    remote_id: str
    asked: Asked
    received_at: datetime


@dataclass(slots=True)
class _Wanted:
    name: str
    left: int | None
    kind: Kind | None


@dataclass(slots=True, kw_only=True)
class SmsServer:
    """The providers as tests and the demo see them: where they are, what they took, and how they behave."""

    clock: Clock
    login: Login = field(default_factory=Login)
    url: str = ""
    inbox: list[Text] = field(default_factory=list)
    requests: Counter[Kind] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    faults: Faults | None = None  # those that it shares with others
    reported: dict[int, list[str]] = field(default_factory=dict)  # by a text's number, the words that were told
    arrived: Callable[[Text], None] = lambda _: None
    _wanted: list[_Wanted] = field(default_factory=list)
    _held: list[Call] = field(default_factory=list)

    def on(self, name: str, *, count: int | None = None, kind: Kind | None = None) -> None:
        """Ask for a fault of the table, `count` times (None: until `clear`); raises `KeyError`."""
        TROUBLES[name]  # raises for another name
        self._wanted.append(_Wanted(name, count, kind))

    def clear(self) -> None:
        """Behave as usual again."""
        self._wanted.clear()

    def trouble(self, kind: Kind, to: str = "") -> Trouble | None:
        """Return what goes wrong now, if anything, and count it; `to` is the text's number."""
        for wanted in self._wanted:
            if wanted.left != 0 and wanted.kind in (None, kind):
                if wanted.left is not None:
                    wanted.left -= 1
                self.struck[wanted.name] += 1
                return TROUBLES[wanted.name]
        return self.faults.take(Trouble, "sms", kind, to) if self.faults else None

    def take(self, kind: Kind, text: Asked) -> Text:
        """Put a text into the inbox."""
        number = len(self.inbox) + 1
        kept = Text(
            number=number,
            kind=kind,
            remote_id=remote_id(kind, number),
            asked=text,
            received_at=self.clock.now(),
        )
        self.inbox.append(kept)
        self.arrived(kept)
        return kept

    def call(self, text: Text, fate: Fate, *, word: str | None = None, late: float = 0.0) -> Call:
        """Return the report of a text, signed; `late` is how many seconds ago. Raises `NotReported`."""
        at = self.clock.now() - timedelta(seconds=late)
        found = report(
            text.kind, self.login, text.asked, name=text.remote_id, word=word or WORDS[text.kind][fate], at=at
        )
        if found is None:
            raise NotReported("nobody asked for reports")
        return found

    async def report(self, text: Text, fate: Fate, *, copies: int = 1, hold: bool = False) -> list[int]:
        """Send a report; return the answers' statuses. Raises `NotReported`.

        `copies`: the same several times over. `hold`: not now, but after the next one, so that they come out of order.
        """
        call = self.call(text, fate)
        if hold:
            self._held.append(call)
            return []
        calls = [*[call] * copies, *self._held]
        self._held.clear()
        self.reported.setdefault(text.number, []).append(fate)
        timeout = httpx.Timeout(_GIVEN_UP)
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
                return [(await client.post(c.url, content=c.body, headers=dict(c.headers))).status_code for c in calls]
        except httpx.HTTPError as exc:
            raise NotReported(f"nobody answered ({type(exc).__name__})") from exc

    async def wait(self, count: int, *, within: float = 10.0) -> list[Text]:
        """Wait until the inbox holds `count` texts and return it. Raises `TimeoutError` after `within` seconds."""
        async with asyncio.timeout(within):
            while len(self.inbox) < count:
                await self.clock.sleep(0.02)
        return self.inbox


def _response(reply: Reply, retry_after: int | None = None) -> Response:
    headers = {"retry-after": str(retry_after)} if retry_after is not None else {}
    return Response(reply.body, reply.status, headers, reply.media_type)


def _answer(server: SmsServer, kind: Kind, body: bytes, url: str) -> Response:
    """Take a text or not, and answer; what is kept is in the inbox before the other side learns of it."""
    try:
        text = asked(kind, body)
    except (KeyError, ValueError):
        return _response(refusal(kind, 400, "other", ""))
    trouble = server.trouble(kind, text.to)
    if trouble is None:
        return _response(taken(kind, server.take(kind, text).remote_id))
    if trouble.keep:
        server.take(kind, text)
    if trouble.lost:
        return answer_instead(Answer(lost=trouble.lost), None, server.clock)
    if trouble.status == 307:  # noqa: PLR2004  # moved, for now
        return Response(status_code=307, headers={"location": url})
    return _response(refusal(kind, trouble.status, trouble.wrong, text.to), trouble.retry_after)


def sms_app(server: SmsServer) -> Starlette:
    """Return the five providers as one application."""

    def sending(kind: Kind) -> Handler:
        async def handle(request: Request) -> Response:
            body = await request.body()
            server.requests[kind] += 1
            if request.headers.get("authorization") != authorization(kind, server.login):
                return _response(refusal(kind, 401, "account", ""))
            return _answer(server, kind, body, str(request.url))

        return handle

    def asking(kind: Kind) -> Handler:
        async def handle(request: Request) -> Response:
            if request.headers.get("authorization") != authorization(kind, server.login):
                return _response(refusal(kind, 401, "account", ""))
            return Response(b'{"status": "active"}', 200, media_type="application/json")

        return handle

    routes = [Route(path, sending(kind), methods=["POST"]) for path, kind in _SEND.items()]
    routes += [Route(path, asking(kind), methods=["GET"]) for path, kind in _ASK.items()]
    return Starlette(routes=routes)


@asynccontextmanager
async def open_sms_server(server: SmsServer, *, port: int = 0) -> AsyncIterator[SmsServer]:
    """Listen on loopback (0: a free port) and set the server's `url`, to which each provider adds its own path."""
    sock = listen(port=port)
    server.url = origin(sock)
    async with serving(sms_app(server), sock):
        yield server
