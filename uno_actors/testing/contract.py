"""What every event store promises, as checks that run against any store: yours too.

A store is handed over as a function that makes an empty place for it and cleans up behind it::

    @asynccontextmanager
    async def make_store() -> AsyncIterator[StorePlace]:
        with TemporaryDirectory() as directory:

            async def open_store(event_registry: EventRegistry) -> EventStore:
                return MyEventStore(directory, event_registry)

            yield StorePlace(open_store)


    await check_event_store(make_store)

To see each promise as a test of its own, parametrize over `CONTRACT`; a check's docstring is its promise.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from uno_actors.domain.events import DomainEvent, EventRegistry, Payload
from uno_actors.errors import (
    AmbiguousStream,
    ConcurrencyConflict,
    EventNotSerializable,
    InvalidAggregateId,
    InvalidHandler,
    StoreUnavailable,
    UnknownEventType,
    UnoError,
)
from uno_actors.store.codec import Record, StreamId, to_record
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, Append, Appended, DeadLetter, RecordedEvent, Snapshot, ViewChange


@dataclass(frozen=True)
class StorePlace:
    """An empty place for a store.

    Attributes:
        open: Opens the store. Called again after the store was closed, it opens the same place.
        durable: Whether what was recorded is found there when it is opened again.
    """

    open: Callable[[EventRegistry], Awaitable[EventStore]]
    durable: bool = True


MakeStore = Callable[[], AbstractAsyncContextManager[StorePlace]]
Check = Callable[[MakeStore], Awaitable[None]]


DEADLINE = 60.0
"""Seconds that one check may take before it counts as hanging."""
PATIENCE = 10.0
"""Seconds that a subscription may take to hear of what was recorded."""


async def check_event_store(make_store: MakeStore) -> None:
    """Run every check of `CONTRACT`, each on a fresh store.

    Raises:
        AssertionError: A promise is not kept; its text names the check and the promise.
    """
    for check in CONTRACT:
        try:
            await asyncio.wait_for(check(make_store), DEADLINE)
        except Exception as error:
            raise AssertionError(
                f"{check.__name__}: {check.__doc__} Found {type(error).__name__}: {error}"
            ) from error


@asynccontextmanager
async def opened(make_store: MakeStore, *event_types: type[DomainEvent]) -> AsyncIterator[EventStore]:
    """A fresh store that knows the event types of the checks, or those given; closed in the end."""
    async with make_store() as place:
        store = await place.open(EventRegistry(event_types or (Noted, Measured)))
        try:
            yield store
        finally:
            await store.close()


# --- the events of the checks; their names stay out of the way of yours ------------------------------------


class Noted(DomainEvent):
    """An event with next to nothing in it."""

    event_type: str = "uno_actors.testing.Noted"
    text: str = ""


class Unit(Enum):
    """An enumeration in a payload."""

    METRE = "m"
    FOOT = "ft"


class Point(BaseModel):
    """A model in a payload, with models in it."""

    x: Decimal
    when: datetime | None = None
    inner: tuple["Point", ...] = ()


class Measured(DomainEvent):
    """An event with every kind of value in it."""

    event_type: str = "uno_actors.testing.Measured"
    nothing: None
    yes: bool
    whole: int
    broken: float
    exact: Decimal
    text: str
    raw: bytes
    key: UUID
    day: date
    hour: time
    naive: datetime
    aware: datetime
    span: timedelta
    unit: Unit
    point: Point
    items: list[Decimal]
    pair: tuple[int, str]
    members: set[str]
    frozen: frozenset[int]
    by_number: dict[int, list[Unit]]
    by_key: dict[UUID, Point]
    by_place: dict[tuple[int, int], str]


class MovedThen(DomainEvent):
    """An event as an older program recorded it: schema version 1."""

    event_type: str = "uno_actors.testing.Moved"
    to: str


class MovedLater(DomainEvent):
    """The same type as a less old program recorded it: schema version 2."""

    event_type: str = "uno_actors.testing.Moved"
    version: int = 2
    address: str


class MovedNow(DomainEvent):
    """The same type as today's program reads it: schema version 3."""

    event_type: str = "uno_actors.testing.Moved"
    version: int = 3
    street: str
    town: str


def _noted(aggregate_id: str | None, text: str = "", *, of: str = "Account", **metadata: Any) -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type=aggregate_id and of, text=text, **metadata)


def _measured() -> Measured:
    west = timezone(timedelta(hours=-8))
    return Measured(
        aggregate_id="all",
        aggregate_type="Kinds",
        nothing=None,
        yes=True,
        whole=-(2**63),
        broken=1.7976931348623157e308,
        exact=Decimal("0.10000000000000000000000000001"),
        text="naïve 🚀 \x00 \n",
        raw=bytes(range(256)),
        key=UUID(int=7),
        day=date(1752, 9, 14),
        hour=time(23, 59, 59, 999_999),
        naive=datetime(2024, 2, 29, 1, 2, 3, 456_789),  # noqa: DTZ001 - naive on purpose
        aware=datetime(1969, 7, 20, 12, 17, 40, 1, tzinfo=west),
        span=timedelta(days=-3, microseconds=1),
        unit=Unit.FOOT,
        point=Point(x=Decimal("1.50"), inner=(Point(x=Decimal(-0), when=datetime(1, 1, 2, tzinfo=UTC)),)),
        items=[Decimal("1E+40"), Decimal("2.0")],
        pair=(1, "one"),
        members={"a", "b"},
        frozen=frozenset({1, 2}),
        by_number={-1: [Unit.METRE], 2**40: []},
        by_key={UUID(int=1): Point(x=Decimal(1))},
        by_place={(1, 2): "here"},
    )


async def _texts(store: EventStore, aggregate_id: str, of: str = "Account", **narrowed: Any) -> list[str]:
    events = await store.get_events(aggregate_id, aggregate_type=of, **narrowed)
    return [event.text for event in events if isinstance(event, Noted)]


async def _log(store: EventStore, after: int = 0, limit: int | None = None) -> list[RecordedEvent]:
    log: list[RecordedEvent] = []
    async for recorded in store.read_all(after, limit):
        if recorded.position <= after:  # a store that stands still would be read for ever
            raise AssertionError(f"position {recorded.position} was read after {after}")
        after = recorded.position
        log.append(recorded)
    return log


async def _versions(store: EventStore, aggregate_id: str, of: str = "Account") -> list[int | None]:
    return [event.aggregate_version for event in await store.get_events(aggregate_id, aggregate_type=of)]


def _equal(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, found {found!r}")


async def _raises(kind: type[BaseException], call: Awaitable[object], what: str) -> BaseException:
    try:
        result = await call
    except kind as error:
        return error
    raise AssertionError(f"{what}: expected {kind.__name__}, found {result!r}")


# --- places ------------------------------------------------------------------------------------------------


async def positions_only_grow(make_store: MakeStore) -> None:
    """Positions in the log grow, and the events of one append stand side by side."""
    async with opened(make_store) as store:
        _equal(await store.last_position(), 0, "the end of an empty log")
        _equal(await _log(store), [], "an empty log")
        await store.append(_noted("a"), _noted("b"), _noted("a"))
        await store.append(_noted(None))
        recorded = await store.append(_noted("c"), _noted("a"))
        positions = [position for position, _ in await _log(store)]
        _equal(len(positions), 6, "the number of events in the log")
        if positions[0] < 1 or positions != sorted(set(positions)):
            raise AssertionError(f"positions must grow from 1 or later, found {positions}")
        _equal([position for position, _ in recorded], positions[-2:], "positions that append returned")
        _equal(
            positions[1:3] + positions[5:], [positions[0] + 1, positions[0] + 2, positions[4] + 1], "places"
        )
        _equal(await store.last_position(), positions[-1], "the end of the log")


async def append_returns_what_readers_read(make_store: MakeStore) -> None:
    """What `append` returns, with places filled in, is what the log and the stream hold."""
    async with opened(make_store) as store:
        sent = _noted("a", "one", topic="accounts.noted", correlation_id="c", causation_id="k")
        recorded = await store.append(sent, _noted("a", "two"))
        _equal(await _log(store), recorded, "the log")
        _equal(await store.get_events("a"), [event for _, event in recorded], "the stream")
        _equal(recorded[0].event, sent.stamped(aggregate_version=1), "the first event")


async def appending_nothing_changes_nothing(make_store: MakeStore) -> None:
    """An append without events, and a commit without requests, leave no trace."""
    async with opened(make_store) as store:
        _equal(await store.append(), [], "append()")
        _equal(await store.commit([]), [], "commit([])")
        _equal(await store.last_position(), 0, "the end of the log")


async def versions_count_each_stream(make_store: MakeStore) -> None:
    """Versions run 1, 2, 3 in each stream, however appends to several streams alternate."""
    async with opened(make_store) as store:
        await store.append(_noted("a"), _noted("b"), _noted("a"))
        await store.append(_noted("b"))
        await store.append(_noted("a"), _noted("b"))
        _equal(await _versions(store, "a"), [1, 2, 3], "versions of a")
        _equal(await _versions(store, "b"), [1, 2, 3], "versions of b")


async def streams_are_named_by_type_and_id(make_store: MakeStore) -> None:
    """Streams of one id and different aggregate types never meet."""
    async with opened(make_store) as store:
        await store.append(_noted("alice", "account", of="Account"))
        await store.append(_noted("alice", "user", of="User"), expected_version=0)
        await store.append(_noted("alice", "account again", of="Account"), expected_version=1)
        _equal(await _texts(store, "alice", of="Account"), ["account", "account again"], "the account")
        _equal(await _texts(store, "alice", of="User"), ["user"], "the user")
        _equal(await store.aggregate_types("alice"), ["Account", "User"], "types of alice")
        _equal(await store.aggregate_types("bob"), [], "types of nobody")


ODD_NAMES: Sequence[str] = (
    "a", "a.b", "a.b.c", "a/b", "/", "..", "a b", " ", "a\n", "a\x01", "A", "ab", "é", "e\u0301", "🚀",
    "🚀🚀", "%00", "x" * 254, "x" * 255, "🚀" * 63 + "abc", "\U0010ffff", "-1", "0",
    "'; drop table events; --",
)  # fmt: skip
"""Legal ids that a store may mix up: with separators, prefixes of others, the longest, and so on."""


async def odd_ids_never_meet(make_store: MakeStore) -> None:
    """Ids of dots, slashes, spaces, emoji, prefixes of others and the greatest length are told apart."""
    async with opened(make_store) as store:
        for turn in range(2):
            for name in ODD_NAMES:
                await store.append(_noted(name, f"{name} {turn}"), expected_version=turn)
        for name in ODD_NAMES:
            _equal(await _texts(store, name), [f"{name} 0", f"{name} 1"], f"the stream of {name!r}")
            _equal(await store.aggregate_types(name), ["Account"], f"types of {name!r}")


async def odd_types_never_meet(make_store: MakeStore) -> None:
    """Aggregate types that are prefixes of each other, or as long as allowed, are told apart."""
    async with opened(make_store) as store:
        types = sorted(["A", "AB", "A.B", "A B", "Ä", "🚀", "T" * 199, "T" * 200])
        for of in types:
            await store.append(_noted("x" * 255, of, of=of), expected_version=0)
        for of in types:
            _equal(await _texts(store, "x" * 255, of=of), [of], f"the stream of type {of!r}")
        _equal(await store.aggregate_types("x" * 255), types, "types of the id")


async def impossible_ids_are_refused(make_store: MakeStore) -> None:
    """An empty id, one of more than 255 bytes or one with a NUL is refused, recorded and looked for nowhere."""
    async with opened(make_store) as store:
        for name in ("", "x" * 256, "é" * 128, "a\0b", "\ud800"):
            await _raises(InvalidAggregateId, store.get_events(name), f"get_events of {name!r}")
            await _raises(
                InvalidAggregateId, store.append(_noted("fine"), _noted(name)), f"append to {name!r}"
            )
        _equal(await store.last_position(), 0, "the end of the log")


async def events_without_aggregate_stand_in_the_log_alone(make_store: MakeStore) -> None:
    """An event without aggregate id has a position and no version, and belongs to no stream."""
    async with opened(make_store) as store:
        recorded = await store.append(_noted("a", "in a stream"), _noted(None, "alone"))
        _equal([event.aggregate_version for _, event in recorded], [1, None], "versions")
        _equal(await _log(store), recorded, "the log")
        _equal(await _texts(store, "a"), ["in a stream"], "the stream")
        await _raises(ValueError, store.append(_noted(None), expected_version=0), "an expected version")


async def what_one_store_refuses_all_refuse(make_store: MakeStore) -> None:
    """A record whose header no other store could keep is refused alone, whatever the store; its edges come back."""
    async with opened(make_store) as store:
        record = to_record(_noted("a", "fine"))
        refused = [_with(record, name, value) for name, value in _each(IMPOSSIBLE_HEADERS)]
        outcomes = await store.commit([Append((each,)) for each in (record, *refused, record)])
        for each, outcome in zip(refused, outcomes[1:-1], strict=True):
            is_refused = isinstance(outcome, EventNotSerializable | InvalidAggregateId)
            _equal(is_refused, True, f"whether {each!r} is refused")
        possible = [_with(record, name, value) for name, value in _each(POSSIBLE_HEADERS)]
        outcomes += await store.commit([Append((each,)) for each in possible])
        kept = [each for outcome in outcomes if isinstance(outcome, Appended) for each in outcome.records]
        _equal(len(kept), 2 + len(possible), "how many records were kept")
        _equal([each for _, each in await store.read_log()], kept, "the log")


def _each(fields: Mapping[str, Sequence[object]]) -> list[tuple[str, object]]:
    return [(name, value) for name, values in fields.items() for value in values]


def _with(record: Record, name: str, value: object) -> Record:
    return Record._make({**record._asdict(), name: value}.values())


IMPOSSIBLE_TEXTS: Sequence[object] = ("a\0b", "\ud800", "x" * 1001, "é" * 501, b"a", 1, 0, False)
"""Of a header field: with a NUL, not to be written as UTF-8, too long, of another type."""
IMPOSSIBLE_NUMBERS: Sequence[object] = (0, -1, 2**63, 2**70, 1.0, True, "1")
IMPOSSIBLE_HEADERS: Mapping[str, Sequence[object]] = {
    **dict.fromkeys(["event_id", "event_type"], (*IMPOSSIBLE_TEXTS, None)),
    **dict.fromkeys(["topic", "correlation_id", "causation_id", "command_id"], IMPOSSIBLE_TEXTS),
    "command_causation_id": IMPOSSIBLE_TEXTS,
    "aggregate_id": (*IMPOSSIBLE_TEXTS, "", "x" * 256),
    "aggregate_type": (*IMPOSSIBLE_TEXTS, "x" * 201),
    "version": (*IMPOSSIBLE_NUMBERS, None),
    "aggregate_version": IMPOSSIBLE_NUMBERS,
    "timestamp": (
        None, 0, "2024-06-01", datetime(2024, 6, 1),  # noqa: DTZ001
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=8))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-8))),
    ),
    "reply": ("text", 1),
    "payload": (None, "text", 1),
}  # fmt: skip
"""Header fields of a record that no store keeps."""
POSSIBLE_TEXTS = ("", "x" * 1000, "é" * 500, "\x01\n\x7f", "\u202e\ufeff", "🚀", "' OR 1=1")
POSSIBLE_HEADERS: Mapping[str, Sequence[object]] = {
    **dict.fromkeys(["event_id", "event_type", "topic", "correlation_id", "causation_id"], POSSIBLE_TEXTS),
    **dict.fromkeys(["command_id", "command_causation_id"], POSSIBLE_TEXTS),
    "version": (1, 2**31, 2**63 - 1),
    "timestamp": (
        datetime.min.replace(tzinfo=UTC), datetime(1, 1, 1, 23, 59, tzinfo=UTC), datetime(1582, 10, 10, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2024, 2, 29, 12, 0, 0, 1, UTC), datetime.max.replace(tzinfo=UTC),
    ),
    "reply": (b"", b"\x00\xff"),
}  # fmt: skip
"""Header fields at the edges of what every store keeps, and gives back as they were."""


async def progress_that_one_store_refuses_all_refuse(make_store: MakeStore) -> None:
    """Names of handlers, positions and keys of views have the same limits in every store."""
    async with opened(make_store) as store:
        for name in ("", "x" * 503, "a\0b", "\ud800"):
            await _raises(InvalidHandler, store.save_progress({name: 1}), f"a handler named {name!r}")
            change = ViewChange(name, b"k", b"v")
            await _raises(InvalidHandler, store.save_progress({}, views=[change]), f"a view named {name!r}")
            if name:
                await _raises(InvalidHandler, store.lease(name), f"a lease of {name!r}")
        for position in (-1, 2**63, 2**70):
            await _raises(ValueError, store.save_progress({"mail": position}), f"position {position}")
        for key in (b"", b"x" * 251):
            change = ViewChange("view", key, b"v")
            await _raises(ValueError, store.save_progress({}, views=[change]), f"a key of {len(key)} bytes")
        await store.save_progress({"x" * 502: 2**63 - 1, "é": 0}, views=[ViewChange("v", b"x" * 250, b"")])
        _equal(await store.checkpoints(), {"x" * 502: 2**63 - 1, "é": 0}, "the checkpoints")
        _equal(await store.read_view("v"), [(b"x" * 250, b"")], "the view")


async def a_loop_of_appends_leaves_time_for_others(make_store: MakeStore) -> None:
    """A task that does nothing but append lets the other tasks of the loop run."""
    async with opened(make_store) as store:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        for _ in range(20):
            await store.append(_noted("a"))
        after_appends = turns
        for number in range(20):
            await store.save_progress({"mail": number})
        counting.cancel()
        if after_appends < 20 or turns - after_appends < 20:
            raise AssertionError(
                f"another task had {after_appends} turns in 20 appends, and {turns} in 40 writes"
            )


# --- expected versions -------------------------------------------------------------------------------------


async def expected_version_is_the_fence(make_store: MakeStore) -> None:
    """0 means a new stream, n one of exactly n events, ANY whatever is there; all else is a conflict."""
    async with opened(make_store) as store:
        await store.append(_noted("a", "1"), expected_version=0)
        await store.append(_noted("a", "2"), _noted("a", "3"), expected_version=1)
        await store.append(_noted("a", "4"))
        for wrong in (0, 1, 3, 5):
            error = await _raises(
                ConcurrencyConflict, store.append(_noted("a"), expected_version=wrong), f"expecting {wrong}"
            )
            if not isinstance(error, ConcurrencyConflict) or (error.expected, error.actual) != (wrong, 4):
                raise AssertionError(f"the conflict must tell 4 from {wrong}, found {error!r}")
        await _raises(
            ConcurrencyConflict, store.append(_noted("b"), expected_version=1), "expecting what is not there"
        )
        await store.append(_noted("a", "5"), expected_version=4)
        _equal(await _texts(store, "a"), ["1", "2", "3", "4", "5"], "the stream")
        _equal(await store.last_position(), (await _log(store))[-1].position, "the end of the log")


async def expected_version_is_of_one_stream(make_store: MakeStore) -> None:
    """An expected version for events of several streams is refused."""
    async with opened(make_store) as store:
        mixed = store.append(_noted("a"), _noted("b"), expected_version=0)
        await _raises(ValueError, mixed, "two streams and one expected version")
        _equal(await store.last_position(), 0, "the end of the log")


async def an_append_is_all_or_nothing(make_store: MakeStore) -> None:
    """If the last of several events conflicts, none of them is recorded in any stream."""
    async with opened(make_store) as store:
        (first,) = await store.append(_noted("a", "1"))
        misplaced = _noted("b", aggregate_version=7)
        await _raises(
            ConcurrencyConflict, store.append(_noted("a"), _noted("c"), misplaced), "a misplaced last event"
        )
        _equal(await _log(store), [first], "the log")
        _equal(await store.aggregate_types("c"), [], "types of c")
        await store.append(_noted("a", "2"), _noted("b", "1"), _noted("c", "1"))
        _equal(await _versions(store, "a"), [1, 2], "versions of a")
        _equal(await _versions(store, "b"), [1], "versions of b")
        _equal(await _versions(store, "c"), [1], "versions of c")


async def an_event_may_bring_its_version(make_store: MakeStore) -> None:
    """An event that brings its version is recorded in that place, or refused as a conflict."""
    async with opened(make_store) as store:
        await store.append(_noted("a", "1", aggregate_version=1), _noted("a", "2"))
        await store.append(_noted("a", "3", aggregate_version=3))
        for wrong in (1, 3, 5):
            await _raises(
                ConcurrencyConflict, store.append(_noted("a", aggregate_version=wrong)), f"version {wrong}"
            )
        _equal(await _texts(store, "a"), ["1", "2", "3"], "the stream")


def _request(*events: DomainEvent, expected_version: int | None = None) -> Append:
    return Append(tuple(to_record(event) for event in events), expected_version)


def _appended(outcome: Appended | UnoError) -> Appended:
    if isinstance(outcome, UnoError):
        raise outcome
    return outcome


async def requests_of_one_commit_stand_alone(make_store: MakeStore) -> None:
    """In one commit a request that fails does not touch the others, on the same stream or another."""
    async with opened(make_store) as store:
        outcomes = await store.commit(
            [
                _request(_noted("a", "1"), expected_version=0),
                _request(_noted("a", "lost"), expected_version=0),
                _request(_noted("b", "1"), _noted("b", "2"), expected_version=0),
                _request(_noted("c", "lost"), _noted("c", aggregate_version=9)),
                _request(_noted("a", "2"), _noted("a", "3"), expected_version=1),
                _request(_noted("c", "1"), expected_version=0),
                _request(_noted("a", "lost"), expected_version=2),
                _request(_noted("a", "4")),
            ]
        )
        failed = [isinstance(outcome, ConcurrencyConflict) for outcome in outcomes]
        _equal(failed, [False, True, False, True, False, False, True, False], "which requests conflict")
        _equal(await _texts(store, "a"), ["1", "2", "3", "4"], "the stream a")
        _equal(await _texts(store, "b"), ["1", "2"], "the stream b")
        _equal(await _texts(store, "c"), ["1"], "the stream c")
        done = [_appended(outcome) for outcome in outcomes if isinstance(outcome, Appended)]
        places = [(position, record) for positions, records in done for position, record in zip(
            positions, records, strict=True)]  # fmt: skip
        _equal(await store.read_log(), places, "the log, by the outcomes")


# --- reading -----------------------------------------------------------------------------------------------


async def get_events_narrows_by_version_and_limit(make_store: MakeStore) -> None:
    """`since_version` is exclusive, `limit` is the greatest number of events; neither is below 0."""
    async with opened(make_store) as store:
        await store.append(*[_noted("a", str(number)) for number in range(1, 6)], _noted("b", "b"))
        _equal(await _texts(store, "a", since_version=0), ["1", "2", "3", "4", "5"], "since 0")
        _equal(await _texts(store, "a", since_version=3), ["4", "5"], "since 3")
        _equal(await _texts(store, "a", since_version=5), [], "since the last")
        _equal(await _texts(store, "a", since_version=99), [], "since a version to come")
        _equal(await _texts(store, "a", limit=2), ["1", "2"], "two")
        _equal(await _texts(store, "a", limit=0), [], "none")
        _equal(await _texts(store, "a", since_version=1, limit=2), ["2", "3"], "two since 1")
        _equal(await store.get_events("nobody"), [], "a stream that is not there")
        _equal(await _texts(store, "a", of="Nothing"), [], "a type that is not there")
        for wrong in (-1, 2**63):
            await _raises(ValueError, _texts(store, "a", since_version=wrong), f"since {wrong}")
            await _raises(ValueError, _texts(store, "a", limit=wrong), f"limit {wrong}")
            await _raises(ValueError, _log(store, after=wrong), f"the log after {wrong}")
            await _raises(ValueError, _log(store, limit=wrong), f"the log, limit {wrong}")
            await _raises(ValueError, anext(store.subscribe(wrong)), f"subscribe after {wrong}")


async def get_events_narrows_by_time(make_store: MakeStore) -> None:
    """`since_timestamp` is inclusive, takes any time zone, and a naive time is read as UTC."""
    async with opened(make_store) as store:
        noon = datetime(2024, 6, 1, 12, tzinfo=UTC)
        minute, instant = timedelta(minutes=1), timedelta(microseconds=1)
        await store.append(*[_noted("a", str(n), timestamp=noon + n * minute) for n in range(5)])
        _equal(await _texts(store, "a", since_timestamp=noon + 3 * minute), ["3", "4"], "since 12:03")
        later = noon + 3 * minute + instant
        _equal(await _texts(store, "a", since_timestamp=later), ["4"], "since just after 12:03")
        naive = (noon + 3 * minute).replace(tzinfo=None)
        _equal(await _texts(store, "a", since_timestamp=naive), ["3", "4"], "since a naive 12:03")
        elsewhere = (noon + 4 * minute).astimezone(timezone(timedelta(hours=9)))
        _equal(await _texts(store, "a", since_timestamp=elsewhere), ["4"], "since 12:04 in Tokyo")
        found = await _texts(store, "a", since_timestamp=noon + minute, since_version=2, limit=2)
        _equal(found, ["2", "3"], "all of it together")


async def an_ambiguous_id_is_refused(make_store: MakeStore) -> None:
    """Asking by id alone reads the one stream of that id, or names the types if there are several."""
    async with opened(make_store) as store:
        await store.append(_noted("alice", of="User"))
        _equal(len(await store.get_events("alice")), 1, "events of the only alice")
        await store.append(_noted("alice", of="Account"))
        error = await _raises(AmbiguousStream, store.get_events("alice"), "two streams of alice")
        if "Account" not in str(error) or "User" not in str(error):
            raise AssertionError(f"the error must name Account and User, found: {error}")


async def streams_are_read_page_by_page(make_store: MakeStore) -> None:
    """A stream longer than a page is read whole, and `read_stream` keeps to its limit and its stream."""
    async with opened(make_store) as store:
        size = 2 * PAGE + 3
        await store.append(*[_noted(name) for _ in range(size) for name in ("a", "b")])
        _equal(await _versions(store, "a"), list(range(1, size + 1)), "versions of a long stream")
        stream = StreamId("Account", "a")
        _equal(len(await store.read_stream(stream)), PAGE, "records in a page")
        for after, limit in ((0, 1), (PAGE - 1, 2), (size - 2, 10), (size, 10), (size + 10, 10), (0, 0)):
            page = await store.read_stream(stream, after, limit)
            wanted = list(range(after + 1, min(after + limit, size) + 1))
            _equal([record.aggregate_version for _, record in page], wanted, f"{limit} records after {after}")
            _equal({record.stream for _, record in page} - {stream}, set(), "other streams in the page")


async def the_log_is_read_page_by_page(make_store: MakeStore) -> None:
    """`read_all` goes on beyond a page and keeps to `after` and `limit`."""
    async with opened(make_store) as store:
        size = 2 * PAGE + 3
        recorded = await store.append(*[_noted(f"a{number % 7}", str(number)) for number in range(size)])
        _equal(await _log(store), recorded, "the whole log")
        _equal(len(await store.read_log()), PAGE, "records in a page")
        _equal(await store.read_log(limit=0), [], "a page of none")
        for start, limit in ((0, 0), (0, 1), (1, PAGE), (0, PAGE + 1), (PAGE - 1, 2 * PAGE), (size - 1, 5)):
            after = recorded[start - 1].position if start else 0
            _equal(await _log(store, after, limit), recorded[start : start + limit], f"{limit} after {after}")
        _equal(await _log(store, recorded[-1].position), [], "the log after its end")
        _equal(await _log(store, recorded[-1].position + 10), [], "the log far after its end")


async def streams_are_read_backward(make_store: MakeStore) -> None:
    """Read backward, a stream comes newest first, by the same version, time and limit; its version is known."""
    async with opened(make_store) as store:
        size = 2 * PAGE + 3
        noon = datetime(2024, 6, 1, 12, tzinfo=UTC)
        stream = StreamId("Account", "a")
        _equal(await store.last_version(stream), 0, "the version of a stream that is not there")
        for first in range(1, size + 1, 100):
            numbers = range(first, min(first + 100, size + 1))
            batch = [_noted("a", str(n), timestamp=noon + n * timedelta(minutes=1)) for n in numbers]
            await store.append(*batch, _noted("ab"), _noted("a", of="User"))
        _equal(await store.last_version(stream), size, "the version of the stream")
        _equal(await store.last_version(StreamId("User", "a")), size // 100 + 1, "that of its namesake")
        newest_first = [str(number) for number in range(size, 0, -1)]
        _equal(await _texts(store, "a", backward=True), newest_first, "the whole stream")
        for since, limit in ((0, 1), (0, PAGE), (PAGE, PAGE + 1), (size - 3, 5), (size, 5), (0, 0)):
            wanted = newest_first[: size - since][:limit]
            found = await _texts(store, "a", since_version=since, limit=limit, backward=True)
            _equal(found, wanted, f"the last {limit} since {since}")
        when = noon + timedelta(minutes=size - 2)
        found = await _texts(store, "a", since_timestamp=when, limit=2, backward=True)
        _equal(found, newest_first[:2], "the last two of three since a time")
        _equal(await _texts(store, "nobody", backward=True), [], "a stream that is not there")


_WAYS: Sequence[tuple[dict[str, Any], Callable[[DomainEvent], bool]]] = (
    ({}, lambda event: True),
    ({"topic_pattern": "a.*"}, lambda event: event.topic == "a.b"),
    ({"topic_pattern": "a.>"}, lambda event: event.topic in ("a.b", "a.b.c")),
    ({"event_type": Noted}, lambda event: isinstance(event, Noted)),
    ({"event_type": DomainEvent}, lambda event: isinstance(event, Noted | Measured)),
    ({"event_type": "uno_actors.testing.Measured"}, lambda event: isinstance(event, Measured)),
    ({"event_type": (Measured, "nothing")}, lambda event: isinstance(event, Measured)),
    ({"aggregate_type": "User"}, lambda event: event.aggregate_type == "User"),
    ({"aggregate_type": "nothing"}, lambda event: False),
    ({"correlation_id": "x"}, lambda event: event.correlation_id == "x"),
    (
        {"topic_pattern": "*.*", "event_type": Noted, "aggregate_type": "User", "correlation_id": "x"},
        lambda event: (
            event.topic in ("a.b", "b.c")
            and isinstance(event, Noted)
            and event.aggregate_type == "User"
            and event.correlation_id == "x"
        ),
    ),
)
"""Ways to narrow the log, and what each means."""


def _scattered(size: int) -> list[DomainEvent]:
    """Events of which each way of narrowing selects some."""
    topics, types, correlations = (None, "a.b", "a.b.c", "b.c"), ("Account", "User"), (None, "x", "y")
    return [
        (_measured() if number % 7 == 6 else _noted("a", str(number))).stamped(
            event_id=str(number),
            topic=topics[number % 4],
            aggregate_type=types[number % 2],
            correlation_id=correlations[number % 3],
        )
        for number in range(size)
    ]


async def the_log_is_narrowed(make_store: MakeStore) -> None:
    """`read_all` gives those events that a topic, type, aggregate type and correlation id select, in order."""
    async with opened(make_store) as store:
        log = await store.append(*_scattered(2 * PAGE + 3))
        for way, is_wanted in _WAYS:
            wanted = [each for each in log if is_wanted(each.event)]
            for after, limit in ((0, None), (log[PAGE].position, 3), (0, 0)):
                found = [recorded async for recorded in store.read_all(after, limit, **way)]
                _equal(
                    found, [each for each in wanted if each.position > after][:limit], f"what {way} selects"
                )
        one = LogFilter(correlation_id="x")
        found_records = [stored async for stored in store.read_records(matching=one)]
        positions = [position for position, event in log if event.correlation_id == "x"]
        _equal([position for position, _ in found_records], positions, "places of records selected")


async def subscriptions_go_from_history_to_live(make_store: MakeStore) -> None:
    """A subscription gives what was recorded and then what is being recorded, each once and in order."""
    async with opened(make_store) as store:
        history = await store.append(*_scattered(PAGE + 3))
        end = history[-1].position
        starts = [(0, *way) for way in _WAYS] + [(end, *_WAYS[0]), (end - 2, *_WAYS[0])]
        taken: list[list[RecordedEvent]] = [[] for _ in starts]

        async def take(into: list[RecordedEvent], after: int, way: dict[str, Any]) -> None:
            async for recorded in store.subscribe(after, **way):
                into.append(recorded)  # noqa: PERF401 - it is looked at meanwhile

        tasks = [
            asyncio.ensure_future(take(into, after, way))
            for into, (after, way, _) in zip(taken, starts, strict=True)
        ]
        for number in range(30):  # beside them, some before they have read the history, some after
            history += await store.append(*_scattered(12))
            if number % 5 == 0:
                await asyncio.sleep(0.01)
        try:
            for into, (after, way, is_wanted) in zip(taken, starts, strict=True):
                wanted = [each for each in history if each.position > after and is_wanted(each.event)]
                await _heard(into, len(wanted))
                _equal(into, wanted, f"what a subscription after {after} to {way} gave")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await store.append(_noted("a"))  # nobody listens, and nobody minds


async def _heard(events: list[RecordedEvent], count: int) -> None:
    """Wait until there are so many, or for `PATIENCE` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while len(events) < count and loop.time() < deadline:  # noqa: ASYNC110 - stores wake readers in many ways
        await asyncio.sleep(0.001)


async def subscriptions_end_with_the_store(make_store: MakeStore) -> None:
    """Closing the store ends its subscriptions, those that wait and those in the middle; later ones refuse."""
    async with opened(make_store) as store:
        log = await store.append(*[_noted("a", str(number)) for number in range(3)])
        waiting = [asyncio.ensure_future(_drained(store.subscribe(after))) for after in (0, log[-1].position)]
        middle = store.subscribe()
        _equal(await anext(middle), log[0], "the first of a subscription")
        await asyncio.sleep(0.01)
        await store.close()
        done, pending = await asyncio.wait(waiting, timeout=PATIENCE)
        for task in pending:
            task.cancel()
        _equal(len(pending), 0, "subscriptions that did not end")
        found = [await task for task in waiting if task in done]
        _equal(found, [log, []], "what subscriptions gave until the store was closed")
        rest = await asyncio.wait_for(_drained(middle), PATIENCE)
        _equal(rest, log[1 : 1 + len(rest)], "what one in the middle gave then")
        await _raises(StoreUnavailable, _drained(store.subscribe()), "subscribing after close")


async def _drained(subscription: AsyncIterator[RecordedEvent]) -> list[RecordedEvent]:
    return [recorded async for recorded in subscription]


async def read_all_goes_on_while_the_log_grows(make_store: MakeStore) -> None:
    """A reader in the middle of the log sees a prefix of it, in order, while others append."""
    async with opened(make_store) as store:
        await store.append(*[_noted("a", str(number)) for number in range(PAGE + 1)])
        seen: list[str] = []
        async for recorded in store.read_all():
            if len(seen) == 10:
                await store.append(_noted("b", str(PAGE + 1)))
            seen.append(recorded.event.text if isinstance(recorded.event, Noted) else "")
        _equal(seen, [str(number) for number in range(len(seen))], "the log as it was read")
        if len(seen) <= PAGE:
            raise AssertionError(f"the reader stopped after {len(seen)} events")


# --- payloads ----------------------------------------------------------------------------------------------


async def every_kind_of_value_comes_back(make_store: MakeStore) -> None:
    """Decimals, dates, models, sets, tuples, bytes, integer keys and the like come back as they were."""
    async with opened(make_store) as store:
        sent = _measured()
        await store.append(sent)
        (found,) = await store.get_events("all")
        for name in type(sent).model_fields:
            if name != "aggregate_version":
                value, wanted = getattr(found, name), getattr(sent, name)
                _equal((name, type(value), value), (name, type(wanted), wanted), "a value")


async def big_events_come_back(make_store: MakeStore) -> None:
    """An event of a megabyte is recorded like a small one."""
    async with opened(make_store) as store:
        texts = ["x" * 2_000, "é" * 500_000, ""]
        await store.append(*[_noted("a", text) for text in texts])
        _equal(await _texts(store, "a"), texts, "the texts")


async def an_unknown_type_is_named(make_store: MakeStore) -> None:
    """An event whose type the registry does not know is recorded, and named when it is read."""
    async with opened(make_store, Noted) as store:
        await store.append(_measured(), _noted("a"))
        error = await _raises(UnknownEventType, store.get_events("all"), "an unknown type")
        if "uno_actors.testing.Measured" not in str(error):
            raise AssertionError(f"the error must name the type, found: {error}")
        _equal(len(await store.read_log()), 2, "records that can be read all the same")
        _equal(len(await store.get_events("a")), 1, "events of known types")


async def old_events_are_upcast(make_store: MakeStore) -> None:
    """An event of an older schema is read as today's, through the registered steps in order."""

    def to_version_2(payload: Payload) -> Payload:
        return {"address": payload["to"]}

    def to_version_3(payload: Payload) -> Payload:
        street, town = payload["address"].split(", ")
        return {"street": street, "town": town}

    async with opened(make_store, MovedNow) as store:
        store.event_registry.add_upcast("uno_actors.testing.Moved", 1, to_version_2)
        store.event_registry.add_upcast("uno_actors.testing.Moved", 2, to_version_3)
        of: dict[str, Any] = {"aggregate_id": "a", "aggregate_type": "Person"}
        await store.append(MovedThen(**of, to="Elm Street, Springwood"))
        await store.append(MovedNow(**of, street="Ocean Drive", town=""))
        await store.append(MovedLater(**of, address="Main Street, Hill Valley"), MovedThen(**of, to="1, 2"))
        events = await store.get_events("a")
        found = [(e.version, e.street, e.town) for e in events if isinstance(e, MovedNow)]
        wanted = [
            ("Elm Street", "Springwood"),
            ("Ocean Drive", ""),
            ("Main Street", "Hill Valley"),
            ("1", "2"),
        ]
        _equal(found, [(3, *where) for where in wanted], "events of schema 1, 3, 2 and 1, as today's class")
        _equal([record.version for _, record in await store.read_log()], [1, 3, 2, 1], "what is recorded")


# --- progress of handlers ----------------------------------------------------------------------------------

_MORNING = datetime(2024, 6, 1, 8, tzinfo=UTC)


def _letter(handler: str, position: int, **changed: Any) -> DeadLetter:
    letter = DeadLetter(
        handler, position, "Noted", 3, "ValueError: no 🚀", "Traceback\n  ...", _MORNING, _MORNING
    )
    return letter._replace(**changed)


async def checkpoints_move(make_store: MakeStore) -> None:
    """Checkpoints are kept by handler name; saving some leaves the others where they are."""
    async with opened(make_store) as store:
        _equal(await store.checkpoints(), {}, "checkpoints of a new store")
        await store.save_progress({"mail": 1, "audit": 2**40, "bank.mail:send 🚀": 0})
        await store.save_progress({"mail": 7})
        await store.save_progress({"audit": 3})
        _equal(await store.checkpoints(), {"mail": 7, "audit": 3, "bank.mail:send 🚀": 0}, "the checkpoints")


async def dead_letters_move_with_checkpoints(make_store: MakeStore) -> None:
    """Dead letters are added in the step that moves the checkpoint, and replace those of their place."""
    async with opened(make_store) as store:
        _equal(await store.dead_letters(), [], "dead letters of a new store")
        await store.save_progress({"mail": 4}, [_letter("mail", 4)])
        _equal(await store.checkpoints(), {"mail": 4}, "the checkpoint")
        _equal(await store.dead_letters(), [_letter("mail", 4)], "the dead letter")
        again = _letter("mail", 4, attempts=6, last_failed=_MORNING + timedelta(microseconds=1))
        await store.save_progress({}, [again])
        _equal(await store.dead_letters(), [again], "the dead letter that failed again")
        _equal(await store.checkpoints(), {"mail": 4}, "the checkpoint after that")


async def dead_letters_are_listed_in_order(make_store: MakeStore) -> None:
    """Dead letters are listed by handler and position, of all handlers or of one."""
    async with opened(make_store) as store:
        places = [("b", 2), ("a", 256), ("a", 3), ("ab", 1), ("a", 2**33), ("b", 1), ("a.b", 1)]
        await store.save_progress({}, [_letter(*place) for place in places[:4]])
        await store.save_progress({}, [_letter(*place) for place in places[4:]])
        found = [(letter.handler, letter.position) for letter in await store.dead_letters()]
        _equal(found, sorted(places), "all dead letters")
        found = [(letter.handler, letter.position) for letter in await store.dead_letters("a")]
        _equal(found, [("a", 3), ("a", 256), ("a", 2**33)], "dead letters of a")
        _equal(await store.dead_letters("nobody"), [], "dead letters of nobody")


async def dead_letters_can_be_dropped(make_store: MakeStore) -> None:
    """Dropping removes one dead letter and says whether there was one."""
    async with opened(make_store) as store:
        await store.save_progress({"a": 2}, [_letter("a", 1), _letter("a", 2), _letter("b", 1)])
        _equal(await store.drop_dead_letter("a", 1), True, "dropping one")
        _equal(await store.drop_dead_letter("a", 1), False, "dropping it again")
        _equal(await store.drop_dead_letter("a", 3), False, "dropping one that never was")
        _equal(await store.dead_letters(), [_letter("a", 2), _letter("b", 1)], "the dead letters left")
        _equal(await store.checkpoints(), {"a": 2}, "the checkpoint")
        view = ViewChange("a", b"k", b"1")
        await store.save_progress({"a": 3}, views=[view], dropped=[("a", 2), ("a", 9), ("c", 1)])
        _equal(
            await store.dead_letters(), [_letter("b", 1)], "those left when some were dropped with progress"
        )
        _equal(await store.read_view("a"), [(b"k", b"1")], "the view that has changed with them")


# --- snapshots ---------------------------------------------------------------------------------------------


async def views_are_read_in_order_and_keep_apart(make_store: MakeStore) -> None:
    """A view is read in the order of its keys, from start to before end, and has nothing of any other view."""
    async with opened(make_store) as store:
        keys = [b"b", b"a\xff", b"a\0", b"c", b"a"]
        names = ["v", "v@2", "v\x01", "w" * 255]
        for name in names:
            await store.save_progress({}, views=[ViewChange(name, key, name.encode() + key) for key in keys])
        long_key = ViewChange("w" * 255, b"k" * 250, b"")
        await store.save_progress({}, views=[long_key])
        for name in names[:3]:
            found = await store.read_view(name)
            _equal(found, [(key, name.encode() + key) for key in sorted(keys)], f"all of {name!r}")
        _equal([key for key, _ in await store.read_view("v", b"a\0", b"b")], [b"a\0", b"a\xff"], "a part")
        _equal(
            [key for key, _ in await store.read_view("v", b"a\0", limit=3)], [b"a\0", b"a\xff", b"b"], "three"
        )
        _equal(await store.read_view("v", b"a", b"a\0"), [(b"a", b"va")], "one key")
        _equal(await store.read_view("v", b"d", b"d\0"), [], "a key that is not there")
        _equal(await store.read_view("w" * 255, b"k"), [(long_key.key, b"")], "the longest key")
        _equal(await store.read_view("nothing"), [], "a view that is not there")


async def views_change_with_checkpoints(make_store: MakeStore) -> None:
    """Views change together with checkpoints, in order: the last change of a key is what is read."""
    async with opened(make_store) as store:
        change = [ViewChange("v", b"k", b"1"), ViewChange("v", b"gone", b"1"), ViewChange("v", b"gone", None)]
        await store.save_progress({"v": 1}, views=change)
        calls = [store.save_progress({"v": n}, views=[ViewChange("v", b"k", b"%d" % n)]) for n in range(2, 9)]
        await asyncio.gather(*calls)
        _equal(await store.checkpoints(), {"v": 8}, "the checkpoint")
        _equal(await store.read_view("v"), [(b"k", b"8")], "the view")
        await store.save_progress(
            {"v": 9}, views=[ViewChange("v", b"k", None), ViewChange("v", b"never", None)]
        )
        _equal(await store.read_view("v"), [], "the view after its key was removed")


async def views_can_be_dropped(make_store: MakeStore) -> None:
    """A view is dropped with all its keys and with the checkpoint of its name, and no other with it."""
    async with opened(make_store) as store:
        keys = [b"%04d" % number for number in range(2 * PAGE)]
        for name in ("v", "v2"):
            await store.save_progress({name: 7}, views=[ViewChange(name, key, b"") for key in keys])
        await store.drop_view("v")
        await store.drop_view("nothing")
        _equal(await store.read_view("v"), [], "the view")
        _equal(await store.checkpoints(), {"v2": 7}, "the checkpoints")
        _equal(len(await store.read_view("v2", limit=None)), 2 * PAGE, "the entries of another view")


def _snapshot(aggregate_id: str, version: int = 1, *, of: str = "Account", **changed: Any) -> Snapshot:
    snapshot = Snapshot(StreamId(of, aggregate_id), version, 1, bytes(range(256)), _MORNING)
    return snapshot._replace(**changed)


async def snapshots_are_kept_one_for_each_stream(make_store: MakeStore) -> None:
    """The last snapshot saved of each stream is read back as it was, whatever the names; it is no event."""
    async with opened(make_store) as store:
        _equal(await store.read_snapshot(StreamId("Account", "a")), None, "a snapshot of nothing")
        await store.save_snapshots([])
        kept = [_snapshot(name, number) for number, name in enumerate(ODD_NAMES)]
        kept += [_snapshot("x" * 255, of=of) for of in ("A", "AB", "T" * 200)]
        await store.save_snapshots([snapshot._replace(version=99, state=b"old") for snapshot in kept])
        await store.save_snapshots([kept[0]._replace(version=100), *kept])
        for snapshot in kept:
            _equal(await store.read_snapshot(snapshot.stream), snapshot, "a snapshot")
        changed = kept[0]._replace(version=2**60, schema_version=2**31, state=b"x" * 1_000_000)
        await store.save_snapshots([changed])
        _equal(await store.read_snapshot(changed.stream), changed, "a large one in place of another")
        _equal(await store.last_position(), 0, "the end of the log")


async def snapshots_can_be_dropped(make_store: MakeStore) -> None:
    """Dropping removes the snapshots of one type or all, says how many, and leaves the events."""
    async with opened(make_store) as store:
        await store.append(_noted("a", "1"))
        _equal(await store.drop_snapshots(), 0, "dropping none")
        kept = [_snapshot("a"), _snapshot("b"), _snapshot("a", of="User"), _snapshot("a", of="count")]
        await store.save_snapshots(kept)
        _equal(await store.drop_snapshots("Nothing"), 0, "dropping those of a type that is not there")
        _equal(await store.drop_snapshots("Account"), 2, "dropping those of one type")
        found = [await store.read_snapshot(snapshot.stream) for snapshot in kept]
        _equal(found, [None, None, *kept[2:]], "the snapshots left")
        _equal(await store.drop_snapshots(), 2, "dropping all")
        found = [await store.read_snapshot(snapshot.stream) for snapshot in kept]
        _equal(found, [None] * 4, "the snapshots left after that")
        _equal(await _texts(store, "a"), ["1"], "the stream")


# --- listeners ---------------------------------------------------------------------------------------------


async def listeners_hear_of_commits(make_store: MakeStore) -> None:
    """A listener is called when the log has grown and before `append` returns, until it is stopped."""
    async with opened(make_store) as store:
        loop = asyncio.get_running_loop()
        heard: list[str] = []
        on_loop: list[bool] = []

        def listen() -> None:
            heard.append("first")
            on_loop.append(asyncio.get_running_loop() is loop)

        stop = store.on_commit(listen)
        store.on_commit(lambda: heard.append("second"))
        await store.append(_noted("a"))
        _equal(heard, ["first", "second"], "who heard of the first append")
        stop()
        await store.append(_noted("a"))
        _equal(heard, ["first", "second", "second"], "who heard after one was stopped")
        _equal(on_loop, [True], "whether it was called on the event loop")


async def listeners_find_what_was_committed(make_store: MakeStore) -> None:
    """When a listener is called, a reader finds what was committed."""
    async with opened(make_store) as store:
        ends: list[asyncio.Task[int]] = []
        store.on_commit(lambda: ends.append(asyncio.ensure_future(_end(store))))
        for _ in range(3):
            await store.append(_noted("a"), _noted("b"))
        positions = [position for position, _ in await _log(store)]
        for place, end in zip((1, 3, 5), await asyncio.gather(*ends), strict=True):
            if end < positions[place]:
                raise AssertionError(f"a listener found the log ending at {end}, before {positions[place]}")


async def _end(store: EventStore) -> int:
    return await store.last_position()


# --- leases ------------------------------------------------------------------------------------------------


async def a_name_is_leased_once(make_store: MakeStore) -> None:
    """Of those who want a name at once one has it, until it is released; other names stand apart."""
    async with opened(make_store) as store:
        leases = await asyncio.gather(*[store.lease("mail") for _ in range(5)])
        held = [lease for lease in leases if lease is not None]
        _equal(len(held), 1, "leases of one name")
        _equal(await store.lease("mail"), None, "the lease of a name that is taken")
        for name in ("mail2", "mai", "", "ünì/\\ .. *"):
            _equal(await store.lease(name) is None, False, f"the lease of {name!r} is refused")
        await held[0].release()
        await held[0].release()
        again = await store.lease("mail")
        _equal(again is None, False, "the lease of a name that was released is refused")
        await store.append(_noted("a"))  # leases hinder nobody


async def closing_releases_leases(make_store: MakeStore) -> None:
    """A store that was closed holds no name."""
    async with make_store() as place:
        for _ in range(2):
            store = await place.open(EventRegistry([Noted]))
            _equal(
                await store.lease("mail") is None, False, "the lease is refused after the store was closed"
            )
            await store.close()


# --- many at once ------------------------------------------------------------------------------------------


async def one_of_many_wins(make_store: MakeStore) -> None:
    """Of many appends at once that expect the same version of a stream exactly one is recorded."""
    async with opened(make_store) as store:
        for expected in range(3):
            outcomes = await asyncio.gather(
                *[store.append(_noted("a", str(n)), expected_version=expected) for n in range(30)],
                return_exceptions=True,
            )
            winners = [outcome[0].event for outcome in outcomes if isinstance(outcome, list)]
            losers = [outcome for outcome in outcomes if isinstance(outcome, ConcurrencyConflict)]
            _equal((len(winners), len(losers)), (1, 29), "winners and losers")
            _equal(await store.get_events("a", since_version=expected), winners, "what was recorded")


async def many_appends_leave_no_gap(make_store: MakeStore) -> None:
    """Appends of many tasks give versions and a log without gap or loss, each append in one piece."""
    async with opened(make_store) as store:

        async def write(task: int) -> list[RecordedEvent]:
            recorded: list[RecordedEvent] = []
            for turn in range(5):
                events = [_noted(f"s{(task + turn) % 3}", f"{task}.{turn}.{part}") for part in range(2)]
                recorded += await store.append(*events)
            return recorded

        written = await asyncio.gather(*[write(task) for task in range(40)])
        log = await _log(store)
        _equal(log, sorted(recorded for per_task in written for recorded in per_task), "the log")
        texts = [recorded.event.text for recorded in log if isinstance(recorded.event, Noted)]
        for first, second in zip(texts[::2], texts[1::2], strict=True):
            _equal(second, first.removesuffix("0") + "1", "what follows the first half of an append")
        versions = [await _versions(store, f"s{number}") for number in range(3)]
        for found in versions:
            _equal(found, list(range(1, len(found) + 1)), "versions of a stream")
        _equal(sum(map(len, versions)), 400, "events in all streams")


async def readers_see_a_prefix(make_store: MakeStore) -> None:
    """Readers beside writers see the log grow at its end only, and whole appends."""
    async with opened(make_store) as store:
        done = asyncio.Event()
        seen: list[list[tuple[int, Record]]] = []

        async def read() -> None:
            while not done.is_set():
                seen.append([(position, record) for position, record in await store.read_log(limit=10_000)])
                await store.last_position()
                await asyncio.sleep(0)

        async def write(task: int) -> None:
            for _ in range(10):
                await store.append(*[_noted(f"s{task % 2}") for _ in range(3)])

        reader = asyncio.ensure_future(read())
        try:
            await asyncio.gather(*[write(task) for task in range(8)])
        finally:
            done.set()
            await reader
        log = [(position, record) for position, record in await store.read_log(limit=10_000)]
        for prefix in seen:
            _equal(prefix, log[: len(prefix)], "what a reader saw")
            _equal(len(prefix) % 3, 0, "events of halved appends")


async def a_cancelled_append_is_recorded_whole_or_not_at_all(make_store: MakeStore) -> None:
    """An append whose caller is cancelled is recorded whole or not at all, and harms no other."""
    async with opened(make_store) as store:
        doomed = [asyncio.ensure_future(store.append(_noted(f"d{n}"), _noted(f"d{n}"))) for n in range(10)]
        others = [asyncio.ensure_future(store.append(_noted("a"), _noted("a"))) for _ in range(10)]
        await asyncio.sleep(0)
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        await asyncio.gather(*others)
        await store.append(_noted("a"))
        _equal(await _versions(store, "a"), list(range(1, 22)), "versions of the stream of the others")
        for number in range(10):
            found = await _versions(store, f"d{number}")
            if found not in ([], [1, 2]):
                raise AssertionError(f"a cancelled append left {found}")


# --- the end -----------------------------------------------------------------------------------------------


async def a_closed_store_refuses(make_store: MakeStore) -> None:
    """Closing twice, or twice at once, does no harm; every later call raises `StoreUnavailable`."""
    async with opened(make_store) as store:
        await store.append(_noted("a"))
        await asyncio.gather(store.close(), store.close())
        await store.close()
        calls: dict[str, Awaitable[object]] = {
            "append": store.append(_noted("a")),
            "commit": store.commit([_request(_noted("a"))]),
            "get_events": store.get_events("a"),
            "get_events of a type": store.get_events("a", aggregate_type="Account"),
            "read_all": _log(store),
            "read_stream": store.read_stream(StreamId("Account", "a")),
            "read_log": store.read_log(),
            "last_version": store.last_version(StreamId("Account", "a")),
            "aggregate_types": store.aggregate_types("a"),
            "causal_tree": store.causal_tree("c"),
            "last_position": store.last_position(),
            "checkpoints": store.checkpoints(),
            "save_progress": store.save_progress({"mail": 1}),
            "dead_letters": store.dead_letters(),
            "drop_dead_letter": store.drop_dead_letter("mail", 1),
            "read_view": store.read_view("v"),
            "drop_view": store.drop_view("v"),
            "save_snapshots": store.save_snapshots([_snapshot("a")]),
            "read_snapshot": store.read_snapshot(StreamId("Account", "a")),
            "drop_snapshots": store.drop_snapshots(),
            "lease": store.lease("mail"),
        }
        for name, call in calls.items():
            await _raises(StoreUnavailable, call, f"{name} after close")


async def closing_finishes_what_was_begun(make_store: MakeStore) -> None:
    """Appends under way when the store is closed are recorded, or end with `StoreUnavailable`; none hangs."""
    async with make_store() as place:
        store = await place.open(EventRegistry([Noted]))
        appends = [asyncio.ensure_future(store.append(_noted("a"))) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        recorded = [outcome[0] for outcome in outcomes if isinstance(outcome, list)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
        _equal(len(recorded) + len(refused), 20, "appends recorded or refused")
        if place.durable:
            async with await place.open(EventRegistry([Noted])) as store:
                _equal(await _log(store), recorded, "the log after reopening")


async def leaving_the_store_closes_it(make_store: MakeStore) -> None:
    """`async with` closes the store in the end."""
    async with make_store() as place:
        async with await place.open(EventRegistry([Noted])) as store:
            await store.append(_noted("a"))
        await _raises(StoreUnavailable, store.last_position(), "a call after the block")


async def durable_stores_survive_reopening(make_store: MakeStore) -> None:
    """Where a durable store is closed and opened again, all is there and goes on from there."""
    async with make_store() as place:
        if not place.durable:
            return
        registry = EventRegistry([Noted, Measured])
        async with await place.open(registry) as store:
            recorded = await store.append(_noted("a", "1"), _measured(), _noted("a", "2"), _noted(None))
            await store.save_progress({"mail": 3, "audit": 1}, [_letter("mail", 2), _letter("mail", 3)])
            await store.drop_dead_letter("mail", 2)
            await store.save_progress({"totals": 2}, views=[ViewChange("totals", b"k", b"1")])
            await store.save_snapshots([_snapshot("a", 2), _snapshot("a", of="User")])
            await store.drop_snapshots("User")
        async with await place.open(registry) as store:
            _equal(await _log(store), recorded, "the log")
            _equal(await _texts(store, "a"), ["1", "2"], "the stream")
            _equal(await store.aggregate_types("all"), ["Kinds"], "types of an id")
            _equal(await store.checkpoints(), {"mail": 3, "audit": 1, "totals": 2}, "the checkpoints")
            _equal(await store.read_view("totals"), [(b"k", b"1")], "the view")
            _equal(await store.dead_letters(), [_letter("mail", 3)], "the dead letters")
            found = await store.read_snapshot(StreamId("Account", "a"))
            _equal(found, _snapshot("a", 2), "the snapshot")
            _equal(await store.read_snapshot(StreamId("User", "a")), None, "the snapshot that was dropped")
            await _raises(
                ConcurrencyConflict, store.append(_noted("a"), expected_version=1), "an old expectation"
            )
            (next_one,) = await store.append(_noted("a", "3"), expected_version=2)
            if next_one.position <= recorded[-1].position:
                raise AssertionError(f"positions went back to {next_one.position}")
            _equal(await _versions(store, "a"), [1, 2, 3], "the versions")


CONTRACT: tuple[Check, ...] = (
    positions_only_grow,
    append_returns_what_readers_read,
    appending_nothing_changes_nothing,
    versions_count_each_stream,
    streams_are_named_by_type_and_id,
    odd_ids_never_meet,
    odd_types_never_meet,
    impossible_ids_are_refused,
    what_one_store_refuses_all_refuse,
    progress_that_one_store_refuses_all_refuse,
    a_loop_of_appends_leaves_time_for_others,
    events_without_aggregate_stand_in_the_log_alone,
    expected_version_is_the_fence,
    expected_version_is_of_one_stream,
    an_append_is_all_or_nothing,
    an_event_may_bring_its_version,
    requests_of_one_commit_stand_alone,
    get_events_narrows_by_version_and_limit,
    get_events_narrows_by_time,
    an_ambiguous_id_is_refused,
    streams_are_read_page_by_page,
    streams_are_read_backward,
    the_log_is_read_page_by_page,
    the_log_is_narrowed,
    subscriptions_go_from_history_to_live,
    subscriptions_end_with_the_store,
    read_all_goes_on_while_the_log_grows,
    every_kind_of_value_comes_back,
    big_events_come_back,
    an_unknown_type_is_named,
    old_events_are_upcast,
    checkpoints_move,
    dead_letters_move_with_checkpoints,
    dead_letters_are_listed_in_order,
    dead_letters_can_be_dropped,
    views_are_read_in_order_and_keep_apart,
    views_change_with_checkpoints,
    views_can_be_dropped,
    snapshots_are_kept_one_for_each_stream,
    snapshots_can_be_dropped,
    listeners_hear_of_commits,
    listeners_find_what_was_committed,
    a_name_is_leased_once,
    closing_releases_leases,
    one_of_many_wins,
    many_appends_leave_no_gap,
    readers_see_a_prefix,
    a_cancelled_append_is_recorded_whole_or_not_at_all,
    a_closed_store_refuses,
    closing_finishes_what_was_begun,
    leaving_the_store_closes_it,
    durable_stores_survive_reopening,
)
"""The promises of `uno_actors.store.port.EventStore`, one check each."""
