"""What is recorded of an event is what was decided: read by a fresh process it is equal, type for type, or refused."""

import dataclasses
import enum
import math
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretStr,
    ValidationError,
    create_model,
    field_validator,
)
from typing_extensions import TypedDict

from tests.stores.test_contract import STORES
from uno_actors import AggregateRoot, EventNotReadable, EventNotSerializable, UnoError
from uno_actors.codec import pack, to_event, to_record, unpack
from uno_actors.events import METADATA, DomainEvent, EventRegistry
from uno_actors.payloads import as_recorded, is_exact
from uno_actors.testing.contract import MakeStore

# --- values that are hard to carry -------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = (255, 0, 0)
    BLUE = (0, 0, 255)


class Vat(enum.Enum):
    FULL = Decimal("0.19")
    NONE = None


class Name(enum.StrEnum):
    ALICE = "alice"
    BOB = "bob"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Square:
    x: int
    y: Decimal


@dataclasses.dataclass
class Line:
    item: str
    counts: list[int]


class Place(NamedTuple):
    x: int
    name: str


class Options(TypedDict):
    limit: Decimal
    names: list[str]


class Money(BaseModel):
    model_config = ConfigDict(frozen=True)
    amount: Decimal
    currency: str = "EUR"


class Note(BaseModel):
    text: str
    tags: set[str] = set()
    _author: str = PrivateAttr(default="")


class SignedNote(Note):
    signature: str = "anonymous"


class Many(RootModel[list[int]]):
    pass


def noted(kind: type[Note], text: str, author: str) -> Note:
    note = kind(text=text)
    note._author = author
    return note


ZONES = st.sampled_from(
    [
        None,
        UTC,
        timezone(timedelta(hours=-8), "PST"),
        timezone(timedelta(hours=5, minutes=45)),
        timezone(timedelta(hours=1, seconds=30)),
        timezone(timedelta(0), "Z"),
        ZoneInfo("Europe/Vienna"),
        ZoneInfo("America/New_York"),
    ]
)
MOMENTS = st.datetimes(timezones=ZONES) | st.sampled_from(
    [
        datetime.min,
        datetime.max,
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Vienna"), fold=1),
        datetime(2024, 10, 27, 2, 30, fold=1),  # noqa: DTZ001 - naive on purpose
    ]
)
TEXTS = st.text(max_size=5) | st.sampled_from(
    ["1", "1.5", "true", "2024-06-01", "alice", str(UUID(int=7)), "P1D"]
)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False) | st.just(Decimal("1.50"))

Kind = tuple[Any, "st.SearchStrategy[Any]"]

HASHABLE: list[Kind] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, st.integers() | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**40])),
    (float, st.floats() | st.sampled_from([1.0, -0.0])),
    (str, TEXTS),
    (bytes, st.binary(max_size=5)),
    (Decimal, DECIMALS),
    (UUID, st.uuids() | st.just(UUID(int=7))),
    (date, st.dates()),
    (datetime, MOMENTS),
    (time, st.times() | st.times(timezones=st.just(UTC))),
    (
        timedelta,
        st.timedeltas() | st.sampled_from([timedelta.min, timedelta.max, timedelta(microseconds=-1)]),
    ),
    (Colour, st.sampled_from(Colour)),
    (Vat, st.sampled_from(Vat)),
    (Name, st.sampled_from(Name)),
    (Level, st.sampled_from(Level)),
    (Right, st.sampled_from([Right.READ, Right.READ | Right.WRITE])),
    (Literal["alice", 1], st.sampled_from(["alice", 1])),
    (Annotated[int, Field(ge=0)], st.integers(0, 9)),
    (Annotated[str, Field(max_length=9)], TEXTS),
    (Square, st.builds(Square, st.integers(0, 9), DECIMALS)),
    (Place, st.builds(Place, st.integers(0, 9), TEXTS)),
    (Money, st.builds(Money, amount=DECIMALS, currency=TEXTS)),
    (IPv4Address, st.ip_addresses(v=4)),
    (PurePosixPath, st.just(PurePosixPath("a/b"))),
    (complex, st.complex_numbers(allow_nan=False, max_magnitude=9)),
]
ANYTHING: Kind = (Any, st.one_of([values for _, values in HASHABLE] + [st.just({1, 2}), st.just((1, [2]))]))
OTHERS: list[Kind] = [
    ANYTHING,
    (object, ANYTHING[1]),
    (Line, st.builds(Line, TEXTS, st.lists(st.integers(), max_size=2))),
    (Options, st.fixed_dictionaries({"limit": DECIMALS, "names": st.lists(TEXTS, max_size=2)})),
    (Note, st.builds(noted, st.sampled_from([Note, SignedNote]), TEXTS, st.sampled_from(["", "alice"]))),
    (Many, st.lists(st.integers(0, 9), max_size=3).map(Many)),
    (SecretStr, st.just(SecretStr("open sesame"))),
]


def _union(one: Kind, other: Kind) -> Kind:
    return one[0] | other[0] if one[0] is not None else other[0] | None, one[1] | other[1]


@st.composite
def kinds(draw: st.DrawFn, *, hashable: bool = False, depth: int = 2) -> Kind:
    """An annotation, and values for it."""
    leaves = st.sampled_from(HASHABLE if hashable else HASHABLE + OTHERS)
    if depth == 0:
        return draw(leaves)
    inner = kinds(hashable=hashable, depth=depth - 1)
    keys = kinds(hashable=True, depth=depth - 1)
    shape = draw(st.sampled_from(["leaf", "leaf", "union", "tuple", "pair", "frozenset", "list", "set", "dict", "deque", "sequence", "mapping"]))  # fmt: skip
    match shape:
        case "union":
            one, other = draw(inner), draw(inner)
            try:
                return _union(one, other)
            except TypeError:  # None | None
                return one
        case "tuple":
            annotation, values = draw(inner)
            return tuple[annotation, ...], st.lists(values, max_size=3).map(tuple)
        case "pair":
            one, other = draw(inner), draw(inner)
            return tuple[one[0], other[0]], st.tuples(one[1], other[1])  # type: ignore[name-defined]
        case "frozenset":
            annotation, values = draw(keys)
            return frozenset[annotation], st.frozensets(values, max_size=3)  # type: ignore[valid-type]
    if hashable or shape == "leaf":
        return draw(leaves)
    annotation, values = draw(inner)
    match shape:
        case "list":
            return list[annotation], st.lists(values, max_size=3)  # type: ignore[valid-type]
        case "deque":
            return deque[annotation], st.lists(values, max_size=3).map(deque)  # type: ignore[valid-type]
        case "sequence":
            return Sequence[annotation], st.lists(values, max_size=3) | st.lists(values, max_size=3).map(
                tuple
            )  # type: ignore[valid-type]
    key, members = draw(keys)
    match shape:
        case "set":
            return set[key], st.sets(members, max_size=3)  # type: ignore[valid-type]
        case "mapping":
            return Mapping[key, annotation], st.dictionaries(members, values, max_size=2)  # type: ignore[valid-type]
    return dict[key, annotation], st.dictionaries(members, values, max_size=2)  # type: ignore[valid-type]


def event_class(annotation: Any) -> type[DomainEvent]:
    return create_model("Generated", __base__=DomainEvent, value=(annotation, ...))


@st.composite
def events(draw: st.DrawFn) -> DomainEvent:
    """An event with one field, of a class of its own, as its author makes it."""
    annotation, values = draw(kinds())
    kind = event_class(annotation)
    value = draw(values)
    try:
        return kind(value=value) if draw(st.integers(0, 9)) else kind.model_construct(value=value)
    except ValidationError:
        assume(False)
        raise


def same(one: Any, other: Any) -> bool:  # noqa: PLR0911 - one for each kind
    """Equal, of the same types all the way down; of a time's zone only the offset counts."""
    if type(one) is not type(other):
        return False
    match one:
        case float() | complex() | Decimal():
            return repr(one) == repr(other)
        case datetime():
            offsets = one.utcoffset(), other.utcoffset()
            return (
                one.replace(tzinfo=None, fold=0) == other.replace(tzinfo=None, fold=0)
                and offsets[0] == offsets[1]
            )
        case dict():
            return (
                all(map(same, one, other))
                and all(map(same, one.values(), other.values()))
                and len(one) == len(other)
            )
        case set() | frozenset():
            found = {member: member for member in other}
            return len(one) == len(other) and all(
                member in found and same(member, found[member]) for member in one
            )
        case list() | tuple() | deque():
            return len(one) == len(other) and all(map(same, one, other))
        case BaseModel():
            private = one.__pydantic_private__ or {}, other.__pydantic_private__ or {}
            return same(dict(one), dict(other)) and same(*private)
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    return bool(one == other)


class Diary(AggregateRoot):
    """Keeps what its events were when they were applied."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.seen: list[DomainEvent] = []

    def apply_generated(self, event: DomainEvent) -> None:
        self.seen.append(event)


def check_decided_is_read(event: DomainEvent) -> bool:
    """Whether the event is recorded; if it is, what was applied and what is read are what it was."""
    diary = Diary("d")
    try:
        diary.register_event(event)
        (pending,) = diary.take_pending_events()
        data = pack(to_record(pending))
    except EventNotSerializable:
        return False
    read = to_event(unpack(data, "a test"), EventRegistry([type(event)]))
    (applied,) = diary.seen
    assert same(applied, read), f"applied {applied!r}, read {read!r}"
    assert same(event.value, read.value), f"decided {event!r}, read {read!r}"  # type: ignore[attr-defined]
    return True


BUSY = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@given(events())
@settings(max_examples=250, suppress_health_check=BUSY)
def test_event_of_any_class_is_read_as_it_was_decided_or_refused(event: DomainEvent) -> None:
    check_decided_is_read(event)


@pytest.mark.soak
@given(events())
@settings(max_examples=10_000, suppress_health_check=BUSY)
def test_ten_thousand_events_of_any_class_are_read_as_they_were_decided_or_refused(
    event: DomainEvent,
) -> None:
    check_decided_is_read(event)


async def _check_store(make_store: MakeStore, written: list[DomainEvent]) -> None:
    registry = EventRegistry()
    async with make_store() as place:
        recorded: list[DomainEvent] = []
        async with await place.open(registry) as store:
            for number, event in enumerate(written):
                registry.register(type(event), f"e{number}")
                try:
                    recorded += [
                        one.event for one in await store.append(event.stamped(event_type=f"e{number}"))
                    ]
                except EventNotSerializable:
                    continue
            if place.durable is False:
                found = [one.event async for one in store.read_all()]
        if place.durable is not False:
            async with await place.open(registry) as store:
                found = [one.event async for one in store.read_all()]
    assert len(found) == len(recorded)
    for one, other in zip(recorded, found, strict=True):
        assert same(one, other), f"returned {one!r}, read {other!r}"


STORE_NAMES = ["memory", "lmdb", "sqlite", "postgres"]
ONE_EVENT = st.lists(events(), min_size=3, max_size=6)


@pytest.mark.parametrize("name", STORE_NAMES)
@given(written=ONE_EVENT)
@settings(max_examples=8, suppress_health_check=[*BUSY, HealthCheck.function_scoped_fixture])
async def test_every_store_gives_back_what_it_has_acknowledged(name: str, written: list[DomainEvent]) -> None:
    await _check_store(STORES[name], written)


@pytest.mark.soak
@pytest.mark.parametrize("name", STORE_NAMES)
@given(written=st.lists(events(), min_size=20, max_size=40))
@settings(max_examples=80, suppress_health_check=[*BUSY, HealthCheck.function_scoped_fixture])
async def test_every_store_gives_back_thousands_of_events_of_any_class(
    name: str, written: list[DomainEvent]
) -> None:
    await _check_store(STORES[name], written)
