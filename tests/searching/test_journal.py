"""Journal: optuna's own file format, whole groups, what a kill or a full disk may leave."""

import json
import os
import random
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas.core import registry
from nas.core.errors import RunError
from nas.interfaces import Space, Trial
from nas.searching.objective import Bound, Goal, Objective
from nas.searching.references import reference_points
from nas.searching.samplers import distributions, key_of
from nas.searching.studies import journal
from nas.searching.studies.study import SEARCH, Journal, Log

SPACE: Space = registry.export("spaces", "mbconv", "SPACE")
KINDS = ("done", "rejected", "failed", "duplicate")


def open_log(path: Path, name: str = SEARCH) -> Log:
    sampler = registry.make("controllers", "random", SPACE, options={}, seed=0)
    return Journal(path, distributions(SPACE)).log(name, ["maximize"], sampler)


def advance(log: Log, trials: int) -> list[Trial]:
    """Ask and tell some trials of all kinds; return them."""
    told = []
    for _ in range(trials):
        number, choices = log.ask(distributions(SPACE))
        kind, value = KINDS[number % 4], random.Random(number).random()
        scored = kind in ("done", "duplicate")
        metrics = {"accuracy": 100 * value, "flops": number + 1} if kind != "rejected" else {}
        reason = "" if scored else "why, “not”\nat all"
        values = (value,) if scored else ()
        trial = Trial(number, kind, choices, f"a{number}", metrics, values, reason, 0.25)
        log.tell(trial)
        told.append(trial)
    return told


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def test_trials_come_back_as_they_were_told(path: Path) -> None:
    told = advance(open_log(path), 8)
    assert open_log(path).trials() == told
    assert open_log(path).unfinished() == []


def test_optuna_reads_the_file_with_its_own_backend(path: Path) -> None:
    log = open_log(path)
    advance(log, 9)
    log.ask(distributions(SPACE))
    advance(open_log(path, "other"), 3)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.load_study(study_name=SEARCH, storage=storage)
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE]
    assert {s.study_name for s in storage.get_all_studies()} == {SEARCH, "other"}
    ours, theirs = log.study.get_trials(), study.get_trials()
    assert len(theirs) == 10
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other  # number, state, values, params, distributions, attributes, times
    assert theirs[0].user_attrs["arch_id"] == "a0"
    wanted = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]
    assert [trial.state for trial in theirs[:4]] == wanted
    assert theirs[9].state is TrialState.RUNNING


def test_optuna_goes_on_with_the_file_and_we_with_optunas(path: Path) -> None:
    told = advance(open_log(path), 2)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.load_study(study_name=SEARCH, storage=storage)
    trial = study.ask(distributions(SPACE))
    study.tell(trial, 0.5)
    log = open_log(path)
    assert log.trials()[:2] == told
    assert log.trials()[2].values == (0.5,)
    assert advance(log, 1)[0].number == 3


def test_every_cut_of_the_file_opens_and_loses_no_whole_result(path: Path) -> None:
    told = advance(open_log(path), 3)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    # every record's end, and some places within the records
    cuts = sorted({0, *ends, *random.Random(0).sample(range(len(whole)), 60)})
    records = [json.loads(line) for line in whole.splitlines()]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        log = open_log(path)
        results = sum(r["op_code"] == 6 for r, end in zip(records, ends, strict=True) if end <= cut)
        assert log.trials() == told[:results], cut
        for trial in log.unfinished():
            assert set(trial.choices) == set(SPACE.choices), cut
    assert open_log(path).trials() == told


def test_a_proposal_with_half_its_choices_is_cut(path: Path) -> None:
    log = open_log(path)
    advance(log, 1)
    before = path.read_bytes()
    log.ask(distributions(SPACE))
    lines = path.read_bytes()[len(before) :].splitlines(keepends=True)
    path.write_bytes(before + b"".join(lines[: len(lines) // 2]))
    assert open_log(path).unfinished() == []
    assert path.read_bytes() == before


def test_a_result_without_its_state_is_cut_and_the_proposal_stays(path: Path) -> None:
    log = open_log(path)
    number, choices = log.ask(distributions(SPACE))
    asked = path.read_bytes()
    log.tell(Trial(number, "done", choices, "id", {"accuracy": 1.0}, (1.0,)))
    lines = path.read_bytes()[len(asked) :].splitlines(keepends=True)
    path.write_bytes(asked + b"".join(lines[:-1]))
    again = open_log(path)
    assert [(t.number, t.choices) for t in again.unfinished()] == [(number, choices)]
    assert path.read_bytes() == asked


def test_the_resumed_search_writes_on_after_a_cut(path: Path) -> None:
    told = advance(open_log(path), 2)
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"worker_id":"torn')
    log = open_log(path)
    told += advance(log, 2)
    assert open_log(path).trials() == told
    storage = JournalStorage(JournalFileBackend(str(path)))
    assert len(optuna.load_study(study_name=SEARCH, storage=storage).trials) == 4


def test_a_stale_lock_file_does_not_stall(path: Path) -> None:
    advance(open_log(path), 1)
    os.symlink("gone", f"{path}.lock")
    (path.parent / "journal.log.lock.rename").write_text("")
    assert len(advance(open_log(path), 1)) == 1


def test_an_empty_file_is_a_new_journal(path: Path) -> None:
    path.touch()
    assert open_log(path).trials() == []


@pytest.mark.parametrize("torn", [b"{", b'{"op', b'{"op_code":0,"study'])
def test_a_first_line_torn_anywhere_is_a_new_journal(path: Path, torn: bytes) -> None:
    path.write_bytes(torn)
    assert open_log(path).trials() == []


@pytest.mark.parametrize(
    "content",
    [
        b"epoch,accuracy\n1,50\n",
        b"\x80\x04\x95 a pickle of somebody",
        b"[1, 2]\n",
        b'{"schema": 1}\n',
        b"\n",
        b'{"op_code": "x"}\n',
        b'{"op_code": 99, "worker_id": "w"}\n',
        b'{"op_code": 4, "worker_id": "w", "study_id": 9}\n{"op_code": 6, "worker_id": "w"}\n',
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(RunError, match="name another run") as error:
        open_log(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_a_damaged_line_in_the_middle_is_refused_with_its_number(path: Path) -> None:
    advance(open_log(path), 2)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[40] = b"\x00" * 12 + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(RunError, match="line 41 is not a record"):
        open_log(path)
    assert path.read_bytes() == b"".join(lines)


def test_a_journal_of_another_space_is_refused(path: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name=SEARCH, direction="maximize")
    study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 1.0)
    with pytest.raises(RunError, match="trial 0 has other choices than the space"):
        open_log(path)


def test_a_journal_with_other_objectives_is_refused(path: Path) -> None:
    open_log(path)
    sampler = registry.make("controllers", "random", SPACE, options={}, seed=0)
    with pytest.raises(RunError, match="has objectives"):
        Journal(path, distributions(SPACE)).log(SEARCH, ["maximize", "minimize"], sampler)


def test_a_full_disk_leaves_no_half_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(path)
    told = advance(log, 1)
    before = path.read_bytes()

    def fill_up(file: object, data: bytes) -> int:
        # as a disk does: it takes some of it, and only then says that it is full
        if path.stat().st_size > len(before):
            raise OSError(28, "No space left on device")
        with path.open("ab") as other:
            return other.write(data[:100])

    class Full:
        def __init__(self, *_: object, **__: object) -> None:
            self.file = real(path, "ab", buffering=0)

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            return fill_up(self.file, bytes(data))

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    real = Path.open
    monkeypatch.setattr(
        journal.Path,
        "open",
        lambda self, *a, **k: Full() if a == ("ab",) and k else real(self, *a, **k),
    )
    with pytest.raises(RunError, match=r"No space left on device; every finished trial is kept"):
        log.ask(distributions(SPACE))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert open_log(path).trials() == told


def test_a_thousand_flushes_wait_for_the_disk_once_a_second(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(journal.os, "fsync", syncs.append)
    now = [100.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    path.touch()
    backend = journal.GroupedFile(path)
    for number in range(1000):
        now[0] += 0.01
        backend.append_logs([{"op_code": number}])
        backend.flush()
    assert len(path.read_bytes().splitlines()) == 1000
    assert 9 <= len(syncs) <= 12


def test_nothing_is_written_before_a_flush_and_all_at_once_then(path: Path) -> None:
    log = open_log(path)
    sizes = [path.stat().st_size]
    log.study.ask(distributions(SPACE))
    sizes.append(path.stat().st_size)
    log._flush()
    assert sizes[0] == sizes[1] < path.stat().st_size


POINTS = list(reference_points(SPACE, Goal(Objective(targets=(Bound("flops", 4e8),)))).values())


def test_none_is_queued_twice_nor_what_was_proposed(tmp_path: Path) -> None:
    log = open_log(tmp_path / "a.log")
    log.enqueue(POINTS[:1])
    advance(log, 2)
    log.enqueue(POINTS)
    told = advance(log, 4)
    assert [trial.choices for trial in told[:2]] == POINTS[1:]
    assert key_of(POINTS[0]) not in {key_of(trial.choices) for trial in told}


def test_every_cut_of_the_file_opens_and_loses_no_point(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    log = open_log(path)
    log.enqueue(POINTS)
    advance(log, 4)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in sorted({*ends, *random.Random(0).sample(range(len(whole)), 40)}):
        path.write_bytes(whole[:cut])
        again = open_log(path)
        again.enqueue(POINTS)
        for trial in again.unfinished():
            assert set(trial.choices) == set(SPACE.choices), cut
        asked = [trial.choices for trial in (*again.trials(), *again.unfinished())]
        asked += [again.ask(distributions(SPACE))[1] for _ in range(4)]
        assert [key_of(choices) for choices in asked[:3]] == list(map(key_of, POINTS)), cut


def test_optuna_sees_them_as_its_own_queue(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    open_log(path).enqueue(POINTS)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    queued = [record for record in records if record.get("system_attrs")]
    assert [record["system_attrs"]["fixed_params"] for record in queued] == POINTS
    sampler = registry.make("controllers", "random", SPACE, options={}, seed=0)
    again = Journal(path, distributions(SPACE)).log(SEARCH, ["maximize"], sampler)
    assert again.trials() == again.unfinished() == []


def test_nsga2_breeds_from_the_queue(path: Path) -> None:
    sampler = registry.make("controllers", "nsga2", SPACE, options={}, seed=0)
    log = Journal(path, distributions(SPACE)).log(SEARCH, ["maximize"], sampler)
    log.enqueue(POINTS)
    advance(log, 3)
    frozen = log.study.get_trials(deepcopy=False)
    assert all("NSGAIISampler:generation" in trial.system_attrs for trial in frozen)
