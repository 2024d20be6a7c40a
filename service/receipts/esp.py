"""ESPs' reports of mails into one vocabulary: Postmark, SendGrid, Mailgun, and whoever speaks Anymail's words."""

import base64
import hashlib
import hmac
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from service.delivery import Forged, ReportRequest, Stale, Unusable
from service.receipts.events import KEY, Event, document, known_by_secret, long_text, member, text, time_of, words

_SHORTEST_SECRET = 16
_MAILGUN_TOLERANCE = 12 * 3600.0  # seconds: it tries for eight hours, and does not say that it signs anew
_MOST_TOKENS = 10_000


def long_enough(secret: str) -> str:
    """Return a secret that nobody guesses; raises `ValueError`."""
    if len(secret) < _SHORTEST_SECRET:
        raise ValueError(f"must have at least {_SHORTEST_SECRET} characters, for anybody may try")
    return secret


class Postmark:
    """Its webhooks are not signed: they know a secret, in the URL or as the password of basic authentication."""

    def __init__(self, secret: str) -> None:
        self._secret = long_enough(secret)

    async def events(self, request: ReportRequest, *, now: datetime) -> tuple[Event, ...]:  # noqa: ARG002
        """Return the one event of a request."""
        known_by_secret(request, self._secret)
        said = document(request)
        record = text(said, "RecordType")
        if record is None:
            raise Unusable("no_record_type")
        message_id = _postmark_reference(said)
        if message_id is None:
            return ()
        number = text(said, "ID")
        return (
            Event(
                kind=_postmark_kind(record, text(said, "Type")),
                message_id=message_id,
                event_id=f"postmark:{record}:{number}" if number else None,
                at=time_of(member(said, "DeliveredAt") or member(said, "BouncedAt")),
                recipient=text(said, "Recipient") or text(said, "Email"),
                detail=words(text(said, "Type"), long_text(said, "Description"), long_text(said, "Details")),
            ),
        )


def _postmark_reference(said: Any) -> str | None:
    """Return the mail's key where the metadata has it (`X-PM-Metadata-delivery`), else Postmark's own id."""
    key = text(said, "Metadata", "delivery")
    return key if key is not None and KEY.fullmatch(key) else text(said, "MessageID")


_POSTMARK_KINDS = {"Delivery": "delivered", "SpamComplaint": "complained"}
_POSTMARK_BOUNCES = {
    "Transient": "deferred",
    "DnsError": "deferred",
    "OpenRelayTest": "deferred",
    "AutoResponder": "autoresponded",
    "AddressChange": "autoresponded",
    "ChallengeVerification": "autoresponded",
    "SpamNotification": "complained",
    "SpamComplaint": "complained",
    "Unsubscribe": "unsubscribed",
    "Subscribe": "subscribed",
    "Unknown": "unknown",
}


def _postmark_kind(record: str, kind: str | None) -> str:
    if record == "Bounce":
        return _POSTMARK_BOUNCES.get(kind or "", "bounced")
    return _POSTMARK_KINDS.get(record, "unknown")


class SendGrid:
    """Its event webhook is signed by ECDSA over timestamp and body, with a key that SendGrid shows at set-up."""

    def __init__(self, key: str) -> None:
        try:
            loaded = load_der_public_key(base64.b64decode(key, validate=True))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise ValueError("must be SendGrid's verification key, in base64") from exc
        if not isinstance(loaded, ec.EllipticCurvePublicKey):
            raise ValueError("must be SendGrid's verification key, which is an ECDSA key")  # noqa: TRY004  # a setting
        self._key = loaded

    async def events(self, request: ReportRequest, *, now: datetime) -> tuple[Event, ...]:  # noqa: ARG002
        """Return the events of a request; a repeat does no harm, so its age does not matter."""
        self._verify(request)
        said = document(request)
        if not isinstance(said, list):
            raise Unusable("no_list_of_events")
        return tuple(event for one in said if (event := _sendgrid_event(one)) is not None)

    def _verify(self, request: ReportRequest) -> None:
        signature = request.header("x-twilio-email-event-webhook-signature")
        timestamp = request.header("x-twilio-email-event-webhook-timestamp")
        if not signature or not timestamp:
            raise Forged("no_signature")
        try:
            signed = base64.b64decode(signature, validate=True)
            self._key.verify(signed, timestamp.encode("latin-1") + request.body, ec.ECDSA(SHA256()))
        except (InvalidSignature, ValueError) as exc:
            raise Forged("bad_signature") from exc


_SENDGRID_KINDS = {
    "delivered": "delivered",
    "bounce": "bounced",
    "blocked": "bounced",
    "dropped": "rejected",
    "deferred": "deferred",
    "spamreport": "complained",
}


def _sendgrid_event(said: Any) -> Event | None:
    """Return an event; None where it names no mail. Without our Message-ID, it names what its reply to the mail did."""
    message_id = text(said, "smtp-id") or (text(said, "sg_message_id") or "").partition(".")[0]
    if not message_id:
        return None
    number = text(said, "sg_event_id")
    return Event(
        kind=_SENDGRID_KINDS.get(text(said, "event") or "", "unknown"),
        message_id=message_id,
        event_id=f"sendgrid:{number}" if number else None,
        at=time_of(member(said, "timestamp")),
        recipient=text(said, "email"),
        detail=words(text(said, "type"), long_text(said, "reason"), long_text(said, "response")),
    )


class Mailgun:
    """Its webhooks sign a time and a token and not what they tell: a token is good for one body, and for a while."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._bodies: dict[str, bytes] = {}  # of each token, the digest of what it came with

    async def events(self, request: ReportRequest, *, now: datetime) -> tuple[Event, ...]:
        """Return the one event of a request."""
        said = document(request)
        self._verify(said, request.body, now)
        event = member(said, "event-data")
        message_id, number = text(event, "message", "headers", "message-id"), text(event, "id")
        if message_id is None:
            return ()
        return (
            Event(
                kind=_mailgun_kind(text(event, "event"), text(event, "severity")),
                message_id=message_id,
                event_id=f"mailgun:{number}" if number else None,
                at=time_of(member(event, "timestamp")),
                recipient=text(event, "recipient"),
                detail=words(
                    text(event, "reason"),
                    text(event, "delivery-status", "code"),
                    long_text(event, "delivery-status", "message")
                    or long_text(event, "delivery-status", "description"),
                ),
            ),
        )

    def _verify(self, said: Any, body: bytes, now: datetime) -> None:
        timestamp, token = text(said, "signature", "timestamp"), text(said, "signature", "token")
        signature = text(said, "signature", "signature")
        if not timestamp or not token or not signature:
            raise Forged("no_signature")
        good = hmac.new(self._key, f"{timestamp}{token}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(good.encode(), signature.encode("utf-8", "replace")):
            raise Forged("bad_signature")
        if self._bodies.setdefault(token, digest := hashlib.sha256(body).digest()) != digest:
            raise Forged("token_used")
        if len(self._bodies) > _MOST_TOKENS:
            del self._bodies[next(iter(self._bodies))]
        at = time_of(int(timestamp)) if timestamp.isascii() and timestamp.isdecimal() else None
        if at is None or abs((now - at).total_seconds()) > _MAILGUN_TOLERANCE:
            raise Stale("outside_tolerance")


def _mailgun_kind(event: str | None, severity: str | None) -> str:
    if event == "failed":
        return "deferred" if severity == "temporary" else "bounced"
    return event if event in {"delivered", "rejected", "complained"} else "unknown"


class Generic:
    """JSON in Anymail's own words, one event or a list of them, from whoever knows the secret."""

    def __init__(self, secret: str) -> None:
        self._secret = long_enough(secret)

    async def events(self, request: ReportRequest, *, now: datetime) -> tuple[Event, ...]:  # noqa: ARG002
        """Return the events of a request, but for those without `event_type` and `message_id`.

        Raises `Unusable` when all are so: one that is odd must not keep the others out.
        """
        known_by_secret(request, self._secret)
        said = document(request)
        told = said if isinstance(said, list) else [said]
        events = tuple(event for one in told if (event := _generic_event(one)) is not None)
        if told and not events:
            raise Unusable("no_event_type_or_message_id")
        return events


def _generic_event(said: Any) -> Event | None:
    kind, message_id = text(said, "event_type"), text(said, "message_id")
    if kind is None or message_id is None:
        return None
    number = text(said, "event_id")
    return Event(
        kind=kind,
        message_id=message_id,
        event_id=f"generic:{number}" if number else None,
        at=time_of(member(said, "timestamp")),
        recipient=text(said, "recipient"),
        detail=words(text(said, "reject_reason"), long_text(said, "description"), long_text(said, "mta_response")),
    )
