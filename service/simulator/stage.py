"""The demo's stage: who plays, what is sold, and how each invoice stands; the pages show it, the story tells it."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Protocol

from starlette.types import ASGIApp

from service.money import in_units
from service.simulator.api import Running
from service.simulator.documents import Json, collection_begun
from service.simulator.faults import Faults
from service.simulator.letters import Letter, read_letter
from service.simulator.mail import Mail, MailServer
from service.simulator.months import CUSTOMERS, Groups, buy, next_issue, standing
from service.simulator.sales import Buyer, Country, sale

SHOP = "Nordlys Interiør"
COUNTRIES: dict[Country, str] = {"NO": "Norway", "SE": "Sweden", "FI": "Finland", "DK": "Denmark", "DE": "Germany"}
_OPTIONS = "report_event=VOID&report_event=CAPTURE&report_error=true"
_SHOWN = 30  # invoices on the page, the newest


class Service(Protocol):
    """The service, as the demo needs it."""

    @property
    def asgi(self) -> ASGIApp:
        """Its public face: `/callback`, `/livez`, `/readyz`."""

    def record(self, transaction_id: str) -> Awaitable[str | None]:
        """Return the delivery with its history as JSON text, or None when it is unknown."""

    def groups(self) -> Awaitable[str]:
        """Return, as JSON text, what it expects of each group of purchases, and what of it was billed otherwise."""

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
    service: Service
    clock: Movable
    random: Random
    told: Callable[[str, str], None]  # (invoice number or "", what happened)
    sold: Callable[[str], None] = _ignore  # (transaction id)
    letters: list[Letter] = field(default_factory=list)  # oldest first, numbered as in the mail server's inbox

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

    def create(self, buyer: Buyer = "business", country: Country = "NO", channel: str = "merchant") -> str:
        """Sell something, as the shop would; return the transaction's id."""
        provider = self.running.provider
        body = sale(
            buyer=buyer,
            country=country,
            channel=channel,
            callback_url=self.callback_url,
            reference=f"order-{1001 + len(provider.transactions)}",
            random=self.random,
        )
        transaction_id = str(provider.bill(body)["id"])
        transaction = provider.transaction(transaction_id)
        self.told(number_of(transaction), f"invoice created: {amount_of(transaction)} to {buyer_of(transaction)}")
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
        number = next(
            (n for n in map(number_of, self.running.provider.transactions.values()) if letter.is_about(n)), ""
        )
        self.told(
            number, f"mail delivered: {letter.subject} (the relay answered 250 2.0.0 Ok: queued as {mail.queue_id})"
        )

    async def standings(self) -> list[Standing]:
        """Return how the newest invoices stand, newest first."""
        transactions = list(self.running.provider.transactions.values())[-_SHOWN:]
        return [await self.standing(transaction) for transaction in reversed(transactions)]

    async def standing(self, transaction: Json) -> Standing:
        """Return how one invoice stands."""
        record = await self.record(transaction["id"]) or {}
        number = number_of(transaction)
        letters = self.mails(number)
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
