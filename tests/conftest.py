"""What several test modules share: small user files, and `nas` here or in a process of its own."""

import contextlib
import functools
import io
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# processes of tests share the cores, and so do those that they start
os.environ.setdefault("OMP_NUM_THREADS", "1")

START = [sys.executable, "-c", "from nas.cli.program import main; main()"]

# 36 points, 27 networks: at one layer the second kernel is a dead gene
SPACE = """
from nas.models.arch import Arch, Head, Stage, Stem
from nas.interfaces import Space

def decode(choices):
    kernel = choices["kernel"] if choices["layers"] > 1 else 3
    stages = (
        Stage("mbconv", 16, stride=2, expansion=choices["expansion"]),
        Stage("conv", choices["channels"], choices["layers"], kernel, stride=2),
    )
    return Arch("small", stages, Stem(8), Head(32, classes=10), resolution=32)

SPACE = Space(
    "small",
    {"expansion": (1, 3, 6), "channels": (16, 24, 32), "layers": (1, 2), "kernel": (3, 5)},
    decode,
)
"""
# appends each arch it is asked about to a file, and fails where it is told to
LEDGER = """
import os, time
from nas.models.cost import count

def make(*, ledger: str = "ledger.txt", fail: str = "", sleep: float = 0.0):
    return Ledger(ledger, fail, sleep)

class Ledger:
    title = "ledger"

    def __init__(self, ledger, fail, sleep):
        self.ledger, self.fail, self.sleep = ledger, fail, sleep

    def check(self, arch):
        pass

    def evaluate(self, arch, *, seed=0):
        with open(self.ledger, "a") as file:
            file.write(arch.id + "\\n")
        time.sleep(self.sleep)
        if self.fail == "all" or (self.fail == "some" and int(arch.id, 16) % 3 == 0):
            raise ValueError("no luck today")
        if self.fail == "kill" and int(arch.id, 16) % 8 == 0:
            os.kill(os.getpid(), 9)
        return {"accuracy": 50 + count(arch).params % 1000 / 100}
"""

# writes each epoch down with the process that trained it; the checkpoint is a number
TRAINER = """
import os, time
from pathlib import Path

TRAINS = True

def make(*, sleep: float = 0.2):
    return Trainer(sleep)

class Trainer:
    title = "trainer"
    rungs = (4,)

    def __init__(self, sleep):
        self.sleep = sleep

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        path = Path(folder, "epochs.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        while len(path.read_text().split()) < epochs:
            time.sleep(self.sleep)
            with path.open("a") as file:
                file.write(f"{os.getpid()}\\n")
        return {"accuracy": 50.0 + seed, "training_flops": 1.0}
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def one_command() -> Iterator[None]:
    """Have the command line built once for all tests that run it here, not by each of them."""
    import typer.main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch use one core: small networks are no faster with two."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with space.py and ledger.py in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "ledger.py").write_text(LEDGER)
    return tmp_path


def run_here(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `nas` in this process, which starts no interpreter and imports no torch.

    The environment, the streams and what a signal does are put back.
    """
    from nas.cli.program import main

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before, words = dict(os.environ), sys.argv
    os.environ.update(environment)
    sys.argv = ["nas", *arguments]
    code: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code
            except Exception:  # as the interpreter ends with one
                traceback.print_exc()
                code = 1
    finally:
        sys.argv = words
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert isinstance(code, int), code
    shown = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(["nas", *arguments], code, *shown)


@pytest.fixture
def cli(folder: Path) -> Cli:
    """Run `nas` with these arguments in that directory, in this process."""
    return run_here


@pytest.fixture
def process(folder: Path) -> Cli:
    """Run `nas` in a process of its own: where its streams, signals or end are the subject."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*START, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, **environment},
        )

    return call


def crew(nodeid: str) -> str:
    """Name what one process runs: a file's tests, which share what is slow to make, or Ray's."""
    return (
        "ray" if re.search(r"test_ray|TestRay|[-\[]ray[-\]]", nodeid) else nodeid.partition("::")[0]
    )


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Call slow what starts a Ray cluster; begin with the crews that work longest.

    So none is at work alone at the end.
    """
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    slow = Counter(crew(item.nodeid) for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[crew(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give every crew to one process, in the order in which they were collected.

    Another --dist than that of our own flags (-n alone means load) is left to xdist.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Crews(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return crew(nodeid)

    return Crews(config, log)


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a nas command as the command line does, without running it; return its parameters."""
    assert words[0] == "nas", words
    from nas.cli.program import command_of

    return dict(command_of(words[1]).make_context(words[1], list(words[2:])).params)


def wait_until(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


class Nodes:
    """A Ray cluster on this machine: a head that takes no work, and nodes that pretend to a GPU."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(count):
            self.add(num_gpus=1)
        self._cluster.wait_for_nodes()
        self.address: str = self._cluster.address

    def add(self, **more: Any) -> Any:
        """Return a new node of two CPUs."""
        return self._cluster.add_node(num_cpus=2, **more)

    def remove(self, node: Any) -> None:
        """Kill all processes of a node."""
        self._cluster.remove_node(node, allow_graceful=False)

    def count(self) -> int:
        """Return how many nodes live, the head among them."""
        table = self._cluster.global_state.node_table()
        return sum(node["Alive"] for node in table)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Nodes]:
    """One cluster of four nodes for all tests, started when the first asks for it."""
    pytest.importorskip("ray.tune", reason="needs ray[tune]")
    nodes = Nodes(4)
    yield nodes
    nodes.close()
