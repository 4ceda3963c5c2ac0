"""What an error says: something about an event, or only about the database.

================= ==================== =========================================================================
database          read from            passing
================= ==================== =========================================================================
PostgreSQL        SQLSTATE             connections, serialization and deadlocks, room, locks, shutdowns, a
                                       server that only reads
SQLite            the result code      busy, locked, full, only readable, disk errors and their like
MySQL, MariaDB    the error number     connections, waits for locks and deadlocks, room, shutdowns, a server that
                                       only reads
any other         the class            `OperationalError`, `InterfaceError`
================= ==================== =========================================================================

Drivers of SQLite and MySQL raise an `OperationalError` for a misspelled statement too: there the class tells nothing.
"""

from traceback import walk_tb

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from uno_actors.errors import InvalidHandler

_STATES = ("08", "25006", "25P03", "25P04", "40", "53", "55P", "57")
"""The beginnings of SQLSTATE. 25P02 is none: it follows a statement of the program that has failed."""
_SQLITE = frozenset({5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17, 26})
"""Primary result codes (https://sqlite.org/rescode.html), from SQLITE_BUSY to SQLITE_NOTADB."""
_MYSQL = frozenset(
    {
        1021,
        1037,
        1040,
        1041,
        1053,
        1114,
        1158,
        1159,
        1160,
        1161,
        1203,
        1205,
        1206,
        1213,
        1290,
        1317,
        1792,
        1836,
        3024,
    }
)
"""Error numbers of the server (MySQL's "Server Error Message Reference"); those of its client are 2000 to 2999."""
_NO_TABLE = ("42P01", "no such table", "does not exist", "doesn't exist")


def is_passing(error: BaseException, *, of_model: bool = False) -> bool:
    """Whether an error says nothing about the event: the database is away, busy or full.

    Args:
        error: What was raised.
        of_model: Whether a method of the read model raised it. An `OSError` is one of the database then only if it came
            through SQLAlchemy: a missing file, or a time limit of the program, will be the same at each attempt.
    """
    if isinstance(error, OSError):  # as of a driver that connects
        return not of_model or _came_through_sqlalchemy(error)
    return isinstance(error, PoolTimeout) or (
        isinstance(error, DBAPIError) and _is_passing_in_database(error)
    )


def _is_passing_in_database(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    state = _state(error)
    if state is not None:
        return state.startswith(_STATES)
    result = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(result, int):
        return result & 0xFF in _SQLITE
    number = next(iter(getattr(error.orig, "args", ())), None)
    if isinstance(number, int):
        return number in _MYSQL or 2000 <= number < 3000
    return isinstance(error, (OperationalError, InterfaceError))


def explained(error: Exception) -> Exception:
    """``error``; what it means, if PostgreSQL refuses a statement since an earlier one has failed."""
    if not (isinstance(error, DBAPIError) and (_state(error) or "").startswith("25P02")):
        return error
    meaning = InvalidHandler(
        "a statement of the read model failed, and the error was caught: PostgreSQL then takes no further statement in"
        " this transaction. Put such a statement into a savepoint, as in `async with session.begin_nested():`"
    )
    meaning.__cause__ = error
    return meaning


def names_missing_table(error: DBAPIError, table: str) -> bool:
    """Whether an error says that there is no ``table``; one that says so of another table is the program's."""
    text = f"{_state(error)} {error.orig}"
    return table in text and any(sign in text for sign in _NO_TABLE)


def _came_through_sqlalchemy(error: BaseException) -> bool:
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(module.partition(".")[0] == "sqlalchemy" for module in modules)


def _state(error: DBAPIError) -> str | None:
    """The SQLSTATE, if the driver tells one: asyncpg and psycopg 3, or psycopg 2."""
    for name in ("sqlstate", "pgcode"):
        found = getattr(error.orig, name, None)
        if isinstance(found, str) and found != "HY000":  # which says only that it has none
            return found
    return None
