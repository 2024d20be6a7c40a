"""Reports of what became of a text: what proves them, and what all providers' have in common (channels.md 2.1)."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from service.channels.sms_provider import word
from service.delivery import Fate, Forged, Report, ReportRequest, Stale, Unusable
from service.privacy import scrub

TOLERANCE = timedelta(days=3)
"""How far a signed time may lie from ours.

Sinch tries for two days (5 s, doubled up to 81,920 s; channels.md 2.1) and does not say that it signs anew. Who sends
an old report again does nothing by it: it is known by its id, and a later one outweighs it.
"""
_KEY = re.compile(r"[0-9a-f]{16,128}")
_MILLISECONDS = 10**11  # a time since 1970 above this is none in seconds


def query(request: ReportRequest) -> dict[str, str]:
    """Return what stands after the question mark."""
    return dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))


def form(request: ReportRequest) -> list[tuple[str, str]]:
    """Return the pairs of a form; raises `Unusable`."""
    try:
        return parse_qsl(request.body.decode("utf-8"), keep_blank_values=True, max_num_fields=200)
    except ValueError as exc:
        raise Unusable("no_form") from exc


def prove(given: str | None, *expected: bytes) -> None:
    """Compare in constant time with whatever may be expected; raises `Forged`."""
    if given is None:
        raise Forged("signature_missing")
    if not any(hmac.compare_digest(given.encode("utf-8", "replace"), one) for one in expected):
        raise Forged("signature_wrong")


def digest(secret: str, content: bytes, algorithm: str = "sha256") -> bytes:
    """Return the HMAC in base64."""
    return base64.b64encode(hmac.new(secret.encode(), content, algorithm).digest())


def token(secret: str, channel: str, key: str) -> str:
    """Return what proves a report of one message that its provider does not sign: it stands in the report's URL.

    The secret itself stays here, and who finds one token can forge reports of that message alone.
    """
    return hmac.new(secret.encode(), f"{channel} {key}".encode(), hashlib.sha256).hexdigest()[:32]


def fresh(at: datetime, now: datetime) -> None:
    """Raise `Stale` for a signed time that is too far from ours."""
    if abs(at - now) > TOLERANCE:
        raise Stale("outside_tolerance")


def moment(value: object) -> datetime | None:
    """Return a time as providers write it: ISO 8601 (UTC where it does not say), or seconds since 1970."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 15:  # noqa: PLR2004  # nobody's time
        value = int(value)
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = value / 1000 if value > _MILLISECONDS else value
            return datetime.fromtimestamp(seconds, UTC) if seconds >= 0 else None
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        return at and (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def told(
    channel: str,
    *,
    key: object,
    remote_id: object,
    status: object,
    fates: Mapping[str, Fate | None],
    code: object = None,
    at: datetime | None = None,
    words: str | None = None,
) -> tuple[Report, ...]:
    """Return the report that a status is: none for a word of the way that says nothing new. Raises `Unusable`.

    `key` is the intent's, where it came back; it also proves a message whose answer was lost. A status that is in no
    table is the other side's last word as far as we can tell, and an unknown one.
    """
    key, remote_id, status, code = word(key), word(remote_id), word(status), word(code)
    reference = key if key is not None and _KEY.fullmatch(key) else remote_id
    if reference is None or status is None:
        raise Unusable("no_message")
    fate = fates.get(status.lower(), Fate.UNKNOWN)
    if fate is None:
        return ()
    said = " ".join(filter(None, (status, code, words)))
    return (
        Report(
            channel=channel,
            event_id=" ".join(filter(None, (remote_id or reference, status, code))),
            reference=reference,
            fate=fate,
            at=at,
            detail=scrub(said),
        ),
    )
