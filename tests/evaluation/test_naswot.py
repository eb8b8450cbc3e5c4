"""NASWOT: the score against a count by hand, what it leaves alone; scored points as a prior."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.core import registry, run_folder
from nas.core.errors import NasError, OptionError, RunError
from nas.evaluation.naswot import by_channels, kernel, log_determinant, noise, score
from nas.interfaces import Space
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.build import build_model
from nas.models.points import decode
from nas.searching.samplers import no_violation
from nas.searching.search import search
from nas.searching.start import zero_cost

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_priors

TINY = Arch(
    "tiny",
    (Stage("mbconv", 8, layers=2, stride=2, expansion=2.0, se=0.25),),
    Stem(8),
    Head(16, dropout=0.3, classes=10),
    resolution=32,
    stochastic_depth=0.3,
)
# channels and pixels a side of its activations: stem, twice (expanded, squeezed, projected), head
UNITS = [(8, 16), (16, 16), (16, 8), (2, 1), (16, 8), (16, 8), (2, 1), (16, 8)]
PLAIN = dataclasses.replace(TINY, head=Head(16, classes=10), stochastic_depth=0.0)
# proposes what is believed to be the best of ten random points, and what that is worth
BELIEVER = """
from nas.searching.samplers import Proposer, no_prior, random_choices

OBJECTIVES = ("reward",)

def make(space, *, seed, prior=no_prior):
    def propose(past, rng):
        points = [random_choices(space, rng) for _ in range(10)]
        return points[int(prior(points).argmax())]
    return Proposer(space, propose, seed)
"""
WARM: dict[str, Any] = {
    "space": "space.py",
    "evaluator": "synthetic",
    "controller": "believer.py",
    "warm_start": "naswot",
    "random_search": False,
    "trials": 5,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def believer(folder: Path) -> Path:
    (folder / "believer.py").write_text(BELIEVER)
    return folder


def codes(images: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """Return by layer which units of the tiny network are on, (images, units)."""
    found: list[torch.Tensor] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build_model(PLAIN).train()
        for module in model.modules():
            if isinstance(module, torch.nn.SiLU):
                module.register_forward_pre_hook(lambda _, x: found.append(x[0].flatten(1) > 0))
        model(images)
    return found


def by_units(channels: int, positions: int) -> float:
    return float(channels * positions)


def test_the_kernel_counts_the_units_on_which_two_codes_agree() -> None:
    images = noise(TINY, images=5, seed=3)
    on = torch.cat(codes(images, 3), dim=1)
    expected = [[float((a == b).sum()) for b in on] for a in on]
    assert kernel(TINY, images, seed=3, weigh=by_units).tolist() == expected
    assert expected[0][0] == sum(channels * side**2 for channels, side in UNITS)


def test_a_layer_counts_by_the_root_of_its_channels() -> None:
    images = noise(TINY, images=5)
    layers = zip(UNITS, codes(images, 0), strict=True)
    shares = [
        math.sqrt(channels) * (on[:, None] == on).double().mean(dim=2)
        for (channels, _), on in layers
    ]
    expected = torch.stack(shares).sum(dim=0).numpy()
    assert kernel(TINY, images) == pytest.approx(expected)
    assert by_channels(16, 9) == 4.0


def test_a_layer_of_many_units_is_counted_in_slices() -> None:
    images = noise(dataclasses.replace(TINY, resolution=224), images=3, side=224)
    on = torch.cat(codes(images, 0), dim=1)
    assert on.shape[1] > 2 * 65536
    found = kernel(TINY, images, weigh=by_units)
    assert found[0, 1] == float((on[0] == on[1]).sum()) and found[2, 2] == on.shape[1]


def test_a_score_is_repeated_and_leaves_no_trace() -> None:
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = score(TINY)
    assert math.isfinite(first) and first == score(TINY) != score(TINY, seed=1)
    # nothing is dropped: the rates that a training would have change nothing
    assert score(PLAIN) == first
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_the_score_is_the_log_of_the_determinant() -> None:
    matrix = np.array([[4.0, 1.0], [1.0, 3.0]])
    assert log_determinant(matrix) == pytest.approx(math.log(11), abs=1e-5)
    assert math.isfinite(log_determinant(np.full((3, 3), 7.0)))  # three images with one code


@pytest.mark.parametrize("change", [{"channels": 32}, {"layers": 4}, {"expansion": 6.0}])
def test_more_channels_and_more_layers_score_higher(change: dict[str, Any]) -> None:
    larger = dataclasses.replace(TINY, stages=(dataclasses.replace(TINY.stages[0], **change),))
    assert score(larger) > score(TINY)


def test_noise_is_as_large_as_the_arch_takes_it() -> None:
    assert noise(TINY).shape == (32, 3, 32, 32)
    assert noise(dataclasses.replace(TINY, resolution=224)).shape == (32, 3, 64, 64)


def test_what_cannot_run_is_told_in_one_line() -> None:
    deep = dataclasses.replace(TINY, stages=(Stage("mbconv", 8, stride=2, layers=1),) * 4)
    with pytest.raises(NasError, match=f"^arch {deep.id} cannot be scored by naswot: Expected"):
        kernel(deep, noise(deep, images=1))  # batch norm of one value a channel


# --- points of a space


@pytest.fixture
def space(folder: Path) -> Space:
    found: Space = registry.export("spaces", "space.py", "SPACE")
    return found


def test_the_points_are_different_networks_within_the_limits(space: Space) -> None:
    points = zero_cost.sample_points(space, no_violation, 0)
    assert len({decode(space, point).id for point in points}) == len(points) == 27
    assert (
        points
        == zero_cost.sample_points(space, no_violation, 0)
        != zero_cost.sample_points(space, no_violation, 1)
    )
    few = zero_cost.sample_points(space, lambda point: point["channels"] - 24, 0)
    assert {point["channels"] for point in few} == {16, 24}
    with pytest.raises(OptionError, match=r"needs 10 networks .* small found 9: leave it out"):
        zero_cost.sample_points(space, lambda point: point["channels"] - 16, 0)


Asked = Callable[[int], tuple[list[float], list[str]]]


@pytest.fixture
def asked(space: Space, tmp_path: Path) -> Asked:
    """Score up to so many networks into one file; return all scores, and the archs asked for."""
    archs = [decode(space, point) for point in zero_cost.sample_points(space, no_violation, 0)]

    def ask(most: int) -> tuple[list[float], list[str]]:
        seen: list[str] = []

        def pretend(arch: Arch) -> float:
            seen.append(arch.id)
            return int(arch.id, 16) / 7

        path = tmp_path / zero_cost.FILE
        found = zero_cost.score_archs(
            path, archs, pretend, lambda line: None, lambda: len(seen) >= most
        )
        return found[0], seen

    return ask


def test_what_was_scored_before_a_kill_is_not_scored_again(asked: Asked, tmp_path: Path) -> None:
    first, before = asked(5)
    rest, after = asked(99)
    assert len(first) == len(before) == 5 and rest[:5] == first
    assert len(after) == 22 and not {*before} & {*after}
    assert asked(99) == (rest, [])
    (tmp_path / zero_cost.FILE).unlink()
    assert asked(99)[0] == rest
    (tmp_path / zero_cost.FILE).write_text("arch_id,score,seconds\na,many,1\n")
    with pytest.raises(RunError, match=r"naswot.csv row 1 is damaged .* delete the row"):
        asked(99)


def test_what_takes_long_is_told_before_and_once(tmp_path: Path) -> None:
    said: list[str] = []
    begun: list[float] = []

    def slow(arch: Arch) -> float:
        begun.append(time.monotonic())
        time.sleep(0.02)
        return 1.0

    path = tmp_path / zero_cost.FILE
    zero_cost.score_archs(path, [TINY] * 4000, slow, said.append, lambda: len(begun) == 2)
    [line] = said
    assert line.startswith("naswot: scoring 4000 networks without training, about ")


def test_a_search_begins_with_what_the_scores_let_expect(believer: Path) -> None:
    found = search(**WARM)
    rows = run_folder.read_csv(Path(found["run"]) / zero_cost.FILE)
    assert len(rows) == 27
    by_arch = {row["arch_id"]: float(row["score"]) for row in rows}
    trials = run_folder.read_csv(Path(found["run"]) / "trials.csv")
    # the best of ten as believed: the scores themselves, told from 27 points of as many networks
    proposed = np.mean([by_arch[row["arch_id"]] for row in trials])
    assert proposed > np.quantile(list(by_arch.values()), 0.75)


def test_an_interrupted_scoring_goes_on_where_it_was(believer: Path) -> None:
    whole = search(**WARM, name="whole")
    calls = iter(range(1000))
    part = search(**WARM, name="part", interrupted=lambda: next(calls) >= 12)
    path = Path(part["run"]) / zero_cost.FILE
    assert part["stopped"] == "interrupted" and part["trials"] == 0
    before = path.read_text()
    assert len(before.splitlines()) == 1 + 12
    again = search(resume=True, name="part")
    assert path.read_text().startswith(before)
    assert again["best"] == whole["best"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"controller": "evolution"}, "controller evolution does not take"),
        ({"max_params": 4000}, "needs 10 networks within the limits to score"),
    ],
)
def test_naswot_is_refused_before_a_folder_is_made(
    believer: Path, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(OptionError, match=reason) as refusal:
        search(**{**WARM, **change})
    assert len(str(refusal.value).splitlines()) == 1
    assert not (believer / "runs").exists()


# --- scripts/bench_priors.py


def test_the_script_ranks_the_trainings_of_a_search(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search(space="space.py", evaluator="synthetic", trials=12, random_search=False)
    trials = str(Path(found["run"]) / "trials.csv")
    bench_priors.main(["scores", "--trials", trials, "--space", "space.py", "--images", "8"])
    printed = capsys.readouterr().out
    assert f"{found['trials']} of {found['trials']} trainings, space small" in printed
    assert "| naswot, by channels | " in printed
    # the landscape grows with log FLOPs
    [flops] = [line for line in printed.splitlines() if line.startswith("| FLOPs |")]
    assert float(flops.split("|")[2].split()[0]) > 0
