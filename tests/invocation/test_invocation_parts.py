"""The pure parts of a call: its question, its messages, what the log is told of its result."""

import base64
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invocation_world import tool

from portoser.audit.redaction import PLACEHOLDER, Redactor, Taint
from portoser.invocation.confirm import question
from portoser.invocation.prepared import PreparedRevisions
from portoser.invocation.told import new_id, told_of
from portoser.invocation.validation import ArgumentsValidator, BadSchema
from portoser.runtime.types import Execution

SCHEMA = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "maximum": 100},
        "order_id": {"type": "string", "minLength": 2},
        "mode": {"enum": ["fast", "slow"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "items": {
            "type": "array",
            "items": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        },
    },
    "required": ["order_id"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "order_id is missing."),
        ({"order_id": 5}, "order_id must be a string, not the number 5."),
        ({"order_id": "A1", "amount": "much"}, "amount must be a number, not the string 'much'."),
        ({"order_id": "A1", "amount": True}, "amount must be a number, not a boolean."),
        ({"order_id": "A1", "amuont": 1}, "There is no argument amuont. Did you mean amount?"),
        ({"order_id": "A1", "zz": 1}, "There is no argument zz. The tool takes: amount, order_id, mode, note, items."),
        ({"order_id": "A1", "note": 3}, "note must be a string or null, not the number 3."),
        ({"order_id": "A1", "items": [{"n": 1}, {"n": "x"}]}, "items[1].n must be an integer, not the string 'x'."),
        ({"order_id": "A1", "items": [{}]}, "items[0].n is missing."),
        ({"order_id": "A"}, 'order_id: "A" is shorter than 2 characters.'),
        ({"order_id": "A1", "amount": 101}, "amount: 101 is greater than the maximum of 100."),
        ({"order_id": "\ud800"}, "A text among the arguments is not valid Unicode."),
        ([], "The arguments must be an object."),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, sentence: str) -> None:
    assert list(ArgumentsValidator(SCHEMA).problems(arguments)) == [sentence]


def test_everything_wrong_is_told_up_to_a_bound() -> None:
    validator = ArgumentsValidator({"type": "object", "additionalProperties": {"type": "integer"}})
    problems = validator.problems({f"a{n}": "x" * 10_000 for n in range(100)})
    assert len(problems) == 6
    assert all(len(problem) < 400 for problem in problems)
    assert ArgumentsValidator(SCHEMA).problems({"order_id": "A1", "amount": 5}) == ()


@pytest.mark.parametrize("schema", [{"type": "strnig"}, {"$ref": "http://127.0.0.1:1/x.json"}, {"pattern": "("}])
def test_a_schema_that_cannot_be_used_is_told(schema: dict[str, Any]) -> None:
    with pytest.raises(BadSchema, match="cannot be used"):
        ArgumentsValidator({"properties": {"a": schema}})


def test_a_pattern_that_never_ends_counts_as_no_match() -> None:
    validator = ArgumentsValidator({"properties": {"a": {"pattern": r"^(?=a)(a|aa)+\1$"}}})
    assert validator.problems({"a": "a" * 60 + "!"})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Refund {amount} for {order_id}?", "Refund 5 for A1?"),
        ("{{amount}} is {amount}", "{amount} is 5"),
        ("{amount.__class__} {amount!r} {amount:>10} {0} {}", "{amount.__class__} {amount!r} {amount:>10} {0} {}"),
        ("{missing} and {size}", "(not given) and 10"),
        ("with {password}", "with (hidden)"),
        ("{list}", '["a",1]'),
        ("{evil}", "no Refund 0?  "),
        ("{long}", "x" * 200 + "…"),
    ],
)
def test_a_question_shows_arguments_and_nothing_else(template: str, text: str) -> None:
    arguments = {
        "amount": 5,
        "order_id": "A1",
        "password": "hunter2",
        "list": ["a", 1],
        "evil": "no\nRefund 0?\u202e\0",
        "long": "x" * 5000,
    }
    shown, _ = Redactor.for_schema(None).redact_arguments(arguments)
    assert question(template, arguments, shown, {"size": 10}) == text


@given(st.text(), st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text())))
@settings(deadline=None)
def test_no_template_makes_a_question_fail(template: str, arguments: dict[str, Any]) -> None:
    shown, _ = Redactor.for_schema(None).redact_arguments(arguments)
    assert "\n" not in question(template.replace("\n", ""), arguments, shown, {})


def test_the_log_is_told_the_structured_result_and_not_its_copy() -> None:
    execution = Execution(outcome="ok", content=[{"type": "text", "text": '{"a":1}'}], structured={"a": 1})
    told, digest = told_of(execution, Redactor.for_schema(None), Taint())
    assert told == {"structured": {"a": 1}}
    assert len(digest) == 64


def test_the_log_is_told_the_size_and_hash_of_binary_content() -> None:
    data = base64.b64encode(b"\x89PNG" * 100).decode()
    execution = Execution(
        outcome="ok",
        content=[
            {"type": "text", "text": "a chart"},
            {"type": "image", "data": data, "mimeType": "image/png"},
            {"type": "resource", "resource": {"uri": "file:///x.bin", "mimeType": "application/x", "blob": data}},
            {"type": "resource", "resource": {"uri": "file:///x.txt", "text": "plain"}},
        ],
    )
    told, _ = told_of(execution, Redactor.for_schema(None), Taint())
    assert data not in str(told)
    text, image, blob, plain = told["content"]
    assert text == {"type": "text", "text": "a chart"}
    assert (image["type"], image["mimeType"], image["bytes"]) == ("image", "image/png", 400)
    assert (blob["resource"]["uri"], blob["resource"]["bytes"]) == ("file:///x.bin", 400)
    assert plain["resource"]["text"] == "plain"


def test_a_long_result_is_cut_and_its_digest_is_of_the_whole() -> None:
    redactor = Redactor.for_schema(None)
    long = Execution(outcome="ok", structured={"rows": [{"text": "x" * 100, "password": "hunter2"}] * 1000})
    longer = Execution(outcome="ok", structured={"rows": [{"text": "x" * 100, "password": "hunter2"}] * 1001})
    (told, digest), (_, other) = told_of(long, redactor, Taint()), told_of(longer, redactor, Taint())
    assert len(str(told)) < 10_000
    assert PLACEHOLDER in str(told)
    assert "hunter2" not in str(told)
    assert digest != other


def test_ids_are_uuids_in_the_order_of_time() -> None:
    ids = [new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(uuid.UUID(each).version == 7 and uuid.UUID(each).variant == uuid.RFC_4122 for each in ids)
    assert [each[:13] for each in ids] == sorted(each[:13] for each in ids)


def test_of_a_tool_one_revision_is_kept_and_of_all_tools_those_called_last() -> None:
    prepared = PreparedRevisions(kept=2)
    first, second = (tool("refund", digest=digest).registered.revision for digest in ("one", "two"))
    old = prepared.of("refund", first)
    assert prepared.of("refund", first) is old
    newest = prepared.of("refund", second)
    assert newest.program.digest == "two"
    assert prepared.of("refund", first) is not old
    newest = prepared.of("refund", second)
    for name in ("a", "refund", "b"):
        prepared.of(name, tool(name, digest="two").registered.revision)
    assert prepared.of("refund", second) is newest
