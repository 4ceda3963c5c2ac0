"""What must be so at the end of each run, whatever has gone wrong."""

from collections import Counter
from collections.abc import Hashable
from itertools import count

from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.records import StoredRecord
from uno_actors.system.system import ActorSystem
from uno_actors.testing.simulation.audit import fold
from uno_actors.testing.simulation.nodes import InvariantBroken
from uno_actors.testing.simulation.store import Shelf
from uno_actors.testing.simulation.world import Invariant, World


def nothing_acknowledged_is_lost(world: World) -> None:
    """Each command that was answered, and that has registered events, is in the log."""
    recorded = {
        cause
        for shelf in world.nodes.shelves.values()
        for record in shelf.records
        for cause in _causes(record)
    }
    for command_id, sent in world.witness.commands.items():
        if sent.acknowledged and sent.decided != 0 and command_id not in recorded:
            raise InvariantBroken(
                "no acknowledged command is lost",
                f"{type(sent.command).__name__} {command_id[:6]} of {sent.stream} was answered, and is not in the log",
            )


def nothing_is_doubled(world: World) -> None:
    """No command is recorded twice."""
    for shelf in world.nodes.shelves.values():
        found_in: Counter[tuple[str, StreamId]] = Counter()
        for positions in shelf.commits:
            found = {
                (cause, record.stream)
                for position in positions
                if (record := shelf.records[position - 1]).stream is not None
                for cause in _causes(record)
            }
            found_in.update(found)
        for (command_id, stream), times in sorted(found_in.items()):
            if times > 1 and command_id in world.witness.commands:
                raise InvariantBroken(
                    "no command is doubled", f"{command_id[:6]} of {stream} was recorded {times} times"
                )


def streams_have_no_gaps(world: World) -> None:
    """The versions of each stream are 1, 2, 3…"""
    for shelf in world.nodes.shelves.values():
        versions: dict[StreamId, int] = {}
        for record in shelf.records:
            if (stream := record.stream) is None:
                continue
            wanted = versions[stream] = versions.get(stream, 0) + 1
            if record.aggregate_version != wanted:
                raise InvariantBroken(
                    "streams have no gaps",
                    f"{stream} has version {record.aggregate_version} after {wanted - 1}",
                )


def handlers_miss_nothing(world: World) -> None:
    """Each handler has handled the events that it subscribes to in order, each at least once."""
    seen: set[str] = set()
    for name in world.running():
        node = world.nodes.by_name[name]
        assert node._system is not None
        for subscription in _subscriptions(node._system):
            if subscription.name not in seen:
                seen.add(subscription.name)
                _check_handler(world, node._shelf, subscription)


def _subscriptions(system: ActorSystem) -> list[Subscription]:
    runtime = system._runtime
    return [] if runtime is None else [*runtime.handlers.active()]


def _check_handler(world: World, shelf: Shelf, subscription: Subscription) -> None:
    name = subscription.name
    spec = subscription.spec
    steps = world.witness.handlers.get(name, [])
    if spec.keeps_progress:
        return
    wanted = [
        stored.position
        for stored in map(StoredRecord, count(1), shelf.records)
        if _wants(subscription, stored)
    ]
    first = min((position for step in steps for position in step.positions), default=len(shelf.records) + 1)
    if spec.start != "earliest":
        wanted = [position for position in wanted if position >= first]
    before = _predecessors(shelf, wanted, subscription)
    done: set[int] = set()
    for step in steps:
        for position in step.positions:
            if step.kind in ("handled", "dead letter"):
                done.add(position)
            elif step.kind == "called":
                missing = [each for each in before.get(position, ()) if each not in done]
                if previous := [each for each in missing if each not in step.positions]:
                    raise InvariantBroken(
                        "handlers handle in order",
                        f"{name} on {step.node} was called for {position} before it had handled {previous[0]}",
                    )
    missed = [position for position in wanted if position not in done]
    if missed:
        raise InvariantBroken("handlers handle at least once", f"{name} has never handled {missed[:5]}")


def _wants(subscription: Subscription, stored: StoredRecord) -> bool:
    """Whether an event is one of a handler's, or of this partition of it."""
    if not subscription.wants(stored.record):
        return False
    is_whole = subscription.spec.partition is None
    return is_whole or subscription.has_shard(subscription.shards_of(stored))


def _predecessors(shelf: Shelf, wanted: list[int], subscription: Subscription) -> dict[int, list[int]]:
    """The events that a handler must have handled before each event: one for each order in which that is."""
    last: dict[Hashable, int] = {}
    before: dict[int, list[int]] = {}
    for position in wanted:
        keys: tuple[Hashable, ...] = (None,)
        if subscription.spec.concurrency > 1:
            keys = subscription.orders(Delivery(StoredRecord(position, shelf.records[position - 1])))
        before[position] = [last[key] for key in keys if key in last]
        last.update(dict.fromkeys(keys, position))
    return before


async def views_follow_from_the_log(world: World) -> None:
    """The view of each projection is what a new one makes of the whole log."""
    for name, shelf in world.nodes.shelves.items():
        specs = {}
        for node in world.running():
            system = world.system(node)
            if world.nodes.by_name[node]._shelf is shelf:
                specs.update(
                    {each.name: each.spec for each in _subscriptions(system) if each.spec.keeps_a_view}
                )
        for handler, (found, folded) in (await fold(world, shelf, specs)).items():
            if found != folded:
                keys = sorted(key for key in {*found, *folded} if found.get(key) != folded.get(key))
                raise InvariantBroken(
                    "views follow from the log",
                    f"{handler} on {name} differs at {len(keys)} keys, the first is {keys[0]!r}:"
                    f" {found.get(keys[0])!r} instead of {folded.get(keys[0])!r}",
                )


def _causes(record: Record) -> tuple[str, ...]:
    """The ids of the commands that have recorded it."""
    return tuple({each: None for each in (record.causation_id, record.answered) if each is not None})


ALWAYS: tuple[Invariant, ...] = (
    nothing_acknowledged_is_lost,
    nothing_is_doubled,
    streams_have_no_gaps,
    handlers_miss_nothing,
    views_follow_from_the_log,
)
"""The invariants of each run. Beside them, nothing may hang, and no task and no error may be left over."""
