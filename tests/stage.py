"""The whole stage on loopback: a simulated provider, a mail server, and the service between them."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from random import Random
from typing import Any

from service.app import App, open_app
from service.delivery import Delivery, Outcome
from service.dintero.wire import Timeouts
from service.serving import listen, origin, serving
from service.settings import Need, load_settings
from service.simulator.api import Running, open_provider
from service.simulator.documents import Personality
from service.simulator.faults import Faults
from service.simulator.mail import MailServer, open_mail_server
from service.simulator.provider import Provider
from service.simulator.sales import sale
from tests.fakes import ACCOUNT, MovedClock

OPTIONS = "report_event=VOID&report_event=CAPTURE&report_error=true"


def environment(provider: Running, mail: MailServer, *, public_url: str, database_url: str) -> dict[str, str]:
    """Return settings that fit the stage; tests change single ones."""
    return {
        "DELIVERY_ACCOUNT_ID": ACCOUNT,
        "DELIVERY_CLIENT_ID": provider.provider.keys.account.client_id,
        "DELIVERY_CLIENT_SECRET": provider.provider.keys.account.client_secret,
        "DELIVERY_CHECKOUT_URL": provider.url,
        "DELIVERY_API_URL": provider.url,
        "DELIVERY_FILE_HOSTS": "127.0.0.1",
        "DELIVERY_SIGNATURE_SECRETS": provider.provider.keys.signature_secret,
        "DELIVERY_PUBLIC_URL": public_url,
        "DELIVERY_DATABASE_URL": database_url,
        "DELIVERY_SMTP_URL": mail.url,
        "DELIVERY_MAIL_FROM": "Butikken AS <faktura@butikken.example>",
        "DELIVERY_ALLOW_REAL_RECIPIENTS": "true",
        "DELIVERY_BRAND_NAME": "Butikken AS",
        "DELIVERY_RETRY_DELAYS": "60,300",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a test does to the stage, and sees on it."""

    clock: MovedClock
    running: Running
    mail: MailServer
    app: App
    url: str

    @property
    def provider(self) -> Provider:
        return self.running.provider

    @property
    def faults(self) -> Faults:
        """What goes wrong at the provider and at the mail server."""
        return self.mail.faults

    def sell(self, *, change: Callable[[Any], object] | None = None, **terms: Any) -> str:
        """Make a sale whose invoice is due now; the provider calls back at once. Return the transaction's id."""
        callback_url = f"{self.url}/callback?{OPTIONS}"
        body = sale(callback_url=callback_url, random=Random(len(self.provider.transactions)), **terms)
        if change:
            change(body)
        transaction_id: str = self.provider.bill(body)["id"]
        return transaction_id

    async def settle(self, *, after: float = 0) -> None:
        """Let the callbacks in and do what is due, `after` so many seconds."""
        self.clock.advance(after)
        await self.running.caller.idle()
        await self.app.worker.drain()
        await self.running.caller.idle()
        await self.app.worker.drain()

    async def delivery(self, transaction_id: str) -> Delivery:
        (found,) = await self.app.store.find(transaction_id)
        return found

    async def closed(self, count: int, *, within: float = 60) -> tuple[Delivery, ...]:
        """Wait until so many deliveries are closed while the service runs; return them all."""
        async with asyncio.timeout(within):
            while True:
                listed = await self.app.store.listing()
                if sum(d.outcome is not Outcome.OPEN for d in listed) >= count:
                    return listed
                await asyncio.sleep(0.05)

    def mails(self) -> list[EmailMessage]:
        return [parsed(mail.content) for mail in self.mail.inbox]


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def attachment(message: EmailMessage) -> bytes:
    (part,) = message.iter_attachments()
    content = part.get_content()
    assert isinstance(content, bytes)
    return content


@asynccontextmanager
async def open_stage(
    database_url: str,
    *,
    personality: Personality = "current",
    settings: dict[str, str] | None = None,
    path: str = "",
    timeouts: Timeouts | None = None,
    **options: Any,
) -> AsyncIterator[Stage]:
    """Open the stage, with the service under a `path` of its host; the worker does not run, `settle` drains it."""
    clock = MovedClock()
    faults = Faults(Random(11))
    server = MailServer(clock=clock, random=Random(7), faults=faults)
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(listen())
        url = origin(sock)
        usual: dict[str, Any] = {"clock": clock, "callback_schedule": (0.01,), "faults": faults}
        opened = open_provider(personality=personality, **(usual | options))
        running = await stack.enter_async_context(opened)
        mail = await stack.enter_async_context(open_mail_server(server))
        env = environment(running, mail, public_url=url + path, database_url=database_url) | (settings or {})
        loaded = load_settings(env, need=Need.SERVE)
        app = await stack.enter_async_context(open_app(loaded, clock=clock, jitter=lambda: 0.5, timeouts=timeouts))
        await stack.enter_async_context(serving(app.public, sock))
        yield Stage(clock=clock, running=running, mail=mail, app=app, url=url + path)
