"""An open e-mail channel, or the bare relay under it, and mails to send: for the tests of the way to the relay."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from service.channels.email import EmailChannel, open_email
from service.channels.smtp import Relay, tls_context
from service.channels.smtp_url import parse_smtp_url
from service.channels.smtp_wire import Limits
from service.delivery import Composed, Intent, Mailbox, Message, Purpose, Recipient
from tests.fakes import MovedClock

ADDRESS = "ola.nordmann@nordmann.example"
SENDER = "faktura@nordlys.example"


def opened(
    url: str,
    *,
    clock: MovedClock | None = None,
    bcc: Mailbox | None = None,
    redirect_to: str | None = None,
    connections: int = 2,
) -> AbstractAsyncContextManager[EmailChannel]:
    return open_email(
        account_id="T12345678",
        smtp_url=url,
        mail_from=Mailbox(name="Nordlys", address=SENDER),
        reply_to=None,
        bcc=bcc,
        redirect_to=redirect_to,
        connections=connections,
        clock=clock or MovedClock(),
        hostname="client.example",
    )


def composed(channel: EmailChannel, *, address: str = ADDRESS, size: int = 100) -> Composed:
    return channel.compose(
        Message(locale="nb", subject="Faktura", text=".\n..dots\n", document_name="Faktura-1.pdf"),
        b"%PDF-" + b"x" * size,
        Recipient(address=address, key="k", masked="o***@nordmann.example"),
        Intent(key="ab" * 32, dated=datetime(2026, 7, 1, tzinfo=UTC), purpose=Purpose.FIRST),
    )


@asynccontextmanager
async def bare_relay(
    url: str, *, clock: MovedClock | None = None, connections: int = 2, limits: Limits | None = None
) -> AsyncIterator[Relay]:
    address = parse_smtp_url(url)
    relay = Relay(
        address,
        connections=connections,
        clock=clock or MovedClock(),
        hostname="client.example",
        context=tls_context(address.security),
        limits=limits or Limits(),
    )
    try:
        yield relay
    finally:
        await relay.close()


def mail_of(size: int) -> bytes:
    """Return about `size` bytes of a mail: many lines, some of which begin with dots, none of them alike."""
    line = b"x" * 70
    lines = (b"%s%07d%s" % (b"." * (n % 5 == 0), n, line) for n in range(size // 80))
    return b"Subject: x\r\n\r\n" + b"\r\n".join(lines) + b"\r\n.\r\n..\r\n"
