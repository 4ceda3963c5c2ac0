"""What checks read from a store, and what they expect to find."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Literal, TypeVar

from uno_actors.domain.events import DomainEvent
from uno_actors.errors import SeveralLogs, UnoError
from uno_actors.store.codec import Record, to_record
from uno_actors.store.logs import log_of_position, starts_of_logs
from uno_actors.store.port import EventStore
from uno_actors.store.records import (
    PAGE,
    Append,
    Appended,
    Checkpoint,
    RecordedEvent,
    StoredRecord,
    StreamState,
)
from uno_actors.testing.contract.events import Noted

Placed = TypeVar("Placed", RecordedEvent, StoredRecord, tuple[int, Record])


async def texts_of(store: EventStore, aggregate_id: str, of: str = "Account", **narrowed: Any) -> list[str]:
    """The texts of the events in one stream."""
    events = await store.get_events(aggregate_id, aggregate_type=of, **narrowed)
    return [event.text for event in events if isinstance(event, Noted)]


async def log_of(store: EventStore, after: int = 0, limit: int | None = None) -> list[RecordedEvent]:
    """The log after position ``after``; of a store with several logs one after the other, as `in_place`."""
    log: list[RecordedEvent] = []
    last: dict[int, int] = {}
    async for recorded in store.read_all(after, limit):
        _expect_grown(
            last, recorded.position, after
        )  # else a store that repeats itself would be read endlessly
        log.append(recorded)
    return in_place(log)


def expect_in_log_order(recorded: Iterable[RecordedEvent]) -> None:
    """Fail if events of one log are not in its order."""
    last: dict[int, int] = {}
    for position, _ in recorded:
        _expect_grown(last, position, 0)


def _expect_grown(last: dict[int, int], position: int, after: int) -> None:
    number = log_of_position(position)
    before = last.get(number, after)
    if position <= before:
        raise AssertionError(f"position {position} was read after {before}")
    last[number] = position


def in_place(recorded: Iterable[Placed]) -> list[Placed]:
    """What was recorded, by position: in one log its order, in several one log after the other."""
    return sorted(recorded, key=lambda each: each[0])


async def starts_of(store: EventStore) -> list[int]:
    """The position before the first event of each log."""
    return starts_of_logs(len(await store.last_positions()))


async def records_of(store: EventStore, limit: int = PAGE) -> list[StoredRecord]:
    """The first records of each log, at most ``limit`` each."""
    return [stored for start in await starts_of(store) for stored in await store.read_log(start, limit)]


async def expect_empty(store: EventStore) -> None:
    """Fail if the store has an event."""
    await expect_ends(store, await starts_of(store))


async def expect_ends(store: EventStore, wanted: Sequence[int]) -> None:
    """Fail if the logs do not end there. Only a store with one log has one last position."""
    expect_equal(await store.last_positions(), [*wanted], "the ends of the logs")
    if len(wanted) == 1:
        expect_equal(await store.last_position(), wanted[0], "the end of the log")
    else:
        await expect_error(SeveralLogs, store.last_position(), "one last position of several logs")


async def ends_of(store: EventStore) -> list[int]:
    """The position of the last event of each log, as its readers find it."""
    ends = await starts_of(store)
    for position, _ in await log_of(store):
        ends[log_of_position(position)] = position
    return ends


async def versions_of(store: EventStore, aggregate_id: str, of: str = "Account") -> list[int | None]:
    """The versions of the events in one stream."""
    return [event.aggregate_version for event in await store.get_events(aggregate_id, aggregate_type=of)]


def expect_equal(found: object, wanted: object, what: str) -> None:
    """Fail if ``found`` is not ``wanted``."""
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, found {found!r}")


async def expect_error(kind: type[BaseException], call: Awaitable[object], what: str) -> BaseException:
    """Await ``call`` and return its error; fail if it has none of this kind."""
    try:
        result = await call
    except kind as error:
        return error
    raise AssertionError(f"{what}: expected {kind.__name__}, found {result!r}")


def request_of(
    *events: DomainEvent,
    expected_version: int | Literal[StreamState.EXISTS] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Append:
    """A request to append ``events``, and to move ``checkpoint``."""
    return Append(tuple(to_record(event) for event in events), expected_version, checkpoint)


def appended_of(outcome: Appended | UnoError) -> Appended:
    """The outcome of a request that was recorded."""
    if isinstance(outcome, UnoError):
        raise outcome
    return outcome
