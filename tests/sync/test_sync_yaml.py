"""YAML as it is read here: YAML 1.2's plain values, places of everything, and no text that hurts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.located import Node
from sync.yaml_text import MAX_ALIASES, read_documents


def plain(text: str) -> object:
    read = read_documents(text, "x.yaml")
    assert read.broken is None
    [(node, problems)] = read.documents
    assert problems == ()
    return node.plain()


def test_plain_values_are_those_of_yaml_1_2() -> None:
    text = """\
no: no
on: off
time: 12:30
date: 2026-01-02
version: 1.10
octal: 0o17
zero: 010
hex: 0x1F
exponent: 1e3
under: 1_000
nothing: ~
empty:
truth: true
quoted: "true"
number: '5'
tagged: !!str 5
int: !!int 5
"""
    assert plain(text) == {
        "no": "no",
        "on": "off",
        "time": "12:30",
        "date": "2026-01-02",
        "version": 1.1,
        "octal": 15,
        "zero": 10,
        "hex": 31,
        "exponent": 1000.0,
        "under": "1_000",
        "nothing": None,
        "empty": None,
        "truth": True,
        "quoted": "true",
        "number": "5",
        "tagged": "5",
        "int": 5,
    }


def test_every_value_and_key_knows_its_place() -> None:
    [(node, _)] = read_documents("a:\n  - b: ä\n    c: [1, 2]\n", "x.yaml").documents
    assert isinstance(node.value, dict)
    items = node.value["a"].value
    assert isinstance(items, list)
    inner = items[0].value
    assert isinstance(inner, dict)
    assert (inner["c"].key_line, inner["c"].key_column) == (3, 5)
    second = inner["c"].value
    assert isinstance(second, list)
    assert isinstance(second[1], Node)
    assert (second[1].line, second[1].column) == (3, 12)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a:\n\tb: 1\n", (2, 1), "tabs"),
        ("a: [1, 2\n", (2, 1), "Close the list"),
        ('a: "x\n', (2, 1), "Close the quote."),
        ("a: b: c\n", (1, 5), "': ' in quotes"),
        ("a: %x\n", (1, 4), "Put text that begins with '%' in quotes."),
        ("a: \x01\n", (1, 4), "the character '\\x01' is not allowed"),
        ("a: *b\n", (1, 4), "There is no anchor '&b'"),
        ("a: &x [*x]\n", (1, 8), "stands inside of it"),
        ("a: 1\n b: 2\n", (2, 3), "mapping values are not allowed"),
    ],
)
def test_text_that_is_not_yaml_is_told_with_its_place(text: str, place: tuple[int, int], message: str) -> None:
    broken = read_documents(text, "x.yaml").broken
    assert broken is not None
    assert (broken.line, broken.column) == place
    assert message in str(broken)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "'a' stands here a second time; the first is in line 1."),
        ("a: !!python/object:os.system {}\n", "is not supported"),
        ("a: !mine x\n", "The tag '!mine' is not supported."),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "Merge keys"),
        ("? [a]\n: b\n", "A key must be text, not a list."),
        ('a: "\\0"\n', "NUL"),
        ("a: 99999999999999999999\n", "more than 64 bits"),
        ("a: 1e999\n", "too large"),
    ],
)
def test_yaml_that_is_not_ours_is_told_and_the_rest_is_read(text: str, message: str) -> None:
    read = read_documents(f"{text}---\nkind: Tool\n", "x.yaml")
    assert read.broken is None
    assert any(message in problem.message for problem in read.documents[0][1])
    assert read.documents[1][0].plain() == {"kind": "Tool"}


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? ", "&a [", '"a": ['])
def test_deep_nesting_is_refused_and_does_not_end_the_process(unit: str) -> None:
    """PyYAML's C composer recurses: a quarter of a megabyte of brackets is a segmentation fault there."""
    broken = read_documents(unit * (250_000 // len(unit)), "x.yaml").broken
    assert broken is not None
    assert "64 levels" in broken.message


def test_a_bomb_of_aliases_is_refused() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]" for n in range(10)]
    broken = read_documents("\n".join(levels), "x.yaml").broken
    assert broken is not None
    assert "aliases" in broken.message


def test_few_aliases_are_what_they_stand_for() -> None:
    assert plain("a: &x [1, {b: 2}]\nc: *x\n") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}
    text = "a: &x 1\nb: [" + ", ".join(["*x"] * (MAX_ALIASES + 1)) + "]\n"
    assert read_documents(text, "x.yaml").broken is not None


@given(st.text(max_size=300))
def test_no_text_raises(text: str) -> None:
    for node, _ in read_documents(text.encode(errors="replace").decode(), "x.yaml").documents:
        node.plain()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text("ab:-#'\"\\ \n[]{}*&!%@`,é", max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text("abc ", min_size=1, max_size=3), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_json_is_yaml_and_comes_back_as_it_was(value: object) -> None:
    import json

    if value is None:
        return
    read = read_documents(json.dumps(value), "x.yaml")
    assert read.broken is None
    assert [node.plain() for node, _ in read.documents] == [value]
