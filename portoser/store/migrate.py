"""Brings a database to the tables that this code knows, once, however many servers start at a time."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from portoser.catalog.errors import PortoserError, Unavailable
from portoser.store.database import AWAY, away, plain_dsn

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

log = structlog.get_logger(__name__)

HEAD = "0005"
"""The newest migration. Named here so that a start with nothing to do need not import Alembic."""

VERSION_TABLE = "mcp_schema_version"
MIGRATIONS = Path(__file__).with_name("migrations")
HEAD_SQL = MIGRATIONS / "head.sql"
"""What all migrations together do to an empty database."""

OLDEST_POSTGRES = 14

_LOCK = 0x706F72746F736572  # "portoser"

_APPEND = "SELECT, INSERT"
_ALL = "SELECT, INSERT, UPDATE, DELETE"
_PRIVILEGES = {
    "mcp_registry": "SELECT, UPDATE",
    "mcp_tools": _ALL,
    "mcp_revisions": _ALL,
    "mcp_revision_files": _ALL,
    "mcp_tool_versions": _APPEND,
    "mcp_groups": _ALL,
    "mcp_policy": _ALL,
    "mcp_sources": _ALL,
    "mcp_sync_runs": _ALL,
    "mcp_admissions": _ALL,
    "mcp_locks": _ALL,
    "mcp_replicas": _ALL,
    "mcp_keys": "SELECT",
    "mcp_spent_nonces": _ALL,
    "mcp_audit_logs": _APPEND,
    "mcp_audit_intents": "SELECT, INSERT, DELETE",
    VERSION_TABLE: "SELECT",
}
"""What the server's role may do with each table; nothing else."""


async def migrate(owner_dsn: str, *, server_role: str | None) -> None:
    """Run the migrations that are missing, as one transaction under an advisory lock.

    ``owner_dsn`` is of the role that owns the tables. ``server_role`` is the plain role that the server
    connects with; it is granted what it needs. None, or the owner itself, is granted nothing.

    Raises:
        Unavailable: Postgres does not answer.
        PortoserError: Postgres is too old, the tables are not Portoser's or newer than this code, or a privilege
            is missing.
    """
    dsn = plain_dsn(owner_dsn)
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
    except AWAY as error:
        raise away(error) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise PortoserError(f"The database refuses the connection: {error}. Check DATABASE_URL.") from error
    try:
        # The lock belongs to this session, and is given back when it ends.
        await connection.execute("SELECT pg_advisory_lock($1::bigint)", _LOCK, timeout=120)
        standing = await _standing(connection)
        if standing != HEAD:
            await (_make(connection) if standing is None else _upgrade(dsn))
            log.info("postgres.migrated", to=HEAD)
        if server_role is not None:
            await _grant(connection, server_role)
    except TimeoutError as error:
        raise Unavailable("Another server holds the lock of the migrations for two minutes already.") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise PortoserError(
            f"This role may not make or change Portoser's tables: {error}. Name the owner of the database in "
            "PORTOSER_MIGRATIONS_URL, or in DATABASE_URL where that is not set."
        ) from error
    except AWAY as error:
        raise away(error) from error
    finally:
        await connection.close(timeout=5)


async def _standing(connection: asyncpg.Connection) -> str | None:
    """The migration that the database stands at; None for a database without our tables."""
    if connection.get_server_version().major < OLDEST_POSTGRES:
        version = connection.get_server_version()
        raise PortoserError(f"Portoser needs Postgres {OLDEST_POSTGRES} or newer; this is {version.major}.")
    if await connection.fetchval("SELECT to_regclass($1)::text", VERSION_TABLE) is None:
        taken = await connection.fetch(
            "SELECT name FROM unnest($1::text[]) name WHERE to_regclass(name) IS NOT NULL", list(_PRIVILEGES)
        )
        if taken:
            names = ", ".join(record["name"] for record in taken)
            raise PortoserError(f"The database holds tables that Portoser did not make ({names}). Use another one.")
        return None
    version = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 (a constant)
    if version is None or version == HEAD:
        return version  # type: ignore[no-any-return]
    if version not in known_migrations():
        raise PortoserError(
            f"The database was made by a newer Portoser (its tables are {version}, this code knows {HEAD}). "
            "Upgrade Portoser, or use another database."
        )
    return str(version)


async def _make(connection: asyncpg.Connection) -> None:
    """Make the tables of an empty database as all migrations together do. Importing Alembic alone takes longer."""
    async with connection.transaction():
        await connection.execute(HEAD_SQL.read_text(encoding="utf-8"))


def as_sql() -> str:
    """All migrations as text, as `HEAD_SQL` holds it: ``python -m portoser.store.migrate`` writes it."""
    from alembic import command

    output = io.StringIO()
    config = alembic_config()
    config.output_buffer = output
    command.upgrade(config, "head", sql=True)
    return output.getvalue()


def alembic_config() -> "Config":
    """Alembic's configuration; the caller adds the connection to its attributes."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["version_table"] = VERSION_TABLE
    return config


def known_migrations() -> list[str]:
    """The names of all migrations that this code has, newest first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()]


async def _upgrade(dsn: str) -> None:
    from alembic import command
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def connect() -> Any:
        return await asyncpg.connect(dsn, timeout=10)

    def upgrade(connection: "Connection") -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    except DBAPIError as error:  # wraps asyncpg's own error twice; that one says what happened
        cause = error.orig.__cause__ if error.orig is not None else None
        raise (cause or error) from error
    finally:
        await engine.dispose()


async def _grant(connection: asyncpg.Connection, role: str) -> None:
    found = await connection.fetchrow(
        "SELECT current_user = $1 AS is_owner, EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1) AS exists", role
    )
    if found is None or not found["exists"]:
        raise PortoserError(f"The database has no role {role!r} for the server to connect with. Make it first.")
    if found["is_owner"]:
        return
    quoted = '"' + role.replace('"', '""') + '"'
    statements = [f"REVOKE ALL ON {table} FROM {quoted}" for table in _PRIVILEGES]
    statements += [f"GRANT {privileges} ON {table} TO {quoted}" for table, privileges in _PRIVILEGES.items()]
    schema = await connection.fetchval("SELECT quote_ident(current_schema())")
    statements.append(f"GRANT USAGE ON SCHEMA {schema} TO {quoted}")
    async with connection.transaction():
        await connection.execute("; ".join(statements))


if __name__ == "__main__":
    HEAD_SQL.write_text(as_sql(), encoding="utf-8")
