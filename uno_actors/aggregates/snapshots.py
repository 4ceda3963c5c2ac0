"""Snapshots: the state of an aggregate at one version, so loading need not start at the first event.

Nothing depends on them: if one is missing, damaged or of another schema, the events are replayed.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from uno_actors.clock import Clock, Timer
from uno_actors.domain.aggregate import AggregateRoot, new_aggregate
from uno_actors.domain.values import annotations_of, classes_in, pack_value, unpack_value
from uno_actors.errors import describe
from uno_actors.logs import Logger, get_logger
from uno_actors.quantities import check_count
from uno_actors.store.codec import Record, StreamId, to_event
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, Snapshot

A = TypeVar("A", bound=AggregateRoot)

SAVE_AFTER = 0.2
"""Seconds that a snapshot waits for others, so that a hot aggregate does not cost a transaction for each."""
REMEDY = (
    "annotate the attribute on the class if it holds enums, dataclasses, named tuples or models"
    " (`lines: list[Line]`), or override to_snapshot and from_snapshot"
)


_PLAIN_HOOKS = (AggregateRoot.to_snapshot, AggregateRoot.from_snapshot)


def take(instance: AggregateRoot) -> Snapshot:
    """A snapshot of ``instance`` in its current state.

    Raises:
        Exception: Its state cannot be restored exactly, or its own ``to_snapshot`` failed.
    """
    kind = type(instance)
    state = dict(instance.to_snapshot())
    return Snapshot(
        StreamId(kind.aggregate_type, instance.id),
        instance.version,
        kind.schema_version,
        pack_value(state, _classes(kind)),
        datetime.now(UTC),
    )


def restore(aggregate_type: type[A], snapshot: Snapshot) -> A:
    """An instance with the state of ``snapshot``.

    Raises:
        Exception: It has another schema version, or does not fit the class.
    """
    if snapshot.schema_version != aggregate_type.schema_version:
        raise ValueError(
            f"its schema version is {snapshot.schema_version}, that of the class is {aggregate_type.schema_version}"
        )
    state = unpack_value(snapshot.state, _classes(aggregate_type))
    if not isinstance(state, Mapping):
        raise TypeError(f"it holds a {type(state).__name__}, not a mapping")
    instance = new_aggregate(aggregate_type, snapshot.stream.aggregate_id)
    instance.from_snapshot(state)
    instance.version = snapshot.version
    return instance


_known: WeakKeyDictionary[type, dict[str, type]] = WeakKeyDictionary()


def _classes(aggregate_type: type) -> dict[str, type]:
    """The classes in the annotations of an aggregate's attributes."""
    classes = _known.get(aggregate_type)
    if classes is None:
        classes = _known[aggregate_type] = classes_in(*annotations_of(aggregate_type))
    return classes


def _ignore(record: Record) -> None: ...


class Snapshots:
    """Loads and saves aggregates of one store with the help of snapshots.

    Args:
        store: Of events and snapshots.
        every: Events between two snapshots of an aggregate; 0 or ``None`` to take none.
        log: Has the names of the system bound.

    Attributes:
        saved: Snapshots that were saved.

    Raises:
        InvalidNumber: ``every`` is not a number of events.
    """

    def __init__(self, store: EventStore, every: int | None, log: Logger | None = None) -> None:
        check_count("snapshot_every", every, none=True)
        self.saved = 0
        self._store = store
        self._every = every or 0
        self._reported: set[type[AggregateRoot]] = set()
        self._log = (log or get_logger()).bind(actor="snapshots")

    def take_if_due(self, instance: AggregateRoot, before: int) -> Snapshot | None:
        """A snapshot of ``instance``, if one is due.

        Args:
            instance: Its version has passed a multiple of ``every`` since ``before`` if one is due.
            before: The version that it had when this was last asked.

        Returns:
            ``None`` also if its state cannot be restored exactly; that is logged once per class.
        """
        every = self._every
        if not every or instance.version // every <= before // every:
            return None
        try:
            return take(instance)
        except Exception as error:  # noqa: BLE001 - a hook may raise anything, and snapshots are not needed
            if type(instance) not in self._reported:
                self._reported.add(type(instance))
                self._log.warning(
                    "no snapshots of this aggregate: loading it replays all of its events",
                    aggregate=repr(instance),
                    reason=describe(error),
                    remedy=REMEDY,
                )
            return None

    def copy(self, instance: AggregateRoot) -> Snapshot | None:
        """A copy of the state in memory; ``None`` if it would not surely be the same.

        Without snapshots, hooks of the program's own are not trusted.
        """
        kind = type(instance)
        own_hooks = (kind.to_snapshot, kind.from_snapshot) != _PLAIN_HOOKS
        if own_hooks and not self._every:
            return None
        try:
            return take(instance)
        except Exception:  # noqa: BLE001 - a hook may raise anything, and the events can be replayed
            return None

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        """Save ``snapshots``; a failure is logged and costs nothing but time."""
        try:
            await self._store.save_snapshots(snapshots)
        except Exception as error:  # noqa: BLE001 - a store of another package may raise anything
            self._log.warning("snapshots were not saved", count=len(snapshots), reason=describe(error))
        else:
            self.saved += len(snapshots)

    async def load(
        self,
        aggregate_type: type[A],
        stream: StreamId,
        *,
        version: int | None = None,
        reach: int = 0,
        look: Callable[[Record], object] = _ignore,
    ) -> tuple[A, int]:
        """An instance with all of its stream applied, or as of a version, and how many events were replayed for it.

        It is read up to the version that the stream has when the load begins: a load would never reach an end that
        other writers move faster than it reads. The expected version fences what is decided on it.

        Args:
            aggregate_type: Of the instance.
            stream: Its own.
            version: Of the stream, which has come so far; default is its end.
            reach: Minimum number of the last records that are passed to ``look``.
            look: Called with each record that is read.

        Raises:
            MissingApply, EventNotReadable, UnknownEventType, CorruptRecord: An event cannot be replayed.
            StoreUnavailable: The store cannot be read.
        """
        end = await self._store.last_version(stream) if version is None else version
        instance = await self._restored(aggregate_type, stream) if end else None
        if instance is None or (version is not None and instance.version > version):
            instance = new_aggregate(aggregate_type, stream.aggregate_id)
        begun = instance.version
        # A snapshot may have been saved since `last_version`. The commands of the events up to it are to be looked
        # at all the same: they would be forgotten, and run again if they come again.
        end = max(end, begun)
        return instance, await self._replay(
            instance, stream, max(0, begun - reach), end, look, is_bounded=version is not None
        )

    async def catch_up(
        self, instance: AggregateRoot, stream: StreamId, end: int, look: Callable[[Record], object] = _ignore
    ) -> int:
        """Apply to ``instance`` what its ``stream`` has after its version; how many events.

        Args:
            instance: All of its events are recorded.
            stream: Its own.
            end: The version that the stream is known to have; beyond it one page at most is read, as a stream may grow
                faster than it is read.
            look: Called with each record that is read.

        Raises:
            Exception: As `load`; the instance is no longer whole.
        """
        return await self._replay(instance, stream, instance.version, end, look)

    async def _replay(
        self,
        instance: AggregateRoot,
        stream: StreamId,
        after: int,
        end: int,
        look: Callable[[Record], object],
        *,
        is_bounded: bool = False,
    ) -> int:
        """Read ``stream`` after a version, and apply what ``instance`` lacks; how many events.

        It is the rule of `uno_actors.store.queries.pages_to_end`, written out: through an iterator the load of a short
        stream takes 5 % longer.
        """
        begun = instance.version
        while page := await self._store.read_stream(
            stream, after, min(PAGE, end - after) if is_bounded else PAGE
        ):
            for position, record in page:
                after += 1
                if after > begun:
                    instance.replay([to_event(record, self._store.event_registry, position)])
                look(record)
            if after >= end:
                break
            await asyncio.sleep(0)  # a long stream must not block the event loop
        return instance.version - begun

    async def _restored(self, aggregate_type: type[A], stream: StreamId) -> A | None:
        """The aggregate as of its snapshot, if there is one that fits."""
        try:
            snapshot = await self._store.read_snapshot(stream)
            if snapshot is None:
                return None
            instance = restore(aggregate_type, snapshot)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the events can be replayed
            reason = describe(error)
        else:
            if snapshot.version > 0 and await self._store.read_stream(stream, snapshot.version - 1, 1):
                return instance
            reason = f"it is of version {snapshot.version}, and the stream ends before it"
        self._log.warning("snapshot is not used", aggregate=str(stream), reason=reason)
        return None


class SnapshotSaver:
    """Saves snapshots behind the commands, in groups. Lives on the event loop.

    Args:
        snapshots: Saves them.
        clock: Measures `SAVE_AFTER`.
        start: Starts a coroutine as a task of the system.
    """

    def __init__(
        self, snapshots: Snapshots, clock: Clock, start: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._snapshots = snapshots
        self._clock = clock
        self._start = start
        self._waiting: dict[StreamId, Snapshot] = {}
        self._timer: Timer | None = None
        self._saving = asyncio.Lock()

    def save_later(self, snapshot: Snapshot) -> None:
        """Save it together with others that are taken within `SAVE_AFTER`."""
        self._waiting[snapshot.stream] = snapshot
        if self._timer is None:
            self._timer = self._clock.call_later(SAVE_AFTER, lambda: self._start(self.save()))

    async def save(self) -> None:
        """Save all that wait; return when those being saved are saved, too."""
        self.cancel()
        async with self._saving:
            group, self._waiting = list(self._waiting.values()), {}
            if group:
                await self._snapshots.save(group)

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
