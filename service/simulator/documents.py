"""The provider's JSON: errors, ids, times, events. Dicts, for serving them is its trade."""

from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal, TypeAlias

Json: TypeAlias = dict[str, Any]

Personality = Literal["seed", "current"]
"""`seed`: a capture moves AUTHORIZED to CAPTURED. `current`: it stays AUTHORIZED until the customer pays."""

Start = Literal["AUTHORIZED", "ON_HOLD", "INITIATED", "FAILED", "DECLINED"]
"""The status that a new transaction comes to first."""

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Refusal(Exception):
    """An answer other than 2xx, with the error JSON of dintero-api.md section 1."""

    def __init__(self, status: int, message: str, *, code: str | None = None, errors: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.errors = errors

    @property
    def document(self) -> Json:
        error: Json = {"message": self.message}
        if self.code is not None:
            error["code"] = self.code
        if self.errors:
            error["errors"] = [{"description": text} for text in self.errors]
        return {"error": error}


def invalid(description: str) -> Refusal:
    """Return a 400 that says which parameter will not do."""
    return Refusal(400, "Invalid request parameter", code="INVALID_REQUEST_PARAMETER", errors=(description,))


def unknown(what: str) -> Refusal:
    """Return a 404."""
    return Refusal(404, f"{what} not found", code="NOT FOUND")


def instant(at: datetime) -> str:
    """Return a time as the provider writes it: ISO 8601, milliseconds, `Z`."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def short_id(random: Random, length: int = 22) -> str:
    """Return the part of an id that follows the account id."""
    return "".join(random.choices(_ALPHABET, k=length))


def request_id(random: Random) -> str:
    """Return a UUID in text form."""
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def add_event(transaction: Json, name: str, status: str, at: datetime, random: Random, **fields: Any) -> Json:
    """Append an event to a transaction, move it to `status`, and return the event. A field that is None is left out."""
    event = {
        "id": str(len(transaction["events"]) + 1),
        "event": name,
        "transaction_status": status,
        "success": True,
        "created_at": instant(at),
        "request_id": request_id(random),
    }
    event |= {key: value for key, value in fields.items() if value is not None}
    transaction["events"].append(event)
    transaction["status"] = status
    transaction["updated_at"] = instant(at)
    return event


def collection_begun(transaction: Json) -> bool:
    """Whether any successful INITIATE_CAPTURE or CAPTURE is among the events."""
    return any(
        event["event"] in ("INITIATE_CAPTURE", "CAPTURE") and event["success"] for event in transaction["events"]
    )


def new_session(session_id: str, body: Json, order: Json, profile_id: str | None, now: datetime) -> Json:
    """Return the document of a new session."""
    return {
        "id": session_id,
        "order": order,
        "url": body.get("url") or {},
        "customer": body.get("customer") or {},
        "configuration": body.get("configuration") or {},
        "metadata": {"session:profile_id": profile_id} if profile_id else {},
        "created_at": instant(now),
        "expires_at": instant(now + timedelta(days=1)),
        "events": [{"name": "INITIATED", "created_at": instant(now)}],
    }


def new_transaction(transaction_id: str, session: Json, payment: Json, now: datetime, random: Random) -> Json:
    """Return the document of a new transaction, INITIATED."""
    order = session["order"]
    billing = payment.get("billing_address") or order.get("billing_address") or {}
    contact = {key: billing[key] for key in ("email", "phone_number") if key in billing}
    optional = ("merchant_reference", "vat_amount", "shipping_address", "shipping_option")
    transaction: Json = {
        "id": transaction_id,
        "payment_product": payment["payment_product_type"].partition(".")[0],
        "payment_product_type": payment["payment_product_type"],
        "amount": order["amount"],
        "currency": order["currency"],
        "channel": "ecommerce",
        "session_id": session["id"],
        "created_at": instant(now),
        "customer": session["customer"] or contact,
        "billing_address": billing,
        "items": order.get("items", []),
        "url": session["url"],
        "metadata": dict(session["metadata"]),
        "settlement_status": "NOT_SETTLED",
        "customer_ip": "192.0.2.17",
        "user_agent": "Mozilla/5.0 (simulated)",
        "events": [],
    }
    transaction |= {key: order[key] for key in optional if key in order}
    add_event(transaction, "INITIALIZE", "INITIATED", now, random)
    return transaction
