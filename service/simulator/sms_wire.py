"""How each of five SMS providers is asked, answers, and reports, as values; `sms` keeps the inbox and the faults."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from urllib.parse import parse_qsl, urlencode

Kind = Literal["twilio", "sinch", "link", "46elks", "gatewayapi"]
Fate = Literal["delivered", "failed", "pending", "unknown"]
KINDS: tuple[Kind, ...] = ("twilio", "sinch", "link", "46elks", "gatewayapi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What the merchant has at these providers; the same words at all of them where they ask for the same thing."""

    user: str = "AC0123456789abcdef0123456789abcdef"
    password: str = field(default="a-token-of-the-api", repr=False)
    signing: str = field(default="a-secret-that-signs-reports", repr=False)
    gate_url: str = ""  # where LINK's gate leads


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A text as it was handed over."""

    sender: str
    to: str
    text: str
    reference: str | None
    callback: str | None
    encoding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    body: bytes
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A delivery report to be posted."""

    url: str
    headers: Mapping[str, str]
    body: bytes


WORDS: dict[Kind, dict[Fate, str]] = {
    "twilio": {
        "delivered": "delivered",
        "failed": "undelivered",
        "pending": "sent",
        "unknown": "partially_delivered",
    },
    "sinch": {"delivered": "Delivered", "failed": "Failed", "pending": "Dispatched", "unknown": "Unknown"},
    "link": {"delivered": "1001", "failed": "2104", "pending": "1007", "unknown": "1010"},
    "46elks": {"delivered": "delivered", "failed": "failed", "pending": "sent", "unknown": "lost"},
    "gatewayapi": {"delivered": "DELIVERED", "failed": "UNDELIVERABLE", "pending": "ENROUTE", "unknown": "UNKNOWN"},
}
"""How each provider says what became of a text."""


def _json(status: int, value: object) -> Reply:
    return Reply(status=status, body=json.dumps(value).encode())


def authorization(kind: Kind, login: Login) -> str:
    """Return the header that the provider wants to see."""
    if kind == "sinch":
        return f"Bearer {login.password}"
    if kind == "gatewayapi":
        return f"Token {login.password}"
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def asked(kind: Kind, body: bytes) -> Asked:
    """Return what a request asks for; raises `KeyError` or `ValueError` for what the provider would not understand."""
    if kind in ("twilio", "46elks"):
        form = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
        if kind == "46elks":
            callback = form.get("whendelivered")
            return Asked(sender=form["from"], to=form["to"], text=form["message"], reference=None, callback=callback)
        sender = form.get("MessagingServiceSid") or form["From"]
        callback = form.get("StatusCallback")
        return Asked(sender=sender, to=form["To"], text=form["Body"], reference=None, callback=callback)
    found = json.loads(body)
    if kind == "sinch":
        (to,) = found["to"]
        reference, callback = found.get("client_reference"), found.get("callback_url")
        return Asked(sender=found["from"], to=to, text=found["body"], reference=reference, callback=callback)
    if kind == "link":
        if found["ignoreResponse"] is not False:
            raise ValueError("nothing would be answered")
        return Asked(
            sender=found["source"],
            to=found["destination"],
            text=found["userData"],
            reference=found.get("refId"),
            callback=None,
            encoding=found["dcs"],
        )
    (recipient,) = found["recipients"]
    return Asked(
        sender=found["sender"],
        to=f"+{recipient['msisdn']}",
        text=found["message"],
        reference=found.get("userref"),
        callback=found.get("callback_url"),
        encoding=found["encoding"],
    )


def taken(kind: Kind, remote_id: str) -> Reply:
    """Return the answer to a text that is accepted."""
    if kind == "twilio":
        return _json(201, {"sid": remote_id, "status": "queued", "error_code": None})
    if kind == "sinch":
        return _json(201, {"id": remote_id, "canceled": False})
    if kind == "link":
        return _json(200, {"messageId": remote_id, "resultCode": 1005, "description": "Queued"})
    if kind == "46elks":
        return _json(200, {"id": remote_id, "created": "2026-11-14T10:00:00.000000", "status": "created"})
    return _json(200, {"ids": [int(remote_id)], "usage": {"total_cost": 0.3, "currency": "DKK"}})


def remote_id(kind: Kind, number: int) -> str:
    """Return what the provider calls its n-th text."""
    if kind == "gatewayapi":
        return str(421332671 + number)
    digest = hashlib.sha256(f"{kind} {number}".encode()).hexdigest()
    return {"twilio": f"SM{digest[:32]}", "46elks": f"s{digest[:32]}"}.get(kind, digest[:26].upper())


def refusal(kind: Kind, status: int, about: Literal["number", "account", "other"], to: str) -> Reply:
    """Return an error as the provider words it, the recipient's number and all."""
    if kind == "46elks":
        words = {"number": f"Invalid to number {to}", "account": "Not enough credits", "other": f"Error about {to}"}
        return Reply(status=status, body=words[about].encode(), media_type="text/plain")
    if kind == "twilio":
        code = {"number": 21211, "account": 20003, "other": 20500}[about]
        return _json(status, {"code": code, "message": f"The number {to} is not good", "status": status})
    if kind == "link":
        code = {"number": 2106, "account": 106100, "other": 106999}[about]
        return _json(status, {"resultCode": code, "description": f"About {to}"})
    if kind == "sinch":
        name = {"number": "syntax_invalid_parameter_format", "account": "unauthorized", "other": "internal"}[about]
        return _json(status, {"code": name, "text": f"About {to}"})
    which = {"number": "0x0215", "account": "0x0216", "other": "0x0308"}[about]
    return _json(status, {"code": which, "incident_uuid": "d8127429", "message": f"About {to}", "variables": [to]})


def report(kind: Kind, login: Login, text: Asked, *, name: str, word: str, at: datetime) -> Call | None:
    """Return the report of a text, signed as the provider does; None when nobody asked for reports."""
    url = login.gate_url if kind == "link" else text.callback or ""
    if not url:
        return None
    if kind == "twilio":
        form = {"MessageSid": name, "MessageStatus": word, "To": text.to, "AccountSid": login.user}
        form |= {"ErrorCode": "30005"} if word in ("undelivered", "failed") else {}
        signed = url + "".join(key + form[key] for key in sorted(form))
        signature = base64.b64encode(hmac.new(login.signing.encode(), signed.encode(), "sha1").digest())
        return _form(url, form, {"x-twilio-signature": signature.decode()})
    if kind == "46elks":
        form = {"id": name, "status": word}
        return _form(url, form | ({"delivered": at.isoformat()} if word == "delivered" else {}), {})
    if kind == "sinch":
        return _signed_by_sinch(url, login, text, (name, word, at))
    if kind == "link":
        document = {"refId": text.reference, "id": name, "resultCode": int(word), "timestamp": at.isoformat()}
        return Call(url=url, headers={"content-type": "application/json"}, body=json.dumps(document).encode())
    claims = {"id": int(name), "msisdn": int(text.to[1:]), "time": int(at.timestamp()), "status": word}
    body = json.dumps(claims | {"userref": text.reference}).encode()
    headers = {"content-type": "application/json", "x-gwapi-signature": jwt(body, login.signing)}
    return Call(url=url, headers=headers, body=body)


def _signed_by_sinch(url: str, login: Login, text: Asked, status: tuple[str, str, datetime]) -> Call:
    name, word, at = status
    document = {
        "type": "recipient_delivery_report_sms",
        "batch_id": name,
        "recipient": text.to,
        "status": word,
        "code": 0 if word == "Delivered" else 402,
        "at": at.isoformat(),
        "client_reference": text.reference,
    }
    body = json.dumps(document).encode()
    nonce, stamp = hashlib.sha256(body).hexdigest()[:20], str(int(at.timestamp()))
    digest = hmac.new(login.signing.encode(), b".".join((body, nonce.encode(), stamp.encode())), "sha256").digest()
    header = "x-sinch-webhook-signature"
    signed = {header: base64.b64encode(digest).decode(), f"{header}-nonce": nonce, f"{header}-timestamp": stamp}
    return Call(url=url, headers={"content-type": "application/json", **signed}, body=body)


def _form(url: str, pairs: Mapping[str, str], headers: Mapping[str, str]) -> Call:
    named = {"content-type": "application/x-www-form-urlencoded", **headers}
    return Call(url=url, headers=named, body=urlencode(pairs).encode())


def jwt(claims: bytes, secret: str) -> str:
    """Return these claims as a token signed with HS256."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"HS256","typ":"JWT"}', claims)]
    signature = hmac.new(secret.encode(), b".".join(parts), "sha256").digest()
    return b".".join((*parts, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()
