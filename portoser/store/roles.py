"""Whom the server is to Postgres: a plain role, or one that could change the audit log."""

import asyncpg

from portoser.catalog.errors import PortoserError
from portoser.store.database import AWAY, Connection, away, plain_dsn

_WHERE = "SELECT current_user, current_database(), pg_postmaster_start_time()"

_TOO_MUCH = """
    SELECT rolsuper, EXISTS (
        SELECT FROM pg_class WHERE oid = to_regclass('mcp_audit_logs') AND pg_has_role(current_user, relowner, 'member')
    ) AS owns
    FROM pg_roles WHERE rolname = current_user
"""


async def role_beside(server_dsn: str, owner_dsn: str) -> str:
    """The role that the server works with, where another one, the owner of the tables, makes and changes them.

    Raises:
        Unavailable: Postgres does not answer.
        PortoserError: it does not let one of them in, or the two URLs lead to two databases.
    """
    theirs = await _where(owner_dsn, "PORTOSER_MIGRATIONS_URL")
    ours = await _where(server_dsn, "DATABASE_URL")
    if ours[1:] != theirs[1:]:
        raise PortoserError(
            f"DATABASE_URL and PORTOSER_MIGRATIONS_URL lead to two databases, {ours[1]!r} and {theirs[1]!r}, or to two "
            "servers. They must differ in the user alone."
        )
    return str(ours[0])


async def too_mighty(connection: Connection) -> str | None:
    """Why the server's role could change the audit log, in a sentence; None for a plain role, as it should be."""
    told = await connection.fetchrow(_TOO_MUCH)
    if told is None or not (told["rolsuper"] or told["owns"]):
        return None
    what = "is a superuser" if told["rolsuper"] else "owns the audit log's table"
    return (
        f"The role of DATABASE_URL {what}, so that whoever takes over the server can change the audit log: "
        "give it a plain role, and name the owner in PORTOSER_MIGRATIONS_URL (docs/operators.md)."
    )


async def _where(dsn: str, variable: str) -> tuple[object, ...]:
    try:
        connection = await asyncpg.connect(plain_dsn(dsn), timeout=10)
    except AWAY as error:
        raise away(error) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise PortoserError(f"The database refuses the connection: {error}. Check {variable}.") from error
    try:
        told = await connection.fetchrow(_WHERE)
        return tuple(told or ())
    except AWAY as error:
        raise away(error) from error
    finally:
        await connection.close(timeout=5)
