"""Odd text made safe; names, numbers, amounts and file names as a reader expects them."""

import copy
import re
import unicodedata

from babel import Locale
from babel.numbers import format_currency, get_currency_symbol

from service.delivery import Party
from service.money import in_units, minor_digits

# The languages of a currency's country, and its name for payment references where that is a name and not a word.
_REFERENCES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "NOK": (("nb", "nn", "no"), "KID"),
    "SEK": (("sv",), "OCR"),
    "DKK": (("da",), None),
    "EUR": (("fi",), None),
}
_LONGEST_NAME = 100  # of a customer in the greeting, in characters
_LONGEST_REFERENCE = 80
_LONGEST_DESCRIPTION = 80

# Controls, directional overrides and isolates, line and paragraph separators, lone surrogates: nothing a name needs,
# and all that could forge a header, turn a line around or make a message that cannot be encoded. Emoji's joiners stay.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]+"
)
# What a mail program may make a link of: a scheme, an address, a host with or without a path, in any alphabet.
_LINK = re.compile(
    r"://|@|\b(?:www\.|(?:mailto|tel|sms|javascript):)|\w[.\u3002\uff0e\uff61](?:[^\W\d_]{2}|xn--)|\d(?:\.\d{1,3}){3}",
    re.IGNORECASE,
)


def clean(text: str | None) -> str | None:
    """Return `text` on one line without what could do harm; None when nothing is left."""
    return " ".join(_UNSAFE.sub(" ", text).split()) or None if text else None


def _from_order_form(text: str | None, longest: int) -> str | None:
    """Return what anybody may type into an order form; None for what a mail program would turn into a link.

    Orders are a way to have our mail server carry such a link to a stranger, under the merchant's name.
    """
    text = clean(text)
    if text is None or _LINK.search(text):
        return None
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def greeting_name(party: Party | None) -> str | None:
    """Return who is greeted."""
    if party is None:
        return None
    person = " ".join(name for name in (party.first_name, party.last_name) if name)
    return _from_order_form(clean(party.business_name) or person, _LONGEST_NAME)


def customer_reference(party: Party | None) -> str | None:
    """Return the customer's own reference."""
    return _from_order_form(party.customer_reference, _LONGEST_REFERENCE) if party else None


def description(text: str | None) -> str | None:
    """Return what an order calls one of its lines."""
    return _from_order_form(text, _LONGEST_DESCRIPTION)


def organization_number(number: str | None) -> str | None:
    """Return it as people write it: nine digits (Norway) in threes, anything else as given."""
    number = clean(number)
    if number and re.fullmatch(r"\d{9}", number):
        return f"{number[:3]}\u00a0{number[3:6]}\u00a0{number[6:]}"
    return number


def register(number: str | None) -> str | None:
    """Return the name of the register that a number can only be of, by its form: Denmark's or Finland's.

    Other numbers go by the reader's own words, for what a reader's country calls its register is not the seller's.
    """
    number = clean(number) or ""
    if re.fullmatch(r"(DK ?)?\d{8}|\d\d \d\d \d\d \d\d", number):
        return "CVR-nr."
    return "Y-tunnus" if re.fullmatch(r"\d{7}-\d", number) else None


def reference_name(currency: str, locale: Locale) -> tuple[bool, str | None]:
    """Say whether a currency is that of a reader's country, and how its own country names a payment reference if not.

    A KID is a KID in Norway's banks and on the document, whoever reads of it.
    """
    languages, name = _REFERENCES.get(currency, ((), None))
    home = locale.language in languages
    return home, None if home else name


def file_name(word: str, number: str) -> str:
    """Return an ASCII name for the document, such as `Faktura-A1B2C-000001.pdf`; channels.md 1.8 says why ASCII."""
    plain = unicodedata.normalize("NFKD", f"{word}-{number}").encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)
    stem = re.sub(r"\.{2,}", ".", stem).strip(".-_")[:80].rstrip(".-_")
    return f"{stem or 'invoice'}.pdf"


def money(minor: int, currency: str, locale: Locale) -> str:
    digits = minor_digits(currency)  # not Unicode's customary number, which is less for some
    pattern = copy.copy(locale.currency_formats["standard"])
    pattern.frac_prec = (digits, digits)
    amount = in_units(minor, currency)
    text = format_currency(amount, currency, format=pattern, locale=locale, currency_digits=False)
    symbol = get_currency_symbol(currency, locale)
    if symbol.endswith("kr") and symbol != "kr":  # a Swede's "Nkr" is on no document: their banks write NOK, too
        text = text.replace(symbol, currency)
    return re.sub(r"(?<=[A-Za-z])(?=\d)", "\u00a0", text)  # CLDR's currencySpacing, which Babel leaves out
