"""What the text of one setting may be, and the value it becomes; each raises `ValueError` without the value."""

import base64
import importlib.util
import ipaddress
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from service.delivery import ChannelDefault, GroupAddresses, Mailbox, Pace
from service.png import picture_size

if TYPE_CHECKING:
    from service.channels.smtp_url import SmtpAddress

LARGEST_LOGO = 512 * 1024
_PRODUCTS = ("kravia.invoice_b2b", "kravia.invoice_b2c", "kravia.invoice_b2b_grouped")
_DELIVERERS = ("merchant", "kravia")
_ORGANIZATION = re.compile(r"(?P<country>[A-Z]{2})?(?P<digits>[0-9]{7,12})")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_SQLITE = re.compile(r"sqlite:///(?!:memory:)[^?]+(\?.*)?")
_POSTGRESQL = re.compile(r"postgresql://([^@/]*@)?(\[[^\]]+\]|[^/:?#@]*)(:\d+)?/[^/?]+(\?.*)?")
_MAILBOX = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]+)>")
_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Where every message goes instead of to the customer; the number is E.164."""

    email: str | None = None
    phone: str | None = None


def words(text: str) -> tuple[str, ...]:
    """Return what stands between the commas, each once, without what is empty."""
    return tuple(dict.fromkeys(word for part in text.split(",") if (word := part.strip())))


def truth(text: str) -> bool:
    try:
        return _TRUTHS[text.casefold()]
    except KeyError:
        raise ValueError("must be true or false") from None


def account_id(text: str) -> str:
    if not re.fullmatch(r"[TP][0-9]{8}", text):
        raise ValueError("must be T (a test account) or P (a live one) and eight digits")
    return text


def seconds(text: str) -> float:
    """Return a finite number of seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError("must be a number of seconds, such as 60 or 0.5")
    return value


def hours(text: str) -> float:
    """Return a finite number of hours, 0 or more."""
    try:
        return seconds(text)
    except ValueError:
        raise ValueError("must be a number of hours, such as 20, or 0 for never") from None


def some_seconds(text: str) -> float:
    """Return a finite number of seconds above 0."""
    value = seconds(text)
    if value == 0:
        raise ValueError("must be above 0 seconds")
    return value


def delays(text: str) -> tuple[float, ...]:
    return tuple(some_seconds(part.strip()) for part in text.split(","))


def pace(text: str) -> Pace:
    """Return how many messages may go in how long: `30/m`, `2/s`, `1000/h`."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})/([smh])", text)
    if not found:
        raise ValueError("must be like 30/m: so many messages a second (s), minute (m) or hour (h)")
    return Pace(count=int(found[1]), seconds={"s": 1.0, "m": 60.0, "h": 3600.0}[found[2]])


def whole(text: str, *, least: int, most: int) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1
    if not least <= value <= most:
        raise ValueError(f"must be a whole number from {least} to {most}")
    return value


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(name: str) -> bool:
    """Return whether it is an IP address (IPv6 without brackets) or a host name in ASCII and lower case."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.split(".")
        fits = len(name) <= 253 and max(map(len, labels)) <= 63  # noqa: PLR2004  # RFC 1035
        return fits and _HOST.fullmatch(name) is not None and not labels[-1].isdigit()
    return True


def _ascii_host(name: str) -> str:
    """Return a host name as it goes over the wire, `blåbær.example` as `xn--...`; raises `ValueError`."""
    if name.isascii() and "xn--" not in name:
        return name.lower()
    import idna  # noqa: PLC0415  # for the few who need it

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        raise ValueError("must name a host, such as https://shop.example") from None


def base_url(text: str) -> str:
    """Return an address to which paths are added: https, or http on a loopback host; no slash at its end."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is no address that can be read: https://host/path") from None
    if parts.scheme not in {"https", "http"} or not host or re.search(r"\s", text):
        raise ValueError("must be an address such as https://host/path")
    if parts.username is not None or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("must hold no user, no query and no fragment")
    host = _ascii_host(host)
    if not _is_host(host) or port == 0:
        raise ValueError("must name a host, such as https://shop.example")
    if not parts.path.isascii():
        raise ValueError("must have a path in ASCII: other letters are percent-encoded")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("must be https (http is for a loopback host only)")
    place = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, place if port is None else f"{place}:{port}", parts.path.rstrip("/"), "", ""))


def base_urls(text: str) -> tuple[str, ...]:
    if not words(text):
        raise ValueError("must be at least one address")
    return tuple(dict.fromkeys(base_url(word) for word in words(text)))


def alert_url(text: str) -> str:
    """Return an address with its path and query as they are: https, or http on a loopback or private address."""
    from service.channels.smtp_url import is_near  # noqa: PLC0415  # only what serves needs it

    try:
        parts = urlsplit(text)
        host, port = _ascii_host(parts.hostname or ""), parts.port
    except ValueError:
        raise ValueError("is no address that can be read: https://host/path") from None
    if parts.scheme not in {"https", "http"} or not _is_host(host) or port == 0 or re.search(r"\s", text):
        raise ValueError("must be an address such as https://host/path")
    if not text.isascii() or parts.username is not None or "#" in text:
        raise ValueError("must be in ASCII and hold no user and no fragment")
    if parts.scheme == "http" and not is_near(host):
        raise ValueError("must be https (http is for localhost and loopback or private IP addresses only)")
    return text


def website(text: str) -> str:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in {"https", "http"} and _is_host(_ascii_host(parts.hostname or ""))
    except ValueError:
        fits = False
    if not fits or re.search(r"[\s<>\"]", text):
        raise ValueError("must be an address that begins with https:// or http://")
    return text


def file_hosts(text: str) -> tuple[str, ...]:
    """Return host names in lower case, `*.` before one for its subdomains; an IPv6 address without brackets."""
    hosts = tuple(word.lower() for word in words(text))
    if not hosts:
        raise ValueError("must be at least one host name")
    return tuple(_file_host(host) for host in hosts)


def _file_host(host: str) -> str:
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if not _is_host(host.removeprefix("*.")):
            raise ValueError("must be host names without scheme, port or path, *.host for subdomains only") from None
        return host


def invoice_channel(text: str) -> ChannelDefault:
    if text in _DELIVERERS:
        return ChannelDefault(default=text)
    pairs = [tuple(part.strip() for part in word.split("=")) for word in words(text)]
    found = {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1] in _DELIVERERS}  # noqa: PLR2004
    if not pairs or len(found) != len(pairs) or not set(found) <= set(_PRODUCTS):
        raise ValueError(
            f"must be merchant or kravia, or product=merchant or product=kravia for some of {', '.join(_PRODUCTS)}"
        )
    return ChannelDefault(by_product=tuple(found.items()))


def database_url(text: str) -> str:
    if not _SQLITE.fullmatch(text) and not _POSTGRESQL.fullmatch(text):
        raise ValueError("must be sqlite:///file or postgresql://user:password@host/name")
    return text


def channels(text: str) -> tuple[str, ...]:
    from service.channels import BUILT_IN  # noqa: PLC0415  # only what runs channels needs them

    names = words(text)
    wrong = [name for name in names if name not in BUILT_IN and not _FACTORY.fullmatch(name)]
    if wrong or not names:
        raise ValueError(f"must be names out of {', '.join(BUILT_IN)}, or package.module:factory")
    return names


def relay(text: str) -> "SmtpAddress":
    """Return what an SMTP_URL says."""
    from service.channels.smtp_url import parse_smtp_url  # noqa: PLC0415

    return parse_smtp_url(text)


def smtp_url(text: str) -> str:
    relay(text)
    return text


def address(text: str) -> str:
    from service.addresses import mail_address  # noqa: PLC0415  # slow to import

    return mail_address(text)


def addresses(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(address(word) for word in words(text)))


def group_addresses(text: str) -> GroupAddresses:
    """Return `organisation number=mail address` pairs; a mistake is told by the entry's place and number alone.

    A number may have its country before it, and spaces, dots and hyphens inside.
    """
    found: dict[str, str] = {}
    for place, entry in enumerate(words(text), start=1):
        number, equals, mail = entry.partition("=")
        key = re.sub(r"[ .-]", "", number).upper()
        if not equals or not _ORGANIZATION.fullmatch(key):
            raise ValueError(f"entry {place} must be an organisation number, = and a mail address")
        if key in found:
            raise ValueError(f"entry {place}: {key} is there twice")
        try:
            found[key] = address(mail.strip())
        except ValueError:
            raise ValueError(f"entry {place}: what stands for {key} is not a mail address") from None
    return GroupAddresses(by_organization=tuple(found.items()))


def country(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2}", text):
        raise ValueError("must be a country in two letters, such as NO")
    return text.upper()


def mailbox(text: str) -> Mailbox:
    """Return `Name <address>` or a bare address as a value; a name may be in quotation marks."""
    found = _MAILBOX.fullmatch(text)
    if found is None:
        return Mailbox(name="", address=address(text))
    name = found["name"].strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return Mailbox(name=name, address=address(found["address"].strip()))


def redirect(text: str) -> Redirect:
    mails = [word for word in words(text) if "@" in word]
    phones = [re.sub(r"[ ()-]", "", word) for word in words(text) if "@" not in word]
    if len(mails) > 1 or len(phones) > 1 or not (mails or phones):
        raise ValueError("must be one mail address, one number, or one of each")
    if phones and not re.fullmatch(r"\+[1-9][0-9]{6,14}", phones[0]):
        raise ValueError("must hold its number as +47 and so on, and its mail address with @")
    return Redirect(email=address(mails[0]) if mails else None, phone=phones[0] if phones else None)


def logo(text: str) -> bytes:
    """Read a PNG file of at most 512 kB."""
    try:
        with Path(text).open("rb") as file:
            content = file.read(LARGEST_LOGO + 1)
    except (OSError, ValueError) as exc:
        raise ValueError(f"is a file that cannot be read ({type(exc).__name__})") from None
    if len(content) > LARGEST_LOGO:
        raise ValueError("must be a PNG file of at most 512 kB")
    picture_size(content)
    return content


def color(text: str) -> str:
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
        raise ValueError("must be a colour written as #rrggbb")
    return text.lower()


def key_bytes(text: str) -> bytes:
    """Return the 32 bytes that a key in base64 (either alphabet, padded or not) or in hex digits stands for."""
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return bytes.fromhex(text)
    if re.fullmatch(r"[A-Za-z0-9+/_-]{43}=?", text):
        return base64.urlsafe_b64decode(text.rstrip("=").replace("+", "-").replace("/", "_") + "=")
    raise ValueError("must be 32 random bytes in base64 or hex, as `openssl rand -base64 32` makes them")


def key(text: str) -> str:
    key_bytes(text)
    return text


def link_store(text: str) -> str:
    if text == "database" or not re.match(r"[A-Za-z0-9+.-]+:", text):
        return text
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9._/-]*)?", text):
        raise ValueError("must be `database`, a folder, or s3://bucket/prefix")
    if importlib.util.find_spec("obstore") is None:
        raise ValueError("needs the extra s3: pip install 'merchant-delivery[s3]'")
    return text


def file(text: str) -> Path:
    if not Path(text).is_file():
        raise ValueError("must be a file that exists")
    return Path(text)


def folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise ValueError("must be a folder that exists")
    return Path(text)


def locale(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,3}", text):
        raise ValueError("must be a language such as nb or en")
    return text


def zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder, as in "Europe"
        raise ValueError("must be a time zone known to this machine, such as Europe/Oslo") from None


def host(text: str) -> str:
    if re.search(r"[\s/@]", text):
        raise ValueError("must be a host name or an IP address")
    return text
