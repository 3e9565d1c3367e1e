from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from portoser.catalog.revision import (
    Declaration,
    Example,
    Isolation,
    Limits,
    Revision,
    SourceFile,
    digest_of,
    revision_of,
)

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def declared(**fields: Any) -> Declaration:
    return Declaration(files=(SourceFile("a.py", "def a(a: int): ..."),), entrypoint="a.py:a", **fields)


def admitted(declaration: Declaration) -> Revision:
    return revision_of(declaration, description="From the docstring.", input_schema=SCHEMA, output_schema=None)


def test_what_is_declared_wins_over_what_the_code_says() -> None:
    override = {"type": "object"}
    revision = admitted(declared(description="Declared.", input_schema=override))
    assert revision.description == "Declared."
    assert revision.input_schema == override


def test_what_is_not_declared_comes_from_the_code() -> None:
    revision = admitted(declared())
    assert revision.description == "From the docstring."
    assert revision.input_schema == SCHEMA


@given(schema=st.dictionaries(st.text(max_size=5), json_values, min_size=2, max_size=5))
def test_the_order_of_keys_in_a_schema_does_not_change_the_digest(schema: dict[str, Any]) -> None:
    turned = dict(reversed(list(schema.items())))
    assert admitted(declared(input_schema=schema)).digest == admitted(declared(input_schema=turned)).digest


def test_the_order_of_files_changes_the_digest_because_they_are_imported_in_it() -> None:
    files = (SourceFile("a.py", ""), SourceFile("b.py", ""))
    one = Declaration(files=files, entrypoint="a.py:a")
    other = Declaration(files=files[::-1], entrypoint="a.py:a")
    assert admitted(one).digest != admitted(other).digest
    assert one.key() != other.key()


@given(
    timeout=st.floats(0.1, 100),
    isolation=st.sampled_from(Isolation),
    redact=st.lists(st.text(min_size=1, max_size=4), max_size=2).map(tuple),
)
def test_equal_declarations_have_equal_digests_and_others_do_not(
    timeout: float, isolation: Isolation, redact: tuple[str, ...]
) -> None:
    fields: dict[str, Any] = {"limits": Limits(timeout=timeout), "isolation": isolation, "redact": redact}
    assert admitted(declared(**fields)).digest == admitted(declared(**fields)).digest
    changed = {**fields, "limits": Limits(timeout=timeout + 1)}
    assert admitted(declared(**fields)).digest != admitted(declared(**changed)).digest
    assert declared(**fields).key() != declared(**changed).key()


def test_where_an_example_stands_is_not_part_of_the_digest() -> None:
    one = declared(examples=(Example(call={"a": 1}, expect=1, line=3),))
    other = declared(examples=(Example(call={"a": 1}, expect=1, line=30),))
    assert admitted(one).digest == admitted(other).digest
    assert one.key() == other.key()


def test_a_revision_survives_a_round_trip_and_its_digest_can_be_computed_again() -> None:
    revision = admitted(declared(uses={"vault": ["a/b"]}, requires=("httpx==0.28.1",)))
    again = msgspec.json.decode(msgspec.json.encode(revision), type=Revision)
    assert again == revision
    assert digest_of(msgspec.structs.asdict(again)) == revision.digest


def test_only_what_clients_see_changes_the_listing_digest() -> None:
    revision = admitted(declared())
    assert admitted(declared(limits=Limits(timeout=1))).listing_digest() == revision.listing_digest()
    assert admitted(declared(description="Another.")).listing_digest() != revision.listing_digest()
