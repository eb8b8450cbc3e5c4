"""A member's place in its family, at the end of its model card."""

from __future__ import annotations

from nas.core.quoting import command, markdown
from nas.core.units import format_bytes, format_count
from nas.scaling.result import Member, MemberTraining, ScaleResult

FAMILY = "## Its family"


def placed(text: str, result: ScaleResult, member: Member, found: MemberTraining) -> str:
    """Return a card with a member's place in its family at the end, in place of an earlier one."""
    lines = _family(result, member, found)
    return "\n".join([text.partition(FAMILY)[0].rstrip(), "", *lines]) + "\n"


def _family(result: ScaleResult, member: Member, found: MemberTraining) -> list[str]:
    memory = "not measured" if found.memory_bytes is None else format_bytes(found.memory_bytes)
    others = ", ".join(other.name for other in result.members)
    home = f"{result.run}/{found.member}"
    rounded, asked = member.rounded, member.requested
    return [
        FAMILY,
        "",
        f"Member {member.name} (φ = {member.phi:g}) of the family of "
        f"{markdown(result.baseline.name)} by the rule {result.rule}: {others}.",
        "",
        f"- depth × {rounded.depth:.3g}, width × {rounded.width:.3g}, "
        f"resolution × {rounded.resolution:.3g} of the base; asked for were "
        f"{asked.depth:.3g}, {asked.width:.3g} and {asked.resolution:.3g}",
        f"- {format_count(member.flops)} multiply-adds, {member.flops_ratio:.2f} times the "
        f"base's (2^φ = {member.two_to_phi:.4g})",
        f"- latency of one image {found.latency_ms:.2f} ms (p10 {found.latency_p10_ms:.2f}, "
        f"p90 {found.latency_p90_ms:.2f}), on "
        f"{found.latency_device}; trained on {found.place or 'this machine'}, {found.device}",
        f"- memory of the training {memory}; estimate {format_bytes(found.memory_estimate)} in "
        "float32",
        "",
        "```bash",
        command("nas", "export", home, "--format", "onnx"),
        "```",
    ]
