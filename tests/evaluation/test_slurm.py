"""docs/deploy/search.sbatch: what it asks of Slurm, and what it does, run with stand-ins."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import parse

SBATCH = Path(__file__).parents[2] / "docs" / "deploy" / "search.sbatch"
DIRECTIVES = {
    "job-name": r"\w+",
    "nodes": r"\d+",
    "ntasks-per-node": "1",
    "cpus-per-task": r"\d+",
    "gpus-per-node": r"\d+",
    "exclusive": "",
    "mem": r"\d+",
    "time": r"\d+:\d\d:\d\d",
    "output": r"[\w%.-]+",
    "open-mode": "append",
    "requeue": "",
    "signal": r"B:TERM@\d+",
}
# the stand-ins: `nas` waits for signals like the real one, whose first ends it in order
STANDINS = {
    "srun": 'echo "srun $*" >>"$LOG"',
    "scontrol": 'echo "scontrol $*" >>"$LOG"',
    "ray": 'echo "ray $* mode=$RAY_AUTH_MODE key=${#RAY_AUTH_TOKEN}" >>"$LOG"',
    "nas": """
echo "nas $*" >>"$LOG"
[[ ${ENDS:-} ]] && exit "$ENDS"
trap 'echo TERM >>"$LOG"; ((++count >= ${PATIENT:-1})) && exit 130' TERM
count=0
echo ready >>"$LOG"
while true; do sleep 0.05; done
""",
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job of two nodes; LOG tells what was called."""
    for name, body in STANDINS.items():
        path = tmp_path / "venv" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
    activate = f'export PATH="{tmp_path}/venv/bin:$PATH"\n'
    (tmp_path / "venv" / "bin" / "activate").write_text(activate, encoding="utf-8")
    job = {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "32", "SLURM_GPUS_ON_NODE": "4"}
    node = {"SLURMD_NODENAME": "n1", "SLURM_JOB_NUM_NODES": "2", "USER": "me", "POLL": "0.05"}
    ends = {"SLURM_JOB_END_TIME": str(int(time.time()) + 600)}
    paths = {"SHARED": str(tmp_path), "LOG": str(tmp_path / "log"), "PATH": os.environ["PATH"]}
    return {**job, **node, **ends, **paths, "GRACE": "1"}


def run_until_ready(env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the script; return once its search runs."""
    script = subprocess.Popen(["bash", str(SBATCH)], env=dict(env))
    deadline = time.monotonic() + 600
    while "ready" not in log(env) and time.monotonic() < deadline:
        time.sleep(0.05)
    if "ready" not in log(env):
        script.kill()
        pytest.fail(f"the search has not started: {log(env)}")
    return script


def log(env: Mapping[str, str]) -> list[str]:
    path = Path(env["LOG"])
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_the_sbatch_script_is_sound() -> None:
    subprocess.run(["bash", "-n", SBATCH], check=True)
    lines = SBATCH.read_text(encoding="utf-8").splitlines()
    asked = dict(
        re.fullmatch(r"#SBATCH --([a-z-]+)=?(\S*)", line).groups()  # type: ignore[union-attr]
        for line in lines
        if line.startswith("#SBATCH")
    )
    assert {"requeue", "signal", "nodes", "time"} <= set(asked) <= set(DIRECTIVES)
    for name, value in asked.items():
        assert re.fullmatch(DIRECTIVES[name], value), (name, value)
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(not line.startswith("#SBATCH") for line in lines[first:])  # Slurm would not see it


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck")
    if not shellcheck:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, SBATCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_job_ends_as_the_search_does(slurm: dict[str, str], code: int) -> None:
    done = subprocess.run(["bash", SBATCH], env={**slurm, "ENDS": str(code)}, timeout=600)
    assert done.returncode == code
    lines = log(slurm)
    assert not any(line.startswith("scontrol") for line in lines)
    steps = sorted(line for line in lines if line.startswith("srun"))
    assert "--exclude=n1 ray start --address=n1:24711" in steps[0]
    assert "--nodelist=n1 ray start --head --port=24711 --num-cpus=32 --num-gpus=4" in steps[1]
    assert all("--nodes=1 --ntasks=1" in step for step in steps)
    assert "ray status --address=n1:24711 mode=token key=64" in lines
    (search,) = (line for line in lines if line.startswith("nas"))
    given = parse(shlex.split(search))
    assert (given["executor"], given["address"], given["resume"]) == ("ray", "n1:24711", True)
    assert given["project"] == Path(slurm["SHARED"]) / "runs"


@pytest.mark.parametrize("patient", [1, 2])
def test_the_time_limit_ends_the_search_and_queues_it_again(
    slurm: dict[str, str], patient: int
) -> None:
    script = run_until_ready({**slurm, "PATIENT": str(patient)})
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=600) == 130
    lines = log(slurm)
    # the second signal comes only to a search that has not ended on the first
    assert lines.count("TERM") == patient
    assert lines[-1] == "scontrol requeue 4711"


def test_a_cancelled_job_is_not_queued_again(slurm: dict[str, str]) -> None:
    slurm["SLURM_JOB_END_TIME"] = str(int(time.time()) + 7200)
    script = run_until_ready(slurm)
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=600) == 130
    assert not any(line.startswith("scontrol") for line in log(slurm))


def test_a_ray_that_does_not_start_ends_the_job(slurm: dict[str, str]) -> None:
    path = Path(slurm["SHARED"]) / "venv" / "bin" / "ray"
    path.write_text("#!/usr/bin/env bash\nexit 1\n", encoding="utf-8")
    done = subprocess.run(
        ["bash", SBATCH],
        env={**slurm, "POLL": "0.01"},
        timeout=600,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "Ray does not start on n1: see above\n")
    assert not any(line.startswith("nas") for line in log(slurm))
