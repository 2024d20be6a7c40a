"""A load generator that costs little beside what it measures: raw connections, requests built beforehand."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_STATUS = slice(9, 12)
_TICK = 0.001  # seconds between two looks at what is due


class Refused(Exception):
    """A request was not answered as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go. An answer of this status is whole when it ends with `tail`."""

    port: int
    status: bytes
    tail: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a load did: `latencies` are seconds from when a request was to be sent to its answer's last byte."""

    seconds: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    @property
    def p99(self) -> float:
        """The latency that 99 of 100 answers stay below, in seconds."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


class _Run:
    """One load under way: requests that wait, connections that are free."""

    def __init__(self, target: Target, requests: Sequence[bytes]) -> None:
        self.target = target
        self.latencies: list[float] = []
        self.waiting: deque[tuple[bytes, float]] = deque()
        self.idle: deque[_Connection] = deque()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted = len(requests)

    def put(self, request: bytes, due: float) -> None:
        if self.idle:
            self.idle.popleft().ask(request, due)
        else:
            self.waiting.append((request, due))

    def answered(self, connection: "_Connection", due: float) -> None:
        self.latencies.append(time.perf_counter() - due)
        if self.waiting:
            connection.ask(*self.waiting.popleft())
        else:
            self.idle.append(connection)
            if len(self.latencies) == self._wanted and not self.done.done():
                self.done.set_result(None)

    def failed(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(Refused(reason))


class _Connection(asyncio.Protocol):
    """A kept connection with one request at a time under way."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._run.idle.append(self)

    def ask(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        got = self._got = self._got + data if self._got else data
        if got[_STATUS] != self._run.target.status:
            self._run.failed(got.decode("latin-1"))
        elif got.endswith(self._run.target.tail):
            self._got = b""
            self._run.answered(self, self._due)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.failed(f"the connection was closed: {exc}")

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()


async def flood(target: Target, requests: Sequence[bytes], *, connections: int) -> Load:
    """Send all requests as fast as they are answered, so many at once."""
    return await _loaded(target, requests, connections, rate=None)


async def pace(target: Target, requests: Sequence[bytes], *, connections: int, rate: float) -> Load:
    """Send so many requests a second, whatever becomes of the earlier ones; one that must wait is late by that."""
    return await _loaded(target, requests, connections, rate=rate)


async def _loaded(target: Target, requests: Sequence[bytes], connections: int, *, rate: float | None) -> Load:
    loop = asyncio.get_running_loop()
    run = _Run(target, requests)
    opened = [
        (await loop.create_connection(lambda: _Connection(run), "127.0.0.1", target.port))[1]
        for _ in range(connections)
    ]
    began = time.perf_counter()
    try:
        if rate is None:
            for request in requests:
                run.put(request, began)
        else:
            await _feed(run, requests, began, rate)
        await run.done
    finally:
        seconds = time.perf_counter() - began
        run.done.cancel()
        for connection in opened:
            connection.close()
    return Load(seconds=seconds, latencies=tuple(run.latencies))


async def _feed(run: _Run, requests: Sequence[bytes], began: float, rate: float) -> None:
    sent = 0
    while sent < len(requests) and not run.done.done():
        due = min(len(requests), int((time.perf_counter() - began) * rate) + 1)
        for place in range(sent, due):
            run.put(requests[place], began + place / rate)
        sent = due
        await asyncio.sleep(_TICK)
