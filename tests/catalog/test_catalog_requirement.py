"""What a tool may require, and which rules grant it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from portoser.catalog.policy import Policy, PowerRule
from portoser.catalog.requirement import Lock, Refused, canonical, parsed, rule_for, ungranted
from portoser.catalog.revision import Declaration, SourceFile, digest_of, revision_of

POLICY = Policy(
    powers=(
        PowerRule(grants={"requires": ["httpx", "Types-*"]}, owner="git:main"),
        PowerRule(grants={"requires": ["Big.Package"]}, owner="rest:*", tools=("orders.*",)),
        PowerRule(grants={"vault": ["numpy"]}),
    )
)


@pytest.mark.parametrize(
    ("requires", "owner", "tool", "missing"),
    [
        (("httpx==0.28.1",), "git:main", "a", ()),
        (("HTTPX[http2]>=0.28", "types_pyyaml"), "git:main", "a", ()),
        (("httpx",), "rest:ada", "orders.refund", ("httpx",)),
        (("big-package",), "rest:ada", "orders.refund", ()),
        (("big_package",), "rest:ada", "refund", ("big-package",)),
        (("numpy", "httpx2", "numpy>1"), "git:main", "a", ("numpy", "httpx2")),
        ((), "rest:ada", "a", ()),
    ],
)
def test_packages_are_granted_by_name_owner_and_tool(
    requires: tuple[str, ...], owner: str, tool: str, missing: tuple[str, ...]
) -> None:
    assert ungranted(POLICY, requires, owner=owner, tool=tool) == missing


def test_the_rule_that_is_offered_grants_what_was_missing() -> None:
    assert rule_for(("numpy",), owner="git:main", tool="a.b") == (
        'powers: [{requires: ["numpy"], owner: "git:main", tools: ["a.b"]}]'
    )


def test_equal_sets_are_equal_however_they_are_written() -> None:
    assert canonical(["B>=1, <2", "A [x,Y] ==1"]) == canonical(["a[y,X]==1", "b<2,>=1"]) == ("a[x,y]==1", "b<2,>=1")
    assert canonical(["a==1"]) != canonical(["a==1.0"])


@given(
    st.text(max_size=60) | st.from_regex(r"[A-Za-z][A-Za-z0-9._-]*(\[[a-z,]*\])?([<>=!~]=?[0-9.*]+)?", fullmatch=True)
)
def test_what_is_taken_is_one_plain_line_for_uv(text: str) -> None:
    try:
        parsed(text)
    except Refused:
        return
    [line] = canonical([text])
    assert line.isascii()
    assert not set(line) & set(" \n\r\t@;#/\\")
    assert not line.startswith("-")
    assert Requirement(line).url is None


def test_a_lock_is_named_by_its_text_and_tells_its_packages() -> None:
    lock = Lock("a==1 \\\n    --hash=sha256:00\nb[x]==2 \\\n    --hash=sha256:01\n")
    assert lock.packages == ("a==1", "b[x]==2")
    assert lock.digest == Lock(lock.text).digest != Lock("").digest


def test_what_a_set_came_to_is_part_of_a_revision_where_there_is_one() -> None:
    declaration = Declaration(files=(SourceFile("a.py", "def a(): ..."),), entrypoint="a.py:a")

    def digest(lock: str | None) -> str:
        return revision_of(declaration, description="", input_schema={}, output_schema=None, lock=lock).digest

    assert digest("one") != digest("two") != digest(None)
    fields = {name: getattr(declaration, name) for name in declaration.__struct_fields__}
    assert digest(None) == digest_of({**fields, "description": "", "input_schema": {}})  # as before there were locks
