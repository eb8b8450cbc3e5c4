"""Find an arch: a baseline by name, a file, a run folder, or plain data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nas import catalog, run
from nas.arch import Arch
from nas.errors import ArchError, OptionError, did_you_mean
from nas.published import Published


@cache
def baselines() -> dict[str, Arch]:
    """Return the archs of every file of the folder baselines, by name."""
    rooms = (catalog.export("baselines", name, "ARCHS") for name in catalog.names("baselines"))
    return {name: arch for archs in rooms for name, arch in archs.items()}


@cache
def published() -> dict[str, Published]:
    """Return the published figures of the baselines, by name."""
    rooms = (catalog.export("baselines", name, "PUBLISHED") for name in catalog.names("baselines"))
    return {name: figures for room in rooms for name, figures in room.items()}


def load_arch(source: str | Path | Arch | Mapping[str, Any]) -> Arch:
    """Return the arch of a baseline's name, an arch.json, a run folder, or `Arch.to_dict` data.

    A search run gives its best arch, a family member's folder its own.

    Raises:
        OptionError: there is no such baseline, file or run.
        ArchError: the file is no arch, or of another schema.
    """
    if isinstance(source, Arch):
        return source
    if isinstance(source, Mapping):
        return Arch.from_dict(source)
    if not isinstance(source, str | Path):
        raise OptionError(f"an arch is given by name, path, Arch or data, not {source!r}")
    if str(source) in baselines():
        return baselines()[str(source)]
    path = Path(source)
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
    return str(source) if str(source) in baselines() else anchored(str(source))


def latest_search(project: Path) -> Path:
    """Return the latest search run that has a winner.

    Raises:
        OptionError: there is none; the message gives the command that makes one.
    """
    for folder in reversed(run.runs("search", project)):
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
    text = run.read_text(path)
    try:
        data = run.parse_json(text)
    except ValueError as error:
        raise ArchError(f"{path} is not JSON: {error}") from error
    try:
        return Arch.from_dict(data)
    except ArchError as error:
        raise ArchError(f"{path}: {error}") from error
