"""A conversation with a relay, step by step: what is said, which answer goes on, and how far it came otherwise."""

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Container
from contextlib import suppress

from aiosmtplib import SMTPException, SMTPResponse, SMTPResponseException
from aiosmtplib.auth import auth_login_encode, auth_plain_encode
from aiosmtplib.esmtp import parse_esmtp_extensions

from service.channels.smtp_replies import Phase
from service.channels.smtp_url import Security, SmtpAddress
from service.channels.smtp_wire import Limits, Wire

_FINE = range(200, 300)
_READY = (220,)
_GO_ON = (334,)  # signing in
_SEND_IT = (354,)
_CLOSING = 421


class Stopped(Exception):
    """A conversation came no further than `phase`; `code` is None when no answer came, or none that can be read."""

    def __init__(self, phase: Phase, code: int | None, text: str) -> None:
        super().__init__(phase, code, text)
        self.phase = phase
        self.code = code
        self.text = text

    @property
    def gone(self) -> bool:
        """Whether the relay is, or was, ending the connection."""
        return self.code is None or self.code == _CLOSING


def bearer(user: str, token: str) -> bytes:
    """Return what is shown to a relay that takes tokens."""
    return base64.b64encode(f"user={user}\x01auth=Bearer {token}\x01\x01".encode())


class Session:
    """One connection on which greetings have been exchanged; every method raises `Stopped`."""

    def __init__(self, wire: Wire, limits: Limits) -> None:
        self._wire = wire
        self._limits = limits
        self._extensions: dict[str, str] = {}
        self._methods: list[str] = []

    @property
    def alive(self) -> bool:
        """Whether another mail may be sent, as far as can be known from here."""
        return self._wire.is_connected and not self._wire.unread

    @property
    def size_limit(self) -> int | None:
        """The largest mail taken, in bytes (RFC 1870); none, 0 and nonsense are no limit."""
        given = self._extensions.get("size", "")
        return int(given) or None if given.isascii() and given.isdigit() else None

    async def greet(self, hostname: str) -> None:
        """Wait for the relay's greeting and answer it with our name."""
        await self._answer(Phase.CONNECT, self._wire.read_response(timeout=self._limits.greeting), _READY)
        await self._introduce(hostname)

    async def _introduce(self, hostname: str) -> None:
        reply = await self._ask(Phase.CONNECT, b"EHLO", hostname.encode("ascii"))
        self._extensions, self._methods = parse_esmtp_extensions(reply.message)

    async def secure(self, context: ssl.SSLContext, *, server: str, hostname: str) -> None:
        """Go over to TLS and begin anew: what was said before counts for nothing."""
        if "starttls" not in self._extensions:
            raise Stopped(Phase.CONNECT, None, "it does not offer STARTTLS")
        change = self._wire.start_tls(context, server_hostname=server, timeout=self._limits.connect)
        await self._answer(Phase.CONNECT, change, _READY)
        await self._introduce(hostname)

    async def sign_in(self, user: str, password: str) -> None:
        """Sign in by one method, once: a wrong password that is tried twice is half way to being locked out."""
        if "plain" in self._methods:
            await self._ask(Phase.AUTH, b"AUTH", b"PLAIN", auth_plain_encode(user, password))
        elif "login" in self._methods:
            name, word = auth_login_encode(user, password)
            await self._ask(Phase.AUTH, b"AUTH", b"LOGIN", good=_GO_ON)
            await self._ask(Phase.AUTH, name, good=_GO_ON)
            await self._ask(Phase.AUTH, word)
        else:
            raise Stopped(Phase.AUTH, None, "it offers neither PLAIN nor LOGIN")

    async def sign_in_with(self, user: str, token: str) -> None:
        """Sign in by XOAUTH2 with an access token; a relay that refuses it says why in a 334, and then says so."""
        if "xoauth2" not in self._methods:
            raise Stopped(Phase.AUTH, None, "it does not offer XOAUTH2")
        reply = await self._ask(Phase.AUTH, b"AUTH", b"XOAUTH2", bearer(user, token), good=(*_FINE, *_GO_ON))
        if reply.code in _GO_ON:
            await self._ask(Phase.AUTH, b"", good=())

    async def send(self, sender: str, recipient: str, content: bytes, envelope_id: str | None = None) -> SMTPResponse:
        """Send one mail and return what the relay said to it. Until `Phase.CONTENT`, it can have accepted nothing.

        A relay that knows how (RFC 3461) says `envelope_id` (letters and digits) in a bounce, and sends no more of the
        mail back than its header: nobody is to find the invoice in a mailbox for bounces.
        """
        size = (f"SIZE={len(content)}".encode(),) if "size" in self._extensions else ()
        told = envelope_id is not None and "dsn" in self._extensions
        named = (b"RET=HDRS", f"ENVID={envelope_id}".encode("ascii")) if told else ()
        await self._ask(Phase.MAIL, b"MAIL", f"FROM:<{sender}>".encode("ascii"), *size, *named)
        await self._ask(Phase.RCPT, b"RCPT", f"TO:<{recipient}>".encode("ascii"))
        await self._ask(Phase.DATA, b"DATA", good=_SEND_IT, limit=self._limits.data)
        if not self._wire.is_connected:
            raise Stopped(Phase.DATA, None, "it hung up before the message")
        return await self._answer(Phase.CONTENT, self._wire.hand_over(content, self._limits))

    async def touch(self) -> None:
        """Ask for nothing."""
        await self._ask(Phase.CONNECT, b"NOOP")

    async def _ask(
        self, phase: Phase, *words: bytes, good: Container[int] = _FINE, limit: float | None = None
    ) -> SMTPResponse:
        command = self._wire.execute_command(*words, timeout=limit or self._limits.command)
        reply = await self._answer(phase, command, good)
        if self._wire.unread:
            raise Stopped(phase, None, "more than one answer to one command")
        return reply

    async def _answer(
        self, phase: Phase, waiting: Awaitable[SMTPResponse], good: Container[int] = _FINE
    ) -> SMTPResponse:
        try:
            reply = await waiting
        except SMTPResponseException as exc:
            raise Stopped(phase, exc.code if exc.code > 0 else None, exc.message) from exc
        except SMTPException as exc:
            raise Stopped(phase, None, exc.message) from exc
        except OSError as exc:
            raise Stopped(phase, None, str(exc) or "no answer in time") from exc
        if reply.code not in good:
            raise Stopped(phase, reply.code, reply.message)
        return reply

    async def quit(self) -> None:
        """End it as the protocol wants it, without waiting long for a relay that does not answer."""
        try:
            with suppress(Stopped):  # it is the end either way
                await self._ask(Phase.CONNECT, b"QUIT", limit=self._limits.goodbye)
        finally:
            self.drop()

    def leave(self) -> None:
        """End it politely, without waiting at all."""
        self._wire.leave()

    def drop(self) -> None:
        """End it at once."""
        self._wire.drop()


async def open_session(
    address: SmtpAddress, *, hostname: str, context: ssl.SSLContext | None, limits: Limits, token: str | None = None
) -> Session:
    """Connect to a relay as its address says, sign in, and return the session; raises `Stopped`.

    `token` is for a user without a password.
    """
    wire = await _connect(address, context if address.security is Security.TLS else None, limits)
    session = Session(wire, limits)
    try:
        await session.greet(hostname)
        if address.security is Security.STARTTLS:
            assert context is not None
            await session.secure(context, server=address.host, hostname=hostname)
        if address.user is not None and address.password is not None:
            await session.sign_in(address.user, address.password)
        elif address.user is not None and token is not None:
            await session.sign_in_with(address.user, token)
    except BaseException:
        session.drop()
        raise
    return session


async def _connect(address: SmtpAddress, context: ssl.SSLContext | None, limits: Limits) -> Wire:
    """Return a connection on which nothing has been said; `context` is for TLS from the first byte."""
    handshake = limits.connect if context else None
    try:
        async with asyncio.timeout(limits.connect):
            _, wire = await asyncio.get_running_loop().create_connection(
                Wire, address.host, address.port, ssl=context, ssl_handshake_timeout=handshake
            )
    except OSError as exc:
        raise Stopped(Phase.CONNECT, None, str(exc) or f"no connection within {limits.connect:g} seconds") from exc
    return wire
