"""Our own small fakes and sample values, for all tests."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from service.delivery import (
    LISTED_AT_ONCE,
    CaptureAnswer,
    CaptureEvent,
    CaptureRequest,
    ChannelFinding,
    Collection,
    Composed,
    DecidedBy,
    Delivery,
    Guarantee,
    Inspected,
    Intent,
    Line,
    Message,
    Pace,
    Party,
    PermanentFailure,
    Purpose,
    Receipt,
    Recipient,
    Resolution,
    Standing,
    Transaction,
    Upcoming,
)

ACCOUNT = "T12345678"
PDF = b"%PDF-1.7 a document"


class MovedClock:
    """A clock that runs with the machine's but can be moved on; sleeping moves it."""

    def __init__(self) -> None:
        self._offset = timedelta()

    @property
    def offset(self) -> timedelta:
        return self._offset

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def monotonic(self) -> float:
        return self.now().timestamp()

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._offset += timedelta(seconds=seconds)


def a_transaction(transaction_id: str = f"{ACCOUNT}.a", /, **changes: object) -> Transaction:
    """Return a business invoice that is ours to deliver, authorised and not yet collected."""
    transaction = Transaction(
        id=transaction_id,
        standing=Standing.AUTHORIZED,
        status="AUTHORIZED",
        product="kravia",
        product_type="kravia.invoice_b2b",
        amount=50000,
        currency="NOK",
        read_at=datetime.now(UTC),
        merchant_reference="order-123",
        created_at=datetime.now(UTC),
        invoice_number="A1B2C-000001",
        invoice_url="https://api.dintero.com/v1/files/f-abc123",
        billing=Party(business_name="Nordmann AS", email="ola@nordmann.example", country="NO"),
        lines=(Line(line_id="1", amount=50000),),
        findings=(ChannelFinding(level=DecidedBy.TRANSACTION, value="merchant"),),
    )
    return replace(transaction, **changes)  # type: ignore[arg-type]


def a_delivery(**changes: object) -> Delivery:
    delivery = Delivery(
        id=f"{ACCOUNT}.a", account_id=ACCOUNT, transaction_id=f"{ACCOUNT}.a", received_at=datetime.now(UTC)
    )
    return replace(delivery, **changes)  # type: ignore[arg-type]


class FakePayments:
    """A provider that keeps transactions in a dict and captures as `current` does; `plan` replaces single answers."""

    def __init__(self, clock: MovedClock) -> None:
        self._clock = clock
        self.transactions: dict[str, Transaction] = {}
        self.reads: list[str] = []
        self.captures: list[CaptureRequest] = []
        self.documents: list[str] = []
        self.checks = 0
        self.voids: list[str] = []
        self.listed: list[tuple[datetime, datetime | None, str | None]] = []
        self.plan: dict[str, list[Exception | Callable[[], object]]] = {}

    def add(self, transaction: Transaction) -> None:
        self.transactions[transaction.id] = transaction

    def change(self, transaction_id: str, **changes: object) -> None:
        self.add(replace(self.transactions[transaction_id], **changes))  # type: ignore[arg-type]

    def begin(self, transaction_id: str, reference: str | None, *, success: bool = True, **details: object) -> None:
        """Add an INITIATE_CAPTURE event, somebody's or ours."""
        collection = self.transactions[transaction_id].collection
        event = CaptureEvent(
            id=str(len(collection.events) + 3),
            reference=reference,
            request_id="r",
            answers=None,
            initiates=True,
            success=success,
            amount=50000,
            at=self._clock.now(),
        )
        event = replace(event, **details)  # type: ignore[arg-type]
        begun = collection.begun or success
        begun_at = collection.begun_at or (event.at if success else None)
        self.change(
            transaction_id,
            collection=Collection(begun=begun, begun_at=begun_at, events=(*collection.events, event)),
        )

    def _planned(self, verb: str) -> object:
        steps = self.plan.get(verb)
        if not steps:
            return None
        step = steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step()

    async def read(self, transaction_id: str) -> Transaction:
        self.reads.append(transaction_id)
        self._planned("read")
        self._planned(f"read {transaction_id}")
        return replace(self.transactions[transaction_id], read_at=self._clock.now())

    async def resolve(self, transaction: Transaction) -> Resolution:
        self._planned("resolve")
        if transaction.findings:
            return Resolution(channel=transaction.findings[0].value, decided_by=transaction.findings[0].level)
        return Resolution(channel="kravia", decided_by=DecidedBy.SETTING)

    async def invoice(self, url: str) -> bytes:
        self.documents.append(url)
        planned = self._planned("invoice")
        return planned if isinstance(planned, bytes) else PDF

    async def check(self) -> str:
        self.checks += 1
        self._planned("check")
        return "fine"

    async def capture(self, request: CaptureRequest) -> CaptureAnswer:
        self.captures.append(request)
        planned = self._planned("capture")
        if isinstance(planned, CaptureAnswer):
            return planned
        if self.transactions[request.transaction_id].collection.begun:
            raise PermanentFailure("Dintero answered 400: captured already")
        self.begin(request.transaction_id, request.reference)
        return CaptureAnswer(transaction=self.transactions[request.transaction_id])

    async def void(self, transaction_id: str) -> Transaction:
        self.voids.append(transaction_id)
        self._planned("void")
        if self.transactions[transaction_id].standing is not Standing.AUTHORIZED:
            raise PermanentFailure("Dintero answered 400: can not be voided")
        voided = {"standing": Standing.VOIDED, "status": "AUTHORIZATION_VOIDED", "voided_at": self._clock.now()}
        self.change(transaction_id, **voided)
        return replace(self.transactions[transaction_id], read_at=self._clock.now())

    async def list_created(
        self, since: datetime, until: datetime | None = None, *, after: str | None = None
    ) -> tuple[Transaction, ...]:
        """Return a page, sorted by id backwards; a planned page replaces it."""
        self.listed.append((since, until, after))
        planned = self._planned("list_created")
        if isinstance(planned, tuple):
            return planned
        found = [
            replace(transaction, read_at=self._clock.now())
            for transaction in self.transactions.values()
            if transaction.created_at and since <= transaction.created_at <= (until or self._clock.now())
        ]
        found.sort(key=lambda transaction: transaction.id, reverse=True)
        return tuple(t for t in found if after is None or t.id < after)[:LISTED_AT_ONCE]


class FakeChannel:
    """A channel that keeps what it is given; `plan` holds failures to raise (or a function to call) first."""

    template = "mail"

    def __init__(
        self,
        name: str = "email",
        *,
        guarantee: Guarantee = Guarantee.AT_LEAST_ONCE,
        reports: bool = False,
        largest_document: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.name = name
        self.guarantee = guarantee
        self.reports = reports
        self.largest_document = largest_document
        self.pace = pace
        self.reaches = True
        self.sent: list[Composed] = []
        self.plan: list[Exception | Callable[[], None]] = []
        self.checks = 0
        self.checks_plan: list[Exception] = []

    def recipient(self, transaction: Transaction, *, to: str | None = None) -> Recipient:
        address = to or (transaction.billing.email if transaction.billing else None)
        if address is None or not self.reaches:
            raise PermanentFailure("no usable e-mail address")
        return Recipient(address=address, key=hashlib.sha256(address.encode()).hexdigest(), masked="o***@x.example")

    def compose(self, message: Message, document: bytes | None, recipient: Recipient, intent: Intent) -> Composed:
        content = f"{intent.key} {intent.dated} {message.text}".encode() + (document or b"")
        digest = hashlib.sha256(content).hexdigest()
        return Composed(recipient=recipient, message_id=f"<{intent.key}@x>", content=content, sha256=digest)

    async def send(self, composed: Composed) -> Receipt:
        if self.plan:
            step = self.plan.pop(0)
            if isinstance(step, Exception):
                raise step
            step()
        self.sent.append(composed)
        return Receipt(answer="250 2.0.0 queued as 1", remote_id=f"{self.name}-{len(self.sent)}")

    async def check(self) -> str:
        self.checks += 1
        if self.checks_plan:
            raise self.checks_plan.pop(0)
        return "fine"


class FakeLinks:
    """Keeps documents behind links that tell whose they are."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def link(self, delivery: Delivery, transaction: Transaction, document: bytes, *, locale: str) -> str:
        assert transaction.invoice_number
        self.kept[delivery.id] = document
        return f"https://x.example/i/{delivery.id}?{locale}"


class FakeRenderer:
    """Renders a line of text; `text` may be changed between two sends."""

    def __init__(self) -> None:
        self.text = "an invoice"

    def locale(self, transaction: Transaction) -> str:
        return "nb"

    def render(
        self,
        template: str,
        transaction: Transaction,
        *,
        purpose: Purpose,
        recipient: Recipient,
        link: str | None = None,
    ) -> Message:
        copy = " again" if purpose is Purpose.RESEND else ""
        text = f"{self.text}{copy} for {transaction.invoice_number}" + (f": {link}" if link else "")
        return Message(locale="nb", subject=template, text=text, link=link)

    def notice(self, template: str, transaction: Transaction, *, upcoming: Upcoming, recipient: Recipient) -> Message:
        text = f"{transaction.merchant_reference}: on the invoice of {upcoming.issue}, for {upcoming.period_start}"
        return Message(locale="nb", subject=template, text=text)


class FakeInspector:
    """Finds one page in everything."""

    def __init__(self) -> None:
        self.text: str | None = "an invoice"

    async def inspect(self, document: bytes) -> Inspected:
        assert document
        return Inspected(pages=1, text=self.text)
