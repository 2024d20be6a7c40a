"""The provider itself: sessions, transactions and files, and what may be done with them. No network here."""

import copy
import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal

from service.delivery import Clock
from service.simulator.deeds import Turn
from service.simulator.documents import (
    Json,
    Personality,
    Refusal,
    Start,
    add_event,
    collection_begun,
    instant,
    invalid,
    new_session,
    new_transaction,
    request_id,
    short_id,
    unknown,
)
from service.simulator.faults import Faults
from service.simulator.invoices import Invoice, draw, invoice_of
from service.simulator.keys import Keys
from service.simulator.notices import Notification
from service.simulator.rules import channel_of, check_capture, check_order, check_payment, check_session, inside, page
from service.simulator.webhooks import Webhooks

FileWay = Literal["descriptor", "bytes", "redirect"]
"""How an invoice's URL answers; dintero-api.md section 7 (a), (b) and (c)."""

GROUPED = "kravia.invoice_b2b_grouped"
_OPEN = ("INITIATED", "ON_HOLD", "AUTHORIZED")
_ERRORS = {"FAILED": "failed", "DECLINED": "authorization"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSeen:
    """A capture as it was asked for."""

    transaction_id: str
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that reached the provider or its cdn. Header names are in lower case."""

    endpoint: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]


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


@dataclass(slots=True, kw_only=True)
class _Terms:
    """What a payment was agreed on, kept for a transaction that is authorised later."""

    product_type: str
    days_until_due: int
    channel: str


def _nobody(_: Notification) -> None:
    """Be told, and do nothing."""


def _nobody_captured(_: CaptureSeen) -> None:
    """Be told, and do nothing."""


@dataclass(slots=True, kw_only=True)
class Provider:
    """One account at the payment provider. Everything public may be read and set by tests.

    `base_url` (ending in `/v1`) and `cdn_url` are where `api` serves it. Documents that methods return are the live
    ones: read them, and change them by `edit` only. Methods raise `Refusal` for what the provider would refuse.
    """

    base_url: str
    cdn_url: str
    clock: Clock
    random: Random
    keys: Keys
    personality: Personality = "current"
    notify: Callable[[Notification], None] = _nobody
    captured: Callable[[CaptureSeen], None] = _nobody_captured
    draw: Callable[[Invoice], bytes] = draw
    file_way: FileWay | None = None  # None: as the personality has it
    shows_channel: bool | None = None  # whether metadata states kravia:invoice_channel; None: as the personality has it
    creditor: str = "A1B2C"
    seller: str = "Simulated Shop AS"
    sessions: dict[str, Json] = field(default_factory=dict)
    transactions: dict[str, Json] = field(default_factory=dict)  # oldest first
    profiles: dict[str, Json] = field(default_factory=dict)
    checkout: Json = field(default_factory=lambda: {"configuration": {}})
    files: dict[str, bytes] = field(default_factory=dict)
    file_ways: dict[str, FileWay] = field(default_factory=dict)  # for one file, instead of `file_way`
    file_owners: dict[str, str] = field(default_factory=dict)  # file id: transaction id
    webhooks: Webhooks = field(init=False)
    captures: list[CaptureSeen] = field(default_factory=list)  # those that took effect
    captures_asked: list[CaptureSeen] = field(default_factory=list)  # all of them
    requests: deque[Seen] = field(default_factory=lambda: deque(maxlen=10_000))
    faults: Faults = field(default_factory=lambda: Faults(Random(0)))  # noqa: S311  what goes wrong in a simulation
    _later: list[_Later] = field(default_factory=list)
    _terms: dict[str, _Terms] = field(default_factory=dict)
    _invoices: int = 0

    def __post_init__(self) -> None:
        self.webhooks = Webhooks(clock=self.clock, keys=self.keys)
        seed = self.personality == "seed"
        if self.file_way is None:
            self.file_way = "bytes" if seed else "descriptor"
        if self.shows_channel is None:
            self.shows_channel = not seed

    @property
    def capture_event(self) -> str:
        """What a capture's own event is called."""
        return "INITIATE_CAPTURE" if self.personality == "current" else "CAPTURE"

    # --- paying -------------------------------------------------------------------------------------------------------

    def open_session(self, body: Any, *, profile_required: bool = False) -> Json:
        """Create a session; its link and id are the answer."""
        body = copy.deepcopy(check_session(body))
        order = check_order(body.get("order"))
        profile_id = body.get("profile_id")
        if profile_id is not None and profile_id not in self.profiles and profile_id != "default":
            raise invalid("profile_id is not a profile")
        if profile_required and profile_id is None:
            profile_id = "default"
        session = new_session(self._id(), body, order, profile_id, self.clock.now())
        self.sessions[session["id"]] = session
        return {"id": session["id"], "url": f"{self.base_url}/view/{session['id']}"}

    def authorize(self, session_id: str, body: Any, *, start: Start = "AUTHORIZED") -> Json:
        """Pay a session (the second of two steps) and return what the pay call answers."""
        session = self.session(session_id)
        if "transaction_id" in session or "cancelled_at" in session:
            raise Refusal(400, "Session is completed")
        payment = body.get("payment", body) if isinstance(body, dict) else None
        payment = check_payment(payment, due_required=False)
        kind, _, product = payment["payment_product_type"].partition(".")
        configured = inside(inside(session["configuration"], kind), product) or {}
        return self._authorize(session, {"days_until_due": 14} | configured | payment, start)

    def bill(self, body: Any, *, start: Start = "AUTHORIZED") -> Json:
        """Create and pay a session in one step, without the customer, and return what the call answers."""
        if not isinstance(body, dict):
            raise invalid("a JSON object is required")
        payment = check_payment(body.get("payment"), due_required=True)
        session_id = self.open_session(body.get("session"))["id"]
        session = self.sessions[session_id]
        kind, _, product = payment["payment_product_type"].partition(".")
        stated = {key: value for key, value in payment.items() if key not in ("payment_product_type", "operation")}
        session["configuration"].setdefault(kind, {})[product] = {"type": "payment_product_type", **stated}
        return self._authorize(session, payment, start)

    def _authorize(self, session: Json, payment: Json, start: Start) -> Json:
        transaction = new_transaction(self._id(), session, payment, self.clock.now(), self.random)
        self.transactions[transaction["id"]] = transaction
        session["transaction_id"] = transaction["id"]
        self._terms[transaction["id"]] = self._agree(session, payment)
        self._move(transaction, start)
        return {
            **transaction,
            "session_id": session["id"],
            "success": start not in _ERRORS,
            "actions": [],
        }

    def _agree(self, session: Json, payment: Json) -> _Terms:
        profile = self.profiles.get(session["metadata"].get("session:profile_id", ""), {})
        product_type = payment["payment_product_type"]
        levels = (session["configuration"], profile.get("configuration"), self.checkout.get("configuration"))
        return _Terms(
            product_type=product_type,
            days_until_due=payment.get("days_until_due", 14),
            channel=channel_of(product_type, payment, *levels),
        )

    def _move(self, transaction: Json, status: str) -> None:
        """Take a new or waiting transaction to the status that the payment comes to, and tell the merchant."""
        if status == "AUTHORIZED":
            self._register(transaction)
            self.tell(transaction)
        elif status in _ERRORS:
            error = {"code": "declined", "message": "The customer was not approved"}
            add_event(transaction, "AUTHORIZE", status, self.clock.now(), self.random, success=False, error=error)
            self.tell(transaction, error=_ERRORS[status])
        else:
            transaction["status"] = status
            if status == "ON_HOLD":
                self.tell(transaction)

    def _register(self, transaction: Json) -> None:
        """Authorise: Kravia makes the invoice, and begins to collect if it also delivers it."""
        terms, now = self._terms[transaction["id"]], self.clock.now()
        ours = terms.product_type in ("kravia.invoice_b2b", "kravia.invoice_b2c")
        facts = self._make_invoice(transaction, terms, now) if ours else None
        add_event(
            transaction, "AUTHORIZE", "AUTHORIZED", now, self.random, amount=transaction["amount"], metadata=facts
        )
        if (ours and terms.channel == "kravia") or (terms.product_type == GROUPED and self.personality == "seed"):
            self.begin_collection(transaction, {"amount": transaction["amount"]})

    def _make_invoice(self, transaction: Json, terms: _Terms, now: datetime) -> Json:
        self._invoices += 1
        number = f"{self.creditor}-{self._invoices:06d}"
        due = now.date() + timedelta(days=terms.days_until_due)
        file_id = f"f-{short_id(self.random, 12)}" if self.personality == "seed" else self._file_id(now)
        self.files[file_id] = self.draw(
            invoice_of(transaction, number, now.date(), due, seller=self.seller, account_id=self.keys.account.id)
        )
        self.file_owners[file_id] = transaction["id"]
        transaction["metadata"] |= {
            "kravia:invoice_number": number,
            "kravia:invoice_url": f"{self.base_url}/files/{file_id}",
        }
        if self.shows_channel:
            transaction["metadata"]["kravia:invoice_channel"] = terms.channel
        return {
            "kravia:invoice_number": number,
            "kravia:invoice_date": now.date().isoformat(),
            "kravia:invoice_due_date": due.isoformat(),
            "kravia:creditor_id": "1234",
            "kravia:invoice_id": str(987654 + self._invoices),
        }

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def capture(self, transaction_id: str, body: Any) -> Json:
        """Begin collection of the whole amount, and return the transaction."""
        return self.ask_capture(transaction_id, body).transaction

    def ask_capture(self, transaction_id: str, body: Any) -> Asked:
        """Capture, at once or, if that is asked for, in another turn of events."""
        transaction = self.transaction(transaction_id)
        seen = CaptureSeen(transaction_id=transaction_id, body=copy.deepcopy(body))
        self.captures_asked.append(seen)
        check_capture(transaction, body, self.personality)
        if any(later.seen.transaction_id == transaction_id for later in self._later):
            raise Refusal(409, "Transaction has a capture that is not carried out yet")
        turn = self.faults.take(Turn, "capture", transaction_id) or Turn()
        if turn.later is None:
            self._carry_out(seen, turn.error)
            return Asked(transaction=transaction)
        at, request = self.clock.now() + timedelta(seconds=turn.later), request_id(self.random)
        self._later.append(_Later(at=at, seen=seen, request_id=request, error=turn.error))
        return Asked(transaction=transaction, request_id=request)

    def _carry_out(self, seen: CaptureSeen, error: Json | None, **about: Any) -> None:
        transaction = self.transactions[seen.transaction_id]
        if error is not None:
            about |= {"event_reference": seen.body.get("capture_reference"), "success": False, "error": error}
            status, now = transaction["status"], self.clock.now()
            add_event(transaction, self.capture_event, status, now, self.random, amount=seen.body["amount"], **about)
            return
        self.captures.append(seen)
        self.begin_collection(transaction, seen.body, **about)
        self.captured(seen)

    def _catch_up(self) -> None:
        """Carry out what was accepted earlier and is due, unless it was voided or captured otherwise meanwhile."""
        due = [later for later in self._later if later.at <= self.clock.now()]
        self._later = [later for later in self._later if later not in due]
        for later in due:
            transaction = self.transactions[later.seen.transaction_id]
            if transaction["status"] == "AUTHORIZED" and not collection_begun(transaction):
                self._carry_out(later.seen, later.error, correlation_request_id=later.request_id)

    def begin_collection(self, transaction: Json, body: Json, **about: Any) -> None:
        """Begin collection, whoever asked."""
        about |= {
            "event_reference": body.get("capture_reference"),
            "amount": body["amount"],
            "items": body.get("items"),
        }
        status = "AUTHORIZED" if self.personality == "current" else "CAPTURED"
        event = add_event(transaction, self.capture_event, status, self.clock.now(), self.random, **about)
        self.tell(transaction, event=event)

    def pay(self, transaction_id: str) -> Json:
        """Let the customer pay the invoice; `current` only, and only once collection has begun."""
        transaction = self.transaction(transaction_id)
        begun = [event for event in transaction["events"] if event["event"] == "INITIATE_CAPTURE" and event["success"]]
        if not begun or transaction["status"] != "AUTHORIZED":
            raise Refusal(400, f"Transaction can not be paid in status {transaction['status']}")
        event = add_event(
            transaction,
            "CAPTURE",
            "CAPTURED",
            self.clock.now(),
            self.random,
            amount=transaction["amount"],
            correlation_request_id=begun[-1]["request_id"],
        )
        self.tell(transaction, event=event)
        return transaction

    def void(self, transaction_id: str) -> Json:
        """Take the authorisation back."""
        transaction = self.transaction(transaction_id)
        if transaction["status"] != "AUTHORIZED":
            raise Refusal(400, f"Transaction can not be voided in status {transaction['status']}")
        self._void(transaction)
        return transaction

    def cancel(self, session_id: str) -> Json:
        """Cancel a session; an INITIATED, held or AUTHORIZED transaction of it is voided."""
        session = self.session(session_id)
        transaction = self.transactions.get(session.get("transaction_id", ""))
        if "cancelled_at" in session or (transaction is not None and transaction["status"] not in _OPEN):
            raise Refusal(400, "Session can not be cancelled")
        session |= {"cancelled_at": instant(self.clock.now()), "cancelled_by": self.keys.account.client_id}
        if transaction is None:
            self.notify(Notification(session=session, transaction=None, error="cancelled"))
        else:
            self._void(transaction)
        return session

    def _void(self, transaction: Json) -> None:
        event = add_event(transaction, "VOID", "AUTHORIZATION_VOIDED", self.clock.now(), self.random)
        self.tell(transaction, event=event)

    def hold(self, transaction_id: str) -> None:
        """Put a transaction on hold, as the provider does before it decides."""
        self.edit(transaction_id, lambda transaction: transaction.update(status="ON_HOLD"))

    def release(self, transaction_id: str, status: Start = "AUTHORIZED") -> None:
        """Let a waiting transaction come to its end; the merchant is called."""
        transaction = self.transaction(transaction_id)
        if "kravia:invoice_number" in transaction["metadata"] and status == "AUTHORIZED":
            transaction["status"] = status
            self.tell(transaction)
        else:
            self._move(transaction, status)

    # --- reading ------------------------------------------------------------------------------------------------------

    def session(self, session_id: str) -> Json:
        """Return a session's document."""
        if session_id not in self.sessions:
            raise unknown("Session")
        return self.sessions[session_id]

    def transaction(self, transaction_id: str, *, with_session: bool = False) -> Json:
        """Return a transaction's document; with its session it is a copy of the outermost level."""
        self._catch_up()
        if transaction_id not in self.transactions:
            raise unknown("Transaction")
        transaction = self.transactions[transaction_id]
        if with_session:
            return {**transaction, "session": self.sessions[transaction["session_id"]]}
        return transaction

    def listing(self, query: Mapping[str, Sequence[str]]) -> list[Json]:
        """Return the transactions that a listing's query asks for.

        The order is always the same and means nothing, for the real one is not documented.
        """
        self._catch_up()
        shuffled = sorted(self.transactions.values(), key=lambda t: hashlib.sha256(t["id"].encode()).digest())
        return page(shuffled, query)

    def way_of(self, file_id: str) -> FileWay:
        """Return how this file's URL answers."""
        if file_id not in self.files:
            raise unknown("File")
        return self.file_ways.get(file_id) or self.file_way or "descriptor"

    def descriptor(self, file_id: str) -> Json:
        """Return the JSON that leads to a file."""
        return {
            "id": file_id,
            "name": "invoice.pdf",
            "mime_type": "application/pdf",
            "expires_at": instant(self.clock.now() + timedelta(minutes=10)),
            "url": f"{self.cdn_url}/files/{file_id}",
        }

    # --- for tests ----------------------------------------------------------------------------------------------------

    def edit(self, transaction_id: str, change: Callable[[Json], object]) -> None:
        """Change a transaction's document behind everybody's back."""
        change(self.transaction(transaction_id))

    def file_of(self, transaction_id: str) -> str:
        """Return the id of the file that holds a transaction's invoice."""
        return str(self.transaction(transaction_id)["metadata"]["kravia:invoice_url"]).rpartition("/")[2]

    def document(self, transaction_id: str) -> bytes:
        """Return a transaction's invoice as it would be served."""
        return self.files[self.file_of(transaction_id)]

    def replace_document(self, transaction_id: str, content: bytes) -> None:
        """Serve something else as this transaction's invoice."""
        self.files[self.file_of(transaction_id)] = content

    def begun(self, transaction_id: str) -> bool:
        """Whether collection has begun."""
        return collection_begun(self.transaction(transaction_id))

    def tell(self, transaction: Json, *, event: Json | None = None, error: str | None = None) -> None:
        """Tell the merchant of something, if its URL or a subscription asks for that."""
        session = self.sessions[transaction["session_id"]]
        self.notify(Notification(session=session, transaction=transaction, event=event, error=error))

    # --- small --------------------------------------------------------------------------------------------------------

    def _id(self) -> str:
        return f"{self.keys.account.id}.{short_id(self.random)}"

    def _file_id(self, now: datetime) -> str:
        return f"{self.keys.account.id}.{int(now.timestamp())}.{short_id(self.random, 10)}"
