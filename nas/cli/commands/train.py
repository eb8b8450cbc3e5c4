"""The commands train, val and predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.flags import (
    RUNS,
    ArchName,
    Config,
    ImageColumn,
    Json,
    LabelColumn,
    Name,
    Project,
    Quiet,
    Resume,
    given,
    with_settings,
)
from nas.reporting.terminal.tables import (
    FAILED,
    INTERRUPTED,
    console,
    on_interrupt,
    say,
    say_resume,
    show,
)

if TYPE_CHECKING:
    from nas.training.result import TrainResult

Trained = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A train run, or a search run that trained: its folder or name."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


@with_settings("nas.training.settings:TrainSettings")
def train(
    arch: ArchName,
    project: Project = RUNS,
    name: Name = None,
    resume: Resume = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> int:
    """Train an arch on images; the test split is read once, at the end."""
    from nas.training.train import train as run_train

    chosen = given(settings, config)
    chosen.pop("arch", None)  # a run's args.yaml names its own
    chosen |= {"project": project, "name": name, "resume": resume}
    return attend(as_json, quiet, lambda **watched: run_train(arch, **watched, **chosen))


def attend(as_json: bool, quiet: bool, start: Callable[..., TrainResult]) -> int:
    """Train with progress and Ctrl-C, print the result; return the exit code.

    Under torchrun the first process alone shows anything.
    """
    from nas.reporting.report import reported
    from nas.reporting.terminal import train as train_screen
    from nas.training.distributed import rank
    from nas.training.preemption import Preempted
    from nas.training.progress import TrainingProgress

    shown = not quiet and rank() == 0
    screen = train_screen.TrainingScreen(console(stderr=True)) if shown else TrainingProgress()

    def notice(text: str) -> bool:
        return screen.notice(text) or rank() > 0

    interrupted = on_interrupt("epoch", notice, lambda: screen.running)
    try:
        result = reported(lambda: start(screen=screen, interrupted=interrupted), screen.say)
    except KeyboardInterrupt:
        if rank() == 0:
            say_resume()
        return INTERRUPTED
    except Preempted as stop:
        say(stop)
        say_resume()
        return INTERRUPTED
    if result.epochs or result.probe:
        show(result, train_screen.show_train, as_json)
    if result.stopped:
        say_resume()
        return INTERRUPTED
    return 0


def val(
    run: Trained,
    data: Annotated[
        str | None,
        typer.Option(help="Other images, all of which are scored; default the run's own."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="test, val, train or all; default test of the run's own images, all of others.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, help="Images at a time.")
    ] = 256,
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=0, help="Processes that read images.")
    ] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set.")] = False,
    as_json: Json = False,
) -> None:
    """Score a trained model on labelled images: top-1 with its error, and each class."""
    from nas.reporting.terminal import data as data_screen
    from nas.training.val import val as run_val

    result = run_val(
        run,
        data=data,
        split=split,
        batch_size=batch_size,
        device=device,
        workers=workers,
        download=download,
        image_column=image_column,
        label_column=label_column,
    )
    show(result, data_screen.show_val, as_json)


def predict(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A train run, a search run that trained, or pretrained (ImageNet)."
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to tell of each image.")] = 5,
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Tell the likeliest classes of images."""
    from nas.reporting.terminal import data as data_screen
    from nas.training.predict import predict as run_predict

    result = run_predict(run, images, top=top, device=device)
    show(result, data_screen.show_predict, as_json)
    return FAILED if result.failed == len(result.images) else 0
