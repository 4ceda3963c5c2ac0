"""What stores keep under names that come from a handler's, and so under its lease: the one rule, for every store.

========================================= ===================================================================
kept                                      under
========================================= ===================================================================
checkpoint and dead letters of a handler  ``NAME``
view of a projection, and its checkpoint  ``NAME@VERSION``, or ``NAME@VERSION.BUILD`` when it was built anew
what the directory says of a projection   the key ``NAME`` of the view `DIRECTORY`
what a running handler reports            the key ``(NAME, TOLD)`` of the view `CONTROL`
========================================= ===================================================================

A handler's name has no ``@``, so that `handler_of` finds it in each of these. What operators ask of a handler is
in `CONTROL` too, under other keys: anybody may ask, whoever has the lease.
"""

import struct
from collections.abc import Iterable

from uno_actors.store.view_keys import unpack_key

MARK = "@"
"""What no handler has in its name: behind it stands which view of the handler is meant."""

DIRECTORY = "uno_actors.views"
"""The view that says which view is read for each projection, and which is to be built."""
CONTROL = "uno_actors.handlers"
"""The view that has what operators ask of handlers, and what running handlers report of themselves."""
TOLD = "told"


def view_name(handler: str, version: int, builds: int = 0) -> str:
    """The name of the view that a projection of this version writes, when it was built anew so many times."""
    return f"{handler}{MARK}{version}.{builds}" if builds else f"{handler}{MARK}{version}"


def handler_of(name: str) -> str:
    """The handler whose checkpoint, dead letter or view has this ``name``."""
    return name.partition(MARK)[0]


def handlers_of(names: Iterable[str], entries: Iterable[tuple[str, bytes]] = ()) -> set[str]:
    """The handlers under whose leases something is written.

    Args:
        names: Of checkpoints, and of the handlers of dead letters.
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
    """The handler of an entry of `DIRECTORY` or `CONTROL`; ``None`` if anybody may write it."""
    try:
        parts = unpack_key(key)
    except (IndexError, ValueError, struct.error):  # no key of ours
        return None
    name, *what = parts if isinstance(parts, tuple) else (parts,)
    return str(name) if view == DIRECTORY or what == [TOLD] else None
