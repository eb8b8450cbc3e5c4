"""A Ray cluster whose nodes are apart or die: several machines on this one, and what kills do."""

import contextlib
import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import START, TRAINER, Cli, Nodes, wait_until

if not importlib.util.find_spec("ray"):  # to import it takes seconds
    pytest.skip("needs ray[tune]", allow_module_level=True)
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a cluster of several raylets"),
    pytest.mark.slow,
]
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import chaos  # noqa: E402

NODE = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=2"]


@contextlib.contextmanager
def joined(cluster: Nodes, log: Path, *command: str) -> Iterator[None]:
    """Have a node join that a command of its own starts; skip where it cannot."""
    before = cluster.count()
    with log.open("w") as file:
        node = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_until(lambda: cluster.count() > before or node.poll() is not None)
        if node.poll() is not None:
            pytest.skip("such a node cannot be started here: " + log.read_text()[-200:])
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        wait_until(lambda: cluster.count() == before)


def test_a_node_that_does_not_see_the_run_folder_is_named(
    cluster: Nodes, folder: Path, process: Cli
) -> None:
    """One node runs where another file system lies over the run's folder."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare for a file system of its own")
    (folder / "trainer.py").write_text(TRAINER)
    hiding = f'mount -t tmpfs none {folder} && cd / && exec "$@"'
    hidden = ("unshare", "-m", "sh", "-c", hiding, "sh", *NODE, f"--address={cluster.address}")
    with joined(cluster, folder / "node.txt", *hidden):
        flags = f"--evaluator trainer.py --trials 2 --executor ray --address {cluster.address}"
        ended = process("search", "--space", "space.py", *flags.split())
    assert ended.returncode == 2
    assert "does not see the run folder" in ended.stderr
    assert "put it on a disk that all nodes share with --project" in ended.stderr


@contextlib.contextmanager
def network(number: int) -> Iterator[str]:
    """Make a network namespace with a link to this one; yield its name."""
    name, mine, its = f"nas{os.getpid()}n{number}", f"nas{number}a", f"nas{number}b"
    steps = f"""
        ip netns add {name}
        ip link add {mine} type veth peer name {its}
        ip link set {its} netns {name}
        ip addr add 10.231.{number}.1/24 dev {mine}
        ip link set {mine} up
        ip netns exec {name} ip addr add 10.231.{number}.2/24 dev {its}
        ip netns exec {name} ip link set {its} up
        ip netns exec {name} ip link set lo up
        ip netns exec {name} ip route add default via 10.231.{number}.1"""
    try:
        for step in steps.strip().splitlines():
            done = subprocess.run(step.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network of its own: {step.strip()}: {done.stderr.strip()}")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_nodes_in_networks_of_their_own_do_the_work(
    cluster: Nodes, folder: Path, process: Cli
) -> None:
    """What crosses between machines crosses a network here."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and iproute2 for networks of its own")
    ledger = f"--evaluator-option ledger={folder / 'ledger.txt'} --evaluator-option sleep=0.5"
    flags = f"--space space.py --evaluator ledger.py {ledger} --trials 12 --no-random-search"
    with contextlib.ExitStack() as stack:
        for number in (1, 2):
            name, log = stack.enter_context(network(number)), folder / f"node{number}.txt"
            at = (f"--address={cluster.address}", f"--node-ip-address=10.231.{number}.2")
            inside = ("ip", "netns", "exec", name, *NODE, *at, "--num-gpus=2")
            stack.enter_context(joined(cluster, log, *inside))
        ray = f"--executor ray --address {cluster.address} --gpus-per-trial 2"
        ended = process(*f"search {flags} {ray}".split())
    assert ended.returncode in (0, 3), ended.stderr
    with (folder / "runs/search/search/trials.csv").open(newline="") as file:
        places = {row["place"].partition("/")[0] for row in csv.DictReader(file) if row["place"]}
    assert places == {"10.231.1.2", "10.231.2.2"}
    assert len((folder / "ledger.txt").read_text().split()) == 12


def test_json_stays_alone_on_stdout_when_a_node_is_lost(cluster: Nodes, folder: Path) -> None:
    ledger = f"--evaluator-option ledger={folder / 'ledger.txt'} --evaluator-option sleep=1"
    flags = f"--space space.py --evaluator ledger.py {ledger} --trials 20 --no-random-search"
    ray = f"--executor ray --address {cluster.address} --json"
    node = cluster.add()
    command = [*START, *f"search {flags} {ray}".split()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True) as driver:
        path = folder / "ledger.txt"
        wait_until(lambda: path.exists() and len(path.read_text().split()) >= 10)
        cluster.remove(node)
        stdout, stderr = driver.communicate(timeout=600)
    assert driver.returncode in (0, 3), stderr
    assert json.loads(stdout)["trials"] == 20
    assert "raylet" not in stderr


def test_a_search_of_one_worker_ends_alike_whatever_was_killed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Workers, nodes and drivers, at random moments, while digits are trained."""
    flags = "--kills 3 --trials 3 --nodes 2 --epochs 2 --gap 3 --workers 1 --patience 300"
    code = chaos.main(["cluster", *flags.split()])
    shown = capsys.readouterr().out
    assert code == 0, shown
    rows = dict(line.split("  ", 1) for line in shown.splitlines())
    assert rows["kills (SIGKILL)"].strip().startswith("3: ")


def raylet_of(driver: int) -> int | None:
    """Return the raylet that a driver has started for itself."""
    every = psutil.process_iter(["ppid", "name"])
    sought = {"ppid": driver, "name": "raylet"}
    return next((each.pid for each in every if each.info == sought), None)


# Ray's head finds after some seconds that a node has died; until then Tune's workers go on
@pytest.mark.parametrize(("through", "sleep", "trials"), [("tasks", 0.5, 12), ("tune", 3, 24)])
def test_a_dead_local_raylet_is_a_lost_cluster_and_the_search_goes_on(
    folder: Path, process: Cli, through: str, sleep: float, trials: int
) -> None:
    """Not twenty failed trials, and no wait for ever."""
    ledger = f"--evaluator-option ledger={folder / 'ledger.txt'} --evaluator-option sleep={sleep}"
    flags = f"--space space.py --evaluator ledger.py {ledger} --trials {trials} --no-random-search"
    ray = f"--executor ray --address local --workers 2 --executor-option through={through}"
    command, path = [*START, *f"search {flags} {ray}".split()], folder / "ledger.txt"
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True) as driver:
        wait_until(lambda: path.exists() and len(path.read_text().split()) >= 4)
        raylet = raylet_of(driver.pid)
        assert raylet
        os.kill(raylet, signal.SIGKILL)
        stdout, stderr = driver.communicate(timeout=600)
    errors = [line for line in stderr.splitlines() if line.startswith("nas: ")]
    assert (driver.returncode, stdout, len(errors)) == (2, "", 1), stderr
    assert "lost the Ray cluster" in errors[0] and "--resume" in errors[0]
    kept = done_rows(folder)
    assert kept and not [row for row in kept if row["state"] == "failed"]
    ended = process(*f"search {flags} --resume --executor local --workers 8".split())
    assert ended.returncode in (0, 3), ended.stderr
    rows = done_rows(folder)
    assert not [row for row in kept if row not in rows]
    assert len(rows) == trials and not [row for row in rows if row["state"] == "failed"]
    archs = path.read_text().split()
    assert not [row for row in kept if archs.count(row["arch_id"]) > 1]


def done_rows(folder: Path) -> list[dict[str, str]]:
    """Return the finished trials of the search."""
    with (folder / "runs/search/search/trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_ray_prints_as_it_is_left_is_no_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Repeated messages are printed by `ray.shutdown`, in the thread of its caller."""
    from nas.evaluation.cluster import connection

    monkeypatch.setattr(connection.ray, "shutdown", lambda: print("(raylet) is terminated"))
    with connection.telling_loss():
        print("first")
    connection.disconnect()
    print("last")
    assert capsys.readouterr().out == "first\nlast\n"
