"""The composition root: settings go in, a running server comes out. What takes long is begun before, by `beginning`."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog
import uvicorn
from starlette.types import ASGIApp

from portoser import __version__, memory
from portoser.admission import Admission
from portoser.api import build_api
from portoser.api.metrics import Metrics
from portoser.api.services import Services
from portoser.audit.queries import AuditLog
from portoser.audit.replica import replica_name
from portoser.audit.writer import AuditWriter
from portoser.banner import banner
from portoser.beginning import BACKLOG, Beginning
from portoser.catalog.errors import PortoserError
from portoser.connections import IDLE_SECONDS, Connection
from portoser.housekeeping import keep_house
from portoser.identity.authenticate import Authenticator
from portoser.identity.middleware import IdentityMiddleware
from portoser.identity.tokens import TokenFile
from portoser.invocation import Invocation
from portoser.invocation.nonces import SharedNonces
from portoser.mcp.guard import LOOPBACK_HOSTS, HostOriginGuard
from portoser.mcp.server import McpServer, build_mcp
from portoser.powers import room
from portoser.powers.host import Powers
from portoser.powers.registry import problems_of
from portoser.progress import AdmissionProgress
from portoser.registry.access import Access
from portoser.registry.changes import RegistryWriter
from portoser.registry.code import CodeCache
from portoser.registry.follower import Follower
from portoser.registry.locks import RegistryLocks, new_locks
from portoser.runtime.environments.environments import Environments
from portoser.runtime.environments.uv import Uv
from portoser.settings import Settings
from portoser.store.database import Database
from portoser.store.embedded import SERVER_ROLE, Begun, EmbeddedPostgres
from portoser.store.migrate import migrate
from portoser.store.roles import role_beside, too_mighty
from sync.reconciler import Reconciler
from sync.sources.worktree import Worktree

log = structlog.get_logger(__name__)

SOURCE = "main"
"""The name of the one source; its tools belong to ``git:main``."""

SHUTDOWN_SECONDS = 5
"""How long open requests may take to end once the process is told to stop."""

CALLS_SECONDS = 4
"""How long calls may go on then: they are ended before their requests are, which so still get an answer."""

WARM_UP_SECONDS = 1
"""How long after the start what is not needed at once is started: whoever waited for the server comes first."""


class Built(NamedTuple):
    """A server that is built and whose parts run: what answers requests, and what there is to ask about it."""

    asgi: ASGIApp
    services: Services
    mcp: McpServer
    embedded: EmbeddedPostgres | None


@asynccontextmanager
async def build(settings: Settings, beginning: Beginning, *, replica: str) -> AsyncIterator[Built]:
    """Build everything in the order of need, and end it in the reverse one.

    ``beginning`` is what has been begun of it; ``replica`` names this process.

    Raises:
        PortoserError: something that is needed cannot be had; the message says what, and what to do.
    """
    async with AsyncExitStack() as stack:
        database, embedded = await _database(settings, beginning.postgres, stack)
        role_warning = None if embedded is not None else await _role_warning(database)
        follower = Follower(database, enabled_groups=frozenset(settings.groups))
        await follower.start()
        access = Access(frozenset(settings.admin_groups))
        writer = RegistryWriter(database, authority=f"git:{SOURCE}")
        code = CodeCache(database)

        # Before the runtime, so that it ends after it: calls that end with the server are still recorded.
        audit_writer = AuditWriter(database, replica=replica)
        await audit_writer.start()
        stack.push_async_callback(audit_writer.aclose)

        runtime = beginning.runtime
        stack.push_async_callback(runtime.aclose)  # before: a start that fails leaves processes, too
        await runtime.start()

        metrics = Metrics()
        powers = Powers(room.powers(registry=settings.registry_path), observe=metrics.observe_power)
        stack.push_async_callback(powers.aclose)
        invocation = Invocation(
            follower,
            access,
            code,
            runtime,
            powers,
            audit_writer,
            SharedNonces(database),
            answer_seconds=settings.answer_timeout,
            observe=metrics.observe_call,
        )
        environments = Environments(
            beginning.folders,
            RegistryLocks(database),
            Uv(beginning.folders.root / "cache"),
            in_use=lambda: runtime.environments,
        )
        stack.push_async_callback(environments.aclose)
        follower.on_swap(lambda old, new: environments.want_served(new_locks(old, new)))
        admission = Admission(database, runtime, environments=environments)
        reconciler = Reconciler(
            source=Worktree(settings.tools, name=SOURCE),
            admission=admission,
            writer=writer,
            follower=follower,
            database=database,
            on_progress=stack.enter_context(AdmissionProgress()),
        )
        tokens = TokenFile(settings.tokens) if settings.tokens is not None else None
        services = Services(
            version=__version__,
            started_at=datetime.now(UTC),
            public_url=settings.public_url,
            embedded_database=settings.database_url is None,
            role_warning=role_warning,
            registry=settings.registry_path,
            repository=str(settings.tools),
            database=database,
            follower=follower,
            access=access,
            writer=writer,
            code=code,
            admission=admission,
            invocation=invocation,
            audit=AuditLog(database),
            audit_writer=audit_writer,
            runtime=runtime,
            environments=environments,
            reconciler=reconciler,
            tokens=tokens,
            metrics=metrics,
        )
        mcp = build_mcp(follower, access, invocation, tokens=tokens)
        await stack.enter_async_context(mcp.lifespan())
        api = build_api(services)
        api.router.routes[:0] = mcp.routes  # first: calls are many, and each passes the routes before its own
        authenticator = Authenticator(tokens, settings.trusted_proxies)
        identified = IdentityMiddleware(api, authenticator, on_failure=audit_writer.note)
        guarded = HostOriginGuard(
            identified, allowed_hosts=_allowed_hosts(settings), allowed_origins=settings.allowed_origins
        )
        yield Built(guarded, services, mcp, embedded)


async def _database(
    settings: Settings, begun: Begun | None, stack: AsyncExitStack
) -> tuple[Database, EmbeddedPostgres | None]:
    """The registry's database, migrated; the embedded one, which is told too, where no other is named."""
    embedded = None
    if settings.database_url is not None:
        dsn = settings.database_url.get_secret_value()
        if settings.migrations_url is None:
            await migrate(dsn, server_role=None)
        else:
            owner = settings.migrations_url.get_secret_value()
            await migrate(owner, server_role=await role_beside(dsn, owner))
    elif begun is None:
        raise RuntimeError("No database was begun.")
    else:
        embedded = await EmbeddedPostgres.of(begun)
        stack.push_async_callback(embedded.stop)
        await migrate(embedded.owner_dsn, server_role=SERVER_ROLE)
        dsn = embedded.server_dsn
    database = await Database.connect(dsn)
    stack.push_async_callback(database.close)
    return database, embedded


async def _role_warning(database: Database) -> str | None:
    async with database.acquire() as connection:
        warning = await too_mighty(connection)
    if warning is not None:
        log.warning("database_role", told=warning)
    return warning


def _allowed_hosts(settings: Settings) -> list[str]:
    """The hosts that requests may name: this machine's, the one listened on, the public one, the configured ones."""
    hosts = [*LOOPBACK_HOSTS, *settings.allowed_hosts]
    if settings.public_url is not None:
        hosts.append(urlsplit(settings.public_url).hostname or "")
    if settings.host in {"0.0.0.0", "::"}:  # noqa: S104 - compared with, not bound to
        hosts += [socket.gethostname()]
    else:
        hosts.append(settings.host)
    return hosts


def serve(settings: Settings, sock: socket.socket, beginning: Beginning) -> None:
    """Run the server on a bound socket until it is told to stop (SIGTERM, SIGINT).

    Raises:
        PortoserError: it cannot start, or a part of it that it cannot go on without has failed.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, sock, beginning))
    except* PortoserError as group:
        raise _first(group) from None


async def _serve(settings: Settings, sock: socket.socket, beginning: Beginning) -> None:
    port = sock.getsockname()[1]
    replica = replica_name(settings.data_path, socket.gethostname(), port)
    url = settings.public_url or f"http://{_shown_host(settings.host)}:{port}"
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with build(settings, beginning, replica=replica) as built, asyncio.TaskGroup() as tasks:
        memory.set_aside()
        background = [
            tasks.create_task(built.services.follower.run(), name="follower"),
            tasks.create_task(built.services.reconciler.run(), name="reconciler"),
            tasks.create_task(built.services.audit_writer.keep_lease(), name="lease"),
            tasks.create_task(keep_house(built.services.writer), name="housekeeping"),
            tasks.create_task(built.services.environments.run(), name="environments"),
            tasks.create_task(_settle_down(built.services), name="settle-down"),
            tasks.create_task(memory.keep_giving_back(), name="memory"),
        ]
        if built.embedded is not None:
            background.append(tasks.create_task(built.embedded.keep_running(), name="postgres"))
        server = _Server(
            uvicorn.Config(
                built.asgi,
                http=Connection,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                timeout_keep_alive=IDLE_SECONDS,
                backlog=BACKLOG,
            )
        )
        serving = tasks.create_task(server.serve(sockets=[sock]), name="http")
        told = tasks.create_task(_tell(settings, built, url), name="banner")
        await stop.wait()
        log.info("stopping")
        # The streams first: a server that waits for its open connections would wait for them for ever.
        built.mcp.drain()
        server.should_exit = True
        await asyncio.wait([serving], timeout=CALLS_SECONDS)
        built.services.runtime.stop_calls()
        await serving
        for task in (told, *background):
            task.cancel()


async def _tell(settings: Settings, built: Built, url: str) -> None:
    """Say where the server is, once the folder was read for the first time."""
    await built.services.reconciler.first_run()
    registry_problems = await asyncio.to_thread(problems_of, settings.registry_path)
    for problem in registry_problems:
        log.warning("registry_problem", told=problem)
    print(banner(settings, built.services, url, registry_problems), flush=True)  # noqa: T201 - for whoever started it


async def _settle_down(services: Services) -> None:
    """Once the start is over, give back the memory that it alone needed, and start what was not needed for it."""
    await services.reconciler.compared()
    memory.set_aside()
    memory.give_back()
    await asyncio.sleep(WARM_UP_SECONDS)
    await services.runtime.warm_up()


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: the process has more to end than its connections."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _shown_host(host: str) -> str:
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared with, not bound to
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"[{host}]" if ":" in host else host


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.Loop


def _first(group: BaseExceptionGroup[PortoserError]) -> PortoserError:
    """The first of what went wrong; a part that fails takes the others with it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, PortoserError)  # noqa: S101 - what `except*` promises
    return error
