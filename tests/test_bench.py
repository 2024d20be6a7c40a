"""That `make bench` still runs, on so little that its figures mean nothing, and what it installs. Nothing is timed."""

import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.bench.__main__ import arguments
from tests.bench.load import Load
from tests.bench.meter import can_measure
from tests.bench.table import Figure, table
from tests.processes import ROOT

PINS = re.compile(r"([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64} \\\n)*    --hash=sha256:[0-9a-f]{64}\n)")


@pytest.mark.skipif(not can_measure(), reason="only Linux has the /proc that it reads")
@pytest.mark.parametrize("ratios", [("1",), ("2", "4")])
def test_it_runs(ratios: tuple[str, ...]) -> None:
    """Without Procrastinate and DBOS, which nobody needs who does not compare with them, and without PostgreSQL."""
    command = [sys.executable, "-m", "tests.bench", "--small", "--on", "sqlite", *ratios]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    machine, _, rows = done.stdout.partition("\n\n")
    assert re.match(r"\d+ cores, \d+ GiB, CPython 3\.\d+\.\d+, SQLite 3\.\d+", machine)
    found = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows.splitlines()[2:]]
    assert {row[0] for row in found} == set(ratios)
    assert (done.returncode == 1) is any(row[-1] == "missed" for row in found)


@pytest.mark.parametrize(
    ("words", "ratios"), [([], [1, 2, 3, 4, 5, 6]), (["4", "1"], [4, 1]), (["--small", "2"], [2]), (["7"], None)]
)
def test_all_are_measured_unless_told(words: list[str], ratios: list[int] | None) -> None:
    if ratios is None:
        with pytest.raises(SystemExit):
            arguments(words)
    else:
        assert arguments(words).ratios == ratios


def figure(value: float, target: float, *, at_least: bool = False, unit: str = "") -> Figure:
    return Figure(number=1, what="w", ours="o", baseline="b", value=value, target=target, at_least=at_least, unit=unit)


@pytest.mark.parametrize(
    ("measured", "met", "told"),
    [
        (figure(0.30, 0.3, at_least=True), True, "| 0.30 | >= 0.30 |  |"),
        (figure(0.29, 0.3, at_least=True), False, "| 0.29 | >= 0.30 | missed |"),
        (figure(1.0, 1.0), True, "| 1.00 | <= 1.00 |  |"),
        (figure(401, 400, unit=" MB"), False, "| 401 MB | <= 400 MB | missed |"),
    ],
)
def test_a_target_is_met_or_missed(measured: Figure, met: bool, told: str) -> None:
    assert measured.met is met
    row = re.sub(r" +", " ", table([measured]).splitlines()[-1])
    assert row.endswith(told.replace("  ", " "))


def test_rate_and_percentile() -> None:
    load = Load(seconds=2.0, latencies=tuple(n / 1000 for n in range(200, 0, -1)))
    assert (load.rate, load.p99) == (100.0, 0.199)


def test_what_it_installs_is_pinned_and_beside_the_lock() -> None:
    text = (ROOT / "tests" / "bench" / "requirements.txt").read_text()
    head, _, body = text.partition("\n")
    assert head.startswith("#")
    pins = {name: version for name, version, _ in PINS.findall(body)}
    assert PINS.sub("", body) == ""
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert not locked & set(pins)
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench"]
    for wish in map(Requirement, group):
        assert wish.specifier.contains(pins[wish.name]), f"{wish} is not {pins[wish.name]}: make lock"
