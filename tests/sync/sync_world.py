"""A real git repository with a `tools.d`, and a reconciler over it, with the real registry and the real runtime."""

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from portoser.admission import Admission
from portoser.catalog.revision import Declaration
from portoser.catalog.tool import RegisteredTool
from portoser.registry.changes import RegistryWriter
from portoser.registry.follower import Follower
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Description
from portoser.store.database import Database
from sync.reconciler import Reconciler
from sync.sources.worktree import Worktree

DEADLINE = 20.0


class Repo:
    """A git repository in a folder of its own, with `tools.d` in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tools = home / "tools.d"

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "gc.auto=0", *arguments]
        done = subprocess.run(command, cwd=self.home, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def write(self, path: str, text: str) -> Path:
        whole = self.tools / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text)
        return whole

    def tool(self, name: str, answer: str = "1", **fields: str) -> None:
        """A tool of one function that answers with an expression."""
        lines = "".join(f"{key}: {value}\n" for key, value in fields.items())
        function = name.rsplit("/", 1)[-1]
        self.write(f"{name}.py", f"def {function}() -> int:\n    return {answer}\n")
        self.write(f"{name}.yaml", f"kind: Tool\n{lines}")

    def commit(self, message: str = "Change tools") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.tools.mkdir(parents=True)
    made.git("init", "-q", "-b", "main")
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """One for a module, whose tests share a loop: to start the describing workers takes seconds."""
    made = Runtime(workers=2, scratch=tmp_path_factory.mktemp("scratch"), spares=0)
    await made.start()
    yield made
    await made.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def registry(postgres: Any) -> AsyncIterator[Database]:
    """A fresh database, as `database`, for tests that share a loop."""
    name = f"test_{uuid.uuid4().hex}"
    await postgres.admin(f"CREATE DATABASE {name} TEMPLATE {postgres.template} OWNER portoser_owner")
    made = await Database.connect(postgres.dsns(name).server)
    yield made
    await made.close()
    await postgres.admin(f"DROP DATABASE {name} WITH (FORCE)")


class World:
    """A reconciler at work, and what a user sees of it."""

    def __init__(
        self, repo: Repo, reconciler: Reconciler, follower: Follower, writer: RegistryWriter, database: Database
    ) -> None:
        self.repo = repo
        self.reconciler = reconciler
        self.follower = follower
        self.writer = writer
        self.database = database

    def tool(self, name: str) -> RegisteredTool | None:
        served = self.follower.snapshot.tools.get(name)
        return served.registered if served is not None else None

    @property
    def names(self) -> list[str]:
        return sorted(self.follower.snapshot.tools)

    async def until(self, holds: Callable[[], Any], what: str = "it") -> Any:
        """Wait for a condition, with a deadline."""
        return await until(holds, lambda: f"{what}: {self.reconciler.status} {self.names}")

    async def rows(self, query: str) -> list[dict[str, Any]]:
        async with self.database.acquire() as connection:
            return [dict(record) for record in await connection.fetch(query)]


async def until(holds: Callable[[], Any], told: Callable[[], str]) -> Any:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE
    while True:
        value = holds()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"not within {DEADLINE:g} s: {told()}")
        await asyncio.sleep(0.01)


@asynccontextmanager
async def reconciling(repo: Repo, database: Database, runtime: Any, **options: Any) -> AsyncIterator[World]:
    """A reconciler over a repository, running."""
    follower = Follower(database)
    await follower.start()
    writer = RegistryWriter(database)
    reconciler = Reconciler(
        source=Worktree(repo.tools, poll=0.5),
        admission=Admission(database, runtime),
        writer=writer,
        follower=follower,
        database=database,
        **options,
    )
    tasks = [asyncio.create_task(follower.run()), asyncio.create_task(reconciler.run())]
    try:
        yield World(repo, reconciler, follower, writer, database)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error


@pytest_asyncio.fixture(loop_scope="module")
async def world(repo: Repo, registry: Database, runtime: Runtime) -> AsyncIterator[Callable[..., Any]]:
    """Start a reconciler over `repo`; several may be started."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> World:
            made = await stack.enter_async_context(reconciling(repo, registry, runtime, **options))
            await asyncio.wait_for(made.reconciler.first_run(), DEADLINE)
            return made

        yield start


class StandIn:
    """Describes everything alike; hangs on code that says so, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.hanging = asyncio.Event()
        self.failures: list[Exception] = []
        self.cancelled = 0

    async def describe(self, declaration: Declaration, *, environment: str | None = None) -> Description:
        if self.failures:
            raise self.failures.pop()
        if "hang" in declaration.files[0].content:
            self.hanging.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return Description(description="d", input_schema={"type": "object", "properties": {}})

    async def execute(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
async def start(repo: Repo, database: Any, stand_in: StandIn) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def started(**options: Any) -> World:
            return await stack.enter_async_context(reconciling(repo, database, stand_in, **options))

        yield started
