"""The bytes of a connection to a relay: one answer to one command, and an upload that may take its time."""

import asyncio
from dataclasses import dataclass
from typing import cast

from aiosmtplib import SMTPResponse, SMTPResponseException
from aiosmtplib.protocol import SMTPProtocol

_BLOCK = 65536  # bytes handed over at a time
_SLOWEST = 16384  # bytes a second: what the system has taken from us, the relay may still have to read
_NOT_SMTP = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to wait, in seconds: RFC 5321 4.5.3.2, but for `connect` (TCP, and TLS again), which it leaves open."""

    connect: float = 30.0
    greeting: float = 300.0
    command: float = 300.0
    data: float = 120.0
    block: float = 180.0  # for each block, so that a slow relay is waited for as long as it goes on reading
    answer: float = 600.0
    goodbye: float = 2.0


class Wire(SMTPProtocol):
    """aiosmtplib's protocol, which reads answers and goes over to TLS, with an upload in steps and two ways to end."""

    @property
    def unread(self) -> bool:
        """Whether the relay has said more than it was asked: the rest would pass for the answer to the next command."""
        return bool(self._buffer)

    async def hand_over(self, content: bytes, limits: Limits) -> SMTPResponse:
        """Write a mail's content, dots stuffed, and the final dot; return the answer.

        An answer in the middle ends it, too. There it can only be a refusal: raises `SMTPResponseException` otherwise.
        """
        content = stuffed(content)
        if len(content) <= _BLOCK:
            self.write(content + b".\r\n")
            return await self.read_response(timeout=limits.answer)
        async with asyncio.timeout(limits.block) as limit:
            upload = asyncio.create_task(self._upload(memoryview(content), limits, limit))
            try:
                reply = await self.read_response()
                early = not upload.done()
            finally:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)  # a lost connection is told by the answer, too
        if early and reply.code < 400:  # noqa: PLR2004
            raise SMTPResponseException(_NOT_SMTP, f"{reply.code} before the end of the message")
        return reply

    async def _upload(self, content: memoryview, limits: Limits, limit: asyncio.Timeout) -> None:
        for start in range(0, len(content), _BLOCK):
            limit.reschedule(self._loop.time() + limits.block)
            self._put(content[start : start + _BLOCK])
            await self._drain_helper()
        limit.reschedule(self._loop.time() + limits.answer + len(content) / _SLOWEST)
        self._put(memoryview(b".\r\n"))

    def _put(self, data: memoryview) -> None:
        """Write without a copy, which the protocol's own `write` is not declared to do."""
        if self.transport is not None and not self.transport.is_closing():
            cast("asyncio.WriteTransport", self.transport).write(data)

    def leave(self) -> None:
        """Say goodbye without waiting for the answer, as a relay likes it; only when no answer is outstanding."""
        if self.is_connected:
            self.write(b"QUIT\r\n")
            cast("asyncio.WriteTransport", self.transport).close()

    def drop(self) -> None:
        """End at once: nothing that was not yet handed to the system goes out any more."""
        if self.transport is not None:
            cast("asyncio.WriteTransport", self.transport).abort()


def stuffed(content: bytes) -> bytes:
    """Return a mail's content with lines that begin with a dot marked (RFC 5321 4.5.2), and with an end to the last.

    Most have neither to do, and are not copied.
    """
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..") if b"\r\n." in content else content
