"""Expected versions: which version of a stream an append is for, and the check that all stores share."""

from collections.abc import Callable
from enum import Enum
from typing import Final, Literal

from typing_extensions import override

from uno_actors.errors import (
    ConcurrencyConflict,
    InvalidExpectedVersion,
)
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.limits import check_record
from uno_actors.store.records import Append


class AnyVersion(Enum):
    """The class of `ANY`: one value, which stays the same when it is copied or pickled."""

    ANY = "any version"

    @override
    def __repr__(self) -> str:
        return self.name


ANY: Final = AnyVersion.ANY
"""``expected_version=ANY``: append at any version. ``None`` means the same."""

ExpectedVersion = int | Literal[AnyVersion.ANY] | None
"""The version of a stream that an append is for."""


def checked_version(found: object) -> int | None:
    """The version that an append expects; ``None`` if any will do."""
    if found is ANY or found is None:
        return None
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
                raise ConcurrencyConflict(str(stream), request.expected_version, head)
        heads[stream] = version = head + 1
        if record.aggregate_version is None:
            placed.append(record._replace(aggregate_version=version))
        elif record.aggregate_version == version:
            placed.append(record)
        else:
            raise ConcurrencyConflict(str(stream), record.aggregate_version - 1, head)
    return tuple(placed)
