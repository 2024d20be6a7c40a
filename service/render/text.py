"""Odd text made safe; names, numbers, amounts and file names as a reader expects them."""

import copy
import re
import unicodedata
from decimal import Decimal

from babel import Locale
from babel.numbers import format_currency, get_currency_precision

from service.delivery import Party

_LONGEST_NAME = 100  # of a customer in the greeting, in characters

# Controls, directional overrides and isolates, line and paragraph separators, lone surrogates: nothing a name needs,
# and all that could forge a header, turn a line around or make a message that cannot be encoded. Emoji's joiners stay.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]+"
)
_LINK = re.compile(r"://|\bwww\.|@", re.IGNORECASE)


def clean(text: str | None) -> str | None:
    """Return `text` on one line without what could do harm; None when nothing is left."""
    return " ".join(_UNSAFE.sub(" ", text).split()) or None if text else None


def greeting_name(party: Party | None) -> str | None:
    """Return who is greeted. A "name" that a mail program would turn into a link is an abuse of the order form."""
    if party is None:
        return None
    person = " ".join(name for name in (party.first_name, party.last_name) if name)
    name = clean(party.business_name) or clean(person)
    if name is None or _LINK.search(name):
        return None
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1].rstrip() + "…"


def organization_number(number: str | None) -> str | None:
    """Return it as people write it: nine digits (Norway) in threes, anything else as given."""
    number = clean(number)
    if number and re.fullmatch(r"\d{9}", number):
        return f"{number[:3]}\u00a0{number[3:6]}\u00a0{number[6:]}"
    return number


def file_name(word: str, number: str) -> str:
    """Return an ASCII name for the document, such as `Faktura-A1B2C-000001.pdf`; channels.md 1.8 says why ASCII."""
    plain = unicodedata.normalize("NFKD", f"{word}-{number}").encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)
    stem = re.sub(r"\.{2,}", ".", stem).strip(".-_")[:80].rstrip(".-_")
    return f"{stem or 'invoice'}.pdf"


# Where Unicode's customary number of decimals is not ISO 4217's, minor units are still ISO's: these would be a hundred
# times too much (or, without the third decimal, off by a thousand).
_ISO_DIGITS = {"IQD": 3} | dict.fromkeys(
    ("AFN", "ALL", "IRR", "KPW", "LAK", "LBP", "MGA", "MMK", "RSD", "SLL", "SOS", "SYP", "YER"), 2
)


def money(minor: int, currency: str, locale: Locale) -> str:
    digits = _ISO_DIGITS.get(currency, get_currency_precision(currency))
    pattern = copy.copy(locale.currency_formats["standard"])
    pattern.frac_prec = (digits, digits)
    amount = Decimal(f"{minor}E-{digits}")  # exact, where arithmetic would round to 28 digits
    text = format_currency(amount, currency, format=pattern, locale=locale, currency_digits=False)
    return re.sub(r"(?<=[A-Za-z])(?=\d)", "\u00a0", text)  # CLDR's currencySpacing, which Babel leaves out
