"""Invoice pages served on loopback over a real record, for the tests of their answers and of how they look."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from service.delivery import Arrival, Brand, Delivery, Outcome, Schedule, Transaction
from service.links import InvoiceLinks
from service.metrics import Metrics
from service.render import open_pages
from service.sealing import KEY_BYTES, Seal
from service.serving import listen, origin, serving
from service.store import SqlStore, open_store
from service.vault import DatabaseVault
from service.web.pages import invoice_pages
from service.web.public import public_app
from tests.fakes import ACCOUNT, MovedClock, a_transaction

BRAND = Brand(
    name="Nordlys Møbler AS",
    organization_number="923456789",
    support_email="kundeservice@nordlys.example",
    support_phone="+47 22 12 34 56",
    website="https://www.nordlys.example/",
)
TODAY = datetime.now(UTC).date()
TRANSACTION = a_transaction(
    f"{ACCOUNT}.a",
    amount=1234550,
    invoice_date=TODAY - timedelta(days=1),
    due_date=TODAY + timedelta(days=14),
    payment_reference="0012345678903",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A running site with one invoice that was delivered."""

    url: str
    store: SqlStore
    clock: MovedClock
    links: InvoiceLinks
    delivery: Delivery

    async def token(self, document: bytes, *, locale: str = "nb", transaction: Transaction = TRANSACTION) -> str:
        """Return the token of a link to a document."""
        return (await self.links.link(self.delivery, transaction, document, locale=locale)).rpartition("/")[2]


def nobody(_request: object, _now: object) -> Any:
    raise AssertionError


@asynccontextmanager
async def open_site(database_url: str, *, brand: Brand = BRAND, prefix: str = "") -> AsyncIterator[Site]:
    """Open the site, under a path of its host if one is given."""
    clock = MovedClock()
    async with open_store(database_url, clock=clock) as store:
        await store.receive(Arrival(transaction_id=TRANSACTION.id, account_id=ACCOUNT, at=clock.now()))
        (claim,) = await store.claim(ACCOUNT, "provider", 1, lease=60, suspects=False)
        done = replace(claim.delivery, outcome=Outcome.COMPLETED, closed_at=clock.now())
        await store.save(claim, done, Schedule(due_in=None))
        links = InvoiceLinks(
            store=store,
            vault=DatabaseVault(store=store),
            seal=Seal(key=bytes(KEY_BYTES)),
            clock=clock,
            public_url="http://localhost",
            days=60,
            timezone=ZoneInfo("Europe/Oslo"),
        )
        app = public_app(
            authenticate=nobody,
            store=store,
            wake=lambda: None,
            metrics=Metrics(),
            clock=clock,
            prefixes=(prefix,) if prefix else (),
            pages=invoice_pages(links, open_pages(brand=brand, templates_dir=None, locale="nb"), Metrics(), clock),
        )
        with listen() as sock:
            async with serving(app, sock):
                yield Site(url=origin(sock) + prefix, store=store, clock=clock, links=links, delivery=done)
