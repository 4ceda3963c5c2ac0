"""Events as bytes, and back: every recorded event can be read, and damage is reported as damage."""

import contextlib
import functools
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    RootModel,
    SecretStr,
    StringConstraints,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

from uno_actors.domain.events import METADATA, DomainEvent, EventRegistry
from uno_actors.errors import (
    CorruptRecord,
    EventNotReadable,
    EventNotSerializable,
    UnknownEventType,
    UnoError,
)
from uno_actors.store.codec import StreamId, pack, to_event, to_record, unpack


def through_bytes(event: DomainEvent, as_type: type[DomainEvent] | None = None) -> DomainEvent:
    """``event`` as a store would return it, read as ``as_type`` or its own class."""
    registry = EventRegistry({event.event_type: as_type or type(event)})
    return to_event(unpack(pack(to_record(event)), "a test"), registry)


def old(payload: dict[str, Any], event_type: type[DomainEvent], version: int = 1) -> DomainEvent:
    """An event of ``payload``, recorded long ago, as today's class."""
    record = to_record(DomainEvent())
    record = record._replace(event_type="Old", version=version, payload=msgpack.packb(payload, datetime=True))
    return to_event(record, EventRegistry({"Old": event_type}))


# --- what comes back ---------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"
    NONE = None


class Level(IntEnum):
    LOW = 1


class Name(StrEnum):
    ALICE = "alice"


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True)
    exact: Decimal
    colour: Colour = Colour.RED
    parts: tuple["Inner", ...] = ()


class Everything(DomainEvent):
    nothing: None = None
    whole: int = 0
    broken: float = 0.0
    exact: Decimal = Decimal(0)
    text: str = ""
    raw: bytes = b""
    key: UUID = UUID(int=0)
    day: date = date.min
    naive: datetime | None = None
    aware: datetime | None = None
    span: timedelta = timedelta()
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    name: Name = Name.ALICE
    inner: Inner | None = None
    items: list[Inner] = Field(default=[])
    members: set[Decimal] = Field(default=set())
    frozen: frozenset[UUID] = frozenset()
    by_number: dict[int, list[Colour]] = Field(default={})
    by_day: dict[date, Inner] = Field(default={})
    by_place: dict[tuple[int, int], list[int]] = Field(default={})


TEXTS = st.text(max_size=20)  # Hypothesis leaves out surrogates, which are no text
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
NAIVE = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31))  # noqa: DTZ001 - naive on purpose
AWARE = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=ZONES)  # noqa: DTZ001
INNER = st.recursive(
    st.builds(Inner, exact=DECIMALS, colour=st.sampled_from(Colour), parts=st.just(())),
    lambda inner: st.builds(
        Inner, exact=DECIMALS, parts=st.lists(inner, max_size=2).map(tuple), colour=st.sampled_from(Colour)
    ),
    max_leaves=4,
)
EVENTS = st.builds(
    Everything,
    timestamp=AWARE | NAIVE,
    topic=st.none() | st.just("a.b"),
    correlation_id=st.none() | TEXTS,
    aggregate_id=st.none() | TEXTS,
    aggregate_type=st.none() | TEXTS,
    aggregate_version=st.none() | st.integers(1, 2**63),
    whole=INTEGERS,
    broken=st.floats(allow_nan=False),
    exact=DECIMALS,
    text=TEXTS,
    raw=st.binary(max_size=20),
    key=st.uuids(),
    day=st.dates(),
    naive=st.none() | NAIVE,
    aware=st.none() | AWARE,
    span=st.timedeltas(),
    colour=st.sampled_from(Colour),
    inner=st.none() | INNER,
    items=st.lists(INNER, max_size=2),
    members=st.sets(DECIMALS, max_size=3),
    frozen=st.frozensets(st.uuids(), max_size=3),
    by_number=st.dictionaries(INTEGERS, st.lists(st.sampled_from(Colour), max_size=2), max_size=3),
    by_day=st.dictionaries(st.dates(), INNER, max_size=2),
    by_place=st.dictionaries(st.tuples(INTEGERS, INTEGERS), st.lists(INTEGERS, max_size=2), max_size=2),
)


@given(EVENTS)
@settings(max_examples=80)
def test_event_comes_back_as_it_was(event: Everything) -> None:
    found = through_bytes(event)
    assert found == event
    assert repr(found.inner) == repr(event.inner)
    assert str(found.exact) == str(event.exact)  # 1.0 and 1.00 are equal and not the same
    assert [type(getattr(found, name)) for name in Everything.model_fields] == [
        type(getattr(event, name)) for name in Everything.model_fields
    ]


def test_floats_that_are_not_numbers_come_back() -> None:
    found = [through_bytes(Everything(broken=value)).broken for value in (math.inf, -math.inf, math.nan)]  # type: ignore[attr-defined]
    assert found[:2] == [math.inf, -math.inf]
    assert math.isnan(found[2])


def test_header_can_be_read_without_the_payload() -> None:
    event = Everything(
        aggregate_id="alice", aggregate_type="Account", aggregate_version=3, topic="a.b", correlation_id="c"
    )
    record = unpack(pack(to_record(event)), "a test")
    for name in METADATA:
        assert getattr(record, name) == getattr(event, name), name
    assert record.stream == StreamId("Account", "alice")
    assert str(record.stream) == "Account<alice>"
    assert to_record(Everything()).stream is None


def test_payload_holds_no_metadata_and_no_class_path() -> None:
    record = to_record(Inconspicuous(amount=1))
    assert msgpack.unpackb(record.payload) == {"amount": 1}
    assert b"test_codec" not in pack(record)


class Inconspicuous(DomainEvent):
    amount: int


class Aliased(DomainEvent):
    amount: Annotated[int, Field(alias="amountInCents")]


class Cached(DomainEvent):
    amount: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.amount


class Computed(DomainEvent):
    amount: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.amount

    @field_serializer("amount")
    def _as_text(self, amount: int) -> str:
        return str(amount)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    amount: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.amount


class Nesting(DomainEvent):
    strict: Strict


class Renamed(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    amount: int = Field(serialization_alias="amountInCents")


class NestingRenamed(DomainEvent):
    renamed: Renamed


class OpenEnded(DomainEvent):
    model_config = ConfigDict(extra="allow")


class Rooted(DomainEvent):
    many: RootModel[list[int]]


def test_field_with_an_alias_is_recorded_by_its_own_name() -> None:
    event = Aliased(amountInCents=5)
    assert msgpack.unpackb(to_record(event).payload) == {"amount": 5}
    assert through_bytes(event) == event


def test_cached_property_that_was_used_is_not_recorded() -> None:
    event = Cached(amount=2)
    assert event.double == 4
    found = through_bytes(event)
    assert isinstance(found, Cached)
    assert (found.amount, found.double) == (2, 4)


@pytest.mark.parametrize(
    "event",
    [
        Computed(amount=2),
        Nesting(strict=Strict(amount=2)),
        NestingRenamed(renamed=Renamed(amount=2)),
        OpenEnded(amount=2, other=[1]),  # type: ignore[call-arg]
        Rooted(many=RootModel[list[int]]([1, 2])),
    ],
    ids=lambda event: type(event).__name__,
)
def test_event_of_an_unusual_class_comes_back(event: DomainEvent) -> None:
    assert through_bytes(event) == event


def test_subclass_of_datetime_is_recorded_as_a_datetime() -> None:
    class Frozen(datetime):
        """Such as libraries that stop the clock in tests put into its place."""

    moment = Frozen(2024, 6, 1, 12, 0, 0, 1, tzinfo=UTC)
    event = Everything.model_construct(**{**dict(Everything()), "timestamp": moment, "aware": moment})
    found = through_bytes(event)
    assert isinstance(found, Everything)
    assert found.timestamp == found.aware == moment


# --- what cannot be recorded -------------------------------------------------------------------------------


class Anything(DomainEvent):
    value: Any


class Secretive(DomainEvent):
    password: SecretStr


@pytest.mark.parametrize("value", [object(), lambda: None, "\ud800", {"x": object()}])
def test_payload_that_cannot_be_written_is_refused_with_the_name_of_the_event(value: object) -> None:
    with pytest.raises(EventNotSerializable, match=r"^event Anything cannot be recorded: ") as caught:
        to_record(Anything(value=value))
    assert caught.value.event_type == "Anything"


def test_fields_that_pydantic_leaves_out_of_a_model_are_refused_instead_of_lost() -> None:
    class Inner(BaseModel):
        amount: int
        note: str = Field("", exclude=True)

    class HoldsOne(DomainEvent):
        inner: Inner

    class LeavesOut(DomainEvent):
        amount: int = Field(exclude=True)

        @field_serializer("amount")
        def as_text(self, amount: int) -> str:
            return str(amount)

    for event, name in (
        (HoldsOne(inner=Inner(amount=1, note="lost")), "note"),
        (LeavesOut(amount=1), "amount"),
    ):
        with pytest.raises(
            EventNotSerializable, match=f"exclude=True for {name}, which would not be recorded"
        ):
            to_record(event)


def test_secret_is_refused_instead_of_being_recorded_as_asterisks() -> None:
    with pytest.raises(EventNotSerializable, match="asterisks; record a reference"):
        to_record(Secretive(password=SecretStr("open sesame")))


@pytest.mark.parametrize("metadata", [{"correlation_id": "\ud800"}, {"version": 2**64}, {"topic": object()}])
def test_header_that_cannot_be_written_is_refused(metadata: dict[str, object]) -> None:
    with pytest.raises(EventNotSerializable, match=r"^event Anything cannot be recorded: "):
        pack(to_record(Anything(value=1).stamped(**metadata)))


# --- replay never judges -----------------------------------------------------------------------------------


def _checked(number: int) -> int:
    if number < 100:
        raise ValueError("too small")
    return number


class Money(BaseModel):
    amount: PositiveInt
    currency: Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")] = "EUR"


class Constrained(DomainEvent):
    amount: Annotated[int, Field(gt=100)]
    text: Annotated[str, Field(min_length=3)] = "abc"


class Validated(DomainEvent):
    amount: int
    text: str = "abc"

    @field_validator("amount")
    @classmethod
    def _judge(cls, amount: int) -> int:
        return _checked(amount)


class WholeValidated(DomainEvent):
    amount: int
    text: str = "abc"

    @model_validator(mode="after")
    def _judge(self) -> "WholeValidated":
        _checked(self.amount)
        return self


@pytest.mark.parametrize("today", [Constrained, Validated, WholeValidated])
@given(amount=INTEGERS, text=TEXTS)
@settings(max_examples=30)
def test_a_tightened_rule_does_not_make_older_events_unreadable(
    today: type[DomainEvent], amount: int, text: str
) -> None:
    event = old({"amount": amount, "text": text}, today)
    assert isinstance(event, today)
    assert (event.amount, event.text) == (amount, text)  # type: ignore[attr-defined]


class Deep(DomainEvent):
    listed: list[PositiveInt] = Field(default=[])
    keyed: dict[str, Annotated[Decimal, Field(gt=0)]] = Field(default={})
    pair: tuple[PositiveInt, ...] = ()
    perhaps: PositiveInt | None = None
    money: Money | None = None
    moneys: list[Money] = Field(default=[])
    wallet: dict[str, tuple[Money, int]] = Field(default={})


DEEP = [
    # payload of yesterday, field, what it is read as
    ({"listed": [1, -1]}, "listed", [1, -1]),
    ({"keyed": {"a": "-1.50"}}, "keyed", {"a": Decimal("-1.50")}),
    ({"pair": [1, -2, 3]}, "pair", (1, -2, 3)),
    ({"perhaps": -1}, "perhaps", -1),
    ({"money": {"amount": -1}}, "money", ("EUR", -1)),
    ({"money": {"amount": -1, "currency": "euro"}}, "money", ("euro", -1)),
    ({"money": {"amount": -1, "gone": "a field of yesterday"}}, "money", ("EUR", -1)),
    ({"moneys": [{"amount": 1}, {"amount": -2}]}, "moneys", [("EUR", 1), ("EUR", -2)]),
    ({"wallet": {"a": [{"amount": -2}, 7]}}, "wallet", {"a": (("EUR", -2), 7)}),
]


def _shown(value: object) -> object:
    """``value`` with each model as a pair, because a value that today's rules refuse cannot be built for comparison."""
    match value:
        case Money():
            return (value.currency, value.amount)
        case list():
            return [_shown(item) for item in value]
        case tuple():
            return tuple(_shown(item) for item in value)
        case dict():
            return {key: _shown(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(("payload", "field", "wanted"), DEEP)
def test_a_rule_tightened_inside_a_field_does_not_either(
    payload: dict[str, Any], field: str, wanted: object
) -> None:
    assert _shown(getattr(old(payload, Deep), field)) == wanted


def test_values_that_pass_are_still_converted_beside_one_that_does_not() -> None:
    class Mixed(DomainEvent):
        amount: PositiveInt
        exact: Decimal
        raw: bytes
        when: datetime
        colour: Colour
        factory: list[int] = Field(default_factory=list)

    found = old(
        {"amount": -1, "exact": "1.50", "raw": b"x", "when": "2024-06-01T00:00:00", "colour": "red"}, Mixed
    )
    assert isinstance(found, Mixed)
    assert (found.amount, found.exact, found.raw, found.colour) == (-1, Decimal("1.50"), b"x", Colour.RED)
    assert found.when == datetime(2024, 6, 1)  # noqa: DTZ001 - naive on purpose
    assert found.factory == []


class Kinded(DomainEvent):
    kind: Literal["a", "b"]
    amount: PositiveInt


@pytest.mark.parametrize(
    ("payload", "today", "reason"),
    [
        ({"amount": "many"}, Inconspicuous, "amount: Input should be a valid integer"),
        ({}, Inconspicuous, "amount: Field required"),
        ({"amount": 1, "other": 2}, Inconspicuous, "other: Extra inputs are not permitted"),
        ({"amount": -1, "other": 2}, Constrained, "other: Extra inputs are not permitted"),
        ({"amount": -1, "kind": "c"}, Kinded, "kind: Input should be 'a' or 'b'"),
        ({"moneys": [{"currency": "EUR"}]}, Deep, "moneys.0.amount: Field required"),
        ({"moneys": [7]}, Deep, "moneys.0: Input should be a valid dictionary"),
    ],
)
def test_payload_of_another_shape_is_unreadable_and_the_error_gives_the_remedy(
    payload: dict[str, Any], today: type[DomainEvent], reason: str
) -> None:
    with pytest.raises(EventNotReadable) as caught:
        old(payload, today)
    assert reason in str(caught.value)
    assert "Raise the class's version and register an upcast" in str(caught.value)
    assert caught.value.event_type == "Old"


# --- upcasts -----------------------------------------------------------------------------------------------


class ThirdVersion(DomainEvent):
    version: int = 3
    whole: int


def test_old_payload_is_upcast_step_by_step() -> None:
    registry = EventRegistry({"Old": ThirdVersion})
    registry.add_upcast("Old", 1, lambda payload: {"text": payload["number"]})
    registry.add_upcast("Old", 2, lambda payload: {"whole": int(payload["text"])})
    record = to_record(DomainEvent())._replace(event_type="Old", payload=msgpack.packb({"number": "7"}))
    found = to_event(record, registry)
    assert isinstance(found, ThirdVersion)
    assert (found.whole, found.version, found.event_type) == (7, 3, "Old")


def test_event_of_an_old_name_keeps_it() -> None:
    event = Inconspicuous(amount=1)
    record = to_record(event)._replace(event_type="BeforeRenaming")
    found = to_event(record, EventRegistry({"BeforeRenaming": Inconspicuous}))
    assert isinstance(found, Inconspicuous)
    assert found.event_type == "BeforeRenaming"


@pytest.mark.parametrize(
    ("recorded", "reason"), [(1, "@upcasts('Old', from_version=1)"), (4, "recorded by a newer program")]
)
def test_version_without_upcasts_to_the_current_one_is_unreadable(recorded: int, reason: str) -> None:
    with pytest.raises(EventNotReadable) as caught:
        old({"whole": 1}, ThirdVersion, version=recorded)
    assert reason in str(caught.value)
    assert (caught.value.recorded, caught.value.current) == (recorded, 3)


def test_unknown_type_is_reported() -> None:
    with pytest.raises(UnknownEventType, match="event type 'Inconspicuous' is not registered"):
        to_event(to_record(Inconspicuous(amount=1)), EventRegistry())


# --- damage ------------------------------------------------------------------------------------------------

INTACT = pack(to_record(Everything(inner=Inner(exact=Decimal(1)), by_number={1: [Colour.RED]}, topic="a.b")))
REGISTRY = EventRegistry([Everything])


def _replaced(place: int, byte: int) -> bytes:
    return INTACT[:place] + bytes([byte]) + INTACT[place + 1 :]


DAMAGED = st.one_of(
    st.binary(max_size=200),
    st.integers(0, len(INTACT) - 1).map(lambda length: INTACT[:length]),
    st.builds(_replaced, st.integers(0, len(INTACT) - 1), st.integers(0, 255)),
    st.binary(min_size=1, max_size=5).map(lambda more: INTACT + more),
    st.recursive(
        st.none() | st.integers(-9, 9) | TEXTS | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=12) | st.dictionaries(TEXTS, inner, max_size=3),
    ).map(msgpack.packb),
)


@given(DAMAGED)
@settings(max_examples=400)
def test_damaged_bytes_are_a_corrupt_record_and_never_another_exception(data: bytes) -> None:
    with contextlib.suppress(CorruptRecord):
        record = unpack(data, "position 7")
        with contextlib.suppress(UnoError):  # such as an event type in which a letter changed
            to_event(record, REGISTRY)


@given(st.binary(max_size=100) | INTEGERS.map(msgpack.packb) | st.just(msgpack.packb({1: 2})))
@settings(max_examples=100)
def test_damaged_payload_is_never_another_exception_either(payload: bytes) -> None:
    record = to_record(Inconspicuous(amount=1))._replace(payload=payload)
    with pytest.raises((CorruptRecord, EventNotReadable)):
        to_event(record, EventRegistry([Inconspicuous]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda: b"",
        lambda: INTACT[:-1],
        lambda: INTACT + b"\0",
        lambda: msgpack.packb(7),
        lambda: msgpack.packb(["too", "short"]),
        lambda: msgpack.packb(list(range(11))),
        lambda: msgpack.packb({"event_id": "x"}),
    ],
    ids=["nothing", "cut off", "too long", "a number", "too short", "of numbers", "a map"],
)
def test_bytes_that_are_not_a_record_are_reported(damage: Callable[[], bytes]) -> None:
    with pytest.raises(CorruptRecord, match=r"^the record at here is damaged: ") as caught:
        unpack(damage(), "here")
    assert caught.value.where == "here"
