"""The study's journal: Optuna's journal file, written by one process, in whole groups.

The file is what optuna's own JournalFileBackend writes, so optuna-dashboard opens it. Two things
differ. What belongs together (all choices of one proposal; all results of one trial) is written
at once, so a kill leaves no half-asked trial behind and a thousand trials cost a thousand writes,
not forty thousand. And the run's lease already makes this process the only writer, so there is no
lock file that a kill could leave stale. Each line has a checksum of itself as its last key, which
Optuna does not look at; lines without one, of an earlier version or of optuna-dashboard, are taken
as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from nas.core.checksums import FIELD, of_text
from nas.core.errors import RunError
from nas.core.run_folder import check_regular, parse_json

# operation codes of optuna 5's journal format
_CODES, _STUDY_CODES = range(0, 10), range(0, 4)
_CREATE_STUDY, _CREATE_TRIAL, _SET_PARAM, _SET_STATE = 0, 4, 5, 6
_RUNNING = 0  # the state of a trial that has none yet
_START = b'{"op_code'


class GroupedFile(BaseJournalBackend):
    """A journal file of this process alone; nothing is on disk before `flush`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logs = _logs(path)
        self._written = len(self._logs)
        self._synced = 0.0

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        # through JSON and back, so that this process sees what a later one will read
        self._logs += json.loads(json.dumps(logs))

    def flush(self) -> None:
        """Write what is new in one append, which a kill of this process cannot undo.

        The disk itself is waited for once a second, which bounds what a power cut can take.

        Raises:
            RunError: the disk is full or the folder cannot be written; nothing earlier is lost.
        """
        new = self._logs[self._written :]
        text = "".join(map(_line, new))
        try:
            with self._path.open("ab", buffering=0) as file:
                _write_whole(file, text.encode())
                if time.monotonic() > self._synced + 1:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
        except OSError as error:
            raise RunError(
                f"cannot write {self._path}: {error.strerror}; every finished trial is kept: "
                "make room and repeat the command with --resume"
            ) from error
        self._written = len(self._logs)


class _Read(BaseJournalBackend):
    """The whole lines that a journal file holds now."""

    def __init__(self, path: Path) -> None:
        self._logs = _logs(path)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._logs += logs


def _write_whole(file: FileIO, data: bytes) -> None:
    """Append all of it or nothing: a disk that fills up takes a part without an error."""
    start, rest = file.seek(0, os.SEEK_END), memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(start)
        raise


def open_journal(path: Path, choices: int) -> tuple[JournalStorage, GroupedFile]:
    """Return the storage of a journal file, made if absent, after cutting a torn end.

    `choices` is the number of choices of the space: a proposal with fewer was torn by a kill.

    Raises:
        RunError: the file is no Optuna journal, or is damaged before its end.
    """
    with _replaying(path):
        if path.exists():
            check_regular(path)
        path.touch()
        _repair(path, choices)
        backend = GroupedFile(path)
        return JournalStorage(backend), backend


def read_only(path: Path) -> JournalStorage:
    """Return the storage of a journal file as it is now; what is written there stays in memory.

    Raises:
        RunError: there is none, it is no Optuna journal, or is damaged.
    """
    with _replaying(path):
        return JournalStorage(_Read(path))


@contextlib.contextmanager
def _replaying(path: Path) -> Iterator[None]:
    """Turn what reading a journal may raise into one line."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot open {path}: {error.strerror}") from error
    except (LookupError, AttributeError, TypeError, ValueError, AssertionError) as error:
        raise RunError(
            f"{path} is not a journal that optuna {optuna.__version__} can replay "
            f"({type(error).__name__}: {error}); name another run"
        ) from error


def _bytes(path: Path) -> bytes:
    check_regular(path)
    return path.read_bytes()


def _logs(path: Path) -> list[dict[str, Any]]:
    """Return the records of a journal file, but for a torn last one."""
    lines = _bytes(path).splitlines(keepends=True)
    parsed = (_parse(path, n, line, n == len(lines)) for n, line in enumerate(lines, 1))
    return [log for log in parsed if log]


def _line(log: dict[str, Any]) -> str:
    """Return the line of a record, with its checksum."""
    text = json.dumps(log, separators=(",", ":"))
    return f'{text[:-1]},"{FIELD}":"{of_text(text)}"}}\n'


def _check(path: Path, number: int, line: bytes, log: dict[str, Any]) -> None:
    """Compare a line with its checksum, if it has one, and take that out of the record.

    Raises:
        RunError: it differs.
    """
    found = log.pop(FIELD, None)
    if found is None:
        return
    text = line.rstrip(b"\n").decode().removesuffix(f',"{FIELD}":"{found}"}}') + "}"
    if found != of_text(text):
        before = f"; to go on from what is before it, keep its first {number - 1} lines alone"
        raise RunError(
            f"{path} line {number} is damaged: its checksum differs: restore the file or name "
            f"another run{before if number > 1 else ''}"
        )


def _repair(path: Path, choices: int) -> None:
    """Cut the file after its last complete group."""
    lines = _bytes(path).splitlines(keepends=True)
    safe = length = params = 0
    asking = False
    for number, line in enumerate(lines, 1):
        log = _parse(path, number, line, is_last=number == len(lines))
        if log is None:
            break
        length += len(line)
        code = log["op_code"]
        if number == 1 and code != _CREATE_STUDY:
            raise RunError(f"{path} begins with no study, its head is lost: name another run")
        begins = _begins(log)
        if begins or code == _CREATE_TRIAL:
            asking, params = begins, 0
        params += code == _SET_PARAM
        complete = code == _SET_PARAM and params == choices
        asking = asking and not complete
        whole = complete or (code in (_SET_STATE, _CREATE_TRIAL) and not begins)
        if whole or (code in _STUDY_CODES and not asking):
            safe = length
    if safe < path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(safe)
            os.fsync(file.fileno())


def _begins(log: dict[str, Any]) -> bool:
    """Tell whether choices follow: a trial is proposed, or one that waited in the queue.

    What is written with all that came of it, or put in the queue, is one record.
    """
    code = log["op_code"]
    return code in (_CREATE_TRIAL, _SET_STATE) and log.get("state", _RUNNING) == _RUNNING


def _parse(path: Path, number: int, line: bytes, is_last: bool) -> dict[str, Any] | None:
    """Return one record; None for a torn last line."""
    try:
        log = parse_json(line)
        if line.endswith(b"\n") and isinstance(log, dict) and log.get("op_code") in _CODES:
            _check(path, number, line, log)
            return log
    except ValueError:
        pass
    torn = is_last and not line.endswith(b"\n")
    if torn and (number > 1 or line.startswith(_START) or _START.startswith(line)):
        return None
    shown = line[:40].decode(errors="replace").strip()
    raise RunError(
        f"{path} line {number} is not a record of an Optuna journal ({shown!r}); "
        "name another run or restore the file"
    )
