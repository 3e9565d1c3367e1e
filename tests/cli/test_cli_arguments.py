"""``name=value`` becomes what a tool's input schema asks for."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portoser.cli.arguments import typed_arguments
from portoser.cli.exits import CommandError


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("shape", "text", "value"),
    [
        ({"type": "string"}, "7", "7"),
        ({"type": "string"}, "a=b", "a=b"),
        ({"type": "integer"}, "-7", -7),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "number"}, "2", 2),
        ({"type": "boolean"}, "yes", True),
        ({"type": "boolean"}, "False", False),
        ({"type": "array", "items": {"type": "integer"}}, "1,3, 2", [1, 3, 2]),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        ({"type": "array", "items": {"type": "string"}}, "a,b", ["a,b"]),
        ({"type": "object"}, '{"a": [1]}', {"a": [1]}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "12", 12),
        ({"type": ["integer", "string"]}, "x", "x"),
        ({"enum": ["a", 2]}, "2", 2),
        ({"const": True}, "true", True),
        ({}, "12", 12),
        ({}, "plain text", "plain text"),
        ({"$ref": "#/$defs/Size"}, "3", 3),
    ],
)
def test_a_value_becomes_what_its_schema_says(shape: dict[str, Any], text: str, value: Any) -> None:
    root = {**schema(x=shape), "$defs": {"Size": {"type": "integer"}}}
    assert typed_arguments([f"x={text}"], root) == {"x": value}


def test_a_list_is_given_by_repeating_its_name() -> None:
    assert typed_arguments(["t=a", "t=b"], schema(t={"type": "array", "items": {"type": "string"}})) == {
        "t": ["a", "b"]
    }


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["n=x"], "n: 'x' is not a whole number."),
        (["n"], "write name=value"),
        (["m=1"], "no argument 'm'"),
        (["nn=1"], "Did you mean 'n'?"),
        (["n=1", "n=2"], "given twice"),
    ],
)
def test_what_does_not_fit_is_a_sentence_that_names_the_argument(pairs: list[str], said: str) -> None:
    with pytest.raises(CommandError) as caught:
        typed_arguments(pairs, schema(n={"type": "integer"}))
    assert said in str(caught.value)


def test_a_schema_that_refers_to_itself_ends() -> None:
    root = {**schema(x={"$ref": "#/$defs/A"}), "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert typed_arguments(["x=1"], root) == {"x": 1}


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
KINDS = ["string", "integer", "number", "boolean", "null", "array", "object"]
SHAPES = st.recursive(
    st.just({})
    | st.sampled_from(KINDS).map(lambda kind: {"type": kind})
    | st.lists(JSON, min_size=1).map(lambda v: {"enum": v}),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda choices: {"anyOf": choices})
        | inner.map(lambda items: {"type": "array", "items": items})
    ),
    max_leaves=6,
)


@given(text=st.text(), shape=SHAPES)
def test_any_text_is_taken_or_refused_in_words(text: str, shape: dict[str, Any]) -> None:
    with suppress(CommandError):  # and nothing else
        assert list(typed_arguments([f"x={text}"], schema(x=shape))) == ["x"]
