"""Export every member of a family to ONNX at its own resolution and compare it with the network.

Each member is a process of its own: its peak resident memory holds torch, the export, onnxruntime
and one image through both. Nothing is downloaded: weights are fresh, but with the statistics of two
random images in batch norm. Without them the signal fades from layer to layer, and the logits that
are compared would be near 0. A member that fails is a line with its reason, and the exit code 1.

    python scripts/export_family.py --phi 1..7
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lib import flags
from lib.processes import alone
from lib.tables import line, markdown

import nas
from nas.core import registry
from nas.core.units import format_bytes, format_count
from nas.exporting.request import ExportRequest, make_facts
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.load import load_arch
from nas.training.checkpoint import write_weights

COLUMNS = (
    *("member", "pixels", "params", "multiply-adds", "differs by", "of", "allowed", "file"),
    *("export and comparison", "peak memory"),
)


@flags.in_one_line
def main(words: Sequence[str] | None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("base", nargs="?", default="efficientnet_b0")
    parser.add_argument("--phi", default="1..7")
    parser.add_argument("--rule", default="released")
    parser.add_argument("--format", default="onnx")
    parser.add_argument("--imgsz", type=int, help="another size for all, to try the script")
    parser.add_argument("--member", help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    if chosen.member:
        print(json.dumps(exported(Path(chosen.member), chosen.format, chosen.imgsz)))
        return 0
    registry.load("exporters", chosen.format)
    with tempfile.TemporaryDirectory() as place:
        family = nas.scale(chosen.base, phi=chosen.phi, rule=chosen.rule, project=place)
        print(markdown(COLUMNS))
        return table(Path(family["run"]), family["members"], chosen)


def table(home: Path, members: Sequence[Mapping[str, Any]], chosen: argparse.Namespace) -> int:
    """Print a line for each member as it is done; return 1 if one failed."""
    failed = 0
    for member in members:
        words = ["--member", str(home / member["name"]), "--format", chosen.format]
        words += ["--imgsz", str(chosen.imgsz)] if chosen.imgsz else []
        found = alone(__file__, words)
        cells = [member["name"], *cells_of(found)]
        failed |= "reason" in found
        print(line(cells), flush=True)
    return int(failed)


def exported(folder: Path, format: str, imgsz: int | None) -> dict[str, Any]:
    """Export the member of a folder, dynamic in the batch, compared on one image."""
    torch.set_num_threads(1)
    ready = folder / "ready"
    settle(load_arch(folder), imgsz, ready)
    found = nas.export(ready, format=format, batches=(1,), project=folder / "exported")
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def settle(arch: Arch, imgsz: int | None, folder: Path) -> None:
    """Leave a network as a trained one lies, with batch norm's statistics of random images."""
    arch = dataclasses.replace(arch, resolution=imgsz or arch.resolution)
    torch.manual_seed(0)
    model = Model(arch).eval()
    facts = make_facts(arch, None)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    images = ExportRequest(arch, model, facts).images(2, seed=1)
    with torch.no_grad():
        model(images)
    write_weights(folder / "model.safetensors", model.state_dict())
    keys = ("classes", "input_size", "mean", "std", "crop_pct", "interpolation")
    config = {"schema": 1, "arch": arch.to_dict(), **{key: facts[key] for key in keys}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def cells_of(found: dict[str, Any]) -> list[str]:
    """Return what a line of the table tells of a member's export."""
    if "reason" in found:
        return [found["reason"].replace("|", "/"), *[""] * (len(COLUMNS) - 2)]
    largest = found["comparison"][0]["largest"]
    return [
        str(found["imgsz"]),
        format_count(found["params"]),
        format_count(found["multiply_adds"]),
        f"{found['max_difference']:.1e}",
        f"{largest:.3g}",
        f"{found['tolerance'] * largest:.1e}",
        format_bytes(found["bytes"]),
        f"{found['seconds']:.0f} s",
        format_bytes(found["peak"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
