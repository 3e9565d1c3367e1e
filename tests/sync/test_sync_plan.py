"""The plan makes the registry equal to the source, touches nothing of others, and is the same for the same states."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from portoser.catalog.change import Change, DeleteGroup, DeleteTool, MarkTool, PutGroup, PutPolicy, PutTool
from portoser.catalog.errors import Problem
from portoser.catalog.group import Group, RegisteredGroup
from portoser.catalog.policy import Policy, Role
from portoser.catalog.revision import Revision, SourceFile
from portoser.catalog.tool import DesiredTool, Provenance, RegisteredTool, ToolStatus
from sync import guards, report
from sync.plan import hidden_by, make_plan
from sync.planned import Desired, Op, Plan, Registered, WantedTool

OWNER = "git:main"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def revision(code: str = "1", **schema: Any) -> Revision:
    return Revision(
        digest=f"digest-{code}-{sorted(schema.items())!r}",
        files=(SourceFile("x.py", code),),
        entrypoint="x.py:x",
        description="x",
        input_schema={"type": "object", "properties": {}, **schema},
    )


def wanted(name: str, code: str = "1", *, adopt: bool = False, **fields: Any) -> WantedTool:
    path = fields.pop("path", f"{name}.yaml")
    schema = fields.pop("schema", {})
    commit = fields.pop("commit", None)
    provenance = Provenance(source="main", path=path, commit=commit)
    desired = DesiredTool(name=name, owner=OWNER, revision=revision(code, **schema), provenance=provenance, **fields)
    return WantedTool(desired=desired, line=1, adopt=adopt)


def registered(tool: WantedTool, *, owner: str = OWNER, **fields: Any) -> RegisteredTool:
    desired = tool.desired
    given: dict[str, Any] = {
        "id": desired.name,
        "version": 1,
        "group": desired.group,
        "permissions": desired.permissions,
        "provenance": desired.provenance,
        "generation": 1,
        "created_at": AT,
        "updated_at": AT,
        "revision": msgspec.structs.replace(desired.revision, files=()),
        **fields,
    }
    return RegisteredTool(name=desired.name, owner=owner, **given)


def state(*tools: RegisteredTool, **fields: Any) -> Registered:
    return Registered(generation=7, tools={tool.name: tool for tool in tools}, **fields)


def desired(*tools: WantedTool, **fields: Any) -> Desired:
    return Desired(owner=OWNER, tools=tools, **fields)


def ops(plan: Plan) -> list[tuple[str, str]]:
    return [(change.op.value, change.name) for change in plan.changes]


def test_equal_states_need_nothing() -> None:
    plan = make_plan(desired(wanted("a"), wanted("b")), state(registered(wanted("a")), registered(wanted("b"))))
    assert plan.is_empty
    assert plan.summary == {"unchanged": 2}


def test_create_update_delete_and_restore() -> None:
    plan = make_plan(
        desired(wanted("a"), wanted("b", "2"), wanted("d")),
        state(registered(wanted("b"), version=4), registered(wanted("c", "9"), version=2), tombstones=frozenset({"d"})),
    )
    assert ops(plan) == [("create", "a"), ("update", "b"), ("delete", "c"), ("restore", "d")]
    create, update, delete, restore = (planned.changes[0] for planned in plan.changes)
    assert isinstance(create, PutTool)
    assert (create.expected_version, create.restore) == (None, False)
    assert isinstance(update, PutTool)
    assert update.expected_version == 4
    assert isinstance(delete, DeleteTool)
    assert (delete.owner, delete.expected_version) == (OWNER, 2)
    assert isinstance(restore, PutTool)
    assert restore.restore


def test_an_update_says_which_fields_differ() -> None:
    old = registered(wanted("a"))
    cases = {
        ("code",): wanted("a", "2"),
        ("inputSchema",): wanted("a", schema={"required": ["x"]}),
        ("group",): wanted("a", group="g"),
        ("permissions",): wanted("a", permissions=()),
        ("provenance",): wanted("a", commit="abc"),
    }
    for fields, tool in cases.items():
        [change] = make_plan(desired(tool), state(old)).changes
        assert change.fields == fields


def test_refreshing_provenance_alone_keeps_the_commit_that_brought_the_tool_in() -> None:
    provenance = Provenance(source="main", path="a.yaml", commit="old", applied_commit="old")
    tool = wanted("a", commit="new")
    [change] = make_plan(desired(tool), state(registered(tool, provenance=provenance))).to_apply()
    assert isinstance(change, PutTool)
    assert (change.desired.provenance.commit, change.desired.provenance.applied_commit) == ("new", "old")


def test_a_new_head_alone_changes_nothing() -> None:
    tool = wanted("a", commit="same")
    old = msgspec.structs.replace(tool.desired.provenance, applied_commit="older head")
    assert make_plan(desired(tool), state(registered(tool, provenance=old))).is_empty


def test_an_invalid_tool_is_marked_and_kept_and_marked_once() -> None:
    problem = Problem(path="a.yaml", line=3, column=1, message="Wrong.", tool="a")
    want = desired(invalid={"a": (problem,), "new": (problem,)})
    plan = make_plan(want, state(registered(wanted("a"))))
    assert ops(plan) == [("invalid", "a")]
    [mark] = plan.to_apply()
    assert mark == MarkTool(name="a", owner=OWNER, status=ToolStatus.INVALID, problem="a.yaml:3:1: Wrong.")
    told = registered(wanted("a"), status=ToolStatus.INVALID, problem="a.yaml:3:1: Wrong.")
    assert make_plan(want, state(told)).is_empty


def test_a_tool_that_is_as_declared_again_recovers() -> None:
    ill = registered(wanted("a"), status=ToolStatus.INVALID, problem="Wrong.")
    plan = make_plan(desired(wanted("a")), state(ill))
    assert ops(plan) == [("recover", "a")]
    assert plan.to_apply() == [MarkTool(name="a", owner=OWNER, status=ToolStatus.SYNCED)]


def test_what_stands_in_an_unreadable_file_or_below_an_unreadable_folder_is_kept() -> None:
    tools = [registered(wanted("a", path="x/a.yaml")), registered(wanted("b", path="b.yaml"))]
    broken = {"x": Problem(path="x", message="Denied."), "b.yaml": Problem(path="b.yaml", message="Not YAML.")}
    plan = make_plan(desired(wanted("c"), broken_paths=broken), state(*tools))
    assert ops(plan) == [("invalid", "a"), ("invalid", "b"), ("create", "c")]
    assert hidden_by("xy/a.yaml", broken) is None
    assert hidden_by(None, broken) is None


def test_a_name_of_another_owner_is_a_conflict_told_on_both_sides() -> None:
    theirs = registered(wanted("a", "9"), owner="rest:ada")
    plan = make_plan(desired(wanted("a")), state(theirs))
    assert ops(plan) == [("conflict", "a")]
    [mark] = plan.to_apply()
    assert isinstance(mark, MarkTool)
    assert (mark.owner, mark.status) == ("rest:ada", ToolStatus.CONFLICT)
    assert "adopt: true" in plan.errors[0].advice
    told = registered(wanted("a", "9"), owner="rest:ada", status=ToolStatus.CONFLICT, problem=mark.problem)
    again = make_plan(desired(wanted("a")), state(told))
    assert again.is_empty
    assert len(again.errors) == 1
    over = make_plan(desired(wanted("b")), state(told, registered(wanted("b"))))
    assert over.to_apply() == [MarkTool(name="a", owner="rest:ada", status=ToolStatus.SYNCED)]


def test_a_conflict_with_another_source_is_left_to_that_source() -> None:
    theirs = registered(wanted("a"), owner="rest:ada", status=ToolStatus.CONFLICT, problem="git:other declares it too.")
    assert make_plan(desired(), state(theirs)).is_empty


def test_a_manifest_may_adopt_a_rest_tool_and_nothing_else() -> None:
    theirs = registered(wanted("a", "9"), owner="rest:ada", version=3)
    plan = make_plan(desired(wanted("a", adopt=True)), state(theirs))
    assert ops(plan) == [("adopt", "a")]
    delete, put = plan.to_apply()
    assert delete == DeleteTool(name="a", owner="rest:ada", expected_version=3)
    assert isinstance(put, PutTool)
    assert put.expected_version is None
    other = registered(wanted("a", "9"), owner="git:other")
    assert ops(make_plan(desired(wanted("a", adopt=True)), state(other))) == [("conflict", "a")]


def test_a_rename_is_told_as_one_and_not_counted_as_a_prune() -> None:
    plan = make_plan(desired(wanted("new")), state(registered(wanted("old"))))
    assert ops(plan) == [("create", "new"), ("delete", "old")]
    assert plan.changes[0].renamed_from == "old"
    assert plan.pruned == ()


def test_groups_come_change_and_go_but_never_those_of_others() -> None:
    mine = Group(name="mine", owner=OWNER, path="mine/group.yaml")
    theirs = Group(name="theirs", owner="git:other")
    gone = Group(name="gone", owner=OWNER, path="gone/group.yaml")
    groups = {
        "mine": RegisteredGroup(name="mine", declared=msgspec.structs.replace(mine, enabled=False)),
        "theirs": RegisteredGroup(name="theirs", declared=theirs),
        "gone": RegisteredGroup(name="gone", declared=gone),
        "override": RegisteredGroup(name="override"),
    }
    new = Group(name="override", owner=OWNER)
    want = desired(groups=(mine, msgspec.structs.replace(theirs, owner=OWNER), new))
    plan = make_plan(want, state(groups=groups))
    assert plan.to_apply() == [
        DeleteGroup(name="gone", owner=OWNER),
        PutGroup(group=mine),
        PutGroup(group=new),
    ]
    assert "belongs to git:other" in plan.errors[0].message
    kept = make_plan(desired(groups=(mine,), broken_groups=frozenset({"gone"})), state(groups=groups))
    assert [change.name for change in kept.changes] == ["mine"]
    problem = Problem(path="gone/group.yaml", message="Not YAML.")
    hidden = make_plan(desired(groups=(mine,), broken_paths={"gone/group.yaml": problem}), state(groups=groups))
    assert [change.name for change in hidden.changes] == ["mine"]


def test_a_tool_waits_for_a_new_group_that_is_wrong_but_not_for_an_old_one() -> None:
    want = desired(wanted("a", group="g"), broken_groups=frozenset({"g"}))
    plan = make_plan(want, state())
    assert plan.is_empty
    assert "nobody knows who may call the tool" in plan.errors[0].message
    old = {"g": RegisteredGroup(name="g", declared=Group(name="g", owner=OWNER))}
    assert ops(make_plan(want, state(groups=old))) == [("create", "a")]


def test_the_policy_is_put_kept_while_unknown_and_emptied_with_its_file() -> None:
    policy = Policy(roles={Role.ADMIN: ("boss",)})
    put = make_plan(desired(policy=policy, policy_path="policy.yaml"), state())
    assert put.to_apply() == [PutPolicy(policy=policy, owner=OWNER, path="policy.yaml")]
    held = {"policy": policy, "policy_owner": OWNER}
    assert make_plan(desired(policy=policy), state(**held)).is_empty
    assert make_plan(desired(policy_is_unknown=True), state(**held)).is_empty
    assert make_plan(desired(), state(**held)).to_apply() == [PutPolicy(policy=Policy(), owner=OWNER)]
    assert make_plan(desired(), state(policy_owner=OWNER)).is_empty
    other = make_plan(desired(policy=Policy()), state(policy=policy, policy_owner="git:other"))
    assert other.is_empty
    assert "belongs to git:other" in other.errors[0].message


def test_who_gains_and_who_loses_is_told() -> None:
    group = Group(name="g", owner=OWNER, permissions=("ops",))
    old = registered(wanted("a", permissions=("dev", "ops")))
    plan = make_plan(desired(wanted("a", group="g"), groups=(group,)), state(old))
    access = plan.changes[1].access_impact
    assert (access.gains, access.loses) == ((), ("dev",))


def test_what_breaks_a_caller_of_today_is_told() -> None:
    old = registered(wanted("a", schema={"properties": {"x": {"type": "string"}, "y": {"enum": ["p", "q"]}}}))
    new = wanted(
        "a",
        schema={"properties": {"y": {"enum": ["p"]}, "z": {"type": "integer"}}, "required": ["y", "z"]},
    )
    [change] = make_plan(desired(new), state(old)).changes
    assert change.schema_impact == (
        "the argument 'x' is gone",
        "the argument 'y' is required now",
        "a new argument 'z' is required",
        "the argument 'y' may no longer be 'q'",
    )


# Guards ----------------------------------------------------------------------------------------------------------


def owned(count: int) -> list[RegisteredTool]:
    return [registered(wanted(f"t{number:03}", str(number))) for number in range(count)]


def kept(count: int, of: int) -> list[WantedTool]:
    return [wanted(f"t{number:03}", str(number)) for number in range(of - count, of)]


def test_five_deletes_are_let_through_and_six_are_not() -> None:
    assert guards.check(make_plan(desired(*kept(15, 20)), state(*owned(20)))) == ()
    [guard] = guards.check(make_plan(desired(*kept(14, 20)), state(*owned(20))))
    assert guard.reason == "TooManyDeletes"
    assert "6 tools of 20 would be deleted" in guard.message


def test_of_many_tools_a_tenth_may_go() -> None:
    assert guards.check(make_plan(desired(*kept(180, 200)), state(*owned(200)))) == ()
    assert guards.check(make_plan(desired(*kept(179, 200)), state(*owned(200))))


def test_a_folder_that_declares_nothing_is_held_back_however_few_tools_it_had() -> None:
    [guard] = guards.check(make_plan(desired(), state(*owned(1))))
    assert guard.reason == "NothingDeclared"
    assert guards.check(make_plan(desired(), state())) == ()


def test_renames_and_tools_of_others_are_no_deletes() -> None:
    renamed = [wanted(f"new{number}", str(number)) for number in range(20)]
    assert guards.check(make_plan(desired(*renamed), state(*owned(20)))) == ()


# Reports ---------------------------------------------------------------------------------------------------------


def sample() -> Plan:
    problem = Problem(path="e.yaml", line=2, column=1, message="Wrong | `@you`.", tool="e")
    plan = make_plan(
        desired(
            wanted("a", permissions=("op",)), wanted("b", "2"), wanted("f"), invalid={"e": (problem,)}, commit="c" * 40
        ),
        state(
            registered(wanted("b")),
            registered(wanted("c", "8")),
            registered(wanted("e", "5")),
            registered(wanted("f")),
            *[registered(wanted(f"z{number}", f"z{number}")) for number in range(6)],
        ),
    )
    return msgspec.structs.replace(plan, guards=guards.check(plan), errors=(problem,))


def test_the_text_says_it_with_signs() -> None:
    text = report.as_text(sample())
    assert "+ a  a.yaml:1\n    may call it from now on: op\n" in text
    assert "~ b: code  b.yaml:1\n" in text
    assert "- c  c.yaml\n" in text
    assert "! e (invalid)  e.yaml\n    e.yaml:2:1: Wrong | `@you`.\n" in text
    assert "= 1 unchanged\n" in text
    assert "! held back: 7 tools of 10 would be deleted" in text
    assert text.endswith("1 created, 1 updated, 7 deleted, 1 invalid, 1 unchanged, 1 error.\n")


def test_the_json_is_plain_data() -> None:
    told = msgspec.json.decode(msgspec.json.encode(report.as_json(sample())))
    assert set(told) == {
        "plan_id", "owner", "base", "target", "generation", "summary", "changes", "guards", "errors"
    }  # fmt: skip
    assert told["changes"][0]["op"] == "create"
    assert told["changes"][0]["access_impact"] == {"gains": ["op"], "loses": []}


def test_the_markdown_is_a_harmless_comment_of_bounded_size() -> None:
    text = report.as_markdown(sample())
    assert "| `+` | `a` |" in text
    assert "@you" not in text
    assert "Wrong \\|" in text
    many = make_plan(desired(*[wanted(f"{'x' * 50}{number}") for number in range(5_000)]), state())
    shortened = report.as_markdown(many)
    assert len(shortened) < report.MARKDOWN_LIMIT
    assert "more changes." in shortened


# Properties ------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([f"t{number}" for number in range(8)])
PERMISSIONS = st.none() | st.sampled_from([(), ("a",), ("a", "b")])
CODES = st.sampled_from("123")
GROUPS = st.none() | st.sampled_from(["g", "h"])


@st.composite
def wanted_tools(draw: st.DrawFn) -> tuple[WantedTool, ...]:
    names = draw(st.sets(NAMES))
    return tuple(
        wanted(name, draw(CODES), permissions=draw(PERMISSIONS), group=draw(GROUPS), commit=draw(st.sampled_from("xy")))
        for name in sorted(names)
    )


@st.composite
def registered_states(draw: st.DrawFn) -> Registered:
    tools = [
        registered(
            wanted(
                name, draw(CODES), permissions=draw(PERMISSIONS), group=draw(GROUPS), commit=draw(st.sampled_from("xy"))
            ),
            owner=draw(st.sampled_from([OWNER, OWNER, "rest:ada", "git:other"])),
            version=draw(st.integers(1, 9)),
            status=draw(st.sampled_from([ToolStatus.SYNCED, ToolStatus.INVALID])),
        )
        for name in sorted(draw(st.sets(NAMES)))
    ]
    gone = draw(st.sets(NAMES)) - {tool.name for tool in tools}
    declared = {name: Group(name=name, owner=OWNER) for name in draw(st.sets(st.sampled_from(["g", "h"])))}
    groups = {name: RegisteredGroup(name=name, declared=group) for name, group in declared.items()}
    return state(*tools, tombstones=frozenset(gone), groups=groups)


@st.composite
def desired_states(draw: st.DrawFn) -> Desired:
    tools = draw(wanted_tools())
    problem = Problem(path="p", message="Wrong.")
    invalid = draw(st.sets(NAMES)) - {tool.desired.name for tool in tools}
    groups = tuple(
        Group(name=name, owner=OWNER, enabled=draw(st.booleans()))
        for name in sorted(draw(st.sets(st.sampled_from("gh"))))
    )
    return desired(*tools, invalid=dict.fromkeys(sorted(invalid), (problem,)), groups=groups)


def applied(changes: list[Change], registered_state: Registered) -> Registered:
    """The registry after some changes: a model of what the real one does, deletes first."""
    tools, groups = dict(registered_state.tools), dict(registered_state.groups)
    gone = set(registered_state.tombstones)
    for change in changes:
        if isinstance(change, DeleteTool):
            tool = tools.pop(change.name)
            assert (tool.owner, tool.version) == (change.owner, change.expected_version)
            if tool.owner == OWNER:
                gone.add(change.name)
    for change in changes:
        if isinstance(change, PutTool):
            old = tools.get(change.name)
            assert (old.version if old else None) == change.expected_version
            assert old is None or old.owner == change.owner
            assert change.restore == (old is None and change.name in gone)
            want = WantedTool(desired=change.desired)
            version = 1 if old is None else old.version + (old.digest != change.desired.revision.digest)
            tools[change.name] = registered(want, owner=change.owner, version=version)
            gone.discard(change.name)
        elif isinstance(change, MarkTool):
            tool = tools[change.name]
            assert tool.owner == change.owner
            tools[change.name] = msgspec.structs.replace(tool, status=change.status, problem=change.problem)
        elif isinstance(change, PutGroup):
            groups[change.name] = RegisteredGroup(name=change.name, declared=change.group)
        elif isinstance(change, DeleteGroup):
            del groups[change.name]
    return msgspec.structs.replace(registered_state, tools=tools, groups=groups, tombstones=frozenset(gone))


@settings(max_examples=150, deadline=None)
@given(desired_states(), registered_states())
def test_the_plan_applied_gives_what_is_wanted_and_then_there_is_nothing_left(want: Desired, have: Registered) -> None:
    plan = make_plan(want, have)
    after = applied(plan.to_apply(), have)
    assert make_plan(want, after).is_empty
    for tool in want.tools:
        name = tool.desired.name
        standing = after.tools[name]
        if have.tools.get(name) is not None and have.tools[name].owner != OWNER:
            assert standing.digest == have.tools[name].digest
        else:
            assert standing.owner == OWNER
            assert standing.digest == tool.desired.revision.digest
            assert (standing.group, standing.permissions) == (tool.desired.group, tool.desired.permissions)
            assert standing.status is ToolStatus.SYNCED
    for name, tool in have.tools.items():
        if tool.owner != OWNER or name in want.invalid:
            assert after.tools[name].digest == tool.digest
            assert after.tools[name].owner == tool.owner
    names = {tool.desired.name for tool in want.tools} | set(want.invalid)
    assert not [tool for tool in after.tools.values() if tool.owner == OWNER and tool.name not in names]
    assert {name for name, group in after.groups.items() if group.declared} == {group.name for group in want.groups}


@settings(max_examples=60, deadline=None)
@given(desired_states(), registered_states(), st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_what_it_is_given(
    want: Desired, have: Registered, random: Any
) -> None:
    plan = make_plan(want, have)
    tools, standing = list(want.tools), list(have.tools.items())
    random.shuffle(tools)
    random.shuffle(standing)
    again = make_plan(
        msgspec.structs.replace(want, tools=tuple(tools), groups=tuple(reversed(want.groups))),
        msgspec.structs.replace(have, tools=dict(standing)),
    )
    assert again.changes == plan.changes
    assert again.plan_id == plan.plan_id
    assert report.as_json(again)["changes"] == report.as_json(plan)["changes"]


@settings(max_examples=60, deadline=None)
@given(desired_states(), registered_states())
def test_every_plan_can_be_reported(want: Desired, have: Registered) -> None:
    plan = make_plan(want, have)
    assert plan.plan_id in report.as_text(plan)
    assert plan.plan_id in report.as_markdown(plan)
    assert all(change.op in Op for change in plan.changes)
