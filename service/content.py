"""What an invoice's document says against what its transaction says: pure functions of the text that was read in it."""

import re
from dataclasses import dataclass

from service.delivery import ContentGate, Transaction

_MONEY = re.compile(r"(?<![\d.,])\d{1,3}(?:[ .,']?\d{3})*(?:[.,]\d{2})(?![\d.,]*\d)")
_CURRENCIES = {
    "NOK": ("NOK", "kr"),
    "SEK": ("SEK", "kr"),
    "DKK": ("DKK", "kr"),
    "EUR": ("EUR", "€"),
    "USD": ("USD", "$"),
    "GBP": ("GBP", "£"),
}
_SPACES = re.compile(r"[\s\u00a0\u202f\u2009]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with a document, and whether it is held for it."""

    reason: str
    holds: bool


def contradiction(text: str | None, transaction: Transaction, gate: ContentGate) -> Finding | None:
    """Say in what a document contradicts its transaction. None: in nothing, or (but for the number) nobody asked.

    A number of another invoice is held whatever the gate: it may be another customer's.
    """
    number = transaction.invoice_number or ""
    if text and (other := _another_number(text, number)):
        ours, theirs = number, other
        return Finding(reason=f"the document shows the invoice number {theirs} and not {ours}", holds=True)
    if gate is ContentGate.OFF:
        return None
    reason = _doubt(text, transaction)
    return Finding(reason=reason, holds=gate is ContentGate.HOLD) if reason else None


def _another_number(text: str, number: str) -> str | None:
    """Return a number of the same form that the document shows, where it does not show ours."""
    if not number or _bare(number) in _bare(text):
        return None
    found = re.search(rf"(?<![A-Za-z0-9-]){_form(number)}(?![A-Za-z0-9-])", text)
    return found.group() if found else None


def _form(number: str) -> str:
    """Return the pattern of numbers like this one: as many characters of the same sort between the same signs."""
    parts = re.findall(r"[A-Za-z0-9]+|[^A-Za-z0-9]", number)
    return "".join(_part(part) if part.isalnum() else re.escape(part) for part in parts)


def _part(part: str) -> str:
    sort = r"\d" if part.isdecimal() else "[A-Z]" if part.isalpha() and part.isupper() else "[A-Za-z0-9]"
    return f"{sort}{{{len(part)}}}"


def _bare(text: str) -> str:
    return _SPACES.sub("", text)


def _doubt(text: str | None, transaction: Transaction) -> str | None:
    if text is None or not text.strip():
        return "the text of the document cannot be read"
    amounts = {_minor(found) for found in _MONEY.findall(_SPACES.sub(" ", text))}
    if transaction.amount is not None and amounts and transaction.amount not in amounts:
        return "the document does not show the transaction's amount"
    currency = transaction.currency or ""
    shown = {code for code in _CURRENCIES if re.search(rf"\b{code}\b", text)}
    marks = _CURRENCIES.get(currency, (currency,))
    if shown and currency not in shown and not any(mark in text for mark in marks[1:]):
        return f"the document is in {', '.join(sorted(shown))} and the transaction in {currency}"
    return None


def _minor(written: str) -> int:
    return int(re.sub(r"\D", "", written))
