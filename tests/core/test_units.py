"""Units: what people type, and what is shown to them."""

import pytest

from nas.core import units
from nas.core.errors import OptionError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("400M", 400_000_000),
        ("400m", 400_000_000),
        ("0.39B", 390_000_000),
        ("0.39G", 390_000_000),
        ("5.3e6", 5_300_000),
        (" 5.3 M ", 5_300_000),
        ("1.5T", 1_500_000_000_000),
        ("12k", 12_000),
        ("400000000", 400_000_000),
        (4e8, 400_000_000),
        ("1", 1),
    ],
)
def test_counts(text: str | float, value: int) -> None:
    assert units.parse_count(text) == value
    assert isinstance(units.parse_count(text), int)


@pytest.mark.parametrize(
    "text", ["400Q", "", "M", "-3M", "0", "0.4", "nan", "inf", "4 0M", "1e999"]
)
def test_a_malformed_count_is_refused_with_its_flag_and_the_text(text: str) -> None:
    with pytest.raises(OptionError, match=r"--target-flops") as error:
        units.parse_count(text, "--target-flops")
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"), [("12ms", 12), ("800us", 0.8), ("0.5s", 500), (2.5, 2.5)]
)
def test_milliseconds(text: str | float, value: float) -> None:
    assert units.parse_milliseconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["12", "12m", "0ms", "-1ms", "fast"])
def test_a_latency_needs_its_unit(text: str) -> None:
    with pytest.raises(OptionError, match="12ms"):
        units.parse_milliseconds(text)


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("20m", 1200), ("8h", 28800), ("2d", 172800)]
)
def test_durations(text: str, value: float) -> None:
    assert units.parse_seconds(text) == value


@pytest.mark.parametrize(
    ("text", "phis"),
    [
        ("1..7", (1, 2, 3, 4, 5, 6, 7)),
        ("-1..1", (-1, 0, 1)),
        ("0.5,1,2", (0.5, 1, 2)),
        ("1..3,5", (1, 2, 3, 5)),
        ("1,1,2", (1, 2)),
        (3, (3,)),
        (0.5, (0.5,)),
    ],
)
def test_phis(text: str | float, phis: tuple[float, ...]) -> None:
    assert units.parse_phis(text) == phis


@pytest.mark.parametrize(
    "text", ["", "x", "7..1", "1..", "1..2..3", "1..2.5", "nan", "21", "-21", "1..10000000000", ","]
)
def test_malformed_phis_are_refused_at_once(text: str) -> None:
    with pytest.raises(OptionError, match="--phi takes numbers and ranges"):
        units.parse_phis(text)


def test_numbers() -> None:
    assert units.parse_number("-0.07") == -0.07
    for text in ("x", "nan", "inf"):
        with pytest.raises(OptionError, match=repr(text)):
            units.parse_number(text, "--w")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (385_814_688, "385.8M"),
        (5_288_548, "5.29M"),
        (37_746_000_000, "37.75G"),
        (12_000, "12.00k"),
        (999, "999"),
        (3e12, "3.00T"),
    ],
)
def test_counts_are_shown_with_three_or_four_digits(value: float, text: str) -> None:
    assert units.format_count(value) == text


def test_what_is_shown_is_read_back() -> None:
    for value in (385_800_000, 5_290_000, 12_000, 37_750_000_000):
        assert units.parse_count(units.format_count(value)) == value


def test_times_and_bytes() -> None:
    shown = [units.format_seconds(s) for s in (0.85, 12.34, 250, 7500)]
    assert shown == ["850 ms", "12.3 s", "4m10s", "2h05m"]
    assert [units.format_bytes(b) for b in (2**20, 1.2 * 2**30)] == ["1.0 MiB", "1.20 GiB"]


@pytest.mark.parametrize(
    "value, text", [(0.0, "1 s"), (0.2, "1 s"), (3.4, "3 s"), (59.7, "1m00s"), (4000.0, "1h06m")]
)
def test_an_estimate_is_never_nothing(value: float, text: str) -> None:
    assert units.about_seconds(value) == text
