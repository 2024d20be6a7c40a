"""A relay that answers by a script: refusals, dropped connections, held replies at any command, over real sockets."""

import asyncio
import socket
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
    "QUIT": "221 2.0.0 Bye",
}
_END = b"\r\n.\r\n"


@dataclass
class Held:
    """A reply that waits until the test lets it go."""

    reply: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Last:
    """A reply after which the relay hangs up."""

    reply: str


@dataclass(kw_only=True)
class Reading:
    """How the content of a mail is read: in pieces of `piece` bytes, `pause` seconds apart.

    With `stop_after`, `then` is said when so many bytes have come; the rest of the mail is read and not kept, and the
    final dot is not answered. `keep=False` reads to the end and keeps nothing.
    """

    piece: int = 65536
    pause: float = 0.0
    stop_after: int | None = None
    then: str | Held = DROP
    keep: bool = True


class SmtpPeer:
    """`say("RCPT", "550 no", ...)` queues replies for a command; without one it does as a relay usually does."""

    def __init__(self) -> None:
        self.connections = 0
        self.commands: list[str] = []
        self.mails: list[bytes] = []
        self.wire: list[bytes] = []  # the same as they came, dots and all
        self.ended = asyncio.Event()  # set whenever a connection ends
        self._script: dict[str, deque[str | Held | Last]] = defaultdict(deque)
        self._readings: deque[Reading] = deque()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    def say(self, command: str, *replies: str | Held | Last) -> None:
        self._script[command].extend(replies)

    def forget(self, command: str) -> None:
        """Take back what was to be said."""
        self._script[command].clear()

    def read(self, *readings: Reading) -> None:
        """Queue ways to read the next contents."""
        self._readings.extend(readings)

    @property
    def url(self) -> str:
        return f"smtp+insecure://127.0.0.1:{self.port}"

    def verbs(self) -> list[str]:
        """Return the commands that came, without their arguments."""
        return [line.split(" ")[0] for line in self.commands]

    async def hang_up(self) -> None:
        """Close every connection from this side, as a relay does with idle ones."""
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        self._writers.clear()

    async def _answer(self, writer: asyncio.StreamWriter, command: str) -> str:
        """Send the reply to a command and return it; nothing when the connection is to be dropped."""
        queue = self._script[command]
        return await self._say(writer, queue.popleft() if queue else _USUAL.get(command, "250 2.0.0 Ok"))

    async def _say(self, writer: asyncio.StreamWriter, reply: str | Held | Last) -> str:
        if isinstance(reply, Held):
            reply.reached.set()
            await reply.release.wait()
            reply = reply.reply
        if reply == DROP:
            return ""
        text = reply.reply if isinstance(reply, Last) else reply
        writer.write(str(text).encode() + b"\r\n")
        await writer.drain()
        return "" if isinstance(reply, Last) else str(text)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # some tests leave in the middle
            await self._talk(reader, writer)
        writer.close()
        self.ended.set()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = await self._answer(writer, "GREETING")
        while reply and (line := await reader.readline()):
            text = line.decode().strip()
            self.commands.append(text)
            verb = text.split(" ", 1)[0].upper()
            reply = await self._answer(writer, verb)
            if reply.startswith("354"):
                reply = await self._content(reader, writer)
            if verb == "QUIT":
                return

    async def _content(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        how = self._readings.popleft() if self._readings else Reading()
        reply = ""
        if how.stop_after is not None:
            await reader.readexactly(how.stop_after)
            reply = await self._say(writer, how.then)
            if not reply:
                return ""
        mail = await _read_mail(reader, how)
        if how.stop_after is not None:
            return reply
        if how.keep:
            self.wire.append(mail)
            lines = mail[:-3].split(b"\r\n")
            self.mails.append(b"\r\n".join(line.removeprefix(b".") for line in lines))
        return await self._answer(writer, ".")


async def _read_mail(reader: asyncio.StreamReader, how: Reading) -> bytes:
    """Return a mail as it is on the wire, the final dot included."""
    mail, end = bytearray(), b"\r\n"
    while end != _END:
        piece = await reader.read(how.piece)
        if not piece:
            raise ConnectionError
        if how.keep:
            mail += piece
        end = (end + piece)[-len(_END) :]
        await asyncio.sleep(how.pause)
    return bytes(mail)


@asynccontextmanager
async def smtp_peer(*, receive_buffer: int | None = None) -> AsyncIterator[SmtpPeer]:
    """Run a relay on a free port; with a small `receive_buffer` (bytes) the client feels how slowly it reads."""
    peer = SmtpPeer()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if receive_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(peer.serve, sock=listener)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await peer.hang_up()
        await server.wait_closed()
