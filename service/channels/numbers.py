"""Telephone numbers: which can take an SMS, and from what one may come (channels.md 2.4)."""

import re
from enum import StrEnum

import phonenumbers
from phonenumbers import PhoneNumberType

# Denmark has no range of its own for mobiles: its numbers are of the second type.
_MOBILE = frozenset({PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE})
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{2,10}")
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_SHORT = re.compile(r"[0-9]{3,8}")
_GENERIC = frozenset({"INFO", "SMS", "INFOSMS", "SMSINFO"})  # Norwegian operators refuse them


class SenderKind(StrEnum):
    """What a sender's id is."""

    NAME = "name"
    NUMBER = "number"
    SHORT = "short number"


def mobile(text: str | None, region: str | None) -> str | None:
    """Return a number as E.164, `+4791234567`; None unless it is valid and may be a mobile's.

    `region` is the country (ISO 3166-1 alpha-2) of a number that does not say its own.
    """
    try:
        number = phonenumbers.parse(text or "", region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number) or phonenumbers.number_type(number) not in _MOBILE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def sender_kind(text: str) -> SenderKind:
    """Return what a sender's id is; raises `ValueError` for one that operators refuse or change."""
    if _NUMBER.fullmatch(text):
        return SenderKind.NUMBER
    if _SHORT.fullmatch(text):
        return SenderKind.SHORT
    if not _NAME.fullmatch(text):
        raise ValueError(
            "must be 3 to 11 of A-Z, a-z and 0-9 and begin with a letter, or a number such as +4791234567, "
            "or a short number"
        )
    if text.upper() in _GENERIC:
        raise ValueError("is a name that anybody could have, which operators refuse: take one that is yours")
    return SenderKind.NAME
