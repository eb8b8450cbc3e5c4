"""Pictures as PNG: the curves of a training, its confusion matrix, class activation maps."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nas.core.errors import MissingError, OptionError, RunError
from nas.core.system import cache_folder
from nas.training import history

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
# told apart by people who see fewer colours: Okabe & Ito 2008
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#555555"
COLOURS = {"train_loss": BLUE, "val_loss": ORANGE, "val_top1": BLUE} | {
    "val_top1_ema": ORANGE,
    "val_top1_raw": BLUE,
    "val_top5": GREY,
}
WRITTEN = 30  # classes up to which every count is written into its cell
LABELLED = 120  # classes up to which every one is named
LONGEST = 24  # characters of a class name
CELL = 1.9  # inches of a picture in a grid
_HALF = re.compile("[\ud800-\udfff]")  # surrogates
CONFUSED = 10  # pairs listed beside a matrix too large to read

Counts = npt.NDArray[np.int64]


def curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and accuracy over epochs; a row may lack columns (an epoch not validated).

    Raises:
        MissingError: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    figure = _figure(11.0, 4.2)
    loss, accuracy = figure.subplots(1, 2)
    for axes, lines, title in (
        (loss, history.LOSSES, "loss"),
        (accuracy, history.accuracies(rows), "validation accuracy (%)"),
    ):
        drawn = [_line(axes, rows, column, name) for column, name in lines.items()]
        _frame(axes, title, legend=any(drawn))
    _cut(loss, [history.curve(rows, column) for column in history.LOSSES])
    if best := history.best(rows):
        accuracy.set_title(f"best top-1 {best[1]:.2f} % in epoch {best[0]:g}", fontsize=10)
    _save(figure, path)


def _cut(axes: Axes, curves: Sequence[history.Curve]) -> None:
    """Cut the axis where a training diverged, and say what it hides."""
    if (top := history.ceiling(curves)) is not None:
        axes.set_ylim(0, top)
        axes.set_title(history.curve_notes(curves), fontsize=9)


def _line(axes: Axes, rows: history.Rows, column: str, name: str) -> bool:
    points = history.finite(history.curve(rows, column))
    if points:
        marker = "o" if len(points) <= 30 else ""
        style = "--" if column == "val_top5" else "-"
        look: dict[str, Any] = {"color": COLOURS[column], "label": name, "marker": marker}
        axes.plot(*zip(*points, strict=True), style, markersize=3, **look)
    return bool(points)


def _frame(axes: Axes, title: str, *, legend: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if legend:
        axes.legend(frameon=False, fontsize=9)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Draw counts[true][predicted], coloured by their share of the true class.

    Counts are written up to 30 classes; beyond, the pairs confused most are listed.

    Raises:
        OptionError: the matrix is not of these classes, or holds no whole numbers.
        MissingError: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    counts = _counts(matrix, len(classes))
    names = [_short(name) for name in classes]
    side = min(max(3.6 + 0.22 * len(names), 5.0), 16.0)
    size = 10 * max(1.0, side / 10)  # of letters, so that the whole can be seen at once
    listed = _confused(counts, names) if len(names) > WRITTEN else []
    figure = _figure(side + 0.9, side)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    _draw(figure, axes, shares, size, faint=bool(listed))
    _name_axes(axes, names, size)
    if listed:
        text = "\n".join(["confused most", "(true → predicted)", "", *listed])
        _plain(figure.text(1.02, 0.5, text, fontsize=size, va="center", linespacing=1.5))
    else:
        _write_counts(axes, counts, shares)
    right, total = int(np.trace(counts)), int(counts.sum())
    accuracy = f", {100 * right / total:.2f} % right" if total else ""
    axes.set_title(f"{total:,} images{accuracy}", fontsize=size)
    _save(figure, path)


def _draw(
    figure: Figure, axes: Axes, shares: npt.NDArray[np.float64], size: float, *, faint: bool
) -> None:
    """Draw the cells and the scale of their colours; `faint` shares are drawn stronger."""
    from matplotlib.colors import PowerNorm

    norm = PowerNorm(0.5 if faint else 1.0, 0.0, 1.0)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, aspect=40, pad=0.02, shrink=0.8)
    bar.set_label("share of the true class", fontsize=size)
    bar.ax.tick_params(labelsize=size)


def _counts(matrix: Sequence[Sequence[int]], classes: int) -> Counts:
    try:
        counts = np.asarray(matrix, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"a confusion matrix holds whole numbers: {error}") from error
    if counts.shape != (classes, classes) or not classes or (counts < 0).any():
        raise OptionError(
            f"a confusion matrix of {classes} classes holds {classes} x {classes} counts from 0, "
            f"not {counts.shape}"
        )
    return counts


def _short(name: str) -> str:
    """Return a name on one line, its middle left out where it is long."""
    # a byte of a file's name that is no UTF-8, which matplotlib cannot draw
    line = " ".join(_HALF.sub("\N{REPLACEMENT CHARACTER}", name).split()) or "(no name)"
    half = LONGEST // 2 - 1
    return line if len(line) <= LONGEST else f"{line[:half]}…{line[-half:]}"


def _confused(counts: Counts, names: Sequence[str]) -> list[str]:
    """Return the pairs confused most, most often first, as "true → predicted  count"."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    pairs = [divmod(int(index), len(counts)) for index in order]
    return [f"{names[i]} → {names[j]}  {wrong[i, j]}" for i, j in pairs if wrong[i, j]]


class Cell(NamedTuple):
    """A picture uint8 (H, W, 3), the words below it, and a map (H, W) of 0..1 over it, or none."""

    picture: npt.NDArray[np.uint8]
    caption: str
    heat: npt.NDArray[np.float32] | None = None


def heat_maps(rows: Sequence[Sequence[Cell]], titles: Sequence[str]) -> bytes:
    """Return a PNG with a row of pictures for each image, their maps over them, under the titles.

    Raises:
        MissingError: matplotlib is not installed.
    """
    figure = _figure(CELL * len(titles), (CELL + 0.35) * len(rows))
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, cells in zip(grid, rows, strict=True):
        for axes, cell in zip(line, cells, strict=True):
            _draw_cell(axes, cell)
    for axes, title in zip(grid[0], titles, strict=True):
        _plain(axes.set_title(_short(title), fontsize=9))
    return _png(figure)


def _draw_cell(axes: Axes, cell: Cell) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if cell.heat is None:
        axes.imshow(cell.picture, interpolation="nearest")
    else:
        # the picture in grey, so that all colour is the map's
        grey = cell.picture.astype(np.float32).mean(2)
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.imshow(cell.heat, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.55 * cell.heat)
    lines = "\n".join(map(_short, cell.caption.splitlines()))
    _plain(axes.set_xlabel(lines, fontsize=8))


def _name_axes(axes: Axes, names: Sequence[str], size: float) -> None:
    """Label rows and columns: every class, or as many as can be read."""
    every = math.ceil(len(names) / LABELLED)
    places = range(0, len(names), every)
    shown = [names[place] for place in places]
    own = 9 if len(names) <= WRITTEN else 8 if len(names) <= 60 else 6
    upright = len(names) > 12 or max(map(len, names)) > 5
    axes.set_xticks(places, shown, rotation=90 if upright else 0, fontsize=own)
    axes.set_yticks(places, shown, fontsize=own)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        _plain(label)
    axes.set_xlabel("predicted", fontsize=size)
    axes.set_ylabel("true", fontsize=size)
    axes.tick_params(length=0)


def _write_counts(axes: Axes, counts: Counts, shares: npt.NDArray[np.float64]) -> None:
    size = 9 if len(counts) <= 12 else 6.5
    for (i, j), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[i, j] > 0.5 else GREY
            axes.text(j, i, _brief(int(count)), ha="center", va="center", color=colour, size=size)


def _brief(count: int) -> str:
    """Return a count in at most four characters: 9999, 12k, 3M."""
    if count < 10_000:
        return str(count)
    return f"{count // 1000}k" if count < 1_000_000 else f"{count // 1_000_000}M"


def _plain(text: Any) -> None:
    """Take a user's words as they are: a $ in a name would be read as a formula."""
    text.set_parse_math(False)


def need() -> None:
    """Refuse to begin what ends in a picture.

    Raises:
        MissingError: matplotlib is not installed.
    """
    _figure(1, 1)


def _figure(width: float, height: float) -> Figure:
    if "MPLCONFIGDIR" not in os.environ and not os.path.isabs(os.path.expanduser("~")):
        # without a home directory it would make one anew in each process, and warn
        os.environ["MPLCONFIGDIR"] = str(cache_folder() / "matplotlib")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingError(f"pictures need matplotlib ({error}): pip install matplotlib") from None
    # without pyplot: it keeps figures alive and asks for a display
    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    with _unknown_letters_allowed():
        figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.15)
    return file.getvalue()


def _save(figure: Figure, path: Path) -> None:
    try:
        path.write_bytes(_png(figure))
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def _unknown_letters_allowed() -> Iterator[None]:
    """Draw class names in scripts that the font lacks as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield
