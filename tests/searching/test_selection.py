"""What is handed over: the best that is expected, with what was observed beside it."""

import dataclasses
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nas.core.run_folder import read_json
from nas.interfaces import Rung, Trial
from nas.models.points import cost_metrics, decode
from nas.reporting import report
from nas.reporting.terminal.search import show_search
from nas.searching.final_length import length_of
from nas.searching.outcome.conclude import final_result
from nas.searching.outcome.explanation import Contender, choose, explain, why
from nas.searching.outcome.finals import Finalist, FinalScore
from nas.searching.outcome.selection import (
    StudyPosterior,
    best_of_study,
    finalists,
    leaders,
    observed_best,
    posterior_of_study,
    ranked,
    select_best,
)
from nas.searching.result import BestArch, Candidate, EvaluatorInfo, SearchResult, SpaceInfo
from nas.searching.samplers import random_choices
from nas.searching.search import search
from nas.searching.settings import SearchSettings
from nas.searching.setup import Setup, prepare
from nas.training.amount import Amount

NOISY = {"evaluator": "synthetic", "evaluator_options": {"noise": 0.5}, "target_flops": "400M"}


def setup_of(**settings: Any) -> Setup:
    return prepare(SearchSettings.model_validate({"evaluator": "synthetic", **settings}))


@pytest.fixture(scope="module")
def setup() -> Setup:
    return setup_of(target_flops="500M")


def alone(**settings: Any) -> Setup:
    """Return a setup without references."""
    return dataclasses.replace(setup_of(**settings), references=())


def scores(entrants: list[Finalist], accuracies: dict[str, float]) -> dict[str, FinalScore]:
    """Return what the finals showed, by arch id, of one seed each."""
    return {
        finalist.arch.id: FinalScore(finalist, (accuracies[finalist.name],), 0.0, "")
        for finalist in entrants
    }


def trials_of(setup: Setup, accuracies: list[float]) -> list[Trial]:
    """Return trials of networks within the target, with these accuracies."""
    rng, found = random.Random(0), list[Trial]()
    while len(found) < len(accuracies):
        choices = random_choices(setup.space, rng)
        arch = decode(setup.space, choices)
        metrics = {"accuracy": accuracies[len(found)], **cost_metrics(arch)}
        if metrics["flops"] <= 450e6:
            values = setup.goal.values(metrics)
            found.append(Trial(len(found), "done", choices, arch.id, metrics, values))
    return found


def result_of(best: Candidate | None, **more: Any) -> SearchResult:
    """Return the result of a search of three trials that hands this network over."""
    return SearchResult(
        run=Path("runs/search/search"),
        space=SpaceInfo(name="mbconv", size=1),
        controller="random",
        evaluator=EvaluatorInfo(name="synthetic", title=""),
        objective="accuracy",
        reward="hard",
        trials=3,
        proposals=3,
        states={"done": 3},
        seconds=0.0,
        winner=best and BestArch(**vars(best)),
        leaders=(),
        references=(),
        gains=(),
        **more,
    )


def test_the_best_expected_is_handed_over_and_the_best_observed_told(setup: Setup) -> None:
    trials = trials_of(setup, [60.0, 70.0, 66.0])
    study = StudyPosterior(trials, {0: (61.0, 0.5), 1: (65.0, 0.4), 2: (66.5, 0.3)})
    assert [trial.number for trial in leaders(study, setup.goal)] == [2, 1, 0]
    best = best_of_study(setup, "best", study, {})
    assert best and (best["number"], best["reward"]) == (2, 66.0)
    assert best["metrics"] == trials[2].metrics  # as observed
    assert best["posterior"] == {"accuracy": 66.5, "accuracy_std": 0.3, "reward": 66.5}
    other = observed_best(setup, study, best)
    assert (other["number"], other["reward"]) == (1, 70.0)
    assert other["posterior"]["accuracy"] == 65.0
    said = why(result_of(best, observed_best=other))
    assert "trial 2 (reward 66.000, accuracy 66.00 observed, 66.50 ±0.30 posterior)" in said
    assert "trial 1 (reward 70.000, accuracy 70.00 observed, 65.00 ±0.40 posterior)" in said
    assert "winner's curse" in said


def test_where_the_two_are_one_it_is_told_so(setup: Setup) -> None:
    study = StudyPosterior(trials_of(setup, [60.0, 70.0]), {0: (61.0, 0.5), 1: (69.0, 0.4)})
    best = best_of_study(setup, "best", study, {})
    assert best and best["number"] == 1 and observed_best(setup, study, best) is None
    assert why(result_of(best)).endswith("It was best observed too.")


def test_without_beliefs_the_best_observed_is_handed_over(setup: Setup) -> None:
    study = StudyPosterior(trials_of(setup, [60.0, 70.0, 66.0]))
    best = best_of_study(setup, "best", study, {})
    assert best and (best["number"], best["posterior"]) == (1, None)
    assert observed_best(setup, study, best) is None and why(result_of(best)) == ""
    assert (
        best_of_study(setup, "best", StudyPosterior([]), {}) is None and why(result_of(None)) == ""
    )


def test_the_reward_is_counted_at_the_believed_accuracy_and_the_known_cost() -> None:
    setup = setup_of(target_flops="300M", reward="soft")
    trials = trials_of(setup, [70.0, 70.0])
    study = StudyPosterior(trials, {0: (68.0, 0.1), 1: (68.0, 0.1)})
    best = best_of_study(setup, "best", study, {})
    cheaper = min(trials, key=lambda trial: trial.metrics["flops"])
    assert best and best["number"] == cheaper.number
    reward = 68.0 * (cheaper.metrics["flops"] / 300e6) ** -0.07
    assert best["posterior"]["reward"] == pytest.approx(reward)


def test_what_keeps_to_a_hard_target_comes_first_whatever_is_believed() -> None:
    setup = setup_of(target_flops="300M")
    trials = trials_of(setup, [50.0] * 12)
    inside = {trial.number for trial in trials if trial.metrics["flops"] <= 300e6}
    assert 0 < len(inside) < len(trials)
    posteriors = {t.number: (10.0 if t.number in inside else 90.0, 0.1) for t in trials}
    found = [trial.number for trial in ranked(trials, setup.goal, posteriors)]
    assert set(found[: len(inside)]) == inside


def test_finalists_are_chosen_by_belief_and_the_finals_name_the_winner() -> None:
    setup = alone(target_flops="500M", evaluator_options={"epochs": 2}, finalists=2)
    study = StudyPosterior(
        trials_of(setup, [60.0, 70.0, 66.0]), {0: (67.0, 0.5), 1: (65.0, 0.4), 2: (66.5, 0.3)}
    )
    entrants = finalists(setup, study, StudyPosterior([]))
    assert [finalist.name for finalist in entrants] == ["search #0", "search #2"]
    final = scores(entrants, {"search #0": 61.0, "search #2": 64.0})
    best = select_best(setup, study, StudyPosterior([]), final)
    assert best
    row, verdict = best
    finals = tuple(final_result(each, setup.goal.objective) for each in final.values())
    assert (row["number"], row["metrics"]["accuracy"], row["origin"]) == (2, 64.0, "search")
    assert row["posterior"]["accuracy"] == 66.5
    assert verdict.startswith("Handed over is search #2 (64.00 %, ")
    assert "finalists were chosen by posterior mean" in why(result_of(row, finals=finals))


def test_a_model_is_asked_from_ten_trials_on_and_never_for_a_front(setup: Setup) -> None:
    trials = trials_of(setup, [60 + i / 10 for i in range(12)])
    trials[3] = Trial(**{**vars(trials[3]), "state": "earlier"})
    assert posterior_of_study(setup, trials[:9]).posteriors == {}
    study = posterior_of_study(setup, trials)
    posteriors = study.posteriors
    assert posterior_of_study(setup, list(trials), study) is study
    assert len(posterior_of_study(setup, trials[:-1], study).posteriors) < len(posteriors)
    assert set(posteriors) == set(range(12))
    assert all(55 < mean < 65 and deviation > 0 for mean, deviation in posteriors.values())
    assert posterior_of_study(setup_of(objective="pareto"), trials).posteriors == {}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return search(**NOISY, trials=40, project=tmp_path_factory.mktemp("runs"))


def test_a_search_hands_over_by_its_own_posterior(found: SearchResult) -> None:
    best, random_study = found["best"], found["random"]
    every = [*found["leaders"], random_study]
    assert best["posterior"]["reward"] == max(row["posterior"]["reward"] for row in every)
    assert random_study["posterior"]["accuracy_std"] > 0
    rows = [row for row in found["leaders"] if row["metrics"]["flops"] <= 400e6]
    if found["observed_best"]:
        assert found["observed_best"]["reward"] >= max(row["reward"] for row in rows)
        assert found["observed_best"]["posterior"]["reward"] <= best["posterior"]["reward"]


def shown(result: SearchResult) -> str:
    console = Console(width=2000, record=True, file=io.StringIO())
    show_search(result, console)
    return console.export_text()


def test_screen_card_and_report_say_both(found: SearchResult) -> None:
    text, run = why(found), Path(found["run"])
    assert text
    assert text in shown(found) and "posterior %" in shown(found)
    assert text in (run / "best" / "README.md").read_text()
    page = report.write(run).read_text()
    assert "best by posterior mean" in page and "posterior (%)" in page


def test_a_run_of_an_older_version_still_shows_and_reports(found: SearchResult) -> None:
    run = Path(found["run"])
    kept = (run / "result.json").read_text()
    old = read_json(run / "result.json")
    for row in (old["best"], old["random"], *old["leaders"], *old["references"]):
        del row["posterior"], row["state"]
    for row in (old["best"], *old["leaders"]):
        row.pop("label", None), row.pop("origin", None), row.pop("reference", None)
    del old["observed_best"], old["warm_start"]
    del old["verdict"], old["search"], old["references_counted"]
    (run / "result.json").write_text(json.dumps(old))
    page = report.write(run).read_text()
    assert "posterior" not in page and "posterior" not in shown(SearchResult.from_dict(old))
    (run / "result.json").write_text(kept)


def test_a_front_stays_observed_and_says_so(tmp_path: Path) -> None:
    found = search(evaluator="synthetic", objective="pareto", trials=15, project=tmp_path)
    assert found["best"]["posterior"] is None and found["observed_best"] is None
    assert "Their accuracies are as observed, no model was asked" in shown(found)


@pytest.mark.parametrize("target", [None, "400M"])
def test_a_front_is_not_ranked_and_shows_what_is_handed_over(
    tmp_path: Path, target: str | None
) -> None:
    settings = {"evaluator": "synthetic", "objective": "pareto", "trials": 30}
    found = search(**settings, target_flops=target, project=tmp_path)
    numbers = [row["number"] for row in found["leaders"]]
    assert found["best"]["number"] in numbers
    accuracies = [row["metrics"]["accuracy"] for row in found["leaders"]]
    assert accuracies == sorted(accuracies, reverse=True)
    text = shown(found)
    assert f"★ trial {found['best']['number']} " in text and "1. trial" not in text
    page = report.write(found.run).read_text()
    assert "in bold what is handed over" in page and "1. trial" not in page


def contender(label: str, reward: float, error: float, cost: float, origin: str) -> Contender:
    return Contender(label, origin, label, reward, error, cost, True, f"{reward:.1f} %")


def test_the_best_of_the_finals_is_handed_over_wherever_it_came_from() -> None:
    both = [contender("search #3", 70.0, 0.5, 9e6, "search")]
    both.append(contender("random search #8", 73.0, 0.5, 9e6, "random search"))
    choice = choose(both, cheaper=True)
    assert choice.chosen.label == "random search #8"
    said = explain(choice, where="in the finals", unit="points")
    assert said == (
        "Handed over is random search #8 (73.0 %), best in the finals, 3.00 ±0.71 points ahead of "
        "the search's best (#3)."
    )


@pytest.mark.parametrize(("behind", "chosen"), [(0.70, "b0"), (0.72, "search #3")])
def test_within_one_standard_error_the_cheaper_is_handed_over(behind: float, chosen: str) -> None:
    best = contender("search #3", 70.0, 0.5, 9e6, "search")
    cheap = contender("b0", 70.0 - behind, 0.5, 4e6, "reference")
    choice = choose([cheap, best], cheaper=True)
    assert choice.chosen.label == chosen  # the error of the difference is 0.707
    assert choose([cheap, best], cheaper=False).chosen is best
    said = explain(choice, where="in the finals", unit="points")
    assert ("within one standard error" in said) == (chosen == "b0")
    assert said.startswith(f"Handed over is {'the reference ' * (chosen == 'b0')}{chosen}")


def test_without_a_known_noise_nothing_is_level() -> None:
    best = contender("search #3", 70.0, 0.0, 9e6, "search")
    cheap = contender("b0", 69.99, 0.0, 4e6, "reference")
    choice = choose([cheap, best], cheaper=True)
    assert choice.chosen is best
    assert "0.01 points (noise unknown) ahead" in explain(choice, where="", unit="points")


def test_what_is_above_a_hard_target_never_wins() -> None:
    above = dataclasses.replace(contender("search #3", 90.0, 5, 9e6, "search"), within=False)
    inside = contender("b0", 60.0, 5.0, 4e6, "reference")
    assert choose([above, inside], cheaper=True).chosen is inside


def test_a_reference_beside_the_space_can_win_the_finals() -> None:
    setup = setup_of(target_flops="100M", evaluator_options={"epochs": 2}, finalists=1)
    study = StudyPosterior(trials_of(setup, [60.0, 62.0]))
    inside = [t for t in study.trials if t.metrics["flops"] <= 100e6]
    entrants = finalists(setup, StudyPosterior(inside), StudyPosterior([]))
    scaled = next(finalist for finalist in entrants if finalist.name == "b0_scaled")
    assert scaled.origin == "reference" and scaled.arch.resolution < 224
    final = scores(entrants, {each.name: 50.0 for each in entrants} | {"b0_scaled": 64.0})
    best = select_best(setup, StudyPosterior(inside), StudyPosterior([]), final)
    assert best
    assert best[0]["arch_id"] == scaled.arch.id and best[0]["choices"] == {}
    assert best[0]["metrics"]["accuracy"] == 64.0 and "b0_scaled" in best[1]


@pytest.mark.parametrize("state", ["done", "stopped"])
def test_the_best_reference_always_plays(state: str) -> None:
    setup = setup_of(target_flops="500M", evaluator_options={"epochs": 2}, finalists=1)
    others = trials_of(setup, [70.0, 71.0])
    points = [each for each in setup.references if each.choices]
    tried = []
    for number, each in enumerate(points, len(others)):
        metrics = {**each.cost, "accuracy": 50.0 + number}
        rung = Rung(1, 40.0 + number, metrics, 1.0)
        choices = each.choices or {}
        told = (50.0 + number,)
        tried.append(Trial(number, state, choices, each.arch.id, metrics, told, rungs=(rung,)))
    names = [
        f.name for f in finalists(setup, StudyPosterior([*others, *tried]), StudyPosterior([]))
    ]
    assert names == ["search #1", points[-1].name, "b0_scaled"]


def test_finals_are_as_long_as_tells_or_as_asked() -> None:
    candidate = Amount(images=3_000, batch=64, epochs=6)
    longer = length_of(6, 0.2, candidate, None, None)
    assert longer.enough and longer.fraction == 1.0 and longer.ratio > 1
    images = longer.epochs * 15_000
    assert images >= 30_000 and longer.label == f"{longer.epochs}x1"
    plenty = length_of(20, 0.2, Amount(3_000, 32, 20), None, None)
    assert (plenty.label, plenty.ratio) == ("", 1.0)
    asked = length_of(6, 0.2, candidate, 15, 0.9)
    assert (asked.epochs, asked.fraction, asked.label) == (15, 0.9, "15x0.9")
    few = length_of(6, 0.2, candidate, 2, None)
    assert not few.enough and "--final-epochs" in few.text
    blind = length_of(4, 1.0, None, None, None)
    assert (blind.epochs, blind.label, blind.enough) == (4, "", True)
