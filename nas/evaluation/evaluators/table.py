"""Look archs up in a table of the user's own: a row for each point of a space.

Columns are called as the space's choices. Accuracies, in percent, are in the column `accuracy`, or
in `accuracy_0`, `accuracy_1`, ... where each arch was trained with several seeds: the seed of a
search picks one of these columns, so what it sees has the noise of one training. A column `true`
holds the accuracy that is meant, if it is known; no search sees it. What else holds a number in
every row is a metric, as `latency_ms`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from statistics import fmean

from nas.core import registry
from nas.core.errors import ArchError, EvaluatorError, OptionError, did_you_mean
from nas.core.tables import Row, number, read_rows
from nas.interfaces import RECORD, Choices, Metrics, Option, Space
from nas.models.arch import Arch
from nas.models.points import decode

MOST_POINTS = 2_000_000  # of a space that is looked through for what an incomplete table lacks
ENOUGH = 1000  # missing points, after which no more are looked for


def make(
    *, path: str = "", space: str = "mbconv", observed: str = "accuracy", true: str = "true"
) -> TableEvaluator:
    """Return what answers from a table.

    path: the .csv or .parquet file. space: whose choices its columns are, a name or a .py file;
    that of the search, where it has --space. observed: the column of accuracies in percent, or
    what comes before _0, _1, ... if there is one for each seed. true: the column of true ones.

    Raises:
        OptionError: no such table; a column or a point of the space is missing; a row is there
            twice, or holds no option or no number where it must.
        MissingError: a .parquet file without pyarrow.
    """
    if not path:
        raise OptionError("evaluator table needs a table: --evaluator-option path=FILE.csv")
    file = Path(os.path.expanduser(path))
    return _load(file, _changed(file), space, _changed(Path(space)), observed, true)


@dataclass(frozen=True)
class Known:
    """What a table tells of one network. `seen`: the accuracy of each seed, percent."""

    seen: tuple[float, ...]
    true: float
    metrics: Metrics


class TableEvaluator:
    """The evaluator. `notes`: lines that the user should see before a search."""

    def __init__(
        self, known: Mapping[str, Known], title: str, notes: tuple[str, ...], fingerprint: str
    ) -> None:
        self._known = known
        self.title, self.notes, self.fingerprint = title, notes, fingerprint

    def check(self, arch: Arch) -> None:
        """Do nothing if the arch is in the table.

        Raises:
            EvaluatorError: it is not.
        """
        self._find(arch)

    def evaluate(self, arch: Arch, *, seed: int = 0) -> Metrics:
        """Return `accuracy` of column number `seed` (modulo their number), and the metrics.

        Raises:
            EvaluatorError: the arch is not in the table.
        """
        known = self._find(arch)
        return {**known.metrics, "accuracy": known.seen[seed % len(known.seen)]}

    def truth(self, arch: Arch) -> float:
        """Return the true accuracy in percent: the mean over the seeds, where none is given.

        Raises:
            EvaluatorError: the arch is not in the table.
        """
        return self._find(arch).true

    def _find(self, arch: Arch) -> Known:
        if arch.id not in self._known:
            name = self.title.partition(":")[0]
            raise EvaluatorError(
                f"{arch.name} {arch.id} is in no row of {name}: search the space that the table "
                "was made of, at its resolution and with its classes"
            )
        return self._known[arch.id]


@dataclass(frozen=True)
class _Columns:
    """What the columns of a table are for; the observed ones in the order of their seeds."""

    choices: tuple[str, ...]
    observed: tuple[str, ...]
    true: str | None
    metrics: tuple[str, ...]
    useless: tuple[str, ...]


@lru_cache(maxsize=4)
def _load(
    path: Path, changed: int, space_name: str, written: int, observed: str, true: str
) -> TableEvaluator:
    """Return the table of a file; a process decodes its rows once, 0.1 ms each."""
    space = registry.export("spaces", space_name, "SPACE")
    if not isinstance(space, Space):
        raise OptionError(f"SPACE of {space_name} must be a nas.interfaces.Space")
    rows = read_rows(path)
    columns = _columns(path, rows, space, observed, true)
    points = _points(path, rows, space)
    known = _known(path, rows, points, columns, space)
    if absent := _absent(points, known.keys(), space):
        raise OptionError(
            f"{path} lacks {absent} of space {space.name}, and a search may propose any: add them, "
            "take options out of the space, or give it a `valid` that is false for them"
        )
    notes = [f"{path}: no metrics are in {', '.join(columns.useless)}"] * bool(columns.useless)
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return TableEvaluator(known, _title(path, len(rows), len(known), columns), tuple(notes), digest)


def _changed(path: Path) -> int:
    """Return when a file was changed, 0 if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _title(path: Path, rows: int, networks: int, columns: _Columns) -> str:
    seeds = len(columns.observed)
    trainings = "1 training" if seeds == 1 else f"{seeds} trainings"
    truth = ", true values known" if columns.true else ""
    return f"table {path.name}: {rows:,} rows, {networks:,} networks, {trainings} of each{truth}"


def _columns(path: Path, rows: list[Row], space: Space, observed: str, true: str) -> _Columns:
    """Return what the columns are for.

    Raises:
        OptionError: one is missing, or two things at once; accuracies are in two kinds of columns.
    """
    names = _names(path, rows)
    for choice in space.choices:
        if choice not in names:
            raise OptionError(
                f"{path} has no column {choice!r}{did_you_mean(choice, names)}, a choice of space "
                f"{space.name}; it has {', '.join(names)}"
            )
    seeds = _seeds(names, observed)
    if not seeds or (observed in names and len(seeds) > 1):
        problem = "accuracies in both {} and" if seeds else "no accuracies in {} or"
        raise OptionError(
            f"{path} has {problem.format(observed)} {observed}_0, ...: give one column, or one for "
            f"each seed, and name it by --evaluator-option observed=NAME; it has {', '.join(names)}"
        )
    _check_roles(path, space, seeds, true)
    others = [name for name in names if name not in {*space.choices, *seeds, true}]
    metrics = tuple(name for name in others if _is_metric(rows, name))
    useless = tuple(name for name in others if name not in metrics)
    meant = true if true in names else None
    return _Columns(tuple(space.choices), seeds, meant, metrics, useless)


def _check_roles(path: Path, space: Space, seeds: Collection[str], true: str) -> None:
    """Check that no column is two things at once.

    Raises:
        OptionError: one is.
    """
    for name in (*seeds, true):
        option = "true" if name == true else "observed"
        if name in space.choices:
            raise OptionError(
                f"{path}: {name} is a choice of space {space.name}, and no accuracy: name another "
                f"column by --evaluator-option {option}=NAME"
            )
    if true in seeds:
        raise OptionError(
            f"{path}: {true} cannot be both what a search sees and the true accuracy: give another "
            "--evaluator-option true=NAME, or true=none"
        )


def _names(path: Path, rows: list[Row]) -> list[str]:
    """Return the columns of a table.

    Raises:
        OptionError: it has no rows, or a row is longer than the first line.
    """
    if not rows:
        raise OptionError(
            f"{path} has no rows: a line of names, and one for each point, are expected"
        )
    for line, row in enumerate(rows, 2):
        if None in row:
            raise OptionError(f"{path}, row {line} has more cells than there are columns")
    return list(rows[0])


def _seeds(names: list[str], observed: str) -> tuple[str, ...]:
    """Return the columns of accuracies in the order of their seeds."""
    pattern = re.compile(re.escape(observed) + r"_(\d+)")
    found = {name: int(match[1]) for name in names if (match := pattern.fullmatch(name))}
    return (observed,) * (observed in names) + tuple(sorted(found, key=lambda name: found[name]))


def _is_metric(rows: list[Row], column: str) -> bool:
    """Tell whether a column holds a number in every row, and is called as a metric may be."""
    free = column not in {*RECORD, "accuracy"}
    return free and all(number(row[column]) is not None for row in rows)


def _points(path: Path, rows: list[Row], space: Space) -> list[Choices]:
    """Return the point of each row.

    Raises:
        OptionError: a cell holds no option of its choice, or a point is there twice.
    """
    points: list[Choices] = []
    first: dict[tuple[Option, ...], int] = {}
    options = {name: _Options(found) for name, found in space.choices.items()}
    for line, row in enumerate(rows, 2):
        point: Choices = {}
        for name, known in options.items():
            option = known(row[name])
            if option is None:
                raise OptionError(
                    f"{path}, row {line}: {name} is {row[name]!r}, which is none of the options "
                    f"{', '.join(map(str, space.choices[name]))} of space {space.name}"
                )
            point[name] = option
        before = first.setdefault(tuple(point.values()), line)
        if before != line:
            raise OptionError(
                f"{path}, row {line} is the point of row {before} again: give trainings with "
                "several seeds as columns of one row, accuracy_0, accuracy_1, ..."
            )
        points.append(point)
    return points


class _Options:
    """The options of a choice, found by what a cell holds."""

    def __init__(self, options: Sequence[Option]) -> None:
        self._options, self._found = options, dict[str, Option | None]()

    def __call__(self, cell: object) -> Option | None:
        text = str(cell).strip()
        if text not in self._found:
            same = (option for option in self._options if _is(option, text))
            self._found[text] = next(same, None)
        return self._found[text]


def _is(option: Option, text: str) -> bool:
    if isinstance(option, bool):
        return text.lower() in (("true", "1") if option else ("false", "0"))
    return text == option if isinstance(option, str) else number(text) == option


def _known(
    path: Path, rows: list[Row], points: list[Choices], columns: _Columns, space: Space
) -> dict[str, Known]:
    """Return what is told of each network, by arch id; of several rows the first counts.

    Raises:
        OptionError: a row decodes to something impossible, or its accuracies are not in percent.
    """
    known: dict[str, Known] = {}
    for line, (row, point) in enumerate(zip(rows, points, strict=True), 2):
        found = _read(path, line, row, columns)
        if space.valid and not space.valid(point):
            continue
        try:
            known.setdefault(decode(space, point).id, found)
        except ArchError as error:
            raise OptionError(f"{path}, row {line}: {error}") from error
    if max((value for each in known.values() for value in each.seen), default=100.0) <= 1:
        raise OptionError(
            f"{path}: no {columns.observed[0]} is above 1, but percents are expected: multiply "
            "by 100"
        )
    return known


def _read(path: Path, line: int, row: Row, columns: _Columns) -> Known:
    """Return what a row tells.

    Raises:
        OptionError: an accuracy is none in percent.
    """
    names = (*columns.observed, columns.true) if columns.true else columns.observed
    found = {name: number(row[name]) for name in names}
    for name, value in found.items():
        if value is None or not 0 <= value <= 100:
            raise OptionError(
                f"{path}, row {line}: {name} is {row[name]!r}, where an accuracy in percent "
                "is expected"
            )
    seen = tuple(float(row[name]) for name in columns.observed)
    true = float(row[columns.true]) if columns.true else fmean(seen)
    return Known(seen, true, {name: float(row[name]) for name in columns.metrics})


def _absent(points: list[Choices], networks: Collection[str], space: Space) -> str:
    """Return how many valid points of a space are no network of the table, or ""."""
    lacking = space.size - len(points)
    if not lacking or space.size > MOST_POINTS:
        return f"{lacking:,} of the {space.size:,} points" if lacking else ""
    held = {tuple(point.values()) for point in points}
    others = (values for values in product(*space.choices.values()) if values not in held)
    chosen = (dict(zip(space.choices, values, strict=True)) for values in others)
    absent = list(islice((c for c in chosen if not _is_there(space, c, networks)), ENOUGH))
    if not absent:
        return ""
    more = " or more" * (len(absent) == ENOUGH)
    example = ", ".join(f"{name}={option}" for name, option in absent[0].items())
    return f"{len(absent):,}{more} of the {space.size:,} points ({example})"


def _is_there(space: Space, choices: Choices, networks: Collection[str]) -> bool:
    """Tell whether a point need not be in the table, or is there as another point."""
    if space.valid and not space.valid(choices):
        return True
    try:
        return decode(space, choices).id in networks
    except ArchError:
        return True  # never evaluated
