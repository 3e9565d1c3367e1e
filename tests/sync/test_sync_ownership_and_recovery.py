"""Names that others have, runs that are overtaken, fail or are disturbed. Real git and Postgres.

The runtime is a stand-in that describes every function alike: what workers do is proven elsewhere; here it is
needed to hang and to fail on demand.
"""

import asyncio
from typing import Any

import asyncpg
import pytest
from sync_world import Repo, StandIn, reconciling, until

from portoser.catalog.caller import Caller
from portoser.catalog.change import DeleteTool, PutTool
from portoser.catalog.revision import Revision, SourceFile
from portoser.catalog.tool import DesiredTool, Provenance, ToolStatus
from portoser.registry.changes import Applied, RegistryWriter
from portoser.runtime.types import CodeError
from portoser.store import sync_runs
from sync.ledger import Ledger

ADA = Caller(subject="ada")
OWNER = "rest:ada"


def rest_tool(name: str, version: int | None = None) -> PutTool:
    revision = Revision(
        digest=f"rest-{name}",
        files=(SourceFile("x.py", "def x(): pass\n"),),
        entrypoint="x.py:x",
        description="From REST.",
        input_schema={"type": "object"},
    )
    desired = DesiredTool(name=name, owner=OWNER, revision=revision, provenance=Provenance(source="rest"))
    return PutTool(desired=desired, expected_version=version)


async def test_a_name_that_rest_has_stays_rests_until_that_tool_is_deleted(repo: Repo, start: Any) -> None:
    world = await start()
    await world.reconciler.first_run()
    await world.writer.apply([rest_tool("one")], caller=ADA)
    repo.tool("one")
    repo.tool("two")
    await world.until(lambda: world.names == ["one", "two"] and world.tool("one").status is ToolStatus.CONFLICT)
    assert world.tool("one").owner == OWNER
    assert world.tool("one").problem == "git:main declares it too, in one.yaml:1."
    await world.until(lambda: world.reconciler.status.problems)
    assert f"belongs to {OWNER}" in world.reconciler.status.problems[0].message
    await world.writer.apply([DeleteTool(name="one", owner=OWNER, expected_version=1)], caller=ADA)
    await world.until(lambda: world.tool("one") is not None and world.tool("one").owner == "git:main")
    await world.until(lambda: world.reconciler.status.holds("Ready"))


async def test_a_conflict_ends_with_the_manifest(repo: Repo, start: Any) -> None:
    world = await start()
    await world.writer.apply([rest_tool("one")], caller=ADA)
    repo.tool("one")
    repo.tool("two")
    await world.until(lambda: world.tool("one") and world.tool("one").status is ToolStatus.CONFLICT)
    (repo.tools / "one.yaml").unlink()
    await world.until(lambda: world.tool("one").status is ToolStatus.SYNCED)
    assert world.tool("one").owner == OWNER


async def test_a_manifest_adopts_a_rest_tool(repo: Repo, start: Any) -> None:
    world = await start()
    await world.writer.apply([rest_tool("one")], caller=ADA)
    repo.tool("one", adopt="true")
    await world.until(lambda: world.tool("one") and world.tool("one").owner == "git:main")
    assert world.reconciler.status.problems == ()


async def test_a_newer_change_overtakes_a_run_that_admits_code_which_hangs(
    repo: Repo, start: Any, stand_in: StandIn
) -> None:
    """A stuck sync must not block its own fix."""
    repo.tool("one", answer="'hang'")
    world = await start()
    await stand_in.hanging.wait()
    repo.tool("one", answer="1")
    await world.until(lambda: world.names == ["one"])
    assert stand_in.cancelled == 1
    await world.until(lambda: world.reconciler.status.holds("Ready"))
    runs = await world.rows("SELECT outcome FROM mcp_sync_runs ORDER BY started_at")
    assert [run["outcome"] for run in runs] == ["applied"]


async def test_a_run_that_was_stopped_is_told_as_interrupted_by_the_next_leader(
    repo: Repo, database: Any, stand_in: StandIn
) -> None:
    repo.tool("one", answer="'hang'")
    repo.commit()
    async with reconciling(repo, database, stand_in) as world:
        await stand_in.hanging.wait()
        await world.until(lambda: world.rows("SELECT 1 FROM mcp_sync_runs WHERE outcome IS NULL"))
    repo.tool("one", answer="1")
    async with reconciling(repo, database, stand_in) as world:
        await world.until(lambda: world.names == ["one"])
        rows = await world.rows("SELECT id, outcome, error, finished_at FROM mcp_sync_runs ORDER BY started_at")
        assert [row["outcome"] for row in rows] == ["interrupted", "applied"]
        assert rows[0]["error"] == (
            "The server ended before the run did. Nothing of it was applied; the next run begins anew."
        )
        assert rows[0]["finished_at"] is not None
        told = await world.rows("SELECT arguments, outcome FROM mcp_audit_logs WHERE event = 'sync.run' ORDER BY seq")
        assert [(entry["outcome"], entry["arguments"]["run"]) for entry in told] == [
            ("interrupted", rows[0]["id"]),
            ("ok", rows[1]["id"]),
        ]


async def test_a_fault_of_ours_is_recorded_and_tried_again(
    repo: Repo, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.tool("one")
    faults = [RuntimeError("a bug")]
    apply = RegistryWriter.apply

    async def faulty(self: RegistryWriter, changes: Any, **kwargs: Any) -> Applied:
        if changes and faults:
            raise faults.pop()
        return await apply(self, changes, **kwargs)

    monkeypatch.setattr(RegistryWriter, "apply", faulty)
    world = await start()
    await world.until(lambda: world.reconciler.status.phase == "Stalled")
    assert world.reconciler.status.failures == 1
    assert world.reconciler.status.condition("Stalled").message == "a bug. It is tried again."
    await world.until(lambda: world.names == ["one"] and world.reconciler.status.phase == "Idle")
    assert world.reconciler.status.failures == 0
    rows = await world.rows("SELECT outcome, error, cause FROM mcp_sync_runs ORDER BY started_at")
    assert [(row["outcome"], row["cause"]) for row in rows] == [("failed", "start"), ("applied", "retry")]
    events = await world.rows("SELECT outcome FROM mcp_audit_logs WHERE event = 'sync.run' ORDER BY seq")
    assert [event["outcome"] for event in events] == ["error", "ok"]


async def test_code_that_was_refused_is_tried_again_when_somebody_asks(
    repo: Repo, start: Any, stand_in: StandIn
) -> None:
    repo.tool("one")
    stand_in.failures = [CodeError("No memory.", path="one.py", line=1)]
    world = await start()
    await world.until(lambda: world.reconciler.status.problem_count == 1)
    repo.tool("two")
    await world.until(lambda: world.names == ["two"])
    run = await world.reconciler.sync_now()
    assert run.outcome == "applied"
    assert world.names == ["one", "two"]


class Disturbed(RegistryWriter):
    """A registry in which somebody else is always a little faster."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.disturbances = 0

    async def apply(self, changes: Any, **kwargs: Any) -> Applied:
        if changes and self.disturbances:
            self.disturbances -= 1
            await super().apply([rest_tool(f"rest{self.disturbances}")], caller=ADA)
        return await super().apply(changes, **kwargs)


async def test_a_registry_that_moved_on_is_planned_for_again(
    repo: Repo, database: Any, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_world.RegistryWriter", Disturbed)
    async with reconciling(repo, database, stand_in) as world:
        world.writer.disturbances = 3
        repo.tool("one")
        await world.until(lambda: "one" in world.names)
        assert world.names == ["one", "rest0", "rest1", "rest2"]
        assert not await world.rows("SELECT 1 AS x FROM mcp_sync_runs WHERE outcome = 'failed'")


class Succeeded(RegistryWriter):
    """A registry in which another replica takes a run over at the moment in which it would be applied."""

    successor: Ledger | None = None

    async def apply(self, changes: Any, **kwargs: Any) -> Applied:
        if changes and self.successor is not None:
            successor, self.successor = self.successor, None
            await successor.tidy()
        return await super().apply(changes, **kwargs)


async def test_a_run_that_another_replica_told_the_end_of_applies_nothing(
    repo: Repo, database: Any, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_world.RegistryWriter", Succeeded)
    async with reconciling(repo, database, stand_in) as world:
        await world.reconciler.compared()
        world.writer.successor = Ledger(world.reconciler._shop, ADA)
        repo.tool("one")
        await world.until(lambda: not world.reconciler.status.is_leader)
        assert world.names == []
        runs = "SELECT outcome, finished_at FROM mcp_sync_runs ORDER BY started_at"
        [interrupted] = await world.rows(runs)
        assert interrupted["outcome"] == "interrupted"
        run = await world.reconciler.sync_now()
        assert run.outcome == "applied"
        assert world.names == ["one"]
        assert (await world.rows(runs))[0] == interrupted
    told = await world.rows("SELECT outcome FROM mcp_audit_logs WHERE event = 'sync.run' ORDER BY seq")
    assert [entry["outcome"] for entry in told] == ["interrupted", "ok"]


async def test_a_leader_whose_connection_is_cut_leads_again(repo: Repo, start: Any, postgres: Any) -> None:
    repo.tool("one")
    world = await start()
    await world.until(lambda: world.names == ["one"])
    await postgres.admin(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    )
    repo.tool("two")
    await world.until(lambda: world.names == ["one", "two"])
    assert world.reconciler.status.is_leader


@pytest.mark.parametrize("error", [asyncpg.InterfaceError("It is closed."), RuntimeError("It broke.")])
async def test_a_run_whose_beginning_cannot_be_written_down_ends_neither_the_loop_nor_the_next_run(
    repo: Repo, start: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    errors = [error]
    begin = sync_runs.begin

    async def fails_once(connection: Any, run: Any) -> None:
        if errors:
            raise errors.pop()
        await begin(connection, run)

    monkeypatch.setattr(sync_runs, "begin", fails_once)
    repo.tool("one")
    world = await start()
    await world.until(lambda: world.names == ["one"])
    assert not errors


async def test_a_plan_can_be_read_before_it_happens(repo: Repo, start: Any) -> None:
    repo.tool("one")
    world = await start()
    await world.until(lambda: world.names == ["one"])
    for number in range(3):
        repo.tool(f"t{number}")
    plan = await world.reconciler.plan()
    assert {change.name for change in plan.changes} <= {"t0", "t1", "t2"}
    await world.until(lambda: len(world.names) == 4)
    assert (await world.reconciler.plan()).is_empty


async def test_progress_is_told_while_code_is_admitted(repo: Repo, start: Any) -> None:
    for number in range(5):
        repo.tool(f"t{number}")
    told: list[tuple[int, int]] = []
    world = await start(on_progress=lambda done, of: told.append((done, of)))
    await world.until(lambda: len(world.names) == 5)
    assert (told[0], told[-1]) == ((0, 5), (5, 5))


async def test_a_source_that_is_no_authority_declares_no_policy(repo: Repo, start: Any) -> None:
    repo.tool("one")
    repo.write("policy.yaml", "kind: Policy\nroles: {admin: [me]}\n")
    world = await start(is_authority=False)
    await world.until(lambda: world.names == ["one"])
    assert not world.follower.snapshot.policy.roles
    await until(lambda: world.reconciler.status.problem_count == 1, lambda: str(world.reconciler.status))


async def test_who_waits_for_a_sync_is_told_when_the_reconciler_is_stopped(
    repo: Repo, database: Any, stand_in: StandIn
) -> None:
    repo.tool("one", answer="'hang'")
    async with reconciling(repo, database, stand_in) as world:
        await stand_in.hanging.wait()
        waiting = asyncio.create_task(world.reconciler.sync_now())
        await asyncio.sleep(0)
    with pytest.raises(Exception, match="stopped"):
        await asyncio.wait_for(waiting, 5)
