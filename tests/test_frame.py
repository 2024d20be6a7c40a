"""The commands that one types in a checkout, and the lock file that they rest on."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parent.parent
LOCK = (REPOSITORY / "requirements.lock").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

# --- the lock --------------------------------------------------------------------------------------------------------


def parts() -> dict[str, dict[str, str]]:
    """Return the versions by name in each part of the lock."""
    found: dict[str, dict[str, str]] = {}
    for line in LOCK.splitlines():
        if line.startswith("# --- "):
            found[line.removeprefix("# --- ")] = {}
        elif pin := re.fullmatch(r"([a-z0-9-]+)==(\S+) \\", line):
            assert not any(pin[1] in part for part in found.values()), f"{pin[1]} is there twice"
            list(found.values())[-1][pin[1]] = pin[2]
    return found


PARTS = parts()
RUNTIME = PARTS["runtime"]
BUILD = RUNTIME | PARTS["build"]
EVERYTHING = BUILD | PARTS["development"]


def test_lock_has_three_parts_in_order() -> None:
    assert list(PARTS) == ["runtime", "build", "development"]
    assert all(PARTS.values())


def test_lock_holds_pins_and_hashes_and_nothing_else() -> None:
    """No index, no address, no path of a machine; every pin has its hashes."""
    shape = re.compile(
        r"(?:[a-z0-9-]+==[\w.!+]+ \\\n(?:    --hash=sha256:[0-9a-f]{64} \\\n)*    --hash=sha256:[0-9a-f]{64}\n)+"
    )
    blocks = re.split(r"^#.*\n", LOCK, flags=re.MULTILINE)
    assert not [block for block in blocks if block and not shape.fullmatch(block)]


def test_lock_has_the_wheels_of_every_platform() -> None:
    """A package with compiled parts has a file for each Python and machine, and so many hashes."""
    for name in ("psycopg-binary", "pydantic-core", "css-inline", "sqlalchemy", "ruff"):
        block = LOCK.partition(f"\n{name}==")[2].partition("==")[0]
        assert block.count("--hash=") > 10, name


@pytest.mark.parametrize(
    ("wanted", "locked"),
    [
        (PROJECT["project"]["dependencies"], RUNTIME),
        (PROJECT["build-system"]["requires"], BUILD),
        (PROJECT["dependency-groups"]["dev"], EVERYTHING),
    ],
    ids=["runtime", "build", "development"],
)
def test_lock_satisfies_the_project(wanted: list[str], locked: dict[str, str]) -> None:
    for text in wanted:
        wish = Requirement(text)
        name = canonicalize_name(wish.name)
        assert name in locked, f"{name} is not locked: make lock"
        assert wish.specifier.contains(locked[name]), f"{text} is not {locked[name]}: make lock"


@pytest.mark.parametrize("locked", [RUNTIME, BUILD, EVERYTHING], ids=["runtime", "build", "development"])
def test_each_part_is_complete_with_those_above(locked: dict[str, str]) -> None:
    """On the Python that runs this, whichever it is: the lock is resolved on another, and pip takes it as it stands."""
    missing = []
    for name in locked:
        try:
            needs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # of no use on this Python or machine
            continue
        here = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        missing += [f"{name} needs {need}" for need in here if canonicalize_name(need.name) not in locked]
    assert not missing


# --- what is declared ------------------------------------------------------------------------------------------------

NEVER_IMPORTED = {
    "tzdata": "zoneinfo reads it where the machine has no time zones",
}


def imported() -> dict[str, set[str]]:
    """Return the packages of others that the service imports, and the distributions that each may come from."""
    names = set()
    for path in (REPOSITORY / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    known = packages_distributions()
    foreign = names - sys.stdlib_module_names - {"service"}
    return {name: {canonicalize_name(found) for found in known.get(name, ())} for name in foreign}


def test_what_is_declared_is_imported_and_the_other_way_round() -> None:
    """What another package brings along today may be gone tomorrow, and what nobody imports need not be installed."""
    named = PROJECT["project"]["dependencies"]
    extras = [text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra]
    declared = {canonicalize_name(Requirement(text).name) for text in (*named, *extras)}
    used = imported()
    assert not {name: found for name, found in used.items() if not found & declared}
    assert declared - set().union(*used.values()) == set(NEVER_IMPORTED)


# --- make ------------------------------------------------------------------------------------------------------------

# A Python that only tells what it was asked for. `ensurepip` and pip fail where a file of that name lies beside it.
PRETENDER = """#!/bin/sh
here=$(dirname "$0")
case "$*" in
*version_info*) [ ! -e "$here/old" ] ;;
*ensurepip*) [ ! -e "$here/bare" ] ;;
-V) echo "Python 3.99.0" ;;
"-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo venv >> "$LOG" ;;
*"pip install"*) echo "$*" | sed 's/.*install/pip/; s/ -qq//' >> "$LOG"; [ ! -e "$BREAKS" ] ;;
-c*) ;;
*) env | grep -i '^delivery' >> "$LOG"; echo "$*" >> "$LOG" ;;
esac
"""


class Workshop:
    """A folder with a pretended Python, in which the Makefile's own rules are carried out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.breaks = folder / "breaks"
        self.bin.mkdir()
        self.python = self.bin / "python3"
        self.python.write_text(PRETENDER)
        self.python.chmod(0o755)
        for name in ("Makefile", "pyproject.toml", "requirements.lock"):
            shutil.copy(REPOSITORY / name, folder)

    def make(self, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        tools = {"PATH": f"{self.bin}:/usr/bin:/bin", "LOG": str(self.log), "BREAKS": str(self.breaks)}
        self.log.write_text("")
        return subprocess.run(
            ["make", "--no-print-directory", *words],
            cwd=self.folder,
            env={**tools, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def done(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


INSTALLING = [
    "venv",
    "pip --disable-pip-version-check --require-hashes -r requirements.lock",
    "pip --disable-pip-version-check --no-deps --no-build-isolation --editable .",
]


def only_python3(workshop: Workshop) -> str:
    """Keep the machine's own Pythons out of sight."""
    return f"PYTHON={workshop.python}"


def test_make_alone_tells_every_command(workshop: Workshop) -> None:
    told = workshop.make()
    phony = next(line for line in (REPOSITORY / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert told.returncode == 0
    assert set(re.findall(r"^make ([a-z-]+)", told.stdout, re.MULTILINE)) == set(phony.split()[1:]) - {"help"}
    assert workshop.done() == []


def test_environment_is_built_once(workshop: Workshop) -> None:
    assert workshop.make("check", only_python3(workshop)).returncode == 0
    assert workshop.done()[:3] == INSTALLING
    assert workshop.make("check", only_python3(workshop)).returncode == 0
    assert workshop.done() == ["-m ruff check", "-m ruff format --check", "-m mypy"]


def test_environment_follows_its_files(workshop: Workshop) -> None:
    goal = (".venv/.installed", only_python3(workshop))
    workshop.make(*goal)
    later = (workshop.folder / ".venv" / ".installed").stat().st_mtime + 5
    os.utime(workshop.folder / "pyproject.toml", (later, later))
    workshop.make(*goal)
    assert workshop.done() == INSTALLING[2:], "for pyproject.toml alone the packages stay"
    with (workshop.folder / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    os.utime(workshop.folder / "requirements.lock", (later + 5, later + 5))
    workshop.make(*goal)
    assert workshop.done() == INSTALLING


def test_interrupted_installation_is_begun_again(workshop: Workshop) -> None:
    goal = (".venv/.installed", only_python3(workshop))
    workshop.breaks.touch()
    assert workshop.make(*goal).returncode != 0
    assert workshop.done() == INSTALLING[:2]
    workshop.breaks.unlink()
    assert workshop.make(*goal).returncode == 0
    assert workshop.done() == INSTALLING


@pytest.mark.parametrize(
    ("flaw", "words"),
    [("old", "Python 3.11 or newer is needed"), ("bare", "apt install python3-venv")],
)
def test_unfit_python_is_told_kindly(workshop: Workshop, flaw: str, words: str) -> None:
    (workshop.bin / flaw).touch()
    tried = workshop.make("test", only_python3(workshop))
    assert tried.returncode != 0
    assert words in tried.stderr
    assert workshop.done() == []


def test_missing_python_is_told_kindly(workshop: Workshop) -> None:
    tried = workshop.make("test", "PYTHON=/nowhere/python3")
    assert tried.returncode != 0
    assert "/nowhere/python3 does not run" in tried.stderr


def test_first_fit_python_is_taken(workshop: Workshop) -> None:
    """`python3.13` is asked before `python3`, and one that lacks something is passed over."""
    unfit = workshop.folder / "unfit"
    unfit.mkdir()
    for name in ("python3.13", "python3.12"):
        shutil.copy(workshop.python, unfit / name)
    (unfit / "bare").touch()
    shutil.copy(workshop.python, workshop.bin / "python3.11")
    tried = workshop.make(".venv/.installed", PATH=f"{unfit}:{workshop.bin}:/usr/bin:/bin")
    assert tried.returncode == 0
    assert "(python3.11)" in tried.stdout


@pytest.mark.parametrize("goal", ["demo", "test", "test-browser"])
def test_callers_settings_are_forgotten(workshop: Workshop, goal: str) -> None:
    workshop.make(".venv/.installed", only_python3(workshop))
    settings = {"DELIVERY_ACCOUNT_ID": "P12345678", "delivery_smtp_url": "smtp://x", "DELIVERY_ODD": "a\nDELIVERY_B=c"}
    assert workshop.make(goal, **settings).returncode == 0
    assert len(workshop.done()) == 1, workshop.done()


def test_arguments_are_passed_on(workshop: Workshop) -> None:
    workshop.make(".venv/.installed", only_python3(workshop))
    workshop.make("demo", "DEMO_ARGS=--exit --port 9000")
    assert workshop.done() == ["-m service demo --exit --port 9000"]
    workshop.make("test", "TEST_ARGS=-k name")
    assert workshop.done()[0].endswith("-m not browser -k name")


# --- the rest --------------------------------------------------------------------------------------------------------


def test_ci_runs_everything_and_the_tests_last() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    goals = re.search(r"^for goal in (.*); do$", script.read_text(), re.MULTILINE)
    assert goals is not None
    assert goals[1].split() == [".venv/.installed", "check", "test-browser", "test"]


def test_package_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("merchant-delivery ")
