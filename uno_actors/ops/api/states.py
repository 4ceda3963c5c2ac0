"""The state of an aggregate at each version of its stream, and what each event changed."""

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, Field

from uno_actors.aggregates.snapshots import Snapshots
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import StoreUnavailable, describe
from uno_actors.ops.api.endpoint import Answered, Asked, Observed, Refused
from uno_actors.ops.api.records import LARGEST_ALONE, EventShown, shown
from uno_actors.ops.api.streams import named_stream
from uno_actors.printable import DEEPEST, as_json, json_value
from uno_actors.store.codec import StreamId, to_event
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord

REPLAY_SECONDS = 10.0
"""Seconds that a replay for one request may take."""
MOST_CHANGES = 200
"""Changes that are shown of one event."""
MOST_ITEMS = 500
"""Entries that are shown of one list or table."""
LARGEST_STATE = 1 << 20
"""Characters of the JSON of a state that is shown."""

Kind = Literal["added", "changed", "removed"]


class Change(Answered):
    """What an event has changed at one place of the state.

    Attributes:
        path: The names and indexes that lead there.
        kind: ``added``, ``changed`` or ``removed``.
        before: The value before; ``None`` if there was none.
        after: The value after.
    """

    path: list[str | int]
    kind: Kind
    before: Any = None
    after: Any = None


class StateShown(Answered):
    """An aggregate at one version.

    Attributes:
        version: The version.
        last: The last version of the stream.
        event: The event that led to it.
        state: Its attributes; ``None`` if they are left out.
        left_out: Why the state is missing.
        changes: What the event has changed, at most `MOST_CHANGES`.
        changed: Number of all changes.
    """

    version: int
    last: int
    event: EventShown
    state: dict[str, Any] | None
    left_out: str | None
    changes: list[Change]
    changed: int


class AskedState(Asked):
    """An aggregate at one version.

    Attributes:
        type: Its type.
        id: Its id.
        version: The version; the last one by default.
    """

    type: str
    id: str
    version: int | None = Field(None, ge=1, lt=2**63)


async def state(observed: Observed, asked: AskedState) -> StateShown:
    """The state of an aggregate at one version of its stream, and what the event has changed."""
    name, store = named_stream(asked.type, asked.id), observed.source.store
    last = await store.last_version(name)
    version = asked.version or last
    if not 0 < version <= last:
        raise Refused(404, f"the stream {name} has {last} events: there is no version {version}")
    kind = observed.source.aggregate_type(asked.type)
    if kind is None:
        raise Refused(
            409,
            f"the class of {asked.type} is not known here: open the page of the program, or name its configuration"
            " file instead of the store: uno-actors dashboard FILE",
        )
    instance = await replayed(store, kind, name, version - 1)
    before = attributes(instance)
    page = await store.read_stream(name, version - 1, 1)
    await _apply(store, instance, page[:1])
    after = attributes(instance)
    changes = list(changed(before, after))
    text = as_json(cut := bounded_items(after))
    return StateShown(
        version=version,
        last=last,
        event=shown(page[0], LARGEST_ALONE),
        state=cut if len(text) <= LARGEST_STATE else None,
        left_out=None if len(text) <= LARGEST_STATE else f"the state has {len(text):,} characters",
        changes=[
            change.model_copy(
                update={"before": bounded_items(change.before), "after": bounded_items(change.after)}
            )
            for change in changes[:MOST_CHANGES]
        ],
        changed=len(changes),
    )


async def replayed(
    store: EventStore, kind: type[AggregateRoot], stream: StreamId, version: int
) -> AggregateRoot:
    """An aggregate as it was at one version. Replaying runs its ``apply_`` methods alone.

    Raises:
        Refused: It cannot be replayed, or not in time.
    """
    try:
        async with asyncio.timeout(REPLAY_SECONDS):
            instance, _ = await Snapshots(store, None).load(kind, stream, version=version)
    except TimeoutError:
        raise Refused(
            503, f"{version:,} events cannot be replayed within {REPLAY_SECONDS:g} s: choose a lower version"
        ) from None
    except StoreUnavailable:
        raise
    except Exception as error:
        raise Refused(409, f"version {version} of {stream} cannot be replayed: {describe(error)}") from error
    return instance


async def _apply(store: EventStore, instance: AggregateRoot, page: list[StoredRecord]) -> None:
    for position, record in page:
        try:
            instance.replay([to_event(record, store.event_registry, position)])
        except Exception as error:
            raise Refused(
                409,
                f"version {record.aggregate_version} of {record.stream} cannot be replayed: {describe(error)}",
            ) from error


def attributes(instance: AggregateRoot) -> dict[str, Any]:
    """The state of an aggregate as plain values: those of its snapshot, or its attributes."""
    try:
        state = dict(instance.to_snapshot())
    except Exception:  # noqa: BLE001 - a hook may raise anything
        state = {name: value for name, value in vars(instance).items() if not name.startswith("_")}
        state.pop("version", None)
    return {str(name): plain(value) for name, value in state.items()}


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of ``value`` as JSON has it, with the fields of models, dataclasses and named tuples by name."""
    if depth >= DEEPEST:
        return "..."
    found: Any
    match value:
        case Enum():
            found = plain(value.value, depth + 1)
        case BaseModel():
            found = {name: plain(each, depth + 1) for name, each in value}
        case Mapping():
            found = {
                key if isinstance(key, str) else as_text(key): plain(each, depth + 1)
                for key, each in value.items()
            }
        case tuple() if hasattr(value, "_asdict"):
            found = {name: plain(each, depth + 1) for name, each in value._asdict().items()}
        case list() | tuple():
            found = [plain(each, depth + 1) for each in value]
        case set() | frozenset():
            found = sorted((plain(each, depth + 1) for each in value), key=as_json)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = (field.name for field in dataclasses.fields(value))
            found = {name: plain(getattr(value, name, None), depth + 1) for name in names}
        case _:
            found = json_value(value)
    return found


def as_text(key: Any) -> str:
    """The key of a table as text."""
    value = plain(key)
    return value if isinstance(value, str) else as_json(value)


def changed(before: Any, after: Any, path: tuple[str | int, ...] = ()) -> Iterator[Change]:
    """The places at which two plain values differ, the innermost ones."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            if name not in before:
                yield Change(path=[*path, name], kind="added", after=after[name])
            elif name not in after:
                yield Change(path=[*path, name], kind="removed", before=before[name])
            else:
                yield from changed(before[name], after[name], (*path, name))
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            if index >= len(before):
                yield Change(path=[*path, index], kind="added", after=after[index])
            elif index >= len(after):
                yield Change(path=[*path, index], kind="removed", before=before[index])
            else:
                yield from changed(before[index], after[index], (*path, index))
    elif before != after or type(before) is not type(after):
        yield Change(path=list(path), kind="changed", before=before, after=after)


def bounded_items(value: Any) -> Any:
    """``value`` with at most `MOST_ITEMS` entries in each list and table: the last ones, which are the newest."""
    if isinstance(value, dict):
        last = list(value.items())[-MOST_ITEMS:]
        left_out = {} if len(last) == len(value) else {"…": f"{len(value) - len(last):,} more"}
        return left_out | {name: bounded_items(each) for name, each in last}
    if isinstance(value, list):
        left_out_items = [f"… {len(value) - MOST_ITEMS:,} more"] if len(value) > MOST_ITEMS else []
        return left_out_items + [bounded_items(each) for each in value[-MOST_ITEMS:]]
    return value
