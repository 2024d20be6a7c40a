"""A mail server on loopback: plain SMTP, an inbox, and replies, delays and breaks by script."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

import structlog

from service.delivery import Clock
from service.simulator.deeds import NEVER, Behaviour, Phase
from service.simulator.faults import Faults
from service.simulator.script import Script

__all__ = ["NEVER", "Behaviour", "Mail", "MailServer", "Phase", "Script", "open_mail_server"]

_log = structlog.get_logger()

_LINE = 1 << 16  # bytes; longer lines end the connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A message that was taken. `content` is as it came over the wire, dots unstuffed."""

    number: int  # from 1
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    received_at: datetime
    queue_id: str


def _unseen(_: Mail) -> None:
    """Be told, and do nothing."""


@dataclass(slots=True, kw_only=True)
class MailServer:
    """The server as tests see it: where it is, what it took, what it counted, and how it behaves.

    `credentials` (user, password) makes it offer and demand AUTH. `connections` counts them, `transactions` the MAIL
    commands that it accepted. `faults` may be shared with the provider.
    """

    clock: Clock
    random: Random
    host: str = "127.0.0.1"
    port: int = 0
    name: str = "mail.simulated.example"
    size_limit: int = 20 * 1024 * 1024
    max_recipients: int = 100
    credentials: tuple[str, str] | None = None
    arrived: Callable[[Mail], None] = _unseen
    faults: Faults = field(default_factory=lambda: Faults(Random(0)))  # noqa: S311  what goes wrong in a simulation
    inbox: list[Mail] = field(default_factory=list)
    connections: int = 0
    transactions: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """The address for SMTP_URL."""
        login = ":".join(self.credentials) + "@" if self.credentials else ""
        return f"smtp+insecure://{login}{self.host}:{self.port}"

    @property
    def script(self) -> Script:
        """What tests ask of it directly."""
        return Script(self.faults)

    def refuse(self, recipient: str, reply: str, *, times: int | None = None) -> None:
        """Answer this at RCPT of one recipient."""
        self.script.refuse(recipient, reply, times=times)

    async def wait(self, count: int, *, within: float = 10.0) -> list[Mail]:
        """Wait until the inbox holds `count` messages and return it. Raises `TimeoutError` after `within` seconds."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: len(self.inbox) >= count)
        return self.inbox

    async def take(self, sender: str, recipients: tuple[str, ...], content: bytes) -> Mail:
        """Put a message into the inbox."""
        mail = Mail(
            number=len(self.inbox) + 1,
            sender=sender,
            recipients=recipients,
            content=content,
            received_at=self.clock.now(),
            queue_id=f"4{self.random.getrandbits(40):010X}",
        )
        self.inbox.append(mail)
        self.arrived(mail)
        async with self._news:
            self._news.notify_all()
        return mail


class _Hangup(Exception):
    """The conversation is over."""


class _Conversation:
    """One connection: reads commands, keeps the envelope, replies."""

    def __init__(self, server: MailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._greeted = False
        self._known = server.credentials is None
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def run(self) -> None:
        await self._reply(Phase.CONNECT, f"220 {self._server.name} ESMTP simulated")
        while line := await self._reader.readline():
            verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            handle = getattr(self, f"_on_{verb.lower()}", None) if verb.isalpha() else None
            if handle is None:
                await self._say("502 5.5.2 Error: command not recognized")
            else:
                await handle(rest.strip())

    async def _on_ehlo(self, name: str) -> None:
        if not name:
            await self._say("501 Syntax: EHLO hostname")
            return
        self._forget()
        self._greeted = True
        offers = [self._server.name, f"SIZE {self._server.size_limit}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if self._server.credentials:
            offers.insert(1, "AUTH PLAIN LOGIN")
        lines = [f"250-{offer}" for offer in offers[:-1]] + [f"250 {offers[-1]}"]
        await self._reply(Phase.EHLO, "\r\n".join(lines))

    async def _on_helo(self, _: str) -> None:
        self._forget()
        self._greeted = True
        await self._reply(Phase.EHLO, f"250 {self._server.name}")

    async def _on_auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        if self._server.credentials is None or mechanism.upper() not in ("PLAIN", "LOGIN"):
            await self._say("504 5.5.4 Unrecognized authentication type")
            return
        given = await (self._plain(initial) if mechanism.upper() == "PLAIN" else self._login(initial))
        if given == self._server.credentials and await self._reply(Phase.AUTH, "235 2.7.0 Authentication successful"):
            self._known = True
        elif given != self._server.credentials:
            await self._reply(Phase.AUTH, "535 5.7.8 Error: authentication failed")

    async def _plain(self, initial: str) -> tuple[str, ...]:
        return tuple(_decoded(initial or await self._ask("")).split("\0")[1:])

    async def _login(self, initial: str) -> tuple[str, ...]:
        user = _decoded(initial or await self._ask("Username:"))
        return user, _decoded(await self._ask("Password:"))

    async def _ask(self, prompt: str) -> str:
        await self._say(f"334 {base64.b64encode(prompt.encode()).decode()}".rstrip(" ") if prompt else "334 ")
        return (await self._reader.readline()).decode("ascii", "replace").strip()

    async def _on_mail(self, rest: str) -> None:
        path, options = _path(rest, "FROM:")
        if not self._greeted or self._sender is not None or path is None:
            await self._say("503 5.5.1 Error: bad sequence" if path is not None else "501 5.5.4 Syntax: MAIL FROM:<a>")
        elif not self._known:
            await self._say("530 5.7.0 Authentication required")
        elif options.get("SIZE", "0").isdecimal() and int(options.get("SIZE", "0")) > self._server.size_limit:
            await self._say("552 5.3.4 Message size exceeds fixed limit")
        elif await self._reply(Phase.MAIL, "250 2.1.0 Ok"):
            self._sender = path
            self._server.transactions += 1

    async def _on_rcpt(self, rest: str) -> None:
        path, _ = _path(rest, "TO:")
        if self._sender is None:
            await self._say("503 5.5.1 Error: need MAIL command")
        elif not path:
            await self._say("501 5.1.3 Bad recipient address syntax")
        elif len(self._recipients) >= self._server.max_recipients:
            await self._say("452 4.5.3 Error: too many recipients")
        elif await self._reply(Phase.RCPT, "250 2.1.5 Ok", (path,)):
            self._recipients.append(path)

    async def _on_data(self, _: str) -> None:
        if not self._recipients:
            await self._say("554 5.5.1 Error: no valid recipients")
        elif await self._reply(Phase.DATA, "354 End data with <CR><LF>.<CR><LF>", tuple(self._recipients)):
            await self._content(await self._read_content())
            self._forget()

    async def _read_content(self) -> bytes:
        lines: list[bytes] = []
        while (line := await self._reader.readline()) != b".\r\n":
            if not line:
                raise _Hangup
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    async def _content(self, content: bytes) -> None:
        """Take the message or not, and reply; what is kept is in the inbox before the other side learns of it."""
        server, recipients = self._server, tuple(self._recipients)
        behaviour = server.faults.take(Behaviour, Phase.CONTENT, *recipients)
        if behaviour is None and len(content) > server.size_limit:
            await self._say("552 5.3.4 Error: message file too big")
            return
        behaviour = behaviour or Behaviour()
        reply = behaviour.reply
        lost = behaviour.drop or behaviour.delay == NEVER
        if behaviour.keep if lost else reply is None or reply.startswith("2"):
            mail = await server.take(self._sender or "", recipients, content)
            reply = reply or f"250 2.0.0 Ok: queued as {mail.queue_id}"
        await self._behave(behaviour, reply or "", recipients)

    async def _on_rset(self, _: str) -> None:
        self._forget()
        await self._say("250 2.0.0 Ok")

    async def _on_noop(self, _: str) -> None:
        await self._say("250 2.0.0 Ok")

    async def _on_quit(self, _: str) -> None:
        await self._say("221 2.0.0 Bye")
        raise _Hangup

    def _forget(self) -> None:
        self._sender = None
        self._recipients = []

    async def _reply(self, phase: Phase, usual: str, recipients: tuple[str, ...] = ()) -> bool:
        """Reply as the script says or as usual; return whether that was a yes."""
        behaviour = self._server.faults.take(Behaviour, phase, *recipients) or Behaviour()
        return await self._behave(behaviour, behaviour.reply or usual, recipients)

    async def _behave(self, behaviour: Behaviour, reply: str, recipients: tuple[str, ...]) -> bool:
        if behaviour.delay == NEVER:
            await self._reader.read()  # whatever comes is thrown away, until the other side has gone
            raise _Hangup
        if behaviour.delay:
            await self._server.clock.sleep(behaviour.delay)
        if behaviour.drop:
            raise _Hangup
        await self._say(reply.replace("{recipient}", ", ".join(recipients)))
        if reply.startswith("421"):
            raise _Hangup
        return reply[0] in "23"

    async def _say(self, reply: str) -> None:
        self._writer.write(reply.encode() + b"\r\n")
        await self._writer.drain()


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return ""


def _path(rest: str, prefix: str) -> tuple[str | None, dict[str, str]]:
    """Return the address of a MAIL or RCPT command (None when it has none) and its options."""
    if not rest.upper().startswith(prefix):
        return None, {}
    address, closed, tail = rest[len(prefix) :].strip().partition(">")
    if not closed or not address.startswith("<"):
        return None, {}
    options = (option.partition("=") for option in tail.split())
    return address[1:], {name.upper(): value for name, _, value in options}


async def _converse(server: MailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hold one conversation. A peer that breaks off, or sends a line without end, ends its own and nobody else's."""
    try:
        await _Conversation(server, reader, writer).run()
    except (_Hangup, ConnectionError, ValueError):
        _log.debug("simulator.mail.hangup")
    finally:
        writer.close()


@asynccontextmanager
async def open_mail_server(server: MailServer) -> AsyncIterator[MailServer]:
    """Listen on the server's host and port (0: a free one, then set); connections end with the context."""
    async with asyncio.TaskGroup() as group:
        tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server.connections += 1
            task = group.create_task(_converse(server, reader, writer))
            tasks[task] = writer
            task.add_done_callback(tasks.pop)

        listener = await asyncio.start_server(begin, server.host, server.port, limit=_LINE)
        server.port = listener.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            listener.close()
            for task, writer in list(tasks.items()):
                task.cancel()
                writer.close()
