"""A keyed queue: items of one key run in order, items of different keys side by side."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Keyed(Generic[K, T]):
    """An item in a queue.

    Attributes:
        keys: Its keys.
        item: The item.
    """

    __slots__ = ("behind", "item", "keys")

    def __init__(self, keys: tuple[K, ...], item: T) -> None:
        self.keys = keys
        self.item = item
        self.behind = 0  # keys of which another item comes before it


class KeyedQueue(Generic[K, T]):
    """A queue that keeps the order of each key, with at most ``width`` items under way at once.

    An item with several keys runs when it is the first of each. Keys take turns, so that a key with many items does
    not delay the others.

    Args:
        width: Maximum number of items under way.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._items: dict[K, deque[Keyed[K, T]]] = {}  # an item under way is still the first of its keys
        self._ready: deque[Keyed[K, T]] = deque()  # the first of all their keys, and not under way
        self._under_way = 0
        self._count = 0

    def __len__(self) -> int:
        """Return the number of items that wait or are under way."""
        return self._count

    def add(self, keys: tuple[K, ...], item: T) -> None:
        """Append ``item`` to the items of each of its keys, which differ; without any it waits for no other."""
        keyed = Keyed(keys, item)
        for key in keys:
            items = self._items.get(key)
            if items is None:
                items = self._items[key] = deque()
            else:
                keyed.behind += 1
            items.append(keyed)
        if not keyed.behind:
            self._ready.append(keyed)
        self._count += 1

    def start(self) -> Keyed[K, T] | None:
        """Return the next item that may begin, now under way; ``None`` if every item must wait."""
        if not self._ready or self._under_way >= self._width:
            return None
        self._under_way += 1
        return self._ready.popleft()

    def end(self, keyed: Keyed[K, T]) -> None:
        """Remove an item under way, so that the next item of each of its keys may begin."""
        self._under_way -= 1
        self._count -= 1
        for key in keyed.keys:
            items = self._items[key]
            items.popleft()
            if not items:
                del self._items[key]
                continue
            items[0].behind -= 1
            if not items[0].behind:
                self._ready.append(items[0])
