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
from dataclasses import dataclass
from pathlib import Path

from service.delivery import BadDocument, Inspected, TransientFailure

_CHILD = Path(__file__).with_name("pdf_child.py")
_LENGTH = struct.Struct(">Q")
_READY = b"ready\n"
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
        """Return the number of pages; raises `BadDocument`, and `TransientFailure` when no child can be started."""
        async with self._slots:
            try:
                answer = await self._asked(document)
            except _Broken as exc:
                raise BadDocument("the invoice breaks the process that opens it") from exc
        if answer.pages is None:
            raise BadDocument(f"the invoice will not do: {answer.problem}")
        return Inspected(pages=answer.pages)

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
            answer = _read(await self._ask(child, document))
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

    async def _ask(self, child: Process, document: bytes) -> bytes:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            async with asyncio.timeout(self._limits.timeout):
                child.stdin.write(_LENGTH.pack(len(document)))
                child.stdin.write(document)
                await child.stdin.drain()
                answer = await child.stdout.readline()
        except TimeoutError as exc:
            raise BadDocument("the invoice takes too long to open") from exc
        except (ConnectionError, ValueError) as exc:
            raise _Broken from exc
        if not answer.endswith(b"\n"):
            raise _Broken
        return answer

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


def _read(line: bytes) -> _Answer:
    found = json.loads(line)
    return _Answer(pages=found.get("pages"), problem=found.get("problem"), last=found.get("last", False))
