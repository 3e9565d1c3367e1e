"""What is typed at the prompt of `portoser dev`, and what it offers."""

from pathlib import Path
from typing import Any

import pytest

from portoser.cli.dev_lines import COMMANDS, Line, candidates, hint, read_arguments, read_line
from portoser.cli.exits import CommandError

SCHEMAS: dict[str, dict[str, Any]] = {
    "orders.refund": {
        "type": "object",
        "description": "Refund an order.",
        "properties": {
            "note": {"type": "string"},
            "order_id": {"type": "string"},
            "amount": {"type": "number"},
            "notify": {"type": "boolean"},
            "currency": {"enum": ["EUR", "US dollar"]},
            "kind": {"$ref": "#/$defs/Kind"},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "required": ["order_id", "amount"],
        "$defs": {"Kind": {"enum": ["full", "part"]}},
    },
    "orders.list": {"type": "object", "properties": {}},
}


def offered(text: str) -> list[str]:
    return [candidate.text for candidate in candidates(text, SCHEMAS)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", None),
        ("  # a note", None),
        ("orders.list", Line("call", "orders.list", "")),
        ("orders.refund order_id=A1 amount=5", Line("call", "orders.refund", "order_id=A1 amount=5")),
        ('call orders.refund {"a": 1}', Line("call", "orders.refund", '{"a": 1}')),
        ("examples", Line("examples", "", "")),
        ("show orders.list", Line("show", "orders.list", "")),
        ("as ada operator,dev", Line("as", "ada", "operator,dev")),
        ("exit", Line("quit", "", "")),
        ("?", Line("help", "", "")),
    ],
)
def test_a_line_is_a_command_or_a_tool(text: str, line: Line | None) -> None:
    assert read_line(text, SCHEMAS) == line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("orders.refnd a=1", "Did you mean 'orders.refund'?"),
        ("shw x", "Did you mean 'show'?"),
        ("show", "write: show TOOL"),
        ("xyzzy", "'tools' tells what there is"),
    ],
)
def test_a_line_that_is_neither_says_what_was_meant(text: str, told: str) -> None:
    with pytest.raises(CommandError) as refused:
        read_line(text, SCHEMAS)
    assert told in str(refused.value)


def test_arguments_are_pairs_or_json_or_a_file(tmp_path: Path) -> None:
    schema = SCHEMAS["orders.refund"]
    told = {"order_id": "A 1", "amount": 5, "notify": True}
    assert read_arguments("order_id='A 1' amount=5 notify=yes", schema) == (told, False)
    assert read_arguments("--yes amount=5", schema) == ({"amount": 5}, True)
    assert read_arguments("amount=5 -y", schema) == ({"amount": 5}, True)
    assert read_arguments('-y {"amount": 5}', schema) == ({"amount": 5}, True)
    file = tmp_path / "arguments.json"
    file.write_text('{"amount": 5}')
    assert read_arguments(f"@{file}", schema) == ({"amount": 5}, False)
    for wrong in ("@nowhere.json", "{", "[1]", "order_id='A", "amount=much", "nothing"):
        with pytest.raises(CommandError):
            read_arguments(wrong, schema)


def test_tools_arguments_and_values_are_offered_the_required_ones_first() -> None:
    assert set(offered("")) == {*SCHEMAS, *COMMANDS}
    assert offered("orders.r") == ["orders.refund"]
    assert offered("show orders.l") == ["orders.list"]
    assert offered("orders.refund ")[:2] == ["order_id=", "amount="]
    assert offered("call orders.refund amount=1 no") == ["note=", "notify="]
    assert offered("orders.refund notify=") == ["notify=true", "notify=false"]
    assert offered("orders.refund currency=") == ["currency=EUR", "currency='US dollar'"]
    assert offered("orders.refund kind=p") == ["kind=part"]
    assert offered("orders.refund note=") == []
    assert offered("nothing ") == []
    meanings = {candidate.text: candidate.meaning for candidate in candidates("orders.refund ", SCHEMAS)}
    assert meanings["amount="] == "number, required"
    assert meanings["limit="] == "integer|null"


def test_the_hint_names_what_is_still_to_be_given() -> None:
    assert hint("orders.refund amount=1", SCHEMAS).startswith("orders.refund note=string order_id=string* notify=true|")
    assert hint("orders.refund amount=1", SCHEMAS).endswith("(* must be given)")
    assert hint("orders.list ", SCHEMAS) == "orders.list"
    assert hint("show", SCHEMAS).startswith("show TOOL")
    assert hint("", SCHEMAS) == ""
