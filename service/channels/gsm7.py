"""The letters that an SMS has for nothing (GSM 03.38), and into how many parts a text goes (channels.md 2.4)."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""One unit each."""
EXTENDED: Final = frozenset("\f^{}\\[~]|€")
"""Two units each: an escape and a letter."""

_GSM7 = (160, 153)  # units of a text that goes in one part, and of each part of a longer one
_UCS2 = (70, 67)
# What Babel and good typography write, and every handset shows as well without.
_PLAIN: Final = {
    **dict.fromkeys(
        "\t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "
    ),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u00b7\u2022", "-"),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u0060", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\u200e\u200f", ""),
    "\u2026": "...",
    "\u2028": "\n",
    "\u2029": "\n",
}
_TABLE = str.maketrans(_PLAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a text costs. `units` are septets of GSM-7, or 16-bit units of UCS-2."""

    gsm7: bool
    units: int
    parts: int


def plain(text: str) -> str:
    """Return a text with plain spaces, dashes and quotation marks, and without blanks at the ends of lines.

    Letters stay what they are: a Sami name is spelt right, and paid for as UCS-2.
    """
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").translate(_TABLE)
    lines = (re.sub(r" {2,}", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def is_gsm7(text: str) -> bool:
    """Tell whether the text goes without UCS-2, which halves what a part holds."""
    return BASIC.issuperset(set(text) - EXTENDED)


def size(text: str) -> Size:
    """Return how many parts a text takes; none splits a letter that is two units long."""
    gsm7 = is_gsm7(text)
    widths = [_width(letter, gsm7=gsm7) for letter in text]
    whole, part = _GSM7 if gsm7 else _UCS2
    units = sum(widths)
    return Size(gsm7=gsm7, units=units, parts=1 if units <= whole else _parts(widths, part))


def _width(letter: str, *, gsm7: bool) -> int:
    return 2 if (letter in EXTENDED if gsm7 else ord(letter) > 0xFFFF) else 1  # noqa: PLR2004  # the first plane


def _parts(widths: Iterable[int], room: int) -> int:
    parts, left = 1, room
    for width in widths:
        if width > left:
            parts, left = parts + 1, room
        left -= width
    return parts
