from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portoser.catalog.errors import Invalid, Problem
from portoser.catalog.group import Group, GroupOverride, RegisteredGroup
from portoser.catalog.names import name_problem, name_warning
from portoser.catalog.units import Rate, parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("500ms", 0.5), ("5m", 300), ("1h", 3600), ("1.5 s", 1.5), (7, 7), ("7", 7)]
)
def test_durations_are_read_as_people_write_them(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 65536), ("256MiB", 268435456), ("1GB", 10**9), ("12", 12), (12, 12), ("1.5 KiB", 1536)]
)
def test_sizes_are_read_as_people_write_them(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [("60/min", Rate(60, 60)), ("5/s", Rate(5, 1)), ("1000/h", Rate(1000, 3600)), ("10/30s", Rate(10, 30))],
)
def test_rates_are_read_as_people_write_them(text: object, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate])
@pytest.mark.parametrize("text", ["", "fast", "10 parsecs", "-1s", True, None, [], {}, "1/0s", "0", "0/s", "９s"])
def test_what_is_none_of_these_is_refused_with_an_example(parse: object, text: object) -> None:
    with pytest.raises(ValueError, match=r"write for example|must be more than 0"):
        parse(text)  # type: ignore[operator]


@given(st.integers(1, 10_000), st.sampled_from([1.0, 60.0, 3600.0, 86400.0]))
def test_a_rate_reads_what_it_writes(calls: int, seconds: float) -> None:
    assert parse_rate(str(Rate(calls, seconds))) == Rate(calls, seconds)


@pytest.mark.parametrize("name", ["a", "orders.refund", "list_services", "a-b", "A" * 64])
def test_names_of_the_specification_are_allowed(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "A" * 65, "a\n", "a\x00"])
def test_other_names_are_refused(name: str) -> None:
    assert name_problem(name)


def test_a_dot_in_a_name_is_a_warning() -> None:
    assert name_warning("orders.refund")
    assert name_warning("orders_refund") is None


def test_a_problem_reads_like_a_compilers() -> None:
    problem = Problem(path="orders/refund.yaml", line=3, column=7, message="Unknown key 'nmae'.", advice="Write name.")
    assert str(problem) == "orders/refund.yaml:3:7: Unknown key 'nmae'. Write name."
    assert str(Invalid([problem, Problem(message="Another.")])).splitlines() == [str(problem), "Another."]


def test_an_override_beats_the_declaration_until_it_expires() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    override = GroupOverride(enabled=True, reason="x", by="op", at=now, expires_at=now + timedelta(minutes=5))
    group = RegisteredGroup(name="g", declared=Group(name="g", owner="git:main", enabled=False), override=override)
    assert group.is_enabled(now)
    assert not group.is_enabled(now + timedelta(minutes=5))


def test_a_group_that_nobody_declared_is_on() -> None:
    assert RegisteredGroup(name="g").is_enabled(datetime(2026, 1, 1, tzinfo=UTC))
