"""The invoice pages out: what is behind a link, the document, and a new link; nothing is consumed by looking."""

import base64
import hashlib
import ipaddress
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.delivery import Clock, InvoicePage, PageRenderer, Pages, StoreUnavailable, TransientFailure, Visit
from service.metrics import Metrics
from service.web.asgi import NOTHING_LOADED, PRIVATE, Handler

PAGE = "/i/{token}"
DOCUMENT = "/i/{token}/invoice.pdf"
NO_PAGE = "/i/none/invoice.pdf"
"""What is asked for, by a POST that is 405, to see whether pages are served and a proxy passes all below /i/ on."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_PREFIX = 8  # characters of a token that share a limit
_log = structlog.get_logger()
_PIECE = 65536  # bytes of a document that are handed to the connection at a time
_IN_HAND = 6  # documents of one link at a time: who reads slowly would fill the memory with more
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_PAGE_POLICY = "default-src 'none'; style-src {styles}; img-src data:; form-action 'self'; {rest}"
_REST = "base-uri 'none'; frame-ancestors 'none'"
# A browser's own viewer has styles. No `sandbox`: Chrome does not heed it for a document, Safari then shows nothing.
_DOCUMENT_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; {_REST}"


@dataclass(slots=True, kw_only=True)
class Limit:
    """So many at once, and `per_second` again; of the `most` keys seen last, so that memory stays bounded."""

    clock: Clock
    burst: float
    per_second: float
    most: int = 10_000
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)  # what is left, and as of when

    def wait(self, key: str) -> float:
        """Take one; return 0, or the seconds after which there is one again."""
        now = self.clock.monotonic()
        left, since = self._left.pop(key, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.per_second)
        taken = left >= 1
        self._left[key] = (left - 1 if taken else left, now)
        while len(self._left) > self.most:
            self._left.popitem(last=False)
        return 0.0 if taken else (1 - left) / self.per_second


class _Document(Response):
    """A document that is handed over piece by piece: while somebody reads slowly, it is in memory once."""

    def __init__(self, content: bytes, *, headers: dict[str, str], done: Callable[[], None]) -> None:
        super().__init__(content, headers=headers)
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as `Response`
        body = memoryview(self.body)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for begin in range(0, len(body), _PIECE):
                piece = bytes(body[begin : begin + _PIECE])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._done()


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePages:
    """Answers who follows a link. What is unknown and what was revoked get the same answer to the last byte."""

    pages: Pages
    renderer: PageRenderer
    metrics: Metrics
    of_token: Limit
    of_client: Limit
    in_hand: Counter[str] = field(default_factory=Counter)  # documents of each link that are being handed over

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Return who answers which path and method."""
        return {
            PAGE: {"GET": self.show, "HEAD": self.show, "POST": self.renew},
            DOCUMENT: {"GET": self.document, "HEAD": self.document},
        }

    async def show(self, request: Request) -> Response:
        """Show the page of an invoice, or that its link has expired."""
        visit = await self._visit(request)
        if isinstance(visit, Response):
            return visit
        if visit.page is None:
            return _html(200, self.renderer.expired(asked=_asked(request), renewed=False))
        here = request.path_params["token"]  # relative to the page's own address, whatever stands before it
        return _html(200, self.renderer.page(visit.page, document_url=f"{here}/invoice.pdf"))

    async def renew(self, request: Request) -> Response:
        """Ask for a new link; the answer does not tell whether there will be one."""
        visit = await self._visit(request)
        if isinstance(visit, Response):
            return visit
        if visit.page is not None:  # it works: nothing is asked for, and the page is shown again
            return _plain(303, headers={"location": request.path_params["token"]})
        try:
            await self.pages.renew(visit)
        except StoreUnavailable:
            return self._unavailable(request)
        return _html(200, self.renderer.expired(asked=_asked(request), renewed=True))

    async def document(self, request: Request) -> Response:
        """Hand out the invoice itself."""
        visit = await self._visit(request)
        if isinstance(visit, Response):
            return visit
        if visit.page is None:
            return _plain(303, headers={"location": f"../{request.path_params['token']}"})
        token_hash = visit.link.token_hash
        if self.in_hand[token_hash] >= _IN_HAND:
            return self._unavailable(request, status=429, seconds=10)
        self.in_hand[token_hash] += 1
        try:
            return await self._found(request, visit, visit.page)
        finally:
            self._put_down(token_hash)

    async def _found(self, request: Request, visit: Visit, page: InvoicePage) -> Response:
        try:
            document = await self.pages.document(visit, opened=request.method == "GET")
        except (StoreUnavailable, TransientFailure) as exc:
            self._tell(page, str(exc))
            return self._unavailable(request)
        if document is None:
            self._tell(page, "it is not where LINK_STORE says, or not what was put there")
            return self._missing(request)
        self.in_hand[visit.link.token_hash] += 1  # until it is handed over
        name = self.renderer.document_name(page)
        headers = PRIVATE | {
            "content-security-policy": _DOCUMENT_POLICY,
            "content-disposition": f"inline; filename=\"{name}\"; filename*=UTF-8''{quote(name, safe='')}",
            "content-type": "application/pdf",
        }
        return _Document(document, headers=headers, done=partial(self._put_down, visit.link.token_hash))

    def _put_down(self, token_hash: str) -> None:
        self.in_hand[token_hash] -= 1
        if not self.in_hand[token_hash]:
            del self.in_hand[token_hash]

    async def _visit(self, request: Request) -> Visit | Response:
        """Return what the token leads to, or the answer that says why there is nothing."""
        token = request.path_params["token"]
        usable = _TOKEN.fullmatch(token) is not None
        waits = [self.of_client.wait(_client(request)), self.of_token.wait(token[:_PREFIX]) if usable else 0.0]
        if max(waits) > 0:
            return self._unavailable(request, status=429, seconds=int(max(waits)) + 1)
        try:
            visit = await self.pages.look(token) if usable else None
        except StoreUnavailable:
            return self._unavailable(request)
        return self._missing(request) if visit is None else visit

    def _missing(self, request: Request) -> Response:
        return _html(404, self.renderer.missing(asked=_asked(request)))

    def _unavailable(self, request: Request, *, status: int = 503, seconds: int = 60) -> Response:
        response = _html(status, self.renderer.unavailable(asked=_asked(request)))
        response.headers["retry-after"] = str(seconds)
        return response

    def _tell(self, page: InvoicePage, reason: str) -> None:
        """Tell those who run the service that a customer did not get an invoice."""
        self.metrics.alarm("alarm.document_unavailable")
        _log.warning("alarm.document_unavailable", delivery_id=page.delivery_id, reason=reason)


def invoice_pages(pages: Pages, renderer: PageRenderer, metrics: Metrics, clock: Clock) -> InvoicePages:
    """Return the pages with their limits: 30 at once for a link, 120 for a client, and one a second after that."""
    return InvoicePages(
        pages=pages,
        renderer=renderer,
        metrics=metrics,
        of_token=Limit(clock=clock, burst=30, per_second=0.5),
        of_client=Limit(clock=clock, burst=120, per_second=1),
    )


def _asked(request: Request) -> str | None:
    return request.headers.get("accept-language")


def _client(request: Request) -> str:
    """Return what a client's limit goes by: its address, or its /64 network.

    That is the first public address from here outwards: a proxy on a private one says in the last place of
    X-Forwarded-For whose request it passes on. What stands before a public one anybody may have written.
    """
    peer = _address(request.client.host) if request.client else None
    told = ",".join(request.headers.getlist("x-forwarded-for")).split(",")  # a proxy may add a line of its own
    way = (address for address in (peer, *map(_address, reversed(told))) if address is not None)
    near = list(islice(way, 2))  # who asks us, and for whom
    address = next((one for one in chain(near, way) if one.is_global), near[-1] if near else None)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    text = text.strip()
    for candidate in (text, text.rpartition(":")[0].strip("[]")):  # some proxies add the port
        try:
            address = ipaddress.ip_address(candidate)
        except ValueError:
            continue
        return getattr(address, "ipv4_mapped", None) or address  # a socket for both kinds shows an IPv4 one as mapped
    return None


def _html(status: int, page: str) -> Response:
    digests = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in _STYLE.findall(page)]
    styles = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    policy = _PAGE_POLICY.format(styles=styles, rest=_REST)
    headers = PRIVATE | {"content-security-policy": policy, "vary": "accept-language"}
    return Response(page, status, headers=headers, media_type="text/html")


def _plain(status: int, *, headers: dict[str, str]) -> Response:
    return Response(status_code=status, headers=PRIVATE | NOTHING_LOADED | headers)
