"""A scripted HTTP server on loopback that can also misbehave: cut an answer short, drip, hang, or drop the line."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as it came. `target` is the path with its query, undecoded; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered. `cut`: the connection ends after so many bytes of the body; 0 is before any answer at all."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drip: AsyncIterator[bytes] | None = None  # a body of unannounced length instead
    cut: int | None = None


def json_reply(value: object, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status=status, headers={"content-type": "application/json", **named}, body=json.dumps(value).encode())


Handler = Callable[[Seen], Awaitable[Reply]]


@dataclass(slots=True, kw_only=True)
class Loopback:
    """A running server, with all requests that it saw."""

    port: int
    seen: list[Seen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def to(self, path: str) -> list[Seen]:
        """Return the requests for a path, whatever their query."""
        return [request for request in self.seen if request.target.partition("?")[0] == path]


@asynccontextmanager
async def serve(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Loopback]:
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while (request := await _read(reader)) is not None:
                    loopback.seen.append(request)
                    if not await _write(writer, await handler(request)):
                        break
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    loopback = Loopback(port=server.sockets[0].getsockname()[1])
    try:
        yield loopback
    finally:
        server.close()
        for task in tuple(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    line = (await reader.readline()).decode("latin-1")
    if not line.strip():
        return None
    method, target, _ = line.split(" ", 2)
    headers = {}
    while (header := (await reader.readline()).decode("latin-1").strip()) != "":
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method=method, target=target, headers=headers, body=body)


async def _write(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    """Answer, and return whether the connection goes on."""
    if reply.cut == 0:
        return False
    length = {"transfer-encoding": "chunked"} if reply.drip else {"content-length": str(len(reply.body))}
    headers = {**length, **reply.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {reply.status} X\r\n{head}\r\n".encode("latin-1"))
    writer.write(reply.body[: reply.cut])
    if reply.drip:
        async for chunk in reply.drip:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return reply.cut is None
