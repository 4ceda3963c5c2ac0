"""The counters of a system."""

from dataclasses import dataclass, field

from uno_actors.actors.dispatcher import DispatcherStatistics
from uno_actors.actors.inspection import MessageStatistics
from uno_actors.handlers.subscription import HandlerStatistics
from uno_actors.scheduling.scheduler import SchedulerStatistics
from uno_actors.supervision.statistics import SupervisorStatistics


@dataclass(frozen=True, slots=True)
class SystemStatistics:
    """Counters of a system since its start, and its current state.

    Attributes:
        commands: Commands answered with a reply.
        rejected: Commands rejected by a domain rule.
        failed: Commands answered with another error.
        asked: Commands that were asked and have been answered here, with a reply or an error.
        asked_seconds: Seconds that their senders waited, all together; divided by ``asked``, the mean time to answer.
        reruns: Commands run again because another writer was faster or a commit failed.
        repeated: Repeated commands answered with their first outcome.
        events_recorded: Events recorded by commands.
        commits: Groups in which the store committed those events.
        activations: Aggregates loaded from the store.
        events_replayed: Events applied while loading aggregates.
        passivations: Idle aggregates removed from memory.
        snapshots: Saved snapshots of aggregates.
        active_aggregates: Aggregates in memory now.
        dead_messages: Messages that were told but not handled; see `ActorSystem.dead_messages`.
        actors: Living spawned actors, including the system's own supervisors.
        messages: Messages waiting for these actors, and messages they have handled.
        commands_waiting: Commands not answered yet.
        oldest_command: Age in seconds of the oldest waiting command, among those with the system's own timeout;
            ``None`` if there is none.
        restarts: Number of restarts of supervised children.
        dispatcher: Statistics of the event loop and worker threads.
        handlers: Statistics of each handler, by handler name.
        supervisors: Statistics of each supervisor, by its name.
        scheduler: Statistics of the scheduler.
    """

    commands: int
    rejected: int
    failed: int
    asked: int
    asked_seconds: float
    reruns: int
    repeated: int
    events_recorded: int
    commits: int
    activations: int
    events_replayed: int
    passivations: int
    snapshots: int
    active_aggregates: int
    dead_messages: int
    actors: int
    messages: MessageStatistics
    commands_waiting: int
    oldest_command: float | None
    restarts: int
    dispatcher: DispatcherStatistics
    handlers: dict[str, HandlerStatistics]
    supervisors: dict[str, SupervisorStatistics]
    scheduler: SchedulerStatistics = field(default_factory=SchedulerStatistics)
