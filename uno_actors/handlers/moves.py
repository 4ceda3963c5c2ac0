"""Warnings about handlers whose names do not survive a move: a checkpoint that is not found again skips events.

A handler that is not named is named after its code. When the function is renamed or its module moves, the handler
is another one, which begins where ``start`` says: by default at the end of the log, so that what was recorded
while nothing ran is handled by nobody.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import DefaultName, name_in_main
from uno_actors.store.handler_names import MARK

SHOWN = 5
"""Checkpoints that one warning names."""


class HandlerNameWarning(UserWarning):
    """A handler whose name is that of its code, or one that begins at the end while the checkpoint of another is
    not used by any.
    """


def checkpoint_of(
    spec: HandlerSpec, checkpoints: Mapping[str, int], others: Iterable[str] = ()
) -> int | None:
    """Where ``spec`` stands; ``None`` if it is new.

    One whose module was run as a program before, by a version that called it ``__main__``, goes on from there.

    Args:
        spec: Of a handler that is no projection.
        checkpoints: Of the store.
        others: Names of the handlers that run beside it.
    """
    found = checkpoints.get(spec.name)
    if found is None and isinstance(spec.name, DefaultName):
        before = name_in_main(spec.target)
        return None if before in set(others) else checkpoints.get(before)
    return found


def warn_of_unnamed(specs: Sequence[HandlerSpec], checkpoints: Mapping[str, int]) -> None:
    """Name the line to write for each handler that is named after its code, where that line belongs.

    A projection is not among them: under another name its view is built anew, and nothing is skipped.
    """
    for spec in specs:
        if not isinstance(spec.name, DefaultName) or spec.keeps_a_view:
            continue
        if spec.name in checkpoints:
            name, why = str(spec.name), "this one keeps its place in the log"
        else:
            name, why = spec.name.rpartition(".")[2], "any that is unique in the system will do"
        _warn(
            spec,
            f"handler {str(spec.name)!r} has the name of its code, and loses its place in the log when that is renamed"
            f' or moved: give it a name of its own, as in @subscribe(name="{name}", ...); {why}',
        )


def warn_of_skipped(
    specs: Sequence[HandlerSpec],
    beside: Sequence[HandlerSpec],
    known: Iterable[str],
    checkpoints: Mapping[str, int],
    end: int,
) -> None:
    """Tell of each handler that begins at the end of the log while a checkpoint is there that no handler uses.

    Args:
        specs: The handlers that are to run here.
        beside: Those that run here already.
        known: The handlers of the store.
        checkpoints: Of the store.
        end: Position of the last event.
    """
    here = [*specs, *beside]
    names = {spec.name for spec in here}
    used = names | {name_in_main(spec.target) for spec in here if isinstance(spec.name, DefaultName)}
    gone = {name: checkpoints[name] for name in known if name not in used and MARK not in name}
    for spec in specs:
        if spec.keeps_a_view or spec.start != "latest" or not end:
            continue
        if not gone or checkpoint_of(spec, checkpoints, names) is not None:
            continue
        last = {name.rpartition(".")[2]: name for name in gone}
        alike = get_close_matches(spec.name.rpartition(".")[2], last, n=1, cutoff=0.0)
        first = last[alike[0]] if alike else next(iter(gone))
        ordered = [first, *(name for name in sorted(gone) if name != first)]
        shown = ", ".join(f"{name!r} (at {gone[name]})" for name in ordered[:SHOWN])
        more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
        _warn(
            spec,
            f"handler {str(spec.name)!r} is new and begins at the end of the log, after position {end}, while no"
            f" handler of this system has the checkpoint of {shown}{more}: if it was renamed or moved, events"
            f' are skipped; write @subscribe(name="{first}", ...) and it goes on from there',
        )


def _warn(spec: HandlerSpec, text: str) -> None:
    """Warn where the handler is defined; Python shows each of these once in a process."""
    target: Any = spec.target
    target = getattr(target, "__func__", target)
    code = getattr(target, "__code__", None)
    if code is None:  # a class, or an object of it
        warnings.warn(text, HandlerNameWarning, stacklevel=2)
        return
    known_here = target.__globals__.setdefault("__warningregistry__", {})
    warnings.warn_explicit(
        text, HandlerNameWarning, code.co_filename, code.co_firstlineno, target.__module__, known_here
    )
