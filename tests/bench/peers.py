"""The simulated provider and its mail server in a process of their own: the peers of whatever is measured.

Run with a JSON object (`sales`, `pdf_bytes`, `delay`) as its argument, it prints one line of JSON that says where it is
and what was sold, and for each line it reads then one more with the captures and mails so far.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from random import Random

from pypdf import PdfWriter
from starlette.types import ASGIApp, Receive, Scope, Send

from service import log
from service.clock import SystemClock
from service.serving import listen, origin, serving
from service.simulator.api import api
from service.simulator.keys import Account, Keys
from service.simulator.mail import Behaviour, MailServer, Phase, open_mail_server
from service.simulator.provider import Provider
from service.simulator.sales import sale
from tests.processes import ROOT, clean_environment

_LINE = 1 << 26  # bytes; the first line names every transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the peers are, who may come in, and the ids of what was sold."""

    url: str
    smtp_url: str
    client_id: str
    client_secret: str
    signature_secret: str
    ids: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the peers have seen so far."""

    captured: int
    mails: int


class Peers:
    """The process, as those who measure see it."""

    def __init__(self, process: asyncio.subprocess.Process, found: Found) -> None:
        self.found = found
        self._process = process

    async def count(self) -> Counted:
        """Ask what has come so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return Counted(**json.loads(await _line(self._process)))

    async def captured(self, count: int, *, within: float) -> None:
        """Wait until so many captures have been made. Raises `TimeoutError`."""
        async with asyncio.timeout(within):
            while (await self.count()).captured < count:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def open_peers(*, sales: int, pdf_bytes: int = 40_000, delay: float = 0.0) -> AsyncIterator[Peers]:
    """Start them with so many invoices sold; `delay` (seconds) is what each HTTP answer and each mail takes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.peers",
        json.dumps({"sales": sales, "pdf_bytes": pdf_bytes, "delay": delay}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment({}),
        cwd=ROOT,
        limit=_LINE,
    )
    try:
        yield Peers(process, Found(**json.loads(await _line(process))))
    finally:
        process.kill()
        await process.wait()


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the peers have ended; what they said stands above")
    return line


# --- inside the process ----------------------------------------------------------------------------------------------


def document(size: int) -> bytes:
    """Return a PDF of about so many bytes: a page, and an attachment that no compression makes smaller."""
    writer = PdfWriter()
    writer.add_blank_page(595, 842)
    writer.add_attachment("filling.bin", Random(1).randbytes(max(0, size - 1500)))
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def _slow(app: ASGIApp, delay: float) -> ASGIApp:
    async def later(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(delay)
        await app(scope, receive, send)

    return later if delay else app


async def _main(*, sales: int, pdf_bytes: int, delay: float) -> None:
    clock, random, pdf = SystemClock(), Random(1), document(pdf_bytes)
    sock = listen()
    keys = Keys(account=Account(), clock=clock, random=random)
    provider = Provider(
        base_url=f"{origin(sock)}/v1",
        cdn_url=f"{origin(sock)}/cdn",
        clock=clock,
        random=random,
        keys=keys,
        draw=lambda _: pdf,
        file_way="bytes",  # one call for the document
    )
    log.configure("json", "warning", stream=sys.stderr)
    mail = MailServer(clock=clock, random=random)
    mail.arrived = lambda _: mail.inbox.clear()  # a mail of megabytes is not kept; `transactions` counts them
    if delay:
        mail.script.on(Phase.CONTENT, Behaviour(delay=delay))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_mail_server(mail))
        await stack.enter_async_context(serving(_slow(api(provider), delay), sock))
        bodies = (sale(callback_url="", reference=f"order-{n}", random=random) for n in range(sales))
        found = Found(
            url=provider.base_url,
            smtp_url=mail.url,
            client_id=keys.account.client_id,
            client_secret=keys.account.client_secret,
            signature_secret=keys.signature_secret,
            ids=[provider.bill(body)["id"] for body in bodies],
        )
        print(json.dumps(asdict(found)), flush=True)  # noqa: T201
        while await asyncio.to_thread(sys.stdin.readline):
            counted = Counted(captured=len(provider.captures), mails=mail.transactions)
            print(json.dumps(asdict(counted)), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main(**json.loads(sys.argv[1])))
