"""Values are counted from bytes alone, right where they are few, and soon given up where they are many."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portoser.catalog.volume import MOST_VALUES, json_values, msgpack_values

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(alphabet='"\\,:[]{}', max_size=8),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=8),
    max_leaves=20,
)
LONG = st.sampled_from((15, 16, 31, 32, 255, 256, 65_535, 65_536)).map(lambda length: "x" * length)


def values_of(value: Any) -> int:
    if isinstance(value, list):
        return 2 + sum(map(values_of, value))
    if isinstance(value, dict):
        return 2 + sum(1 + values_of(item) for item in value.values())
    return 1


@given(JSON | LONG | st.lists(LONG, max_size=3) | st.dictionaries(LONG, JSON, max_size=2))
def test_the_values_of_messagepack_are_counted_right(value: Any) -> None:
    data = msgspec.msgpack.encode(value)
    exact = values_of(value)
    counted = msgpack_values(data, exact)
    assert counted == exact or (counted == 0 and 2 * len(data) <= exact)
    assert msgpack_values(data, max(0, exact - 1)) in {exact, 0} or exact <= 1


@pytest.mark.parametrize("length", [16, 65_535, 65_536])
def test_long_lists_objects_and_binaries_are_counted_right(length: int) -> None:
    for value, count in (
        (list(range(length)), 2 + length),
        ({str(number): None for number in range(length)}, 2 + 2 * length),
        ([b"\x90" * length, 1], 4),
        (msgspec.msgpack.Ext(5, b"\x90" * length), 1),
    ):
        assert msgpack_values(msgspec.msgpack.encode(value), 10) >= min(count, 11)
        assert msgpack_values(msgspec.msgpack.encode([value, "end"]), 1 << 60) in {count + 3, 0}


@given(JSON | LONG)
def test_the_values_of_json_are_never_told_fewer_and_no_valid_text_counts_as_many(value: Any) -> None:
    data = msgspec.json.encode(value)
    exact = values_of(value)
    for most in (0, 5, exact - 1, exact, exact + 1):
        if most >= exact + _lists(value):
            assert json_values(data, most) <= most
        if 0 <= most < exact - _lists(value):
            assert json_values(data, most) > most


def _lists(value: Any) -> int:
    """How far the bound may be off: marks stand between values, so an empty list or object has none too few."""
    if isinstance(value, list):
        return 1 + sum(map(_lists, value))
    if isinstance(value, dict):
        return 1 + sum(map(_lists, value.values()))
    return 1


def test_a_text_of_megabytes_is_one_value() -> None:
    text = 'a, "b": [{' * 400_000
    assert json_values(msgspec.json.encode({"text": text})) < 10
    assert msgpack_values(msgspec.msgpack.encode({"text": text})) == 4


@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 4_000_000,
        b'"' + b'\\"' * 2_000_000,
        b'"' * 4_000_000,
        b'"",' * 1_300_000,
        b"\\" * 4_000_000,
        b"\xff" * 4_000_000,
        b"\xdb\xff\xff\xff\xff" * 800_000,
        b"\xc9\x00\x00\x00\x00" * 800_000,
    ],
)
def test_nonsense_costs_no_more_than_sense(hostile: bytes) -> None:
    json_values(hostile)  # ends, where a pattern that goes back and forth would take hours
    assert msgpack_values(hostile) <= MOST_VALUES + 2
