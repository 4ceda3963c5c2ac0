"""``uno-actors tail``: the events of a store while they are recorded."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import typer

from uno_actors.cli.handlers import to_place
from uno_actors.cli.opening import AggregateType, Correlation, EventTypes, Json, Limit, Topic, with_store
from uno_actors.cli.rows import show_records
from uno_actors.cli.terminal import ends_with_reader
from uno_actors.handlers.control import position_of
from uno_actors.handlers.spec import Start
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.logs import log_of_position
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord


@with_store
async def tail(
    store: EventStore,
    topic: Topic = None,
    event_type: EventTypes = None,
    aggregate_type: AggregateType = None,
    correlation_id: Correlation = None,
    since: Annotated[
        str,
        typer.Option(
            "--from", metavar="PLACE", help="latest, earliest, a position to begin after, or a time."
        ),
    ] = "latest",
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Show events live, as they are recorded, until Ctrl-C: only those to come, or from an earlier place on.

    In a pipe it ends with its reader, too.
    """
    matching = store.log_filter(topic, event_type or None, aggregate_type, correlation_id)
    with ends_with_reader():
        await show_records(await _from(store, to_place(since), matching), limit, as_json=as_json)


async def _from(store: EventStore, place: Start, matching: LogFilter) -> AsyncGenerator[StoredRecord]:
    """The records after a place, then those to come.

    Raises:
        SeveralLogs: The store has several logs, and the place is in one of them.
    """
    ends = await store.last_positions()
    if len(ends) > 1:
        if place == "latest":
            return _after(ends, store.follow_records(0, matching))
        return store.follow_records(0 if place == "earliest" else await _position(store, place), matching)
    return store.follow_records(await position_of(store, place, ends[0]), matching)


async def _position(store: EventStore, place: Start) -> int:
    return await position_of(store, place, await store.last_position())


async def _after(ends: list[int], records: AsyncGenerator[StoredRecord]) -> AsyncGenerator[StoredRecord]:
    """Those of ``records`` that were recorded after the ends of the logs."""
    async with aclosing(records) as each:
        async for stored in each:
            if stored.position > ends[log_of_position(stored.position)]:
                yield stored
