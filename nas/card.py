"""README.md of a trained model: what it is, how good on which images, how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.training.recipe import Recipe
from nas.units import format_count

MOST_CLASSES = 20  # named in the text; config.json has all


def write(result: Mapping[str, Any], recipe: Recipe) -> str:
    """Return the card of a training's result, as Markdown."""
    return "\n".join([*_head(result, recipe), "", *_scores(result), "", *_use(result)]) + "\n"


def _head(result: Mapping[str, Any], recipe: Recipe) -> list[str]:
    names = result["classes"]
    more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    return [
        f"# {result['arch']} on {result['data']}",
        "",
        f"An image classifier of {len(names)} classes: {', '.join(names[:MOST_CLASSES])}{more}.",
        "",
        f"- arch {result['arch']} (id {result['arch_id']}): {format_count(result['params'])} "
        f"params, {format_count(result['flops'])} multiply-adds at {result['imgsz']} pixels",
        f"- trained {result['epochs']} epochs on {result['splits']['train']} images with the "
        f"recipe {recipe.name} ({recipe.source})",
        f"- the weights are those of epoch {result['best_epoch']}, the best on the val split",
    ]


def _scores(result: Mapping[str, Any]) -> list[str]:
    rows = ["| split | images | top-1 % | top-5 % |", "|---|---|---|---|"]
    for split in ("val", "test"):
        found = result[split]
        rows.append(
            f"| {split} | {found['n']} | {found['top1']:.2f} ±{found['standard_error']:.2f} "
            f"| {found['top5']:.2f} |"
        )
    return [
        *rows,
        "",
        "± is the standard error from the number of images. The val split chose the epoch; the "
        "test split was read once, at the end.",
    ]


def _use(result: Mapping[str, Any]) -> list[str]:
    return [
        "Weights: `weights/best.safetensors`; arch, classes and preprocessing: `config.json`.",
        "",
        "```bash",
        f"nas predict {result['run']} IMAGE",
        "```",
        "",
        "```python",
        "from nas.training.trained import load_trained",
        "",
        f'model, config = load_trained("{result["run"]}")',
        "```",
    ]
