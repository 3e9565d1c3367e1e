"""Rates and concurrency: never more than is allowed, and not much less."""

from hypothesis import given, settings
from hypothesis import strategies as st

from portoser.catalog.units import Rate
from portoser.invocation.limits import Concurrency, RateLimiter

rates = st.builds(Rate, st.integers(1, 300), st.integers(1, 60).map(float))
steps = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, 10.0, 61.0]), max_size=400)


def run(rate: Rate, pauses: list[float]) -> tuple[list[float], list[float]]:
    """The moments of the calls that were let through, and of those that were not."""
    now = 1000.0
    limiter = RateLimiter(clock=lambda: now)
    through, refused = [], []
    for pause in pauses:
        now += pause
        wait = limiter.take("ann", rate)
        (refused if wait else through).append(now)
        if wait:
            assert 0 < wait <= rate.seconds * (1 + 1 / 128)
    return through, refused


@given(rates, steps)
@settings(deadline=None)
def test_no_window_ever_holds_more_calls_than_the_rate(rate: Rate, pauses: list[float]) -> None:
    through, _ = run(rate, pauses)
    for first, last in zip(through, through[rate.calls :], strict=False):
        assert last - first >= rate.seconds


@given(rates, steps)
@settings(deadline=None)
def test_a_call_is_refused_only_where_the_rate_is_used_up(rate: Rate, pauses: list[float]) -> None:
    through, refused = run(rate, pauses)
    slack = rate.seconds / 128 if rate.calls > 128 else 0.0
    for moment in refused:
        assert sum(1 for call in through if moment - rate.seconds - slack < call <= moment) >= rate.calls


@given(st.builds(Rate, st.integers(1, 20), st.integers(1, 60).map(float)), st.integers(0, 40))
@settings(deadline=None)
def test_after_the_wait_that_was_told_a_call_is_let_through(rate: Rate, calls: int) -> None:
    now = 1000.0
    limiter = RateLimiter(clock=lambda: now)
    for _ in range(calls):
        now += 0.125
        limiter.take("ann", rate)
    now += limiter.wait("ann", rate)
    assert limiter.take("ann", rate) == 0.0


def test_callers_do_not_use_up_each_others_rate_and_asking_counts_nothing() -> None:
    limiter = RateLimiter(clock=lambda: 0.0)
    once = Rate(1, 60.0)
    assert limiter.wait("ann", once) == 0.0
    assert limiter.wait("ann", once) == 0.0
    assert limiter.take("ann", once) == 0.0
    assert limiter.wait("ann", once) == 60.0
    assert limiter.take("bob", once) == 0.0


def test_no_more_callers_are_remembered_than_may_be() -> None:
    limiter = RateLimiter(clock=lambda: 0.0, max_keys=100)
    once = Rate(1, 60.0)
    for number in range(10_000):
        limiter.take(number, once)
        limiter.take("the busy one", once)
    assert len(limiter) == 100
    assert limiter.wait("the busy one", once) == 60.0


def test_a_large_rate_takes_little_memory() -> None:
    now = 0.0
    limiter = RateLimiter(clock=lambda: now)
    rate = Rate(100_000, 60.0)
    for _ in range(20_000):
        now += 0.001
        assert limiter.take("ann", rate) == 0.0
    [window] = limiter._windows.values()
    assert len(window._moments) <= 130


def test_concurrency_is_counted_for_each_tool() -> None:
    concurrency = Concurrency()
    assert concurrency.enter("a", 2)
    assert concurrency.enter("a", 2)
    assert not concurrency.enter("a", 2)
    assert concurrency.enter("b", 1)
    concurrency.leave("a")
    assert concurrency.enter("a", 2)
    concurrency.leave("a")
    concurrency.leave("a")
    assert concurrency.running("a") == 0
    assert concurrency.enter("c", None)
