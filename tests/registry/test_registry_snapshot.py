"""A snapshot that was loaded step by step says what one loaded at once says."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry_samples import ALICE, GIT, delete, put

from portoser.catalog.change import DeleteGroup, MarkTool, OverrideGroup, PutGroup, PutPolicy
from portoser.catalog.errors import Conflict
from portoser.catalog.group import Group
from portoser.catalog.policy import Policy, Role
from portoser.catalog.tool import ToolStatus
from portoser.registry.changes import RegistryWriter
from portoser.registry.snapshot import EMPTY, load

NAMES = st.sampled_from(["a", "b", "c", "d"])
OWNERS = st.sampled_from([GIT, "rest:bob"])
GROUPS = st.sampled_from(["g", "h"])
PERMISSIONS = st.sampled_from([None, (), ("operator",), ("operator", "admin")])

STEPS = st.one_of(
    st.builds(
        lambda name, owner, text, group, permissions: ("put", name, owner, text, group, permissions),
        NAMES, OWNERS, st.sampled_from("12"), st.none() | GROUPS, PERMISSIONS,
    ),
    st.tuples(st.just("delete"), NAMES, OWNERS),
    st.tuples(st.just("mark"), NAMES, OWNERS, st.sampled_from([ToolStatus.INVALID, ToolStatus.SYNCED])),
    st.tuples(st.just("hand over"), NAMES, OWNERS),
    st.tuples(st.just("group"), GROUPS, st.booleans(), PERMISSIONS.filter(lambda value: value is not None)),
    st.tuples(st.just("no group"), GROUPS),
    st.tuples(st.just("override"), GROUPS, st.sampled_from([True, False, None])),
    st.tuples(st.just("policy"), st.sampled_from(["x", "y"])),
)  # fmt: skip


def changes_of(step, snapshot):
    """The changes of a step, with the versions that stand; some do not fit, and are refused."""
    kind, name, *rest = step
    served = snapshot.tools.get(name)
    version = served.registered.version if served else None
    match kind:
        case "put":
            owner, text, group, permissions = rest
            return [put(name, text, owner=owner, expected=version, group=group, permissions=permissions)]
        case "delete":
            return [delete(name, version or 1, owner=rest[0])]
        case "mark":
            return [MarkTool(name=name, owner=rest[0], status=rest[1], problem="p")]
        case "hand over":
            other = GIT if rest[0] != GIT else "rest:bob"
            return [delete(name, version or 1, owner=rest[0]), put(name, owner=other)]
        case "group":
            return [PutGroup(group=Group(name=name, owner=GIT, enabled=rest[0], permissions=rest[1]))]
        case "no group":
            return [DeleteGroup(name=name, owner=GIT)]
        case "override":
            return [OverrideGroup(name=name, owner="rest:bob", enabled=rest[0], reason="r")]
        case _:
            return [PutPolicy(policy=Policy(roles={Role.EDITOR: (name,)}), owner=GIT)]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(STEPS, st.booleans()), max_size=25))
async def test_loading_what_changed_equals_loading_everything(database, steps):
    writer = RegistryWriter(database)
    async with database.acquire() as connection:
        followed = await load(connection, previous=None, enabled_groups=frozenset({"h"}))
        for step, look in steps:
            newest = await load(connection, previous=None, enabled_groups=frozenset({"h"}))
            try:
                await writer.apply(changes_of(step, newest), caller=ALICE)
            except Conflict:
                assert (await load(connection, previous=newest, enabled_groups=frozenset({"h"}))).same_content(newest)
            if look:  # a replica may sleep through several generations
                followed = await load(connection, previous=followed, enabled_groups=frozenset({"h"}))
        followed = await load(connection, previous=followed, enabled_groups=frozenset({"h"}))
        newest = await load(connection, previous=None, enabled_groups=frozenset({"h"}))
    assert followed.generation == newest.generation
    assert followed.same_content(newest)
    assert list(followed.tools) == sorted(followed.tools)


async def test_what_did_not_change_is_shared_with_the_snapshot_before(database):
    writer = RegistryWriter(database)
    await writer.apply([put("a"), put("b"), put("c", group="g")], caller=ALICE)
    async with database.acquire() as connection:
        before = await load(connection, previous=EMPTY, enabled_groups=frozenset())
        group = Group(name="g", owner=GIT, permissions=("operator",))
        await writer.apply([put("a", expected=1, commit="c2"), PutGroup(group=group)], caller=ALICE)
        after = await load(connection, previous=before, enabled_groups=frozenset())
    assert after.tools["b"] is before.tools["b"]
    assert after.tools["a"].registered.revision is before.tools["a"].registered.revision
    assert after.tools["c"].permissions == ("operator",)
    assert before.tools["c"].permissions == ()


async def test_groups_named_at_start_are_on_unless_an_operator_says_otherwise(database):
    writer = RegistryWriter(database)
    off = [PutGroup(group=Group(name=name, owner=GIT, enabled=False)) for name in ("g", "h")]
    await writer.apply([*off, put("a", group="g"), put("b", group="h")], caller=ALICE)
    async with database.acquire() as connection:
        snapshot = await load(connection, previous=None, enabled_groups=frozenset({"g"}))
        assert [tool.enabled for tool in snapshot.tools.values()] == [True, False]
        await writer.apply([OverrideGroup(name="g", owner="rest:bob", enabled=False, reason="r")], caller=ALICE)
        snapshot = await load(connection, previous=snapshot, enabled_groups=frozenset({"g"}))
        assert [tool.enabled for tool in snapshot.tools.values()] == [False, False]


async def test_an_override_holds_until_it_expires(database):
    writer = RegistryWriter(database)
    now = datetime.now(UTC)
    end = now + timedelta(hours=1)
    override = OverrideGroup(name="g", owner="rest:bob", enabled=False, reason="r", expires_at=end)
    await writer.apply([put("a", group="g"), override], caller=ALICE)
    async with database.acquire() as connection:
        during = await load(connection, previous=None, enabled_groups=frozenset(), now=now)
        after = await load(connection, previous=during, enabled_groups=frozenset(), now=end)
    assert (during.tools["a"].enabled, during.next_expiry) == (False, end)
    assert (after.tools["a"].enabled, after.next_expiry, after.generation) == (True, None, during.generation)


async def test_a_database_that_went_back_is_read_anew(database, dsns):
    writer = RegistryWriter(database)
    await writer.apply([put("a")], caller=ALICE)
    async with database.acquire() as connection:
        before = await load(connection, previous=None, enabled_groups=frozenset())
        await connection.execute("UPDATE mcp_registry SET generation = 0")
        await connection.execute("UPDATE mcp_tools SET deleted_at = now()")
        after = await load(connection, previous=before, enabled_groups=frozenset())
    assert (after.generation, dict(after.tools)) == (0, {})


async def test_a_snapshot_cannot_be_changed(database):
    async with database.acquire() as connection:
        snapshot = await load(connection, previous=None, enabled_groups=frozenset())
    with pytest.raises(AttributeError):
        snapshot.generation = 7
    with pytest.raises(TypeError):
        snapshot.tools["a"] = None
