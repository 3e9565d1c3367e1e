"""Attacks over sockets of every family."""

import array
import os
import select
import socket
from typing import Any

from trying import Tries


def tcp(target: dict[str, Any]) -> dict[str, Any]:
    """Connects by TCP: to the server itself, to this machine, to the internet and to the cloud's metadata."""
    tries = Tries()
    for address in (("127.0.0.1", target["port"]), ("::1", target["port"]), ("127.0.0.1", 22), ("169.254.169.254", 80)):
        tries(f"{address}", _connected, socket.AF_INET6 if ":" in address[0] else socket.AF_INET, address)
    tries("create_connection", lambda: socket.create_connection(("127.0.0.1", target["port"]), 1).fileno() > 0)
    return tries.told()


def _connected(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> bool:
    with socket.socket(family, kind) as made:
        made.settimeout(0.3)
        made.connect(address)
        return True


def udp(target: dict[str, Any]) -> dict[str, Any]:
    """Sends datagrams."""
    tries = Tries()
    for address in (("127.0.0.1", target["udp_port"]), ("1.1.1.1", 53), ("255.255.255.255", 9)):
        tries(f"{address}", _sent, socket.AF_INET, address)
    tries("::1", _sent, socket.AF_INET6, ("::1", 9))
    return tries.told()


def _sent(family: int, address: Any) -> int:
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        return made.sendto(b"attack", address)


def listens(target: dict[str, Any]) -> dict[str, Any]:
    """Listens for connections of others."""
    tries = Tries()
    tries("server", lambda: socket.create_server(("127.0.0.1", 0)).fileno() > 0)
    tries("all", lambda: socket.create_server(("0.0.0.0", 0)).fileno() > 0)
    tries("unix", _bound, "listening")
    tries("abstract", _bound, f"\0{target['marker']}")
    return tries.told()


def _bound(name: str) -> bool:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(name)
        made.listen()
        return True


def names(target: dict[str, Any]) -> dict[str, Any]:
    """Asks for names, whose questions would carry what it knows to the outside.

    real: no
    """
    tries = Tries()
    tries("getaddrinfo", socket.getaddrinfo, "example.com", 80)
    tries("gethostbyname", socket.gethostbyname, f"{target['marker']}.example.com")
    return tries.told()


def every_family(target: dict[str, Any]) -> dict[str, Any]:
    """Makes a socket of each family and kind that Linux knows: raw, packet, netlink, vsock, bluetooth, alg, and so on."""
    tries = Tries()
    for family in range(1, 47):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            tries(f"family {family}, kind {kind}", lambda f=family, k=kind: socket.socket(f, k).close())
    tries("packet", lambda: socket.socket(17, socket.SOCK_RAW, 0x0300).close())
    tries("icmp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).close())
    tries("routes", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close())
    return tries.told()


def database(target: dict[str, Any]) -> dict[str, Any]:
    """Connects to the database's socket."""
    tries = Tries()
    tries("stream", _connected, socket.AF_UNIX, target["socket"])
    tries("relative", _connected, socket.AF_UNIX, os.path.relpath(target["socket"]))
    tries("by proc", _connected, socket.AF_UNIX, f"/proc/{target['server']}/root{target['socket']}")
    tries("abstract", _connected, socket.AF_UNIX, f"\0{target['socket']}")
    for port in (5432, 5433):
        tries(f"port {port}", _connected, socket.AF_INET, ("127.0.0.1", port))
    return tries.told()


def unix_sockets(target: dict[str, Any]) -> dict[str, Any]:
    """Connects to Unix sockets that anybody may: by path, abstract, streams and datagrams."""
    tries = Tries()
    for name in (target["unix_stream"], target["abstract_stream"]):
        tries(f"stream {name!r}", _connected, socket.AF_UNIX, name)
    for name in (target["unix_datagram"], target["abstract_datagram"]):
        tries(f"datagram {name!r}", _sent, socket.AF_UNIX, name)
    for name in ("/run/systemd/notify", "/var/run/docker.sock", "/dev/log", "/run/dbus/system_bus_socket"):
        tries(name, _connected, socket.AF_UNIX, name, socket.SOCK_DGRAM)
    return tries.told()


def socket_pairs(target: dict[str, Any]) -> dict[str, Any]:
    """Makes pairs of sockets, which asyncio needs, and points one of a pair at somebody else's socket."""
    tries = Tries()
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        for name in (target["unix_datagram"], target["abstract_datagram"], target["unix_stream"], target["socket"]):
            tries(f"connect {kind} {name!r}", lambda k=kind, n=name: socket.socketpair(socket.AF_UNIX, k)[0].connect(n))
            tries(f"send {kind} {name!r}", lambda k=kind, n=name: socket.socketpair(socket.AF_UNIX, k)[0].sendto(b"a", n))
        tries(f"bind {kind}", lambda k=kind: socket.socketpair(socket.AF_UNIX, k)[0].bind(f"\0{target['marker']}{k}"))
    for family in (socket.AF_INET, socket.AF_INET6, 30, 40):
        tries(f"family {family}", lambda f=family: socket.socketpair(f, socket.SOCK_STREAM))
    return tries.told()


def kept_descriptors(target: dict[str, Any]) -> dict[str, Any]:
    """Keeps more open files than it may, by sending them to itself.

    real: no
    """
    tries = Tries()
    left, right = socket.socketpair()
    left.setblocking(False)
    sent = 0

    def keep() -> bool:
        nonlocal sent
        while sent < 2000:
            left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1] * 30).tobytes())])
            sent += 30
        return True

    tries("2,000", keep)
    return tries.told()


def channel_as_a_door(target: dict[str, Any]) -> dict[str, Any]:
    """Uses the socket that leads to the server to connect elsewhere, and looks who is behind it."""
    tries = Tries()
    channel = socket.socket(fileno=os.dup(3))
    for name in (target["socket"], target["unix_stream"], target["abstract_stream"]):
        tries(f"connect {name!r}", channel.connect, name)
    tries("accept", _accepts, channel)
    tries("bind", channel.bind, f"\0{target['marker']}c")
    tries("credentials pass", lambda: channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE, 1 << 26))
    channel.detach()
    return tries.told()


def _accepts(channel: socket.socket) -> bool:
    channel.listen()
    return bool(select.select([channel], [], [], 0)[0])
