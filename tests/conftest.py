"""What every room's tests may ask for: a real Postgres, and a fresh, migrated database in it."""

import asyncio
import logging
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, settings

from portoser.store.database import Database
from portoser.store.embedded import SERVER_ROLE, EmbeddedPostgres
from portoser.store.migrate import migrate

# A busy machine is no fault of the code: time is measured in benchmarks/, never asserted here.
settings.register_profile("portoser", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("portoser")


class Dsns(msgspec.Struct, frozen=True):
    """How to reach one database: as the owner of its tables, and as the server does."""

    owner: str
    server: str
    admin: str


class TestPostgres(msgspec.Struct, frozen=True):
    """An embedded Postgres for a session of tests, with a migrated database to copy."""

    __test__ = False
    embedded: EmbeddedPostgres
    template: str

    def dsns(self, database: str) -> Dsns:
        return Dsns(
            *(
                _other_database(dsn, database)
                for dsn in (self.embedded.owner_dsn, self.embedded.server_dsn, self.embedded.admin_dsn)
            )
        )

    async def admin(self, statement: str) -> None:
        connection = await asyncpg.connect(self.embedded.admin_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def _other_database(dsn: str, database: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


@pytest.fixture(autouse=True)
def logging_of_its_own() -> Iterator[None]:
    """What is logged goes to pytest: not to what a command prints, nor where one set it up to go in a test before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestPostgres]:
    """One Postgres for the session (for each worker of xdist). Not under pytest's own folder, which is closed to
    the user whom Postgres runs as when the tests run as root."""
    data = Path(tempfile.mkdtemp(prefix="portoser-test-"))
    embedded = asyncio.run(EmbeddedPostgres.start(data, settings={"fsync": "off", "max_connections": "200"}))
    try:
        server = TestPostgres(embedded, "migrated")
        asyncio.run(_make_template(server))
        yield server
    finally:
        asyncio.run(embedded.stop())
        shutil.rmtree(data, ignore_errors=True)


async def _make_template(server: TestPostgres) -> None:
    await server.admin(f"CREATE DATABASE {server.template} OWNER portoser_owner")
    await migrate(server.dsns(server.template).owner, server_role=SERVER_ROLE)


@pytest.fixture
async def dsns(postgres: TestPostgres) -> AsyncIterator[Dsns]:
    """A fresh database, migrated by its owner, for this test alone."""
    name = f"test_{uuid.uuid4().hex}"
    await postgres.admin(f"CREATE DATABASE {name} TEMPLATE {postgres.template} OWNER portoser_owner")
    yield postgres.dsns(name)
    await postgres.admin(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty_dsns(postgres: TestPostgres) -> AsyncIterator[Dsns]:
    """A fresh database without any table."""
    name = f"test_{uuid.uuid4().hex}"
    await postgres.admin(f"CREATE DATABASE {name} OWNER portoser_owner")
    yield postgres.dsns(name)
    await postgres.admin(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(dsns: Dsns) -> AsyncIterator[Database]:
    """A fresh, migrated database, connected to as the server's plain role."""
    connected = await Database.connect(dsns.server)
    yield connected
    await connected.close()
