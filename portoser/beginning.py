"""What a start does first: take the port, and begin what takes time outside of this process.

More than half of a start is importing the rest of Portoser. Postgres and the zygote come up beside that, on
another processor, so this imports little.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from portoser.catalog.errors import PortoserError
from portoser.runtime.environments.folders import Folders
from portoser.runtime.runtime import Runtime
from portoser.settings import Settings
from portoser.store.embedded import Begun, is_made

BACKLOG = 2048

UNREAD_SECONDS: Final = 600.0
"""How long a client may leave what waits for it unread, before the kernel ends the connection.

Long enough for an honest one that pauses: somebody reads page by page, or a debugger holds it.
"""


class Beginning(NamedTuple):
    """A runtime whose zygote is on its way, the folders of packages that it runs tools with, and the embedded Postgres.

    ``postgres`` is None where `DATABASE_URL` names another.
    """

    runtime: Runtime
    folders: Folders
    postgres: Begun | None


@contextmanager
def begin(settings: Settings) -> Iterator[Beginning]:
    """Begin, and stop at the end what nobody went on with.

    Raises:
        PortoserError: tools may not be run as the settings are, or no process can be started.
    """
    folders = Folders(settings.data_path / "environments")
    runtime = Runtime(
        workers=settings.workers,
        scratch=settings.data_path / "scratch",
        sandbox=settings.sandbox.value,
        folders=folders,
        ceilings=settings.ceilings,
    )
    embedded = settings.database_url is None
    postgres = None
    try:
        runtime.begin(describing=embedded and not is_made(settings.data_path))
        postgres = Begun(settings.data_path, {}) if embedded else None
        yield Beginning(runtime, folders, postgres)
    finally:
        try:
            runtime.abandon()
        finally:
            if postgres is not None:
                postgres.abandon()


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The socket that is served, bound before anything is started, so that a taken port costs nothing.

    Raises:
        PortoserError: the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end_unread(sock)
        sock.bind((settings.host, settings.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise PortoserError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror or error}. "
            "Stop what listens there, or choose another port with --port (0 takes any that is free)."
        ) from None
    with sock:
        yield sock


def end_unread(listener: socket.socket) -> None:
    """Have the kernel end connections whose clients do not read, where it can. They take it from ``listener``."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        with suppress(OSError):
            listener.setsockopt(socket.IPPROTO_TCP, option, int(UNREAD_SECONDS * 1000))
