"""`python -m tests.torture`: minutes of kills, faults and load on both databases, then the promises are checked."""

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import psycopg
import structlog

from tests.postgres import running_server
from tests.torture.chaos import Chaos
from tests.torture.site import Site, open_site

EVERY = 0.5  # seconds between two sales of a site, about


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is a program for a terminal


async def load(site: Site, random: Random, until: float) -> None:
    while time.monotonic() < until:
        await site.sell()
        await asyncio.sleep(random.expovariate(1 / EVERY))


async def report(sites: list[Site], until: float) -> None:
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(15, left))
        for site in sites:
            starts = sum(replica.started for replica in site.replicas)
            say(f"{site.name}: {len(site.sold)} sold, {len(site.witness.seen)} effects, {starts} starts; {left:.0f} s")


async def torture(sites: list[Site], seconds: float, seed: int) -> int:
    until = time.monotonic() + seconds
    chaoses = [Chaos(site) for site in sites]
    loads = [load(site, Random(f"{seed} {site.name}"), until) for site in sites]
    rages = [chaos.rage(lambda: time.monotonic() > until) for chaos in chaoses]
    await asyncio.gather(report(sites, until), *loads, *rages)
    broken = 0
    for site, chaos in zip(sites, chaoses, strict=True):
        try:
            deliveries = await site.settle(say)
            await site.judge(deliveries)
        except AssertionError as exc:
            broken += 1
            say(f"{site.name}: BROKEN: {exc}")
            continue
        outcomes = Counter(delivery.outcome.value for delivery in deliveries)
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        deeds = ", ".join(f"{count} x {deed}" for deed, count in sorted(chaos.done.items()))
        by = site.counted
        say(f"{site.name}: " + ", ".join(f"{count} x {kind}" for kind, count in sorted(by.items())))
        say(f"{site.name}: the promises hold for {len(deliveries)} deliveries ({told}) after {deeds}")
    return 1 if broken else 0


async def run(minutes: float, seed: int, folder: Path) -> int:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_server())
        with psycopg.connect(f"host={server} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE torture")
        postgres = f"postgresql://postgres@/torture?host={server}"
        plans = (
            ("SQLite", f"sqlite:///{folder}/torture.db", ("serve", "worker")),
            ("PostgreSQL", postgres, ("serve", "serve", "serve")),
        )
        sites = [
            await stack.enter_async_context(open_site(name, url, folder / name, Random(f"{seed} {name}"), commands))
            for name, url, commands in plans
        ]
        return await torture(sites, minutes * 60, seed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--keep", type=Path, help="a folder for logs and record; a temporary one if not given")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    say(f"The same again: make torture MINUTES={given.minutes:g} SEED={given.seed}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return asyncio.run(run(given.minutes, given.seed, folder))


if __name__ == "__main__":
    sys.exit(main())
