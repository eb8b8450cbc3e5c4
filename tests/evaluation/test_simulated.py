"""The virtual cluster: its clock by hand, its chances, and the training times it goes by."""

import csv
import dataclasses
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import nas
from nas.core import registry
from nas.core.errors import MissingError, OptionError
from nas.evaluation.durations import SPREAD, arch_of, estimate, features, observed, read_times
from nas.evaluation.executors.simulated import SimulatedCluster
from nas.interfaces import EvaluatorSpec, Outcome, Task, Trial
from nas.models.arch import Arch
from nas.searching.engine import Engine
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.samplers import distributions, random_choices
from nas.searching.studies.study import SEARCH, Journal

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench_cluster  # noqa: E402
from lib import plain_search  # noqa: E402

TABLES = Path(__file__).parents[3] / "shared" / "data" / "accel_nasbench"
ACCEL = TABLES / "accel_nasbench.parquet"
MBCONV = registry.export("spaces", "mbconv", "SPACE")
RNG = random.Random(0)
ARCHS = [MBCONV.decode(random_choices(MBCONV, RNG)) for _ in range(40)]
TASKS = [Task(number, arch.to_dict(), 0) for number, arch in enumerate(ARCHS)]


def cluster(workers: int, evaluator: str = "synthetic", **options: Any) -> SimulatedCluster:
    made = registry.make(
        "executors", "simulated", EvaluatorSpec(evaluator), options=options, workers=workers
    )
    assert isinstance(made, SimulatedCluster)
    return made


def work(executor: SimulatedCluster, tasks: list[Task]) -> list[Outcome]:
    """Submit all at once; return the outcomes in the order in which they come back."""
    for task in tasks:
        executor.submit(task)
    found: list[Outcome] = []
    while len(found) < len(tasks):
        found += executor.wait()
    return found


@pytest.fixture
def times(tmp_path: Path) -> str:
    """A table in which the first tasks take 10, 30, 5, 5 and 20 seconds."""
    path = tmp_path / "times.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch_id", "seconds"])
        writer.writerows((arch.id, s) for arch, s in zip(ARCHS, (10, 30, 5, 5, 20), strict=False))
    return str(path)


def test_the_clock_of_two_workers_by_hand(times: str) -> None:
    executor = cluster(2, times=times)
    for task in TASKS[:5]:
        executor.submit(task)
    assert (executor.slots, executor.status().busy, executor.now) == (2, 2, 0.0)
    # worker 0: task 0 to 10, task 2 to 15, task 3 to 20, task 4 to 40; worker 1: task 1 to 30
    ends = [(10, 0, 0), (15, 2, 0), (20, 3, 0), (30, 1, 1), (40, 4, 0)]
    for now, number, worker in ends:
        (outcome,) = executor.wait()
        assert (executor.now, outcome.number) == (now, number)
        assert outcome.node == f"virtual worker {worker}" and not outcome.error
    assert executor.busy_seconds == 70 and executor.utilisation == 70 / (2 * 40)
    assert executor.status().busy == 0


def test_what_ends_at_one_moment_comes_back_together(times: str) -> None:
    executor = cluster(3, times=times)
    for number in (2, 3, 0):
        executor.submit(TASKS[number])
    assert [outcome.number for outcome in executor.wait()] == [2, 3]
    assert executor.now == 5 and executor.status().busy == 1


def test_dispatches_queue_up_on_the_driver(times: str) -> None:
    executor = cluster(3, times=times, overhead=4.0)
    for number in (0, 2, 3):
        executor.submit(TASKS[number])
    # started at 4, 8 and 12 on three free workers
    assert [executor.wait()[0].number for _ in range(3)] == [2, 0, 3]
    assert executor.now == 17 and executor.busy_seconds == 20
    # the driver is idle since 12, so the next one starts 4 seconds from now
    executor.submit(TASKS[4])
    executor.wait()
    assert executor.now == 17 + 4 + 20


def test_stragglers_take_so_many_times_as_long(times: str) -> None:
    executor = cluster(1, times=times, stragglers=1.0, slowdown=3.0)
    assert [outcome.seconds for outcome in work(executor, TASKS[:3])] == [30, 90, 15]
    calm, slowed = work(cluster(1), TASKS), work(cluster(1, stragglers=0.25), TASKS)
    ratios = [b.seconds / a.seconds for a, b in zip(calm, slowed, strict=True)]
    assert sorted({round(ratio, 6) for ratio in ratios}) == [1, 4]
    assert 3 <= sum(ratio > 2 for ratio in ratios) <= 17  # of 40, 10 expected


def test_a_try_that_dies_is_made_again_three_times_in_all(times: str) -> None:
    executor = cluster(2, times=times, failures=1.0)
    found = work(executor, TASKS[:3])
    for outcome in found:
        assert outcome.error == "its virtual worker died 3 times"
        assert outcome.retries == 2 and outcome.metrics == {}
    assert executor.status().retries == 6
    assert sum(o.seconds for o in found) == pytest.approx(executor.busy_seconds)
    assert 0 < executor.busy_seconds < 3 * 45


def test_failures_are_counted_and_cost_time_but_change_no_result() -> None:
    calm, broken = cluster(4), cluster(4, failures=0.3)
    wanted = {o.number: o for o in work(calm, TASKS)}
    found = {o.number: o for o in work(broken, TASKS)}
    died = sum(o.retries + bool(o.error) for o in found.values())
    assert 4 <= died <= 40 and broken.status().retries == sum(o.retries for o in found.values())
    for number, outcome in found.items():
        assert outcome.error or outcome.metrics == wanted[number].metrics
        assert outcome.retries or outcome.seconds == wanted[number].seconds
    assert broken.busy_seconds > calm.busy_seconds


@pytest.mark.parametrize("workers", [1, 7, 100])
def test_the_same_seed_gives_the_same_history(workers: int) -> None:
    def history(seed: int) -> list[Any]:
        options = {"seed": seed, "stragglers": 0.2, "failures": 0.2, "overhead": 1.0}
        executor = cluster(workers, **options)
        found = work(executor, TASKS)
        assert 0 < executor.utilisation <= 1
        return [[dataclasses.astuple(o) for o in found], executor.now, executor.busy_seconds]

    assert history(0) == history(0) != history(1)


def test_utilisation_is_a_share_at_every_moment() -> None:
    executor = cluster(8, stragglers=0.1, failures=0.1)
    for task in TASKS:
        executor.submit(task)
    left = len(TASKS)
    while left:
        left -= len(executor.wait())
        assert 0 < executor.utilisation <= 1
    assert f"a simulation: {executor.now / 3600:.2f} virtual hours" in executor.status().message


def test_a_time_limit_is_kept_on_the_virtual_clock(times: str) -> None:
    executor = cluster(1, times=times)
    tasks = [dataclasses.replace(task, timeout_s=10.0) for task in TASKS[:3]]
    found = work(executor, tasks)
    assert [outcome.seconds for outcome in found] == [10, 10, 5]
    assert [outcome.error for outcome in found] == ["", "stopped at its time limit", ""]


# trains to any epoch without a checkpoint
TRAINER = """
TRAINS = True

def make():
    return Trainer()

class Trainer:
    title, rungs = "trainer", (1, 3, 9)

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        return {"accuracy": 10.0 * epochs}
"""


def test_each_stretch_of_a_training_takes_its_share_of_the_epochs(
    tmp_path: Path, times: str
) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    executor = cluster(1, str(tmp_path / "trainer.py"), times=times)
    for epochs, seconds in ((1, 10 / 9), (3, 20 / 9), (9, 60 / 9)):
        task = dataclasses.replace(TASKS[0], epochs=epochs, folder="trial 0")
        ((outcome),) = work(executor, [task])
        assert outcome.metrics == {"accuracy": 10.0 * epochs}
        assert outcome.seconds == pytest.approx(seconds)
    # one from the start, as in the finals
    (outcome,) = work(executor, [dataclasses.replace(TASKS[0], epochs=9, folder="final 0")])
    assert outcome.seconds == pytest.approx(10)


def searched(tmp_path: Path, name: str, **settings: Any) -> list[dict[str, str]]:
    found = nas.search(
        project=tmp_path, name=name, evaluator="synthetic", trials=80, target_flops="400M",
        controller="evolution", **settings,
    )  # fmt: skip
    with Path(found["run"], "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_virtual_worker_finds_what_this_process_finds(tmp_path: Path) -> None:
    local = searched(tmp_path, "local")
    virtual = searched(tmp_path, "virtual", executor="simulated", workers=1)
    other = {"seconds", "place"}
    assert [{k: v for k, v in row.items() if k not in other} for row in virtual] == [
        {k: v for k, v in row.items() if k not in other} for row in local
    ]
    assert {row["place"] for row in virtual} == {"virtual worker 0"}
    assert all(float(row["seconds"]) > 500 for row in virtual if row["state"] == "done")
    # a run's own table is one of times
    table = read_times(tmp_path / "search" / "virtual" / "trials.csv")
    assert table.keys() == {row["arch_id"] for row in virtual if row["state"] == "done"}


def test_a_proposal_that_waits_for_its_twin_is_looked_at_twice(tmp_path: Path) -> None:
    """However many results come back before the one that it waits for."""
    looked = Counter[tuple[Any, ...]]()

    def decode(choices: Mapping[str, Any]) -> Arch:
        looked[tuple(choices.values())] += 1
        return MBCONV.decode({**choices, **fixed})

    # the first choices decide, the others change nothing: many twins
    fixed = {name: options[0] for name, options in list(MBCONV.choices.items())[4:]}
    space = dataclasses.replace(MBCONV, decode=decode)
    journal = Journal(tmp_path / "journal.log", distributions(space))
    sampler = registry.make("controllers", "random", space, options={}, seed=0)
    told: list[Trial] = []
    Engine(
        journal.log(SEARCH, ["maximize"], sampler),
        space,
        Goal(make_objective("hard", None, (), ())),
        cluster(30),
        seed=0,
        finished=[],
        known={},
        stop=lambda: "",
        watch=told.append,
    ).run(34)
    assert sum(trial.state == "duplicate" for trial in told) > 20
    assert sum(looked.values()) <= 2 * len(told)


def test_a_search_says_that_its_seconds_are_virtual(cli: Any) -> None:
    done = cli("search", "--space", "space.py", "--evaluator", "ledger.py", "--trials", "12",
               "--executor", "simulated", "--workers", "8", "--executor-option", "failures=0.2",
               "--no-random-search")  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = (line for line in done.stderr.splitlines() if "a simulation" in line)
    assert before.startswith("8 workers, 0 busy; a simulation: 0.00 virtual hours until now")
    assert after.startswith("a simulation: ") and "0.00" not in after
    result = json.loads((Path("runs") / "search" / "search" / "result.json").read_text())
    assert result["fleet"]["note"] == after


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stragglers": 1.5}, "stragglers is a share of the tries, 0 to 1, not 1.5"),
        ({"failures": -0.1}, "failures is a share of the tries, 0 to 1, not -0.1"),
        ({"slowdown": 0.5}, "slowdown is a factor of 1 or more"),
        ({"overhead": -1.0}, "overhead is seconds of 0 or more"),
        ({"times": "lost.csv"}, "no table lost.csv"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        cluster(2, **options)
    with pytest.raises(OptionError, match="1 worker or more, not -1"):
        cluster(-1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no rows"),
        ("arch_id,epochs\na,1\n", "needs a column train_time or seconds"),
        ("seconds,x\n1,2\n", "and arch_id or those of Accel-NASBench"),
        ("arch_id,seconds\na,soon\n", "row 2: ValueError"),
        ("block0_e,train_time\n1,5\n", "row 2: KeyError"),
        ("arch_id,seconds\na,\n", "holds no times"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "times.csv"
    path.write_text(text)
    with pytest.raises(OptionError, match=message):
        read_times(path)


def test_a_table_without_pyarrow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "times.parquet"
    path.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingError, match=r"needs pyarrow: pip install"):
        read_times(path)


def test_a_training_time_is_a_sum_of_counted_costs() -> None:
    small, large = sorted(ARCHS, key=lambda arch: features(arch)[1])[:: len(ARCHS) - 1]
    assert 500 < estimate(small) < estimate(large) < 6000
    logs = [observed(large, random.Random(n)) / estimate(large) for n in range(400)]
    inside = sum(abs(ratio - 1) < SPREAD for ratio in logs) / len(logs)
    assert 0.6 < inside < 0.76  # one standard deviation


@pytest.mark.skipif(not ACCEL.exists(), reason="the tables of Accel-NASBench are not here")
def test_times_of_accel_nasbench_are_replayed_and_near_the_estimate() -> None:
    from pyarrow import parquet

    rows = parquet.read_table(ACCEL).slice(0, 300).to_pylist()
    archs = [arch_of(row) for row in rows]
    executor = cluster(4, "surrogate", times=str(ACCEL))
    found = work(executor, [Task(n, arch.to_dict(), 0) for n, arch in enumerate(archs)])
    table = read_times(ACCEL)
    assert len(table) == 5125  # 13 archs are there twice
    for outcome in found:
        assert outcome.seconds == table[archs[outcome.number].id]
    errors = sorted(
        abs(estimate(a) / r["train_time"] - 1) for a, r in zip(archs, rows, strict=True)
    )
    assert errors[len(errors) // 2] < 0.08


def test_the_bench_of_clusters_prints_draws_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, picture = tmp_path / "cluster.csv", tmp_path / "cluster.png"
    flags = ["--controllers", "random,evolution", "--workers", "1,16", "--rough", "16"]
    flags += ["--trials", "20", "--seeds", "1", "--out", str(table), "--picture", str(picture)]
    bench_cluster.main(flags)
    with table.open(newline="") as file:
        rows = {(r["controller"], r["workers"], r["fortune"]): r for r in csv.DictReader(file)}
    assert len(rows) == 6
    serial, wide = rows["random", "1", "calm"], rows["random", "16", "calm"]
    # random search proposes the same archs, whatever comes back when
    assert serial["true"] == wide["true"] and float(serial["utilisation"]) == pytest.approx(1)
    assert float(serial["hours"]) > 5 * float(wide["hours"])
    shown = capsys.readouterr().out
    assert "| random, 20 | 16 |" in shown and "| evolution, 20, rough | 16 |" in shown
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_the_bench_judges_seed_by_seed() -> None:
    def row(workers: int, seed: int, hours: float, true: float, reached: float | None) -> Any:
        rest = (hours, 1.0, true, (reached,) * len(bench_cluster.LEVELS), 0.0)
        return bench_cluster.Row("x", workers, "calm", seed, 20, 20, 0, *rest)

    serial = [row(1, 0, 10.0, 65.0, 4.0), row(1, 1, 20.0, 66.0, 8.0)]
    wide = [row(8, 1, 4.0, 65.0, None), row(8, 0, 1.0, 65.5, 0.5)]
    assert bench_cluster.against(wide, serial) == ([5.0, 10.0], [1.0, -0.5])
    line = bench_cluster.table(serial + wide).splitlines()[-1]
    assert "| 2.5 (1.0–4.0) | 8 (5–10) |" in line and "0.5 (1 of 2)" in line
    assert "| 65.25 (65.00–65.50) | 0.25 (-0.50–1.00) |" in line


def test_an_arch_that_gets_better_by_luck_alone_does_not_raise_the_true_reward() -> None:
    trials = [
        Trial(n, "done", random_choices(MBCONV, RNG), "", {"flops": 3e8}, (value,))
        for n, value in enumerate((60.0, 59.0, 61.0))
    ]
    objective = make_objective("hard", None, (Bound("flops", 4e8),), ())
    leaders = plain_search.leaders(trials, MBCONV, objective)
    truth = registry.make("evaluators", "surrogate", options={})
    first, last = (truth.evaluate(MBCONV.decode(trials[n].choices))["accuracy"] for n in (0, 2))
    assert leaders == [first, first, last]
