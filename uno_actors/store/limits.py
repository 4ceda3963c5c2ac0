"""The limits that all stores share: checked here, before a store sees a record.

A record that one store accepts is accepted by all, so it can be copied to any of them. The limits are those that
LMDB's keys, SQLite's and PostgreSQL's columns and msgpack have in common. They hold for new records; existing records
are read as they are. `uno_actors.store.codec` checks the payload, and each store its size.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from uno_actors.domain.aggregate import MAX_ID_BYTES, MAX_TYPE_BYTES, check_aggregate_id, unfit_name
from uno_actors.errors import EventNotSerializable, InvalidHandler, UnoError
from uno_actors.store.codec import Record
from uno_actors.store.records import DeadLetter, ViewChange

MAX_TEXT_BYTES = 1000
"""The longest id, topic or name of an event type in the header of a record, in bytes of UTF-8: indexes have pages."""
MAX_HANDLER_BYTES = 502
"""The longest name of a handler, in bytes of UTF-8: a key of LMDB has 511, and a position follows."""
MAX_KEY_BYTES = 250
"""The longest key of an entry of a view."""
MAX_NUMBER = 2**63 - 1
"""The greatest version or position."""
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
"""Times of events lie between these, both included: in UTC they have the years 1 to 9999."""


def check_record(record: Record) -> None:
    """Refuse a record that some store could not keep or return unchanged.

    Raises:
        EventNotSerializable: A header field has another type than in `Record`, is out of its range, is too long, or
            holds a NUL character or text that cannot be written as UTF-8.
        InvalidAggregateId: The same holds for the aggregate id.
    """
    (
        event_id,
        kind,
        version,
        of_type,
        of,
        of_version,
        topic,
        when,
        correlation,
        causation,
        command,
        reply,
        above,
        data,
    ) = record
    # The common case is decided first: this runs for each event that is recorded.
    try:
        text = "".join(
            (
                event_id,
                kind,
                "" if of_type is None else of_type,
                "" if of is None else of,
                "" if topic is None else topic,
                "" if correlation is None else correlation,
                "" if causation is None else causation,
                "" if command is None else command,
                "" if above is None else above,
            )
        )
        if (
            text.isascii()
            and len(text) <= MAX_TEXT_BYTES
            and "\0" not in text
            and (of is None or 0 < len(of) <= MAX_ID_BYTES)
            and (of_type is None or len(of_type) <= MAX_TYPE_BYTES)
            and type(version) is int
            and 0 < version <= MAX_NUMBER
            and (of_version is None or (type(of_version) is int and 0 < of_version <= MAX_NUMBER))
            and EARLIEST <= when <= LATEST
            and (reply is None or type(reply) is bytes)
            and type(data) is bytes
        ):
            return
    except TypeError:  # the reason is found below
        pass
    _check_each(record)


def _check_each(record: Record) -> None:
    if record.aggregate_id is not None:
        check_aggregate_id(record.aggregate_id)
    for name, (is_optional, check) in _CHECKS.items():
        value = getattr(record, name)
        if value is None and is_optional:
            continue
        if reason := check(value):
            raise EventNotSerializable(str(record.event_type), f"its {name} is {_shown(value)}: {reason}")


def _text(value: object) -> str:
    if value == "":
        return ""
    return unfit_name(value, MAX_TEXT_BYTES)


def _type_name(value: object) -> str:
    return "" if value == "" else unfit_name(value, MAX_TYPE_BYTES)


def _number(value: object) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        return f"it must be an int, not {type(value).__name__}"
    return "" if 0 < value <= MAX_NUMBER else "it must be 1 or more, and below 2**63"


def _instant(value: object) -> str:
    if not isinstance(value, datetime):
        return f"it must be a datetime, not {type(value).__name__}"
    if value.tzinfo is None:
        return "it has no time zone"
    if EARLIEST <= value <= LATEST:
        return ""
    return f"it must be between {EARLIEST:%Y-%m-%d} and {LATEST:%Y-%m-%d}"


def _bytes(value: object) -> str:
    return "" if isinstance(value, bytes) else f"it must be bytes, not {type(value).__name__}"


class _Check(NamedTuple):
    """For each field: whether it may be ``None``, and the function that says why a value does not fit."""

    is_optional: bool
    check: Callable[[object], str]


_CHECKS = {
    "event_id": _Check(False, _text),
    "event_type": _Check(False, _text),
    "version": _Check(False, _number),
    "aggregate_type": _Check(True, _type_name),
    "aggregate_version": _Check(True, _number),
    "topic": _Check(True, _text),
    "timestamp": _Check(False, _instant),
    "correlation_id": _Check(True, _text),
    "causation_id": _Check(True, _text),
    "command_id": _Check(True, _text),
    "reply": _Check(True, _bytes),
    "command_causation_id": _Check(True, _text),
    "payload": _Check(False, _bytes),
}


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def is_recordable(records: Iterable[Record]) -> bool:
    """Whether `check_record` lets all of them pass."""
    try:
        for record in records:
            check_record(record)
    except UnoError:
        return False
    return True


def check_handlers(names: Iterable[str]) -> None:
    """Refuse names of handlers, or of their views, under which not every store can keep progress.

    Raises:
        InvalidHandler: It is empty, too long, or holds a NUL character or text that UTF-8 cannot encode.
    """
    for name in names:
        if reason := unfit_name(name, MAX_HANDLER_BYTES):
            raise InvalidHandler(f"handler name {_shown(name)}: {reason}")


def check_lease(name: str) -> None:
    """Refuse a name that not every store can lease; it may be empty.

    Raises:
        InvalidHandler: See `check_handlers`.
    """
    if name:
        check_handlers([name])


def check_progress(
    checkpoints: Mapping[str, int],
    dead_letters: Sequence[DeadLetter] = (),
    views: Sequence[ViewChange] = (),
    dropped: Sequence[tuple[str, int]] = (),
) -> None:
    """Refuse progress that not every store can keep.

    Args:
        checkpoints: Positions by the names of handlers.
        dead_letters: Those that are written.
        views: See `ViewChange`.
        dropped: Handler and position of each dead letter that is dropped.

    Raises:
        InvalidHandler: See `check_handlers`.
        ValueError: A position is negative, or beyond 63 bits; or a key of a view is empty or too long.
    """
    letters = [*((letter.handler, letter.position) for letter in dead_letters), *dropped]
    check_handlers({*checkpoints, *(handler for handler, _ in letters), *(view for view, _, _ in views)})
    for view, key, _ in views:
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise ValueError(
                f"a key of the view {_shown(view)} must have 1 to {MAX_KEY_BYTES} bytes; found {len(key)}"
            )
    for name, position in (*checkpoints.items(), *letters):
        if not 0 <= position <= MAX_NUMBER:
            raise ValueError(
                f"the position of handler {_shown(name)} must be 0 or more, and below 2**63; found {position}"
            )
