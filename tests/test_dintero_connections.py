"""Connections to the provider: which are kept, which are not, and what may come over one."""

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
import trustme

from service.dintero.connections import Connections, NotConnected, Origin
from service.dintero.http11 import Broken, OutOfBounds, Request, Response
from service.dintero.wire import AnswerLost, Timeouts, TooLarge, open_wire, place
from tests.fakes import MovedClock

ASK = Request(method="GET", target="/a", headers=(("Host", "h"),), content=b"", limit=1000, patience=5)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NOWHERE = Origin(scheme="http", host="127.0.0.1", port=0)
Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers each request with the next of `answers`, then with OK; `asked` has what came, by connection."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[list[bytes]] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    origin: Origin = NOWHERE

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[bytes] = []
        self.asked.append(mine)
        self.writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                mine.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0) if self.answers else OK
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer)
        writer.close()


@asynccontextmanager
async def serving(*answers: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answers=list(answers))
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0, ssl=context)
    scheme = "https" if context else "http"
    server.origin = Origin(scheme=scheme, host="127.0.0.1", port=listener.sockets[0].getsockname()[1])
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            writer.close()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def connections(
    clock: MovedClock | None = None, authority: trustme.CA | None = None
) -> AsyncIterator[Connections]:
    context = ssl.create_default_context()
    if authority:
        authority.configure_trust(context)
    opened = Connections(clock or MovedClock(), context, connect=5)
    yield opened
    await opened.aclose()


def counts(server: Server) -> Sequence[int]:
    return [len(asked) for asked in server.asked]


async def test_a_connection_is_kept_and_the_last_one_used_comes_first() -> None:
    async with serving() as server, connections() as opened:
        await asyncio.gather(*(opened.exchange(server.origin, ASK) for _ in range(3)))
        for _ in range(4):
            assert await opened.exchange(server.origin, ASK) == Response(
                status=200, headers={"content-length": "2"}, body=b"ok"
            )
    assert sorted(counts(server)) == [1, 1, 5]


async def test_origins_do_not_share() -> None:
    async with serving() as one, serving() as other, connections() as opened:
        for server in (one, other, one):
            await opened.exchange(server.origin, ASK)
    assert (counts(one), counts(other)) == ([2], [1])


async def test_an_old_connection_is_not_used_and_is_closed_even_if_nobody_comes_to_it() -> None:
    clock = MovedClock()
    async with serving() as server, connections(clock) as opened:
        await asyncio.gather(*(opened.exchange(server.origin, ASK) for _ in range(2)))
        clock.advance(20)
        await opened.exchange(server.origin, ASK)
        clock.advance(20)
        await opened.exchange(server.origin, ASK)
        await asyncio.sleep(0.05)
        assert sorted(counts(server)) == [1, 3]
        assert sorted(writer.is_closing() for writer in server.writers) == [False, True]
        clock.advance(40)
        await opened.exchange(server.origin, ASK)
    assert sorted(counts(server)) == [1, 1, 3]


async def test_a_connection_that_the_other_side_closed_is_replaced() -> None:
    async with serving() as server, connections() as opened:
        await opened.exchange(server.origin, ASK)
        server.writers[0].close()
        await asyncio.sleep(0.05)
        assert (await opened.exchange(server.origin, ASK)).body == b"ok"
    assert counts(server) == [1, 1]


async def test_what_comes_unasked_is_never_the_next_response() -> None:
    async with serving(OK + b"HTTP/1.1 500 Late\r\ncontent-length: 0\r\n\r\n") as server, connections() as opened:
        await opened.exchange(server.origin, ASK)
        assert (await opened.exchange(server.origin, ASK)).status == 200
        server.writers[-1].write(b"HTTP/1.1 500 Late\r\ncontent-length: 0\r\n\r\n")
        await asyncio.sleep(0.05)
        assert (await opened.exchange(server.origin, ASK)).status == 200
    assert counts(server) == [1, 1, 1]


async def slowly(writer: asyncio.StreamWriter) -> None:
    for piece in (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-",
        b"Encoding: chunked\r\n\r\n2\r\no",
    ):
        writer.write(piece)
        await asyncio.sleep(0.01)
    writer.write(b"k\r\n0\r\n\r\n")


async def cut(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
    writer.close()


async def until_closed(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nall")
    writer.close()


async def silent(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (slowly, b"ok", True),
        (until_closed, b"all", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.1 204 No\r\n\r\n", b"", True),
    ],
)
async def test_shapes_of_a_response(answer: Answer, body: bytes, kept: bool) -> None:
    async with serving(answer) as server, connections() as opened:
        assert (await opened.exchange(server.origin, ASK)).body == body
        await opened.exchange(server.origin, ASK)
    assert counts(server) == ([2] if kept else [1, 1])


async def test_of_several_headers_with_one_name_the_first_counts() -> None:
    head = b"HTTP/1.1 200 OK\r\nLocation: /one\r\nLocation: /two\r\ncontent-length: 0\r\n\r\n"
    async with serving(head) as server, connections() as opened:
        assert (await opened.exchange(server.origin, ASK)).headers["location"] == "/one"


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (cut, Broken),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Broken),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Broken),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n", Broken),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", OutOfBounds),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n", OutOfBounds),
        (silent, TimeoutError),
    ],
)
async def test_what_goes_wrong_ends_the_connection(answer: Answer, failure: type[Exception]) -> None:
    async with serving(answer) as server, connections() as opened:
        with pytest.raises(failure):
            await opened.exchange(server.origin, replace(ASK, patience=0.1))
        assert (await opened.exchange(server.origin, ASK)).body == b"ok"
    assert counts(server) == [1, 1]


async def test_patience_is_for_each_piece() -> None:
    async with serving(slowly) as server, connections() as opened:
        assert (await opened.exchange(server.origin, replace(ASK, patience=0.03))).body == b"ok"


async def test_whoever_gives_up_takes_the_connection_along() -> None:
    async with serving(silent) as server, connections() as opened:
        asking = asyncio.create_task(opened.exchange(server.origin, ASK))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait([asking])
        assert (await opened.exchange(server.origin, ASK)).body == b"ok"
    assert counts(server) == [1, 1]


async def test_nobody_there() -> None:
    async with serving() as server:
        origin = server.origin
    async with connections() as opened:
        with pytest.raises(NotConnected):
            await opened.exchange(origin, ASK)


async def test_certificates_are_checked() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with serving(context=context) as server:
        async with connections(authority=authority) as opened:
            for _ in range(2):
                assert (await opened.exchange(server.origin, ASK)).body == b"ok"
        assert counts(server) == [2]
        async with connections() as opened:
            with pytest.raises(NotConnected, match="certificate"):
                await opened.exchange(server.origin, ASK)


PACKED = zlib.compress(b"ok" * 200)


@pytest.mark.parametrize(
    ("packed", "limit", "found"),
    [(PACKED, 400, b"ok" * 200), (PACKED, 399, TooLarge), (PACKED[:-5], 400, AnswerLost), (b"no", 400, AnswerLost)],
)
async def test_a_body_that_is_packed_all_the_same(packed: bytes, limit: int, found: bytes | type[Exception]) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: deflate\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with (
        serving(head + packed) as server,
        open_wire(clock=MovedClock(), version="1", timeouts=Timeouts()) as wire,
    ):
        at = place(f"http://127.0.0.1:{server.origin.port}/a")
        asking = wire.exchange("GET", at, doing="asking", headers={}, limit=limit)
        if isinstance(found, bytes):
            assert (await asking).body == found
        else:
            with pytest.raises(found):
                await asking


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/v1/transactions/T1.a/capture",
        "https://api.dintero.com:443/v1/x?includes=session&a=b",
        "http://h/x",
        "https://H/../a/./b",
        "https://h//x",
        "https://h?x=/..",
        "https://[::1]:88/x",
        "https://blåbær.no/æ?ø=å b",
        "https://h/a%2fb/%7e",
    ],
)
def test_a_plain_url_is_read_as_any_other(url: str) -> None:
    """What has one reading only is not parsed the long way; joined with itself, it always is."""
    assert place(url) == place(url).at(url)
