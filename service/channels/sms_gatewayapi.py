"""SMS by GatewayAPI (channels.md 2.1): JSON in and out, and reports in a signed token, which alone is believed."""

import base64
import hashlib
import hmac
import json
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final

from service.channels.sms import SmsChannel, open_sms
from service.channels.sms_provider import JSON, Provider, Sms, account, blocked, later, member, number, parsed, word
from service.channels.sms_reports import TOLERANCE, moment, told
from service.channels.sms_settings import Given
from service.delivery import ChannelContext, Fate, Forged, Report, ReportRequest, Stale, Unusable

NAME: Final = "sms-gatewayapi"
MEANINGS: Final = {
    "0x0213": account("it takes nothing from this server's address"),
    "0x0214": later("the number is barred for a while"),
    "0x0215": number("the number is barred"),
    "0x0216": account("the account has no credit left"),
    "0x0217": blocked("the account may not send to that country"),
    "0x021D": account("the account may not send texts"),
    "0x021F": blocked("the account may not send to that operator"),
}
FATES: Final[dict[str, Fate | None]] = {
    "scheduled": None,
    "buffered": None,
    "enroute": Fate.DEFERRED,
    "delivered": Fate.DELIVERED,
    "accepted": Fate.UNKNOWN,  # somebody took it in the recipient's place
    "unknown": Fate.UNKNOWN,
    "expired": Fate.FAILED,
    "deleted": Fate.FAILED,
    "undeliverable": Fate.FAILED,
    "rejected": Fate.FAILED,
    "skipped": Fate.FAILED,
}


def open_sms_gatewayapi(context: ChannelContext) -> AbstractAsyncContextManager[SmsChannel]:
    """Open the channel as its settings say; raises `UnusableSettings`."""
    return open_sms(provider_of(context), context)


def provider_of(context: ChannelContext) -> Provider:
    given = Given(context, NAME)
    token = given.text("GATEWAYAPI_TOKEN")
    secret = given.text("GATEWAYAPI_WEBHOOK_SECRET")
    sender = given.sender()
    base = given.base("GATEWAYAPI_URL", "https://gatewayapi.eu")
    given.done()
    reports_at = given.reports_at()

    def body(sms: Sms) -> bytes:
        document = {
            "sender": (sender or "").removeprefix("+"),
            "message": sms.text,
            "recipients": [{"msisdn": int(sms.to.removeprefix("+"))}],
            "userref": sms.key,
            "callback_url": reports_at,
            "encoding": "UTF8" if sms.gsm7 else "UCS2",  # its UTF8 is GSM-7 on the air, and loses what that has not
        }
        return json.dumps(document).encode()

    def reports(request: ReportRequest, now: datetime) -> tuple[Report, ...]:
        claims = claims_of(request.header("x-gwapi-signature"), secret, now)
        code = word(member(claims, "code"))
        return told(
            NAME,
            key=member(claims, "userref"),
            remote_id=member(claims, "id"),
            status=member(claims, "status"),
            fates=FATES,
            code=code,
            at=moment(member(claims, "time")),
        )

    return Provider(
        name=NAME,
        title="GatewayAPI",
        sender=sender,
        url=f"{base}/rest/mtsms",
        content_type=JSON,
        authorization=f"Token {token}",
        body=body,
        remote_id=lambda answer: word(answer.member("ids", 0)),
        code=lambda answer: word(answer.member("code")),
        meanings=MEANINGS,
        reports=reports,
        probe=f"{base}/rest/me",
    )


def claims_of(token: str | None, secret: str, now: datetime) -> object:
    """Return what a JWT claims that was signed with HS256 and this secret; raises `Forged`, `Stale` and `Unusable`."""
    if token is None:
        raise Forged("signature_missing")
    head, *rest = token.strip().split(".")
    if len(rest) != 2 or not token.isascii():  # noqa: PLR2004  # head, claims and signature
        raise Forged("signature_wrong")
    claims, signature = rest
    expected = hmac.new(secret.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
    if member(parsed(_plain(head)), "alg") != "HS256" or not hmac.compare_digest(_plain(signature), expected):
        raise Forged("signature_wrong")
    found = parsed(_plain(claims))
    if not isinstance(found, dict):
        raise Unusable("no_json_object")
    expiry = moment(found.get("exp"))
    if expiry is not None and now - expiry > TOLERANCE:
        raise Stale("outside_tolerance")
    return found


def _plain(part: str) -> bytes:
    """Return what a part of a token is in base64; nothing for what is none."""
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return b""
