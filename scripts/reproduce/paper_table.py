"""What the programs of this folder share: a printed figure beside ours, on screen and as CSV."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from nas.models.arch import Arch
from nas.models.compound import Multipliers, scale_arch
from nas.models.cost import count
from nas.models.load import load_arch

SCALES = {"K": 1e3, "M": 1e6, "B": 1e9}
COLUMNS = ("net", "scaling", "figure", "published", "ours", "difference", "rounds to it", "note")


@dataclass(frozen=True)
class Figure:
    """One printed figure and ours.

    `published` is what the paper prints, as 0.39B, or "" where it prints nothing; `ours` is counted
    or measured, None where it is still open. Both in units that `figure` names.
    """

    net: str
    scaling: str
    figure: str
    published: str
    ours: float | None
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Return ours / published - 1."""
        if not self.published or self.ours is None:
            return None
        return self.ours / value(self.published) - 1

    @property
    def rounds(self) -> bool | None:
        """Tell whether ours, rounded to the printed digits, is what is printed."""
        if not self.published or self.ours is None:
            return None
        return like(self.ours, self.published) == self.published


def value(printed: str) -> float:
    """Return the number that a paper prints, as 390e6 for 0.39B."""
    number, unit = _split(printed)
    return float(number) * SCALES.get(unit, 1.0)


def like(number: float, printed: str) -> str:
    """Return a number with the unit and as many decimals as a printed one."""
    shape, unit = _split(printed)
    decimals = len(shape.partition(".")[2])
    return f"{number / SCALES.get(unit, 1.0):.{decimals}f}{unit}"


def _split(printed: str) -> tuple[str, str]:
    number = printed.rstrip("KMBx")
    return number, printed[len(number) :]


def precise(number: float | None, printed: str) -> str:
    """Return ours for the screen: the unit of the printed figure, three decimals."""
    if number is None:
        return "open"
    unit = _split(printed)[1] if printed else "B" if number >= 1e8 else "M" if number >= 1e5 else ""
    return f"{number / SCALES.get(unit, 1.0):.3f}{unit}"


def scaled(net: str, asked: Multipliers) -> Arch:
    """Return a net scaled: layers rounded up, channels to eights, pixels to whole ones."""
    base = load_arch(net)
    pixels = round(base.resolution * asked.resolution)
    return scale_arch(base, depth=asked.depth, width=asked.width, resolution=pixels)


def flops(
    net: str, scaling: str, asked: Multipliers, published: str, arch: Arch, note: str = ""
) -> Figure:
    """Return the figure of a scaled net's multiply-adds."""
    setting = f"d {asked.depth:g} w {asked.width:g} r {asked.resolution:g}, {arch.resolution} px"
    return Figure(net, f"{scaling}: {setting}", "FLOPs", published, count(arch).flops, note)


def cells(row: Figure) -> list[str]:
    """Return one line of the screen."""
    gap, rounds = row.difference, row.rounds
    found = (row.published or "–", precise(row.ours, row.published))
    apart = "" if gap is None else f"{gap:+.1%}"
    return [
        *(row.net, row.scaling, row.figure, *found),
        *(apart, {None: "", True: "yes", False: "no"}[rounds], row.note),
    ]


def exact(row: Figure) -> list[object]:
    """Return one line of the CSV: ours in full, the difference as a fraction."""
    gap = None if row.difference is None else round(row.difference, 6)
    return [
        *(row.net, row.scaling, row.figure, row.published),
        *("" if value is None else value for value in (row.ours, gap, row.rounds)),
        row.note,
    ]


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """Print a table, folded to the width of the terminal."""
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*row)
    console = Console()
    # a pipe has no width of its own: what is read by a program is not folded
    Console(width=console.width if console.is_terminal else 220).print(table)
    if note:
        console.print(note, soft_wrap=True)


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file; one that cannot be written ends the program with a line."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
    except OSError as error:
        raise SystemExit(f"cannot write {path}: {error.strerror}") from None
    print(f"written: {path}")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows --out."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--out", type=Path, metavar="CSV", help="also write the figures as CSV")
    return made


def present(title: str, rows: Sequence[Figure], out: Path | None, note: str = "") -> None:
    """Print the figures, and write them where `out` is given."""
    show(title, COLUMNS, map(cells, rows), note)
    if out:
        write(out, COLUMNS, map(exact, rows))
