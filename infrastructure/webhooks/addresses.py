"""Which addresses a delivery may be sent to.

A merchant's URL leads where its owner wants, today here and tomorrow there. So what is checked is not
the name but the address that a connection is about to be made to, at every connection.
"""

import socket
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

Network = IPv4Network | IPv6Network
AddressInfo = tuple[Any, ...]
SocketFactory = Callable[[AddressInfo], socket.socket]


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(each) for each in texts)


# Ours or somebody else's own: where receivers are while one develops, and never in production.
LOCAL: Final = _networks(
    *("127.0.0.0/8", "::1/128"),
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
)
# No receiver is there, ever: what a cloud tells its machines, whole networks, nobody, examples.
NEVER: Final = _networks(
    *("0.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24"),
    *("192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::/32"),
    *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
)
# All that is routed: what only wraps an address of the older kind is outside.
ROUTED: Final = ip_network("2000::/3")


class AddressRefused(OSError):
    """A receiver's name led to an address that nothing is sent to."""


@lru_cache(maxsize=4096)
def is_allowed(text: str, *, allows_local: bool) -> bool:
    """Whether a delivery may be sent to this address. `allows_local`: outside production."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if any(address in network for network in NEVER):
        return False
    if any(address in network for network in LOCAL):
        return allows_local
    return isinstance(address, IPv4Address) or address in ROUTED


def guarded(*, allows_local: bool) -> SocketFactory:
    """Makes the sockets of connections, to allowed addresses only. Raises AddressRefused."""

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), allows_local=allows_local):
            raise AddressRefused("the address is not allowed")
        return socket.socket(family=family, type=kind, proto=protocol)

    return make
