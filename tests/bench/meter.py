"""What a process and its children have used so far, read from /proc: seconds of the processor, bytes of memory."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PROC = Path("/proc")
# Places in what follows a process's name in /proc/PID/stat; see proc_pid_stat(5).
_PARENT, _USED = 1, slice(11, 15)


def can_measure() -> bool:
    """Tell whether this machine has a /proc as Linux has it."""
    return (_PROC / "self" / "stat").exists()


def seconds_used(pid: int) -> float:
    """Return the processor seconds of a process with all its children, those that have ended included."""
    return sum(sum(map(int, _stat(one)[_USED])) for one in _family(pid)) / _TICKS


def peak_memory(pid: int) -> int:
    """Return the most bytes that a process has held so far, plus the most that each of its living children has."""
    return sum(_high_water(one) for one in _family(pid))


def _high_water(pid: int) -> int:
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> list[str]:
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _family(pid: int) -> list[int]:
    """Return the process and its living descendants."""
    parents = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int(_stat(int(entry.name))[_PARENT])
            except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                continue
    found = [pid]
    for one in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == one]
    return found
