"""What the aggregates of a system have done."""

from dataclasses import dataclass


@dataclass(slots=True)
class AggregateStatistics:
    """Counters since the system started.

    Attributes:
        commands: Commands that were handled and answered with a reply.
        rejected: Commands that were rejected by a rule of the domain.
        failed: Commands that were answered with another error.
        asked: Commands that were asked and have been answered here, with a reply or an error.
        asked_seconds: Seconds that their senders waited, all together.
        reruns: Commands that were run again because another writer was faster or a commit failed.
        repeated: Commands that were answered with the result that they had the first time.
        activations: Aggregates loaded from the store.
        events_replayed: Events applied while loading.
        passivations: Idle aggregates that were removed from memory.
    """

    commands: int = 0
    rejected: int = 0
    failed: int = 0
    asked: int = 0
    asked_seconds: float = 0.0
    reruns: int = 0
    repeated: int = 0
    activations: int = 0
    events_replayed: int = 0
    passivations: int = 0
