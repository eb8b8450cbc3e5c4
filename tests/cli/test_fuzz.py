"""Property-based: what an arch, a size, a journal or a table holds is read right or refused.

A few seconds here; NAS_FUZZ=20000 tries that many examples of each (CONTRIBUTING.md).
"""

import json
import math
import os
import shlex
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import rich.console
import yaml
from hypothesis import HealthCheck, given, settings

from nas.core import quoting, run_folder, units
from nas.core.errors import NasError, OptionError, RunError
from nas.core.tables import read_rows
from nas.models.arch import ACTIVATIONS, SKIPS, Arch
from nas.models.cost import count
from nas.reporting.terminal.tables import console
from nas.searching.studies.study import read_journal

MANY = int(os.environ.get("NAS_FUZZ", "60"))
fuzzed = settings(
    max_examples=MANY,
    deadline=None,
    derandomize="NAS_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# what JSON can hold, values and depths that people do not write among them
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0, 1, 2, 3, 8, 32, 224, "conv", "mbconv", "silu", "identity"])
)
DATA = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
STAGES = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["conv", "mbconv", "basic", "bottleneck", "sepconv", "depthwise"]),
        "channels": st.integers(1, 64),
    },
    optional={
        "layers": st.integers(1, 3),
        "kernel": st.sampled_from([1, 3, 5, 7]),
        "stride": st.sampled_from([1, 2]),
        "se": st.sampled_from([0.0, 0.25, 0.5]),
        "skip": st.sampled_from(SKIPS),
        "activation": st.sampled_from(ACTIVATIONS),
    },
)
ARCHS = st.fixed_dictionaries(
    {
        "schema": st.just(1),
        "name": st.text(max_size=10),
        "stages": st.lists(STAGES, min_size=1, max_size=4),
    },
    optional={
        "stem": st.fixed_dictionaries({"channels": st.integers(1, 32)}),
        "head": st.fixed_dictionaries({"classes": st.integers(1, 1000)}),
        "resolution": st.integers(32, 256),
        "in_channels": st.integers(1, 4),
    },
)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """An arch with some values, at any depth, replaced by anything."""
    found = draw(ARCHS)
    for _ in range(draw(st.integers(1, 3))):
        at: Any = found
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = draw(st.sampled_from(keys))
            if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
                break
            at = at[key]
        at[key] = draw(DATA)
    return found


@fuzzed
@given(ARCHS)
def test_an_arch_comes_back_from_json_and_costs_what_it_did(data: dict[str, Any]) -> None:
    arch = Arch.from_dict(data)
    again = Arch.from_dict(json.loads(arch.to_json()))
    assert again == arch and again.id == arch.id
    assert count(again) == count(arch) and count(arch).flops > 0 and count(arch).params > 0


@fuzzed
@given(damaged() | DATA)
def test_whatever_stands_for_an_arch_is_one_or_is_refused(data: Any) -> None:
    try:
        arch = Arch.from_dict(data)
        found = count(arch)
    except NasError as error:
        assert error.exit_code == 2 and str(error)
        return
    assert Arch.from_dict(arch.to_dict()).id == arch.id
    assert min(found.params, found.flops, found.activations) >= 0


PARSERS: list[Callable[[Any], Any]] = [
    units.parse_count,
    units.parse_milliseconds,
    units.parse_seconds,
    units.parse_number,
    units.parse_phis,
]
SIZES = (
    st.text(alphabet=string.digits + ".eE+-kKmMgGtTbBsuhd, ٣²", max_size=12)
    | LEAVES
    | st.text(max_size=8)
)


@fuzzed
@given(st.sampled_from(PARSERS), SIZES)
def test_a_size_is_read_as_a_finite_number_or_refused(
    parse: Callable[[Any], Any], text: Any
) -> None:
    try:
        found = parse(text)
    except OptionError as error:
        assert str(error)
        return
    numbers = found if isinstance(found, tuple) else (found,)
    assert numbers and all(math.isfinite(number) for number in numbers)
    if parse is not units.parse_number and parse is not units.parse_phis:
        assert numbers[0] > 0


@fuzzed
@given(st.integers(1, 10**15))
def test_a_count_that_is_printed_is_read_back_to_three_digits(value: int) -> None:
    assert units.parse_count(units.format_count(value)) == pytest.approx(value, rel=0.006)


def journal_lines() -> st.SearchStrategy[bytes]:
    record = st.fixed_dictionaries(
        {"op_code": st.integers(-1, 12)},
        optional={
            "worker_id": st.text(max_size=3),
            "study_id": st.integers(-1, 3) | DATA,
            "study_name": DATA,
            "directions": DATA,
            "trial_id": st.integers(-1, 5) | DATA,
            "state": DATA,
            "values": DATA,
            "user_attr": DATA,
            "param_name": DATA,
            "param_value_internal": DATA,
            "distribution": DATA,
            "datetime_start": DATA,
        },
    )
    line = record.map(lambda data: json.dumps(data).encode() + b"\n")
    return st.lists(line | st.binary(max_size=20), max_size=6).map(b"".join)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal of a few trials."""
    from nas.core import registry
    from nas.interfaces import Trial
    from nas.searching.samplers import distributions
    from nas.searching.studies.study import SEARCH, Journal

    space = registry.export("spaces", "mbconv_small", "SPACE")
    path = tmp_path_factory.mktemp("journal") / "journal.log"
    sampler = registry.make("controllers", "random", space, options={}, seed=0)
    log = Journal(path, distributions(space)).log(SEARCH, ["maximize"], sampler)
    for _ in range(3):
        number, choices = log.ask(distributions(space))
        log.tell(Trial(number, "done", choices, f"a{number}", {"accuracy": 1.0}, (1.0,)))
    return path.read_bytes()


@fuzzed
@given(st.data())
def test_a_damaged_journal_is_read_or_refused(
    whole: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 200)))
    path = tmp_path / "journal.log"
    put = data.draw(st.binary(max_size=8) | journal_lines())
    path.write_bytes(whole[:start] + put + whole[end:])
    try:
        kept = read_journal(path)
    except RunError as error:
        assert str(path) in str(error)
        return
    assert all(trial.number >= 0 for trials in kept.studies.values() for trial in trials)


@fuzzed
@given(journal_lines())
def test_a_made_up_journal_is_read_or_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(text)
    try:
        read_journal(path)
    except RunError as error:
        assert str(path) in str(error)


TABLES = st.binary(max_size=200) | st.text(alphabet=',"\n\r\t;ab1é\x00\u2028', max_size=80).map(
    str.encode
)


@fuzzed
@given(TABLES)
def test_a_table_is_rows_or_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text)
    try:
        rows = read_rows(path)
    except OptionError as error:
        assert str(path) in str(error)
        return
    assert all(isinstance(row, dict) for row in rows)


@fuzzed
@given(st.lists(st.lists(st.text(max_size=6), min_size=2, max_size=2), max_size=5))
def test_a_table_of_a_run_comes_back_as_it_was_written(
    tmp_path: Path, rows: list[list[str]]
) -> None:
    path = tmp_path / "table.csv"
    try:
        run_folder.write_csv(path, ["a", "b"], rows)
        found = [list(row.values()) for row in run_folder.read_csv(path)]
    except RunError:
        assert any("\x00" in cell for row in rows for cell in row)
        return
    assert found == [[cell.replace("\r", "\\r") for cell in row] for row in rows]


@fuzzed
@given(st.binary(max_size=120) | DATA.map(lambda data: yaml.safe_dump(data).encode()))
def test_arguments_are_a_mapping_or_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "args.yaml"
    path.write_bytes(text)
    try:
        found = run_folder.read_args(path)
    except RunError as error:
        assert str(path) in str(error)
        return
    assert all(isinstance(name, str) for name in found)


NAMES = st.text(max_size=30) | st.text(
    alphabet="[]/\\*_`|#<>&$'\"\n\r\x1b\x07\u202e\udcff a1", max_size=20
)


@fuzzed
@given(NAMES)
def test_a_name_is_shown_as_it_is_on_one_line(name: str) -> None:
    with rich.console.Console().capture():
        shown = console()
    shown.file = open(os.devnull, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    with shown.capture() as screen:
        shown.print(f"class {name}.")
    shown.file.close()
    assert screen.get() == f"class {quoting.visible(name)}.\n"
    assert len(quoting.visible(name).splitlines()) <= 1 and "\x1b" not in quoting.visible(name)


@fuzzed
@given(st.lists(NAMES.filter(lambda word: "\x00" not in word), min_size=1, max_size=4))
def test_a_command_is_read_back_by_a_shell_as_its_words(words: list[str]) -> None:
    line = quoting.command(*words)
    assert line == quoting.visible(line)
    if "$'" not in line:
        assert shlex.split(line) == words


@pytest.mark.parametrize(
    "word", ["a b", "it's", "$(date)", "new\nline", "tab\t\\ '", "\x1b[31m", ""]
)
def test_bash_reads_a_command_back(word: str) -> None:
    import shutil
    import subprocess

    if not shutil.which("bash"):
        pytest.skip("needs bash")
    line = f"printf %s {quoting.command(word)}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == word


@fuzzed
@given(NAMES)
def test_markdown_holds_no_markup_of_a_name(name: str) -> None:
    shown = quoting.markdown(name)
    assert "\n" not in shown and "](" not in shown.replace("\\](", "")
    assert not [
        i for i, c in enumerate(shown) if c in "`*_[]<>#|" and (i == 0 or shown[i - 1] != "\\")
    ]
