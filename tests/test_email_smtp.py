"""The way to the relay: real sockets, a scripted relay for what goes wrong, aiosmtpd for TLS and signing in."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd import smtp as aiosmtpd
from aiosmtpd.smtp import AuthResult, LoginPassword
from structlog.testing import capture_logs

from service.channels.email import EmailChannel, open_email
from service.channels.smtp_replies import Phase, classify, parse_wait
from service.delivery import (
    AccountFailure,
    Composed,
    DeliveryFailure,
    Intent,
    Mailbox,
    Message,
    PermanentFailure,
    Purpose,
    Recipient,
    TransientFailure,
    UnconfirmedFailure,
)
from tests.fakes import MovedClock
from tests.smtp_peer import DROP, Held, SmtpPeer, smtp_peer

ADDRESS = "ola.nordmann@nordmann.example"


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
        mail_from=Mailbox(name="Nordlys", address="faktura@nordlys.example"),
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


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with smtp_peer() as peer:
        yield peer


async def test_a_mail_arrives_byte_for_byte_and_the_reply_is_the_receipt(peer: SmtpPeer) -> None:
    async with opened(peer.url) as channel:
        mail = composed(channel)
        receipt = await channel.send(mail)
    assert peer.mails == [mail.content]
    assert receipt.answer == "250 2.0.0 Ok: queued as ABC"
    assert peer.commands == [
        "EHLO client.example",
        f"MAIL FROM:<faktura@nordlys.example> SIZE={len(mail.content)}",
        f"RCPT TO:<{ADDRESS}>",
        "DATA",
        "QUIT",
    ]


REFUSALS = [
    ("GREETING", "554 5.7.1 blocked", AccountFailure),
    ("GREETING", "421 too busy", AccountFailure),
    ("GREETING", DROP, AccountFailure),
    ("MAIL", "530 5.7.0 sign in first", AccountFailure),
    ("MAIL", "454 4.7.0 not now", AccountFailure),
    ("MAIL", "550 5.7.30 basic authentication is off", AccountFailure),
    ("MAIL", "550 5.1.8 bad sender", AccountFailure),
    ("MAIL", "451 4.3.0 later", TransientFailure),
    ("MAIL", "552 5.3.4 too big", PermanentFailure),
    ("MAIL", DROP, TransientFailure),
    ("RCPT", "550 5.1.1 no such user", PermanentFailure),
    ("RCPT", "450 4.7.1 greylisted", TransientFailure),
    ("RCPT", "421 4.3.2 closing", TransientFailure),
    ("RCPT", DROP, TransientFailure),
    ("DATA", "554 5.5.1 no", PermanentFailure),
    ("DATA", "451 4.3.0 later", TransientFailure),
    ("DATA", DROP, UnconfirmedFailure),
    (".", "554 5.7.1 spam", PermanentFailure),
    (".", "452 4.3.1 no room", TransientFailure),
    (".", "this is not SMTP", UnconfirmedFailure),
    (".", DROP, UnconfirmedFailure),
]


@pytest.mark.parametrize(("command", "reply", "failure"), REFUSALS)
async def test_what_a_reply_means(peer: SmtpPeer, command: str, reply: str, failure: type[DeliveryFailure]) -> None:
    peer.say(command, reply)
    async with opened(peer.url) as channel:
        with pytest.raises(DeliveryFailure) as caught:
            await channel.send(composed(channel))
        assert type(caught.value) is failure
        if reply[:3].isdigit():
            assert reply[:3] in caught.value.reason
        before = len(peer.mails)
        assert (await channel.send(composed(channel))).answer.startswith("250")
        assert len(peer.mails) == before + 1


async def test_a_reply_that_quotes_the_address_does_not_pass_it_on(peer: SmtpPeer) -> None:
    peer.say("RCPT", f"550 5.1.1 <{ADDRESS}>: mailbox Ola.Nordmann unknown, +4799999999")
    peer.say(".", f"250 2.0.0 queued for {ADDRESS}")
    async with opened(peer.url) as channel:
        with pytest.raises(PermanentFailure) as caught:
            await channel.send(composed(channel))
        assert "550 5.1.1" in caught.value.reason
        receipt = await channel.send(composed(channel))
    for text in (caught.value.reason, receipt.answer):
        assert "nordmann" not in text.lower()
        assert "99999999" not in text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4.7.1 Greylisted, try again in 300 seconds", 300.0),
        ("please retry after 5 minutes", 300.0),
        ("try again in 1 hour", 3600.0),
        ("wait 90 s", 90.0),
        ("try again in 999999 hours", 86400.0),
        ("try again later", None),
        ("in 5 mailboxes", None),
    ],
)
def test_how_long_a_relay_asks_us_to_wait(text: str, seconds: float | None) -> None:
    assert parse_wait(text) == seconds
    failure = classify(Phase.RCPT, 450, text)
    assert isinstance(failure, TransientFailure)
    assert failure.retry_after == seconds


async def test_a_connection_is_kept_for_the_next_mail(peer: SmtpPeer) -> None:
    async with opened(peer.url) as channel:
        for _ in range(3):
            await channel.send(composed(channel))
    assert (peer.connections, len(peer.mails)) == (1, 3)


@pytest.mark.parametrize("pause", [25, 301])
async def test_a_connection_that_idled_is_not_used_again(peer: SmtpPeer, pause: float) -> None:
    clock = MovedClock()
    async with opened(peer.url, clock=clock) as channel:
        await channel.send(composed(channel))
        clock.advance(pause)
        await channel.send(composed(channel))
    assert peer.connections == 2


async def test_a_connection_is_replaced_when_old_or_much_used(peer: SmtpPeer) -> None:
    clock = MovedClock()
    async with opened(peer.url, clock=clock) as channel:
        for _ in range(51):
            await channel.send(composed(channel))
        assert peer.connections == 2
        for _ in range(20):
            clock.advance(19)
            await channel.send(composed(channel))
    assert peer.connections == 3


async def test_no_more_connections_than_allowed(peer: SmtpPeer) -> None:
    first, second = Held("250 2.0.0 Ok"), Held("250 2.0.0 Ok")
    peer.say("MAIL", first, second)
    async with opened(peer.url, connections=2) as channel, asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(channel.send(composed(channel)))
        await first.reached.wait()
        await second.reached.wait()
        assert peer.connections == 2
        first.release.set()
        second.release.set()
    assert (peer.connections, len(peer.mails)) == (2, 5)


async def test_a_kept_connection_that_the_relay_closed_costs_nothing(peer: SmtpPeer) -> None:
    async with opened(peer.url) as channel:
        await channel.send(composed(channel))
        await peer.hang_up()
        await channel.send(composed(channel))
    assert (peer.connections, len(peer.mails)) == (2, 2)


@pytest.mark.parametrize(("command", "reply"), [("MAIL", DROP), ("MAIL", "421 4.4.2 idle too long"), ("RCPT", DROP)])
async def test_a_kept_connection_that_dies_before_the_content_is_replaced_at_once(
    peer: SmtpPeer, command: str, reply: str
) -> None:
    async with opened(peer.url) as channel:
        await channel.send(composed(channel))
        peer.say(command, reply)
        await channel.send(composed(channel))
    assert (peer.connections, len(peer.mails)) == (2, 2)


async def test_a_kept_connection_that_dies_with_the_content_is_unconfirmed(peer: SmtpPeer) -> None:
    async with opened(peer.url) as channel:
        await channel.send(composed(channel))
        peer.say(".", DROP)
        with pytest.raises(UnconfirmedFailure):
            await channel.send(composed(channel))
    assert (peer.connections, len(peer.mails)) == (1, 2)


async def test_a_cancelled_send_leaves_no_reply_for_the_next(peer: SmtpPeer) -> None:
    late = Held("550 5.1.1 late, for the first")
    async with opened(peer.url, connections=1) as channel:
        await channel.send(composed(channel))
        peer.say("RCPT", late)
        task = asyncio.create_task(channel.send(composed(channel)))
        await late.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        late.release.set()
        assert (await channel.send(composed(channel))).answer.startswith("250")
    assert (peer.connections, len(peer.mails)) == (2, 2)


async def test_a_mail_above_the_relays_limit_is_refused_before_it_is_sent(peer: SmtpPeer) -> None:
    peer.say("EHLO", "250-peer\r\n250 SIZE 3000")
    async with opened(peer.url) as channel:
        await channel.send(composed(channel))
        with pytest.raises(PermanentFailure, match="the relay takes 3000"):
            await channel.send(composed(channel, size=5000))
        await channel.send(composed(channel))
    assert (peer.connections, len(peer.mails)) == (1, 2)


async def test_a_closed_port_is_the_accounts_fault(peer: SmtpPeer) -> None:
    async with smtp_peer() as gone:
        url = gone.url
    async with opened(url) as channel:
        with pytest.raises(AccountFailure, match="cannot be reached"):
            await channel.send(composed(channel))
        with pytest.raises(AccountFailure, match="cannot be reached"):
            await channel.check()


async def test_a_blind_copy_is_a_second_mail_of_the_same_bytes(peer: SmtpPeer) -> None:
    async with opened(peer.url, bcc=Mailbox(name="", address="arkiv@nordlys.example")) as channel:
        mail = composed(channel)
        await channel.send(mail)
    assert peer.mails == [mail.content, mail.content]
    assert [line for line in peer.commands if line.startswith("RCPT")] == [
        f"RCPT TO:<{ADDRESS}>",
        "RCPT TO:<arkiv@nordlys.example>",
    ]


async def test_a_failing_blind_copy_changes_nothing(peer: SmtpPeer) -> None:
    peer.say("RCPT", "250 Ok", "550 5.1.1 arkiv@nordlys.example unknown")
    with capture_logs() as logs:
        async with opened(peer.url, bcc=Mailbox(name="", address="arkiv@nordlys.example")) as channel:
            assert (await channel.send(composed(channel))).answer.startswith("250")
    (line,) = [line for line in logs if line["event"] == "alarm.blind_copy_failed"]
    assert "550" in line["reason"]
    assert "arkiv" not in str(line)


async def test_a_slow_blind_copy_does_not_hold_the_receipt(peer: SmtpPeer) -> None:
    slow = Held("250 Ok")
    peer.say("RCPT", "250 Ok", slow)
    async with opened(peer.url, bcc=Mailbox(name="", address="arkiv@nordlys.example")) as channel:
        await channel.send(composed(channel))
        await slow.reached.wait()
        assert len(peer.mails) == 1
        slow.release.set()
    assert len(peer.mails) == 2


async def test_no_blind_copy_of_a_refused_mail(peer: SmtpPeer) -> None:
    peer.say("RCPT", "550 5.1.1 no")
    async with opened(peer.url, bcc=Mailbox(name="", address="arkiv@nordlys.example")) as channel:
        with pytest.raises(PermanentFailure):
            await channel.send(composed(channel))
    assert peer.mails == []


async def test_under_redirection_the_blind_copy_is_redirected_too(peer: SmtpPeer) -> None:
    bcc = Mailbox(name="", address="arkiv@nordlys.example")
    async with opened(peer.url, bcc=bcc, redirect_to="test@nordlys.example") as channel:
        await channel.send(composed(channel, address="test@nordlys.example"))
    assert [line for line in peer.commands if line.startswith("RCPT")] == ["RCPT TO:<test@nordlys.example>"] * 2


# --- TLS and signing in, with a real server --------------------------------------------------------------------------


class Inbox:
    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.sessions: set[int] = set()

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.sessions.add(id(session))
        self.mails.append(envelope.original_content)
        return "250 2.0.0 Ok: queued as DEF"


def authenticator(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (
        b"faktura@nordlys.example",
        b"p@ss/w:rd",
    )
    return AuthResult(success=right, handled=False)


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@asynccontextmanager
async def relay(inbox: Inbox, *, implicit: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[int]:
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: aiosmtpd.SMTP(inbox, hostname="relay.example", loop=loop, **options), "127.0.0.1", 0, ssl=implicit
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


SIGNED_IN = "faktura%40nordlys.example:p%40ss%2Fw%3Ard@127.0.0.1"


async def test_starttls_with_signing_in(authority: trustme.CA) -> None:
    inbox = Inbox()
    options: dict[str, Any] = {"tls_context": server_context(authority), "authenticator": authenticator}
    async with relay(inbox, auth_required=True, **options) as port, opened(f"smtp://{SIGNED_IN}:{port}") as channel:
        mail = composed(channel)
        assert (await channel.send(mail)).answer == "250 2.0.0 Ok: queued as DEF"
        await channel.send(mail)
        assert inbox.mails == [mail.content] * 2
        assert len(inbox.sessions) == 1
        found = await channel.check()
    assert found == f"127.0.0.1:{port}, STARTTLS, signed in as f***@nordlys.example, SIZE 34 MB"


async def test_implicit_tls(authority: trustme.CA) -> None:
    inbox = Inbox()
    context = server_context(authority)
    async with relay(inbox, implicit=context) as port, opened(f"smtps://127.0.0.1:{port}") as channel:
        await channel.send(composed(channel))
        assert len(inbox.mails) == 1
        assert (await channel.check()).startswith(f"127.0.0.1:{port}, TLS, SIZE")


async def test_a_wrong_password_is_the_accounts_fault_and_is_not_told(authority: trustme.CA) -> None:
    options: dict[str, Any] = {"tls_context": server_context(authority), "authenticator": authenticator}
    url = "smtp://faktura%40nordlys.example:tr0ub4dor@127.0.0.1"
    async with relay(Inbox(), **options) as port, opened(f"{url}:{port}") as channel:
        for attempt in (channel.send(composed(channel)), channel.check()):
            with pytest.raises(AccountFailure, match="did not let us sign in: 535") as caught:
                await attempt
            assert "tr0ub4dor" not in caught.value.reason


async def test_a_relay_without_starttls_gets_no_mail_and_no_password() -> None:
    async with smtp_peer() as peer:
        peer.say("EHLO", "250-peer\r\n250 AUTH PLAIN LOGIN")
        async with opened(f"smtp://{SIGNED_IN}:{peer.port}") as channel:
            with pytest.raises(AccountFailure, match="STARTTLS"):
                await channel.send(composed(channel))
        assert [line.split()[0] for line in peer.commands] == ["EHLO"]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_for_another_name_is_refused(authority: trustme.CA, scheme: str) -> None:
    context = server_context(authority, "other.example")
    options: dict[str, Any] = {"tls_context": context} if scheme == "smtp" else {"implicit": context}
    inbox = Inbox()
    async with relay(inbox, **options) as port, opened(f"{scheme}://127.0.0.1:{port}") as channel:
        with pytest.raises(AccountFailure, match="certificate"):
            await channel.send(composed(channel))
    assert inbox.mails == []


async def test_only_one_method_of_signing_in_is_tried_when_the_relay_says_later(peer: SmtpPeer) -> None:
    peer.say("EHLO", "250-peer\r\n250 AUTH PLAIN CRAM-MD5")
    peer.say("AUTH", "454 4.7.0 later", "454 4.7.0 later")
    async with opened(f"smtp+insecure://a:b@127.0.0.1:{peer.port}") as channel:
        with pytest.raises(AccountFailure, match="454"):
            await channel.send(composed(channel))
    assert [line.split()[1] for line in peer.commands if line.startswith("AUTH")] == ["PLAIN"]
