"""Warnings about handlers whose names change when their code moves: a lost checkpoint skips events.

A handler without a given name is named after its code. When its function is renamed or its module moves, the
handler counts as a new one and begins where ``start`` says. By default that is the end of the log, so no handler
receives the events recorded while the system was down.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import DefaultName, name_in_main
from uno_actors.store.handler_names import MARK

SHOWN = 5
"""Maximum number of checkpoints that one warning names."""


class HandlerNameWarning(UserWarning):
    """A handler is named after its code, or it begins at the end of the log while the store has a checkpoint that
    no handler uses.
    """


def checkpoint_of(
    spec: HandlerSpec, checkpoints: Mapping[str, int], others: Iterable[str] = ()
) -> int | None:
    """Return the checkpoint of a handler; ``None`` if the handler is new.

    Older versions named a handler ``__main__...`` if its module was run as a program. Such a handler continues from
    the checkpoint under that name.

    Args:
        spec: The handler, which is not a projection.
        checkpoints: The store's checkpoints by name.
        others: Names of the handlers that run beside it.
    """
    found = checkpoints.get(spec.name)
    if found is None and isinstance(spec.name, DefaultName):
        before = name_in_main(spec.target)
        return None if before in set(others) else checkpoints.get(before)
    return found


def warn_of_unnamed(specs: Sequence[HandlerSpec], checkpoints: Mapping[str, int]) -> None:
    """Warn of each handler that is named after its code, at its definition, and show the line to write there.

    Projections are left out: under a new name a projection rebuilds its view and skips no event.
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
    """Warn of each handler that begins at the end of the log while the store has a checkpoint that no handler uses.

    Args:
        specs: The handlers about to start here.
        beside: The handlers that already run here.
        known: Names of the handlers that have run on the store, without those that another process runs.
        checkpoints: The store's checkpoints by name.
        end: Position of the last event in the log.
    """
    here = [*specs, *beside]
    names = {spec.name for spec in here}
    used = names | {name_in_main(spec.target) for spec in here if isinstance(spec.name, DefaultName)}
    gone = {name: checkpoints[name] for name in known if name not in used and MARK not in name}
    for spec in specs:
        if spec.keeps_a_view or spec.keeps_progress or spec.start != "latest" or not end:
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
            f' are skipped; write @subscribe(name="{first}", ...) and it continues from there, or stop the system and'
            f" run `uno-actors handlers forget {spec.name}`, then `uno-actors handlers rename {first} {spec.name}`."
            f" If {first!r} is gone for good, run `uno-actors handlers forget {first}`",
        )


def _warn(spec: HandlerSpec, text: str) -> None:
    """Issue the warning at the handler's definition; Python shows each such warning once per process."""
    target: Any = spec.target
    target = getattr(target, "__func__", target)
    code = getattr(target, "__code__", None)
    if code is None:  # a class, or an instance of one
        warnings.warn(text, HandlerNameWarning, stacklevel=2)
        return
    known_here = target.__globals__.setdefault("__warningregistry__", {})
    warnings.warn_explicit(
        text, HandlerNameWarning, code.co_filename, code.co_firstlineno, target.__module__, known_here
    )
