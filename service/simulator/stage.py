"""The demo's stage: who plays, what is sold, and how each invoice stands; the pages show it, the story tells it."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal, Protocol

from starlette.types import ASGIApp

from service.money import in_units
from service.simulator.api import Running
from service.simulator.bounces import bounce_of, tell
from service.simulator.deeds import Told
from service.simulator.documents import Json, collection_begun
from service.simulator.erp import ErpServer, Posted
from service.simulator.faults import Fault, Faults
from service.simulator.letters import Letter, read_letter
from service.simulator.mail import Mail, MailServer
from service.simulator.months import CUSTOMERS, Groups, buy, next_issue, standing
from service.simulator.sales import Buyer, Country, sale
from service.simulator.sms import NotReported, SmsServer, Text
from service.simulator.sms_wire import Fate
from service.simulator.ways import Way, go

SHOP = "Nordlys Interiør"
COUNTRIES: dict[Country, str] = {"NO": "Norway", "SE": "Sweden", "FI": "Finland", "DK": "Denmark", "DE": "Germany"}
_OPTIONS = "report_event=VOID&report_event=CAPTURE&report_error=true"
_SHOWN = 30  # invoices on the page, the newest
_REPORTED_AFTER = 1.5  # seconds after which a text is reported by itself


class Shown(Protocol):
    """One file of a preview; `remark` is a line for people."""

    @property
    def name(self) -> str:
        """The file's name: language, kind, and what it is about."""

    @property
    def content(self) -> bytes:
        """What is in it."""

    @property
    def remark(self) -> str:
        """What is worth knowing of it."""


class Service(Protocol):
    """The service, as the demo needs it."""

    @property
    def asgi(self) -> ASGIApp:
        """Its public face: `/callback`, `/livez`, `/readyz`."""

    def record(self, transaction_id: str) -> Awaitable[str | None]:
        """Return the delivery with its history as JSON text, or None when it is unknown."""

    def groups(self) -> Awaitable[str]:
        """Return, as JSON text, what it expects of each group of purchases, and what of it was billed otherwise."""

    def previews(self) -> Sequence[Shown]:
        """Return every kind of message in every language. It takes a while, and may be asked for in a thread."""

    def run(self) -> Awaitable[None]:
        """Work until cancelled."""


class Movable(Protocol):
    """The clock that everything here shares: the provider, the mail server and the service."""

    def now(self) -> datetime:
        """Return the time."""

    def advance(self, seconds: float) -> None:
        """Move on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one invoice stands, for a row on the page."""

    transaction_id: str
    number: str
    buyer: str
    kind: str
    country: str
    amount: str
    outcome: str  # "" while the service does not know it
    reason: str | None
    mail: int | None
    text: int | None
    posted: int | None
    channel: str | None
    proof: str | None
    delivered: bool
    begun: bool
    paid: bool
    voided: bool

    @property
    def payable(self) -> bool:
        return self.begun and not self.paid and not self.voided


_KINDS = {
    "kravia.invoice_b2b": "Business",
    "kravia.invoice_b2b_grouped": "Grouped purchase",
    "kravia.invoice_b2c": "Consumer",
}


def _ignore(_: str) -> None:
    """Be told, and do nothing."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """Everything that plays. `url` is the site's origin."""

    url: str
    running: Running
    mail: MailServer
    sms: SmsServer
    erp: ErpServer
    service: Service
    clock: Movable
    random: Random
    told: Callable[[str, str], None]  # (invoice number or "", what happened)
    sold: Callable[[str], None] = _ignore  # (transaction id)
    letters: list[Letter] = field(default_factory=list)  # oldest first, numbered as in the mail server's inbox
    bounced: set[int] = field(default_factory=set)  # numbers of mails that were sent back
    esp_key: str = ""  # what signs the events that are told of mails

    @property
    def faults(self) -> Faults:
        """What goes wrong at the provider and at the mail server, which share it."""
        return self.running.provider.faults

    @property
    def callback_url(self) -> str:
        """The service's, with what it is to be told of."""
        return f"{self.url}/callback?{_OPTIONS}"

    @property
    def personality(self) -> str:
        return self.running.provider.personality

    def create(self, buyer: Buyer = "business", country: Country = "NO", way: Way | Literal["kravia"] = "email") -> str:
        """Sell something, as the shop would; return the transaction's id."""
        provider = self.running.provider
        body = sale(
            buyer=buyer,
            country=country,
            channel="kravia" if way == "kravia" else "merchant",
            callback_url=self.callback_url,
            reference=f"order-{1001 + len(provider.transactions)}",
            random=self.random,
        )
        nobody = None if way == "kravia" else go(way, body["session"]["order"])
        if nobody is not None:
            self.faults.commit(Fault(name="mail-unknown-recipient", count=1, where=nobody))
        transaction_id = str(provider.bill(body)["id"])
        transaction = provider.transaction(transaction_id)
        what = f"invoice created: {amount_of(transaction)} to {buyer_of(transaction)}"
        self.told(number_of(transaction), f"{what}, whose mailbox refuses mail" if nobody else what)
        self.sold(transaction_id)
        return transaction_id

    def buy(self, *names: str) -> None:
        """Make a grouped purchase for each of these customers; without names for all three."""
        for customer in (CUSTOMERS[name] for name in names or CUSTOMERS):
            purchase = buy(self.running.provider, customer, self.callback_url, self.random)
            self.told("", f"grouped purchase: {amount_of(purchase)} by {buyer_of(purchase)}, to be invoiced later")

    def move_on(self, days: int | None = None) -> None:
        """Let days pass, for everybody who shares the clock; None: until the next invoices are made, and make them."""
        provider, now = self.running.provider, self.clock.now()
        to = next_issue(provider) if days is None else now + timedelta(days=days)
        self.clock.advance((to - now).total_seconds())
        self.told("", f"the clock is moved on to {to:%Y-%m-%d}")
        for bill in provider.bill_due():
            what = f"{len(bill.transactions)} purchases invoiced to {bill.group.business_name}"
            self.told(bill.number, f"{what}, due {bill.due}")

    async def groups(self) -> Groups:
        """Return how the grouped purchases stand."""
        known = json.loads(await self.service.groups())
        return await standing(self.running.provider, known, self.record, self.mails)

    def mails(self, number: str) -> list[int]:
        """Return the numbers of the mails about an invoice, oldest first."""
        return [letter.mail.number for letter in self.letters if number and letter.is_about(number)]

    def arrived(self, mail: Mail) -> None:
        """Take note of a mail."""
        letter = read_letter(mail)
        self.letters.append(letter)
        number = next((n for n in self._numbers() if letter.is_about(n)), "")
        self.told(
            number, f"mail delivered: {letter.subject} (the relay answered 250 2.0.0 Ok: queued as {mail.queue_id})"
        )

    def texted(self, text: Text) -> None:
        """Take note of a text."""
        number = next((n for n in self._numbers() if n in text.asked.text), "")
        self.told(number, f"SMS taken by {text.kind}: {text.asked.text}")

    def posted(self, posted: Posted) -> None:
        """Take note of an invoice that came to the ERP."""
        self.told(posted.invoice_number, "posted to the ERP: signed, with the PDF in it, and booked")

    async def bounce(self, letter: Letter) -> str | None:
        """Have a mail sent back, and the service told of it; return what is wrong when it was not taken."""
        token = f"{self.random.getrandbits(200):050x}"
        body = bounce_of(letter, key=self.esp_key, token=token, at=self.clock.now())
        problem = await tell(f"{self.url}/receipts/email", body)
        if problem is None:
            self.bounced.add(letter.mail.number)
        number = next((n for n in self._numbers() if letter.is_about(n)), "")
        self.told(number, f"mail sent back by the mailbox: {problem or 'the service knows'}")
        return problem

    async def report(self, text: Text, fate: Fate) -> list[int]:
        """Have the provider report what became of a text; return the answers' statuses. Raises `NotReported`."""
        statuses = await self.sms.report(text, fate)
        number = next((n for n in self._numbers() if n in text.asked.text), "")
        answers = ", ".join(map(str, statuses))
        self.told(number, f"SMS reported as {fate} by {text.kind}: the service answered {answers}")
        return statuses

    async def report_by_itself(self, text: Text) -> None:
        """After a moment have a text reported, as a fault says or as delivered, unless somebody did that meanwhile."""
        told = self.faults.take(Told, "sms report", text.asked.to)
        await self.sms.clock.sleep(_REPORTED_AFTER)
        fate: Fate | None = told.fate if told else "delivered"
        if fate is None or text.number in self.sms.reported:
            return
        try:
            await self.report(text, fate)
        except NotReported as exc:
            self.told("", f"SMS not reported: {exc}")

    def _numbers(self) -> list[str]:
        """Return the numbers of all invoices that were not grouped, newest first."""
        found = map(number_of, self.running.provider.transactions.values())
        return [number for number in found if number][::-1]

    async def standings(self) -> list[Standing]:
        """Return how the newest invoices stand, newest first."""
        transactions = list(self.running.provider.transactions.values())[-_SHOWN:]
        return [await self.standing(transaction) for transaction in reversed(transactions)]

    async def standing(self, transaction: Json) -> Standing:
        """Return how one invoice stands."""
        record = await self.record(transaction["id"]) or {}
        number = number_of(transaction)
        letters = self.mails(number)
        texts = [text.number for text in self.sms.inbox if number and number in text.asked.text]
        posted = [one.number for one in self.erp.inbox if number and one.invoice_number == number]
        country = (transaction.get("billing_address") or {}).get("country", "")
        return Standing(
            transaction_id=transaction["id"],
            number=number or "no number yet",
            buyer=buyer_of(transaction),
            kind=_KINDS.get(transaction["payment_product_type"], ""),
            country=COUNTRIES.get(country, country),
            amount=amount_of(transaction),
            outcome=str(record.get("outcome") or ""),
            reason=record.get("reason"),
            mail=letters[-1] if letters else None,
            text=texts[-1] if texts else None,
            posted=posted[-1] if posted else None,
            channel=record.get("channel"),
            proof=record.get("delivery_proof"),
            delivered="delivered" in (record.get("progress") or ()),
            begun=collection_begun(transaction),
            paid=transaction["status"] == "CAPTURED",
            voided=transaction["status"] == "AUTHORIZATION_VOIDED",
        )

    async def record(self, transaction_id: str) -> dict[str, Any] | None:
        """Return the service's record of a transaction."""
        text = await self.service.record(transaction_id)
        return None if text is None else dict(json.loads(text))


def number_of(transaction: Json) -> str:
    """Return the invoice number, or nothing while there is none."""
    return str((transaction.get("metadata") or {}).get("kravia:invoice_number", ""))


def amount_of(transaction: Json) -> str:
    """Return what is to be paid, as English readers write it."""
    currency = transaction["currency"]
    return f"{in_units(transaction['amount'], currency):,f} {currency}"


def buyer_of(transaction: Json) -> str:
    """Return whom an invoice is for."""
    billing = transaction.get("billing_address") or {}
    person = f"{billing.get('first_name', '')} {billing.get('last_name', '')}".strip()
    return str(billing.get("business_name") or person or "nobody")


def clock_time(at: datetime) -> str:
    """Return the local time of day."""
    return at.astimezone().strftime("%H:%M:%S")
