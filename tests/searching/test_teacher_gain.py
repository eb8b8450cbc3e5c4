"""What the architecture and what the teacher added, told apart in two lines."""

import math

import pytest
from digits import TINY

from nas.searching.outcome.explanation import teacher_lines
from nas.searching.outcome.finals import Finalist, FinalScore
from nas.searching.outcome.teacher_gain import teacher_gain
from nas.training.scores import TeacherScore

INFO = TeacherScore(
    source="r", told="the run r", top1=90.0, n=341, probed=False, flops=1, pixels=64
)


def score(name: str, mean: float, deviation: float, seeds: int = 3) -> FinalScore:
    return FinalScore(Finalist(name, TINY, {}), (mean,) * seeds, deviation, "")


TAUGHT = {"b": score("search #7", 85.0, 0.6), "p": score("parent at 112 px", 83.5, 0.6)}


def test_each_is_a_difference_with_its_standard_error() -> None:
    alone = {"b": score("search #7", 84.6, 0.9), "p": score("parent at 112 px", 82.0, 0.9)}
    gain = teacher_gain(INFO, TAUGHT, alone, "b", "p")
    assert gain.architecture == pytest.approx(1.5) and gain.over == "parent at 112 px"
    assert gain.architecture_std == pytest.approx(0.6 * math.sqrt(2 / 3))
    assert gain.teacher == pytest.approx(0.4)
    assert gain.teacher_std == pytest.approx(math.hypot(0.6, 0.9) / math.sqrt(3))
    assert teacher_lines(gain) == (
        "Architecture: +1.50 ±0.49 points over parent at 112 px, both with the teacher.",
        "Teacher: +0.40 ±0.62 points, within the noise, for the same net with the same seeds; it "
        "is the run r (val top-1 90.00 %).",
    )


def test_what_was_not_measured_is_not_told() -> None:
    assert teacher_lines(teacher_gain(INFO, TAUGHT, {}, "b", "")) == ()
    one = {"b": score("search #7", 84.0, 0.0, seeds=1)}
    told = teacher_lines(teacher_gain(INFO, one, {"b": score("x", 85.0, 0.0, seeds=1)}, "b", "p"))
    assert [line.partition(":")[0] for line in told] == ["Teacher"]
    assert "-1.00 points (one seed: noise unknown) for the same net" in told[0]


def test_the_parent_itself_owes_nothing_to_an_architecture() -> None:
    gain = teacher_gain(INFO, TAUGHT, {"p": score("parent", 83.0, 0.6)}, "p", "p")
    assert gain.architecture is None and gain.teacher == pytest.approx(0.5)
