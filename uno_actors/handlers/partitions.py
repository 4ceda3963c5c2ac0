"""Partitioned handlers: one handler as several subscriptions, each for a part of the aggregates.

Each partition has a lease, a checkpoint, dead letters and an order of its own, so that several nodes run one handler.
All events of one aggregate belong to one partition, and the partition handles them in log order. A process manager is
partitioned by process instead. An event that belongs to no aggregate goes by its correlation id.

On a store with several logs each partition reads one log, and each log has as many partitions. The log of an event and
its partition follow from the same shard. A process manager is then partitioned by aggregate too: the events of one
process lie in several logs, which have no order between them, so no partition could put them in one. Each event is
passed to its process, wherever that is: those of one aggregate in order.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from uno_actors.domain.events import DomainEvent
from uno_actors.handlers.spec import PARTITIONS, HandlerSpec
from uno_actors.shards import shard_of_key
from uno_actors.store.codec import Record
from uno_actors.store.handler_names import partition_in, partition_name
from uno_actors.store.logs import log_of_position, shard_of_record


def partitions_of(spec: HandlerSpec, logs: int = 1) -> tuple[HandlerSpec, ...]:
    """The specifications of all partitions of a handler; the handler itself if it is not partitioned.

    Args:
        spec: The handler.
        logs: The number of logs of the store.
    """
    if not spec.partitions or spec.partition is not None:
        return (spec,)
    count = usual_partitions(logs) if spec.partitioned is True else spec.partitions
    return tuple(spec.of_partition(number, count) for number in range(1, count + 1))


def usual_partitions(logs: int) -> int:
    """The number of partitions of a handler with ``partitioned=True``, on a store with so many logs."""
    return -(-PARTITIONS // logs) * logs


def log_of_partition(number: int | None, logs: int) -> int:
    """The log that a partition reads, counted from 1, or a whole handler, on a store with so many logs."""
    return 0 if number is None else (number - 1) % logs


class ByProcess(Protocol):
    """The target of a process manager's handler: an event belongs to processes, and not to its aggregate."""

    def processes_of(self, record: Record, decode: Callable[[], DomainEvent]) -> tuple[str, ...]:
        """The processes that an event belongs to; it raises if that cannot be told."""


def processes_in(target: Any, record: Record, decode: Callable[[], DomainEvent]) -> tuple[str, ...] | None:
    """The processes that an event belongs to; ``None`` if the handler has no processes.

    Args:
        target: The target of the handler.
        record: The event as recorded.
        decode: Returns the event; it may raise, then the event belongs to none: the handler will fail with it.
    """
    processes_of = getattr(target, "processes_of", None)
    if processes_of is None:
        return None
    try:
        found: tuple[str, ...] = processes_of(record, decode)
    except BaseException:  # noqa: BLE001 - the handler will fail with it, SystemExit too, in one of its partitions
        return ()
    return found


def shards_of_event(keys: Any, record: Record, decode: Callable[[], DomainEvent]) -> tuple[int, ...]:
    """The shards of an event for a partitioned handler: one, or one for each of its processes.

    Args:
        keys: The target of the handler, which may be `ByProcess`; ``None`` to go by aggregate.
        record: The event as recorded.
        decode: As for `processes_in`.
    """
    found = processes_in(keys, record, decode)
    if found is None:
        return (shard_of_record(record),)
    if not found:
        found = (record.correlation_id or record.event_id,)
    return tuple(dict.fromkeys(shard_of_key("", each) for each in found))


def named(name: str, known: Iterable[str]) -> list[str]:
    """Those of the ``known`` handlers that ``name`` means: the one of this name, and all partitions of it."""
    return [each for each in known if each == name or whole_name(each) == name]


def whole_name(name: str) -> str:
    """The name of the handler to which a partition belongs; ``name`` itself if it is not one of a partition."""
    found = partition_in(name)
    return name if found is None else found[0]


def other_layouts(spec: HandlerSpec, names: Iterable[str]) -> list[str]:
    """Those of ``names`` under which the same handler has run with another number of partitions."""
    whole = whole_name(spec.name)
    count = spec.partitions if spec.partition is not None else 0
    return [
        name
        for name in names
        if whole_name(name) == whole and (0 if (part := partition_in(name)) is None else part[2]) != count
    ]


def names_of(spec: HandlerSpec) -> list[str]:
    """The names of all partitions of the handler that ``spec`` is a partition of; its own if it is none."""
    if spec.partition is None:
        return [spec.name]
    whole = whole_name(spec.name)
    return [partition_name(whole, number, spec.partitions) for number in range(1, spec.partitions + 1)]


def first_position(spec: HandlerSpec, checkpoints: Mapping[str, int], logs: int = 1) -> int | None:
    """The position after which a handler continues that has run with another number of partitions.

    It is the earliest of all its checkpoints in its log, so that no event is left out; some may be handled again.
    """
    log = log_of_partition(spec.partition, logs)
    found = [
        checkpoints[name]
        for name in (spec.name, *other_layouts(spec, checkpoints))
        if name in checkpoints and (logs == 1 or log_of_position(checkpoints[name]) == log)
    ]
    return min(found, default=None)
