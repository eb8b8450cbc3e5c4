"""The last round of a search that trains: which workers, and with a teacher or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.interfaces import EvaluatorSpec, Executor
from nas.searching import final_teacher
from nas.searching.final_length import Length
from nas.searching.outcome import finals, selection
from nas.searching.outcome.finalists import spec_of_length
from nas.searching.setup import Setup


@dataclass
class Workers:
    """Who evaluates, and how those with another specification are made."""

    executor: Executor
    make: Callable[[EvaluatorSpec], Executor]
    spec: EvaluatorSpec

    def take(self, spec: EvaluatorSpec) -> None:
        """Replace them by workers with a specification, unless they have it."""
        if spec != self.spec:
            self.executor.close()
            self.executor, self.spec = self.make(spec), spec


@dataclass(frozen=True)
class FinalRound:
    """The last round of a run: `stop` tells why no more is begun, "" as long as there is time."""

    setup: Setup
    folder: Path
    workers: Workers
    length: Length
    stop: Callable[[], str]
    say: Callable[[str], None]

    def train(self, entrants: list[finals.Finalist]) -> tuple[list[finals.FinalScore], str]:
        """Train finalists, all alike; return their scores, none unless all are trained, and why."""
        self.workers.take(final_teacher.with_teacher(self._spec, self.setup, self.folder))
        if entrants:
            seeds = "1 seed" if self.setup.final_seeds == 1 else f"{self.setup.final_seeds} seeds"
            nets = "1 net" if len(entrants) == 1 else f"{len(entrants)} nets"
            self.say(f"finals: {nets}, {seeds} each, {self.length}")
        label = final_teacher.label(self.setup, self.length)
        scores, end = self._run(entrants, label)
        return scores if finals.all_trained(self.folder, entrants, label) else [], end

    def train_alone(
        self, scores: Sequence[finals.FinalScore], studies: selection.Studies
    ) -> list[finals.FinalScore]:
        """Train the result and what it is compared with without the teacher; return the scores."""
        by_id = {score.finalist.arch.id: score for score in scores}
        chosen = by_id and selection.select_best(self.setup, *studies, by_id)
        if not chosen or not self.setup.settings.teacher or self.stop():
            return []
        wanted = dict.fromkeys((chosen[0].arch_id, final_teacher.compared_with(self.setup)))
        entrants = [by_id[arch_id].finalist for arch_id in wanted if arch_id in by_id]
        self.workers.take(self._spec)
        self.say(f"without the teacher: {', '.join(each.name for each in entrants)}")
        return self._run(entrants, self.length.label)[0]

    @property
    def _spec(self) -> EvaluatorSpec:
        """Return the evaluator spec of the finals without a teacher."""
        own = self.setup.spec
        return spec_of_length(self.setup, self.length) if self.length.label else own

    def _run(
        self, entrants: list[finals.Finalist], label: str
    ) -> tuple[list[finals.FinalScore], str]:
        return finals.run_finals(
            self.folder,
            entrants,
            self.workers.executor,
            epochs=self.length.epochs,
            seeds=self.setup.final_seeds,
            seed=self.setup.settings.seed,
            timeout_s=self.setup.settings.trial_time_limit or 0.0,
            stop=self.stop,
            say=self.say,
            length=label,
        )
