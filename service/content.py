"""What an invoice's document says against what its transaction says: pure functions of the text that was read in it.

What reads a PDF may put spaces and line ends inside a word, or run two cells of a table together. So ours is looked for
generously, however it is broken up: a good invoice that is held costs as much as a wrong one that is not.
"""

import re
import unicodedata
from dataclasses import dataclass

from service.delivery import ContentGate, Transaction
from service.money import in_units
from service.privacy import scrub

_DASHES = re.compile(r"[\u00ad\u2010-\u2015\u2212]")
_UNSEEN = re.compile(r"[\u200b-\u200d\u2060\ufeff]")
_PARTS = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]")

_CODES = {"NOK": "kr", "SEK": "kr", "DKK": "kr", "ISK": "kr", "EUR": "€", "USD": "$", "GBP": "£"}
_SIGN = re.compile(r"(?<![^\W\d_])[Kk][Rr](?![^\W\d_])|[€$£]")
_MARK = rf"(?:{_SIGN.pattern}|{'|'.join(_CODES)})"
# No more groups than any amount has, or a long row of numbers is read through once for each of them.
_GROUPED = r"\d{1,3}(?:[ .,'\u2019]?\d{3}){0,5}"
_MONEY = re.compile(
    rf"(?<![\d.,]){_GROUPED}[.,]\d\d(?![\d.,]*\d)"
    rf"|{_MARK}\.?\s?{_GROUPED}(?!\d|[.,]\d)|(?<![\d.,]){_GROUPED}(?:[,:]-|\s?{_MARK})"
)
# After a number comes no other digit, unless those are a date's or an amount's from the next cell.
_END = r"(?:(?!\d)|(?=\d+[.,]\d))"


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
    text = _normal(text or "")
    if other := _another_number(text, _normal(number).strip()):
        shown, ours = scrub(other), scrub(number)  # what only looks like a number may be a telephone's
        return Finding(reason=f"the document shows the invoice number {shown} and not {ours}", holds=True)
    if gate is ContentGate.OFF:
        return None
    reason = _doubt(text, transaction)
    return Finding(reason=reason, holds=gate is ContentGate.HOLD) if reason else None


def _normal(text: str) -> str:
    """Return text with one kind of dash, and no ligatures, wide letters or no-break spaces."""
    return _UNSEEN.sub("", _DASHES.sub("-", unicodedata.normalize("NFKC", _DASHES.sub("-", text))))


# --- the number ------------------------------------------------------------------------------------------------------


def _another_number(text: str, number: str) -> str | None:
    """Return a number of the same form that the document shows, where it does not show ours."""
    parts = _PARTS.findall(number)
    words = [part for part in parts if _is_word(part)]
    if not words or re.search(_ours(words), text, re.IGNORECASE):
        return None
    found = re.search(_form(parts), text) or re.search(_series(parts), text)
    return re.sub(r"\s", "", found.group()) if found else None


def _is_word(part: str) -> bool:
    return part.isascii() and part.isalnum()


def _ours(words: list[str]) -> str:
    """Return the pattern of our number: broken anywhere, with any signs or none between its words."""
    return _start(words[0]) + r"[\W_]{0,4}".join(r"\s*".join(word) for word in words) + _END


def _form(parts: list[str]) -> str:
    """Return the pattern of numbers like ours: as many characters of the same sort between the same signs."""
    written = "".join(_like(part) if _is_word(part) else rf"\s?{re.escape(part)}\s?" for part in parts)
    # Letters that run into such a number cannot be told from it, so it has to stand by itself.
    return rf"(?<![A-Za-z0-9-]){written}(?![A-Za-z0-9-])"


def _like(part: str) -> str:
    """Return the pattern of one part. Capitals are a code as often as a word, and a code has digits in it."""
    if part.isdecimal():
        return rf"\d{{{len(part)}}}"
    letters = ("A-Z" if re.search("[A-Z]", part) else "") + ("a-z" if re.search("[a-z]", part) else "")
    return rf"[{letters}0-9]{{{len(part)}}}"


def _series(parts: list[str]) -> str:
    """Return the pattern of our own series: all but the last part as in our number, broken or run into anything."""
    *first, last = parts
    if not first or not last.isdecimal():
        return r"(?!)"
    lengths = (len(last), len(last) + 1, len(last) - 1)  # after 999 comes 1000
    counted = "|".join(r"\s?".join([r"\d"] * length) + _END for length in lengths if length)
    prefix = r"\s?".join(re.escape(sign) for part in first for sign in part)
    return rf"{_start(prefix)}{prefix}\s?(?:{counted})"


def _start(pattern: str) -> str:
    return r"(?<!\d)(?<!\d[.,])" if pattern[0].isdecimal() else ""


# --- the amount and the currency -------------------------------------------------------------------------------------


def _doubt(text: str, transaction: Transaction) -> str | None:
    if not re.search(r"[^\W_]", text):
        return "the text of the document cannot be read"
    currency = transaction.currency or ""
    if transaction.amount is not None and _MONEY.search(text) and not _shows(text, transaction.amount, currency):
        return "the document does not show the transaction's amount"
    shown = _currencies(text, currency)
    if shown and currency not in shown:
        return f"the document is in {' or '.join(sorted(shown))} and the transaction in {currency}"
    return None


def _shows(text: str, amount: int, currency: str) -> bool:
    """Say whether an amount is shown, in any country's way of writing it; one without decimals beside a currency."""
    units, _, decimals = f"{in_units(amount, currency):f}".partition(".")
    whole = r"(?<!\d)(?<!\d[.,'\u2019])" + r"[\s.,'\u2019]{0,2}".join(units)
    exact = rf"{whole}\s?[.,:]\s?" + r"\s?".join(decimals or "00") + _END
    if decimals.strip("0"):
        return re.search(exact, text) is not None
    bare = rf"{_MARK}\.?\s?{whole}(?!\d|[.,]\d)|{whole}(?:[.,:]-|\s?{_MARK})"
    return re.search(rf"{exact}|{bare}", text) is not None


def _currencies(text: str, ours: str) -> set[str]:
    """Return the currencies that a text may be in; none where it names none. Several go by `kr`."""
    codes = {code for code in (*_CODES, re.escape(ours)) if re.search(rf"(?<![A-Za-z]){code}(?![A-Za-z])", text)}
    signs = {sign.lower() for sign in _SIGN.findall(text)} - {_CODES.get(code) for code in codes}
    return codes | {code for code, sign in _CODES.items() if sign in signs}
