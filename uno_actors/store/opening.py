"""From a URL to a store: stores are found by the entry-point group ``uno_actors.stores``."""

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import signature

from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.errors import (
    InvalidStoreUrl,
    StoreUnavailable,
    describe,
)
from uno_actors.store.port import EventStore
from uno_actors.store_urls import check_path
from uno_actors.tenants import FIELD, is_template


def open_store(
    url: str,
    event_registry: EventRegistry = event_registry,
    *,
    create: bool = True,
    read_only: bool = False,
) -> EventStore:
    """Open the store that ``url`` names, through the entry-point group ``uno_actors.stores``.

    Args:
        url: ``memory:``, ``lmdb:PATH`` (relative to the working directory) or that of an installed store.
        event_registry: Finds the classes of recorded events.
        create: Whether to make a store where there is none. If not, the opener is called with ``create=False``.
        read_only: Whether to open an existing store in a way that cannot change it: the opener is called with
            ``create=False`` and ``read_only=True``.

    Raises:
        InvalidStoreUrl: No installed store has this scheme.
        StoreUnavailable: A package that the store needs is not installed, or the store cannot be opened.
        StoreFormatError: This version cannot read the store.
    """
    options = {} if create and not read_only else {"create": False}
    if read_only:
        options["read_only"] = True
    if is_template(url):
        raise InvalidStoreUrl(
            url, [], f"it is that of many tenants: put the name of one in the place of {FIELD}"
        )
    entry = _opener(url)
    try:
        opener = entry.load()
    except (ImportError, AttributeError) as missing:
        if reason := _hidden(entry, missing):
            raise StoreUnavailable(entry.name, reason) from missing
        if not isinstance(missing, ModuleNotFoundError):  # else of an extra that is not installed
            raise
        raise StoreUnavailable(entry.name, str(missing)) from missing
    if read_only and "read_only" not in signature(opener).parameters:
        raise StoreUnavailable(
            entry.name, f"{entry.value} has no read_only, so it cannot be opened for reading only"
        )
    store: EventStore = opener(url, event_registry, **options)
    return store


def check_store_url(url: str) -> None:
    """Check ``url`` as far as its store can without being opened.

    The module of a store's opener may have a function ``check_url(url)`` for this.

    Raises:
        InvalidStoreUrl: The store does not understand it, or a package that the store needs is not installed.
    """
    opener = _opener(url)
    try:
        module = import_module(opener.module)
    except ImportError as error:
        if reason := _hidden(opener, error):
            raise InvalidStoreUrl(url, [], reason) from error
        raise InvalidStoreUrl(url, [], f"its package cannot be imported: {describe(error)}") from error
    check: Callable[[str], None] | None = getattr(module, "check_url", None)
    if check is not None:
        check(url)


@cache
def store_openers() -> dict[str, EntryPoint]:
    """The openers of the installed stores, by the scheme of their URLs.

    Looked up once: it reads the metadata of every package that is installed, which takes some 30 ms.
    """
    return {entry.name: entry for entry in entry_points(group="uno_actors.stores")}


def _hidden(entry: EntryPoint, error: Exception) -> str:
    """A sentence on the project's module that hides the one of an installed store; empty if none does."""
    package = entry.module.partition(".")[0]
    found, module = sys.modules.get(package), sys.modules.get(entry.module)
    is_missing = isinstance(error, ModuleNotFoundError) and f"{entry.module}.".startswith(f"{error.name}.")
    is_other = isinstance(error, AttributeError) and module is not None and not hasattr(module, entry.attr)
    if found is None or not (is_missing or is_other):
        return ""
    place = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ())), "?")
    return f"{place} hides the installed package {package!r}, in which {entry.value} is: rename that module of yours"


def _opener(url: str) -> EntryPoint:
    openers = store_openers()
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in openers:
        raise InvalidStoreUrl(url, openers)
    try:
        check_path(url)
    except ValueError as error:
        raise InvalidStoreUrl(url, openers, str(error)) from error
    return openers[scheme]
