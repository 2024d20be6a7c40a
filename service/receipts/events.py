"""One vocabulary for what ESPs tell of mails, Anymail's, and what it means to us; reading JSON without trusting it."""

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from service.delivery import Fate, Forged, Report, ReportRequest, Unusable
from service.privacy import scrub

FATES = {
    "delivered": Fate.DELIVERED,
    "bounced": Fate.FAILED,
    "rejected": Fate.FAILED,
    "failed": Fate.FAILED,
    "deferred": Fate.DEFERRED,
    "complained": Fate.UNKNOWN,  # the customer called it spam: noted, for the mail did arrive
}
"""What is written of an event; the other words (queued, sent, opened, clicked …) say nothing of a mail's fate."""

OURS = re.compile(r"<?[0-9a-f]{32}@[A-Za-z0-9.-]{1,255}>?")
"""A Message-ID as the mail channel makes them."""
KEY = re.compile(r"[0-9a-f]{32}")
"""What is the mail's own in it, and is its envelope id, too."""
_LONGEST = 300  # of an id or a reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one ESP told of one mail. `message_id` is our Message-ID, with brackets or without, or the ESP's own id."""

    kind: str  # a word of Anymail's
    message_id: str
    event_id: str | None = None
    at: datetime | None = None
    recipient: str | None = None
    detail: str | None = None  # the other side's words, not scrubbed yet


class Provider(Protocol):
    """Who verifies and reads the requests of one ESP."""

    async def events(self, request: ReportRequest, *, now: datetime) -> tuple[Event, ...]:
        """Return what a request tells; raises `Forged`, `Stale` or `Unusable`."""


def report_of(event: Event, channel: str) -> Report | None:
    """Return an event as the record keeps it; None when it says nothing of the fate of a mail, or is about another's.

    Whoever sends other mail by the same ESP gets reports of that, too: its Message-IDs are not of our form.
    """
    fate, named = FATES.get(event.kind), reference(event.message_id)
    if fate is None or ("@" in named and not OURS.fullmatch(named)):
        return None
    hidden = (event.recipient, event.recipient.rpartition("@")[0]) if event.recipient else ()
    return Report(
        channel=channel,
        event_id=event.event_id or _digest(event),
        reference=named,
        fate=fate,
        at=event.at,
        detail=f"{event.kind}: {scrub(event.detail, hidden)}" if event.detail else event.kind,
    )


def reference(message_id: str) -> str:
    """Return a Message-ID with its brackets, whichever way it was given; any other id as it is."""
    bare = message_id.strip().removeprefix("<").removesuffix(">")
    return f"<{bare}>" if "@" in bare else bare


def _digest(event: Event) -> str:
    """Return an id for an event that has none: the same for the same event told twice."""
    told = (event.kind, event.message_id, event.at.isoformat() if event.at else "", event.recipient or "")
    return hashlib.sha256("|".join(told).encode("utf-8", "replace")).hexdigest()


# --- reading ---------------------------------------------------------------------------------------------------------


def document(request: ReportRequest) -> Any:
    """Return the JSON of a body; raises `Unusable`."""
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError) as exc:
        raise Unusable("no_json") from exc


def member(value: Any, *path: str) -> Any:
    """Return what is at a path inside JSON; None when it is not there."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text(value: Any, *path: str) -> str | None:
    """Return the text, or the whole number as text, at a path inside JSON; None when it is missing or too long."""
    found = member(value, *path)
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    return found if isinstance(found, str) and 0 < len(found) <= _LONGEST else None


def words(*parts: str | None) -> str | None:
    """Return what there is of these on one line."""
    return " ".join(part for part in parts if part) or None


def long_text(value: Any, *path: str) -> str | None:
    """Return text of any length, cut short: an explanation."""
    found = member(value, *path)
    return found[:_LONGEST] if isinstance(found, str) and found else None


def time_of(value: Any) -> datetime | None:
    """Return a time given as ISO 8601, or in seconds since 1970; None when it is neither, or names no zone."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            # Postmark's seconds have seven places, which Python does not read before 3.11.
            found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value))
            return found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError, OSError):
        return None
    return None


def known_by_secret(request: ReportRequest, secret: str) -> None:
    """Return if a request knows the secret: `?secret=…`, a bearer token, or the password of basic authentication.

    Raises `Forged`.
    """
    given = parse_qs(urlsplit(request.url).query).get("secret", [])
    scheme, _, word = (request.header("authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        given.append(word.strip())
    elif scheme.lower() == "basic":
        given.append(_password(word.strip()))
    if not any(hmac.compare_digest(one.encode("utf-8", "replace"), secret.encode()) for one in given):
        raise Forged("bad_secret")


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
