"""Two adapters that turn a way of proposing into an Optuna sampler that resumes exactly.

A resumed search must go on as if it had never stopped. So nothing that a sampler draws may depend
on what this process drew before: the randomness of a trial comes from (seed, trial number), and
all other state from the finished trials in the journal.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.errors import OptionError
from nas.interfaces import Choices, Option, Space

# (choices, reward) of each finished trial, in the order of their numbers
History = Sequence[tuple[Choices, float]]
Propose = Callable[[History, random.Random], Choices]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return a space's choices as Optuna distributions."""
    return {n: CategoricalDistribution(list(options)) for n, options in space.choices.items()}


def trial_seed(seed: int, number: int) -> int:
    """Return 32 bits that depend on the seed and the trial's number alone."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


class Reseeded(BaseSampler):
    """An Optuna sampler whose random state is set anew before each trial."""

    def __init__(self, sampler: BaseSampler, seed: int) -> None:
        self._inner = sampler
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        seed = trial_seed(self._seed, trial.number)
        for part in ("", "_random_sampler", "_independent_sampler"):
            owner = getattr(self._inner, part, None) if part else self._inner
            # private to Optuna 5: tests/test_controllers.py proves that it still works
            if getattr(owner, "_rng", None) is not None:
                owner._rng.rng.seed(seed)  # type: ignore[union-attr]
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Do nothing: every trial is seeded by its number."""


class Proposer(BaseSampler):
    """A sampler from one pure function of the finished trials."""

    def __init__(self, space: Space, propose: Propose, seed: int) -> None:
        self._space, self._propose, self._seed = space, propose, seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        history = [(t.params, t.values[0]) for t in finished]
        return self._propose(history, random.Random(trial_seed(self._seed, trial.number)))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name} was not proposed; sample_relative decides every choice")

    def reseed_rng(self) -> None:
        """Do nothing: every trial is seeded by its number."""


def at_least(least: int, **options: int) -> None:
    """Check options of a controller.

    Raises:
        OptionError: one is less than `least`.
    """
    for name, value in options.items():
        if value < least:
            raise OptionError(f"controller option {name} must be at least {least}, not {value}")


def random_choices(space: Space, rng: random.Random) -> Choices:
    """Return one point of the space, each option equally likely."""
    return {name: rng.choice(list(options)) for name, options in space.choices.items()}


def mutate(space: Space, choices: Choices, rng: random.Random) -> Choices:
    """Return a copy in which one choice, picked at random, has another option, if any has one."""
    free = [name for name, options in space.choices.items() if len(options) > 1]
    if not free:
        return choices
    name = rng.choice(free)
    others: list[Option] = [o for o in space.choices[name] if o != choices[name]]
    return {**choices, name: rng.choice(others)}
