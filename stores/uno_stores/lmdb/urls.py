"""From a URL to an LMDB store."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import InvalidStoreUrl
from uno_actors.units import seconds, size
from uno_stores.lmdb.options import check_options
from uno_stores.lmdb.store import LmdbEventStore

OPTIONS: dict[str, Callable[[str], Any]] = {
    "durability": str,
    "map_size": size,
    "max_size": size,
    "max_event_size": size,
    "lease_time": seconds,
}


def open_url(
    url: str, event_registry: EventRegistry, *, create: bool = True, read_only: bool = False
) -> LmdbEventStore:
    """Open ``lmdb:PATH`` or ``lmdb:PATH?durability=relaxed&map_size=64GiB``; the options are those of `LmdbEventStore`.

    Raises:
        InvalidStoreUrl: The path is missing, or an option is none of those that are allowed.
    """
    path, options = _read_url(url)
    try:
        return LmdbEventStore(path, event_registry, create=create, read_only=read_only, **options)
    except ValueError as error:
        raise InvalidStoreUrl(url, ["lmdb"], str(error)) from error


def check_url(url: str) -> None:
    """Check ``url`` as `open_url` does; nothing is opened.

    Raises:
        InvalidStoreUrl: As there.
    """
    _read_url(url)


def _read_url(url: str) -> tuple[str, dict[str, Any]]:
    """The path and the options."""
    path, _, query = url.removeprefix("lmdb:").partition("?")
    if not path:
        raise InvalidStoreUrl(url, ["lmdb:PATH"])
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    if (wrong := sorted(set(names) - OPTIONS.keys())) or len(names) > len(set(names)):
        what = f"unknown option {', '.join(wrong)}" if wrong else "an option is given twice"
        raise InvalidStoreUrl(url, ["lmdb"], f"{what}; options are {', '.join(OPTIONS)}")
    try:
        options = {name: OPTIONS[name](value) for name, value in pairs}
        check_options(**options)
    except ValueError as error:
        raise InvalidStoreUrl(url, ["lmdb"], str(error)) from error
    return path, options
