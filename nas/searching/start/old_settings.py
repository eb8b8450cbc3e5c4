"""Defaults of earlier versions, for runs that were started with them and are read or resumed.

Until the recipe `auto` came, an args.yaml did not name the recipe where none was asked for. Until
searches could start from weights it said nothing of `init`, and all candidates began with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.evaluation.parent import NONE
from nas.searching.settings import TRAINS

EPOCHS = 4  # of a candidate


def search_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a search run with what it took for granted."""
    args = {"init": NONE, **args}  # before there were weights to start from
    trains = args.get("data") and args.get("evaluator") in TRAINS
    if not trains or args.get("recipe"):
        return dict(args)
    return {**args, "recipe": "proxy", "epochs": args.get("epochs") or EPOCHS}


def scale_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a scale run with what it took for granted."""
    found = dict(args)
    if args.get("train") and not args.get("recipe"):
        found["recipe"] = "efficientnet"
    if args.get("fit") and not args.get("fit_recipe"):
        found |= {"fit_recipe": "proxy", "fit_epochs": args.get("fit_epochs") or EPOCHS}
    return found
