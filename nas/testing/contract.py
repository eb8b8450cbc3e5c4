"""What all contracts share: which part is tested, and how it is made."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from nas.core import registry
from nas.interfaces import Choices, Space
from nas.models.arch import Arch, Head, Stage, Stem
from nas.searching.samplers import random_choices

# of 32 pixels, built and run in a moment
SMALL = Arch(
    "small",
    (Stage("mbconv", 16, 2, stride=2, expansion=3, se=0.25), Stage("conv", 24, stride=2)),
    Stem(8),
    Head(32, classes=10),
    resolution=32,
)
_TRIES = 100  # for a point that the space calls valid


class Contract:
    """Tests of one part.

    `part`: the name of a shipped part, or the path of your file, beside the test or in the
    working directory. `options`: what its `make` is given.
    """

    room: ClassVar[str]
    part: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def named(cls) -> str:
        """Return the part as the command line takes it."""
        return located(cls, cls.part)

    def make(self, *given: Any, **more: Any) -> Any:
        """Return the part that its `make` gives with `options`."""
        return registry.make(self.room, self.named(), *given, options={**self.options, **more})


Kind = TypeVar("Kind", bound=Contract)


def located(test: type, part: str) -> str:
    """Return the name of a shipped part as it is, and a file's full path."""
    if not part.endswith(".py"):
        return part
    beside = Path(inspect.getfile(test)).parent / part
    return str((beside if beside.exists() else Path(part)).resolve())


def each(
    contract: type[Kind], parts: Iterable[str], **settings: Mapping[str, Any]
) -> dict[str, type[Kind]]:
    """Return a class of tests for each part, by name; `settings` has what those of a part set.

    In a module of tests: `globals().update(each(SpaceContract, ("mbconv", "mnasnet")))`.
    """
    module = inspect.stack()[1].frame.f_globals["__name__"]
    prefix = f"Test{contract.__name__.removesuffix('Contract')}"
    return {
        f"{prefix}_{name}": type(
            f"{prefix}_{name}",
            (contract,),
            {"__module__": module, "part": part, **settings.get(name, {})},
        )
        for part in parts
        for name in [Path(part).stem]
    }


def space_of(test: type, name: str) -> Space:
    """Return a space by its name or file."""
    space: Space = registry.export("spaces", located(test, name), "SPACE")
    return space


def draw(space: Space, count: int, seed: int = 0) -> list[Choices]:
    """Return random points that are networks."""
    rng = random.Random(seed)
    return [_valid(space, rng) for _ in range(count)]


def _valid(space: Space, rng: random.Random) -> Choices:
    for _ in range(_TRIES):
        point = random_choices(space, rng)
        if space.valid is None or space.valid(point):
            return point
    raise AssertionError(f"none of {_TRIES} random points of {space.name} is valid")
