"""Every store accepts and refuses the same records and names."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone

from uno_actors.errors import (
    EventNotSerializable,
    InvalidAggregateId,
    InvalidHandler,
)
from uno_actors.store.codec import Record, to_record
from uno_actors.store.records import Append, Appended, ViewChange
from uno_actors.testing.contract.events import noted
from uno_actors.testing.contract.expectations import expect_equal, expect_error, in_place, records_of
from uno_actors.testing.contract.store_place import MakeStore, opened


async def what_one_store_refuses_all_refuse(make_store: MakeStore) -> None:
    """Every store refuses, alone, a record whose header some store could not keep; values at the limits come back."""
    async with opened(make_store) as store:
        record = to_record(noted("a", "fine"))
        refused = [_with(record, name, value) for name, value in _each(IMPOSSIBLE_HEADERS)]
        outcomes = await store.commit([Append((each,)) for each in (record, *refused, record)])
        for each, outcome in zip(refused, outcomes[1:-1], strict=True):
            is_refused = isinstance(outcome, EventNotSerializable | InvalidAggregateId)
            expect_equal(is_refused, True, f"whether {each!r} is refused")
        possible = [_with(record, name, value) for name, value in _each(POSSIBLE_HEADERS)]
        outcomes += await store.commit([Append((each,)) for each in possible])
        kept = [
            each
            for outcome in outcomes
            if isinstance(outcome, Appended)
            for each in zip(outcome.positions, outcome.records, strict=True)
        ]
        expect_equal(len(kept), 2 + len(possible), "how many records were kept")
        expect_equal(await records_of(store), in_place(kept), "the log")


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
            await expect_error(InvalidHandler, store.save_progress({name: 1}), f"a handler named {name!r}")
            change = ViewChange(name, b"k", b"v")
            await expect_error(
                InvalidHandler, store.save_progress({}, views=[change]), f"a view named {name!r}"
            )
            if name:
                await expect_error(InvalidHandler, store.lease(name), f"a lease of {name!r}")
        for position in (-1, 2**63, 2**70):
            await expect_error(ValueError, store.save_progress({"mail": position}), f"position {position}")
        for key in (b"", b"x" * 251):
            change = ViewChange("view", key, b"v")
            await expect_error(
                ValueError, store.save_progress({}, views=[change]), f"a key of {len(key)} bytes"
            )
        await store.save_progress({"x" * 502: 2**63 - 1, "é": 0}, views=[ViewChange("v", b"x" * 250, b"")])
        expect_equal(await store.checkpoints(), {"x" * 502: 2**63 - 1, "é": 0}, "the checkpoints")
        expect_equal(await store.read_view("v"), [(b"x" * 250, b"")], "the view")
