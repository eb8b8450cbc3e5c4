"""Run: the folder appears whole, names stay plain, one process holds it, files parse."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.core import run_folder
from nas.core.errors import OptionError, RunError

ARGUMENTS = {"space": "mbconv", "target_flops": 400_000_000, "w": -0.07, "options": {"a": 1}}
HOLD = """
import sys, time
from pathlib import Path
from nas.core import run_folder
with run_folder.lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_appears_with_its_arguments_and_nothing_else(tmp_path: Path) -> None:
    path = run_folder.create("search", None, tmp_path, ARGUMENTS)
    assert path == tmp_path / "search" / "search"
    assert run_folder.read_args(path) == ARGUMENTS
    assert [p.name for p in path.parent.iterdir()] == ["search"]
    assert path.stat().st_mode & 0o777 == 0o755


def test_a_kill_while_a_folder_is_made_leaves_no_run(tmp_path: Path) -> None:
    half = tmp_path / "search" / ".new-abc"
    half.mkdir(parents=True)
    run_folder.write_args(half, ARGUMENTS)
    assert run_folder.runs("search", tmp_path) == []


def test_a_taken_name_gets_a_number_and_nothing_is_overwritten(tmp_path: Path) -> None:
    paths = [run_folder.create("search", "mine", tmp_path, {"n": n}) for n in range(3)]
    assert [path.name for path in paths] == ["mine", "mine2", "mine3"]
    assert [run_folder.read_args(path)["n"] for path in paths] == [0, 1, 2]
    assert run_folder.runs("search", tmp_path) == paths


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", ".hidden", "/tmp/x"])
def test_a_name_that_leaves_the_project_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="--name takes a plain folder name"):
        run_folder.create("search", name, tmp_path, {})


def test_a_project_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another with --project"):
        run_folder.create("search", None, tmp_path / "file", {})


def _hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    with _hold(tmp_path) as process:
        with pytest.raises(RunError) as error, run_folder.lease(tmp_path):
            pass
        assert f"in use by process {process.pid} on {socket.gethostname()}" in str(error.value)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with run_folder.lease(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    with run_folder.lease(tmp_path):  # and it is given back
        pass


def test_a_lease_of_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write in"), run_folder.lease(tmp_path / "none"):
        pass


def test_arguments_round_trip(tmp_path: Path) -> None:
    tricky = {"name": "no", "w": 1e-3, "none": None, "text": "ü = ±", "deep": {"k": [1, 2.5]}}
    run_folder.write_args(tmp_path, tricky)
    assert run_folder.read_args(tmp_path) == tricky
    assert run_folder.read_args(tmp_path / "args.yaml") == tricky


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is not YAML"), ("- 1", "holds no arguments"), ("", "holds no arguments")],
)
def test_arguments_that_do_not_parse_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "args.yaml").write_text(text)
    with pytest.raises(RunError, match=message) as error:
        run_folder.read_args(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(RunError, match="cannot read"):
        run_folder.read_args(tmp_path / "none.yaml")


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data.json"
    run_folder.write_json(path, {"a": 1})
    before = path.stat().st_ino
    run_folder.write_json(path, {"a": "±"})
    assert path.stat().st_ino != before
    assert run_folder.read_json(path) == {"a": "±"}
    assert [p.name for p in path.parent.iterdir()] == ["data.json"]


def test_tables_round_trip(tmp_path: Path) -> None:
    run_folder.write_csv(tmp_path / "t.csv", ["a", "b"], [[1, "x,y"], [2, 'say "hi"\nthere']])
    rows = run_folder.read_csv(tmp_path / "t.csv")
    assert rows == [{"a": "1", "b": "x,y"}, {"a": "2", "b": 'say "hi"\nthere'}]
    assert run_folder.read_csv(tmp_path / "none.csv") == []


def test_the_environment_names_what_is_needed_to_repeat_a_run(tmp_path: Path) -> None:
    run_folder.write_environment(tmp_path)
    found = json.loads((tmp_path / "env.json").read_text())
    assert {"python", "platform", "versions", "commit"} <= set(found)
    assert found["versions"]["optuna"].startswith("5.")


def test_runs_come_in_the_order_they_were_last_opened(tmp_path: Path) -> None:
    first, second = (run_folder.create("search", n, tmp_path, {}) for n in ("b", "a"))
    assert run_folder.runs("search", tmp_path) == [first, second]
    time.sleep(0.02)
    run_folder.write_args(first, {})
    assert run_folder.runs("search", tmp_path) == [second, first]


def test_numbers_in_yaml_are_those_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "a: 1e-3\nb: 1E5\nc: 010\nd: -1.5e+3\ne: 1:30\nf: 20m\ng: .5\nh: '1e-3'\ni: 7\n"
    )
    wanted = {"a": 0.001, "b": 1e5, "c": 10, "d": -1500.0, "e": "1:30", "f": "20m", "g": 0.5}
    found = run_folder.read_args(path)
    assert found == {**wanted, "h": "1e-3", "i": 7} and type(found["i"]) is int


@pytest.mark.parametrize(
    "value",
    [
        *(
            "1e-3",
            "010",
            "1:30",
            "yes",
            "1e5",
            ".5",
            "0x10",
            "2024-01-01",
            "1_000",
            "",
            "-",
            ".inf",
        ),
        *(1e-3, 1e-05, 1e22, -0.07, 10, True, None, float("inf"), [1, "2", 2.0], {"lr": "1e-3"}),
    ],
)
def test_arguments_come_back_as_they_were(tmp_path: Path, value: object) -> None:
    run_folder.write_args(tmp_path, {"x": value})
    found = run_folder.read_args(tmp_path)["x"]
    assert found == value and type(found) is type(value)
    assert "!!" not in (tmp_path / run_folder.ARGS).read_text()
