"""HTTP itself: one pooled client, places and answers as values. The one module of this package that knows httpx2."""

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2 as httpx

from service.delivery import AccountFailure, Clock, TransientFailure
from service.dintero.reading import seconds
from service.privacy import scrub

DOCUMENT_LIMIT = 8 * 1024 * 1024
"""The most bytes of a JSON answer that are read."""

_PORTS = {"http": 80, "https": 443}
# A name as resolvers take it. They would read other characters their own way: a backslash can hide where a name ends.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class Unreachable(AccountFailure):
    """No connection came about, so nothing was handed over."""


class AnswerLost(TransientFailure):
    """The request may have been handed over, and no (whole) answer came back."""


class TooLarge(AnswerLost):
    """The answer is larger than what was allowed for it; reading stopped there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """In seconds. `whole` bounds an exchange from the connection to the answer's last byte, however slowly it drips."""

    connect: float = 10.0
    read: float = 30.0
    whole: float = 45.0
    file: float = 120.0  # as `whole`, for a document


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request goes, as the client that connects understands the URL, so that a check sees what it sees."""

    url: httpx.URL
    scheme: str
    host: str  # lower case, punycode
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    def at(self, reference: str) -> "Place":
        """Return the place that a link in an answer from here means; raises `ValueError`."""
        try:
            return _place(self.url.join(reference))
        except httpx.InvalidURL as exc:
            raise ValueError("not a URL") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, read to its end. `retry_after` is in seconds from now."""

    status: int
    body: bytes
    content_type: str
    location: str | None
    retry_after: float | None
    event_request_id: str | None


def place(url: str) -> Place:
    """Return where an absolute URL leads; raises `ValueError` unless it is http(s) without a user name in it."""
    try:
        return _place(httpx.URL(url))
    except httpx.InvalidURL as exc:
        raise ValueError("not a URL") from exc


class Wire:
    """Sends one request and reads its answer."""

    def __init__(self, client: httpx.AsyncClient, clock: Clock, timeouts: Timeouts) -> None:
        self._client = client
        self._clock = clock
        self.timeouts = timeouts

    async def exchange(
        self,
        method: str,
        to: Place,
        *,
        doing: str,
        headers: dict[str, str],
        json: object = None,
        limit: int = DOCUMENT_LIMIT,
        whole: float | None = None,
    ) -> Answer:
        """Return the answer, whatever its status; redirects are not followed. `doing` completes "when ...".

        Raises `Unreachable`, `TooLarge` (over `limit` bytes), `AnswerLost`, and `TransientFailure` when the request
        did not get its turn.
        """
        try:
            async with asyncio.timeout(self.timeouts.whole if whole is None else whole):
                request = self._client.build_request(method, to.url, headers=headers, json=json)
                response = await self._client.send(request, stream=True)
                try:
                    return self._answer(response, await _body(response, limit, doing))
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise Unreachable(f"{to.host} cannot be reached when {doing}: {_words(exc)}") from exc
        except httpx.PoolTimeout as exc:
            raise TransientFailure(f"no free connection to {to.host} when {doing}") from exc
        except (httpx.TimeoutException, TimeoutError) as exc:
            raise AnswerLost(f"{to.host} did not answer in time when {doing}") from exc
        except httpx.HTTPError as exc:
            raise AnswerLost(f"the connection to {to.host} broke when {doing} ({type(exc).__name__})") from exc

    def _answer(self, response: httpx.Response, body: bytes) -> Answer:
        headers = response.headers
        return Answer(
            status=response.status_code,
            body=body,
            content_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
            location=headers.get("location"),
            retry_after=_retry_after(headers.get("retry-after"), self._clock.now()),
            event_request_id=headers.get("event-request-id"),
        )


@asynccontextmanager
async def open_wire(*, clock: Clock, version: str, timeouts: Timeouts) -> AsyncIterator[Wire]:
    """Open the pooled client; nothing of the environment (proxies, netrc) is used, and no cookie is kept."""
    async with httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect),
        limits=httpx.Limits(max_connections=100, max_keepalive_connections=50, keepalive_expiry=30.0),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={
            "User-Agent": f"merchant-delivery/{version}",
            "Accept": "application/json, application/pdf",
            "Accept-Encoding": "identity",  # a limit in bytes then means the same on the wire and in memory
            "Dintero-System-Name": "merchant-delivery",
            "Dintero-System-Version": version,
        },
    ) as client:
        yield Wire(client, clock, timeouts)


async def _body(response: httpx.Response, limit: int, doing: str) -> bytes:
    announced = response.headers.get("content-length", "")
    too_large = TooLarge(f"the answer is larger than {limit} bytes when {doing}")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _place(url: httpx.URL) -> Place:
    host = url.raw_host.decode("ascii").lower()
    if url.scheme not in _PORTS or not host or url.userinfo:
        raise ValueError("not an http(s) URL without a user name")
    port = _PORTS[url.scheme] if url.port is None else url.port
    if port not in range(1, 65536) or not (_NAME.fullmatch(host) or _is_ipv6(host)):
        raise ValueError("no such host or port")
    return Place(url=url, scheme=url.scheme, host=host, port=port)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def _retry_after(header: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as such or as a date."""
    given = seconds(header)
    if header is None or given is not None:
        return given
    try:
        at = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return seconds((at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def _words(exc: Exception) -> str:
    return scrub(str(exc)) or type(exc).__name__
