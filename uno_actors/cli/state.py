"""``uno-actors store state``: an aggregate as it is, or as it was at a version or a time."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from uno_actors.aggregates.history import version_at
from uno_actors.cli.opening import (
    AggregateId,
    ConfigFile,
    Json,
    Refused,
    Tenant,
    TypeIfSeveral,
    of_tenant,
)
from uno_actors.cli.terminal import FOLDED, new_table, say, say_json, say_tables
from uno_actors.config.reader import load
from uno_actors.ops.api import states
from uno_actors.ops.api.endpoint import Observed
from uno_actors.ops.api.endpoint import Refused as RefusedByApi
from uno_actors.ops.sampling import Sampler
from uno_actors.ops.sources import StoreSource
from uno_actors.printable import as_json as in_json
from uno_actors.printable import printable
from uno_actors.store.codec import StreamId
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store_urls import without_password
from uno_actors.units import moment


def state(
    aggregate_id: AggregateId,
    aggregate_type: TypeIfSeveral = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="VERSION|TIME", help="A version from 1, or a time such as 2026-01-31T12:00Z."),
    ] = None,
    config: ConfigFile = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show the state of an aggregate, now or as it was, and what its last event by then has changed.

    The classes are those of the program, so --config must name its file. A time without a zone is in UTC.
    """
    if config is None:
        raise Refused("the state is that of a class: name the program's configuration file by --config")
    url = of_tenant(load(str(config)).system.url, tenant)
    shown = asyncio.run(_state(url, aggregate_id, aggregate_type, _moment(at)))
    if as_json:
        say_json(shown.model_dump(mode="json"))
        return
    event = shown.event
    say(
        f"{printable(aggregate_id)} at version {shown.version:,} of {shown.last:,}:"
        f" {printable(event.event_type)}, {event.timestamp:%Y-%m-%d %H:%M:%S}"
    )
    changes = new_table({"CHANGED": FOLDED, "BEFORE": FOLDED, "AFTER": FOLDED})
    for change in shown.changes:
        before = "" if change.kind == "added" else in_json(change.before)
        after = "" if change.kind == "removed" else in_json(change.after)
        changes.add_row(printable(".".join(map(str, change.path))), printable(before), printable(after))
    values = new_table({"STATE": FOLDED, "VALUE": FOLDED})
    for name, value in (shown.state or {}).items():
        values.add_row(printable(name), printable(in_json(value)))
    say_tables(*[changes] * bool(shown.changes), values)
    if shown.left_out is not None:
        say(f"The state is left out: {shown.left_out}")


def _moment(text: str | None) -> int | datetime | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    try:
        return moment(text)
    except ValueError:
        raise Refused(
            f"--at is a version, 1 or more, or a time such as 2026-01-31T12:00Z; found {text!r}"
        ) from None


async def _state(
    url: str, aggregate_id: str, aggregate_type: str | None, moment: int | datetime | None
) -> states.StateShown:
    async with open_store(url, create=False) as store:
        name = await stream_meant(store, url, aggregate_id, aggregate_type)
        version = await version_at(store, name, moment) if isinstance(moment, datetime) else moment
        if version == 0:
            raise Refused(f"{name} had no events by then")
        source = StoreSource(store, url)
        asked = states.AskedState(type=name.aggregate_type, id=name.aggregate_id, version=version)
        try:
            return await states.state(Observed(source, Sampler(source)), asked)
        except RefusedByApi as refused:
            raise Refused(refused.detail) from refused


async def stream_meant(
    store: EventStore, url: str, aggregate_id: str, aggregate_type: str | None
) -> StreamId:
    """The stream of an aggregate that a person names by its id, and by its type if several types have this id.

    Raises:
        Refused: There is none, or there are several.
    """
    types = [aggregate_type] if aggregate_type else await store.aggregate_types(aggregate_id)
    if len(types) > 1:
        raise Refused(f"{aggregate_id!r} is the id of several streams: add --type, {' or '.join(types)}")
    name = StreamId(types[0] if types else "", aggregate_id)
    if not types or not await store.last_version(name):
        raise Refused(
            f"there is no stream {name if types else repr(aggregate_id)} in {without_password(url)}"
        )
    return name
