"""Ratio 5: the most memory that the service takes, with many large documents at once and with a large record."""

from contextlib import AbstractAsyncContextManager

from tests.bench.deliveries import by_callbacks
from tests.bench.ground import Ground, Measured, free_port, settings, started
from tests.bench.peers import open_peers
from tests.bench.rows import fill
from tests.bench.table import Figure
from tests.processes import command

_MOST = 400.0  # MB
_MEGABYTE = 1_000_000
_WITHIN = 240.0  # seconds
_BUDGET = str(64 * 1024 * 1024)


async def measure(ground: Ground) -> list[Figure]:
    """Measure both, on SQLite: another database keeps its memory for itself."""
    return [await _large_documents(ground), await _large_record(ground)]


async def _large_documents(ground: Ground) -> Figure:
    size = ground.size
    count, each = size.large_pdfs, size.large_pdf_bytes
    async with open_peers(sales=count, pdf_bytes=each) as peers:
        port = free_port()
        environment = settings(
            peers.found, port=port, database_url=ground.fresh("sqlite"), CONCURRENCY=str(count), BYTES_IN_HAND=_BUDGET
        )
        async with _serving(ground, environment, port) as service:
            await by_callbacks(port)(peers.found)
            await peers.captured(count, within=_WITHIN)
            peak = service.peak()
    return _figure(f"{count} deliveries of {each / _MEGABYTE:g} MB at once", peak, baseline="BYTES_IN_HAND of 64 MiB")


async def _large_record(ground: Ground) -> Figure:
    """Deliver some beside a million others, and list them: whatever reads all rows at once would show."""
    size = ground.size
    url = ground.fresh("sqlite")
    fill(url, size.rows, due=1)
    async with open_peers(sales=size.warm) as peers:
        port = free_port()
        environment = settings(peers.found, port=port, database_url=url)
        async with _serving(ground, environment, port) as service:
            await by_callbacks(port)(peers.found)
            await peers.captured(size.warm, within=_WITHIN)
            status, _, said = await command("deliveries", "list", settings=environment, cwd=ground.folder)
            assert status == 0, said
            peak = service.peak()
    return _figure(f"with {size.rows:,} rows", peak, baseline="")


def _serving(ground: Ground, environment: dict[str, str], port: int) -> AbstractAsyncContextManager[Measured]:
    serve = ("-m", "service", "serve", "--host", "127.0.0.1", "--port", str(port))
    url = f"http://127.0.0.1:{port}/livez"
    return started(*serve, environment=environment, log=ground.folder / "memory.log", ready=url)


def _figure(what: str, peak: int, *, baseline: str) -> Figure:
    return Figure(
        number=5,
        what=f"most memory, {what}",
        ours=f"{peak / _MEGABYTE:.0f} MB",
        baseline=baseline,
        value=peak / _MEGABYTE,
        target=_MOST,
        unit=" MB",
    )
