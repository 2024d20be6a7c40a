"""The result file of a batch: what became of each line, on the disk before and after it is sent.

While a batch runs, lines are added and the last one of a reference counts; at its end each reference has one.
"""

import csv
import fcntl
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO


class State(StrEnum):
    """What is known of a line."""

    SENDING = "sending"  # about to be sent, or sent, when the process ended
    CREATED = "created"
    EXISTED = "existed"  # the same invoice was there before
    FAILED = "failed"
    UNCONFIRMED = "unconfirmed"  # sent, its answer lost, and not found since
    NOT_SENT = "not_sent"  # certainly not created; the next run sends it


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the file. It names no person."""

    merchant_reference: str
    state: State
    amount_minor: int
    currency: str
    at: datetime
    digest: str  # of the batch's line
    transaction_id: str = ""
    status: str = ""  # at the provider
    reason: str = ""
    failures: tuple[str, ...] = ()  # transactions that failed before under this reference
    again: bool = False  # sent after a failure


class Unusable(Exception):
    """The file is another's, or in use; nothing was done."""


_NAMES = [field.name for field in fields(Entry)]


class ResultFile:
    """An open result file, which is this process's alone."""

    def __init__(self, path: Path, file: BinaryIO, entries: dict[str, Entry]) -> None:
        self._path = path
        self._file = file
        self._entries = entries

    def of(self, reference: str) -> Entry | None:
        """Return what is known of a reference."""
        return self._entries.get(reference)

    def write(self, entry: Entry) -> None:
        """Add a line; it is on the disk when this returns."""
        self._file.write(_line(_cells(entry)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._entries[entry.merchant_reference] = entry

    def tidy(self, order: Sequence[str]) -> None:
        """Leave one line for each reference, those of `order` first. The last thing that is done with the file."""
        rank = {reference: place for place, reference in enumerate(order)}
        entries = sorted(self._entries.values(), key=lambda one: rank.get(one.merchant_reference, len(rank)))
        beside = self._path.with_name(f"{self._path.name}.new")
        with beside.open("wb") as file:
            file.write(b"".join(_line(cells) for cells in (_NAMES, *map(_cells, entries))))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        _sync_folder(self._path)


@contextmanager
def open_results(path: Path) -> Iterator[ResultFile]:
    """Open the result file, a new one if there is none; raises `Unusable`, and `OSError` as opening does."""
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Unusable(f"{path} is in use: another run is at work on it") from exc
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:  # another run has just ended and tidied it
            raise Unusable(f"{path} has just changed; run it again")
        file.seek(0)
        entries = _take(path, file)
        yield ResultFile(path, file, entries)


def known(path: Path) -> dict[str, Entry]:
    """Return what a result file says without opening it for a run; nothing when there is none. Raises `Unusable`."""
    return _read(path, path.read_bytes())[0] if path.exists() else {}


def _take(path: Path, file: BinaryIO) -> dict[str, Entry]:
    """Return the entries, and leave the file ready for more: with a head, and without a line that was cut short."""
    content = file.read()
    entries, whole = _read(path, content)
    if whole != len(content):
        file.truncate(whole)
    if not whole:
        file.write(_line(_NAMES))
    file.flush()
    os.fsync(file.fileno())
    _sync_folder(path)
    return entries


def _read(path: Path, content: bytes) -> tuple[dict[str, Entry], int]:
    """Return the entries and how many bytes of the content are whole lines."""
    whole = content.rfind(b"\n") + 1
    if whole == 0 and not _line(_NAMES).startswith(content):
        raise Unusable(f"{path} is no result file of a batch")
    try:
        head, *lines = list(csv.reader(io.StringIO(content[:whole].decode(), newline=""), strict=True)) or [_NAMES]
        if head != _NAMES:
            raise Unusable(f"{path} is no result file of a batch")
        entries = [_entry(cells) for cells in lines]
    except (ValueError, csv.Error) as exc:
        raise Unusable(f"{path} is no result file of a batch, or was changed by hand") from exc
    return {entry.merchant_reference: entry for entry in entries}, whole


def _entry(cells: list[str]) -> Entry:
    named = dict(zip(_NAMES, cells, strict=True))
    return Entry(
        merchant_reference=named["merchant_reference"],
        state=State(named["state"]),
        amount_minor=int(named["amount_minor"]),
        currency=named["currency"],
        at=datetime.fromisoformat(named["at"]),
        digest=named["digest"],
        transaction_id=named["transaction_id"],
        status=named["status"],
        reason=named["reason"],
        failures=tuple(named["failures"].split()),
        again=bool(named["again"]),
    )


def _cells(entry: Entry) -> list[str]:
    said = replace(entry, reason=" ".join(entry.reason.split()))
    values = {name: str(getattr(said, name)) for name in _NAMES}
    values |= {"at": entry.at.isoformat(), "failures": " ".join(entry.failures)}
    return list((values | {"again": "again" if entry.again else ""}).values())


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _sync_folder(path: Path) -> None:
    """Make the file's name durable, too."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
