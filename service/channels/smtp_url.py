"""`SMTP_URL` as a value: where the relay is, how the connection is secured, who signs in. Imports next to nothing."""

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, unquote, urlsplit

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_PLEASE = "it must be like smtp://user:password@host:587"
_ENCODE = "percent-encode special characters in the user and the password"


class Security(StrEnum):
    """How a connection to the relay is protected."""

    STARTTLS = "STARTTLS"  # required: a relay that does not offer it is not used
    TLS = "TLS"  # from the first byte
    PLAIN = "plain text"


_SCHEMES = {
    "smtp": (Security.STARTTLS, 587),
    "smtps": (Security.TLS, 465),
    "smtp+insecure": (Security.PLAIN, 25),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpAddress:
    """A relay. A `user` without a `password` signs in with a token (XOAUTH2)."""

    host: str
    port: int
    security: Security
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def parse_smtp_url(url: str) -> SmtpAddress:
    """Return the relay behind `SMTP_URL`; raises `ValueError` with words for a person that never hold the password."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"it holds a space or a character outside ASCII; {_ENCODE}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {_ENCODE}; {_PLEASE}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"it must begin with smtp://, smtps:// or smtp+insecure://; {_PLEASE}")
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise ValueError(f"nothing may follow the port; {_ENCODE}")
    security, usual_port = _SCHEMES[parts.scheme]
    host = _host(parts)
    if security is Security.PLAIN and not is_near(host):
        raise ValueError("smtp+insecure:// is only for localhost and loopback or private IP addresses")
    if port == 0:
        raise ValueError("its port must be 1 to 65535")
    user, password = _credentials(parts)
    return SmtpAddress(host=host, port=port or usual_port, security=security, user=user, password=password)


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" not in host and not (_HOST.fullmatch(host) and len(host) <= 253):  # noqa: PLR2004
        raise ValueError(f"it names no usable host; {_PLEASE}")
    return host


def is_near(host: str) -> bool:
    """Return whether it is this machine or an address in a private network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (address.is_loopback or address.is_private) and not address.is_unspecified


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    if "@" not in parts.netloc:
        return None, None
    try:
        user = unquote(parts.username or "", errors="strict")
        password = unquote(parts.password or "", errors="strict")
    except UnicodeDecodeError:
        raise ValueError("its user or password is not percent-encoded UTF-8") from None
    if not user or (password == "" and ":" in parts.netloc.rpartition("@")[0]):
        raise ValueError(f"it needs both a user and a password, or neither; {_PLEASE}")
    if not (user + password).isprintable():
        raise ValueError("its user or password holds a control character")
    return user, password or None
