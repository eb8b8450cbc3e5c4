"""Compare the memory estimate of `cost.count` with what the built model really allocates, on CPU.

Every storage that torch allocates is followed until it is freed; the peak of inference on one image
and the growth of the training peak per image stand beside the estimate.

    python scripts/bench_memory.py
"""

from __future__ import annotations

import argparse
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.cost import FLOAT_BYTES, count
from nas.load import load_arch
from nas.model import Model, build_model

NETS = (
    "efficientnet_b0,efficientnet_b2,efficientnet_v2_b0,mnasnet_a1,mobilenet_v2,"
    "mobilenet_v3_large,resnet18,resnet50"
)


class Peak(TorchDispatchMode):
    """Follows the bytes of every storage made inside; `most` is the most alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, int] = {}
        self._now = self.most = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if size and key not in self._alive:
            self._alive[key] = size
            self._now += size
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._now -= self._alive.pop(key, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archs", default=NETS)
    print("| arch | inference, MiB | estimate | training, MiB an image | estimate |")
    print("|---|---|---|---|---|")
    for name in parser.parse_args().archs.split(","):
        print(row(name), flush=True)


def row(name: str) -> str:
    """Return one line: measured and estimated, with the estimate's error."""
    arch = load_arch(name)
    found, model = count(arch), build_model(arch)
    assert isinstance(model, Model)
    shape = (arch.in_channels, arch.resolution, arch.resolution)
    weights = FLOAT_BYTES * (found.params + found.buffers)
    inference = weights + inference_peak(model, shape)
    training = (training_peak(model, 8, shape) - training_peak(model, 4, shape)) / 4
    pairs = ((inference, found.inference_bytes), (training, found.training_bytes_per_image))
    cells = [f"{real / 2**20:.1f} | {guess / real - 1:+.1%}" for real, guess in pairs]
    return f"| {name} | {cells[0]} | {cells[1]} |"


def inference_peak(model: Model, shape: tuple[int, ...]) -> int:
    image = torch.randn(1, *shape)
    with torch.inference_mode(), Peak() as peak:
        model.eval()(image)
    return peak.most + image.nbytes


def training_peak(model: Model, batch: int, shape: tuple[int, ...]) -> int:
    images = torch.randn(batch, *shape)
    model.zero_grad(set_to_none=True)
    with Peak() as peak:
        model.train()(images).sum().backward()
    return peak.most + images.nbytes


if __name__ == "__main__":
    main()
