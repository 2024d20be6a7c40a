"""A transaction's events: in order, and what they say of collection and of a void."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from service.delivery import CaptureEvent, Collection
from service.dintero.reading import elements, label, members, moment, objects, seconds, text, whole
from service.privacy import scrub

_INITIATES = "INITIATE_CAPTURE"
_CAPTURES = "CAPTURE"
_VOIDS = "VOID"
_AUTHORIZES = "AUTHORIZE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, read as far as all kinds of them go. `metadata` and `source` are the provider's JSON."""

    name: str
    success: bool
    at: datetime | None
    amount: int | None
    metadata: Mapping[str, object]
    source: Mapping[str, object]


def in_order(events: object) -> tuple[Event, ...]:
    """Return the events of a document, oldest first where all are dated, else in the order given."""
    read = [_event(source) for source in objects(events)]
    if all(event.at is not None for event in read):
        read.sort(key=lambda event: event.at or datetime.min.replace(tzinfo=UTC))
    return tuple(read)


def collection(status: str, events: tuple[Event, ...]) -> Collection:
    """Return where the collection of the money stands; design.md, "Collection"."""
    standing = _since_void(events)
    begins = [event for event in standing if event.name in (_INITIATES, _CAPTURES) and event.success]
    initiated = [event.name for event in begins].index(_INITIATES) if _has(begins, _INITIATES) else None
    return Collection(
        begun=bool(begins) or status == "CAPTURED",
        begun_at=begins[0].at if begins else None,
        paid=initiated is not None and _has(begins[initiated:], _CAPTURES),
        partial=sum(event.amount or 0 for event in begins)
        if status == "PARTIALLY_CAPTURED" and initiated is None
        else None,
        events=tuple(_capture_event(event) for event in events if event.name in (_INITIATES, _CAPTURES)),
    )


def voided_at(status: str, events: tuple[Event, ...]) -> datetime | None:
    """Return when a transaction that is voided was; None when it is not, or nobody says when."""
    times = [event.at for event in events if event.name == _VOIDS and event.success]
    return times[-1] if times and status == "AUTHORIZATION_VOIDED" else None


def authorized_at(events: tuple[Event, ...]) -> datetime | None:
    """Return when the purchase was authorized: the first success that says when."""
    return next((event.at for event in events if event.name == _AUTHORIZES and event.success and event.at), None)


def _since_void(events: tuple[Event, ...]) -> tuple[Event, ...]:
    voids = [place for place, event in enumerate(events) if event.name == _VOIDS and event.success]
    return events[voids[-1] + 1 :] if voids else events


def _has(events: list[Event], name: str) -> bool:
    return any(event.name == name for event in events)


def _event(source: Mapping[str, object]) -> Event:
    return Event(
        name=(text(source.get("event")) or text(source.get("name")) or "").upper(),
        success=source.get("success") is True,
        at=moment(source.get("created_at")),
        amount=whole(source.get("amount")),
        metadata=members(source.get("metadata")),
        source=source,
    )


def _capture_event(event: Event) -> CaptureEvent:
    source, error = event.source, members(event.source.get("error"))
    policy = members(error.get("retry_policy"))
    codes = [code for code in elements(policy.get("retry_codes")) if isinstance(code, str)]
    wait = seconds(policy.get("retry_after"))
    return CaptureEvent(
        id=label(source.get("id")),
        reference=text(source.get("event_reference")) or text(source.get("capture_reference")),
        request_id=label(source.get("request_id")),
        answers=label(source.get("correlation_request_id")) or label(source.get("initiate_request_id")),
        initiates=event.name == _INITIATES,
        success=event.success,
        amount=event.amount,
        at=event.at,
        error=_words(error),
        retry_after=0.0 if wait is None and "RETRY_IMMEDIATELY" in codes else wait,
        retryable="DO_NOT_RETRY" not in codes,
    )


def _words(error: Mapping[str, object]) -> str | None:
    parts = [text(error.get(name)) for name in ("code", "message")]
    return scrub(": ".join(part for part in parts if part)) or None
