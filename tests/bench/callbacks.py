"""Ratio 1: durable callbacks a second, against a bare route that answers 204 and keeps nothing."""

from contextlib import AsyncExitStack
from statistics import median

from tests.bench.ground import NOBODY, Ground, callback, free_port, settings, started
from tests.bench.load import Load, Target, flood, pace
from tests.bench.table import Figure

_TARGETS = {"sqlite": 0.30, "postgresql": 0.15}
_SLOWEST = 50.0  # ms


async def measure(ground: Ground) -> list[Figure]:
    """Measure on every database."""
    return [figure for database in ground.databases for figure in await _measured(ground, database)]


async def _measured(ground: Ground, database: str) -> list[Figure]:
    size, bare_port, our_port = ground.size, free_port(), free_port()
    environment = settings(NOBODY, port=our_port, database_url=ground.fresh(database))
    bare = Target(port=bare_port, status=b"204", tail=b"\r\n\r\n")
    ours = Target(port=our_port, status=b"200", tail=b"\r\n\r\n{}")
    numbers = iter(range(10_000_000))

    def some(port: int, count: int) -> list[bytes]:
        return [callback(NOBODY, port, f"T12345678.{next(numbers):08d}abcdefghijkl") for _ in range(count)]

    async with AsyncExitStack() as stack:
        begin = stack.enter_async_context
        url = f"http://127.0.0.1:{bare_port}/callback"
        log = ground.folder / "callbacks.log"
        await begin(started("-m", "tests.bench.bare", str(bare_port), environment={}, log=log, ready=url))
        serve = ("-m", "service", "serve", "--no-worker", "--host", "127.0.0.1", "--port", str(our_port))
        url = f"http://127.0.0.1:{our_port}/livez"
        await begin(started(*serve, environment=environment, log=log, ready=url))
        pairs: list[tuple[Load, Load]] = []
        for number in range(size.rounds + 1):
            nothing = await flood(bare, some(bare_port, size.callbacks), connections=size.connections)
            durable = await flood(ours, some(our_port, size.callbacks), connections=size.connections)
            if number:  # the first is for warming up
                pairs.append((nothing, durable))
                ground.say(f"  {database}: {durable.rate:.0f} durable, {nothing.rate:.0f} bare, a second")
        rate = median(durable.rate for _, durable in pairs)
        paced = [
            await pace(ours, some(our_port, size.callbacks), connections=size.connections, rate=rate / 2)
            for _ in range(size.rounds)
        ]
    late = median(load.p99 for load in paced) * 1000
    return [
        Figure(
            number=1,
            what=f"durable callbacks a second, {database}",
            ours=f"{rate:.0f}",
            baseline=f"{median(nothing.rate for nothing, _ in pairs):.0f} bare 204",
            value=median(durable.rate / nothing.rate for nothing, durable in pairs),
            target=_TARGETS[database],
            at_least=True,
        ),
        Figure(
            number=1,
            what=f"p99 at half of that load, {database}",
            ours=f"{rate / 2:.0f} a second",
            baseline="",
            value=late,
            target=_SLOWEST,
            unit=" ms",
        ),
    ]
