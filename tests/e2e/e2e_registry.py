"""What stands in a server's registry, read straight from its Postgres, and the faults it can be given."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psutil

from e2e_server import Server

_TABLES = {
    "generation": "SELECT generation FROM mcp_registry",
    "tools": "SELECT id, name, owner, version, digest, group_name, permissions, status, problem, deleted_at IS NULL AS "
    "living, path, commit, generation FROM mcp_tools ORDER BY name, id",
    "versions": "SELECT tool_id, version, digest, commit FROM mcp_tool_versions ORDER BY tool_id, version",
    "files": "SELECT t.name, f.* FROM mcp_revision_files f JOIN mcp_tools t USING (digest) ORDER BY 1, 2, 3",
    "groups": "SELECT * FROM mcp_groups ORDER BY name",
    "policy": "SELECT owner, path, body, generation FROM mcp_policy",
}


class FaultyServer(Server):
    """A server that fails where a test asks it to; see `portoser.faults`."""

    def __init__(self, home: Path, **env: str) -> None:
        self.fault = home / ".portoser-fault"
        super().__init__(home, PORTOSER_TESTING_FAULTS=str(self.fault), **env)
        self.reached = self.fault.with_name(f"{self.fault.name}.reached")

    def arm(self, point: str, what: str) -> None:
        aside = self.fault.with_name("aside")
        aside.write_text(f"{point} {what}")
        aside.replace(self.fault)

    def change(self, number: int) -> None:
        """Change everything that a source can change, as git does it: what is there is whole only at the end."""
        lock = self.home / ".git" / "index.lock"
        lock.touch()
        self.write("both/part.py", f"NUMBER = {number}\n")
        self.write("both/both.py", f"def both() -> list[int]:\n    return [NUMBER, {number}]\n")
        self.write("both/both.yaml", "kind: Tool\nname: both\nfiles: [part.py, both.py]\n")
        self.write("same.py", "def same() -> int:\n    return 1\n")
        self.write(f"t{number}.yaml", "kind: Tool\nentrypoint: same.py:same\nfiles: [same.py]\n")
        (self.tools / f"t{number - 1}.yaml").unlink(missing_ok=True)
        self.write("both/group.yaml", f"kind: Group\nname: ops\npermissions: [team{number}]\n")
        self.write("policy.yaml", f"kind: Policy\nroles: {{admin: [boss{number}]}}\n")
        lock.unlink()

    def postmaster(self) -> psutil.Process | None:
        """The running Postgres, None while there is none."""
        try:
            text = (self.home / ".portoser" / "postgres" / "cluster" / "postmaster.pid").read_text()
            process = psutil.Process(int(text.split("\n", 1)[0]))
            return process if process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, psutil.Error):
            return None

    def dsn(self) -> str:
        """How the owner of the tables reaches the embedded Postgres."""
        folder = self.home / ".portoser" / "postgres"
        password = msgspec.json.decode((folder / "passwords.json").read_bytes())["owner"]
        socket = (folder / "cluster" / "postmaster.pid").read_text().splitlines()[4]
        return f"postgresql://portoser_owner:{password}@/portoser?host={socket}"

    @asynccontextmanager
    async def standing_still(self, seconds: float = 20) -> AsyncIterator[None]:
        """From when the server has reached a point at which it is to pause, until the block ends."""
        deadline = time.monotonic() + seconds
        while not self.reached.exists():
            assert time.monotonic() < deadline, f"the point was not reached in {seconds:g} s:\n{self.output()[-3000:]}"
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            self.reached.unlink()

    async def rows(self, query: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn(), timeout=10)
        try:
            return [dict(record) for record in await connection.fetch(query)]
        finally:
            await connection.close()

    async def registry(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that the registry consists of, at one moment."""
        connection = await asyncpg.connect(self.dsn(), timeout=10)
        try:
            async with connection.transaction(isolation="repeatable_read"):
                return {name: [dict(row) for row in await connection.fetch(query)] for name, query in _TABLES.items()}
        finally:
            await connection.close()

    async def registered(self, number: int, seconds: float = 30) -> dict[str, list[dict[str, Any]]]:
        """The registry, once the change of that number is in it and the run that brought it has ended."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                standing = await self.registry()
                open_runs = await self.rows("SELECT 1 FROM mcp_sync_runs WHERE outcome IS NULL")
            except (OSError, IndexError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError):
                standing, open_runs = {"tools": []}, []
            living = {tool["name"] for tool in standing["tools"] if tool["living"]}
            if living == {"both", f"t{number}"} and not open_runs:
                return standing
            assert time.monotonic() < deadline, f"not registered in {seconds:g} s: {living}\n{self.output()[-3000:]}"
            await asyncio.sleep(0.02)


async def whole_chains(server: FaultyServer) -> None:
    """No entry of the audit log is missing: each chain counts from 1 without a gap."""
    chains = await server.rows("SELECT chain, count(*) AS entries, max(seq) AS last FROM mcp_audit_logs GROUP BY 1")
    assert chains
    assert all(chain["entries"] == chain["last"] for chain in chains), chains


async def gone(processes: list[psutil.Process], seconds: float = 10) -> None:
    """Wait until none of the processes lives."""
    deadline = time.monotonic() + seconds
    while left := [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.02)
