"""docs/deploy.md and its files, as far as they can be checked without a cloud.

Ray's own schema judges the cluster file; the RayJob is held against the fields of KubeRay's v1
that it uses. The Slurm script has a module of its own, test_slurm.py.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import parse

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
PAGE = ROOT / "docs" / "deploy.md"
VERSION = "2.60.0"  # of Ray, in every file


def one(path: str) -> dict[str, Any]:
    """Return the only document of a YAML file."""
    data = yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


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
    from nas.searching.plan import ExpectedWork, bill

    fields = {
        *bill(ExpectedWork(1, 0, 1.0, 0, 1, None), 1.0, None, None),
        *ExpectedWork.__dataclass_fields__,
    }
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
    "lifecycle": {"preStop": {"exec": {"command": [str]}}},
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


def test_a_pod_that_ends_tells_its_workers_first(tmp_path: Path) -> None:
    _, worker = pods(one("rayjob.yaml"))
    shell, flag, text = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    titles = {"7": "ray::Hand.step", "8": "ray::DashboardAgent", "9": "ray::IDLE", "10": "raylet"}
    for number, title in titles.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "cmdline").write_bytes(title.encode() + b"\0\0")
    assert worker["terminationGracePeriodSeconds"] > int(text.split()[-1])
    fakes = "kill() { echo $1 $2; }; sleep() { echo sleep; }\n"
    command = [shell, flag, fakes + text.replace("/proc", str(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split("\n")) == ["", "-TERM 7", "-TERM 9", "sleep"]


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
