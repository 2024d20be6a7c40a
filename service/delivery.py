"""The nouns: values that travel between modules, the failures, and the protocols of those the core must not know."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Protocol

PROVIDER_LANE = "provider"
"""The lane of a delivery whose next step needs only the payment provider; any other lane is a channel's name."""


class Outcome(StrEnum):
    """How a delivery stands, as everybody outside sees it."""

    OPEN = "open"  # something is still to be done, and it has a due time
    COMPLETED = "completed"  # delivered, and collection started
    SKIPPED = "skipped"  # not ours to deliver
    CANCELLED = "cancelled"  # voided, declined or failed at the provider, or stopped by an operator
    FAILED = "failed"  # needs a person


class Kind(StrEnum):
    """What a delivery delivers."""

    INVOICE = "invoice"  # one transaction's own invoice
    GROUPED = "grouped"  # one consolidated invoice of many transactions


class DecidedBy(StrEnum):
    """The level of configuration that said who delivers; the first that says anything wins, in this order."""

    TRANSACTION = "transaction"
    SESSION = "session"
    PROFILE = "profile"
    CHECKOUT = "checkout"
    SETTING = "setting"


class Proof(StrEnum):
    """What "delivered" rests on."""

    RELAY = "accepted_by_relay"
    REPORT = "confirmed_by_report"
    PERSON = "stated_by_person"


class Step(StrEnum):
    """What an entry of the history is about."""

    RECEIVE = "receive"
    FETCH = "fetch"
    DELIVER = "deliver"
    CAPTURE = "capture"
    CLOSE = "close"
    OPERATOR = "operator"
    RECEIPT = "receipt"
    RECONCILE = "reconcile"


class Result(StrEnum):
    """How an entry of the history ended."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DEFERRED = "deferred"
    UNCONFIRMED = "unconfirmed"
    SKIPPED = "skipped"


class Purpose(StrEnum):
    """Why a message is sent."""

    FIRST = "first"
    REPEAT = "repeat"  # the same bytes again after a send whose outcome is unknown
    RESEND = "resend"  # once more because an operator asked


class Settled(StrEnum):
    """How an intent (a send or a capture) ended; `OPEN` is an intent whose outcome nobody has written yet."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCONFIRMED = "unconfirmed"
    PENDING = "pending"  # captures only: the provider answered 202 and will say later
    SKIPPED = "skipped"  # sends only: closed because another channel succeeded


class CaptureOrder(StrEnum):
    """Which effect comes first."""

    AFTER_DELIVERY = "after_delivery"
    BEFORE_DELIVERY = "before_delivery"


class Standing(StrEnum):
    """A transaction's status, in words that no provider owns."""

    INITIATED = "initiated"  # the customer has not finished
    HELD = "held"  # the provider is still looking
    AUTHORIZED = "authorized"  # there is something to deliver; collection may have begun or not
    VOIDED = "voided"
    DECLINED = "declined"
    FAILED = "failed"
    REFUNDED = "refunded"
    UNKNOWN = "unknown"


# --- the provider's documents, as values -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Who is billed. Every field may be missing; `country` is ISO 3166-1 alpha-2 in upper case."""

    first_name: str | None = None
    last_name: str | None = None
    business_name: str | None = None
    organization_number: str | None = None
    email: str | None = None
    phone_number: str | None = None
    country: str | None = None
    customer_reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One order line. `amount` is in minor units, VAT included, net of discounts; None where it was not an integer."""

    line_id: str | None
    amount: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureEvent:
    """One event of a transaction that is about capturing it, successful or not."""

    id: str | None
    reference: str | None  # the capture_reference of whoever asked
    request_id: str | None
    answers: str | None  # the request id of the earlier event or request that this one completes
    initiates: bool  # INITIATE_CAPTURE, not CAPTURE
    success: bool
    amount: int | None
    at: datetime | None
    error: str | None = None  # scrubbed
    retry_after: float | None = None  # seconds, where the provider named them
    retryable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Where the collection of a transaction's money stands; design.md, "Collection"."""

    begun: bool = False
    begun_at: datetime | None = None  # by the provider's clock; None when begun but undated
    paid: bool = False  # a successful CAPTURE followed an INITIATE_CAPTURE
    partial: int | None = None  # minor units that somebody captured of a transaction that is PARTIALLY_CAPTURED unasked
    events: tuple[CaptureEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFinding:
    """What one level of configuration says about who delivers: `merchant`, `kravia`, or a word we do not know."""

    level: DecidedBy
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A transaction as it was read; only what the service needs, the rest is dropped where it is parsed."""

    id: str
    standing: Standing
    status: str  # the provider's own word
    product: str  # "kravia"
    product_type: str  # "kravia.invoice_b2b"
    amount: int | None  # minor units, VAT included; None when missing or not an integer
    currency: str | None  # ISO 4217
    read_at: datetime  # by our clock
    vat_amount: int | None = None  # minor units, only where the provider gives it
    merchant_reference: str | None = None
    session_id: str | None = None
    profile_id: str | None = None
    created_at: datetime | None = None
    invoice_number: str | None = None
    invoice_url: str | None = None
    invoice_date: date | None = None
    due_date: date | None = None
    payment_reference: str | None = None
    billing: Party | None = None
    customer: Party | None = None
    lines: tuple[Line, ...] = ()
    shipping: Line | None = None  # the shipping option, whether or not its line is among `lines`
    voided_at: datetime | None = None
    collection: Collection = field(default_factory=Collection)
    findings: tuple[ChannelFinding, ...] = ()  # what the transaction and its session say, most specific first


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Who delivers, and which level said so."""

    channel: str
    decided_by: DecidedBy


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelDefault:
    """INVOICE_CHANNEL: who delivers when nothing at the provider says; `default` never applies to a grouped product."""

    default: str | None = None
    by_product: tuple[tuple[str, str], ...] = ()  # ("kravia.invoice_b2b", "merchant")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRequest:
    """What is asked of the provider. No lines: by amount alone, and `note` says why."""

    transaction_id: str
    reference: str
    amount: int
    lines: tuple[Line, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureAnswer:
    """A 200 carries the transaction (its events say whether it worked), a 202 the id of the request to wait for."""

    transaction: Transaction | None = None
    event_request_id: str | None = None


# --- messages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """A display name (may be empty) and an address."""

    name: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Brand:
    """How the merchant shows itself. `color` is `#rrggbb`; `logo` is PNG bytes."""

    name: str
    color: str = "#1f3a5f"
    logo: bytes | None = None
    organization_number: str | None = None
    support_email: str | None = None
    support_phone: str | None = None
    website: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Where one message goes. `key` and `masked` are what the record may hold of `address`."""

    address: str
    key: str
    masked: str
    redirected_from: str | None = None  # masked; set when REDIRECT_TO sends the message elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture inside an HTML message, referred to as `cid:<cid>`."""

    cid: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A rendered message: plain text, and for mail also HTML with its images. `locale` is a language tag (`nb`)."""

    locale: str
    subject: str
    text: str
    html: str | None = None
    images: tuple[Image, ...] = ()
    document_name: str = "invoice.pdf"  # ASCII


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What makes a send itself: the same intent gives the same bytes, however often it is composed.

    `key` is a hex digest of delivery, round, channel and recipient; Message-ID and MIME boundaries derive from it, the
    Date from `dated`.
    """

    key: str
    dated: datetime
    purpose: Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A message ready for the wire. `sha256` is the hex digest of all that the recipient will get."""

    recipient: Recipient
    message_id: str
    content: bytes
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """An accepted send. `answer` is the other side's reply, scrubbed."""

    answer: str
    proof: Proof = Proof.RELAY


# --- the record ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A row of `deliveries`: one document to deliver, and how far it is.

    Monotonic facts (`delivered_at`, `captured_at`, `voided_at` and what belongs to them) are merged by the store and
    never taken back; everything else belongs to whoever holds the lease.
    """

    id: str
    account_id: str
    transaction_id: str
    received_at: datetime
    kind: Kind = Kind.INVOICE
    outcome: Outcome = Outcome.OPEN
    reason: str | None = None  # one line, scrubbed
    lane: str = PROVIDER_LANE
    due_at: datetime | None = (
        None  # by the database's clock; a closed delivery may have one: it is looked at again then
    )
    no_send_before: datetime | None = None  # by the database's clock
    attempt: int = 0  # sends begun
    claims: int = 0  # claims since the last save, this one included
    errors: int = 0  # unexpected exceptions since the last progress
    postponed: int = 0  # postponements in a row: the place in the retry schedule
    bad_documents: int = 0  # documents in a row that would not do
    round: int = 0  # raised by each resend; a round is delivered when one of its sends is accepted
    send_to: str | None = None  # an address given with `resend --to`, kept until its round is delivered or stopped
    closed_waiting: bool = False  # closed while there was nothing yet to deliver: a callback reopens it
    patience_used: float = 0.0  # seconds that the give-up clock has run
    patience_since: datetime | None = None  # when it was last set going; None while it stands still
    decided_by: DecidedBy | None = None
    product_type: str | None = None
    invoice_number: str | None = None
    merchant_reference: str | None = None
    amount: int | None = None
    currency: str | None = None
    channel: str | None = None
    recipient: str | None = None  # masked
    recipient_key: str | None = None
    delivered_at: datetime | None = None
    delivery_proof: Proof | None = None
    captured_at: datetime | None = None  # when collection started, by the provider's clock
    captured_known_at: datetime | None = None  # when we learned it
    voided_at: datetime | None = None
    closed_at: datetime | None = None

    @property
    def progress(self) -> tuple[str, ...]:
        """What is done, out of `delivered` and `captured`, in the order in which it became known."""
        known = [(self.delivered_at, 0, "delivered"), (self.captured_known_at, 1, "captured")]
        return tuple(name for at, _, name in sorted((at, i, name) for at, i, name in known if at is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A row of `sends`: one intent to reach one recipient over one channel. `id` is unique in the whole store."""

    id: str
    delivery_id: str
    round: int
    channel: str
    recipient: str  # masked
    recipient_key: str
    purpose: Purpose
    key: str  # of the intent; repeats share it
    dated: datetime  # the Date of the message; repeats share it
    message_id: str
    sha256: str
    begun_at: datetime  # by the database's clock; on the way in it is ignored
    outcome: Settled = Settled.OPEN
    answer: str | None = None  # scrubbed
    proof: Proof | None = None
    settled_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A row of `captures`: one intent to capture one transaction. `id` is unique in the whole store."""

    id: str
    delivery_id: str
    transaction_id: str
    reference: str
    amount: int
    begun_at: datetime  # by the database's clock; on the way in it is ignored
    outcome: Settled = Settled.OPEN
    event_request_id: str | None = None  # of a 202
    event_id: str | None = None  # the provider's event that answered
    detail: str | None = None  # scrubbed
    settled_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of `history`, append-only. `detail` is scrubbed."""

    at: datetime
    step: Step
    result: Result
    channel: str | None = None
    detail: str | None = None
    message_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that is this process's until its lease ends, with all that is known of its effects."""

    delivery: Delivery
    token: str
    wakes: int  # wake-ups seen; one that comes later makes the save due at once
    now: datetime  # the database's clock at the claim
    woken: bool = False  # it is looked at because something woke it, not because its own time came
    sends: tuple[Send, ...] = ()  # oldest first
    captures: tuple[Capture, ...] = ()  # oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When the delivery is looked at next, in seconds from the database's now; None is never."""

    due_in: float | None
    no_send_for: float | None = None  # None leaves `no_send_before` as it is in the delivery that is saved


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A callback that was found authentic. Only the id is taken from it."""

    transaction_id: str
    account_id: str
    at: datetime
    event: bool = False  # it reports an event (a capture, a void), so a completed delivery is looked at again
    source: str = "callback"  # what the history says of where it came from


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRequest:
    """What the signature of a callback covers, as it came over the wire; host and path are the public URL's."""

    method: str
    raw_query: str  # without "?", undecoded: the bytes of the request line as latin-1
    signature: str | None  # the header; several are joined with commas


class Received(StrEnum):
    """What an arrival did to the record; also the `result` label of the callbacks metric."""

    NEW = "new"
    WOKEN = "woken"
    REOPENED = "reopened"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an operator asks of one delivery. `to` is for a resend only."""

    by: str
    at: datetime
    reason: str | None = None
    to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Figures for `/metrics` and `/readyz`."""

    outcomes: tuple[tuple[Outcome, int], ...]
    due: int
    overdue: int  # due for more than five minutes
    oldest_open_age: float | None  # seconds since the oldest open delivery was received


# --- what can go wrong -----------------------------------------------------------------------------------------------


class DeliveryFailure(Exception):
    """The root of what adapters raise. `reason` is one line for a person, already scrubbed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TransientFailure(DeliveryFailure):
    """Refused for now; nothing took effect. `retry_after` (seconds) lengthens our delay and never shortens it."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class BadDocument(TransientFailure):
    """The document will not do; it is fetched again along the schedule, once through, and then a person is needed."""


class PermanentFailure(DeliveryFailure):
    """Refused for good; nothing took effect."""


class UnconfirmedFailure(DeliveryFailure):
    """The effect may or may not have happened: it was handed over, and the answer was lost."""


class AccountFailure(TransientFailure):
    """Our own account, password, network or standing is at fault, not this delivery."""


class StoreUnavailable(Exception):
    """The store cannot answer or commit just now; nothing was written."""


class CommitInDoubt(StoreUnavailable):
    """The connection broke while a commit was under way: it may have been written."""


class LeaseLost(Exception):
    """The delivery is no longer this process's: no new effect may begin and nothing of its schedule was saved."""


class IntentOpen(Exception):
    """There is an open intent for this document, recipient and channel (or transaction): no second one may begin."""


class AlreadySent(Exception):
    """A send of this round was accepted meanwhile: nothing more is to be sent."""


class CallbackRefused(Exception):
    """A callback that is not taken. `reason` is a constant word that may be counted and logged."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Forged(CallbackRefused):
    """Missing or wrong signature."""


class Stale(CallbackRefused):
    """Authentic, but outside the tolerance."""


class Unusable(CallbackRefused):
    """Authentic and fresh, but without a usable transaction id."""


# --- those who answer ------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """The process's time. `offset` shifts the database's clock with it: zero but in tests."""

    @property
    def offset(self) -> timedelta:
        """How far this clock (and the database's, for the store adds it) is from the machine's."""

    def now(self) -> datetime:
        """Return the aware UTC time."""

    def monotonic(self) -> float:
        """Return seconds that only ever go forward, for durations."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Payments(Protocol):
    """The payment provider. Every method raises `TransientFailure`, `PermanentFailure` or `AccountFailure`."""

    async def read(self, transaction_id: str) -> Transaction:
        """Return the transaction as it is now, with what its session says of who delivers."""

    async def resolve(self, transaction: Transaction) -> Resolution:
        """Return who delivers this transaction's invoice, and which level decided it."""

    async def invoice(self, url: str) -> bytes:
        """Return the invoice document behind `url`; raises `BadDocument` when it is none, at most MAX_PDF_BYTES."""

    async def capture(self, request: CaptureRequest) -> CaptureAnswer:
        """Capture; also raises `UnconfirmedFailure`. A 400, 404 or 409 is a `PermanentFailure`: read, then decide."""


class Channel(Protocol):
    """One way to reach a customer."""

    name: str
    template: str  # the folder of templates it is rendered from: `mail`, `sms`

    def recipient(self, transaction: Transaction, *, to: str | None = None) -> Recipient:
        """Return where this transaction's message goes (`to`: an operator's own address); raises `PermanentFailure`."""

    def compose(self, message: Message, document: bytes, recipient: Recipient, intent: Intent) -> Composed:
        """Return the bytes for the wire; a pure function, so that a repeat is the same to the last byte."""

    async def send(self, composed: Composed) -> Receipt:
        """Hand it over; raises `TransientFailure`, `PermanentFailure`, `UnconfirmedFailure` or `AccountFailure`."""

    async def check(self) -> str:
        """Try the settings for real without sending anything; return a line on what was found, or raise as `send`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelContext:
    """What the factory of an outside adapter is given.

    `environ` holds the DELIVERY_* settings that are not the service's, with their full names. With REDIRECT_TO, every
    message goes to `redirect_email` or `redirect_phone` instead, and its `Recipient.redirected_from` says so.
    """

    account_id: str
    clock: Clock
    environ: tuple[tuple[str, str], ...]
    redirect_email: str | None = None
    redirect_phone: str | None = None


class Renderer(Protocol):
    """Turns a transaction into a message; a pure function of its arguments, the templates and the brand."""

    def render(self, template: str, transaction: Transaction, *, purpose: Purpose, recipient: Recipient) -> Message:
        """Return the message in the reader's language; raises `PermanentFailure` naming what could not be rendered.

        The language is that of the billing country; `Purpose.RESEND` is a copy and says so, `REPEAT` reads as `FIRST`.
        """


class Inspector(Protocol):
    """Looks into documents where a hostile one can do no harm."""

    async def inspect(self, document: bytes) -> int:
        """Return the number of pages of a PDF; raises `BadDocument` when it cannot be opened, is encrypted or empty."""


class Store(Protocol):
    """The record, which is also the queue. Every method raises `StoreUnavailable` when it cannot answer.

    Times on the way in are the process's; leases, `due_at` and `no_send_before` go by the database's clock. A method
    that takes a `Claim` is fenced by its token and raises `LeaseLost`; the others may be called late or twice.
    """

    async def receive(self, arrival: Arrival) -> Received:
        """Commit an arrival: enter an unknown transaction, wake an open delivery, reopen one that was skipped."""

    async def claim(self, account_id: str, lane: str, limit: int, *, lease: float, suspects: bool) -> tuple[Claim, ...]:
        """Take up to `limit` due deliveries of a lane for `lease` seconds; `suspects`: those claimed but not saved."""

    async def adopt(self, account_id: str, lanes: Sequence[str]) -> int:
        """Give what waits in a lane not among `lanes` (its channel is gone) to the provider's; return how many."""

    async def renew(self, claims: Sequence[Claim], *, lease: float) -> frozenset[str]:
        """Extend the leases; return the tokens of those that are still held."""

    async def save(self, claim: Claim, delivery: Delivery, schedule: Schedule, entries: Sequence[Entry] = ()) -> None:
        """Write the state of the work and give the lease back.

        A wake-up since the claim makes an open one due now, and opens again what `receive` would have.
        """

    async def begin_send(self, claim: Claim, send: Send) -> None:
        """Commit the intent and count the attempt.

        Raises `AlreadySent` when a send of its round was accepted meanwhile, `IntentOpen`, and `CommitInDoubt` when it
        is not sure that the intent is written.
        """

    async def settle_send(self, send: Send, entries: Sequence[Entry]) -> None:
        """Write the outcome of a send. Never fenced: an accepted one makes its delivery delivered.

        Told late (its lease was given back or lost), it also wakes an open delivery, opens one again that had failed or
        was skipped, and adds to the reason of a cancelled one that the customer has the invoice.
        """

    async def begin_capture(self, claim: Claim, capture: Capture) -> None:
        """Commit the intent to capture; raises `IntentOpen`, and `CommitInDoubt` when that is not sure."""

    async def settle_capture(
        self, capture: Capture, entries: Sequence[Entry], *, began_at: datetime | None = None
    ) -> None:
        """Write the outcome of a capture. Never fenced; `began_at` makes its delivery captured then.

        Told late, it wakes and opens again as `settle_send` does.
        """

    async def retry(self, delivery_id: str, request: Request) -> Delivery:
        """Make the next step due now, with a new give-up clock; reopens what is closed. Raises `KeyError`."""

    async def resend(self, delivery_id: str, request: Request) -> Delivery:
        """Ask for one more delivery on purpose; reopens what is closed. Raises `KeyError`."""

    async def cancel(self, delivery_id: str, request: Request) -> Delivery:
        """Stop: nothing more is begun. Raises `KeyError`."""

    async def find(self, reference: str) -> tuple[Delivery, ...]:
        """Return the deliveries with this id, transaction id, invoice number or merchant reference, newest first."""

    async def listing(self, *, outcomes: Sequence[Outcome] = (), limit: int | None = None) -> tuple[Delivery, ...]:
        """Return deliveries, newest first; of any outcome when none is named."""

    async def history(self, delivery_id: str) -> tuple[Entry, ...]:
        """Return what happened, oldest first."""

    async def sends(self, delivery_id: str) -> tuple[Send, ...]:
        """Return the sends of a delivery, oldest first."""

    async def captures(self, delivery_id: str) -> tuple[Capture, ...]:
        """Return the captures of a delivery, oldest first."""

    async def counts(self) -> Counts:
        """Return the figures for `/metrics`."""

    async def ping(self) -> None:
        """Return if the store answers and can commit."""
