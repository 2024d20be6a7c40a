"""Kept connections to one SMTP relay: signing in, reuse, one mail to one recipient at a time (channels.md 1.2-1.4)."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from aiosmtplib import SMTP, SMTPException, SMTPResponse, SMTPResponseException

from service.channels.smtp_replies import Phase, classify
from service.channels.smtp_url import Security, SmtpAddress
from service.delivery import Clock, PermanentFailure

_CONNECT_TIMEOUT = 15.0  # seconds, as are all below
_COMMAND_TIMEOUT = 60.0
_DATA_TIMEOUT = 600.0  # RFC 5321 4.5.3.2; aiosmtplib counts the upload too, hence the share for size
_SLOWEST_UPLOAD = 65536  # bytes a second
_QUIT_TIMEOUT = 2.0
_LONGEST_IDLE = 20.0  # relays drop idle clients, and the next mail pays for it
_OLDEST = 300.0
_MOST_MESSAGES = 50
_GOING_AWAY = frozenset({421, -1})  # the relay is closing, or did not speak SMTP any more


class _Stale(Exception):
    """A kept connection turned out to be dead before anything was handed over."""


@dataclass(slots=True, kw_only=True)
class _Connection:
    client: SMTP
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
        self, address: SmtpAddress, *, connections: int, clock: Clock, hostname: str, context: ssl.SSLContext | None
    ) -> None:
        self._address = address
        self._clock = clock
        self._hostname = hostname
        self._context = context
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._secrets = tuple(secret for secret in (address.user, address.password) if secret)

    async def deliver(self, sender: str, recipient: str, content: bytes) -> SMTPResponse:
        """Hand a mail over and return the relay's reply; a kept connection that proves dead is replaced at once."""
        async with self._slots:
            kept = self._take()
            if kept is not None:
                with suppress(_Stale):  # nothing was handed over, so a fresh connection cannot make it two
                    return await self._transact(kept, sender, recipient, content)
            return await self._transact(await self._open(), sender, recipient, content)

    async def look(self) -> int | None:
        """Connect, sign in, ask for nothing and leave; return the largest mail taken, in bytes, where it is named."""
        client = (await self._open()).client
        with self._failing(client, Phase.CONNECT):
            await client.noop()
            limit = _size_limit(client)
        await _quit(client)
        return limit

    async def close(self) -> None:
        """Say goodbye on every idle connection."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_quit(connection.client) for connection in idle))

    def _take(self) -> _Connection | None:
        """Return the connection used last, if it will do; let go of all that will not."""
        now = self._clock.monotonic()
        fresh = []
        for connection in self._idle:
            young = now - connection.used_at <= _LONGEST_IDLE and now - connection.opened_at <= _OLDEST
            if young and connection.client.is_connected:
                fresh.append(connection)
            else:
                connection.client.close()
        self._idle = fresh
        return fresh.pop() if fresh else None

    def _keep(self, connection: _Connection) -> None:
        connection.messages += 1
        connection.used_at = self._clock.monotonic()
        if connection.messages < _MOST_MESSAGES and connection.client.is_connected:
            self._idle.append(connection)
        else:
            connection.client.close()

    async def _open(self) -> _Connection:
        address = self._address
        client = SMTP(
            hostname=address.host,
            port=address.port,
            local_hostname=self._hostname,
            timeout=_COMMAND_TIMEOUT,
            use_tls=address.security is Security.TLS,
            start_tls=False,  # done below, so that the phase is known and a missing offer is an error
            tls_context=self._context,
        )
        client.AUTH_METHODS = ("plain", "login")  # each failing method counts towards a lockout
        with self._failing(client, Phase.CONNECT):
            await client.connect(timeout=_CONNECT_TIMEOUT)
            await client.ehlo()
            if address.security is Security.STARTTLS:
                await client.starttls(timeout=_CONNECT_TIMEOUT)
                await client.ehlo()
        if address.user is not None and address.password is not None:
            with self._failing(client, Phase.AUTH):
                await client.login(address.user, address.password)
        now = self._clock.monotonic()
        return _Connection(client=client, opened_at=now, used_at=now)

    async def _transact(self, connection: _Connection, sender: str, recipient: str, content: bytes) -> SMTPResponse:
        """Send one mail and keep the connection; raises `_Stale` when a used one was dead before the content."""
        client, used, size = connection.client, connection.messages > 0, len(content)
        secrets = (recipient, recipient.rpartition("@")[0])
        limit = _size_limit(client)
        if limit is not None and size > limit:
            self._keep(connection)
            raise PermanentFailure(f"the mail is {size} bytes and the relay takes {limit}")
        options = [f"SIZE={size}"] if client.supports_extension("size") else []
        with self._failing(client, Phase.MAIL, secrets, used=used):
            await client.mail(sender, options=options)
        with self._failing(client, Phase.RCPT, secrets, used=used):
            await client.rcpt(recipient)
        with self._failing(client, Phase.DATA, secrets):
            response = await client.data(content, timeout=_DATA_TIMEOUT + size / _SLOWEST_UPLOAD)
        self._keep(connection)
        return response

    @contextmanager
    def _failing(
        self, client: SMTP, phase: Phase, secrets: tuple[str, ...] = (), *, used: bool = False
    ) -> Iterator[None]:
        """Close the connection on anything but a clean end, and turn what the library raises into our failure."""
        try:
            yield
        except (SMTPException, OSError) as exc:
            client.close()
            code = exc.code if isinstance(exc, SMTPResponseException) else None
            if used and (code is None or code in _GOING_AWAY):
                raise _Stale from exc
            text = exc.message if isinstance(exc, SMTPException) else str(exc)
            raise classify(phase, code, text, (*self._secrets, *secrets)) from exc
        except BaseException:
            client.close()
            raise


def _size_limit(client: SMTP) -> int | None:
    """Return the relay's limit in bytes (RFC 1870); none, 0 and nonsense are no limit."""
    given = client.esmtp_extensions.get("size", "")
    return int(given) or None if given.isascii() and given.isdigit() else None


async def _quit(client: SMTP) -> None:
    """End a connection as the protocol wants it, without waiting for a relay that does not answer."""
    with suppress(SMTPException, OSError):  # it is the end either way
        await client.quit(timeout=_QUIT_TIMEOUT)
    client.close()
