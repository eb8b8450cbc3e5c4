"""The RNN controller: its policy, its updates, and what it remembers of the past."""

import random
from collections import Counter

import pytest
import torch

from nas.core import registry
from nas.core.errors import OptionError
from nas.interfaces import Choices, Space
from nas.searching.controllers.reinforce import (
    KEPT_STATES,
    PRESETS,
    WIDTH,
    PolicyReplay,
    PolicyState,
    PpoSettings,
    fresh_policy,
    ppo_update,
    ranks,
)
from nas.searching.samplers import Past, no_past, random_choices

PPO = PpoSettings(5, 3, 0.005, 0.05, True)
SPACE = Space(
    "small",
    {"a": (1, 2, 3), "only": ("this",), "b": (False, True), "c": (0.5, 0.25, 0.75, 1.0)},
    lambda choices: pytest.fail("a controller must not decode"),
)
LARGE = Space("large", {f"c{n}": (0, 1, 2) for n in range(10)}, SPACE.decode)


def make(space: Space, **options: object):  # type: ignore[no-untyped-def]
    return registry.make("controllers", "reinforce", space, options=options, seed=0)


def trials(count: int, space: Space = SPACE) -> list[tuple[Choices, float]]:
    rng = random.Random(0)
    return [(random_choices(space, rng), rng.gauss(60, 2)) for _ in range(count)]


def past_of(done: list[tuple[Choices, float]], pending: list[Choices]) -> Past:
    seen = {tuple(choices.values()) for choices, _ in done}
    return no_past()._replace(done=done, seen=seen, pending=pending)


def propose(sampler, past: Past, number: int) -> Choices:  # type: ignore[no-untyped-def]
    """Call what the sampler calls, without a study."""
    return sampler._propose(past, random.Random(number))


def weights(state: PolicyState) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in state.policy.parameters()]


def same(a: PolicyState, b: PolicyState) -> bool:
    pairs = zip(weights(a), weights(b), strict=True)
    return a.mean == b.mean and all(torch.equal(x, y) for x, y in pairs)


def test_the_policy_draws_with_the_probabilities_that_it_trains() -> None:
    policy = fresh_policy([3, 1, 2], seed=1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(15)  # far from uniform, and each choice depends on those before
    rng = random.Random(0)
    uniform = torch.tensor([[rng.random() for _ in range(3)] for _ in range(6000)])
    counts = Counter(tuple(point) for point in policy.draw(uniform).tolist())
    points = torch.tensor([[a, 0, b] for a in range(3) for b in range(2)])
    chosen = (
        policy.log_probabilities(points).gather(2, points[:, :, None]).sum((1, 2)).exp().detach()
    )
    assert float(chosen.sum()) == pytest.approx(1, abs=1e-5)
    assert float(chosen.max()) > 0.3
    for point, share in zip(points.tolist(), chosen.tolist(), strict=True):
        assert counts[tuple(point)] / 6000 == pytest.approx(share, abs=0.02)


def test_an_untrained_policy_is_nearly_uniform_and_depends_on_the_seed() -> None:
    policy, other = fresh_policy([2, 4], seed=0), fresh_policy([2, 4], seed=1)
    assert all(float(p.detach().abs().max()) <= WIDTH for p in policy.parameters())
    shares = policy.log_probabilities(torch.tensor([[0, 0]])).exp()[0]
    assert shares[0].tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=0.1)
    assert shares[1].tolist() == pytest.approx([0.25] * 4, abs=0.1)
    assert not torch.equal(policy.inputs, other.inputs)


def test_an_update_favours_what_was_rewarded_and_leaves_the_old_state() -> None:
    state = PolicyReplay(SPACE, 0, PPO).state([])
    good, bad = torch.tensor([[0, 0, 1, 2]]), torch.tensor([[2, 0, 0, 0]])

    def likelihood(state: PolicyState, point: torch.Tensor) -> float:
        return float(
            state.policy.log_probabilities(point).gather(2, point[:, :, None]).sum().detach()
        )

    before = likelihood(state, good), likelihood(state, bad)
    after = ppo_update(state, torch.cat([good, bad]), [70.0, 50.0], PPO)
    assert likelihood(after, good) > before[0]
    assert likelihood(after, bad) < before[1]
    assert (likelihood(state, good), likelihood(state, bad)) == before
    assert after.mean == 60
    assert ppo_update(after, good, [80.0], PPO).mean == pytest.approx(0.95 * 60 + 0.05 * 80)
    equal = ppo_update(state, torch.cat([good, bad]), [60.0, 60.0], PPO)
    assert all(parameter.isfinite().all() for parameter in weights(equal))


def test_ranks_do_not_depend_on_the_scale() -> None:
    shares = [rank / 12**0.5 for rank in ranks([3, -1e9, 2], [1, -1e9, 3, 2])]
    assert shares == pytest.approx([0.875, 0.125, 0.625])
    assert ranks([5], [5, 5]) == pytest.approx([0.5 * 12**0.5])


def test_the_policy_is_a_function_of_the_finished_trials() -> None:
    done = trials(5 * (KEPT_STATES + 4))
    straight = PolicyReplay(SPACE, 0, PPO).state(done)
    piecewise = PolicyReplay(SPACE, 0, PPO)
    for size in (3, 8, 21, len(done) - 6, len(done)):
        piecewise.state(done[:size])
    assert same(straight, piecewise.state(done))
    assert same(straight, piecewise.state([*done, done[0]])), "less than a batch is not learnt yet"
    assert not same(straight, PolicyReplay(SPACE, 1, PPO).state(done))


@pytest.mark.parametrize("place", [2, 5 * KEPT_STATES + 17])
def test_a_trial_that_comes_in_between_is_learnt_in_its_place(place: int) -> None:
    done = trials(5 * (KEPT_STATES + 4) + 1)
    fold = PolicyReplay(SPACE, 0, PPO)
    fold.state(done[:place] + done[place + 1 :])
    assert same(fold.state(done), PolicyReplay(SPACE, 0, PPO).state(done))
    assert same(fold.state(done[:12]), PolicyReplay(SPACE, 0, PPO).state(done[:12]))


def test_the_process_keeps_its_random_numbers_and_threads() -> None:
    torch.manual_seed(3)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    sampler = make(SPACE, batch=5)
    first = propose(sampler, past_of(trials(20), []), 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    torch.manual_seed(4)
    assert propose(make(SPACE, batch=5), past_of(trials(20), []), 0) == first


def test_sixty_four_in_flight_are_all_different() -> None:
    sampler, done = make(LARGE, batch=5), trials(40, LARGE)
    pending: list[Choices] = []
    for number in range(64):
        pending.append(propose(sampler, past_of(done, pending), number))
    points = {tuple(choices.values()) for choices in pending}
    assert len(points) == 64
    assert not points & past_of(done, []).seen


def test_a_small_space_is_searched_to_its_end_and_then_repeated() -> None:
    sampler, past = make(SPACE, batch=5, entropy=0.0), no_past()
    for number in range(30):
        choices = propose(sampler, past, number)
        past.done.append((choices, float(choices["a"])))  # type: ignore[arg-type]
        past.seen.add(tuple(choices.values()))
    assert len(past.seen) == SPACE.size == 24


def test_it_proposes_within_the_limits() -> None:
    def constraint_violation(choices: Choices) -> float:
        return sum(choices.values()) - 4  # type: ignore[arg-type]

    sampler = registry.make(
        "controllers",
        "reinforce",
        LARGE,
        options={"batch": 5},
        seed=0,
        constraint_violation=constraint_violation,
    )
    done = trials(20, LARGE)
    proposed = [propose(sampler, past_of(done, []), number) for number in range(20)]
    assert all(constraint_violation(choices) <= 0 for choices in proposed)
    assert len({tuple(choices.values()) for choices in proposed}) > 15


@pytest.mark.parametrize("preset", list(PRESETS))
def test_it_learns(preset: str) -> None:
    options = {"tuned": {"batch": 5}, "paper": {"rate": 0.005, "batch": 5}}[preset]
    sampler, past, rng = make(LARGE, preset=preset, **options), no_past(), random.Random(0)
    for number in range(200):
        choices = propose(sampler, past, number)
        reward = 60.0 + sum(choices.values()) + rng.gauss(0, 1)  # type: ignore[arg-type]
        past.done.append((choices, reward))
        past.seen.add(tuple(choices.values()))
    # of random points 70, sd 2.8
    assert sum(reward for _, reward in past.done[-50:]) / 50 > 73


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "papers"}, "preset takes tuned, paper, not 'papers' .did you mean 'paper'"),
        ({"batch": -1}, "batch must be at least 0, not -1"),
        ({"epochs": -2}, "epochs must be at least 0, not -2"),
        ({"rate": 2.0}, r"rate must lie in 0\.\.1, not 2"),
        ({"rate": float("nan")}, r"rate must lie in 0\.\.1, not nan"),
        ({"entropy": -2.0}, r"entropy must lie in -1\.\.1, not -2"),
        ({"batch": 2.5}, "takes a whole number"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make(SPACE, **options)


def test_the_paper_preset_has_the_numbers_of_the_paper() -> None:
    paper = PRESETS["paper"]
    assert (paper.batch, paper.rate, paper.entropy) == (20, 0.00035, 0.00001)
    assert not paper.ranked
