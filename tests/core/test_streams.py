"""A stdout or stderr that is closed, full or read in part: nothing that was computed is lost."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import START

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a shell's redirections")
SEARCH = "search --space space.py --evaluator ledger.py --trials 4 --no-random-search"
FULL = "cannot print the result: No space left on device; what was computed is saved"
# a redirection, the exit code of `nas`, and what is to be read of the streams that are left
STREAMS = {
    "2>err.txt | head -1": (0, "space small"),
    "2>err.txt | true": (0, ""),
    "--json 2>err.txt | true": (0, ""),
    "2>&1 | true": (0, ""),
    "2>err.txt >&-": (0, ""),
    ">&- 2>&-": (0, ""),
    "2>err.txt >/dev/full": (1, FULL),
    "--json 2>err.txt >/dev/full": (1, FULL),
    "2>/dev/full": (0, "saved   runs/search/search"),
    "2>&-": (0, "saved   runs/search/search"),
}


def shell(folder: Path, line: str) -> tuple[int, str]:
    """Run `nas` in a shell with redirections; return its own exit code and what was printed."""
    left, pipe, right = line.partition("|")
    (folder / "nas.sh").write_text(
        f'exec {sys.executable} -c "{START[2]}" "$@"\n'  # its code, not that of the pipe's end
    )
    script = f"{{ sh nas.sh {left}; echo $? >code.txt; }} {pipe} {right}"
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, timeout=600)
    errors = folder / "err.txt"
    said = errors.read_text() if errors.exists() else ""
    return int((folder / "code.txt").read_text()), done.stdout.decode() + said


@pytest.mark.slow
@pytest.mark.parametrize("streams", STREAMS)
def test_a_search_ends_as_with_streams_that_work(folder: Path, streams: str) -> None:
    code, said = shell(folder, f"{SEARCH} {streams}")
    assert (code, "Traceback" in said) == (STREAMS[streams][0], False), said
    assert STREAMS[streams][1] in said
    found = folder / "runs/search/search"
    assert json.loads((found / "result.json").read_text())["trials"] == 4
    with (found / "trials.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)].count("done") == 4
    assert (found / "report.html").exists() and (found / "best/arch.json").exists()
    assert len((folder / "ledger.txt").read_text().split()) == 4


@pytest.mark.parametrize("line", ["--help", "--version", "ls spaces", "cost efficientnet_b0"])
def test_a_full_disk_is_told_and_a_closed_stdout_is_not(folder: Path, line: str) -> None:
    assert shell(folder, f"{line} 2>err.txt >/dev/full") == (1, f"nas: {FULL}\n")
    assert shell(folder, f"{line} 2>err.txt >&-") == (0, "")
