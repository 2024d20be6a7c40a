"""The provider itself: sessions, transactions and files, and what may be done with them. No network here."""

import copy
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal

from service.delivery import Clock
from service.simulator.billing import GROUPED, Bill, Billing, Group, Terms
from service.simulator.collecting import Asked, CaptureSeen, Collecting, begin, pay
from service.simulator.deeds import Payment
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
    short_id,
    unknown,
)
from service.simulator.faults import Faults
from service.simulator.invoices import Invoice, draw, invoice_of
from service.simulator.keys import Keys
from service.simulator.notices import Notification
from service.simulator.rules import check_order, check_payment, check_session, page
from service.simulator.sales import grouped_sale
from service.simulator.sessions import agreed, check_configuration, check_toggles, state_payment
from service.simulator.webhooks import Webhooks

FileWay = Literal["descriptor", "bytes", "redirect"]
"""How an invoice's URL answers; dintero-api.md section 7 (a), (b) and (c)."""

_OPEN = ("INITIATED", "ON_HOLD", "AUTHORIZED")
_ERRORS = {"FAILED": "failed", "DECLINED": "authorization"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that reached the provider or its cdn. Header names are in lower case."""

    endpoint: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]


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
    billing: Billing = field(default_factory=Billing)
    terms: dict[str, Terms] = field(default_factory=dict)  # transaction id: what its payment was agreed on
    _collecting: Collecting = field(default_factory=Collecting)
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

    def open_session(self, body: Any, *, profile_required: bool = False, toggles: Collection[str] = ()) -> Json:
        """Create a session; its link and id are the answer. `toggles` are those of the request's header."""
        body = copy.deepcopy(check_session(body))
        order = check_order(body.get("order"))
        check_toggles(toggles, order, self.sessions, self.transactions)
        body["configuration"] = check_configuration(body.get("configuration") or {})
        profile_id = body.get("profile_id")
        if profile_id is not None and profile_id not in self.profiles and profile_id != "default":
            raise invalid("profile_id is not a profile")
        if profile_required and profile_id is None:
            profile_id = "default"
        session = new_session(self._id(), body, order, profile_id, self.clock.now())
        self.sessions[session["id"]] = session
        return {"id": session["id"], "url": f"{self.base_url}/view/{session['id']}"}

    def authorize(self, session_id: str, body: Any, *, start: Start = "AUTHORIZED", at: datetime | None = None) -> Json:
        """Pay a session (the second of two steps) and return what the pay call answers. `at` is when; None: now."""
        session = self.session(session_id)
        if "transaction_id" in session or "cancelled_at" in session:
            raise Refusal(400, "Session is completed")
        payment = body.get("payment", body) if isinstance(body, dict) else None
        return self._authorize(session, check_payment(payment, due_required=False), start, at)

    def bill(
        self, body: Any, *, start: Start = "AUTHORIZED", at: datetime | None = None, toggles: Collection[str] = ()
    ) -> Json:
        """Create and pay a session in one step, without the customer, and return what the call answers."""
        if not isinstance(body, dict):
            raise invalid("a JSON object is required")
        payment = check_payment(body.get("payment"), due_required=True)
        session = self.sessions[self.open_session(body.get("session"), toggles=toggles)["id"]]
        state_payment(session, payment)
        return self._authorize(session, payment, start, at)

    def sell(self, *, at: datetime | None = None, start: Start = "AUTHORIZED", **wanted: Any) -> Json:
        """Make a grouped purchase, `at` a time (None: now), as `sales.grouped_sale` has it, and return it."""
        wanted.setdefault("reference", f"purchase-{len(self.transactions) + 1}")
        sold = self.bill(grouped_sale(**wanted), start=start, at=at)
        return self.transactions[sold["id"]]

    def _authorize(self, session: Json, payment: Json, start: Start, at: datetime | None) -> Json:
        wanted = self.faults.take(Payment, "paying", session["order"].get("merchant_reference") or "")
        start = wanted.status if wanted is not None else start
        now = at or self.clock.now()
        transaction = new_transaction(self._id(), session, payment, now, self.random)
        self.transactions[transaction["id"]] = transaction
        session["transaction_id"] = transaction["id"]
        self.terms[transaction["id"]] = self._agree(session, payment, now)
        self._move(transaction, start, now)
        return {
            **transaction,
            "session_id": session["id"],
            "success": start not in _ERRORS,
            "actions": [],
        }

    def _agree(self, session: Json, payment: Json, at: datetime) -> Terms:
        profile = self.profiles.get(session["metadata"].get("session:profile_id", ""), {})
        levels = (session["configuration"], profile.get("configuration"), self.checkout.get("configuration"))
        terms = agreed(payment, *levels)
        counted = self.billing.counted(at, terms["interval"], self.clock.now())
        return Terms(product_type=payment["payment_product_type"], counted_at=counted, **terms)

    def _move(self, transaction: Json, status: str, at: datetime | None = None) -> None:
        """Take a new or waiting transaction to the status that the payment comes to, and tell the merchant."""
        if status == "AUTHORIZED":
            self._register(transaction, at or self.clock.now())
            self.tell(transaction)
        elif status in _ERRORS:
            error = {"code": "declined", "message": "The customer was not approved"}
            add_event(transaction, "AUTHORIZE", status, self.clock.now(), self.random, success=False, error=error)
            self.tell(transaction, error=_ERRORS[status])
        else:
            transaction["status"] = status
            if status == "ON_HOLD":
                self.tell(transaction)

    def _register(self, transaction: Json, now: datetime) -> None:
        """Authorise: Kravia makes the invoice, unless it groups it, and begins to collect if it also delivers it."""
        terms = self.terms[transaction["id"]]
        ours = terms.product_type in ("kravia.invoice_b2b", "kravia.invoice_b2c")
        facts = self._make_invoice(transaction, terms, now) if ours else None
        add_event(
            transaction, "AUTHORIZE", "AUTHORIZED", now, self.random, amount=transaction["amount"], metadata=facts
        )
        if (ours and terms.channel == "kravia") or (terms.product_type == GROUPED and self.personality == "seed"):
            self.begin_collection(transaction, {"amount": transaction["amount"]})

    def _make_invoice(self, transaction: Json, terms: Terms, now: datetime) -> Json:
        number = self.next_number()
        due = now.date() + timedelta(days=terms.days_until_due)
        invoice = invoice_of(transaction, number, now.date(), due, seller=self.seller, account_id=self.account_id)
        transaction["metadata"] |= {
            "kravia:invoice_number": number,
            "kravia:invoice_url": self.publish(invoice, transaction["id"]),
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

    # --- grouped bills ------------------------------------------------------------------------------------------------

    @property
    def account_id(self) -> str:
        """The account's id."""
        return self.keys.account.id

    def next_number(self) -> str:
        """Return a new invoice's number."""
        self._invoices += 1
        return f"{self.creditor}-{self._invoices:06d}"

    def publish(self, invoice: Invoice, owner: str) -> str:
        """Draw an invoice, keep it as a file of this transaction, and return its URL."""
        seed = self.personality == "seed"
        file_id = f"f-{short_id(self.random, 12)}" if seed else self._file_id(self.clock.now())
        self.files[file_id] = self.draw(invoice)
        self.file_owners[file_id] = owner
        return f"{self.base_url}/files/{file_id}"

    def bill_due(self) -> list[Bill]:
        """Bill the groups whose issue date has come by the clock; reading does it too, unless `billing` says not to."""
        return self.billing.run(self)

    def forecast(self) -> dict[Group, list[Json]]:
        """Return the purchases that are not billed yet, by group."""
        return self.billing.due(self.transactions, self.terms)

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def capture(self, transaction_id: str, body: Any) -> Json:
        """Begin collection of the whole amount, and return the transaction."""
        return self.ask_capture(transaction_id, body).transaction

    def ask_capture(self, transaction_id: str, body: Any) -> Asked:
        """Capture, at once or, if that is asked for, in another turn of events."""
        return self._collecting.ask(self, transaction_id, body)

    def begin_collection(self, transaction: Json, body: Json, **about: Any) -> None:
        """Begin collection, whoever asked."""
        begin(self, transaction, body, **about)

    def pay(self, transaction_id: str) -> Json:
        """Let the customer pay the invoice; `current` only, and only once collection has begun."""
        return pay(self, transaction_id)

    def _catch_up(self) -> None:
        """Carry out what was accepted earlier and is due; bill groups."""
        self._collecting.catch_up(self)
        if self.billing.by_itself:
            self.bill_due()

    def void(self, transaction_id: str) -> Json:
        """Take the authorisation back."""
        transaction = self.transaction(transaction_id)
        if transaction["status"] != "AUTHORIZED":
            raise Refusal(400, f"Transaction can not be voided in status {transaction['status']}")
        self.take_back(transaction)
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
            self.take_back(transaction)
        return session

    def take_back(self, transaction: Json) -> None:
        """Void an authorisation, whoever asked."""
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
