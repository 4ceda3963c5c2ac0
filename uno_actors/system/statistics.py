"""What a system has done since it started."""

from dataclasses import dataclass

from uno_actors.actors.dispatcher import DispatcherStatistics
from uno_actors.actors.inspection import MessageStatistics
from uno_actors.handlers.subscription import HandlerStatistics


@dataclass(frozen=True, slots=True)
class SystemStatistics:
    """What a system has done since it started.

    Attributes:
        commands: Commands answered with a reply.
        rejected: Commands rejected by a rule of the domain.
        failed: Commands answered with another error.
        reruns: Commands run again because another writer was faster or a commit failed.
        repeated: Commands answered with the outcome that they had the first time.
        events_recorded: Events that commands have recorded.
        commits: Groups in which they were committed.
        activations: Aggregates loaded from the store.
        events_replayed: Events applied while loading.
        passivations: Idle aggregates that were let go.
        snapshots: Snapshots of aggregates that were saved.
        active_aggregates: Aggregates active now.
        dead_messages: Messages that were told and not handled; see `ActorSystem.dead_messages`.
        actors: Spawned actors that live now, the system's own supervisors included.
        messages: What waits for them, and what they have handled.
        commands_waiting: Commands that are not answered yet.
        oldest_command: Seconds since the one of them was sent that waits for longest, of those with the system's
            own timeout; ``None`` if there is none.
        restarts: How often children of its supervisors were restarted.
        dispatcher: Its event loop and worker threads.
        handlers: By handler name.
    """

    commands: int
    rejected: int
    failed: int
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
