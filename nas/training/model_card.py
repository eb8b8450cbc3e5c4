"""README.md of a trained model: what it is, how good on which images, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.core.quoting import command, markdown
from nas.core.units import format_bytes, format_count
from nas.training.diagnosis import FIELD
from nas.training.recipe import Recipe

FAMILY = "## Its family"
MOST_CLASSES = 20  # named in the text; config.json has all


def write(result: Mapping[str, Any], recipe: Recipe) -> str:
    """Return the card of a training's result, as Markdown."""
    return "\n".join([*_head(result, recipe), "", *_scores(result), "", *_use(result)]) + "\n"


def _head(result: Mapping[str, Any], recipe: Recipe) -> list[str]:
    names = result["classes"]
    more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    return [
        f"# {markdown(result['arch'])} on {markdown(result['data'])}",
        "",
        f"An image classifier of {len(names)} classes: {_listed(names)}{more}.",
        "",
        f"- arch {markdown(result['arch'])} (id {result['arch_id']}): "
        f"{format_count(result['params'])} params, "
        f"{format_count(result['flops'])} multiply-adds at {result['imgsz']} pixels",
        f"- trained {result['epochs_done']} epochs on {result['splits']['train']} images with the "
        f"recipe {recipe.name} ({recipe.source})",
        f"- the weights are those of epoch {result['best_epoch']}, the best on the val split",
        *([f"- **{result[FIELD]}**"] if result[FIELD] else []),
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(markdown(name) for name in names[:MOST_CLASSES])


def _scores(result: Mapping[str, Any]) -> list[str]:
    fifth = len(result["classes"]) > 5  # of five or fewer it is 100 %
    head = ["split", "images", "top-1 %", *["top-5 %"] * fifth]
    rows = [_line(head), _line(["---"] * len(head))]
    for split in ("val", "test"):
        found = result[split]
        top1 = f"{found['top1']:.2f} ±{found['standard_error']:.2f}"
        rows.append(_line([split, found["n"], top1, *[f"{found['top5']:.2f}"] * fifth]))
    return [
        *rows,
        "",
        "± is the standard error from the number of images. The val split chose the epoch; the "
        "test split was read once, at the end.",
    ]


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _use(result: Mapping[str, Any]) -> list[str]:
    return [
        "Weights: `weights/best.safetensors`; arch, classes and preprocessing: `config.json`.",
        "",
        "```bash",
        f"{command('nas', 'predict', result['run'])} IMAGE",
        "```",
        "",
        "```python",
        "from nas.training.trained import load_trained",
        "",
        f"model, config = load_trained({result['run']!r})",
        "```",
    ]


def placed(text: str, result: Mapping[str, Any], member: Mapping[str, Any]) -> str:
    """Return a card with a member's place in its family at the end, in place of an earlier one."""
    return "\n".join([text.partition(FAMILY)[0].rstrip(), "", *_family(result, member)]) + "\n"


def _family(result: Mapping[str, Any], member: Mapping[str, Any]) -> list[str]:
    found, base = member["training"], result["baseline"]
    memory = format_bytes(found["memory_bytes"]) if "memory_bytes" in found else "not measured"
    others = ", ".join(other["name"] for other in result["members"])
    home = f"{result['run']}/{found['member']}"
    return [
        FAMILY,
        "",
        f"Member {member['name']} (φ = {member['phi']:g}) of the family of "
        f"{markdown(base['name'])} by the "
        f"rule {result['rule']}: {others}.",
        "",
        f"- depth × {member['rounded_depth']:.3g}, width × {member['rounded_width']:.3g}, "
        f"resolution × {member['rounded_resolution']:.3g} of the base; asked for were "
        f"{member['depth']:.3g}, {member['width']:.3g} and {member['requested_resolution']:.3g}",
        f"- {format_count(member['flops'])} multiply-adds, {member['flops_ratio']:.2f} times the "
        f"base's (2^φ = {member['two_to_phi']:.4g})",
        f"- latency of one image {found['latency_ms']:.2f} ms (p10 {found['latency_p10_ms']:.2f}, "
        f"p90 {found['latency_p90_ms']:.2f}), on "
        f"{found['latency_device']}; trained on {found['place'] or 'this machine'}, "
        f"{found['device']}",
        f"- memory of the training {memory}; estimate {format_bytes(found['memory_estimate'])} in "
        "float32",
        "",
        "```bash",
        command("nas", "export", home, "--format", "onnx"),
        "```",
    ]
