"""Where a name leads, and whether that is out on the Internet: what a URL of the merchant's may reach, and what not."""

import asyncio
import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

_MOST = 4  # addresses of one name that are tried
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


class NotPublic(Exception):
    """A name leads to an address that is private, link-local, loopback or otherwise not out on the Internet."""


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the Internet's; one in another's clothes (mapped, NAT64, 6to4) counts as it.

    Raises `ValueError` for what is no IP address.
    """
    found = _undressed(ipaddress.ip_address(address.partition("%")[0]))
    return found.is_global and not found.is_multicast


def _undressed(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and (address in _NAT64 or (address in _COMPATIBLE and int(address) > 1)):
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


async def addresses_of(host: str, port: int, *, allow_private: bool) -> tuple[str, ...]:
    """Return the IP addresses of a host, in the order to be tried: connect to these, and ask for the name no more.

    One that is not public spoils them all, for who answers so may answer otherwise the next time. Raises `NotPublic`,
    and `OSError` when there is none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private and not all(map(is_public, addresses)):
        raise NotPublic
    return addresses[:_MOST]
