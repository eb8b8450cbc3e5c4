"""Users' files that import modules by the names they had before they moved."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from nas.core import registry
from nas.core.moved import MOVED
from nas.interfaces import Space

OLD_SPACE = """
from nas.arch import Arch, Head, Stage, Stem
from nas.interfaces import Space

def decode(choices):
    stages = (Stage("mbconv", 16, stride=2, expansion=choices["expansion"]),)
    return Arch("old", stages, Stem(8), Head(32, classes=10), resolution=32)

SPACE = Space("old", {"expansion": (1, 3, 6)}, decode)
"""


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_gives_the_same_objects(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{MOVED[old]} now"):
        module = importlib.import_module(old)
    today = vars(importlib.import_module(MOVED[old]))
    names = [name for name in today if not name.startswith("_")]
    assert names and all(getattr(module, name) is today[name] for name in names)


@pytest.mark.filterwarnings("ignore:nas.arch is:DeprecationWarning")
def test_a_space_file_of_before_is_a_space(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text(OLD_SPACE)
    space = registry.export("spaces", str(path), "SPACE")
    assert isinstance(space, Space)
    assert space.decode({"expansion": 3}).stages[0].expansion == 3


def test_a_script_of_before_runs() -> None:
    code = "from nas.arch import Arch; import nas; assert nas.Arch is Arch"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_module_of_before_had_is_found_where_a_room_has_its_name() -> None:
    from nas.exporting.request import ExportRequest, listed

    with pytest.warns(DeprecationWarning, match="in nas.exporting.request now"):
        from nas.exporting import Subject
    with pytest.warns(DeprecationWarning):
        from nas.exporting import listed as before
    assert Subject is ExportRequest and before is listed
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from nas.evaluation import nothing  # noqa: F401


def test_an_executor_of_before_tells_its_fleet(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OLD_EXECUTOR)
    with pytest.warns(DeprecationWarning):
        made = registry.make("executors", str(path), None, options={})
    assert made.status().workers == 1


OLD_EXECUTOR = """
from nas.evaluation import make_evaluator, perform
from nas.interfaces import Fleet, Work

class Mine:
    slots = 1
    def fleet(self): return Fleet(1, 0)
    def submit(self, task): pass
    def wait(self): return []
    def close(self): pass

def make(work: Work, *, workers=0): return Mine()
"""
