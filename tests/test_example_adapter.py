"""The adapter in deploy/examples, as somebody has it who copied it: its own test passes, and the service takes it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from service.app import check
from service.settings import Need, load_settings
from service.simulator.api import open_provider
from service.simulator.mail import MailServer, open_mail_server
from service.store import migrate as migrate_store
from tests.fakes import MovedClock
from tests.stage import environment

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "deploy" / "examples" / "adapter"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "adapter"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_it_is_short() -> None:
    assert len((EXAMPLE / "portal.py").read_text().splitlines()) < 80


def test_its_own_test_passes_and_prints_what_it_earned(copied: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_portal.py"]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=copied, env=environ, capture_output=True, text=True, timeout=300, check=False
    )  # ourselves
    assert done.returncode == 0, done.stdout + done.stderr
    assert "portal: earned idempotent, without receipts" in done.stdout


async def test_the_service_takes_it_with_its_templates(copied: Path) -> None:
    url = f"sqlite:///{copied}/d.db"
    migrate_store(url)
    clock = MovedClock()
    async with (
        open_provider(clock=clock) as provider,
        open_mail_server(MailServer(clock=clock, random=Random(1))) as mail,
    ):
        given = environment(provider, mail, public_url="http://127.0.0.1:9", database_url=url)
        given |= {
            "DELIVERY_CHANNELS": "portal:open_portal",
            "DELIVERY_TEMPLATES_DIR": str(copied / "templates"),
            "DELIVERY_PORTAL_URL": "http://127.0.0.1:9",
            "DELIVERY_PORTAL_TOKEN": "a-token-of-the-portal",
        }
        results = {one.name: one for one in await check(load_settings(given, need=Need.SERVE))}
    assert results["channel portal"].ok, results["channel portal"].detail
    assert results["templates"].ok, results["templates"].detail
