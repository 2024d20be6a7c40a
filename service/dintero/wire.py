"""HTTP itself: places, requests and answers as values. The one module of this package that knows httpx2.

A URL is read by httpx2 and asked for in the parts that it is read in.
"""

import asyncio
import ipaddress
import json as jsons
import re
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx2 as httpx

from service.delivery import AccountFailure, Clock, PermanentFailure, TransientFailure
from service.dintero.connections import Connections, NotConnected, Origin
from service.dintero.http11 import Broken, OutOfBounds, Request, Response
from service.dintero.reading import seconds
from service.privacy import scrub

DOCUMENT_LIMIT = 8 * 1024 * 1024
"""The most bytes of a JSON answer that are read."""

_ANY_HEADER = 32  # zlib's word for gzip's header or its own, whichever there is
_PORTS = {"http": 80, "https": 443}
# A name as resolvers take it. They would read other characters their own way: a backslash can hide where a name ends.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

# A URL that has one reading only, as most are that we make ourselves: it need not be parsed the long way.
_PLAIN = re.compile(
    r"(https?)://([a-z0-9.-]+)(?::([0-9]{1,5}))?((?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+(?:\?[A-Za-z0-9=&._~-]+)?)"
)


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

    scheme: str
    host: str  # lower case, punycode
    port: int
    netloc: str  # host and port as a Host header has them
    target: str  # path and query, encoded

    @property
    def origin(self) -> Origin:
        """Scheme, host and port."""
        return Origin(scheme=self.scheme, host=self.host, port=self.port)

    def at(self, reference: str) -> "Place":
        """Return the place that a link in an answer from here means; raises `ValueError`."""
        try:
            return _place(httpx.URL(f"{self.scheme}://{self.netloc}{self.target}").join(reference))
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
    if plain := _PLAIN.fullmatch(url):
        return _plain_place(*plain.groups())
    try:
        return _place(httpx.URL(url))
    except httpx.InvalidURL as exc:
        raise ValueError("not a URL") from exc


def segment(identity: str) -> str:
    """Return an id as one segment of a path; raises `PermanentFailure` for what a server would take for a way up."""
    if not identity.strip("."):
        raise PermanentFailure("not an id")
    return quote(identity, safe="")


class Wire:
    """Sends one request and reads its answer."""

    def __init__(
        self, connections: Connections, clock: Clock, timeouts: Timeouts, *, headers: Mapping[str, str]
    ) -> None:
        """`headers` go with every request."""
        self._connections = connections
        self._clock = clock
        self._headers = headers
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

        Raises `Unreachable`, `TooLarge` (over `limit` bytes) and `AnswerLost`.
        """
        request = self._request(method, to, headers, json, limit)
        try:
            async with asyncio.timeout(self.timeouts.whole if whole is None else whole):
                response = await self._connections.exchange(to.origin, request)
            return self._answer(response, _plain_body(response, limit))
        except NotConnected as exc:
            raise Unreachable(f"{to.host} cannot be reached when {doing}: {_words(exc)}") from exc
        except TimeoutError as exc:
            raise AnswerLost(f"{to.host} did not answer in time when {doing}") from exc
        except OutOfBounds as exc:
            raise TooLarge(f"the answer is larger than {limit} bytes when {doing}") from exc
        except (Broken, zlib.error) as exc:
            raise AnswerLost(f"the connection to {to.host} broke when {doing}: {_words(exc)}") from exc

    def _request(self, method: str, to: Place, headers: Mapping[str, str], json: object, limit: int) -> Request:
        sent = {"Host": to.netloc, **self._headers, **headers}
        content = b""
        if json is not None:
            content = jsons.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        if content or method != "GET":
            sent["Content-Length"] = str(len(content))
        return Request(
            method=method,
            target=to.target,
            headers=list(sent.items()),
            content=content,
            limit=limit,
            patience=self.timeouts.read,
        )

    def _answer(self, response: Response, body: bytes) -> Answer:
        headers = response.headers
        return Answer(
            status=response.status,
            body=body,
            content_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
            location=headers.get("location"),
            retry_after=_retry_after(headers.get("retry-after"), self._clock.now()),
            event_request_id=headers.get("event-request-id"),
        )


@asynccontextmanager
async def open_wire(*, clock: Clock, version: str, timeouts: Timeouts) -> AsyncIterator[Wire]:
    """Open the wire; nothing of the environment (proxies, netrc) is used, and no cookie is kept."""
    context = httpx.create_ssl_context(trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    connections = Connections(clock, context, connect=timeouts.connect)
    headers = {
        "User-Agent": f"merchant-delivery/{version}",
        "Accept": "application/json, application/pdf",
        "Accept-Encoding": "identity",  # a limit in bytes then means the same on the wire and in memory
        "Dintero-System-Name": "merchant-delivery",
        "Dintero-System-Version": version,
    }
    try:
        yield Wire(connections, clock, timeouts, headers=headers)
    finally:
        await connections.aclose()


def _plain_body(response: Response, limit: int) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() == "identity":
        return response.body
    # Not what was asked for, but some gateways do it to everybody.
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | _ANY_HEADER)
    plain = unpacking.decompress(response.body, limit + 1)
    if len(plain) > limit:
        raise OutOfBounds
    if not unpacking.eof:
        raise zlib.error("cut short")
    return plain


def _plain_place(scheme: str, host: str, port: str | None, target: str) -> Place:
    return _checked(scheme, host, None if port is None else int(port), host, target)


def _place(url: httpx.URL) -> Place:
    if url.scheme not in _PORTS or url.userinfo:
        raise ValueError("not an http(s) URL without a user name")
    host = url.raw_host.decode("ascii").lower()
    shown = f"[{host}]" if ":" in host else host
    return _checked(url.scheme, host, url.port, shown, url.raw_path.decode("ascii"))


def _checked(scheme: str, host: str, port: int | None, shown: str, target: str) -> Place:
    usual = _PORTS[scheme]
    port = usual if port is None else port
    if port not in range(1, 65536) or not (_NAME.fullmatch(host) or _is_ipv6(host)):
        raise ValueError("no such host or port")
    netloc = shown if port == usual else f"{shown}:{port}"
    return Place(scheme=scheme, host=host, port=port, netloc=netloc, target=target)


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
