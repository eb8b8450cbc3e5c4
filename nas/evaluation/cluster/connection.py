"""The way into a Ray cluster: found or started, checked node by node, its room counted."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO, cast

import ray
import yaml
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.core.errors import MissingError, OptionError, RunError, first_line
from nas.evaluation.cluster.worker import TOKEN, look_around, versions
from nas.interfaces import Task

# how long nodes may take to tell what they are
PROBE_SECONDS = 120
KNOCK_SECONDS = 5.0
# for how long nothing may come back before the cluster is looked at again
LONGEST = 5.0
# for how long a count of the cluster's nodes is used again
FRESH_SECONDS = 1.0

_log = logging.getLogger("nas")


@dataclass(frozen=True)
class Share:
    """What one evaluation takes of a node."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"

    def fits(self, resources: Mapping[str, float]) -> int:
        """Return how many fit on a node with these resources at once."""
        cpus = resources.get("CPU", 0.0) / self.cpus if self.cpus else float("inf")
        return int(min(cpus, self._gpu_slots(resources.get("GPU", 0.0))) + 1e-9)

    def _gpu_slots(self, gpus: float) -> float:
        if not self.gpus:
            return float("inf")
        # parts of different GPUs make no share
        return gpus // self.gpus if self.gpus >= 1 else int(gpus) * int(1 / self.gpus + 1e-9)


@dataclass
class Cluster:
    """A cluster that this process is connected to.

    `checked`: the nodes that are known to be fit. `link`: its dashboard. `client`: through a Ray
    client (ray://). `alone`: it was started here and is this machine, which no node can join.
    `home`: the node that this process talks to, "" through a client.
    """

    share: Share
    link: str
    client: bool
    alone: bool
    home: str = ""
    checked: set[str] = field(default_factory=set)
    _counted: float = field(default=-1e9)
    _nodes: list[dict[str, Any]] = field(default_factory=list)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that live, as Ray describes them, not older than a second.

        Raises:
            ConnectionError: the own one has died, without which nothing comes back; Ray's way to
                tell it reaches those who wait for a plain task, not those who wait for Tune.
        """
        if time.monotonic() > self._counted + FRESH_SECONDS:
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
            self._nodes = [node for node in nodes if node["Alive"]]
            self._counted = time.monotonic()
        if self.home and self.home not in {node["NodeID"] for node in self._nodes}:
            raise ConnectionError("the node of this process has died")
        return self._nodes

    def capacity(self) -> int:
        """Return how many evaluations fit on the cluster at once."""
        return sum(self.share.fits(node["Resources"]) for node in self.nodes())

    def needs(self, task: Task) -> Share:
        """Return what a task takes of a node: the share of all, or GPUs of its own."""
        return replace(self.share, gpus=float(task.gpus)) if task.gpus else self.share

    def gpus(self) -> float:
        """Return the number of GPUs."""
        return float(sum(node["Resources"].get("GPU", 0.0) for node in self.nodes()))


def connect(address: str, share: Share, runtime_env: str) -> Cluster:
    """Return the cluster at an address, or a new one on this machine where that is `local`.

    Raises:
        RunError: it cannot be reached, or runs other versions.
        MissingError: a Ray client is asked for and not installed.
        OptionError: the runtime_env cannot be read.
    """
    _knock(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if runtime_env:
        options["runtime_env"] = _environment(Path(runtime_env))
    if address == "local":
        options["include_dashboard"] = False
    try:
        # workers import from the driver's current folder before anything else: a torch.py or a
        # folder called nas in it would be taken for the package
        with contextlib.chdir(sys.prefix), _own_signals():
            context = ray.init(address, **options)
    except (ConnectionError, TimeoutError, RayError) as error:
        raise RunError(_unreachable(address, error)) from error
    except ImportError as error:
        raise MissingError(f"{address} needs Ray's client: pip install 'ray[client]'") from error
    except (RuntimeError, ValueError) as error:
        raise RunError(_refused(address, error)) from error
    url = getattr(context, "dashboard_url", "") or ""
    client, alone = address.startswith("ray://"), address == "local"
    home = "" if client else str(ray.get_runtime_context().get_node_id())
    return Cluster(share, f"http://{url}" if url else "", client, alone, home)


class _WithoutRay:
    """Standard output, where results belong, without what Ray prints of lost nodes.

    That is logged: Ray has no setting for it. Its threads print, and where a message came more than
    once `ray.shutdown` prints the rest, in the thread of its caller: `leaving` is set meanwhile.
    """

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self.leaving = False

    def write(self, text: str) -> int:
        if not self.leaving and not threading.current_thread().name.startswith("ray_"):
            return self.output.write(text)
        if text.strip():
            _log.debug("Ray: %s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.output, name)


def _knock(address: str) -> None:
    """Check that somebody listens there: Ray itself would wait for a minute, and print.

    Raises:
        RunError: nobody does.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
        except OSError as error:
            raise RunError(_unreachable(address, error)) from error


@contextlib.contextmanager
def telling_loss() -> Iterator[None]:
    """Tell in one line that the cluster is gone.

    Raises:
        RunError: it is.
    """
    # here, as the executor is made while the standard output is another one
    if not isinstance(sys.stdout, _WithoutRay):
        sys.stdout = cast(TextIO, _WithoutRay(sys.stdout))
    try:
        yield
    except (RayError, ConnectionError) as error:
        raise RunError(
            f"lost the Ray cluster ({first_line(error)}); every finished trial is kept: start it "
            "again and repeat the command with --resume"
        ) from error


def disconnect() -> None:
    """Leave the cluster; one that was started here ends."""
    quiet = sys.stdout if isinstance(sys.stdout, _WithoutRay) else _WithoutRay(sys.stdout)
    sys.stdout, quiet.leaving = cast(TextIO, quiet), True
    try:
        ray.shutdown()
    finally:
        sys.stdout = quiet.output


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's way of handling SIGTERM, which Ray replaces."""
    mine = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, mine)


def _environment(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError(
            f"executor option runtime_env: cannot read {path}: {first_line(error)}"
        ) from error
    if not isinstance(data, dict):
        raise OptionError(f"executor option runtime_env: {path} holds no mapping of Ray's fields")
    base = path.resolve().parent
    if isinstance(folder := data.get("working_dir"), str) and "://" not in folder:
        data["working_dir"] = str(base / folder)
    return data


def _unreachable(address: str, error: Exception) -> str:
    hint = (
        "start one with `ray start --head`, or give --address HOST:PORT or local"
        if address == "auto"
        else "check that it runs and that this machine may reach it; where it asks for a token, "
        "set RAY_AUTH_MODE=token and copy its ~/.ray/auth_token here"
    )
    return f"no Ray cluster at {address} ({first_line(error)}): {hint}"


def _refused(address: str, error: Exception) -> str:
    if "ersion mismatch" in str(error):
        lines = (line.strip() for line in str(error).splitlines())
        facts = " ".join(line for line in lines if line and "traceback" not in line.lower())
        return f"the cluster at {address} runs other versions of Ray or Python: {facts}"
    return f"Ray refuses {address}: {first_line(error)}"


def await_room(cluster: Cluster, share: Share, patience: float) -> None:
    """Wait until an evaluation of that share fits on a node, for `patience` seconds at most.

    Something that waits for such a node makes an autoscaler start one.

    Raises:
        OptionError: none does; the message tells what the largest nodes have.
    """
    end, waiting = time.monotonic() + (0.0 if cluster.alone else patience), None
    while not any(share.fits(node["Resources"]) for node in cluster.nodes()):
        if time.monotonic() >= end:
            most = {
                name: max((n["Resources"].get(name, 0.0) for n in cluster.nodes()), default=0.0)
                for name in ("CPU", "GPU")
            }
            raise OptionError(
                f"no node can hold an evaluation of {share}: of {len(cluster.nodes())} "
                f"nodes the largest have {most['CPU']:g} CPUs and {most['GPU']:g} GPUs; lower "
                "--gpus-per-trial, --cpus-per-trial or --member-gpus, or add a node"
            )
        if waiting is None:
            waiting = _wish(share)
            _log.warning("waiting for a node with %s, %g s at most", share, patience)
        time.sleep(0.2)
    if waiting is not None:
        ray.cancel(waiting)


def _wish(share: Share) -> Any:
    """Ask for the room of one evaluation with a task that does nothing; return it."""
    nothing = ray.remote(lambda: None)
    return nothing.options(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0).remote()


def check_nodes(cluster: Cluster, folder: Path | None, paths: list[str]) -> None:
    """Check that every node that works has this nas, and sees the run folder and the paths.

    Those that were checked before are not asked again.

    Raises:
        RunError: one has or does not; the message names the node and the way out.
    """
    if not _strangers(cluster):
        return
    with _token(folder) as token:
        found = _looked_around(cluster, str(folder or ""), token, paths)
    for node, facts in found.items():
        for name, version in versions().items():
            theirs, mine = _release(facts[name]), _release(version)
            if theirs != mine:
                raise RunError(
                    f"node {node} has {name} {theirs}, and this process {mine}: install one "
                    "version everywhere"
                )
        if not facts["shared"]:
            raise RunError(
                f"node {node} ({facts['host']}) does not see the run folder {folder}: put it on a "
                "disk that all nodes share with --project"
            )
        if facts["missing"]:
            raise RunError(
                f"node {node} ({facts['host']}) does not see {facts['missing'][0]}: put it on a "
                "disk that all nodes share, or at the same path on each"
            )


def _release(version: str) -> str:
    """Return a version without its build: nodes with and without a GPU have different ones."""
    return version.partition("+")[0]


@contextlib.contextmanager
def _token(folder: Path | None) -> Iterator[str]:
    """Leave a secret in the run folder for a while, by which nodes prove that they see it."""
    token = secrets.token_hex(8)
    if folder is None:
        yield token
        return
    path = folder / TOKEN
    try:
        path.write_text(token, encoding="utf-8")
        yield token
    except OSError as error:
        raise RunError(f"cannot write in {folder}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _strangers(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the nodes that can hold an evaluation and were not checked."""
    fit = (node for node in cluster.nodes() if cluster.share.fits(node["Resources"]))
    return [node for node in fit if node["NodeID"] not in cluster.checked]


def _looked_around(
    cluster: Cluster, folder: str, token: str, paths: list[str]
) -> dict[str, dict[str, Any]]:
    """Return what each node tells of itself, by its address; one that dies meanwhile is left out.

    Raises:
        RunError: nas cannot be imported there, or a node does not answer.
    """
    look = ray.remote(look_around)
    asked = {}
    for node in _strangers(cluster):
        cluster.checked.add(node["NodeID"])
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ref = look.options(num_cpus=0, scheduling_strategy=here).remote(folder, token, paths)
        asked[ref] = f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}"
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
    if late:
        raise RunError(f"node {asked[late[0]]} does not start a worker in {PROBE_SECONDS} s")
    found = {}
    for ref in ready:
        try:
            found[asked[ref]] = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise RunError(
                f"node {asked[ref]} cannot run nas ({_last(error)}): install nas on every node, or "
                "give --executor-option runtime_env=env.yaml"
            ) from error
        except RayError:  # it has just left
            continue
    return found


def _last(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200]
