"""Masking and scrubbing: what may be shown or kept of a person's address or number. A leaf; imports nothing of ours.

Scrubbing runs over others' text of any length: every pattern here goes through it once, however it was chosen.
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

ERASED = "erased"
"""What stands where something personal was."""
_LONGEST = 500
_HIDDEN = "***"
_WORD = re.compile(r"[A-Za-z_.]{1,100}")  # nothing in it can be an address, a number or an encoded one
# A token, and not the words "basic authentication": it has a digit or a sign in it, or a capital after a small letter.
_BEARER = re.compile(r"\b((?i:bearer|basic))\s+(?=\S*(?:[0-9_~+/=-]|\.\w|[a-z][A-Z]))[A-Za-z0-9._~+/=-]+")

# What percent-encoding (once or more often), HTML and wide type make of "@", and of what stands inside a number.
_ENCODED = re.compile(r"(?i)%(?:25){0,3}(40|20|2b|2d|2e)|&#(?:0*64|x0*40);|[\uff20\ufe6b]")
_BROKEN = re.compile(r" ?@ ?(?=[\w-]{1,63}\.\w)")  # an address that was folded at its "@"

_LOCAL = r"[^\s<>\"(),;:\[\]@]"
_DOMAIN = r"[^\s<>\"'(),;:\[\]/?&=@]"
# Nothing but the first letter of a run may begin an address, so that a run without "@" is looked at once.
_MAIL = re.compile(rf"(?<!{_LOCAL})('*+){_LOCAL}*@(?:{_DOMAIN}*+@)*+{_DOMAIN}*+")
_QUOTED = re.compile(rf"\"(?:[^\"\\]|\\.){{1,80}}\\?\"@{_DOMAIN}*+")

# Seven or more digits, however they are grouped: telephone, organisation and account numbers alike.
_JOIN = r"(?: ?[-./()+\u00b7\u2010-\u2015\u2212]{1,2} ?| )?"
_NUMBER = re.compile(rf"\+?\d(?:{_JOIN}\d)*+")
_FEWEST = 7
_TELEPHONE = 8  # digits, of the shortest Nordic one

_MORE = rf"(?:{_JOIN.replace(' ', '[ ]')}\d)"
_ZONE = rf"(?:[ ]?[+-](?:0\d|1[0-4]):?[0-5]\d(?!{_MORE}))"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
# "+47 ", "(0047) ", "00 47 ": what follows is a telephone number.
_ABROAD = "".join(
    rf"(?<!{begin}{code}{end}[ ])"
    for begin in (r"\+", "00", "00[ ]")
    for code in (r"\d", r"\d\d", r"\d\d\d")
    for end in ("", r"\)")
)
# What looks like a number and helps the operator. Four pairs of digits are rather a telephone number than an IP
# address, unless they begin with 1 (no Nordic number does) or a relay says of them in brackets that they are an IP.
_KEPT = re.compile(
    rf"""
    # an IP address
    (?<![\w.+-]) {_ABROAD}
    (?! (?<!\bIP\ \[) [2-9]\d (?:\.\d\d){{3}} (?!\d) )
    {_OCTET} (?:\.{_OCTET}){{3}} (?! \.?\d | \w )
    # an enhanced status code, with the reply code before it
    | (?<![\w.]) (?: [245]\d\d[ -] )? [245]\.[0-7]\.\d{{1,3}} (?! [.-]?\d )
    # a date, not of birth with a personal number after it; a time
    | (?<![\d-]) (?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])
      (?! [-./]?\d | \ ?[-./]?\ ?\d{{3}}\ ?\d\d(?!\d) )
    | (?<!\d) \d\d:\d\d (?: :\d\d (?: \.\d{{1,6}} (?: (?={_ZONE}) | (?!{_MORE}) ) )? )?
      (?: {_ZONE} )? (?! \d )
    # a UUID; Postfix's queue id, which is no telephone number with letters at one end; an account at Dintero
    | \b [0-9a-fA-F]{{8}} (?: -[0-9a-fA-F]{{4}} ){{3}} -[0-9a-fA-F]{{12}} \b
    | \b (?= [0-9A-F]{{10,12}} \b ) (?= \d* [A-F] \d* [A-F] ) (?= [0-9A-F]* \d[A-F] )
      (?! \d{{8}} ) [0-9A-F]{{10,12}} \b (?<! \d{{8}} )
    | \b [TP]\d{{8}} \b
    """,
    re.VERBOSE | re.ASCII,
)


def mask_address(address: str) -> str:
    """Return `o***@nordmann.no` for an address and `***99` for a number."""
    local, at, domain = address.rpartition("@")
    if at:
        return f"{local[:1]}***@{domain}"
    return f"***{address[-2:]}" if address else ""


def address_key(account_id: str, address: str) -> str:
    """Return the hex digest by which the record knows an address without holding it; one for each account."""
    return hmac.new(account_id.encode(), address.strip().casefold().encode(), hashlib.sha256).hexdigest()[:32]


def number_key(account_id: str, number: str | None) -> str | None:
    """Return the key of an organisation number however it is written, `NO 923 456 789 MVA`; None without digits."""
    digits = "".join(letter for letter in number or "" if letter.isascii() and letter.isdecimal())
    return address_key(account_id, digits) if digits else None


def erased_reference(account_id: str, reference: str) -> str:
    """Return what stands for a reference that was erased: who has the reference can still find it."""
    return f"{ERASED}:{address_key(account_id, reference)}"


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` on one line, at most 500 characters, without addresses, numbers, tokens and the given secrets.

    Numbers of fewer than seven digits stay (reply codes, sizes), as do dates and times, IP addresses, enhanced status
    codes (RFC 3463), and ids that mix digits and letters.
    """
    text = _one_line(text)
    for secret in _patterns(tuple(secrets)):
        text = secret.sub(_HIDDEN, text)
    if _WORD.fullmatch(text):
        return text
    text = _BEARER.sub(rf"\1 {_HIDDEN}", text)
    text = _BROKEN.sub("@", _ENCODED.sub(_decoded, text))
    text = _without_numbers(text)  # before addresses: one beside a number would take only its nearest digits along
    return _MAIL.sub(rf"\1{_HIDDEN}", _QUOTED.sub(_HIDDEN, text))[:_LONGEST]


@lru_cache(maxsize=64)  # every line of the log asks for the same ones
def _patterns(secrets: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Return what finds each of these secrets, the longest first."""
    ordered = sorted(filter(None, map(_one_line, secrets)), key=len, reverse=True)
    return tuple(re.compile(re.escape(secret), re.IGNORECASE) for secret in ordered)


def _one_line(text: str) -> str:
    """Return `text` with single spaces for whatever white space it has, and without what cannot be seen."""
    if text.isprintable():
        return " ".join(text.split())
    if not text.isascii():
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _decoded(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else "@"


def _without_numbers(text: str) -> str:
    parts, end = [], 0
    for kept in _KEPT.finditer(text):
        parts += [_NUMBER.sub(_hidden, text[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join((*parts, _NUMBER.sub(_hidden, text[end:])))


def _hidden(number: re.Match[str]) -> str:
    """Hide a number, but not the digits inside a word of letters and digits: that is an id.

    A telephone number's worth of digits between two single letters is no such word.
    """
    digits = number[0]
    if sum(map(str.isdecimal, digits)) < _FEWEST:
        return digits
    before = number.string[max(0, number.start() - 2) : number.start()]
    after = number.string[number.end() : number.end() + 2]
    inside = before[-1:].isalpha() and after[:1].isalpha()
    is_word = any(len(side) > 1 and side.isalnum() for side in (before, after)) or len(digits) < _TELEPHONE
    return digits if digits.isdecimal() and inside and is_word else _HIDDEN
