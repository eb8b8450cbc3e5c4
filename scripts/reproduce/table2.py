"""Reproduce Tables 1 and 2 of Tan and Le 2019: EfficientNet-B0's stages, and the family B0 to B7.

Published: arXiv 1905.11946v5. Ours is counted from the scaled archs: FLOPs are multiply-adds of
convolutions and linear layers. Beside the released members stands what the formula gives.

    python scripts/reproduce/table2.py
    python scripts/reproduce/table2.py --out table2.csv
"""

from __future__ import annotations

import paper_table
from paper_table import Figure

from nas.models import compound, cost
from nas.models.arch import Arch
from nas.models.load import load_arch

BASE = "efficientnet_b0"
# Table 1, v5: operator, pixels of a side, channels, layers
STAGES = (
    ("Conv3x3", 224, 32, 1),
    ("MBConv1, k3x3", 112, 16, 1),
    ("MBConv6, k3x3", 112, 24, 2),
    ("MBConv6, k5x5", 56, 40, 2),
    ("MBConv6, k3x3", 28, 80, 3),
    ("MBConv6, k5x5", 14, 112, 3),
    ("MBConv6, k5x5", 14, 192, 4),
    ("MBConv6, k3x3", 7, 320, 1),
    ("Conv1x1 & Pooling & FC", 7, 1280, 1),
)
STAGE_NOTES = {6: "v1 prints 28 x 28, v5 14 x 14, which stage 5's stride gives"}
# Table 2, v5: #params, #FLOPS
FAMILY = (
    ("5.3M", "0.39B"),
    ("7.8M", "0.70B"),
    ("9.2M", "1.0B"),
    ("12M", "1.8B"),
    ("19M", "4.2B"),
    ("30M", "9.9B"),
    ("43M", "19B"),
    ("66M", "37B"),
)
COUNTED = (
    "FLOPs are multiply-adds, as in the paper. Counters that add batch norm and the like tell 392M "
    "to 399M of B0, those that count a multiply and an add as two 772M."
)
LOW = "printed below any count of the net at its released resolution"
PARAM_NOTES = {2: "9.2M only with batch norm's running statistics counted"}
FLOPS_NOTES = {1: "686.8M by every counter", 4: LOW, 5: LOW, 7: LOW}
STAGE_COLUMNS = ("stage", "operator", "published", "ours", "agree", "params", "FLOPs", "note")
FORMULA_COLUMNS = ("phi", "formula", "params", "FLOPs", "x B0", "2^phi", "nearest release")


def main(arguments: list[str] | None = None) -> None:
    given = paper_table.parser(__doc__).parse_args(arguments)
    paper_table.show("Table 1: EfficientNet-B0, stage by stage", STAGE_COLUMNS, stages())
    paper_table.present("Table 2: the family, rule `released`", family(), given.out, COUNTED)
    paper_table.show(
        "The formula beside it: 1.2, 1.1, 1.15 to the power of phi",
        FORMULA_COLUMNS,
        formula(),
        "The number after the B is not phi: B2 is phi 1. 1.2 x 1.1^2 x 1.15^2 is 1.920, not 2; "
        "whole layers and channels in eights add cost.",
    )


def stages() -> list[list[str]]:
    """Return Table 1: size, channels and layers as printed and as built, and what they cost."""
    arch = load_arch(BASE)
    layers = [1, *(stage.layers for stage in arch.stages), 1]
    rows = []
    for number, (found, depth, (operator, *printed)) in enumerate(
        zip(cost.stages(arch), layers, STAGES, strict=True), 1
    ):
        ours = [found.size[0], found.channels, depth]
        agree = "yes" if ours == printed else "no"
        costs = [f"{found.params:,}", f"{found.flops / 1e6:.3f}M"]
        shown = [_stage(*printed), _stage(*ours), agree, *costs]
        rows.append([str(number), operator, *shown, STAGE_NOTES.get(number, "")])
    return rows


def _stage(pixels: int, channels: int, layers: int) -> str:
    return f"{pixels} x {pixels}, {channels} channels, {layers} layer{'s' * (layers > 1)}"


def family() -> list[Figure]:
    """Return params and FLOPs of B0 to B7, by the rule `released`, beside Table 2."""
    rows = []
    members = compound.family(load_arch(BASE), range(8), rule="released")
    for number, (member, (params, flops)) in enumerate(zip(members, FAMILY, strict=True)):
        found, setting = cost.count(member.arch), _setting(member.arch, member.requested)
        note = PARAM_NOTES.get(number, "")
        if note:
            note += f": {(found.params + found.buffers) / 1e6:.2f}M"
        rows.append(Figure(f"B{number}", setting, "params", params, found.params, note))
        note = FLOPS_NOTES.get(number, "")
        rows.append(Figure(f"B{number}", setting, "FLOPs", flops, found.flops, note))
    return rows


def _setting(arch: Arch, asked: compound.Multipliers) -> str:
    return f"d {asked.depth:.3g} w {asked.width:.3g} {arch.resolution} px"


def formula() -> list[list[str]]:
    """Return what the formula gives for phi 0 to 7, and the release nearest to it in FLOPs."""
    base = load_arch(BASE)
    released = {
        f"B{member.phi:g}": cost.count(member.arch).flops
        for member in compound.family(base, range(8), rule="released")
    }
    rows = []
    for member in compound.family(base, range(8)):
        found = cost.count(member.arch)
        near = min(released, key=lambda name: abs(released[name] / found.flops - 1))
        ratio = found.flops / cost.count(base).flops
        costs = [f"{found.params / 1e6:.3f}M", f"{found.flops / 1e9:.3f}B", f"{ratio:.2f}"]
        setting = _setting(member.arch, member.requested)
        end = [f"{2**member.phi:g}", f"{near} {released[near] / 1e9:.3f}B"]
        rows.append([f"{member.phi:g}", setting, *costs, *end])
    return rows


if __name__ == "__main__":
    main()
