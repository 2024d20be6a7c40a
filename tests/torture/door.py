"""The one address that the provider calls: each connection goes to some replica that listens."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random


@asynccontextmanager
async def open_door(ports: Sequence[int], random: Random) -> AsyncIterator[str]:
    """Listen, and yield the URL."""

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in random.sample(list(ports), len(ports)):
            with suppress(OSError):
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
                return
        writer.close()

    server = await asyncio.start_server(enter, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass  # a killed replica: the other side sees its connection end, which is what this is for
    finally:
        writer.close()
