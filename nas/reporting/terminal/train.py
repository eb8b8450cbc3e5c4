"""What a person sees of a training: a live bar or a line an epoch on stderr, a table on stdout."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.core.quoting import command
from nas.core.units import format_count, format_seconds
from nas.training.progress import TrainingProgress, best
from nas.training.result import TrainResult

Row = Mapping[str, Any]
RECENT = 5  # epochs that the time left is reckoned from


class TrainingScreen(TrainingProgress):
    """On a terminal one live bar with the last epoch below; otherwise a line an epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._notice = ""
        self.running = False

    def say(self, text: str) -> None:
        """Show one line that stays."""
        if text:
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def begin(self, name: str, epochs: int, earlier: Sequence[Row]) -> None:
        """Start showing a training; `earlier` epochs are those of before a resumption."""
        self._name, self._epochs, self._rows = name, epochs, list(earlier)
        self._times: list[float] = []  # of the epochs since the start, with their validation
        self._since, self._share = time.monotonic(), 0.0
        self.running = True
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._picture,
                console=self._console,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()

    def part(self, share: float) -> None:
        """Note which share of the running epoch has gone by."""
        self._share = min(share, 1.0)

    def epoch(self, row: Row) -> None:
        """Show a finished epoch."""
        now = time.monotonic()
        self._times.append(now - self._since)
        self._since, self._share = now, 0.0
        self._rows.append(row)
        if not self._live and "val_top1" in row:
            self.say(epoch_line(row, best(self._rows), self._epochs, self._times[-1]))

    def notice(self, text: str) -> bool:
        """Show a line below the live bar; tell whether there is one. Safe in a signal handler."""
        self._notice = text
        return self._live is not None

    def end(self) -> None:
        """Stop showing it."""
        self.running = False
        if self._live:
            self._live.stop()
            self._live = None

    def _picture(self) -> Group:
        done = int(self._rows[-1]["epoch"]) if self._rows else 0
        elapsed = time.monotonic() - self._since
        left = time_left(self._times, self._epochs - done, elapsed, self._share)
        bar = _bar(self._name, done + self._share, self._epochs, left)
        scored = [row for row in self._rows if "val_top1" in row]
        last = [_last(scored[-1], best(scored))] if scored else []
        return Group(bar, *last, *([self._notice] if self._notice else []))


def time_left(times: Sequence[float], epochs: int, elapsed: float, share: float) -> float | None:
    """Return seconds until the end, from the recent epochs, else from the share of the first.

    `elapsed` seconds of the running epoch are taken off, at most one epoch of them. None where
    nothing is known yet.
    """
    if times:
        one = statistics.median(times[-RECENT:])
    elif share > 0:
        one = elapsed / share
    else:
        return None
    return max(epochs * one - min(elapsed, one), 0.0)


def epoch_line(row: Row, leader: Row, epochs: int, seconds: float) -> str:
    """Return one finished epoch as a plain line."""
    return (
        f"epoch {row['epoch']:.0f}/{epochs} loss {row['train_loss']:.3f} "
        f"val top-1 {row['val_top1']:.2f} % best {leader['val_top1']:.2f} % "
        f"(epoch {leader['epoch']:.0f}) {row['images_per_second']:.0f} images/s "
        f"{format_seconds(seconds)}"
    )


def _bar(name: str, done: float, epochs: int, left: float | None) -> Table:
    line = Table.grid(padding=(0, 1))
    seconds = 0 if left is None else round(left)
    words = f"{seconds} s left" if seconds < 60 else f"{format_seconds(seconds)} left"
    shown = "" if left is None else words
    bar = ProgressBar(epochs, done, width=30)
    line.add_row(Text(name), bar, Text(f"{int(done)}/{epochs} epochs"), Text(shown))
    return line


def _last(row: Row, leader: Row) -> Text:
    return Text(
        f"loss {row['train_loss']:.3f}   val top-1 {row['val_top1']:.2f} %   "
        f"best {leader['val_top1']:.2f} % (epoch {leader['epoch']:.0f})   "
        f"{row['images_per_second']:.0f} images/s"
    )


def show_train(result: TrainResult, console: Console) -> None:
    """Print the end of a training: accuracies with their split, where it is saved, what is next."""
    if result.val and not result.test:
        console.print(
            f"stopped after epoch {result.done} of {result.epochs}; best val top-1 "
            f"{result.val.top1:.2f} % (epoch {result.best_epoch}); test not read"
        )
        console.print(f"saved   {result.run}", markup=False)
        return
    console.print(
        f"{result.arch} on {result.data}: {len(result.classes)} classes, "
        f"{result.imgsz} pixels, {format_count(result.params)} params, "
        f"{format_count(result.flops)} multiply-adds",
        markup=False,
    )
    console.print(_scores(result))
    console.print(_provenance(result))
    if result.teacher:
        console.print(result.teacher.text, markup=False)
    if result.warning:
        console.print(result.warning, markup=False, style="bold")
    if result.probe:
        console.print(probe_line(result))
    done = result.done
    early = "" if done == result.epochs else f" of {result.epochs}, as val got no better,"
    speed = f": {result.images_per_second:.0f} images/s" if result.images_per_second else ""
    told = f"{done} epochs{early} of" if result.epochs else "the classifier alone, on"
    console.print(
        f"{told} {result.splits['train']} images in {format_seconds(result.seconds)}{speed} on "
        f"{result.device}"
    )
    console.print(
        f"saved   {result.run}  (weights/best.safetensors, config.json, report.html, results.csv)",
        markup=False,
    )
    console.print(f"next    {command('nas', 'predict', str(result.run))} IMAGE", markup=False)


def probe_line(result: TrainResult) -> str:
    """Return what the linear probe gave, and what fine-tuning added to it on val."""
    assert result.probe and result.val
    added = result.val.top1 - result.probe.top1
    then = f"; fine-tuning added {added:.2f} points" if added > 0 else ""
    if result.epochs and added <= 0:
        then = "; no epoch was better on val, so it is what was kept"
    return (
        f"linear probe {result.probe.top1:.2f} % of val after "
        f"{format_seconds(round(result.probe.seconds))}{then}"
    )


def _scores(result: TrainResult) -> Table:
    table = Table(box=None, pad_edge=False)
    fifth = top5_tells(result.classes)
    for title in ("split", "images", "top-1 %", *["top-5 %"] * fifth, "loss"):
        table.add_column(title, justify="left" if title == "split" else "right", no_wrap=True)
    for split, found in result.scores:
        top1 = f"{found.top1:.2f} ±{found.standard_error:.2f}"
        loss = "not finite" if found.loss is None else f"{found.loss:.4f}"
        top5 = [f"{found.top5:.2f}"] * fifth
        table.add_row(split, str(found.n), top1, *top5, loss)
    return table


def top5_tells(classes: Sequence[str]) -> bool:
    """Tell whether a top-5 accuracy says anything: with five classes or fewer it is 100 %."""
    return len(classes) > 5


def _provenance(result: TrainResult) -> str:
    """Return which weights the numbers are of."""
    val = result.val
    text = f"weights of epoch {result.best_epoch}, the best on val"
    if val and val.top1_ema is not None:
        text += f", averaged (EMA {val.top1_ema:.2f} %, raw {val.top1_raw:.2f} %)"
    return f"{text}; test was read once, at the end; ± is the standard error from the images alone"
