"""Message and document to the bytes of a mail: the same input gives the same bytes, on any Python.

The skeleton is written by hand: the standard library takes three times as long for a mail with an invoice, and folds
long names into something unsafe on versions in use (channels.md 1.8). Tests read every shape back with the standard
library's own parser.
"""

import binascii
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache

from service.delivery import Image, Mailbox, Message

_CRLF = b"\r\n"
_LONGEST_LINE = 76  # of a body, and of a header that can be folded (RFC 2045, RFC 5322)
_BASE64_LINE = struct.Struct(
    f"{_LONGEST_LINE}s"
)  # cuts a document into lines in two thirds of the time that slices take
_LONGEST_QUOTED = 60  # of a display name that is written as it is
_LONGEST_WORD = 42  # bytes in one encoded word: 68 characters, which fit after `Reply-To: `
_BREAKING = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SAFE_PHRASE = re.compile(r"[A-Za-z0-9 !#$%&'*+/=?^_`{|}~-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """All that is in a mail's header beside the message's own: `to` is an address, `key` makes boundaries and ids."""

    sender: Mailbox
    reply_to: Mailbox | None
    to: str
    dated: datetime
    key: str
    message_id: str
    more: tuple[tuple[str, str], ...] = ()  # names and values, short and in ASCII


def build(envelope: Envelope, message: Message, document: bytes | None) -> bytes:
    """Return the mail, with CRLF line ends, 7-bit clean, no line longer than 998 bytes."""
    body = _text_parts(message, envelope.key)
    if document is not None:
        body = _multipart("mixed", envelope.key, (body, _attachment(message, document)))
    return _CRLF.join([*_headers(envelope, message.subject, message.locale), body])


def build_plain(envelope: Envelope, subject: str, text: str) -> bytes:
    """Return a mail in English that is text alone, likewise."""
    return _CRLF.join([*_headers(envelope, subject, "en"), _plain(text)])


def _headers(envelope: Envelope, subject: str, language: str) -> Iterable[bytes]:
    yield _line("From", _mailbox(envelope.sender))
    if envelope.reply_to is not None:
        yield _line("Reply-To", _mailbox(envelope.reply_to))
    yield _line("To", envelope.to)
    yield _line("Subject", _unstructured(subject, "Subject"))
    yield _line("Date", format_datetime(envelope.dated))
    yield _line("Message-ID", envelope.message_id)
    yield _line("MIME-Version", "1.0")
    yield _line("Content-Language", language)
    yield _line("Auto-Submitted", "auto-generated")
    yield _line("X-Auto-Response-Suppress", "OOF, AutoReply")
    yield _line("X-Entity-Ref-ID", envelope.key)  # else Gmail shows two invoices as one conversation
    yield from (_line(name, value) for name, value in envelope.more)


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}".encode("ascii")


def _one_line(text: str) -> str:
    return _BREAKING.sub(" ", text).strip()


def _unstructured(text: str, name: str) -> str:
    """Return free text for a header: as it is when short and plain, else in encoded words of at most 75 characters."""
    text = _one_line(text)
    if text.isascii() and "=?" not in text and len(name) + 2 + len(text) <= _LONGEST_LINE:
        return text
    return _encoded(text)


def _encoded(text: str) -> str:
    """Return encoded words (RFC 2047), one a line, none with half a character; the library's can be too long."""
    words, word = [], b""
    for character in text:
        more = character.encode("utf-8")
        if len(word) + len(more) > _LONGEST_WORD:
            words.append(word)
            word = b""
        word += more
    words.append(word)
    return "\r\n ".join(f"=?utf-8?b?{binascii.b2a_base64(one, newline=False).decode('ascii')}?=" for one in words)


@lru_cache(maxsize=16)  # a merchant has two; encoding a name costs as much as the rest of the header
def _mailbox(mailbox: Mailbox) -> str:
    """Return `Name <address>`; a name is an atom, a quoted string or encoded words, never one that is folded inside."""
    text = _one_line(mailbox.name)
    if not text:
        return mailbox.address
    if not text.isascii() or "=?" in text or len(text) > _LONGEST_QUOTED:
        return f"{_encoded(text)}\r\n <{mailbox.address}>"
    if not _SAFE_PHRASE.fullmatch(text):
        text = '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
    return f"{text} <{mailbox.address}>"


def _text_parts(message: Message, key: str) -> bytes:
    text = _plain(message.text)
    if message.html is None:
        return text
    html = _part(
        (b'Content-Type: text/html; charset="utf-8"', b"Content-Transfer-Encoding: quoted-printable"),
        _quoted(message.html),
    )
    if message.images:
        html = _multipart("related", key, (html, *map(_image, message.images)))
    return _multipart("alternative", key, (text, html))


def _plain(text: str) -> bytes:
    return _part(
        (b'Content-Type: text/plain; charset="utf-8"', b"Content-Transfer-Encoding: quoted-printable"), _quoted(text)
    )


def _image(image: Image) -> bytes:
    headers = (
        b"Content-Type: image/png",
        b"Content-Transfer-Encoding: base64",
        f"Content-ID: <{image.cid}>".encode("ascii"),
        b"Content-Disposition: inline",
    )
    return _part(headers, _base64(image.content))


def _attachment(message: Message, document: bytes) -> bytes:
    name = message.document_name
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name):
        raise ValueError("a document's name must be ASCII letters, digits, dots, dashes and underscores")
    headers = (
        f'Content-Type: application/pdf;\r\n name="{name}"'.encode("ascii"),
        b"Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n filename="{name}"'.encode("ascii"),
    )
    return _part(headers, _base64(document))


def _part(headers: Iterable[bytes], content: bytes) -> bytes:
    return _CRLF.join((*headers, b"", content))


def _multipart(kind: str, key: str, parts: Iterable[bytes]) -> bytes:
    """Return a multipart with its own header. No part can hold a boundary: `=_` is in no encoded text."""
    boundary = f"=_{kind}_{key[:32]}".encode("ascii")
    header = b"Content-Type: multipart/" + kind.encode("ascii") + b';\r\n boundary="' + boundary + b'"'
    related = b';\r\n type="text/html"' if kind == "related" else b""
    pieces = [header + related, b""]
    for part in parts:
        pieces += (b"--" + boundary, part)
    return _CRLF.join([*pieces, b"--" + boundary + b"--", b""])


def _quoted(text: str) -> bytes:
    lines = _LINE_END.sub("\r\n", text if text.endswith(("\n", "\r")) else text + "\n")
    return binascii.b2a_qp(lines.encode("utf-8"), istext=True, header=False)


def _base64(content: bytes) -> bytes:
    encoded = binascii.b2a_base64(content, newline=False)
    whole = len(encoded) - len(encoded) % _LONGEST_LINE
    lines = [line for (line,) in _BASE64_LINE.iter_unpack(memoryview(encoded)[:whole])]
    rest = [encoded[whole:]] if len(encoded) > whole else []
    return _CRLF.join([*lines, *rest, b""])
