"""Timing: its statistics, and how a measurement decides that it may be believed."""

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

from nas.hardware.timing import LEAST_RUNS, MOST_UNREST, ROUNDS, quantile, steady_measure, summarise

WARM_MS = 100.0


class Script:
    """A clock that is not: each run takes what the script says; `spent` is the sum in ms."""

    def __init__(self, times: Iterable[float]) -> None:
        self._times: Iterator[float] = iter(times)
        self.spent, self.runs = 0.0, 0

    def __call__(self) -> float:
        now = next(self._times)
        self.spent, self.runs = self.spent + now, self.runs + 1
        return now

    def core(self, share: float) -> Callable[[], float]:
        """Return the processor time in seconds of a thread that has its core for this share."""
        return lambda: share * self.spent / 1000


def noisy(median: float, noise: float, seed: int = 0) -> Iterator[float]:
    rng = random.Random(seed)
    while True:
        yield median * (1 + rng.uniform(-noise, noise))


def test_quantiles_are_numpys() -> None:
    values = sorted(random.Random(0).expovariate(1) for _ in range(37))
    for share in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))
    assert quantile([3.0], 0.9) == 3.0


def test_the_summary_of_known_times() -> None:
    timing = summarise([10.0, 30.0, 20.0, 50.0, 40.0], 8, load=0.5, notes=("a",))
    assert (timing.p10_ms, timing.median_ms, timing.p90_ms, timing.n) == (14.0, 30.0, 46.0, 5)
    assert timing.throughput == pytest.approx(8 / 0.030)
    assert timing.unrest == pytest.approx(20 / 30)
    assert not timing.steady
    assert (timing.load, timing.batch, timing.notes) == (0.5, 8, ("a",))


@pytest.mark.parametrize(("away", "steady"), [(0.0, True), (0.09, True), (0.11, False)])
def test_even_times_on_a_shared_core_are_unsteady(away: float, steady: bool) -> None:
    assert summarise([20.0] * 9, 1, away=away).steady is steady


@pytest.mark.parametrize("times", [[], [0.0, 1.0], [-1.0], [float("nan")]])
def test_impossible_times_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        summarise(times, 1)


def test_a_quiet_machine_needs_two_rounds() -> None:
    script = Script(noisy(5.0, 0.05))
    timing = steady_measure(script, runs=40, seconds=10)
    assert timing.steady and timing.n == 80
    assert timing.median_ms == pytest.approx(5.0, rel=0.05)
    assert script.runs == pytest.approx(80 + WARM_MS / 5, abs=3)


def test_quick_calls_are_watched_long_enough_to_see_a_neighbour() -> None:
    timing = steady_measure(Script(noisy(0.05, 0.02)), runs=10, seconds=3)
    assert timing.n == pytest.approx(2 * 100 / 0.05, rel=0.01)


def test_slow_first_runs_do_not_count() -> None:
    cold = [900.0, 300.0, 90.0, 60.0, 40.0, 30.0, 25.0, 22.0]
    timing = steady_measure(Script(itertools.chain(cold, noisy(20.0, 0.02))), runs=20, seconds=60)
    assert timing.steady
    assert timing.p90_ms < 21


def test_a_disturbed_round_is_left_out() -> None:
    warm, runs = [20.0] * 6, 10
    script = Script([*warm, *[28.0] * runs, *[20.0] * 2 * runs])
    timing = steady_measure(script, runs=runs, seconds=60)
    assert (timing.steady, timing.median_ms, timing.n) == (True, 20.0, 2 * runs)


def test_rounds_that_never_agree_are_unsteady_though_each_is_even() -> None:
    warm, runs = [20.0] * 6, 10
    rounds = itertools.chain.from_iterable([level] * runs for level in (20.0, 30.0, 60.0, 120.0))
    script = Script([*warm, *rounds])
    timing = steady_measure(script, runs=runs, seconds=60)
    assert not timing.steady
    assert script.runs == len(warm) + ROUNDS * runs
    # the pair that is nearest to agreeing
    assert timing.p10_ms == 20.0 and timing.p90_ms == 30.0


def test_a_neighbour_on_the_core_shows_in_the_processor_time() -> None:
    script = Script(itertools.repeat(20.0))
    halved = steady_measure(script, runs=10, seconds=60, busy=script.core(0.5))
    assert not halved.steady
    assert halved.unrest == pytest.approx(0.5)
    alone = Script(itertools.repeat(20.0))
    assert steady_measure(alone, runs=10, seconds=60, busy=alone.core(1.0)).unrest == 0


@pytest.mark.parametrize("each_ms", [0.5, 3.0, 40.0, 700.0, 20_000.0])
@pytest.mark.parametrize("noise", [0.01, 0.6])
def test_the_time_is_bounded_whatever_a_run_takes(each_ms: float, noise: float) -> None:
    script = Script(noisy(each_ms, noise))
    timing = steady_measure(script, runs=100, seconds=3.0)
    # a round may begin its last run just before its time is up
    assert script.spent <= 3000 + (ROUNDS + 1) * LEAST_RUNS * each_ms * (1 + noise)
    assert script.runs <= 9 or script.spent <= 3000 + (ROUNDS + 1) * each_ms * (1 + noise)
    assert timing.n >= 2 * LEAST_RUNS


def test_steadiness_is_one_limit() -> None:
    times = [100.0, 100.0, 100.0 + 100 * MOST_UNREST, 100.0]
    assert summarise(times, 1).steady
    assert not summarise([100.0, 125.0, 100.0, 125.0], 1).steady


def test_a_real_call_is_timed() -> None:
    def nap() -> float:
        start = time.perf_counter()
        time.sleep(0.005)
        return 1000 * (time.perf_counter() - start)

    timing = steady_measure(nap, runs=10, seconds=0.5, busy=time.thread_time)
    assert timing.median_ms >= 5
    assert not timing.steady  # it slept: the core was not its own
    assert timing.load is None or timing.load >= 0
