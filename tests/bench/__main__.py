"""`make bench`: measures what was asked for, prints the table, and ends with 1 when a target is missed."""

import argparse
import asyncio
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Sequence

import psycopg

from tests.bench import callbacks, claims, deliveries, engines, memory, replicas
from tests.bench.ground import FULL, SMALL, Ground, file_system, open_ground
from tests.bench.meter import can_measure
from tests.bench.table import Figure, table

DATABASES = ("sqlite", "postgresql")
_PARTS = {
    1: (callbacks.measure, "durable callbacks a second, against a bare route"),
    2: (deliveries.measure, "CPU per delivery, against a script that keeps nothing"),
    3: (engines.measure, "CPU per delivery, against Procrastinate and DBOS"),
    4: (claims.measure, "claiming from a million rows, against ten thousand"),
    5: (memory.measure, "the most memory"),
    6: (replicas.measure, "two workers, against one"),
}


def main() -> int:
    """Return the exit status."""
    given = arguments(sys.argv[1:])
    if not can_measure():
        print("Processor time and memory are read from /proc, which only Linux has.", file=sys.stderr)  # noqa: T201
        return 2
    with open_ground(SMALL if given.small else FULL, [given.on] if given.on else DATABASES) as ground:
        figures = asyncio.run(_measured(ground, sorted(set(given.ratios))))
        print(machine(ground))  # noqa: T201
    print("\n" + table(figures))  # noqa: T201
    return 0 if all(figure.met for figure in figures) else 1


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for; ends the program on what cannot be."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("ratios", nargs="*", type=_ratio, default=list(_PARTS), metavar="N", help="only these (1 to 6)")
    parser.add_argument("--on", choices=DATABASES, help="this database only")
    parser.add_argument("--small", action="store_true", help="so little that the figures mean nothing")
    return parser.parse_args(words)


def _ratio(word: str) -> int:
    if word not in map(str, _PARTS):
        raise argparse.ArgumentTypeError(f"{word} is none of 1 to 6")
    return int(word)


async def _measured(ground: Ground, numbers: list[int]) -> list[Figure]:
    figures = []
    for number in numbers:
        measure, what = _PARTS[number]
        began = time.monotonic()
        ground.say(f"{number}. {what}")
        figures += await measure(ground)
        ground.say(f"   ({time.monotonic() - began:.0f} s)")
    return figures


def machine(ground: Ground) -> str:
    """Return a line on what it was measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        f"{os.cpu_count()} cores",
        f"{memory:.0f} GiB",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
    ]
    if ground.postgres:
        with psycopg.connect(ground.postgres) as connection:
            major, minor = divmod(connection.info.server_version, 10000)
            parts.append(f"PostgreSQL {major}.{minor}")
    return ", ".join([*parts, f"{file_system(ground.folder)}, fsync {_fsync(ground):.2f} ms", platform.platform()])


def _fsync(ground: Ground) -> float:
    """Return the milliseconds that the disk takes to make a page durable."""
    count = 100
    with (ground.folder / "fsync").open("wb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(count):
            file.write(bytes(4096))
            os.fsync(file.fileno())
        return (time.perf_counter() - began) / count * 1000


if __name__ == "__main__":
    sys.exit(main())
