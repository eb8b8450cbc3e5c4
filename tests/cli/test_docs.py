"""What the documents say is run: the code of extend.md, README's lines, the links."""

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nas
from nas.cli.program import command_of

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)


@functools.cache
def flags(verb: str) -> set[str]:
    return {
        flag
        for option in command_of(verb).params
        for flag in (*option.opts, *option.secondary_opts)
    }


def test_extend_md_shows_a_space_and_an_evaluator_that_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space, evaluator = blocks("docs/extend.md")[:2]
    assert len(space.splitlines()) <= 46
    Path("my_space.py").write_text(space, encoding="utf-8")
    Path("my_evaluator.py").write_text(evaluator, encoding="utf-8")
    parts = {"space": "./my_space.py", "evaluator": "./my_evaluator.py"}
    found = nas.search(**parts, target_flops="100M", trials=8, evaluator_options={"weight": 2.0})
    assert found["trials"] == 8
    first = [row["name"] for row in found["references"]]
    assert first == ["deepest_mbconv", "deepest_fused_mbconv"]
    assert found["best"]["metrics"]["accuracy"] == pytest.approx(
        50 + 2 * found["best"]["metrics"]["params"] / 1e6
    )


def test_the_parts_of_extend_md_pass_their_contracts_outside_of_a_checkout(tmp_path: Path) -> None:
    names = ("my_space.py", "my_evaluator.py", "test_parts.py")
    for name, text in zip(names, blocks("docs/extend.md"), strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "test_parts.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout
    # encode is the one that my_space.py does not have
    assert done.stdout.count(" PASSED ") == 12 and done.stdout.count(" SKIPPED ") == 1


def test_the_readme_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(blocks("README.md")[0], names)
    family = names["family"]
    assert isinstance(family, dict)
    assert [m["params"] for m in family["members"]][-1] == 66_347_960


@pytest.mark.parametrize("place", range(4))
def test_the_examples_for_python_run(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = blocks("docs/python.md")[place]
    exec(example, {})
    # what is printed is what the comments say it is
    out = capsys.readouterr().out
    for said in re.findall(r"print\(.*\)  # (.+?)(?: \.\.\.| multiply-adds)?$", example, re.M):
        assert said in out


def test_every_function_is_in_the_page_for_python() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert len(blocks("docs/python.md")) == 4
    for name in set(nas.__all__) - {"Arch"}:
        assert f"nas.{name}" in text or f"`{name}`" in text, name


def test_readme_opens_with_the_two_commands_that_ci_runs() -> None:
    first, second = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[1:3]
    assert first.startswith("pip install . && nas search ") and " && nas scale " in first
    assert second == 'pip install -e ".[dev]" && pytest'
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    starts = re.findall(r"\(line '(.*)'\)", script)
    assert len(starts) == 4
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert all(any(re.match(start, line) for line in lines) for start in starts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_in_the_documents_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for verb in ("search", "scale", "plan"):
        used = {
            word.partition("=")[0]
            for line in re.findall(rf"nas {verb} [^`\n&]*", text)
            for word in shlex.split(line, comments=True)
            if word.startswith("--")
        }
        assert used <= flags(verb), verb
