"""A relay that answers by a script: refusals, dropped connections, held replies at any command, over real sockets."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

DROP = "drop the connection"
_USUAL = {
    "GREETING": "220 peer",
    "EHLO": "250-peer\r\n250 SIZE 36700160",
    "DATA": "354 go on",
    ".": "250 2.0.0 Ok: queued as ABC",
}


@dataclass
class Held:
    """A reply that waits until the test lets it go."""

    reply: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


class SmtpPeer:
    """`say("RCPT", "550 no", ...)` queues replies for a command; without one it does as a relay usually does."""

    def __init__(self) -> None:
        self.connections = 0
        self.commands: list[str] = []
        self.mails: list[bytes] = []
        self._script: dict[str, deque[str | Held]] = defaultdict(deque)
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    def say(self, command: str, *replies: str | Held) -> None:
        self._script[command].extend(replies)

    @property
    def url(self) -> str:
        return f"smtp+insecure://127.0.0.1:{self.port}"

    async def hang_up(self) -> None:
        """Close every connection from this side, as a relay does with idle ones."""
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        self._writers.clear()

    async def _answer(self, writer: asyncio.StreamWriter, command: str) -> str:
        """Send the reply to a command and return it; nothing when the connection is to be dropped."""
        queue = self._script[command]
        reply = queue.popleft() if queue else _USUAL.get(command, "250 2.0.0 Ok")
        if isinstance(reply, Held):
            reply.reached.set()
            await reply.release.wait()
            reply = reply.reply
        if reply == DROP:
            return ""
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        return reply

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # some tests leave in the middle
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = await self._answer(writer, "GREETING")
        while reply and (line := await reader.readline()):
            text = line.decode().strip()
            self.commands.append(text)
            verb = text.split(" ", 1)[0].upper()
            reply = await self._answer(writer, verb)
            if reply.startswith("354"):
                mail = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(mail[:-3].replace(b"\r\n..", b"\r\n."))
                reply = await self._answer(writer, ".")
            if verb == "QUIT":
                return


@asynccontextmanager
async def smtp_peer() -> AsyncIterator[SmtpPeer]:
    peer = SmtpPeer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await peer.hang_up()
        await server.wait_closed()
