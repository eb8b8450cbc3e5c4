"""The RNN controller of NASNet and MnasNet: an LSTM decides choice after choice; PPO trains it.

Sources: Zoph et al. 2018 (NASNet), section 3 and appendix A; Tan et al. 2019 (MnasNet), section
4.2; Schulman et al. 2017 (PPO). One policy converges to one point, so the reward is all it can
pursue: a front takes a search for each target. Trials that were stopped early have no reward
of their own and are left out.
"""

from __future__ import annotations

import copy
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from optuna.samplers import BaseSampler

from nas.core.errors import OptionError, did_you_mean
from nas.interfaces import Choices, Option, Space
from nas.searching.samplers import (
    Draw,
    Past,
    Proposer,
    Violation,
    check_at_least,
    mutate,
    no_violation,
    random_choices,
    repair,
    sample_feasible,
)

if TYPE_CHECKING:
    import torch

OBJECTIVES = ("reward",)
HIDDEN, WIDTH = 100, 0.1  # units of the LSTM; its weights begin uniform in -0.1..0.1
CLIP, DECAY = 0.2, 0.95  # of PPO's ratio (its paper's); of the moving averages of the reward
DRAWS, MUTATIONS = 8, 20  # points drawn at once; how often, where none is new, one is mutated
NEVER = -1e9  # logit of an absent option; with infinity the gradient of the entropy is no number
KEPT_STATES = 16  # states kept, so that a result that comes late needs no replay from the first


class PpoSettings(NamedTuple):
    """Hyperparameters of an update: finished trials, PPO's epochs, Adam's rate, entropy.

    `ranked`: a reward counts by its rank among all that finished before, not by itself.
    """

    batch: int
    epochs: int
    rate: float
    entropy: float
    ranked: bool


PRESETS = {
    "tuned": PpoSettings(10, 4, 0.002, 0.1, True),
    "paper": PpoSettings(20, 4, 0.00035, 0.00001, False),
}


def make(
    space: Space,
    *,
    seed: int,
    constraint_violation: Violation = no_violation,
    draw: Draw = random_choices,
    preset: str = "tuned",
    batch: int = 0,
    epochs: int = 0,
    rate: float = 0.0,
    entropy: float = -1.0,
) -> BaseSampler:
    """Return the RNN controller.

    preset: `tuned`, for 100 to some thousand trials (batch 10, epochs 4, rate 0.002, entropy 0.1),
    or `paper`, NASNet's for 20,000 (batch 20, rate 0.00035, entropy 0.00001; it names no epochs: 4
    here). The others replace one number of the preset; 0, of entropy -1, leaves it. batch: finished
    trials, in the order of finishing, of one update. epochs: Adam's steps on them.
    rate: Adam's. entropy: weight of the mean entropy of a choice, in nats: the greater, the longer
    it explores. `tuned` learns from the ranks of rewards, `paper` from rewards themselves; both
    from the advantage over a moving mean (decay 0.95).

    Raises:
        OptionError: an unknown preset, or a number out of its range.
    """
    if preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS)
        raise OptionError(
            f"controller option preset takes {', '.join(PRESETS)}, not {preset!r}{hint}"
        )
    check_at_least(0, batch=batch, epochs=epochs)
    known = PRESETS[preset]
    _within("rate", rate, 0.0)
    _within("entropy", entropy, -1.0)
    ppo = PpoSettings(
        batch or known.batch,
        epochs or known.epochs,
        rate or known.rate,
        known.entropy if entropy < 0 else entropy,
        known.ranked,
    )
    replay = PolicyReplay(space, seed, ppo)

    def propose(past: Past, rng: random.Random) -> Choices:
        if draw is not random_choices and len(past.done) < ppo.batch:
            return sample_feasible(
                space, rng, constraint_violation, draw
            )  # the policy is untrained
        return _new_point(space, replay.state(past.done).policy, past, constraint_violation, rng)

    return Proposer(space, propose, seed, startup=ppo.batch)


def _within(name: str, value: float, least: float) -> None:
    if not least <= value <= 1:
        raise OptionError(f"controller option {name} must lie in {least:g}..1, not {value:g}")


@dataclass(frozen=True)
class Policy:
    """The LSTM with embeddings and heads. The option of a choice is the input of the next step.

    `inputs`: (1 + options of all choices, HIDDEN), the first for the beginning. `weight`, `bias`:
    (choices, most options, HIDDEN) and (choices, most options), of a softmax for each choice.
    `first`: (choices,) where a choice's options begin in `inputs`. `absent`: (choices, most
    options), true where a choice has fewer.
    """

    inputs: torch.Tensor
    lstm: torch.nn.LSTM
    weight: torch.Tensor
    bias: torch.Tensor
    first: torch.Tensor
    absent: torch.Tensor

    def parameters(self) -> list[torch.Tensor]:
        """Return the trainable parameters."""
        return [self.inputs, *self.lstm.parameters(), self.weight, self.bias]

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of all options, from (n, choices, HIDDEN)."""
        import torch

        logits = torch.einsum("nch,coh->nco", hidden, self.weight) + self.bias
        return logits.masked_fill(self.absent, NEVER).log_softmax(-1)

    def log_probabilities(self, points: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of all options at each step, given the choices of points.

        `points`: (n, choices), numbers of options; returns (n, choices, most options).
        """
        import torch

        before = torch.cat([torch.zeros_like(points[:, :1]), (points + self.first)[:, :-1]], dim=1)
        return self.scores(self.lstm(self.inputs[before])[0])

    def draw(self, uniform: torch.Tensor) -> torch.Tensor:
        """Return points (n, choices) from numbers in 0..1 of the same shape."""
        import torch

        hidden = memory = torch.zeros(len(uniform), HIDDEN)
        step = torch.zeros(len(uniform), dtype=torch.long)
        logits = self.bias.masked_fill(self.absent, NEVER)
        # rounding may leave the sum of the shares below a number close to 1
        last = (~self.absent).sum(1) - 1
        found = []
        with torch.no_grad():
            for choice, number in enumerate(uniform.T):
                hidden, memory = torch.lstm_cell(
                    self.inputs[step], (hidden, memory), *self.lstm.parameters()
                )
                shares = (logits[choice] + hidden @ self.weight[choice].T).softmax(-1)
                passed = (number[:, None] >= shares.cumsum(-1)).sum(-1)
                found.append(passed.minimum(last[choice]))
                step = found[-1] + self.first[choice]
        return torch.stack(found, dim=1)


def fresh_policy(sizes: Sequence[int], seed: int) -> Policy:
    """Return an untrained policy for choices with so many options each."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def weights(*shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1).mul_(WIDTH).requires_grad_()

    # on meta first: a module's own start would draw from torch's global generator
    lstm = torch.nn.LSTM(HIDDEN, HIDDEN, batch_first=True, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.copy_(weights(*parameter.shape))
    most = range(max(sizes))
    ends = torch.tensor([0, *sizes]).cumsum(0)
    return Policy(
        weights(1 + sum(sizes), HIDDEN),
        lstm,
        weights(len(sizes), len(most), HIDDEN),
        weights(len(sizes), len(most)),
        1 + ends[:-1],
        torch.tensor([[option >= size for option in most] for size in sizes]),
    )


@dataclass(frozen=True)
class PolicyState:
    """The policy after some updates, Adam's moments, and the baseline: a moving mean of rewards.

    Before the first update there is no baseline.
    """

    policy: Policy
    adam: torch.optim.Adam
    mean: float | None = None


def ppo_update(
    state: PolicyState, points: torch.Tensor, rewards: Sequence[float], ppo: PpoSettings
) -> PolicyState:
    """Return the state after one PPO update on (n, choices) points; the given one stays as it was.

    The old probabilities are those of the policy at the beginning of the update. A point may have
    been proposed some updates before; its own are not kept, so that a replay needs rewards alone.
    """
    import torch

    policy, adam = copy.deepcopy((state.policy, state.adam))
    average = sum(rewards) / len(rewards)
    mean = average if state.mean is None else state.mean
    gain = torch.tensor([reward - mean for reward in rewards])[:, None]
    before: torch.Tensor | None = None
    for _ in range(ppo.epochs):
        scores = policy.log_probabilities(points)
        chosen = scores.gather(2, points[:, :, None])[:, :, 0]
        before = chosen.detach() if before is None else before
        ratio = (chosen - before).exp()
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
        aim = torch.minimum(ratio * gain, clipped * gain).mean()
        entropy = -(scores.exp() * scores).sum(-1).mean()
        adam.zero_grad()
        (-aim - ppo.entropy * entropy).backward()  # type: ignore[no-untyped-call]
        adam.step()
    return PolicyState(policy, adam, DECAY * mean + (1 - DECAY) * average)


def ranks(rewards: Sequence[float], among: Sequence[float]) -> list[float]:
    """Return for each reward the share of `among` that is below it, half of its equals included.

    In deviations of draws that are like `among`, so that the weight of the entropy means the same
    for every reward; and what hard targets punish most weighs no more than any other bad point.
    As the policy rises above its past, its own points differ less and less in rank: the entropy
    gains weight, and noise alone does not make the policy converge.
    """
    ordered = sorted(among)
    places = (bisect_left(ordered, r) + bisect_right(ordered, r) for r in rewards)
    return [place / 2 / len(ordered) * 12**0.5 for place in places]


class PolicyReplay:
    """The policy as a pure function of the finished trials; its memory is only a cache.

    Where a trial comes in between those it was trained on, as one of another driver may, it goes
    back to the last state before that.
    """

    def __init__(self, space: Space, seed: int, ppo: PpoSettings) -> None:
        self._seed, self._recipe = seed, ppo
        self._options = [list(options) for options in space.choices.values()]
        self._read: list[tuple[Choices, float]] = []
        self._states: dict[int, PolicyState] = {}  # by the number of trials trained on

    def state(self, done: list[tuple[Choices, float]]) -> PolicyState:
        """Return the state after every full batch of `done`, in the order of finishing."""
        if done[: len(self._read)] != self._read:
            both = enumerate(zip(self._read, done, strict=False))
            same = next((i for i, (a, b) in both if a != b), min(len(self._read), len(done)))
            self._states = {size: s for size, s in self._states.items() if size <= same}
        if not self._states:
            self._states[0] = self._beginning()
        batch, size = self._recipe.batch, max(self._states)
        for start in range(size, len(done) - batch + 1, batch):
            size = start + batch
            self._states[size] = self._after(self._states[start], done[:size])
            self._states.pop(size - KEPT_STATES * batch, None)
        self._read = done[:size]
        return self._states[size]

    def _beginning(self) -> PolicyState:
        import torch

        policy = fresh_policy([len(options) for options in self._options], self._seed)
        return PolicyState(policy, torch.optim.Adam(policy.parameters(), lr=self._recipe.rate))

    def _after(self, state: PolicyState, done: Sequence[tuple[Choices, float]]) -> PolicyState:
        """Return the state after the last batch of `done`."""
        import torch

        points = [
            [options.index(o) for options, o in zip(self._options, choices.values(), strict=True)]
            for choices, _ in done[-self._recipe.batch :]
        ]
        every = [reward for _, reward in done]
        rewards = every[-self._recipe.batch :]
        # the paper's rewards are shares, not percent
        scores = ranks(rewards, every) if self._recipe.ranked else [r / 100 for r in rewards]
        return ppo_update(state, torch.tensor(points), scores, self._recipe)


def _new_point(
    space: Space, policy: Policy, past: Past, constraint_violation: Violation, rng: random.Random
) -> Choices:
    """Draw until a point is new and within the limits; else mutate the first one until it is.

    A policy that has converged repeats itself, and an update on a repetition changes nothing.
    """
    pending = {_key(space, choices) for choices in past.pending}

    def is_new(choices: Choices) -> bool:
        key = _key(space, choices)
        return key not in past.seen and key not in pending and constraint_violation(choices) <= 0

    points = _sample(space, policy, rng)
    for point in points:
        if is_new(point):
            return point
    parent = child = repair(space, points[0], rng, constraint_violation)
    for _ in range(MUTATIONS):
        child = mutate(space, child if constraint_violation(child) <= 0 else parent, rng)
        if is_new(child):
            return child
    return parent


def _sample(space: Space, policy: Policy, rng: random.Random) -> list[Choices]:
    import torch

    uniform = [[rng.random() for _ in space.choices] for _ in range(DRAWS)]
    every = [(name, list(options)) for name, options in space.choices.items()]
    return [
        {name: options[place] for (name, options), place in zip(every, point, strict=True)}
        for point in policy.draw(torch.tensor(uniform)).tolist()
    ]


def _key(space: Space, choices: Choices) -> tuple[Option, ...]:
    return tuple(choices[name] for name in space.choices)
