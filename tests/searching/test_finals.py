"""The finals: seeds that chose nobody, rows that are not repeated, the spread, the handing over."""

import math
import random
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nas.core import registry, run_folder
from nas.core.errors import RunError
from nas.core.ledger import columns
from nas.interfaces import Outcome, Rung, Task, Trial
from nas.models.arch import Arch
from nas.searching.engine import KEPT
from nas.searching.objective import Objective
from nas.searching.outcome import conclude, finalists, finals, selection
from nas.searching.outcome.explanation import as_candidate
from nas.searching.outcome.finals import (
    Finalist,
    FinalScore,
    copy_weights,
    pooled_deviation,
    run_finals,
)
from nas.searching.outcome.selection import limit_finalists
from nas.searching.samplers import random_choices
from nas.searching.search import search

MBCONV = registry.export("spaces", "mbconv", "SPACE")
RNG = random.Random(0)
ARCHS = [MBCONV.decode(random_choices(MBCONV, RNG)) for _ in range(3)]
FINALISTS = [
    Finalist(f"search #{i}", arch, {"accuracy": 70.0 - i, "flops": 1e6})
    for i, arch in enumerate(ARCHS)
]


class Course:
    """An executor whose accuracies are known before; it notes its tasks and leaves weights."""

    def __init__(self, slots: int = 1, failing: str = "") -> None:
        self.slots, self.failing = slots, failing
        self.tasks: list[Task] = []
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        assert len(self._queue) < self.slots
        self.tasks.append(task)
        self._queue.append(task)

    def wait(self) -> list[Outcome]:
        task = self._queue.pop()  # the last first: the order of outcomes is nobody's promise
        arch = Arch.from_dict(task.arch)
        if arch.id == self.failing:
            return [Outcome(task.number, {}, 'ValueError: no, "luck"\ntoday', 1.0)]
        found = accuracy(arch, task.seed)
        weights = Path(task.folder, "weights", "best.safetensors")
        weights.parent.mkdir(parents=True)
        weights.write_text(f"{found}")
        Path(task.folder, "config.json").write_text("{}")
        Path(task.folder, "checkpoints").mkdir()
        Path(task.folder, "checkpoints", "last.pt").write_text("large")
        return [Outcome(task.number, {"accuracy": found}, "", 2.5)]

    def close(self) -> None:
        self._queue.clear()


def accuracy(arch: Arch, seed: int) -> float:
    place = [other.id for other in ARCHS].index(arch.id)
    return 60.0 + 2 * place + random.Random(seed * 10 + place).gauss(0, 0.3)


def played(folder: Path, executor: Course, **more: Any) -> list[FinalScore]:
    options = {"epochs": 4, "seeds": 3, "seed": 0, "stop": lambda: "", "say": lambda text: None}
    return run_finals(folder, FINALISTS, executor, **{**options, **more})[0]


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_every_finalist_has_every_seed_and_its_mean(tmp_path: Path, slots: int) -> None:
    executor = Course(slots)
    scores = played(tmp_path, executor)
    assert [score.finalist for score in scores] == FINALISTS
    seeds = {task.seed for task in executor.tasks}
    assert len(executor.tasks) == 9 and len(seeds) == 3 and min(seeds) >= 1000
    for score in scores:
        wanted = [accuracy(score.finalist.arch, seed) for seed in seeds]
        assert sorted(score.accuracies) == pytest.approx(sorted(wanted))
        assert score.mean == pytest.approx(np.mean(wanted))
    assert {task.epochs for task in executor.tasks} == {4}


def test_the_seeds_of_two_searches_do_not_meet(tmp_path: Path) -> None:
    first, other = Course(), Course()
    played(tmp_path / "a", first)
    played(tmp_path / "b", other, seed=1)
    assert not {task.seed for task in first.tasks} & {task.seed for task in other.tasks}


def test_the_deviation_is_pooled_within_the_finalists(tmp_path: Path) -> None:
    scores = played(tmp_path, Course())
    groups = [np.array(score.accuracies) for score in scores]
    within = np.concatenate([group - group.mean() for group in groups])
    deviation = np.sqrt((within**2).sum() / (len(within) - len(groups)))
    for score in scores:
        assert score.deviation == pytest.approx(deviation)
        assert score.error == pytest.approx(deviation / np.sqrt(3))


def test_groups_of_equal_size_pool_to_the_root_of_their_mean_variance() -> None:
    groups = np.random.default_rng(0).normal(70, 0.5, (6, 4))
    pooled = np.sqrt(groups.var(axis=1, ddof=1).mean())
    assert pooled_deviation(groups.tolist()) == pytest.approx(pooled)
    assert pooled_deviation([[1.0, 3.0], [5.0], []]) == pytest.approx(np.sqrt(2))
    assert pooled_deviation([[1.0], [9.0]]) == pooled_deviation([]) == 0.0


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("done", [0, 1, 4, 8])
def test_what_is_in_the_table_is_not_trained_again(tmp_path: Path, done: int, slots: int) -> None:
    calm = played(tmp_path / "calm", Course())
    broken, folder = Course(slots), tmp_path / "broken"
    played(folder, broken, stop=lambda: "interrupted" if len(broken.tasks) >= done else "")
    assert len(run_folder.read_csv(folder / finals.FINALS)) == len(broken.tasks) == done
    again = Course(slots)
    found = played(folder, again)
    assert len(again.tasks) == 9 - done
    keys = [(task.arch["name"], str(task.arch), task.seed) for task in broken.tasks + again.tasks]
    assert len(set(keys)) == 9
    for mine, other in zip(found, calm, strict=True):
        assert sorted(mine.accuracies) == sorted(other.accuracies)
        assert mine.deviation == pytest.approx(other.deviation)
        assert (mine.weights, mine.finalist) == (other.weights, other.finalist)
    idle = Course()
    assert played(folder, idle) == found and idle.tasks == []


def test_more_seeds_add_to_those_that_are_there(tmp_path: Path) -> None:
    played(tmp_path, Course(), seeds=2)
    more = Course()
    assert {len(score.accuracies) for score in played(tmp_path, more)} == {3}
    assert len(more.tasks) == 3


def test_a_finalist_that_fails_has_no_standing_and_harms_no_other(tmp_path: Path) -> None:
    heard: list[str] = []
    scores = played(tmp_path, Course(failing=ARCHS[1].id), say=heard.append)
    assert [score.finalist for score in scores] == [FINALISTS[0], FINALISTS[2]]
    rows = run_folder.read_csv(tmp_path / finals.FINALS)
    assert {row["error"] for row in rows if row["arch_id"] == ARCHS[1].id} == {
        'ValueError: no, "luck"\ntoday'
    }
    assert len(heard) == 9 and sum("luck" in line for line in heard) == 3
    idle = Course(failing=ARCHS[1].id)
    assert played(tmp_path, idle) == scores and idle.tasks == []


def test_a_limit_is_given_to_each_training(tmp_path: Path) -> None:
    executor = Course()
    played(tmp_path, executor, timeout_s=90.0)
    assert {task.timeout_s for task in executor.tasks} == {90.0}


def test_checkpoints_go_and_weights_stay(tmp_path: Path) -> None:
    executor = Course()
    played(tmp_path, executor)
    assert not list(tmp_path.glob("finals/*/checkpoints"))
    assert len(list(tmp_path.glob("finals/*/weights/best.safetensors"))) == 9


def test_the_weights_of_the_best_training_are_handed_over(tmp_path: Path) -> None:
    score, other, _ = played(tmp_path, Course())
    best = tmp_path / "best"
    copy_weights(tmp_path / "finals" / score.weights, best, {})
    assert float((best / "model.safetensors").read_text()) == max(score.accuracies)
    copy_weights(tmp_path / "finals" / score.weights, best, {"data": "digits"})
    assert run_folder.read_json(best / "config.json") == {"data": "digits"}
    copy_weights(tmp_path / "finals" / other.weights, best, {})
    assert float((best / "model.safetensors").read_text()) == max(other.accuracies)
    assert sorted(path.name for path in best.iterdir()) == ["config.json", "model.safetensors"]


def test_without_a_standing_an_earlier_winners_weights_go(tmp_path: Path) -> None:
    score = played(tmp_path, Course())[0]
    assert copy_weights(tmp_path / "finals" / score.weights, tmp_path / "best", {})
    (tmp_path / "best" / "arch.json").write_text("{}")
    assert not copy_weights(None, tmp_path / "best", {})
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["arch.json"]
    assert not copy_weights(tmp_path / "no such training", tmp_path / "nothing", {})
    assert not (tmp_path / "nothing").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    score = played(tmp_path, Course())[0]
    (tmp_path / "best").write_text("a file in the way")
    with pytest.raises(RunError, match="cannot write in") as error:
        copy_weights(tmp_path / "finals" / score.weights, tmp_path / "best", {})
    assert "\n" not in str(error.value)


def test_a_final_result_tells_what_the_search_had_seen(tmp_path: Path) -> None:
    score = played(tmp_path, Course())[1]
    told = conclude.final_result(score, Objective())
    assert (told.name, told.arch_id) == ("search #1", ARCHS[1].id)
    assert (told.searched, told.accuracy) == (69.0, score.mean)
    assert (told.searched_reward, told.reward) == (69.0, score.mean)
    assert (told.accuracy_std, told.seed_deviation) == (score.error, score.deviation)


# its accuracy grows with the parameters, but for the seed of the search: there it is the reverse
LUCKY = """
from nas.models.cost import count

def make():
    return Lucky()

class Lucky:
    title = "lucky"
    rungs = (1, 2)

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        size = count(arch).params / 1000
        accuracy = 50 + size * (1 if seed >= 1000 else -1) + seed % 10 / 100
        return {"accuracy": accuracy, "training_flops": 1.0 * epochs}
"""


def test_the_winner_is_who_wins_the_finals(folder: Path) -> None:
    (folder / "lucky.py").write_text(LUCKY)
    settings: dict[str, Any] = {
        "space": "space.py",
        "evaluator": "lucky.py",
        "trials": 12,
        "pruner": "none",
        "random_search": False,
        "final_seeds": 2,
    }
    plain = search(**settings, name="plain", finalists=0)
    assert plain["finals"] == []
    found = search(**settings, name="played", finalists=3)
    means = {row["arch_id"]: row["accuracy"] for row in found["finals"]}
    assert len(means) == 3 and plain["best"]["arch_id"] in means
    best = found["best"]
    assert means[best["arch_id"]] == max(means.values()) == best["metrics"]["accuracy"]
    assert best["arch_id"] != plain["best"]["arch_id"]
    assert best["metrics"]["accuracy_std"] == pytest.approx(0.01 / 2**0.5 / 2**0.5)
    cards = [Path(each["run"], "best", "README.md").read_text() for each in (plain, found)]
    assert ["training_flops" in card for card in cards] == [True, False]


def test_resumed_without_finals_no_weights_of_an_earlier_winner_stay(folder: Path) -> None:
    (folder / "lucky.py").write_text(LUCKY)
    settings: dict[str, Any] = {"space": "space.py", "evaluator": "lucky.py", "trials": 6}
    found = search(**settings, random_search=False, finalists=1)
    stale = Path(found["run"], "best", "model.safetensors")
    stale.write_text("weights")
    search(**settings, random_search=False, finalists=0, resume=True)
    assert not stale.exists()


# as LUCKY, and leaves weights: the name of the network
WRITER = LUCKY.replace(
    '        return {"accuracy"',
    """        place = Path(folder, "weights", "best.safetensors")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(arch.id)
        Path(folder, "config.json").write_text("{}")
        Path(folder, "checkpoints").mkdir(exist_ok=True)
        return {"accuracy\"""",
).replace("\nfrom", "\nfrom pathlib import Path\nfrom", 1)


@pytest.mark.parametrize("stopped_at", [None, 4])
def test_without_finals_the_weights_of_the_candidate_are_handed_over(
    folder: Path, stopped_at: int | None
) -> None:
    (folder / "writer.py").write_text(WRITER)
    settings: dict[str, Any] = {"space": "space.py", "evaluator": "writer.py", "trials": 8}
    settings |= {"pruner": "none", "finalists": 0, "random_search": False}
    if stopped_at:
        calls = iter(range(100))
        search(**settings, interrupted=lambda: next(calls) > stopped_at)
    found = search(**settings, resume=bool(stopped_at))
    assert Path(found["run"], "best", "model.safetensors").read_text() == found["best"]["arch_id"]
    assert found["weights"] == "its training as a candidate"
    kept = list(Path(found["run"], "trials").iterdir())
    assert len(kept) == KEPT and not list(Path(found["run"]).glob("trials/*/checkpoints"))


def test_a_training_for_finals_that_were_not_played_is_handed_over(folder: Path) -> None:
    (folder / "writer.py").write_text(WRITER)
    settings: dict[str, Any] = {"space": "space.py", "evaluator": "writer.py", "trials": 4}
    settings |= {"random_search": False, "finalists": 0}
    found = search(**settings)
    (place := Path(found["run"], "finals", "one", "weights")).mkdir(parents=True)
    (place / "best.safetensors").write_text("longer")
    (place.parent / "config.json").write_text("{}")
    row = ["", found["best"]["arch_id"], 1000, 70.0, 1.0, "one", "", 1.0, ""]
    run_folder.write_csv(Path(found["run"], finals.FINALS), columns(finals.FinalTraining), [row])
    again = search(**settings, resume=True)
    assert Path(again["run"], "best", "model.safetensors").read_text() == "longer"
    assert again["weights"] == "a training for the finals"


def test_few_finalists_are_the_first_of_each_origin() -> None:
    origins = ("search", "search", "search", "reference", "random search", "random search")
    entrants = [Finalist(str(i), ARCHS[0], {}, origin) for i, origin in enumerate(origins)]
    names = {
        most: "".join(f.name for f in limit_finalists(entrants, most)) for most in (2, 3, 4, 6, 9)
    }
    assert names == {2: "03", 3: "034", 4: "0134", 6: "012345", 9: "012345"}


def test_the_leaderboard_has_what_finalists_showed_as_candidates(folder: Path) -> None:
    (folder / "lucky.py").write_text(LUCKY)
    settings: dict[str, Any] = {"space": "space.py", "evaluator": "lucky.py", "trials": 6}
    found = search(**settings, pruner="none", finalists=2, final_seeds=2)
    random, best = found.random, found.best
    assert random and best
    ((was, reward),) = {
        (row.searched, row.searched_reward) for row in found.finals if row.arch_id == random.arch_id
    }
    shown = as_candidate(found, random)
    assert shown.metrics["accuracy"] == was == reward == shown.reward
    assert shown.metrics["accuracy"] != random.metrics["accuracy"]
    beside = replace(found.finals[0], searched=None, searched_reward=None, searched_std=None)
    blank = as_candidate(replace(found, finals=(beside,)), replace(best, arch_id=beside.arch_id))
    assert math.isnan(blank.reward) and not blank.known and blank.metrics


@pytest.mark.parametrize(("seconds", "entrants"), [(100.0, 3), (50.0, 2)])
def test_a_candidate_cut_by_the_limit_counts_with_its_whole_training(
    monkeypatch: pytest.MonkeyPatch, seconds: float, entrants: int
) -> None:
    rung = Rung(8, 60.0, {"accuracy": 60.0}, 8.0)
    cut = Trial(0, "done", {}, "a", {}, (60.0,), "time limit, after 8 of 32 epochs", 8.0, (rung,))
    studies = selection.Studies(selection.StudyPosterior([cut]), selection.StudyPosterior([]))
    setup: Any = SimpleNamespace(rungs=(8, 32), parent=None, parents={})
    everyone = [Finalist(str(i), ARCHS[0], {}, "search") for i in range(6)]
    monkeypatch.setattr(selection, "finalists", lambda *given: everyone)
    # 32 epochs take 32 seconds
    assert len(finalists.select_finalists(setup, studies, seconds, 1)) == entrants


def test_the_parent_stays_where_few_finalists_can_be_trained() -> None:
    names = ("search #1", "search #2", "parent at 56 px", "random search #3")
    origins = ("search", "search", "reference", "random search")
    archs = [replace(ARCHS[0], resolution=32 + 32 * i) for i in range(4)]
    entrants = [Finalist(n, a, {}, o) for n, a, o in zip(names, archs, origins, strict=True)]
    kept = selection.limit_finalists(entrants, 2, {archs[2].id})
    assert [each.name for each in kept] == ["search #1", "parent at 56 px"]
    assert [each.name for each in selection.limit_finalists(entrants, 1, {archs[2].id})] == [
        "parent at 56 px"
    ]


def test_weights_of_what_both_studies_proposed_are_those_of_its_own_training(
    folder: Path,
) -> None:
    for name, text in (("search-7", "right"), ("random-search-7", "wrong")):
        (place := folder / "trials" / name / "weights").mkdir(parents=True)
        (place / "best.safetensors").write_text(text)
        (place.parent / "config.json").write_text("{}")
    studies = {
        "search": [Trial(7, "done", {}, "a", {})],
        "random search": [Trial(7, "done", {}, "b", {}), Trial(9, "done", {}, "a", {})],
    }
    chosen = SimpleNamespace(data=None, image_column=None, label_column=None)
    untold = SimpleNamespace(fingerprint="")
    setup: Any = SimpleNamespace(settings=chosen, evaluator=untold)
    # random search's, with the number that the search gave it
    best: Any = SimpleNamespace(arch_id="a", metrics={"epochs": 4.0})
    told = conclude._weights(folder, setup, studies, best, {})
    assert told == "its training as a candidate, 4 epochs"
    assert (folder / "best" / "model.safetensors").read_text() == "right"
