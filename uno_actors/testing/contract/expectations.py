"""What checks read from a store, and what they expect to find."""

from collections.abc import Awaitable
from typing import Any

from uno_actors.domain.events import DomainEvent
from uno_actors.errors import UnoError
from uno_actors.store.codec import to_record
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended, RecordedEvent
from uno_actors.testing.contract.events import Noted


async def texts_of(store: EventStore, aggregate_id: str, of: str = "Account", **narrowed: Any) -> list[str]:
    """The texts of the events in one stream."""
    events = await store.get_events(aggregate_id, aggregate_type=of, **narrowed)
    return [event.text for event in events if isinstance(event, Noted)]


async def log_of(store: EventStore, after: int = 0, limit: int | None = None) -> list[RecordedEvent]:
    """The log after position ``after``."""
    log: list[RecordedEvent] = []
    async for recorded in store.read_all(after, limit):
        if recorded.position <= after:  # else a store that repeats itself would be read endlessly
            raise AssertionError(f"position {recorded.position} was read after {after}")
        after = recorded.position
        log.append(recorded)
    return log


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


def request_of(*events: DomainEvent, expected_version: int | None = None) -> Append:
    """A request to append ``events``."""
    return Append(tuple(to_record(event) for event in events), expected_version)


def appended_of(outcome: Appended | UnoError) -> Appended:
    """The outcome of a request that was recorded."""
    if isinstance(outcome, UnoError):
        raise outcome
    return outcome
