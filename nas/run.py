"""A run: a folder under runs/<verb>/ that holds everything one command produced.

It is made by one process at a time, never overwritten, and every file in it parses.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import itertools
import json
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from nas.errors import NasError, OptionError, RunError

# between two looks at a lock that another holds, and until the wait is told of
LOOK_SECONDS, TELL_SECONDS = 0.1, 5.0
ARGS, ENVIRONMENT = "args.yaml", "env.json"
MOST_NAME = 200  # bytes of a run's name: file systems allow 255, and a number follows
DEEPEST = 100  # brackets inside of each other
RUNS = Path("runs")  # the folder of the runs, where --project names no other
# in which a run's name is looked for
VERBS = ("search", "train", "scale", "export")
MOST_BYTES = 2**30  # of a file that is read whole: beyond is a mistake, or /dev/zero by a link


def create(verb: str, name: str | None, project: Path, arguments: Mapping[str, Any]) -> Path:
    """Return a new folder project/verb/name with its arguments; a taken name gets a number.

    The folder appears with its arguments inside, in one step: a kill leaves all of it or nothing.

    Raises:
        RunError: the folder cannot be made (read-only, full, or a file is in the way).
        OptionError: the name would leave the project's folder.
    """
    stem = name or verb
    if Path(stem).name != stem or stem.startswith("."):
        raise OptionError(
            f"--name takes a plain folder name, not {stem!r}; use --project for paths"
        )
    if len(os.fsencode(stem)) > MOST_NAME:
        raise OptionError(
            f"--name takes a folder name of up to {MOST_NAME} bytes, not {stem[:20]!r}... of "
            f"{len(os.fsencode(stem))}"
        )
    home = project / verb
    try:
        home.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
        fresh.chmod(0o755)
    except OSError as error:
        raise RunError(
            f"cannot make a folder in {home}: {error.strerror}; choose another with --project"
        ) from error
    try:
        write_args(fresh, arguments)
        return _move(fresh, home, stem)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_place(output: object, name: str | None) -> None:
    """Refuse the name of a run folder beside a place that needs none.

    Raises:
        OptionError: both are given.
    """
    if output is not None and name is not None:
        raise OptionError("--name is of a run's folder, --output takes its place: give one of them")


def _move(fresh: Path, home: Path, stem: str) -> Path:
    """Give a finished folder the first free name."""
    number = 1
    while True:
        path = home / (stem if number == 1 else f"{stem}{number}")
        if not path.exists():
            try:
                return fresh.rename(path)
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise RunError(f"cannot make {path}: {error.strerror}") from error
        number += 1


def runs(verb: str, project: Path) -> list[Path]:
    """Return the runs of a verb that have their arguments, oldest first."""
    found = (file.parent for file in (project / verb).glob(f"[!.]*/{ARGS}"))
    return sorted(found, key=lambda path: ((path / ARGS).stat().st_mtime_ns, path.name))


def find(source: str | Path, verbs: Sequence[str] = VERBS, project: Path | None = None) -> Path:
    """Return the folder of a run that is given by its name, and any other source as a path.

    What exists under the name in the working directory comes first. `project`: the folder that
    holds the runs, by default `runs`.

    Raises:
        OptionError: runs of several of the verbs have that name.
    """
    path = Path(source).expanduser()
    return path if path.exists() else named(source, verbs, project) or path


def named(source: str | Path, verbs: Sequence[str], project: Path | None = None) -> Path | None:
    """Return the folder of the run of a name, None where there is none or a path is given.

    Raises:
        OptionError: runs of several of the verbs have that name.
    """
    name, home = Path(source).name, project or RUNS
    if name != str(source):
        return None
    found = [folder for verb in verbs if (folder := home / verb / name).is_dir()]
    if len(found) > 1:
        raise OptionError(
            f"{source} is the name of {' and of '.join(map(str, found))}: give one of these paths"
        )
    return found[0] if found else None


@contextlib.contextmanager
def lease(path: Path) -> Iterator[None]:
    """Hold a run folder for this process; the operating system frees it when the process dies.

    Raises:
        RunError: another process holds it; the message gives its number and host.
    """
    try:
        file = (path / ".lock").open("a+")
    except OSError as error:
        raise RunError(f"cannot write in {path}: {error.strerror}") from error
    with file:
        if not try_lock(file):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunError(
                f"{path} is in use by {holder}: wait for it, stop it, or name another run"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def try_lock(file: IO[str]) -> bool:
    """Lock an open file, unless another holds it or it cannot be; closing it frees it."""
    try:
        lock(file)
    except OSError:
        return False
    return True


def lock(file: IO[str]) -> None:
    """Lock an open file; closing it frees it, and so does any death of the process.

    Raises:
        BlockingIOError: another holds it.
        OSError: nothing can be locked there.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # beyond the text, which a refused process still reads
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, made if absent, after waiting for any other process that holds it so."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        await_lock(file, lambda: None)
        yield


def await_lock(file: IO[str], tell: Callable[[], None]) -> None:
    """Lock an open file, however long another holds it; do nothing where none can be locked.

    `tell` is called once, when the wait has taken some seconds.
    """
    began, told = time.monotonic(), False
    while True:
        try:
            return lock(file)
        except BlockingIOError:
            time.sleep(LOOK_SECONDS)
        except OSError:
            return
        if not told and time.monotonic() > began + TELL_SECONDS:
            told = True
            tell()


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of YAML 1.2 and of the command line: 1e-3 is one, 1:30 none."""


class _Dumper(yaml.SafeDumper):
    """What quotes the words that `_Loader` would take for numbers."""


_INT = re.compile(r"[-+]?\d+(_\d+)*$")
_FLOAT = re.compile(
    r"([-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if not tag.endswith((":int", ":float"))]
        for first, rules in _kind.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def write_args(path: Path, arguments: Mapping[str, Any]) -> None:
    """Write the resolved arguments as YAML; `--config` reads them back."""
    text = yaml.dump(dict(arguments), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    write_text(path / ARGS, text)


def read_text(path: Path) -> str:
    """Return the text of a file that a person may have given or changed.

    Raises:
        RunError: it is not there, no regular file, too large, or no UTF-8.
    """
    try:
        check_regular(path)
        return path.read_bytes().decode()  # read_text would make line ends of carriage returns
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is no UTF-8 text: {error.reason} at {error.start}") from error


def check_regular(path: Path) -> None:
    """Refuse what would never end: a pipe that stands for a file, or a device.

    Raises:
        RunError: it is one, or a file too large to be read whole.
        OSError: it is not there.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise RunError(f"{path} is no regular file, but a pipe or a device: give a file")
    if found.st_size > MOST_BYTES:
        raise RunError(f"{path} has {found.st_size:,} bytes; at most {MOST_BYTES:,} are read")


def read_args(path: Path) -> dict[str, Any]:
    """Return the arguments of a run folder or of a YAML file.

    Raises:
        RunError: there are none, or they do not parse.
    """
    file = path / ARGS if path.is_dir() else path
    text = read_text(file)
    if _depth(text) > DEEPEST:  # the parser takes hours
        raise RunError(f"{file} is nested too deeply to be arguments")
    try:
        # a few of them that name each other make a value of a billion parts
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise RunError(f"{file} holds an alias such as *name: write the value out")
        data = yaml.load(text, Loader=_Loader)
    except NasError:
        raise
    except Exception as error:  # of dates and numbers that cannot be it lets Python's own through
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{file} is not YAML: {first}") from error
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise RunError(f"{file} holds no arguments: a mapping of names to values is expected")
    return data


def _depth(text: str) -> int:
    """Return how many brackets are open at once, or dashes in one line, at most."""
    steps = ((letter in "[{") - (letter in "]}") for letter in text)
    dashes = (line.count("- ") for line in text.splitlines())
    return max(itertools.chain(itertools.accumulate(steps, initial=0), dashes))


def write_environment(path: Path) -> None:
    """Write versions, machine, command line and commit, for whoever repeats the run.

    A later process that goes on with the run is added under `resumed`.
    """
    packages = ("nas", "torch", "optuna", "numpy")
    data: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *arguments()],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {name: _version(name) for name in packages},
        "commit": _commit(),
    }
    if (path / ENVIRONMENT).exists():
        first = read_object(path / ENVIRONMENT)
        data = {**first, "resumed": [*first.get("resumed", []), data]}
    write_json(path / ENVIRONMENT, data)


def arguments() -> list[str]:
    """Return what this process was called with, without the passwords of URLs."""
    named = (re.sub(r"(://[^:/@]*):.*@", r"\1@", word) for word in sys.argv[1:])
    secret = r"(://.*[?&])(?:ssl)?password=[^&]*&?"
    return [re.sub(secret, r"\1", word).rstrip("?&") if "://" in word else word for word in named]


def write_json(path: Path, data: Any) -> None:
    """Write JSON in one step: readers see the old file or the new one, never half of it."""
    text = json.dumps(data, indent=1, ensure_ascii=False)
    # a file's name may hold bytes that are no UTF-8; JSON has escapes for them
    write_text(path, text.encode(errors="backslashreplace").decode() + "\n")


def read_json(path: Path) -> Any:
    """Return the data of a JSON file of this run.

    Raises:
        RunError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}; delete it to have it made again") from error


def parse_json(text: str | bytes) -> Any:
    """Return the data of JSON text.

    Raises:
        ValueError: it is none, or nested more deeply than anything that is written here.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Return the object of a JSON file of this run, which must have these keys.

    Raises:
        RunError: it cannot be read, is no JSON object, or lacks a key.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise RunError(f"{path} holds no JSON object, but {found!r:.40}; was it edited?")
    if absent := [key for key in keys if key not in found]:
        raise RunError(f"{path} lacks {absent[0]!r}: was it edited, or made by another version?")
    return found


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file in one step."""
    with _replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(map(cells, rows))


def cells(row: Sequence[Any]) -> list[Any]:
    """Return a row for a CSV file; an unquoted carriage return would end it where it is read."""
    return [cell.replace("\r", "\\r") if isinstance(cell, str) else cell for cell in row]


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, or none if it does not exist.

    Raises:
        RunError: it cannot be read, or is no CSV.
    """
    if not path.exists():
        return []
    try:
        return list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise RunError(f"{path} is no CSV: {error}; was it edited?") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step.

    Raises:
        RunError: the disk is full or the folder is read-only.
    """
    with _replacing(path) as file:
        file.write(text)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a name that is no UTF-8 is written as JSON and YAML escape it
        with beside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise RunError(
            f"cannot write {path}: {error.strerror}; what was finished is kept"
        ) from error


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Return the commit of the folder the command runs in, if it is a repository."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()
    return ""
