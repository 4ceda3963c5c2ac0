"""Routes: which handlers want a kind of event, by priority, looked up once for each kind."""

import threading
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from uno_actors.handlers.spec import EventPriority, HandlerSpec

MAX_ROUTES = 4096
"""Kinds of events whose handlers are remembered."""

TIERS = tuple(EventPriority)


class Subscribed(Protocol):
    """A subscription of a router or a bus."""

    spec: HandlerSpec


K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Subscribed)

Tiers = tuple[tuple[S, ...], ...]
"""Handlers of one kind of event, a tuple for each priority, HIGH first."""


class Routes(dict[K, Tiers[S]]):
    """Maps a kind of event to its handlers by priority, and asks ``find`` for a kind that is not known.

    It forgets everything when it is full, or by ``clear()`` when handlers have come or gone.

    Args:
        find: Returns the handlers of a kind of event, those of one priority in their order.
        lock: Held while a route is found and entered, where several threads use it.
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
