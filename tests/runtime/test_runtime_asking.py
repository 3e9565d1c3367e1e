"""Types that a tool's code asks for become forms, and filled-in forms become values of the types."""

import datetime
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from portoser import tool
from portoser.catalog.question import BadQuestion, checked_form
from portoser.runtime.worker.asking import Asked, answer_of, form_of


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Order:
    colour: Colour
    count: Annotated[int, Field(ge=1)] = 1
    note: str | None = None
    sizes: list[Literal["S", "L"]] = field(default_factory=list)


class Visit(BaseModel):
    day: datetime.date
    seats: int = Field(description="How many", multiple_of=2)


def answered(schema: Any, content: dict[str, Any] | None) -> tool.Answer:
    form, read = form_of(schema)
    checked_form(form)
    return answer_of({"action": "accept", "content": content}, read)


@pytest.mark.parametrize(
    ("schema", "shape", "content", "value"),
    [
        (str, {"type": "string"}, "x", "x"),
        (int, {"type": "integer"}, 3, 3),
        (float, {"type": "number"}, 3, 3.0),
        (bool, {"type": "boolean"}, True, True),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, "b", "b"),
        (Literal["a"], {"type": "string", "enum": ["a"]}, "a", "a"),
        (Colour, {"type": "string", "enum": ["red", "blue"], "title": "Colour"}, "red", Colour.RED),
        (datetime.date, {"type": "string", "format": "date"}, "2026-11-22", datetime.date(2026, 11, 22)),
        (list[Literal["a", "b"]], {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}, ["a"], ["a"]),
    ],
)
def test_a_single_value_is_a_form_of_one_field(schema: Any, shape: dict[str, Any], content: Any, value: Any) -> None:
    form, _ = form_of(schema)
    assert form == {"type": "object", "properties": {"value": shape}, "required": ["value"]}
    assert answered(schema, {"value": content}) == tool.Answer("accept", value)


def test_a_dataclass_and_a_model_are_forms_of_their_fields() -> None:
    form, _ = form_of(Order)
    assert form["required"] == ["colour"]
    assert form["properties"]["count"]["minimum"] == 1
    assert form["properties"]["note"] == {"title": "Note", "type": "string"}
    assert form["properties"]["colour"]["enum"] == ["red", "blue"]
    assert answered(Order, {"colour": "red"}).content == Order(Colour.RED, 1, None, [])
    assert answered(Visit, {"day": "2026-11-22", "seats": 2}).content == Visit(day=datetime.date(2026, 11, 22), seats=2)
    with pytest.raises(tool.ElicitError, match=r"does not fit the question: seats: .* multiple of 2"):
        answered(Visit, {"day": "2026-11-22", "seats": 3})


def test_a_json_schema_is_taken_as_it_is_and_none_asks_for_nothing() -> None:
    form = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert form_of(form)[0] is form
    assert answered(form, {"a": "x"}).content == {"a": "x"}
    assert form_of(None)[0] == {"type": "object", "properties": {}}
    assert answered(None, None) == tool.Answer("accept", {})


@pytest.mark.parametrize("schema", [dict[str, int], list[str], str | int, list[Visit], tuple[int, str], Literal[1, 2]])
def test_what_no_form_can_ask_is_refused_by_the_server(schema: Any) -> None:
    with pytest.raises(BadQuestion):
        checked_form(form_of(schema)[0])


@pytest.mark.parametrize("schema", [object(), tool.Power])
def test_what_is_no_type_is_refused_at_once(schema: Any) -> None:
    with pytest.raises(tool.ElicitError, match="cannot ask for"):
        form_of(schema)


def test_an_answer_may_be_declined_or_come_later() -> None:
    _, read = form_of(int)
    assert answer_of({"action": "decline", "content": None}, read) == tool.Answer("decline")
    with pytest.raises(Asked):
        answer_of({"action": "later"}, read)
    assert not issubclass(Asked, Exception)


async def test_an_answer_may_be_awaited() -> None:
    answer = tool.Answer("accept", 3)
    assert await answer is answer
    assert repr(answer) == "Answer('accept', 3)"


def test_outside_of_portoser_a_fake_is_needed() -> None:
    with pytest.raises(tool.ElicitError, match=r"replace `ctx.elicit` by a fake"):
        tool.ctx.elicit("Which?", str)
