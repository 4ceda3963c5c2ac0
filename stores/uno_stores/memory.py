"""The event store in memory: the reference implementation, for tests and for events that may be lost."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count

from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.errors import InvalidStoreUrl, StoreUnavailable, UnoError
from uno_actors.store.checkpoints import check_checkpoint, check_move
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.conditions import Condition, Find
from uno_actors.store.expected_version import place
from uno_actors.store.limits import check_handlers, check_lease, check_progress
from uno_actors.store.membership import Membership
from uno_actors.store.port import EventStore, Lease
from uno_actors.store.records import PAGE, Append, Appended, DeadLetter, Snapshot, StoredRecord, ViewChange
from uno_actors.store.terms import TermIndex
from uno_stores.memory_nodes import MemoryMembership, MemoryNodes


class InMemoryEventStore(EventStore):
    """A log in a list. Position n is its item n - 1; a stream is a list of positions."""

    is_durable = False
    checks_conditions = True

    def __init__(self, event_registry: EventRegistry = event_registry) -> None:
        super().__init__(event_registry)
        self._log: list[Record] = []
        self._streams: dict[StreamId, list[int]] = {}
        self._checkpoints: dict[str, int] = {}
        self._dead_letters: dict[tuple[str, int], DeadLetter] = {}
        self._snapshots: dict[StreamId, Snapshot] = {}
        self._views: dict[str, dict[bytes, bytes]] = {}
        self._leased: set[str] = set()
        self._index = TermIndex()
        self._nodes = MemoryNodes()
        self._closed = False

    @property
    def records(self) -> tuple[Record, ...]:
        """The recorded events, in the order of the log; also when the store is closed."""
        return tuple(self._log)

    @override
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        self._check_open()
        outcomes: list[Appended | UnoError] = []
        for request in requests:
            move = request.checkpoint
            try:
                if move is not None:
                    check_checkpoint(move)
                    check_move(move, self._checkpoints.get(move.name))
                placed = place(request, lambda stream: len(self._streams.get(stream, ())))
                if request.condition is not None:
                    request.condition.check_position(len(self._log))
                    request.condition.check(self._indexed(request.condition))
            except UnoError as error:
                outcomes.append(error)
                continue
            if move is not None:
                self._checkpoints[move.name] = move.position
            first = len(self._log) + 1
            for position, record in enumerate(placed, start=first):
                self._log.append(record)
                if (stream := record.stream) is not None:
                    self._streams.setdefault(stream, []).append(position)
                if self._index.facets:
                    self._index.add_to_all(StoredRecord(position, record))
            outcomes.append(Appended(range(first, first + len(placed)), placed))
        self._committed()
        await asyncio.sleep(0)  # as after waiting for a disk: a loop of appends lets other tasks run
        return outcomes

    def _indexed(self, condition: Condition) -> Find:
        """Finds by the index, which has everything that ``condition`` needs."""
        for facet in condition.facets:
            self._index.require(facet, condition.registry, map(StoredRecord, count(1), self._log))
        return lambda wanted, after: self._index.after(wanted.term, after)

    @override
    async def _find(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        self._check_open()
        found = condition.selected(self._indexed(condition))
        return sorted(StoredRecord(*each) for each in found), max(condition.after, len(self._log))

    @override
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        self._check_open()
        positions = self._streams.get(stream, [])[after_version : after_version + limit]
        return [StoredRecord(position, self._log[position - 1]) for position in positions]

    @override
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        self._check_open()
        return [
            StoredRecord(position, record)
            for position, record in enumerate(self._log[after : after + limit], start=after + 1)
        ]

    @override
    async def last_version(self, stream: StreamId) -> int:
        self._check_open()
        return len(self._streams.get(stream, ()))

    @override
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        self._check_open()
        return sorted(
            stream.aggregate_type for stream in self._streams if stream.aggregate_id == aggregate_id
        )

    @override
    async def last_position(self) -> int:
        self._check_open()
        return len(self._log)

    @override
    async def checkpoints(self) -> dict[str, int]:
        self._check_open()
        return dict(self._checkpoints)

    @override
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        self._check_open()
        check_progress(checkpoints, dead_letters, views, dropped)
        self._checkpoints.update(checkpoints)
        self._dead_letters.update({(letter.handler, letter.position): letter for letter in dead_letters})
        for view, key, value in views:
            if value is None:
                self._views.get(view, {}).pop(key, None)
            else:
                self._views.setdefault(view, {})[key] = value
        for place_of_letter in dropped:
            self._dead_letters.pop(place_of_letter, None)
        await asyncio.sleep(0)

    @override
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        self._check_open()
        entries = self._views.get(view, {})
        if end == start + b"\0":  # one key
            return [(start, entries[start])] if start in entries else []
        inside = (key for key in entries if key >= start and (end is None or key < end))
        return [(key, entries[key]) for key in sorted(inside)[:limit]]

    @override
    async def drop_view(self, view: str) -> None:
        self._check_open()
        self._views.pop(view, None)
        self._checkpoints.pop(view, None)

    @override
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        self._check_open()
        letters = (letter for _, letter in sorted(self._dead_letters.items()))
        return [letter for letter in letters if handler in (None, letter.handler)]

    @override
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        self._check_open()
        return self._dead_letters.pop((handler, position), None) is not None

    @override
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        self._check_open()
        self._snapshots.update({snapshot.stream: snapshot for snapshot in snapshots})
        await asyncio.sleep(0)

    @override
    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        self._check_open()
        return self._snapshots.get(stream)

    @override
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        self._check_open()
        dropped = [stream for stream in self._snapshots if aggregate_type in (None, stream.aggregate_type)]
        for stream in dropped:
            del self._snapshots[stream]
        return len(dropped)

    @override
    async def drop_snapshot(self, stream: StreamId) -> bool:
        self._check_open()
        return self._snapshots.pop(stream, None) is not None

    @override
    async def drop_progress(self, handler: str) -> bool:
        self._check_open()
        check_handlers([handler])
        dropped = [place_of_letter for place_of_letter in self._dead_letters if place_of_letter[0] == handler]
        for place_of_letter in dropped:
            del self._dead_letters[place_of_letter]
        return self._checkpoints.pop(handler, None) is not None or bool(dropped)

    @override
    async def lease(self, name: str) -> Lease | None:
        self._check_open()
        check_lease(name)
        if name in self._leased:
            return None
        self._leased.add(name)
        return _Held(self._leased, name)

    @override
    def membership(self, seconds: float, clock: Clock) -> Membership:
        return MemoryMembership(self._nodes, seconds, clock, self._check_open)

    @override
    async def close(self) -> None:
        self._closed = True
        self._end_subscriptions()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("memory:", "it was closed")

    def __repr__(self) -> str:
        return f"InMemoryEventStore({len(self._log)} events)"


class _Held(Lease):
    def __init__(self, leased: set[str], name: str) -> None:
        self._leased = leased
        self._name = name

    @override
    async def release(self) -> None:
        self._leased.discard(self._name)


def open_url(
    url: str, event_registry: EventRegistry, *, create: bool = True, read_only: bool = False
) -> InMemoryEventStore:
    """Open ``memory:``, which is always a new store.

    Raises:
        StoreUnavailable: The caller wants no new store.
        InvalidStoreUrl: Something follows the colon.
    """
    check_url(url)
    if not create or read_only:
        raise StoreUnavailable(url, "a store in memory can be seen by its own process only")
    return InMemoryEventStore(event_registry)


def check_url(url: str) -> None:
    """Check ``url`` as `open_url` does.

    Raises:
        InvalidStoreUrl: As there.
    """
    if url != "memory:":
        raise InvalidStoreUrl(url, [], f"memory: has no path and no options; found {url!r}")
