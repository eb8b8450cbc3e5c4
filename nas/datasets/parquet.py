"""Images in parquet, as the Hugging Face hub keeps them: one file, or a folder of shards.

The image column is a struct of `bytes` and `path`, or binary; the label column holds whole numbers
with the names of a ClassLabel in the file's metadata, or words. Shards are train-*, validation-*,
test-*, or lie in folders called so; without such names all are training images.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from nas.data.dataset import (
    SPLIT_WORDS,
    SPLITS,
    Dataset,
    Index,
    Split,
    shards,
    some,
    subset,
)
from nas.data.identity import File, fingerprint, of_files
from nas.errors import MissingError, OptionError

# encoded images of a split up to this many bytes stay in memory once they are read
_KEPT = 4 << 30
_FEW_GROUPS = 4
_LABELS = ("label", "labels", "fine_label", "class", "category", "target", "y")


@dataclass(frozen=True)
class _Columns:
    image: str
    inside: str  # "image.bytes", or "image" where the column is binary itself
    label: str
    classes: tuple[str, ...]  # of whole numbers; () where there are no names


def matches(data: str) -> bool:
    """Return whether this names a parquet file, or a folder that holds some."""
    return bool(shards(Path(data)))


def read(data: str, *, download: bool) -> Dataset:
    """Return the images of parquet files; they are read a row group at a time, when first needed.

    Raises:
        MissingError: pyarrow is not installed.
        OptionError: a file is damaged, or has no images or no labels; the message names columns.
    """
    root, notes = Path(data), list[str]()
    files = {name: [_open(path) for path in paths] for name, paths in _by_split(root).items()}
    if "train" not in files:
        raise OptionError(f"{root} has {some(list(files))} files but none called train-*.parquet")
    columns = _columns(files["train"][0])
    coded = {}
    for name, found in files.items():
        lacking = next((f for f in found if columns.label not in f.schema.names), None)
        if lacking is not None and name != "train":
            notes.append(f"left out {name}: {lacking.path.name} has no column {columns.label}")
        else:
            coded[name] = [_labels(file, columns) for file in found]
    classes = _classes(coded["train"], columns)
    splits = {}
    for name, parts in coded.items():
        split = _split(root, files[name], _labels_of(name, parts, classes), columns, notes)
        if len(split):
            splits[name] = split
    facts = [(f.path.name, f.path.stat().st_size, f.path.stat().st_mtime_ns) for f in _all(files)]
    title = root.stem if root.is_file() else root.resolve().name
    former = fingerprint([columns, *facts])
    own = _identity(root, files, columns)
    return Dataset(title, classes, splits, own, tuple(notes), former_fingerprint=former)


def _identity(root: Path, files: dict[str, list[_File]], columns: _Columns) -> str:
    home = root if root.is_dir() else root.parent
    named = ((split, file.path) for split, found in files.items() for file in found)
    listed = (File(path, (split, str(path.relative_to(home)))) for split, path in named)
    return of_files(listed, columns)


@dataclass(frozen=True)
class _File:
    path: Path
    schema: Any  # pyarrow.Schema
    facts: Any  # pyarrow.parquet.FileMetaData


def _all(files: dict[str, list[_File]]) -> list[_File]:
    return [file for found in files.values() for file in found]


def _open(path: Path) -> _File:
    try:
        from pyarrow import ArrowException
        from pyarrow import parquet as pq
    except ImportError as error:
        raise MissingError(
            f"parquet is read by pyarrow ({error}): pip install 'nas[parquet]'"
        ) from error
    try:
        with pq.ParquetFile(path) as file:
            return _File(path, file.schema_arrow, file.metadata)
    except (OSError, ArrowException) as error:
        raise OptionError(f"cannot read {path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:150]


def _by_split(root: Path) -> dict[str, list[Path]]:
    """Return the files of each split; all are for training where none has the name of a split.

    Raises:
        OptionError: there are none, or some have such a name and others have not.
    """
    paths = shards(root)
    words = [_split_word(path, root) for path in paths] if root.is_dir() else [""] * len(paths)
    if not any(words):
        return {"train": paths}
    if not all(words):
        odd = [path.name for path, word in zip(paths, words, strict=True) if not word]
        raise OptionError(
            f"{root}: it is not plain which split {some(odd)} belongs to: name it train-*, "
            "validation-* or test-*, or move it away"
        )
    named = [SPLIT_WORDS[word] for word in words]
    if "eval" in named:
        spare = "val" if "test" in named else "test"
        named = [spare if name == "eval" else name for name in named]
    found = {name: [p for p, n in zip(paths, named, strict=True) if n == name] for name in SPLITS}
    return {name: several for name, several in found.items() if several}


def _split_word(path: Path, root: Path) -> str:
    """Return the word that names the split of a shard, or ""."""
    words = [re.split(r"[-_.]", path.name.lower())[0]]
    if path.parent != root:
        words.append(path.parent.name.lower())
    return next((word for word in words if word in SPLIT_WORDS), "")


def _columns(file: _File) -> _Columns:
    """Return which columns hold images and labels.

    Raises:
        OptionError: none does; the message lists the columns.
    """
    features = _features(file)
    image = next((n for n, f in features.items() if _type(f) == "Image"), None)
    image = image or next((field.name for field in file.schema if _holds_images(field.type)), None)
    named = [n for n, f in features.items() if _type(f) == "ClassLabel"]
    usual = [n for n in _LABELS if n in file.schema.names]
    label = next((n for n in usual if n in named or not named), next(iter(named), None))
    if image is None or label is None or not _holds_images(file.schema.field(image).type):
        lacks = "labels" if image is not None else "images"
        raise OptionError(
            f"{file.path} has no column of {lacks} among {some(file.schema.names)}: an image "
            "column (a struct with bytes, or binary) and one called label are expected"
        )
    inside = image if _is_binary(file.schema.field(image).type) else f"{image}.bytes"
    return _Columns(image, inside, label, _names(file, label))


def _features(file: _File) -> dict[str, Any]:
    """Return what the Hugging Face hub wrote about the columns; {} where it wrote nothing."""
    try:
        text = (file.schema.metadata or {})[b"huggingface"]
        found = json.loads(text)["info"]["features"]
        return {name: found[name] for name in found if name in file.schema.names}
    except (LookupError, ValueError, TypeError):
        return {}


def _type(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _names(file: _File, label: str) -> tuple[str, ...]:
    feature = _features(file).get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(f.name == "bytes" and _is_binary(f.type) for f in kind)
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _labels(file: _File, columns: _Columns) -> tuple[Index, Sequence[str]]:
    """Return for each row a position in the words that follow; -1: no label.

    Raises:
        OptionError: a label that has no name, or is neither a whole number nor a word.
    """
    from pyarrow import compute, types

    column = _table(file, columns.label).column(columns.label)
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    fits = (types.is_integer, types.is_string, types.is_large_string, types.is_boolean)
    if not any(fit(kind) for fit in fits):
        raise OptionError(
            f"{file.path}: column {columns.label} holds {column.type}, "
            "but one whole number or word per image is expected"
        )
    if names := _names(file, columns.label) if types.is_integer(kind) else ():
        codes = column.cast("int64").fill_null(-1).to_numpy().astype(np.int64)
        if len(codes) and not (codes.min() >= -1 and codes.max() < len(names)):
            raise OptionError(
                f"{file.path}: labels are {codes.min()}..{codes.max()}, "
                f"but {len(names)} classes have names"
            )
        return codes, names
    coded = compute.dictionary_encode(column.cast(kind)).combine_chunks()
    words = [str(word) for word in coded.dictionary.to_pylist()]
    return coded.indices.fill_null(-1).to_numpy().astype(np.int64), words


def _table(file: _File, column: str) -> Any:
    from pyarrow import ArrowException
    from pyarrow import parquet as pq

    try:
        with pq.ParquetFile(file.path, metadata=file.facts) as opened:
            return opened.read(columns=[column])
    except (OSError, ArrowException) as error:
        raise OptionError(f"cannot read {file.path}: {_first_line(error)}") from error


def _classes(parts: list[tuple[Index, Sequence[str]]], columns: _Columns) -> tuple[str, ...]:
    """Return the classes of the training files, in the order of their names or else sorted."""
    found = dict.fromkeys(word for _, words in parts for word in words)
    if columns.classes:
        return tuple(found)
    try:
        return tuple(sorted(found, key=int))
    except ValueError:
        return tuple(sorted(found))


def _labels_of(
    name: str, parts: list[tuple[Index, Sequence[str]]], classes: tuple[str, ...]
) -> Index:
    """Return the labels of a split as positions in the classes; -1: no label.

    Raises:
        OptionError: the split has a class that train lacks.
    """
    position = {word: i for i, word in enumerate(classes)}
    labels = []
    for codes, words in parts:
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
    root: Path, files: list[_File], labels: Index, columns: _Columns, notes: list[str]
) -> Split:
    home = root if root.is_dir() else root.parent
    names = [
        f"{file.path.relative_to(home)} row {row}"
        for file in files
        for row in range(file.facts.num_rows)
    ]
    split = Split(labels, names, _reader(files, columns))
    if (labels < 0).any():
        notes.append(f"left out {np.count_nonzero(labels < 0):,} rows without a label")
        return subset(split, np.flatnonzero(labels >= 0))
    return split


def _reader(files: list[_File], columns: _Columns) -> Callable[[int], bytes]:
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
        return _images(*groups[position], columns)

    def read_row(row: int) -> bytes:
        position = bisect_right(starts, row) - 1
        with lock:
            images = group(position)
        found = images[row - starts[position]].as_py()
        if not isinstance(found, bytes):
            raise OSError("the row holds no image bytes")
        return found

    return read_row


def _images(file: _File, group: int, columns: _Columns) -> Any:
    """Return the encoded images of a row group, an arrow column.

    Raises:
        OSError: the file is damaged or gone.
    """
    from pyarrow import ArrowException, compute
    from pyarrow import parquet as pq

    try:
        with pq.ParquetFile(file.path, metadata=file.facts) as opened:
            column = opened.read_row_group(group, columns=[columns.inside]).column(columns.image)
    except (OSError, ArrowException) as error:
        raise OSError(_first_line(error)) from error
    return column if columns.inside == columns.image else compute.struct_field(column, "bytes")
