"""Captures at the provider: asked for, carried out at once or later, and what they begin; the customer's payment."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Protocol

from service.delivery import Clock
from service.simulator.billing import GROUPED
from service.simulator.deeds import Turn
from service.simulator.documents import Json, Personality, Refusal, add_event, collection_begun, request_id
from service.simulator.faults import Faults
from service.simulator.rules import check_capture


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSeen:
    """A capture as it was asked for."""

    transaction_id: str
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a capture was answered: with `request_id` it is only accepted, and carried out later."""

    transaction: Json
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Later:
    """A capture that was accepted and is carried out at a time; with `error` it then fails."""

    at: datetime
    seen: CaptureSeen
    request_id: str
    error: Json | None


class House(Protocol):
    """What collecting needs of the provider that does it."""

    clock: Clock
    random: Random
    faults: Faults
    personality: Personality
    transactions: dict[str, Json]
    captures: list[CaptureSeen]
    captures_asked: list[CaptureSeen]

    @property
    def captured(self) -> Callable[[CaptureSeen], None]:
        """Who is told of captures that take effect."""

    @property
    def capture_event(self) -> str:
        """What a capture's own event is called."""

    def transaction(self, transaction_id: str) -> Json:
        """Return a transaction's document."""

    def tell(self, transaction: Json, *, event: Json | None = None) -> None:
        """Tell the merchant of something."""


@dataclass(slots=True, kw_only=True)
class Collecting:
    """What was asked for and is not carried out yet."""

    _later: list[_Later] = field(default_factory=list)

    def ask(self, provider: House, transaction_id: str, body: Any) -> Asked:
        """Capture, at once or, if that is asked for, in another turn of events."""
        transaction = provider.transaction(transaction_id)
        seen = CaptureSeen(transaction_id=transaction_id, body=copy.deepcopy(body))
        provider.captures_asked.append(seen)
        if transaction["payment_product_type"] == GROUPED and "kravia:invoice_number" not in transaction["metadata"]:
            raise Refusal(400, "Transaction can not be captured before it is invoiced")
        check_capture(transaction, body, provider.personality)
        if any(later.seen.transaction_id == transaction_id for later in self._later):
            raise Refusal(409, "Transaction has a capture that is not carried out yet")
        turn = provider.faults.take(Turn, "capture", transaction_id) or Turn()
        if turn.later is None:
            _carry_out(provider, seen, turn.error)
            return Asked(transaction=transaction)
        at, request = provider.clock.now() + timedelta(seconds=turn.later), request_id(provider.random)
        self._later.append(_Later(at=at, seen=seen, request_id=request, error=turn.error))
        return Asked(transaction=transaction, request_id=request)

    def catch_up(self, provider: House) -> None:
        """Carry out what was accepted earlier and is due, unless it was voided or captured otherwise."""
        due = [later for later in self._later if later.at <= provider.clock.now()]
        self._later = [later for later in self._later if later not in due]
        for later in due:
            transaction = provider.transactions[later.seen.transaction_id]
            if transaction["status"] == "AUTHORIZED" and not collection_begun(transaction):
                _carry_out(provider, later.seen, later.error, correlation_request_id=later.request_id)


def _carry_out(provider: House, seen: CaptureSeen, error: Json | None, **about: Any) -> None:
    transaction = provider.transactions[seen.transaction_id]
    if error is not None:
        about |= {"event_reference": seen.body.get("capture_reference"), "success": False, "error": error}
        status, now = transaction["status"], provider.clock.now()
        add_event(
            transaction, provider.capture_event, status, now, provider.random, amount=seen.body["amount"], **about
        )
        return
    provider.captures.append(seen)
    begin(provider, transaction, seen.body, **about)
    provider.captured(seen)


def begin(provider: House, transaction: Json, body: Json, **about: Any) -> None:
    """Begin collection, whoever asked."""
    about |= {
        "event_reference": body.get("capture_reference"),
        "amount": body["amount"],
        "items": body.get("items"),
    }
    status = "AUTHORIZED" if provider.personality == "current" else "CAPTURED"
    event = add_event(transaction, provider.capture_event, status, provider.clock.now(), provider.random, **about)
    provider.tell(transaction, event=event)


def pay(provider: House, transaction_id: str) -> Json:
    """Let the customer pay the invoice; `current` only, and only once collection has begun."""
    transaction = provider.transaction(transaction_id)
    begun = [event for event in transaction["events"] if event["event"] == "INITIATE_CAPTURE" and event["success"]]
    if not begun or transaction["status"] != "AUTHORIZED":
        raise Refusal(400, f"Transaction can not be paid in status {transaction['status']}")
    event = add_event(
        transaction,
        "CAPTURE",
        "CAPTURED",
        provider.clock.now(),
        provider.random,
        amount=transaction["amount"],
        correlation_request_id=begun[-1]["request_id"],
    )
    provider.tell(transaction, event=event)
    return transaction
