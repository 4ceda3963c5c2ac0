"""From the URL of a database to its store."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import InvalidStoreUrl, StoreUnavailable
from uno_actors.store_urls import check_password
from uno_actors.units import seconds, size
from uno_stores.sql.engine import OwnEngine, split_numbers
from uno_stores.sql.extra import needs_extra
from uno_stores.sql.options import check_options
from uno_stores.sql.place import file_of
from uno_stores.sql.store import DatabaseEventStore

OPTIONS: dict[str, Callable[[str], Any]] = {
    "patience": seconds,
    "max_event_size": size,
    "lease_time": seconds,
    "logs": int,
}


def open_url(
    url: str, event_registry: EventRegistry, *, create: bool = True, read_only: bool = False
) -> DatabaseEventStore:
    """Open ``sqlite+aiosqlite:///PATH`` or ``postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE``.

    The tables are made at the first use. With ``read_only`` the database refuses every write. The options
    ``patience``, ``max_event_size``, ``lease_time`` and ``logs`` of `DatabaseEventStore` may follow as
    ``?patience=...``; others are for the driver.

    Raises:
        InvalidStoreUrl: It is not the URL of a database, or an option is not known.
        StoreUnavailable: The file is missing and must not be made; or the driver is not installed.
    """
    parsed, options = _read_url(url)
    sqlite_file = file_of(parsed) if parsed.get_backend_name() == "sqlite" else None
    if sqlite_file is not None and (read_only or not create) and not sqlite_file.exists():
        raise StoreUnavailable(url, f"there is no file {sqlite_file.absolute()}")
    try:
        prepare = _read_only if read_only else _sync_fully
        own = OwnEngine(
            parsed, prepare if parsed.get_backend_name() == "sqlite" else None, read_only=read_only
        )
    except ModuleNotFoundError as missing:  # the driver of the database
        raise StoreUnavailable(url, needs_extra(missing)) from missing
    except (ArgumentError, ValueError) as error:
        raise InvalidStoreUrl(url, [], str(error)) from None  # its text may hold the password
    store = DatabaseEventStore(own.session, event_registry=event_registry, **options)
    store.own(own, create=create and not read_only)
    return store


def check_url(url: str) -> None:
    """Check ``url`` as `open_url` does; no connection is made.

    Raises:
        InvalidStoreUrl: As there.
    """
    _read_url(url)


def _read_url(url: str) -> tuple[URL, dict[str, Any]]:
    """The URL of the database, and the options of the store."""
    try:
        check_password(url)
        parsed = make_url(url)
        options = {
            name: kind(str(parsed.query[name])) for name, kind in OPTIONS.items() if name in parsed.query
        }
        check_options(**options, is_server=parsed.get_backend_name() != "sqlite")
        split_numbers(parsed)
    except (ArgumentError, ValueError) as error:
        raise InvalidStoreUrl(url, [], str(error)) from None  # its text may hold the password
    return parsed.difference_update_query(OPTIONS), options


def _sync_fully(connection: Any) -> None:
    """Make commits survive a crash of the machine, with any build of SQLite."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _read_only(connection: Any) -> None:
    """Let SQLite refuse writes."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()
