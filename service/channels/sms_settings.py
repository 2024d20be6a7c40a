"""The settings of an SMS channel: all that is wrong with them, told at once by their full names."""

import base64
import ipaddress
import re
from urllib.parse import quote, urlsplit

from service.channels import UnusableSettings
from service.channels.numbers import sender_kind
from service.delivery import ChannelContext

_PREFIX = "DELIVERY_"


class Given:
    """What is given of one channel's settings; what is missing or wrong is kept until `done`."""

    def __init__(self, context: ChannelContext, channel: str) -> None:
        self._given = dict(context.environ)
        self._channel = channel
        self._mistakes: list[str] = []
        self._public_url = context.public_url
        if context.redirect_email is not None and context.redirect_phone is None:
            self._wrong("REDIRECT_TO", f"must name a number too, for the channel {channel} is in use")
        if context.public_url is None:
            self._wrong("PUBLIC_URL", f"is required for {channel}: its delivery reports come there")

    def done(self) -> None:
        """Raise `UnusableSettings` if anything was wrong so far."""
        if self._mistakes:
            raise UnusableSettings(tuple(self._mistakes))

    def _wrong(self, name: str, why: str) -> None:
        self._mistakes.append(f"{_PREFIX}{name}: {why}")

    def optional(self, name: str) -> str | None:
        """Return the text of a setting, if it is given and can be part of a request's head."""
        text = self._given.get(_PREFIX + name, "").strip()
        if text and not (text.isascii() and text.isprintable()):
            self._wrong(name, "must be in ASCII, without line breaks")
            return None
        return text or None

    def text(self, name: str, *, form: str = ".+", kind: str = "") -> str:
        """Return the text of a setting that must be there and of that form, or "" once that is noted."""
        mistakes = len(self._mistakes)
        text = self.optional(name) or ""
        if len(self._mistakes) == mistakes and not text:
            self._wrong(name, f"is required for {self._channel}")
        elif text and not re.fullmatch(form, text):
            self._wrong(name, f"must be {kind}")
        return text

    def whole(self, name: str) -> int:
        """Return a whole number that must be there, or 0 once its lack is noted."""
        text = self.text(name, form="[0-9]{1,12}", kind="a whole number")
        return int(text) if re.fullmatch("[0-9]{1,12}", text) else 0

    def sender(self, *, instead: str | None = None) -> str | None:
        """Return who an SMS is from; `instead` is another setting that may say so in its place."""
        text = self._given.get(f"{_PREFIX}SMS_FROM", "").strip() or None
        if text is None:
            if instead is None or self.optional(instead) is None:
                also = f", or {_PREFIX}{instead}" if instead else ""
                self._wrong("SMS_FROM", f"is required for {self._channel}{also}")
            return None
        try:
            sender_kind(text)
        except ValueError as exc:
            self._wrong("SMS_FROM", str(exc))
        return text

    def base(self, name: str, default: str | None = None) -> str:
        """Return an address to which paths are added: https, or http on a loopback host; no slash at its end."""
        text = self.optional(name) or default
        if text is None:
            self._wrong(name, f"is required for {self._channel}")
            return ""
        if not _is_base(text):
            self._wrong(name, "must be an https address without user, query and fragment (http on loopback only)")
        return text.rstrip("/")

    def reports_at(self) -> str:
        """Return where this channel's delivery reports come in."""
        return f"{self._public_url or ''}/receipts/{quote(self._channel)}"


def _is_base(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or port == 0 or parts.username is not None or parts.query or parts.fragment or re.search(r"\s", text):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def basic(user: str, password: str) -> str:
    """Return the Authorization header of a user with a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
