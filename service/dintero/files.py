"""Fetching an invoice document, hop by hop: each hop's host is checked before anything is sent to it."""

import ipaddress

from service.delivery import BadDocument, PermanentFailure, TransientFailure
from service.dintero.access import TOO_MANY, Access, is_for_now, is_success
from service.dintero.reading import document, members
from service.dintero.wire import Answer, Place, TooLarge, Unreachable, place

MOST_HOPS = 5
"""Redirects and descriptors are followed this far."""

_DOING = "fetching the invoice"
_REDIRECTS = (301, 302, 303, 307, 308)
_KINDS = (
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"PK\x03\x04", "a ZIP archive"),
)


class Files:
    """Fetches documents from hosts that are allowed."""

    def __init__(self, access: Access, *, hosts: tuple[str, ...], max_bytes: int, timeout: float) -> None:
        """`hosts` as FILE_HOSTS in contract.md; `timeout` in seconds, per hop."""
        self._access = access
        self._hosts = tuple(host.strip().strip("[]").lower() for host in hosts)
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def fetch(self, url: str) -> bytes:
        """Return the PDF behind a URL: its bytes at once, through redirects, or through a JSON descriptor.

        Raises `PermanentFailure` for a host that is not allowed and a document that is too large, `BadDocument` for
        one that will not do, `TransientFailure` and `AccountFailure` as everywhere.
        """
        at = self._allowed(_destination(url, None))
        for _ in range(MOST_HOPS):
            answer = await self._get(at)
            onward = _onward(answer)
            if onward is None:
                return _pdf(answer.body)
            at = self._allowed(_destination(onward, at))
        raise BadDocument(f"the invoice is not found within {MOST_HOPS} hops")

    def _allowed(self, at: Place) -> Place:
        if at.scheme == "http" and not _is_loopback(at.host):
            raise PermanentFailure(f"the invoice is at {at.host} by plain http, which is not allowed")
        if not any(_matches(at.host, allowed) for allowed in self._hosts):
            raise PermanentFailure(f"the invoice is at {at.host}, which is not in FILE_HOSTS")
        return at

    async def _get(self, at: Place) -> Answer:
        try:
            answer = await self._access.exchange("GET", at, doing=_DOING, limit=self._max_bytes, whole=self._timeout)
        except TooLarge as exc:
            raise PermanentFailure(f"the invoice is larger than MAX_PDF_BYTES ({self._max_bytes})") from exc
        except Unreachable as exc:
            if self._access.owns(at):
                raise
            # One link that leads nowhere says nothing of the account, and may not hold up all others.
            raise TransientFailure(exc.reason) from exc
        if is_success(answer.status) or answer.status in _REDIRECTS:
            return answer
        if self._access.owns(at) and answer.status == TOO_MANY:
            raise self._access.refused(answer, _DOING)
        # A 401 or 403 tells of this file only: the transaction was read a moment ago with the same token.
        reason = self._access.reason(answer, _DOING) if self._access.owns(at) else _reason(at, answer)
        if is_for_now(answer.status):
            raise TransientFailure(reason, retry_after=answer.retry_after)
        raise BadDocument(reason, retry_after=answer.retry_after)


def _destination(reference: str, base: Place | None) -> Place:
    try:
        return place(reference) if base is None else base.at(reference)
    except ValueError as exc:
        raise PermanentFailure(f"the invoice's link cannot be used: {exc}") from exc


def _onward(answer: Answer) -> str | None:
    """Return where an answer sends us; None when it is the document (or should be)."""
    if answer.status in _REDIRECTS:
        if answer.location is None:
            raise BadDocument(f"a redirect ({answer.status}) to nowhere when {_DOING}")
        return answer.location
    if answer.body.startswith(b"%PDF-"):
        return None
    if answer.content_type == "application/json" or answer.body.lstrip().startswith(b"{"):
        try:
            link = members(document(answer.body)).get("url")
        except ValueError as exc:
            raise BadDocument("the invoice's descriptor is not JSON") from exc
        if not isinstance(link, str) or not link.strip():
            raise BadDocument("the invoice's descriptor is JSON without a url")
        return link.strip()
    return None


def _pdf(body: bytes) -> bytes:
    if not body.startswith(b"%PDF-"):
        start = body.lstrip()
        looks_like = next((kind for magic, kind in _KINDS if start.startswith(magic)), "something else")
        raise BadDocument(f"the invoice is not a PDF but {looks_like}" if start else "the invoice is empty")
    return body


def _matches(host: str, allowed: str) -> bool:
    """Return whether a host is one that is allowed; `*.` stands for subdomains only."""
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(at: Place, answer: Answer) -> str:
    return f"{at.host} answered {answer.status} when {_DOING}"
