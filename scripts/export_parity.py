"""Export a trained run in every format, and run each file where nas is not installed.

For each format a fresh virtual environment gets nothing but what docs/export.md says is needed to
use the file; batches of 1, 2 and 5 random images go in as .npz and the logits come out. A format
whose packages are at hand in another interpreter can be run by that one. A format that fails is a
line with its reason; with one, or with logits farther apart than the export allows, the exit code
is 1.

    python scripts/export_parity.py runs/train/train --interpreter timm=/path/to/python

With `--libraries` instead of a run: for every net of timm and torchvision that is a baseline, how
far our logits are from theirs with random weights of theirs, and theirs from ours with weights of
ours; the exit code is 1 where one differs by more than 1e-5 of the largest logit. `--net` takes
some of them.

    python scripts/export_parity.py --libraries --net tf_efficientnet_b0
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib import flags
from lib.library_nets import library_nets, parity
from lib.tables import markdown

from nas.core.errors import OptionError, did_you_mean
from nas.core.units import format_bytes
from nas.exporting.request import ExportRequest, make_facts
from nas.training.trained import load_finite

BATCHES = (1, 2, 5)
SAME = 1e-5  # of the largest logit
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


@flags.in_one_line
def main(words: Sequence[str] | None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--libraries", action="store_true")
    parser.add_argument("--net", action="append", default=[], metavar="NAME")
    parser.add_argument("--format", action="append", choices=list(FORMATS))
    parser.add_argument("--interpreter", action="append", default=[], metavar="FORMAT=PYTHON")
    chosen = parser.parse_args(words)
    if chosen.libraries == bool(chosen.run):
        parser.error("give a run, or --libraries")
    if chosen.libraries:
        return libraries(chosen.net)
    interpreters = dict(map(pair, chosen.interpreter))
    model, config = load_finite(chosen.run)
    request = ExportRequest(model.arch, model, make_facts(model.arch, config))
    images = {str(n): request.images(n, seed=n) for n in BATCHES}
    wanted = {name: request.answer(x)[0].numpy() for name, x in images.items()}
    heads = ("environment", "file", "largest logit", "differs by, batch 1 / 2 / 5", "class")
    print(markdown(["format", *heads]))
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        given = Path(place, "given.npz")
        np.savez(given, **{name: x.numpy() for name, x in images.items()})
        for format in chosen.format or FORMATS:
            folder = Path(place, format)
            try:
                result = exported(chosen.run, format, folder)
                python = interpreters.get(format) or fresh(folder / "venv", FORMATS[format][0])
                where = "that of --interpreter" if format in interpreters else "fresh"
                found = answers(python, format, result["output"], given)
            except (subprocess.CalledProcessError, OSError) as error:
                print(f"| {format} | {reason(error)} | | | | |", flush=True)
                bad = 1
                continue
            print(row(format, where, result["bytes"], wanted, found), flush=True)
            bad |= not all(near(wanted[name], found[name], result) for name in wanted)
    return bad


def libraries(names: Sequence[str]) -> int:
    """Print how far the nets of timm and torchvision are from ours; 1 if one is too far.

    Raises:
        OptionError: a name is that of no such net.
    """
    nets = library_nets()
    known = {net.name for net in nets}
    for name in names:
        if name not in known:
            raise OptionError(f"{name} is no such net{did_you_mean(name, known)}")
    heads = ("net", "baseline", "padding", "epsilon", "theirs in ours", "ours in theirs")
    print(markdown(["library", *heads]))
    worst = 0.0
    for net in nets:
        if names and net.name not in names:
            continue
        arch, there, back = parity(net)
        cells = (*net, arch.padding, f"{arch.norm.eps:.0e}", f"{there:.1e}", f"{back:.1e}")
        print(f"| {' | '.join(cells)} |", flush=True)
        worst = max(worst, there, back)
    return int(not worst <= SAME)


def pair(text: str) -> tuple[str, str]:
    """Return a format and its interpreter.

    Raises:
        OptionError: it is not written as FORMAT=PYTHON, or there is no such file.
    """
    format, sign, python = text.partition("=")
    if format not in FORMATS or not sign or not Path(python).is_file():
        raise OptionError(f"--interpreter takes FORMAT=PYTHON, as timm=/path/to/python, not {text}")
    return format, python


def reason(error: subprocess.CalledProcessError | OSError) -> str:
    """Return the last line of what failed, fit for a cell."""
    said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return said[-1].removeprefix("nas: ").replace("|", "/")


def near(wanted: np.ndarray, found: np.ndarray, result: dict[str, Any]) -> bool:
    """Tell whether logits are as near as the export itself allowed; nan is not."""
    apart = float(np.abs(found - wanted).max())
    return apart <= result["tolerance"] * float(np.abs(wanted).max())


def exported(run: str, format: str, folder: Path) -> dict[str, Any]:
    """Export by the command line."""
    words = ["export", run, "--format", format, "--project", str(folder), "--json"]
    command = [sys.executable, "-m", "nas", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def fresh(folder: Path, packages: list[str]) -> str:
    """Return the interpreter of a new virtual environment with these packages."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin/python")
    # of the same torch as here: another build would be fetched for it
    named = [f"torch=={torch.__version__}" if name == "torch" else name for name in packages]
    command = [python, "-m", "pip", "install", "-q", *named]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return python


def answers(python: str, format: str, path: object, given: Path) -> dict[str, np.ndarray]:
    """Return what the file answers in another interpreter, isolated from this folder."""
    opened, found = FORMATS[format][1], given.with_name(f"{format}.npz")
    text = PROGRAM.format(torch="" if format == "onnx" else WITH_TORCH, opened=opened)
    command = [python, "-I", "-c", text, str(Path(str(path)).resolve()), given, found]
    subprocess.run(command, check=True, cwd="/", capture_output=True, text=True)
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
    sys.exit(main())
