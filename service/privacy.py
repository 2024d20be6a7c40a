"""Masking and scrubbing: what may be shown or kept of a person's address or number. A leaf; imports nothing of ours."""

import hashlib
import hmac
import re
from collections.abc import Iterable

_MAIL = re.compile(r"[^\s<>\"'(),;:\[\]=]+@[^\s<>\"'(),;:\[\]]+")
# Seven or more digits, perhaps grouped: telephone numbers, organisation numbers and account numbers alike. Dates and
# times keep their shape, for a relay's "try again at 2026-11-23 10:00" helps the operator.
_NUMBER = re.compile(r"(?<![\w.-])\+?\d(?:[ ()/-]?\d){6,}(?![\w-])")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}(:\d{2}){0,2})?")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+")
_LONGEST = 500


def mask_address(address: str) -> str:
    """Return `o***@nordmann.no` for an address and `***99` for a number."""
    local, at, domain = address.rpartition("@")
    if at:
        return f"{local[:1]}***@{domain}"
    return f"***{address[-2:]}" if address else ""


def address_key(account_id: str, address: str) -> str:
    """Return the hex digest by which the record knows an address without holding it; one for each account."""
    return hmac.new(account_id.encode(), address.strip().casefold().encode(), hashlib.sha256).hexdigest()[:32]


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` on one line, at most 500 characters, without addresses, numbers, tokens and the given secrets.

    Numbers of fewer than seven digits stay (reply codes, sizes), as do dates.
    """
    for secret in sorted((s for s in secrets if s), key=len, reverse=True):
        text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    text = _BEARER.sub(r"\1 ***", text)
    text = _MAIL.sub("***", text)
    text = _NUMBER.sub(lambda found: found[0] if _DATE.fullmatch(found[0]) else "***", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST]
