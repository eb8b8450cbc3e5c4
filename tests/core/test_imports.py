"""What may import what: the contracts in pyproject.toml, and what stays light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    *("matplotlib", "numpy", "onnx", "optuna", "PIL", "plotly", "pyarrow", "pydantic", "ray"),
    *("safetensors", "scipy", "sklearn", "sqlalchemy", "thop", "timm", "torch", "torchvision"),
}


def test_the_rooms_import_one_way() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(
        [*command, "--no-cache"], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("package", ["search_spaces", "baselines"])
def test_the_rooms_of_the_user_have_an_empty_init(package: str) -> None:
    assert not (ROOT / package / "__init__.py").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("name", ["nas", "nas.cli", "nas.interfaces"])
def test_import_is_light(name: str) -> None:
    code = f"import sys, {name}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
