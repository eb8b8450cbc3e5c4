"""Images in parquet, as the Hugging Face hub keeps them: one file, or a folder of shards.

The image column is a struct of `bytes` and `path`, binary, paths of files, or nested lists of
numbers (H, W) or (H, W, 3). The label column holds whole numbers, whose names this file, another
one of the data set or its README.md tells, or words. `nas.data.shards` finds files and splits,
`nas.data.columns` columns and names.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from nas.core.errors import MissingError, OptionError, first_line, install
from nas.data import identity
from nas.data.columns import (
    Chosen,
    Features,
    TableFile,
    choose,
    class_names,
    holds_bytes,
    hub_features,
    is_binary,
    is_text,
)
from nas.data.dataset import Dataset, Index, Split, some, subset
from nas.data.images import Array
from nas.data.shards import Shards, find_shards, shards

# columns can be named: read() takes image_column and label_column
COLUMNS = True
# encoded images of a split up to this many bytes stay in memory once they are read
_KEPT = 4 << 30
_FEW_GROUPS = 4
_UNNAMED, _NAMED, _WORDS = "whole numbers", "names", "words"


@dataclass(frozen=True)
class _Columns:
    """Runs of earlier versions have noted a hash of this repr: fields stay as they are."""

    image: str
    inside: str  # "image.bytes", or "image" where the column is binary itself
    label: str
    classes: tuple[str, ...]  # of whole numbers; () where there are no names


@dataclass(frozen=True)
class _Coded:
    """The labels of a file: for each row a position in `words`, or -1; and of which kind."""

    codes: Index
    words: Sequence[str]
    kind: str


def matches(data: str) -> bool:
    """Return whether this names a parquet file, or a folder that holds some."""
    return bool(shards(Path(data)))


def read(
    data: str, *, download: bool, image_column: str | None = None, label_column: str | None = None
) -> Dataset:
    """Return the images of parquet files; they are read a row group at a time, when first needed.

    Raises:
        MissingError: pyarrow is not installed.
        OptionError: a file is damaged, or has no images or no labels; the message names columns.
    """
    root = Path(data)
    found = find_shards(root)
    files = {name: [_open(path) for path in paths] for name, paths in found.splits.items()}
    first, notes = files["train"][0], list(found.notes)
    folder = first.path.parent
    hub = hub_features(dict.fromkeys((found.home, folder, folder.parent)), folder.name)
    chosen = choose(_all(files), hub, image_column, label_column)
    notes.append(chosen.note())
    names = _names(files, chosen.label, hub)
    coded = {name: _coded(name, of, chosen, names, notes) for name, of in files.items()}
    coded = {name: parts for name, parts in coded.items() if parts}
    classes = _classes(coded["train"], bool(names))
    splits = {}
    for name, parts in coded.items():
        labels = _labels_of(name, parts, classes)
        split = _split(found.home, files[name], labels, chosen.image, notes)
        if len(split):
            splits[name] = split
    title = root.stem if root.is_file() else root.resolve().name
    own, former = _identity(found, files, chosen), _former(files, chosen)
    return Dataset(title, classes, splits, own, tuple(notes), former_fingerprint=former)


def _identity(found: Shards, files: dict[str, list[TableFile]], chosen: Chosen) -> str:
    """Return what the data is: the files, and those whose paths they hold."""
    listed = []
    for name, several in files.items():
        for file in several:
            listed.append(identity.File(file.path, (name, str(file.path.relative_to(found.home)))))
            listed += [identity.File(path, str(path)) for path in _named_files(file, chosen, found)]
    return identity.of_files(listed, chosen.image, chosen.label)


def _named_files(file: TableFile, chosen: Chosen, found: Shards) -> list[Path]:
    """Return the image files that a column of paths names."""
    if not is_text(file.schema.field(chosen.image).type):
        return []
    texts = _table(file, chosen.image).column(chosen.image).to_pylist()
    return [_place(text, file, found.home) for text in texts if text]


def _former(files: dict[str, list[TableFile]], chosen: Chosen) -> str:
    first = files["train"][0]
    inside = chosen.image
    if not is_binary(first.schema.field(inside).type):
        inside = f"{inside}.bytes"
    columns = _Columns(
        chosen.image, inside, chosen.label, class_names(first.features, chosen.label)
    )
    stats = [(f.path.name, f.path.stat()) for f in _all(files)]
    facts = [(name, status.st_size, status.st_mtime_ns) for name, status in stats]
    return identity.fingerprint([columns, *facts])


def _all(files: dict[str, list[TableFile]]) -> list[TableFile]:
    return [file for found in files.values() for file in found]


def _open(path: Path) -> TableFile:
    try:
        from pyarrow import ArrowException
        from pyarrow import parquet as pq
    except ImportError as error:
        raise MissingError(f"parquet is read by pyarrow ({error}): {install('parquet')}") from error
    try:
        with pq.ParquetFile(path) as file:
            return TableFile(path, file.schema_arrow, file.metadata)
    except (OSError, ArrowException) as error:
        raise OptionError(f"cannot read {path}: {first_line(error)}") from error


def _names(files: dict[str, list[TableFile]], label: str, hub: Features) -> tuple[str, ...]:
    """Return the names of the labels that are numbers, for files that lack them; () if unknown.

    Files that name them differently have no names in common.
    """
    known = {class_names(file.features, label) for file in _all(files)} - {()}
    return next(iter(known)) if len(known) == 1 else () if known else class_names(hub, label)


def _coded(
    name: str, files: list[TableFile], chosen: Chosen, names: tuple[str, ...], notes: list[str]
) -> list[_Coded]:
    """Return the labels of a split's files; none of a split that has no labels.

    Raises:
        OptionError: a training file lacks a column, or files have labels of different kinds.
    """
    for column in (chosen.label, chosen.image):
        lacking = next((f for f in files if column not in f.schema.names), None)
        if lacking is not None and name == "train":
            raise OptionError(
                f"{lacking.path} has no column {column}, which {files[0].path.name} has"
            )
        if lacking is not None:
            notes.append(f"left out {name}: {lacking.path.name} has no column {column}")
            return []
    parts = [_labels(file, chosen.label, names) for file in files]
    kinds = {part.kind: file.path for part, file in zip(parts, files, strict=True)}
    if _UNNAMED in kinds and len(kinds) > 1:
        other = next(kind for kind in kinds if kind != _UNNAMED)
        raise OptionError(
            f"column {chosen.label} holds whole numbers in {kinds[_UNNAMED]} and {other} in "
            f"{kinds[other]}: which number is which class is not told"
        )
    return parts


def _labels(file: TableFile, label: str, names: tuple[str, ...]) -> _Coded:
    """Return the labels of a file.

    Raises:
        OptionError: a label that has no name, or is neither a whole number nor a word.
    """
    from pyarrow import compute, types

    column = _table(file, label).column(label)
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_null(kind):
        return _Coded(np.full(len(column), -1), (), _WORDS)
    if types.is_floating(kind) and _whole(column):  # numbers beside missing ones, by pandas
        column, kind = column.cast("int64"), compute.cast(column, "int64").type
    fits = (types.is_integer, is_text, types.is_boolean)
    if not any(fit(kind) for fit in fits):
        raise OptionError(
            f"{file.path}: column {label} holds {column.type}, "
            "but one whole number or word per image is expected"
        )
    own = class_names(file.features, label) or names
    if types.is_integer(kind) and own:
        codes = column.cast("int64").fill_null(-1).to_numpy().astype(np.int64)
        return _Coded(_checked(file, codes, own), own, _NAMED)
    coded = compute.dictionary_encode(column.cast(kind)).combine_chunks()
    words = [str(word) for word in coded.dictionary.to_pylist()]
    codes = coded.indices.fill_null(-1).to_numpy().astype(np.int64)
    if own and not set(words) <= set(own) and all(word.isdecimal() for word in words):
        numbers = np.array([*(int(word) for word in words), -1])
        return _Coded(_checked(file, numbers[codes], own), own, _NAMED)
    return _Coded(codes, words, _UNNAMED if types.is_integer(kind) else _WORDS)


def _whole(column: Any) -> bool:
    values = column.drop_null().to_numpy()
    return bool(np.isfinite(values).all() and (values == np.floor(values)).all())


def _checked(file: TableFile, codes: Index, names: Sequence[str]) -> Index:
    if len(codes) and not (codes.min() >= -1 and codes.max() < len(names)):
        raise OptionError(
            f"{file.path}: labels are {codes.min()}..{codes.max()}, "
            f"but {len(names)} classes have names"
        )
    return codes


def _table(file: TableFile, column: str) -> Any:
    from pyarrow import ArrowException
    from pyarrow import parquet as pq

    try:
        with pq.ParquetFile(file.path, metadata=file.facts) as opened:
            return opened.read(columns=[column])
    except (OSError, ArrowException) as error:
        raise OptionError(f"cannot read {file.path}: {first_line(error)}") from error


def _classes(parts: list[_Coded], named: bool) -> tuple[str, ...]:
    """Return the classes of the training files, in the order of their names or else sorted."""
    names_first = sorted(parts, key=lambda part: part.kind != _NAMED)
    found = dict.fromkeys(word for part in names_first for word in part.words)
    if named or any(part.kind == _NAMED for part in parts):
        return tuple(found)
    try:
        return tuple(sorted(found, key=int))
    except ValueError:
        return tuple(sorted(found))


def _labels_of(name: str, parts: list[_Coded], classes: tuple[str, ...]) -> Index:
    """Return the labels of a split as positions in the classes; -1: no label.

    Raises:
        OptionError: the split has a class that train lacks.
    """
    position = {word: i for i, word in enumerate(classes)}
    labels = []
    for part in parts:
        codes, words = part.codes, part.words
        used = {words[code] for code in np.unique(codes[codes >= 0])}
        if extra := sorted(used - set(classes)):
            raise OptionError(
                f"{name} has classes that train lacks: {some(extra)}; "
                "remove those rows, or add them to train"
            )
        table = np.array([*(position.get(word, -1) for word in words), -1], dtype=np.int64)
        labels.append(table[codes])
    return np.concatenate(labels)


def _split(
    home: Path, files: list[TableFile], labels: Index, image: str, notes: list[str]
) -> Split:
    names = [
        f"{file.path.relative_to(home)} row {row}"
        for file in files
        for row in range(file.facts.num_rows)
    ]
    split = Split(labels, names, _reader(files, image, home))
    if (labels < 0).any():
        notes.append(f"left out {np.count_nonzero(labels < 0):,} rows without a label")
        return subset(split, np.flatnonzero(labels >= 0))
    return split


def _reader(files: list[TableFile], image: str, home: Path) -> Callable[[int], bytes | Array]:
    """Return what reads the encoded image of a row.

    All row groups are kept once read where they fit into memory, else the last few.
    """
    groups = [(file, g) for file in files for g in range(file.facts.num_row_groups)]
    rows = [file.facts.row_group(g).num_rows for file, g in groups]
    starts = [0, *accumulate(rows)]
    sizes = [file.facts.row_group(g).total_byte_size for file, g in groups]
    lock = Lock()

    @lru_cache(maxsize=None if sum(sizes) <= _KEPT else _FEW_GROUPS)
    def group(position: int) -> Any:
        return _images(*groups[position], image)

    def read_row(row: int) -> bytes | Array:
        position = bisect_right(starts, row) - 1
        with lock:
            images = group(position)
        file, _ = groups[position]
        return _encoded(images[row - starts[position]].as_py(), file, home)

    return read_row


def _encoded(value: Any, file: TableFile, home: Path) -> bytes | Array:
    """Return the image of a cell.

    Raises:
        OSError: there is none, or the file that it names cannot be read.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value:
        path = _place(value, file, home)
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise OSError(f"{path} is no file")
        try:
            return path.read_bytes()
        except OSError as error:
            reason = f"the row holds no image bytes, and {value} cannot be read: {error.strerror}"
            raise OSError(reason) from error
    if isinstance(value, list):
        return _of_numbers(value)
    raise OSError("the row holds no image bytes")


def _place(text: str, file: TableFile, home: Path) -> Path:
    """Return the file that a path in a table names, from the table's folder or the data set's."""
    beside = file.path.parent / text
    return beside if beside.exists() else home / text


def _of_numbers(value: list[Any]) -> Array:
    try:
        image = np.array(value)
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
            image = np.moveaxis(image, 0, -1)
        if image.dtype.kind in "iu" and image.size and image.min() >= 0 and image.max() <= 255:
            return np.ascontiguousarray(image.astype(np.uint8))
    except ValueError:  # rows of different lengths
        pass
    raise OSError("the row holds no image: nested lists of whole numbers 0..255 are read")


def _images(file: TableFile, group: int, image: str) -> Any:
    """Return the images of a row group, an arrow column.

    Raises:
        OSError: the file is damaged or gone.
    """
    from pyarrow import ArrowException
    from pyarrow import parquet as pq

    kind = file.schema.field(image).type
    inside = [image]
    if holds_bytes(kind) and not is_binary(kind):
        inside = [f"{image}.{field.name}" for field in kind if field.name in ("bytes", "path")]
    try:
        with pq.ParquetFile(file.path, metadata=file.facts) as opened:
            return opened.read_row_group(group, columns=inside).column(image)
    except (OSError, ArrowException) as error:
        raise OSError(first_line(error)) from error
