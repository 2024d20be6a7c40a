"""Who has a SQLite file open besides us, and what `check` says of it."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.app import check
from service.settings import Need, load_settings
from service.store.sharing import harmless, sharing
from tests.fakes import ACCOUNT

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
connection.execute("SELECT * FROM jobs").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def holders(url: str, count: int) -> Iterator[frozenset[int]]:
    """Have so many other processes keep the file open."""
    path = url.removeprefix("sqlite:///")
    command = [sys.executable, "-c", _HOLD, path]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
        yield frozenset(process.pid for process in started)
    finally:
        for process in started:
            process.communicate()


@pytest.mark.parametrize(
    ("version", "well"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_which_sqlite_can_be_harmed(version: tuple[int, ...], well: bool) -> None:
    assert harmless(version) is well


def test_a_server_has_no_file_to_share() -> None:
    assert sharing("postgresql://user@host/name") is None


def test_others_are_seen_and_not_ourselves(sqlite_url: str, tmp_path: Path) -> None:
    def others() -> frozenset[int]:
        found = sharing(sqlite_url)
        assert found is not None
        return found.others

    assert others() == frozenset()
    with holders(sqlite_url, 2) as pids:
        assert others() == pids
        connection = sqlite3.connect(tmp_path / "deliveries.db")
        connection.execute("SELECT * FROM jobs").fetchall()
        assert others() == pids  # looking takes no lock of ours away, and adds none
        assert os.getpid() not in others()
        connection.close()
    assert others() == frozenset()


@pytest.mark.parametrize("count", [1, 2])
async def test_check_warns_of_two_processes_at_one_file(sqlite_url: str, count: int) -> None:
    settings = load_settings(
        {
            "DELIVERY_ACCOUNT_ID": ACCOUNT,
            "DELIVERY_CLIENT_ID": "client",
            "DELIVERY_CLIENT_SECRET": "secret",
            "DELIVERY_CHECKOUT_URL": "http://127.0.0.1:1/v1",
            "DELIVERY_API_URL": "http://127.0.0.1:1/v1",
            "DELIVERY_SIGNATURE_SECRETS": "secret",
            "DELIVERY_PUBLIC_URL": "http://127.0.0.1:1",
            "DELIVERY_DATABASE_URL": sqlite_url,
            "DELIVERY_SMTP_URL": "smtp+insecure://127.0.0.1:1",
            "DELIVERY_MAIL_FROM": "faktura@butikken.example",
            "DELIVERY_ALLOW_REAL_RECIPIENTS": "true",
            "DELIVERY_BRAND_NAME": "Butikken AS",
        },
        need=Need.SERVE,
    )
    with holders(sqlite_url, count) as pids:
        said = {result.name: result for result in await check(settings)}
    warned = count > 1 and not harmless(sqlite3.sqlite_version_info)
    assert ("sharing" in said) is warned
    if warned:
        assert not said["sharing"].ok
        assert all(str(pid) in said["sharing"].detail for pid in pids)
        assert "PostgreSQL" in said["sharing"].detail
