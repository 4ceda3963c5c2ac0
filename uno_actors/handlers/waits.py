"""Waits for handlers of this process: each ends when its handler has come to a position, or cannot come there now.

A handler's progress wakes them: the router calls `ProgressWaits.look` whenever a handler may have come further, and so
does a subscription that stops or pauses. Nothing looks at the time.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Literal

from uno_actors.handlers.command_events import are_near
from uno_actors.handlers.subscription import Subscription

FORGET_AFTER = 64
"""Waits of one handler that may have been given up before they are removed."""

Arrival = Literal["handled", "near a dead letter", "paused", "stopped", "elsewhere"]
"""How a wait has ended: the handler has finished every event up to the position; it has, but an event near before it
is among its dead letters; it does not come there until someone acts; or another process runs it."""

Done = Callable[[Arrival], None]


class _Wait:
    """One wait; ``done`` is ``None`` once it was given up."""

    __slots__ = ("done",)

    def __init__(self, done: Done) -> None:
        self.done: Done | None = done


class _Awaited:
    """The waits for one handler, the one for the lowest position first.

    Attributes:
        heap: The waits, each with its position and a number.
        given_up: How many of them were given up.
    """

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, _Wait]] = []
        self.given_up = 0


class ProgressWaits:
    """The waits for the handlers of a system. Lives on the event loop.

    Args:
        position_of: Returns the position up to which a handler has finished every event.

    Attributes:
        are_open: Whether there is any: then, and only then, `look` has something to do.
    """

    def __init__(self, position_of: Callable[[Subscription], int]) -> None:
        self.are_open = False
        self._position_of = position_of
        self._awaited: dict[tuple[Subscription, bool], _Awaited] = {}  # and whether it must be run here
        self._numbers = count()
        self._is_looking = self._look_again = False

    @property
    def kept(self) -> int:
        """The number of waits that are kept, those that were given up lately too."""
        return sum(len(each.heap) for each in self._awaited.values())

    def begin(
        self, subscription: Subscription, position: int, done: Done, *, here: bool = True
    ) -> Callable[[], None]:
        """Call ``done`` when the handler has come to ``position``, perhaps at once; return what gives up the wait.

        Args:
            subscription: Of the handler.
            position: Of its log.
            done: Called once, on the event loop.
            here: Whether the wait ends when another process runs the handler; otherwise this one may take it over.
        """
        wait = _Wait(done)
        awaited = self._awaited.get((subscription, here))
        if awaited is None:
            awaited = self._awaited[subscription, here] = _Awaited()
        heapq.heappush(awaited.heap, (position, next(self._numbers), wait))
        self.are_open = True
        self.look()
        return lambda: self._give_up(awaited, wait)

    def _give_up(self, awaited: _Awaited, wait: _Wait) -> None:
        if wait.done is None:
            return
        wait.done = None
        awaited.given_up += 1
        if awaited.given_up >= FORGET_AFTER and awaited.given_up * 2 > len(awaited.heap):
            awaited.heap = [each for each in awaited.heap if each[2].done is not None]
            heapq.heapify(awaited.heap)
            awaited.given_up = 0

    def look(self) -> None:
        """End the waits whose handlers have come far enough, or cannot."""
        self._look_again = True
        if self._is_looking:  # the end of a wait has begun another, or woken a handler
            return
        self._is_looking = True
        try:
            while self._look_again:
                self._look_again = False
                for key, awaited in tuple(self._awaited.items()):
                    self._look_at(*key, awaited)
                    if not awaited.heap:
                        del self._awaited[key]
            self.are_open = bool(self._awaited)
        finally:
            self._is_looking = False

    def _look_at(self, subscription: Subscription, here: bool, awaited: _Awaited) -> None:
        if subscription.is_shown:
            reached = self._position_of(subscription)
            while awaited.heap and awaited.heap[0][0] <= reached:
                position = awaited.heap[0][0]
                has_letter = are_near(subscription.aside, position)
                self._end_first(awaited, "near a dead letter" if has_letter else "handled")
        obstacle: Arrival | None = subscription.obstacle
        if here and not subscription.leased:
            obstacle = "elsewhere"
        while obstacle is not None and awaited.heap:
            self._end_first(awaited, obstacle)

    def _end_first(self, awaited: _Awaited, arrival: Arrival) -> None:
        _, _, wait = heapq.heappop(awaited.heap)
        done, wait.done = wait.done, None
        if done is None:
            awaited.given_up -= 1
        else:
            done(arrival)
