"""Ratio 3: the processor's time for a delivery, against the same calls as steps of Procrastinate and of DBOS."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from statistics import median

from tests.bench.deliveries import Contestant, by_callbacks, costs, open_service, sales
from tests.bench.ground import Ground, free_port, started
from tests.bench.peers import Found, open_peers
from tests.bench.table import Figure

_TARGETS = {"procrastinate": 1.0, "dbos": 1 / 3}


async def measure(ground: Ground) -> list[Figure]:
    """Measure on PostgreSQL, from the callback on, with the calls of naive.py as the others' steps."""
    async with AsyncExitStack() as stack:
        peers = await stack.enter_async_context(open_peers(sales=sales(ground, 1 + len(_TARGETS))))
        service = await stack.enter_async_context(open_service(ground, peers.found, "postgresql"))
        others = [await stack.enter_async_context(_open(ground, peers.found, name)) for name in _TARGETS]
        ours, *theirs = await costs(ground, peers, [service, *others])
    return [
        Figure(
            number=3,
            what="CPU per delivery, postgresql",
            ours=f"{median(ours) * 1000:.1f} ms",
            baseline=f"{median(base) * 1000:.1f} ms on {name}",
            value=median(one / other for one, other in zip(ours, base, strict=True)),
            target=_TARGETS[name],
        )
        for name, base in zip(_TARGETS, theirs, strict=True)
    ]


@asynccontextmanager
async def _open(ground: Ground, found: Found, name: str) -> AsyncIterator[Contestant]:
    port, url = free_port(), ground.fresh("postgresql")
    command = ("-m", f"tests.bench.on_{name}", json.dumps(asdict(replace(found, ids=[]))), str(port), url)
    ready, log = f"http://127.0.0.1:{port}/livez", ground.folder / f"{name}.log"
    async with started(*command, environment={}, log=log, ready=ready) as process:
        yield Contestant(process=process, tell=by_callbacks(port))
