"""A mail as its reader sees it: headers, text, HTML with its pictures in place, attachments."""

import base64
import re
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart

from service.simulator.mail import Mail

_CID = re.compile(r"cid:([^\"'\s)>]+)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file that came with a mail. `name` is safe in a header."""

    name: str
    media_type: str
    content: bytes

    @property
    def size(self) -> str:
        return f"{max(1, round(len(self.content) / 1024))} kB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A mail, taken apart."""

    mail: Mail
    subject: str
    sender: str
    to: str
    date: str
    message_id: str
    text: str | None
    html: str | None  # pictures are data: URLs
    attachments: tuple[Attachment, ...]

    def is_about(self, invoice_number: str) -> bool:
        """Whether the invoice number is in the subject or in the name of an attachment."""
        names = (self.subject, *(attachment.name for attachment in self.attachments))
        return any(invoice_number in name for name in names)


def read_letter(mail: Mail) -> Letter:
    """Take a mail apart; whatever is missing is empty."""
    message = message_from_bytes(mail.content, policy=policy.default)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    return Letter(
        mail=mail,
        subject=str(message["subject"] or ""),
        sender=str(message["from"] or mail.sender),
        to=str(message["to"] or ", ".join(mail.recipients)),
        date=str(message["date"] or ""),
        message_id=str(message["message-id"] or "").strip(),
        text=_content(plain),
        html=_with_pictures(_content(html), message) if html is not None else None,
        attachments=tuple(_attachment(part) for part in message.iter_attachments() if not part["content-id"]),
    )


def _content(part: MIMEPart | None) -> str | None:
    return None if part is None else str(part.get_content())


def _with_pictures(html: str | None, message: EmailMessage) -> str:
    pictures = {
        str(part["content-id"]).strip().strip("<>"): part
        for part in message.walk()
        if part["content-id"] and part.get_content_maintype() == "image"
    }

    def place(found: re.Match[str]) -> str:
        part = pictures.get(found[1])
        if part is None:
            return found[0]
        encoded = base64.b64encode(_payload(part)).decode()
        return f"data:{part.get_content_type()};base64,{encoded}"

    return _CID.sub(place, html or "")


def _attachment(part: EmailMessage) -> Attachment:
    name = _UNSAFE.sub("-", part.get_filename() or "attachment").strip("-.") or "attachment"
    return Attachment(name=name, media_type=part.get_content_type(), content=_payload(part))


def _payload(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
