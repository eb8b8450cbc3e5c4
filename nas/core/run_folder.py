"""A run: a folder under runs/<verb>/ that holds everything one command produced.

It is made by one process at a time, never overwritten, and every file in it parses.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
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
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, TypeVar

from nas import __version__
from nas.core import checksums, plain_yaml
from nas.core.errors import OptionError, RunError
from nas.core.locks import try_lock
from nas.core.records import Record

Kind = TypeVar("Kind", bound=Record)
ARGS, ENVIRONMENT = "args.yaml", "env.json"
MOST_NAME = 200  # bytes of a run's name: file systems allow 255, and a number follows
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
    """Refuse --name together with --output.

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


def write_args(path: Path, arguments: Mapping[str, Any]) -> None:
    """Write the resolved arguments as YAML with a checksum; `--config` reads them back."""
    write_text(path / ARGS, checksums.lined(plain_yaml.dump(arguments)))


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
    """Return the arguments of a run folder or of a YAML file, which may be a changed copy.

    Raises:
        RunError: there are none, they do not parse, or those of the folder are damaged.
    """
    file = path / ARGS if path.is_dir() else path
    text = read_text(file)
    if file != path:
        checksums.check_lined(text, file)
    return plain_yaml.parse(text, file)


def write_environment(path: Path) -> None:
    """Write versions, machine, command line and commit, for whoever repeats the run.

    A later process that goes on with the run is added under `resumed`.
    """
    packages = ("torch", "optuna", "numpy")
    data: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *arguments()],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {"nas": __version__, **{name: _version(name) for name in packages}},
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
    """Write JSON in one step: readers see the old file or the new one, never half of it.

    An object has its checksum as the last key.
    """
    whole = checksums.with_checksum(data) if isinstance(data, Mapping) else data
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    # a file's name may hold bytes that are no UTF-8; JSON has escapes for them
    write_text(path, text.encode(errors="backslashreplace").decode() + "\n")


def read_json(path: Path) -> Any:
    """Return the data of a JSON file of this run.

    Raises:
        RunError: it cannot be read, is no JSON, or has another checksum than it had.
    """
    try:
        return checksums.without_checksum(parse_json(read_text(path)), path)
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


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """Return what a JSON file of ours tells, as a record of this kind.

    Raises:
        RunError: it cannot be read, is damaged, or holds something else.
    """
    found = read_object(path)
    try:
        return kind.from_dict(found)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}); was it edited?"
        ) from error


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


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], *, checked: bool = False
) -> None:
    """Write a CSV file in one step; `checked`: with a checksum of each row as the last column."""
    table = [cells(row) for row in rows]
    if checked:
        table = [[*row, checksums.of_row(header, row)] for row in table]
    with _replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*header, checksums.FIELD] if checked else header)
        writer.writerows(table)


def cells(row: Sequence[Any]) -> list[Any]:
    """Return a row for a CSV file; an unquoted carriage return would end it where it is read."""
    return [cell.replace("\r", "\\r") if isinstance(cell, str) else cell for cell in row]


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, or none if it does not exist.

    Raises:
        RunError: it cannot be read, is no CSV, or a row has another checksum than it had.
    """
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        rows = list(reader)
    except csv.Error as error:
        raise RunError(f"{path} is no CSV: {error}; was it edited?") from error
    if checksums.FIELD not in (reader.fieldnames or ()):
        return rows
    numbered = enumerate(rows, 1)
    return [checksums.without_row_checksum(row, path, number) for number, row in numbered]


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
