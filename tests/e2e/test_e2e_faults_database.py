"""A database that is wrong, somebody else's, full, hanging or shared: a clear message, and nothing lost."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from e2e_registry import FaultyServer, whole_chains

from e2e_server import Notes, Server, new_folder, new_home, sdk_sse, until

GREET = 'def greet(name: str) -> str:\n    """Greet somebody."""\n    return f"Hello, {name}!"\n'
WRITE = 'def greet(name: str) -> str:\n    """Greet somebody."""\n    return f"Good day, {name}!"\n'


def greets(server: Server) -> None:
    server.write("greet.py", GREET)
    server.write("greet.yaml", "kind: Tool\n")


def call(server: Server) -> Any:
    return server.api("POST", "/api/mcp/tools/greet/call", json={"arguments": {"name": "Ada"}})


# A start that cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("somewhere", "DATABASE_URL: this is not a Postgres URL: write postgresql://user:password@host:5432/database."),
        ("postgresql://a:b@127.0.0.1:1/c", "Postgres is not available: "),
        ("postgresql://a:b@nowhere.invalid/c", "Postgres is not available: "),
        ("postgresql://a:b@[::1/c", "DATABASE_URL: this is not a Postgres URL"),
    ],
)
def test_a_database_url_that_leads_nowhere_ends_the_start(
    own_server: Callable[..., Server], url: str, told: str
) -> None:
    said = own_server(DATABASE_URL=url).refusal()
    assert told in said


async def test_a_database_that_refuses_or_is_not_ours_ends_the_start(
    own_server: Callable[..., Server], postgres: Any, empty_dsns: Any
) -> None:
    def refusal(url: str) -> str:
        return own_server(DATABASE_URL=url).refusal()

    good = empty_dsns.owner
    assert "password authentication failed" in refusal(good.replace("portoser_owner:", "portoser_owner:x"))
    assert 'database "nothing" does not exist. Check DATABASE_URL.' in refusal(postgres.dsns("nothing").owner)
    owner = await asyncpg.connect(good)
    await owner.execute("CREATE TABLE mcp_tools (id int)")
    assert "tables that Portoser did not make (mcp_tools). Use another one." in refusal(good)
    await owner.execute("DROP TABLE mcp_tools")
    await owner.execute("CREATE TABLE mcp_schema_version (version_num text)")
    await owner.execute("INSERT INTO mcp_schema_version VALUES ('9999')")
    assert "made by a newer Portoser (its tables are 9999" in refusal(good)
    assert await owner.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 1
    await owner.close()


def test_a_port_that_is_taken_ends_the_start(own_server: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = own_server()
        done = server.cli("serve", "--port", str(port))
    assert done.returncode != 0
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (server.home / ".portoser" / "postgres" / "cluster").exists()


# Two roles --------------------------------------------------------------------------------------------------------


async def test_the_tables_are_made_by_one_role_and_used_by_another(
    own_server: Callable[..., Server], empty_dsns: Any, postgres: Any
) -> None:
    mighty = own_server(DATABASE_URL=empty_dsns.owner)
    greets(mighty)
    mighty.start()
    assert "owns the audit log's table" in mighty.api("GET", "/api/mcp/status").text
    doctor = mighty.cli("doctor")
    assert "PORTOSER_MIGRATIONS_URL" in doctor.stdout, doctor.stdout
    assert mighty.stop() == 0, mighty.output()

    plain = own_server(DATABASE_URL=empty_dsns.server, PORTOSER_MIGRATIONS_URL=empty_dsns.owner)
    greets(plain)
    plain.start()
    assert call(plain).status_code == 200
    assert "audit log's table" not in plain.api("GET", "/api/mcp/status").text
    assert plain.stop() == 0, plain.output()
    connection = await asyncpg.connect(empty_dsns.server)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM mcp_audit_logs")
    await connection.close()

    elsewhere = own_server(DATABASE_URL=postgres.dsns("migrated").server, PORTOSER_MIGRATIONS_URL=empty_dsns.owner)
    assert "lead to two databases" in elsewhere.refusal()


# Two servers ------------------------------------------------------------------------------------------------------


async def test_two_servers_share_a_database_and_the_second_takes_over_when_the_first_is_killed(
    own_server: Callable[..., Server], dsns: Any
) -> None:
    first = own_server(DATABASE_URL=dsns.owner)
    greets(first)
    first.start()
    second = own_server(DATABASE_URL=dsns.owner, PORTOSER_TOOLS=str(first.tools))
    second.start()

    async def leads(server: Server) -> bool:
        [source] = server.api("GET", "/api/mcp/sync").json()["sources"]
        return bool(source["is_leader"])

    assert [await leads(first), await leads(second)] == [True, False]
    assert [call(first).status_code, call(second).status_code] == [200, 200]
    async with sdk_sse(first) as (one, at_first), sdk_sse(second) as (other, at_second):
        await asyncio.gather(one.list_tools(), other.list_tools())
        await changes(first, at_first, at_second)
        for client in (one, other):
            assert {tool.name for tool in (await client.list_tools()).tools} == {"greet", "more"}
    assert second.api("POST", "/api/mcp/sync").json()["run"]["outcome"] == "standby"
    made = second.api("POST", "/api/mcp/tools", json={"name": "mine", "code": "def mine() -> int:\n    return 1\n"})
    assert made.status_code == 201

    first.stop(signal.SIGKILL)
    first.write("later.py", GREET.replace("greet", "later"))
    first.write("later.yaml", "kind: Tool\n")

    async def taken_over() -> bool:
        names = {tool["name"] for tool in second.api("GET", "/api/mcp/tools").json()["tools"]}
        return await leads(second) and names == {"greet", "more", "mine", "later"}

    await until(taken_over, 20)
    assert call(second).status_code == 200
    connection = await asyncpg.connect(dsns.owner)
    rows = await connection.fetch("SELECT event, tool, count(*) FROM mcp_audit_logs WHERE tool = 'more' GROUP BY 1, 2")
    assert [tuple(row) for row in rows] == [("tool.created", "more", 1)]  # one of them reconciled
    await connection.close()


async def changes(server: Server, *notes: Notes) -> None:
    """Add a tool, and wait until every client was told."""
    before = [one.changed for one in notes]
    server.write("more.py", GREET.replace("greet", "more"))
    server.write("more.yaml", "kind: Tool\n")
    for one, seen in zip(notes, before, strict=True):
        await one.more_than(seen)


# A Postgres that hangs, and one without room ----------------------------------------------------------------------


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    with new_folder() as folder:
        server = FaultyServer(new_home(folder / "home", examples=False))
        greets(server)
        yield server
        server.stop(signal.SIGKILL)
        server.stop_postgres()


@contextmanager
def hanging(server: FaultyServer) -> Iterator[None]:
    """All of Postgres stands still, as a machine does whose disk does not answer."""
    postmaster = server.postmaster()
    assert postmaster is not None
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


async def test_a_postgres_that_hangs_is_told_in_bounded_time_and_work_goes_on_after_it(faulty: FaultyServer) -> None:
    server = faulty
    server.start()
    assert call(server).status_code == 200
    async with sdk_sse(server) as (client, _):
        with hanging(server):
            refused = await asyncio.to_thread(call, server)
            assert refused.status_code == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert len((await client.list_tools()).tools) == 1  # from the snapshot
            made = await asyncio.to_thread(
                server.api, "POST", "/api/mcp/tools", json={"name": "mine", "code": "def mine(): ...\n"}
            )
            assert made.status_code == 503
            server.write("greet.py", WRITE)
            ready = await asyncio.to_thread(server.api, "GET", "/ready")
            assert ready.status_code == 503

        async def well() -> bool:
            answer = await asyncio.to_thread(call, server)
            return answer.status_code == 200 and "Good day" in answer.text

        await until(well, 40)
    assert server.stop() == 0, server.output()


def may_mount() -> bool:
    with new_folder() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)
        return done.returncode == 0


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[None]:
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=711", "none", str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


async def test_a_full_disk_is_told_and_work_goes_on_once_there_is_room(faulty: FaultyServer) -> None:
    if os.geteuid() != 0 or not may_mount():
        pytest.skip("only who may mount can make a disk that is full")
    server = faulty
    with small_disk(server.home / ".portoser", "160m"):
        server.start()
        assert call(server).status_code == 200
        ballast = server.home / ".portoser" / "ballast"
        with ballast.open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
                    file.flush()
            except OSError:
                pass
        answered = 1
        while (answer := await asyncio.to_thread(call, server)).status_code == 200:
            answered += 1
        assert answer.status_code == 503
        assert "Try again" in answer.json()["detail"]
        body = {"name": "mine", "code": "def mine() -> int:\n    return 1\n"}
        refused = await asyncio.to_thread(server.api, "POST", "/api/mcp/tools", json=body)
        assert refused.status_code == 503, refused.text
        assert server.api("GET", "/api/mcp/tools").json()["total"] == 1
        server.write("greet.py", WRITE)
        server.write("more.py", GREET.replace("greet", "more"))
        server.write("more.yaml", "kind: Tool\n")

        async def told() -> bool:
            [source] = server.api("GET", "/api/mcp/sync").json()["sources"]
            return bool(source["phase"] == "Stalled" and "is not available" in str(source["conditions"]))

        await until(told, 20)
        assert server.process is not None
        assert server.process.poll() is None
        ballast.unlink()

        async def well() -> bool:
            return "Good day" in (await asyncio.to_thread(call, server)).text

        await until(well, 60)
        assert {tool["name"] for tool in server.api("GET", "/api/mcp/tools").json()["tools"]} == {"greet", "more"}
        made = await asyncio.to_thread(server.api, "POST", "/api/mcp/tools", json=body)
        assert made.status_code == 201, made.text + server.output()
        await whole_chains(server)
        [calls] = await server.rows("SELECT count(*) FROM mcp_audit_logs WHERE event = 'tool.call' AND outcome = 'ok'")
        assert calls["count"] >= answered
        assert server.stop() == 0, server.output()
