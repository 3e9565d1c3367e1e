"""What comes back from Postgres is what went in, and its absence has one name."""

import asyncio
import json
import uuid

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portoser.catalog.errors import PortoserError, Unavailable
from portoser.store.admissions import StoredAdmission, get_many, put_many
from portoser.store.database import Database, encode_json, plain_dsn

JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ANY_TEXT = st.text(st.characters(codec=None))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON_LIKE | ANY_TEXT | st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
async def test_postgres_takes_any_json_that_a_caller_may_send(database, value):
    async with database.acquire() as connection:
        stored = await connection.fetchval("SELECT $1::jsonb", value)
    sent = json.dumps(value)
    if "\\u0000" not in sent and "\\ud" not in sent and "e" not in sent.lower():
        assert stored == msgspec.json.decode(encode_json(value))


def test_what_jsonb_cannot_hold_is_replaced_and_nothing_else():
    assert encode_json(["\x00", "\\u0000", "\\\x00"]) == rb'["\ufffd","\\u0000","\\\ufffd"]'
    assert encode_json({"a": "\ud800b", "n": 2**70}) == b'{"a":"?b","n":1180591620717411303424}'


async def test_json_keeps_its_order_and_uuids_are_strings(database):
    value = {"zeta": 1, "a": [1.0, {"y": 1, "b": None}]}
    identifier = str(uuid.uuid4())
    async with database.acquire() as connection:
        stored = await connection.fetchval("SELECT $1::json", value)
        assert json.dumps(stored) == json.dumps(value)
        assert await connection.fetchval("SELECT $1::uuid", identifier) == identifier


async def test_answers_of_admission_are_remembered_by_key(database):
    one = StoredAdmission(key="one", outcome={"z": 1, "a": 2}, digest="d")
    two = StoredAdmission(key="two", outcome={"problems": ["x\x00"]})
    newer = StoredAdmission(key="one", outcome={"z": 3})
    async with database.acquire() as connection:
        await put_many(connection, [one, two])
        assert await get_many(connection, ["one", "two", "three"]) == {"one": one, "two": two}
        await put_many(connection, [one, newer])
        assert (await get_many(connection, ["one"]))["one"] == newer
        await put_many(connection, [])


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("postgresql://a:b@h:5/d?sslmode=require", "postgresql://a:b@h:5/d?sslmode=require"),
        ("postgres://a@h/d", "postgresql://a@h/d"),
        ("postgresql+asyncpg://a:p%40@h/d?ssl=require", "postgresql://a:p%40@h/d?sslmode=require"),
        ("postgresql+asyncpg://a@/d?host=/run/x", "postgresql://a@/d?host=/run/x"),
    ],
)
def test_urls_of_sqlalchemy_are_understood(given, plain):
    assert plain_dsn(given) == plain


def test_urls_of_other_databases_are_refused():
    with pytest.raises(PortoserError, match="must begin with postgresql://, not with 'mysql'"):
        plain_dsn("mysql://a@b/c")


async def test_a_database_that_is_not_there_is_unavailable_and_a_wrong_password_is_not(tmp_path, dsns):
    with pytest.raises(Unavailable, match="Postgres is not available"):
        await Database.connect(f"postgresql://a:b@/c?host={tmp_path}")
    with pytest.raises(PortoserError, match="Check DATABASE_URL") as refusal:
        await Database.connect(dsns.server.replace("portoser_server:", "portoser_server:x"))
    assert not isinstance(refusal.value, Unavailable)


async def test_a_connection_that_is_cut_inside_the_block_is_unavailable_and_the_next_one_works(database, dsns):
    admin = await asyncpg.connect(dsns.admin)
    with pytest.raises(Unavailable):  # noqa: PT012 (the error comes at the end of the block)
        async with database.acquire() as connection:
            await admin.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await connection.fetchval("SELECT 1")
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await admin.close()


async def test_idle_connections_that_were_cut_are_replaced_unseen(database, dsns):
    admin = await asyncpg.connect(dsns.admin)
    async with database.acquire() as connection:
        number = connection.get_server_pid()
    await admin.execute("SELECT pg_terminate_backend($1, 5000)", number)
    await admin.close()
    async with asyncio.timeout(5), database.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_when_every_connection_is_busy_the_wait_is_bounded(dsns):
    database = await Database.connect(dsns.server, max_size=1)
    async with database.acquire():
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            async with database.acquire(timeout=0.05):
                pass
    await database.close()


async def test_errors_of_the_work_itself_pass_through(database):
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.acquire() as connection:
            await connection.execute("SELECT * FROM nowhere")
    with pytest.raises(asyncpg.InterfaceError):
        async with database.acquire() as connection:
            await connection.fetch("SELECT $1::int")
    with pytest.raises(FileNotFoundError):
        async with database.acquire():
            raise FileNotFoundError("of the work")


async def test_a_closed_database_is_unavailable(dsns):
    database = await Database.connect(dsns.server)
    await database.close()
    with pytest.raises(Unavailable):
        async with database.acquire():
            pass
