"""Loading an aggregate, and catching up with its stream; the pause after a stream that cannot be replayed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from uno_actors.aggregates.command_memory import CommandMemory
from uno_actors.aggregates.snapshots import Snapshots, restore
from uno_actors.aggregates.statistics import AggregateStatistics
from uno_actors.backoff import Backoff
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import WorldError
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.records import Snapshot

LOAD_BACKOFF = Backoff(initial=0.1, max=30.0, jitter=0.0)
"""Seconds for which commands of an aggregate whose stream cannot be replayed get the error of the last attempt."""
MAX_RELOADS = 3
"""How often what a stream has gained meanwhile is read in a row; then the waiting commands are handled."""


class Baseline(NamedTuple):
    """An aggregate at an earlier version, all recorded: loading resumes from there.

    Attributes:
        state: The aggregate, of which there is no other user, or a copy of its state.
        memory: The commands that its last events answered; likewise.
    """

    state: AggregateRoot | Snapshot
    memory: CommandMemory

    def restored(self, aggregate_type: type[AggregateRoot]) -> AggregateRoot | None:
        """The aggregate; ``None`` if it is of another class by now, or cannot be restored."""
        state = self.state
        if not isinstance(state, Snapshot):
            return state if type(state) is aggregate_type else None
        try:
            return restore(aggregate_type, state)
        except Exception:  # noqa: BLE001 - a hook may raise anything, and the events can be replayed
            return None


class Loaded(NamedTuple):
    """An aggregate with all of its stream applied.

    Attributes:
        instance: The aggregate.
        restored: The version of the snapshot or the baseline that it was restored from; 0 without one.
        memory: The commands that its last events answered.
        reported: The version that its stream is known to have reached since.
    """

    instance: AggregateRoot
    restored: int
    memory: CommandMemory
    reported: int


class Loader:
    """Loads the aggregates of a system. Lives on the event loop.

    Args:
        types: The classes by type name; the mapping may grow.
        snapshots: Loads from the store.
        remember_commands: For how many of its last events an aggregate remembers the commands.
        statistics: Counts activations and replayed events.
    """

    def __init__(
        self,
        types: Mapping[str, type[AggregateRoot]],
        snapshots: Snapshots,
        remember_commands: int,
        statistics: AggregateStatistics,
    ) -> None:
        self._types = types
        self._snapshots = snapshots
        self._remember_commands = remember_commands
        self._statistics = statistics
        self._reported: dict[StreamId, int] = {}

    def report(self, stream: StreamId, version: int) -> None:
        """Note that the stream of an aggregate that is not loaded, or not yet, has reached ``version``."""
        self._reported[stream] = version

    def forget(self, stream: StreamId) -> None:
        """Forget the reports about an aggregate."""
        self._reported.pop(stream, None)

    async def load(self, stream: StreamId, baseline: Baseline | None = None) -> Loaded:
        """Load an aggregate; catch up, at most `MAX_RELOADS` times, if its stream has grown meanwhile.

        Args:
            stream: Its name.
            baseline: Where to resume; it is used up.

        Raises:
            Exception: As `Snapshots.load`, and whatever a store raises.
        """
        kind, reported = self._types[stream.aggregate_type], self._reported.pop(stream, 0)
        instance = None if baseline is None else baseline.restored(kind)
        if baseline is None or instance is None:
            memory = CommandMemory(self._remember_commands)
            instance, replayed = await self._snapshots.load(
                kind, stream, reach=memory.reach, look=partial(_note, memory)
            )
            self._statistics.activations += 1
            restored = instance.version - replayed
        else:
            memory, restored = baseline.memory, instance.version
            await self._snapshots.catch_up(instance, stream, reported, partial(_note, memory))
        reported = self._reported.pop(stream, reported)
        for _ in range(MAX_RELOADS):
            if instance.version >= reported:
                break
            await self._snapshots.catch_up(instance, stream, reported, partial(_note, memory))
            reported = self._reported.pop(stream, reported)
        self._statistics.events_replayed += instance.version - restored
        return Loaded(instance, restored, memory, reported)


def _note(memory: CommandMemory, record: Record) -> None:
    memory.note(record.aggregate_version or 0, memory.mark(record.answered))


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A stream could not be replayed.

    Attributes:
        error: The error of the last attempt.
        until: Earliest time of the next attempt, by the system's clock.
        times: Attempts that failed in a row.
    """

    error: BaseException
    until: float
    times: int


def failed_again(earlier: LoadFailure | None, error: BaseException, now: float) -> LoadFailure | None:
    """What an attempt that ended with ``error`` makes of ``earlier``: each failure doubles the pause.

    An error of the world calls for no pause: it may be over soon.
    """
    if isinstance(error, WorldError):
        return earlier
    times = 0 if earlier is None else earlier.times
    return LoadFailure(error, now + LOAD_BACKOFF.delay(times, 0.0), times + 1)
