"""What decides a proxy check: one field a flag of `nas proxy-check`. Light."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.core.errors import OptionError, did_you_mean
from nas.core.settings import flag
from nas.core.units import parse_count, parse_number

WHAT, HOW, MACHINE = "What", "How", "Machine"


@dataclass(frozen=True)
class ProxySettings:
    """Everything that decides a proxy check; `args.yaml` of a run holds these."""

    data: str | None = flag(
        None,
        WHAT,
        "Folder of class folders, parquet file or folder, digits, cifar10, flowers102, ...",
    )
    image_column: str | None = flag(
        None,
        WHAT,
        "Parquet column that holds the images; default by its metadata or name.",
    )
    label_column: str | None = flag(
        None, WHAT, "Parquet column that holds the labels; default likewise."
    )
    download: bool = flag(False, WHAT, "Fetch the data set if it is not on this machine yet.")
    space: str | None = flag(
        None,
        WHAT,
        "Space: a name (`nas ls spaces`) or a path to your .py; default mbconv_small for images "
        "of up to 64 pixels, else mbconv.",
    )
    imgsz: int | None = flag(None, WHAT, "Pixels a side [default: the space's].")
    archs: int = flag(8, WHAT, "Archs to train: random ones, spread over the range of FLOPs.")
    target_flops: int | None = flag(
        None,
        WHAT,
        "Multiply-adds of the search that is planned, such as 5M: archs within 10 % of it "
        "[default: the median of the space].",
    )
    min_flops: int | None = flag(
        None, WHAT, "Least multiply-adds of an arch, instead of --target-flops."
    )
    max_flops: int | None = flag(
        None, WHAT, "Most multiply-adds of an arch, instead of --target-flops."
    )
    budget: list[str] = flag(
        [],
        HOW,
        "A short training as epochs[:fraction of the images[:pixels]], such as 4, 8:0.5 or "
        "8:0.5:32; repeatable [default: 1/8, 1/4 and 1/2 of the long one].",
    )
    long_epochs: int | None = flag(
        None,
        HOW,
        "Epochs of the long training, which gives the true ranking [default: 16, or as many as a "
        "training needs to tell what an arch gives].",
    )
    seeds: int = flag(2, HOW, "Trainings of each arch with each budget.")
    fraction: float = flag(
        1.0, HOW, "Share of the training images for everything, the long training too."
    )
    threshold: float = flag(
        0.5,
        HOW,
        "A budget ranks well enough if the lower end of its tau is above this: at 0.5 three of "
        "four pairs are in the right order.",
    )
    recipe: str = flag("auto", HOW, "Recipe (`nas ls recipes`).")
    recipe_options: dict[str, Any] = flag(
        {}, HOW, "Number or word of the recipe, as name=value; repeatable."
    )
    batch_size: int | None = flag(None, HOW, "Images of a step [default: recipe's].")
    seed: int = flag(0, HOW, "Seed of everything random; the splits do not depend on it.")
    device: str = flag("auto", MACHINE, "auto, cpu, cuda, cuda:1 or mps.")
    workers: int | None = flag(
        None, MACHINE, "Processes that read images, where they do not fit into memory."
    )


# may differ between a check and its resumption: where it runs, not what comes out
FREE = ("download", "device", "workers")
_LEAST = {
    "imgsz": 32,
    "archs": 2,
    "long_epochs": 1,
    "seeds": 1,
    "batch_size": 2,
    "seed": 0,
    "workers": 0,
}
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("data", "space", "recipe", "device"), (str, "a word")),
    "download": (bool, "true or false"),
    "recipe_options": (dict, "a mapping of names to values"),
}


def proxy_settings_from(given: Mapping[str, Any]) -> ProxySettings:
    """Return settings from flags as typed or a file; None means the default.

    Raises:
        OptionError: an unknown setting or a malformed value.
    """
    known = {f.name for f in dataclasses.fields(ProxySettings)}
    for key in given:
        if key not in known:
            raise OptionError(
                f"proxy-check has no setting {key!r}{did_you_mean(key, known)}; "
                f"it has {', '.join(sorted(known))}"
            )
    found = ProxySettings(**{k: _checked(k, v) for k, v in given.items() if v is not None})
    if not found.data:
        raise OptionError(
            "proxy-check needs --data: a folder of class folders, a parquet file, digits, or a "
            "name such as cifar10"
        )
    if found.target_flops and (found.min_flops or found.max_flops):
        raise OptionError(
            "--target-flops takes archs within 10 % of it; leave out --min-flops and --max-flops"
        )
    if (found.min_flops or 0) > (found.max_flops or float("inf")):
        raise OptionError(
            f"--min-flops {found.min_flops} is above --max-flops {found.max_flops}: no arch is left"
        )
    return found


def _checked(key: str, value: Any) -> Any:
    """Return a value of its field's kind."""
    if key in _LEAST:
        return _whole(key, value, _LEAST[key])
    if key in ("target_flops", "min_flops", "max_flops"):
        return parse_count(value, _name(key))
    if key in ("fraction", "threshold"):
        return _share(key, value)
    if key == "budget":
        return _texts(value)
    kind, words = _KINDS[key]
    if not isinstance(value, kind):
        raise OptionError(f"{_name(key)} takes {words}, not {value!r}")
    return value


def _whole(key: str, value: Any, least: int) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or not least <= int(text) < 2**32 - 1:
        raise OptionError(f"{_name(key)} takes a whole number of at least {least}, not {value!r}")
    return int(text)


def _share(key: str, value: Any) -> float:
    share = parse_number(value, _name(key))
    if isinstance(value, bool) or not 0 < share <= 1:
        raise OptionError(f"{_name(key)} takes a number above 0 and up to 1, not {value!r}")
    return share


def _texts(value: Any) -> list[str]:
    """Return budgets as text; their meaning is checked where the image size is known."""
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise OptionError(f"--budget takes a list such as ['4', '8:0.5'], not {value!r}")
    return [str(each) for each in value]


def _name(key: str) -> str:
    """Return the flag of a setting."""
    return "--" + key.replace("_", "-").replace("-options", "-option")
