"""Names derived from a handler's, whose contents its lease protects: the one rule, for every store.

========================================= ===================================================================
kept                                      under
========================================= ===================================================================
checkpoint and dead letters of a handler  ``NAME``
view of a projection, and its checkpoint  ``NAME@VERSION``, or ``NAME@VERSION.BUILD`` when it was rebuilt
what the directory says of a projection   the key ``NAME`` of the view `DIRECTORY`
reported status of a running handler      the key ``(NAME, REPORTED)`` of the view `CONTROL`
name of the node that runs it             the key ``(NAME, NODE)`` of the view `CONTROL`
========================================= ===================================================================

A partition is a handler of its own, with the name ``NAME@3of16`` in place of ``NAME``. The name that a user gives has
no ``@``, so that `handler_of` finds the handler or partition in each of these. Requests of operators are in `CONTROL`
too, under other keys: any process may make one, with or without the lease.
"""

import re
import struct
from collections.abc import Iterable

from uno_actors.store.view_keys import unpack_key

MARK = "@"
"""No name that a user gives a handler contains it; after it come the partition, and the view of the handler."""

_PARTITION = re.compile(rf"([^{MARK}]+){MARK}([1-9][0-9]*)of([1-9][0-9]*)")

DIRECTORY = "uno_actors.views"
"""The view that says, for each projection, which view readers get and which view is being built."""
CONTROL = "uno_actors.handlers"
"""The view with the requests of operators, and the reported status of running handlers."""
REPORTED = "told"
"""Marks a reported status; the word is on disk."""
NODE = "node"
"""Marks the name of the node that runs a handler; the word is on disk."""
RENAMED = "renamed"
"""Marks the new name of a handler that is being renamed; the word is on disk."""


def partition_name(handler: str, number: int, count: int) -> str:
    """The name of one of ``count`` partitions of a handler, counted from 1."""
    return f"{handler}{MARK}{number}of{count}"


def partition_in(name: str) -> tuple[str, int, int] | None:
    """Handler, number and count in the name of a partition; ``None`` if it is not one."""
    found = _PARTITION.fullmatch(name)
    return None if found is None else (found[1], int(found[2]), int(found[3]))


def view_name(handler: str, version: int, builds: int = 0) -> str:
    """The name of the view that a projection of this version writes after ``builds`` rebuilds."""
    return f"{handler}{MARK}{version}.{builds}" if builds else f"{handler}{MARK}{version}"


def handler_of(name: str) -> str:
    """The handler whose checkpoint, dead letter or view has this ``name``."""
    if MARK not in name:
        return name
    partition = _PARTITION.match(name)
    if partition is not None and name[partition.end() : partition.end() + 1] in ("", MARK):
        return partition[0]
    return name.partition(MARK)[0]


def handlers_of(names: Iterable[str], entries: Iterable[tuple[str, bytes]] = ()) -> set[str]:
    """The handlers under whose leases something is written.

    Args:
        names: Names of checkpoints, and of the handlers of dead letters.
        entries: View and key of each change of a view.
    """
    found = {handler_of(name) for name in names}
    views: set[str] = set()
    for view, key in entries:
        if view not in (DIRECTORY, CONTROL):
            views.add(view)
        elif (handler := _handler_in(view, key)) is not None:
            found.add(handler)
    return found | {handler_of(view) for view in views}


def _handler_in(view: str, key: bytes) -> str | None:
    """The handler of an entry of `DIRECTORY` or `CONTROL`; ``None`` if any process may write it."""
    try:
        parts = unpack_key(key)
    except (IndexError, ValueError, struct.error):  # no key of ours
        return None
    name, *what = parts if isinstance(parts, tuple) else (parts,)
    return str(name) if view == DIRECTORY or what in ([REPORTED], [NODE]) else None
