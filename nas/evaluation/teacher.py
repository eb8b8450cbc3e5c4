"""The teacher of the trainings that an evaluator runs: kept in a folder, which workers read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import OptionError

if TYPE_CHECKING:
    from nas.data.loader import Data
    from nas.training.teacher import Facts, Teacher


def check_teacher(source: str, classes: tuple[str, ...], kept: Path | None = None) -> None:
    """Check that a source names a teacher for images of these classes.

    Raises:
        OptionError: there is none, or it is a run of other classes.
        RunError: its files are damaged.
        MissingError: a package that has it is not installed.
    """
    from nas.training.find_teacher import check_classes, find_teacher

    check_classes(find_teacher(source, kept), classes)


def keep_teacher(
    folder: Path,
    source: str,
    at: Callable[[int], Data],
    side: int,
    *,
    pixels: int,
    device: str,
    say: Callable[[str], None],
) -> Facts:
    """Make the teacher of a source once and keep it in a folder; return what is known of it.

    `at`: the images at a number of pixels; `side`: that of the students. `pixels`: of the views of
    the teacher, 0: by their rule.

    Raises:
        OptionError: there is none, or its classes are others.
        NasError: it does not run on these images.
        RunError: the folder cannot be written, or what it holds is damaged.
    """
    from nas.training.find_teacher import find_teacher, make_teacher
    from nas.training.teacher import write_teacher

    found = find_teacher(source, folder)
    if found.facts:
        return found.facts
    mixed = device.startswith("cuda")
    made = make_teacher(found, at(side), at, pixels=pixels, device=device, mixed=mixed, say=say)
    write_teacher(folder, made)
    return made.facts


def kept_teacher(folder: Path, data: Data, at: Callable[[int], Data], device: str) -> Teacher:
    """Return the teacher that a folder keeps, for these images.

    Raises:
        OptionError: there is none: the search makes it.
        RunError: it is damaged.
    """
    from nas.training.find_teacher import make_teacher
    from nas.training.teacher import has_teacher, read_teacher

    if not has_teacher(folder):
        raise OptionError(f"teacher: {folder} keeps none; --teacher of a search makes it there")
    found = read_teacher(folder)
    return make_teacher(found, data, at, device=device, mixed=False, say=lambda text: None)
