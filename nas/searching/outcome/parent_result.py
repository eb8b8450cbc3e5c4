"""The result of the parent of a search from weights: its linear probe and fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from nas.evaluation.parent import PROBE_SECONDS, PROBED
from nas.interfaces import SCORED
from nas.searching.outcome.finals import FinalScore
from nas.searching.outcome.selection import StudyPosterior
from nas.searching.result import LinearProbe, ParentResult
from nas.searching.setup import Setup


def parent_result(
    folder: Path, setup: Setup, found: StudyPosterior, final: Mapping[str, FinalScore]
) -> ParentResult | None:
    """Return what the parent gives at the pixels that meet the targets; None without a parent.

    Its linear probe is that of the finals, on all images, or else that of its trial.
    """
    if setup.parent is None:
        return None
    own = ParentResult(source=setup.parent.source, told=setup.parent.told)
    shown = next((r for r in setup.references if r.arch.id in setup.parents and r.fits), None)
    if shown is None:
        return own
    score = final.get(shown.arch.id)
    probe = _probe_of_finals(folder, score) if score else None
    return dataclasses.replace(
        own,
        name=shown.name,
        arch_id=shown.arch.id,
        accuracy=score.mean if score else None,
        accuracy_std=(score.error or None) if score else None,
        probe=probe or _probe_of_trial(found, shown.arch.id),
    )


def _probe_of_finals(folder: Path, score: FinalScore) -> LinearProbe | None:
    from nas.training.probe import read_probe

    found = read_probe(folder / "finals" / score.weights)
    return LinearProbe(accuracy=found.top1, seconds=found.seconds) if found else None


def _probe_of_trial(found: StudyPosterior, arch_id: str) -> LinearProbe | None:
    trials = (t for t in found.trials if t.arch_id == arch_id and t.state in SCORED)
    metrics = next((t.metrics for t in trials if PROBED in t.metrics), None)
    if metrics is None:
        return None
    return LinearProbe(accuracy=metrics[PROBED], seconds=metrics[PROBE_SECONDS])
