"""A shop whose provider and mail server outlive any record of ours, and the service that comes and goes."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from service.app import App, open_app
from service.delivery import Delivery, Step
from service.serving import listen, origin, serving
from service.settings import Need, load_settings
from service.simulator.api import Running, open_provider
from service.simulator.documents import Json, instant
from service.simulator.mail import MailServer, open_mail_server
from service.simulator.sales import sale
from tests.fakes import MovedClock
from tests.stage import OPTIONS, attachment, environment, parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A provider and a mail server that outlive any record of ours; callbacks go to whatever service is open."""

    clock: MovedClock
    running: Running
    mail: MailServer
    url: str
    port: int

    def sell(self, *, callback: bool = False, **terms: Any) -> str:
        """Sell something; without `callback`, nobody is told of it."""
        url = f"{self.url}/callback?{OPTIONS}" if callback else ""
        provider = self.running.provider
        body = sale(callback_url=url, random=Random(len(provider.transactions)), **terms)
        transaction_id: str = provider.bill(body)["id"]
        return transaction_id

    def backdate(self, transaction_id: str, **ago: float) -> None:
        """Make a transaction and all that happened to it older than it is."""
        at = instant(self.clock.now() - timedelta(**ago))

        def change(document: Json) -> None:
            for dated in (document, *document["events"]):
                dated["created_at"] = at

        self.running.provider.edit(transaction_id, change)

    def mailed(self) -> list[str]:
        """Return whose invoices went out, in the order in which they did."""
        provider = self.running.provider
        whose = {provider.document(one): one for one in provider.transactions}
        return [whose[attachment(parsed(mail.content))] for mail in self.mail.inbox]

    def captures(self) -> list[str]:
        return [seen.transaction_id for seen in self.running.provider.captures]

    @asynccontextmanager
    async def service(self, database_url: str, **settings: str) -> AsyncIterator["Service"]:
        """Open the service with this record; neither worker nor chores run, `settle` does what is due."""
        env = environment(self.running, self.mail, public_url=self.url, database_url=database_url)
        env |= {f"DELIVERY_{name.upper()}": value for name, value in settings.items()}
        async with AsyncExitStack() as stack:
            opened = open_app(load_settings(env, need=Need.SERVE), clock=self.clock, jitter=lambda: 0.5)
            app = await stack.enter_async_context(opened)
            await stack.enter_async_context(serving(app.public, stack.enter_context(listen(port=self.port))))
            yield Service(shop=self, app=app)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The service while it is open."""

    shop: Shop
    app: App

    async def settle(self, *, after: float = 0) -> None:
        """Let callbacks in, look for missed ones if it is time to, and do what is due, `after` so many seconds."""
        self.shop.clock.advance(after)
        await self.shop.running.caller.idle()
        await self.app.chores.look()
        await self.app.worker.drain()
        await self.shop.running.caller.idle()
        await self.app.worker.drain()

    async def record(self) -> dict[str, Delivery]:
        return {delivery.transaction_id: delivery for delivery in await self.app.store.listing()}

    async def details(self, transaction_id: str, step: Step) -> list[str | None]:
        return [entry.detail for entry in await self.app.store.history(transaction_id) if entry.step is step]


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    """Open a provider and a mail server; nothing of ours runs yet."""
    clock = MovedClock()
    server = MailServer(clock=clock, random=Random(7))
    with listen() as sock:
        url, port = origin(sock), sock.getsockname()[1]
    async with open_provider(clock=clock, callback_schedule=(0.01,)) as provider, open_mail_server(server) as mail:
        yield Shop(clock=clock, running=provider, mail=mail, url=url, port=port)


def outcomes(record: dict[str, Delivery]) -> dict[str, str]:
    return {one: delivery.outcome.value for one, delivery in record.items()}
