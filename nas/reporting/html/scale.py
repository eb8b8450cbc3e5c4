"""The page of a family: the rule, what was asked, what rounding left of it, what it costs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from nas.core.run_folder import ARGS
from nas.core.units import format_bytes, format_count
from nas.models.arch import Arch
from nas.models.compound import RULES
from nas.reporting.html import charts_family, family, fit
from nas.reporting.html.axes import plot
from nas.reporting.html.drawing import block
from nas.reporting.html.markup import MarkupTable, Page, command, date, escape, raised, signed
from nas.reporting.terminal.scale import rounding_misses
from nas.scaling.result import FamilyBase, Member, ScaleResult
from nas.scaling.settings import COEFFICIENTS, SHAPED


def page(result: ScaleResult, env: Mapping[str, Any], beside: Sequence[ScaleResult] = ()) -> Page:
    """Return the page of a family; `beside`: comparable ones, by other rules."""
    base, members = result.baseline, result.members
    phis = [member.phi for member in members]
    reach = f"{len(members)} nets, φ {_phi(min(phis))} to {_phi(max(phis))}"
    title = f"Family of {base.name}: {reach if len(phis) > 1 else f'φ {_phi(phis[0])}'}"
    facts = [
        ("Base", result.base),
        (
            "Costs",
            f"{format_count(base.flops)} multiply-adds, "
            f"{format_count(base.params)} parameters at {base.arch.resolution} px",
        ),
        ("Rule", result.rule),
        ("Coefficients", coefficients(result)),
        *_origin(result),
        ("Started", date(env)),
        ("Repeat", command(*_words(result))),
    ]
    context = {
        "run": str(result.run),
        "facts": facts,
        "rule": _rule(result.rule),
        "fit": fit.section(result.fit),
        "trained": family.section(result, beside),
        "family": _members(result),
        "stages": _stages(result),
    }
    return Page("scale.html", title, context)


def coefficients(result: ScaleResult) -> str:
    """Return the coefficients with their product, or that the rule reads none."""
    if result.rule not in SHAPED:
        return "the rule reads no coefficients"
    alpha, beta, gamma = (getattr(result, name) for name in COEFFICIENTS)
    product = alpha * beta**2 * gamma**2
    return f"α = {alpha:g}, β = {beta:g}, γ = {gamma:g}; α·β²·γ² = {product:.3f}"


def _origin(result: ScaleResult) -> list[tuple[str, str]]:
    """Return where the coefficients come from; families of earlier versions do not tell."""
    found = result.coefficients
    return [("They are", found.origin)] if found else []


def _members(result: ScaleResult) -> dict[str, object]:
    """Return the table and the curves of a family, and what rounding missed."""
    base, members = result.baseline, result.members
    first = (charts_family.BASE, 1.0, base.flops_ratio, base.flops, base.params)
    nets = [] if any(m.phi == 0 for m in members) else [first]
    nets += [(m.name, m.two_to_phi, m.flops_ratio, m.flops, m.params) for m in members]
    names, ideal, real, flops, params = zip(*nets, strict=True)
    growth = charts_family.growth_chart(names, ideal, real)
    size = charts_family.size_chart(names, flops, params)
    lost = rounding_misses(result)
    return {
        "table": _table(result),
        "lost": raised(f"{lost[:1].upper()}{lost[1:]}.") if lost else "",
        "growth": plot(growth),
        "size": plot(size),
    }


def _table(result: ScaleResult) -> MarkupTable:
    head = ["net", "φ", "depth", "width", "resolution", "pixels", "params", "FLOPs", "× base"]
    head += [raised("2^φ"), "off", "activations", "memory/image", "fixed"]
    base = result.baseline
    first = ["base", "0", "1", "1", "1", base.arch.resolution, *_costs(base, 1.0)]
    return MarkupTable(head, [first, *(_line(result, m) for m in result.members)], label="Family")


def _line(result: ScaleResult, member: Member) -> list[object]:
    both = [(member.depth, member.rounded_depth), (member.width, member.rounded_width)]
    changes = [_change(asked, left) for asked, left in both]
    asked = result.gamma**member.phi if result.rule == "formula" else None
    changes.append(_change(asked, member.rounded_resolution))
    costs = _costs(member, member.two_to_phi)
    return [member.name, _phi(member.phi), *changes, member.resolution, *costs]


def _phi(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _change(asked: float | None, left: float) -> str:
    """Return what was asked for and what rounding left, or one number where they agree."""
    before, after = (f"{value:.2f}" if value else "" for value in (asked, left))
    return after if before in ("", after) else f"{before} → {after}"


def _costs(row: FamilyBase | Member, ideal: float) -> list[object]:
    ratio = row.flops_ratio
    return [
        format_count(row.params),
        format_count(row.flops),
        f"{ratio:.2f}",
        f"{ideal:.4g}",
        f"{signed(100 * (ratio / ideal - 1), 1)} %",
        format_count(row.activations),
        format_bytes(row.training_bytes_per_image),
        format_bytes(row.training_bytes),
    ]


def _rule(name: str) -> list[Markup]:
    """Return what a rule says of itself, without its lists."""
    if name not in RULES:
        return []
    paragraphs = (inspect.getdoc(RULES[name]) or "").split("\n\n")
    said = (" ".join(text.split()) for text in paragraphs if not text.startswith("Raises:"))
    return [_formula(text) for text in said]


def _formula(text: str) -> Markup:
    """Return Python's way of writing a formula as a book would."""
    for name, letter in (("alpha", "α"), ("beta", "β"), ("gamma", "γ"), ("phi", "φ")):
        text = re.sub(rf"\b{name}\b", letter, text)
    powers = re.sub(r"\*\*(\w[\w.]*\b|\([^)]*\))", r"<sup>\1</sup>", str(escape(text)))
    return Markup(powers.replace(" * ", "·"))


def _words(result: ScaleResult) -> list[str]:
    if result.fit or result.trained_on:
        return ["nas", "scale", "--config", f"{result.run}/{ARGS}"]
    words = ["nas", "scale", result.base, "--phi", str(result.phi)]
    words += ["--rule", result.rule]
    if result.rule in SHAPED:
        for name in COEFFICIENTS:
            words += [f"--{name}", f"{getattr(result, name):g}"]
    return [*words, "--fixed-ends"] if result.fixed_ends else words


def _stages(result: ScaleResult) -> MarkupTable:
    """Return the stages of every member: what scaling keeps, and channels × layers of each."""
    archs = [result.baseline.arch, *(member.arch for member in result.members)]
    names = ["base", *(member.name for member in result.members)]
    kept = [", ".join(block(stage)) for stage in archs[0].stages]
    columns = [_shapes(arch) for arch in archs]
    labels = ["input", "stem", *(f"stage {n + 1}" for n in range(len(kept))), "head", "dropout"]
    kinds = ["pixels", f"conv k{archs[0].stem.kernel}", *kept, "channels", ""]
    rows = [list(row) for row in zip_longest(labels, kinds, *columns, fillvalue="")]
    return MarkupTable(
        ["stage", "blocks", *names], rows, left=(0, 1), label="Stages of the members"
    )


def _shapes(arch: Arch) -> Sequence[str]:
    stages = [f"{stage.channels} × {stage.layers}" for stage in arch.stages]
    head = str(arch.head.channels or arch.stages[-1].channels)
    return [
        f"{arch.resolution}²",
        str(arch.stem.channels),
        *stages,
        head,
        f"{arch.head.dropout:.2f}",
    ]


def in_search(result: ScaleResult, same: bool) -> dict[str, object]:
    """Return the family as a section of its search; `same` tells if the base is its winner."""
    return {
        "rule": result.rule,
        "coefficients": coefficients(result),
        "run": str(result.run),
        "same": same,
        "members": _members(result),
    }
