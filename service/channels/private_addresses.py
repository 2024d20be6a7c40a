"""Where a name leads, and whether that is out on the Internet: what a URL of the merchant's may reach, and what not."""

import asyncio
import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

_MOST = 4  # addresses of one name that are tried
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL = ipaddress.IPv6Network("2000::/3")  # all of IPv6 that is handed out; beside it, Python calls much global


class NotPublic(Exception):
    """A name leads to an address that is private, link-local, loopback or otherwise not out on the Internet."""


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the Internet's; one in another's clothes (mapped, NAT64, 6to4) counts as it.

    Raises `ValueError` for what is no IP address.
    """
    found = _undressed(ipaddress.ip_address(address.partition("%")[0]))
    if isinstance(found, IPv6Address) and found not in _GLOBAL:
        return False
    return found.is_global and not found.is_multicast


def _undressed(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


async def addresses_of(host: str, port: int, *, allow_private: bool) -> tuple[str, ...]:
    """Return the IP addresses of a host, in the order to be tried: connect to these, and ask for the name no more.

    One that is not public spoils them all, for who answers so may answer otherwise the next time. Raises `NotPublic`,
    and `OSError` when there is none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:  # a label that is empty or too long: Python looks before the resolver does
        raise OSError("it is no host name") from exc
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private and not all(map(is_public, addresses)):
        raise NotPublic
    return addresses[:_MOST]
