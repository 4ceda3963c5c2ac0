"""An event is recorded as it was decided: read by a fresh process it is equal, type for type, or it is refused."""

import dataclasses
import enum
import math
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
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
from uno_actors.domain.events import METADATA, DomainEvent, EventRegistry
from uno_actors.domain.exactness import is_exact
from uno_actors.domain.payloads import as_recorded
from uno_actors.store.codec import pack, to_event, to_record, unpack
from uno_actors.testing.contract.store_place import MakeStore

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
        datetime.min,  # noqa: DTZ901 - naive on purpose
        datetime.max,  # noqa: DTZ901
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


Build = Callable[[Kind, Kind], Kind]

FROZEN: dict[str, Build] = {
    "tuple": lambda one, _: (tuple[one[0], ...], st.lists(one[1], max_size=3).map(tuple)),
    "pair": lambda one, other: (tuple[one[0], other[0]], st.tuples(one[1], other[1])),
    "union": lambda one, other: (one[0] | other[0] if other[0] or one[0] else one[0], one[1] | other[1]),
}
OF_KEYS: dict[str, Build] = {
    "frozenset": lambda key, _: (frozenset[key[0]], st.frozensets(key[1], max_size=3)),
    "set": lambda key, _: (set[key[0]], st.sets(key[1], max_size=3)),
    "dict": lambda key, one: (dict[key[0], one[0]], st.dictionaries(key[1], one[1], max_size=2)),
    "mapping": lambda key, one: (Mapping[key[0], one[0]], st.dictionaries(key[1], one[1], max_size=2)),
}
IN_ORDER: dict[str, Build] = {
    "list": lambda one, _: (list[one[0]], st.lists(one[1], max_size=3)),
    "deque": lambda one, _: (deque[one[0]], st.lists(one[1], max_size=3).map(deque)),
    "sequence": lambda one, _: (
        Sequence[one[0]],
        st.lists(one[1], max_size=3) | st.lists(one[1], max_size=3).map(tuple),
    ),
}


@st.composite
def kinds(draw: st.DrawFn, *, hashable: bool = False, depth: int = 2) -> Kind:
    """An annotation, and values for it."""
    leaves = st.sampled_from(HASHABLE if hashable else HASHABLE + OTHERS)
    shapes = {**FROZEN, "frozenset": OF_KEYS["frozenset"]} if hashable else {**FROZEN, **OF_KEYS, **IN_ORDER}
    shape = draw(st.sampled_from(["leaf", "leaf", *shapes]))
    if depth == 0 or shape == "leaf":
        return draw(leaves)
    of_keys = hashable or shape in OF_KEYS
    return shapes[shape](
        draw(kinds(hashable=of_keys, depth=depth - 1)), draw(kinds(hashable=hashable, depth=depth - 1))
    )


def event_class(annotation: Any) -> type[DomainEvent]:
    return create_model("Generated", __base__=DomainEvent, value=(annotation, ...))


@st.composite
def events(draw: st.DrawFn) -> DomainEvent:
    """An event with one field, of its own class, as its author makes it."""
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
    """Keeps its events as they were when they were applied."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.seen: list[DomainEvent] = []

    def apply_generated(self, event: DomainEvent) -> None:
        self.seen.append(event)


def check_decided_is_read(event: DomainEvent) -> bool:
    """Whether the event is recorded; if it is, the applied event and the event that is read equal it."""
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


# --- the table ---------------------------------------------------------------------------------------------


class Held(DomainEvent):
    value: Any


def of(annotation: Any, value: Any) -> DomainEvent:
    return event_class(annotation)(value=value)


VIENNA = ZoneInfo("Europe/Vienna")

EXACT = [
    of(int, 2**63),
    of(str | None, None),
    of(Any, 1.5),
    of(tuple[int, ...], (1, 2)),
    of(Money, Money(amount=Decimal("1.50"))),
    of(Name, Name.ALICE),
    of(datetime, datetime(2024, 6, 1, tzinfo=UTC)),
    of(Annotated[int, Field(gt=0)] | None, 1),
]
CARRIED = [
    of(Decimal | str, Decimal("1.5")),
    of(Decimal | str, "1.5"),
    of(UUID | str, UUID(int=7)),
    of(UUID | str, str(UUID(int=7))),
    of(datetime | date, date(2024, 6, 1)),
    of(date | datetime, datetime(2024, 6, 1, tzinfo=UTC)),
    of(Name | str, Name.ALICE),
    of(Name | str, "alice"),
    of(Decimal | int, Decimal(1)),
    of(Decimal | int, 1),
    of(Level | int, Level.LOW),
    of(Colour, Colour.RED),
    of(dict[Square, str], {Square(1, Decimal(2)): "k"}),
    of(dict[Money, str], {Money(amount=Decimal(2)): "k"}),
    of(dict[Place, list[Colour]], {Place(1, "a"): [Colour.RED]}),
    of(Note, noted(Note, "a", "alice")),
    of(int, 10**40),
    of(float, math.inf),
    of(Any, Decimal("1.5")),
    of(Any, {1, 2}),
    of(Any, datetime(2024, 6, 1, tzinfo=UTC)),
    of(dict[int, Any], {2**70: (1, [2])}),
    of(datetime, datetime(2024, 6, 1, tzinfo=timezone(timedelta(hours=1, seconds=30)))),
    of(datetime, datetime(2024, 10, 27, 2, 30, fold=1)),  # noqa: DTZ001 - naive on purpose
]


@pytest.mark.parametrize("event", EXACT, ids=lambda event: repr(event.value))
def test_immutable_values_of_the_annotated_type_need_no_proof_and_no_copy(event: DomainEvent) -> None:
    assert is_exact(event)
    assert as_recorded(event) is event
    assert check_decided_is_read(event)


@pytest.mark.parametrize("event", CARRIED, ids=lambda event: repr(event.value))
def test_values_that_plain_msgpack_does_not_carry_are_recorded_all_the_same(event: DomainEvent) -> None:
    assert check_decided_is_read(event)


def read_again(event: DomainEvent) -> DomainEvent:
    """``event`` as it is read after recording."""
    return to_event(unpack(pack(to_record(as_recorded(event))), "a test"), EventRegistry([type(event)]))


@pytest.mark.parametrize("first", [*EXACT, *CARRIED], ids=lambda event: repr(event.value))
def test_each_pair_of_values_is_recorded_if_each_of_them_is(first: Any) -> None:
    for second in CARRIED:
        pair = create_model(
            "Pair",
            __base__=DomainEvent,
            first=type(first).model_fields["value"].annotation,
            second=type(second).model_fields["value"].annotation,
        )
        event = pair(first=first.value, second=second.value)
        read: Any = read_again(event)
        assert same(event.first, read.first), (
            f"{event.first!r} beside {event.second!r} was read as {read.first!r}"
        )
        assert same(event.second, read.second), f"{event.second!r} beside {event.first!r}: {read.second!r}"


UNRECORDABLE = {
    "a class": Square,
    "a function": lambda: 0,
    "a secret": SecretStr("x"),
    "an iterator": iter([1]),
}


@pytest.mark.parametrize("second", UNRECORDABLE.values(), ids=UNRECORDABLE)
def test_the_value_that_cannot_be_recorded_is_named_rather_than_one_that_needs_tags(second: Any) -> None:
    pair = create_model("Pair", __base__=DomainEvent, first=int, second=Any)
    for first in (1, 10**40):
        with pytest.raises(EventNotSerializable) as refused:
            as_recorded(pair(first=first, second=second))
        assert "first" not in str(refused.value)


def test_an_event_without_fields_that_cannot_be_read_is_refused() -> None:
    class Bare(DomainEvent):
        def model_post_init(self, context: Any) -> None:
            if made:
                raise RuntimeError("only once")
            made.append(self)

    made: list[Bare] = []
    event = Bare()
    with pytest.raises(EventNotSerializable, match="only once"):
        as_recorded(event)


class Guarded(DomainEvent):
    value: str
    _looks: int = PrivateAttr(default=0)


class Exclaimed(DomainEvent):
    value: Annotated[str, AfterValidator(lambda text: text + "!")]


class Doubled(DomainEvent):
    value: list[int]

    @field_validator("value")
    @classmethod
    def _double(cls, value: list[int]) -> list[int]:
        return value * 2


def guarded() -> Guarded:
    event = Guarded(value="a")
    event._looks = 7
    return event


class Unlike:
    """Equal to nothing."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


REFUSED = [
    (of(list[Note], [noted(SignedNote, "a", "")]), "value.0 is SignedNote"),
    (of(Any, Name.ALICE), "value is <Name.ALICE: 'alice'> and would be read back as 'alice'"),
    (of(Any, Square(1, Decimal(2))), "value is Square"),
    (of(Any, (1, Unlike())), "Unlike"),
    (guarded(), "_looks is 7 and would be read back as 0"),
    (Exclaimed(value="a"), "value is 'a!' and would be read back as 'a!!'"),
    (Doubled(value=[1]), r"value is \[1, 1\] and would be read back as \[1, 1, 1, 1\]"),
    (Held.model_construct(value=Held), "Held"),
]


@pytest.mark.parametrize(("event", "reason"), REFUSED)
def test_a_value_that_would_be_read_differently_is_refused_with_its_path(
    event: DomainEvent, reason: str
) -> None:
    for refuse in (to_record, as_recorded):
        with pytest.raises(EventNotSerializable, match=reason):
            refuse(event)


def test_values_of_the_wrong_type_that_were_put_in_unchecked_are_refused() -> None:
    with pytest.raises(EventNotSerializable, match="value: Input should be a valid integer"):
        to_record(event_class(int).model_construct(value="many"))


def test_a_time_keeps_its_offset_and_not_the_name_of_its_zone() -> None:
    event = event_class(datetime)(value=datetime(2024, 7, 1, 22, 30, tzinfo=VIENNA))
    applied = as_recorded(event)
    assert applied.value.isoformat() == "2024-07-01T22:30:00+02:00"  # type: ignore[attr-defined]
    assert applied.value.tzinfo is not VIENNA  # type: ignore[attr-defined]
    assert applied.value == event.value  # type: ignore[attr-defined]


def test_payloads_recorded_before_tags_existed_can_still_be_read() -> None:
    """Bytes of a store of the first release: times in UTC as instants, everything else as plain msgpack."""
    data = bytes.fromhex("82 a27768 d6ff665a6480 a26e6f a3312e35")
    kind = create_model("Old", __base__=DomainEvent, wh=(datetime, ...), no=(Decimal, ...))
    record = to_record(kind(wh=datetime(2024, 6, 1, tzinfo=UTC), no=Decimal("1.5")))
    assert record.payload == data
    read = to_event(record, EventRegistry([kind]))
    assert (read.wh, read.no) == (datetime(2024, 6, 1, tzinfo=UTC), Decimal("1.5"))  # type: ignore[attr-defined]


def test_a_class_that_is_gone_makes_the_event_unreadable_by_its_name() -> None:
    record = to_record(of(Colour, Colour.RED))
    with pytest.raises(EventNotReadable, match="the annotations name no class Colour"):
        to_event(record, EventRegistry({"Generated": event_class(Name)}))


# --- a fresh process ---------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from tests.test_payloads import *
from uno_actors import open_store

async def main(step, url):
    async with open_store(url) as store:
        if step == "write":
            await store.append(*THINGS)
        for thing, read in zip(THINGS, [one.event async for one in store.read_all()], strict=True):
            assert type(read) is type(thing), (read, thing)
            assert same({**dict(thing), **UNLIKE}, {**dict(read), **UNLIKE}), (read, thing)

asyncio.run(main(*sys.argv[1:]))
"""

T = TypeVar("T")
UNLIKE = {"event_id": "", "timestamp": ""}


class Changed(DomainEvent, Generic[T]):
    new: T


class Painted(DomainEvent):
    colours: dict[Square, Colour]
    at: datetime
    price: Decimal | str


THINGS = [
    Painted(
        colours={Square(1, Decimal("2.0")): Colour.BLUE},
        at=datetime(2024, 7, 1, 22, 30, tzinfo=timezone(timedelta(hours=2))),
        price=Decimal(1),
    ),
    Changed[int](new=1),
    Changed[list[Money]](new=[Money(amount=Decimal(1))]),
    Changed[dict[str, Decimal | None]](new={"a": Decimal("1.0"), "b": None}),
]


@pytest.mark.parametrize("scheme", ["lmdb:{}", "sqlite+aiosqlite:///{}"])
def test_a_fresh_process_reads_what_another_has_recorded(tmp_path: Path, scheme: str) -> None:
    url = scheme.format(tmp_path / "store")
    for step in ("write", "read"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, step, url], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_generic_event_that_the_next_process_cannot_name_is_refused() -> None:
    class Local(BaseModel):
        model_config = ConfigDict(frozen=True)

    registry = EventRegistry([Changed])
    event = Changed[Local](new=Local())
    registry.register(type(event))
    with pytest.raises(EventNotSerializable, match=r"its own name \(`class IntChanged\(Changed\["):
        registry.check_readable(event)


@pytest.mark.parametrize(
    "name",
    [
        "Changed[__import__('os').system('true')]",
        "Changed[Nothing]",
        "Changed[",
        "Changed[]",
        "Changed[int, str]",
    ],
)
def test_names_of_generic_events_in_a_store_are_parsed_and_never_run(name: str) -> None:
    with pytest.raises(UnoError):
        EventRegistry([Changed]).resolve(name)
    assert EventRegistry([Changed]).resolve("Changed[int]") is Changed[int]


def test_metadata_of_an_event_is_not_part_of_its_payload() -> None:
    assert METADATA.isdisjoint(Painted.model_fields.keys() - METADATA)
