"""Find an arch: a baseline by name, a file, a run by path or name, or plain data; and build it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core import registry, run_folder
from nas.core.checksums import without_checksum
from nas.core.errors import ArchError, OptionError, did_you_mean
from nas.models import cost
from nas.models.arch import Arch
from nas.models.published import Published

if TYPE_CHECKING:  # the command line lists and counts without torch
    from nas.models.build import Features, Model

Source = str | Path | Arch | Mapping[str, Any]


@cache
def baselines() -> dict[str, Arch]:
    """Return the archs of every file of the folder baselines, by name."""
    files = (registry.export("baselines", name, "ARCHS") for name in registry.names("baselines"))
    return {name: arch for archs in files for name, arch in archs.items()}


@cache
def published() -> dict[str, Published]:
    """Return the published figures of the baselines, by name."""
    files = (
        registry.export("baselines", name, "PUBLISHED") for name in registry.names("baselines")
    )
    return {name: figures for table in files for name, figures in table.items()}


def load_arch(source: Source) -> Arch:
    """Return the arch of a baseline's name, an arch.json, a run, or `Arch.to_dict` data.

    A search run gives its best arch, a training its own, a family member's folder its own. A run
    is given by its folder, or by its name where it lies under `runs` in the working directory.

    Raises:
        OptionError: there is no such baseline, file or run, or two runs of that name.
        ArchError: the file is no arch, or of another schema.
        RunError: the file cannot be read, or is damaged.
    """
    if isinstance(source, Arch):
        return source
    if isinstance(source, Mapping):
        return Arch.from_dict(source)
    if not isinstance(source, str | Path):
        raise OptionError(f"an arch is given by name, path, Arch or data, not {source!r:.80}")
    if str(source) in baselines():
        return baselines()[str(source)]
    path = run_folder.find(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    if is_folder:
        path = _in_folder(path)
    elif not is_file and path.exists():
        raise OptionError(f"{path} is a pipe or a device: give the file of an arch")
    elif not is_file:
        raise OptionError(
            f"no baseline, file or run {str(source)!r}{did_you_mean(str(source), baselines())}; "
            "`nas ls baselines` and `nas ls runs` list what there is"
        )
    return _read(path)


def build_model(
    source: Source,
    *,
    classes: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
) -> Model | Features:
    """Return the module of what `load_arch` takes, with fresh weights.

    Images (N, 3, H, W) in, logits (N, classes) out; `classes` replaces the arch's own. With
    `features_only` a list of maps comes out, by default one per stride (2, 4, 8, 16, 32);
    `out_indices` chooses among them. Trained weights: `load_weights`.

    Raises:
        OptionError: there is no such arch.
        ArchError: an op is unknown, an index names no map, or indices stand without features_only.
    """
    from nas.models.build import build_model as build

    arch = load_arch(source)
    if classes is not None:
        arch = dataclasses.replace(arch, head=dataclasses.replace(arch.head, classes=classes))
    return build(arch, features_only=features_only, out_indices=out_indices)


def count(source: Source, resolution: int | tuple[int, int] | None = None) -> cost.Cost:
    """Return the exact params, FLOPs and activations of what `load_arch` takes.

    FLOPs are multiply-adds. `resolution` (pixels, or (height, width)) replaces the arch's own.

    Raises:
        OptionError: there is no such arch.
        ArchError: an op is unknown, or the resolution is none.
    """
    return cost.count(load_arch(source), resolution)


def anchored(source: str) -> str:
    """Return a path as absolute if there is such a file or folder, and a name as it is.

    What args.yaml holds is then the same from any directory.
    """
    path = Path(source).expanduser()
    try:
        return str(path.resolve()) if path.exists() else source
    except OSError:  # such as a name that is too long for a path
        return source


def named(source: str | Path) -> str:
    """Return a baseline's name as it is, and the path of an arch as absolute."""
    return str(source) if str(source) in baselines() else anchored(str(run_folder.find(source)))


def latest_search(project: Path) -> Path:
    """Return the latest search run that has a winner.

    Raises:
        OptionError: there is none; the message gives the command that makes one.
    """
    for folder in reversed(run_folder.runs("search", project)):
        if (folder / "best" / "arch.json").exists():
            return folder
    raise OptionError(
        f"no finished search under {project / 'search'}: run "
        "`nas search --space mbconv --target-flops 400M`, or name a baseline such as "
        "efficientnet_b0"
    )


def _in_folder(folder: Path) -> Path:
    for place in ("best/arch.json", "arch.json"):
        if (folder / place).is_file():
            return folder / place
    members = ", ".join(sorted(p.parent.name for p in folder.glob("*/arch.json")))
    hint = f"; name one of its members: {members}" if members else "; has the search finished?"
    raise OptionError(f"{folder} holds no best/arch.json and no arch.json{hint}")


def _read(path: Path) -> Arch:
    text = run_folder.read_text(path)
    try:
        data = without_checksum(run_folder.parse_json(text), path)
    except ValueError as error:
        raise ArchError(f"{path} is not JSON: {error}") from error
    try:
        return Arch.from_dict(data)
    except ArchError as error:
        raise ArchError(f"{path}: {error}") from error
