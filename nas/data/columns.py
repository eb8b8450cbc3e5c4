"""Which columns of a table hold images and labels, and the names of labels that are numbers.

What the Hugging Face hub wrote into the files or into README.md and dataset_info.json decides; then
usual names; then what is inside.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nas.core.errors import NasError, OptionError
from nas.data.dataset import some
from nas.data.images import decode

_IMAGES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
_PATHS = ("file_name", "filename", "file", "path", "image_path", "filepath", "file_path")
_LABELS = (
    *("label", "labels", "fine_label", "class", "category", "target", "y"),
    *("class_name", "label_name", "class_id", "label_id"),
)
_TRIED = 4  # values of a column that are decoded to see whether it holds images
Features = Mapping[str, Any]


@dataclass(frozen=True)
class TableFile:
    """An opened parquet file: its path, pyarrow's schema, pyarrow's parquet metadata."""

    path: Path
    schema: Any
    facts: Any

    @property
    def features(self) -> Features:
        """Return what the hub wrote about the columns; {} where it wrote nothing."""
        try:
            text = (self.schema.metadata or {})[b"huggingface"]
            found = json.loads(text)["info"]["features"]
            return {name: found[name] for name in found if name in self.schema.names}
        except (LookupError, ValueError, TypeError):
            return {}


@dataclass(frozen=True)
class Chosen:
    """The columns that are read, and the other ones that could be."""

    image: str
    label: str
    other_images: tuple[str, ...] = ()
    other_labels: tuple[str, ...] = ()

    def note(self) -> str:
        """Return in a sentence which columns are read."""
        text = f"images from column {self.image}, labels from column {self.label}"
        others = {"image": self.other_images, "label": self.other_labels}
        more = (f"; also there: {some(names)} (--{kind}-column)" for kind, names in others.items())
        return text + "".join(m for m, names in zip(more, others.values(), strict=True) if names)


def choose(
    files: Sequence[TableFile], hub: Features, image: str | None, label: str | None
) -> Chosen:
    """Return the columns to read: those that are named, else those that the files tell of.

    Raises:
        OptionError: none is there, or it is not plain which; the message names the flag.
    """
    first = files[0]
    declared = {**{name: f for file in files for name, f in file.features.items()}, **hub}
    declared = {name: f for name, f in declared.items() if name in first.schema.names}
    images = _image_candidates(first, declared)
    labels = _label_candidates(first, declared)
    chosen_image = _named(first, image, "image") or _one_image(first, images)
    chosen_label = _named(first, label, "label") or _one_label(first, labels)
    return Chosen(
        chosen_image,
        chosen_label,
        tuple(n for n in images if n != chosen_image and (n in declared or n.lower() in _IMAGES)),
        tuple(name for name in labels if name not in (chosen_label, chosen_image)),
    )


def _named(file: TableFile, name: str | None, kind: str) -> str | None:
    """Return the column that was asked for, if any.

    Raises:
        OptionError: there is none of that name, or an image column holds no images.
    """
    if name is None or (name in file.schema.names and (kind == "label" or _may_hold(file, name))):
        return name
    there = name in file.schema.names
    problem = f"it holds {file.schema.field(name).type}" if there else "there is no such column"
    raise OptionError(
        f"--{kind}-column {name}: {problem} in {file.path}; it has {some(file.schema.names, 20)}"
    )


def _image_candidates(file: TableFile, declared: Features) -> list[str]:
    held = [name for name in file.schema.names if _may_hold(file, name)]
    said = [name for name in held if _type(declared.get(name)) == "Image"]
    if said:
        return said
    binary = [name for name in held if holds_bytes(file.schema.field(name).type)]
    return binary or [name for name in held if name.lower() in (*_IMAGES, *_PATHS)]


def _one_image(file: TableFile, names: list[str]) -> str:
    usual = [n for word in (*_IMAGES, *_PATHS) for n in names if n.lower() == word]
    if usual or len(names) == 1:
        return (usual or names)[0]
    readable = [name for name in names if _decodes(file, name)]
    if len(readable) == 1:
        return readable[0]
    if names:
        raise OptionError(
            f"{file.path}: {some(names)} may all hold the images: name one with --image-column"
        )
    raise OptionError(
        f"{file.path} has no column of images among {some(file.schema.names)}: a struct with "
        "bytes, or binary, is expected; name another with --image-column"
    )


def _label_candidates(file: TableFile, declared: Features) -> list[str]:
    said = [name for name, feature in declared.items() if _type(feature) == "ClassLabel"]
    usual = [n for word in _LABELS for n in file.schema.names if n.lower() == word]
    first = [name for name in usual if name in said or not said]
    return list(dict.fromkeys([*first, *said, *usual]))


def _one_label(file: TableFile, names: list[str]) -> str:
    usual = [name for name in names if name.lower() in _LABELS]
    if (usual and usual[0] == names[0]) or len(names) == 1:
        return names[0]
    if names:
        raise OptionError(
            f"{file.path}: {some(names)} are all labels: name one with --label-column"
        )
    raise OptionError(
        f"{file.path} has no column of labels among {some(file.schema.names)}: one called label "
        "is expected; name another with --label-column"
    )


def _type(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, Mapping) else ""


def _may_hold(file: TableFile, name: str) -> bool:
    """Tell whether a column can hold images: bytes, paths of files, or nested lists of numbers."""
    kind = file.schema.field(name).type
    return holds_bytes(kind) or is_text(kind) or (is_list(kind) and is_list(kind.value_type))


def holds_bytes(kind: Any) -> bool:
    """Tell whether a type is binary, or a struct with bytes."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(f.name == "bytes" and is_binary(f.type) for f in kind)
    return is_binary(kind)


def is_binary(kind: Any) -> bool:
    """Tell whether a type is binary of any size."""
    from pyarrow import types

    wide = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(test(kind) for test in (*wide, types.is_fixed_size_binary))


def is_text(kind: Any) -> bool:
    """Tell whether a type is text of any size."""
    from pyarrow import types

    tests = (types.is_string, types.is_large_string, types.is_string_view)
    return any(test(kind) for test in tests)


def is_list(kind: Any) -> bool:
    """Tell whether a type is a list of any size."""
    from pyarrow import types

    return any(t(kind) for t in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _decodes(file: TableFile, name: str) -> bool:
    """Tell whether one of the first values of a column is an image."""
    from pyarrow import ArrowException
    from pyarrow import parquet as pq

    try:
        with pq.ParquetFile(file.path) as opened:
            batch = next(opened.iter_batches(_TRIED, columns=[name]), None)
    except (OSError, ArrowException):
        return False
    for value in batch.column(0).to_pylist() if batch is not None else ():
        data = value.get("bytes") if isinstance(value, dict) else value
        try:
            return isinstance(data, bytes) and decode(data).size > 0
        except (NasError, MemoryError):
            raise
        except Exception:  # no image
            continue
    return False


def class_names(features: Features, label: str) -> tuple[str, ...]:
    """Return the names of a ClassLabel; () where there are none."""
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, Mapping) else None
    if isinstance(names, Mapping):  # README.md has {"0": "cat", "1": "dog"}
        try:
            names = [names[key] for key in sorted(names, key=int)]
        except (TypeError, ValueError):
            return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def hub_features(folders: Iterable[Path], configuration: str) -> dict[str, Any]:
    """Return the features that a data set's README.md or dataset_info.json tells of, if any.

    Of several configurations those of the one that is read.
    """
    for folder in folders:
        for read in (_of_readme, _of_info):
            try:
                found = read(folder, configuration)
            except (OSError, ValueError, TypeError, AttributeError, LookupError, yaml.YAMLError):
                continue
            if found:
                return found
    return {}


def _of_readme(folder: Path, configuration: str) -> dict[str, Any]:
    with (folder / "README.md").open(encoding="utf-8") as file:
        text = file.read(1 << 20)
    if not text.startswith("---"):
        return {}
    infos = yaml.safe_load(text.split("---", 2)[1])["dataset_info"]
    return _features_of(_configured(infos, configuration)["features"])


def _of_info(folder: Path, configuration: str) -> dict[str, Any]:
    path = folder / "dataset_info.json"
    path = path if path.exists() else folder / "dataset_infos.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    if "features" not in data:  # one for each configuration
        data = data[configuration] if configuration in data else next(iter(data.values()))
    return dict(data["features"])


def _configured(infos: Any, configuration: str) -> Any:
    if isinstance(infos, list):
        named = [info for info in infos if info.get("config_name") == configuration]
        return (named or infos)[0]
    return infos


def _features_of(listed: Any) -> dict[str, Any]:
    """Return features as parquet files have them, from the short form of README.md."""
    found = {}
    for item in listed:
        kind = item.get("dtype")
        if kind == "image":
            found[item["name"]] = {"_type": "Image"}
        elif isinstance(kind, Mapping) and "class_label" in kind:
            found[item["name"]] = {"_type": "ClassLabel", **kind["class_label"]}
    return found
