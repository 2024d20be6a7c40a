"""The nouns: values that travel between modules, the failures, and the protocols of those the core must not know."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

PROVIDER_LANE = "provider"
"""The lane of a delivery whose next step needs only the payment provider; any other lane is a channel's name."""
RECONCILE = "reconcile"
"""The source of an arrival that nobody notified us of."""
HELD = "held:"
"""How the reason begins of what failed only because a person has to release it."""
NOT_BILLED = "not billed"
"""How the remark begins on a grouped purchase whose invoice has not come."""
HAD_IT = "after the customer had the invoice"
"""In the reason of what was called off at the provider when the customer had the invoice, or may have."""

NOTICE_ROUND = -1
"""The round of a send that is a notice of a purchase: no round of a delivery, so it never counts as delivering one."""
CANCELLED_ROUND = -2
"""The round of a send that tells that an invoice was cancelled; it counts as little."""
COURTESY_ROUND = -3
"""The round of a copy beside the real message (`Route.courtesy`); it counts as little."""

LISTED_AT_ONCE = 100
"""How many transactions a page of `Payments.list_created` holds; a shorter one is the last."""


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
    PURCHASE = "purchase"  # one of the transactions that such an invoice is made of; it is captured, and not sent


class Interval(StrEnum):
    """How long purchases gather before they are billed as one invoice: a calendar month, or a quarter of the year."""

    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


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
    NOTICE = "notice"  # of a purchase that will be billed with others; it delivers no invoice
    CANCELLED = "cancelled"  # tells that an invoice was cancelled after the customer had it
    COURTESY = "courtesy"  # a copy by another channel beside the one that counts


BESIDE = frozenset({Purpose.CANCELLED, Purpose.COURTESY})
"""Why a message is sent beside the one that counts."""


class Settled(StrEnum):
    """How an intent (a send or a capture) ended; `OPEN` is an intent whose outcome nobody has written yet."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCONFIRMED = "unconfirmed"
    PENDING = "pending"  # captures only: the provider answered 202 and will say later
    BOUNCED = "bounced"  # sends only: accepted, and reported later as never delivered


class Guarantee(StrEnum):
    """What a channel can promise when the same message is handed over again because the answer was lost."""

    IDEMPOTENT = "idempotent"  # the other side knows the intent's key and takes it once: repeated as if refused for now
    AT_LEAST_ONCE = "at_least_once"  # it may arrive twice: repeated as often as UNCONFIRMED_RETRIES says
    AT_MOST_ONCE = "at_most_once"  # it may arrive twice, and must not: never repeated but by a person


class Fate(StrEnum):
    """What a delivery report says became of a message that was accepted."""

    DELIVERED = "delivered"
    FAILED = "failed"  # for good: bounced, rejected, expired
    DEFERRED = "deferred"  # still on its way; noted and nothing else
    UNKNOWN = "unknown"  # the other side is done with it and does not know


class Reported(StrEnum):
    """What a report did to the record; also the `result` label of the reports metric."""

    RECORDED = "recorded"
    BOUNCED = "bounced"  # recorded, and its delivery is open again
    DUPLICATE = "duplicate"
    UNMATCHED = "unmatched"  # kept: the send that it is about may not have been written yet


class ContentGate(StrEnum):
    """What becomes of an invoice whose document contradicts the transaction, or cannot be read."""

    HOLD = "hold"
    WARN = "warn"
    OFF = "off"


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
    description: str | None = None  # as the order has it: anybody may have typed it
    quantity: Decimal | None = None  # above zero


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
    where: str = field(default="", compare=False)  # the member of the document that says it


class Term(StrEnum):
    """What else of a grouped invoice is decided level by level, from the session on."""

    INTERVAL = "invoice_schedule.interval"
    DAYS_UNTIL_DUE = "days_until_due"


@dataclass(frozen=True, slots=True, kw_only=True)
class TermFinding:
    """What a transaction's session says of one of the terms of a grouped invoice."""

    term: Term
    value: str
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What one level of configuration says of one question, and whether it decides; None: it says nothing.

    `name` is a `DecidedBy`, or `BUILT_IN` for what holds when no level says anything. `where` is for people: the member
    of the document that says it, or why nothing is known of it.
    """

    name: str
    value: str | None
    where: str
    won: bool = False
    unread: bool = False  # nobody has looked, or it could not be read: it may say something all the same


BUILT_IN = "default"
"""The last `Level`, which nobody configured."""


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
    purchased_at: datetime | None = None  # of the successful AUTHORIZE event, else `created_at`
    term_findings: tuple[TermFinding, ...] = ()  # of a grouped product: what its session says

    @property
    def missing_shipping(self) -> Line | None:
        """The shipping option when it is exactly what the lines fall short by, and is not among them."""
        amounts = [line.amount for line in self.lines if line.amount is not None]
        if self.shipping is None or self.amount is None or len(amounts) != len(self.lines):
            return None
        short = self.amount - sum(amounts)
        if short == 0 or self.shipping.amount != short:
            return None
        own = self.shipping.line_id
        return self.shipping if own is None or own not in {line.line_id for line in self.lines} else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """When a grouped purchase is billed, when that is to be paid (calendar days), and which levels said so."""

    interval: Interval = Interval.MONTHLY
    interval_from: DecidedBy = DecidedBy.SETTING
    days_until_due: int = 14
    days_from: DecidedBy = DecidedBy.SETTING


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Who delivers, and which level said so. `terms` are those of a grouped product, None of any other."""

    channel: str
    decided_by: DecidedBy
    terms: Terms | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Every level that says, or could say, who delivers a product's invoice, most specific first; terms if grouped."""

    product_type: str
    channel: tuple[Level, ...]
    interval: tuple[Level, ...] = ()
    days_until_due: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelDefault:
    """INVOICE_CHANNEL: who delivers when nothing at the provider says; `default` never applies to a grouped product."""

    default: str | None = None
    by_product: tuple[tuple[str, str], ...] = ()  # ("kravia.invoice_b2b", "merchant")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAddresses:
    """GROUP_ADDRESSES: where an organisation's consolidated invoices go, whatever its purchases say.

    Keys are the digits of organisation numbers, with the country before them (`NO923456789`) or without.
    """

    by_organization: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def of(self, country: str | None, organization_number: str | None) -> str | None:
        """Return the address of an organisation, that under its number with the country before one without."""
        digits = "".join(letter for letter in organization_number or "" if letter.isascii() and letter.isdecimal())
        known = dict(self.by_organization)
        return known.get(f"{country or ''}{digits}") or known.get(digits)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A webhook of the provider's account: where it calls, and about which events."""

    id: str
    url: str
    events: tuple[str, ...]
    active: bool = True


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
    logo_dark: bytes | None = None  # for dark screens; without it the logo stands on a light plate there
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
    """A rendered message: plain text, and for mail also HTML with its images. `locale` is a language tag (`nb`).

    For a channel without templates the words are empty, and `about` is what there is to tell.
    """

    locale: str
    subject: str
    text: str
    html: str | None = None
    images: tuple[Image, ...] = ()
    document_name: str = "invoice.pdf"  # ASCII
    template_version: str = ""  # a digest of the templates and catalogues it was rendered from
    link: str | None = None  # of the invoice page, where the document does not go along
    about: Transaction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """On which invoice a purchase will be, as far as a customer may be promised it; None is not sure."""

    interval: Interval
    period_start: date | None
    issue: date | None


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
    """An accepted send. `answer` is the other side's reply, scrubbed; `remote_id` its own name for the message."""

    answer: str
    proof: Proof = Proof.RELAY
    remote_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """A delivery report as it came over the wire. `url` is the public one, as the sender was given it, with its query.

    Header names are lower case.
    """

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """Return the first header of that (lower-case) name."""
        return next((value for known, value in self.headers if known == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What another party says became of one message.

    `reference` is its `Receipt.remote_id`, our Message-ID or the intent's key; `event_id` tells repeats of one report
    and is unique within the channel. `detail` is scrubbed.
    """

    channel: str
    event_id: str
    reference: str
    fate: Fate
    at: datetime | None = None  # by the other party's clock
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """By which channels one invoice goes, in order; `rule` says in words what decided it.

    With `exclusive` no other channel takes the first one's place. Those of `courtesy` get a copy besides. `warnings`
    are for people.
    """

    channels: tuple[str, ...]
    rule: str
    exclusive: bool = False
    courtesy: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a channel may be fed, by all processes together: `count` messages in `seconds`."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What was found in a document. `text` is what can be read in it, at most 200,000 characters; None: unreadable."""

    pages: int
    text: str | None = None


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
    source: str = "callback"  # what told us of it last while it was not known or held: `Arrival.source`
    released: bool = False  # a person said that it is to be sent although it is older than the record
    even_late: bool = False  # `resend --even-late`: this round goes out however near the due date is
    stated_round: int | None = None  # the round of which a person stated that it is delivered
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
    organization_key: str | None = None  # of the billed organisation's number, as `recipient_key` of an address
    erased_at: datetime | None = None  # when what is personal in it was replaced by keyed hashes
    fallen: str = ""  # the channels that this round is done with, comma-separated: refused for good, too late, bounced
    turn: str | None = None  # the channel whose turn it is
    channel_since: datetime | None = None  # since when, by the database
    paced: bool = False  # it has its turn on a channel with a pace, at `no_send_before`
    as_link: bool = False  # a relay found the document too large for a mail
    delivered_at: datetime | None = None
    delivery_proof: Proof | None = None
    captured_at: datetime | None = None  # when collection started, by the provider's clock
    captured_known_at: datetime | None = None  # when we learned it
    voided_at: datetime | None = None
    closed_at: datetime | None = None

    @property
    def is_held(self) -> bool:
        """Whether nothing went wrong with it, and it is sent when a person says so."""
        return self.outcome is Outcome.FAILED and (self.reason or "").startswith(HELD)

    @property
    def may_be_voided(self) -> bool:
        """Whether it is closed, and an event at the provider is worth a look: the customer has it, or may."""
        may_have_it = self.attempt > 0 or self.delivered_at is not None
        may_have_it |= self.kind is Kind.PURCHASE  # with its group's invoice
        return self.outcome is Outcome.COMPLETED or (self.outcome is Outcome.FAILED and may_have_it)

    @property
    def bounced(self) -> bool:
        """Whether what had delivered it was reported later as never delivered, and nothing else has since.

        After a resend the row alone cannot tell, for of an earlier round the customer may have it.
        """
        unproved = self.delivered_at is not None and self.delivery_proof is None and self.round == 0
        # What was delivered before this record knew of it is closed without a proof, and a purchase has its invoice's.
        return unproved and self.kind is not Kind.PURCHASE and self.outcome is not Outcome.COMPLETED

    @property
    def progress(self) -> tuple[str, ...]:
        """What is done, out of `delivered` and `captured`, in the order in which it became known."""
        delivered_at = None if self.bounced else self.delivered_at
        known = [(delivered_at, 0, "delivered"), (self.captured_known_at, 1, "captured")]
        return tuple(name for at, _, name in sorted((at, i, name) for at, i, name in known if at is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A row of `sends`: one intent to reach one recipient over one channel. `id` is unique in the whole store."""

    id: str
    delivery_id: str
    round: int  # of a notice, `NOTICE_ROUND`
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
    document_sha256: str | None = None  # hex, of the PDF; None of a notice, and in records of earlier versions
    template_version: str | None = None
    remote_id: str | None = None  # the other side's own name for the message
    reported_at: datetime | None = None  # by its clock: when what was reported last of its fate happened


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
class Link:
    """A line of `history` with its place in the hash chain (chain.py); a line of an earlier version has no hash.

    A line with a `detail_hash` and without `detail` once had words, which were erased.
    """

    entry: Entry
    salt: str | None = None
    detail_hash: str | None = None
    hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """All that the record holds of one delivery, as of one moment; everything oldest first."""

    delivery: Delivery
    chain: str | None  # the hash of the last line, as it stands in the delivery's own row
    links: tuple[Link, ...] = ()
    sends: tuple[Send, ...] = ()
    captures: tuple[Capture, ...] = ()


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
class InvoicePage:
    """What the page behind a link shows of one invoice. `amount` is in minor units, `locale` the reader's language."""

    delivery_id: str
    locale: str
    invoice_number: str
    amount: int
    currency: str  # ISO 4217
    invoice_date: date | None = None
    due_date: date | None = None
    payment_reference: str | None = None
    merchant_reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLink:
    """A row of `links`: one link to one delivery's document. Times are the database's, `created_at` the process's.

    `sealed` holds the token and the `InvoicePage`; it is empty once the link is over and its document deleted.
    """

    token_hash: str = field(repr=False)  # SHA-256 of the token, hex
    delivery_id: str
    account_id: str
    document_sha256: str
    sealed: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    opened_at: datetime | None = None  # when the document was first asked for: a hint, for scanners do that, too
    renewed_at: datetime | None = None  # when a new link was last asked for on its page

    @property
    def document_name(self) -> str:
        """Under which its document is kept: the account, when the link was made, and what it is known by."""
        return f"{self.account_id}/{self.created_at:%Y%m%d%H%M%S}-{self.token_hash}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A link that somebody followed. Without a page it has expired, and nothing is shown of the invoice any more."""

    link: KeptLink
    page: InvoicePage | None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """An account webhook as it came over the wire. Its signature covers the bytes of the body and nothing else."""

    body: bytes
    signature: str | None  # the header
    event: str | None  # the header


class Received(StrEnum):
    """What an arrival did to the record; also the `result` label of the callbacks metric."""

    NEW = "new"
    WOKEN = "woken"
    REOPENED = "reopened"
    UNCHANGED = "unchanged"


class Unrecorded(StrEnum):
    """Why there is nothing to record of what is authentic; a `result` of the callbacks metric, too."""

    ERROR_REPORT = "error_report"  # a payment came to nothing before there was a transaction
    PING = "ping"
    IGNORED = "ignored"  # another event, or about another product


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """A row of `purchases`: a transaction that is billed together with others, as it was last read.

    `group` is the id of those it is expected to be billed with (purchases.py). Everything up to `currency` after it is
    part of it, compared exactly; `invoice_id` is the consolidated invoice's delivery, once the provider shows one.
    """

    transaction_id: str
    account_id: str
    group: str
    business_name: str
    organization_number: str
    country: str  # ISO 3166-1 alpha-2 in upper case; empty where the provider gives none
    customer_reference: str
    interval: Interval
    period_start: date
    currency: str  # ISO 4217
    either_period: bool  # so near to a boundary that it may be billed with the neighbouring period
    interval_from: DecidedBy
    days_until_due: int
    days_from: DecidedBy
    purchased_at: datetime
    amount: int  # minor units
    channel: str  # who delivers the invoice: `merchant`, `kravia`, or a word we do not know
    decided_by: DecidedBy
    merchant_reference: str | None = None
    recipient_key: str | None = None  # of the address on it, so that different ones can be told
    invoice_id: str | None = None
    invoice_number: str | None = None
    invoice_date: date | None = None  # as billed
    due_date: date | None = None  # as billed
    looked_at: datetime | None = None  # when it was last read, by the database's clock; on the way in it is ignored
    remark: str | None = None  # in what it was billed otherwise than expected, for a person


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A purchase and the delivery that follows its transaction."""

    purchase: Purchase
    delivery: Delivery

    @property
    def counts(self) -> bool:
        """Whether it is still to be billed, or was: a void takes it out of its group."""
        return self.delivery.outcome is not Outcome.CANCELLED and self.delivery.voided_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Which purchases are meant: those that fit all of it; an empty one means all there are."""

    group: str | None = None
    invoice_id: str | None = None
    period_start: date | None = None
    organization_number: str | None = None
    unsettled: bool = False  # those of which the delivery is open, or was closed in the last 40 days
    transaction_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an operator asks of one delivery. `to` and `even_late` are for a resend, `rests_on` for a statement.

    With `only_if`, nothing is done and the delivery returned as it is when it has another outcome by then.
    """

    by: str
    at: datetime
    reason: str | None = None
    to: str | None = None
    even_late: bool = False
    rests_on: str | None = None  # "post, 2026-11-20": how it was delivered, in the person's words
    only_if: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which deliveries are meant: those that fit all of it; an empty one means all there are."""

    outcomes: tuple[Outcome, ...] = ()  # any of these
    reason: str | None = None  # somewhere in the reason, whatever the case of its letters (in SQLite: of A to Z)
    channel: str | None = None
    since: datetime | None = None  # received then or later
    until: datetime | None = None  # received before


ALL = Filter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A lane that is at fault, or that a person holds (`by`): its deliveries are not claimed."""

    lane: str
    reason: str
    since: datetime
    by: str | None = None
    next_probe_at: datetime | None = None  # by the database's clock; None when a person holds it
    probes: int = 0  # probes that failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One process's leave to try a lane that is at fault; `probes` failed before it."""

    account_id: str
    lane: str
    token: str
    probes: int
    since: datetime  # when the pause began


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process's turn at work that is done for all, until its lease ends."""

    name: str
    token: str
    now: datetime  # the database's clock
    last_run_at: datetime | None  # when it was last ended as done
    note: str | None  # what that run left to the next


class Condition(StrEnum):
    """What a person may have to see to. A delivery is in one of these at most; the value is its name outside."""

    BOUNCED = "bounced"  # open again, or stopped: what was accepted was not delivered after all
    UNDELIVERED = "captured_not_delivered"  # for an hour, or stopped for good
    UNCAPTURED = "delivered_not_captured"  # likewise
    VOIDED = "voided_after_delivery"  # in the last three days: nothing that is done here ends it
    UNCONFIRMED = "unconfirmed"  # stopped, and not known whether the customer has it
    FAILED = "failed"  # stopped for any other reason
    HELD = "held"  # older than the record
    NOBODY = "nobody_delivers"  # received in the last three days
    PAUSED = "paused"  # of a lane
    SUBSCRIPTION = "subscription_gone"
    SILENCE = "silence"
    OVERDUE = "overdue"  # due for five minutes, in no paused lane, and nobody has it
    NOT_BILLED = "group_not_billed"  # of a group of purchases: its invoice should have been there two days ago
    GROUP_DIFFERS = "group_differs"  # of a group: billed otherwise than expected, and closed in the last three days
    IN_DOUBT = "in_doubt"  # open, and the send whose outcome is not known will be repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One delivery, group, lane or service that is in a `Condition`; no personal data."""

    subject: str  # the delivery's id, the group's, the lane, or empty
    reason: str | None  # one line, scrubbed
    since: datetime | None
    invoice_number: str | None = None
    amount: int | None = None
    currency: str | None = None
    by: str | None = None  # the person who paused the lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """How many are in one condition, and the newest of them."""

    condition: Condition
    count: int
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Of one condition, what one way of telling people has not told yet. Times are the database's."""

    concern: Concern
    latest: datetime  # when the last of it was found
    told_at: datetime | None  # when anything of this condition was last told that way


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """When the provider last called about a transaction that was new, and how many were found without it since."""

    last_at: datetime  # or when the record was begun, if it never called
    missed: int


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


class RecipientRefused(PermanentFailure):
    """The address cannot be reached by this channel; another channel, or another address, may do."""


class MessageTooLarge(PermanentFailure):
    """The other side takes no message of this size; a smaller one may do."""


class UnconfirmedFailure(DeliveryFailure):
    """The effect may or may not have happened: it was handed over, and the answer was lost."""


class AccountFailure(TransientFailure):
    """Our own account, password, network or standing is at fault, not this delivery: the lane pauses at once."""


class SendingBlocked(TransientFailure):
    """Refused by the other side's policy: this message, or all that we send. Repeated, the channel pauses."""


class StoreUnavailable(Exception):
    """The store cannot answer or commit just now; nothing was written."""


class CommitInDoubt(StoreUnavailable):
    """The connection broke while a commit was under way: it may have been written."""


class LeaseLost(Exception):
    """The delivery is no longer this process's: no new effect may begin and nothing of its schedule was saved."""


class IntentOpen(Exception):
    """There is an open intent for this document, recipient and channel (or transaction): no second one may begin."""


class Bounced(Exception):
    """What was accepted was reported as never delivered meanwhile: nothing is captured for it."""


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
        """Return who delivers this transaction's invoice, which level decided it, and of a grouped one the terms."""

    async def invoice(self, url: str) -> bytes:
        """Return the invoice document behind `url`; raises `BadDocument` when it is none, at most MAX_PDF_BYTES."""

    async def capture(self, request: CaptureRequest) -> CaptureAnswer:
        """Capture; also raises `UnconfirmedFailure`. A 400, 404 or 409 is a `PermanentFailure`: read, then decide."""

    async def void(self, transaction_id: str) -> Transaction:
        """Take the authorisation back and return the transaction as it then is; raises as `capture` does."""

    async def list_created(
        self, since: datetime, until: datetime | None = None, *, after: str | None = None
    ) -> tuple[Transaction, ...]:
        """Return a page of the Kravia transactions created in a span of time, its ends included, in no useful order.

        `after` is the id that the page before ended with; a page of fewer than `LISTED_AT_ONCE` is the last. An id may
        come twice; what a transaction's session says is not among the findings.
        """


class Subscriptions(Protocol):
    """The provider's account webhooks. Every method raises as those of `Payments`."""

    async def subscriptions(self) -> tuple[Subscription, ...]:
        """Return those that there are."""

    async def subscribe(self, url: str, secret: str, events: Sequence[str]) -> Subscription:
        """Create one; raises `UnconfirmedFailure` when the answer was lost: look, then decide."""


class Channel(Protocol):
    """One way to reach a customer."""

    name: str
    template: str  # the folder of templates it is rendered from: `mail`, `sms`; empty: it sends data, not words
    guarantee: Guarantee
    reports: bool  # whether reports of its messages come in later, at /receipts/NAME
    largest_document: int | None  # bytes; a larger one goes as a link (0: all do); None is any size
    pace: Pace | None

    def recipient(self, transaction: Transaction, *, to: str | None = None) -> Recipient:
        """Return where this transaction's message goes (`to`: an operator's own address); raises `PermanentFailure`."""

    def compose(self, message: Message, document: bytes | None, recipient: Recipient, intent: Intent) -> Composed:
        """Return the bytes for the wire; a pure function, so that a repeat is the same to the last byte.

        Without a document the message has a link to it, or is a notice and there is none.
        """

    async def send(self, composed: Composed) -> Receipt:
        """Hand it over; raises `TransientFailure`, `PermanentFailure`, `UnconfirmedFailure` or `AccountFailure`."""

    async def check(self) -> str:
        """Try the settings for real without sending anything; return a line on what was found, or raise as `send`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelContext:
    """What the factory of an outside adapter is given.

    `public_url` is where customers and providers reach the service.

    `environ` holds the DELIVERY_* settings that are not the service's, with their full names. With REDIRECT_TO, every
    message goes to `redirect_email` or `redirect_phone` instead, and its `Recipient.redirected_from` says so.
    """

    account_id: str
    clock: Clock
    environ: tuple[tuple[str, str], ...]
    redirect_email: str | None = None
    redirect_phone: str | None = None
    public_url: str | None = None
    brand: Brand | None = None  # the seller


class Reporting(Protocol):
    """A channel, or a party behind one, that says later what became of messages."""

    async def read_reports(self, request: ReportRequest, *, now: datetime) -> tuple[Report, ...]:
        """Return what a request tells; raises `Forged`, `Stale` or `Unusable`. Nothing of it is trusted before."""


class Links(Protocol):
    """The invoice pages behind links (LINK_KEY)."""

    async def link(self, delivery: Delivery, transaction: Transaction, document: bytes, *, locale: str) -> str:
        """Keep the document and return the link to its page: the same one each time for a delivery's document.

        Raises `TransientFailure` when it cannot be kept just now.
        """


class Vault(Protocol):
    """Where sealed documents are kept, by all processes; every method raises `TransientFailure` when it cannot.

    A name is `account/…`, of letters, digits, dots, hyphens and underscores otherwise.
    """

    async def put(self, name: str, sealed: bytes) -> None:
        """Keep a document so that it outlives a crash. Twice is as once; another with that name is replaced whole."""

    async def get(self, name: str) -> bytes | None:
        """Return a document, None when there is none."""

    async def delete(self, name: str) -> None:
        """Forget a document, if there is one."""

    async def names(self, account_id: str, *, after: str | None = None) -> tuple[str, ...]:
        """Return up to 500 names of an account's documents in their order, those after `after`."""


class Pages(Protocol):
    """The invoice pages as a browser sees them. Every method raises `StoreUnavailable` when it cannot answer."""

    async def look(self, token: str) -> Visit | None:
        """Return what a token leads to, None when it is unknown or revoked. Looking changes nothing."""

    async def document(self, visit: Visit, *, opened: bool) -> bytes | None:
        """Return the invoice, None when it is not there; `opened` is noted, once. Raises `TransientFailure`."""

    async def renew(self, visit: Visit) -> None:
        """Have the message sent again to the address on record, at most once a day for a link."""


class PageRenderer(Protocol):
    """Turns what a page shows into HTML; `asked` says what the reader's browser asks for (Accept-Language)."""

    def page(self, page: InvoicePage, *, document_url: str) -> str:
        """Return the page of an invoice in its reader's language."""

    def expired(self, *, asked: str | None, renewed: bool) -> str:
        """Return the page of a link that is over; `renewed`: a new one was asked for just now."""

    def missing(self, *, asked: str | None) -> str:
        """Return the page for what there is not."""

    def unavailable(self, *, asked: str | None) -> str:
        """Return the page for what cannot be answered just now."""

    def document_name(self, page: InvoicePage) -> str:
        """Return the file name of the invoice, in ASCII."""


class Renderer(Protocol):
    """Turns a transaction into a message; a pure function of its arguments, the templates and the brand."""

    def locale(self, transaction: Transaction) -> str:
        """Return the tag of the reader's language: that of the billing country."""

    def render(
        self,
        template: str,
        transaction: Transaction,
        *,
        purpose: Purpose,
        recipient: Recipient,
        link: str | None = None,
    ) -> Message:
        """Return the message in the reader's language; raises `PermanentFailure` naming what could not be rendered.

        `Purpose.RESEND` is a copy and says so, `REPEAT` reads as `FIRST`, `CANCELLED` tells that the invoice is void.
        With `link` the document is behind it instead of in the message.
        """

    def notice(self, template: str, transaction: Transaction, *, upcoming: Upcoming, recipient: Recipient) -> Message:
        """Return, as `render`, what tells of a purchase on which invoice it will be; there is no document to it."""


class Inspector(Protocol):
    """Looks into documents where a hostile one can do no harm."""

    async def inspect(self, document: bytes) -> Inspected:
        """Return what a PDF holds; raises `BadDocument` when it cannot be opened, is encrypted or empty."""


class Store(Protocol):
    """The record, which is also the queue. Every method raises `StoreUnavailable` when it cannot answer.

    Times on the way in are the process's; leases, `due_at` and `no_send_before` go by the database's clock. A method
    that takes a `Claim` is fenced by its token and raises `LeaseLost`; the others may be called late or twice.
    """

    async def receive(self, arrival: Arrival) -> Received:
        """Commit an arrival: enter an unknown transaction, wake an open delivery, reopen one that was skipped."""

    async def claim(
        self, account_id: str, lane: str, limit: int, *, lease: float, suspects: bool, probing: str | None = None
    ) -> tuple[Claim, ...]:
        """Take up to `limit` due deliveries of a lane for `lease` seconds; `suspects`: those claimed but not saved.

        None of a paused lane, and none at all while the provider's is; `probing` names a pause to be passed by.
        """

    async def adopt(self, account_id: str, lanes: Sequence[str]) -> int:
        """Give what waits in a lane not among `lanes` (its channel is gone) to the provider's; return how many."""

    async def renew(self, claims: Sequence[Claim], *, lease: float) -> frozenset[str]:
        """Extend the leases; return the tokens of those that are still held."""

    async def save(self, claim: Claim, delivery: Delivery, schedule: Schedule, entries: Sequence[Entry] = ()) -> None:
        """Write the state of the work and give the lease back.

        A wake-up since the claim makes an open one due now, and opens again what `receive` would have.
        """

    async def begin_send(self, claim: Claim, send: Send, delivery: Delivery | None = None) -> None:
        """Commit the intent and count the attempt; with it, by `delivery`, whose turn it is, and since when.

        Raises `AlreadySent` when a send of its round was accepted meanwhile, `IntentOpen`, and `CommitInDoubt` when it
        is not sure that the intent is written.
        """

    async def settle_send(self, send: Send, entries: Sequence[Entry]) -> None:
        """Write the outcome of a send. Never fenced: an accepted one makes its delivery delivered.

        Told late (its lease was given back or lost), it also wakes an open delivery, opens one again that had failed or
        was skipped, and adds to the reason of a cancelled one that the customer has the invoice.
        """

    async def report(self, account_id: str, report: Report) -> Reported:
        """Write what became of a message; twice is once, and the order does not matter.

        Delivered, its send counts as accepted even if its outcome was in doubt. Failed, the send is `BOUNCED`, and its
        delivery is opened again, unless it was cancelled or another send of the round was accepted.
        """

    async def reported(self, account_id: str, report: Report) -> Send | None:
        """Return the send that a report is about, if it is written yet."""

    async def unmatched_reports(self, account_id: str) -> tuple[Report, ...]:
        """Return the newest 200 reports of the last 30 days that no send was found for, of these the oldest first."""

    async def take_turn(self, account_id: str, lane: str, pace: Pace) -> float:
        """Reserve a place in a lane's pace, shared by all processes; return in how many seconds it comes."""

    async def fall_from(self, account_id: str, lane: str, after: float) -> int:
        """Give what has waited for a paused lane longer than `after` seconds to the provider's; return how many."""

    async def begin_capture(self, claim: Claim, capture: Capture) -> None:
        """Commit the intent to capture; raises `IntentOpen`, and `CommitInDoubt` when that is not sure.

        Raises `Bounced` when what counted as delivered has bounced since the claim, and nothing else did.
        """

    async def settle_capture(
        self, capture: Capture, entries: Sequence[Entry], *, began_at: datetime | None = None
    ) -> None:
        """Write the outcome of a capture. Never fenced; `began_at` makes its delivery captured then.

        Told late, it wakes and opens again as `settle_send` does.
        """

    async def record_purchase(self, claim: Claim, purchase: Purchase) -> None:
        """Write what was read of a purchase, `remark` excepted; its delivery is of `Kind.PURCHASE` from then on."""

    async def enter_invoice(self, invoice_id: str, carrier: Delivery, at: datetime) -> None:
        """Enter the delivery of a consolidated invoice, unless it is there; `carrier` is a purchase that shows it."""

    async def adopt_skipped(self, account_id: str) -> int:
        """Open the grouped transactions again that earlier releases skipped as not theirs; return how many."""

    async def members(self, chosen: Members) -> tuple[Member, ...]:
        """Return purchases with their deliveries, the oldest purchase first."""

    async def unread(self, account_id: str, before: datetime) -> int:
        """Return how many open deliveries came `before` a time and have never been read: nobody knows what they are."""

    async def remark(self, transaction_id: str, words: str | None) -> None:
        """Say in what a purchase was billed otherwise than expected, or (None) that it was not."""

    async def retry(self, delivery_id: str, request: Request) -> Delivery:
        """Make the next step due now, with a new give-up clock; reopens what is closed. Raises `KeyError`."""

    async def resend(self, delivery_id: str, request: Request) -> Delivery:
        """Ask for one more delivery on purpose; reopens what is closed. Raises `KeyError`.

        A purchase of a group stays as it is, and the history says why: what is sent is its invoice.
        """

    async def cancel(self, delivery_id: str, request: Request) -> Delivery:
        """Stop: nothing more is begun. Raises `KeyError`."""

    async def resolve(self, delivery_id: str, request: Request, *, delivered: bool) -> Delivery:
        """Take a person's word on an open or failed delivery, others stay as they are. Raises `KeyError`.

        Delivered, it goes on to the capture; not delivered, what was in doubt counts as refused and it is sent.
        """

    async def release(self, delivery_id: str, request: Request) -> Delivery:
        """Let a delivery go out that was held for being older than the record. Raises `KeyError`."""

    async def note(self, delivery_id: str, entry: Entry) -> None:
        """Add a line to the history and nothing else. Raises `KeyError`."""

    async def pause(self, account_id: str, lane: str, reason: str, *, by: str | None, probe_in: float | None) -> bool:
        """Stop claiming from a lane, for `by` a person or (None) for a fault; return whether it went until now.

        A person's pause takes the place of a fault's, and a fault changes nothing on a person's. A further fault puts
        the next probe off when `probe_in` (seconds) says so.
        """

    async def resume(self, account_id: str, lane: str) -> bool:
        """Claim from a lane again; return whether it was paused. The give-up clocks of its deliveries stood still."""

    async def pauses(self, account_id: str) -> tuple[Pause, ...]:
        """Return the pauses in force."""

    async def take_probe(self, account_id: str, lanes: Sequence[str], *, lease: float) -> Probe | None:
        """Return leave to try a lane at fault whose time has come; nobody else gets it for `lease` seconds."""

    async def renew_probe(self, probe: Probe, *, lease: float) -> None:
        """Keep the leave to try for as long again, if it has not passed on to another."""

    async def end_probe(self, probe: Probe, *, fault: str | None, next_in: float) -> bool:
        """Write how a probe ended: without `fault` the pause is over (return True), else the next is in `next_in` s."""

    async def born_at(self) -> datetime:
        """Return when this record was begun."""

    async def take_job(self, name: str, *, every: float, lease: float) -> Job | None:
        """Return a turn at the job if it was last done `every` seconds ago or never, and nobody has it."""

    async def end_job(self, job: Job, *, done: bool, note: str | None = None) -> None:
        """Give the turn back. `done` counts from now until the next one is due; `note` replaces what was left."""

    async def known(self, transaction_ids: Sequence[str]) -> tuple[Delivery, ...]:
        """Return the deliveries that these transactions belong to, of those that are recorded."""

    async def find(self, reference: str) -> tuple[Delivery, ...]:
        """Return the deliveries with this id, transaction id, invoice number or merchant reference, newest first.

        An address that something was sent to, a billed organisation's number, and an erased reference will do as well.
        """

    async def listing(
        self, chosen: Filter = ALL, *, limit: int | None = None, after: Delivery | None = None
    ) -> tuple[Delivery, ...]:
        """Return deliveries, newest first; `after` is the last one of the page before."""

    async def ids(self, chosen: Filter) -> tuple[tuple[str, Outcome], ...]:
        """Return id and outcome of all that are meant, newest first, as they are at one moment."""

    async def history(self, delivery_id: str) -> tuple[Entry, ...]:
        """Return what happened, oldest first."""

    async def sends(self, delivery_id: str) -> tuple[Send, ...]:
        """Return the sends of a delivery, oldest first."""

    async def captures(self, delivery_id: str) -> tuple[Capture, ...]:
        """Return the captures of a delivery, oldest first."""

    async def dossier(self, delivery_id: str) -> Dossier:
        """Return all that is recorded of a delivery, as of one moment. Raises `KeyError`."""

    async def concerning(
        self, *, addresses: Sequence[str] = (), organization_number: str | None = None
    ) -> tuple[Delivery, ...]:
        """Return the deliveries that went, or are to go, to one of these addresses, or were billed to an organisation.

        Newest first. What was not sent yet is known by no address.
        """

    async def erase(self, delivery_ids: Sequence[str], entry: Entry) -> tuple[str, ...]:
        """Erase what is personal in these deliveries, and add `entry`, which stays; return the ids of those erased.

        Not in those that are open, that somebody has in hand just now, or that are erased already.
        """

    async def erase_old(self, account_id: str, before: datetime, *, limit: int, entry: Entry) -> int:
        """Erase, as `erase`, up to `limit` of an account's deliveries that were closed before then; return how many."""

    async def keep_link(self, link: KeptLink) -> KeptLink:
        """Enter a link, unless one to the delivery's document is in force; return the one that is.

        That one is then in force at least as long as `link` would have been. Raises `KeyError`.
        """

    async def link(self, token_hash: str) -> KeptLink | None:
        """Return the link with this hash of its token."""

    async def links_of(self, delivery_id: str) -> tuple[KeptLink, ...]:
        """Return a delivery's links, oldest first."""

    async def open_link(self, token_hash: str) -> None:
        """Note that the document behind a link was asked for; only the first time counts."""

    async def renew_link(self, link: KeptLink, request: Request) -> bool:
        """As `resend`, if the delivery is completed, not voided, and for a day no link was asked for on that page."""

    async def revoke_links(self, delivery_id: str, request: Request) -> int:
        """End what links of a delivery are in force; return how many. Raises `KeyError`."""

    async def drop_link(self, token_hash: str) -> None:
        """End a link that cannot be read any more, as its key was changed."""

    async def ended_links(self, account_id: str) -> tuple[KeptLink, ...]:
        """Return up to 200 links that are over and still hold something."""

    async def empty_links(self, token_hashes: Sequence[str]) -> None:
        """Forget what these links hold; their documents have been deleted."""

    async def known_links(self, token_hashes: Sequence[str]) -> frozenset[str]:
        """Return which of these there are that still hold something."""

    async def put_document(self, name: str, sealed: bytes) -> None:
        """As `Vault.put`, in the database."""

    async def document(self, name: str) -> bytes | None:
        """As `Vault.get`."""

    async def delete_document(self, name: str) -> None:
        """As `Vault.delete`."""

    async def document_names(self, account_id: str, *, after: str | None = None) -> tuple[str, ...]:
        """As `Vault.names`."""

    async def counts(self) -> Counts:
        """Return the figures for `/metrics`."""

    async def concerns(self, account_id: str) -> tuple[Concern, ...]:
        """Return what is in any `Condition` that the record alone tells, of each the newest 20 cases."""

    async def calls(self, account_id: str) -> Calls:
        """Return when the provider last called."""

    async def news(self, account_id: str, way: str, urgent: Sequence[Concern]) -> tuple[News, ...]:
        """Return what of the urgent conditions people have not been told by this `way`, of each the first 20 cases.

        `urgent` names the conditions; its cases are those that the record does not tell. What is told is told again
        only when it has gone away and come back; pauses that a person ordered are no news.
        """

    async def told(self, account_id: str, way: str, upto: datetime) -> None:
        """Write that everything found until then has been told by this `way`."""

    async def ping(self) -> None:
        """Return if the store answers and can commit."""
