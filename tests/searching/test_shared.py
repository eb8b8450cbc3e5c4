"""One study of several drivers, on a real PostgreSQL: none twice, none lost, no password on file.

`scripts/postgres start FOLDER` starts a server; NAS_TEST_POSTGRES is the URL that it prints.
"""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import START, Cli, wait_until

from nas.core import run_folder
from nas.core.errors import MissingError, NasError, OptionError, RunError, install
from nas.interfaces import Rung, Trial
from nas.searching.search import search
from nas.searching.studies import shared
from nas.searching.studies.database import GRACE, connect, heartbeats_allowed, split, telling_loss
from nas.searching.studies.shared import DRIVER, Shared, SharedLog, requeue
from nas.searching.studies.shared import SETTINGS as KEPT
from nas.searching.studies.study import SEARCH, attributes_of

SERVER = os.environ.get("NAS_TEST_POSTGRES", "")
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import chaos  # noqa: E402

needs_server = pytest.mark.skipif(
    not SERVER,
    reason="no PostgreSQL: set NAS_TEST_POSTGRES to what `scripts/postgres start` prints",
)
SETTINGS: dict[str, Any] = {"space": "space.py", "evaluator": "ledger.py"}
FLAGS = ["--space", "space.py", "--evaluator", "ledger.py"]
CHOICES = {"a": (1, 2, 3), "b": ("x", "y")}
DISTRIBUTIONS = {
    name: optuna.distributions.CategoricalDistribution(list(options))
    for name, options in CHOICES.items()
}


@contextlib.contextmanager
def administering() -> Iterator[Any]:
    """Connect to the server's own database, outside of any transaction."""
    import psycopg

    with psycopg.connect(SERVER, autocommit=True) as connection:
        yield connection


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """The URL, with its password, of an empty database."""
    if not SERVER:
        pytest.skip("no PostgreSQL: NAS_TEST_POSTGRES is not set")
    name = f"nas_{os.getpid()}_{time.monotonic_ns()}"
    with administering() as server:
        server.execute(f"create database {name}")
        yield f"{SERVER.rpartition('/')[0]}/{name}"
        server.execute(f"drop database {name} with (force)")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.db'}"
    found: str = request.getfixturevalue("postgres")
    return found


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: of the server's, or of a file where there is none."""
    if not SERVER:
        return f"sqlite:///{tmp_path / 'shared.db'}"
    found: str = request.getfixturevalue("postgres")
    return found


Join = Callable[..., SharedLog]


@pytest.fixture
def join(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Join]:
    """Join the study as the driver of a run folder; heartbeats are missed after 2 s."""
    monkeypatch.setenv(GRACE, "2")
    logs: list[SharedLog] = []
    backends = []

    def open_log(name: str, settings: dict[str, Any] | None = None) -> SharedLog:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        backends.append(backend := connect(*split(database), requeue))
        shared = Shared(backend, "mine", dict(DISTRIBUTIONS), folder, settings or {"seed": 0})
        logs.append(shared.log(SEARCH, ["maximize"], optuna.samplers.RandomSampler(seed=0)))
        return logs[-1]

    yield open_log
    for log in logs:
        log.close()
    for backend in backends:
        backend.engine.dispose()


def die(log: SharedLog) -> None:
    """Have a driver give no heartbeats any more, as if it was killed."""
    log._heartbeat.close()


def begun(log: SharedLog) -> optuna.Trial:
    """Have a driver take a number, and no more."""
    with heartbeats_allowed():
        return log.study.ask()


def queued(log: SharedLog, count: int) -> int:
    """Wait until so many trials of dead drivers are in the queue again; return how many are."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        log.look()
        found = sum(t.state.name == "WAITING" for t in log.study.get_trials(deepcopy=False))
        if found >= count:
            return found
        time.sleep(0.05)
    return 0


def done(number: int, choices: dict[str, Any], arch: str = "0a") -> Trial:
    return Trial(number, "done", choices, arch, {"accuracy": 50.0}, (50.0,))


def test_drivers_see_each_others_trials(join: Join) -> None:
    one, other = join("one"), join("other")
    first, choices = one.ask(DISTRIBUTIONS)
    second, _ = other.ask(DISTRIBUTIONS)
    assert (first, second) == (0, 1)
    assert other.look() == ([], {0: choices})
    assert one.tell(done(0, choices))
    (news,), rivals = other.look()
    assert news.metrics == {"accuracy": 50.0} and news.choices == choices and not rivals
    assert news.node  # the host that evaluated it
    assert other.look() == ([], {})  # it is told once
    assert [trial.number for trial in one.trials()] == [0]


def test_what_a_driver_leaves_is_gone_on_with_from_what_it_showed(join: Join) -> None:
    one, other = join("one"), join("other")
    number, choices = one.ask(DISTRIBUTIONS)
    rung = Rung(2, 41.0, {"accuracy": 41.0}, 3.0)
    assert one.report(number, rung) is False
    one.close()
    assert queued(other, 1) == 1
    assert other.ask(DISTRIBUTIONS) == (1, choices)
    heir = other.origin(1)
    assert heir and heir.of == number and heir.trial.rungs == (rung,)
    assert heir.folder and heir.folder.name == "one"
    assert other.trials()[0].state == "dropped" and "heartbeats" in other.trials()[0].reason
    assert other.tell(done(1, choices))
    frozen = other.study.get_trials()[1]
    assert frozen.intermediate_values == {2: 41.0} and frozen.params == choices


def test_trials_of_a_dead_driver_are_queued_once_and_its_late_result_dropped(join: Join) -> None:
    one, other, third = join("one"), join("other"), join("third")
    asked = [one.ask(DISTRIBUTIONS) for _ in range(4)]
    die(one)
    assert queued(other, 4) == queued(third, 4) == 4
    begun = [log.ask(DISTRIBUTIONS) for log in (other, third, third, other)]
    assert [number for number, _ in begun] == [4, 5, 6, 7]
    assert sorted(str(c) for _, c in begun) == sorted(str(c) for _, c in asked)
    heirs = [log.origin(n) for n, log in zip(range(4, 8), (other, third) * 2, strict=True)]
    assert sorted(heir.of for heir in heirs if heir) == [0, 1, 2, 3]
    number, choices = asked[0]
    assert not one.tell(done(number, choices))  # it lived, and was only slow
    assert one.report(1, Rung(1, 1.0, {"accuracy": 1.0}, 1.0)) is True  # it need not go on
    news, _ = one.look()
    assert [trial.state for trial in news] == ["dropped"] * 4


def test_a_live_drivers_trials_are_left_to_it(join: Join) -> None:
    one, other = join("one"), join("other")
    one.ask(DISTRIBUTIONS)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert other.look()[1].keys() == {0}
        time.sleep(0.1)


def test_a_driver_that_comes_back_adopts_its_trials_under_their_numbers(join: Join) -> None:
    one = join("one")
    number, choices = one.ask(DISTRIBUTIONS)
    half = begun(one)  # killed before it had all of its choices
    one._storage.set_trial_system_attr(one._log.trial_id(half.number), DRIVER, one._driver)
    half.suggest_categorical("a", CHOICES["a"])
    die(one)
    again = join("one")
    (trial,) = again.unfinished()
    assert (trial.number, trial.choices) == (number, choices)
    assert again.tell(done(number, choices))
    assert [trial.state for trial in again.trials()] == ["done", "dropped"]
    assert again.unfinished() == []


@pytest.mark.parametrize("choices", [0, 1])
def test_a_proposal_that_a_kill_cut_off_is_dropped(join: Join, choices: int) -> None:
    """Before its first heartbeat; with half of its choices it comes from the queue again."""
    one = join("one")
    half = begun(one)
    if choices:
        half.suggest_categorical("a", CHOICES["a"])
    die(one)
    other = join("other")
    _, rivals = other.look()
    assert rivals == {0: {}}  # it may be the same arch as any
    deadline = time.monotonic() + 600
    while other.look()[1] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert other.trials()[0].state == "dropped"
    number, found = other.ask(DISTRIBUTIONS)
    assert number == 1 and found.items() >= half.params.items() and len(found) == 2


def test_a_result_that_a_kill_cut_off_is_no_result(join: Join) -> None:
    one = join("one")
    number, choices = one.ask(DISTRIBUTIONS)
    for name, value in attributes_of(done(number, choices)).items():
        one._storage.set_trial_user_attr(one._log.trial_id(number), name, value)
    die(one)  # all attributes are written, but no end
    (trial,) = join("one").unfinished()
    assert (trial.number, trial.choices, trial.values) == (number, choices, ())
    other = join("other")
    one._storage.set_trial_state_values(one._log.trial_id(number), optuna.trial.TrialState.FAIL)
    assert [trial.state for trial in other.trials()] == ["dropped"]


def test_of_two_drivers_that_end_a_trial_one_does(join: Join) -> None:
    """At the same moment, as threads with connections of their own: Optuna's tell in both."""
    logs = [join("one"), join("other")]
    ended: list[list[bool]] = []
    for _ in range(20):
        number, _ = logs[0].ask(DISTRIBUTIONS)
        barrier = threading.Barrier(2)

        def end(log: SharedLog, state: str, barrier=barrier, number=number) -> bool:  # type: ignore[no-untyped-def]
            barrier.wait()
            return log.tell(Trial(number, state, {}, "", {}, (1.0,) if state == "done" else ()))

        with ThreadPoolExecutor(2) as pool:
            ended.append(list(pool.map(end, logs, ("done", "rejected"))))
    assert [sorted(pair) for pair in ended] == [[False, True]] * 20
    states = [t.state.name for t in logs[0].study.get_trials()]
    assert states == ["COMPLETE" if first else "PRUNED" for first, _ in ended]


@pytest.mark.parametrize(
    ("key", "mine"), [("seed", {"seed": 1}), ("evaluator", {"seed": 0, "evaluator": "other"})]
)
def test_drivers_with_other_settings_are_refused(
    join: Join, key: str, mine: dict[str, Any]
) -> None:
    join("one")
    with pytest.raises(RunError, match=f"the study 'mine' was started with {key}"):
        join("other", mine)


def test_what_is_told_is_what_the_journal_is_told(join: Join, tmp_path: Path) -> None:
    from nas.searching.studies.study import Journal

    log = join("one")
    journal = Journal(tmp_path / "journal.log", dict(DISTRIBUTIONS))
    twin = journal.log(SEARCH, ["maximize"], optuna.samplers.RandomSampler(seed=0))
    found = []
    for each in (log, twin):
        _, choices = each.ask(DISTRIBUTIONS)
        assert each.report(0, Rung(1, 7.0, {"accuracy": 7.0}, 1.0)) is False
        rungs = each.unfinished()[0].rungs
        stopped = Trial(0, "stopped", choices, "0a", {"accuracy": 7.0}, (), "early", 1.5, rungs)
        each.tell(stopped)
        each.ask(DISTRIBUTIONS)
        each.tell(done(1, choices, "0b"))
        each.ask(DISTRIBUTIONS)
        each.tell(Trial(2, "failed", choices, "0c", {}, (), "no luck"))
        frozen = each.study.get_trials()
        found.append([(t.state, t.values, t.intermediate_values, len(t.params)) for t in frozen])
    assert found[0] == found[1]
    ours, theirs = log.trials(), twin.trials()
    assert [trial.state for trial in ours] == ["stopped", "done", "failed"]
    assert [t.metrics for t in ours] == [t.metrics for t in theirs]
    assert [t.rungs for t in ours] == [t.rungs for t in theirs]


@pytest.mark.parametrize("controller", ["tpe", "random", "evolution", "nsga2", "gp"])
def test_alone_it_finds_what_a_search_with_a_journal_finds(folder: Path, controller: str) -> None:
    settings = {**SETTINGS, "controller": controller, "trials": 12, "random_search": False}
    calm = search(**settings, name="calm")
    storage = f"sqlite:///{folder / 'shared.db'}"
    found = search(**settings, name="shared", storage=storage)
    assert found["leaders"] == calm["leaders"] and found["states"] == calm["states"]
    told, theirs = (run_folder.read_csv(Path(r["run"]) / "trials.csv") for r in (found, calm))
    apart = {"seconds", "place"}
    assert [{k: v for k, v in row.items() if k not in apart} for row in told] == [
        {k: v for k, v in row.items() if k not in apart} for row in theirs
    ]


def drivers(folder: Path, storage: str, count: int, *flags: str) -> list[dict[str, Any]]:
    """Run so many drivers of one study at once; return the result of each."""
    command = [*START, "search", "--storage", storage, "--study", "mine", *FLAGS, *flags, "--json"]
    started = [
        subprocess.Popen(
            [*command, "--name", f"driver{n}"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(count)
    ]
    spoken = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0] * count, spoken
    import json

    return [json.loads(out) for out, _ in spoken]


@pytest.mark.slow
def test_drivers_at_once_evaluate_each_arch_once(folder: Path, store: str) -> None:
    """Both make the store's tables, share 27 networks, and end with the same trials."""
    flags = ["--trials", "20", "--evaluator-option", "sleep=0.05", "-q"]
    found = drivers(folder, store, 2, *flags)
    ledger = (folder / "ledger.txt").read_text().split()
    assert len(ledger) == len(set(ledger)) <= 27
    for name in ("trials.csv", "random.csv"):
        tables = [run_folder.read_csv(Path(folder, each["run"], name)) for each in found]
        shorter, longer = sorted(tables, key=len)
        # one may propose once more while the other is through with the last trial
        assert longer[: len(shorter)] == shorter and len(longer) <= len(shorter) + 1
        assert [int(row["number"]) for row in longer] == list(range(len(longer)))
        archs = [row["arch_id"] for row in shorter if row["state"] == "done"]
        assert len(archs) == len(set(archs)) == 20
        assert all(row["state"] != "done" for row in longer[len(shorter) :])
    assert found[0]["best"] == found[1]["best"]
    assert all((folder / each["run"] / "report.html").exists() for each in found)


@pytest.mark.slow
@needs_server
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_and_suspended_drivers_lose_nothing(
    postgres: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--drivers 3 --trials 60 --kills 2 --stops 1 --sleep 0.2 --grace 2 --seed 1"
    code = chaos.main(["drivers", *flags.split(" "), "--storage", postgres])
    shown = capsys.readouterr().out
    assert code == 0, shown
    rows = {line[:46].strip(): line[46:].strip() for line in shown.splitlines()}
    assert rows["done"] == "60" and int(rows["kills and suspensions"]) == 3


# a training whose checkpoint says how far it is, and a line for each epoch that was trained
TRAINER = """
import time
from pathlib import Path
from nas.models.cost import count

def make(*, sleep: float = 0.2):
    return Trainer(sleep)

class Trainer:
    title, rungs = "trainer", (1, 2, 3, 4, 5, 6)

    def __init__(self, sleep):
        self.sleep = sleep

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        place = Path(folder, "checkpoint.txt")
        place.parent.mkdir(parents=True, exist_ok=True)
        whose, done = place.read_text().split() if place.exists() else (arch.id, 0)
        assert whose == arch.id, "the checkpoint of another arch"
        for epoch in range(int(done) + 1, epochs + 1):
            time.sleep(self.sleep)
            with open("../trained.txt", "a") as file:
                file.write(f"{arch.id} {epoch}\\n")
            place.with_name("new").write_text(f"{arch.id} {epoch}")
            place.with_name("new").replace(place)
        return {"accuracy": 50 + count(arch).params % 1000 / 100}
"""


@pytest.mark.slow
@needs_server
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_training_goes_on_at_another_driver_from_its_checkpoint(
    folder: Path, postgres: str
) -> None:
    flags = ["--storage", postgres, "--study", "mine", "--space", "space.py", "--trials", "2"]
    flags += ["--evaluator", "trainer.py", "--pruner", "none", "--finalists", "0", "-q"]
    command = [*START, "search", *flags, "--no-random-search", "--name", "mine"]
    homes = [folder / "one", folder / "other"]
    for home in homes:
        home.mkdir()
        (home / "space.py").write_text((folder / "space.py").read_text())
        (home / "trainer.py").write_text(TRAINER)
    trained = folder / "trained.txt"
    environment = {**os.environ, GRACE: "2"}
    with subprocess.Popen(command, cwd=homes[0], env=environment) as process:
        wait_until(lambda: trained.exists() and len(trained.read_text().splitlines()) >= 3)
        process.kill()
    subprocess.run(command, cwd=homes[1], env=environment, check=True, timeout=600)
    rows = run_folder.read_csv(homes[1] / "runs/search/mine/trials.csv")
    assert sorted(row["state"] for row in rows) == ["done", "done", "dropped"]
    assert rows[0]["state"] == "dropped" and "heartbeats" in rows[0]["reason"]
    lines = trained.read_text().splitlines()
    # at most the epoch in which it was killed is trained again
    assert len(set(lines)) == 12 and len(lines) <= 13
    assert not list(homes[1].glob("runs/search/mine/trials/*/checkpoint.txt"))


@pytest.mark.slow
def test_a_lost_database_is_one_line_and_the_search_goes_on_later(
    folder: Path, postgres: str
) -> None:
    name = postgres.rpartition("/")[2]
    command = [*START, "search", "--storage", postgres, *FLAGS, "--name", "mine"]
    command += ["--evaluator-option", "sleep=0.2", "--trials", "15", "--no-random-search"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stderr=pipe, text=True) as started:
        wait_until((folder / "ledger.txt").exists)
        with administering() as server:
            server.execute(f"alter database {name} allow_connections false")
            ended = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
            server.execute(ended, [name])
            _, spoken = started.communicate(timeout=600)
            server.execute(f"alter database {name} allow_connections true")
    last = spoken.strip().splitlines()[-1]
    assert started.returncode == 2 and "Traceback" not in spoken
    assert "lost the database postgresql://nas@" in last and "--resume" in last
    again = subprocess.run([*command, "--resume", "-q"], cwd=folder, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    ledger = (folder / "ledger.txt").read_text().split()
    assert len(set(ledger)) == 15 and len(ledger) <= 16  # what was cut off is begun again
    rows = run_folder.read_csv(folder / "runs/search/mine/trials.csv")
    assert sum(row["state"] == "done" for row in rows) == 15


@pytest.mark.slow
@needs_server
def test_no_password_is_on_file_and_resume_takes_it_from_the_environment(
    process: Cli, folder: Path, postgres: str
) -> None:
    flags = ["--storage", postgres, *FLAGS, "--name", "mine", "--no-random-search"]
    first = process("search", *flags, "--trials", "3")
    assert first.returncode == 0, first.stderr
    spoken = first.stdout + first.stderr
    more = ["--resume", "--name", "mine", "--trials", "5", "-q"]
    nameless = {"PGPASSWORD": "", "PGPASSFILE": str(folder / "none"), "HOME": str(folder)}
    refused = process("search", *more, **nameless)
    assert refused.returncode == 2 and "no password supplied" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    done = process("search", *more, PGPASSWORD="secret")
    assert done.returncode == 0, done.stderr
    rows = run_folder.read_csv(folder / "runs/search/mine/trials.csv")
    assert sum(row["state"] == "done" for row in rows) == 5
    resumed = process("resume", "runs/search/mine", PGPASSWORD="secret")
    assert resumed.returncode == 0, resumed.stderr
    for text in (spoken, refused.stderr, done.stderr, resumed.stderr):
        assert "secret" not in text
    for path in (folder / "runs").rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path


@needs_server
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda url: url.replace("secret", "geheim"), "password authentication failed"),
        (lambda url: url.replace("/nas_", "/no_nas_"), "does not exist"),
        (lambda url: url.rpartition(":")[0] + ":1/none", "refused"),
        (lambda url: url.rpartition("@")[0] + "@no.such.host.invalid/none", "no.such.host.invalid"),
    ],
)
def test_a_server_that_refuses_is_one_line(
    folder: Path, postgres: str, change: Callable[[str], str], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        search(**SETTINGS, storage=change(postgres))
    text = str(caught.value)
    assert "\n" not in text and "secret" not in text and "geheim" not in text
    assert not Path("runs").exists()  # nothing was begun


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://user:pw@host/db",
        "postgresql://user:p@ss@host/db",
        "postgresql://user:pw@host",
        "sqlite://",
    ],
)
def test_a_url_that_cannot_be_shared_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(OptionError, match=r"^--storage takes ") as caught:
        split(url)
    assert not any(part in str(caught.value) for part in ("pw", "p@ss", "ss@"))


def test_the_settings_are_those_of_the_driver_that_made_the_study(
    database: str, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "SETTINGS_SECONDS", 0.3)
    backend = connect(*split(database))
    made = optuna.create_study(storage=backend, study_name="mine search", direction="maximize")
    assert KEPT not in made.user_attrs  # it was killed before it told them
    join("a")
    assert made.user_attrs[KEPT] == {"seed": 0}
    backend.engine.dispose()


def test_the_password_leaves_the_url() -> None:
    plain = "postgresql://me@host:5432/db?sslmode=require"
    for url in (
        "postgresql://me:p%40ss@host:5432/db?sslmode=require",
        "postgres://me@host:5432/db?sslmode=require&password=p%40ss",
        "postgresql+psycopg://me:p%40ss@host:5432/db?sslmode=require",
    ):
        assert split(url) == (plain, "p@ss")
    assert split(plain) == (plain, None)
    assert split("postgresql://me:p/s:s@host/db") == ("postgresql://me@host/db", "p/s:s")


def test_the_command_line_is_kept_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["nas", "search", "--storage", "postgresql://me:p?w@host/db", "--seed=1"]
    words += ["--storage=postgresql://host/db?user=me&password=pw&sslmode=require", "ray://h:1"]
    monkeypatch.setattr(sys, "argv", words)
    assert run_folder.arguments() == [
        "search",
        "--storage",
        "postgresql://me@host/db",
        "--seed=1",
        "--storage=postgresql://host/db?user=me&sslmode=require",
        "ray://h:1",
    ]


def test_the_driver_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    without = lambda name, *rest: None if name == "psycopg" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(MissingError, match=re.escape(install("postgres"))):
        search(**SETTINGS, storage="postgresql://me@host/db")


def test_a_study_needs_a_storage_and_a_grace_is_a_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="--study names a study of a database"):
        search(**SETTINGS, study="mine")
    monkeypatch.setenv(GRACE, "soon")
    with pytest.raises(OptionError, match=f"the variable {GRACE} takes seconds above 0"):
        search(**SETTINGS, storage=f"sqlite:///{folder / 'shared.db'}")


def test_the_reason_of_a_lost_database_is_the_drivers_own() -> None:
    message = "lost the database sqlite:///x: StorageInternalError"
    with pytest.raises(NasError, match=message), telling_loss("sqlite:///x"):
        raise optuna.exceptions.StorageInternalError


POINTS = [{name: options[at] for name, options in CHOICES.items()} for at in (0, -1)]


def test_drivers_share_the_queue_and_each_point_is_begun_once(join: Join) -> None:
    one, other = join("one"), join("other")
    for log in (one, other):
        log.enqueue(POINTS)
    first, second, third = (log.ask(DISTRIBUTIONS) for log in (one, other, one))
    assert [first, second] == [(0, POINTS[0]), (1, POINTS[1])]
    assert third[0] == 2
    assert other.look()[1][0] == POINTS[0]  # one's, as of any trial that it works on
    assert [trial.number for trial in one.unfinished()] == [0, 2]


def test_a_point_of_the_queue_that_a_dead_driver_began_is_taken_over(join: Join) -> None:
    one, other = join("one"), join("other")
    one.enqueue(POINTS[:1])
    number, choices = one.ask(DISTRIBUTIONS)
    assert choices == POINTS[0]
    die(one)
    assert queued(other, 1) == 1
    again, choices = other.ask(DISTRIBUTIONS)
    assert (again, choices) == (number + 1, POINTS[0])
    assert other.tell(done(again, choices))
    other.enqueue(POINTS[:1])
    assert other.ask(DISTRIBUTIONS)[0] == again + 1
