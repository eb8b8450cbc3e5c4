"""ONNX: one file for onnxruntime, TensorRT, OpenVINO and others (opset 20, float32).

Written by torch's own exporter (`dynamo=True`) and run in onnxruntime on the CPU. The metadata of
the file holds the classes, the input size, mean and std, the multiply-adds and the version.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nas.core.errors import OptionError
from nas.core.units import format_bytes
from nas.exporting.request import ExportRequest
from nas.models.cost import FLOAT_BYTES, count
from nas.models.onnx_graph import MOST_BYTES, graph, need, session

FILE = "model.onnx"
# of the graph itself, beside the weights
_ROOM = 50_000_000


def check(request: ExportRequest) -> None:
    """Refuse what cannot be written.

    Raises:
        MissingError: onnx, onnxscript or onnxruntime is not installed.
        OptionError: the weights are too large for one ONNX file.
    """
    need("--format onnx")
    cost = count(request.arch)
    size = FLOAT_BYTES * (cost.params + cost.buffers)
    if size > MOST_BYTES - _ROOM:
        raise OptionError(
            f"one ONNX file holds up to 2 GiB, and these weights take {format_bytes(size)}: "
            "export with --format pt2"
        )


def write(request: ExportRequest, path: Path) -> None:
    """Write the file."""
    # two images: a batch of one would be taken for a constant
    images = request.images(request.batch or 2)
    facts = {key: _text(value) for key, value in request.facts.items()}
    any_batch = not request.batch
    data = graph(request.module, images, any_batch=any_batch, outputs=request.outputs, facts=facts)
    path.write_bytes(data)


def run(path: Path, batches: Sequence[Tensor], request: ExportRequest) -> list[list[Tensor]]:
    """Return what onnxruntime answers."""
    ready = session(str(path), torch.get_num_threads())
    return [
        [torch.from_numpy(value) for value in ready.run(None, {"images": images.numpy()})]
        for images in batches
    ]


def hint(path: Path, request: ExportRequest) -> list[str]:
    """Return the lines that use the file from Python."""
    return [
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({str(path)!r})",
        'outputs = session.run(None, {"images": images})',
    ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
