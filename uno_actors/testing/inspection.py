"""`inspect`: the parts of a running system, for tests that wait for one or compare it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.handlers.router import RouterActor
from uno_actors.settings import Settings
from uno_actors.store.codec import StreamId
from uno_actors.supervision.spec import Supervisor
from uno_actors.system.system import ActorSystem


@dataclass(frozen=True, slots=True)
class HandlerInspection:
    """One handler of a system.

    Attributes:
        state: As in its statistics.
        position: Every event up to this position in the log is done.
        waiting: Number of deliveries in its queue.
        retries: Positions of the dead letters that it will retry, in order.
    """

    state: str
    position: int
    waiting: int
    retries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """The parts of a system at one moment.

    Attributes:
        state: ``not started``, ``starting``, ``running``, ``stopping`` or ``stopped``.
        settings: The options of the system, with its clock.
        supervisors: The configured tree, each child with its name.
        router_position: The router has read the log, of several the first, up to this position; ``None`` before it
            starts.
        topics: The topic patterns by which the router finds handlers, and their beginnings.
        handlers: The handlers, by name.
        aggregates: The active aggregates, by stream; ``None`` for one that is being loaded.
        commands: Number of commands that have no reply yet.
        actors: Number of messages in the mailbox of each spawned actor, by its URN, in the order of their start.
        tasks: Number of tasks that the system has started and that have not ended.
        contexts: Number of contexts of senders that are kept for the handlers of their events.
    """

    state: str
    settings: Settings
    supervisors: tuple[Supervisor, ...]
    router_position: int | None = None
    topics: frozenset[str] = frozenset()
    handlers: Mapping[str, HandlerInspection] = field(default_factory=dict)
    aggregates: Mapping[StreamId, AggregateRoot | None] = field(default_factory=dict)
    commands: int = 0
    actors: Mapping[str, int] = field(default_factory=dict)
    tasks: int = 0
    contexts: int = 0


def inspect(system: ActorSystem) -> Inspection:
    """The parts of ``system`` now, in any state; call it on the system's event loop.

    It is for tests. Programs have `ActorSystem.statistics`, `ActorSystem.tree` and `ActorSystem.handlers`.
    """
    runtime = system._runtime
    if runtime is None:
        return Inspection(system._state, system._settings, tuple(system._supervised))
    router: RouterActor | None = getattr(runtime.handlers, "router", None)  # made while the system starts
    handlers = {}
    for each in runtime.handlers.subscriptions:
        now = each.statistics(0 if router is None else router.dispatched(each))
        handlers[each.name] = HandlerInspection(
            now.state, now.position, now.waiting, tuple(each.requests.retries)
        )
    return Inspection(
        system._state,
        system._settings,
        tuple(system._supervised),
        None if router is None else router.logs[0].position,
        frozenset() if router is None else router.logs[0].topics(),
        handlers,
        {stream: actor.instance for stream, actor in tuple(runtime.aggregates._active.items())},
        runtime.aggregates.waiting,
        {cell.actor.actor_urn: len(cell.inbox) for cell in tuple(runtime.actors.cells)},
        len(runtime._tasks),
        len(system._contexts),
    )
