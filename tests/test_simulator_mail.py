import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random

import aiosmtplib
import pytest

from service.simulator.mail import Mail, MailServer, open_mail_server
from service.simulator.script import NEVER, Behaviour, Phase
from tests.fakes import MovedClock

FROM, TO, OTHER = "shop@shop.example", "ola@nordmann.example", "kari@nordmann.example"
CONTENT = b"Subject: hello\r\n\r\nline\r\n..dot\r\n.\xc3\xb8\r\nend\r\n"


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def server(clock: MovedClock) -> AsyncIterator[MailServer]:
    async with open_mail_server(MailServer(clock=clock, random=Random(1))) as server:
        yield server


def client(server: MailServer, *, timeout: float = 5) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname=server.host, port=server.port, start_tls=False, timeout=timeout, local_hostname="test.example"
    )


async def test_a_message_arrives_byte_for_byte(server: MailServer, clock: MovedClock) -> None:
    arrived: list[Mail] = []
    server.arrived = arrived.append
    async with client(server) as smtp:
        await smtp.ehlo()
        assert smtp.supports_extension("8bitmime")
        assert smtp.esmtp_extensions["size"] == str(server.size_limit)
        refused, reply = await smtp.sendmail(FROM, [TO, OTHER], CONTENT)
        await smtp.noop()
        await smtp.rset()
        await smtp.sendmail(FROM, [TO], b"x\r\n")
    assert refused == {}
    first, second = await server.wait(2)
    assert first.content == CONTENT
    assert (first.sender, first.recipients) == (FROM, (TO, OTHER))
    assert reply.endswith(f"queued as {first.queue_id}")
    assert first.received_at <= clock.now()
    assert [first.number, second.number] == [1, 2]
    assert arrived == server.inbox == [first, second]
    assert (server.connections, server.transactions) == (1, 2)


async def test_a_recipient_is_refused_as_told(server: MailServer) -> None:
    server.refuse(TO, "550 5.1.1 <{recipient}> unknown")
    async with client(server) as smtp:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as caught:
            await smtp.sendmail(FROM, [TO], CONTENT)
        assert caught.value.recipients[0].message == f"5.1.1 <{TO}> unknown"
        refused, _ = await smtp.sendmail(FROM, [TO, OTHER], CONTENT)
    assert refused[TO].code == 550
    assert [mail.recipients for mail in server.inbox] == [(OTHER,)]


async def test_a_temporary_refusal_ends_after_so_many(server: MailServer) -> None:
    server.refuse(TO, "451 4.7.1 greylisted", times=2)
    async with client(server) as smtp:
        for _ in range(2):
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
                await smtp.sendmail(FROM, [TO], CONTENT)
        await smtp.sendmail(FROM, [TO], CONTENT)
    assert len(server.inbox) == 1


@pytest.mark.parametrize(
    ("phase", "reply", "failure"),
    [
        (Phase.CONNECT, "421 4.3.2 too busy", aiosmtplib.SMTPConnectError),
        (Phase.MAIL, "452 4.3.1 no space", aiosmtplib.SMTPSenderRefused),
        (Phase.DATA, "451 4.3.0 not now", aiosmtplib.SMTPDataError),
        (Phase.CONTENT, "554 5.7.1 spam", aiosmtplib.SMTPDataError),
    ],
)
async def test_any_phase_may_refuse(server: MailServer, phase: Phase, reply: str, failure: type[Exception]) -> None:
    server.script.on(phase, Behaviour(reply=reply))
    with pytest.raises(failure):
        async with client(server) as smtp:
            await smtp.sendmail(FROM, [TO], CONTENT)
    assert server.inbox == []
    server.script.clear()
    async with client(server) as smtp:
        await smtp.sendmail(FROM, [TO], CONTENT)
    assert len(server.inbox) == 1


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.CONTENT])
async def test_any_phase_may_break_off(server: MailServer, phase: Phase) -> None:
    server.script.on(phase, Behaviour(drop=True), times=1)
    smtp = client(server)
    await smtp.connect()
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await smtp.sendmail(FROM, [TO], CONTENT)
    smtp.close()
    assert server.inbox == []


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("behaviour", ["drop", "never"])
async def test_the_last_answer_may_be_lost(server: MailServer, behaviour: str, keep: bool) -> None:
    lost = Behaviour(drop=True, keep=keep) if behaviour == "drop" else Behaviour(delay=NEVER, keep=keep)
    server.script.on(Phase.CONTENT, lost)
    smtp = client(server, timeout=0.2)
    await smtp.connect()
    with pytest.raises((aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPReadTimeoutError)):
        await smtp.sendmail(FROM, [TO], CONTENT)
    smtp.close()
    assert len(server.inbox) == keep


async def test_a_reply_may_come_late(server: MailServer, clock: MovedClock) -> None:
    server.script.on(Phase.RCPT, Behaviour(delay=90))
    begun = clock.now()
    async with client(server) as smtp:
        await smtp.sendmail(FROM, [TO], CONTENT)
    assert (clock.now() - begun).total_seconds() >= 90


async def test_what_is_too_much_is_refused(server: MailServer) -> None:
    server.size_limit, server.max_recipients = 100, 1
    async with client(server) as smtp:
        with pytest.raises(aiosmtplib.SMTPSenderRefused) as caught:
            await smtp.sendmail(FROM, [TO], b"x" * 200)
        assert caught.value.code == 552
        await smtp.mail(FROM)
        await smtp.rcpt(TO)
        with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refused:
            await smtp.rcpt(OTHER)
        assert refused.value.code == 452
        with pytest.raises(aiosmtplib.SMTPDataError) as big:
            await smtp.data(b"x" * 200)
        assert big.value.code == 552
    assert server.inbox == []


@pytest.mark.parametrize("mechanism", ["plain", "login"])
async def test_a_login_is_asked_for_and_checked(server: MailServer, mechanism: str) -> None:
    server.credentials = ("user", "pass")
    assert server.url == f"smtp+insecure://user:pass@127.0.0.1:{server.port}"
    async with client(server) as smtp:
        with pytest.raises(aiosmtplib.SMTPSenderRefused) as caught:
            await smtp.sendmail(FROM, [TO], CONTENT)
        assert caught.value.code == 530
        login = smtp.auth_plain if mechanism == "plain" else smtp.auth_login
        with pytest.raises(aiosmtplib.SMTPAuthenticationError):
            await login("user", "wrong")
        await login("user", "pass")
        server.script.on(Phase.AUTH, Behaviour(reply="454 4.7.0 later"))
        with pytest.raises(aiosmtplib.SMTPAuthenticationError) as later:
            await login("user", "pass")
        assert later.value.code == 454
        await smtp.sendmail(FROM, [TO], CONTENT)
    assert len(server.inbox) == 1


async def test_odd_commands_are_answered(server: MailServer) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)

    async def say(line: bytes) -> bytes:
        writer.write(line + b"\r\n")
        answer = await reader.readline()
        while answer[3:4] == b"-":
            answer = await reader.readline()
        return answer[:3]

    assert (await reader.readline()).startswith(b"220 ")
    asked = {
        b"MAIL FROM:<a@b>": b"503", b"EHLO": b"501", b"EHLO x": b"250", b"RCPT TO:<a@b>": b"503", b"DATA": b"554",
        b"MAIL a@b": b"501", b"AUTH CRAM-MD5": b"504", b"WHAT": b"502", b"": b"502", b"HELO x": b"250",
        b"MAIL FROM:<> SIZE=9": b"250", b"RCPT TO:<>": b"501", b"RSET": b"250", b"NOOP": b"250", b"QUIT": b"221",
    }  # fmt: skip
    assert {line: await say(line) for line in asked} == asked
    assert await reader.read() == b""
    writer.close()


async def test_a_line_without_end_harms_nobody_else(server: MailServer) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    assert (await reader.readline()).startswith(b"220 ")
    writer.write(b"x" * 200_000)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    async with client(server) as smtp:
        await smtp.sendmail(FROM, [TO], CONTENT)
    assert len(server.inbox) == 1


async def test_the_server_closes_with_a_client_still_there(clock: MovedClock) -> None:
    async with open_mail_server(MailServer(clock=clock, random=Random(1))) as server:
        smtp = client(server)
        await smtp.connect()
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await smtp.noop()
    smtp.close()
