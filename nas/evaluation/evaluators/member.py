"""Train one arch to the end, as `nas train` does, and measure it where it was trained.

For the members of a family: the test split is read once, at the end. Where a folder holds the
args.yaml of a training, that is gone on with. The training is a process of its own (of several
where the executor gave several GPUs): it gives all its memory back before the next one starts, and
its peak is its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nas.core import locks, registry, run_folder
from nas.core.errors import EvaluatorError, NasError, RunError
from nas.core.processes import expect_error, told_error
from nas.evaluation.evaluate import FATAL
from nas.interfaces import TRAINING_FLOPS, Metrics
from nas.models.arch import Arch
from nas.models.cost import count
from nas.training.recipe import load_recipe
from nas.training.settings import TrainSettings

if TYPE_CHECKING:
    from nas.hardware.latency import Cached

TRAINS = True
ARCH, RESULT, RESULTS = "arch.json", "result.json", "results.csv"
LOG, MEMORY, LATENCY, ERROR = "log.txt", "memory.json", "latency.json", "error.json"
WEIGHTS = "weights/best.safetensors"
PROGRAM = "nas.cli.commands.member"
LOOK_SECONDS = 0.1
STEP = 3  # multiply-adds of a training step in those of a forward pass


def make(
    *,
    data: str = "",
    image_column: str = "",
    label_column: str = "",
    download: bool = False,
    recipe: str = "auto",
    recipe_options: dict[str, Any] = {},  # noqa: B006
    epochs: int = 0,
    batch_size: int = 0,
    accelerator: str = "auto",
    latency_on: str = "",
) -> MemberEvaluator:
    """Return the evaluator.

    data: what `--data` takes; image_column, label_column: of parquet. epochs, batch_size: 0 is the
    recipe's. accelerator: auto, cpu, cuda or mps. latency_on: a name of
    nas/hardware/devices; default the GPU that trained, else the CPU.
    """
    known = load_recipe(recipe, recipe_options)
    if latency_on:
        registry.export("devices", latency_on, "make")
    asked = {
        "data": data,
        "image_column": image_column or None,
        "label_column": label_column or None,
        "download": download,
        "recipe": recipe,
        "recipe_options": recipe_options,
        "epochs": epochs or known.epochs,
        "batch_size": batch_size or None,
        "device": accelerator,
    }
    return MemberEvaluator(asked, latency_on)


class MemberEvaluator:
    """Evaluator that trains each member of a family to the end, in a process of its own."""

    def __init__(self, asked: dict[str, Any], latency_on: str) -> None:
        self._settings = TrainSettings.model_validate(asked).model_dump()
        self._latency_on = latency_on
        self.rungs: tuple[int, ...] = (asked["epochs"],)
        self.title = (
            f"trained on {asked['data']} as `nas train` does, {asked['epochs']} epochs, test split "
            "and all: for the members of a family, not for a search"
        )

    def check(self, arch: Arch) -> None:
        """Check that the arch takes RGB images.

        Raises:
            EvaluatorError: it does not.
        """
        if arch.in_channels != 3:
            raise EvaluatorError(
                f"the images have 3 channels, and the arch takes {arch.in_channels}"
            )

    def evaluate(self, arch: Arch, *, seed: int = 0) -> Metrics:
        """Train in a temporary folder; return the metrics."""
        with tempfile.TemporaryDirectory() as folder:
            return self.train(arch, seed=seed, epochs=self.rungs[-1], folder=folder)

    def train(self, arch: Arch, *, seed: int, epochs: int, folder: str) -> Metrics:
        """Train to the end, from the folder's checkpoint if there is one; measure.

        `accuracy` is the best on the val split, `test_accuracy` that of the same weights on the
        test split. `memory_bytes`: the peak on the GPU, or what the process has grown by on a CPU.
        The device of the latency is asked for first, before a training is paid for.

        Raises:
            NasError: the training or the measurement failed; the message is its own.
            Preempted: SIGTERM came, which the training was told of.
        """
        place = Path(folder)
        with _for_this_one():
            if self._latency_on:
                _device(self._latency_on)
        if not (place / run_folder.ARGS).exists():
            arguments = {"arch": str(place / ARCH), **self._settings, "seed": seed}
            run_folder.write_args(place, arguments)
            run_folder.write_text(place / ARCH, arch.to_json())
        with locks.alone(place):  # what a killed worker left behind may still be ending
            finished = (place / RESULT).exists()
        if not finished:
            _trained(place, _processes(self._settings["device"]))
        return _metrics(place) | self._latency(place)

    def _latency(self, place: Path) -> Metrics:
        """Return the time of the network as it was trained, of one image."""
        arch = Arch.from_dict(run_folder.read_json(place / ARCH))
        trained_on = str(run_folder.read_object(place / RESULT, "device")["device"])
        name = self._latency_on or ("cuda" if trained_on.startswith("cuda") else "cpu")
        with _for_this_one():
            device = _device(name)
            timing = device.measure(arch)
        run_folder.write_json(
            place / LATENCY, {"device": device.title, **dataclasses.asdict(timing)}
        )
        return {
            "latency_ms": timing.median_ms,
            "latency_p10_ms": timing.p10_ms,
            "latency_p90_ms": timing.p90_ms,
            "latency_unrest": timing.unrest,
        }


@contextlib.contextmanager
def _for_this_one() -> Iterator[None]:
    """Have what is raised cost one member only, as another worker may have the device.

    Raises:
        NasError: in place of what would end the whole family.
    """
    try:
        yield
    except FATAL as error:
        raise NasError(f"no latency can be measured: {error}") from error


def _device(name: str) -> Cached:
    from nas.hardware.latency import Cached, cache_file

    return Cached(registry.make("devices", name, options={}), cache_file())


def _processes(accelerator: str) -> int:
    """Return how many processes train together: one for each GPU that the executor gave."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return 1 if accelerator == "cpu" else max(1, len([gpu for gpu in given.split(",") if gpu]))


def _trained(place: Path, processes: int) -> None:
    """Run the training; a SIGTERM is passed on to it.

    Raises:
        NasError: it failed.
        Preempted: it was told to end.
    """
    from nas.training.preemption import Preempted, noticed

    answer = place / ERROR
    expect_error(answer)
    with (place / LOG).open("ab") as log, noticed() as notice:
        before = log.tell()
        process = _start(place, processes, log)
        try:
            while process.poll() is None:
                if notice.asked:
                    process.terminate()
                    process.wait()
                time.sleep(LOOK_SECONDS)
        finally:
            process.kill()
            process.wait()
        if notice.asked or process.returncode == 128 + signal.SIGTERM:
            raise Preempted(f"stopped by SIGTERM; saved in {place}")
    told = told_error(answer)
    answer.unlink()
    if process.returncode:
        said = (place / LOG).read_bytes()[before:].decode(errors="replace")
        _fail(process.returncode, told, said)


def _start(place: Path, processes: int, log: Any) -> subprocess.Popen[bytes]:
    """Start the process in a session of its own: Ctrl-C is the driver's."""
    # a torch.py in the current folder must not be taken for torch
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", PROGRAM, str(place), str(os.getpid()), str(processes)],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )


def _fail(code: int, told: NasError | None, said: str) -> NoReturn:
    """Raise what a training told, or end as it did. `said`: its log, for what it did not tell.

    Raises:
        NasError: what it told; of the kinds that no other training would escape either where the
            data, the device or the disk is at fault.
    """
    if told:
        fatal = not isinstance(told, RunError) or os.strerror(errno.ENOSPC) in str(told)
        raise told if fatal else NasError(str(told))
    if code < 0:  # the executor tries again what lost its worker, and counts how often
        os.kill(os.getpid(), -code)
        time.sleep(1)
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    raise NasError(f"the training ended with exit code {code}: {last[0][:200]}")


def _metrics(place: Path) -> Metrics:
    """Return what a finished training has on file."""
    result = run_folder.read_object(place / RESULT)
    if not (place / WEIGHTS).is_file():
        raise NasError(f"{place} has lost its weights: delete the folder to train it again")
    arch = Arch.from_dict(run_folder.read_json(place / ARCH))
    images = result.get("epochs_done", result["epochs"]) * result["splits"]["train"]
    found = {
        "accuracy": result["val"]["top1"],
        "accuracy_std": result["val"]["standard_error"],
        "test_accuracy": result["test"]["top1"],
        "test_accuracy_std": result["test"]["standard_error"],
        "epochs": result["epochs"],
        "training_seconds": result["seconds"],
        "images_per_second": result["images_per_second"],
        TRAINING_FLOPS: STEP * count(arch).flops * images,
    }
    peaks = [float(row.get("memory_bytes") or 0) for row in run_folder.read_csv(place / RESULTS)]
    if not any(peaks) and (place / MEMORY).exists():
        peaks = [run_folder.read_object(place / MEMORY, "added_bytes")["added_bytes"]]
    return found | ({"memory_bytes": max(peaks)} if any(peaks) else {})
