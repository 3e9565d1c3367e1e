"""A flood of failed sign-ins is seen in the audit log, and does not fill it."""

from portoser.identity.attempts import FailedSignIns


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_few_failures_of_an_address_are_recorded_a_minute_and_the_others_counted() -> None:
    clock = Clock()
    failures = FailedSignIns(per_address=2, clock=clock)
    assert [failures.left_out("10.0.0.1") for _ in range(5)] == [0, 0, None, None, None]
    assert failures.left_out("10.0.0.2") == 0
    clock.now = 59.9
    assert failures.left_out("10.0.0.1") is None
    clock.now = 60.0
    assert failures.left_out("10.0.0.1") == 4
    assert failures.left_out("10.0.0.1") == 0


def test_many_addresses_together_are_bounded_too_and_none_is_forgotten() -> None:
    clock = Clock()
    failures = FailedSignIns(per_address=10, overall=3, clock=clock)
    told = [failures.left_out(f"10.0.0.{number}") for number in range(10)]
    assert told == [0, 0, 0, *[None] * 7]
    clock.now = 61.0
    assert failures.left_out("192.0.2.1") == 7


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    failures = FailedSignIns(per_address=2, clock=Clock())
    assert [failures.left_out(f"2001:db8::{number}") for number in range(1, 4)] == [0, 0, None]
    assert failures.left_out("2001:db8:0:1::1") == 0


def test_what_is_known_of_addresses_takes_bounded_memory() -> None:
    clock = Clock()
    failures = FailedSignIns(per_address=1, overall=10**9, clock=clock)
    for number in range(30_000):
        failures.left_out(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures._windows) == 10_000


def test_no_address_is_an_address_too() -> None:
    failures = FailedSignIns(per_address=1, clock=Clock())
    assert [failures.left_out(None), failures.left_out("unix"), failures.left_out(None)] == [0, None, None]
