"""Expected versions: which version of a stream an append is for, and the check that all stores share."""

from collections.abc import Callable
from typing import Final, Literal

from uno_actors.errors import (
    ConcurrencyConflict,
    InvalidExpectedVersion,
    NoSuchStream,
)
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.limits import check_record
from uno_actors.store.records import Append, StreamState

ANY: Final = StreamState.ANY
"""``expected_version=ANY``: append at any version. ``None`` means the same."""

EXISTS: Final = StreamState.EXISTS
"""``expected_version=EXISTS``: append at any version of a stream that has events, else end with `NoSuchStream`."""

ExpectedVersion = int | Literal[StreamState.ANY, StreamState.EXISTS] | None
"""The version of a stream that an append is for."""


def checked_version(found: object) -> int | Literal[StreamState.EXISTS] | None:
    """The version that an append expects, or `EXISTS`; ``None`` if any will do."""
    if found is ANY or found is None:
        return None
    if found is EXISTS:
        return EXISTS
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise InvalidExpectedVersion(found)
    return found


def place(request: Append, version_of: Callable[[StreamId], int]) -> tuple[Record, ...]:
    """Give each record of ``request`` its place in its stream: the one rule that all stores share.

    Args:
        request: The records to place.
        version_of: The version that a stream has now, earlier requests of the same commit included.

    Raises:
        EventNotSerializable, InvalidAggregateId: Some store would not accept a record; see `uno_actors.store.limits`.
        ConcurrencyConflict: A stream is not at the expected version, or the place that a record brings is
            not the next one.
        NoSuchStream: A stream has no events, and is expected to exist.
    """
    for record in request.records:
        check_record(record)
    placed: list[Record] = []
    heads: dict[StreamId, int] = {}
    for record in request.records:
        stream = record.stream
        if stream is None:
            placed.append(record)
            continue
        head = heads.get(stream)
        if head is None:
            head = version_of(stream)
            if request.expected_version not in (None, head):
                _check_exists(request.expected_version, stream, head)
        heads[stream] = version = head + 1
        if record.aggregate_version is None:
            placed.append(record._replace(aggregate_version=version))
        elif record.aggregate_version == version:
            placed.append(record)
        else:
            raise ConcurrencyConflict(str(stream), record.aggregate_version - 1, head)
    return tuple(placed)


def _check_exists(expected: int | Literal[StreamState.EXISTS] | None, stream: StreamId, head: int) -> None:
    """Refuse what is not at the expected version, unless it has any and that is all that is expected."""
    if isinstance(expected, int):
        raise ConcurrencyConflict(str(stream), expected, head)
    if not head:
        raise NoSuchStream(str(stream))
