"""What a relay's answer, or its silence, means: one function from (phase, reply) to our failures (channels.md 1.5)."""

import re
from collections.abc import Iterable
from enum import StrEnum

from service.delivery import (
    AccountFailure,
    DeliveryFailure,
    PermanentFailure,
    TransientFailure,
    UnconfirmedFailure,
)
from service.privacy import scrub

_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})\b")
_WAIT = re.compile(
    r"\b(?:in|after|for|wait)\s+(\d{1,6})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b", re.IGNORECASE
)
_UNITS = {"s": 1, "m": 60, "h": 3600}
_LONGEST_WAIT = 86400.0


class Phase(StrEnum):
    """How far a connection or a mail was. The words are part of the reason a person reads."""

    CONNECT = "the mail relay cannot be reached"
    AUTH = "the mail relay did not let us sign in"
    MAIL = "the mail relay refused the sender"
    RCPT = "the mail relay refused the recipient"
    DATA = "the mail relay refused the message"


# RFC 4954: about signing in and encryption, whichever command they answer. 454 is that only until RCPT.
_ACCOUNT_CODES = frozenset({530, 534, 535, 538})
_ACCOUNT_CODES_AT_MAIL = _ACCOUNT_CODES | {454}
_ACCOUNT_DETAILS = frozenset({"5.7.30"})  # basic authentication is switched off
_ACCOUNT_DETAILS_AT_MAIL = _ACCOUNT_DETAILS | {"5.1.7", "5.1.8", "5.7.1", "5.7.60"}  # our own sender will not do


def classify(phase: Phase, code: int | None, text: str, secrets: Iterable[str] = ()) -> DeliveryFailure:
    """Return the failure for a reply `code text` in `phase`; a code outside 400-599 (or None) is a lost connection.

    A broken connection in `DATA` is unconfirmed: the client cannot tell whether the content had been handed over.
    """
    refused = code is not None and 400 <= code <= 599  # noqa: PLR2004
    reason = _reason(phase, code if refused else None, text, secrets)
    wait = parse_wait(text) if refused else None
    if phase in (Phase.CONNECT, Phase.AUTH):
        return AccountFailure(reason, retry_after=wait)
    if code is None or not refused:
        return UnconfirmedFailure(reason) if phase is Phase.DATA else TransientFailure(reason)
    if _is_ours(phase, code, text):
        return AccountFailure(reason, retry_after=wait)
    if code < 500:  # noqa: PLR2004
        return TransientFailure(reason, retry_after=wait)
    return PermanentFailure(reason)


def _is_ours(phase: Phase, code: int, text: str) -> bool:
    """Return whether the reply is about our account or sender rather than this mail."""
    found = _ENHANCED.match(text)
    detail = found[1] if found else ""
    if phase is Phase.MAIL:
        return code in _ACCOUNT_CODES_AT_MAIL or detail in _ACCOUNT_DETAILS_AT_MAIL
    return code in _ACCOUNT_CODES or detail in _ACCOUNT_DETAILS


def _reason(phase: Phase, code: int | None, text: str, secrets: Iterable[str]) -> str:
    if code is not None:
        return f"{phase}: {code} {clean(text, secrets)}"
    said = clean(text, secrets)
    if phase is Phase.DATA:
        return f"the mail relay's answer to the message was lost: {said}"
    if phase in (Phase.CONNECT, Phase.AUTH):
        return f"{phase}: {said}"
    return f"the connection to the mail relay broke: {said}"


def parse_wait(text: str) -> float | None:
    """Return the seconds a relay asks us to wait ("try again in 5 minutes"), at most a day; None when it names none."""
    found = _WAIT.search(text)
    return min(float(found[1]) * _UNITS[found[2][0].lower()], _LONGEST_WAIT) if found else None


def clean(text: str, secrets: Iterable[str]) -> str:
    """Return a relay's words without addresses and secrets; a secret is hidden as a whole word, not inside others."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text, flags=re.IGNORECASE)
    return scrub(text)
