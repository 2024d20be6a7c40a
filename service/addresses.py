"""Which mail addresses will do, for settings, operators and the channel alike. A leaf, but slow to import."""

import re
from functools import lru_cache

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email


@lru_cache(maxsize=256)  # a delivery's own is looked at several times, and each look is dear
def mail_address(text: str) -> str:
    """Return a mail address as it is written on the wire, its domain in ASCII; raises `ValueError` in kind words.

    `.example` will do, for demonstrations live there. A local part outside ASCII will not: it would need every relay
    on the way to speak SMTPUTF8. Nor will one in quotation marks, nor a domain that exists nowhere, as `.local`.
    """
    try:
        found = validate_email(text.strip(), check_deliverability=False).ascii_email
    except EmailNotValidError:
        found = None
    if found is None:
        raise ValueError(_why(text.strip()))
    return found


def _why(text: str) -> str:
    """Return what is wrong with an address that will not do, without quoting it."""
    local, at, domain = text.rpartition("@")
    if at and local.startswith('"'):
        return "must be a mail address without quotation marks before the @"
    if at and not local.isascii():
        return "must be a mail address in ASCII before the @: few mail servers take another"
    last = domain.rpartition(".")[2].lower()
    if at and (last == domain.lower() or last in SPECIAL_USE_DOMAIN_NAMES) and re.fullmatch(r"[a-z0-9-]+", last):
        return "must be a mail address in a domain of the Internet: .local, .test and a single word are none"
    return "must be a mail address such as name@example.com"


def usable_address(text: str | None) -> str | None:
    """Return the address as `mail_address` does; None when no mail can go there."""
    try:
        return mail_address(text) if text else None
    except ValueError:
        return None
