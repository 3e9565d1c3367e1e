"""What comes back from Postgres is what went in, and its absence has one name."""

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

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


async def test_a_host_that_takes_the_connection_and_says_nothing_is_unavailable_in_bounded_time():
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/.s.PGSQL.5432")
        silent.listen()  # the system takes the connection, and nobody ever answers
        database = Database(f"postgresql://a:b@/c?host={folder}", pool=None)
        with pytest.raises(Unavailable, match=r"^Postgres is not available: it did not answer in time\.$"):
            await database.connect_alone(timeout=0.2)


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


async def test_a_postgres_that_refuses_one_more_connection_does_not_hang_and_keeps_those_that_there_are(dsns):
    database = await Database.connect(dsns.server, max_size=1)
    admin = await asyncpg.connect(dsns.admin)
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 1")
    async with database.acquire() as connection:
        with pytest.raises(Unavailable, match="too many connections"):
            await database.connect_alone(timeout=5)
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            async with database.acquire(timeout=0.05, to_probe=True):
                pass
        assert await connection.fetchval("SELECT 1") == 1
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await admin.close()
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


class Freezer:
    """Stands between a server and Postgres, and can let everything stand still, as a machine does that hangs."""

    def __init__(self, folder: Path, real: Path) -> None:
        self._path = folder / ".s.PGSQL.5432"
        self._real = real / ".s.PGSQL.5432"
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._carry, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._real)
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass_on(source, target))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flows.wait()
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()


@pytest.fixture
async def frozen(dsns) -> AsyncIterator[tuple[Freezer, str]]:
    parts = urlsplit(dsns.server)
    [(_, real)] = parse_qsl(parts.query)
    with TemporaryDirectory() as folder:
        async with Freezer(Path(folder), Path(real)) as freezer:
            yield freezer, urlunsplit(parts._replace(query=f"host={folder}"))


@pytest.mark.parametrize("busy", [1, 2])
async def test_a_postgres_that_hangs_is_noticed_and_everybody_who_waits_for_it_is_told(frozen, monkeypatch, busy):
    """``busy`` of two connections are in use: with both of them, there is none left to look whether it answers."""
    monkeypatch.setattr("portoser.store.database._SECONDS_TO_ANSWER", 0.3)
    freezer, dsn = frozen
    database = await Database.connect(dsn, max_size=2)
    begun = asyncio.Semaphore(0)

    async def work() -> None:
        async with database.acquire() as connection:
            begun.release()
            while True:
                await connection.fetchval("SELECT 1")

    async def look() -> int:
        async with database.acquire(timeout=0.5, to_probe=True) as connection:
            return await database.prompt(connection.fetchval("SELECT 7"))

    tasks = [asyncio.create_task(work()) for _ in range(busy)]
    for _ in tasks:
        await begun.acquire()
    freezer.freeze()
    with pytest.raises(Unavailable, match="it is there, but it hangs"):
        await asyncio.wait_for(look(), 10)
    for ended in await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10):
        assert isinstance(ended, Unavailable)
    with pytest.raises(Unavailable, match="it is there, but it hangs"):  # and nobody waits for it meanwhile
        async with asyncio.timeout(0.2), database.acquire():
            pass
    freezer.thaw()
    assert await asyncio.wait_for(look(), 10) == 7
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await database.close()
