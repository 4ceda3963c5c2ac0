"""A handler that has run with another number of partitions, or with none: it continues where that has ended.

It begins only while no process runs it in the other layout, and after the earliest checkpoint of that, so that no event
is left out; some may be handled again. Once all its own checkpoints are recorded, it removes those of the other layout,
and takes over its dead letters and pauses.
"""

from collections.abc import Mapping

from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.partitions import log_of_partition, names_of, other_layouts, whole_name
from uno_actors.handlers.requests import PAUSED, RESET, request_entry
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscription import Subscription
from uno_actors.store.handler_names import partition_in, partition_name
from uno_actors.store.logs import log_of_position
from uno_actors.store.port import EventStore
from uno_actors.store.records import DeadLetter


async def runs_otherwise(
    store: EventStore, spec: HandlerSpec, checkpoints: Mapping[str, int], known: dict[str, bool]
) -> bool:
    """Whether a process runs the handler with another number of partitions.

    Args:
        store: Keeps the leases.
        spec: The handler, or one of its partitions.
        checkpoints: The store's checkpoints by name.
        known: Whether names are leased that were asked for before; it grows.
    """
    names = other_layouts(spec, checkpoints)
    if spec.partition is not None:
        names.append(whole_name(spec.name))  # it may have started a moment ago
    for name in names:
        if name not in known:
            known[name] = await store.is_leased(name)
        if known[name]:
            return True
    return False


async def replace_other_layouts(
    store: EventStore, control: HandlerControl, subscription: Subscription, checkpoints: Mapping[str, int]
) -> None:
    """Remove what is kept of other layouts of a handler, if all its own checkpoints are recorded.

    Args:
        store: Keeps the checkpoints.
        control: Keeps the requests of operators.
        subscription: The handler, or one of its partitions.
        checkpoints: The store's checkpoints by name.
    """
    others = other_layouts(subscription.spec, checkpoints)
    names = names_of(subscription.spec)
    if not others or not all(name in checkpoints for name in names):
        return
    letters = [letter for name in others for letter in await store.dead_letters(name)]
    moved = [
        letter._replace(handler=name)
        for letter in letters
        for name in await _new_names(store, subscription, letter)
    ]
    requests = await control.requests()
    views = []
    for other in others:
        requested = requests.get(other)
        if requested is not None and requested.paused:
            views += [request_entry(True, name, PAUSED) for name in names]
            views.append(request_entry(None, other, PAUSED))
        if requested is not None and requested.reset is not None:
            request, position = requested.reset
            views += [
                request_entry([request, position], name, RESET, request)
                for name in names
                if _reads(name, log_of_position(position), subscription.logs)
            ]
            views.append(request_entry(None, other, RESET, request))
    dropped = [(letter.handler, letter.position) for letter in letters]
    if moved or views:
        await store.save_progress({}, moved, views, dropped)
    for other in others:
        await store.drop_view(other)  # with its checkpoint


def _reads(name: str, log: int, logs: int) -> bool:
    """Whether the handler or partition of this name reads a log, in a store with so many."""
    part = partition_in(name)
    return logs == 1 or (part is not None and log_of_partition(part[1], logs) == log)


async def _new_names(store: EventStore, subscription: Subscription, letter: DeadLetter) -> list[str]:
    """The names of all partitions that handle the event of a dead letter."""
    spec = subscription.spec
    if spec.partition is None:
        return [spec.name]
    shards = subscription.shards_of(await store.record_at(letter.position))
    numbers = sorted({shard % spec.partitions + 1 for shard in shards})
    return [partition_name(whole_name(spec.name), number, spec.partitions) for number in numbers]
