"""Ratio 6: what a second process brings, where each network call takes its time."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from service.clock import SystemClock
from service.delivery import Arrival
from service.store import open_store
from tests.bench.ground import Ground, free_port, settings, started
from tests.bench.peers import open_peers
from tests.bench.table import Figure
from tests.fakes import ACCOUNT

_TARGET = 1.8
_CONCURRENCY = 4
_WITHIN = 240.0


async def measure(ground: Ground) -> list[Figure]:
    """Measure on PostgreSQL (on what there is, when it is only tried out)."""
    database = ground.databases[-1]
    one, two = [await _rate(ground, database, processes) for processes in (1, 2)]
    return [
        Figure(
            number=6,
            what=f"deliveries a second, two workers, {database}",
            ours=f"{two:.1f}",
            baseline=f"{one:.1f} by one",
            value=two / one,
            target=_TARGET,
            at_least=True,
        )
    ]


async def _rate(ground: Ground, database: str, processes: int) -> float:
    """Return the deliveries a second by so many workers, from the moment that all of them are in the record."""
    size, url = ground.size, ground.fresh(database)
    async with AsyncExitStack() as stack:
        peers = await stack.enter_async_context(open_peers(sales=size.slow_deliveries, delay=size.delay))
        store = await stack.enter_async_context(open_store(url, clock=SystemClock()))
        for _ in range(processes):
            port = free_port()
            environment = settings(
                peers.found,
                port=port,
                database_url=url,
                CONCURRENCY=str(_CONCURRENCY),
                ADMIN_PORT=str(port),
            )
            ready, log = f"http://127.0.0.1:{port}/livez", ground.folder / "replicas.log"
            await stack.enter_async_context(
                started("-m", "service", "worker", environment=environment, log=log, ready=ready)
            )
        began = time.monotonic()
        arrivals = (Arrival(transaction_id=i, account_id=ACCOUNT, at=datetime.now(UTC)) for i in peers.found.ids)
        await asyncio.gather(*(store.receive(arrival) for arrival in arrivals))
        await peers.captured(size.slow_deliveries, within=_WITHIN)
        return size.slow_deliveries / (time.monotonic() - began)
