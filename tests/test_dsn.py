"""Bounces as mails: only delivery status notifications, only of mails of ours; and the envelope id on the way out."""

import base64
import email
import email.policy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.channels.email import Addresses, EmailChannel, queue_id
from service.channels.smtp import Relay
from service.channels.smtp_url import parse_smtp_url
from service.delivery import Fate, Intent, Mailbox, Message, Purpose, Report
from service.receipts.dsn import reports_in
from tests.fakes import ACCOUNT, MovedClock, a_transaction
from tests.smtp_peer import DROP, smtp_peer

KEY = "0123456789abcdef" * 2
OURS = f"<{KEY}@butikken.example>"
ADDRESS = "ola@nordmann.example"

BOUNCE = f"""\
Return-Path: <>
Date: Sun, 22 Nov 2026 11:00:00 +0100
From: MAILER-DAEMON@relay.example (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: faktura@butikken.example
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
 boundary="B"
Message-Id: <20261122100000.AAAA@relay.example>

--B
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example
Original-Envelope-Id: {KEY}
X-Postfix-Queue-ID: AAAA
Arrival-Date: Sun, 22 Nov 2026 10:59:00 +0100 (CET)

Final-Recipient: rfc822; {ADDRESS}
Original-Recipient: rfc822;{ADDRESS}
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.nordmann.example
Diagnostic-Code: smtp; 550 5.1.1 <{ADDRESS}>: Recipient address
    rejected: User ola unknown

--B
Content-Type: text/rfc822-headers

From: Butikken AS <faktura@butikken.example>
To: {ADDRESS}
Message-ID: {OURS}
Subject: Faktura

--B--
"""
VACATION = f"""\
From: {ADDRESS}
To: faktura@butikken.example
Subject: Out of office
Auto-Submitted: auto-replied
In-Reply-To: {OURS}
References: {OURS}
Content-Type: text/plain

I am away. Action: failed
Message-ID: {OURS}
"""


def read(text: str, **given: Any) -> tuple[Report, ...]:
    return reports_in(text.replace("\n", "\r\n").encode(), "email", **given)


def test_a_bounce_of_ours() -> None:
    (report,) = read(BOUNCE)
    assert (report.channel, report.reference, report.fate) == ("email", OURS, Fate.FAILED)
    assert report.at == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert report.detail is not None
    assert report.detail.startswith("bounced: 5.1.1 550 5.1.1")
    assert "ola" not in report.detail
    assert read(BOUNCE) == (report,)


@pytest.mark.parametrize(
    ("action", "fate"),
    [
        ("failed", Fate.FAILED),
        ("FAILED", Fate.FAILED),
        ("delivered", Fate.DELIVERED),
        ("delayed", Fate.DEFERRED),
        ("relayed", None),
        ("expanded", None),
        ("", None),
    ],
)
def test_actions(action: str, fate: Fate | None) -> None:
    reports = read(BOUNCE.replace("Action: failed", f"Action: {action}"))
    assert [report.fate for report in reports] == ([] if fate is None else [fate])


def test_a_mail_as_a_pipe_gets_it() -> None:
    """Postfix puts a line before it, and ends lines as files do."""
    piped = f"From MAILER-DAEMON  Sun Nov 22 11:00:00 2026\n{BOUNCE}".encode()
    assert reports_in(piped, "email") == read(BOUNCE)


def test_an_envelope_id_alone_will_do() -> None:
    (report,) = read(BOUNCE.replace(f"Message-ID: {OURS}\n", ""))
    assert report.reference == KEY


def test_a_message_id_alone_will_do() -> None:
    (report,) = read(BOUNCE.replace(f"Original-Envelope-Id: {KEY}\n", ""))
    assert report.reference == OURS


@pytest.mark.parametrize(
    "kind", ["message/rfc822", "message/rfc822-headers", "message/global", "message/global-headers"]
)
def test_a_mail_may_be_sent_back_in_other_kinds_of_parts(kind: str) -> None:
    (report,) = read(BOUNCE.replace("text/rfc822-headers", kind).replace(f"Original-Envelope-Id: {KEY}\n", ""))
    assert report.reference == OURS


def in_base64(kind: str) -> str:
    """Return the bounce with the content of its part of this kind encoded, as RFC 6533 allows."""
    head, found, rest = BOUNCE.partition(f"Content-Type: {kind}\n\n")
    content, end, tail = rest.partition("\n--B")
    encoded = base64.encodebytes(content.encode()).decode()
    return f"{head}{found.rstrip()}\nContent-Transfer-Encoding: base64\n\n{encoded}{end}{tail}"


@pytest.mark.parametrize("kind", ["message/delivery-status", "message/global-delivery-status"])
def test_a_status_may_be_encoded_and_in_utf_8(kind: str) -> None:
    text = in_base64("message/delivery-status").replace("message/delivery-status", kind)
    (report,) = read(text)
    assert (report.reference, report.fate) == (OURS, Fate.FAILED)
    plain = BOUNCE.replace("message/delivery-status", kind).replace(
        f"rfc822;{ADDRESS}", "utf-8; k\u00e5re@bl\u00e5.example"
    )
    assert [found.fate for found in read(plain)] == [Fate.FAILED]


def test_what_is_sent_back_may_be_encoded() -> None:
    text = in_base64("text/rfc822-headers").replace("text/rfc822-headers", "message/global")
    (report,) = read(text.replace(f"Original-Envelope-Id: {KEY}\n", ""))
    assert report.reference == OURS


def test_a_mail_of_ours_that_somebody_forwarded_did_not_bounce() -> None:
    """A colleague's mail bounces, with our invoice attached to it: the customer has the invoice."""
    ours = f"Content-Type: message/rfc822\n\nMessage-ID: {OURS}\n\nFaktura\n"
    forwarded = f"""\
Content-Type: message/rfc822

From: kari@butikken.example
Message-ID: <other@butikken.example>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="C"

--C
{ours}
--C--
"""
    head, _, _ = BOUNCE.replace(f"Original-Envelope-Id: {KEY}\n", "").partition("Content-Type: text/rfc822-headers")
    assert read(f"{head}{ours}\n--B--\n") != ()
    assert read(f"{head}{forwarded}\n--B--\n") == ()


@pytest.mark.parametrize(
    "part", ["Content-Type: message/rfc822\n\n", 'Content-Type: multipart/report; boundary="B"\n\n--B\n']
)
def test_parts_within_parts_are_not_followed(part: str) -> None:
    assert read(f'Content-Type: multipart/report; boundary="B"\n\n--B\n{part * 3000}') == ()
    assert read(f'Content-Type: multipart/report; boundary="B"\n\n{"--B" + chr(10)}' * 3000) == ()


def test_headers_may_be_sent_back_encoded() -> None:
    returned = f"From: x@butikken.example\nMessage-ID: {OURS}\n"
    quoted = returned.replace("=", "=3D").replace("<", "=3C")
    head, _, _ = BOUNCE.partition("From: Butikken AS")
    head = head.removesuffix("\n") + "Content-Transfer-Encoding: quoted-printable\n\n"
    (report,) = read(f"{head}{quoted}\n--B--\n".replace(f"Original-Envelope-Id: {KEY}\n", ""))
    assert report.reference == OURS


OTHERS = {
    "an out-of-office answer": VACATION,
    "one that pretends to be a report": VACATION.replace("text/plain", 'multipart/report; boundary="B"'),
    "another kind of report": BOUNCE.replace("report-type=delivery-status", "report-type=disposition-notification"),
    "no report at all": BOUNCE.replace("multipart/report", "multipart/mixed"),
    "somebody else's mail": BOUNCE.replace(KEY, "20261122.1234"),
    "one that contradicts itself": BOUNCE.replace(OURS, f"<{'f' * 32}@butikken.example>"),
    "without a status": BOUNCE.replace("message/delivery-status", "text/plain"),
    "an answer that quotes our id only outside": BOUNCE.replace(f"Original-Envelope-Id: {KEY}\n", "").replace(
        f"Message-ID: {OURS}", f"In-Reply-To: {OURS}"
    ),
    "nothing": "",
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_what_is_no_bounce_of_ours(text: str) -> None:
    assert read(text) == ()


def test_a_bounce_of_a_blind_copy_is_left_out() -> None:
    assert read(BOUNCE, ignored=["OLA@nordmann.example"]) == ()


def test_each_delay_is_a_report_and_each_failure_is_one() -> None:
    later = BOUNCE.replace("11:00:00", "15:00:00")
    assert read(BOUNCE)[0].event_id == read(later)[0].event_id
    delayed, again = (text.replace("Action: failed", "Action: delayed") for text in (BOUNCE, later))
    assert len({read(text)[0].event_id for text in (BOUNCE, delayed, again)}) == 3


@pytest.mark.parametrize("date", ["yesterday", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_date_that_cannot_be_read_is_none(date: str) -> None:
    """Nor one that the record could keep and never show: whoever asks for the delivery would meet it."""
    (report,) = read(BOUNCE.replace("Sun, 22 Nov 2026 11:00:00 +0100", date))
    assert report.at is None


LINES = BOUNCE.splitlines(keepends=True)


@given(st.lists(st.sampled_from(LINES), max_size=60), st.binary(max_size=60))
def test_no_mail_is_a_bug(lines: list[str], noise: bytes) -> None:
    head = "".join(LINES[:10]).encode()
    reports_in(head + "".join(lines).encode() + noise, "email")
    reports_in(noise, "email")


# --- on the way out --------------------------------------------------------------------------------------------------


async def sent(url: str) -> str:
    """Send a mail over a relay twice; return its Message-ID."""
    smtp = parse_smtp_url(url)
    relay = Relay(smtp, connections=1, clock=MovedClock(), hostname="client.example", context=None)
    sender = Mailbox(name="Butikken AS", address="faktura@butikken.example")
    addresses = Addresses(mail_from=sender, reply_to=None, bcc=None, redirect_to=None)
    channel = EmailChannel(account_id=ACCOUNT, addresses=addresses, smtp=smtp, relay=relay, alarm=lambda _: None)
    recipient = channel.recipient(a_transaction())
    intent = Intent(key=KEY, dated=datetime(2026, 11, 22, 10, tzinfo=UTC), purpose=Purpose.FIRST)
    message = Message(locale="nb", subject="Faktura", text="Hei")
    composed = channel.compose(message, None, recipient, intent)
    try:
        for _ in range(2):
            await channel.send(composed)
    finally:
        await relay.close()
    return composed.message_id


async def test_a_relay_that_offers_dsn_is_told_the_envelope_id() -> None:
    async with smtp_peer() as peer:
        peer.say("EHLO", "250-peer\r\n250-SIZE 36700160\r\n250 DSN")
        message_id = await sent(peer.url)
        mails = [line for line in peer.commands if line.startswith("MAIL")]
        (content, again) = peer.mails
    assert mails == [f"MAIL FROM:<faktura@butikken.example> SIZE={len(content)} RET=HDRS ENVID={KEY}"] * 2
    assert content == again
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    assert parsed["Message-ID"] == message_id == OURS
    (report,) = read(BOUNCE.replace(OURS, parsed["Message-ID"]))
    assert report.reference == message_id


async def test_a_relay_that_does_not_is_told_nothing_of_it() -> None:
    async with smtp_peer() as peer:
        await sent(peer.url)
        (mail, _) = [line for line in peer.commands if line.startswith("MAIL")]
    assert "ENVID" not in mail
    assert "RET" not in mail


async def test_a_fresh_connection_in_place_of_a_dead_one_is_told_it_too() -> None:
    async with smtp_peer() as peer:
        peer.say("EHLO", *["250-peer\r\n250 DSN"] * 2)
        peer.say("RCPT", "250 ok", DROP)
        await sent(peer.url)
        mails = [line for line in peer.commands if line.startswith("MAIL")]
    assert mails == [f"MAIL FROM:<faktura@butikken.example> RET=HDRS ENVID={KEY}"] * 3


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("2.0.0 Ok: queued as 4F2Zabc123", "4F2Zabc123"),
        ("Ok 0102019a1b2c3d4e-0a1b2c3d-000000", "0102019a1b2c3d4e-0a1b2c3d-000000"),
        ("OK id=1kQ2xY-0001aB-2c", "1kQ2xY-0001aB-2c"),
        ("OK <883953f4-6105-42a2-a16a-77a8eac79483>", "883953f4-6105-42a2-a16a-77a8eac79483"),
        ("2.0.0 Ok", None),
        ("Ok: queued as ABC", None),
        ("2.6.0 message accepted for delivery", None),
        ("ok, thank you for everything", None),
        ("", None),
    ],
)
def test_the_relays_own_id(reply: str, found: str | None) -> None:
    assert queue_id(reply) == found
