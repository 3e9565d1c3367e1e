import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trend import Trend, Verdict, theil_sen, trend

HALF_HOUR = [5.0 * n for n in range(360)]


def rising(hourly: float, *, noise: float = 0.0, level: float = 100.0) -> list[float | None]:
    chance = random.Random(1)
    return [level * (1 + hourly * at / 3600) + chance.gauss(0, noise) for at in HALF_HOUR]


def seen(values: list[float | None]) -> Trend:
    found = trend(HALF_HOUR, values)
    assert found is not None
    return found


def test_the_slope_of_a_line_is_found_exactly_and_surely() -> None:
    assert theil_sen([0, 1, 2, 3, 4], [7, 9, 11, 13, 15]) == (2, 2, 2)


def test_the_slope_is_the_median_of_all_pairs_and_its_interval_is_kendalls() -> None:
    # By hand: the ten slopes are -.15 -.13 -.08 -.07 -.0575 -.055 -.045 -.0333 .01 .04; all lie within.
    slope = theil_sen([1, 2, 3, 4, 5], [1.26, 1.27, 1.12, 1.16, 1.03])
    assert slope == pytest.approx((-0.05625, -0.15, 0.04))


def test_a_few_wild_points_do_not_make_growth() -> None:
    values = rising(0.0, noise=0.5)
    for wild in range(200, 360, 20):
        values[wild] = 1000.0
    assert seen(values).judge(0.05, least=1) is Verdict.STEADY


def test_growth_is_told_with_its_pace_an_hour() -> None:
    found = seen(rising(0.5, noise=1.0))
    assert found.judge(0.05, least=1) is Verdict.GROWS
    assert 0.3 < found.low < found.hourly < found.high < 0.5  # through the level of the judged part, which is above 100


@pytest.mark.parametrize(("noise", "verdict"), [(0.5, Verdict.STEADY), (30.0, Verdict.UNSURE)])
def test_noise_alone_is_no_growth_and_where_it_may_hide_some_nobody_can_tell(noise: float, verdict: Verdict) -> None:
    for seed in range(20):
        chance = random.Random(seed)
        values: list[float | None] = [100 + chance.gauss(0, noise) for _ in HALF_HOUR]
        assert seen(values).judge(0.05, least=1) is verdict


def test_what_grows_only_while_it_warms_up_does_not_grow() -> None:
    assert seen([min(100.0, at) for at in HALF_HOUR]).judge(0.0, least=0) is Verdict.STEADY


def test_growth_that_is_tolerated_or_amounts_to_nothing_is_no_growth() -> None:
    found = seen(rising(0.5))
    assert found.judge(0.6, least=1) is Verdict.STEADY
    assert found.judge(0.05, least=50) is Verdict.STEADY


def test_a_short_run_is_not_judged() -> None:
    found = trend(HALF_HOUR[:60], rising(9.0)[:60])
    assert found is not None
    assert found.judge(0.05, least=1) is Verdict.SHORT


def test_intervals_without_calls_are_left_out_and_too_few_say_nothing() -> None:
    values = rising(0.5)
    values[150:200] = [None] * 50
    assert seen(values).judge(0.05, least=1) is Verdict.GROWS
    assert trend(HALF_HOUR, [None] * 360) is None
    assert trend([], []) is None


@given(
    st.lists(st.floats(-1000, 1000), min_size=4, max_size=30),
    st.floats(0.1, 10),
    st.floats(-100, 100),
)
def test_the_slope_lies_in_its_interval_and_follows_scale_and_shift(
    ys: list[float], scale: float, shift: float
) -> None:
    xs = [float(n) for n in range(len(ys))]
    slope = theil_sen(xs, ys)
    assert slope.low <= slope.value <= slope.high
    moved = theil_sen(xs, [scale * y + shift for y in ys])
    assert all(math.isclose(b, scale * a, abs_tol=1e-6, rel_tol=1e-6) for a, b in zip(slope, moved, strict=True))
