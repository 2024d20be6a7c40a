"""What every measurement stands on: databases, ports, settings, the service's process, and how much is done."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2 as httpx
import psycopg

from service.dintero.callback import signed_header
from tests.bench.meter import peak_memory, seconds_used
from tests.bench.peers import Found
from tests.fakes import ACCOUNT
from tests.postgres import running_server
from tests.processes import ROOT, clean_environment

# The tests' own server need not survive a power cut; what is measured must.
_DURABLE = ("fsync=on", "full_page_writes=on", "synchronous_commit=on", "wal_sync_method=fdatasync")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done; the figures mean something at `FULL` only."""

    rounds: int
    callbacks: int  # in a round
    connections: int
    deliveries: int  # in a round
    warm: int  # deliveries before those that count
    rows: int  # in the large record
    few_rows: int  # in the small one
    due: int  # of either
    large_pdfs: int
    large_pdf_bytes: int
    slow_deliveries: int
    delay: float  # seconds that a slow peer takes


FULL = Size(
    callbacks=2000,
    rounds=10,
    connections=64,
    deliveries=80,
    warm=64,
    rows=1_000_000,
    few_rows=10_000,
    due=1000,
    large_pdfs=64,
    large_pdf_bytes=5_000_000,
    slow_deliveries=400,
    delay=0.05,
)
SMALL = Size(
    callbacks=40,
    rounds=1,
    connections=4,
    deliveries=3,
    warm=2,
    rows=400,
    few_rows=100,
    due=50,
    large_pdfs=2,
    large_pdf_bytes=200_000,
    slow_deliveries=4,
    delay=0.01,
)


@dataclass(slots=True, kw_only=True)
class Ground:
    """Where it is measured. `postgres` is the URL of a server's own database, once one was asked for."""

    size: Size
    folder: Path
    databases: Sequence[str]
    postgres: str | None = None
    _stack: ExitStack
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def fresh(self, database: str) -> str:
        """Return the URL of a database of this kind that holds nothing yet."""
        number = next(self._numbers)
        if database == "sqlite":
            return f"sqlite:///{self.folder}/{number}.db"
        if self.postgres is None:
            folder = self._stack.enter_context(running_server(*_DURABLE))
            self.postgres = f"postgresql://postgres@/postgres?host={folder}"
        name = f"bench_{number}"
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.postgres.replace("/postgres?", f"/{name}?")

    @staticmethod
    def say(text: str) -> None:
        """Show how far it is, on standard error: the table alone is on standard output."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def open_ground(size: Size, databases: Sequence[str]) -> Iterator[Ground]:
    """Open a folder in the checkout, for a temporary one may be in memory, where nothing is durable."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="bench-", dir=build) as folder, ExitStack() as stack:
        yield Ground(size=size, folder=Path(folder), databases=databases, _stack=stack)


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


NOBODY = Found(
    url="http://127.0.0.1:9/v1",
    smtp_url="smtp+insecure://127.0.0.1:9",
    client_id="nobody",
    client_secret="nothing",
    signature_secret="simulated-signature-secret",
    ids=[],
)
"""Peers that nobody asks."""


def settings(found: Found, *, port: int, database_url: str, **more: str) -> dict[str, str]:
    """Return the service's settings; `more` are names without their prefix."""
    named = {
        "ACCOUNT_ID": ACCOUNT,
        "CLIENT_ID": found.client_id,
        "CLIENT_SECRET": found.client_secret,
        "CHECKOUT_URL": found.url,
        "API_URL": found.url,
        "FILE_HOSTS": "127.0.0.1",
        "SIGNATURE_SECRETS": found.signature_secret,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "DATABASE_URL": database_url,
        "SMTP_URL": found.smtp_url,
        "MAIL_FROM": "Butikken AS <faktura@butikken.example>",
        "ALLOW_REAL_RECIPIENTS": "true",
        "BRAND_NAME": "Butikken AS",
        "RECONCILE_EVERY": "0",
        **more,
    }
    return {f"DELIVERY_{name}": value for name, value in named.items()}


def callback(found: Found, port: int, transaction_id: str) -> bytes:
    """Return a signed callback as it goes over the wire."""
    target = f"/callback?transaction_id={transaction_id}&merchant_reference=order-1&time=2026-11-20T10%3A00%3A00Z"
    header = signed_header(found.signature_secret, ACCOUNT, "GET", f"http://127.0.0.1:{port}{target}", int(time.time()))
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Dintero-Signature: {header}",
        "event-delivery: 7a0b3c4d-0000-4000-8000-000000000001",
        "User-Agent: Dintero-Simulated/1",
        "Accept: */*",
    )
    return "\r\n".join((*lines, "", "")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A process that is measured from outside."""

    process: asyncio.subprocess.Process

    def used(self) -> float:
        """Processor seconds so far, children included."""
        return seconds_used(self.process.pid)

    def peak(self) -> int:
        """Bytes of memory at most so far, children included."""
        return peak_memory(self.process.pid)


@asynccontextmanager
async def started(*command: str, environment: dict[str, str], log: Path, ready: str | None) -> AsyncIterator[Measured]:
    """Run `python` with these arguments, what it says going to a file, until `ready` (a URL) answers; then stop it."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=clean_environment(environment), cwd=log.parent, stdout=output, stderr=output
        )
        try:
            if ready:
                await _answers(ready, process)
            yield Measured(process=process)
        except Exception as exc:
            exc.add_note(f"what {' '.join(command)} said last:\n{_end_of(log)}")
            raise
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 40)
            except TimeoutError:
                process.kill()
                await process.wait()


def _end_of(log: Path) -> str:
    return log.read_text()[-2000:]


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
        while True:
            if process.returncode is not None:
                raise RuntimeError("it has ended")
            try:
                await client.get(url)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


def file_system(folder: Path) -> str:
    """Return the kind of the file system that a folder is in."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [(len(at), kind) for at, kind in mounts if folder.resolve().is_relative_to(at)]
    return max(inside)[1]
