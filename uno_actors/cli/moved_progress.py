"""What becomes of checkpoints, dead letters and views when a store is copied to one with another number of logs.

The same events get other positions, and partitioned handlers may need another number of partitions. No event is left
out: each checkpoint of the copy lies before the first event that the handler has not handled yet. Where it cannot be
known which partition an event belongs to, some events are handled again.

A view has counted each event once, so its parts are kept only if their number fits both stores: then each part has the
same events in the same order. Otherwise the projection rebuilds its view.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from uno_actors.handlers.partitions import log_of_partition, usual_partitions, whole_name
from uno_actors.handlers.view import Entry, aside_key, aside_position, entries
from uno_actors.store.handler_names import MARK, partition_in, partition_name
from uno_actors.store.logs import shard_of_record
from uno_actors.store.port import EventStore
from uno_actors.store.records import DeadLetter, StoredRecord
from uno_actors.store.view_keys import unpack_key


class Progressed(NamedTuple):
    """What a store keeps of handlers.

    Attributes:
        checkpoints: Positions by name.
        letters: The dead letters.
        entries: The directory of projections, by their names.
        rebuilt: Number of projections whose views are left out.
        asides: New positions by the old ones, of events set aside in views.
    """

    checkpoints: Mapping[str, int]
    letters: Sequence[DeadLetter]
    entries: Mapping[str, Entry]
    rebuilt: int = 0
    asides: Mapping[int, int] = {}

    @classmethod
    async def of(cls, store: EventStore) -> Self:
        """That of ``store``."""
        return cls(await store.checkpoints(), await store.dead_letters(), await entries(store))

    def key_of(self, key: bytes) -> bytes:
        """The key under which an entry of a view is kept."""
        position = aside_position(key)
        return key if position is None else aside_key(self.asides.get(position, position))

    def is_kept(self, key: bytes) -> bool:
        """Whether an entry of the directory is kept."""
        return str(unpack_key(key)) in self.entries


class KeptProgress:
    """Of a copy with the same positions.

    Args:
        before: What the source keeps.
    """

    def __init__(self, before: Progressed) -> None:
        self._before = before

    def see(self, stored: StoredRecord, place: int) -> None:
        """Take note of an event and its position in the copy."""

    def result(self, places: Sequence[int]) -> Progressed:
        """What the copy keeps; ``places`` are the ends of its logs."""
        return self._before


class MovedProgress:
    """Of a copy with other positions: it is shown all events of the source, in the order of the copy.

    Args:
        before: What the source keeps.
        logs: The number of logs of the source.
        new_logs: The number of logs of the copy.
        asides: Positions of events set aside in views.
    """

    def __init__(self, before: Progressed, logs: int, new_logs: int, asides: Sequence[int] = ()) -> None:
        self._before = before
        self._logs = logs
        self._new_logs = new_logs
        views = {view for entry in before.entries.values() for view in entry.views}
        self._handlers: dict[
            str, dict[int, dict[str, int]]
        ] = {}  # by whole name, number of partitions and name
        for name, position in before.checkpoints.items():
            if name not in views and (MARK not in name or partition_in(name) is not None):
                of = self._handlers.setdefault(whole_name(name), {})
                of.setdefault(_count_in(name), {})[name] = position
        self._kept = {name: entry for name, entry in before.entries.items() if self._is_kept(_count_in(name))}
        self._views: dict[
            int, dict[int, list[str]]
        ] = {}  # by number of partitions, and number of the partition
        for name, entry in self._kept.items():
            _, number, count = partition_in(name) or (name, 1, 1)
            of_part = self._views.setdefault(count, {}).setdefault(number, [])
            of_part += [view for view in entry.views if view in before.checkpoints]
        self._first: dict[
            tuple[str, int], int
        ] = {}  # by handler and partition: the first event that is not handled
        self._first_in_view: dict[str, int] = {}
        self._wanted = {*(letter.position for letter in before.letters), *asides}
        self._found: dict[int, tuple[int, int]] = {}  # new position and shard of those

    @classmethod
    async def of(cls, before: Progressed, source: EventStore, new_logs: int) -> Self:
        """That of a copy of ``source`` to a store with so many logs."""
        asides = [
            position
            for entry in before.entries.values()
            for view in entry.views
            for key, _ in await source.read_view(view, b"\0", b"\1", limit=None)
            if (position := aside_position(key)) is not None
        ]
        return cls(before, source.logs, new_logs, asides)

    def see(self, stored: StoredRecord, place: int) -> None:
        """Take note of an event and its position in the copy."""
        position, shard = stored.position, shard_of_record(stored.record)
        if position in self._wanted:
            self._found[position] = place, shard
        for handler, layouts in self._handlers.items():
            if not self._is_handled(handler, layouts, position, shard):
                partition = shard % self._new_count(layouts) if self._new_logs > 1 else 0
                self._first.setdefault((handler, partition), place)
        for count, parts in self._views.items():
            for view in parts.get(shard % count + 1, ()):
                if position > self._before.checkpoints[view]:
                    self._first_in_view.setdefault(view, place)

    def result(self, places: Sequence[int]) -> Progressed:
        """What the copy keeps; ``places`` are the ends of its logs."""
        checkpoints: dict[str, int] = {}
        for handler, layouts in self._handlers.items():
            count = self._new_count(layouts)
            for number in range(1, max(count, 1) + 1):
                name = partition_name(handler, number, count) if count else handler
                # In one log a process manager is partitioned by process: what its partitions have done is not known.
                first = self._first.get((handler, number - 1 if self._new_logs > 1 else 0))
                end = places[log_of_partition(number, self._new_logs)]
                checkpoints[name] = end if first is None else first - 1
        for parts in self._views.values():
            for number, views in parts.items():
                end = places[log_of_partition(number, self._new_logs)]
                for view in views:
                    first = self._first_in_view.get(view)
                    checkpoints[view] = end if first is None else first - 1
        rebuilt = {whole_name(name) for name in self._before.entries if name not in self._kept}
        return Progressed(
            checkpoints,
            [moved for letter in self._before.letters if (moved := self._moved(letter)) is not None],
            self._kept,
            len(rebuilt),
            {position: place for position, (place, _) in self._found.items()},
        )

    def _is_handled(
        self, handler: str, layouts: Mapping[int, Mapping[str, int]], position: int, shard: int
    ) -> bool:
        if self._logs == 1:
            return all(position <= each for of in layouts.values() for each in of.values())
        return all(
            count > 0 and position <= of.get(partition_name(handler, shard % count + 1, count), 0)
            for count, of in layouts.items()
        )

    def _new_count(self, layouts: Mapping[int, object]) -> int:
        return self._new_partitions(max(layouts))

    def _new_partitions(self, count: int) -> int:
        """The number of partitions in the copy, of a handler with so many in the source; 0 if it is not partitioned."""
        if count == usual_partitions(self._logs) or (count % self._new_logs and count):
            return usual_partitions(self._new_logs)
        return count if count or self._new_logs == 1 else usual_partitions(self._new_logs)

    def _is_kept(self, count: int) -> bool:
        return count > 0 and self._new_partitions(count) == count

    def _moved(self, letter: DeadLetter) -> DeadLetter | None:
        """The letter in the copy; ``None`` for that of a view that is rebuilt and will count the event."""
        name = letter.handler
        if (name in self._before.entries and name not in self._kept) or letter.position not in self._found:
            return None
        place, shard = self._found[letter.position]
        count = self._new_partitions(_count_in(name))
        handler = whole_name(name)
        new = partition_name(handler, shard % count + 1, count) if count else handler
        return letter._replace(handler=new, position=place)


def _count_in(name: str) -> int:
    """The number of partitions in the name of one; 0 if it is none."""
    found = partition_in(name)
    return 0 if found is None else found[2]
