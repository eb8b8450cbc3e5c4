"""Export a trained run in every format, and run each file where nas is not installed.

For each format a fresh virtual environment gets nothing but what docs/export.md says is needed to
use the file; batches of 1, 2 and 5 random images go in as .npz and the logits come out. A format
whose packages are at hand in another interpreter can be run by that one.

    python scripts/export_parity.py runs/train/train --interpreter timm=/path/to/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import torch

from nas.exporting import Subject, make_facts
from nas.training.trained import load_trained
from nas.units import format_bytes

BATCHES = (1, 2, 5)
TORCH = ["torch", "numpy"]
# what is installed; how the file is opened as `answer`
FORMATS = {
    "onnx": (
        ["onnxruntime"],
        "import onnxruntime\n"
        "ready = onnxruntime.InferenceSession(path)\n"
        "answer = lambda x: ready.run(None, {'images': x})[0]",
    ),
    "pt2": (TORCH, "model = torch.export.load(path).module()"),
    "standalone": (
        [*TORCH, "safetensors"],
        "sys.path.insert(0, path)\nfrom model import load\nmodel = load()",
    ),
    "timm": (
        [*TORCH, "torchvision", "timm"],
        "import os, timm\n"
        "sys.path.insert(0, path)\n"
        "if os.path.exists(path + '/nas_effnet.py'):\n"
        "    import nas_effnet\n"
        "model = timm.create_model('local-dir:' + path, pretrained=True).eval()",
    ),
}
PROGRAM = """
import importlib.util, sys
assert not importlib.util.find_spec("nas"), "nas is installed here"
import numpy
path, given, found = sys.argv[1:]
{torch}
{opened}
batches = numpy.load(given)
numpy.savez(found, **{{name: answer(batches[name]) for name in batches}})
"""
WITH_TORCH = """
import torch
torch.set_grad_enabled(False)
answer = lambda x: model(torch.from_numpy(x)).numpy()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--format", action="append", choices=list(FORMATS))
    parser.add_argument("--interpreter", action="append", default=[], metavar="FORMAT=PYTHON")
    chosen = parser.parse_args()
    interpreters = dict(text.split("=", 1) for text in chosen.interpreter)
    model, config = load_trained(chosen.run)
    subject = Subject(model.arch, model, make_facts(model.arch, config))
    images = {str(n): subject.images(n, seed=n) for n in BATCHES}
    wanted = {name: subject.answer(x)[0].numpy() for name, x in images.items()}
    print("| format | environment | file | largest logit | differs by, batch 1 / 2 / 5 | class |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        given = Path(place, "given.npz")
        np.savez(given, **{name: x.numpy() for name, x in images.items()})
        for format in chosen.format or FORMATS:
            folder = Path(place, format)
            result = exported(chosen.run, format, folder)
            python = interpreters.get(format) or fresh(folder / "venv", FORMATS[format][0])
            where = "that of --interpreter" if format in interpreters else "fresh"
            found = answers(python, format, result["output"], given)
            print(row(format, where, result["bytes"], wanted, found), flush=True)


def exported(run: str, format: str, folder: Path) -> dict[str, object]:
    """Export by the command line."""
    words = ["export", run, "--format", format, "--project", str(folder), "--json"]
    command = [sys.executable, "-m", "nas", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def fresh(folder: Path, packages: list[str]) -> str:
    """Return the interpreter of a new virtual environment with these packages."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin/python")
    # of the same torch as here: another build would be fetched for it
    named = [f"torch=={torch.__version__}" if name == "torch" else name for name in packages]
    subprocess.run([python, "-m", "pip", "install", "-q", *named], check=True)
    return python


def answers(python: str, format: str, path: object, given: Path) -> dict[str, np.ndarray]:
    """Return what the file answers in another interpreter, isolated from this folder."""
    opened, found = FORMATS[format][1], given.with_name(f"{format}.npz")
    text = PROGRAM.format(torch="" if format == "onnx" else WITH_TORCH, opened=opened)
    subprocess.run([python, "-I", "-c", text, str(path), given, found], check=True, cwd="/")
    with np.load(found) as file:
        return dict(file)


def row(
    format: str,
    where: str,
    size: object,
    wanted: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
) -> str:
    """Return one line of the table."""
    assert isinstance(size, int)
    apart = [f"{np.abs(found[name] - wanted[name]).max():.1e}" for name in wanted]
    same = sum(int((found[n].argmax(1) == wanted[n].argmax(1)).sum()) for n in wanted)
    largest = max(float(np.abs(value).max()) for value in wanted.values())
    cells = (format, where, format_bytes(size), f"{largest:.3g}", " / ".join(apart))
    return f"| {' | '.join(cells)} | {same} of {sum(BATCHES)} |"


if __name__ == "__main__":
    main()
