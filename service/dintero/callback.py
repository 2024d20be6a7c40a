"""Who sent a callback: the provider's signature over the public URL, and what is taken from the query."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote, quote_plus, unquote_to_bytes, urlsplit

import idna

from service.delivery import Arrival, CallbackRequest, Forged, Stale, Unrecorded, Unusable
from service.dintero.reading import identifier

CALLBACK_PATH = "/callback"
"""What follows the public URL's own path."""

_SCHEME = "v0-hmac-sha256"
_PLAIN = re.compile(r"[A-Za-z0-9*._-]*")  # stands for itself in a form-encoded query
_SECONDS = re.compile(r"[0-9]{1,12}")
_PATH_SAFE = "/%:@!$&'()*+,;=~|[]^"  # what a browser's URL leaves alone in a path, besides letters and digits

Pairs = list[tuple[str, str]]


def parse_query(raw: bytes) -> Pairs:
    """Return names and values as a browser's URLSearchParams reads them.

    `+` is a space, an invalid escape stays as it is, and bytes that are not UTF-8 become U+FFFD.
    """
    pairs = []
    for piece in filter(None, raw.split(b"&")):
        name, _, value = piece.replace(b"+", b" ").partition(b"=")
        pairs.append((_decoded(name), _decoded(value)))
    return pairs


def canonical_query(pairs: Pairs) -> str:
    """Return the query that is signed: form-encoded, stably sorted by name in UTF-16 code units."""
    ordered = sorted(pairs, key=lambda pair: pair[0].encode("utf-16-be"))
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in ordered)


def signed_host(url: str) -> str:
    """Return the host of a URL as it is signed: lower case, punycode, no port. Raises `ValueError` when it is none."""
    host = (urlsplit(url).hostname or "").lower()
    if not host.isascii():
        return idna.encode(host, uts46=True).decode()
    return f"[{host}]" if ":" in host else host


def signed_path(path: str) -> str:
    """Return a URL's path as a browser would send it."""
    return quote(path, safe=_PATH_SAFE) or "/"


def signed_text(*, timestamp: str, account_id: str, method: str, host: str, path: str, query: str) -> bytes:
    """Return the six lines under a signature; dintero-api.md, 3a. No line break at the end."""
    return f"{timestamp}\n{account_id}\n{method.upper()}\n{host}\n{path}\n{query}".encode()


def digest(secret: str, text: bytes) -> str:
    """Return the hex digest of a text under a secret."""
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def signed_header(secret: str, account_id: str, method: str, url: str, timestamp: int) -> str:
    """Return the `Dintero-Signature` header of a request to `url`, as the provider would send it."""
    parts = urlsplit(url)
    text = signed_text(
        timestamp=str(timestamp),
        account_id=account_id,
        method=method,
        host=signed_host(url),
        path=signed_path(parts.path),
        query=canonical_query(parse_query(parts.query.encode())),
    )
    return f"t={timestamp},{_SCHEME}={digest(secret, text)}"


class Authenticator:
    """Tells the provider's callbacks from anybody else's. Without secrets every request is taken, of any age."""

    def __init__(
        self, *, account_id: str, secrets: tuple[str, ...], public_urls: tuple[str, ...], tolerance: float
    ) -> None:
        """`tolerance` is in seconds, either way. Raises `ValueError` when a public URL has no usable host."""
        self._account_id = account_id
        self._secrets = secrets
        self._tolerance = tolerance
        self._places = tuple(
            (signed_host(url), signed_path(urlsplit(url).path.rstrip("/") + CALLBACK_PATH)) for url in public_urls
        )

    def arrival(self, request: CallbackRequest, now: datetime) -> Arrival | Unrecorded:
        """Return what is recorded of an authentic callback, or that it reports an error without a transaction.

        Raises `Forged`, then `Stale`, then `Unusable`, in this order.
        """
        pairs = parse_query(request.raw_query.encode("latin-1"))
        if self._secrets:
            self._check_age(self._signed_at(request, canonical_query(pairs)), now)
        values = {name: {v for n, v in pairs if n == name and v} for name in ("transaction_id", "error", "event")}
        if not values["transaction_id"] and values["error"]:
            return Unrecorded.ERROR_REPORT
        found = [identifier(value) for value in values["transaction_id"]]
        if len(found) != 1 or found[0] is None:
            raise Unusable("no_usable_id")
        return Arrival(transaction_id=found[0], account_id=self._account_id, at=now, event=bool(values["event"]))

    def _signed_at(self, request: CallbackRequest, query: str) -> int:
        timestamp, given = _read_header(request.signature or "")
        wanted = list(self._digests(timestamp, request.method, query))
        # Every candidate is compared with every digest: the time taken says nothing about which of them came close.
        matches = [hmac.compare_digest(a, b) for a in given for b in wanted]
        if not any(matches):
            raise Forged("signature_wrong")
        return int(timestamp)

    def _digests(self, timestamp: str, method: str, query: str) -> Iterator[bytes]:
        for host, path in self._places:
            text = signed_text(
                timestamp=timestamp, account_id=self._account_id, method=method, host=host, path=path, query=query
            )
            yield from (digest(secret, text).encode() for secret in self._secrets)

    def _check_age(self, signed_at: int, now: datetime) -> None:
        if abs(now.timestamp() - signed_at) > self._tolerance:
            raise Stale("outside_tolerance")


def _read_header(header: str) -> tuple[str, list[bytes]]:
    """Return the first `t` and every signature of the scheme we know; raises `Forged` when either is missing."""
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    given = [value.encode(errors="replace") for name, _, value in parts if name == _SCHEME]
    if not given:
        raise Forged("signature_missing")
    if not times or not _SECONDS.fullmatch(times[0]):
        raise Forged("time_missing")
    return times[0], given


def _decoded(piece: bytes) -> str:
    return (unquote_to_bytes(piece) if b"%" in piece else piece).decode(errors="replace")


def _encoded(piece: str) -> str:
    if _PLAIN.fullmatch(piece):
        return piece
    return quote_plus(piece, safe="*").replace("~", "%7E")
