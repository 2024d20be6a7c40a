"""The real command in a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx

ROOT = Path(__file__).parent.parent


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these settings and no others of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DELIVERY_")}
    return kept | {"PYTHONPATH": str(ROOT)} | dict(settings)


@dataclass(slots=True, kw_only=True)
class Running:
    """A process and what it has printed so far."""

    process: asyncio.subprocess.Process
    output: bytearray = field(default_factory=bytearray)

    async def stop(self, *, within: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(within):
            return await self.process.wait()


@asynccontextmanager
async def running(*arguments: str, settings: Mapping[str, str], cwd: Path) -> AsyncIterator[Running]:
    """Start `python -m service ...` and kill it in the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        *arguments,
        env=clean_environment(settings),
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    started = Running(process=process)
    reading = asyncio.create_task(_collect(started))
    try:
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _collect(started: Running) -> None:
    assert started.process.stdout is not None
    while chunk := await started.process.stdout.read(65536):
        started.output += chunk


async def answers(url: str, started: Running, *, within: float = 30) -> None:
    """Wait until a URL answers 200."""
    async with asyncio.timeout(within), httpx.AsyncClient(trust_env=False) as client:
        while True:
            assert started.process.returncode is None, started.output.decode()
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def command(*arguments: str, settings: Mapping[str, str], cwd: Path) -> tuple[int, str, str]:
    """Run one command to its end; return its status, output and error output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        *arguments,
        env=clean_environment(settings),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
