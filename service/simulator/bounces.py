"""What an ESP tells when a mailbox sends a mail back: an event in Mailgun's words, signed as it signs."""

import hashlib
import hmac
import json
from datetime import datetime

import httpx2 as httpx

from service.simulator.letters import Letter

ESP = "mailgun"
"""Whose words they are, for RECEIPTS_EMAIL."""
_GIVEN_UP = 10.0  # seconds for the answer


def bounce_of(letter: Letter, *, key: str, token: str, at: datetime) -> bytes:
    """Return the event; `token` is good once."""
    stamp = str(int(at.timestamp()))
    signature = hmac.new(key.encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()
    event = {
        "id": token,
        "event": "failed",
        "severity": "permanent",
        "reason": "bounce",
        "timestamp": at.timestamp(),
        "recipient": ", ".join(letter.mail.recipients),
        "message": {"headers": {"message-id": letter.message_id.strip("<>")}},
        "delivery-status": {"code": 550, "message": "5.1.1 The mailbox is no longer there"},
    }
    signed = {"timestamp": stamp, "token": token, "signature": signature}
    return json.dumps({"signature": signed, "event-data": event}).encode()


async def tell(url: str, body: bytes) -> str | None:
    """Post an event; return what is wrong when it was not taken."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(_GIVEN_UP)) as client:
            answer = await client.post(url, content=body, headers={"content-type": "application/json"})
    except httpx.HTTPError as exc:
        return f"The service did not answer ({type(exc).__name__})."
    return None if answer.is_success else f"The service answered {answer.status_code}."
