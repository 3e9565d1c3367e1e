"""A working tree and the registry: real git, real Postgres, real workers."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sync_world import reconciling

from portoser.catalog.tool import ToolStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")

Start = Callable[..., Awaitable[Any]]


async def test_a_saved_tool_is_registered_and_an_edit_is_a_new_version(repo: Any, world: Start) -> None:
    repo.tool("one")
    commit = repo.commit()
    w = await world()
    tool = w.tool("one")
    assert (tool.owner, tool.version, tool.status) == ("git:main", 1, ToolStatus.SYNCED)
    assert tool.provenance.path == "one.yaml"
    assert tool.provenance.commit == commit
    assert tool.provenance.author == "Ada <ada@example.com>"
    assert tool.revision.input_schema["type"] == "object"
    repo.tool("one", answer="2")
    await w.until(lambda: w.tool("one").version == 2)
    assert w.tool("one").provenance.commit == f"{commit}+dirty"
    repo.tool("two")
    await w.until(lambda: w.names == ["one", "two"])


async def test_a_commit_takes_the_dirt_away_without_a_new_version(repo: Any, world: Start) -> None:
    repo.tool("one")
    repo.commit()
    w = await world()
    repo.tool("one", answer="2")
    await w.until(lambda: w.tool("one").version == 2)
    commit = repo.commit()
    await w.until(lambda: w.tool("one").provenance.commit == commit)
    assert w.tool("one").version == 2


async def test_a_deleted_tool_is_a_tombstone_and_comes_back_with_its_history(repo: Any, world: Start) -> None:
    repo.tool("one")
    repo.tool("two")
    w = await world()
    before = w.tool("one").id
    (repo.tools / "one.yaml").unlink()
    await w.until(lambda: w.names == ["two"])
    [row] = await w.rows("SELECT status, deleted_at FROM mcp_tools WHERE name = 'one'")
    assert row["status"] == "Tombstoned"
    repo.write("one.yaml", "kind: Tool\n")
    await w.until(lambda: w.names == ["one", "two"])
    assert w.tool("one").id == before
    assert w.tool("one").version == 1


async def test_an_invalid_tool_keeps_its_last_good_revision_and_the_others_go_on(repo: Any, world: Start) -> None:
    repo.tool("one")
    repo.tool("two")
    w = await world()
    digest = w.tool("one").digest
    repo.write("one.py", "def one(:\n")
    repo.tool("two", answer="22")
    await w.until(lambda: w.tool("one").status is ToolStatus.INVALID and w.tool("two").version == 2)
    assert w.tool("one").digest == digest
    assert "one.py:1:" in w.tool("one").problem
    await w.until(lambda: [problem.tool for problem in w.reconciler.status.problems] == ["one"])
    assert w.reconciler.status.condition("Ready").reason == "Problems"
    repo.tool("one")
    await w.until(lambda: w.tool("one").status is ToolStatus.SYNCED)
    assert w.tool("one").version == 1
    await w.until(lambda: w.reconciler.status.holds("Ready"))


async def test_code_that_does_not_import_is_invalid_with_file_and_line(repo: Any, world: Start) -> None:
    repo.write("sub/bad.py", "import nowhere_to_be_found\ndef bad() -> int:\n    return 1\n")
    repo.write("sub/bad.yaml", "kind: Tool\n")
    repo.tool("good")
    w = await world()
    assert w.names == ["good"]
    [problem] = w.reconciler.status.problems
    assert (problem.path, problem.line, problem.tool) == ("sub/bad.py", 1, "sub.bad")
    assert {(warning.path, warning.tool) for warning in w.reconciler.status.warnings} == {
        ("good.py", "good"),  # it has no docstring
        ("sub/bad.yaml", "sub.bad"),  # its name holds a dot
    }


async def test_a_file_that_cannot_be_parsed_deletes_nothing_of_what_it_declared(repo: Any, world: Start) -> None:
    repo.tool("one")
    repo.tool("two")
    w = await world()
    repo.write("one.yaml", "kind: [Tool\n")
    await w.until(lambda: w.tool("one").status is ToolStatus.INVALID)
    repo.write("two.yaml", "")  # as an editor does that empties the file before it writes it
    await w.until(lambda: w.tool("two").status is ToolStatus.INVALID)
    assert w.names == ["one", "two"]


async def test_a_failed_example_holds_the_revision_back(repo: Any, world: Start) -> None:
    repo.tool("one", examples="[{call: {}, expect: 1}]")
    w = await world()
    assert w.names == ["one"]
    repo.write("one.py", "def one() -> int:\n    return 2\n")
    await w.until(lambda: w.tool("one").status is ToolStatus.INVALID)
    assert "Example 1 expects 1, and the tool answers 2." in w.tool("one").problem
    assert "one.yaml:2" in w.tool("one").problem


async def test_the_guard_holds_a_mass_deletion_until_somebody_approves_it(repo: Any, world: Start) -> None:
    for number in range(8):
        repo.tool(f"t{number}")
    w = await world()
    for number in range(6):
        (repo.tools / f"t{number}.yaml").unlink()
    await w.until(lambda: w.reconciler.status.phase == "AwaitingApproval")
    assert len(w.names) == 8
    assert w.reconciler.status.holds("PruneBlocked")
    assert "6 tools of 8 would be deleted" in w.reconciler.status.condition("PruneBlocked").message
    wrong = await w.reconciler.sync_now(approve="0123456789abcdef")
    assert wrong.outcome == "held"
    run = await w.reconciler.sync_now(approve=w.reconciler.status.held_plan)
    assert run.outcome == "applied"
    assert w.names == ["t6", "t7"]
    assert w.reconciler.status.phase == "Idle"


async def test_deleting_slowly_does_not_walk_around_the_guard(repo: Any, world: Start) -> None:
    for number in range(12):
        repo.tool(f"t{number}")
    w = await world()
    for number in range(5):
        (repo.tools / f"t{number}.yaml").unlink()
        await w.until(lambda left=11 - number: len(w.names) == left)
    (repo.tools / "t5.yaml").unlink()
    await w.until(lambda: w.reconciler.status.phase == "AwaitingApproval")
    assert len(w.names) == 7
    held = w.reconciler.status.held_plan
    message = w.reconciler.status.condition("PruneBlocked").message
    assert "1 tool of 12 would be deleted (t5) after 5 tools within the last 2 minutes" in message
    assert f"portoser sync --approve {held}" in message
    assert (await w.reconciler.sync_now(approve=held)).outcome == "applied"
    (repo.tools / "t6.yaml").unlink()  # what was approved counts no more
    await w.until(lambda: len(w.names) == 5)


async def test_renaming_one_tool_after_the_other_is_no_mass_deletion(repo: Any, world: Start) -> None:
    for number in range(7):
        repo.tool(f"a/t{number}", answer=str(number))
    w = await world()
    (repo.tools / "b").mkdir()
    for number in range(7):
        for end in ("py", "yaml"):
            (repo.tools / f"a/t{number}.{end}").rename(repo.tools / f"b/t{number}.{end}")
        await w.until(lambda name=f"b.t{number}": name in w.names and len(w.names) == 7)


async def test_an_approval_is_for_one_run(repo: Any, world: Start) -> None:
    for number in range(8):
        repo.tool(f"t{number}")
    w = await world()
    for number in range(6):
        (repo.tools / f"t{number}.yaml").unlink()
    await w.until(lambda: w.reconciler.status.phase == "AwaitingApproval")
    held = w.reconciler.status.held_plan
    for number in range(6):
        repo.tool(f"t{number}")
    assert (await w.reconciler.sync_now(approve=held)).outcome == "unchanged"
    for number in range(6):
        (repo.tools / f"t{number}.yaml").unlink()
    await w.until(lambda: w.reconciler.status.phase == "AwaitingApproval")
    assert len(w.names) == 8


async def test_an_emptied_folder_deletes_nothing(repo: Any, world: Start) -> None:
    repo.tool("one")
    w = await world()
    for path in repo.tools.iterdir():
        path.unlink()
    await w.until(lambda: w.reconciler.status.phase == "AwaitingApproval")
    assert w.names == ["one"]
    repo.tool("one")
    await w.until(lambda: w.reconciler.status.phase == "Idle")


async def test_a_folder_that_goes_away_stalls_and_recovers(repo: Any, world: Start) -> None:
    repo.tool("one")
    w = await world()
    aside = repo.home / "aside"
    repo.tools.rename(aside)
    await w.until(lambda: w.reconciler.status.phase == "Stalled")
    assert w.names == ["one"]
    assert "There is no directory" in w.reconciler.status.condition("Fetched").message
    assert w.reconciler.status.next_retry_at is not None
    aside.rename(repo.tools)
    repo.tool("two")
    await w.until(lambda: w.names == ["one", "two"] and w.reconciler.status.phase == "Idle")
    outcomes = [row["outcome"] for row in await w.rows("SELECT outcome FROM mcp_sync_runs ORDER BY started_at")]
    assert outcomes[:2] == ["applied", "failed"]


async def test_an_editor_that_replaces_files_by_renaming_is_followed(repo: Any, world: Start) -> None:
    repo.tool("one")
    w = await world()
    aside = repo.write(".one.py.swp", "def one() -> int:\n    return 3\n")
    os.replace(aside, repo.tools / "one.py")  # noqa: PTH105
    await w.until(lambda: w.tool("one").version == 2)


async def test_a_file_written_in_halves_is_whole_in_the_end(repo: Any, world: Start) -> None:
    repo.tool("one")
    w = await world()
    with (repo.tools / "one.py").open("w") as file:
        file.write("def one() -> int:\n    ret")
        file.flush()
        await asyncio.sleep(0.1)
        file.write("urn 4\n")
    await w.until(lambda: w.tool("one").version == 2 and w.tool("one").status is ToolStatus.SYNCED)


@pytest.mark.parametrize(
    ("rest", "kept"),
    [
        ("permissions: [boss]\n", lambda tool: tool.permissions == ("boss",)),
        ('confirm: "Sure?"\n', lambda tool: tool.revision.confirm == "Sure?"),
        ("redact: [/secret]\n", lambda tool: tool.revision.redact == ("/secret",)),
    ],
)
async def test_a_manifest_written_in_halves_opens_nothing(
    repo: Any, world: Start, rest: str, kept: Callable[[Any], bool]
) -> None:
    repo.write("one.py", "def one(secret: str) -> int:\n    return 1\n")
    repo.write("one.yaml", f"kind: Tool\ndescription: Before\n{rest}")
    repo.tool("two")
    w = await world()
    assert kept(w.tool("one"))
    seen = []
    w.follower.on_swap(lambda _, new: seen.append(new.tools["one"].registered))
    repo.write("one.yaml", "kind: Tool\ndescription: After\n")
    repo.tool("two", answer="2")
    await w.until(lambda: w.tool("two").version == 2)
    assert w.tool("one").version == 1
    repo.write("one.yaml", f"kind: Tool\ndescription: After\n{rest}")
    await w.until(lambda: w.tool("one").revision.description == "After")
    assert all(kept(tool) for tool in seen)
    repo.write("one.yaml", "kind: Tool\ndescription: After\n")  # and this time it is meant
    await w.until(lambda: not kept(w.tool("one")))
    await w.until(lambda: w.reconciler.status.holds("Ready"))


async def test_a_group_and_a_policy_written_in_halves_open_nothing(repo: Any, world: Start) -> None:
    repo.tool("ops/one")
    repo.tool("two")
    repo.write("ops/group.yaml", "kind: Group\nenabled: false\n")
    repo.write("policy.yaml", "kind: Policy\nroles: {admin: [boss]}\nclients: {x: [y]}\n")
    w = await world()
    assert not w.follower.snapshot.tools["ops.one"].enabled
    repo.write("ops/group.yaml", "kind: Group\n")
    repo.write("policy.yaml", "kind: Policy\nroles: {admin: [boss]}\n")
    repo.tool("two", answer="2")
    await w.until(lambda: w.tool("two").version == 2)
    assert not w.follower.snapshot.tools["ops.one"].enabled
    assert w.follower.snapshot.policy.clients
    await w.until(lambda: w.follower.snapshot.tools["ops.one"].enabled and not w.follower.snapshot.policy.clients)


async def test_a_moved_folder_of_tools_is_followed(repo: Any, world: Start) -> None:
    repo.tool("a/one")
    w = await world()
    assert w.names == ["a.one"]
    shutil.move(repo.tools / "a", repo.tools / "b")
    await w.until(lambda: w.names == ["b.one"])
    [run] = await w.rows("SELECT plan FROM mcp_sync_runs ORDER BY started_at DESC LIMIT 1")
    assert {change["renamed_from"] for change in run["plan"]["changes"]} == {None, "a.one"}


async def test_groups_and_the_policy_follow_and_a_broken_one_keeps_the_old(repo: Any, world: Start) -> None:
    repo.tool("ops/one")
    repo.write("ops/group.yaml", "kind: Group\nenabled: false\npermissions: [operator]\n")
    repo.write("policy.yaml", "kind: Policy\nroles: {admin: [boss]}\n")
    w = await world()
    served = w.follower.snapshot.tools["ops.one"]
    assert (served.enabled, served.permissions) == (False, ("operator",))
    assert w.follower.snapshot.policy.roles == {"admin": ("boss",)}
    repo.write("ops/group.yaml", "kind: Group\nenabled: maybe\n")
    repo.write("policy.yaml", "kind: Policy\nroles: [")
    await w.until(lambda: w.reconciler.status.problem_count == 2)
    assert not w.follower.snapshot.tools["ops.one"].enabled
    assert w.follower.snapshot.policy.roles == {"admin": ("boss",)}
    (repo.tools / "policy.yaml").unlink()
    repo.write("ops/group.yaml", "kind: Group\n")
    await w.until(lambda: w.follower.snapshot.tools["ops.one"].enabled)
    await w.until(lambda: not w.follower.snapshot.policy.roles)


async def test_an_idle_folder_writes_no_rows(repo: Any, world: Start) -> None:
    repo.tool("one")
    w = await world()
    runs = await w.rows("SELECT id FROM mcp_sync_runs")
    [source] = await w.rows("SELECT updated_at, applied_tree FROM mcp_sources")
    assert source["applied_tree"] is not None
    for _ in range(3):
        assert (await w.reconciler.sync_now()).outcome == "unchanged"
    assert await w.rows("SELECT id FROM mcp_sync_runs") == runs
    [after] = await w.rows("SELECT updated_at, applied_tree FROM mcp_sources")
    assert after == source


async def test_a_run_is_a_row_with_its_plan_and_a_line_of_the_audit_log(repo: Any, world: Start) -> None:
    repo.tool("one")
    commit = repo.commit()
    w = await world()
    [run] = await w.rows("SELECT * FROM mcp_sync_runs")
    assert (run["outcome"], run["commit"], run["summary"]) == ("applied", commit, {"create": 1, "unchanged": 0})
    assert run["plan"]["changes"][0]["name"] == "one"
    assert {"fetch", "read", "admit", "plan", "apply"} <= set(run["durations"])
    entries = await w.rows("SELECT event, caller_subject, commit FROM mcp_audit_logs ORDER BY seq")
    assert [entry["event"] for entry in entries] == ["tool.created", "sync.run"]
    assert {entry["caller_subject"] for entry in entries} == {"reconciler:main"}


async def test_only_one_of_two_reconcilers_leads_and_the_other_takes_over(
    repo: Any, registry: Any, runtime: Any, world: Start
) -> None:
    repo.tool("one")
    async with reconciling(repo, registry, runtime) as first:
        await first.reconciler.first_run()
        second = await world()
        assert first.reconciler.status.is_leader
        assert not second.reconciler.status.is_leader
        assert second.reconciler.status.applied_commit == first.reconciler.status.applied_commit
    repo.tool("two")
    await second.until(lambda: second.reconciler.status.is_leader and second.names == ["one", "two"])


async def test_a_restart_with_the_same_folder_is_ready_at_once(
    repo: Any, registry: Any, runtime: Any, world: Start
) -> None:
    repo.tool("one")
    repo.write("bad.yaml", "kind: Tol\n")
    async with reconciling(repo, registry, runtime) as first:
        await first.reconciler.first_run()
        generation = first.follower.snapshot.generation
    again = await world()
    assert again.reconciler.status.problem_count == 1
    run = await again.reconciler.sync_now()
    assert run.outcome == "unchanged"
    assert again.follower.snapshot.generation == generation


async def test_two_files_that_import_each_other_work_as_in_python(repo: Any, world: Start) -> None:
    repo.write("a.py", "import b\n\nNUMBER = 1\n\n\ndef add(x: int) -> int:\n    return b.double(x) + NUMBER\n")
    repo.write("b.py", "import a\n\n\ndef double(x: int) -> int:\n    return 2 * x * a.NUMBER\n")
    repo.write(
        "add.yaml", "kind: Tool\nfiles: [b.py, a.py]\nentrypoint: a.py:add\nexamples: [{call: {x: 3}, expect: 7}]\n"
    )
    w = await world()
    assert w.names == ["add"]


async def test_two_files_that_need_each_other_while_they_load_are_told_with_both_places(
    repo: Any, world: Start
) -> None:
    repo.write("a.py", "from b import double\n\n\ndef add(x: int) -> int:\n    return double(x) + 1\n")
    repo.write("b.py", "from a import add\n\n\ndef double(x: int) -> int:\n    return add(x)\n")
    repo.write("add.yaml", "kind: Tool\nfiles: [b.py, a.py]\nentrypoint: a.py:add\n")
    w = await world()
    assert w.names == []
    [problem] = w.reconciler.status.problems
    assert (problem.path, problem.line, problem.tool) == ("a.py", 1, "add")
    assert "circular" in problem.message
    assert problem.advice.startswith("b.py:1 and a.py:1 import each other while they load: move what both need")
