"""What all formats of an export share: what is exported, and how the file's answer is had."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas import __version__
from nas.core.errors import NasError, OptionError
from nas.models.arch import Arch
from nas.models.build import Model, features_of
from nas.models.cost import count
from nas.models.modules import Normalise
from nas.training.checkpoint import read_weights, write_weights
from nas.training.diagnosis import FIELD

SCHEMA = 1
# ImageNet's, for weights that no images have been seen by (as timm's default)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ExportRequest:
    """What an exported file must do: `module` in evaluation mode, on batches of images.

    Images are (N, C, S, S): normalised float32, or with `preprocessing` uint8 RGB. The answer is
    logits (N, classes), or with `features_only` a list of maps. `batch`: N, or 0 for any number.
    `facts` is plain JSON: what is needed to use the file.
    """

    arch: Arch
    model: Model
    facts: dict[str, Any]
    batch: int = 0
    preprocessing: bool = False
    features_only: bool = False

    @functools.cached_property
    def module(self) -> nn.Module:
        """Return what is exported: the network, its maps, with the preprocessing if wanted."""
        module: nn.Module = features_of(self.model) if self.features_only else self.model
        if self.preprocessing:
            module = nn.Sequential(Normalise(self.facts["mean"], self.facts["std"]), module)
        return module.eval()

    @property
    def outputs(self) -> list[str]:
        """Return the names of what comes out: logits, or a map of each stride."""
        if not self.features_only:
            return ["logits"]
        return [f"map{info['reduction']}" for info in self.model.feature_info]

    def images(self, number: int, seed: int = 0) -> Tensor:
        """Return random images as the file takes them: noise on patches of colour."""
        generator = torch.Generator().manual_seed(seed)
        channels, side = self.arch.in_channels, self.arch.resolution
        coarse = torch.rand(number, channels, 4, 4, generator=generator)
        fine = torch.rand(number, channels, side, side, generator=generator)
        pixels = (nn.functional.interpolate(coarse, side) * 192 + fine * 63).to(torch.uint8)
        if self.preprocessing:
            return pixels
        normalised: Tensor = Normalise(self.facts["mean"], self.facts["std"])(pixels)
        return normalised

    @torch.inference_mode()
    def answer(self, images: Tensor) -> list[Tensor]:
        """Return what the network itself says: [logits], or the maps."""
        return listed(self.module(images))


def make_facts(arch: Arch, config: dict[str, Any] | None) -> dict[str, Any]:
    """Return what an exported file tells of itself; `config` is a trained model's config.json."""
    cost, known = count(arch), config or {}
    plain = (MEAN, STD) if arch.in_channels == 3 else ([0.5] * arch.in_channels,) * 2
    return {
        "schema": SCHEMA,
        "nas": __version__,
        "arch": arch.name,
        "arch_id": arch.id,
        "trained": config is not None,
        "classes": list(known.get("classes", [])),
        "input_size": [arch.in_channels, arch.resolution, arch.resolution],
        "mean": list(known.get("mean", plain[0])),
        "std": list(known.get("std", plain[1])),
        "crop_pct": known.get("crop_pct", 1.0),
        "interpolation": known.get("interpolation", "bilinear"),
        **({"decoding": known["decoding"]} if known.get("decoding") else {}),
        "params": cost.params,
        "multiply_adds": cost.flops,
        **({FIELD: known[FIELD]} if known.get(FIELD) else {}),
    }


def listed(answer: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return an answer as a list, whether it is logits or maps."""
    return [answer] if isinstance(answer, Tensor) else list(answer)


def harmless(name: str) -> str:
    """Return a name that can stand in a docstring or a heading: it may come from a stranger."""
    return re.sub(r"[^\w .,:+()-]", "_", name)


def refuse(what: str, request: ExportRequest, **wanted: str) -> None:
    """Refuse options that a format does not have; `wanted` names each with the way out.

    Raises:
        OptionError: one of them is set.
    """
    for option, advice in wanted.items():
        if getattr(request, option):
            flag = option.replace("_", "-").replace("batch", "batch-size")
            raise OptionError(f"--format {what} does not take --{flag}: {advice}")


# nas cannot be imported in there, wherever it is installed, nor can what imports it
_ALONE = """
import sys
sys.dont_write_bytecode = True  # the folder is handed over as it was written
sys.modules["nas"] = None
folder, inputs, outputs, *packages = sys.argv[1:]
sys.path.insert(0, folder)
sys.path += packages
import torch
from safetensors.torch import load_file, save_file
torch.set_num_threads({threads})
{program}
found = {{}}
with torch.inference_mode():
    for name, images in load_file(inputs).items():
        answer = model(images)
        answer = [answer] if isinstance(answer, torch.Tensor) else answer
        found |= {{f"{{name}}.{{i}}": value.contiguous() for i, value in enumerate(answer)}}
save_file(found, outputs)
"""


def answers_apart(folder: Path, program: str, batches: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return what `model`, made by lines of Python, answers in a fresh interpreter without nas.

    The interpreter is isolated (`python -I`), imports of nas fail in it, and `folder` is the first
    place that it imports from; the last are those that torch and timm are imported from here.

    Raises:
        NasError: it fails; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as place:
        inputs, outputs = Path(place, "in.safetensors"), Path(place, "out.safetensors")
        write_weights(inputs, {str(i): batch.contiguous() for i, batch in enumerate(batches)})
        text = _ALONE.format(threads=torch.get_num_threads(), program=program)
        words = [sys.executable, "-I", "-c", text, str(folder.resolve()), str(inputs), str(outputs)]
        words += _package_folders()
        done = subprocess.run(words, capture_output=True, text=True, cwd=place)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise NasError(f"{folder} does not run in a fresh interpreter: {last}")
        found = read_weights(outputs)
    answers: list[list[Tensor]] = []
    for i in range(len(batches)):
        names = [name for name in found if name.startswith(f"{i}.")]
        answers.append([found[f"{i}.{k}"] for k in range(len(names))])
    return answers


def _package_folders() -> list[str]:
    """Return where this process imports packages from: -I leaves out PYTHONPATH and user sites."""
    specs = map(find_spec, ("torch", "numpy", "safetensors", "torchvision", "timm"))
    homes = (Path(spec.origin).parents[1] for spec in specs if spec and spec.origin)
    return list(dict.fromkeys(str(home.resolve()) for home in homes))
