"""Amazon SES's notifications, which come over SNS: whose they are, what they tell, and the first one of all."""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx2 as httpx
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import Certificate, load_pem_x509_certificate

from service.delivery import Forged, ReportRequest, TransientFailure, Unusable
from service.receipts.events import OURS, Event, document, long_text, member, text, time_of, words

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns what is at an address of Amazon's; raises `TransientFailure`."""

_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_.-]{1,256}")
# Whole addresses, not hosts: SNS's own API answers at the same host with what anybody had it keep, a certificate too.
_SNS = r"https://sns\.[a-z0-9-]{1,30}\.amazonaws\.com(\.cn)?"
_CERTIFICATE = re.compile(rf"{_SNS}/SimpleNotificationService-[0-9A-Za-z]{{1,64}}\.pem")
_CONFIRMATION = re.compile(rf"{_SNS}/\?Action=ConfirmSubscription&[!-~]{{1,2000}}")
_LARGEST = 100_000  # bytes of a certificate, or of the answer to a confirmation
_WHOLE = 15.0  # seconds
_FINE = 200
_MOST_CERTIFICATES = 4
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_KINDS = {
    "Bounce": "bounced",
    "Complaint": "complained",
    "Delivery": "delivered",
    "Reject": "rejected",
    "DeliveryDelay": "deferred",
    "Rendering Failure": "failed",
}
_log = structlog.get_logger()


class Amazon:
    """Messages of one SNS topic: any other's are signed by Amazon as well, and anybody may have one."""

    def __init__(self, *, topic: str, fetch: Fetch) -> None:
        if not _ARN.fullmatch(topic):
            raise ValueError("must be the ARN of the SNS topic that SES reports to")
        self._topic = topic
        self._fetch = fetch
        self._certificates: dict[str, Certificate] = {}

    async def events(self, request: ReportRequest, *, now: datetime) -> tuple[Event, ...]:
        """Return what a message tells. The one that asks whether we want the others is answered by asking for them."""
        said = document(request)
        await self._verify(said, now)
        kind = text(said, "Type")
        if kind == "SubscriptionConfirmation":
            await self._fetch(_at_amazon(member(said, "SubscribeURL"), _CONFIRMATION))
            _log.info("receipt.subscribed")
        if kind != "Notification":
            return ()
        return _event(text(said, "MessageId"), member(said, "Message"))

    async def _verify(self, said: Any, now: datetime) -> None:
        """Return if the topic is ours and Amazon signed; the topic is looked at before anything is fetched."""
        kind = text(said, "Type")
        if kind not in _SIGNED or text(said, "TopicArn") != self._topic:
            raise Forged("not_our_topic")
        version = text(said, "SignatureVersion")
        if version not in {"1", "2"}:
            raise Forged("unknown_signature_version")
        try:
            signature = base64.b64decode(member(said, "Signature") or "", validate=True)
        except (binascii.Error, ValueError, TypeError) as exc:
            raise Forged("bad_signature") from exc
        url = _at_amazon(member(said, "SigningCertURL"), _CERTIFICATE)
        key = (await self._certificate(url, now)).public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise Forged("bad_certificate")
        algorithm = SHA256() if version == "2" else SHA1()  # noqa: S303  # what topics sign with unless told otherwise
        try:
            key.verify(signature, _canonical(said, kind), padding.PKCS1v15(), algorithm)
        except InvalidSignature as exc:
            raise Forged("bad_signature") from exc

    async def _certificate(self, url: str, now: datetime) -> Certificate:
        found = self._certificates.get(url)
        if found is None:
            try:
                found = load_pem_x509_certificate(await self._fetch(url))
            except ValueError as exc:
                raise Forged("bad_certificate") from exc
        if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
            raise Forged("certificate_expired")
        if len(self._certificates) >= _MOST_CERTIFICATES:
            self._certificates.clear()
        self._certificates[url] = found
        return found


def _at_amazon(url: object, form: re.Pattern[str]) -> str:
    """Return an address at SNS that has this form; raises `Forged` for any other."""
    if not isinstance(url, str) or not form.fullmatch(url):
        raise Forged("not_amazons_address")
    return url


def _canonical(said: Any, kind: str) -> bytes:
    """Return what is signed: names and values, a line each."""
    lines = []
    for name in _SIGNED[kind]:
        value = member(said, name)
        if isinstance(value, str):
            lines += [name, value]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _event(event_id: str | None, content: object) -> tuple[Event, ...]:
    """Return the one event of SES that a notification holds, in either of its two forms; none in other words."""
    if not isinstance(content, str):
        raise Unusable("no_message")
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return ()  # "Successfully validated SNS topic for Amazon SES event publishing."
    word = text(said, "eventType") or text(said, "notificationType") or ""
    message_id = _reference(said)
    if message_id is None:
        return ()
    name = "failure" if word == "Rendering Failure" else word[:1].lower() + word[1:]
    about = member(said, name)
    recipient = _recipient(about, member(said, "mail", "destination"))
    return (
        Event(
            kind=_KINDS.get(word, "unknown"),
            message_id=message_id,
            event_id=f"ses:{event_id}" if event_id else None,
            at=time_of(member(about, "timestamp")),
            recipient=recipient,
            detail=_words_of(about),
        ),
    )


def _reference(said: Any) -> str | None:
    """Return our Message-ID where the notification shows it, else SES's own id."""
    ours = text(said, "mail", "commonHeaders", "messageId")
    if ours is not None and OURS.fullmatch(ours.strip()):
        return ours
    return text(said, "mail", "messageId")


def _recipients(about: Any) -> list[Any]:
    for name in ("bouncedRecipients", "complainedRecipients", "delayedRecipients", "recipients"):
        found = member(about, name)
        if isinstance(found, list) and found:
            return found
    return []


def _recipient(about: Any, destination: Any) -> str | None:
    found = _recipients(about) or (destination if isinstance(destination, list) else [])
    if not found:
        return None
    return found[0] if isinstance(found[0], str) else text(found[0], "emailAddress")


def _words_of(about: Any) -> str | None:
    first = next(iter(_recipients(about)), None)
    return words(
        text(about, "bounceType"),
        text(about, "bounceSubType") or text(about, "delayType") or text(about, "complaintFeedbackType"),
        long_text(first, "diagnosticCode") or long_text(about, "smtpResponse"),
        long_text(about, "reason") or long_text(about, "errorMessage"),
    )


@asynccontextmanager
async def open_fetcher() -> AsyncIterator[Fetch]:
    """Open what fetches certificates, and confirms; redirects are not followed, and no proxy is asked."""
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=httpx.Timeout(_WHOLE)) as client:

        async def fetch(url: str) -> bytes:
            content = bytearray()
            try:
                async with asyncio.timeout(_WHOLE), client.stream("GET", url) as answer:
                    async for chunk in answer.aiter_bytes():
                        content += chunk
                        if len(content) > _LARGEST:
                            raise TransientFailure("Amazon's answer is too large")
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
                raise TransientFailure(f"Amazon does not answer ({type(exc).__name__})") from exc
            if answer.status_code != _FINE:
                raise TransientFailure(f"Amazon answered {answer.status_code}")
            return bytes(content)

        yield fetch
