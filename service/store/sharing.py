"""Who else has SQLite's file open, and whether two that write at the same instant can harm it."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from service.store.engines import engines

_MENDED = (3, 51, 3)
_BACKPORTED = ((3, 50, 7), (3, 44, 6))
# Each process that has a file with a log open holds this byte of the file beside it (`UNIX_SHM_DMS` in SQLite's source)
# for as long as it has.
_HELD_WHILE_OPEN = "128 128"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How safely processes share a SQLite file. `others` are those besides this one that have it open now.

    Only those that this machine shows are among them: another container is not.
    """

    version: str
    harmless: bool
    others: frozenset[int]  # process ids


def sharing(url: str, version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Sharing | None:
    """Look at the record at `url`; None when it is not SQLite's. Nothing is opened, and no lock is taken."""
    file = engines(url).file
    if file is None:
        return None
    return Sharing(version=".".join(map(str, version)), harmless=harmless(version), others=_others(file))


def harmless(version: tuple[int, ...]) -> bool:
    """Say whether connections may write or checkpoint at the same instant.

    Before, that could damage a log as it was begun anew (https://sqlite.org/wal.html, "The WAL-Reset Bug").
    """
    return version >= _MENDED or any(version[:2] == fixed[:2] and version >= fixed for fixed in _BACKPORTED)


def _others(file: Path) -> frozenset[int]:
    try:
        inode = file.with_name(f"{file.name}-shm").stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return frozenset()  # nobody has it open, or this system does not tell
    # `1: POSIX  ADVISORY  READ 4711 fe:00:2147018 128 128`; who waits for a lock has an arrow before it. The device is
    # not looked at, for some file systems name another one there.
    held = (line.split() for line in locks.splitlines() if line.endswith(f":{inode} {_HELD_WHILE_OPEN}"))
    return frozenset(int(words[4]) for words in held if words[1] == "POSIX") - {os.getpid()}
