"""The way to the relay: real sockets, a scripted relay for what goes wrong, aiosmtpd for TLS and signing in."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trustme
from aiosmtpd import smtp as aiosmtpd
from aiosmtpd.smtp import AuthResult, LoginPassword
from structlog.testing import capture_logs

from service.delivery import (
    AccountFailure,
    Brand,
    Intent,
    Mailbox,
    Party,
    PermanentFailure,
    Purpose,
    RecipientRefused,
)
from service.render import open_renderer
from service.render.samples import FULL, SURE
from tests.mails import ADDRESS, composed, opened
from tests.pictures import png
from tests.smtp_peer import Held, SmtpPeer, smtp_peer


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


async def test_a_notice_goes_the_same_way_and_is_redirected_as_all_mails_are(peer: SmtpPeer) -> None:
    renderer = open_renderer(
        brand=Brand(name="Nordlys", logo=png(220, 48)),
        templates_dir=None,
        locale="nb",
        timezone=ZoneInfo("Europe/Oslo"),
    )
    intent = Intent(key="cd" * 16, dated=datetime(2026, 6, 30, tzinfo=UTC), purpose=Purpose.NOTICE)
    customer = replace(FULL.billing or Party(), email=ADDRESS)
    async with opened(peer.url, redirect_to="prove@nordlys.example") as channel:
        recipient = channel.recipient(replace(FULL, billing=customer))
        message = renderer.notice(channel.template, FULL, upcoming=SURE, recipient=recipient)
        notice = channel.compose(message, None, recipient, intent)
        await channel.send(notice)
        assert channel.compose(message, None, recipient, intent).content == notice.content
    assert peer.mails == [notice.content]
    assert "RCPT TO:<prove@nordlys.example>" in peer.commands
    mail = message_from_bytes(peer.mails[0], policy=default)
    assert mail["Message-ID"] == notice.message_id == f"<{intent.key}@nordlys.example>"
    assert mail["Subject"] == "[Test] Kjøpet hos Nordlys kommer på fakturaen datert 1. juli 2026"
    parts = {part.get_content_type(): part for part in mail.walk() if not part.is_multipart()}
    assert set(parts) == {"text/plain", "text/html", "image/png"}
    assert "12 345,50" in parts["text/plain"].get_content().replace("\u00a0", " ")
    assert "o***@nordmann.example" in parts["text/html"].get_content()


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
        self.sessions: set[tuple[str, int]] = set()
        self.answer = "250 2.0.0 Ok: queued as DEF"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.sessions.add(session.peer)
        self.mails.append(envelope.original_content)
        return self.answer


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


async def test_a_large_mail_goes_through_tls_and_a_refused_one_ends_it(authority: trustme.CA) -> None:
    inbox = Inbox()
    context = server_context(authority)
    async with relay(inbox, implicit=context) as port, opened(f"smtps://127.0.0.1:{port}") as channel:
        mail = composed(channel, size=2_000_000)
        await channel.send(mail)
        inbox.answer = "550 5.1.1 no"
        with pytest.raises(RecipientRefused):
            await channel.send(mail)
        inbox.answer = "250 Ok"
        await channel.send(mail)
    assert inbox.mails == [mail.content] * 3
    assert len(inbox.sessions) == 2


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
