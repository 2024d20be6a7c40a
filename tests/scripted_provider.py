"""A provider over real HTTP that answers from a script, for the tests of the client."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from service.delivery import ChannelDefault
from service.dintero.client import Dintero, open_dintero
from service.dintero.wire import Timeouts
from tests.fakes import MovedClock
from tests.servers import Handler, Loopback, Reply, Seen, json_reply, serve

ACCOUNT = "T12345678"
ID = f"{ACCOUNT}.465UfBENeLpkBvwmqfTC4k"
SECRET = "very-secret-secret"
TOKEN_PATH = f"/api/v1/accounts/{ACCOUNT}/auth/token"


@dataclass(slots=True)
class Script:
    """Replies by path, in turn; the last one stays. Tokens are `token-1`, `token-2`, ... as they are asked for."""

    replies: dict[str, list[Reply | Handler]] = field(default_factory=lambda: defaultdict(list))
    expires_in: object = 14400
    tokens: int = 0

    def on(self, path: str, *replies: Reply | Handler) -> None:
        self.replies[path] = list(replies)

    async def handle(self, request: Seen) -> Reply:
        path = request.target.partition("?")[0]
        waiting = self.replies[path]
        if waiting:
            reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            return reply if isinstance(reply, Reply) else await reply(request)
        if path == TOKEN_PATH:
            return self.token()
        return json_reply({"error": {"code": "NOT FOUND", "message": f"no {path}"}}, 404)

    def token(self) -> Reply:
        self.tokens += 1
        return json_reply(
            {"access_token": f"token-{self.tokens}", "token_type": "Bearer", "expires_in": self.expires_in}
        )


@dataclass(slots=True, kw_only=True)
class Scripted:
    """The client under test, with what is around it."""

    dintero: Dintero
    server: Loopback
    script: Script
    clock: MovedClock

    def transaction(self, *replies: Reply | Handler) -> None:
        self.script.on(f"/checkout/v1/transactions/{ID}", *replies)

    def capture(self, *replies: Reply | Handler) -> None:
        self.script.on(f"/checkout/v1/transactions/{ID}/capture", *replies)

    def tokens_fetched(self) -> int:
        return len(self.server.to(TOKEN_PATH))


@asynccontextmanager
async def scripted(**changes: Any) -> AsyncIterator[Scripted]:
    """Open a client against a scripted provider; `checkout_url` and `api_url` are formats over the server's URL."""
    script, clock = Script(), MovedClock()
    async with serve(script.handle) as server:
        values: dict[str, Any] = {
            "account_id": ACCOUNT,
            "client_id": "client",
            "client_secret": SECRET,
            "checkout_url": f"{server.url}/checkout/v1/",
            "api_url": f"{server.url}/api/v1",
            "file_hosts": ("127.0.0.1",),
            "max_pdf_bytes": 100_000,
            "invoice_channel": ChannelDefault(),
            "clock": clock,
            "version": "1.2.3",
            "timeouts": Timeouts(),
        }
        async with open_dintero(**{**values, **changes}) as dintero:
            yield Scripted(dintero=dintero, server=server, script=script, clock=clock)
