"""A made-up landscape over any arch: a stand-in that needs no data, for trying out and for tests.

Its "accuracy" says nothing about any network. It grows with log FLOPs and log params, saturates,
and has a fixed seeded preference for each kind of block at each depth, so that controllers have
something to find. With `epochs` it also pretends to train: its curves rise, at their own paces.
"""

from __future__ import annotations

import hashlib
import math
import random

from nas.interfaces import TRAINING_FLOPS, Metrics
from nas.models.arch import Arch, Block
from nas.models.cost import count

IMAGES = 1000  # of an epoch, for the cost of what is not trained


def make(*, landscape: int = 0, noise: float = 0.0, epochs: int = 0) -> Synthetic:
    """Return the stand-in evaluator.

    landscape: number of the landscape. noise: standard deviation of one evaluation in points,
    drawn from the task's seed and the arch. epochs: of a training that is made up, 0: none.
    """
    return Synthetic(landscape, noise, epochs)


class Synthetic:
    """Evaluator that computes a made-up accuracy, without data and without training."""

    title = "synthetic: a made-up landscape for trying out; its accuracy means nothing"

    def __init__(self, landscape: int, noise: float, epochs: int) -> None:
        self._landscape, self._noise = landscape, noise
        self.rungs = tuple(range(1, epochs + 1))

    def check(self, arch: Arch) -> None:
        """Accept every arch."""

    def evaluate(self, arch: Arch, *, seed: int = 0) -> Metrics:
        cost = count(arch)
        size = 0.7 * math.log(cost.flops) + 0.3 * math.log(cost.params)
        blocks = arch.blocks()
        taste = sum(self._taste(i / len(blocks), block) for i, block in enumerate(blocks))
        accuracy = 90 * (1 - math.exp(-size / 12)) + 4 * taste / len(blocks)
        noise = random.Random(f"{seed}:{arch.id}").gauss(0, self._noise) if self._noise else 0.0
        return {"accuracy": accuracy + noise, "accuracy_std": self._noise}

    def train(self, arch: Arch, *, seed: int, epochs: int, folder: str) -> Metrics:
        """Return what the training would show after some epochs: at first up to half the end's."""
        found = self.evaluate(arch, seed=seed)
        pace = 1 + 3 * random.Random(arch.id).random()
        share = 1 - 0.5 * math.exp(-pace * epochs / self.rungs[-1]) * (epochs < self.rungs[-1])
        spent = 3.0 * count(arch).flops * IMAGES * epochs
        return {**found, "accuracy": found["accuracy"] * share, TRAINING_FLOPS: spent}

    def _taste(self, depth: float, block: Block) -> float:
        """Return a fixed preference in -1..1 for a kind of block in one quarter of the depth."""
        kind = (block.op, block.kernel, block.expansion, bool(block.se), block.skip, int(4 * depth))
        text = repr((self._landscape, kind)).encode()
        digest = hashlib.blake2b(text, digest_size=4).digest()
        return 2 * int.from_bytes(digest, "big") / 2**32 - 1
