"""The published JSON Schema of manifests says what the reader says."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from portoser.authoring.schema import manifest_schema
from portoser.catalog.policy import Role
from portoser.catalog.revision import Isolation
from portoser.catalog.units import parse_duration, parse_rate, parse_size
from sync.documents import GRANTS, GROUP_KEYS, POLICY_KEYS, RULE_KEYS, read_manifest
from sync.given import FAKED_POWERS
from sync.tool_fields import ANNOTATION_KEYS, EXAMPLE_KEYS, LIMIT_KEYS, POWERS, TOOL_KEYS

ROOT = Path(__file__).parents[2]
SCHEMA = jsonschema_rs.validator_for(manifest_schema())
FENCE = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def reader_takes(document: Any) -> bool:
    """Whether the reader finds no error in a document, whatever it says of other files."""
    read = read_manifest(json.dumps(document), "orders/refund.yaml", owner="git:main")
    problems = [*read.problems, *(problem for document in read.documents for problem in document.problems)]
    return not any(problem.is_error for problem in problems)


def written_documents() -> list[Any]:
    """Every manifest that this repository shows or serves."""
    texts = [path.read_text() for path in (ROOT / "tools.d").rglob("*.yaml")]
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        texts += FENCE.findall(page.read_text())
    found = [document for text in texts for document in yaml.safe_load_all(text)]
    return [document for document in found if isinstance(document, dict) and "kind" in document]


def test_every_manifest_that_is_shown_or_served_is_valid_under_the_schema() -> None:
    documents = written_documents()
    assert len(documents) >= 10
    for document in documents:
        assert reader_takes(document), document
        assert SCHEMA.is_valid(document), next(SCHEMA.iter_errors(document)).message


WORDS = st.sampled_from(["operator", "orders", "a.b", "refund.py", "refund.py:refund", "Refund {a}?", "git:*", "", " "])
TEXTS = st.lists(WORDS, max_size=3)
UNITS = st.one_of(
    st.sampled_from(["10s", "500 ms", "1.5h", "0s", "64KiB", "1GB", "0.5MiB", "60/min", "10/30s", "5/s", "0/min", "x"]),
    st.integers(-1, 10_001),
    st.floats(0, 2),
)
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(-1, 60), WORDS, TEXTS, st.dictionaries(WORDS, WORDS))


def objects(keys: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(list(keys)), values, max_size=4)


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(right, right, right, ANYTHING)


TOOLS = st.fixed_dictionaries(
    {"kind": st.just("Tool")},
    optional={
        **{key: mostly(WORDS) for key in ("name", "description", "entrypoint", "group", "confirm")},
        **{key: mostly(TEXTS) for key in ("files", "permissions", "redact", "requires")},
        "annotations": mostly(objects(ANNOTATION_KEYS, st.one_of(st.booleans(), WORDS))),
        "limits": mostly(objects(LIMIT_KEYS, UNITS)),
        "isolation": mostly(st.sampled_from([str(word) for word in Isolation])),
        "uses": mostly(objects(POWERS, TEXTS)),
        "examples": mostly(st.lists(objects(EXAMPLE_KEYS, mostly(objects(FAKED_POWERS, ANYTHING))), max_size=3)),
        "inputSchema": mostly(st.just({"type": "object", "properties": {"a": {"type": "string"}}})),
        "adopt": mostly(st.booleans()),
        "nmae": WORDS,
    },
)
GROUPS = st.builds(
    lambda fields: {"kind": "Group", **fields}, objects([*GROUP_KEYS, "x"], st.one_of(WORDS, TEXTS, st.booleans()))
)
POLICIES = st.builds(
    lambda fields: {"kind": "Policy", **fields},
    st.fixed_dictionaries(
        {},
        optional={
            "roles": mostly(objects(Role, mostly(TEXTS))),
            "clients": mostly(st.dictionaries(WORDS, mostly(TEXTS), max_size=2)),
            "powers": mostly(st.lists(objects(RULE_KEYS, st.one_of(TEXTS, WORDS)), max_size=2)),
        },
    ),
)


@given(st.one_of(TOOLS, GROUPS, POLICIES))
def test_whatever_the_reader_takes_is_valid_under_the_schema(document: dict[str, Any]) -> None:
    if reader_takes(document):
        assert SCHEMA.is_valid(document), next(SCHEMA.iter_errors(document)).message


@given(st.text(alphabet="0123456789.smhdinkKMGBiec/ ", max_size=10))
def test_units_that_are_understood_are_valid_under_the_schema(text: str) -> None:
    for limit, parse in (("timeout", parse_duration), ("memory", parse_size), ("rate", parse_rate)):
        try:
            parse(text)
        except ValueError:
            continue
        assert SCHEMA.is_valid({"kind": "Tool", "limits": {limit: text}})


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": "a"},
        {"kind": "Tol"},
        {"kind": "Tool", "nmae": "a"},
        {"kind": "Tool", "name": "a b"},
        {"kind": "Tool", "name": 5},
        {"kind": "Tool", "description": " "},
        {"kind": "Tool", "entrypoint": "refund"},
        {"kind": "Tool", "files": []},
        {"kind": "Tool", "files": "refund.py"},
        {"kind": "Tool", "permissions": "operator"},
        {"kind": "Tool", "permissions": ["a", "a"]},
        {"kind": "Tool", "annotations": {"readOnlyHint": True}},
        {"kind": "Tool", "annotations": {"readOnly": "yes"}},
        {"kind": "Tool", "isolation": "always"},
        {"kind": "Tool", "limits": {"timeout": "soon"}},
        {"kind": "Tool", "limits": {"timeout": 0}},
        {"kind": "Tool", "limits": {"memory": "256 megabytes"}},
        {"kind": "Tool", "limits": {"rate": 60}},
        {"kind": "Tool", "limits": {"share": 0}},
        {"kind": "Tool", "uses": {"http": ["a:1"]}},
        {"kind": "Tool", "uses": ["vault"]},
        {"kind": "Tool", "requires": [f"package-{number}" for number in range(51)]},
        {"kind": "Tool", "examples": {"call": {}}},
        {"kind": "Tool", "examples": [{"args": {}}]},
        {"kind": "Tool", "examples": [{"call": []}]},
        {"kind": "Tool", "examples": [{"given": {"registri": {}}}]},
        {"kind": "Tool", "inputSchema": {"type": "array"}},
        {"kind": "Tool", "adopt": "true"},
        {"kind": "Group", "enabled": "no"},
        {"kind": "Group", "tools": ["a"]},
        {"kind": "Policy", "roles": {"owner": ["a"]}},
        {"kind": "Policy", "clients": {"cursor": "orders"}},
        {"kind": "Policy", "powers": [{"owner": "*"}]},
        {"kind": "Policy", "powers": [{"http": ["*"]}]},
    ],
)
def test_a_mistake_is_refused_by_the_schema_and_by_the_reader(document: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(document)
    assert not reader_takes(document)


def test_every_field_is_described_and_no_kind_is_missing() -> None:
    schema = manifest_schema()
    assert set(schema["definitions"]) == {"Tool", "Group", "Policy"}

    def undescribed(shape: Any, at: str) -> list[str]:
        found = []
        for name, field in shape.get("properties", {}).items():
            if "description" not in field and "const" not in field:
                found.append(f"{at}.{name}")
            found += undescribed(field, f"{at}.{name}") + undescribed(field.get("items", {}), f"{at}.{name}[]")
        return found

    assert [name for kind, shape in schema["definitions"].items() for name in undescribed(shape, kind)] == []
    assert set(GRANTS) < set(RULE_KEYS)
    assert set(POLICY_KEYS) == {"roles", "clients", "powers"}
    assert "name" in TOOL_KEYS
