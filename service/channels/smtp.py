"""Kept connections to one SMTP relay: who may be used again, and what a conversation's end means (channels.md 1.4)."""

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass

from aiosmtplib import SMTPResponse
from aiosmtplib.auth import auth_login_encode, auth_plain_encode

from service.channels.oauth import Tokens
from service.channels.smtp_replies import Phase, classify
from service.channels.smtp_session import Session, Stopped, bearer, open_session
from service.channels.smtp_url import Security, SmtpAddress
from service.channels.smtp_wire import Limits
from service.delivery import AccountFailure, Clock, DeliveryFailure, MessageTooLarge, RecipientRefused

_LONGEST_IDLE = 20.0  # seconds: relays drop idle clients, and the next mail pays for it
_OLDEST = 300.0
_MOST_MESSAGES = 50
_LONGEST_LOOK = 60.0
_BAD_CREDENTIALS = 535
_CROWDED = frozenset({421, 432, 450, 451, 452})  # "too many connections", in the words of several
_ON_THE_WIRE = re.compile(r"[!-;=?-~]+@[A-Za-z0-9.\[\]:-]+")  # no white space, no angle brackets
_DEFAULT_LIMITS = Limits()


class _Stale(Exception):
    """A kept connection turned out to be dead before anything was handed over."""


@dataclass(slots=True, kw_only=True)
class _Connection:
    session: Session
    opened_at: float
    used_at: float
    messages: int = 0


def tls_context(security: Security) -> ssl.SSLContext | None:
    """Return the verifying context for a relay, to be built once: loading the certificates takes milliseconds."""
    return None if security is Security.PLAIN else ssl.create_default_context()


class Relay:
    """One relay and at most `connections` connections to it. Every failure it raises is a `DeliveryFailure`.

    Anything but a clean end, a cancellation too, closes the connection: a late reply to one mail must never be read as
    the answer to another.
    """

    def __init__(
        self,
        address: SmtpAddress,
        *,
        connections: int,
        clock: Clock,
        hostname: str,
        context: ssl.SSLContext | None,
        limits: Limits = _DEFAULT_LIMITS,
        tokens: Tokens | None = None,
    ) -> None:
        self._tokens = tokens
        self._address = address
        self._clock = clock
        self._hostname = hostname
        self._context = context
        self._limits = limits
        self._slots = asyncio.Semaphore(connections)
        self._working = 0  # connections with a mail on its way
        self._idle: list[_Connection] = []  # the one used last at the end
        self._secrets: tuple[str, ...] = ()

    async def deliver(
        self, sender: str, recipient: str, content: bytes, envelope_id: str | None = None
    ) -> SMTPResponse:
        """Hand a mail over and return the relay's reply; a kept connection that proves dead is replaced at once.

        `envelope_id` (letters and digits) is what a bounce of this mail is known by, where the relay knows how.
        """
        if not _ON_THE_WIRE.fullmatch(recipient):
            raise RecipientRefused("the address cannot be written on an envelope")
        async with self._slots:
            kept = self._take()
            if kept is not None:
                with suppress(_Stale):  # nothing was handed over, so a fresh connection cannot make it two
                    return await self._transact(kept, sender, recipient, content, envelope_id, kept=True)
            return await self._transact(await self._open(), sender, recipient, content, envelope_id, kept=False)

    async def look(self) -> int | None:
        """Connect, sign in, ask for nothing and leave; return the largest mail taken, in bytes, where it is named."""
        try:
            async with asyncio.timeout(_LONGEST_LOOK):
                session = (await self._open()).session
                try:
                    await session.touch()
                except Stopped as stop:
                    raise self._failure(stop) from stop
                finally:
                    await session.quit()
        except TimeoutError as exc:
            raise AccountFailure(f"{Phase.CONNECT}: no answer within {_LONGEST_LOOK:g} seconds") from exc
        return session.size_limit

    async def close(self) -> None:
        """Say goodbye on every idle connection."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.session.quit() for connection in idle))

    def _take(self) -> _Connection | None:
        """Return the connection used last, if it will do; let go of all that will not."""
        now = self._clock.monotonic()
        idle, self._idle = self._idle, []
        for connection in idle:
            if _will_do(connection, now):
                self._idle.append(connection)
            else:
                connection.session.leave()
        return self._idle.pop() if self._idle else None

    def _keep(self, connection: _Connection) -> None:
        connection.messages += 1
        connection.used_at = self._clock.monotonic()
        if _will_do(connection, connection.used_at):
            self._idle.append(connection)
        else:
            connection.session.leave()

    async def _open(self) -> _Connection:
        try:
            session = await self._session()
        except Stopped as stop:
            raise self._failure(stop) from stop
        now = self._clock.monotonic()
        return _Connection(session=session, opened_at=now, used_at=now)

    async def _session(self) -> Session:
        """Open a session; a token that is refused may have been called back, so one more is asked for, once."""
        if self._tokens is None:
            return await self._signed_in(None)
        token = await self._tokens.get()
        try:
            return await self._signed_in(token)
        except Stopped as stop:
            if stop.phase is not Phase.AUTH or stop.code != _BAD_CREDENTIALS:
                raise
            self._tokens.forget(token)
        return await self._signed_in(await self._tokens.get())

    async def _signed_in(self, token: str | None) -> Session:
        self._secrets = _secrets(self._address, token)
        return await open_session(
            self._address, hostname=self._hostname, context=self._context, limits=self._limits, token=token
        )

    async def _transact(
        self,
        connection: _Connection,
        sender: str,
        recipient: str,
        content: bytes,
        envelope_id: str | None,
        *,
        kept: bool,
    ) -> SMTPResponse:
        """Send one mail and keep the connection; raises `_Stale` when one that was kept died before the content."""
        session, limit = connection.session, connection.session.size_limit
        if limit is not None and len(content) > limit:
            self._idle.append(connection)  # as it is: the relay has not heard of this mail
            raise MessageTooLarge(f"the mail is {len(content)} bytes and the relay takes {limit}")
        self._working += 1
        try:
            reply = await session.send(sender, recipient, content, envelope_id)
        except Stopped as stop:
            (session.drop if stop.gone else session.leave)()
            if kept and stop.gone and stop.phase is not Phase.CONTENT:
                raise _Stale from stop
            raise self._failure(stop, recipient, recipient.rpartition("@")[0]) from stop
        except BaseException:
            session.drop()
            raise
        finally:
            self._working -= 1
        self._keep(connection)
        return reply

    def _failure(self, stop: Stopped, *secrets: str) -> DeliveryFailure:
        crowded = self._working and stop.phase in (Phase.CONNECT, Phase.AUTH) and stop.code in _CROWDED
        phase = Phase.FURTHER if crowded else stop.phase
        return classify(phase, stop.code, stop.text, (*self._secrets, *secrets))


def _will_do(connection: _Connection, now: float) -> bool:
    return (
        connection.session.alive
        and connection.messages < _MOST_MESSAGES
        and now - connection.used_at <= _LONGEST_IDLE
        and now - connection.opened_at <= _OLDEST
    )


def _secrets(address: SmtpAddress, token: str | None) -> tuple[str, ...]:
    """Return what a relay may quote of our signing in: the words themselves, and as they are on the wire."""
    if address.user is not None and token is not None:
        return (address.user, token, bearer(address.user, token).decode("ascii"))
    if address.user is None or address.password is None:
        return ()
    encoded = (auth_plain_encode(address.user, address.password), *auth_login_encode(address.user, address.password))
    return (address.user, address.password, *(one.decode("ascii") for one in encoded))
