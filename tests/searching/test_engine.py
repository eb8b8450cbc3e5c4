"""Trainings in a search: rungs, early stopping, kills, limits, checkpoints, equal cost."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nas.core import registry, run_folder
from nas.core.errors import OptionError, RunError
from nas.interfaces import TRAINING_FLOPS, Rung, Trial
from nas.searching.samplers import distributions
from nas.searching.search import search
from nas.searching.studies.study import RANDOM, SEARCH, Journal

EPOCHS = 5
SMALL: dict[str, Any] = {
    "space": "space.py",
    "evaluator": "synthetic",
    "evaluator_options": {"epochs": EPOCHS, "noise": 0.5},
    "finalists": 0,
}
ALONE = {**SMALL, "random_search": False}
STOPPING = ("halving", "hyperband", "median")
# writes a checkpoint after each epoch and a line for each in trained.txt; insists on its own
TRAINER = """
import time
from pathlib import Path
from nas.models.cost import count

def make(*, epochs: int = 5, sleep: float = 0.0, fail: int = 0, hang: int = 0):
    return Trainer(epochs, sleep, fail, hang)

class Trainer:
    title = "trainer"

    def __init__(self, epochs, sleep, fail, hang):
        self.rungs = tuple(range(1, epochs + 1))
        self.sleep, self.fail, self.hang = sleep, fail, hang

    def check(self, arch):
        pass

    def evaluate(self, arch, *, seed=0):
        raise AssertionError("a trainer is asked to train")

    def train(self, arch, *, seed, epochs, folder):
        place = Path(folder, "checkpoint.txt")
        place.parent.mkdir(parents=True, exist_ok=True)
        whose, done = place.read_text().split() if place.exists() else (arch.id, 0)
        assert whose == arch.id, "the checkpoint of another arch"
        for epoch in range(int(done) + 1, epochs + 1):
            time.sleep(self.sleep)
            if epoch == self.hang and not Path("hung").exists():
                Path("hung").touch()
                time.sleep(600)
            if self.fail and epoch >= self.fail and int(arch.id, 16) % 3 == 0:
                raise ValueError(f"no luck in epoch {epoch}")
            with open("trained.txt", "a") as file:
                file.write(f"{arch.id} {epoch}\\n")
            place.with_suffix(".new").write_text(f"{arch.id} {epoch}")
            place.with_suffix(".new").replace(place)  # a kill leaves one or the other
        pace = int(arch.id, 16) % 7
        accuracy = 50 + count(arch).params % 1000 / 100 + pace * epochs / 10
        return {"accuracy": accuracy, "training_flops": 3.0 * count(arch).flops * epochs}
"""
TRAINED = {**ALONE, "evaluator": "trainer.py", "evaluator_options": {}}
# says that each rung of every other trial took 4 seconds, and keeps to the limits it is given
CLOCK = """
from collections import deque
from dataclasses import replace
from nas.evaluation.evaluate import make_evaluator, perform
from nas.interfaces import ExecutorStatus, Outcome

def make(work, *, workers=1):
    return Clock(make_evaluator(work))

class Clock:
    slots = 1

    def __init__(self, evaluator):
        self.evaluator, self.queue = evaluator, deque()

    def submit(self, task):
        with open("limits.txt", "a") as file:
            file.write(f"{task.number} {task.epochs} {task.limit}\\n")
        self.queue.append(task)

    def wait(self):
        task = self.queue.popleft()
        seconds = 4.0 if task.number % 2 else 2.0
        if task.limit < seconds:
            return [Outcome(task.number, {}, "stopped at its time limit", task.limit)]
        return [replace(perform(self.evaluator, task), seconds=seconds)]

    def status(self):
        return ExecutorStatus(1, 0)

    def close(self):
        pass
"""


@pytest.fixture
def trainer(folder: Path) -> Path:
    """The working directory with trainer.py in it."""
    (folder / "trainer.py").write_text(TRAINER)
    return folder


def trials(found: dict[str, Any], name: str = SEARCH) -> list[Trial]:
    """Return the finished trials of a study of a run, from its journal."""
    return told(Path(found["run"]), name)


def told(folder: Path, name: str = SEARCH) -> list[Trial]:
    space = registry.export("spaces", "space.py", "SPACE")
    sampler = registry.make("controllers", "random", space, options={}, seed=0)
    log = Journal(folder / "journal.log", distributions(space)).log(name, ["maximize"], sampler)
    return log.trials()


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("run", "seconds")}


def tables(found: dict[str, Any]) -> list[list[dict[str, str]]]:
    """Return the rows of a run's tables without times."""
    read = [run_folder.read_csv(Path(found["run"]) / name) for name in ("trials.csv", "rungs.csv")]
    return [[{k: v for k, v in row.items() if k != "seconds"} for row in rows] for rows in read]


def trained(folder: Path) -> list[str]:
    return (folder / "trained.txt").read_text().splitlines()


@pytest.mark.parametrize("pruner", STOPPING)
def test_a_stopped_trial_has_a_reason_and_its_rungs_in_the_journal(
    folder: Path, pruner: str
) -> None:
    found = search(**ALONE, trials=16, pruner=pruner)
    stopped = [trial for trial in trials(found) if trial.state == "stopped"]
    assert len(stopped) == found["states"]["stopped"] > 0
    for trial in stopped:
        last = trial.rungs[-1]
        assert [rung.epochs for rung in trial.rungs] == list(range(1, last.epochs + 1))
        assert trial.reason == f"stopped early, after {last.epochs} of {EPOCHS} epochs"
        assert last.epochs < EPOCHS
        assert (trial.values, trial.metrics) == ((), last.metrics)
        assert trial.seconds == pytest.approx(sum(rung.seconds for rung in trial.rungs))


def test_a_whole_training_is_asked_at_every_rung_and_its_last_is_its_result(folder: Path) -> None:
    found = search(**ALONE, trials=8, pruner="none")
    assert found["states"]["stopped"] == 0
    for trial in trials(found):
        if trial.state == "done":
            assert [rung.epochs for rung in trial.rungs] == list(range(1, EPOCHS))
            spent = [rung.metrics[TRAINING_FLOPS] for rung in trial.rungs]
            assert spent == pytest.approx([spent[0] * epochs for epochs in range(1, EPOCHS)])
            assert trial.metrics[TRAINING_FLOPS] == pytest.approx(EPOCHS * spent[0])


def test_stopped_trials_count_as_trials_and_never_win(folder: Path) -> None:
    found = search(**ALONE, trials=16, pruner="halving")
    states = found["states"]
    assert found["trials"] == 16 == states["done"] + states["stopped"]
    assert states["stopped"] > states["done"] > 0
    done = {trial.arch_id for trial in trials(found) if trial.state == "done"}
    assert {found["best"]["arch_id"], *(row["arch_id"] for row in found["leaders"])} <= done


def test_what_was_stopped_and_is_proposed_again_is_rejected_with_that_reason(folder: Path) -> None:
    found = search(**ALONE, trials=20, pruner="halving", controller="random")
    stopped = {t.arch_id: t.reason for t in trials(found) if t.state == "stopped"}
    again = [t for t in trials(found) if t.state == "rejected"]
    assert again
    for trial in again:
        reason = f"this network was tried before: {stopped[trial.arch_id]}"
        assert (trial.reason, trial.rungs, trial.seconds) == (reason, (), 0.0)
    spent = [t.arch_id for t in trials(found) if t.state in ("done", "stopped")]
    assert len(spent) == len(set(spent)) == 20


def test_two_objectives_stop_no_training_and_ask_once(trainer: Path) -> None:
    found = search(**TRAINED, trials=8, objective="pareto", controller="random")
    assert found["states"]["stopped"] == 0 and found["states"]["done"] == 8
    assert all(len(row.split()) == 2 for row in trained(trainer))
    assert Counter(row.split()[1] for row in trained(trainer)) == {str(e): 8 for e in range(1, 6)}
    with pytest.raises(OptionError, match="--pruner has no effect with --objective pareto"):
        search(**ALONE, trials=8, objective="pareto", pruner="halving")
    calm = search(**ALONE, trials=4, objective="pareto", pruner="none")
    assert calm["states"]["stopped"] == 0


def test_a_pruner_belongs_to_trainings(folder: Path) -> None:
    with pytest.raises(OptionError, match="--pruner belongs to trainings: give --data"):
        search(space="space.py", evaluator="ledger.py", pruner="halving", trials=4)


@pytest.mark.parametrize("pruner", STOPPING)
def test_a_journal_cut_at_any_record_resumes_to_the_same_end(folder: Path, pruner: str) -> None:
    settings = {**ALONE, "trials": 12, "pruner": pruner, "controller": "tpe"}
    calm = search(**settings, name="calm")
    shutil.copytree(calm["run"], "runs/search/cut")
    journal = Path("runs/search/cut/journal.log")
    whole = journal.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    space = registry.export("spaces", "space.py", "SPACE")
    lengths = set()  # to which what is cut at a record's end is cut back
    for end in random.Random(0).sample(ends, 60):
        journal.write_bytes(whole[:end])
        Journal(journal, distributions(space))
        lengths.add(journal.stat().st_size)
    chosen = random.Random(pruner).sample(sorted(lengths), 4)
    for length in chosen:
        journal.write_bytes(whole[: length + 40])  # and a torn record
        again = search(**settings, name="cut", resume=True)
        assert without_times(again) == without_times(calm)
        assert tables(again) == tables(calm)


@pytest.mark.parametrize("pruner", STOPPING)
@pytest.mark.parametrize("stop", [3, 17, 40])
def test_interrupted_between_rungs_and_resumed_is_uninterrupted(
    trainer: Path, pruner: str, stop: int
) -> None:
    settings = {**TRAINED, "trials": 12, "pruner": pruner}
    calm = search(**settings, name="calm")
    whole = sorted(trained(trainer))
    (trainer / "trained.txt").unlink()
    asked: list[int] = []

    def interrupted() -> bool:
        asked.append(1)
        return len(asked) > stop

    broken = search(**settings, name="broken", interrupted=interrupted)
    assert broken["stopped"] == "interrupted"
    found = search(**settings, name="broken", resume=True)
    assert without_times(found) == without_times(calm)
    assert tables(found) == tables(calm)
    assert sorted(trained(trainer)) == whole  # no epoch is trained twice


def test_rungs_that_are_on_file_are_not_asked_again(trainer: Path) -> None:
    settings = {**TRAINED, "trials": 4, "pruner": "none"}
    broken = search(**settings, interrupted=lambda: (trainer / "trained.txt").exists())
    assert broken["trials"] == 0
    # as the next proposal, for another worker, has them written
    space = registry.export("spaces", "space.py", "SPACE")
    journal = Journal(Path(broken["run"], "journal.log"), distributions(space))
    sampler = registry.make("controllers", "random", space, options={}, seed=0)
    log = journal.log(SEARCH, ["maximize"], sampler)
    (unfinished,) = log.unfinished()
    shown = {"accuracy": 12.5, "flops": 1, TRAINING_FLOPS: 3.0}
    first = Rung(1, 12.5, shown, 100.0)
    log.report(unfinished.number, first)
    log.ask(distributions(space))
    trial = trials(search(**settings, resume=True))[unfinished.number]
    assert trial.rungs[0] == first and trial.seconds > 100
    assert [rung.epochs for rung in trial.rungs] == [1, 2, 3, 4]


KILLED = """
import sys
from nas.searching.search import search
search(space="space.py", evaluator="trainer.py", evaluator_options={"sleep": 0.02}, finalists=0,
       random_search=False, trials=16, pruner=sys.argv[1], name="killed", resume=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_at_random_moments_and_resumed_is_uninterrupted(trainer: Path) -> None:
    settings = {**TRAINED, "trials": 16, "pruner": "halving", "evaluator_options": {"sleep": 0.02}}
    calm = search(**settings, name="calm")
    whole = trained(trainer)
    (trainer / "trained.txt").unlink()
    rng = random.Random(0)
    for _ in range(2):
        before = len(trained(trainer)) if (trainer / "trained.txt").exists() else 0
        with subprocess.Popen([sys.executable, "-c", KILLED, "halving"]) as process:
            wanted = before + rng.randrange(2, 12)
            while process.poll() is None and (
                not (trainer / "trained.txt").exists() or len(trained(trainer)) < wanted
            ):
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    found = search(**settings, name="killed", resume=True)
    assert without_times(found) == without_times(calm)
    assert tables(found) == tables(calm)
    # an epoch of which the checkpoint was not yet written is trained again, and no other
    extra = Counter(trained(trainer)) - Counter(whole)
    assert sum(extra.values()) <= 2 and set(trained(trainer)) == set(whole)


def test_a_training_that_fails_at_a_rung_keeps_its_rungs_and_what_it_cost(trainer: Path) -> None:
    found = search(**{**TRAINED, "evaluator_options": {"fail": 3}}, trials=12, pruner="none")
    failed = [trial for trial in trials(found) if trial.state == "failed"]
    assert len(failed) == found["states"]["failed"] > 0
    assert found["states"]["done"] > 0
    for trial in failed:
        assert trial.reason == "ValueError: no luck in epoch 3"
        assert [rung.epochs for rung in trial.rungs] == [1, 2]
        assert trial.metrics[TRAINING_FLOPS] == trial.rungs[-1].metrics[TRAINING_FLOPS] > 0
        assert "accuracy" not in trial.metrics
    spent = sum(t.metrics[TRAINING_FLOPS] for t in trials(found) if t.state in ("done", "failed"))
    assert found["training_flops"] == spent
    again = {t.arch_id for t in failed}
    assert all(
        t.reason == "this network was tried before: ValueError: no luck in epoch 3"
        for t in trials(found)
        if t.state == "rejected" and t.arch_id in again
    )


def test_a_time_limit_is_of_all_rungs_together(folder: Path) -> None:
    (folder / "clock.py").write_text(CLOCK)
    found = search(**ALONE, trials=4, executor="clock.py", trial_time_limit="11s", pruner="none")
    limits = [line.split() for line in (folder / "limits.txt").read_text().splitlines()]
    seen = {trial.state for trial in trials(found)}
    assert {"done", "failed"} <= seen
    for trial in trials(found):
        mine = [
            (int(epochs), float(limit)) for n, epochs, limit in limits if int(n) == trial.number
        ]
        if trial.state == "failed":
            assert (trial.reason, trial.seconds) == ("stopped at its time limit", 11.0)
            assert [rung.epochs for rung in trial.rungs] == [1, 2]
            assert mine == [(1, 11.0), (2, 7.0), (3, 3.0)]
        elif trial.state == "done":
            assert mine == [(1, 11.0), (2, 9.0), (3, 7.0), (4, 5.0), (5, 3.0)]
            assert trial.seconds == 10.0


@pytest.mark.slow
def test_a_training_that_hangs_is_given_up_at_its_limit_and_the_search_goes_on(
    trainer: Path,
) -> None:
    options = {"hang": 3, "epochs": 4}
    found = search(
        **{**TRAINED, "evaluator_options": options}, trials=3, trial_time_limit="30s", pruner="none"
    )
    first, *others = (t for t in trials(found) if t.state in ("done", "failed"))
    assert (first.state, first.reason) == ("failed", "stopped at its time limit")
    assert [rung.epochs for rung in first.rungs] == [1, 2]
    assert first.seconds == pytest.approx(30.0)
    assert [trial.state for trial in others] == ["done", "done"]


def checkpoints(found: dict[str, Any]) -> list[str]:
    """Return the checkpoint folders of a run."""
    return sorted(path.name for path in Path(found["run"], "trials").glob("*"))


def test_checkpoints_go_with_their_trials(trainer: Path) -> None:
    settings = {**TRAINED, "trials": 8, "evaluator_options": {"fail": 3}, "pruner": "none"}

    def interrupted() -> bool:
        rows = trained(trainer) if (trainer / "trained.txt").exists() else []
        return len(rows) > 10 and rows[-1].endswith(" 2")

    broken = search(**settings, interrupted=interrupted)
    open_ones = checkpoints(broken)
    assert len(open_ones) == 1 and open_ones[0].startswith("search-")
    assert int(open_ones[0].removeprefix("search-")) not in {t.number for t in trials(broken)}
    # one whose process was killed after its result was told, before its folder was removed
    gone = Path(broken["run"], "trials", f"search-{trials(broken)[0].number}")
    gone.mkdir()
    (gone / "checkpoint.txt").write_text("x")
    found = search(**settings, resume=True)
    assert found["run"] == broken["run"] and checkpoints(found) == []
    assert {"done", "failed"} <= {t.state for t in trials(found)}


def test_a_folder_holds_the_checkpoint_of_its_own_study(trainer: Path) -> None:
    # trainer.py fails on the checkpoint of another arch
    settings = {**TRAINED, "random_search": True, "trials": 6, "pruner": "none"}
    found = search(**settings, workers=2)
    lucky = trials(found, RANDOM)
    assert not [t.reason for t in [*trials(found), *lucky] if t.state == "failed"]
    # at most what the other worker was training when the cost was equal
    finished = {f"random-search-{trial.number}" for trial in lucky}
    left = set(checkpoints(found))
    assert len(left) <= 1 and not left & finished
    assert all(name.startswith("random-search-") for name in left)
    assert len(trained(trainer)) == len(set(trained(trainer)))


@pytest.mark.parametrize("pruner", ["halving", "none"])
def test_random_search_ends_at_equal_training_cost(folder: Path, pruner: str) -> None:
    found = search(**SMALL, trials=8, pruner=pruner)
    mine, theirs = found["training_flops"], found["random"]["training_flops"]
    lucky = [t for t in trials(found, RANDOM) if t.state in ("done", "stopped")]
    costs = [trial.metrics[TRAINING_FLOPS] for trial in lucky]
    assert sum(costs) == theirs >= mine
    assert theirs - costs[-1] < mine  # without its last trial it had cost less
    assert found["stopped"] == ""
    again = search(**SMALL, trials=8, pruner=pruner, resume=True)
    assert again == found


def test_a_run_is_not_resumed_with_another_pruner(folder: Path) -> None:
    search(**ALONE, trials=3, name="mine", pruner="halving")
    with pytest.raises(RunError, match="was started with pruner 'halving', not 'median'"):
        search(**ALONE, trials=3, name="mine", resume=True, pruner="median")


def test_the_decision_is_on_file_with_the_report_or_neither_is(folder: Path) -> None:
    found = search(**ALONE, trials=8, pruner="halving")
    lines = Path(found["run"], "journal.log").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for trial in trials(found):
        mine = [r for r in records if r.get("trial_id") == trial.number]
        reports = [r["step"] for r in mine if r["op_code"] == 7]
        assert reports == [rung.epochs for rung in trial.rungs]
        assert mine[-1]["op_code"] == 6  # its state
