"""Train: an arch and images in, a run folder with a trained model and its test score out."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.core import run_folder
from nas.core.errors import NasError, OptionError, RunError
from nas.core.resume import find_run, opening
from nas.core.settings import takes
from nas.data.identity import unchanged, way_back
from nas.data.loader import Loader
from nas.models.arch import Arch
from nas.models.load import anchored, load_arch, named
from nas.training import distributed
from nas.training.conclude import RESULT, conclude, described_data, earlier, partial, tested
from nas.training.loop import RESULTS, fit
from nas.training.progress import TrainingProgress
from nas.training.recipe import Augment, Recipe, recipe_from
from nas.training.result import TrainResult
from nas.training.settings import FREE, NOTHING, TrainSettings
from nas.training.setup import FOR_WEIGHTS, Ready, make_ready, together
from nas.training.state import Row
from nas.training.teacher import FOLDER, has_teacher, write_teacher
from nas.training.tracking import open_trackers
from nas.training.trained import VERBS
from nas.training.weights.sources import is_named

ARCH, DATA, RECIPE = "arch.json", "data.json", "recipe.json"
PARENT = "parent"  # of a run of a search: the weights that its candidates inherited
MOST_LETTERS = 4096  # of a path, on Linux
Interrupted = Callable[[], bool]


@takes(TrainSettings)
def train(
    arch: str | Path | Arch | Mapping[str, Any],
    *,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    screen: TrainingProgress | None = None,
    interrupted: Interrupted = lambda: False,
    **settings: Any,
) -> TrainResult:
    """Train an arch on images; return its scores (`test`, `val`, `run`, ...).

    `to_dict()` of them is what `nas train --json` prints.

    `settings` are the command's flags with underscores: `nas.train("efficientnet_b0",
    data="digits", epochs=5)`. The run folder is project/train/name; `resume` goes on with the run
    of that name, or with the latest one, of the given settings, and starts one where there is none.
    The test split is read once, at the end. Under torchrun every process calls this, and all but
    the first get an empty result.

    Raises:
        OptionError: a setting is wrong, or the data cannot be used.
        RunError: the run folder is in use, damaged or cannot be written.
        NasError: the training diverged.
        Preempted: SIGTERM came while it trained: a SystemExit; `resume` goes on from there.
    """
    screen = screen or TrainingProgress()
    chosen, source = _anchored(TrainSettings.model_validate(settings), Path(project)), _source(arch)
    if chosen.epochs and chosen.time_limit:
        raise OptionError("--time-limit sets the number of --epochs: give one of them")
    if chosen.probe and (chosen.epochs or chosen.time_limit):
        raise OptionError("--probe trains no epoch: leave out --epochs and --time-limit")
    given = {"arch": source, **{key: getattr(chosen, key) for key in settings}}
    asked = {key: value for key, value in given.items() if key not in FREE}
    folder = find_run("train", Path(project), name, asked) if resume else None
    if folder:
        free = {key: value for key, value in given.items() if key in FREE}
        return go_on(folder, free, screen=screen, interrupted=interrupted)
    screen.say(opening(folder, resume))
    with together(chosen):
        chosen = _from_parent(chosen, source, screen.say)
        ready = make_ready(chosen, load_arch(arch), screen.say)
        arguments = {"arch": source, **ready.settings.model_dump()}
        folder = _shared(
            lambda: run_folder.create("train", name, Path(project), arguments), ready.job.device
        )
        try:
            return _train(ready, folder, arguments, screen, interrupted)
        except NasError:
            # what failed before its first epoch leaves nothing to go on with
            if distributed.rank() == 0 and not (folder / RESULTS).exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise


def go_on(
    folder: Path,
    changed: Mapping[str, Any],
    *,
    screen: TrainingProgress | None = None,
    interrupted: Interrupted = lambda: False,
) -> TrainResult:
    """Go on with a training from its last checkpoint; a finished one returns its result again.

    Raises:
        RunError: the folder is no training, in use or damaged, or its data has changed.
    """
    screen = screen or TrainingProgress()
    if (folder / RESULT).exists():
        screen.say(f"{folder} is finished")
        found = run_folder.read_record(folder / RESULT, TrainResult)
        return dataclasses.replace(found, run=folder) if distributed.rank() == 0 else _none(folder)
    arguments = {**run_folder.read_args(folder), **changed}
    source = arguments.pop("arch", None)
    # what the default is now is not what began: a run without a name began from nothing
    arguments["init"] = arguments.get("init") or NOTHING
    if source is None:
        raise RunError(f"{folder} is no training: its {run_folder.ARGS} names no arch")
    chosen = TrainSettings.model_validate(arguments)
    screen.say(f"going on with {folder}")
    with together(chosen):
        kept = folder / ARCH
        arch = load_arch(kept if kept.exists() else source)
        ready = make_ready(chosen, arch, screen.say, _recipe_of(folder), folder)
        _check_data(folder, ready)
        return _train(ready, folder, {"arch": source, **arguments}, screen, interrupted)


def _recipe_of(folder: Path) -> Recipe | None:
    """Return the recipe that a run was started with; None: it has none of its own.

    Raises:
        RunError: its file is damaged.
    """
    path = folder / RECIPE
    try:
        return recipe_from(run_folder.read_json(path)) if path.exists() else None
    except OptionError as error:
        raise RunError(f"{path} is damaged: {error}; delete it, or train anew") from error


def _anchored(chosen: TrainSettings, project: Path) -> TrainSettings:
    """Return the settings with absolute paths, so that the run goes on from any directory."""
    recipe, init, teacher = chosen.recipe, chosen.init, chosen.teacher
    paths = {
        "data": anchored(chosen.data or ""),
        "init": init and _place(init, project),
        "teacher": teacher and _place(teacher, project),
        "recipe": anchored(recipe) if recipe.endswith(".py") else recipe,
    }
    return chosen.model_copy(update=paths)


def _place(init: str, project: Path) -> str:
    """Return a source of weights as a path from the root, where it is one."""
    return (
        init
        if init == NOTHING or is_named(init)
        else anchored(str(run_folder.find(init, VERBS, project)))
    )


def _from_parent(
    chosen: TrainSettings, source: str | dict[str, Any], say: Callable[[str], None]
) -> TrainSettings:
    """Return settings that start the result of a search where its candidates started."""
    if chosen.init or chosen.recipe not in FOR_WEIGHTS or not isinstance(source, str):
        return chosen
    parent = Path(source) / PARENT
    if not parent.is_dir():
        return chosen
    say(
        "starts from the weights that its search's candidates inherited (--init none: from nothing)"
    )
    return chosen.model_copy(update={"init": str(parent.resolve())})


def _source(arch: str | Path | Arch | Mapping[str, Any]) -> str | dict[str, Any]:
    """Return what args.yaml says of where the arch came from."""
    if isinstance(arch, str | Path):
        return named(arch)
    return arch.to_dict() if isinstance(arch, Arch) else dict(arch)


def _check_data(folder: Path, ready: Ready) -> None:
    """Check that a run's arch and data are what they were: its split decides what was trained on.

    Raises:
        RunError: one has changed.
    """
    path = folder / DATA
    noted = run_folder.read_object(path) if path.exists() else {}
    arch_id, before = noted.get("arch_id", ready.job.arch.id), noted.get("fingerprint")
    if arch_id != ready.job.arch.id:
        raise RunError(
            f"{folder / ARCH} is another arch ({ready.job.arch.id}) than the one that {folder} "
            f"was started with ({arch_id}): restore it, or train anew under another --name"
        )
    if not unchanged(before, ready.dataset):
        raise RunError(
            f"{ready.settings.data} has changed since {folder} was started: "
            f"{way_back(before, ready.dataset, path)}"
        )


def _shared(make: Callable[[], Path], device: str) -> Path:
    """Return the folder that the first process makes, in all processes."""
    if distributed.world() == 1:
        return make()
    letters = torch.zeros(MOST_LETTERS, dtype=torch.int64, device=device)
    if distributed.rank() == 0:
        text = str(make()).encode()
        letters[: len(text)] = torch.tensor(list(text), device=device)
    return Path(bytes(n for n in distributed.summed(letters).tolist() if n).decode())


def _anyone(asked: bool, device: str) -> bool:
    """Tell whether any of the processes was asked, so that all stop after the same epoch."""
    return bool(distributed.summed(torch.tensor([int(asked)], device=device)))


class _Stopped(Exception):
    """A person asked to stop."""


@dataclass(frozen=True)
class _Counted:
    """A loader that tells which share of a training epoch has gone by."""

    loader: Loader
    tell: Callable[[float], None]

    def __len__(self) -> int:
        return len(self.loader)

    def train(
        self,
        epoch: int,
        seed: int,
        batch: int,
        augment: Augment,
        rank: int = 0,
        world: int = 1,
        first: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        done = first * batch
        for x, y in self.loader.train(epoch, seed, batch, augment, rank, world, first):
            yield x, y
            done += len(x) * world
            self.tell(done / len(self.loader))

    def ordered(self, batch: int, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        return self.loader.ordered(batch, rank, world)


def _train(
    ready: Ready,
    folder: Path,
    arguments: Mapping[str, Any],
    screen: TrainingProgress,
    interrupted: Interrupted,
) -> TrainResult:
    """Train in a run folder; only the first process writes there."""
    if distributed.rank():
        return _fitted(ready, folder, screen, interrupted)
    with run_folder.lease(folder):
        run_folder.write_environment(folder)
        run_folder.write_args(folder, arguments)
        run_folder.write_text(folder / ARCH, ready.job.arch.to_json())
        run_folder.write_json(folder / DATA, described_data(ready))
        run_folder.write_json(folder / RECIPE, dataclasses.asdict(ready.job.recipe))
        if ready.job.teacher and not has_teacher(folder / FOLDER):
            write_teacher(folder / FOLDER, ready.job.teacher)
        return _fitted(ready, folder, screen, interrupted)


def _fitted(
    ready: Ready, folder: Path, screen: TrainingProgress, interrupted: Interrupted
) -> TrainResult:
    """Train to the end or to an interruption; return the result."""
    job, first = ready.job, distributed.rank() == 0
    names = ready.settings.tracker or None
    asked = {"arch": job.arch.name, **ready.settings.model_dump()}
    trackers = open_trackers(names, folder, folder.name, asked, say=screen.say) if first else []

    def watch(row: Row) -> None:
        screen.epoch(row)
        for tracker in trackers:
            tracker.row(int(row["epoch"]), row)
        kept = "val_top1" in row  # and there is a checkpoint
        if kept and row["epoch"] < job.epochs and _anyone(interrupted(), job.device):
            raise _Stopped

    data = dataclasses.replace(ready.data, train=_Counted(ready.data.train, screen.part))
    screen.begin(_title(ready), job.epochs, earlier(folder))
    try:
        rows = fit(job, data, folder, watch=watch, say=screen.say)
    except _Stopped:
        return partial(folder, job.epochs) if first else _none(folder)
    finally:
        screen.end()
        for tracker in trackers:
            tracker.close()
    score = tested(ready, folder)
    return conclude(ready, folder, rows, score) if first else _none(folder)


def _none(folder: Path) -> TrainResult:
    """Return what a process gets that is not the first of several."""
    return TrainResult(run=folder)


def _title(ready: Ready) -> str:
    return f"{ready.job.arch.name} on {ready.dataset.name}"
