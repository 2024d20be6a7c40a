"""How the record looks on a terminal: tables, sections, and nothing that could move the cursor."""

import unicodedata
from collections.abc import Sequence
from datetime import datetime

from service.delivery import Capture, Delivery, Entry, Pause, Send
from service.money import in_units
from service.record_json import time_text

_GAP = "  "
_DISPENSABLE = ("RECIPIENT", "AMOUNT", "DONE", "INVOICE")  # the first goes first
_LEAST = 12  # columns that the last column of a table keeps on a narrow terminal
_DIGEST = 12  # letters of a digest that are enough to tell two apart by eye


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None) -> str:
    """Return aligned columns; the last is cut to `width` columns (None: as wide as it needs)."""
    lines = [[_plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(_columns, column)) for column in zip(*lines, strict=True)]
    if width is not None:
        widths[-1] = min(widths[-1], max(_LEAST, width - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)))
    return "\n".join(
        _GAP.join(_fitted(cell, w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def listing(deliveries: Sequence[Delivery], *, width: int | None) -> str:
    """Return one line for each delivery; a narrow terminal gets fewer columns, and `show` has the rest."""
    columns = {
        "RECEIVED": [_moment(d.received_at) for d in deliveries],
        "TRANSACTION": [d.transaction_id for d in deliveries],
        "INVOICE": [d.invoice_number or "-" for d in deliveries],
        "OUTCOME": [d.outcome.value for d in deliveries],
        "DONE": [", ".join(d.progress) or "-" for d in deliveries],
        "AMOUNT": [money(d.amount, d.currency) for d in deliveries],
        "RECIPIENT": [d.recipient or "-" for d in deliveries],
        "REASON": [d.reason or "" for d in deliveries],
    }
    for dispensable in _DISPENSABLE:
        lines = table(tuple(columns), list(zip(*columns.values(), strict=True)), width=width)
        if width is None or max(map(_columns, lines.split("\n"))) <= width:
            return lines
        del columns[dispensable]
    return table(tuple(columns), list(zip(*columns.values(), strict=True)), width=width)


def details(
    delivery: Delivery,
    *,
    history: Sequence[Entry],
    sends: Sequence[Send],
    captures: Sequence[Capture],
    pauses: Sequence[Pause] = (),
    width: int | None,
) -> str:
    """Return all that the record says of one delivery; `pauses` are those that it waits for."""
    parts = [
        _facts(delivery, pauses),
        *(["Sends\n" + _sends(sends, width)] if sends else []),
        *(["Captures\n" + _captures(captures, delivery.currency, width)] if captures else []),
        "History\n" + _history(history, width),
    ]
    return "\n\n".join(parts)


def _sends(sends: Sequence[Send], width: int | None) -> str:
    head = ("BEGUN", "CHANNEL", "RECIPIENT", "PURPOSE", "OUTCOME", "PDF", "TEMPLATES", "MESSAGE-ID", "ANSWER")
    rows = [
        (
            *(_moment(s.begun_at), s.channel, s.recipient, s.purpose, s.outcome),
            *(_short(s.document_sha256), _short(s.template_version), s.message_id, s.answer or ""),
        )
        for s in sends
    ]
    return table(head, rows, width=width)


def _captures(captures: Sequence[Capture], currency: str | None, width: int | None) -> str:
    head = ("BEGUN", "AMOUNT", "OUTCOME", "REFERENCE", "DETAIL")
    rows = [(_moment(c.begun_at), money(c.amount, currency), c.outcome, c.reference, c.detail or "") for c in captures]
    return table(head, rows, width=width)


def _history(history: Sequence[Entry], width: int | None) -> str:
    head = ("AT", "STEP", "RESULT", "CHANNEL", "DETAIL")
    rows = [(_moment(e.at), e.step, e.result, e.channel or "-", e.detail or "") for e in history]
    return table(head, rows, width=width)


def pause_table(pauses: Sequence[Pause], *, width: int | None) -> str:
    """Return one line for each pause."""
    head = ("CHANNEL", "SINCE", "BY", "NEXT TRY", "REASON")
    rows = [
        (p.lane, _moment(p.since), p.by or "-", _moment(p.next_probe_at) if p.next_probe_at else "-", p.reason)
        for p in pauses
    ]
    return table(head, rows, width=width)


def _facts(d: Delivery, pauses: Sequence[Pause]) -> str:
    facts = [
        ("Transaction", d.transaction_id),
        ("Outcome", f"{d.outcome}{f' ({d.reason})' if d.reason else ''}"),
        ("Done", ", ".join(d.progress) or "nothing yet"),
        ("Invoice", d.invoice_number),
        ("Amount", money(d.amount, d.currency) if d.amount is not None else None),
        ("Reference", d.merchant_reference),
        ("Recipient", f"{d.recipient} by {d.channel}" if d.recipient and d.channel else d.recipient or d.channel),
        ("Proof", d.delivery_proof),
        ("Decided by", d.decided_by),
        ("Attempts", str(d.attempt)),
        ("Received", f"{_moment(d.received_at)} by {d.source}"),
        ("Released", "by a person, however old it is" if d.released else None),
        ("Stated", "delivered, by a person" if d.stated_round == d.round else None),
        ("However late", "yes, by a person's word" if d.even_late else None),
        ("Due", d.due_at and _moment(d.due_at)),
        *(("Paused", _why(pause)) for pause in pauses),
        ("Delivered", _moment(d.delivered_at) if d.delivered_at and not d.bounced else None),
        ("Captured", d.captured_at and _moment(d.captured_at)),
        ("Voided", d.voided_at and _moment(d.voided_at)),
        ("Closed", d.closed_at and _moment(d.closed_at)),
        ("Erased", d.erased_at and _moment(d.erased_at)),
    ]
    return "\n".join(f"{name:<12} {_plain(value)}" for name, value in facts if value)


def _why(pause: Pause) -> str:
    by = f", by {pause.by}" if pause.by else ""
    return f"{pause.lane} since {_moment(pause.since)}{by}: {pause.reason}"


def money(amount: int | None, currency: str | None) -> str:
    """Return an amount in minor units with its currency's own number of decimals, as `500.00 NOK`."""
    if amount is None:
        return "-"
    return f"{in_units(amount, currency or ''):f} {currency or ''}".strip()


def _moment(at: datetime) -> str:
    return str(time_text(at))


def _short(digest: str | None) -> str:
    return digest[:_DIGEST] if digest else "-"


def _plain(text: str) -> str:
    """Return text from outside without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _columns(text: str) -> int:
    """Return how many columns a terminal takes for it: two for what East Asian type calls wide, none for accents."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def _fitted(text: str, width: int) -> str:
    if _columns(text) > width:
        while _columns(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _columns(text))
