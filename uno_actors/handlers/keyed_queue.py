"""A keyed queue: items of different keys side by side, those of one key one after the other."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class KeyedQueue(Generic[K, T]):
    """Items that wait, in order for each key; at most ``width`` are under way at once.

    Keys take turns, so that a key with many items keeps no other waiting.

    Args:
        width: How many items may be under way.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._items: dict[K, deque[T]] = {}  # an item under way is still the first of its key
        self._ready: deque[K] = deque()  # keys with no item under way
        self._under_way = 0
        self._count = 0

    def __len__(self) -> int:
        """How many items wait or are under way."""
        return self._count

    def add(self, key: K, item: T) -> None:
        """Put ``item`` behind the others of its key."""
        items = self._items.get(key)
        if items is None:
            items = self._items[key] = deque()
            self._ready.append(key)
        items.append(item)
        self._count += 1

    def start(self) -> tuple[K, T] | None:
        """The next item that may begin, which is then under way; ``None`` if all must wait."""
        if not self._ready or self._under_way >= self._width:
            return None
        self._under_way += 1
        key = self._ready.popleft()
        return key, self._items[key][0]

    def end(self, key: K) -> None:
        """The item under way for ``key`` is done: the next of that key may begin."""
        self._under_way -= 1
        self._count -= 1
        items = self._items[key]
        items.popleft()
        if items:
            self._ready.append(key)
        else:
            del self._items[key]
