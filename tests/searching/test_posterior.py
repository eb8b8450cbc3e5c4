"""The posterior given all trials: means, stopped trainings, the observations conditioned on."""

import random
from dataclasses import replace

import numpy as np
import pytest

from nas.core import registry
from nas.interfaces import Choices, Rung, Space, Trial
from nas.searching.gp import posterior as posteriors
from nas.searching.gp.features import PointFeatures
from nas.searching.gp.posterior import (
    _subset,
    condition_on,
    fit_accuracy,
    observe,
    posterior,
    prefix_of,
    training_set,
)
from nas.searching.gp.surrogate import (
    condition_surrogate,
    expected_hypervolume_improvement,
    fit_all,
)
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
    mean_at = np.array([found[number][0] for number in range(60)])
    assert np.std(mean_at - true) < 0.9 * np.std(observed - true)
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
    found = observe([*finished, stopped(20, 2, 33.5), stopped(21, 1, 10.0)])
    assert len(found) == 9  # of the second nobody knows where it would have ended
    assert found[-1].accuracy == pytest.approx(57, abs=0.5)
    assert 0 < found[-1].extra_std < 1


def test_a_process_of_many_trials_sees_the_best_and_some_of_all_times() -> None:
    observed = observe([done(n % 60, float(n)) for n in range(500)])
    chosen = _subset(observed, 100)
    assert len(chosen) == 100
    assert {each.accuracy for each in observed[450:]} <= {each.accuracy for each in chosen}
    assert min(each.accuracy for each in chosen) < 10


def test_words_are_columns_and_what_cannot_change_is_none() -> None:
    features = PointFeatures(WORDS)
    points = [{"color": c, "one": 1, "flag": f} for c in ("red", "blue") for f in (False, True)]
    inputs = features.inputs(points)
    assert inputs.features.shape == (4, 4)
    assert inputs.groups.tolist() == [0, 0, 0, 1]


def test_what_cannot_be_counted_is_believed_too() -> None:
    objective = make_objective("hard", None, (Bound("latency_ms", 2.0),), ())
    goal, features = Goal(objective), PointFeatures(SPACE)
    trials = [done(n, accuracy(c)) for n, c in enumerate(POINTS)]
    model = condition_surrogate(features, goal, trials, fit_all(features, goal, trials), [])
    slow, fast = {**POINTS[0], "width": 1.0}, {**POINTS[0], "width": 0.25}
    times = [each["latency_ms"] for each in model.costs([slow, fast])]
    assert times == pytest.approx([5.0, 1.25], rel=0.15)
    mean, deviation = model.rewards([slow, fast])
    accuracies, spread = model.accuracy.predict(features.inputs([slow, fast]))
    assert mean[0] == pytest.approx(accuracies[0] * 2.0 / times[0])
    assert deviation[1] == pytest.approx(spread[1])


def test_points_in_flight_make_a_process_no_surer_elsewhere() -> None:
    features = PointFeatures(SPACE)
    observed = observe([done(n, accuracy(c)) for n, c in enumerate(POINTS[:12])])
    rng = random.Random(7)
    pending, others = ([random_choices(SPACE, rng) for _ in range(60)] for _ in range(2))
    parameters = fit_accuracy(features, observed)
    calm, busy = (
        condition_on(features, parameters, observed),
        condition_on(features, parameters, observed, pending),
    )
    inputs = features.inputs(others)
    assert busy.predict(inputs)[0] == pytest.approx(calm.predict(inputs)[0], abs=1e-6)
    assert busy.predict(inputs)[1].mean() > 0.6 * calm.predict(inputs)[1].mean()
    assert (
        busy.predict(features.inputs(pending))[1].mean()
        < calm.predict(features.inputs(pending))[1].mean()
    )


def many(count: int) -> list[Trial]:
    rng = random.Random(8)
    found = []
    for number in range(count):
        choices = random_choices(SPACE, rng)
        metrics = {"accuracy": accuracy(choices) + rng.gauss(0, 0.5)}
        found.append(Trial(number, "done", choices, str(number), metrics, (metrics["accuracy"],)))
    return found


def test_a_process_that_extends_a_prefix_is_that_of_all_trials() -> None:
    features, trials = PointFeatures(SPACE), many(475)
    observed, pending = observe(trials), [random_choices(SPACE, random.Random(9)) for _ in range(5)]
    parameters = fit_accuracy(features, observed[:200])
    prefix = prefix_of(features, parameters, observed, None)
    assert prefix and len(prefix.observed) == 450
    whole = condition_on(features, parameters, observed, pending)
    extended = condition_on(features, parameters, observed, pending, prefix)
    inputs = features.inputs(POINTS)
    assert extended.predict(inputs)[0] == pytest.approx(whole.predict(inputs)[0], abs=1e-8)
    assert extended.predict(inputs)[1] == pytest.approx(whole.predict(inputs)[1], abs=1e-8)
    seen = features.inputs([each.choices for each in observed])
    assert extended.train_mean[: len(observed)] == pytest.approx(extended.mean_at(seen), abs=1e-8)
    assert prefix_of(features, parameters, observed[:450], None) is not None
    assert prefix_of(features, parameters, observed[:449], None) is None
    assert (
        prefix_of(features, parameters, [observed[0]._replace(extra_std=0.1), *observed], None)
        is None
    )


def test_what_is_proposed_does_not_depend_on_what_was_asked_before() -> None:
    features, trials, goal = (
        PointFeatures(SPACE),
        many(520),
        Goal(make_objective("hard", None, (), ())),
    )
    parameters = fit_all(features, goal, trials[:200])
    kept = None
    for count in (430, 460, 499, 500, 501, 520):
        kept = condition_surrogate(features, goal, trials[:count], parameters, POINTS[:2], kept)
        fresh = condition_surrogate(features, goal, trials[:count], parameters, POINTS[:2])
        for mine, other in zip(kept.rewards(POINTS), fresh.rewards(POINTS), strict=True):
            assert mine.tolist() == other.tolist()
    before = kept
    kept = condition_surrogate(features, goal, trials, parameters, [], kept)
    assert before and kept.prefix is before.prefix is not None


def test_of_very_many_trials_the_latest_are_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posteriors, "MAX_OBSERVATIONS", 410)
    features, observed = PointFeatures(SPACE), observe(many(480))
    prefix = prefix_of(features, fit_accuracy(features, observed[:50]), observed, None)
    seen = training_set(observed, prefix)
    assert len(seen) == 410 + 30 and seen[-30:] == observed[450:]


def test_a_front_may_grow_beyond_the_dearest_and_all_of_it_leads() -> None:
    goal, features = Goal(make_objective("hard", None, (), ()), "flops"), PointFeatures(SPACE)
    costs = [features.counted(choices).metrics["flops"] for choices in POINTS]  # type: ignore[union-attr]
    order = sorted(range(len(POINTS)), key=lambda n: costs[n])[:40]
    # what is dearer is better: all are on the front, and the dearest of all was not seen
    trials = [
        Trial(n, "done", POINTS[n], str(n), {"accuracy": 40.0 + i}, (40.0 + i, costs[n]))
        for i, n in enumerate(order)
    ]
    model = condition_surrogate(features, goal, trials, fit_all(features, goal, trials), [])
    acquisition, leaders = expected_hypervolume_improvement(model, [POINTS[n] for n in order])
    dearer = [POINTS[n] for n in sorted(range(len(POINTS)), key=lambda n: costs[n])[40:43]]
    assert max(acquisition(dearer, 1.0)[0]) > 0
    assert len(leaders) <= 10 and min(leaders) < 5 and max(leaders) > 34
