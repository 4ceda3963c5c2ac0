"""Views: what projections keep of the log, by key, in the store of the events."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from typing_extensions import override

from uno_actors.domain.values import Classes, pack_value, unpack_value
from uno_actors.quantities import check_count
from uno_actors.store.handler_names import DIRECTORY, view_name
from uno_actors.store.port import EventStore
from uno_actors.store.records import ViewChange
from uno_actors.store.view_keys import Key, pack_key, unpack_key

_I64 = struct.Struct(">Q")

_FIRST, _BEYOND = b"\x01", b"\xff"

_ASIDE = b"\0"


class ViewReader:
    """Reads a view. What it reads was committed, all of one call at one moment.

    Args:
        store: Where it lives.
        name: Of the view.
        classes: Those of the values in it, see `uno_actors.domain.values`.
    """

    def __init__(self, store: EventStore, name: str, classes: Classes) -> None:
        self._store = store
        self._name = name
        self._classes = classes

    async def get(self, key: Key, default: Any = None) -> Any:
        """The value of ``key``, or ``default``.

        Raises:
            TypeError, ValueError: It is no key.
        """
        packed = pack_key(key)
        found = await self._read(packed, packed + b"\0", 1)
        return unpack_value(found[0][1], self._classes) if found else default

    async def range(
        self, prefix: Key = (), *, after: Key | None = None, limit: int | None = None
    ) -> list[tuple[Key, Any]]:
        """Keys and values in the order of the keys.

        Args:
            prefix: Only keys that begin with these parts.
            after: Only keys after this one: the last of the page before; the key ``None`` is written ``(None,)``.
            limit: At most so many.

        Raises:
            TypeError, ValueError: ``prefix`` or ``after`` is no key, or ``limit`` is negative.
        """
        check_count("limit", limit, none=True)
        start = pack_key(prefix) if prefix != () else _FIRST
        end = (start if prefix != () else b"") + _BEYOND
        if after is not None:
            start = max(start, pack_key(after) + b"\0")
        found = await self._read(start, end, limit) if start < end else []
        return [(unpack_key(key), unpack_value(value, self._classes)) for key, value in found]

    async def _read(self, start: bytes, end: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
        return await self._store.read_view(self._name, start, end, limit)


class PublishedView(ViewReader):
    """The view of a projection as others see it: the last that was built to the end. Empty before the first."""

    @override
    async def _read(self, start: bytes, end: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
        while True:
            current = (await entry_of(self._store, self._name)).current
            found = [] if current is None else await self._store.read_view(current, start, end, limit)
            if (await entry_of(self._store, self._name)).current == current:
                return found  # else it may have been removed meanwhile


class View(ViewReader):
    """A view as its projection sees it: with what the events before it in the same transaction have written."""

    def __init__(self, store: EventStore, name: str, classes: Classes) -> None:
        super().__init__(store, name, classes)
        self._kept: dict[bytes, bytes | None] = {}
        self._changes: dict[bytes, bytes | None] = {}  # of the event that is being handled

    def put(self, key: Key, value: object) -> None:
        """Write ``value``, in place of what was there; it is recorded with the progress of the projection.

        Raises:
            TypeError, ValueError: It is no key, or the value is of no kind that `uno_actors.domain.values` knows.
        """
        self._changes[pack_key(key)] = pack_value(value, self._classes, may_share=True)

    def delete(self, key: Key) -> None:
        """Remove ``key``, if it is there."""
        self._changes[pack_key(key)] = None

    def keep(self) -> None:
        """The event is handled: what it has written is to be recorded."""
        self._kept |= self._changes
        self._changes.clear()

    def forget(self) -> None:
        """The event has failed: it has written nothing."""
        self._changes.clear()

    def take_changes(self) -> list[ViewChange]:
        """What is to be recorded."""
        changes = [ViewChange(self._name, key, value) for key, value in self._kept.items()]
        self._kept.clear()
        return changes

    @override
    async def _read(self, start: bytes, end: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
        changes = self._kept | self._changes
        changed = {key: value for key, value in changes.items() if start <= key < end}
        stored = await super()._read(start, end, None if limit is None else limit + len(changed))
        now = dict(stored) | changed
        return [(key, value) for key in sorted(now) if (value := now[key]) is not None][:limit]


def aside_key(position: int) -> bytes:
    """The key under which a view notes that the event at ``position`` was set aside: it is not counted in it."""
    return _ASIDE + _I64.pack(position)


class Entry(NamedTuple):
    """What the directory says of one projection.

    Attributes:
        current: The view that is read.
        writing: The view that is written.
        views: All that may have something in them.
        builds: How often a rebuild was asked for.
    """

    current: str | None = None
    writing: str | None = None
    views: tuple[str, ...] = ()
    builds: int = 0

    def of(self, name: str) -> ViewChange:
        """The change that enters it for the projection of this name."""
        return ViewChange(DIRECTORY, pack_key(name), pack_value(list(self), {}, may_share=True))


async def entry_of(store: EventStore, name: str) -> Entry:
    """What the directory says of the projection of this name."""
    key = pack_key(name)
    found = await store.read_view(DIRECTORY, key, key + b"\0", 1)
    return Entry(*unpack_value(found[0][1], {})) if found else Entry()


async def entries(store: EventStore) -> dict[str, Entry]:
    """What the directory says of each projection."""
    found = await store.read_view(DIRECTORY, limit=None)
    return {str(unpack_key(key)): Entry(*unpack_value(value, {})) for key, value in found}


async def view_to_write(
    store: EventStore, name: str, version: int, *, anew: bool = False, also: Sequence[ViewChange] = ()
) -> tuple[str, int]:
    """The view that a projection of this name and version is to write, and the position to go on from.

    Args:
        store: Where it lives.
        name: Of the projection.
        version: Of the projection.
        anew: Whether to begin at the first event, whatever there is.
        also: Changes to be recorded with that.
    """
    entry = await entry_of(store, name)
    builds = entry.builds + anew
    view = view_name(name, version, builds)
    position = (await store.checkpoints()).get(view)
    begins = position is None
    if begins:
        await store.drop_view(view)  # what is left of one whose removal was cut short
    views = tuple(dict.fromkeys((*entry.views, view)))
    now = Entry(entry.current, view, views, builds)
    if begins or now != entry:
        await store.save_progress({view: 0} if begins else {}, views=[now.of(name), *also])
    return view, position or 0
