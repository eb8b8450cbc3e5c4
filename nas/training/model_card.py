"""README.md of a trained model: what it is, how good on which images, how to use it."""

from __future__ import annotations

from collections.abc import Sequence

from nas.core.quoting import command, markdown
from nas.core.units import format_count
from nas.training.recipe import Recipe
from nas.training.result import TrainResult

MOST_CLASSES = 20  # named in the text; config.json has all


def write(result: TrainResult, recipe: Recipe) -> str:
    """Return the card of a training's result, as Markdown."""
    return "\n".join([*_head(result, recipe), "", *_scores(result), "", *_use(result)]) + "\n"


def _head(result: TrainResult, recipe: Recipe) -> list[str]:
    names = result.classes
    more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    return [
        f"# {markdown(result.arch)} on {markdown(result.data)}",
        "",
        f"An image classifier of {len(names)} classes: {_listed(names)}{more}.",
        "",
        f"- arch {markdown(result.arch)} (id {result.arch_id}): "
        f"{format_count(result.params)} params, "
        f"{format_count(result.flops)} multiply-adds at {result.imgsz} pixels",
        f"- trained {result.epochs_done} epochs on {result.splits['train']} images with the "
        f"recipe {recipe.name} ({recipe.source})",
        *([f"- {markdown(result.teacher.text)}"] if result.teacher else []),
        *_probe(result),
        "- the weights are those of the linear probe, the best on the val split"
        if result.probe and not result.best_epoch
        else f"- the weights are those of epoch {result.best_epoch}, the best on the val split",
        *([f"- **{result.warning}**"] if result.warning else []),
    ]


def _probe(result: TrainResult) -> list[str]:
    """Return what a linear probe of the weights that it started from gave."""
    found = result.probe
    if not found:
        return []
    return [
        f"- a linear probe (features as they came, {found.statistics} norm statistics) gave "
        f"{found.top1:.2f} % on val"
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(markdown(name) for name in names[:MOST_CLASSES])


def _scores(result: TrainResult) -> list[str]:
    fifth = len(result.classes) > 5  # of five or fewer it is 100 %
    head = ["split", "images", "top-1 %", *["top-5 %"] * fifth]
    rows = [_line(head), _line(["---"] * len(head))]
    for split, found in result.scores:
        top1 = f"{found.top1:.2f} ±{found.standard_error:.2f}"
        rows.append(_line([split, found.n, top1, *[f"{found.top5:.2f}"] * fifth]))
    return [
        *rows,
        "",
        "± is the standard error from the number of images. The val split chose the epoch; the "
        "test split was read once, at the end.",
    ]


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _use(result: TrainResult) -> list[str]:
    return [
        "Weights: `weights/best.safetensors`; arch, classes and preprocessing: `config.json`.",
        "",
        "```bash",
        f"{command('nas', 'predict', str(result.run))} IMAGE",
        "```",
        "",
        "```python",
        "from nas.training.trained import load_trained",
        "",
        f"model, config = load_trained({str(result.run)!r})",
        "```",
    ]
