"""ONNX: a module as one graph, and a session of onnxruntime that runs it."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.core.errors import MissingError, install

OPSET = 20
# protobuf's limit for one file
MOST_BYTES = 2**31 - 1


def need(what: str) -> None:
    """Import what is needed to write and to run ONNX.

    Raises:
        MissingError: a package is not installed; `what` begins the message.
    """
    _disable_telemetry()
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingError(
            f"{what} needs a package that cannot be imported ({error}): {install('onnx')}"
        ) from error


def _disable_telemetry() -> None:
    """Keep onnxruntime from looking up its maker's host, as it would when it is imported.

    ORT_DISABLE_TELEMETRY=0 in the environment leaves it as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def graph(
    module: nn.Module,
    images: Tensor,
    *,
    any_batch: bool = False,
    outputs: Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> bytes:
    """Return the ONNX file of a module for batches shaped like `images`.

    With `any_batch` the number of images stays free. `facts` become the file's metadata.
    """
    free = ({0: torch.export.Dim("batch")},) if any_batch else None
    with _silence():
        program = torch.onnx.export(
            module,
            (images,),
            input_names=["images"],
            output_names=outputs,
            dynamic_shapes=free,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program
    proto = program.model_proto
    for key, value in (facts or {}).items():
        proto.metadata_props.add(key=key, value=value)
    data: bytes = proto.SerializeToString()
    return data


def session(source: bytes | str, threads: int) -> Any:
    """Return onnxruntime on the CPU, ready to run an ONNX file or its bytes."""
    _disable_telemetry()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter from reporting what it does, and what it misses (torchvision)."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
