"""Places in the network, as tools ask for them and policies grant them: ``host:port``.

A pattern's host is a name, in which ``*`` stands for any characters, or an address or a network in CIDR form. Names
match names, and addresses match addresses: ``*:443`` grants no bare address. However an address is written (decimal,
octal, hexadecimal, IPv4 inside of IPv6), it is one address, and is matched as that.
"""

import ipaddress
import re
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeAlias

import msgspec

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

FORM = "api.example.com:443"

METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
"""What may be asked of a place; the actions that a rule of the policy may name for it."""

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME_PATTERN = re.compile(r"[a-z0-9_*-]{1,63}(\.[a-z0-9_*-]{1,63})*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_LONGEST_NAME = 253
_LAST_PORT = 65535


class Reach(StrEnum):
    """How far away an address is: who may be sent there."""

    PUBLIC = "public"
    PRIVATE = "private"
    """This machine, or the network around it: only where the policy means it."""
    NEVER = "never"
    """What nothing useful answers from, or what hands the machine's own credentials to whoever asks."""


_PRIVATE = (
    ("10.0.0.0/8", "a private network's"),
    ("172.16.0.0/12", "a private network's"),
    ("192.168.0.0/16", "a private network's"),
    ("127.0.0.0/8", "this machine's own (loopback)"),
    ("100.64.0.0/10", "a provider's private network's (CGNAT)"),
    ("::1/128", "this machine's own (loopback)"),
    ("fc00::/7", "a private network's"),
)
_NEVER = (
    ("169.254.0.0/16", "link-local, where clouds hand out their machines' credentials"),
    ("100.100.100.200/32", "a cloud's metadata service"),
    ("168.63.129.16/32", "a cloud's metadata service"),
    ("fd00:ec2::254/128", "a cloud's metadata service"),
    ("fd20:ce::254/128", "a cloud's metadata service"),
    ("0.0.0.0/8", "no host's"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "reserved"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/96", "no host's"),
    ("64:ff9b:1::/48", "a translator's (NAT64)"),
    ("100::/64", "for discarding"),
    ("2001::/23", "reserved (Teredo and others)"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "a tunnel's (6to4)"),
    ("3fff::/20", "for documentation"),
    ("5f00::/16", "reserved"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "reserved"),
    ("ff00::/8", "multicast"),
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL6 = ipaddress.IPv6Network("2000::/3")
_NEVER_NETWORKS = tuple((ipaddress.ip_network(network), told) for network, told in _NEVER)
_PRIVATE_NETWORKS = tuple((ipaddress.ip_network(network), told) for network, told in _PRIVATE)


def reach_of(address: Address) -> tuple[Reach, str]:
    """How far away an address is, and whose it is, in words that end ``… address``."""
    address = plain(address)
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:  # what is reached is the IPv4 host behind the translator
            return reach_of(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if int(address) >> 32 & 0xFDFF_FFFF == 0x0000_5EFE:
            return Reach.NEVER, "a tunnel's (ISATAP)"
    if address == ipaddress.IPv6Address("::1"):
        return Reach.PRIVATE, "this machine's own (loopback)"
    for network, told in _NEVER_NETWORKS:
        if address in network:
            return Reach.NEVER, told
    for network, told in _PRIVATE_NETWORKS:
        if address in network:
            return Reach.PRIVATE, told
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL6:
        return Reach.NEVER, "reserved"
    return Reach.PUBLIC, "a public"


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


class Place(msgspec.Struct, frozen=True):
    """Where a request goes: a name or an address, and a port. ``str`` gives the form in which it is asked for."""

    host: str | Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, ipaddress.IPv6Address) else self.host
        return f"{host}:{self.port}"


class PlacePattern(msgspec.Struct, frozen=True):
    """Some places. ``host`` is a pattern of names, or the addresses; ``port`` is None for any port."""

    host: str | Network
    port: int | None

    def matches(self, place: Place) -> bool:
        """Whether the place is one of them."""
        if self.port is not None and self.port != place.port:
            return False
        if isinstance(place.host, str):
            return isinstance(self.host, str) and fnmatchcase(place.host, self.host)
        return not isinstance(self.host, str) and place.host in self.host

    @property
    def is_private(self) -> bool:
        """Whether it names private addresses and nothing else."""
        host = self.host
        return not isinstance(host, str) and any(
            host.version == private.version and host.subnet_of(private)  # type: ignore[arg-type] # both are of one version
            for private, _ in _PRIVATE_NETWORKS
        )

    def covers(self, other: "PlacePattern") -> bool:
        """Whether all places of another pattern are among them, as far as their texts tell."""
        if self.port is not None and self.port != other.port:
            return False
        if isinstance(other.host, str):
            return isinstance(self.host, str) and fnmatchcase(other.host, self.host)
        if isinstance(self.host, str) or self.host.version != other.host.version:
            return False
        return other.host.subnet_of(self.host)  # type: ignore[arg-type] # both are of one version


def host_of(text: str) -> str | Address:
    """The name, in lower case, or the address that a URL's host means.

    Whatever ends in a number is an address, as browsers have it: ``2130706433``, ``0x7f.1`` and ``0177.0.0.1`` are
    127.0.0.1.

    Raises:
        ValueError: it is neither.
    """
    host = text.removesuffix(".").lower()
    if ":" in host:
        if "%" in host:
            raise ValueError(f"{text[:80]!r} names a network interface, which only this machine knows")
        try:
            return plain(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"{text[:80]!r} is not an IPv6 address") from None
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return _ipv4(host)
    if len(host) > _LONGEST_NAME or not _NAME.fullmatch(host):
        raise ValueError(f"{text[:80]!r} is not a host's name")
    return host


def _ipv4(text: str) -> ipaddress.IPv4Address:
    """An IPv4 address in any of the forms that resolvers take: one to four numbers, the last one filling the rest."""
    parts = text.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) and len(part) <= 16 for part in parts):
        raise ValueError(f"{text[:80]!r} is not an IPv4 address")
    try:
        numbers = [_number(part) for part in parts]
    except ValueError:
        raise ValueError(f"{text[:80]!r} is not an IPv4 address") from None
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (5 - len(parts)):
        raise ValueError(f"{text[:80]!r} is not an IPv4 address")
    return ipaddress.IPv4Address(last + sum(number << (8 * (3 - at)) for at, number in enumerate(first)))


def _number(text: str) -> int:
    if text[:2] in {"0x", "0X"}:
        return int(text[2:] or "0", 16)
    return int(text, 8) if len(text) > 1 and text.startswith("0") else int(text)


def place_of(text: str) -> Place:
    """Read what ``str`` of a place has written.

    Raises:
        ValueError: it is none.
    """
    host, _, port = text.rpartition(":")
    return Place(host_of(host.removeprefix("[").removesuffix("]")), int(port))


@lru_cache(maxsize=1024)
def place_pattern(text: str) -> PlacePattern:
    """Read ``host:port``; the port may be ``*``, an IPv6 address stands in brackets.

    Raises:
        ValueError: what is wrong, and what would be right.
    """
    if "//" in text or (":" in text and "/" in text.rpartition(":")[2]):
        raise ValueError(f"{text[:80]!r} is a URL; name the host and its port alone, for example {FORM}.")
    host, colon, port = text.strip().rpartition(":")
    if not colon or (host.startswith("[") and not host.endswith("]")):
        raise ValueError(
            f"{text[:80]!r} names no port; write for example {text.strip()[:80] or 'api.example.com'}:443."
        )
    if ":" in host and not host.startswith("["):
        raise ValueError(f"{text[:80]!r} is not host:port; an IPv6 address stands in brackets: [2001:db8::1]:443.")
    if port != "*" and not (port.isascii() and port.isdecimal() and 0 < int(port) <= _LAST_PORT):
        raise ValueError(f"{port[:20]!r} is not a port; ports are 1 to {_LAST_PORT}, or * for all.")
    return PlacePattern(_pattern_host(host.removeprefix("[").removesuffix("]")), None if port == "*" else int(port))


def _pattern_host(text: str) -> str | Network:
    host = text.removesuffix(".").lower()
    if not host.isascii():
        raise ValueError(f"{text[:80]!r} is not in ASCII; write the name's form that begins with xn--.")
    if "*" in host:
        if not _NAME_PATTERN.fullmatch(host):
            raise ValueError(f"{text[:80]!r} is not a pattern of names; write for example *.example.com:443.")
        return host
    try:
        found = ipaddress.ip_network(host) if "/" in host else host_of(host)
    except ValueError as error:
        raise ValueError(f"{str(error)[:200]}; write for example {FORM}, or 10.0.0.0/8:443.") from None
    if isinstance(found, str):
        return found
    network = ipaddress.ip_network(found)
    _refuse_unreachable(network, text[:80])
    return network


def _refuse_unreachable(network: Network, text: str) -> None:
    first = network.network_address
    if plain(first) != first:
        raise ValueError(f"{text!r} is IPv4 inside of IPv6; write it as IPv4.")
    reach, whose = reach_of(first)
    if reach is Reach.NEVER and any(
        network.version == never.version and network.subnet_of(never)  # type: ignore[arg-type] # both are of one version
        for never, _ in _NEVER_NETWORKS
    ):
        raise ValueError(f"{text!r} cannot be reached, whatever grants it: the address is {whose}.")
