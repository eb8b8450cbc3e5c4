"""A folder that needs torch and safetensors, not nas: model.py for this arch, and its weights.

model.py spells the network out layer by layer; its few modules are copied from nas. The folder is
run in a fresh interpreter in which nas cannot be imported.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.core.errors import ArchError
from nas.core.quoting import command
from nas.core.units import format_count
from nas.exporting import plain
from nas.exporting.request import ExportRequest, answers_apart, harmless
from nas.models import cost, modules
from nas.models.arch import Arch, Block
from nas.models.build import feature_info
from nas.models.layers import Conv, Dropout, GlobalPool, Layer, Linear, Pool, SqueezeExcite
from nas.training.checkpoint import write_weights

FILE = "standalone"
MODEL, WEIGHTS, README = "model.py", "model.safetensors", "README.md"
_NOT_COPIED = {"norm", "initialise", "initialise_classifier"}


def check(request: ExportRequest) -> None:
    """Refuse what cannot be written out.

    Raises:
        ArchError: a layer is not of nas.models.layers, but by an op of the user's own.
    """
    _build(request)


def write(request: ExportRequest, path: Path) -> None:
    """Write the folder: model.py, model.safetensors and README.md."""
    path.mkdir()
    (path / MODEL).write_text(source(request), encoding="utf-8")
    weights = request.model.state_dict()
    if request.features_only:
        weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
    write_weights(path / WEIGHTS, weights)
    (path / README).write_text(_readme(request), encoding="utf-8")


def run(path: Path, batches: Sequence[Tensor], request: ExportRequest) -> list[list[Tensor]]:
    """Return what the folder answers in a fresh interpreter without nas."""
    return answers_apart(path, "from model import load\nmodel = load()", batches)


def hint(path: Path, request: ExportRequest) -> list[str]:
    """Return the lines that use the folder."""
    if _sees(request):
        return [f"{command('python', path / MODEL)} IMAGE"]
    return ["import sys", f"sys.path.insert(0, {str(path)!r})", *_LOAD]


def _sees(request: ExportRequest) -> bool:
    """Tell whether the network takes what is in an image file."""
    return request.arch.in_channels == 3


def source(request: ExportRequest) -> str:
    """Return model.py."""
    facts = request.facts
    title = (
        f"{harmless(request.arch.name)}: {format_count(facts['params'])} params, "
        f"{format_count(facts['multiply_adds'])} multiply-adds at {request.arch.resolution} pixels."
    )
    constants = {
        "CLASSES": [str(name) for name in facts["classes"]],
        "INPUT_SIZE": tuple(facts["input_size"]),
        "MEAN": tuple(float(value) for value in facts["mean"]),
        "STD": tuple(float(value) for value in facts["std"]),
        "CROP_PCT": float(facts["crop_pct"]),
        "DECODING": facts.get("decoding") or {},
    }
    parts = [
        f'"""{title}\n\nNeeds torch and safetensors. {_takes(request)}\n"""',
        _imports(request),
        "\n".join(f"{name} = {value!r}" for name, value in constants.items()),
        *_copied(modules),
        *_copied(plain, set() if _sees(request) else {"read_image", "to_rgb"}),
        _norm(request.arch),
        _build(request),
        _LOADS,
        *([_MAIN] if _sees(request) else []),
    ]
    return "\n\n\n".join(parts) + "\n"


_LOAD = ["from model import load", "model = load()"]


def _imports(request: ExportRequest) -> str:
    used = ["math"] * (request.arch.norm.kind == "group") + ["sys"] * _sees(request)
    return _IMPORTS.format(
        used="".join(f"import {name}\n" for name in used),
        typed="from typing import Any\n" * _sees(request),
    )


_IMPORTS = """from __future__ import annotations

{used}from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
{typed}
import torch
from safetensors.torch import load_file
from torch import Tensor, nn"""

_LOADS = '''def load(folder: str | Path = Path(__file__).parent) -> Network:
    """Return the network with its weights, ready to use."""
    model = build()
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return model.eval()'''

_MAIN = '''@torch.inference_mode()
def main() -> int:
    """Tell the likeliest classes of the images that are named; return 1 if one cannot be read."""
    model, failed = load(), 0
    ready = nn.Identity() if isinstance(model.normalise, Normalise) else Normalise(MEAN, STD)
    for path in sys.argv[1:] or sys.exit("usage: python model.py IMAGE ..."):
        try:
            image = read_image(path, INPUT_SIZE[-1], CROP_PCT, **DECODING)
        except (OSError, ValueError, SyntaxError) as error:
            print(f"{path} cannot be read: {error}", file=sys.stderr)
            failed = 1
            continue
        answer = model(ready(image))
        if isinstance(answer, list):
            print(path, *(tuple(found.shape) for found in answer))
            continue
        values, places = answer.softmax(1)[0].topk(min(5, answer.shape[1]))
        names = [CLASSES[i] if CLASSES else str(i) for i in places.tolist()]
        print(path, *(f"{n} {100 * v:.1f} %" for n, v in zip(names, values.tolist())), sep="  ")
    return failed


if __name__ == "__main__":
    sys.exit(main())'''


def _copied(module: Any, without: Set[str] = frozenset()) -> list[str]:
    """Return the definitions of one of our modules as text."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for node in ast.parse(text).body:
        skipped = isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)
        if skipped or getattr(node, "name", "") in _NOT_COPIED | without:
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        found.append("\n".join(lines[first - 1 : node.end_lineno]))
    return found


def _norm(arch: Arch) -> str:
    rule = arch.norm
    made = f"nn.BatchNorm2d(channels, {rule.eps}, {rule.momentum})"
    if rule.kind == "group":
        made = f"nn.GroupNorm(channels // math.gcd(channels, 8), channels, {rule.eps})"
    return f"def norm(channels: int) -> nn.Module:\n    return {made}"


def _build(request: ExportRequest) -> str:
    """Return the function that builds the network, one line a layer."""
    arch = request.arch
    style = (arch.norm, arch.activation)
    stem = _chain(cost.stem_layers(arch.stem, arch.in_channels, *style, arch.padding), 1)
    head = _chain(cost.head_layers(arch.head, arch.stages[-1].channels, *style), 1)
    infos = feature_info(arch)
    lines = [
        "def build() -> Network:",
        f'    """Return the network with fresh weights. Maps: {_maps(infos)}."""',
        f"    stem = {stem}",
        "    stages = [",
        *_stages(arch),
        "    ]",
        f"    head = {'None' if request.features_only else head}",
        f"    taps = {[info['stage'] for info in infos]}",
        f"    normalise = {'Normalise(MEAN, STD)' if request.preprocessing else 'None'}",
        "    return Network(stem, stages, head, taps, normalise)",
    ]
    return "\n".join(lines)


def _stages(arch: Arch) -> list[str]:
    total, done = len(arch.blocks()), 0
    lines: list[str] = []
    for index, stage in enumerate(arch.stages):
        lines += [f"        # stage {index + 1}: {stage.op}", "        nn.Sequential("]
        for block, repeats in arch.runs(index):
            drops = [arch.stochastic_depth * (done + i) / total for i in range(repeats)]
            lines.append(_residuals(block, drops))
            done += repeats
        lines.append("        ),")
    return lines


def _residuals(block: Block, drops: list[float]) -> str:
    """Return the text of equal blocks that differ in their stochastic depth alone."""
    body, side = cost.body(block), cost.shortcut(block)
    shortcut = "nn.Identity()" if block.skip == "identity" else "None"
    if side:
        shortcut = _module(side)
    once = len(drops) == 1
    rate = repr(drops[0]) if once else "rate"
    made = f"Residual({_chain(body.main, 3)}, {shortcut}, {body.after!r}, {rate})"
    if once:
        return f"            {made},"
    lines = ["*(", f"    {made}", f"    for rate in {drops}", "),"]
    return "\n".join(f"            {line}" for line in lines)


def _chain(layers: Sequence[Layer], depth: int) -> str:
    """Return the text of layers in a row, with the names that the weights have."""
    pad = "    " * (depth + 1)
    rows = [
        f"{pad}{type(layer).__name__.lower()}{place}={_module(layer)},\n"
        for place, layer in enumerate(layers)
    ]
    return f"chain(\n{''.join(rows)}{'    ' * depth})"


def _module(layer: Layer) -> str:
    if type(layer) not in _TEXTS:
        raise ArchError(
            f"--format standalone cannot write out the layer {type(layer).__name__}; "
            "export with --format onnx or pt2"
        )
    return _TEXTS[type(layer)](layer)


def _conv(layer: Conv) -> str:
    words = [str(layer.inputs), str(layer.outputs)]
    words += [f"{n}={v}" for n in ("kernel", "stride", "groups") if (v := getattr(layer, n)) != 1]
    words += ["same=True"] if layer.copies else []
    words += [f"norm=norm({layer.outputs})"] if layer.norm else []
    words += [f'act="{layer.activation}"'] if layer.activation else []
    return f"conv({', '.join(words)})"


def _pool(layer: Pool) -> str:
    if layer.kind == "max":
        return f"nn.MaxPool2d(3, {layer.stride}, 1)"
    return f"nn.AvgPool2d(3, {layer.stride}, 1, count_include_pad=False)"


def _linear(layer: Linear) -> str:
    made = f"nn.Linear({layer.inputs}, {layer.outputs})"
    return f'nn.Sequential({made}, activation("{layer.activation}"))' if layer.activation else made


def _squeeze(layer: SqueezeExcite) -> str:
    words = f'{layer.channels}, {layer.squeezed}, "{layer.activation}", "{layer.gate}"'
    return f"SqueezeExcite({words})"


_TEXTS: dict[type, Callable[[Any], str]] = {
    Conv: _conv,
    SqueezeExcite: _squeeze,
    Pool: _pool,
    GlobalPool: lambda _: "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())",
    Dropout: lambda layer: f"nn.Dropout({layer.rate})",
    Linear: _linear,
}


def _maps(infos: Sequence[dict[str, Any]]) -> str:
    """Return which maps there are, in words."""
    return ", ".join(f"{info['num_chs']} channels at 1/{info['reduction']}" for info in infos)


def _takes(request: ExportRequest) -> str:
    kind = "uint8 RGB" if request.preprocessing else "normalised by MEAN and STD"
    shape = ", ".join(map(str, ["N", *request.facts["input_size"]]))
    gives = "a list of maps" if request.features_only else "logits"
    return f"Images ({shape}), {kind}, give {gives}."


def _start(request: ExportRequest) -> str:
    if _sees(request):
        return "    pip install torch safetensors pillow\n    python model.py IMAGE"
    return "    pip install torch safetensors"


def _readme(request: ExportRequest) -> str:
    facts = request.facts
    first = "Trained weights" if facts["trained"] else "Fresh, untrained weights"
    return (
        f"# {harmless(request.arch.name)}\n\n{first}. {_takes(request)}\n\n"
        f"{_start(request)}\n\n"
        "```python\nfrom model import load\n\nmodel = load()  # a plain torch module\n"
        "maps = model.features(images)\n```\n\n"
        f"Written by nas {facts['nas']}. Of it, in JSON:\n\n"
        f"```json\n{json.dumps(facts, indent=1, ensure_ascii=False)}\n```\n"
    )
