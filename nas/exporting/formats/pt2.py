"""torch.export: one file for PyTorch without nas, and the way to AOTInductor and ExecuTorch.

The file carries the graph and the weights; `torch.export.load` reads it. Torch may unpickle parts
of such a file, so load none that you do not trust.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nas.exporting.request import ExportRequest, listed

FILE = "model.pt2"
FACTS = "nas.json"


def check(request: ExportRequest) -> None:
    """Refuse nothing: torch is there, and exports every arch."""


def write(request: ExportRequest, path: Path) -> None:
    """Write the file; what is to be known of it lies in it as nas.json."""
    images = request.images(request.batch or 2)
    free = None if request.batch else ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(request.module, (images,), dynamic_shapes=free)
    # through memory, so that a full disk is an OSError and not torch's own
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS: json.dumps(request.facts)})
    path.write_bytes(buffer.getbuffer())


def run(path: Path, batches: Sequence[Tensor], request: ExportRequest) -> list[list[Tensor]]:
    """Return what the file answers after torch has loaded it again."""
    module = torch.export.load(path).module()
    with torch.inference_mode():
        return [listed(module(images)) for images in batches]


def hint(path: Path, request: ExportRequest) -> list[str]:
    """Return the lines that use the file from Python."""
    return ["import torch", f"model = torch.export.load({str(path)!r}).module()", "model(images)"]
