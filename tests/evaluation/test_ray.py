"""The Ray executor on a real cluster of several nodes on this machine, and without one."""

import csv
import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TRAINER, Cli, Nodes, wait_until

if not importlib.util.find_spec("ray"):  # to import it takes seconds
    pytest.skip("needs ray[tune]", allow_module_level=True)
from nas.core import registry
from nas.core.errors import MissingError, OptionError, RunError, install
from nas.evaluation.cluster.connection import Share
from nas.evaluation.executors.ray import LONG, LONG_GPU, _located, _Parts
from nas.interfaces import EvaluatorSpec, Executor, Outcome, Task
from nas.searching.samplers import random_choices
from nas.searching.search import search

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a cluster of several raylets")


@pytest.fixture
def opened(cluster: Nodes) -> Iterator[Callable[..., Executor]]:
    """Return what opens an executor on the cluster, and closes it after the test."""
    found: list[Executor] = []

    def open_(work: EvaluatorSpec, *, workers: int = 0, **options: Any) -> Executor:
        fixed = {"workers": workers, "isolate": False, "folder": options.pop("folder", None)}
        options = {"address": cluster.address, "patience": 0.0, **options}
        found.append(registry.make("executors", "ray", work, options=options, **fixed))
        return found[-1]

    yield open_
    for executor in found:
        executor.close()


def tasks(count: int) -> list[Task]:
    import random

    space, rng = registry.export("spaces", "mbconv", "SPACE"), random.Random(0)
    return [Task(n, space.decode(random_choices(space, rng)).to_dict(), n) for n in range(count)]


def trainings(folder: Path, count: int, limit: float = 0.0) -> list[Task]:
    return [
        dataclasses.replace(
            task, epochs=4, folder=str(folder / "t" / str(task.number)), timeout_s=limit
        )
        for task in tasks(count)
    ]


def done(executor: Executor, given: list[Task]) -> dict[int, Outcome]:
    """Return the outcomes of tasks that are all in flight at once."""
    for task in given:
        executor.submit(task)
    found: dict[int, Outcome] = {}
    while len(found) < len(given):
        found |= {outcome.number: outcome for outcome in executor.wait()}
    return found


def epochs(folder: Path) -> list[list[str]]:
    """Return for each training the processes of its epochs."""
    return [path.read_text().split() for path in sorted(folder.glob("t/*/epochs.txt"))]


@pytest.mark.parametrize("through", ["tasks", "tune"])
def test_both_ways_give_what_this_process_does(
    opened: Callable[..., Executor], through: str
) -> None:
    executor = opened(EvaluatorSpec("synthetic", {"noise": 0.5}), through=through)
    given, here = (
        tasks(12),
        registry.make("executors", "local", EvaluatorSpec("synthetic", {"noise": 0.5}), options={}),
    )
    found = done(executor, given)
    for task in given:
        here.submit(task)
        (expected,) = here.wait()
        assert found[task.number].metrics == expected.metrics
        assert found[task.number].node.count("/") == 1
    fleet = executor.status()
    assert (fleet.busy, fleet.retries) == (0, 0)


def test_a_search_on_four_nodes_says_where_each_trial_ran(
    cluster: Nodes, folder: Path, process: Cli
) -> None:
    ledger = f"--evaluator-option ledger={folder / 'ledger.txt'} --evaluator-option sleep=0.3"
    flags = f"--space space.py --evaluator ledger.py {ledger} --trials 12 --no-random-search"
    more = f"--executor ray --address {cluster.address} --workers 8 --gpus-per-trial 0.5"
    ended = process(*f"search {flags} {more} --controller random --json".split())
    assert ended.returncode == 0, ended.stderr
    assert "8 workers, 0 busy on 5 nodes, 4 GPUs" in ended.stderr
    with (folder / "runs/search/search/trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "done"]
    assert len({row["place"].partition(" gpu ")[0] for row in rows}) == 4
    assert all(row["place"].endswith("gpu 0") for row in rows)
    assert len(rows) == len((folder / "ledger.txt").read_text().split())


def test_one_worker_on_the_cluster_finds_what_one_does_here(cluster: Nodes, folder: Path) -> None:
    common = {"space": "space.py", "evaluator": "synthetic", "trials": 20, "workers": 1}
    here = search(**common, name="here")
    there = search(**common, name="there", executor="ray", address=cluster.address)
    free = ("seconds", "run", "fleet")
    assert {k: v for k, v in here.items() if k not in free} == {
        k: v for k, v in there.items() if k not in free
    }


def test_a_run_goes_on_here_and_there(cluster: Nodes, folder: Path) -> None:
    common: dict[str, Any] = {
        **{"space": "space.py", "evaluator": str(folder / "ledger.py"), "name": "moved"},
        **{"controller": "random", "random_search": False},
    }
    ledger = {"evaluator_options": {"ledger": str(folder / "ledger.txt")}}
    search(**common, **ledger, trials=6)
    ray = {"executor": "ray", "address": cluster.address, "executor_options": {"patience": 5.0}}
    search(name="moved", **ray, trials=12, resume=True)
    # only what has changed is told: the cluster's own settings mean nothing to one machine
    last = search(name="moved", executor="local", trials=18, resume=True)
    assert last["trials"] == 18
    archs = (folder / "ledger.txt").read_text().split()
    assert len(archs) == len(set(archs)) == 18


@pytest.mark.parametrize("through", ["tasks", "tune"])
def test_a_training_whose_worker_is_killed_goes_on_from_its_checkpoint(
    opened: Callable[..., Executor], folder: Path, through: str
) -> None:
    (folder / "trainer.py").write_text(TRAINER)
    executor = opened(EvaluatorSpec(str(folder / "trainer.py")), through=through, folder=folder)
    (task,) = trainings(folder, 1)
    executor.submit(task)
    path = Path(task.folder, "epochs.txt")
    wait_until(lambda: path.exists() and len(path.read_text().split()) == 2)
    os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
    while not (outcomes := executor.wait()):
        pass
    (outcome,) = outcomes
    assert outcome.error == "" and outcome.retries == 1
    (workers,) = epochs(folder)
    assert len(workers) == 4 and len(set(workers)) == 2  # none was trained twice
    assert executor.status().retries == 1


@pytest.mark.parametrize("through", ["tasks", "tune"])
def test_who_kills_every_worker_fails_with_the_reason(
    opened: Callable[..., Executor], folder: Path, through: str
) -> None:
    bad = TRAINER.replace("time.sleep(self.sleep)", "os.kill(os.getpid(), 9)")
    (folder / "trainer.py").write_text(bad)
    work, options = EvaluatorSpec(str(folder / "trainer.py")), {"through": through, "retries": 2}
    executor = opened(work, **options, folder=folder)
    (outcome,) = done(executor, trainings(folder, 1)).values()
    assert outcome.retries == 1
    assert "its worker process died 2 times" in outcome.error
    assert "SIGKILL" in outcome.error


@pytest.mark.parametrize("through", ["tune"])
def test_a_training_that_hangs_is_stopped_at_its_time_limit(
    opened: Callable[..., Executor], folder: Path, through: str
) -> None:
    hung = TRAINER.replace("time.sleep(self.sleep)", "time.sleep(seed * 600)")
    (folder / "trainer.py").write_text(hung)
    executor = opened(EvaluatorSpec(str(folder / "trainer.py")), through=through, folder=folder)
    given = trainings(folder, 2, limit=300.0)
    given = [given[0], dataclasses.replace(given[1], timeout_s=2.0)]
    found = done(executor, given)
    assert found[1].error == "stopped at its time limit"
    assert found[0].error == ""


@pytest.mark.parametrize("through", ["tasks", "tune"])
def test_trainings_go_on_when_their_node_is_lost_and_follow_a_new_one(
    cluster: Nodes, opened: Callable[..., Executor], folder: Path, through: str
) -> None:
    gate = 'while len(path.read_text().split()) == 1 and not os.path.exists(f"{folder}/../../go")'
    gated = f"{gate}:\n                time.sleep(0.05)"
    (folder / "trainer.py").write_text(TRAINER.replace("time.sleep(self.sleep)", gated))
    node = cluster.add()
    options = {"through": through, "retries": 1, "cpus_per_trial": 2.0}
    executor = opened(EvaluatorSpec(str(folder / "trainer.py")), folder=folder, **options)
    assert executor.slots == 5  # one on each node
    given = trainings(folder, 5)
    for task in given:
        executor.submit(task)
    wait_until(lambda: sum(bool(each) for each in epochs(folder)) == 5)
    cluster.remove(node)
    wait_until(lambda: cluster.count() == 5)
    (folder / "go").touch()
    found: dict[int, Outcome] = {}
    while len(found) < len(given):
        found |= {outcome.number: outcome for outcome in executor.wait()}
    assert [found[n].error for n in range(5)] == [""] * 5  # a lost node is no try
    assert sum(found[n].retries for n in range(5)) == 1
    assert [len(each) for each in epochs(folder)] == [4] * 5
    wait_until(lambda: executor.slots == 4)
    node = cluster.add()
    wait_until(lambda: executor.slots == 5)
    cluster.remove(node)


def test_the_drivers_folder_is_not_imported_from(
    cluster: Nodes, folder: Path, process: Cli
) -> None:
    (folder / "torch.py").write_text("raise ImportError('the wrong torch')")
    (folder / "nas").mkdir()
    (folder / "nas" / "__init__.py").write_text("raise ImportError('the wrong nas')")
    script = "import sys; sys.path.pop(0); from nas.cli.program import main; main()"
    flags = "search --evaluator synthetic --trials 4 --executor ray --address " + cluster.address
    command = [sys.executable, "-c", script, *flags.split()]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_every_refusal_is_one_line(cluster: Nodes, folder: Path, process: Cli) -> None:
    at = f"--address {cluster.address} --executor-option patience=0"
    flags = {
        f"{at} --gpus-per-trial 3": "no node can hold an evaluation of 1 CPUs and 3 GPUs: of 5 "
        "nodes the largest have 2 CPUs and 1 GPUs",
        "--address 127.0.0.1:9": "no Ray cluster at 127.0.0.1:9",
        f"{at} --gpus-per-trial 1.5": "--gpus-per-trial takes a whole number or a part below 1",
        f"{at} --cpus-per-trial 0": "--cpus-per-trial 0 needs --gpus-per-trial",
        f"{at} --executor-option through=x": "through takes auto, tasks, tune, not 'x'",
        f"{at} --executor-option retries=0": "retries must be at least 1, not 0",
        f"{at} --executor-option runtime_env=no.yaml": "cannot read no.yaml",
    }
    for text, message in flags.items():
        ended = process(*f"search --evaluator synthetic --trials 2 --executor ray {text}".split())
        assert ended.returncode == 2, ended.stderr
        last = ended.stderr.strip().splitlines()[-1]
        assert message in last and "Traceback" not in ended.stderr
    assert not list((folder / "runs" / "search").iterdir())  # nothing was begun


@pytest.mark.parametrize("through", ["tune"])
def test_a_checkpoint_lies_where_the_driver_says(
    opened: Callable[..., Executor], folder: Path, through: str
) -> None:
    (folder / "trainer.py").write_text(TRAINER)
    executor = opened(EvaluatorSpec("trainer.py"), through=through, folder=folder)
    (task,) = trainings(folder, 1)
    found = done(executor, [dataclasses.replace(task, folder="t/0")])
    assert found[0].error == ""
    assert [len(each) for each in epochs(folder)] == [4]


@pytest.mark.parametrize("through", ["tune"])
def test_code_reaches_workers_by_a_runtime_env(
    opened: Callable[..., Executor], folder: Path, through: str
) -> None:
    (folder / "sent.py").write_text(TRAINER)
    (folder / "env.yaml").write_text("working_dir: .\n")
    executor = opened(
        EvaluatorSpec("sent.py"), through=through, folder=folder, runtime_env="env.yaml"
    )
    (outcome,) = done(executor, trainings(folder, 1)).values()
    assert (outcome.error, outcome.metrics["accuracy"]) == ("", 50.0)


@pytest.mark.parametrize("through", ["tune"])
def test_a_worker_that_is_told_to_end_is_no_crash(
    opened: Callable[..., Executor], folder: Path, through: str
) -> None:
    parent = TRAINER.replace("os.getpid()}", "os.getppid()}").replace("self.sleep)", "0.5)")
    (folder / "trainer.py").write_text(parent)
    work, options = EvaluatorSpec(str(folder / "trainer.py")), {"through": through, "retries": 1}
    executor = opened(work, folder=folder, **options)
    (task,) = trainings(folder, 1)
    executor.submit(task)
    path = Path(task.folder, "epochs.txt")
    wait_until(lambda: path.exists() and len(path.read_text().split()) == 2)
    os.kill(int(path.read_text().split()[0]), signal.SIGTERM)
    while not (outcomes := executor.wait()):
        pass
    (outcome,) = outcomes
    assert (outcome.error, outcome.retries) == ("", 1)
    assert [len(each) for each in epochs(folder)] == [4]


def test_a_node_that_joins_is_checked(
    cluster: Nodes, opened: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = opened(EvaluatorSpec("synthetic"))
    assert len(done(executor, tasks(4))) == 4
    monkeypatch.setattr("nas.__version__", "9.9")
    assert len(done(executor, tasks(4))) == 4  # known nodes are not asked again
    node = cluster.add()
    try:
        wait_until(lambda: executor.slots == 10)
        with pytest.raises(RunError, match="install one version everywhere"):
            done(executor, tasks(4))
    finally:
        cluster.remove(node)


def test_options_of_the_cluster_belong_to_it(folder: Path) -> None:
    with pytest.raises(OptionError, match="executor local has no option 'address'"):
        search(evaluator="synthetic", trials=2, address="auto")
    assert not (folder / "runs").exists()


def test_other_versions_are_refused(
    cluster: Nodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.__version__", "9.9")
    with pytest.raises(RunError, match=r"has nas .*, and this process 9\.9: install one version"):
        search(evaluator="synthetic", trials=2, executor="ray", address=cluster.address)


def test_what_fits_on_a_node() -> None:
    node = {"CPU": 16.0, "GPU": 2.0}
    expected = {
        (1, 0): 16,
        (2, 0.25): 8,
        (4, 0.25): 4,
        (1, 0.3): 6,
        (1, 1): 2,
        (1, 2): 1,
        (0, 1): 2,
    }
    assert {key: Share(*key).fits(node) for key in expected} == expected
    assert Share(0.5, 0).fits({"CPU": 1.0}) == 2
    assert Share(1, 1).fits({"CPU": 4.0}) == 0
    assert Share(0, 1).fits(node) == 2


def test_short_tasks_go_as_ray_tasks_and_long_ones_through_tune() -> None:
    def short(through: str, seconds: float, client: bool = False, gpus: float = 0.0) -> bool:
        cluster: Any = type("Cluster", (), {"client": client, "share": Share(1, gpus)})
        nobody: Any = None
        parts = _Parts(cluster, "", False, None, nobody, through, lambda: None)
        return parts.short(seconds)

    assert short("auto", 0.9 * LONG) and not short("auto", LONG)
    assert short("auto", 0.9 * LONG_GPU, gpus=1) and not short("auto", LONG_GPU, gpus=1)
    assert short("tasks", 10 * LONG) and not short("tune", 0.0)
    assert short("tune", 10 * LONG, client=True)


def test_paths_are_made_absolute_for_other_nodes(folder: Path) -> None:
    (folder / "images").mkdir()
    work = EvaluatorSpec("ledger.py", {"data": "./images", "ledger": "x.txt", "recipe": "proxy"})
    moved, paths = _located(work, ships_code=False)
    assert moved.evaluator == str(folder / "ledger.py")
    assert moved.options == {**work.options, "data": str(folder / "images")}
    assert paths == [str(folder / "images"), str(folder / "ledger.py")]
    shipped, paths = _located(work, ships_code=True)
    assert shipped.evaluator == "ledger.py" and paths == [str(folder / "images")]


def test_a_missing_ray_is_one_line(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray.tune", None)
    with pytest.raises(MissingError, match=f"needs Ray with Tune .*{re.escape(install('ray'))}"):
        search(evaluator="synthetic", trials=2, executor="ray")
