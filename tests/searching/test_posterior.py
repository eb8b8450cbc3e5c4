"""What all trials speak for: posterior means, stopped trainings, what a process is given to see."""

import random
from dataclasses import replace

import numpy as np
import pytest

from nas.core import registry
from nas.interfaces import Choices, Rung, Space, Trial
from nas.searching.gp import posterior as posteriors
from nas.searching.gp.features import Features
from nas.searching.gp.posterior import (
    _telling,
    fitted,
    learnt,
    observations,
    posterior,
    prefix_of,
    shown,
)
from nas.searching.gp.surrogate import believed, expected_hypervolume_improvement, parameters_of
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.samplers import random_choices

SPACE: Space = registry.export("spaces", "mbconv_small", "SPACE")
WORDS = Space(
    "words",
    {"color": ("red", "blue", "green"), "one": (1,), "flag": (False, True)},
    lambda choices: SPACE.decode(POINT),
)
POINT: Choices = {name: next(iter(options)) for name, options in SPACE.choices.items()}
RNG = random.Random(0)
POINTS = [random_choices(SPACE, RNG) for _ in range(60)]


def accuracy(choices: Choices) -> float:
    return 50 + 10 * choices["width"] + choices["block3_layers"] - choices["block5_expansion"]


def done(number: int, observed: float) -> Trial:
    metrics = {"accuracy": observed, "latency_ms": 5 * POINTS[number]["width"]}
    return Trial(number, "done", POINTS[number], str(number), metrics, (observed,))


def stopped(number: int, epochs: int, seen: float) -> Trial:
    rung = Rung(epochs, seen, {"accuracy": seen}, 1.0)
    return Trial(number, "stopped", POINTS[number], str(number), {}, (), rungs=(rung,))


def test_means_are_nearer_to_the_truth_than_observations() -> None:
    rng = random.Random(1)
    trials = [done(n, accuracy(c) + rng.gauss(0, 1)) for n, c in enumerate(POINTS)]
    found = posterior(SPACE, trials)
    assert set(found) == set(range(60))
    true = np.array([accuracy(choices) for choices in POINTS])
    observed = np.array([trial.values[0] for trial in trials])
    means = np.array([found[number][0] for number in range(60)])
    assert np.std(means - true) < 0.9 * np.std(observed - true)
    assert all(deviation > 0 for _, deviation in found.values())


def test_without_noise_observations_stand() -> None:
    trials = [done(n, accuracy(c)) for n, c in enumerate(POINTS)]
    found = posterior(SPACE, trials)
    assert max(abs(found[t.number][0] - t.values[0]) for t in trials) < 0.2


def test_the_posterior_is_never_surer_than_the_evaluator() -> None:
    """A process that has learnt a predictor by heart knows no more than the predictor."""
    trials = [done(n, accuracy(c)) for n, c in enumerate(POINTS)]
    sure = posterior(SPACE, trials)
    stated = [replace(t, metrics={**t.metrics, "accuracy_std": 0.35}) for t in trials]
    honest = posterior(SPACE, stated)
    for number, (mean, deviation) in honest.items():
        assert mean == sure[number][0]
        assert deviation == pytest.approx((sure[number][1] ** 2 + 0.35**2) ** 0.5)


def test_of_few_trials_nothing_is_said() -> None:
    assert posterior(SPACE, [done(n, 50.0) for n in range(9)]) == {}
    assert posterior(SPACE, [stopped(n, 1, 20.0) for n in range(20)]) == {}


def test_equal_accuracies_are_believed() -> None:
    found = posterior(SPACE, [done(n, 50.0) for n in range(12)])
    assert all(mean == pytest.approx(50) for mean, _ in found.values())


def test_a_stopped_training_shows_where_the_others_went_from_there() -> None:
    finished = []
    for number in range(8):
        rung = Rung(2, 30.0 + number, {"accuracy": 30.0 + number}, 1.0)
        finished.append(replace(done(number, 50.0 + 2 * number), rungs=(rung,)))
    found = shown([*finished, stopped(20, 2, 33.5), stopped(21, 1, 10.0)])
    assert len(found) == 9  # of the second nobody knows where it would have ended
    assert found[-1].accuracy == pytest.approx(57, abs=0.5)
    assert 0 < found[-1].extra < 1


def test_a_process_of_many_trials_sees_the_best_and_some_of_all_times() -> None:
    known = shown([done(n % 60, float(n)) for n in range(500)])
    chosen = _telling(known, 100)
    assert len(chosen) == 100
    assert {each.accuracy for each in known[450:]} <= {each.accuracy for each in chosen}
    assert min(each.accuracy for each in chosen) < 10


def test_words_are_columns_and_what_cannot_change_is_none() -> None:
    features = Features(WORDS)
    points = [{"color": c, "one": 1, "flag": f} for c in ("red", "blue") for f in (False, True)]
    rows = features.rows(points)
    assert rows.features.shape == (4, 4)
    assert rows.groups.tolist() == [0, 0, 0, 1]


def test_what_cannot_be_counted_is_believed_too() -> None:
    objective = make_objective("hard", None, (Bound("latency_ms", 2.0),), ())
    goal, features = Goal(objective), Features(SPACE)
    trials = [done(n, accuracy(c)) for n, c in enumerate(POINTS)]
    belief = believed(features, goal, trials, parameters_of(features, goal, trials), [])
    slow, fast = {**POINTS[0], "width": 1.0}, {**POINTS[0], "width": 0.25}
    times = [each["latency_ms"] for each in belief.costs([slow, fast])]
    assert times == pytest.approx([5.0, 1.25], rel=0.15)
    mean, deviation = belief.rewards([slow, fast])
    accuracies, spread = belief.accuracy(features.rows([slow, fast]))
    assert mean[0] == pytest.approx(accuracies[0] * 2.0 / times[0])
    assert deviation[1] == pytest.approx(spread[1])


def test_points_in_flight_make_a_process_no_surer_elsewhere() -> None:
    features = Features(SPACE)
    known = shown([done(n, accuracy(c)) for n, c in enumerate(POINTS[:12])])
    rng = random.Random(7)
    flying, others = ([random_choices(SPACE, rng) for _ in range(60)] for _ in range(2))
    parameters = fitted(features, known)
    calm, busy = learnt(features, parameters, known), learnt(features, parameters, known, flying)
    rows = features.rows(others)
    assert busy(rows)[0] == pytest.approx(calm(rows)[0], abs=1e-6)
    assert busy(rows)[1].mean() > 0.6 * calm(rows)[1].mean()
    assert busy(features.rows(flying))[1].mean() < calm(features.rows(flying))[1].mean()


def many(count: int) -> list[Trial]:
    rng = random.Random(8)
    found = []
    for number in range(count):
        choices = random_choices(SPACE, rng)
        metrics = {"accuracy": accuracy(choices) + rng.gauss(0, 0.5)}
        found.append(Trial(number, "done", choices, str(number), metrics, (metrics["accuracy"],)))
    return found


def test_a_process_that_extends_a_prefix_is_that_of_all_trials() -> None:
    features, trials = Features(SPACE), many(475)
    known, flying = shown(trials), [random_choices(SPACE, random.Random(9)) for _ in range(5)]
    parameters = fitted(features, known[:200])
    prefix = prefix_of(features, parameters, known, None)
    assert prefix and len(prefix.known) == 450
    whole = learnt(features, parameters, known, flying)
    extended = learnt(features, parameters, known, flying, prefix)
    rows = features.rows(POINTS)
    assert extended(rows)[0] == pytest.approx(whole(rows)[0], abs=1e-8)
    assert extended(rows)[1] == pytest.approx(whole(rows)[1], abs=1e-8)
    seen = features.rows([each.choices for each in known])
    assert extended.fitted[: len(known)] == pytest.approx(extended.means(seen), abs=1e-8)
    assert prefix_of(features, parameters, known[:450], None) is not None
    assert prefix_of(features, parameters, known[:449], None) is None
    assert prefix_of(features, parameters, [known[0]._replace(extra=0.1), *known], None) is None


def test_what_is_proposed_does_not_depend_on_what_was_asked_before() -> None:
    features, trials, goal = Features(SPACE), many(520), Goal(make_objective("hard", None, (), ()))
    parameters = parameters_of(features, goal, trials[:200])
    kept = None
    for count in (430, 460, 499, 500, 501, 520):
        kept = believed(features, goal, trials[:count], parameters, POINTS[:2], kept)
        fresh = believed(features, goal, trials[:count], parameters, POINTS[:2])
        for mine, other in zip(kept.rewards(POINTS), fresh.rewards(POINTS), strict=True):
            assert mine.tolist() == other.tolist()
    before = kept
    kept = believed(features, goal, trials, parameters, [], kept)
    assert before and kept.prefix is before.prefix is not None


def test_of_very_many_trials_the_latest_are_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posteriors, "MOST", 410)
    features, known = Features(SPACE), shown(many(480))
    prefix = prefix_of(features, fitted(features, known[:50]), known, None)
    seen = observations(known, prefix)
    assert len(seen) == 410 + 30 and seen[-30:] == known[450:]


def test_a_front_may_grow_beyond_the_dearest_and_all_of_it_leads() -> None:
    goal, features = Goal(make_objective("hard", None, (), ()), "flops"), Features(SPACE)
    costs = [features.seen(choices).metrics["flops"] for choices in POINTS]  # type: ignore[union-attr]
    order = sorted(range(len(POINTS)), key=lambda n: costs[n])[:40]
    # what is dearer is better: all are on the front, and the dearest of all was not seen
    trials = [
        Trial(n, "done", POINTS[n], str(n), {"accuracy": 40.0 + i}, (40.0 + i, costs[n]))
        for i, n in enumerate(order)
    ]
    belief = believed(features, goal, trials, parameters_of(features, goal, trials), [])
    acquisition, leaders = expected_hypervolume_improvement(belief, [POINTS[n] for n in order])
    dearer = [POINTS[n] for n in sorted(range(len(POINTS)), key=lambda n: costs[n])[40:43]]
    assert max(acquisition(dearer, 1.0)[0]) > 0
    assert len(leaders) <= 10 and min(leaders) < 5 and max(leaders) > 34
