"""One HTTP/1.1 connection, on h11, with one request at a time on it. No pool, redirects, cookies or decoding."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import h11

_LARGEST_HEAD = 100 * 1024  # bytes of a status line with its headers
_CLOSED = "the connection was closed before the answer"


class Broken(Exception):
    """The connection ended before the response did, or what came over it was no HTTP."""


class OutOfBounds(Exception):
    """The body is larger than the request allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request. `limit` is the most bytes of a body; `patience` the seconds in which something must come."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    content: bytes
    limit: int
    patience: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A whole response. The names of headers are in lower case; of several with one name the first counts."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """Made by `asyncio.create_connection`. Whatever comes unasked ends it: it would pass for the next response."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        self._transport: asyncio.Transport | None = None
        self._news: asyncio.Future[None] | None = None  # somebody waits for it
        self._ended = False
        self.closed = self._loop.create_future()
        self.used_at = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request may be made on it."""
        return self._protocol.our_state is h11.IDLE and not self._ended

    async def ask(self, request: Request) -> Response:
        """Return the response; `usable` says whether there may be another.

        Raises `Broken`, `OutOfBounds` and `TimeoutError`; after any of them, and after a cancellation, it is not.
        """
        try:
            return await self._asked(request)
        except h11.ProtocolError as exc:
            raise Broken(_CLOSED if self._ended else str(exc)) from exc

    def close(self) -> None:
        """End it at once."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    # --- what the loop calls -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._protocol.our_state is h11.IDLE:
            self.close()
        elif not self._ended:
            self._take(data)

    def eof_received(self) -> None:
        if not self._ended:
            self._ended = True
            self._take(b"")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - that it is lost is all there is to know
        self.eof_received()
        self.closed.set_result(None)

    def _take(self, data: bytes) -> None:
        try:
            self._protocol.receive_data(data)
        finally:
            if self._news is not None and not self._news.done():
                self._news.set_result(None)

    # --- one request -------------------------------------------------------------------------------------------------

    async def _asked(self, request: Request) -> Response:
        assert self._transport is not None
        head = h11.Request(method=request.method, target=request.target, headers=list(request.headers))
        parts = [self._protocol.send(head)]
        if request.content:
            parts.append(self._protocol.send(h11.Data(data=request.content)))
        parts.append(self._protocol.send(h11.EndOfMessage()))
        self._transport.write(b"".join(filter(None, parts)))
        async with asyncio.timeout(request.patience) as limit:
            answered = await self._head(request, limit)
            headers = _named(answered)
            announced = headers.get("content-length", "")
            if announced.isdecimal() and int(announced) > request.limit:
                raise OutOfBounds
            body = await self._body(request, limit)
        self._end()
        return Response(status=answered.status_code, headers=headers, body=body)

    async def _head(self, request: Request, limit: asyncio.Timeout) -> h11.Response:
        while not isinstance(event := await self._event(request, limit), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise Broken(_CLOSED)
        return event

    async def _body(self, request: Request, limit: asyncio.Timeout) -> bytes:
        body = bytearray()
        while isinstance(event := await self._event(request, limit), h11.Data):
            body += event.data
            if len(body) > request.limit:
                raise OutOfBounds
        return bytes(body)

    async def _event(self, request: Request, limit: asyncio.Timeout) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._news = self._loop.create_future()
            limit.reschedule(self._loop.time() + request.patience)
            await self._news
        return event

    def _end(self) -> None:
        """Make ready for another request, if both sides are."""
        unread, _ = self._protocol.trailing_data
        if self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE and not unread:
            self._protocol.start_next_cycle()


def _named(response: h11.Response) -> dict[str, str]:
    return {name.decode("ascii"): value.decode("latin-1") for name, value in reversed(list(response.headers))}
