"""How long a call takes, and whether to believe it: the statistics, and the way to measure."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nas.interfaces import Timing

# above this a number is not worth comparing (conventions, fact 1.2)
MOST_UNREST = 0.10
# rounds of one measurement, of which two must agree
ROUNDS = 4
# timed runs of a round, however slow they are
LEAST_RUNS = 2
# a processor takes some hundredths of a second to reach its speed, and as long may pass before the
# system gives the core to somebody else: what is shorter sees neither
_LEAST_MS = 100.0
_SETTLED = 0.05

# runs one batch and returns how long that took, in ms
Once = Callable[[], float]


def summarise(
    times_ms: Sequence[float],
    batch: int,
    *,
    away: float = 0.0,
    load: float | None = None,
    notes: tuple[str, ...] = (),
) -> Timing:
    """Return the statistics of the times of one batch.

    `away`: share of the time, 0..1, in which the core worked for somebody else. It is asked for
    because a neighbour that takes half of a core all the time doubles every time evenly.

    Raises:
        ValueError: there are no times, or one is not positive.
    """
    ordered = sorted(times_ms)
    if not ordered or not ordered[0] > 0:
        raise ValueError(f"times must be positive, and at least one: {list(times_ms)[:3]}")
    p10, p25, median, p75, p90 = (quantile(ordered, q) for q in (0.10, 0.25, 0.50, 0.75, 0.90))
    unrest = max((p75 - p25) / median, away)
    return Timing(
        median_ms=median,
        p10_ms=p10,
        p90_ms=p90,
        n=len(ordered),
        load=load,
        unrest=unrest,
        steady=unrest <= MOST_UNREST,
        batch=batch,
        throughput=1000 * batch / median,
        notes=notes,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of ascending values lie, between neighbours by line."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def steady_measure(
    once: Once,
    *,
    batch: int = 1,
    runs: int = 100,
    seconds: float = 3.0,
    busy: Callable[[], float] | None = None,
    notes: tuple[str, ...] = (),
) -> Timing:
    """Return the time of a call: warmed up, then measured in rounds until two of them agree.

    Two rounds of at least `runs` runs and a tenth of a second make a measurement, as a machine may
    be evenly slow for a while. While the steadiest two of them are unsteady there is another round,
    four in all. Together all takes about `seconds`, or up to nine runs where a run is slower than
    that. `busy` reads a clock, in seconds, that stands still while the core works for somebody else
    (`time.thread_time`).
    """
    limit = 1000 * seconds / (ROUNDS + 1)
    _warm_up(once, limit)
    rounds = [_round(once, runs, limit, busy)]
    while True:
        rounds.append(_round(once, runs, limit, busy))
        pairs = (
            summarise(
                one.times + other.times,
                batch,
                away=max(one.away, other.away),
                load=load(),
                notes=notes,
            )
            for one, other in itertools.combinations(rounds, 2)
        )
        best = min(pairs, key=lambda pair: pair.unrest)
        if best.steady or len(rounds) == ROUNDS:
            return best


class _Round(NamedTuple):
    times: list[float]
    away: float


def _warm_up(once: Once, limit: float) -> None:
    """Run until three runs take as long as the three before them, or `limit` ms are over."""
    times = [once()]
    total = times[0]
    while total < limit and not (total >= _LEAST_MS and _settled(times[-6:])):
        times.append(once())
        total += times[-1]


def _settled(times: Sequence[float]) -> bool:
    if len(times) < 6:
        return False
    before, last = statistics.median(times[:3]), statistics.median(times[3:])
    return abs(last - before) <= _SETTLED * before


def _round(once: Once, runs: int, limit: float, busy: Callable[[], float] | None) -> _Round:
    start = busy() if busy else 0.0
    times = [once() for _ in range(LEAST_RUNS)]
    total = sum(times)
    while (len(times) < runs or total < _LEAST_MS) and total < limit:
        times.append(once())
        total += times[-1]
    away = 1 - 1000 * (busy() - start) / total if busy else 0.0
    return _Round(times, max(0.0, away))


def load() -> float | None:
    """Return the load average of the last minute per core; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
    except (AttributeError, OSError):
        return None
