"""Kept connections, by origin: the one used last is used next, so that few are warm and none is searched for.

A general client's pool asks the system about every idle connection before and after each request; that, and what
else such a client does that is not wanted here, was three quarters of what a request cost.
"""

import asyncio
import ssl
from dataclasses import dataclass

from service.delivery import Clock
from service.dintero.http11 import Connection, Request, Response

_KEPT = 30.0  # seconds that an idle connection is kept
_SHED_EVERY = 10.0  # seconds between two looks for those that are idle for longer
_STAGGER = 0.25  # seconds until a host's next address is tried beside the first (RFC 8305)


class NotConnected(Exception):
    """No connection came about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a connection leads."""

    scheme: str
    host: str
    port: int


class Connections:
    """As many connections as there are requests at once: those who ask have bounds of their own."""

    def __init__(self, clock: Clock, context: ssl.SSLContext, *, connect: float) -> None:
        """`context` is for https; `connect` is in seconds, TLS included."""
        self._clock = clock
        self._context = context
        self._connect = connect
        self._idle: dict[Origin, list[Connection]] = {}
        self._shed_at = clock.monotonic()

    async def exchange(self, origin: Origin, request: Request) -> Response:
        """Return the response. Raises `NotConnected`, and as `Connection.ask`."""
        connection = self._kept(origin) or await self._opened(origin)
        try:
            return await connection.ask(request)
        finally:
            if connection.usable:
                connection.used_at = self._clock.monotonic()
                self._idle.setdefault(origin, []).append(connection)
            else:
                connection.close()

    async def aclose(self) -> None:
        """Close what is idle."""
        idle = [connection for connections in self._idle.values() for connection in connections]
        self._idle = {}
        for connection in idle:
            connection.close()
        await asyncio.gather(*(connection.closed for connection in idle))

    def _kept(self, origin: Origin) -> Connection | None:
        now = self._clock.monotonic()
        if now - self._shed_at > _SHED_EVERY:
            self._shed_at = now
            self._shed()
        kept = self._idle.get(origin)
        while kept:
            connection = kept.pop()
            if self._fresh(connection):
                return connection
            connection.close()
        return None

    async def _opened(self, origin: Origin) -> Connection:
        context = self._context if origin.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, origin.host, origin.port, ssl=context, happy_eyeballs_delay=_STAGGER
                )
        except OSError as exc:  # a time-out and what is wrong with a certificate too
            raise NotConnected(str(exc) or "it takes too long") from exc
        return connection

    def _fresh(self, connection: Connection) -> bool:
        return connection.usable and self._clock.monotonic() - connection.used_at < _KEPT

    def _shed(self) -> None:
        """Let go of what nobody has used for long: below those in use, it would never be looked at."""
        for origin, connections in list(self._idle.items()):
            for connection in connections:
                if not self._fresh(connection):
                    connection.close()
            self._idle[origin] = [connection for connection in connections if connection.usable]
