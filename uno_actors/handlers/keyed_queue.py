"""A keyed queue: items of one key run in order, items of different keys side by side."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class KeyedQueue(Generic[K, T]):
    """A queue that keeps the order of each key, with at most ``width`` items under way at once.

    Keys take turns, so that a key with many items does not delay the others.

    Args:
        width: Maximum number of items under way.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._items: dict[K, deque[T]] = {}  # an item under way is still the first of its key
        self._ready: deque[K] = deque()  # keys with no item under way
        self._under_way = 0
        self._count = 0

    def __len__(self) -> int:
        """Return the number of items that wait or are under way."""
        return self._count

    def add(self, key: K, item: T) -> None:
        """Append ``item`` to the items of its key."""
        items = self._items.get(key)
        if items is None:
            items = self._items[key] = deque()
            self._ready.append(key)
        items.append(item)
        self._count += 1

    def start(self) -> tuple[K, T] | None:
        """Return the next item that may begin, now under way, with its key; ``None`` if every item must wait."""
        if not self._ready or self._under_way >= self._width:
            return None
        self._under_way += 1
        key = self._ready.popleft()
        return key, self._items[key][0]

    def end(self, key: K) -> None:
        """Remove the item under way for ``key``, so that the next item of that key may begin."""
        self._under_way -= 1
        self._count -= 1
        items = self._items[key]
        items.popleft()
        if items:
            self._ready.append(key)
        else:
            del self._items[key]
