"""What the pipelines on other engines have in common: the callback in front, and connections to the peers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiosmtplib
import httpx2 as httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.delivery import Arrival, CallbackRequest
from service.dintero.callback import Authenticator
from tests.bench.naive import AT_ONCE, Shop, open_shop, open_smtp
from tests.bench.peers import Found
from tests.fakes import ACCOUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """What the steps of naive.py need; a relay's connection is taken and given back."""

    shop: Shop
    relays: "asyncio.Queue[aiosmtplib.SMTP]"


@asynccontextmanager
async def open_peers(found: Found) -> AsyncIterator[Peers]:
    """Connect to the provider and, so many times, to the relay."""
    relays: asyncio.Queue[aiosmtplib.SMTP] = asyncio.Queue()
    for _ in range(AT_ONCE):
        relays.put_nowait(await open_smtp(found.smtp_url))
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        yield Peers(shop=await open_shop(http, found), relays=relays)


async def serve(found: Found, port: int, enqueue: Callable[[str], Awaitable[object]]) -> None:
    """Take signed callbacks, as ours does, and answer once the transaction is in the queue."""
    authenticator = Authenticator(
        account_id=ACCOUNT,
        secrets=(found.signature_secret,),
        public_urls=(f"http://127.0.0.1:{port}",),
        tolerance=300,
    )

    async def callback(request: Request) -> Response:
        asked = CallbackRequest(
            method=request.method,
            raw_query=request.scope["query_string"].decode("latin-1"),
            signature=request.headers.get("dintero-signature"),
        )
        arrival = authenticator.arrival(asked, datetime.now(UTC))
        assert isinstance(arrival, Arrival)
        await enqueue(arrival.transaction_id)
        return JSONResponse({})

    app = Starlette(routes=[Route("/callback", callback)])
    config = uvicorn.Config(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")
    await uvicorn.Server(config).serve()
