"""The order in which messages wait in a mailbox."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from uno_actors.actors.ask import Envelope, Signal
from uno_actors.actors.pykka import ActorStop
from uno_actors.errors import InvalidNumber


class ArrivalQueue(deque[Envelope]):
    """Messages in order of arrival."""

    __slots__ = ()

    def remove_oldest(self) -> Envelope | None:
        """Remove the oldest message; signals stay."""
        for place, envelope in enumerate(self):
            if type(envelope) is not Signal:
                del self[place]
                return envelope
        return None

    def put_back(self, envelopes: list[Envelope]) -> None:
        """Put messages that were taken in front again, in their order."""
        self.extendleft(reversed(envelopes))


class PriorityQueue:
    """Messages by priority, equal ones in order of arrival; the stop signal last, other signals first.

    Args:
        priority: Gives a message its place: lower numbers go first.
    """

    def __init__(self, priority: Callable[[Any], float]) -> None:
        self._priority = priority
        self._heap: list[tuple[float, int, Envelope]] = []
        self._arrivals = count()
        self._returns = count(-1, -1)

    def append(self, envelope: Envelope) -> None:
        """Add a message.

        Raises:
            InvalidNumber: The priority is not a number.
        """
        heapq.heappush(self._heap, (self._place(envelope), next(self._arrivals), envelope))

    def popleft(self) -> Envelope:
        """Remove and return the first message."""
        return heapq.heappop(self._heap)[2]

    def remove_oldest(self) -> Envelope | None:
        """Remove the oldest message, whatever its priority; signals stay."""
        waiting = [entry for entry in self._heap if type(entry[2]) is not Signal]
        if not waiting:
            return None
        oldest = min(waiting, key=lambda entry: entry[1])
        self._heap.remove(oldest)
        heapq.heapify(self._heap)
        return oldest[2]

    def put_back(self, envelopes: list[Envelope]) -> None:
        """Put messages that were taken in front of their equals, in their order."""
        for envelope in reversed(envelopes):
            try:
                place = self._place(envelope)
            except Exception:  # noqa: BLE001 - it was accepted before, and must not be lost now
                place = 0.0
            heapq.heappush(self._heap, (place, next(self._returns), envelope))

    def clear(self) -> None:
        """Remove all messages."""
        self._heap.clear()

    def _place(self, envelope: Envelope) -> float:
        if type(envelope) is not Signal:
            priority: Any = self._priority(envelope.message)
            if not isinstance(priority, (int, float)) or priority != priority:  # noqa: PLR0124 - nan has no order
                raise InvalidNumber("the priority of a message", "a number", priority)
            return priority
        return math.inf if isinstance(envelope.message, ActorStop) else -math.inf

    def __iter__(self) -> Iterator[Envelope]:
        return (envelope for _, _, envelope in sorted(self._heap, key=lambda entry: entry[:2]))

    def __len__(self) -> int:
        return len(self._heap)
