"""PDF inspection in child processes with limits: a hostile document costs at most a child."""

import asyncio
import contextlib
import json
import os
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from service.delivery import BadDocument, Inspected, TransientFailure

_CHILD = Path(__file__).with_name("pdf_child.py")
_LENGTH = struct.Struct(">Q")
_READY = b"ready\n"
_LONGEST_LINE = 2_000_000  # bytes; 200,000 characters, escaped
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH")  # what a Python needs to start; no setting and no secret goes to the child


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one document may take: seconds by the wall, seconds of the processor, bytes of address space."""

    timeout: float = 20.0
    processor: int = 10
    memory: int = 768 * 1024 * 1024
    start: float = 30.0  # seconds that a child may take to start


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A child's line: the pages or the problem; after its last one the child ends."""

    pages: int | None
    problem: str | None
    text: str | None
    last: bool


class _Broken(Exception):
    """The child ended before it answered."""


class PdfInspector:
    """Implements `service.delivery.Inspector` with at most `children` processes, started when they are needed."""

    def __init__(self, limits: Limits, children: int) -> None:
        """See `open_inspector`."""
        self._limits = limits
        self._slots = asyncio.Semaphore(children)
        self._idle: list[Process] = []
        self._all: set[Process] = set()

    async def inspect(self, document: bytes) -> Inspected:
        """Return pages and text; raises `BadDocument`, and `TransientFailure` when no child can be started."""
        async with self._slots:
            try:
                answer = await self._asked(document)
            except _Broken as exc:
                raise BadDocument("the invoice breaks the process that opens it") from exc
        if answer.pages is None:
            raise BadDocument(f"the invoice will not do: {answer.problem}")
        return Inspected(pages=answer.pages, text=answer.text)

    async def aclose(self) -> None:
        """End the children."""
        for child in tuple(self._all):
            await self._end(child)

    async def _asked(self, document: bytes) -> _Answer:
        """Ask an idle child, and a fresh one if that ends: an earlier document may have broken it."""
        if (child := await self._idle_child()) is not None:
            with contextlib.suppress(_Broken):
                return await self._answer_of(child, document)
        return await self._answer_of(await self._start(), document)

    async def _idle_child(self) -> Process | None:
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None:
                return child
            await self._end(child)
        return None

    async def _answer_of(self, child: Process, document: bytes) -> _Answer:
        """Return a child's answer; after it the child is idle or ended."""
        try:
            answer = await self._ask(child, document)
        except BaseException:  # a cancelled question too leaves a child that would answer the wrong one
            await self._end(child)
            raise
        if answer.last:
            await self._end(child)
        else:
            self._idle.append(child)
        return answer

    async def _start(self) -> Process:
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_CHILD),
                str(self._limits.memory),
                str(self._limits.processor),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_LONGEST_LINE,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,  # Ctrl-C is for the service, which then ends its children
            )
        except OSError as exc:
            raise TransientFailure(f"no process to look into PDF documents: {type(exc).__name__}") from exc
        self._all.add(child)
        try:
            await self._await_ready(child)
        except BaseException:
            await self._end(child)
            raise
        return child

    async def _await_ready(self, child: Process) -> None:
        assert child.stdout is not None
        try:
            async with asyncio.timeout(self._limits.start):
                line = await child.stdout.readline()
        except TimeoutError as exc:
            raise TransientFailure("the process to look into PDF documents does not start") from exc
        if line != _READY:
            raise TransientFailure("the process to look into PDF documents ends as it starts")

    async def _ask(self, child: Process, document: bytes) -> _Answer:
        """Return what a child says of a document; a text that it cannot say in time, or dies of, is none."""
        assert child.stdin is not None
        try:
            async with asyncio.timeout(self._limits.timeout):
                child.stdin.write(_LENGTH.pack(len(document)))
                child.stdin.write(document)
                await child.stdin.drain()
                answer = await _line(child)
        except TimeoutError as exc:
            raise BadDocument("the invoice takes too long to open") from exc
        except ConnectionError as exc:
            raise _Broken from exc
        if answer.pages is None:
            return answer
        try:
            async with asyncio.timeout(self._limits.timeout):
                said = await _line(child)
        except (TimeoutError, _Broken):
            return replace(answer, last=True)
        return replace(answer, text=said.text, last=said.last)

    async def _end(self, child: Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        self._all.discard(child)


@asynccontextmanager
async def open_inspector(*, limits: Limits | None = None, children: int = 2) -> AsyncIterator[PdfInspector]:
    """Open an inspector; its processes end with it."""
    inspector = PdfInspector(limits or Limits(), children)
    try:
        yield inspector
    finally:
        await inspector.aclose()


async def _line(child: Process) -> _Answer:
    assert child.stdout is not None
    try:
        line = await child.stdout.readline()
    except ValueError as exc:  # longer than any line of ours
        raise _Broken from exc
    if not line.endswith(b"\n"):
        raise _Broken
    found = json.loads(line)
    said = {name: found.get(name) for name in ("pages", "problem", "text")}
    return _Answer(**said, last=found.get("last", False))
