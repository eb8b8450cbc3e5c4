"""A digit that a disk has changed: no file that a run resumes from is taken with it unnoticed."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SPACE, TRAINER
from digits import TINY, equal

from nas.core import run_folder
from nas.core.checksums import FIELD, of_row, with_checksum
from nas.core.errors import NasError, RunError
from nas.models.load import load_arch
from nas.searching.search import search
from nas.searching.studies.journal import read_only
from nas.searching.studies.study import read_journal
from nas.training.checkpoint import read_weights
from nas.training.mending import BEST
from nas.training.result import HeldOutScore, TrainResult, ValScore
from nas.training.train import go_on, train

TEXT = {".json", ".yaml", ".csv", ".log"}
DIGITS = b"0123456789"
PLACES = 2  # of a file in which a digit is changed, one at a time
DATA = {"a": 1, "deep": {"b": [1.5, "ü\udce9", None]}, "n": float("inf")}


def flipped(data: bytes, at: int) -> bytes:
    """Return data in which the digit at a place is another one."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def places(data: bytes) -> list[int]:
    return [at for at, letter in enumerate(data) if letter in DIGITS]


def test_each_digit_of_a_json_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    run_folder.write_json(path, DATA)
    whole = path.read_bytes()
    assert run_folder.read_json(path) == DATA and FIELD in json.loads(whole)
    for at in places(whole):
        path.write_bytes(flipped(whole, at))
        with pytest.raises(RunError, match=r"x.json is (damaged: its checksum differs|not JSON)"):
            run_folder.read_json(path)


def test_json_of_another_layout_or_without_a_checksum_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    run_folder.write_json(path, DATA)
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert run_folder.read_json(path) == DATA
    path.write_text(json.dumps(DATA))
    assert run_folder.read_json(path) == DATA
    run_folder.write_json(path, [1, 2])
    assert run_folder.read_json(path) == [1, 2]
    assert with_checksum(with_checksum(DATA)) == with_checksum(DATA)


def test_each_digit_of_a_runs_arguments_is_checked_and_a_copy_may_be_changed(
    tmp_path: Path,
) -> None:
    arguments = {"trials": 100, "lr": 1e-3, "name": "ü"}
    run_folder.write_args(tmp_path, arguments)
    path = tmp_path / run_folder.ARGS
    whole = path.read_bytes()
    assert run_folder.read_args(tmp_path) == arguments
    for at in places(whole):
        path.write_bytes(flipped(whole, at))
        with pytest.raises(RunError, match=r"args.yaml is damaged: its checksum differs"):
            run_folder.read_args(tmp_path)
    path.write_bytes(whole.replace(b"100", b"200"))
    assert run_folder.read_args(path)["trials"] == 200  # as by --config
    path.write_bytes(b"".join(whole.replace(b"100", b"200").splitlines(keepends=True)[:-1]))
    assert run_folder.read_args(tmp_path)["trials"] == 200


def test_each_digit_of_a_checked_table_is_checked(tmp_path: Path) -> None:
    path, header = tmp_path / "t.csv", ["name", "accuracy", "none"]
    run_folder.write_csv(path, header, [["a 1", 0.1 + 0.2, None], ["b,\r2", 7, ""]], checked=True)
    whole = path.read_bytes()
    assert [row["accuracy"] for row in run_folder.read_csv(path)] == ["0.30000000000000004", "7"]
    for at in places(whole):
        path.write_bytes(flipped(whole, at))
        with pytest.raises(RunError, match=r"t.csv row [12] is damaged: its checksum differs"):
            run_folder.read_csv(path)
    path.write_text(f"a,{FIELD}\n1,\n2,{of_row(['a'], [2])}\n")
    assert run_folder.read_csv(path) == [{"a": "1"}, {"a": "2"}]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "trainer.py").write_text(TRAINER.replace("rungs = (4,)", "rungs = (1, 2)"))
    return tmp_path


def searched(home: Path, trials: int, **more: Any) -> Path:
    """Search, or go on with it; return the run's folder."""
    settings: dict[str, Any] = {
        "space": "space.py",
        "evaluator": "trainer.py",
        "evaluator_options": {"sleep": 0.0},
        "final_seeds": 1,
        "warm_start": "runs/search/before",
        "name": "new",
    }
    return home / str(search(**{**settings, **more, "trials": trials})["run"])


def test_digits_of_a_journal_are_checked(home: Path) -> None:
    path = searched(home, 2, warm_start=None) / "journal.log"
    whole = path.read_bytes()
    found = places(whole)
    for at in random.Random(0).sample(found, min(200, len(found))):
        path.write_bytes(flipped(whole, at))
        with pytest.raises(RunError, match=r"journal.log line \d+ is"):
            read_only(path)


def test_a_damaged_line_costs_what_comes_after_it_at_most(home: Path) -> None:
    """What the error proposes works, and ends as the search that nothing happened to."""
    folder = searched(home, 8, warm_start=None)
    wanted, path = shown(folder), folder / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:100], flipped(lines[100], places(lines[100])[-1])]))
    with pytest.raises(RunError, match=r"line 101 is damaged.*keep its first 100 lines alone"):
        searched(home, 8, warm_start=None, resume=True)
    path.write_bytes(b"".join(lines[:100]))
    assert shown(searched(home, 8, warm_start=None, resume=True)) == wanted


def test_a_journal_of_before_is_opened_and_gone_on_with(home: Path) -> None:
    folder = searched(home, 8, warm_start=None)
    wanted, path = shown(folder), folder / "journal.log"
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    old = [{key: value for key, value in log.items() if key != FIELD} for log in records]
    path.write_text("".join(json.dumps(log) + "\n" for log in old[:100]))
    assert shown(searched(home, 8, warm_start=None, resume=True)) == wanted
    assert len(read_journal(path).studies) == 2


def shown(folder: Path) -> list[Any]:
    """Return what a search has come to, without what a clock decides."""
    tables = [
        run_folder.read_csv(folder / name) for name in ("trials.csv", "random.csv", "finals.csv")
    ]
    clocks = {"seconds", "place"}
    rows = [[{k: v for k, v in row.items() if k not in clocks} for row in t] for t in tables]
    return [rows, (folder / "best/arch.json").read_text()]


def damages(part: Path, folder: Path) -> Iterator[Path]:
    """Lay copies of a run's folder out, a digit of one text file changed in each; yield the file.

    The files are found: one that is added later is tried too.
    """
    draw = random.Random(0)
    for path in sorted(p for p in part.rglob("*") if p.suffix in TEXT and p.is_file()):
        data = path.read_bytes()
        found = places(data)
        for at in draw.sample(found, min(PLACES, len(found))):
            shutil.rmtree(folder)
            shutil.copytree(part, folder)
            damaged = folder / path.relative_to(part)
            damaged.write_bytes(flipped(data, at))
            yield damaged


def refused(go: Callable[[], object], file: Path) -> bool:
    """Tell whether a resumption is refused, in one line that names the file."""
    try:
        go()
    except NasError as error:
        assert file.name in str(error) and "\n" not in str(error)
        return True
    return False


@pytest.mark.slow
def test_a_search_resumes_to_the_same_or_names_the_file(home: Path) -> None:
    searched(home, 4, name="before", warm_start=None)
    part = searched(home, 6).rename(home / "part")
    shutil.copytree(part, home / "runs/search/new")
    wanted = shown(searched(home, 9, resume=True))
    named = set()
    for file in damages(part, home / "runs/search/new"):
        if refused(lambda: searched(home, 9, resume=True), file):
            named.add(file.name)
        else:
            assert shown(home / "runs/search/new") == wanted, file
    checked = {"args.yaml", "env.json", "finals.csv", "journal.log", "sources.json"}
    assert named >= {*checked, "warm_start.json"}


@pytest.mark.slow
def test_a_training_resumes_to_the_same_or_names_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(home / "cache"))
    (home / "tiny.json").write_text(TINY.to_json())
    options: dict[str, Any] = {
        "data": "digits",
        "recipe": "proxy",
        "epochs": 2,
        "tracker": ["none"],
    }
    part = home / train("tiny.json", name="new", **options, interrupted=lambda: True)["run"]
    assert not (part / "result.json").exists()
    part = part.rename(home / "part")
    folder = home / "runs/train/new"
    shutil.copytree(part, folder)
    go_on(folder, {})
    wanted = read_weights(folder / BEST)
    named = set()
    for file in damages(part, folder):
        if refused(lambda: go_on(folder, {}), file):
            named.add(file.name)
        else:
            assert equal(read_weights(folder / BEST), wanted), file
    assert named >= {"args.yaml", "arch.json", "data.json", "env.json", "recipe.json"}


def test_the_result_of_a_finished_training_is_checked(home: Path) -> None:
    folder = home / "runs/train/x"
    run_folder.write_args(folder, {"arch": "resnet18"})
    test = HeldOutScore(top1=70.0, n=9, standard_error=1.0)
    made = TrainResult(run=folder, epochs=1, val=ValScore(top1=71.5, n=9), test=test)
    run_folder.write_json(folder / "result.json", made.to_dict())
    assert go_on(folder, {}) == made
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace("71.5", "77.5"))
    with pytest.raises(RunError, match=r"result.json is damaged: .* delete it and --resume"):
        go_on(folder, {})


def test_an_arch_file_with_a_checksum_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    run_folder.write_json(path, TINY.to_dict())
    assert load_arch(path) == TINY
    path.write_text(path.read_text().replace('"stride": 2', '"stride": 1', 1))
    with pytest.raises(RunError, match=r"baseline.json is damaged: its checksum differs"):
        load_arch(path)
