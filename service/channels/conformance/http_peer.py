"""A peer for adapters that speak HTTP: a real server on loopback that takes, refuses, and breaks off."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import ClassVar, Final

from service.channels.conformance.peer import REDIRECT_EMAIL, REDIRECT_PHONE, Plays
from service.clock import SystemClock
from service.delivery import Brand, Channel, ChannelContext, Composed, Fate, Receipt, ReportRequest

LONGEST_TURN = 5.0
"""Seconds that the adapter's event loop is given to let others run while an answer is waited for."""
SETTLES = 0.005
SECRET_NAMES = ("SECRET", "SECRETS", "TOKEN", "KEY", "PASSWORD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that came; header names are in lower case."""

    method: str
    path: str  # with its query
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is answered; a `body` of None repeats what was asked."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


ANSWERS: Final[Mapping[Plays, Said]] = {
    Plays.ACCEPTS: Said(status=201, body=b'{"id": "r-1"}'),
    Plays.REFUSES_FOR_NOW: Said(status=503),
    Plays.THROTTLES: Said(status=429, headers={"retry-after": "120"}),
    Plays.REFUSES_FOR_GOOD: Said(status=422),
    Plays.ACCOUNT_AT_FAULT: Said(status=401),
    Plays.GARBLES_THE_ANSWER: Said(status=502, headers={"content-type": "text/html"}, body=b"<h1>Bad Gateway</h1>"),
}
"""What most services answer. An adapter whose service has other words changes these in its test."""


_TAKE = (Plays.ACCEPTS, Plays.LOSES_THE_ANSWER, Plays.GARBLES_THE_ANSWER)


def idempotency_key(asked: Asked) -> str | None:
    """Return what a service knows a repeat by that heeds the header Idempotency-Key."""
    return asked.headers.get("idempotency-key")


@dataclass(slots=True, kw_only=True)
class HttpPeer:
    """`Peer` for one adapter.

    `sends` tells a message from a question; `repeat` finds the key that the service knows a repeat by (None: it knows
    none); `reports` makes the report of a message.
    """

    opens: Callable[[bool], AbstractAsyncContextManager[Channel]]
    secrets: tuple[str, ...]
    server: "ThreadingHTTPServer"
    answers: Mapping[Plays, Said]
    sends: Callable[[Asked], bool]
    repeat: Callable[[Asked], str | None]
    reports: Callable[[Composed, Receipt, Fate, datetime], ReportRequest] | None
    loop: asyncio.AbstractEventLoop
    plays: Plays = Plays.ACCEPTS
    blocked: bool = False  # whether others had to wait while the adapter waited
    keys: list[str | None] = field(default_factory=list)  # of the messages that were taken, each once
    _listening: bool = True

    def open_channel(self, *, redirected: bool = False) -> AbstractAsyncContextManager[Channel]:
        """As `Peer.open_channel`."""
        return self.opens(redirected)

    async def play(self, plays: Plays) -> None:
        """As `Peer.play`."""
        await asyncio.sleep(SETTLES)  # what is on its way gets the answer that it would have had
        self.plays = plays
        if plays is Plays.ABSENT and self._listening:
            self._listening = False
            self.server.shutdown()
            self.server.server_close()

    def taken(self) -> int:
        """As `Peer.taken`."""
        return len(self.keys)

    def report(self, composed: Composed, receipt: Receipt, fate: Fate, at: datetime) -> ReportRequest:
        """As `Peer.report`."""
        assert self.reports is not None, (
            "say how the service reports: `open_http_peer(…, reports=make_report)`, where `make_report(composed, "
            "receipt, fate, at)` returns the ReportRequest that it would post, signed as it signs"
        )
        return self.reports(composed, receipt, fate, at)

    def let_others_run(self) -> None:
        """Wait until the adapter's event loop has had a turn: while a service thinks, nothing else may stand still."""
        if self.blocked:
            return
        turn = threading.Event()
        try:
            self.loop.call_soon_threadsafe(turn.set)
        except RuntimeError:  # the test is over
            return
        self.blocked = not turn.wait(LONGEST_TURN)

    def answer(self, asked: Asked) -> Said | None:
        """Take a request or not, and return the answer; None breaks the connection off."""
        if self.sends(asked) and self.plays in _TAKE:
            key = self.repeat(asked)
            if key is None or key not in self.keys:
                self.keys.append(key)
        return None if self.plays is Plays.LOSES_THE_ANSWER else self.answers[self.plays]


@asynccontextmanager
async def open_http_peer(
    factory: str,
    environ: Callable[[str], Mapping[str, str]],
    *,
    answers: Mapping[Plays, Said] | None = None,
    sends: Callable[[Asked], bool] = lambda asked: asked.method == "POST",
    repeat: Callable[[Asked], str | None] = idempotency_key,
    reports: Callable[[Composed, Receipt, Fate, datetime], ReportRequest] | None = None,
) -> AsyncIterator[HttpPeer]:
    """Open a peer for the adapter `package.module:factory`; `environ` makes its DELIVERY_* settings of the peer's URL.

    `answers` replaces some of `ANSWERS`.
    """
    module, _, name = factory.partition(":")
    open_channel = getattr(import_module(module), name)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        given = environ(f"http://127.0.0.1:{server.server_port}")
        context = partial(
            ChannelContext,
            account_id="T12345678",
            clock=SystemClock(),
            environ=tuple(given.items()),
            public_url="https://shop.example",
            brand=Brand(name="Nordlys AS", organization_number="923456783"),
        )
        peer = HttpPeer(
            opens=lambda redirected: open_channel(
                context(redirect_email=REDIRECT_EMAIL, redirect_phone=REDIRECT_PHONE) if redirected else context()
            ),
            secrets=tuple(text for setting, text in given.items() if setting.endswith(SECRET_NAMES)),
            server=server,
            answers={**ANSWERS, **(answers or {})},
            sends=sends,
            repeat=repeat,
            reports=reports,
            loop=asyncio.get_running_loop(),
        )
        _Handler.peers[server] = peer
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield peer
            assert not peer.blocked, (
                "it blocks the event loop while it waits for an answer, and all other deliveries with it: use an "
                "asynchronous client, or asyncio.to_thread"
            )
        finally:
            server.shutdown()
            thread.join()
            del _Handler.peers[server]


class _Handler(BaseHTTPRequestHandler):
    """One connection, which may carry several requests."""

    protocol_version = "HTTP/1.1"
    peers: ClassVar[dict[object, HttpPeer]] = {}

    def handle(self) -> None:
        """Go on until the other side leaves, however it does."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
        """Say nothing: what is asked holds personal data."""

    def do_POST(self) -> None:
        """Answer as the peer plays."""
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): text for name, text in self.headers.items()}
        peer = self.peers[self.server]
        peer.let_others_run()
        said = peer.answer(Asked(method=self.command, path=self.path, headers=headers, body=body))
        if said is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = json.dumps({"error": body.decode("latin-1")}).encode() if said.body is None else said.body
        self.send_response(said.status)
        for name, text in {"content-type": "application/json", **said.headers}.items():
            self.send_header(name, text)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST  # noqa: N815  # the standard library's names
