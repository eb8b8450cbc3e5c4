"""The command resume: go on with a search, a training, a scaling or a proxy check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.commands import data, scale, search, train
from nas.cli.flags import Json, Quiet
from nas.core.errors import OptionError


def resume(
    run: Annotated[
        Path, typer.Argument(help="A run of search, train, scale or proxy-check: folder or name.")
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Go on with a run, with the settings of its args.yaml."""
    from nas.core.run_folder import ARGS, find, read_args
    from nas.scaling.setup import BASE

    run = find(run, ("search", "train", "scale", "proxy-check")).resolve()
    if not (run / ARGS).is_file():
        raise OptionError(f"{run} is no run: it holds no {ARGS}; `nas ls runs` lists the runs")
    args = read_args(run)
    member = "arch" in args and (run.parent / BASE).is_file()
    verb = "train" if member else run.parent.name
    place: dict[str, Any] = {"project": run.parent.parent, "name": run.name, "resume": True}
    if verb == "search":
        return search.attend(as_json, quiet, **place)
    if verb == "proxy-check":
        return data.attend_check(as_json, quiet, **place, **args)
    if verb == "train":
        from nas.training.train import go_on

        return train.attend(as_json, quiet, lambda **watched: go_on(run, {}, **watched))
    if verb == "scale":
        from nas.scaling.scale import go_on as scale_on

        return scale.attend(as_json, quiet, lambda **watched: scale_on(run, {}, **watched))
    raise OptionError(f"{run} is of `nas {verb}`: only search, train, scale and proxy-check go on")
