"""The contract of a controller: legal points, and a sequence that a kill does not change."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nas.core import registry
from nas.interfaces import Choices, Space, Trial
from nas.models.arch import Arch, Head, Stage
from nas.models.points import cost_metrics
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.samplers import distributions
from nas.searching.studies.study import Journal, Log
from nas.testing.contract import Contract

# a choice without a choice, words, true and false, and few points
MIXED = Space(
    "mixed",
    {
        "a": (1, 2, 3, 4),
        "only": ("this",),
        "word": ("x", "y", "z"),
        "flag": (False, True),
        "f": (0.5, 0.25),
    },
    lambda c: Arch(
        "mixed",
        (Stage("mbconv", 8 * c["a"], 1, 3, 2, se=0.25 * c["flag"]),),
        head=Head(0, classes=4),
    ),
)


class Search:
    """A journal and one controller on it; `reopen` is what a new process does."""

    sign = 1  # with -1 what is best is worst

    def __init__(
        self,
        path: Path,
        name: str,
        options: Mapping[str, Any],
        objective: str,
        space: Space,
        seed: int = 0,
    ) -> None:
        self.path, self.name, self.options = path, name, options
        self.space, self.seed = space, seed
        target = Bound("flops", 1e12)  # out of reach: the reward is the accuracy
        pareto = "flops" if objective == "pareto" else None
        self.goal = Goal(make_objective("hard", None, (target,), ()), pareto)
        self.reopen()

    def reopen(self, name: str = "") -> None:
        """Open the journal again, with the controller or another of that name."""
        options = {} if name else self.options
        sampler = registry.make(
            *("controllers", name or self.name, self.space),
            options=options,
            seed=self.seed,
            goal=self.goal,
        )
        journal = Journal(self.path, distributions(self.space))
        self.log: Log = journal.log("search", self.goal.directions, sampler)

    @property
    def startup(self) -> int:
        return int(getattr(self.log.study.sampler, "startup", 0))

    def ask(self) -> tuple[int, Choices]:
        return self.log.ask(distributions(self.space))

    def tell(self, number: int, choices: Choices, state: str = "done") -> None:
        """Record a result that depends on the choices alone."""
        places = [list(self.space.choices[n]).index(v) for n, v in choices.items()]
        accuracy = 50.0 + self.sign * sum(p * ((i * 7) % 5 - 1) for i, p in enumerate(places))
        arch = self.space.decode(choices)
        metrics = {"accuracy": accuracy, **cost_metrics(arch)}
        values = self.goal.values(metrics) if state in ("done", "duplicate") else ()
        self.log.tell(Trial(number, state, choices, arch.id, metrics, values))

    def go(self, until: int) -> list[Choices]:
        """Finish what is running and go on up to that many trials; return them all."""
        for trial in self.log.unfinished():
            self.tell(trial.number, trial.choices)
        while len(self.log.trials()) < until:
            self.tell(*self.ask())
        return [trial.choices for trial in self.log.trials()]


def first_points(space: Space) -> list[Choices]:
    """Return three points of a space that no controller begins with."""
    names = list(space.choices)
    ends = (
        {n: o[-1] for n, o in space.choices.items()},
        {n: o[0] for n, o in space.choices.items()},
    )
    return [*ends, {**ends[0], names[0]: space.choices[names[0]][0]}]


class ControllerContract(Contract):
    """Tests of a file with OBJECTIVES whose `make(space, *, seed, ...)` gives an Optuna sampler.

    `trials`: how many it proposes in a test, at most 40; fewer where one takes long. `learns`:
    whether it looks at results. `space`: which one most tests are of. `enough`: after how many
    trials of `mbconv` its best is above that of as many random ones.
    """

    room = "controllers"
    trials: ClassVar[int] = 40
    learns: ClassVar[bool] = True
    space: ClassVar[Space] = registry.export("spaces", "mbconv", "SPACE")
    enough: ClassVar[int] = 120

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Run what is given an objective for each that the controller can pursue."""
        if "objective" in metafunc.fixturenames:
            objectives = registry.export(cls.room, cls.named(), "OBJECTIVES")
            metafunc.parametrize("objective", objectives)

    @pytest.fixture
    def paths(self, tmp_path: Path) -> Iterator[Path]:
        return (tmp_path / f"journal{n}.log" for n in range(100))

    def search(
        self, path: Path, objective: str, space: Space | None = None, seed: int = 0
    ) -> Search:
        """Open a search by the controller."""
        where = type(self).space if space is None else space
        return Search(path, self.named(), self.options, objective, where, seed)

    def test_only_legal_choices(self, paths: Iterator[Path], objective: str) -> None:
        for space in {space.name: space for space in (self.space, MIXED)}.values():
            found = self.search(next(paths), objective, space).go(self.trials)
            for choices in found:
                assert list(choices) == list(space.choices)
                for key, value in choices.items():
                    assert value in space.choices[key]
                    assert type(value) in {type(option) for option in space.choices[key]}
            assert len({tuple(c.values()) for c in found}) > 5

    def test_the_seed_decides_the_sequence(self, paths: Iterator[Path], objective: str) -> None:
        first, same, other = (
            self.search(next(paths), objective, seed=seed).go(self.trials) for seed in (3, 3, 4)
        )
        assert first == same
        # some starts are the same for every seed: references, or nets alike in all stages
        assert sum(a == b for a, b in zip(first, other, strict=True)) <= 4

    def test_interrupted_and_resumed_is_uninterrupted(
        self, paths: Iterator[Path], objective: str
    ) -> None:
        first = 40 - self.trials  # where a proposal takes long, random ones come before
        calm, broken = (self.search(next(paths), objective) for _ in range(2))
        for search in (calm, broken):
            search.reopen("random")
            search.go(first)
            search.reopen()
        for stop in (first + 1, first + 4, 35, 37):
            broken.go(stop)
            if stop % 2:
                broken.ask()  # on file, without a result
            broken.reopen()
        assert broken.go(40) == calm.go(40)

    def test_it_acts_on_results_after_its_startup_and_within_30_trials(
        self, paths: Iterator[Path], objective: str
    ) -> None:
        found, length = [], min(self.trials, 30)
        for sign in (1, -1):
            search = self.search(next(paths), objective)
            search.sign = sign
            found.append(search.go(length))
        startup = search.startup
        assert found[0][:startup] == found[1][:startup]
        if self.learns:
            assert startup < length and found[0] != found[1]
        else:
            assert found[0] == found[1] and startup == 0

    def test_it_begins_with_given_points_and_resumes_exactly(
        self, paths: Iterator[Path], objective: str
    ) -> None:
        points, length = first_points(self.space), min(self.trials, 30)
        calm, broken = (self.search(next(paths), objective) for _ in "ab")
        for search in (calm, broken):
            search.log.enqueue(points)
        for stop in (0, 1, 2, 4, length - 2):
            broken.go(stop)
            if stop % 2:
                broken.ask()  # on file, without a result
            broken.reopen()
            broken.log.enqueue(points)  # as a resumed search does
        found = broken.go(length)
        assert found == calm.go(length)
        assert found[:3] == points and len(found) == length

    def test_failed_rejected_and_duplicate_trials_are_survived(
        self, paths: Iterator[Path], objective: str
    ) -> None:
        states = random.Random(1).choices(("done", "failed", "rejected", "duplicate"), k=60)

        def go(search: Search, until: int) -> list[Choices]:
            for number in range(len(search.log.trials()), until):
                search.tell(*search.ask(), "failed" if number < 3 else states[number])
            return [trial.choices for trial in search.log.trials()]

        calm = go(self.search(next(paths), objective), self.trials)
        broken = self.search(next(paths), objective)
        go(broken, self.trials // 2)
        broken.reopen()
        assert go(broken, self.trials) == calm

    def test_nothing_but_failures_are_survived(self, paths: Iterator[Path], objective: str) -> None:
        search = self.search(next(paths), objective)
        asked = []
        for number in range(min(self.trials, 30)):
            asked.append(search.ask())
            search.tell(*asked[-1], ("failed", "rejected")[number % 2])
        assert len({tuple(c.values()) for _, c in asked}) > len(asked) // 2

    def test_many_trials_at_once(self, paths: Iterator[Path], objective: str) -> None:
        search = self.search(next(paths), objective)
        search.go(8)
        pending = [search.ask() for _ in range(64 if self.trials > 8 else 3)]
        # two thirds of a space of 96 points cannot be had without repeating some
        assert len({tuple(c.values()) for _, c in pending}) > len(pending) // 2
        random.Random(0).shuffle(pending)
        for number, choices in pending:
            search.tell(number, choices)
        assert search.log.unfinished() == []
        search.reopen()
        search.tell(*search.ask())

    def test_it_finds_more_than_chance(self, paths: Iterator[Path]) -> None:
        if not self.learns:
            pytest.skip("it is chance")
        mbconv: Space = registry.export("spaces", "mbconv", "SPACE")

        def best(search: Search) -> float:
            search.go(self.enough)
            return max(trial.values[0] for trial in search.log.trials())

        chance = Search(next(paths), "random", {}, "reward", mbconv)
        assert best(self.search(next(paths), "reward", mbconv)) > best(chance)
