"""What an SMS provider's answer means, or that there was none: one table for all of them (channels.md 2.2)."""

import re

from service.channels.sms_provider import Answer, Provider
from service.delivery import (
    AccountFailure,
    DeliveryFailure,
    PermanentFailure,
    TransientFailure,
    UnconfirmedFailure,
)
from service.privacy import scrub

_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)
_REFUSALS = range(400, 500)
_ACCOUNT = frozenset({401, 402, 403, 407})
_FOR_NOW = frozenset({425, 429, 503})
_IN_DOUBT = frozenset({408})
_CODE = re.compile(r"[A-Za-z0-9._-]{1,40}")


def failure(provider: Provider, answer: Answer) -> DeliveryFailure:
    """Return what an answer without acceptance means; nothing of what it says is in the reason but a code."""
    code = provider.code(answer)
    said = f"{provider.title} answered {answer.status}"
    meaning = provider.meanings.get(code) if code is not None else None
    if meaning is not None and answer.status < 500:  # noqa: PLR2004  # what broke inside may have taken effect
        return _made(meaning.failure, f"{said}, {code}: {meaning.words}", answer)
    shown = f"{said}, {scrub(code)}" if code is not None and _CODE.fullmatch(code) else said
    kind, words = _by_status(answer.status)
    return _made(kind, f"{shown}: {words}" if words else shown, answer)


def _by_status(status: int) -> tuple[type[DeliveryFailure], str]:
    if status in _SUCCESS:
        return UnconfirmedFailure, "without the id of a message that was taken"
    if status in _REDIRECTS:
        return AccountFailure, "redirects are not followed; its address in the settings is wrong"
    if status in _ACCOUNT:
        return AccountFailure, "the account, its password, its rights or its credit"
    if status in _FOR_NOW:
        return TransientFailure, "not now"
    if status in _REFUSALS and status not in _IN_DOUBT:
        return PermanentFailure, ""
    return UnconfirmedFailure, "it may have been taken"


def _made(kind: type[DeliveryFailure], reason: str, answer: Answer) -> DeliveryFailure:
    if issubclass(kind, TransientFailure):
        return kind(reason, retry_after=answer.retry_after)
    return kind(reason)


def when_trying(found: DeliveryFailure) -> TransientFailure:
    """Return what a failure means where nothing was to be sent: what is refused for good is our own fault then."""
    if isinstance(found, TransientFailure):
        return found
    if isinstance(found, UnconfirmedFailure):
        return TransientFailure(found.reason)
    return AccountFailure(found.reason)
