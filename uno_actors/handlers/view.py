"""Views: keys and values that projections derive from the log and keep in the same store."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple

from typing_extensions import override

from uno_actors.domain.values import Classes, pack_value, unpack_value
from uno_actors.quantities import check_count
from uno_actors.store.handler_names import DIRECTORY, view_name
from uno_actors.store.port import EventStore
from uno_actors.store.records import ViewChange
from uno_actors.store.view_keys import K, Key, pack_key, unpack_key

_I64 = struct.Struct(">Q")

_FIRST, _BEYOND = b"\x01", b"\xff"

_ASIDE = b"\0"


class ViewReader(Generic[K]):
    """Reads a view. Each call returns committed values from one moment.

    Type checkers know the type of its keys if the projection states it: ``Projection[Deposited, tuple[str, int]]``.

    Args:
        store: The store that holds the view.
        name: The view's name.
        classes: The classes of its values; see `uno_actors.domain.values`.
    """

    def __init__(self, store: EventStore, name: str, classes: Classes) -> None:
        self._store = store
        self._name = name
        self._classes = classes

    async def get(self, key: K, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` if the view has no such key.

        Raises:
            TypeError, ValueError: ``key`` is not a valid key.
        """
        packed = pack_key(key)
        found = await self._read(packed, packed + b"\0", 1)
        return unpack_value(found[0][1], self._classes) if found else default

    async def range(
        self, prefix: Key = (), *, after: K | tuple[None] | None = None, limit: int | None = None
    ) -> list[tuple[K, Any]]:
        """Return keys and values in key order.

        Args:
            prefix: Only keys that begin with these parts.
            after: Only keys after this one, usually the last key of the previous page. Write ``(None,)`` for the
                key ``None``.
            limit: Maximum number of keys. Default is no limit.

        Raises:
            TypeError, ValueError: ``prefix`` or ``after`` is not a valid key, or ``limit`` is negative.
        """
        check_count("limit", limit, none=True)
        start = pack_key(prefix) if prefix != () else _FIRST
        end = (start if prefix != () else b"") + _BEYOND
        if after is not None:
            start = max(start, pack_key(after) + b"\0")
        found = await self._read(start, end, limit) if start < end else []
        entries: list[tuple[Any, Any]] = [
            (unpack_key(key), unpack_value(value, self._classes)) for key, value in found
        ]
        return entries

    async def _read(self, start: bytes, end: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
        return await self._store.read_view(self._name, start, end, limit)


class PublishedView(ViewReader[K]):
    """A projection's view as readers see it: the last one that was fully built. It is empty until then."""

    @override
    async def _read(self, start: bytes, end: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
        while True:
            current = (await entry_of(self._store, self._name)).current
            found = [] if current is None else await self._store.read_view(current, start, end, limit)
            if (await entry_of(self._store, self._name)).current == current:
                return found  # otherwise the view may have been removed in the meantime


class PartitionedView(PublishedView[K]):
    """The view of a partitioned projection as readers see it: the parts of all partitions together.

    After a change of its version, readers get the previous view until all partitions have built theirs. A projection
    that was not partitioned before is read from its old view until then.

    Args:
        store: The store that holds the view.
        name: The projection's name.
        parts: Returns the names of its partitions, on a store with a number of logs.
        classes: The classes of its values.
    """

    def __init__(
        self, store: EventStore, name: str, parts: Callable[[int], Sequence[str]], classes: Classes
    ) -> None:
        super().__init__(store, name, classes)
        self._parts = parts

    @override
    async def _read(self, start: bytes, end: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
        while (suffix := await self._suffix()) is not None:
            views = [f"{part}{suffix}" for part in self._parts(self._store.logs)]
            found = await self._store.read_views(views, start, end, limit)
            if await self._suffix() == suffix:  # otherwise a part may have been removed in the meantime
                return found
        return await super()._read(start, end, limit)

    async def _suffix(self) -> str | None:
        found = await entries(self._store)  # a store that was used knows how many logs it has
        return built_by_all(self._parts(self._store.logs), found)


def built_by_all(parts: Sequence[str], found: Mapping[str, "Entry"]) -> str | None:
    """What follows the name of each partition in the newest view that all have built; ``None`` if there is none.

    Args:
        parts: The names of the partitions.
        found: The directory's entries by projection name.
    """
    built = [[view.removeprefix(part) for view in found.get(part, Entry()).built] for part in parts]
    return next((suffix for suffix in reversed(built[0]) if all(suffix in each for each in built)), None)


class View(ViewReader[K]):
    """A view as its projection sees it, including its changes that are not committed yet."""

    def __init__(self, store: EventStore, name: str, classes: Classes) -> None:
        super().__init__(store, name, classes)
        self._kept: dict[bytes, bytes | None] = {}
        self._changes: dict[bytes, bytes | None] = {}  # made by the event that is being handled

    def put(self, key: K, value: object) -> None:
        """Set ``key`` to ``value``. The store records it together with the projection's progress.

        Raises:
            TypeError, ValueError: ``key`` is not a valid key, or `uno_actors.domain.values` does not support the
                type of ``value``.
        """
        self._changes[pack_key(key)] = pack_value(value, self._classes, may_share=True)

    def delete(self, key: K) -> None:
        """Remove ``key`` if the view has it."""
        self._changes[pack_key(key)] = None

    def keep(self) -> None:
        """Keep the changes of the event, which was handled, for the next transaction."""
        self._kept |= self._changes
        self._changes.clear()

    def forget(self) -> None:
        """Discard the changes of the event, whose handling failed."""
        self._changes.clear()

    def take_changes(self) -> list[ViewChange]:
        """Return the kept changes, to record them, and clear them here."""
        changes = [ViewChange(self._name, key, value) for key, value in self._kept.items()]
        self._kept.clear()
        return changes

    @override
    async def _read(self, start: bytes, end: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
        if end == start + b"\0":  # one key
            for latest in (self._changes, self._kept):
                if start in latest:
                    return [] if (found := latest[start]) is None else [(start, found)]
            return await super()._read(start, end, limit)
        changes = self._kept | self._changes
        changed = {key: value for key, value in changes.items() if start <= key < end}
        stored = await super()._read(start, end, None if limit is None else limit + len(changed))
        now = dict(stored) | changed
        return [(key, value) for key in sorted(now) if (value := now[key]) is not None][:limit]


class KeepsView(Generic[K]):
    """What readers need to know of `uno_actors.handlers.projection.Projection`: the type of its view's keys."""

    view: View[K]


def aside_key(position: int) -> bytes:
    """Return the key that marks the event at ``position`` as set aside, so the view does not count it."""
    return _ASIDE + _I64.pack(position)


def aside_position(key: bytes) -> int | None:
    """The position in an `aside_key`; ``None`` for any other key of a view."""
    if not key.startswith(_ASIDE):
        return None
    position: int = _I64.unpack_from(key, len(_ASIDE))[0]
    return position


class Entry(NamedTuple):
    """The directory's entry of one projection.

    Attributes:
        current: The view that readers get; ``None`` before the first is built.
        writing: The view that the projection writes.
        views: All views of the projection that may hold data.
        builds: Number of rebuilds requested so far.
        built: Of a partition: the views that have caught up and may hold data, the newest last.
    """

    current: str | None = None
    writing: str | None = None
    views: tuple[str, ...] = ()
    builds: int = 0
    built: tuple[str, ...] = ()

    def of(self, name: str) -> ViewChange:
        """Return the change that writes this entry for the projection ``name``."""
        return ViewChange(
            DIRECTORY, pack_key(name), pack_value(list(self if self.built else self[:-1]), {}, may_share=True)
        )


async def entry_of(store: EventStore, name: str) -> Entry:
    """Return the directory's entry of the projection ``name``; an empty entry if there is none."""
    key = pack_key(name)
    found = await store.read_view(DIRECTORY, key, key + b"\0", 1)
    return Entry(*unpack_value(found[0][1], {})) if found else Entry()


async def entries(store: EventStore) -> dict[str, Entry]:
    """Return the directory's entries by projection name."""
    found = await store.read_view(DIRECTORY, limit=None)
    return {str(unpack_key(key)): Entry(*unpack_value(value, {})) for key, value in found}


async def view_to_write(
    store: EventStore,
    name: str,
    version: int,
    start: int = 0,
    *,
    anew: bool = False,
    also: Sequence[ViewChange] = (),
) -> tuple[str, int]:
    """Return the view that the projection must write, and the position after which it continues.

    Args:
        store: The store that holds the view.
        name: The projection's name.
        version: The projection's version.
        start: The position before the first event of the log that it reads.
        anew: Whether to build a new view from the first event even if one exists.
        also: Changes to record in the same transaction.
    """
    entry = await entry_of(store, name)
    builds = entry.builds + anew
    view = view_name(name, version, builds)
    position = (await store.checkpoints()).get(view)
    begins = position is None
    if begins:
        await store.drop_view(view)  # clears the rest of a view whose removal was interrupted
    views = tuple(dict.fromkeys((*entry.views, view)))
    now = Entry(entry.current, view, views, builds, entry.built)
    if begins or now != entry:
        await store.save_progress({view: start} if begins else {}, views=[now.of(name), *also])
    return view, start if position is None else position
