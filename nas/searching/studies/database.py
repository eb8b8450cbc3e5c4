"""The database of a shared study: Optuna's RDBStorage with its heartbeats; its URL, its errors."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from nas.core.errors import MissingError, OptionError, RunError, install

FORM = "postgresql://user:password@host:5432/database"
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
# what Optuna makes of a failed statement, and what SQLAlchemy does
LOST = (optuna.exceptions.StorageInternalError, exc.SQLAlchemyError)
SECRETS = ("password", "sslpassword")
_OPENINGS, _CONNECT_SECONDS = 5, 10
GRACE = "NAS_DRIVER_GRACE"  # seconds without a heartbeat after which a trial is taken over
SECONDS, BEATS = 60.0, 6  # the default of it; heartbeats within it
# What is done with a trial whose heartbeats ended, once it is failed.
OnStale = Callable[[optuna.Study, FrozenTrial], None]


def grace() -> float:
    """Return the seconds without a heartbeat after which a trial is taken over.

    Raises:
        OptionError: the variable is no positive number.
    """
    text = os.environ.get(GRACE, str(SECONDS))
    try:
        if 0 < float(text) < float("inf"):
            return float(text)
    except ValueError:
        pass
    raise OptionError(f"the variable {GRACE} takes seconds above 0, not {text!r}")


@contextlib.contextmanager
def heartbeats_allowed() -> Iterator[None]:
    """Silence Optuna, which warns of heartbeats: they are experimental, and made for `optimize`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        yield


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


def connect(url: str, password: str | None = None, on_stale: OnStale | None = None) -> RDBStorage:
    """Return the storage behind a URL without a password, its tables made if absent.

    Without a password libpq looks for one, in PGPASSWORD and ~/.pgpass. `on_stale` is called by
    the one driver that fails a trial without heartbeats.

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
            return _storage(own, given, on_stale)
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


def _storage(url: str, given: dict[str, Any], on_stale: OnStale | None) -> RDBStorage:
    seconds = grace()
    with heartbeats_allowed():
        storage = RDBStorage(
            url,
            # a connection that was cut while a long training ran is made anew
            {"pool_pre_ping": True, "connect_args": dict(given)},
            heartbeat_interval=math.ceil(seconds / BEATS),
            grace_period=math.ceil(seconds),
            heartbeat_stale_trial_callback=on_stale,
        )
    if url.startswith("sqlite"):
        _lock_before_reading(storage.engine)
    return storage


def _lock_before_reading(engine: Engine) -> None:
    """Have a transaction of SQLite hold its lock from the start, as SELECT FOR UPDATE does.

    Python begins one at the first write: of two drivers that end the same trial both would have
    read before that it runs. This is SQLAlchemy's own recipe for it. With a write-ahead log a
    commit waits for no disk: there are some 50 a trial.
    """

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 begins no transaction of its own
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # what was connected before
    engine.connect().close()


@contextlib.contextmanager
def opened(url: str, password: str | None, on_stale: OnStale | None = None) -> Iterator[RDBStorage]:
    """Hold a storage open, as `connect` returns it.

    Raises:
        RunError: it is lost meanwhile.
    """
    storage = connect(url, password, on_stale)
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
