"""Lanes: events of different aggregates side by side, those of one aggregate one after the other."""

from collections import deque
from typing import Generic, TypeVar

from uno_actors.store.codec import StreamId

T = TypeVar("T")


class Lanes(Generic[T]):
    """What waits, in a lane for each stream, of which at most ``width`` are under way at once.

    What belongs to no stream has a lane of its own. Lanes take turns, so that a long one keeps no other waiting.

    Args:
        width: How many may be under way.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._lanes: dict[StreamId | None, deque[T]] = {}  # what is under way is still the first of its lane
        self._ready: deque[StreamId | None] = deque()  # lanes of which nothing is under way
        self._under_way = 0
        self._count = 0

    def __len__(self) -> int:
        """How many wait or are under way."""
        return self._count

    def add(self, stream: StreamId | None, item: T) -> None:
        """Put ``item`` at the end of the lane of ``stream``."""
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = deque()
            self._ready.append(stream)
        lane.append(item)
        self._count += 1

    def start(self) -> tuple[StreamId | None, T] | None:
        """The next that may begin, which is then under way; ``None`` if all must wait."""
        if not self._ready or self._under_way >= self._width:
            return None
        self._under_way += 1
        stream = self._ready.popleft()
        return stream, self._lanes[stream][0]

    def end(self, stream: StreamId | None) -> None:
        """What was under way in the lane of ``stream`` is done: the next in it may begin."""
        self._under_way -= 1
        self._count -= 1
        lane = self._lanes[stream]
        lane.popleft()
        if lane:
            self._ready.append(stream)
        else:
            del self._lanes[stream]
