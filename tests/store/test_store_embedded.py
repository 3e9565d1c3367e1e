"""The embedded Postgres: closed from its first moment, adopted, shared, and stopped by the last one out."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import psutil
import pytest

from portoser.catalog.errors import PortoserError
from portoser.store.embedded import Begun, EmbeddedPostgres, is_made

FAST = {"fsync": "off"}

SERVER = """
import asyncio, sys
from pathlib import Path
from portoser.store.embedded import Begun, EmbeddedPostgres, is_made
async def main():
    postgres = await EmbeddedPostgres.start(Path(sys.argv[1]))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await postgres.stop()
asyncio.run(main())
"""


@pytest.fixture
def data():
    folder = Path(tempfile.mkdtemp(prefix="portoser-test-"))
    yield folder
    for number in postmasters(folder):
        os.kill(number, signal.SIGKILL)
    shutil.rmtree(folder)


def postmasters(folder):
    try:
        number = int((folder / "postgres/cluster/postmaster.pid").read_text().split()[0])
    except FileNotFoundError:
        return []
    return [number] if psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE else []


async def ask(dsn, question="SELECT 1"):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def a_server(data, program=SERVER):
    command = [sys.executable, "-c", program, str(data)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "ready" not in (line := server.stdout.readline()):
        assert line, server.stderr.read()
    return server


def leaves(server):
    _, said = server.communicate("\n", timeout=30)
    assert server.returncode == 0, said
    return said


async def test_it_is_closed_from_its_first_moment(data):
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    folder = data / "postgres"
    assert await ask(postgres.server_dsn, "SELECT current_user::text") == "portoser_server"
    assert await ask(postgres.server_dsn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert await ask(postgres.owner_dsn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert await ask(postgres.admin_dsn, "SHOW listen_addresses") == ""
    assert await ask(postgres.admin_dsn, "SHOW password_encryption") == "scram-sha-256"
    for wrong in (
        postgres.server_dsn.replace("portoser_server:", "portoser_server:x"),
        f"postgresql://postgres:@/postgres?host={folder}/run",
    ):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
            await ask(wrong)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ask(postgres.server_dsn, "CREATE TABLE t (a int)")
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "cluster").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "passwords.json").stat().st_mode) == 0o600
    assert not list(folder.glob("*.password"))
    await postgres.stop()
    assert postmasters(data) == []


async def test_what_was_stored_is_there_at_the_next_start(data):
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    await ask(postgres.owner_dsn, "CREATE TABLE t AS SELECT 7 AS a")
    await postgres.stop()
    await postgres.stop()
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    assert await ask(postgres.owner_dsn, "SELECT a FROM t") == 7
    await postgres.stop()


async def test_the_postgres_of_a_killed_server_is_adopted_and_stopped_by_the_next(data):
    server = a_server(data)
    [number] = postmasters(data)
    server.kill()
    server.communicate()
    assert postmasters(data) == [number]
    heir = a_server(data)
    assert postmasters(data) == [number]
    said = leaves(heir)
    assert postmasters(data) == []
    assert "XDG_RUNTIME_DIR" not in said


async def test_servers_share_one_postgres_and_the_last_one_out_stops_it(data):
    first = a_server(data)
    second = await EmbeddedPostgres.start(data)
    [number] = postmasters(data)
    leaves(first)
    assert await ask(second.server_dsn) == 1
    third = a_server(data)
    third.send_signal(signal.SIGTERM)
    third.communicate()
    assert postmasters(data) == [number]
    await second.stop()
    assert postmasters(data) == []


async def test_servers_that_start_together_start_one_postgres(data):
    servers = await asyncio.gather(*(EmbeddedPostgres.start(data, settings=FAST) for _ in range(4)))
    assert len({server.server_dsn for server in servers}) == 1
    assert [await ask(server.server_dsn) for server in servers] == [1] * 4
    for server in servers:
        await server.stop()
    assert postmasters(data) == []


async def test_a_killed_postgres_recovers_at_the_next_start(data):
    postgres = await EmbeddedPostgres.start(data)
    await ask(postgres.owner_dsn, "CREATE TABLE t AS SELECT 7 AS a")
    [number] = postmasters(data)
    os.kill(number, signal.SIGKILL)
    again = await EmbeddedPostgres.start(data)
    assert await ask(again.owner_dsn, "SELECT a FROM t") == 7
    await again.stop()
    await postgres.stop()
    assert postmasters(data) == []


async def test_a_postgres_that_dies_while_it_is_asked_is_started_again(data):
    """A killed one resets whoever waits to be let in."""
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    pid_file = data / "postgres/cluster/postmaster.pid"
    said = pid_file.read_text()
    await postgres.stop()
    dying = await asyncio.start_unix_server(lambda _, writer: died(writer), data / "postgres/run/.s.PGSQL.5432")

    def died(writer):
        dying.close()
        writer.transport.abort()

    pid_file.write_text(said)
    shutil.chown(pid_file, (data / "postgres/cluster").stat().st_uid)
    again = await EmbeddedPostgres.start(data, settings=FAST)
    assert await ask(again.server_dsn) == 1
    await again.stop()


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGKILL])
async def test_a_postgres_that_ends_is_started_again_where_it_was(data, how):
    postgres = await EmbeddedPostgres.start(data)
    other = await EmbeddedPostgres.start(data)
    await ask(postgres.owner_dsn, "CREATE TABLE t AS SELECT 7 AS a")
    [number] = postmasters(data)
    keepers = [asyncio.create_task(one.keep_running()) for one in (postgres, other)]
    os.kill(number, how)
    async with asyncio.timeout(20):
        while postmasters(data) in ([], [number]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                assert await ask(postgres.owner_dsn, "SELECT a FROM t") == 7
                break
            await asyncio.sleep(0.05)
    await postgres.stop()
    await other.stop()
    await asyncio.wait_for(asyncio.gather(*keepers), 5)
    assert postmasters(data) == []


async def test_a_pid_file_that_names_a_process_of_somebody_else_is_not_believed(data):
    """After a container or the machine started anew, the old number may be anybody's, even our own."""
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    pid_file = data / "postgres/cluster/postmaster.pid"
    lines = pid_file.read_text().splitlines()
    await postgres.stop()
    stranger = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        shutil.chown(pid_file, (data / "postgres/cluster").stat().st_uid)
        again = await EmbeddedPostgres.start(data, settings=FAST)
        assert await ask(again.server_dsn) == 1
        await again.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_start_that_was_killed_half_way_is_finished_by_the_next(data):
    folder = data / "postgres"
    (folder / "cluster.new").mkdir(parents=True)
    (folder / "cluster.new/PG_VERSION").write_text("18\n")
    (folder / "passwords.json").write_text("half a fi")
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    await ask(postgres.admin_dsn, "DROP DATABASE portoser WITH (FORCE)")
    await ask(postgres.admin_dsn, "DROP ROLE portoser_server")
    await postgres.stop()
    again = await EmbeddedPostgres.start(data, settings=FAST)
    assert await ask(again.server_dsn) == 1
    await again.stop()


async def test_a_data_directory_with_a_long_name_gets_its_socket_elsewhere(data):
    long = data / ("long-" * 30)
    postgres = await EmbeddedPostgres.start(long, settings=FAST)
    folder = Path(postgres.server_dsn.partition("host=")[2])
    assert not folder.is_relative_to(data)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert await ask(postgres.server_dsn) == 1
    await postgres.stop()
    folder.rmdir()


async def test_lost_passwords_and_a_foreign_folder_are_clear_errors(data):
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    await postgres.stop()
    (data / "postgres/passwords.json").unlink()
    with pytest.raises(PortoserError, match="passwords cannot be read"):
        await EmbeddedPostgres.start(data)
    (data / "file").write_text("")
    with pytest.raises(PortoserError, match="cannot be used"):
        await EmbeddedPostgres.start(data / "file")


async def test_a_postgres_that_does_not_start_shows_its_own_words(data):
    with pytest.raises(PortoserError, match=r"(?s)pg_ctl failed.*no_such_setting"):
        await EmbeddedPostgres.start(data, settings={"no_such_setting": "1"})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
async def test_it_runs_as_a_plain_user_too(data):
    data.chmod(0o777)
    nobody = pwd.getpwnam("nobody")
    # Python's own folder may be closed to others: what it imports late is imported before.
    become = f"import os; os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})\n"
    become = f"asyncio.run(asyncio.to_thread(int)); {become}"
    server = a_server(data / "mine", SERVER.replace("asyncio.run", become + "asyncio.run"))
    assert (data / "mine/postgres/cluster").stat().st_uid == nobody.pw_uid
    assert "XDG_RUNTIME_DIR" not in leaves(server)
    assert postmasters(data / "mine") == []


async def test_a_postgres_that_was_begun_needs_no_event_loop_until_somebody_waits_for_it(data):
    assert not is_made(data)
    begun = await asyncio.to_thread(Begun, data, FAST)
    postgres = await EmbeddedPostgres.of(begun)
    try:
        assert is_made(data)
        assert await ask(postgres.server_dsn) == 1
        begun.abandon()
        assert await ask(postgres.server_dsn) == 1
    finally:
        await postgres.stop()
    assert not postmasters(data)


async def test_a_postgres_that_nobody_went_on_with_is_stopped(data):
    begun = Begun(data, FAST)
    await asyncio.to_thread(begun.abandon)
    assert is_made(data)
    assert not postmasters(data)
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    await postgres.stop()


async def test_a_postgres_that_cannot_be_made_ready_is_stopped_and_says_why(data, monkeypatch):
    async def refused(*_):
        raise asyncpg.DiskFullError("could not extend file: No space left on device")

    monkeypatch.setattr("portoser.store.embedded._bootstrap", refused)
    with pytest.raises(PortoserError, match=r"cannot be made ready: could not extend file: No space left on device\."):
        await EmbeddedPostgres.start(data, settings=FAST)
    assert is_made(data)
    assert not postmasters(data)
    monkeypatch.undo()
    postgres = await EmbeddedPostgres.start(data, settings=FAST)
    await postgres.stop()
    assert not postmasters(data)
