"""What this machine offers: processors, memory, accelerators, disk, versions. All are facts."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from nas import __version__
from nas.core.errors import first_line
from nas.core.system import free_memory, processors
from nas.hardware.measurement import processor

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "optuna",
    "scikit-learn",
    "pyarrow",
    "safetensors",
    "onnxruntime",
    "matplotlib",
    "tensorboard",
)

COMPLAINT = 1000  # characters: it says what to install from where


def machine() -> dict[str, Any]:
    """Return processors, load, free memory in bytes, devices and versions, as JSON data.

    `complaint`: what torch says of its GPUs, or "". None stands for what the system does not tell.
    """
    devices, complaint = accelerators()
    free = free_memory()
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": processor(),
        "processors": processors(),
        "processor_quota": processor_quota(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_free": int(free) if math.isfinite(free) else None,
        "devices": devices,
        "cuda": _torch_cuda(),
        "complaint": complaint,
        "versions": {"nas": __version__, **{name: version(name) for name in PACKAGES}},
    }


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor_quota() -> float | None:
    """Return how many processors' time a container may use; None: no limit known."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    return None


def memory_from_here() -> int:
    """Return the bytes of main memory that this process holds, and start its peak anew there.

    0 where the system does not tell, as on all but Linux.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return 0


def peak_memory() -> int:
    """Return the most bytes that this process has held since then, on Linux; else 0."""
    return _status("VmHWM")


def _status(name: str) -> int:
    with contextlib.suppress(OSError, LookupError, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) * 1024
    return 0


def training_memory(accelerator: str) -> float:
    """Return the bytes that a training on auto, cpu, cuda or mps can have; infinite if unknown.

    Of a GPU all that it has, of main memory what is free.
    """
    if accelerator in ("auto", "cuda"):
        sizes = [d["memory"] for d in accelerators()[0] if d["device"].startswith("cuda")]
        if sizes:
            return float(min(sizes))
    return math.inf if accelerator == "mps" else free_memory()


def accelerators() -> tuple[list[dict[str, Any]], str]:
    """Return the GPUs that torch can use, and what it complains of, or ""."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = list(_gpus(torch))
        except Exception as error:  # drivers fail in many ways
            return [], first_line(error, COMPLAINT)
    return found, first_line(caught[0].message, COMPLAINT) if caught else ""


def _gpus(torch: Any) -> Iterator[dict[str, Any]]:
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(i)
            yield {"device": f"cuda:{i}", "name": facts.name, "memory": facts.total_memory}
    if torch.backends.mps.is_available():
        yield {"device": "mps", "name": "Apple GPU", "memory": None}


def _torch_cuda() -> str | None:
    """Return the CUDA version torch is built for, or None."""
    import torch

    return torch.version.cuda


def disk(folder: Path) -> dict[str, Any]:
    """Return free bytes where a folder lies or will lie, and whether it can be written to."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        free = 0
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return {"folder": str(folder), "free": free, "writable": writable}


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder."""
    total = 0
    for home, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(home, name)).st_size
    return total
