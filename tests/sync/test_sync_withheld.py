"""A policy that is wrong widens nothing, and what narrows goes on. What is wrong names its commit and its place."""

from typing import Any

import pytest
from sync_world import Repo

POLICY = "kind: Policy\nroles: {admin: [boss]}\n"


async def begun(repo: Repo, start: Any) -> Any:
    """A folder with a policy, an open group and a closed one, and a tool of each sort."""
    repo.write("policy.yaml", POLICY)
    repo.write("on/group.yaml", "kind: Group\nname: open\npermissions: [a, b]\n")
    repo.write("off/group.yaml", "kind: Group\nname: closed\nenabled: false\n")
    repo.tool("own", permissions="[a, b]")
    repo.tool("sure", confirm="Sure?")
    repo.tool("on/theirs")
    repo.tool("off/quiet", permissions="[a]")
    repo.commit()
    world = await start()
    await world.until(lambda: world.names == ["off.quiet", "on.theirs", "own", "sure"])
    return world


def access(world: Any) -> dict[str, tuple[bool, tuple[str, ...]]]:
    return {name: (tool.enabled, tool.permissions) for name, tool in world.follower.snapshot.tools.items()}


@pytest.mark.parametrize(
    "broken",
    [
        "kind: Policy\nroles: [\n",
        "kind: Policy\nrolls: {admin: [boss]}\n",
        f"{POLICY}---\n{POLICY}",
    ],
)
async def test_nothing_gives_more_access_while_the_policy_is_wrong(repo: Repo, start: Any, broken: str) -> None:
    world = await begun(repo, start)
    before = access(world)
    repo.write("policy.yaml", broken)
    repo.tool("new", permissions="[a]")
    repo.tool("own", permissions="[a, b, c]", answer="2")
    repo.tool("sure", answer="2")
    repo.write("on/group.yaml", "kind: Group\nname: open\npermissions: [a, b, c]\n")
    repo.write("off/group.yaml", "kind: Group\nname: closed\n")
    await world.until(lambda: world.tool("own").version == 2)  # new code is no access

    def told() -> dict[str, str]:
        warnings = world.reconciler.status.warnings
        return {warning.path: str(warning) for warning in warnings if "while the policy is wrong" in str(warning)}

    await world.until(  # after what takes a protection away has been the same for a while
        lambda: set(told()) == {"new.yaml", "own.yaml", "sure.yaml", "on/group.yaml", "off/group.yaml"}
    )
    assert access(world) == before
    assert world.tool("sure").revision.confirm == "Sure?"
    assert told()["new.yaml"] == (
        "new.yaml:1: The tool 'new' would have more access than before, and waits while the policy is wrong. "
        "Put the policy in policy.yaml right."
    )
    repo.write("policy.yaml", POLICY)
    await world.until(lambda: access(world).get("new") == (True, ("a",)))
    await world.until(lambda: world.tool("sure").revision.confirm is None)
    assert access(world)["own"] == (True, ("a", "b", "c"))
    assert access(world)["on.theirs"] == (True, ("a", "b", "c"))
    await world.until(lambda: access(world)["off.quiet"] == (True, ("a",)))


async def test_what_narrows_access_counts_while_the_policy_is_wrong(repo: Repo, start: Any) -> None:
    world = await begun(repo, start)
    repo.write("policy.yaml", "kind: Policy\nroles: [\n")
    repo.tool("own", permissions="[b, c]")  # takes from a, gives to c
    repo.write("on/group.yaml", "kind: Group\nname: open\nenabled: false\npermissions: [b]\n")
    (repo.tools / "sure.yaml").unlink()
    await world.until(
        lambda: access(world) == {"own": (True, ("b",)), "on.theirs": (False, ("b",)), "off.quiet": (False, ("a",))}
    )
    repo.write("policy.yaml", POLICY)
    await world.until(lambda: access(world)["own"] == (True, ("b", "c")))


async def test_a_closed_group_that_is_taken_away_opens_nothing_while_the_policy_is_wrong(
    repo: Repo, start: Any
) -> None:
    world = await begun(repo, start)
    repo.write("policy.yaml", "kind: Policy\nroles: [\n")
    (repo.tools / "off" / "group.yaml").unlink()
    repo.tool("own", answer="2", permissions="[a, b]")
    await world.until(lambda: world.tool("own").version == 2)
    assert access(world)["off.quiet"] == (False, ("a",))
    repo.write("policy.yaml", POLICY)
    await world.until(lambda: access(world)["off.quiet"] == (True, ("a",)))


async def test_no_client_gets_at_a_tool_by_its_group_while_the_policy_is_wrong(repo: Repo, start: Any) -> None:
    policy = "kind: Policy\nclients:\n  helpdesk: [front]\n  desk: [front, side]\n"
    repo.write("policy.yaml", policy)
    groups = {"moved": "back", "bare": None, "aside": "front", "out": "side"}
    for name, group in groups.items():
        repo.tool(name, **({"group": group} if group else {}))
    world = await start()
    await world.until(lambda: len(world.names) == 4)

    def standing() -> dict[str, str | None]:
        return {name: world.tool(name).group for name in groups}

    def waiting() -> set[str | None]:
        warnings = world.reconciler.status.warnings
        return {warning.tool for warning in warnings if "while the policy is wrong" in str(warning)}

    repo.write("policy.yaml", "kind: Policy\nclients: [\n")
    await world.until(lambda: world.reconciler.status.problems)
    repo.tool("moved", group="front")
    repo.tool("bare", group="side")
    repo.tool("aside", group="side")
    repo.tool("out")
    await world.until(lambda: standing() == {"moved": "back", "bare": None, "aside": "side", "out": None})
    await world.until(lambda: waiting() == {"moved", "bare"})
    repo.write("policy.yaml", policy)
    await world.until(lambda: standing() == {"moved": "front", "bare": "side", "aside": "side", "out": None})


async def test_an_invalid_tool_names_the_commit_that_it_is_wrong_in(repo: Repo, start: Any) -> None:
    repo.tool("one")
    repo.commit()
    world = await start()
    await world.until(lambda: world.names == ["one"])
    repo.write("one.yaml", "kind: Tool\ndescription: [a, b\n")
    await world.until(lambda: world.tool("one").status == "Invalid")
    commit = repo.git("rev-parse", "HEAD")
    assert world.tool("one").problem.endswith(f"\nIn commit {commit[:12]}, with changes that are not committed.")
    bad = repo.commit("Break it")
    await world.until(lambda: world.tool("one").problem.endswith(f"\nIn commit {bad[:12]}."))
    repo.commit("Something else")
    await world.reconciler.sync_now()
    assert world.tool("one").problem.endswith(f"\nIn commit {bad[:12]}.")
    repo.write("one.yaml", "kind: Tool\n")
    repo.write("one.py", "def one(:\n")
    worse = repo.commit("Break its code")
    await world.until(lambda: f"In commit {worse[:12]}." in world.tool("one").problem)
    assert world.tool("one").problem.startswith("one.py:1:9: ")


async def test_yaml_that_is_wrong_is_told_with_line_and_column_and_the_tool_goes_on(repo: Repo, start: Any) -> None:
    repo.tool("one")
    world = await start()
    await world.until(lambda: world.names == ["one"])
    digest = world.tool("one").digest
    repo.write("one.yaml", "kind: Tool\nlimits:\n  timeout: 10s\n   memory: 1MiB\n")
    await world.until(lambda: world.reconciler.status.problems)
    [problem] = world.reconciler.status.problems
    assert (problem.path, problem.line, problem.column) == ("one.yaml", 4, 10)
    assert (world.tool("one").digest, world.tool("one").status) == (digest, "Invalid")
    assert world.tool("one").problem.startswith("one.yaml:4:10: ")
