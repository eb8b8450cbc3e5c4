"""The table of finished tasks: what is appended is read again, what is damaged is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas.core import run_folder
from nas.core.errors import RunError
from nas.core.ledger import Ledger, columns


@dataclass(frozen=True)
class Row:
    name: str
    seed: int
    accuracy: float | None
    seconds: float
    place: str = "here"


ROWS = [
    Row("a, \"b\"\nc", 3, 0.1 + 0.2, 1e-9),
    Row("", -1, None, math.inf, ""),
    Row("Grüße", 0, 0.0, 2.0),
]  # fmt: skip


def test_rows_are_read_as_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    ledger = Ledger(path, Row)
    for number, row in enumerate(ROWS, 1):
        ledger.append(row)
        assert Ledger(path, Row).rows == ROWS[:number]
    assert [*run_folder.read_csv(path)[0]] == [*columns(Row)]
    Ledger(path, Row).append(Row("nan", 1, None, math.nan))
    assert math.isnan(Ledger(path, Row).rows[-1].seconds)
    assert Ledger(path, Row).rows[:-1] == ROWS


def test_what_is_left_out_is_gone_from_the_file_with_the_next_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    ledger = Ledger(path, Row)
    for row in ROWS:
        ledger.append(row)
    ledger.forget(lambda row: row.accuracy is None)
    assert Ledger(path, Row).rows == ROWS
    ledger.append(ROWS[1])
    assert Ledger(path, Row).rows == [ROWS[0], ROWS[2], ROWS[1]]


def test_a_file_of_an_earlier_version_lacks_its_last_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,seed,accuracy,seconds\na,1,,2\n")
    assert Ledger(tmp_path / "t.csv", Row).rows == [Row("a", 1, None, 2.0, "here")]


@pytest.mark.parametrize(
    "text",
    [
        "name,seed,accuracy\na,1,2\n",
        "name,seed,accuracy,seconds\na,one,2,3\n",
        "name,seed,accuracy,seconds\na,,2,3\n",
        "name,seed,accuracy,seconds\na,1,x,3\n",
        "name,seed,accuracy,seconds\na,1\n",
    ],
)
def test_damage_is_one_line_that_says_what_to_delete(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(RunError, match=r"t.csv row 1 is damaged .*delete the row") as error:
        Ledger(tmp_path / "t.csv", Row)
    assert "\n" not in str(error.value)
