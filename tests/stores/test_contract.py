"""The contract of `uno_actors.testing`: the stores here keep it, and one that does not is found out."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest

from tests.postgres import postgres
from uno_actors.clock import Clock
from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.errors import (
    ConcurrencyConflict,
    EventNotSerializable,
    InvalidHandler,
    StoreUnavailable,
    UnoError,
)
from uno_actors.store.codec import StreamId
from uno_actors.store.conditions import Condition, Find
from uno_actors.store.expected_version import EXISTS
from uno_actors.store.log_filter import EVERYTHING, LogFilter
from uno_actors.store.membership import Member, Membership
from uno_actors.store.opening import open_store as open_store_of_url
from uno_actors.store.port import EventStore, Lease
from uno_actors.store.records import (
    PAGE,
    Append,
    Appended,
    DeadLetter,
    Heading,
    RecordedEvent,
    Snapshot,
    StoredRecord,
    ViewChange,
)
from uno_actors.testing import CONTRACT, Check, MakeStore, StorePlace, check_event_store
from uno_actors.testing.contract import (
    positions_only_grow,
    readers_see_a_prefix,
    the_log_is_narrowed,
    the_log_is_read_page_by_page,
)
from uno_stores import InMemoryEventStore, LmdbEventStore
from uno_stores.memory_nodes import MemoryMembership, MemoryNodes
from uno_stores.sql.log import LAST_POSITIONS, LOG_PAGE, to_stored
from uno_stores.sql.reader import Reader


@asynccontextmanager
async def in_memory() -> AsyncIterator[StorePlace]:
    async def open_store(event_registry: EventRegistry) -> EventStore:
        return InMemoryEventStore(event_registry)

    yield StorePlace(open_store, durable=False)


@asynccontextmanager
async def in_lmdb() -> AsyncIterator[StorePlace]:
    with TemporaryDirectory() as directory:

        async def open_store(event_registry: EventRegistry) -> EventStore:
            return LmdbEventStore(Path(directory) / "store", event_registry)

        yield StorePlace(open_store)


@asynccontextmanager
async def in_sqlite() -> AsyncIterator[StorePlace]:
    with TemporaryDirectory() as directory:

        async def open_store(event_registry: EventRegistry) -> EventStore:
            return open_store_of_url(f"sqlite+aiosqlite:///{directory}/store.db", event_registry)

        yield StorePlace(open_store)


@asynccontextmanager
async def in_sqlite_in_memory() -> AsyncIterator[StorePlace]:
    async def open_store(event_registry: EventRegistry) -> EventStore:
        return open_store_of_url("sqlite+aiosqlite://", event_registry)

    yield StorePlace(open_store, durable=False)


@asynccontextmanager
async def in_postgres() -> AsyncIterator[StorePlace]:
    url = await postgres().new_url()

    async def open_store(event_registry: EventRegistry) -> EventStore:
        return open_store_of_url(url, event_registry)

    yield StorePlace(open_store)


@asynccontextmanager
async def in_four_logs() -> AsyncIterator[StorePlace]:
    url = f"{await postgres().new_url()}&logs=4"

    async def open_store(event_registry: EventRegistry) -> EventStore:
        return open_store_of_url(url, event_registry)

    yield StorePlace(open_store)


STORES = {
    "memory": in_memory,
    "lmdb": in_lmdb,
    "sqlite": in_sqlite,
    "postgres": in_postgres,
    "postgres, 4 logs": in_four_logs,
    "sqlite in memory": in_sqlite_in_memory,
}
PARAMETERS = [
    pytest.param(make, id=name, marks=[pytest.mark.soak] if name == "sqlite in memory" else [])
    for name, make in STORES.items()
]


@pytest.mark.parametrize("make_store", PARAMETERS)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
async def test_store_keeps_its_promise(check: Check, make_store: MakeStore) -> None:
    await check(make_store)


async def test_check_event_store_runs_every_check_on_a_fresh_store() -> None:
    made: list[StorePlace] = []

    @asynccontextmanager
    async def make_store() -> AsyncIterator[StorePlace]:
        async with in_memory() as place:
            made.append(place)
            yield place

    await check_event_store(make_store)
    assert len(made) == len(CONTRACT) == len(set(CONTRACT))


def test_every_check_states_its_promise_in_one_sentence() -> None:
    for check in CONTRACT:
        assert check.__doc__, check.__name__
        assert check.__doc__.strip().endswith("."), check.__name__
        assert "\n" not in check.__doc__, check.__name__


def test_the_suite_can_be_imported_without_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import uno_actors.testing"
    subprocess.run([sys.executable, "-c", program], check=True)


# --- stores that break a promise each ----------------------------------------------------------------------


class Broken(InMemoryEventStore):
    """A store with a fault; that of this class itself is to forget everything when it is closed."""


def _joined(*outcomes: Appended | UnoError) -> Appended | UnoError:
    """The outcome of a request of which each part was recorded by itself."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, UnoError)]
    parts = [outcome for outcome in outcomes if isinstance(outcome, Appended) and outcome.records]
    if failed:
        return failed[0]
    records = tuple(record for part in parts for record in part.records)
    return Appended(range(parts[0].positions.start, parts[0].positions.start + len(records)), records)


class StartsAtZero(Broken):
    async def read_log(self, after: int = 0, limit: int = 512) -> list[StoredRecord]:
        return [StoredRecord(place - 1, record) for place, record in await super().read_log(after, limit)]


class EndIsWrong(Broken):
    async def last_position(self) -> int:
        return max(0, await super().last_position() - 1)


class ForgetsTopic(Broken):
    async def read_log(self, after: int = 0, limit: int = 512) -> list[StoredRecord]:
        page = await super().read_log(after, limit)
        return [StoredRecord(place, record._replace(topic=None)) for place, record in page]


class RefusesNothing(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        assert requests, "no requests"
        return await super().commit(requests)


class OneVersionForAll(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        everything = sum(map(len, self._streams.values()))
        return await super().commit(
            [
                Append(
                    tuple(
                        record
                        if record.aggregate_version
                        else record._replace(aggregate_version=everything + n)
                        for n, record in enumerate(request.records, start=1)
                    ),
                    request.expected_version,
                )
                for request in requests
            ]
        )


class IgnoresType(Broken):
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = 512
    ) -> list[StoredRecord]:
        log = await self.read_log(0, 1_000_000)
        mine = [stored for stored in log if stored.record.aggregate_id == stream.aggregate_id]
        return mine[after_version : after_version + limit]


class IgnoresCase(Broken):
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = 512
    ) -> list[StoredRecord]:
        alike = [
            known for known in self._streams if known.aggregate_id.lower() == stream.aggregate_id.lower()
        ]
        return await super().read_stream(alike[0] if alike else stream, after_version, limit)


class CutsTypes(Broken):
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        return [name[:199] for name in await super().aggregate_types(aggregate_id)]


class UnsortedTypes(Broken):
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        return list(reversed(await super().aggregate_types(aggregate_id)))


class ChecksIdsTooLate(Broken):
    async def append(self, *events: DomainEvent, expected_version: int | None = None) -> list[RecordedEvent]:
        recorded = [await super(ChecksIdsTooLate, self).append(event) for event in events]
        return [one for (one,) in recorded]


class SplitsAppends(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        (request,) = requests
        return [_joined(*await super().commit([Append((record,)) for record in request.records]))]


class ShowsHalves(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        (request,) = requests
        left = await super().commit([Append(request.records[:1])])
        await asyncio.sleep(0)
        right = await super().commit([Append(request.records[1:])])
        return [_joined(*left, *right)]


class IgnoresExpectedVersion(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        return await super().commit([Append(request.records) for request in requests])


class FailsTogether(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        outcomes = await super().commit(requests)
        error = next((outcome for outcome in outcomes if isinstance(outcome, UnoError)), None)
        return outcomes if error is None else [error] * len(requests)


class OverwritesVersions(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        free = [tuple(r._replace(aggregate_version=None) for r in request.records) for request in requests]
        return await super().commit(
            [
                Append(records, request.expected_version)
                for records, request in zip(free, requests, strict=True)
            ]
        )


class ChecksNoStreams(Broken):
    async def append(self, *events: DomainEvent, expected_version: int | None = None) -> list[RecordedEvent]:
        recorded = [await super(ChecksNoStreams, self).append(e, expected_version=None) for e in events]
        return [one for (one,) in recorded]


class IgnoresConditions(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        return await super().commit([request._replace(condition=None) for request in requests])


class SelectsByTermAlone(Broken):
    async def _find(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        find = self._indexed(condition)
        found = {stored for way in condition.wanted for stored in find(way, condition.after)}
        return sorted(StoredRecord(*stored) for stored in found), len(self._log)


class ChecksConditionsFirst(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        standing = [each.condition and await self.select_records(each.condition) for each in requests]
        free = [request._replace(condition=None) for request in requests]
        outcomes: list[Appended | UnoError] = []
        for request, found, without in zip(requests, standing, free, strict=True):
            if request.condition and found and found[0]:
                outcomes.append(request.condition.failed(found[0]))
            else:
                outcomes += await super().commit([without])
        return outcomes


class ChecksConditionsTooEarly(ChecksConditionsFirst):
    async def select_records(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        found = await super().select_records(condition)
        await asyncio.sleep(0)
        return found


class TakesAnyVersionWithCondition(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        free = [each._replace(expected_version=None) if each.condition else each for each in requests]
        return await super().commit(free)


class IndexesFromNowOn(Broken):
    def _indexed(self, condition: Condition) -> Find:
        for facet in condition.facets:
            self._index.require(facet, condition.registry, ())
        return super()._indexed(condition)


class TakesAnyPosition(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        end = len(self._log)
        return await super().commit(
            [
                each._replace(condition=each.condition._replace(after=min(end, each.condition.after)))
                if each.condition
                else each
                for each in requests
            ]
        )


class FilesEverything(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        return await super().commit(
            [
                Append(
                    tuple(r if r.aggregate_id else r._replace(aggregate_id="none") for r in request.records),
                    request.expected_version,
                )
                for request in requests
            ]
        )


class TakesAnyStreamForExisting(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        return await super().commit(
            [
                each._replace(expected_version=None) if each.expected_version is EXISTS else each
                for each in requests
            ]
        )


class LeavesCheckpoints(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        return await super().commit([each._replace(checkpoint=None) for each in requests])


class MovesTheCheckpointFirst(Broken):
    """Whether or not the events are recorded."""

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        for each in requests:
            if each.checkpoint is not None:
                await super().commit([Append((), checkpoint=each.checkpoint)])
        return await super().commit([each._replace(checkpoint=None) for each in requests])


class ChecksNoEarlierPosition(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        moves = [None if each.checkpoint is None else replace(each.checkpoint, was=None) for each in requests]
        return await super().commit(
            [each._replace(checkpoint=move) for each, move in zip(requests, moves, strict=True)]
        )


class ChecksAllCheckpointsAtFirst(Broken):
    """As they were before the commit."""

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        before = dict(self._checkpoints)
        outcomes: list[Appended | UnoError] = []
        for each in requests:
            self._checkpoints, now = dict(before), self._checkpoints
            outcomes += await super().commit([each])
            self._checkpoints = now | {k: v for k, v in self._checkpoints.items() if before.get(k) != v}
        return outcomes


class TakesAnyCheckpoint(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        for each in requests:
            if each.checkpoint is not None:
                self._checkpoints[each.checkpoint.name] = each.checkpoint.position
        return await super().commit([each._replace(checkpoint=None) for each in requests])


class ChecksTheCheckpointTooEarly(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        moves = [each.checkpoint for each in requests if each.checkpoint is not None]
        for each in moves:
            if each.was not in (None, self._checkpoints.get(each.name, 0)):
                return await super().commit(requests)
        await asyncio.sleep(0)
        self._checkpoints.update({each.name: each.position for each in moves})
        return await super().commit([each._replace(checkpoint=None) for each in requests])


class ReadsInclusively(Broken):
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = 512
    ) -> list[StoredRecord]:
        return await super().read_stream(stream, max(0, after_version - 1), limit)


class ReadsNoSecondPage(Broken):
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = 512
    ) -> list[StoredRecord]:
        return [] if after_version >= 512 else await super().read_stream(stream, after_version, limit)


class LogHasNoSecondPage(Broken):
    async def read_log(self, after: int = 0, limit: int = 512) -> list[StoredRecord]:
        return [] if after >= 512 else await super().read_log(after, limit)


class IgnoresLimitZero(Broken):
    async def read_log(self, after: int = 0, limit: int = 512) -> list[StoredRecord]:
        return await super().read_log(after, limit or 512)


class VersionOfAllTypes(Broken):
    async def last_version(self, stream: StreamId) -> int:
        return max(
            (len(p) for s, p in self._streams.items() if s.aggregate_id == stream.aggregate_id), default=0
        )


class LastVersionIsStale(Broken):
    async def last_version(self, stream: StreamId) -> int:
        return max(0, await super().last_version(stream) - 1)


class EndsBeforeTheVersion(Broken):
    async def get_events(
        self, *args: Any, until_version: int | None = None, **kwargs: Any
    ) -> list[DomainEvent]:
        end = until_version if until_version is None else max(0, until_version - 1)
        return await super().get_events(*args, until_version=end, **kwargs)


class BeginsOneTooLate(Broken):
    async def version_at(self, stream: StreamId, position: int) -> int:
        return await super().version_at(stream, position + 1)


class FollowsStreamsFromTheirEnd(Broken):
    async def checked_version_at(self, stream: StreamId, after: int, until: int | None = None) -> int:
        return await self.last_version(stream)


class NarrowsPageByPage(Broken):
    """Its limit counts what was read instead of what was selected."""

    async def read_records(
        self,
        after: int = 0,
        limit: int | None = None,
        matching: LogFilter = EVERYTHING,
        *,
        until: int | None = None,
    ) -> AsyncGenerator[StoredRecord]:
        for stored in await self.read_log(after, 10**6 if limit is None else limit):
            if matching.matches(stored.record):
                yield stored


class NarrowsByTopicOnly(Broken):
    def log_filter(self, *args: Any, **kwargs: Any) -> LogFilter:
        return LogFilter(topic=super().log_filter(*args, **kwargs).topic)

    async def read_records(
        self,
        after: int = 0,
        limit: int | None = None,
        matching: LogFilter = EVERYTHING,
        *,
        until: int | None = None,
    ) -> AsyncGenerator[StoredRecord]:
        async for stored in super().read_records(after, limit, LogFilter(topic=matching.topic), until=until):
            yield stored


class SkipsWhatCameBetween(Broken):
    async def follow_records(self, after: int = 0, matching: LogFilter = EVERYTHING) -> Any:
        async for stored in self.read_records(after, matching=matching):
            yield stored
        await asyncio.sleep(0.001)
        async for stored in super().follow_records(await self.last_position(), matching):
            yield stored


class GivesTheLastAgain(Broken):
    async def follow_records(self, after: int = 0, matching: LogFilter = EVERYTHING) -> Any:
        async for stored in self.read_records(after, matching=matching):
            yield stored
            after = stored.position
        async for stored in super().follow_records(max(0, after - 1), matching):
            yield stored


class WakesNobody(Broken):
    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        super().on_commit(listener)
        self._commit_listeners.clear()
        return lambda: None


class LeavesSubscribersWaiting(Broken):
    def _end_subscriptions(self) -> None:
        pass


class EndsSubscriptionsInError(Broken):
    async def _unless_ending(
        self, read: Callable[[], Awaitable[list[StoredRecord]]]
    ) -> list[StoredRecord] | None:
        return await read()


class ShowsNewestFirst(Broken):
    async def read_log(self, after: int = 0, limit: int = 512) -> list[StoredRecord]:
        return (await super().read_log(after, limit))[::-1]


class RoundsTime(Broken):
    async def get_events(self, *args: Any, **narrowed: Any) -> Any:
        if moment := narrowed.get("since_timestamp"):
            narrowed["since_timestamp"] = moment.replace(microsecond=0)
        return await super().get_events(*args, **narrowed)


class PicksAType(Broken):
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        return (await super().aggregate_types(aggregate_id))[:1]


class LosesPayload(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        if len(requests) == 1 and len(requests[0].records[0].payload) > 300:
            return [StoreUnavailable("x", "too long")]
        return await super().commit(requests)


class SmallOnly(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        if any(len(record.payload) > 100_000 for request in requests for record in request.records):
            return [StoreUnavailable("x", "too big")]
        return await super().commit(requests)


class KnowsOnlyGlobally(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        for request in requests:
            for record in request.records:
                self.event_registry.resolve(record.event_type)
        return await super().commit(requests)


class StoresTodaysVersion(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        newest = [tuple(r._replace(version=3) for r in request.records) for request in requests]
        return await super().commit(
            [
                Append(records, request.expected_version)
                for records, request in zip(newest, requests, strict=True)
            ]
        )


class ReplacesCheckpoints(Broken):
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        self._checkpoints.clear()
        await super().save_progress(checkpoints, dead_letters, views, dropped)


class OnlyForward(Broken):
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        forward = {name: max(at, self._checkpoints.get(name, 0)) for name, at in checkpoints.items()}
        await super().save_progress(forward, dead_letters, views, dropped)


class KeepsFirstLetter(Broken):
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        new = [
            letter for letter in dead_letters if (letter.handler, letter.position) not in self._dead_letters
        ]
        await super().save_progress(checkpoints, new, views, dropped)


class LettersByArrival(Broken):
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        return [letter for letter in self._dead_letters.values() if handler in (None, letter.handler)]


class LettersByPrefix(Broken):
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        return [letter for letter in await super().dead_letters() if letter.handler.startswith(handler or "")]


class CountsHandlersWithLetters(Broken):
    async def dead_letter_counts(self) -> dict[str, int]:
        return dict.fromkeys(await super().dead_letter_counts(), 1)


class DropsAll(Broken):
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        dropped = await super().drop_dead_letter(handler, position)
        if dropped:
            self._dead_letters.clear()
        return dropped


class DropsNoneWithProgress(Broken):
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        await super().save_progress(checkpoints, dead_letters, views)


class KeepsFirstSnapshot(Broken):
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        await super().save_snapshots([s for s in snapshots if s.stream not in self._snapshots])


class SnapshotsById(Broken):
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        alike = [s._replace(stream=StreamId("", s.stream.aggregate_id)) for s in snapshots]
        await super().save_snapshots(alike)

    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        found = await super().read_snapshot(StreamId("", stream.aggregate_id))
        return found and found._replace(stream=stream)


class DropsEverySnapshot(Broken):
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        return await super().drop_snapshots()


class DropsSnapshotsOfTheType(Broken):
    async def drop_snapshot(self, stream: StreamId) -> bool:
        return await super().drop_snapshots(stream.aggregate_type) > 0


class DropsCheckpointsOnly(Broken):
    async def drop_progress(self, handler: str) -> bool:
        return self._checkpoints.pop(handler, None) is not None


class TellsNobody(Broken):
    def _committed(self) -> None:
        pass


class TellsTooEarly(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        super()._committed()
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().commit(requests)

    def _committed(self) -> None:
        pass


class ChecksThenWrites(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        for request in requests:
            stream = request.records[0].stream
            head = len(self._streams.get(stream, ())) if stream else 0
            if request.expected_version not in (None, head):
                return [ConcurrencyConflict(str(stream), request.expected_version or 0, head)]
        await asyncio.sleep(0)
        return await super().commit([Append(request.records) for request in requests])


class NumbersThenWrites(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        numbered = []
        for request in requests:
            heads = {stream: len(positions) for stream, positions in self._streams.items()}
            records = []
            for record in request.records:
                assert record.stream
                heads[record.stream] = version = heads.get(record.stream, 0) + 1
                records.append(record._replace(aggregate_version=version))
            numbered.append(Append(tuple(records), request.expected_version))
        await asyncio.sleep(0)
        return await super().commit(numbered)


class HalfIfCancelled(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        (request,) = requests
        left = await super().commit([Append(request.records[:1])])
        if str(request.records[0].aggregate_id).startswith("d"):
            await asyncio.sleep(0)
        right = await super().commit([Append(request.records[1:])])
        return [_joined(*left, *right)]


class LeasesToAll(Broken):
    async def lease(self, name: str) -> Lease | None:
        self._leased.clear()
        return await super().lease(name)


class LeasesForEver(Broken):
    async def lease(self, name: str) -> Lease | None:
        class ForEver(Lease):
            async def release(self) -> None:
                pass

        return None if await super().lease(name) is None else ForEver()


class KeepsLeases(Broken):
    kept: ClassVar[set[str]] = set()

    def __init__(self, event_registry: EventRegistry) -> None:
        super().__init__(event_registry)
        self._leased = self.kept


class SeesItselfOnly(Broken):
    class Alone(MemoryMembership):
        async def announce(self, member: Member) -> tuple[Member, ...]:
            return tuple(each for each in await super().announce(member) if each.id == member.id)

    def membership(self, seconds: float, clock: Clock) -> Membership:
        return self.Alone(self._nodes, seconds, clock, self._check_open)


class ForgetsRoles(Broken):
    class Plain(MemoryMembership):
        async def announce(self, member: Member) -> tuple[Member, ...]:
            return await super().announce(replace(member, roles=()))

    def membership(self, seconds: float, clock: Clock) -> Membership:
        return self.Plain(self._nodes, seconds, clock, self._check_open)


class KeepsSilentNodes(Broken):
    def membership(self, seconds: float, clock: Clock) -> Membership:
        return super().membership(1e9, clock)


class KeepsNodes(Broken):
    kept: ClassVar[MemoryNodes] = MemoryNodes()

    def __init__(self, event_registry: EventRegistry) -> None:
        super().__init__(event_registry)
        self._nodes = self.kept


class TellsNoNode(Broken):
    class Deaf(MemoryMembership):
        def when_changed(self, listener: Callable[[], None]) -> None:
            pass

    def membership(self, seconds: float, clock: Clock) -> Membership:
        return self.Deaf(self._nodes, seconds, clock, self._check_open)


class StaysOpen(Broken):
    async def close(self) -> None:
        pass


class ClosesOnce(Broken):
    async def close(self) -> None:
        self._check_open()
        await super().close()


class LosesWhatWaits(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        await asyncio.sleep(0)
        if self._closed:
            raise RuntimeError("closed in the middle")
        return await super().commit(requests)


class HeadingsAreNumbered(Broken):
    async def read_headings(self, after: int = 0, limit: int = PAGE) -> list[Heading]:
        page = await super().read_headings(after, limit)
        return [heading._replace(aggregate_version=heading.position) for heading in page]


class HeadingsIgnoreLimit(Broken):
    async def read_headings(self, after: int = 0, limit: int = PAGE) -> list[Heading]:
        return await super().read_headings(after, max(limit, 1))


class OneViewForAll(Broken):
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        await super().save_progress(checkpoints, dead_letters, [c._replace(view="all") for c in views])

    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        return await super().read_view("all", start, end, limit)


class ViewsByArrival(Broken):
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        found = await super().read_view(view, start, end, None)
        arrived = list(self._views.get(view, ()))
        return sorted(found, key=lambda entry: arrived.index(entry[0]))[:limit]


class ReadsViewsToTheEnd(Broken):
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        return await super().read_view(view, start, None, limit)


class KeepsFirstValue(Broken):
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        new = [c for c in views if c.value is None or c.key not in self._views.get(c.view, ())]
        await super().save_progress(checkpoints, dead_letters, new)


class RemovesNoKeys(Broken):
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        await super().save_progress(checkpoints, dead_letters, [c for c in views if c.value is not None])


class DropKeepsCheckpoint(Broken):
    async def drop_view(self, view: str) -> None:
        self._views.pop(view, None)


class ForgetsNoCheckpoint(DropKeepsCheckpoint):
    pass


class RenamesIntoTwo(Broken):
    """Adds the dead letters and entries of a new name, and removes none of the old one."""

    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        await super().save_progress(checkpoints, dead_letters, views)


class DropsViewsByPrefix(Broken):
    async def drop_view(self, view: str) -> None:
        for name in [name for name in self._views if name.startswith(view)]:
            await super().drop_view(name)


class TakesAnyHeader(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        outcomes = await super().commit(requests)
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, EventNotSerializable):
                self._log += requests[number].records
                outcomes[number] = Appended(
                    range(len(self._log), len(self._log) + 1), requests[number].records
                )
        return outcomes


class TakesAnyName(Broken):
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        with suppress(InvalidHandler):
            await super().save_progress(checkpoints, dead_letters, views, dropped)


class KeepsTheLoop(Broken):
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        working = super().commit(requests)
        while True:
            try:
                working.send(None)
            except StopIteration as done:
                outcomes: list[Appended | UnoError] = done.value
                return outcomes


BROKEN: dict[type[Broken], str] = {
    TakesAnyHeader: "what_one_store_refuses_all_refuse",
    TakesAnyName: "progress_that_one_store_refuses_all_refuse",
    KeepsTheLoop: "a_loop_of_appends_leaves_time_for_others",
    StartsAtZero: "positions_only_grow",
    EndIsWrong: "positions_only_grow",
    ForgetsTopic: "append_returns_what_readers_read",
    RefusesNothing: "appending_nothing_changes_nothing",
    OneVersionForAll: "versions_count_each_stream",
    IgnoresType: "streams_are_named_by_type_and_id",
    UnsortedTypes: "streams_are_named_by_type_and_id",
    IgnoresCase: "odd_ids_never_meet",
    CutsTypes: "odd_types_never_meet",
    ChecksIdsTooLate: "impossible_ids_are_refused",
    FilesEverything: "events_without_aggregate_stand_in_the_log_alone",
    IgnoresExpectedVersion: "expected_version_is_the_fence",
    TakesAnyStreamForExisting: "a_stream_can_be_required_to_exist",
    ChecksNoStreams: "expected_version_is_of_one_stream",
    SplitsAppends: "an_append_is_all_or_nothing",
    OverwritesVersions: "an_event_may_bring_its_version",
    FailsTogether: "requests_of_one_commit_stand_alone",
    IgnoresConditions: "an_append_may_rest_on_any_events",
    SelectsByTermAlone: "events_are_selected_by_types_tags_and_topics",
    ChecksConditionsFirst: "conditions_of_one_commit_see_each_other",
    TakesAnyVersionWithCondition: "a_condition_and_a_version_must_both_hold",
    ChecksConditionsTooEarly: "one_of_many_conditional_appends_wins",
    IndexesFromNowOn: "old_events_stand_against_conditions",
    TakesAnyPosition: "impossible_conditions_are_refused",
    ReadsInclusively: "get_events_narrows_by_version_and_limit",
    EndsBeforeTheVersion: "get_events_ends_at_a_version",
    BeginsOneTooLate: "one_stream_is_read_between_positions",
    FollowsStreamsFromTheirEnd: "one_stream_is_followed",
    RoundsTime: "get_events_narrows_by_time",
    PicksAType: "an_ambiguous_id_is_refused",
    ReadsNoSecondPage: "streams_are_read_page_by_page",
    HeadingsAreNumbered: "headings_are_those_of_the_log",
    HeadingsIgnoreLimit: "headings_are_those_of_the_log",
    LogHasNoSecondPage: "the_log_is_read_page_by_page",
    IgnoresLimitZero: "the_log_is_read_page_by_page",
    VersionOfAllTypes: "streams_are_read_backward",
    LastVersionIsStale: "streams_are_read_backward",
    NarrowsPageByPage: "the_log_is_narrowed",
    NarrowsByTopicOnly: "the_log_is_narrowed",
    SkipsWhatCameBetween: "subscriptions_go_from_history_to_live",
    GivesTheLastAgain: "subscriptions_go_from_history_to_live",
    WakesNobody: "subscriptions_go_from_history_to_live",
    LeavesSubscribersWaiting: "subscriptions_end_with_the_store",
    EndsSubscriptionsInError: "subscriptions_end_with_the_store",
    ShowsNewestFirst: "read_all_goes_on_while_the_log_grows",
    LosesPayload: "every_kind_of_value_comes_back",
    SmallOnly: "big_events_come_back",
    KnowsOnlyGlobally: "an_unknown_type_is_named",
    StoresTodaysVersion: "old_events_are_upcast",
    ReplacesCheckpoints: "checkpoints_move",
    OnlyForward: "checkpoints_move",
    LeavesCheckpoints: "events_move_a_checkpoint",
    MovesTheCheckpointFirst: "events_move_a_checkpoint",
    ChecksNoEarlierPosition: "a_checkpoint_moves_from_where_it_is_expected",
    ChecksAllCheckpointsAtFirst: "checkpoints_of_one_commit_stand_alone",
    TakesAnyCheckpoint: "impossible_checkpoints_are_refused",
    ChecksTheCheckpointTooEarly: "of_two_consumers_one_records_each_event",
    KeepsFirstLetter: "dead_letters_move_with_checkpoints",
    LettersByArrival: "dead_letters_are_listed_in_order",
    LettersByPrefix: "dead_letters_are_listed_in_order",
    OneViewForAll: "views_are_read_in_order_and_keep_apart",
    ViewsByArrival: "views_are_read_in_order_and_keep_apart",
    ReadsViewsToTheEnd: "views_are_read_in_order_and_keep_apart",
    KeepsFirstValue: "views_change_with_checkpoints",
    RemovesNoKeys: "views_change_with_checkpoints",
    DropKeepsCheckpoint: "views_can_be_dropped",
    DropsViewsByPrefix: "views_can_be_dropped",
    ForgetsNoCheckpoint: "handlers_can_be_forgotten",
    RenamesIntoTwo: "handlers_can_be_renamed",
    CountsHandlersWithLetters: "dead_letters_are_listed_in_order",
    DropsAll: "dead_letters_can_be_dropped",
    DropsNoneWithProgress: "dead_letters_can_be_dropped",
    KeepsFirstSnapshot: "snapshots_are_kept_one_for_each_stream",
    SnapshotsById: "snapshots_are_kept_one_for_each_stream",
    DropsEverySnapshot: "snapshots_can_be_dropped",
    DropsSnapshotsOfTheType: "one_snapshot_can_be_dropped",
    DropsCheckpointsOnly: "progress_can_be_dropped",
    TellsNobody: "listeners_hear_of_commits",
    TellsTooEarly: "listeners_find_what_was_committed",
    ChecksThenWrites: "one_of_many_wins",
    NumbersThenWrites: "many_appends_leave_no_gap",
    ShowsHalves: "readers_see_a_prefix",
    HalfIfCancelled: "a_cancelled_append_is_recorded_whole_or_not_at_all",
    LeasesToAll: "a_name_is_leased_once",
    LeasesForEver: "a_name_is_leased_once",
    KeepsLeases: "closing_releases_leases",
    SeesItselfOnly: "nodes_see_each_other",
    ForgetsRoles: "all_that_a_node_announces_comes_back",
    KeepsSilentNodes: "an_announcement_ends_unless_it_is_renewed",
    KeepsNodes: "closing_withdraws_nodes",
    TellsNoNode: "nodes_hear_of_others",
    StaysOpen: "leaving_the_store_closes_it",
    ClosesOnce: "a_closed_store_refuses",
    LosesWhatWaits: "closing_finishes_what_was_begun",
    Broken: "durable_stores_survive_reopening",
}


@pytest.mark.parametrize(("broken", "name"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
async def test_store_that_breaks_a_promise_is_found_out(
    broken: type[Broken], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for subject in ("following", "membership"):
        monkeypatch.setattr(f"uno_actors.testing.contract.{subject}.PATIENCE", 0.5)

    @asynccontextmanager
    async def make_store() -> AsyncIterator[StorePlace]:
        async def open_store(event_registry: EventRegistry) -> EventStore:
            return broken(event_registry)

        yield StorePlace(open_store, durable=broken is Broken)

    (check,) = [check for check in CONTRACT if check.__name__ == name]
    with pytest.raises((AssertionError, UnoError, RuntimeError)):
        await check(make_store)


async def read_beyond_its_end(reader: Reader, after: int, limit: int) -> list[StoredRecord]:
    return to_stored(await reader.rows(LOG_PAGE, {"after": after, "limit": limit}))


async def read_backward(reader: Reader, after: int, limit: int) -> list[StoredRecord]:
    return (await read_whole(reader, after, limit))[::-1]


read_whole = Reader.log_page


async def end_in_another_order(reader: Reader) -> list[int]:
    return [row.last_position for row in await reader.rows(LAST_POSITIONS)][::-1]


async def mix_the_logs(reader: Reader, limit: int | None, *_: Any) -> AsyncGenerator[StoredRecord]:
    """Newest first."""
    rows = await reader.rows(LOG_PAGE, {"after": 0, "limit": 10_000})
    for stored in to_stored(rows)[::-1][:limit]:
        yield stored


@pytest.mark.parametrize(
    ("method", "fault", "check"),
    [
        ("log_page", read_beyond_its_end, the_log_is_read_page_by_page),
        ("log_page", read_backward, readers_see_a_prefix),
        ("ends", end_in_another_order, positions_only_grow),
        ("search_all", mix_the_logs, the_log_is_narrowed),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_fault_of_a_store_with_several_logs_is_found(
    method: str, fault: Callable[..., Any], check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader, method, fault)
    with pytest.raises(AssertionError):
        await check(in_four_logs)


def test_every_check_has_a_store_that_fails_it() -> None:
    assert {check.__name__ for check in CONTRACT} == set(BROKEN.values())


async def test_check_event_store_names_the_check_that_failed_and_its_promise() -> None:
    @asynccontextmanager
    async def make_store() -> AsyncIterator[StorePlace]:
        async def open_store(event_registry: EventRegistry) -> EventStore:
            return LettersByArrival(event_registry)

        yield StorePlace(open_store, durable=False)

    with pytest.raises(
        AssertionError, match=r"^dead_letters_are_listed_in_order: Dead letters are listed by"
    ):
        await check_event_store(make_store)
