"""Rows as values and back: what a statement selects, what it turns into, and what is written of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Table

from service.delivery import (
    Capture,
    DecidedBy,
    Delivery,
    Entry,
    Kind,
    Outcome,
    Proof,
    Purpose,
    Result,
    Send,
    Settled,
    Step,
)
from service.store.tables import captures, deliveries, history, sends

V = TypeVar("V", Send, Capture)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A row of `deliveries` with what nobody outside sees of it: lease, wake-ups, captures begun, the last hash."""

    delivery: Delivery
    lease_token: str | None = None
    leased_until: datetime | None = None
    wakes: int = 0
    seen: int = 0
    asked: int = 0
    told: int = 0
    captures_begun: int = 0
    chain: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent(Generic[V]):
    """A row of `sends` or `captures`: its place among the delivery's, from 1, and the lease it was begun under."""

    value: V
    ordinal: int
    lease_token: str | None


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _columns(table: Table, names: Iterable[str]) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in names]


_DELIVERY, _SEND, _CAPTURE, _ENTRY = map(_names, (Delivery, Send, Capture, Entry))
_LEASE = ("lease_token", "leased_until", "wakes", "seen", "asked", "told", "captures_begun", "chain")
_INTENT = ("ordinal", "lease_token")

DELIVERY_COLUMNS = _columns(deliveries, _DELIVERY)
HELD_COLUMNS = _columns(deliveries, _DELIVERY + _LEASE)
SEND_COLUMNS = _columns(sends, _INTENT + _SEND)
CAPTURE_COLUMNS = _columns(captures, _INTENT + _CAPTURE)
ENTRY_COLUMNS = _columns(history, _ENTRY)


def delivery_of(row: Sequence[Any]) -> Delivery:
    """Return the value of a row of `DELIVERY_COLUMNS`, or of a longer one that begins with them."""
    values = dict(zip(_DELIVERY, row, strict=False))
    values["kind"] = Kind(values["kind"])
    values["outcome"] = Outcome(values["outcome"])
    if values["decided_by"] is not None:
        values["decided_by"] = DecidedBy(values["decided_by"])
    if values["delivery_proof"] is not None:
        values["delivery_proof"] = Proof(values["delivery_proof"])
    return Delivery(**values)


def held_of(row: Sequence[Any]) -> Held:
    """Return the value of a row of `HELD_COLUMNS`."""
    return Held(delivery=delivery_of(row), **dict(zip(_LEASE, row[len(_DELIVERY) :], strict=True)))


def send_of(row: Sequence[Any]) -> Intent[Send]:
    """Return the value of a row of `SEND_COLUMNS`."""
    ordinal, token, *rest = row
    values = dict(zip(_SEND, rest, strict=True))
    values["purpose"] = Purpose(values["purpose"])
    values["outcome"] = Settled(values["outcome"])
    if values["proof"] is not None:
        values["proof"] = Proof(values["proof"])
    return Intent(value=Send(**values), ordinal=ordinal, lease_token=token)


def capture_of(row: Sequence[Any]) -> Intent[Capture]:
    """Return the value of a row of `CAPTURE_COLUMNS`."""
    ordinal, token, *rest = row
    values = dict(zip(_CAPTURE, rest, strict=True))
    values["outcome"] = Settled(values["outcome"])
    return Intent(value=Capture(**values), ordinal=ordinal, lease_token=token)


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the value of a row of `ENTRY_COLUMNS`."""
    values = dict(zip(_ENTRY, row, strict=True))
    return Entry(**(values | {"step": Step(values["step"]), "result": Result(values["result"])}))


def held_values(held: Held) -> dict[str, Any]:
    """Return all columns of a row of `deliveries`."""
    values = {name: getattr(held.delivery, name) for name in _DELIVERY}
    return values | {name: getattr(held, name) for name in _LEASE}


def intent_values(intent: Intent[Any]) -> dict[str, Any]:
    """Return all columns of a row of `sends` or `captures`."""
    names = _SEND if isinstance(intent.value, Send) else _CAPTURE
    values = {name: getattr(intent.value, name) for name in names}
    return values | {"ordinal": intent.ordinal, "lease_token": intent.lease_token}


def entry_values(delivery_id: str, entry: Entry) -> dict[str, Any]:
    """Return the columns of a new row of `history`."""
    return {"delivery_id": delivery_id} | {name: getattr(entry, name) for name in _ENTRY}
