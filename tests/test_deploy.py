"""docs/deploy.md and its files, as far as they can be checked without a cloud.

Ray's own schema judges the cluster file; the RayJob is held against the fields of KubeRay's v1
that it uses; the Slurm script runs with stand-ins for Slurm, Ray and nas.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nas.cli import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
PAGE = ROOT / "docs" / "deploy.md"
SBATCH = DEPLOY / "search.sbatch"
VERSION = "2.60.0"  # of Ray, in every file


def one(path: str) -> dict[str, Any]:
    """Return the only document of a YAML file."""
    data = yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a nas command as the command line does, without running it; return its parameters."""
    assert words[0] == "nas", words
    command: Any = typer.main.get_command(app)
    return dict(command.commands[words[1]].make_context(words[1], list(words[2:])).params)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the nas commands of a page: indented lines, also behind another command."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("    ") and (found := re.search(r"(?:^ {4}|-- )(nas [a-z-]+ .*)", line)):
            yield shlex.split(found[1])


# --- the page


def test_every_command_of_the_page_parses() -> None:
    found = [parse(words) for words in commands(PAGE.read_text(encoding="utf-8"))]
    assert len(found) >= 7
    ray = [given for given in found if given.get("executor") == "ray"]
    assert {given.get("address") for given in ray} >= {"local", "auto"}
    # what runs on more than one machine has its run folder on the shared disk
    shared = [given for given in ray if given.get("address") == "auto"]
    assert all(given["project"] == Path("/shared/runs") for given in shared)
    with pytest.raises(Exception, match="No such option"):
        parse(shlex.split("nas search --executer ray"))


def test_the_page_names_every_file_and_files_name_only_what_exists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path in DEPLOY.iterdir():
        assert f"(deploy/{path.name})" in page, path.name
        for name in re.findall(r"docs/deploy/([\w.]+\w)", path.read_text(encoding="utf-8")):
            assert (DEPLOY / name).exists(), (path.name, name)
    for name in re.findall(r"docs/deploy/([\w.]+\w)", page):
        assert (DEPLOY / name).exists(), name
    assert "(deploy.md)" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_jumps_within_the_page_land() -> None:
    page = PAGE.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", page, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    jumps = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert jumps and jumps <= anchors


def test_the_plan_fields_of_the_page_are_those_of_the_command() -> None:
    from nas.verbs.plan import Amount, bill

    fields = {*bill(Amount(1, 0, 0, 1, None), 1.0, None, None), *Amount.__dataclass_fields__}
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("`--json` has") :].partition(".\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", section))
    assert {"worker_hours", "cost"} <= named <= fields


def test_one_version_of_ray_everywhere() -> None:
    for path in [*DEPLOY.iterdir(), PAGE]:
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"rayproject/ray:([\d.]+\d)|rayVersion: \"([\d.]+)\"", text):
            assert "".join(found) == VERSION, path.name
    short = VERSION.rpartition(".")[0]
    assert f"ray[default]=={short}.*" in PAGE.read_text(encoding="utf-8")


# --- ray up


def test_ray_accepts_the_cluster_file() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason="Ray is not installed")
    cluster = one("cluster.yaml")
    filled = util.prepare_config(cluster)
    util.validate_config(filled)
    with pytest.raises(Exception, match="Additional properties"):
        util.validate_config({**filled, "max_worker": 3})


def test_the_cluster_file_has_a_plain_head_and_spot_workers() -> None:
    cluster = one("cluster.yaml")
    types = cluster["available_node_types"]
    head, gpu = types[cluster["head_node_type"]], types["gpu"]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= cluster["max_workers"]
    assert "--num-cpus=0" in cluster["head_start_ray_commands"][-1]
    mounted = " ".join(cluster["initialization_commands"])
    assert "nfs4" in mounted and mounted.count(" /shared") >= 2
    options = cluster["docker"]["run_options"]
    assert "-v /shared:/shared" in options
    # the key that file_mounts brings is the one that Ray is told to read
    (key,) = cluster["file_mounts"]
    assert f"-e RAY_AUTH_TOKEN_PATH={key}" in options and "-e RAY_AUTH_MODE=token" in options
    for line in (*cluster["setup_commands"], *cluster["initialization_commands"]):
        subprocess.run(["bash", "-n", "-c", line], check=True)


def test_ray_accepts_the_runtime_env() -> None:
    runtime_env = pytest.importorskip("ray.runtime_env", reason="Ray is not installed")
    found = runtime_env.RuntimeEnv(**one("env.yaml"))
    assert found["env_vars"]["NAS_CACHE"]
    with pytest.raises(Exception, match="env_var"):
        runtime_env.RuntimeEnv(env_vars={"OMP_NUM_THREADS": 1})


# --- KubeRay

# the fields of ray.io/v1 and of Kubernetes' v1 that the files may use; a leaf is its type
MAP = {"*": str}
QUANTITIES = {"requests": {"*": "quantity"}, "limits": {"*": "quantity"}}
CONTAINER = {
    "name": str,
    "image": str,
    "command": [str],
    "ports": [{"containerPort": int, "name": str}],
    "env": [{"name": str, "value": str}],
    "resources": QUANTITIES,
    "volumeMounts": [{"name": str, "mountPath": str}],
}
POD = {
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "nodeSelector": MAP,
    "tolerations": [{"key": str, "operator": str, "value": str, "effect": str}],
    "containers": [CONTAINER],
    "volumes": [
        {
            "name": str,
            "persistentVolumeClaim": {"claimName": str},
            "emptyDir": {"medium": str, "sizeLimit": "quantity"},
        }
    ],
}
GROUP = {"rayStartParams": MAP, "template": {"spec": POD}}
COUNTS = {"replicas": int, "minReplicas": int, "maxReplicas": int}
RAYJOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "submissionMode": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {
            "rayVersion": str,
            "authOptions": {"mode": str},
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {"upscalingMode": str, "idleTimeoutSeconds": int},
            "headGroupSpec": GROUP,
            "workerGroupSpecs": [{"groupName": str, **COUNTS, **GROUP}],
        },
    },
}
CLAIM = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "accessModes": [str],
        "storageClassName": str,
        "resources": {"requests": {"storage": "quantity"}},
    },
}
FILES = {"apiVersion": str, "kind": str, "metadata": {"name": str}, "spec": POD}
QUANTITY = re.compile(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?")


def check(data: Any, shape: Any, place: str = "") -> None:
    """Hold data against a shape: no unknown key, every leaf of its type."""
    if shape == "quantity":
        assert QUANTITY.fullmatch(data), place
    elif isinstance(shape, list):
        assert isinstance(data, list) and data, place
        for index, item in enumerate(data):
            check(item, shape[0], f"{place}[{index}]")
    elif isinstance(shape, dict):
        assert isinstance(data, Mapping), place
        for key, value in data.items():
            assert key in shape or "*" in shape, f"{place}.{key} is no field that is known"
            check(value, shape.get(key, shape.get("*")), f"{place}.{key}")
    else:
        assert type(data) is shape, f"{place} is {data!r}, which is no {shape.__name__}"


def pods(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the specs of all pods of a RayJob, the head's first."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def quantity(text: str) -> float:
    """Return a quantity as a number; memory in bytes."""
    units = {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", text).groups()  # type: ignore[union-attr]
    return float(number) * units.get(unit, 1.0)


def test_the_rayjob_has_only_fields_that_exist() -> None:
    job = one("rayjob.yaml")
    check(job, RAYJOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    assert spec["rayClusterSpec"]["authOptions"]["mode"] in ("token", "disabled")
    assert spec["rayClusterSpec"]["autoscalerOptions"]["upscalingMode"] in (
        *("Default", "Aggressive", "Conservative"),
    )
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    with pytest.raises(AssertionError, match=r"\.spec\.entryPoint is no field"):
        check({**job, "spec": {**spec, "entryPoint": ""}}, RAYJOB)


def test_pods_mount_what_they_have_and_the_claim_exists() -> None:
    claim, files = yaml.safe_load_all((DEPLOY / "claim.yaml").read_text(encoding="utf-8"))
    check(claim, CLAIM)
    check(files, FILES)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in (files["spec"], *pods(one("rayjob.yaml"))):
        volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == set(volumes)
        assert mounts["shared"] == "/shared"
        name = volumes["shared"]["persistentVolumeClaim"]["claimName"]
        assert name == claim["metadata"]["name"]


def test_the_rayjobs_command_fits_its_cluster() -> None:
    job = one("rayjob.yaml")
    given = parse(shlex.split(job["spec"]["entrypoint"]))
    assert (given["executor"], given["address"], given["resume"]) == ("ray", "auto", True)
    head, worker = pods(job)
    for pod in (head, worker):
        (container,) = pod["containers"]
        paths = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/dev/shm", "/shared"} <= paths
        assert given["project"].is_relative_to("/shared") and given["data"].startswith("/shared/")
        assert {v["name"]: v["value"] for v in container["env"]}["NAS_CACHE"] in paths
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits == requests
        (shm,) = (v["emptyDir"] for v in pod["volumes"] if v["name"] == "shm")
        assert shm["medium"] == "Memory"
        assert quantity(shm["sizeLimit"]) < quantity(limits["memory"])
    # a pod holds as many trials by its CPUs as by its GPUs, and all pods as many as are asked for
    limits = worker["containers"][0]["resources"]["limits"]
    by_gpu = quantity(limits["nvidia.com/gpu"]) / float(given["gpus_per_trial"])
    assert by_gpu == quantity(limits["cpu"]) / float(given["cpus_per_trial"])
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert group["maxReplicas"] * by_gpu == int(given["workers"])
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


# --- Slurm

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
    deadline = time.monotonic() + 30
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
    done = subprocess.run(["bash", SBATCH], env={**slurm, "ENDS": str(code)}, timeout=60)
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
    assert script.wait(timeout=60) == 130
    lines = log(slurm)
    # the second signal comes only to a search that has not ended on the first
    assert lines.count("TERM") == patient
    assert lines[-1] == "scontrol requeue 4711"


def test_a_cancelled_job_is_not_queued_again(slurm: dict[str, str]) -> None:
    slurm["SLURM_JOB_END_TIME"] = str(int(time.time()) + 7200)
    script = run_until_ready(slurm)
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=60) == 130
    assert not any(line.startswith("scontrol") for line in log(slurm))


def test_a_ray_that_does_not_start_ends_the_job(slurm: dict[str, str]) -> None:
    path = Path(slurm["SHARED"]) / "venv" / "bin" / "ray"
    path.write_text("#!/usr/bin/env bash\nexit 1\n", encoding="utf-8")
    done = subprocess.run(
        ["bash", SBATCH],
        env={**slurm, "POLL": "0.01"},
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "Ray does not start on n1: see above\n")
    assert not any(line.startswith("nas") for line in log(slurm))
