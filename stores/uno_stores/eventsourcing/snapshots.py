"""Snapshots of ``eventsourcing`` in a view of the store: several of each aggregate, at any versions.

The key of an entry is the originator's id, NUL, and the version counted down from the largest, in 64 bits: so the
newest snapshot is read first. The value is msgpack: topic, state, and whether the id is a UUID.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgpack
from eventsourcing.persistence import AggregateRecorder, DataError, IntegrityError, StoredEvent
from typing_extensions import override

from uno_actors.store.limits import MAX_KEY_BYTES, MAX_NUMBER
from uno_actors.store.records import ViewChange
from uno_stores.eventsourcing.sharing import SharedStore

_U64 = struct.Struct(">Q")


class UnoSnapshotRecorder(AggregateRecorder):
    """Snapshots of one application.

    Two processes that take the same snapshot at once may both write it: the later one stays.

    Args:
        shared: The store.
        view: The name of the view that holds them.
    """

    def __init__(self, shared: SharedStore, view: str) -> None:
        self._shared = shared
        self._view = view
        self._turn = asyncio.Lock()

    @override
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        changes = [
            ViewChange(self._view, _key(event.originator_id, event.originator_version), _value(event))
            for event in stored_events
        ]
        if changes:
            self._shared.run(self._insert(changes))

    async def _insert(self, changes: Sequence[ViewChange]) -> None:
        store = self._shared.store
        async with self._turn:
            known = len({change.key for change in changes}) < len(changes)
            for _, key, _ in changes:
                known = known or bool(await store.read_view(self._view, key, key + b"\0"))
            if known:
                raise IntegrityError("a snapshot of this version is recorded already")
            await store.save_progress({}, views=changes)

    @override
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        prefix = _prefix(originator_id)
        start = _key(originator_id, min(MAX_NUMBER, max(-1, lte))) if lte is not None else prefix
        end = prefix + (b"\xff" * 9 if gt is None else _U64.pack(MAX_NUMBER - max(-1, gt)))
        wanted = self._shared.store.read_view(self._view, start, end, limit if desc else None)
        found = [_event(str(originator_id), key, value) for key, value in self._shared.run(wanted)]
        return found if desc else found[::-1][:limit]


def _prefix(originator_id: UUID | str) -> bytes:
    prefix = f"{originator_id}\0".encode()
    if len(prefix) > MAX_KEY_BYTES - _U64.size:
        longest = MAX_KEY_BYTES - _U64.size - 1
        raise DataError(f"an originator id has up to {longest} bytes of UTF-8; found {len(prefix) - 1}")
    return prefix


def _key(originator_id: UUID | str, version: int) -> bytes:
    return _prefix(originator_id) + _U64.pack(MAX_NUMBER - version)


def _value(event: StoredEvent) -> bytes:
    packed: bytes = msgpack.packb((event.topic, event.state, isinstance(event.originator_id, UUID)))
    return packed


def _event(id_: str, key: bytes, value: bytes) -> StoredEvent:
    topic, state, has_uuid = msgpack.unpackb(value)
    version = MAX_NUMBER - _U64.unpack(key[-_U64.size :])[0]
    return StoredEvent(UUID(id_) if has_uuid else id_, version, topic, state)
