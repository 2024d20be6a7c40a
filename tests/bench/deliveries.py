"""Ratio 2: the processor's time for a delivery, against a script that makes the same calls and keeps nothing."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median

from tests.bench.ground import Ground, Measured, callback, free_port, settings, started
from tests.bench.load import Target, flood
from tests.bench.peers import Found, Peers, open_peers
from tests.bench.table import Figure
from tests.processes import ROOT, clean_environment

_TARGET = 1.0
_WITHIN = 120.0  # seconds that a round may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Something that delivers invoices: a process, and how it is told of those to deliver."""

    process: Measured
    tell: Callable[[Found], Awaitable[None]]


async def measure(ground: Ground) -> list[Figure]:
    """Measure on SQLite: the same peers, in another process, for both."""
    async with AsyncExitStack() as stack:
        peers = await stack.enter_async_context(open_peers(sales=sales(ground, 2)))
        service = await stack.enter_async_context(open_service(ground, peers.found, "sqlite"))
        naive = await stack.enter_async_context(open_naive(peers.found))
        ours, base = await costs(ground, peers, [service, naive])
    return [
        Figure(
            number=2,
            what="CPU per delivery, sqlite",
            ours=f"{median(ours) * 1000:.1f} ms",
            baseline=f"{median(base) * 1000:.1f} ms naive, not durable",
            value=median(one / other for one, other in zip(ours, base, strict=True)),
            target=_TARGET,
        )
    ]


def sales(ground: Ground, contestants: int) -> int:
    """Return how many invoices so many contestants need."""
    return contestants * (ground.size.warm + ground.size.rounds * ground.size.deliveries)


async def costs(ground: Ground, peers: Peers, contestants: Sequence[Contestant]) -> list[list[float]]:
    """Return each one's processor seconds for a delivery, round by round.

    They take turns, and change who is first, so that whatever else the machine does falls on all of them.
    """
    size, left, captured = ground.size, iter(peers.found.ids), 0
    found: list[list[float]] = [[] for _ in contestants]
    for number in range(size.rounds + 1):
        count = size.deliveries if number else size.warm
        for place, contestant in list(enumerate(contestants))[:: -1 if number % 2 else 1]:
            before = contestant.process.used()
            await contestant.tell(replace(peers.found, ids=[next(left) for _ in range(count)]))
            captured += count
            await peers.captured(captured, within=_WITHIN)
            await asyncio.sleep(0.5)  # the last of them is recorded
            if number:
                found[place].append((contestant.process.used() - before) / count)
        if number:
            ground.say("  " + ", ".join(f"{seconds[-1] * 1000:.2f}" for seconds in found) + " ms")
    return found


@asynccontextmanager
async def open_service(ground: Ground, found: Found, database: str) -> AsyncIterator[Contestant]:
    """Start the whole service."""
    port = free_port()
    environment = settings(found, port=port, database_url=ground.fresh(database))
    serve = ("-m", "service", "serve", "--host", "127.0.0.1", "--port", str(port))
    url, log = f"http://127.0.0.1:{port}/livez", ground.folder / f"service-{database}.log"
    async with started(*serve, environment=environment, log=log, ready=url) as process:
        yield Contestant(process=process, tell=by_callbacks(port))


def by_callbacks(port: int) -> Callable[[Found], Awaitable[None]]:
    """Return what tells a process of invoices as the provider does."""

    async def tell(found: Found) -> None:
        requests = [callback(found, port, transaction_id) for transaction_id in found.ids]
        await flood(Target(port=port, status=b"200", tail=b"\r\n\r\n{}"), requests, connections=4)

    return tell


@asynccontextmanager
async def open_naive(found: Found) -> AsyncIterator[Contestant]:
    """Start the script."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.naive",
        json.dumps(asdict(replace(found, ids=[]))),
        stdin=asyncio.subprocess.PIPE,
        env=clean_environment({}),
        cwd=ROOT,
    )
    assert process.stdin is not None
    stdin = process.stdin

    async def tell(some: Found) -> None:
        stdin.write(json.dumps(some.ids).encode() + b"\n")
        await stdin.drain()

    try:
        yield Contestant(process=Measured(process=process), tell=tell)
    finally:
        process.kill()
        await process.wait()
