"""Kept connections, by origin: the one used last is used next, so that a request looks at one of them and not at all.

httpx's own pool asks the system about every idle connection before and after each request, and its client does much
that is switched off here (redirects, cookies, decoding): three quarters of what a request cost.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpcore2 as httpcore

from service.delivery import Clock

Key = tuple[str, str, int]
"""Scheme, host and port."""

_KEPT = 30.0  # seconds that an idle connection is kept
_SHED_EVERY = 10.0  # seconds between two looks for those that are idle for longer


class Connections:
    """As many connections as there are requests at once; the callers have their own bounds."""

    def __init__(self, clock: Clock, context: ssl.SSLContext) -> None:
        self._clock = clock
        self._context = context
        self._idle: dict[Key, list[httpcore.AsyncHTTPConnection]] = {}
        self._shed_at = clock.monotonic()

    @asynccontextmanager
    async def to(self, url: httpcore.URL, key: Key) -> AsyncIterator[httpcore.AsyncHTTPConnection]:
        """Give a connection to one request: nobody else uses it meanwhile, and it is kept if it ended well."""
        connection = await self._take(url, key)
        try:
            yield connection
        finally:
            if connection.is_available():
                self._idle.setdefault(key, []).append(connection)
            else:
                await connection.aclose()

    async def aclose(self) -> None:
        """Close what is idle."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                await connection.aclose()

    async def _take(self, url: httpcore.URL, key: Key) -> httpcore.AsyncHTTPConnection:
        if self._clock.monotonic() - self._shed_at > _SHED_EVERY:
            await self._shed()
        kept = self._idle.get(key)
        while kept:
            connection = kept.pop()
            if not connection.has_expired():  # by its age, or because the other side has closed it
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(url.origin, ssl_context=self._context, keepalive_expiry=_KEPT)

    async def _shed(self) -> None:
        """Let go of what nobody has used for long: below those in use, it would never be looked at."""
        self._shed_at = self._clock.monotonic()
        idle, self._idle = self._idle, {}
        for key, connections in idle.items():
            for connection in connections:
                if connection.has_expired():
                    await connection.aclose()
                else:
                    self._idle.setdefault(key, []).append(connection)
