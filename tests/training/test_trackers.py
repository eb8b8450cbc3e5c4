"""Trackers: the contract that every file of nas/training/trackers keeps, with the real packages.

Those that are not installed are skipped: `pip install wandb mlflow trackio` runs them all.
"""

import ast
import contextlib
import importlib.util
import inspect
import io
import json
import math
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.core import registry
from nas.core.errors import MissingError, OptionError
from nas.training import tracking
from nas.training.tracking import open_trackers

ROOT = Path(__file__).parents[2]
NAMES = registry.names("trackers")
each_tracker = pytest.mark.parametrize("name", NAMES)
CONFIG = {"arch": "b0", "lr": 0.1, "recipe_options": {"ema": 0.5}, "init": None, "tracker": ["x"]}
ROWS: list[dict[str, Any]] = [
    {"epoch": 1, "train_loss": 2.0, "val_top1": 10.5},
    {"epoch": 2, "train_loss": math.nan, "val_top1": ""},  # diverging; not validated
    {"epoch": 3, "train_loss": 0.5, "val_top1": 30.5},
]
# a process of its own: these packages have threads, exit hooks and words for stdout
SCRIPT = """
import json, sys
from pathlib import Path
from nas.training.tracking import open_trackers

name, folder, config, rows = json.loads(sys.argv[1])
say = lambda text: print(text, file=sys.stderr)
trackers = open_trackers([name], Path(folder), "exp", config, say=say)
for row in rows:
    for tracker in trackers:
        tracker.row(row["epoch"], row)
for tracker in trackers:
    tracker.close()
"""
# a user's own: a line a call, into a file of the folder
LEDGER = """
def make(folder, name, config):
    return Ledger(folder / "ledger.txt")

class Ledger:
    title = "ledger"

    def __init__(self, path):
        self.path = path

    def row(self, step, numbers):
        with self.path.open("a") as file:
            file.write(f"{step} {numbers}\\n")

    def close(self):
        with self.path.open("a") as file:
            file.write("closed\\n")
"""
FAILING = """
def make(folder, name, config):
    return Failing()

class Failing:
    title = "failing"
    calls = 0

    def row(self, step, numbers):
        self.calls += 1
        if self.calls > 1:
            raise OSError("no network today\\nthe second line")

    def close(self):
        raise AssertionError("it has failed before")
"""
REFUSING = """
def make(folder, name, config):
    raise ConnectionError("no account\\nlog in first")
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own accounts and places out of it."""
    monkeypatch.chdir(tmp_path)
    for variable in os.environ:
        if variable.startswith(("WANDB_", "MLFLOW_", "TRACKIO_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def track(name: str, folder: Path, rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Follow a training in a process of its own; return its stdout and stderr."""
    folder.mkdir(exist_ok=True)
    if name == "tensorboard":  # well behaved, and torch is a slow start
        return follow(name, folder, rows)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([name, str(folder), CONFIG, rows])],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def follow(name: str, folder: Path, rows: list[dict[str, Any]]) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        trackers = open_trackers([name], folder, "exp", CONFIG, say=err.write)
        for row in rows:
            trackers[0].row(int(row["epoch"]), row)
        trackers[0].close()
    return out.getvalue(), err.getvalue()


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(text)
    return str(path)


@each_tracker
def test_a_tracker_keeps_its_signature_and_its_package_late(name: str) -> None:
    module = registry.load("trackers", name)
    assert list(inspect.signature(module.make).parameters) == ["folder", "name", "config"]
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + [alias.name for alias in node.names if isinstance(node, ast.Import)]
    }
    assert imported <= set(sys.stdlib_module_names) | {"nas"}


@each_tracker
def test_a_missing_package_is_named_with_its_pip_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingError, match=f"pip install {name}") as caught:
        open_trackers([name], tmp_path, "exp", CONFIG)
    assert "\n" not in str(caught.value)


@each_tracker
def test_a_tracker_takes_rows_and_goes_on_in_the_same_run(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    folder = tmp_path / "run"
    out, err = track(name, folder, ROWS[:2])
    again, more = track(name, folder, ROWS[2:])
    assert out == again == "", "stdout is the result's"
    assert "left out" not in err + more
    seen = READERS[name](folder)
    assert [point for point in seen if not math.isnan(point[1])] == [(1, 2.0), (3, 0.5)]


def of_tensorboard(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [point.value for point in events.Scalars("val_top1")] == [10.5, 30.5]
    assert b'"arch": "b0"' in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    return [(point.step, point.value) for point in events.Scalars("train_loss")]


def of_wandb(folder: Path) -> list[tuple[int, float]]:
    from wandb.proto import wandb_internal_pb2

    points, ids = [], set()
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                # a key is plain, or has parts
                items = record.history.item
                pairs = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
                points.append((int(pairs["epoch"]), float(pairs["train_loss"])))
    assert ids == {(folder / "wandb.id").read_text().strip()}
    return points


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a .wandb file: 7 bytes, then LevelDB's log in blocks of 32 KiB."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = -place % 32768
        if left < 7 and left:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # the whole, or its last part
            yield whole
            whole = b""


def of_mlflow(folder: Path) -> list[tuple[int, float]]:
    run_id = (folder / "mlflow.id").read_text().strip()
    with sqlite3.connect("mlflow.db") as database:
        runs = database.execute("select run_uuid, name, status from runs").fetchall()
        params = dict(database.execute("select key, value from params").fetchall())
        query = "select step, value from metrics where key = 'train_loss' and not is_nan"
        points = database.execute(f"{query} order by step").fetchall()
    database.close()
    assert runs == [(run_id, "exp", "FINISHED")]
    assert params["recipe_options.ema"] == "0.5" and params["arch"] == "b0"
    return points


def of_trackio(folder: Path) -> list[tuple[int, float]]:
    with sqlite3.connect("trackio/nas.db") as database:
        query = "select run_name, step, metrics from metrics order by step"
        rows = database.execute(query).fetchall()
    database.close()
    assert {name for name, _, _ in rows} == {(folder / "trackio.id").read_text().strip()}
    return [(step, float(json.loads(numbers)["train_loss"])) for _, step, numbers in rows]


READERS = {
    "tensorboard": of_tensorboard,
    "wandb": of_wandb,
    "mlflow": of_mlflow,
    "trackio": of_trackio,
}


def test_two_trainings_of_one_name_are_two_runs_of_trackio(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    for place in ("one", "two"):
        track("trackio", tmp_path / place, ROWS[:1])
    with sqlite3.connect("trackio/nas.db") as database:
        runs = database.execute("select distinct run_id from metrics").fetchall()
    database.close()
    assert len(runs) == 2


def test_wandb_is_offline_unless_the_user_has_set_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = registry.export("trackers", "wandb", "mode")
    assert mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert mode() is None
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert mode() is None
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.my.org:8080/x")
    assert mode() == "offline"
    (tmp_path / "netrc").write_text("this is no netrc\n")
    assert mode() == "offline"


def test_nested_options_become_dotted_parameters() -> None:
    flat = registry.export("trackers", "mlflow", "flat")
    assert flat({"a": {"b": {"c": 1}, "d": {}}, "e": [1]}) == {"a.b.c": 1, "e": [1]}


def test_by_default_there_is_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    said: list[str] = []
    trackers = open_trackers(None, tmp_path, "exp", CONFIG, say=said.append)
    trackers[0].close()
    assert said == [f"tensorboard: tensorboard --logdir {tmp_path / 'tensorboard'}"]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_by_default_nothing_fails_without_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert open_trackers(None, tmp_path, "exp", CONFIG) == []


def test_by_default_a_broken_tensorboard_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said: list[str] = []
    assert open_trackers(None, tmp_path, "exp", CONFIG, say=said.append) == []
    assert len(said) == 1 and said[0].startswith("no TensorBoard: --tracker needs")


def test_by_default_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file is in the way")
    said: list[str] = []
    assert open_trackers(None, tmp_path, "exp", CONFIG, say=said.append) == []
    assert len(said) == 1 and said[0].startswith("no TensorBoard: tracker tensorboard cannot")


@pytest.mark.parametrize("names", [[], ["none"], ["none", "none"]])
def test_none_is_none(names: list[str], tmp_path: Path) -> None:
    assert open_trackers(names, tmp_path, "exp", CONFIG) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["none", "wandb"], "none leaves no room for others"),
        (["tensorbord"], "did you mean 'tensorboard'"),
        (["comet"], "no tracker named 'comet'"),
        (["mine.py"], "no file mine.py"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(names: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        open_trackers(names, tmp_path, "exp", CONFIG)
    assert "\n" not in str(caught.value)


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    names = [write(tmp_path, "failing", FAILING), write(tmp_path, "ledger", LEDGER)]
    said: list[str] = []
    trackers = open_trackers([*names, *names], tmp_path, "exp", CONFIG, say=said.append)
    for row in ROWS:
        for tracker in trackers:
            tracker.row(int(row["epoch"]), row)
    for tracker in trackers:
        tracker.close()
        tracker.close()
    lines = (tmp_path / "ledger.txt").read_text().splitlines()
    assert lines == [
        "1 {'epoch': 1.0, 'train_loss': 2.0, 'val_top1': 10.5}",
        "2 {'epoch': 2.0, 'train_loss': nan}",
        "3 {'epoch': 3.0, 'train_loss': 0.5, 'val_top1': 30.5}",
        "closed",
    ]
    left = [line for line in said if "left out" in line]
    assert left == [f"{names[0]} is left out from now on: OSError: no network today"]


def test_a_tracker_that_cannot_start_stops_the_training_and_closes_the_others(
    tmp_path: Path,
) -> None:
    names = [write(tmp_path, "ledger", LEDGER), write(tmp_path, "refusing", REFUSING)]
    with pytest.raises(OptionError, match="ConnectionError: no account log in first") as caught:
        open_trackers(names, tmp_path, "exp", CONFIG)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "ledger.txt").read_text() == "closed\n"


def test_an_id_is_remembered_in_the_folder(tmp_path: Path) -> None:
    assert tracking.remembered(tmp_path, "wandb") == ""
    tracking.remember(tmp_path, "wandb", "abc")
    assert tracking.remembered(tmp_path, "wandb") == "abc"
