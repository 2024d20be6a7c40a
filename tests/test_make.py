"""`make test-browser` and `.ci/run` where there is a browser and where there is none."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("bash", "sh", "env", "awk", "make", "dirname", "grep", "python3", "paste", "touch", "mkdir", "cat", "chmod")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a folder that is all of the PATH: the usual tools, and no browser."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def ran(arguments: list[str], folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def browser_tests(bare: Path) -> subprocess.CompletedProcess[str]:
    """Run the target with an interpreter that only says what it was asked, and nothing to install."""
    script(bare / "asked", 'echo "asked: $*"')
    return ran(["make", "-o", ".venv/.installed", "PY=asked", "test-browser"], ROOT, bare)


def test_without_a_browser_it_says_what_to_install(bare: Path) -> None:
    done = browser_tests(bare)
    assert done.returncode != 0
    assert "The browser tests need Chromium" in done.stderr
    assert "apt-get install chromium" in done.stderr
    assert "asked:" not in done.stdout


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_with_one_they_are_run(bare: Path, name: str) -> None:
    script(bare / name, "exit 1")
    done = browser_tests(bare)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"asked: -m pytest .* -m browser$", done.stdout.rstrip())


def test_the_other_tests_leave_the_browsers_out(bare: Path) -> None:
    script(bare / "asked", 'echo "asked: $*"')
    done = ran(["make", "-o", ".venv/.installed", "PY=asked", "test"], ROOT, bare)
    assert done.returncode == 0
    assert "-m not browser" in done.stdout


@pytest.mark.parametrize("may", [True, False])
def test_a_bare_machine_is_given_a_browser(bare: Path, tmp_path: Path, may: bool) -> None:
    home = tmp_path / "checkout"
    (home / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", home / ".ci" / "run")
    script(home / "tests" / "test_x.py", "# pytest.mark.browser")
    script(bare / "python3", "exit 0")
    script(
        bare / "make",
        'echo "made: $*"\nmkdir -p .venv/bin; echo "#!/bin/sh" > .venv/bin/python; chmod +x .venv/bin/python',
    )
    if may:
        script(bare / "sudo", '[ "$1" = -n ] && shift; exec "$@"')
        script(bare / "apt-get", f'echo "$DEBIAN_FRONTEND: $*" >> {tmp_path}/asked')
    done = ran(["bash", ".ci/run"], home, bare)
    if not may:
        assert done.returncode == 1
        assert "Missing and not to be installed from here: chromium" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "noninteractive: update -qq"
    assert asked[1].startswith("noninteractive: install -y ")
    assert asked[1].split()[-1] == "chromium"
    assert "made: --no-print-directory test-browser" in done.stdout
