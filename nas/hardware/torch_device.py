"""Which torch device a name means on this machine."""

from __future__ import annotations

import warnings

import torch

from nas.core.errors import OptionError

KNOWN = "auto, cpu, cuda, cuda:1 or mps"


def torch_device(asked: str) -> str:
    """Return the torch device of auto, cpu, cuda, cuda:N or mps; auto takes a GPU if there is one.

    Raises:
        OptionError: there is no such device here.
    """
    kind, colon, number = asked.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and kind != "cuda"):
        raise OptionError(f"--device takes {KNOWN}, not {asked!r}")
    if kind == "auto":
        return "cuda" if _gpus() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise OptionError("--device mps: torch sees no Apple GPU here; use --device cpu")
    if kind == "cuda":
        _check_gpu(asked, number if colon else "0")
    return asked


def _check_gpu(asked: str, number: str) -> None:
    gpus = _gpus()
    if not gpus:
        raise OptionError(
            f"--device {asked}: torch {torch.__version__} sees no CUDA device here (`nas doctor` "
            "tells more); use --device cpu"
        )
    if not number.isdecimal() or int(number) >= gpus:
        raise OptionError(f"--device {asked}: there are {gpus} CUDA devices, cuda:0 is the first")


def _gpus() -> int:
    with warnings.catch_warnings():  # a CUDA build without a driver warns; `nas doctor` says it
        warnings.simplefilter("ignore")
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
