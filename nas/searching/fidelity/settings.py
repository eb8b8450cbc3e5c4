"""What decides a proxy check: one field a flag of `nas proxy-check`. Light."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Self

from pydantic import model_validator

from nas.core.errors import OptionError
from nas.core.settings import (
    Count,
    Natural,
    Options,
    Pixels,
    Place,
    Positive,
    Reader,
    Settings,
    Share,
    Switch,
    Word,
    refuse,
    setting,
    whole,
)

WHAT, HOW, MACHINE = "What", "How", "Machine"


def _budgets(value: Any, flag: str) -> list[str]:
    """Return budgets as text; their meaning is checked where the image size is known."""
    if not isinstance(value, list | tuple):
        raise refuse(flag, "a list such as ['4', '8:0.5']", value)
    return [str(each) for each in value]


Budgets = Annotated[list[str], Reader(_budgets, "Sequence[str]", list[str], "<text>")]


class ProxySettings(Settings):
    """Everything that decides a proxy check; `args.yaml` of a run holds these."""

    VERB: ClassVar[str] = "proxy-check"

    data: Place | None = setting(
        None,
        WHAT,
        "Folder of class folders, parquet file or folder, digits, cifar10, flowers102, ...",
    )
    image_column: Word | None = setting(
        None,
        WHAT,
        "Parquet column that holds the images; default by its metadata or name.",
    )
    label_column: Word | None = setting(
        None, WHAT, "Parquet column that holds the labels; default likewise."
    )
    download: Switch = setting(False, WHAT, "Fetch the data set if it is not on this machine yet.")
    space: Place | None = setting(
        None,
        WHAT,
        "Space: a name (`nas ls spaces`) or a path to your .py; default mbconv_small for images "
        "of up to 64 pixels, else mbconv.",
    )
    init: Place | None = setting(
        None,
        WHAT,
        "Weights that every arch inherits, as of a search: pretrained, a run, a file, timm:NAME; "
        "the space is the sub-networks of that net unless --space says otherwise [default: none].",
    )
    imgsz: Pixels | None = setting(
        None,
        WHAT,
        "Pixels a side [default: the space's; of sub-networks each its own].",
        "--img-size",
    )
    archs: Annotated[int, whole(2)] = setting(
        8, WHAT, "Archs to train: random ones, spread over the range of FLOPs."
    )
    target_flops: Count | None = setting(
        None,
        WHAT,
        "Multiply-adds of the search that is planned, such as 5M: archs within 10 % of it "
        "[default: the median of the space].",
        "--target-macs",
    )
    min_flops: Count | None = setting(
        None, WHAT, "Least multiply-adds of an arch, instead of --target-flops."
    )
    max_flops: Count | None = setting(
        None, WHAT, "Most multiply-adds of an arch, instead of --target-flops."
    )
    budget: Budgets = setting(
        [],
        HOW,
        "A short training as epochs[:fraction of the images[:pixels]], such as 4, 8:0.5 or "
        "8:0.5:32; with --init 0 is a linear probe; repeatable [default: 1/8, 1/4 and 1/2 of the "
        "long one; with --init 0, 1 and 3].",
    )
    long_epochs: Positive | None = setting(
        None,
        HOW,
        "Epochs of the long training, which gives the true ranking [default: 16, or as many as a "
        "training needs to tell what an arch gives].",
    )
    seeds: Positive = setting(2, HOW, "Trainings of each arch with each budget.")
    fraction: Share = setting(
        1.0, HOW, "Share of the training images for everything, the long training too."
    )
    threshold: Share = setting(
        0.5,
        HOW,
        "A budget ranks well enough if the lower end of its tau is above this: at 0.5 three of "
        "four pairs are in the right order.",
    )
    recipe: Place = setting("auto", HOW, "Recipe (`nas ls recipes`).")
    recipe_options: Options = setting(
        {}, HOW, "Number or word of the recipe, as name=value; repeatable."
    )
    batch_size: Annotated[int, whole(2)] | None = setting(
        None, HOW, "Images of a step [default: recipe's].", "-b"
    )
    seed: Natural = setting(0, HOW, "Seed of everything random; the splits do not depend on it.")
    device: Word = setting("auto", MACHINE, "auto, cpu, cuda, cuda:1 or mps.")
    workers: Natural | None = setting(
        None, MACHINE, "Processes that read images, where they do not fit into memory.", "-j"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.data:
            raise OptionError(
                "proxy-check needs --data: a folder of class folders, a parquet file, digits, or a "
                "name such as cifar10"
            )
        if self.target_flops and (self.min_flops or self.max_flops):
            raise OptionError(
                "--target-flops takes archs within 10 % of it; leave out --min-flops and "
                "--max-flops"
            )
        if (self.min_flops or 0) > (self.max_flops or math.inf):
            raise OptionError(
                f"--min-flops {self.min_flops} is above --max-flops {self.max_flops}: no arch is "
                "left"
            )
        return self


# may differ between a check and its resumption: where it runs, not what comes out
FREE = ("download", "device", "workers")
