"""What bad inputs are tried on: a folder of images, an arch, and runs of each verb, made once."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

SPACE = """
from nas.models.arch import Arch, Head, Stage, Stem
from nas.interfaces import Space

def decode(choices):
    stages = (Stage("conv", choices["channels"], choices["layers"], 3, stride=2),)
    return Arch("small", stages, Stem(8), Head(16, classes=2), resolution=32)

SPACE = Space("small", {"channels": (8, 16, 24), "layers": (1, 2)}, decode)
"""
ARCH = {
    "schema": 1,
    "name": "tiny",
    "stages": [{"op": "conv", "channels": 8, "stride": 2}],
    "stem": {"channels": 8},
    "head": {"channels": 16, "classes": 2},
    "resolution": 32,
}
LINES = {
    "train": "train tiny.json --data images --epochs 1 --recipe proxy --batch-size 4 --tracker none"
    " --name r -q",
    "search": "search --space space.py --evaluator synthetic --trials 4 --name s -q",
    "scale": "scale tiny.json --phi 1..2 --name f -q",
}


def write_images(folder: Path, classes: tuple[str, ...] = ("ant", "bee"), count: int = 12) -> None:
    """Write PNGs of 32 pixels, noise of another colour for each class."""
    from PIL import Image

    rng = random.Random(0)
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            level = 40 + 160 * place // len(classes)
            pixels = bytes(level + rng.randrange(40) for _ in range(32 * 32 * 3))
            Image.frombytes("RGB", (32, 32), pixels).save(folder / name / f"{number}.png")


def make_world(folder: Path, call: Callable[[str], int]) -> None:
    """Write everything into a folder, `call` runs `nas` there."""
    write_images(folder / "images")
    (folder / "tiny.json").write_text(json.dumps(ARCH), encoding="utf-8")
    (folder / "space.py").write_text(SPACE, encoding="utf-8")
    for line in LINES.values():
        assert call(line) == 0, line


PLACES = {
    "images": "images",
    "arch": "tiny.json",
    "space": "space.py",
    "train": "runs/train/r",
    "search": "runs/search/s",
    "scale": "runs/scale/f",
}


def copy(world: Path, names: tuple[str, ...], folder: Path) -> None:
    """Copy parts of the world into an empty folder."""
    for name in names:
        source, target = world / PLACES[name], folder / PLACES[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
