"""Routes: the handlers subscribed to each kind of event, by priority, looked up once per kind."""

import threading
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from uno_actors.handlers.spec import EventPriority, HandlerSpec

MAX_ROUTES = 4096
"""Maximum number of kinds of events whose handlers are cached."""

TIERS = tuple(EventPriority)


class Subscribed(Protocol):
    """A subscription of a router or a bus."""

    spec: HandlerSpec


K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Subscribed)

Tiers = tuple[tuple[S, ...], ...]
"""The handlers of one kind of event: one tuple per priority, HIGH first."""


class Routes(dict[K, Tiers[S]]):
    """A cache that maps a kind of event to its handlers by priority. ``find`` supplies the kinds it does not hold.

    When the cache is full, it is emptied. Call ``clear()`` when handlers are added or removed.

    Args:
        find: Returns the handlers of a kind of event, in the order in which those of one priority run.
        lock: Held while a route is looked up and added; needed if several threads use the cache.
        skip_empty: Leave out priorities that have no handler.
    """

    def __init__(
        self,
        find: Callable[[K], Iterable[S]],
        lock: "threading.RLock | None" = None,
        *,
        skip_empty: bool = False,
    ) -> None:
        super().__init__()
        self._find = find
        self._skip_empty = skip_empty
        self._lock: AbstractContextManager[object] = nullcontext() if lock is None else lock

    def __missing__(self, kind: K) -> Tiers[S]:
        with self._lock:
            found = tuple(self._find(kind))
            if len(self) >= MAX_ROUTES:
                self.clear()
            tiers = tuple(
                tuple(each for each in found if each.spec.priority == priority) for priority in TIERS
            )
            if self._skip_empty:
                tiers = tuple(filter(None, tiers))
            self[kind] = tiers
            return tiers
