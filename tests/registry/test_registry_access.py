"""One decision, for lists and for calls."""

from datetime import UTC, datetime
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_samples import desired

from portoser.catalog.caller import ANONYMOUS, Caller, system_caller
from portoser.catalog.policy import Policy, Role
from portoser.catalog.tool import RegisteredTool
from portoser.registry.access import Access
from portoser.registry.snapshot import EMPTY, ServedTool

NOW = datetime.now(UTC)
RBAC = ["ops", "dev", "root", "/ops", "/a/ops"]
GROUPS = ["g", "h", None]


def served(name, *, group=None, permissions=(), enabled=True):
    wanted = desired(name)
    registered = RegisteredTool(
        id=name,
        name=name,
        owner=wanted.owner,
        revision=wanted.revision,
        version=1,
        group=group,
        provenance=wanted.provenance,
        generation=1,
        created_at=NOW,
        updated_at=NOW,
    )
    return ServedTool(registered=registered, permissions=tuple(permissions), enabled=enabled, listing_digest=name)


def a_snapshot(*tools, policy=None, generation=1):
    return msgspec.structs.replace(
        EMPTY,
        generation=generation,
        tools=MappingProxyType({tool.name: tool for tool in sorted(tools, key=lambda tool: tool.name)}),
        policy=policy or Policy(),
    )


def a_caller(*groups, **fields):
    return Caller(subject="carol", groups=frozenset(groups), **fields)


TOOLS = st.lists(
    st.builds(
        served,
        st.text("abcdef", min_size=1, max_size=3),
        group=st.sampled_from(GROUPS),
        permissions=st.lists(st.sampled_from(RBAC), max_size=2),
        enabled=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda tool: tool.name,
)
POLICIES = st.builds(
    Policy,
    roles=st.dictionaries(st.sampled_from(Role), st.lists(st.sampled_from(RBAC), max_size=2).map(tuple)),
    clients=st.dictionaries(st.sampled_from(["cursor", "other"]), st.lists(st.sampled_from(["g", "h"])).map(tuple)),
)
CALLERS = st.one_of(
    st.just(ANONYMOUS),
    st.just(msgspec.structs.replace(ANONYMOUS, only_groups=frozenset({"g"}))),
    st.just(system_caller("reconciler:main")),
    st.builds(
        lambda groups, client, only: a_caller(*groups, client=client, only_groups=only),
        st.sets(st.sampled_from(RBAC), max_size=3),
        st.sampled_from([None, "cursor", "unlisted"]),
        st.none() | st.frozensets(st.sampled_from(["g", "h", "nowhere"])),
    ),
)


@given(st.lists(TOOLS, min_size=1, max_size=3), POLICIES, st.lists(CALLERS, min_size=1, max_size=6))
def test_what_is_listed_is_what_may_be_called(lists, policy, callers):
    access = Access(frozenset({"/root"}))
    seen = {}
    for generation, tools in enumerate(lists):
        snapshot = a_snapshot(*tools, policy=policy, generation=generation)
        for caller in callers:
            allowed = [tool for tool in snapshot.tools.values() if access.decide(snapshot, tool.name, caller).allowed]
            assert list(access.visible(snapshot, caller)) == allowed
            key = (generation, access.visibility_key(snapshot, caller))
            assert seen.setdefault(key, allowed) == allowed


@given(TOOLS, POLICIES, CALLERS)
def test_the_rule_as_the_design_states_it(tools, policy, caller):
    access = Access(frozenset({"root"}))
    snapshot = a_snapshot(*tools, policy=policy)

    def plain(groups):
        return {group[1:] if group.startswith("/") else group for group in groups}

    own = plain(caller.groups)
    is_admin = caller.kind != "token" or bool(own & ({"root"} | plain(policy.roles.get(Role.ADMIN, ()))))
    for tool in tools:
        expected = (
            tool.enabled
            and (is_admin or bool(own & plain(tool.permissions)))
            and (caller.client not in policy.clients or tool.registered.group in policy.clients[caller.client])
            and (caller.only_groups is None or tool.registered.group in caller.only_groups)
        )
        decision = access.decide(snapshot, tool.name, caller)
        assert decision.allowed == expected
        assert bool(decision.message) != expected


@pytest.mark.parametrize(
    ("caller", "reason", "words"),
    [
        (a_caller("ops"), "allowed", ""),
        (a_caller("/ops"), "allowed", ""),
        (a_caller("/a/ops"), "forbidden", "one of the groups ops, dev, and you (carol) have none"),
        (a_caller("ops", client="cursor"), "client_not_allowed", "leaves it the groups h"),
        (a_caller("ops", only_groups=frozenset({"h"})), "narrowed", "narrowed to the groups h"),
        (a_caller("ops", only_groups=frozenset({"g"})), "allowed", ""),
    ],
)
def test_a_refusal_says_which_and_why(caller, reason, words):
    snapshot = a_snapshot(served("t", group="g", permissions=["ops", "dev"]), policy=Policy(clients={"cursor": ("h",)}))
    decision = Access().decide(snapshot, "t", caller)
    assert decision.reason == reason
    assert words in decision.message


def test_tools_that_are_unknown_off_or_without_permissions_are_told_apart():
    snapshot = a_snapshot(served("off", group="g", enabled=False, permissions=["ops"]), served("bare"))
    access = Access(frozenset({"root"}))
    assert access.decide(snapshot, "nope", ANONYMOUS).reason == "unknown_tool"
    assert access.decide(snapshot, "off", ANONYMOUS).reason == "group_disabled"
    assert access.decide(snapshot, "off", a_caller("dev")).reason == "forbidden"
    assert access.decide(snapshot, "bare", a_caller("ops")).message.endswith("only an admin may.")
    assert access.decide(snapshot, "bare", a_caller("root")).allowed


def test_roles_are_of_listed_groups_and_admin_has_each():
    policy = Policy(roles={Role.ADMIN: ("boss",), Role.EDITOR: ("dev",)})
    snapshot, access = a_snapshot(policy=policy), Access(frozenset({"root"}))
    for caller, roles in [
        (a_caller("dev"), {Role.EDITOR}),
        (a_caller("boss"), set(Role)),
        (a_caller("/root"), set(Role)),
        (a_caller("ops"), set()),
        (ANONYMOUS, set(Role)),
        (system_caller("reconciler:main"), set(Role)),
    ]:
        assert {role for role in Role if access.has_role(snapshot, caller, role)} == roles


def test_callers_who_differ_in_groups_that_no_tool_names_share_what_was_worked_out():
    snapshot, access = a_snapshot(served("t", permissions=["ops"])), Access()
    first = access.visible(snapshot, a_caller("ops", "hr"))
    assert access.visible(snapshot, a_caller("/ops", "sales")) is first


def test_a_flood_of_narrowings_is_forgotten_again():
    snapshot = a_snapshot(*(served(f"t{number}", group=f"g{number}", permissions=["ops"]) for number in range(600)))
    access = Access()
    for number in range(600):
        caller = a_caller("ops", only_groups=frozenset({f"g{number}"}))
        assert [tool.name for tool in access.visible(snapshot, caller)] == [f"t{number}"]
    assert len(access._sights[snapshot].visible) <= 512
