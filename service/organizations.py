"""Organisation numbers of the Nordic countries: how each is written, and its check digit. A leaf; imports nothing.

A mistyped digit would make another customer's invoice, or a group of its own. No register is asked.
"""

import re
from collections.abc import Callable

_NO_WEIGHTS = (3, 2, 7, 6, 5, 4, 3, 2)
_FI_WEIGHTS = (7, 9, 10, 5, 8, 4, 2)
_DK_WEIGHTS = (2, 7, 6, 5, 4, 3, 2, 1)
_SIGNS = re.compile(r"[ .\u00a0-]")
_CENTURY = 12  # digits of a Swedish number with `16` (or a century of birth) before it
_LUHN_NINE = 9


def organization_number(text: str, country: str) -> str:
    """Return a number in the one way to write it; raises `ValueError` in words that do not quote it.

    `country` is ISO 3166 in capitals. NO, DK and SE are digits alone, FI `1234567-8`. Another country's number comes
    back as it is, less what stands around it.
    """
    if country not in _COUNTRIES:
        return text.strip()
    return _COUNTRIES[country](_SIGNS.sub("", text.strip()).upper())


def _norwegian(text: str) -> str:
    digits = _digits(text.removeprefix("NO").removesuffix("MVA"), 9, "nine digits")
    check = -_weighed(digits[:8], _NO_WEIGHTS) % 11
    return _checked(digits, right=check == int(digits[8]))  # a check of 10 is no digit, and no number has it


def _swedish(text: str) -> str:
    text = text.removeprefix("SE")
    if len(text) == _CENTURY and text.startswith("16"):
        text = text[2:]
    elif len(text) == _CENTURY and text.endswith("01"):  # the form of a VAT number
        text = text[:-2]
    digits = _digits(text, 10, "ten digits")
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(digits)]
    total = sum(number - _LUHN_NINE if number > _LUHN_NINE else number for number in doubled)
    return _checked(digits, right=total % 10 == 0)


def _finnish(text: str) -> str:
    digits = _digits(text.removeprefix("FI"), 8, "seven digits, a hyphen and one digit")
    check = -_weighed(digits[:7], _FI_WEIGHTS) % 11
    return _checked(f"{digits[:7]}-{digits[7]}", right=check == int(digits[7]))


def _danish(text: str) -> str:
    digits = _digits(text.removeprefix("DK"), 8, "eight digits")
    return _checked(digits, right=_weighed(digits, _DK_WEIGHTS) % 11 == 0)


_COUNTRIES: dict[str, Callable[[str], str]] = {
    "NO": _norwegian,
    "SE": _swedish,
    "FI": _finnish,
    "DK": _danish,
}


def _digits(text: str, count: int, form: str) -> str:
    if not re.fullmatch(rf"[0-9]{{{count}}}", text):
        raise ValueError(f"must be an organisation number of {form}")
    return text


def _weighed(digits: str, weights: tuple[int, ...]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


def _checked(number: str, *, right: bool) -> str:
    if not right or not number.strip("0-"):
        raise ValueError("has a wrong check digit: is a digit mistyped?")
    return number
