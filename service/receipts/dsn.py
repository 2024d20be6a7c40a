"""A bounce as a mail (RFC 3464): which of our mails it is about, and what became of that."""

import email.policy
import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.message import Message as Mail
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime

from service.delivery import Report
from service.receipts.events import KEY, OURS, Event, report_of

LARGEST = 10 << 20
"""Bytes of a mail that is read."""
_ENCODED = re.compile(r"\+([0-9A-F]{2})")  # xtext, RFC 3461 section 4
_STATUS = {"message/delivery-status", "message/global-delivery-status"}
_RETURNED = {
    *("text/rfc822-headers", "message/rfc822-headers", "message/rfc822"),
    *("message/global", "message/global-headers"),
}
_BLANK = re.compile(rb"\r?\n(?:[ \t]*\r?\n)+")
_KINDS = {"failed": "bounced", "delivered": "delivered", "delayed": "deferred"}
_MOST = 20  # parts, and recipients, that are looked at: a report has three or four, and a mail of ours has one
_LONGEST = 300


def reports_in(content: bytes, channel: str, *, ignored: Iterable[str] = ()) -> tuple[Report, ...]:
    """Return what a mail reports of mails of ours; nothing for any that is no delivery status notification.

    Only what names our envelope id (ENVID) or Message-ID counts, and both must agree. So an out-of-office answer does
    nothing, whatever it says of itself, and neither does a bounce of anybody else's mail. `ignored` are addresses of
    blind copies.
    """
    skipped, events = {address.casefold() for address in ignored}, _events(_read(content[:LARGEST]))
    found = (report_of(event, channel) for event in events if (event.recipient or "").casefold() not in skipped)
    return tuple(report for report in found if report is not None)


def _events(mail: Mail) -> list[Event]:
    """Return what a report tells of each recipient; nothing when the mail is none, or about no mail of ours."""
    status = _status_of(mail)
    named = _reference(mail, status) if status else None
    if named is None:
        return []
    at = _time_of(mail)
    return [event for group in status[1:] if (event := _event(group, named, at)) is not None]


def _status_of(mail: Mail) -> list[Mail]:
    """Return the groups of a report: of the message, then of each recipient; none when the mail is no report."""
    if mail.get_content_type() != "multipart/report":
        return []
    if str(mail.get_param("report-type", "delivery-status")).lower() != "delivery-status":
        return []
    for part in _parts(mail):
        if part.get_content_type() in _STATUS:
            return [_read(group) for group in _BLANK.split(_content(part).strip(), maxsplit=_MOST)]
    return []


def _read(content: bytes) -> Mail:
    """Return a header, and what is below it as it is: that may be encoded, or deeper than anybody reads."""
    return BytesHeaderParser(policy=email.policy.compat32).parsebytes(content)


def _content(part: Mail) -> bytes:
    """Return what is below a header, decoded. That may be needed for `message/…`, too (RFC 6533)."""
    found = part.get_payload(decode=True)
    return found if isinstance(found, bytes) else b""


def _parts(mail: Mail) -> Iterator[Mail]:
    """Yield its parts, and not theirs: what is sent back may itself have a mail of ours along, forwarded by hand."""
    boundary = re.escape((mail.get_boundary() or "").encode("utf-8", "replace"))
    if boundary:
        _, *parts = re.split(rb"(?m)^--" + boundary + rb"(?:--)?[ \t]*(?:\r?\n|\Z)", _content(mail), maxsplit=_MOST)
        yield from map(_read, parts)


def _reference(mail: Mail, status: list[Mail]) -> str | None:
    """Return our Message-ID, else the key in the envelope id; None when neither is ours, or they contradict."""
    envelope_id = _plain(_field(status[0], "Original-Envelope-Id"))
    key = envelope_id if KEY.fullmatch(envelope_id) else None
    ours = next(iter(_message_ids(mail)), None)
    if key and ours and f"{key}@" not in ours:
        return None
    return ours or key


def _message_ids(mail: Mail) -> Iterator[str]:
    """Return those of our form in what is sent back of the mail: its header, or all of it."""
    for part in _parts(mail):
        if part.get_content_type() in _RETURNED:
            found = _field(_read(_content(part)), "Message-ID")
            if OURS.fullmatch(found):
                yield found


def _event(group: Mail, named: str, at: datetime | None) -> Event | None:
    kind = _KINDS.get(_field(group, "Action").lower())
    if kind is None:
        return None
    recipient = _address(_field(group, "Original-Recipient") or _field(group, "Final-Recipient"))
    status = _field(group, "Status")
    told = "|".join((named, kind, recipient, status, at.isoformat() if at and kind == "deferred" else ""))
    return Event(
        kind=kind,
        message_id=named,
        event_id=f"dsn:{hashlib.sha256(told.encode('utf-8', 'replace')).hexdigest()}",
        at=at,
        recipient=recipient or None,
        detail=f"{status} {_field(group, 'Diagnostic-Code').partition(';')[2].strip()}".strip() or None,
    )


def _field(group: Mail, name: str) -> str:
    """Return a field on one line, at most 300 characters; empty when it is missing."""
    return " ".join(str(group.get(name, "")).split())[:_LONGEST]


def _address(field: str) -> str:
    """Return the address out of `rfc822; o@nordmann.example`."""
    return _plain(field.rpartition(";")[2].strip().strip("<>"))


def _plain(text: str) -> str:
    """Return xtext decoded."""
    return _ENCODED.sub(lambda found: chr(int(found[1], 16)), text)


def _time_of(mail: Mail) -> datetime | None:
    try:
        at = parsedate_to_datetime(_field(mail, "Date"))
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
