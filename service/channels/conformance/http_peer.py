"""A peer for adapters that speak HTTP: a real server on loopback that takes, refuses, and breaks off."""

import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import ClassVar, Final

from service.channels.conformance.peer import Plays
from service.clock import SystemClock
from service.delivery import Brand, Channel, ChannelContext, Composed, Fate, Receipt, ReportRequest

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
}
"""What most services answer. An adapter whose service has other words changes these in its test."""


def idempotency_key(asked: Asked) -> str | None:
    """Return what a service knows a repeat by that heeds the header Idempotency-Key."""
    return asked.headers.get("idempotency-key")


@dataclass(slots=True, kw_only=True)
class HttpPeer:
    """`Peer` for one adapter.

    `sends` tells a message from a question; `repeat` finds the key that the service knows a repeat by (None: it knows
    none); `reports` makes the report of a message.
    """

    opens: Callable[[], AbstractAsyncContextManager[Channel]]
    secrets: tuple[str, ...]
    server: "ThreadingHTTPServer"
    answers: Mapping[Plays, Said]
    sends: Callable[[Asked], bool]
    repeat: Callable[[Asked], str | None]
    reports: Callable[[Composed, Receipt, Fate, datetime], ReportRequest] | None
    plays: Plays = Plays.ACCEPTS
    keys: list[str | None] = field(default_factory=list)  # of the messages that were taken, each once
    _listening: bool = True

    def open_channel(self) -> AbstractAsyncContextManager[Channel]:
        """As `Peer.open_channel`."""
        return self.opens()

    async def play(self, plays: Plays) -> None:
        """As `Peer.play`."""
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
        assert self.reports is not None, "say `reports=`: how the service reports"
        return self.reports(composed, receipt, fate, at)

    def answer(self, asked: Asked) -> Said | None:
        """Take a request or not, and return the answer; None breaks the connection off."""
        if self.sends(asked) and self.plays in (Plays.ACCEPTS, Plays.LOSES_THE_ANSWER):
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
        context = ChannelContext(
            account_id="T12345678",
            clock=SystemClock(),
            environ=tuple(given.items()),
            public_url="https://shop.example",
            brand=Brand(name="Nordlys AS", organization_number="923456783"),
        )
        peer = HttpPeer(
            opens=lambda: open_channel(context),
            secrets=tuple(text for setting, text in given.items() if setting.endswith(SECRET_NAMES)),
            server=server,
            answers={**ANSWERS, **(answers or {})},
            sends=sends,
            repeat=repeat,
            reports=reports,
        )
        _Handler.peers[server] = peer
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield peer
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
        said = self.peers[self.server].answer(Asked(method=self.command, path=self.path, headers=headers, body=body))
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
