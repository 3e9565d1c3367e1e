"""How a zygote begins: confined, before it imports what it and its workers need.

It is run as ``python -I -c "…run(…)"``. What is imported up to here weighs little: the first process of the workers'
namespace is a copy of it.
"""

import signal
import socket
import sys
from typing import Literal

import msgspec

from portoser.runtime import confine
from portoser.runtime.isolation.enclosure import Enclosure, Orders, Refused


def run(kind: Literal["call", "describe"], server: int, control: int, orders: str) -> None:
    """Run a zygote. ``server`` is the process that must not be outlived, ``control`` the socket's descriptor.

    ``orders`` are ``Orders`` in JSON.
    """
    confine.die_with_parent(server, signal.SIGTERM)
    confine.set_process_name(f"portoser-{kind}")
    confine.adopt_orphans()
    sys.argv, sys.orig_argv = [""], [""]  # they speak of the server, and tools could read them
    ours = msgspec.json.decode(orders, type=Orders)
    enclosure = Enclosure(ours)
    sock = socket.socket(fileno=control)
    try:
        enclosure.enter()
    except (OSError, Refused) as error:
        from portoser.runtime.protocol import Unfit

        message = str(error) if isinstance(error, Refused) else f"Tools cannot be isolated: {error}."
        sock.send(msgspec.msgpack.encode(Unfit(message)))
        sys.exit(1)

    from portoser.runtime.zygote import serve

    serve(kind, sock, enclosure, ours.packages)
