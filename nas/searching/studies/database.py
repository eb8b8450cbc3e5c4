"""A database that several drivers share a study in: its URL, its errors, writes in one piece.

The tables are Optuna's (RDBStorage), so optuna-dashboard opens them. What belongs together (all
choices of a proposal; all results of a trial) is written in one transaction, which asks first
whether the trial still runs: of several drivers that would end a trial, one does. That needs
Optuna 5's models of its tables, which are private: tests/searching/test_shared.py proves that
they work.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import Session

from nas.core.errors import MissingError, OptionError, RunError, install

FORM = "postgresql://user:password@host:5432/database"
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
# what Optuna makes of a failed statement, and what SQLAlchemy does
LOST = (optuna.exceptions.StorageInternalError, exc.SQLAlchemyError)
SECRETS = ("password", "sslpassword")
_OPENINGS, _CONNECT_SECONDS = 5, 10


def split(url: str) -> tuple[str, str | None]:
    """Return a storage's URL without its password, which may be kept and shown, and the password.

    Raises:
        OptionError: it is no URL of a database that drivers can share. It is not shown: it may
            hold a password.
    """
    try:
        found = make_url(url)
    except (exc.ArgumentError, ValueError):
        found = None
    if found is None or url.partition("?")[0].count("@") > 1 or "@" in (found.host or ""):
        raise OptionError(f"--storage takes a URL such as {FORM}; an @ in a password is %40")
    if found.drivername == "sqlite" and found.database:
        return url, None
    if found.drivername not in _POSTGRES or not found.database:
        raise OptionError(
            f"--storage takes {FORM}, or sqlite:///FILE for drivers on one machine, not a URL of "
            f"{found.drivername!r}{'' if found.database else ' without a database'}"
        )
    password = found.password or found.query.get("password")
    plain = URL.create(
        "postgresql",
        found.username,
        host=found.host,
        port=found.port,
        database=found.database,
        query={name: value for name, value in found.query.items() if name not in SECRETS},
    )
    return plain.render_as_string(), password if isinstance(password, str) else None


def check(url: str) -> None:
    """Check that a storage's URL can be used here; nothing is connected to yet.

    Raises:
        OptionError: it is no URL of a database that drivers can share.
        MissingError: psycopg is not installed.
    """
    public, _ = split(url)
    if public.startswith("postgresql") and importlib.util.find_spec("psycopg") is None:
        raise MissingError("--storage postgresql:// needs psycopg: " + install("postgres"))


def connect(url: str, password: str | None = None) -> RDBStorage:
    """Return the storage behind a URL without a password, its tables made if absent.

    Without a password libpq looks for one, in PGPASSWORD and ~/.pgpass.

    Raises:
        OptionError: the server cannot be reached, or refuses the user, password or database.
    """
    check(url)
    is_file = url.startswith("sqlite")
    given: dict[str, Any] = {"timeout": 60} if is_file else {"connect_timeout": _CONNECT_SECONDS}
    if password is not None:
        given["password"] = password
    own = url if is_file else url.replace("postgresql:", "postgresql+psycopg:", 1)
    own = own.replace("{", "{{").replace("}", "}}")  # Optuna takes it for a template
    for opening in range(1, _OPENINGS + 1):
        try:
            # a connection that was cut while a long training ran is made anew
            return RDBStorage(own, {"pool_pre_ping": True, "connect_args": dict(given)})
        except ImportError as error:  # psycopg without libpq
            raise MissingError(f"psycopg does not work: {error}: {install('postgres')}") from error
        except (*LOST, RuntimeError) as error:
            # drivers that make the tables at the same moment are in each other's way
            raced = isinstance(error, exc.ProgrammingError | exc.IntegrityError) or is_file
            if not raced or opening == _OPENINGS:
                raise OptionError(
                    f"--storage {url} cannot be opened: {cause(error)}; check host, port, "
                    "database, user and password (of the URL, PGPASSWORD or ~/.pgpass)"
                ) from error
            time.sleep(random.random())
    raise AssertionError("the last opening returns or raises")


@contextlib.contextmanager
def opened(url: str | None, password: str | None) -> Iterator[RDBStorage | None]:
    """Hold a storage open, as `connect` returns it; None without a URL.

    Raises:
        RunError: it is lost meanwhile.
    """
    if not url:
        yield None
        return
    storage = connect(url, password)
    try:
        with telling_loss(url):
            yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def telling_loss(url: str) -> Iterator[None]:
    """Turn what is raised when a database is lost into one line.

    Raises:
        RunError: it is lost; what was told before is kept in it.
    """
    try:
        yield
    except LOST as error:
        raise RunError(
            f"lost the database {url}: {cause(error)}; every finished trial is kept in it: when "
            "it is back, repeat the command with --resume"
        ) from error


def cause(error: BaseException) -> str:
    """Return why the database failed, in one line: the driver's words where there are some."""
    while not isinstance(error, exc.DBAPIError) and error.__cause__:
        error = error.__cause__
    text = str(error.orig if isinstance(error, exc.DBAPIError) else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # of several addresses of a host psycopg tells each, the last one first
    return re.sub(r"\s+", " ", lines[0]) if lines else type(error).__name__


class Tables:
    """The trials of one study, written in one piece each. All methods return whether they wrote."""

    def __init__(self, storage: RDBStorage, study: int) -> None:
        self._storage, self._study = storage, study

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Session]:
        with _create_scoped_session(self._storage.scoped_session) as db:
            yield db

    def put_once(self, name: str, value: Any) -> bool:
        """Write an attribute of the study, unless it has one of that name."""
        row = models.StudyUserAttributeModel(
            study_id=self._study, key=name, value_json=json.dumps(value)
        )
        try:
            with self._transaction() as db:
                db.add(row)
        except LOST as error:
            if not any(isinstance(e, exc.IntegrityError) for e in (error, error.__cause__)):
                raise
            return False
        return True

    def decide(
        self, trial: int, params: Mapping[str, Any], distributions: Mapping[str, Any]
    ) -> bool:
        """Write all choices of a trial."""
        with self._transaction() as db:
            if not _hold(db, trial, TrialState.RUNNING):
                return False
            db.add_all(_choices(trial, params, distributions))
        return True

    def claim(
        self,
        trial: int,
        driver: tuple[str, str],
        params: Mapping[str, Any],
        distributions: Mapping[str, Any],
    ) -> bool:
        """Begin a trial that waits in the queue, with all its choices, for one driver.

        `driver`: a system attribute of the trial and its value.
        """
        found, (key, value) = models.TrialModel, driver
        waiting = update(found).where(found.trial_id == trial, found.state == TrialState.WAITING)
        now = datetime.now(UTC).replace(tzinfo=None)
        values = {"state": TrialState.RUNNING, "_datetime_start_utc": now}
        with self._transaction() as db:
            held = db.execute(waiting.values(values), execution_options=_PLAIN)
            if not held.rowcount:  # type: ignore[attr-defined]
                return False
            db.add_all(_choices(trial, params, distributions))
            attribute = models.TrialSystemAttributeModel
            db.add(attribute(trial_id=trial, key=key, value_json=json.dumps(value)))
        return True

    def report(self, trial: int, step: int, value: float, attributes: Mapping[str, Any]) -> bool:
        """Write what a trial shows at a step."""
        with self._transaction() as db:
            if not _hold(db, trial, TrialState.RUNNING):
                return False
            self._storage._set_trial_intermediate_value_without_commit(db, trial, step, value)
            _attributes(db, trial, attributes)
        return True

    def finish(
        self,
        trial: int,
        state: TrialState,
        values: Sequence[float] | None,
        attributes: Mapping[str, Any],
    ) -> bool:
        """End a trial with all that is known of it."""
        with self._transaction() as db:
            if not _hold(db, trial, state):
                return False
            _attributes(db, trial, attributes)
            for objective, value in enumerate(values or ()):
                stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                db.add(
                    models.TrialValueModel(
                        trial_id=trial, objective=objective, value=stored, value_type=kind
                    )
                )
        return True

    def replace(
        self,
        trial: int,
        attributes: Mapping[str, Any],
        heir: FrozenTrial | None,
        unless: tuple[str, Any],
    ) -> int | None:
        """Fail a trial and begin its heir; return the heir's number, -1 if it needs none.

        `unless`: an attribute of the study and its value; if it is another by now, or the trial
        has ended, nothing is done and None returned. `heir`: a running trial. `attributes`: of
        the failed one; "{}" in its reason becomes the heir's number.
        """
        key, value = unless
        attribute = models.StudyUserAttributeModel
        with self._transaction() as db:
            # in the order in which all take their locks: the study, its attribute, the trial
            models.StudyModel.find_or_raise_by_id(self._study, db, for_update=True)
            same = (attribute.key == key, attribute.value_json == json.dumps(value))
            mine = update(attribute).where(attribute.study_id == self._study, *same)
            held = db.execute(mine.values(key=key), execution_options=_PLAIN)
            if not held.rowcount or not _hold(db, trial, TrialState.FAIL):  # type: ignore[attr-defined]
                return None
            number = -1
            if heir:
                begun = self._storage._get_prepared_new_trial(self._study, heir, db)
                number = int(begun.number)
            reason = attributes["reason"].format(number)
            _attributes(db, trial, {**attributes, "reason": reason})
        return number


def _choices(
    trial: int, params: Mapping[str, Any], distributions: Mapping[str, Any]
) -> list[models.TrialParamModel]:
    """Return the rows of a trial's choices."""
    return [
        models.TrialParamModel(
            trial_id=trial,
            param_name=name,
            param_value=distributions[name].to_internal_repr(value),
            distribution_json=distribution_to_json(distributions[name]),
        )
        for name, value in params.items()
    ]


_PLAIN = {"synchronize_session": False}


def _hold(db: Session, trial: int, state: TrialState) -> bool:
    """Set the state of a running trial, and keep others from it up to the end of the transaction.

    Return False if it runs no more: another driver has ended it.
    """
    found = models.TrialModel
    running = update(found).where(found.trial_id == trial, found.state == TrialState.RUNNING)
    values: dict[str, Any] = {"state": state}
    if state.is_finished():
        values["_datetime_complete_utc"] = datetime.now(UTC).replace(tzinfo=None)
    done = db.execute(running.values(values), execution_options=_PLAIN)
    return bool(done.rowcount)  # type: ignore[attr-defined]


def _attributes(db: Session, trial: int, attributes: Mapping[str, Any]) -> None:
    """Write attributes of a trial, new or changed."""
    model = models.TrialUserAttributeModel
    there = {str(row.key): row for row in model.where_trial_id(trial, db)}
    for key, value in attributes.items():
        text = json.dumps(value)
        if key in there:
            there[key].value_json = text
        else:
            db.add(model(trial_id=trial, key=key, value_json=text))
