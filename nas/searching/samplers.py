"""Adapters that make an Optuna sampler of a proposal function or of another sampler, resumable.

A resumed search must go on as if it had never stopped. So nothing that a sampler draws may depend
on what this process drew before: the randomness of a trial comes from (seed, trial number), and
all other state from the finished trials in the journal.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.core.errors import OptionError
from nas.core.registry import guard
from nas.interfaces import Choices, Option, Space, Trial
from nas.searching.studies.study import trial_of

# Constraint violation of a point: at most 0 where it is feasible, within the hard limits.
Violation = Callable[[Choices], float]


def no_violation(choices: Choices) -> float:
    """Return 0: there are no constraints."""
    return 0.0


# Prior mean of the accuracy of each point (n,), as a score of any unit.
Prior = Callable[[Sequence[Choices]], npt.NDArray[np.float64]]


def no_prior(points: Sequence[Choices]) -> npt.NDArray[np.float64]:
    """Return 0 for each: a flat prior."""
    return np.zeros(len(points))


MIN_POPULATION = 6  # of the controllers that keep one
Key = tuple[Option, ...]


def key_of(choices: Choices) -> Key:
    """Return a hashable key, equal for equal points."""
    return tuple(choices.values())


class Past(NamedTuple):
    """What a proposal may depend on, in the order in which the trials finished.

    `done`: the evaluated points with their rewards (of two objectives the first). `seen`: all that
    have finished, failed and rejected ones too, and `archs` the ids of their networks. `trials`:
    those that were evaluated or stopped early. `pending`: the points that were proposed and have no
    result yet.
    """

    done: list[tuple[Choices, float]]
    seen: set[Key]
    archs: set[str]
    trials: list[Trial]
    pending: list[Choices]

    def proposed(self) -> set[Key]:
        """Return all points that were proposed, finished or pending."""
        return self.seen | {key_of(choices) for choices in self.pending}

    @property
    def flying(self) -> list[Choices]:
        """Return `pending` by the name of before, which users' controllers read."""
        return self.pending

    def taken(self) -> set[Key]:
        """Return `proposed()` by the name of before."""
        return self.proposed()


def no_past() -> Past:
    """Return the past of a search before its first trial."""
    return Past([], set(), set(), [], [])


Propose = Callable[[Past, random.Random], Choices]
# Draws a random point of a space, in a search one of those that its target is about.
Draw = Callable[[Space, random.Random], Choices]


def random_choices(space: Space, rng: random.Random) -> Choices:
    """Return one point of the space, each option equally likely."""
    return {name: rng.choice(options) for name, options in space.choices.items()}


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return a space's choices as Optuna distributions."""
    return {n: CategoricalDistribution(list(options)) for n, options in space.choices.items()}


def trial_seed(seed: int, number: int) -> int:
    """Return 32 bits that depend on the seed and the trial's number alone."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


class _Reader:
    """Reads what a proposal may depend on from a study, each trial once."""

    def __init__(self) -> None:
        self.whole: Study | None = None
        self._past, self._known = no_past(), set[int]()
        self._last = datetime.min, -1

    def read(self, study: Study, number: int) -> Past:
        """Return the past of a trial: read what is new, or all again if one came in between."""
        # under Hyperband the study given is that of one bracket, of another at each proposal
        every = (self.whole or study).get_trials(deepcopy=False)
        fresh = [t for t in every if t.number not in self._known and t.number != number]
        finished = sorted((t for t in fresh if t.state.is_finished()), key=_when)
        if finished and self._known and _when(finished[0]) < self._last:
            self._past, self._known = no_past(), set()
            return self.read(study, number)
        for frozen in finished:
            self._known.add(frozen.number)
            self._last = _when(frozen)
            _add(self._past, frozen)
        pending = (t for t in fresh if t.state is TrialState.RUNNING)
        self._past.pending[:] = [dict(t.params) for t in pending if t.params]
        return self._past


# Makes an Optuna sampler from a seed and the number of finished trials that have a value.
MakeSampler = Callable[[int, int], BaseSampler]


def guarded(sampler: BaseSampler, name: str) -> BaseSampler:
    """Return a user's sampler whose errors are one line that names its file.

    Raises in its methods:
        OptionError: it raised something, ended the process, or gave a value that is no option.
    """
    what = f"controller {name} fails"

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            with guard(what):
                found = method(*given)
                if method.__name__ == "sample_independent" and found not in given[-1].choices:
                    raise ValueError(f"{found!r} for {given[-2]} is none of {given[-1].choices}")
                return found

        return call

    for method in ("sample_relative", "sample_independent", "before_trial", "after_trial"):
        setattr(sampler, method, watched(getattr(sampler, method)))
    return sampler


class Reseeded(BaseSampler):
    """An Optuna sampler that is made anew for each trial, so that it keeps nothing between them.

    An infeasible proposal is repaired by mutations, so that no trial is wasted on an arch that
    would be rejected; a repeated one is mutated until it is new, as Optuna's samplers, once
    converged, propose the same for ever. The sampler is then told the point that was evaluated.

    `sampler`: a function of (seed, finished trials) that makes one, or a sampler, of which each
    trial gets a copy. `startup`: the finished trials before which it draws at random, from `draw`.
    """

    def __init__(
        self,
        space: Space,
        sampler: MakeSampler | BaseSampler,
        seed: int,
        violation: Violation = no_violation,
        draw: Draw = random_choices,
        *,
        startup: int = 0,
    ) -> None:
        self._space, self._seed, self._violation, self._draw = space, seed, violation, draw
        self._make = _copies(sampler) if isinstance(sampler, BaseSampler) else sampler
        self.startup = startup
        self._distributions, self._reader = distributions(space), _Reader()

    def observe(self, study: Study) -> None:
        """Learn from all trials of a study, even where Hyperband shows those of one bracket."""
        self._reader.whole = study

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        seed = trial_seed(self._seed, trial.number)
        past, rng = self._reader.read(study, trial.number), random.Random(seed)
        inner = self._make(seed, len(past.done))
        inner.before_trial(study, trial)
        # Optuna's samplers are not made for a choice without a choice
        free = {n: d for n, d in search_space.items() if not d.single()}
        found = inner.sample_relative(study, trial, free)
        if not found and len(past.done) < self.startup:
            found = sample_feasible(self._space, rng, self._violation, self._draw)
        for name, kind in search_space.items():
            if name not in found:  # NSGA-II leaves out what it mutates
                found[name] = inner.sample_independent(study, trial, name, kind)
        found = {name: found[name] for name in self._space.choices}
        return _repair_until_new(self._space, found, past, rng, self._violation)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name} was not proposed; sample_relative decides every choice")

    def reseed_rng(self) -> None:
        """Do nothing: every trial is seeded by its number."""


def _copies(sampler: BaseSampler) -> MakeSampler:
    """Return what copies a sampler that was given, as controllers of users may, and seeds it."""

    def make(seed: int, finished: int) -> BaseSampler:
        copied = copy.deepcopy(sampler)
        _seed(copied, seed)
        return copied

    return make


def _seed(sampler: BaseSampler, seed: int) -> None:
    """Seed every generator that a sampler or a sampler in it draws from; Optuna has no way to."""
    for part in vars(sampler).values():
        if isinstance(part, BaseSampler):
            _seed(part, seed)
        elif isinstance(rng := getattr(part, "rng", part), np.random.RandomState):
            rng.seed(seed)


class Proposer(BaseSampler):
    """A sampler from one pure function of the finished trials.

    `startup`: the finished trials before which it draws at random.
    """

    def __init__(self, space: Space, propose: Propose, seed: int, *, startup: int = 0) -> None:
        self._propose, self._seed, self.startup = propose, seed, startup
        self._distributions, self._reader = distributions(space), _Reader()

    def observe(self, study: Study) -> None:
        """Learn from all trials of a study, even where Hyperband shows those of one bracket."""
        self._reader.whole = study

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        past = self._reader.read(study, trial.number)
        return self._propose(past, random.Random(trial_seed(self._seed, trial.number)))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name} was not proposed; sample_relative decides every choice")

    def reseed_rng(self) -> None:
        """Do nothing: every trial is seeded by its number."""


def population_size(most: int, finished: int) -> int:
    """Return the size of a population after so many trials: a fifth of them, from 6 to `most`.

    A population of a fixed size acts when it is full: with as many trials it would be random
    search.
    """
    return min(most, max(MIN_POPULATION, finished // 5))


def startup_warning(sampler: BaseSampler, trials: int) -> str:
    """Return a sentence where all trials end before a sampler looks at results, else ""."""
    startup = getattr(sampler, "startup", 0)
    if startup < trials:
        return ""
    return (
        f"it draws its first {startup} trials at random, so with --trials {trials} none is chosen "
        f"by results: this is random search"
    )


def _when(frozen: FrozenTrial) -> tuple[datetime, int]:
    """Return what finished trials are ordered by."""
    return frozen.datetime_complete or datetime.min, frozen.number


def _add(past: Past, frozen: FrozenTrial) -> None:
    """Add a finished trial to the past."""
    trial = trial_of(frozen)
    if trial.state == "dropped":
        return  # another driver goes on with it
    past.seen.add(key_of(trial.choices))
    past.archs.add(trial.arch_id)
    if frozen.state is TrialState.COMPLETE:
        past.done.append((trial.choices, trial.values[0]))
    if frozen.state is TrialState.COMPLETE or trial.rungs:
        past.trials.append(trial)


def check_at_least(least: int, **options: int) -> None:
    """Check options of a controller.

    Raises:
        OptionError: one is less than `least`.
    """
    for name, value in options.items():
        if value < least:
            raise OptionError(f"controller option {name} must be at least {least}, not {value}")


def sample_feasible(
    space: Space, rng: random.Random, violation: Violation, draw: Draw = random_choices
) -> Choices:
    """Return a random feasible point.

    Rejection sampling; where feasible points are too rare, an infeasible one is repaired.
    """
    for _ in range(100):
        choices = draw(space, rng)
        if violation(choices) <= 0:
            break
    return repair(space, choices, rng, violation)


def repair(
    space: Space, choices: Choices, rng: random.Random, violation: Violation, steps: int = 2000
) -> Choices:
    """Return a feasible point reached from `choices` by mutations that lower its violation.

    After so many steps the nearest that was found.
    """
    above = violation(choices)
    for _ in range(steps):
        if above <= 0:
            break
        nearer = mutate(space, choices, rng)
        left = violation(nearer)
        if left <= above:
            choices, above = nearer, left
    return choices


def _repair_until_new(
    space: Space, choices: Choices, past: Past, rng: random.Random, violation: Violation
) -> Choices:
    """Return a feasible point that was not proposed before: repaired, and mutated where it was."""
    proposed = past.proposed()
    for _ in range(100):
        choices = repair(space, choices, rng, violation)
        if key_of(choices) not in proposed:
            break
        choices = mutate(space, choices, rng)
    return choices


def mutate(space: Space, choices: Choices, rng: random.Random) -> Choices:
    """Return a copy in which one choice, picked at random, has another option."""
    free = [name for name, options in space.choices.items() if len(options) > 1]
    if not free:
        return choices
    name = rng.choice(free)
    others: list[Option] = [o for o in space.choices[name] if o != choices[name]]
    return {**choices, name: rng.choice(others)}


def mutated_until_new(
    space: Space, parent: Choices, past: Past, violation: Violation, rng: random.Random
) -> Choices:
    """Mutate until the child is new and feasible, further from the parent each time."""
    child = mutate(space, parent, rng)
    for _ in range(20):
        if key_of(child) not in past.seen and violation(child) <= 0:
            break
        # too far above the limits leads nowhere: start from the parent again
        child = mutate(space, child if violation(child) <= 0 else parent, rng)
    return child


# the names of before, which users' controllers import
Excess, no_excess, allowed_choices, lowered = Violation, no_violation, sample_feasible, repair
at_least = check_at_least
