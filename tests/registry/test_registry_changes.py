"""Changes against a real Postgres: who may change what, and that nothing is ever half-applied."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest
from registry_samples import ALICE, GIT, a_revision, delete, desired, put

from portoser.catalog.change import (
    DeleteGroup,
    MarkTool,
    OverrideGroup,
    PutGroup,
    PutPolicy,
    PutTool,
)
from portoser.catalog.errors import Conflict, NotFound, PortoserError, Unavailable
from portoser.catalog.group import Group
from portoser.catalog.policy import Policy, PowerRule, Role
from portoser.catalog.revision import Example, SourceFile
from portoser.catalog.tool import ToolStatus
from portoser.registry import history
from portoser.registry.changes import RegistryWriter
from portoser.registry.snapshot import load


@pytest.fixture
def writer(database):
    return RegistryWriter(database)


@pytest.fixture
def apply(writer):
    async def applied(*changes, **options):
        return await writer.apply(changes, caller=ALICE, **options)

    return applied


@pytest.fixture
def snapshot(database):
    async def loaded():
        async with database.acquire() as connection:
            return await load(connection, previous=None, enabled_groups=frozenset())

    return loaded


@pytest.fixture
def rows(database):
    async def fetched(statement, *arguments):
        async with database.acquire() as connection:
            return [dict(record) for record in await connection.fetch(statement, *arguments)]

    return fetched


async def test_a_created_tool_has_an_id_a_version_a_history_and_its_code(apply, snapshot, database):
    applied = await apply(put("add", group="math", permissions=("operator",)))
    assert (applied.generation, applied.changed, applied.tools) == (1, True, {"add": 1})
    tool = (await snapshot()).tools["add"].registered
    assert (tool.owner, tool.version, tool.group, tool.permissions) == (GIT, 1, "math", ("operator",))
    assert tool.provenance.commit == "c1"
    assert tool.revision == msgspec.structs.replace(a_revision(), files=())
    [version] = await history.versions(database, "add")
    assert (version.version, version.digest, version.commit) == (1, tool.digest, "c1")
    assert await history.revision(database, tool.digest) == a_revision()


async def test_a_revision_comes_back_exactly_as_it_was_admitted(apply, snapshot, database):
    declared = {
        "input_schema": {"zeta": 1, "alpha": {"y": 1.0, "x": [1e22, None, "\x00é"]}, "$defs": {}},
        "examples": (Example(call={"b": 1, "a": 2}, expect=None), Example(call={"c": 3})),
        "uses": {"vault": ["orders/*"], "network": ["a:443"]},
        "requires": ("httpx==0.28.1",),
    }
    revision = a_revision(**declared)
    revision = msgspec.structs.replace(
        revision, files=(SourceFile("b.py", "B = 1\n"), SourceFile("a.py", "from b import B\n"), *revision.files)
    )
    await apply(PutTool(desired=msgspec.structs.replace(desired("add"), revision=revision)))
    stored = await history.revision(database, revision.digest)
    assert stored == revision
    assert list(stored.input_schema["alpha"]) == ["y", "x"]
    served = (await snapshot()).tools["add"]
    assert served.listing_digest == revision.listing_digest()


async def test_a_new_revision_is_a_new_version_and_metadata_alone_is_not(apply, snapshot, rows):
    await apply(put("add"))
    await apply(put("add", "2", expected=1))
    applied = await apply(put("add", "2", expected=2, permissions=("operator",)))
    assert applied.tools == {"add": 2}
    assert (await snapshot()).tools["add"].permissions == ("operator",)
    history_rows = await rows("SELECT version, digest FROM mcp_tool_versions ORDER BY version")
    assert [row["digest"] for row in history_rows] == [a_revision("1").digest, a_revision("2").digest]


async def test_provenance_is_refreshed_though_the_digest_is_equal(apply, snapshot):
    await apply(put("add", commit="c1"))
    applied = await apply(put("add", expected=1, commit="c2"))
    assert applied.changed
    tool = (await snapshot()).tools["add"].registered
    assert (tool.version, tool.provenance.commit) == (1, "c2")


async def test_what_is_already_so_changes_nothing_but_also_still_runs(apply, rows):
    await apply(put("add"), PutGroup(group=Group(name="math", owner=GIT)))
    ran = []

    async def also(connection, generation):
        ran.append((generation, await connection.fetchval("SELECT generation FROM mcp_registry")))

    applied = await apply(put("add", expected=1), PutGroup(group=Group(name="math", owner=GIT)), also=also)
    assert (applied.generation, applied.changed, applied.tools) == (1, False, {"add": 1})
    assert (await apply(also=also)).changed is False
    assert ran == [(1, 1), (1, 1)]
    assert len(await rows("SELECT 1 FROM mcp_audit_logs")) == 2


async def test_another_owners_tool_is_never_touched_and_the_refusal_names_its_place(apply, rows):
    await apply(put("add"))
    before = await rows("SELECT * FROM mcp_tools")
    for change in (
        put("add", "2", owner="rest:bob", commit=None),
        put("add", "2", owner="rest:bob", commit=None, expected=1),
        delete("add", owner="rest:bob"),
        MarkTool(name="add", owner="rest:bob", status=ToolStatus.INVALID, problem="no"),
    ):
        with pytest.raises(Conflict, match=r"belongs to git:main, declared in add\.yaml at commit c1; rest:bob"):
            await apply(change)
    assert await rows("SELECT * FROM mcp_tools") == before


async def test_a_tombstone_comes_back_with_its_id_and_history(apply, snapshot, database):
    await apply(put("add"))
    born = (await snapshot()).tools["add"].registered
    await apply(delete("add"))
    assert "add" not in (await snapshot()).tools
    assert len(await history.versions(database, "add")) == 1
    applied = await apply(put("add", "2", restore=True))
    tool = (await snapshot()).tools["add"].registered
    assert (tool.id, tool.version, tool.status, applied.tools) == (born.id, 2, ToolStatus.SYNCED, {"add": 2})
    assert [version.version for version in await history.versions(database, "add")] == [2, 1]


async def test_a_tombstone_whose_file_is_added_again_unchanged_lives_again(apply, snapshot):
    await apply(put("add"))
    await apply(delete("add"))
    await apply(put("add"))
    assert (await snapshot()).tools["add"].registered.version == 1


async def test_a_new_owner_of_an_old_name_is_a_new_tool(apply, snapshot, database):
    await apply(put("add"), put("sub"))
    old = (await snapshot()).tools
    await apply(delete("add"))
    await apply(put("add", owner="rest:bob", commit=None))
    await apply(delete("sub"), put("sub", owner="rest:bob", commit=None))
    new = (await snapshot()).tools
    for name in ("add", "sub"):
        assert new[name].registered.id != old[name].registered.id
        [version] = await history.versions(database, name)
        assert (version.version, version.author) == (1, "alice")
    with pytest.raises(Conflict, match="belongs to rest:bob"):
        await apply(put("add", restore=True))
    await apply(delete("add", owner="rest:bob"), put("add", "3", restore=True))
    assert (await snapshot()).tools["add"].registered.id == old["add"].registered.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("add", "2"), "There is a tool 'add' already, at version 1"),
        (put("add", "2", expected=7), "at version 1 by now; the change was made for version 7"),
        (put("gone", expected=1), "There is no tool 'gone'"),
        (delete("add", 2), "made for version 2"),
        (delete("gone"), "There is no tool 'gone'"),
        (put("new", restore=True), "no deleted tool 'new' of git:main"),
        (MarkTool(name="gone", owner=GIT, status=ToolStatus.INVALID), "There is no tool 'gone'"),
        (DeleteGroup(name="math", owner=GIT), "There is no group 'math' of git:main"),
    ],
)
async def test_a_change_that_does_not_fit_what_stands_is_a_conflict_and_nothing_is_applied(
    apply, rows, change, message
):
    await apply(put("add"))
    with pytest.raises(Conflict, match=message):
        await apply(put("other"), change)
    assert [row["name"] for row in await rows("SELECT name FROM mcp_tools")] == ["add"]
    assert await rows("SELECT generation FROM mcp_registry") == [{"generation": 1}]


async def test_every_conflict_is_told_at_once(apply):
    with pytest.raises(Conflict) as refusal:
        await apply(delete("one"), delete("two"))
    assert "'one'" in str(refusal.value)
    assert "'two'" in str(refusal.value)


async def test_a_stale_base_generation_is_a_conflict(apply):
    await apply(put("add"))
    with pytest.raises(Conflict, match="generation 1 by now; the changes were made for 0"):
        await apply(put("sub"), base_generation=0)
    assert (await apply(put("sub"), base_generation=1)).generation == 2


async def test_one_set_cannot_say_two_things_of_one_tool(apply):
    for changes in (
        [put("add"), put("add", "2")],
        [delete("add"), put("add")],
        [put("add"), MarkTool(name="add", owner=GIT, status=ToolStatus.INVALID)],
        [PutGroup(group=Group(name="add", owner=GIT)), DeleteGroup(name="add", owner=GIT)],
    ):
        with pytest.raises(PortoserError, match="speaks twice of: add"):
            await apply(*changes)


async def test_fewer_rows_than_planned_roll_everything_back(apply, rows, dsns):
    await apply(put("add"), put("sub"))
    owner = await asyncpg.connect(dsns.owner)
    await owner.execute(
        """
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER swallow BEFORE UPDATE ON mcp_tools FOR EACH ROW
            WHEN (old.name = 'sub') EXECUTE FUNCTION swallow()
        """
    )
    await owner.close()
    before = await rows("SELECT * FROM mcp_tools ORDER BY name")
    with pytest.raises(Conflict, match="3 tools to write, 2 as expected"):
        await apply(put("add", "2", expected=1), put("sub", "2", expected=1), put("new"))
    assert await rows("SELECT * FROM mcp_tools ORDER BY name") == before
    assert len(await rows("SELECT 1 FROM mcp_tool_versions")) == 2
    assert await rows("SELECT generation FROM mcp_registry") == [{"generation": 1}]
    assert len(await rows("SELECT 1 FROM mcp_audit_logs")) == 2


async def test_when_also_fails_nothing_was_applied(apply, rows):
    async def also(connection, generation):
        await connection.execute("INSERT INTO mcp_admissions (key, outcome) VALUES ('k', $1)", {"a": 1})
        raise NotFound("the run is gone")

    with pytest.raises(NotFound):
        await apply(put("add"), also=also)
    assert await rows("SELECT 1 FROM mcp_tools UNION ALL SELECT 1 FROM mcp_admissions") == []


async def test_replicas_are_notified_of_the_generation_alone_and_only_of_changes(apply, dsns):
    heard = asyncio.Queue()
    listener = await asyncpg.connect(dsns.server)
    await listener.add_listener("portoser_generation", lambda *notification: heard.put_nowait(notification[3]))
    await apply(put("add"))
    await apply(put("add", expected=1))
    await apply(delete("add"))
    async with asyncio.timeout(5):
        assert [await heard.get(), await heard.get()] == ["1", "2"]
    assert heard.empty()
    await listener.close()


async def test_marking_a_tool_keeps_what_is_served(apply, snapshot):
    await apply(put("add"))
    await apply(MarkTool(name="add", owner=GIT, status=ToolStatus.INVALID, problem="add.py:1: no"))
    marked = (await snapshot()).tools["add"].registered
    assert (marked.status, marked.problem, marked.version) == (ToolStatus.INVALID, "add.py:1: no", 1)
    again = await apply(MarkTool(name="add", owner=GIT, status=ToolStatus.INVALID, problem="add.py:1: no"))
    assert again.changed is False
    await apply(put("add", expected=1))
    assert (await snapshot()).tools["add"].registered.status is ToolStatus.SYNCED


async def test_a_group_belongs_to_who_declares_it_and_anybody_may_override_it(apply, snapshot):
    group = Group(name="math", owner=GIT, enabled=False, permissions=("operator",), path="math/group.yaml")
    await apply(PutGroup(group=group), put("add", group="math"))
    for change in (
        PutGroup(group=msgspec.structs.replace(group, owner="rest:bob")),
        DeleteGroup(name="math", owner="rest:bob"),
    ):
        with pytest.raises(Conflict, match=r"'math' belongs to git:main \(math/group\.yaml\)"):
            await apply(change)
    served = (await snapshot()).tools["add"]
    assert (served.permissions, served.enabled) == (("operator",), False)
    await apply(OverrideGroup(name="math", owner="rest:bob", enabled=True, reason="incident 7"))
    now = await snapshot()
    assert now.tools["add"].enabled
    assert (now.groups["math"].declared, now.groups["math"].override.by) == (group, "alice")
    await apply(DeleteGroup(name="math", owner=GIT))
    now = await snapshot()
    assert now.groups["math"].declared is None
    assert now.tools["add"].permissions == ()
    await apply(OverrideGroup(name="math", owner="rest:bob", enabled=None, reason="over"))
    assert (await snapshot()).groups == {}


async def test_expired_overrides_are_taken_back_and_running_ones_stay(apply, writer, snapshot, rows):
    now = datetime.now(UTC)
    await apply(
        OverrideGroup(name="old", owner="rest:bob", enabled=False, reason="r", expires_at=now - timedelta(seconds=1)),
        OverrideGroup(name="new", owner="rest:bob", enabled=False, reason="r", expires_at=now + timedelta(hours=1)),
    )
    loaded = await snapshot()
    assert loaded.disabled_groups == {"new"}
    assert loaded.next_expiry == now + timedelta(hours=1)
    assert (await writer.end_expired_overrides()).changed
    assert await writer.end_expired_overrides() is None
    assert list((await snapshot()).groups) == ["new"]
    [entry] = await rows("SELECT caller_subject, reason FROM mcp_audit_logs WHERE reason = 'expired'")
    assert entry["caller_subject"] == "housekeeping"


async def test_only_its_owner_changes_the_policy(apply, snapshot, database):
    policy = Policy(
        roles={Role.ADMIN: ("platform",)},
        clients={"cursor": ("examples",)},
        powers=(PowerRule(grants={"vault": ["orders/*"]}, owner=GIT),),
    )
    await apply(PutPolicy(policy=policy, owner=GIT, path="policy.yaml"))
    loaded = await snapshot()
    assert (loaded.policy, loaded.policy_owner) == (policy, GIT)
    assert (await apply(PutPolicy(policy=policy, owner=GIT, path="policy.yaml"))).changed is False
    with pytest.raises(Conflict, match="policy belongs to git:main; git:other"):
        await apply(PutPolicy(policy=Policy(), owner="git:other"))
    moved = RegistryWriter(database, authority="git:other")
    with pytest.raises(Conflict, match="belongs to git:other"):
        await moved.apply([PutPolicy(policy=policy, owner=GIT)], caller=ALICE)
    await moved.apply([PutPolicy(policy=Policy(), owner="git:other")], caller=ALICE)
    assert (await snapshot()).policy == Policy()


async def test_each_change_is_an_audit_entry_and_no_change_is_none(apply, rows):
    await apply(put("add", permissions=("operator",)))
    await apply(put("add", "2", expected=1, commit="c2", permissions=None))
    await apply(delete("add", 2))
    await apply(put("add", "2", restore=True))
    entries = await rows(
        "SELECT event, tool, version, caller_subject, owner, arguments, seq FROM mcp_audit_logs ORDER BY seq"
    )
    assert [entry["event"] for entry in entries] == ["tool.created", "tool.updated", "tool.deleted", "tool.restored"]
    assert [entry["version"] for entry in entries] == [1, 2, 2, 2]
    assert {entry["caller_subject"] for entry in entries} == {"alice"}
    changed = entries[1]["arguments"]["changed"]
    assert changed["permissions"] == [["operator"], None]
    assert changed["digest"] == [a_revision("1").digest, a_revision("2").digest]
    assert [entry["arguments"]["generation"] for entry in entries] == [1, 2, 3, 4]


async def test_what_postgres_cannot_hold_is_refused_with_a_clear_error(apply, rows):
    bad = desired("add")
    bad = msgspec.structs.replace(bad, provenance=msgspec.structs.replace(bad.provenance, author="a\x00b"))
    with pytest.raises(PortoserError, match="cannot hold"):
        await apply(PutTool(desired=bad))
    assert await rows("SELECT 1 FROM mcp_tools") == []


async def test_many_writers_at_once_come_one_after_the_other(apply, rows):
    applied = await asyncio.gather(*(apply(put(f"tool{number}")) for number in range(20)))
    assert sorted(result.generation for result in applied) == list(range(1, 21))
    first = await asyncio.gather(*(apply(put("contended", str(number))) for number in range(6)), return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in first) == 5
    assert len(await rows("SELECT 1 FROM mcp_tools WHERE name = 'contended'")) == 1


async def test_a_change_that_waits_too_long_for_another_is_unavailable(apply, database, monkeypatch):
    monkeypatch.setattr("portoser.registry.changes._LONGEST_WAIT", "50ms")
    async with database.acquire() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM mcp_registry FOR UPDATE")
        with pytest.raises(Unavailable, match="Another change"):
            await apply(put("add"))


async def test_ten_thousand_tools_are_one_set_of_changes(apply, snapshot, rows, record_property):
    changes = [put(f"tool.{number}", str(number)) for number in range(10_000)]
    started = time.perf_counter()
    await apply(*changes)
    record_property("apply_10000_new_s", time.perf_counter() - started)
    again = [put(f"tool.{number}", str(number), expected=1, commit="c2") for number in range(10_000)]
    started = time.perf_counter()
    applied = await apply(*again)
    record_property("apply_10000_refreshed_s", time.perf_counter() - started)
    assert applied.generation == 2
    started = time.perf_counter()
    loaded = await snapshot()
    record_property("load_10000_s", time.perf_counter() - started)
    assert len(loaded.tools) == 10_000
    assert (await rows("SELECT count(*) FROM mcp_audit_logs")) == [{"count": 20_000}]
