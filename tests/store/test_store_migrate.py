"""The migrations make what the tables declare, and refuse what is not theirs."""

import asyncio

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from portoser.catalog.errors import PortoserError, Unavailable
from portoser.store.database import Database
from portoser.store.embedded import SERVER_ROLE
from portoser.store.migrate import HEAD, HEAD_SQL, VERSION_TABLE, _upgrade, as_sql, known_migrations, migrate
from portoser.store.tables import metadata


async def test_the_migrations_make_exactly_what_the_tables_declare(dsns):
    def differences(connection: Connection):
        options = {"version_table": VERSION_TABLE, "compare_server_default": True, "compare_type": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async def connect():
        return await asyncpg.connect(dsns.owner)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    assert found == []


def test_the_head_named_in_code_is_the_newest_migration():
    assert known_migrations()[0] == HEAD


def test_what_an_empty_database_is_made_of_is_all_migrations():
    """A first start does without Alembic; `python -m portoser.store.migrate` writes the file anew."""
    assert HEAD_SQL.read_text(encoding="utf-8") == as_sql()


async def test_migrations_run_one_by_one_make_the_same_database(empty_dsns, dsns):
    await _upgrade(empty_dsns.owner)
    await migrate(empty_dsns.owner, server_role=SERVER_ROLE)
    assert await made_of(empty_dsns.owner) == await made_of(dsns.owner)


async def made_of(dsn):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(
            """
            SELECT c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                pg_get_expr(d.adbin, d.adrelid), t.tgname, p.prosrc
            FROM pg_class c
            LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
            LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
            LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
            LEFT JOIN pg_proc p ON p.oid = t.tgfoid
            WHERE c.relnamespace = 'public'::regnamespace
            ORDER BY c.relname, a.attnum
            """
        )
    finally:
        await connection.close()


async def test_many_servers_may_migrate_at_once_and_again(empty_dsns):
    await asyncio.gather(*(migrate(empty_dsns.owner, server_role=SERVER_ROLE) for _ in range(4)))
    await migrate(empty_dsns.owner, server_role=SERVER_ROLE)
    database = await Database.connect(empty_dsns.server)
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT generation FROM mcp_registry") == 0
    await database.close()


async def test_a_newer_database_is_refused(dsns):
    owner = await asyncpg.connect(dsns.owner)
    await owner.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    await owner.close()
    with pytest.raises(PortoserError, match="newer Portoser"):
        await migrate(dsns.owner, server_role=SERVER_ROLE)


async def test_tables_of_somebody_else_are_refused_and_left_alone(empty_dsns):
    owner = await asyncpg.connect(empty_dsns.owner)
    await owner.execute("CREATE TABLE mcp_tools (id int)")
    with pytest.raises(PortoserError, match=r"did not make \(mcp_tools\)"):
        await migrate(empty_dsns.owner, server_role=SERVER_ROLE)
    assert await owner.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 1
    await owner.close()


async def test_an_unreachable_database_is_unavailable(tmp_path):
    with pytest.raises(Unavailable, match="not available"):
        await migrate(f"postgresql://a:b@/c?host={tmp_path}", server_role=None)


async def test_a_role_that_does_not_exist_or_may_not_make_tables_is_named(empty_dsns):
    with pytest.raises(PortoserError, match="no role 'nobody-here'"):
        await migrate(empty_dsns.owner, server_role="nobody-here")


async def test_a_wrong_password_is_a_clear_error(empty_dsns):
    with pytest.raises(PortoserError, match="Check DATABASE_URL"):
        await migrate(empty_dsns.owner.replace("portoser_owner:", "portoser_owner:x"), server_role=None)


async def test_a_role_that_owns_nothing_cannot_migrate(empty_dsns):
    with pytest.raises(PortoserError, match="owner of the database"):
        await migrate(empty_dsns.server, server_role=None)


@pytest.mark.parametrize(
    "statement", ["UPDATE mcp_audit_logs SET tool = 'x'", "DELETE FROM mcp_audit_logs", "TRUNCATE mcp_audit_logs"]
)
async def test_nobody_changes_the_audit_log(dsns, database, statement):
    async with database.acquire() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await connection.execute(statement)
    for dsn in (dsns.owner, dsns.admin):
        owner = await asyncpg.connect(dsn)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await owner.execute(statement)
        await owner.close()


async def test_the_server_role_cannot_make_or_drop_tables_or_disable_the_trigger(database):
    for statement in (
        "CREATE TABLE mine (id int)",
        "DROP TABLE mcp_tools",
        "ALTER TABLE mcp_audit_logs DISABLE TRIGGER ALL",
        "UPDATE mcp_audit_intents SET replica = 'x'",
        f"DELETE FROM {VERSION_TABLE}",
    ):
        async with database.acquire() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
