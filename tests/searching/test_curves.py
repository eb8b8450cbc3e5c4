"""rungs.csv: one row for each trial and rung, with what the training had cost by then."""

from pathlib import Path

from nas.core import run_folder
from nas.interfaces import TRAINING_FLOPS, Metrics, Rung, Trial
from nas.searching.objective import Goal, make_objective
from nas.searching.outcome.curves import COLUMNS, RUNGS, write_rungs

GOAL = Goal(make_objective("hard", None, (), ()))


def metrics(epochs: int) -> Metrics:
    accuracy = 50.0 + epochs
    return {"accuracy": accuracy, "epochs": epochs, "flops": 7, TRAINING_FLOPS: 21.0 * epochs}


def trial(number: int, state: str, reached: int, *, trains: bool = True) -> Trial:
    """Return a trial that reported before its last epoch, and was so far when it ended."""
    reports = range(1, reached if state == "done" else reached + 1)
    rungs = tuple(Rung(epochs, 50.0 + epochs, metrics(epochs), 2.0) for epochs in reports)
    found = metrics(reached) if trains else {"accuracy": 50.0, "flops": 7}
    values = (50.0 + reached,) if state == "done" else ()
    seconds = 2.0 * len(rungs) + (3.0 if state == "done" else 0.0)
    return Trial(number, state, {}, f"a{number}", found, values, "", seconds, rungs)


def test_each_rung_is_a_row_and_the_end_of_a_whole_training_too(tmp_path: Path) -> None:
    search = [trial(0, "done", 3), trial(1, "stopped", 2), trial(2, "failed", 1)]
    write_rungs(tmp_path, {"search": search, "random search": [trial(0, "done", 1)]}, GOAL)
    rows = run_folder.read_csv(tmp_path / RUNGS)
    assert tuple(rows[0]) == COLUMNS
    told = [(row["study"], row["trial"], row["state"], row["epochs"]) for row in rows]
    assert told == [
        *(("search", "0", "done", epochs) for epochs in "123"),
        *(("search", "1", "stopped", epochs) for epochs in "12"),
        ("search", "2", "failed", "1"),
        ("random search", "0", "done", "1"),
    ]
    for row in rows:
        epochs = int(row["epochs"])
        assert float(row["accuracy"]) == float(row["reward"]) == 50 + epochs
        assert (float(row["flops"]), float(row["training_flops"])) == (7, 21.0 * epochs)
    assert [float(row["seconds"]) for row in rows] == [2, 2, 3, 2, 2, 2, 3]


def test_what_was_not_trained_has_no_row(tmp_path: Path) -> None:
    trials = [trial(0, "done", 1, trains=False), trial(1, "duplicate", 1), trial(2, "rejected", 1)]
    write_rungs(tmp_path, {"search": trials}, GOAL)
    assert not (tmp_path / RUNGS).exists()
