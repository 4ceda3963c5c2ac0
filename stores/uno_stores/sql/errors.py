"""What an error of a database means for a request."""

from collections.abc import Sequence
from enum import Enum

from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from uno_actors.errors import CallerError, EventNotSerializable, StoreFull, StoreUnavailable, UnoError
from uno_actors.store.records import Append


class InvalidSession(CallerError, ValueError):
    """A session in which the store cannot record. Nothing was recorded."""

    def __init__(self, store: str, reason: str) -> None:
        self.store = store
        super().__init__(f"store {store} cannot record in this session: {reason}")


class Trouble(Enum):
    """Kinds of errors, by their remedy."""

    LOST = "the connection is gone, or there was none: try again on another"
    BUSY = "others were in the way: try again"
    FULL = "there is no room"
    NO_FILE = "the file of the database can neither be opened nor made"
    NO_TABLES = "the tables are missing"
    READ_ONLY = "the server only reads: try again on another connection"
    POOLED = "a pooler has lost a prepared statement, or has one of another"
    OTHER_LOOP = "the connection belongs to another event loop"
    TAKEN = "something has the same key"
    UNFIT = "the values cannot be written"
    OTHER = "nothing is known to help"


_LOST = {"57P01", "57P02", "57P03", "57P05", "25P03"}  # shut down, crashed, starting up, idle for too long
_BUSY = {"40001", "40P01", "55P03", "53300", "57014"}  # serialization, deadlock, lock, connections, cancelled
_BY_STATE = {
    "53100": Trouble.FULL,
    "25006": Trouble.READ_ONLY,
    "42P01": Trouble.NO_TABLES,
    "42703": Trouble.NO_TABLES,  # a column of a later version
    "3F000": Trouble.NO_TABLES,  # the schema
    "23505": Trouble.TAKEN,
    "26000": Trouble.POOLED,  # no such statement
    "42P05": Trouble.POOLED,  # one that is there already
}


def trouble(error: BaseException) -> Trouble:
    """The kind of an error that a session, its driver or the network has raised."""
    origin = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    state = getattr(origin, "sqlstate", None)
    found = _by_class(error, origin)
    if found is None:
        found = _by_state(state) if isinstance(state, str) else _by_text(str(origin).lower())
    return found or Trouble.OTHER


def _by_class(error: BaseException, origin: BaseException) -> Trouble | None:
    if isinstance(error, PoolTimeout):
        return Trouble.BUSY
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Trouble.LOST
    if isinstance(error, IntegrityError):
        return Trouble.TAKEN
    if isinstance(origin, (OSError, EOFError)):
        return Trouble.LOST
    if isinstance(origin, RuntimeError) and "loop" in str(origin):
        return Trouble.OTHER_LOOP
    return Trouble.UNFIT if isinstance(origin, (TypeError, ValueError, OverflowError)) else None


def _by_state(state: str) -> Trouble | None:
    """By the codes of the SQL standard and of PostgreSQL."""
    if state in _LOST or state.startswith("08"):
        return Trouble.LOST
    if state in _BUSY:
        return Trouble.BUSY
    if state in _BY_STATE:
        return _BY_STATE[state]
    return Trouble.UNFIT if state.startswith(("22", "54")) else None


_TEXTS = {
    "is locked": Trouble.BUSY,
    "disk is full": Trouble.FULL,
    "unable to open database file": Trouble.NO_FILE,
    "no such table": Trouble.NO_TABLES,
    "connection is closed": Trouble.LOST,
    "connection was closed": Trouble.LOST,
    "no active connection": Trouble.LOST,
    "error binding parameter": Trouble.UNFIT,
    "too big": Trouble.UNFIT,
    "invalid input for query": Trouble.UNFIT,
}


def _by_text(text: str) -> Trouble | None:
    """SQLite reports its codes as texts, and asyncpg has none for what it notices itself."""
    return next((kind for part, kind in _TEXTS.items() if part in text), None)


def reason(error: BaseException) -> str:
    """The text of ``error`` without the statement and its parameters, which may hold private data."""
    origin = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    text = str(origin).strip().splitlines()
    return f"{type(origin).__name__}: {text[0]}" if text else type(origin).__name__


PASSING = {Trouble.LOST, Trouble.BUSY, Trouble.TAKEN, Trouble.READ_ONLY}
"""Kinds that another attempt may cure. A duplicate key means that a program records without locking the head."""
REFUSED = {Trouble.BUSY, Trouble.TAKEN, Trouble.UNFIT, Trouble.READ_ONLY, Trouble.NO_TABLES}
"""Kinds in which the server has answered, so that the statement has done nothing."""
OF_ONE = {Trouble.UNFIT, Trouble.OTHER}
"""Kinds that may be the fault of one job in a group."""
_REMEDIES = {
    Trouble.NO_TABLES: "make its tables once with `await create_schema()`",
    Trouble.NO_FILE: "the directory must be there and be writable, make it first",
    Trouble.READ_ONLY: "the server only reads, as one that stands by does: name the one that writes",
    Trouble.POOLED: (
        "behind a pooler statements must have no name: give the URL to open_store, or make the engine with"
        ' poolclass=NullPool and connect_args={"statement_cache_size": 0, "prepared_statement_cache_size": 0,'
        ' "prepared_statement_name_func": str}'
    ),
    Trouble.OTHER_LOOP: (
        "the engine has connections of an event loop that has ended: make it with poolclass=NullPool, or dispose of"
        " it before its loop ends"
    ),
}


def refused(store: str, error: Exception, requests: Sequence[Append] = ()) -> UnoError:
    """The error to raise for ``error`` when it is certain that nothing was recorded in ``store``."""
    kind, text = trouble(error), reason(error)
    if kind is Trouble.FULL:
        return StoreFull(store, f"{text}; make room on the disk")
    if kind is Trouble.UNFIT and requests:
        return EventNotSerializable(requests[0].records[0].event_type, text)
    remedy = _REMEDIES.get(kind)
    return StoreUnavailable(store, f"{text}; {remedy}" if remedy else text)
