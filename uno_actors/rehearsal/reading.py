"""One pass over a log by one version of the code: what it can read, the states that it arrives at, and its views."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from uno_actors.aggregates.snapshots import restore
from uno_actors.domain.aggregate import AggregateRoot, new_aggregate
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import UnoError, describe
from uno_actors.printable import bounded
from uno_actors.rehearsal.chance import comparable
from uno_actors.rehearsal.folding import Wanted
from uno_actors.rehearsal.program import FAILURES
from uno_actors.rehearsal.states import digests_of, first_difference, form_of_state, is_same, state_of
from uno_actors.shards import shard_of_key
from uno_actors.store.codec import Record, StreamId, to_event
from uno_actors.store.logs import starts_of_logs
from uno_actors.store.port import EventStore
from uno_actors.store.records import Snapshot, StoredRecord

SIZE = 4_096
"""Records read at once; a store may return fewer, where they are large."""
LONGEST = 300
"""Characters of the text of an error."""

Kind = tuple[str, int]
"""Name and schema version under which an event is recorded."""


@dataclass(slots=True)
class Readable:
    """What became of the events of one kind.

    Attributes:
        count: Events that were read.
        unreadable: Events that could not be read.
        position: Of the first one that could not be read; of the first one, if all could.
        error: Class of the error; empty if all could be read.
        reason: Its text.
    """

    count: int = 0
    unreadable: int = 0
    position: int = 0
    error: str = ""
    reason: str = ""


class Judged(NamedTuple):
    """What the code makes of the snapshots of one type of aggregates.

    Attributes:
        used: It would load them, and they equal the replay.
        ignored: It would not load them, and replay all events instead.
        wrong: It would load them, and their state is not that of the replay.
        stream: An example of those that are wrong, or else ignored.
        version: Of that snapshot.
        reason: Why it is ignored, or how it differs.
    """

    used: int = 0
    ignored: int = 0
    wrong: int = 0
    stream: str = ""
    version: int = 0
    reason: str = ""

    def comes_before(self, other: "Judged") -> bool:
        """Whether its example is the better one: a wrong snapshot before an ignored one, then by name."""
        if not self.reason or not other.reason:
            return bool(self.reason)
        if bool(self.wrong) != bool(other.wrong):
            return bool(self.wrong)
        return self.stream < other.stream


class Loaded:
    """A stream in a pass.

    Attributes:
        instance: With the events so far; ``None`` if the stream cannot be loaded.
        version: Of the stream so far.
        failure: Why it cannot be loaded.
        snapshot: That is to be judged when the stream has its version.
    """

    __slots__ = ("failure", "instance", "snapshot", "version")

    def __init__(self, instance: AggregateRoot | None, snapshot: Snapshot | None) -> None:
        self.instance = instance
        self.snapshot = snapshot
        self.version = 0
        self.failure = ""

    def fail(self, error: BaseException) -> None:
        """Note that it cannot be loaded beyond its version."""
        self.instance = None
        self.failure = f"version {self.version}: {reason_of(error)}"


class Pass:
    """Reads a log in its order, decodes each event once, and applies it where it belongs.

    Args:
        store: Open.
        types: The aggregates of the program by type.
        ends: The last position to read of each log.
        part: Number of the part of the streams that is loaded, from 0; -1 for none.
        parts: Number of parts.
        chosen: The streams to which all is limited; ``None`` for no limit.
        views: The views to build; they count the events of all parts.
        snapshots: Whether to judge the snapshots.

    Attributes:
        kinds: The events by their kinds.
        streams: The streams of the part, of the types that the program has, in the order of the log.
        unknown: The number of streams of each other type.
        judged: The snapshots by type of aggregate.
    """

    def __init__(
        self,
        store: EventStore,
        types: Mapping[str, type[AggregateRoot]],
        ends: Sequence[int],
        *,
        part: int = 0,
        parts: int = 1,
        chosen: Collection[StreamId] | None = None,
        views: Wanted | None = None,
        snapshots: bool = False,
    ) -> None:
        self._store = store
        self._registry = store.event_registry
        self._types = types
        self._ends = ends
        self._part = part
        self._parts = parts
        self._chosen = chosen
        self._views = views
        self._snapshots = snapshots
        self.kinds: dict[Kind, Readable] = {}
        self.streams: dict[StreamId, Loaded] = {}
        self.unknown: dict[str, int] = {}
        self.judged: dict[str, Judged] = {}

    async def run(self, progress: Callable[[int], object]) -> None:
        """Read all; report the number of events that were read from time to time."""
        done = 0
        async for page in pages(self._store, self._ends):
            for stored in page:
                await self._take(stored)
            done += len(page)
            progress(done)

    async def _take(self, stored: StoredRecord) -> None:
        position, record = stored
        stream = record.stream
        if self._chosen is not None and stream not in self._chosen:
            return
        views = () if self._views is None else self._views.by(record)
        if not self._is_ours(record):
            if views and (event := self._read(record, position)) is not None:
                for view in views:
                    await view.count(event, position)
            return
        found = self._decoded(record, position)
        if views and not isinstance(found, BaseException):
            for view in views:
                await view.count(found, position)
        if stream is not None:
            loaded = self.streams.get(stream)
            if loaded is None:
                loaded = await self._begun(stream, record)
            if loaded is not None:
                self._apply(loaded, found)
                if (snapshot := loaded.snapshot) is not None and snapshot.version == loaded.version:
                    await self._compare(stream, snapshot, loaded.instance)

    def _is_ours(self, record: Record) -> bool:
        if self._parts == 1 or self._part < 0:
            return self._part == 0
        if record.aggregate_id is None:
            return self._part == 0
        return shard_of_key(record.aggregate_type or "", record.aggregate_id) % self._parts == self._part

    def _read(self, record: Record, position: int) -> DomainEvent | None:
        try:
            return to_event(record, self._registry, position)
        except FAILURES:  # the part to which the event belongs reports it
            return None

    def _decoded(self, record: Record, position: int) -> DomainEvent | BaseException:
        """The event, or why it cannot be read; both are counted."""
        kind = record.event_type, record.version
        found = self.kinds.get(kind)
        if found is None:
            found = self.kinds[kind] = Readable(position=position)
        try:
            event = to_event(record, self._registry, position)
        except FAILURES as error:  # an upcast may raise anything
            if not found.unreadable:
                found.position, found.error, found.reason = position, type(error).__name__, reason_of(error)
            found.unreadable += 1
            return error
        found.count += 1
        return event

    async def _begun(self, stream: StreamId, record: Record) -> Loaded | None:
        """The stream that begins; ``None`` if the program has no class for it."""
        kind = self._types.get(stream.aggregate_type)
        if kind is None:
            if record.aggregate_version == 1:
                self.unknown[stream.aggregate_type] = self.unknown.get(stream.aggregate_type, 0) + 1
            return None
        snapshot = None
        if self._snapshots:
            try:
                snapshot = await self._store.read_snapshot(stream)
            except Exception as error:  # noqa: BLE001 - a damaged one is ignored, as in production
                self._judge(stream, 0, ignored=reason_of(error))
        try:
            loaded = Loaded(new_aggregate(kind, stream.aggregate_id), snapshot)
        except FAILURES as error:  # its __init__ may raise anything
            loaded = Loaded(None, snapshot)
            loaded.fail(error)
        self.streams[stream] = loaded
        return loaded

    def _apply(self, loaded: Loaded, found: DomainEvent | BaseException) -> None:
        loaded.version += 1
        instance = loaded.instance
        if instance is None:
            return
        if isinstance(found, BaseException):
            loaded.fail(found)
            return
        try:
            instance.replay((found,))
        except FAILURES as error:  # an apply_ method may raise anything
            loaded.fail(error)

    async def _compare(self, stream: StreamId, snapshot: Snapshot, replayed: AggregateRoot | None) -> None:
        if replayed is None:
            return
        try:
            restored = restore(type(replayed), snapshot)
            one, other = form_of_state(state_of(restored)), form_of_state(state_of(replayed))
            if not is_same(one, other):  # what differs between two replays may differ here
                again = form_of_state(state_of(await self._replayed_again(stream, snapshot.version)))
                one, other = comparable((one, one), (other, again))
        except FAILURES as error:  # a hook may raise anything
            self._judge(stream, snapshot.version, ignored=reason_of(error))
            return
        parted = first_difference(one, other)
        wrong = "" if parted is None else f"{parted.path} is {parted.old}, but {parted.new} after a replay"
        self._judge(stream, snapshot.version, wrong=wrong)

    async def _replayed_again(self, stream: StreamId, version: int) -> AggregateRoot:
        instance = new_aggregate(self._types[stream.aggregate_type], stream.aggregate_id)
        while instance.version < version and (
            page := await self._store.read_stream(stream, instance.version, version - instance.version)
        ):
            for position, record in page:
                instance.replay((to_event(record, self._registry, position),))
        return instance

    def _judge(self, stream: StreamId, version: int, *, ignored: str = "", wrong: str = "") -> None:
        so_far = self.judged.get(stream.aggregate_type) or Judged()
        used = not ignored and not wrong
        this = Judged(0, bool(ignored), bool(wrong), str(stream), version, wrong or ignored)
        example = this if this.comes_before(so_far) else so_far
        self.judged[stream.aggregate_type] = example._replace(
            used=so_far.used + used,
            ignored=so_far.ignored + bool(ignored),
            wrong=so_far.wrong + bool(wrong),
        )

    def result(self, stream: StreamId) -> tuple[dict[str, bytes] | None, str]:
        """The digests of a stream's state by field; or ``None``, and why it cannot be loaded."""
        loaded = self.streams[stream]
        if loaded.instance is None:
            return None, loaded.failure
        try:
            return digests_of(loaded.instance), ""
        except FAILURES as error:  # its own to_snapshot may raise anything
            return None, f"its state cannot be compared: {reason_of(error)}"


def reason_of(error: BaseException) -> str:
    """The text of an error, with the name of its class unless it is one of the framework's."""
    return bounded(str(error) if isinstance(error, UnoError) else describe(error), LONGEST)


async def pages(store: EventStore, ends: Sequence[int]) -> AsyncIterator[list[StoredRecord]]:
    """The records of each log up to its end, page by page."""
    for start, end in zip(starts_of_logs(len(ends)), ends, strict=True):
        after = start
        while after < end:
            page = await store.read_log(after, min(SIZE, end - after))
            if not page:
                break
            after = page[-1].position
            yield page if after <= end else [stored for stored in page if stored.position <= end]
