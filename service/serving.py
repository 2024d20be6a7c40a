"""Serving ASGI apps inside a loop that somebody else owns."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

_GRACE = 2  # seconds that a request in hand has to finish when the server closes; a callback takes milliseconds


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, for the loop's owner has its own, and without a tenth of a second's nap."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.stopping = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        while not self.stopping.is_set():
            await self.on_tick(0)  # refreshes the Date header
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 1)


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a listening socket, so that its port is known before anything is served. Raises `OSError` when taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts; without, each answer may wait 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def origin(sock: socket.socket) -> str:
    """Return the `http://host:port` under which a listening socket is reached."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def serving(app: ASGIApp, *sockets: socket.socket) -> AsyncIterator[None]:
    """Serve `app` on sockets from `listen` until the context ends."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,  # what a proxy says of the caller is not asked for
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=list(sockets)))
    ready = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        yield
    finally:
        server.stopping.set()
        await task
