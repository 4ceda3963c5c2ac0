"""The events of the checks. Their names do not collide with those of programs."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from uno_actors.domain.events import DomainEvent


class Noted(DomainEvent):
    """An event with almost nothing in it."""

    event_type: str = "uno_actors.testing.Noted"
    text: str = ""


class Unit(Enum):
    """An enumeration in a payload."""

    METRE = "m"
    FOOT = "ft"


class Point(BaseModel):
    """A model in a payload, with models in it."""

    x: Decimal
    when: datetime | None = None
    inner: tuple["Point", ...] = ()


class Measured(DomainEvent):
    """An event with every kind of value in it."""

    event_type: str = "uno_actors.testing.Measured"
    nothing: None
    yes: bool
    whole: int
    broken: float
    exact: Decimal
    text: str
    raw: bytes
    key: UUID
    day: date
    hour: time
    naive: datetime
    aware: datetime
    span: timedelta
    unit: Unit
    point: Point
    items: list[Decimal]
    pair: tuple[int, str]
    members: set[str]
    frozen: frozenset[int]
    by_number: dict[int, list[Unit]]
    by_key: dict[UUID, Point]
    by_place: dict[tuple[int, int], str]


class MovedThen(DomainEvent):
    """An event as an older program recorded it: schema version 1."""

    event_type: str = "uno_actors.testing.Moved"
    to: str


class MovedLater(DomainEvent):
    """The same type as a later program recorded it: schema version 2."""

    event_type: str = "uno_actors.testing.Moved"
    version: int = 2
    address: str


class MovedNow(DomainEvent):
    """The same type as today's program reads it: schema version 3."""

    event_type: str = "uno_actors.testing.Moved"
    version: int = 3
    street: str
    town: str


def noted(aggregate_id: str | None, text: str = "", *, of: str = "Account", **metadata: Any) -> Noted:
    """An event for the stream of ``aggregate_id``; for the log alone if it is ``None``."""
    return Noted(aggregate_id=aggregate_id, aggregate_type=aggregate_id and of, text=text, **metadata)


def measured() -> Measured:
    """An event with an extreme value of every kind."""
    west = timezone(timedelta(hours=-8))
    return Measured(
        aggregate_id="all",
        aggregate_type="Kinds",
        nothing=None,
        yes=True,
        whole=-(2**63),
        broken=1.7976931348623157e308,
        exact=Decimal("0.10000000000000000000000000001"),
        text="naïve 🚀 \x00 \n",
        raw=bytes(range(256)),
        key=UUID(int=7),
        day=date(1752, 9, 14),
        hour=time(23, 59, 59, 999_999),
        naive=datetime(2024, 2, 29, 1, 2, 3, 456_789),  # noqa: DTZ001 - naive on purpose
        aware=datetime(1969, 7, 20, 12, 17, 40, 1, tzinfo=west),
        span=timedelta(days=-3, microseconds=1),
        unit=Unit.FOOT,
        point=Point(x=Decimal("1.50"), inner=(Point(x=Decimal(-0), when=datetime(1, 1, 2, tzinfo=UTC)),)),
        items=[Decimal("1E+40"), Decimal("2.0")],
        pair=(1, "one"),
        members={"a", "b"},
        frozen=frozenset({1, 2}),
        by_number={-1: [Unit.METRE], 2**40: []},
        by_key={UUID(int=1): Point(x=Decimal(1))},
        by_place={(1, 2): "here"},
    )
