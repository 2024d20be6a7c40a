"""Who gets a mail, what its bytes are, and what `SMTP_URL` may say."""

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import compat32, default
from email.utils import parseaddr, parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.channels import BUILT_IN
from service.channels.email import EmailChannel, open_email
from service.channels.mime import Envelope, build
from service.channels.smtp_url import Security, SmtpAddress, parse_smtp_url
from service.delivery import (
    Channel,
    Image,
    Intent,
    Mailbox,
    Message,
    Party,
    PermanentFailure,
    Purpose,
    Recipient,
    Standing,
    Transaction,
)
from service.privacy import address_key
from tests.fakes import MovedClock

PDF = b"%PDF-1.7\r\n" + bytes(range(256)) * 300
MESSAGE = Message(
    locale="nb",
    subject="Faktura A1B2C-000001 fra Nordlys Møbler, forfaller 15. juli 2026",
    text="Hei Åse\n\n.\nFrom here\n" + "ord " * 60 + "\n \n",
    html='<html lang="nb"><p>' + "Blåbær og æøå. " * 40 + "</p>\n</html>",
    images=(Image(cid="logo@merchant-delivery", content=b"\x89PNG" + bytes(500)),),
    document_name="Faktura-A1B2C-000001.pdf",
)
INTENT = Intent(key="0f" * 32, dated=datetime(2026, 7, 1, 12, 30, tzinfo=UTC), purpose=Purpose.FIRST)
ENVELOPE = Envelope(
    sender=Mailbox(name="Nordlys Møbler", address="faktura@nordlys.example"),
    reply_to=Mailbox(name="", address="kundeservice@nordlys.example"),
    to="ola@nordmann.example",
    dated=INTENT.dated,
    key=INTENT.key,
    message_id=f"<{INTENT.key}@nordlys.example>",
)


async def opened(
    redirect_to: str | None = None, sender: str = "faktura@nordlys.example"
) -> AsyncIterator[EmailChannel]:
    async with open_email(
        account_id="T12345678",
        smtp_url="smtp+insecure://127.0.0.1:1",
        mail_from=Mailbox(name="Nordlys Møbler", address=sender),
        reply_to=Mailbox(name="", address="kundeservice@nordlys.example"),
        bcc=None,
        redirect_to=redirect_to,
        connections=1,
        clock=MovedClock(),
    ) as channel:
        yield channel


@pytest.fixture
async def channel() -> AsyncIterator[EmailChannel]:
    async for one in opened():
        yield one


def transaction(billing: str | None = None, customer: str | None = None) -> Transaction:
    return Transaction(
        id="T12345678.a",
        standing=Standing.AUTHORIZED,
        status="AUTHORIZED",
        product="kravia",
        product_type="kravia.invoice_b2b",
        amount=50000,
        currency="NOK",
        read_at=datetime(2026, 7, 1, tzinfo=UTC),
        billing=Party(email=billing),
        customer=Party(email=customer),
    )


def parsed(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert part.defects == []
    return message


def test_the_table_names_a_factory_that_exists() -> None:
    assert BUILT_IN["email"] == "service.channels.email:open_email"


def test_the_channel_is_one(channel: EmailChannel) -> None:
    fits: Channel = channel
    assert (fits.name, fits.template) == ("email", "mail")


# --- who -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("billing", "customer", "expected"),
    [
        ("ola@nordmann.example", "kari@nordmann.example", "ola@nordmann.example"),
        (None, "kari@nordmann.example", "kari@nordmann.example"),
        ("not an address", "kari@nordmann.example", "kari@nordmann.example"),
        ("kåre@nordmann.example", "kari@nordmann.example", "kari@nordmann.example"),
        (" ola@nordmann.example\n", None, "ola@nordmann.example"),
        ("ola@blåbær.example", None, "ola@xn--blbr-roah.example"),
    ],
)
def test_the_billing_address_then_the_customers(
    channel: EmailChannel, billing: str | None, customer: str | None, expected: str
) -> None:
    recipient = channel.recipient(transaction(billing, customer))
    assert recipient.address == expected
    assert recipient.key == address_key("T12345678", expected)
    assert recipient.masked == f"{expected[0]}***@{expected.split('@')[1]}"
    assert recipient.redirected_from is None


@pytest.mark.parametrize(
    "address",
    [
        None,
        "",
        "ola",
        "ola@",
        "@nordmann.example",
        "ola@nordmann",
        "kåre@nordmann.example",
        "ola@nordmann.example, kari@nordmann.example",
        "Ola <ola@nordmann.example>",
        "ola@nordmann.example\r\nRCPT TO:<kari@nordmann.example>",
        "ola@[127.0.0.1]",
        "o" * 300 + "@nordmann.example",
    ],
)
def test_without_a_usable_address_nobody_is_written_to(channel: EmailChannel, address: str | None) -> None:
    with pytest.raises(PermanentFailure, match="no usable e-mail address") as caught:
        channel.recipient(transaction(address))
    assert "nordmann" not in caught.value.reason


def test_an_operators_address_goes_before_and_is_checked_too(channel: EmailChannel) -> None:
    assert channel.recipient(transaction("ola@nordmann.example"), to="p@q.example").address == "p@q.example"
    with pytest.raises(PermanentFailure, match="the address given"):
        channel.recipient(transaction("ola@nordmann.example"), to="nobody")


async def test_redirection_replaces_every_address() -> None:
    async for channel in opened(redirect_to="test@nordlys.example"):
        for to in (None, "p@q.example"):
            recipient = channel.recipient(transaction("ola@nordmann.example"), to=to)
            assert recipient.address == "test@nordlys.example"
            assert recipient.key == address_key("T12345678", "test@nordlys.example")
            assert recipient.redirected_from == ("p***@q.example" if to else "o***@nordmann.example")
        with pytest.raises(PermanentFailure):
            channel.recipient(transaction(None))


# --- the bytes -------------------------------------------------------------------------------------------------------


def test_the_mail_reads_back_as_it_was_meant() -> None:
    message = parsed(build(ENVELOPE, MESSAGE, PDF))
    assert message.get_content_type() == "multipart/mixed"
    alternative, attached = message.iter_parts()
    text, related = alternative.iter_parts()
    html, logo = related.iter_parts()
    kinds = [part.get_content_type() for part in (alternative, text, related, html, logo, attached)]
    assert kinds == [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
    ]
    assert text.get_content().replace("\r\n", "\n") == MESSAGE.text
    assert html.get_content().replace("\r\n", "\n") == f"{MESSAGE.html}\n"
    assert (logo["Content-ID"], logo.get_content()) == ("<logo@merchant-delivery>", MESSAGE.images[0].content)
    assert attached.get_content() == PDF
    assert (attached.get_filename(), attached.get_content_disposition()) == (MESSAGE.document_name, "attachment")


def test_the_headers() -> None:
    message = parsed(build(ENVELOPE, MESSAGE, PDF))
    assert message["From"].addresses[0].display_name == "Nordlys Møbler"
    assert message["From"].addresses[0].addr_spec == "faktura@nordlys.example"
    assert parsedate_to_datetime(message["Date"]) == INTENT.dated
    assert {name: str(message[name]) for name in message if name not in ("From", "Date", "Content-Type")} == {
        "Reply-To": "kundeservice@nordlys.example",
        "To": "ola@nordmann.example",
        "Subject": MESSAGE.subject,
        "Message-ID": f"<{INTENT.key}@nordlys.example>",
        "MIME-Version": "1.0",
        "Content-Language": "nb",
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "OOF, AutoReply",
        "X-Entity-Ref-ID": INTENT.key,
    }


def assert_fit_for_the_wire(content: bytes) -> None:
    assert content.isascii()
    assert content.endswith(b"\r\n")
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\0" not in content
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert max(map(len, re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", content)), default=0) <= 75


def test_the_bytes_are_fit_for_any_relay() -> None:
    content = build(ENVELOPE, MESSAGE, PDF)
    assert_fit_for_the_wire(content)
    head, _, body = content.partition(b"\r\n\r\n")
    assert max(map(len, body.split(b"\r\n"))) <= 78
    assert b"8bit" not in head + body


@pytest.mark.parametrize("html", [None, "<p>x</p>"])
def test_without_html_or_pictures_there_are_no_empty_shells(html: str | None) -> None:
    message = parsed(build(ENVELOPE, replace(MESSAGE, html=html, images=()), PDF))
    inner = next(message.iter_parts())
    assert inner.get_content_type() == ("text/plain" if html is None else "multipart/alternative")
    assert [part.get_content_type() for part in message.walk()].count("multipart/related") == 0


def test_a_document_name_that_could_break_a_header_is_a_defect() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        build(ENVELOPE, replace(MESSAGE, document_name='a"\r\nBcc: x'), PDF)


ANY_TEXT = st.text(max_size=120)


@settings(deadline=None)
@given(name=ANY_TEXT, subject=ANY_TEXT)
def test_names_and_subjects_survive_whatever_they_hold(name: str, subject: str) -> None:
    content = build(
        replace(ENVELOPE, sender=Mailbox(name=name, address="faktura@nordlys.example")),
        replace(MESSAGE, subject=subject),
        b"%PDF-",
    )
    assert_fit_for_the_wire(content)
    message = message_from_bytes(content, policy=default)
    (sender,) = message["From"].addresses
    assert sender.addr_spec == "faktura@nordlys.example"
    assert displayed_name(content) == one_line(name)
    assert str(message["Subject"]) == one_line(subject)
    assert message["To"].addresses[0].addr_spec == "ola@nordmann.example"
    assert len(message.keys()) == 12


def displayed_name(content: bytes) -> str:
    """Read as RFC 2047 says; the modern parser puts spaces between the encoded words of a name."""
    name, _ = parseaddr(re.sub(r"\r?\n", "", str(message_from_bytes(content, policy=compat32)["From"])))
    return str(make_header(decode_header(name)))


def one_line(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()


@settings(deadline=None)
@given(text=ANY_TEXT, document=st.binary(max_size=500))
def test_text_and_document_survive_whatever_they_hold(text: str, document: bytes) -> None:
    content = build(ENVELOPE, replace(MESSAGE, text=text, html=text), document)
    assert_fit_for_the_wire(content)
    parts = list(parsed(content).walk())
    plain, html = (part for part in parts if part.get_content_maintype() == "text")
    expected = re.sub(r"\r\n|\r", "\n", text)
    expected = expected if expected.endswith("\n") else expected + "\n"
    for part in (plain, html):
        raw = part.get_payload(decode=True)
        assert isinstance(raw, bytes)
        assert raw.decode().replace("\r\n", "\n") == expected
    assert parts[-1].get_payload(decode=True) == document


def test_the_same_intent_gives_the_same_bytes(channel: EmailChannel) -> None:
    recipient = Recipient(address="ola@nordmann.example", key="k", masked="o***@nordmann.example")
    first = channel.compose(MESSAGE, PDF, recipient, INTENT)
    again = channel.compose(MESSAGE, PDF, recipient, replace(INTENT, purpose=Purpose.REPEAT))
    assert (again.content, again.sha256, again.message_id) == (first.content, first.sha256, first.message_id)
    assert first.message_id == f"<{INTENT.key}@nordlys.example>"
    others = [
        channel.compose(replace(MESSAGE, text="other"), PDF, recipient, INTENT),
        channel.compose(MESSAGE, PDF + b" ", recipient, INTENT),
        channel.compose(MESSAGE, PDF, recipient, replace(INTENT, key="1e" * 32)),
        channel.compose(MESSAGE, PDF, recipient, replace(INTENT, dated=INTENT.dated + timedelta(seconds=1))),
        channel.compose(MESSAGE, PDF, replace(recipient, address="kari@nordmann.example"), INTENT),
    ]
    assert len({first.sha256, *(other.sha256 for other in others)}) == 6


def test_a_notice_has_no_document_and_is_as_repeatable(channel: EmailChannel) -> None:
    recipient = Recipient(address="ola@nordmann.example", key="k", masked="o***@nordmann.example")
    intent = replace(INTENT, purpose=Purpose.NOTICE)
    notice = channel.compose(MESSAGE, None, recipient, intent)
    assert channel.compose(MESSAGE, None, recipient, intent) == notice
    assert notice.message_id == f"<{INTENT.key}@nordlys.example>"
    mail = parsed(notice.content)
    assert mail.get_content_type() == "multipart/alternative"
    types = [part.get_content_type() for part in mail.walk() if not part.is_multipart()]
    assert types == ["text/plain", "text/html", "image/png"]
    assert [part.get_content_disposition() for part in mail.walk() if part["Content-Disposition"]] == ["inline"]
    bare = parsed(channel.compose(replace(MESSAGE, html=None, images=()), None, recipient, intent).content)
    assert (bare.get_content_type(), bare["Subject"]) == ("text/plain", MESSAGE.subject)
    assert notice.sha256 != channel.compose(MESSAGE, PDF, recipient, intent).sha256


def test_the_bytes_are_the_same_on_every_python() -> None:
    """A digest written down once: a repeat after an upgrade of Python must be the same mail."""
    digest = hashlib.sha256(build(ENVELOPE, MESSAGE, PDF)).hexdigest()
    assert digest == "fa598ed7182b175391484da9aa409224cf7864364d2cdaf3bf4e0a0586a54280"


async def test_a_senders_domain_outside_ascii_is_written_in_ascii() -> None:
    async for channel in opened(sender="faktura@blåbær.example"):
        recipient = channel.recipient(transaction("ola@nordmann.example"))
        mail = channel.compose(MESSAGE, PDF, recipient, INTENT)
        assert mail.message_id.endswith("@xn--blbr-roah.example>")
        assert parsed(mail.content)["From"].addresses[0].addr_spec == "faktura@xn--blbr-roah.example"


# --- the relay's address ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example", SmtpAddress(host="mail.example", port=587, security=Security.STARTTLS)),
        ("smtps://mail.example/", SmtpAddress(host="mail.example", port=465, security=Security.TLS)),
        (
            "smtp://a%40b:p%2Fw%C3%A5@mail.example:2525",
            SmtpAddress(host="mail.example", port=2525, security=Security.STARTTLS, user="a@b", password="p/wå"),
        ),
        ("smtp+insecure://localhost:1025", SmtpAddress(host="localhost", port=1025, security=Security.PLAIN)),
        ("smtp+insecure://10.1.2.3", SmtpAddress(host="10.1.2.3", port=25, security=Security.PLAIN)),
        ("smtp+insecure://[::1]:1025", SmtpAddress(host="::1", port=1025, security=Security.PLAIN)),
    ],
)
def test_what_an_smtp_url_says(url: str, expected: SmtpAddress) -> None:
    assert parse_smtp_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example:587",
        "http://u:hunter2@mail.example",
        "smtp://",
        "smtp://u:hunter2@",
        "smtp://u:hun/ter2@mail.example",
        "smtp://u:hun#ter2@mail.example",
        "smtp://u:hun?ter2@mail.example",
        "smtp://u:hun ter2@mail.example",
        "smtp://u:hunter2å@mail.example",
        "smtp://u:hunter2%ff@mail.example",
        "smtp://u:hunter2%00@mail.example",
        "smtp://u:hunter2@mail.example:99999",
        "smtp://u:hunter2@mail.example:0",
        "smtp://u:hunter2@mail.example:x",
        "smtp://u:hunter2@mail_!.example",
        "smtp://u:hunter2@[::1",
        "smtp://user-hunter2:@mail.example",
        "smtp://:hunter2@mail.example",
        "smtp+insecure://mail.example",
        "smtp+insecure://8.8.8.8",
        "smtp+insecure://0.0.0.0",
    ],
)
def test_what_an_smtp_url_may_not_say(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(it|its|nothing|smtp)\b") as caught:
        parse_smtp_url(url)
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)


def test_a_password_is_not_shown_by_accident() -> None:
    assert "hunter2" not in repr(parse_smtp_url("smtp://u:hunter2@mail.example"))
