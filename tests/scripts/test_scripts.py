"""The measurements of scripts/ that a GPU is wanted for, on a CPU: small, and their judgement."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from nas.data.dataset import open_dataset
from nas.data.splits import make_splits
from nas.models.arch import Arch, Head, Stage, Stem

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench_memory  # noqa: E402
import bench_training  # noqa: E402
import gpu_suite  # noqa: E402
import verify_family  # noqa: E402
from lib import suite_report, timm_loop  # noqa: E402

TINY = Arch(
    "tiny",
    (Stage("mbconv", 8, stride=2, expansion=2.0),),
    Stem(8),
    Head(16, dropout=0.1, classes=10),
    resolution=32,
    stochastic_depth=0.1,
)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.json"
    path.write_text(TINY.to_json())
    return str(path)


def bench(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    threads = str(torch.get_num_threads())
    bench_training.main([*flags, "--threads", threads, "--batch", "4", "--steps", "2", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_bench_training_races_our_loop_against_its_ceiling(
    tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--arch", tiny, "--rounds", "3", "--recipe-option", "policy=none")
    found = bench(capsys, *flags)
    speeds = found["images_per_second"]
    assert set(speeds) == {"ours", "ceiling"}
    assert all(len(values) == 3 and min(values) > 0 for values in speeds.values())
    [ratio] = found["ratios"]
    assert ratio["of"] == ["ours", "ceiling"] and len(ratio["rounds"]) == 3
    medians = [sorted(speeds[name])[1] for name in ratio["of"]]
    assert ratio["medians"] == pytest.approx(medians[0] / medians[1])
    assert any("timm is left out" in note for note in found["notes"])
    assert "| ours / ceiling | " in "\n".join(suite_report.training_tables([found]))
    assert not torch.backends.cudnn.benchmark


def test_bench_training_ends_in_time_with_what_it_has(
    tiny: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--arch", tiny, "--recipe", "proxy", "--rounds", "500", "--seconds", "1")
    found = bench(capsys, *flags)
    assert 1 <= len(found["images_per_second"]["ours"]) < 500
    with pytest.raises(SystemExit, match="only the warm-up fitted into 0 s: give more --seconds"):
        bench(capsys, *flags, "--seconds", "0")


def test_a_contender_that_fails_is_left_out(
    tiny: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ceiling(asked: bench_training.Bench) -> bench_training.Round:
        speeds = iter([1.0, 2.0])

        def run() -> float:
            for speed in speeds:
                return speed
            raise RuntimeError("CUDA out of memory\nand more")

        return run

    monkeypatch.setattr(bench_training, "ceiling", ceiling)
    found = bench(capsys, "--arch", tiny, "--recipe", "proxy", "--rounds", "3")
    assert list(found["images_per_second"]) == ["ours"]
    assert len(found["images_per_second"]["ours"]) == 3
    assert found["ratios"] == []
    assert found["notes"].count("ceiling is left out: CUDA out of memory") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--arch", "efficientnet_b99"], "efficientnet_b99"),
        (["--recipe", "prxy"], "prxy"),
        (["--recipe-option", "polcy=none"], "did you mean 'policy'"),
        (["--device", "gpu"], "--device takes"),
    ],
)
def test_bench_training_refuses_in_one_line(flags: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as refusal:
        bench_training.main(flags)
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_the_ceiling_trains_what_ours_trains() -> None:
    given = bench_training.parse(["--recipe", "proxy", "--imgsz", "64"])
    asked = bench_training.bench_from(given)
    # as nas.training.loop has it: the recipe's dropout and depth take the place of the arch's
    assert (asked.arch.head.dropout, asked.arch.stochastic_depth, asked.size) == (0.0, 0.0, 64)
    given = bench_training.parse(["--recipe", "efficientnet"])
    assert bench_training.bench_from(given).arch.stochastic_depth == 0.2


def test_the_plain_loop_is_timms(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    flags = ("--arch", "mobilenet_v3_small", "--imgsz", "32", "--rounds", "1", "--workers", "1")
    found = bench(capsys, *flags)
    assert set(found["images_per_second"]) == {"ours", "ceiling", "timm", "timm fixed"}
    assert [row["of"] for row in found["ratios"]] == [list(pair) for pair in bench_training.RATIOS]
    assert not found["notes"]  # so many parameters as ours, too
    found = bench(capsys, *flags, "--timm", "no_such_net")
    assert "it has no net no_such_net; --timm names another" in found["notes"][0]


def test_normalised_images_are_standard() -> None:
    images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    values = timm_loop.normalised(images, "cpu")
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert abs(float(values.mean())) < 0.1 and float(values.std()) == pytest.approx(1, abs=0.05)


def test_memory_estimates_stand_beside_what_is_allocated() -> None:
    found = bench_memory.row("mobilenet_v3_small", 4, "cpu")
    for peak in found["peaks"].values():
        assert peak["estimate"] == pytest.approx(peak["measured"], rel=0.1)
    assert found["reason"] == ""
    assert bench_memory.shown(found).count("|") == 6
    lost = bench_memory.row("no_such_net", 2, "cpu")
    assert not lost["peaks"] and "no_such_net" in bench_memory.shown(lost)


def test_the_nets_of_a_family_are_trained_beside_the_estimate(
    tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [tiny, "--phi", "0", "--rule", "formula", "--batch", "2", "--amp", "--json"]
    assert verify_family.main(flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["batch"] == 2 and found["measured"] > 0 and found["difference"] is not None
    lost = {**found, "measured": None, "reason": "not one fits"}
    table = suite_report.family_tables([found, lost])
    assert table[2].startswith("| b0 | 32 | 2 |") and "not one fits" in table[3]


def test_a_batch_that_does_not_fit_is_halved(
    tiny: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"measured": 2**20, "seconds": 1.0, "images_per_second": 8.0}

    def tried(arch: Arch, batch: int, given: object) -> dict[str, Any]:
        return measured if batch <= 4 else {"reason": "out of memory"}

    monkeypatch.setattr(verify_family, "tried", tried)
    flags = [tiny, "--phi", "0", "--rule", "formula", "--batch", "16", "--amp", "--json"]
    assert verify_family.main(flags) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "out of memory"
    assert verify_family.main([*flags, "--halve"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["batch"], found["reason"]) == (4, "")


# --- the suite


def part(code: str, seconds: float = 20.0, name: str = "part") -> gpu_suite.Part:
    return gpu_suite.Part(name, [sys.executable, "-c", code], seconds)


def test_a_part_gives_the_objects_that_it_printed(tmp_path: Path) -> None:
    code = "print('words'); print('{\"a\": 1}'); print('[2]'); print('{\"half')"
    done = gpu_suite.run_part(part(code), tmp_path, tmp_path / "log")
    assert (done.reason, done.lines) == ("", [{"a": 1}])
    assert "words" in (tmp_path / "log").read_text()


def test_a_part_finds_nas_where_it_is_not_installed(tmp_path: Path) -> None:
    code = "import json, nas, os; print(json.dumps({'file': nas.__file__}))"
    done = gpu_suite.run_part(part(code), tmp_path, tmp_path / "log")
    assert Path(done.lines[0]["file"]).parents[1] == SCRIPTS.parent


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit('no such thing')", "exit code 1: no such thing"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9: it said nothing"),
        ("print('only words')", "it printed no result"),
    ],
)
def test_a_part_that_fails_leaves_its_reason(tmp_path: Path, code: str, reason: str) -> None:
    assert gpu_suite.run_part(part(code), tmp_path, tmp_path / "log").reason == reason


def test_a_part_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('{\"child\": %d}' % child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    done = gpu_suite.run_part(part(code, 2.0), tmp_path, tmp_path / "log")
    assert done.reason == "stopped at its limit of 2 s"
    assert not alive(done.lines[0]["child"])


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended may wait to be collected."""
    for _ in range(100):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.05)
    return True


def test_a_search_that_was_killed_still_counts_its_trials(tmp_path: Path) -> None:
    run = tmp_path / "search" / "search"
    run.mkdir(parents=True)
    (run / "trials.csv").write_text("number,state\n0,done\n1,stopped\n2,failed\n3,duplicate\n4,do")
    (run / "packing.json").write_text('{"asked": "auto", "workers": 8}')
    code = "import time; time.sleep(60)"
    done = gpu_suite.run_part(part(code, 0.5, "search"), tmp_path, tmp_path / "log")
    assert done.lines[0]["tried"] == 2 and done.lines[0]["at_once"] == 8


def test_the_stand_in_has_the_shape_of_cifar10_and_says_what_it_is(tmp_path: Path) -> None:
    data, label = gpu_suite.choose_data(None, gpu_suite.SMOKE, tmp_path)
    dataset = make_splits(open_dataset(data))
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sum(sizes.values()) == 200 and sizes["test"] == 40
    image = dataset.splits["test"].read(3)
    assert not isinstance(image, bytes) and image.shape == (32, 32, 3)
    assert "STAND-IN" in label and "no --data was given" in label
    assert gpu_suite.FULL.images == (50_000, 10_000)


def test_data_that_is_there_is_used(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    data, label = gpu_suite.choose_data(str(tmp_path / "images"), gpu_suite.FULL, tmp_path)
    assert Path(data) == tmp_path / "images" and "STAND-IN" not in label
    _, label = gpu_suite.choose_data(str(tmp_path / "lost"), gpu_suite.FULL, tmp_path)
    assert "STAND-IN" in label and "lost" in label


def test_parquet_without_pyarrow_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train-0.parquet").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pyarrow is not installed" in gpu_suite.unusable(str(tmp_path))


def test_the_commands_of_the_suite_are_understood(tmp_path: Path) -> None:
    for scale in (gpu_suite.FULL, gpu_suite.SMOKE):
        for flags in (scale.training, scale.policy):
            given = bench_training.parse([*flags.split(), "--json"])
            given.device = "cpu"
            bench_training.bench_from(given)
    made = gpu_suite.PARTS["search"](gpu_suite.FULL, "lost", tmp_path, 300.0)
    done = gpu_suite.run_part(made, tmp_path, tmp_path / "log")
    # nothing but the data is refused
    assert "exit code 2: nas: no data 'lost'" in done.reason


def training(ceiling: float, timm: float) -> suite_report.Done:
    rows = [
        {"of": ["ours", other], "medians": value, "rounds": [value]}
        for other, value in (("ceiling", ceiling), ("timm", timm))
    ]
    line = {
        "machine": "a machine",
        "load": 0.1,
        "settings": {"imgsz": 224, "clock": "wall"},
        "notes": [],
        "images_per_second": {"ours": [3.0, 1.0, 2.0]},
        "ratios": rows,
    }
    return suite_report.Done("training", 1.0, "", [line])


def search(trained: int) -> suite_report.Done:
    line = {"tried": trained, "states": {"done": trained}, "at_once": 4}
    return suite_report.Done("search", 200.0, "", [line])


def test_goals_are_judged_by_what_was_measured() -> None:
    done = [training(0.93, 1.1), search(60)]
    report = suite_report.conclude(done, "CIFAR-10", 60, 500.0, smoke=False)
    assert [goal["met"] for goal in report["goals"]] == [True, False, None, None, True]
    text = suite_report.markdown(report)
    assert "at least 1.3 (no policy): 1.100: NOT met" in text
    assert "at least 0.9 (the recipe's policy): not measured: unknown" in text
    assert "| ours | 2.0 | 1.5–2.5 | 3 |" in text and "| 60 | 60 | 0 | 0 | 0 | 0 | 4 |" in text
    late = suite_report.conclude([search(60)], "CIFAR-10", 60, 541.0, smoke=False)
    few = suite_report.conclude([search(59)], "CIFAR-10", 60, 500.0, smoke=False)
    assert not late["goals"][-1]["met"] and not few["goals"][-1]["met"]


def test_the_suite_goes_on_after_a_failure_and_keeps_what_it_has(tmp_path: Path) -> None:
    def fake(name: str, code: str) -> gpu_suite.Maker:
        return lambda scale, data, place, left: part(code, left, name)

    row = json.dumps(training(0.95, 1.4).lines[0])
    parts = {
        "training": fake("training", f"print({row!r})"),
        "memory": fake("memory", "raise SystemExit('CUDA error: out of luck')"),
        "search": fake("search", "print('{}')"),
    }
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(gpu_suite, "PARTS", parts)
        names = ",".join(parts)
        assert gpu_suite.main(["--smoke", "--out", str(out), "--parts", names]) == 1
    report = json.loads((out / "suite.json").read_text())
    assert [p["name"] for p in report["parts"]] == list(parts)
    assert report["parts"][1]["reason"] == "exit code 1: CUDA error: out of luck"
    assert report["goals"][0]["met"] and report["smoke"]
    assert "CUDA error: out of luck" in (out / "suite.md").read_text()


def test_the_suite_needs_nothing_but_python_to_start(tmp_path: Path) -> None:
    """What is missing on a machine is told by the part that needs it."""
    command = [sys.executable, "-S", str(SCRIPTS / "gpu_suite.py"), "--parts", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2
    known = "training, memory, policy, family, pretrained, search"
    assert f"--parts takes some of {known}, not tests" in done.stderr
