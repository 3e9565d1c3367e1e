from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portoser.catalog.schema import validator_of, wrong_with_schema


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"anyOf": [schema]}
    return {"type": "object", "properties": {"a": schema}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}},
        nested(20),
    ],
)
def test_ordinary_schemas_are_taken(schema: dict[str, Any]) -> None:
    assert wrong_with_schema(schema) is None


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ({"type": "array"}, "describe an object"),
        (nested(200), "levels deep"),
        (nested(100_000), "levels deep"),
        ({"properties": {"a": {"type": "file"}}}, "not a JSON Schema"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/x.json"}}}, "another document"),
        ({"properties": {"a": {"$ref": "#/$defs/Gone"}}}, "not a JSON Schema"),
        ({"description": "x" * 300_000}, "KiB"),
        ({"default": msgspec.msgpack.Ext(1, b"x")}, "not JSON"),
        ({"default": b"x"}, "not JSON"),
        ({1: "x"}, "not JSON"),
    ],
)
def test_a_schema_that_would_hurt_everybody_is_refused_with_a_reason(schema: Any, why: str) -> None:
    assert why in (wrong_with_schema(schema) or "")


def test_a_validator_never_fetches() -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1"):
        validator_of({"$ref": "http://127.0.0.1:9/x.json"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "properties", "$ref", "anyOf", "pattern", "x"]), json_values))
def test_whatever_it_is_there_is_an_answer_and_what_is_taken_can_be_used(schema: dict[str, Any]) -> None:
    if wrong_with_schema(schema) is None:
        validator_of(schema).is_valid({"x": 1})
