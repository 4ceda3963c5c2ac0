"""Stores against a model so simple that it is plainly right: lists and dicts, driven by Hypothesis."""

import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.postgres import postgres
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import AmbiguousStream, CheckpointConflict, ConcurrencyConflict, UnoError
from uno_actors.store.codec import StreamId, to_record
from uno_actors.store.expected_version import EXISTS
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended, Checkpoint, DeadLetter, Snapshot
from uno_actors.testing.contract.events import Noted
from uno_stores import InMemoryEventStore, LmdbEventStore

T = TypeVar("T")

# Few names, so that they meet often, and such as are prefixes of each other.
IDS = st.sampled_from(["a", "ab", "a.b", "🚀"])
TYPES = st.sampled_from(["A", "AB"])
STREAMS = st.builds(StreamId, TYPES, IDS)
HANDLERS = st.sampled_from(["h", "h2", "h 2"])
MOMENT = datetime(2024, 6, 1, tzinfo=UTC)

ALL_STREAMS = [StreamId(of, name) for of in ("A", "AB") for name in ("a", "ab", "a.b", "🚀")]
SNAPSHOTS = st.builds(
    Snapshot, STREAMS, st.integers(1, 2**40), st.integers(1, 9), st.binary(max_size=9), st.just(MOMENT)
)


@st.composite
def events(draw: st.DrawFn) -> Noted:
    """An event of some stream or of none, which now and then brings its version."""
    stream = draw(st.none() | STREAMS)
    event = Noted(
        text=draw(st.text(max_size=3) | st.just("x" * 3_000)),
        timestamp=MOMENT + timedelta(seconds=draw(st.integers(0, 5))),
    )
    if stream is None:
        return event
    version = draw(st.sampled_from([None, None, None, 1, 2, 3]))
    return event.stamped(
        aggregate_type=stream.aggregate_type, aggregate_id=stream.aggregate_id, aggregate_version=version
    )


MOVES = st.builds(
    Checkpoint,
    HANDLERS,
    st.integers(0, 6),
    st.none() | st.integers(0, 6),
    st.sampled_from([False, False, True]),
)
REQUESTS = st.builds(
    Append,
    st.lists(events(), min_size=1, max_size=4).map(tuple),
    st.sampled_from([None, None, None, 0, 1, 2, 3, EXISTS]),
    st.none() | MOVES,
    condition=st.none(),  # which have properties of their own
)
"""With events in the place of records."""


class Model:
    """The log, from which everything else is told."""

    def __init__(self) -> None:
        self.log: list[Noted] = []
        self.checkpoints: dict[str, int] = {}
        self.letters: dict[tuple[str, int], DeadLetter] = {}
        self.snapshots: dict[StreamId, Snapshot] = {}

    def stream(self, stream: StreamId) -> list[tuple[int, Noted]]:
        return [(n, e) for n, e in enumerate(self.log, 1) if (e.aggregate_type, e.aggregate_id) == stream]

    def commit(self, request: Append) -> list[Noted] | type[UnoError]:
        """What is recorded, or the error of the conflict."""
        move = request.checkpoint
        if move is not None:
            actual = self.checkpoints.get(move.name)
            if move.was is not None and move.was != (actual or 0):
                return CheckpointConflict
            if actual is not None and actual >= move.position and not move.may_go_back:
                return CheckpointConflict
        recorded = self.append(request.records, request.expected_version)  # type: ignore[arg-type]
        if recorded is None:
            return ConcurrencyConflict
        if move is not None:
            self.checkpoints[move.name] = move.position
        return recorded

    def append(self, batch: Sequence[Noted], expected: int | object | None) -> list[Noted] | None:
        """What is recorded; ``None`` is a conflict."""
        recorded: list[Noted] = []
        for event in batch:
            if event.aggregate_id is None:
                recorded.append(event)
                continue
            stream = StreamId(event.aggregate_type or "", event.aggregate_id)
            before = len(self.stream(stream))
            if (expected is EXISTS and not before) or (isinstance(expected, int) and expected != before):
                return None
            head = before + sum((e.aggregate_type, e.aggregate_id) == stream for e in recorded)
            if event.aggregate_version not in (None, head + 1):
                return None
            recorded.append(event.stamped(aggregate_version=head + 1))
        self.log += recorded
        return recorded


class Stores(RuleBasedStateMachine):
    """Everything is done to a store of each kind and to the model, and all three must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.registry = EventRegistry([Noted])
        self.model = Model()
        self.durable = self.opened()
        self.memory = InMemoryEventStore(self.registry)

    def opened(self) -> EventStore:
        return LmdbEventStore(Path(self.directory.name) / "store", self.registry)

    def teardown(self) -> None:
        for store in self.stores:
            self.run(store.close())
        self.runner.close()
        self.directory.cleanup()

    @property
    def stores(self) -> tuple[EventStore, EventStore]:
        return self.memory, self.durable

    def run(self, work: Awaitable[T]) -> T:
        async def await_it() -> T:
            return await work

        return self.runner.run(await_it())

    def position(self, place: float) -> int:
        """A position in the log, or just beyond it."""
        return round(place * (len(self.model.log) + 1))

    # --- writing ---

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4))
    def commit(self, requests: list[Append]) -> None:
        wanted = [(len(self.model.log) + 1, self.model.commit(request)) for request in requests]
        appends = [
            request._replace(records=tuple(map(to_record, request.records)))  # type: ignore[arg-type]
            for request in requests
        ]
        for store in self.stores:
            for outcome, (first, recorded) in zip(self.run(store.commit(appends)), wanted, strict=True):
                if isinstance(recorded, type):
                    assert isinstance(outcome, recorded)
                else:
                    assert isinstance(outcome, Appended)
                    assert outcome.positions == range(first, first + len(recorded))
                    assert outcome.records == tuple(map(to_record, recorded))

    @rule(stream=STREAMS, number=st.integers(1, 5), off=st.sampled_from([0, 0, 0, -1, 1]))
    def append(self, stream: StreamId, number: int, off: int) -> None:
        head = len(self.model.stream(stream))
        batch = [Noted(aggregate_type=stream.aggregate_type, aggregate_id=stream.aggregate_id)] * number
        expected = max(0, head + off)
        recorded = self.model.append(batch, expected)
        for store in self.stores:
            if recorded is None:
                with pytest.raises(ConcurrencyConflict) as caught:
                    self.run(store.append(*batch, expected_version=expected))
                assert (caught.value.expected, caught.value.actual) == (expected, head)
            else:
                found = self.run(store.append(*batch, expected_version=expected))
                assert [event for _, event in found] == recorded

    @rule(streams=st.lists(STREAMS, min_size=2, max_size=8))
    def append_at_once(self, streams: list[StreamId]) -> None:
        async def all_at_once(store: EventStore) -> list[int]:
            done = await asyncio.gather(
                *[store.append(Noted(aggregate_type=of, aggregate_id=name, event_id=str(n), timestamp=MOMENT))
                  for n, (of, name) in enumerate(streams)]
            )  # fmt: skip
            return [recorded[0].position for recorded in done]

        first = len(self.model.log) + 1
        for n, (of, name) in enumerate(streams):
            self.model.append(
                [Noted(aggregate_type=of, aggregate_id=name, event_id=str(n), timestamp=MOMENT)], None
            )
        for store in self.stores:
            assert self.run(all_at_once(store)) == list(range(first, first + len(streams)))

    @rule(
        checkpoints=st.dictionaries(HANDLERS, st.integers(0, 2**40), max_size=2),
        letters=st.lists(st.tuples(HANDLERS, st.integers(1, 300), st.integers(1, 9)), max_size=3),
    )
    def save_progress(self, checkpoints: dict[str, int], letters: list[tuple[str, int, int]]) -> None:
        dead = [DeadLetter(h, at, "Noted", n, "E", "Traceback", MOMENT, MOMENT) for h, at, n in letters]
        self.model.checkpoints |= checkpoints
        self.model.letters |= {(letter.handler, letter.position): letter for letter in dead}
        for store in self.stores:
            self.run(store.save_progress(checkpoints, dead))

    @rule(data=st.data())
    def drop_dead_letter(self, data: st.DataObject) -> None:
        known = st.sampled_from(sorted(self.model.letters)) if self.model.letters else st.nothing()
        place = data.draw(known | st.tuples(HANDLERS, st.integers(1, 300)))
        wanted = self.model.letters.pop(place, None) is not None
        assert [self.run(store.drop_dead_letter(*place)) for store in self.stores] == [wanted, wanted]

    @rule(handler=HANDLERS)
    def drop_progress(self, handler: str) -> None:
        letters = [place for place in self.model.letters if place[0] == handler]
        for place in letters:
            del self.model.letters[place]
        wanted = self.model.checkpoints.pop(handler, None) is not None or bool(letters)
        assert [self.run(store.drop_progress(handler)) for store in self.stores] == [wanted, wanted]

    @rule(stream=STREAMS)
    def drop_snapshot(self, stream: StreamId) -> None:
        wanted = self.model.snapshots.pop(stream, None) is not None
        assert [self.run(store.drop_snapshot(stream)) for store in self.stores] == [wanted, wanted]

    @rule(snapshots=st.lists(SNAPSHOTS, max_size=3))
    def save_snapshots(self, snapshots: list[Snapshot]) -> None:
        self.model.snapshots |= {snapshot.stream: snapshot for snapshot in snapshots}
        for store in self.stores:
            self.run(store.save_snapshots(snapshots))

    @rule(aggregate_type=st.none() | TYPES)
    def drop_snapshots(self, aggregate_type: str | None) -> None:
        dropped = [s for s in self.model.snapshots if aggregate_type in (None, s.aggregate_type)]
        for stream in dropped:
            del self.model.snapshots[stream]
        counts = [self.run(store.drop_snapshots(aggregate_type)) for store in self.stores]
        assert counts == [len(dropped)] * 2

    @rule(name=HANDLERS, index=st.integers(0, 1))
    def lease_and_release(self, name: str, index: int) -> None:
        store = self.stores[index]
        lease = self.run(store.lease(name))
        assert lease is not None
        assert self.run(store.lease(name)) is None, "it is taken"
        self.run(lease.release())

    @precondition(lambda self: self.model.log)
    @rule()
    def reopen(self) -> None:
        self.run(self.durable.close())
        self.durable = self.opened()

    # --- reading ---

    @rule(
        after=st.floats(0, 1),
        limit=st.none() | st.integers(0, 5),
        until=st.none() | st.floats(0, 1),
        stream=st.none() | STREAMS,
        has_type=st.booleans(),
    )
    def read_all(
        self, *, after: float, limit: int | None, until: float | None, stream: StreamId | None, has_type: bool
    ) -> None:
        start, end = self.position(after), None if until is None else self.position(until)
        of = {} if stream is None else stream._asdict()
        if not has_type:
            of.pop("aggregate_type", None)
        log = list(enumerate(self.model.log, 1))[start:end]
        log = [each for each in log if all(getattr(each[1], name) == value for name, value in of.items())]
        wanted = log if limit is None else log[:limit]

        async def read(store: EventStore) -> list[Any]:
            return [tuple(recorded) async for recorded in store.read_all(start, limit, until=end, **of)]

        for store in self.stores:
            assert self.run(read(store)) == wanted

    @rule(stream=STREAMS, after=st.integers(0, 6), limit=st.integers(0, 6))
    def read_stream(self, stream: StreamId, after: int, limit: int) -> None:
        wanted = [(n, to_record(event)) for n, event in self.model.stream(stream)][after:][:limit]
        for store in self.stores:
            assert [tuple(stored) for stored in self.run(store.read_stream(stream, after, limit))] == wanted

    @rule(
        stream=STREAMS,
        since=st.none() | st.integers(0, 6),
        second=st.none() | st.integers(0, 6),
        limit=st.none() | st.integers(0, 6),
        backward=st.booleans(),
        until=st.none() | st.integers(0, 6),
    )
    def get_events(
        self,
        *,
        stream: StreamId,
        since: int | None,
        second: int | None,
        limit: int | None,
        backward: bool,
        until: int | None,
    ) -> None:
        moment = None if second is None else MOMENT + timedelta(seconds=second)
        wanted = [event for _, event in self.model.stream(stream)][since or 0 : until]
        wanted = wanted[::-1] if backward else wanted
        wanted = [event for event in wanted if moment is None or event.timestamp >= moment][:limit]
        for store in self.stores:
            found = store.get_events(
                stream.aggregate_id,
                since,
                moment,
                limit,
                aggregate_type=stream.aggregate_type,
                backward=backward,
                until_version=until,
            )
            assert self.run(found) == wanted
            assert self.run(store.last_version(stream)) == len(self.model.stream(stream))

    @rule(id=IDS)
    def get_events_by_id_alone(self, id: str) -> None:
        types = sorted({event.aggregate_type or "" for event in self.model.log if event.aggregate_id == id})
        for store in self.stores:
            assert self.run(store.aggregate_types(id)) == types
            if len(types) > 1:
                with pytest.raises(AmbiguousStream) as caught:
                    self.run(store.get_events(id))
                assert caught.value.types == tuple(types)
            else:
                found = self.run(store.get_events(id))
                assert found == [event for event in self.model.log if event.aggregate_id == id]

    @rule(handler=HANDLERS)
    def list_dead_letters(self, handler: str) -> None:
        wanted = [letter for place, letter in sorted(self.model.letters.items()) if place[0] == handler]
        for store in self.stores:
            assert self.run(store.dead_letters(handler)) == wanted

    # --- always ---

    @invariant()
    def snapshots_agree(self) -> None:
        for stream in ALL_STREAMS:
            wanted = self.model.snapshots.get(stream)
            for store in self.stores:
                assert self.run(store.read_snapshot(stream)) == wanted

    @invariant()
    def ends_agree(self) -> None:
        for store in self.stores:
            assert self.run(store.last_position()) == len(self.model.log)
            assert self.run(store.checkpoints()) == self.model.checkpoints

    @invariant()
    def dead_letters_agree(self) -> None:
        wanted = [letter for _, letter in sorted(self.model.letters.items())]
        for store in self.stores:
            assert self.run(store.dead_letters()) == wanted


TestStoresAgreeWithTheModel = Stores.TestCase
TestStoresAgreeWithTheModel.settings = settings(max_examples=25, stateful_step_count=25)


class SqliteStores(Stores):
    """The same with SQLite in the place of LMDB."""

    def opened(self) -> EventStore:
        return open_store(f"sqlite+aiosqlite:///{self.directory.name}/store.db", self.registry)


class PostgresStores(Stores):
    """The same with PostgreSQL in the place of LMDB."""

    url: str | None = None

    def opened(self) -> EventStore:
        self.url = self.url or self.run(postgres().new_url())
        return open_store(self.url, self.registry)


TestSqliteAgreesWithTheModel = SqliteStores.TestCase
TestPostgresAgreesWithTheModel = PostgresStores.TestCase
TestSqliteAgreesWithTheModel.settings = settings(max_examples=4, stateful_step_count=20)
TestPostgresAgreesWithTheModel.settings = settings(max_examples=4, stateful_step_count=20)
