"""Catalogs: what a program says about itself, and which changes of it let what is recorded be read."""

import dataclasses
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Field, WrapSerializer, create_model

from uno_actors import (
    AggregateRoot,
    Command,
    DomainEvent,
    EventHandler,
    EventNotSerializable,
    EventRegistry,
    ProcessManager,
    event_registry,
    handles,
    reacts,
)
from uno_actors.catalog.async_api import async_api
from uno_actors.catalog.comparison import Change, compare
from uno_actors.catalog.reading import catalog_of, handlers_in
from uno_actors.catalog.values import Catalog
from uno_actors.domain.payload_reader import read_fields, tags_of, unpack_fields
from uno_actors.domain.payloads import pack_payload
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.outside.cloud_events import payload_of
from uno_actors.topics import TopicPattern

T = TypeVar("T")

# --- a program ---------------------------------------------------------------------------------------------


class ParcelSize(Enum):
    SMALL = "s"
    LARGE = "l"


class ParcelItem(BaseModel):
    name: str
    price: Decimal


class SendParcel(Command[int]):
    """Ask for a parcel to be sent."""

    items: list[ParcelItem]


class ParcelSent(DomainEvent):
    """A parcel is on its way.

    From the depot.
    """

    version: int = 2
    items: list[ParcelItem]
    size: ParcelSize = Field(ParcelSize.SMALL, description="As it is charged.")
    topic: str = "parcels.sent"


class ParcelLost(DomainEvent):
    at: datetime


class CatalogParcel(AggregateRoot):
    @handles
    def send(self, command: SendParcel) -> int:
        self.register_event(ParcelSent(items=command.items))
        return 1

    def apply_parcel_sent(self, event: ParcelSent) -> None: ...


class CatalogReturns(ProcessManager):
    sends_to = (CatalogParcel,)

    @reacts
    def on_lost(self, event: ParcelLost) -> None: ...

    def apply_parcel_lost(self, event: ParcelLost) -> None: ...


class ParcelAudit(EventHandler[DomainEvent]):
    def handle(self, event: DomainEvent) -> None: ...


def count_parcels(event: ParcelSent) -> None: ...


def parcels() -> Catalog:
    registry = EventRegistry([ParcelSent, ParcelLost])
    registry.register(ParcelSent, "ParcelPosted")
    registry.add_upcast(ParcelSent, 1, lambda payload: payload)
    handlers = [
        HandlerSpec("count", count_parcels),
        HandlerSpec("by topic", ParcelAudit(), topic_pattern=TopicPattern("parcels.*")),
        HandlerSpec("elsewhere", ParcelAudit(), topic_pattern=TopicPattern("letters.*")),
        HandlerSpec("of returns", ParcelAudit(), aggregate_type=CatalogReturns),
        CatalogReturns.handler(),
    ]
    return catalog_of("post", [CatalogParcel, CatalogReturns], handlers, [ParcelSent, ParcelLost], registry)


def test_a_catalog_says_what_is_recorded_and_who_records_and_handles_it() -> None:
    lost, sent = parcels().events
    assert (sent.name, sent.version, sent.topic) == ("ParcelSent", 2, "parcels.sent")
    assert (sent.names, sent.upcasts) == (("ParcelPosted", "ParcelSent"), (1,))
    assert sent.doc == "A parcel is on its way.\n\nFrom the depot."
    assert sent.registered_by == ("CatalogParcel",)
    assert [(each.name, each.kind) for each in sent.handled_by] == [
        ("by topic", "handler"),
        ("count", "handler"),
    ]
    assert [(each.name, each.kind) for each in lost.handled_by] == [
        ("CatalogReturns", "process manager"),
        ("of returns", "handler"),
    ]
    assert {name: field.type for name, field in sent.model.fields.items()} == {
        "items": "list[ParcelItem]",
        "size": "ParcelSize",
    }
    assert sent.model.fields["size"].doc == "As it is charged."
    (command,) = parcels().commands
    assert (command.name, command.reply, command.handled_by) == ("SendParcel", "int", ("CatalogParcel",))


def test_a_catalog_is_the_same_after_it_was_kept_as_json() -> None:
    assert Catalog.model_validate_json(parcels().model_dump_json()) == parcels()
    assert compare(parcels(), parcels()) == ()


def test_the_schema_of_an_event_describes_the_json_that_is_sent() -> None:
    schema = parcels().events[1].json_schema
    sent = payload_of(ParcelSent(items=[ParcelItem(name="book", price=Decimal("1.50"))]))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(sent, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(sent | {"size": "huge"}, schema)
    assert set(schema["properties"]) == {"items", "size"}, "without metadata"
    assert set(schema["$defs"]) == {"ParcelItem", "ParcelSize"}


class Permit(Flag):
    READ = 1
    WRITE = 2


class Shelf(BaseModel, Generic[T]):
    first: T


class PermitGiven(DomainEvent):
    permit: Permit
    shelf: Shelf[int]
    seal: bytes = b"\xff"


def test_the_schema_of_a_flag_has_all_its_sums_and_a_default_that_json_cannot_write_is_left_out() -> None:
    event = one(PermitGiven).events[0]
    sent = payload_of(PermitGiven(permit=Permit.READ | Permit.WRITE, shelf=Shelf(first=1), seal=b"wax"))
    jsonschema.validate(sent, event.json_schema)
    assert "default" not in event.json_schema["properties"]["seal"]
    assert event.model.fields["shelf"].type == "Shelf[int]"


def test_a_default_that_is_gone_asks_for_an_upcast_since_older_events_lack_the_field() -> None:
    with_default, without = made({"note": (str, "")}), made({"note": (str, ...)})
    (change,) = compare(one(with_default), one(without))
    assert (change.verdict, change.field) == ("needs an upcast", "note")
    assert change.reason.startswith(
        "its default is gone, and what was recorded before the field was there does not"
    )


@pytest.mark.parametrize("what", ["events", "commands"])
def test_classes_that_share_a_name_have_a_schema_each(tmp_path: Path, what: str) -> None:
    (tmp_path / "works.py").write_text(
        "from uno_actors import AggregateRoot, Command, DomainEvent, handles\n"
        "class Left:\n"
        "    class Moved(DomainEvent):\n        to: int\n"
        "    class Move(Command[None]):\n        to: int\n"
        "class Right:\n"
        "    class Moved(DomainEvent):\n        to: str\n"
        "    class Move(Command[None]):\n        to: str\n"
        "class Robot(AggregateRoot):\n"
        "    @handles\n    def move(self, command: Left.Move) -> None: ...\n"
        "    def apply_moved(self, event: Left.Moved) -> None: ...\n"
        "class Crane(AggregateRoot):\n"
        "    @handles\n    def move(self, command: Right.Move) -> None: ...\n"
        "    def apply_moved(self, event: Right.Moved) -> None: ...\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "uno_actors", "events", "schema", "works"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    found = json.loads(printed)[what]
    name = "Moved@1" if what == "events" else "Move"
    kinds = {key: each["properties"]["to"]["type"] for key, each in found.items()}
    suffix = "Moved" if what == "events" else "Move"
    assert kinds == {f"{name} works.Left.{suffix}": "integer", f"{name} works.Right.{suffix}": "string"}


def test_the_handlers_of_a_module_are_those_that_a_program_can_give_to_its_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also classes that are not subscribed, but no base classes, and none twice."""
    package = tmp_path / "depot"
    package.mkdir()
    (package / "views.py").write_text(
        "from typing import Generic, TypeVar\n"
        "from uno_actors import DomainEvent, EventHandler, Projection, subscribe\n"
        "from uno_actors.handlers.spec import HandlerSpec\n"
        "E = TypeVar('E', bound=DomainEvent)\n"
        "class PalletStored(DomainEvent): ...\n"
        "class Base(Projection[E]):\n    async def handle(self, event: E) -> None: ...\n"
        "class Stock(Base[PalletStored]): ...\n"
        "class Named(Projection[PalletStored]):\n    async def handle(self, event: PalletStored) -> None: ...\n"
        "named = HandlerSpec('shelves', Named)\n"
        "class Given(EventHandler[PalletStored]):\n"
        "    def __init__(self, mail: str) -> None: super().__init__(PalletStored)\n"
        "    def handle(self, event: PalletStored) -> None: ...\n"
        "given = Given('x')\n"
        "class NeedsMail(Given): ...\n"
        "class Every(EventHandler):\n    def handle(self, event): ...\n"
        "@subscribe(name='plain')\n"
        "def plain(event: PalletStored) -> None: ...\n",
        encoding="utf-8",
    )
    (package / "__init__.py").write_text("from .views import Stock, plain\nfrom tests.bank import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    views, whole = (handlers_in(importlib.import_module(name)) for name in ("depot.views", "depot"))
    names = ["depot.views.Every", "depot.views.Given", "depot.views.Stock", "plain", "shelves"]
    assert sorted(spec.name for spec in views) == names
    assert sorted(spec.name for spec in whole) == ["depot.views.Stock", "plain"]


def test_every_reference_of_the_asyncapi_document_has_a_target() -> None:
    document = async_api(parcels(), "3.1")
    assert document["info"] == {"title": "post", "version": "3.1"}
    assert document["channels"]["parcels.sent"]["address"] == "parcels.sent"
    assert list(document["components"]["messages"]) == ["ParcelSent.2"], (
        "an event without a topic has no channel"
    )

    def check(value: Any) -> int:
        if isinstance(value, list):
            return sum(map(check, value))
        if not isinstance(value, dict):
            return 0
        if isinstance(reference := value.get("$ref"), str):
            target = document
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
            return 1
        return sum(map(check, value.values()))

    assert check(document) == 6


# --- comparing ---------------------------------------------------------------------------------------------


def made(fields: dict[str, Any]) -> Any:
    """A class of an event, as one of several programs has it."""
    base = create_model("DrawnInCatalog", __base__=DomainEvent, __module__=__name__, **fields)
    event_registry.forget(base)
    return base


def one(kind: type[DomainEvent], registry: EventRegistry | None = None) -> Catalog:
    return catalog_of("drawn", [], [], [kind], registry or EventRegistry([kind]))


def changes_of(old: Any, new: Any) -> tuple[Change, ...]:
    return compare(one(made({"value": old})), one(made({"value": new})))


def verdict(old: Any, new: Any) -> str:
    return next((change.verdict for change in changes_of((old, ...), (new, ...))), "compatible")


class Tone(Enum):
    LOW = "low"
    HIGH = "high"


class Row(BaseModel):
    count: int


class RowWithDefault(BaseModel):
    count: int
    note: str = ""


class RowWithMore(BaseModel):
    count: int
    note: str


class RowWithFloat(BaseModel):
    count: float


class RowWithout(BaseModel):
    model_config = {"extra": "forbid"}


class RowLess(BaseModel):
    pass


class RowChecked(BaseModel):
    count: Annotated[int, Field(gt=1000)]


class ToneMore(Enum):
    LOW = "low"
    HIGH = "high"
    MIDDLE = "middle"


for _kind in (ToneMore,):
    _kind.__qualname__ = _kind.__name__ = "Tone"

TABLE = [
    (int, int, "compatible"),
    (int, int | None, "compatible"),
    (int, float, "compatible"),
    (int, int | str, "compatible"),
    (list[int], list[float], "compatible"),
    (dict[str, int], dict[str, int | None], "compatible"),
    (Tone, ToneMore, "compatible"),
    (Literal["a"], Literal["a", "b"], "compatible"),
    (Row, RowWithDefault, "compatible"),
    (Row, RowWithFloat, "compatible"),
    (Row, RowLess, "compatible"),
    (Row, RowChecked, "compatible"),
    (int, Annotated[int, Field(gt=1000)], "compatible"),
    (dict[str, int], Any, "compatible"),
    (int | None, int, "needs an upcast"),
    (float, int, "needs an upcast"),
    (int, str, "needs an upcast"),
    (int | str, int, "needs an upcast"),
    (datetime, str, "needs an upcast"),
    (datetime, Any, "needs an upcast"),  # it would be text, or another kind of value
    (str, UUID, "needs an upcast"),
    (Decimal | str, Decimal, "needs an upcast"),
    (Decimal, Decimal | str, "needs an upcast"),  # its text would be read as a str
    (dict[str, int], dict[int, int], "needs an upcast"),
    (dict[int, int], dict[int | str, int], "needs an upcast"),  # in JSON a key is always text
    (list[int], set[int], "needs an upcast"),
    (tuple[int, int], tuple[int, int, int], "needs an upcast"),
    (ToneMore, Tone, "needs an upcast"),
    (Literal["a", "b"], Literal["a"], "needs an upcast"),
    (Row, RowWithMore, "needs an upcast"),
    (RowWithDefault, RowWithMore, "needs an upcast"),  # Row was recorded before its note was there
    (Row, RowWithout, "needs an upcast"),
    (RowWithFloat, Row, "needs an upcast"),
    (list[Row], list[RowWithMore], "needs an upcast"),
    (int, Annotated[int, BeforeValidator(str)], "needs an upcast"),
]


@pytest.mark.parametrize(("old", "new", "wanted"), TABLE, ids=[str(number) for number in range(len(TABLE))])
def test_a_changed_type_is_judged_by_whether_it_reads_the_old_values(old: Any, new: Any, wanted: str) -> None:
    assert verdict(old, new) == wanted


SAMPLES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    bytes: st.binary(max_size=5),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    datetime: st.datetimes(timezones=st.just(UTC)),
    date: st.dates(),
    UUID: st.uuids(),
    Tone: st.sampled_from(Tone),
    ToneMore: st.sampled_from(ToneMore),
    Literal["a"]: st.just("a"),
    Literal["a", "b"]: st.sampled_from("ab"),
    None: st.none(),
}
SAMPLES |= {
    Row: st.builds(Row, count=SAMPLES[int]),
    RowWithDefault: st.builds(RowWithDefault, count=SAMPLES[int], note=SAMPLES[str]),
    RowWithMore: st.builds(RowWithMore, count=SAMPLES[int], note=SAMPLES[str]),
    RowWithFloat: st.builds(RowWithFloat, count=SAMPLES[float]),
    RowLess: st.builds(RowLess),
}
LEAVES = [kind for kind in SAMPLES if kind is not None]
Drawn = tuple[Any, st.SearchStrategy[Any]]


def _grown(inner: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    return st.one_of(
        inner.map(lambda part: (list[part[0]], st.lists(part[1], max_size=2))),  # type: ignore[name-defined]
        inner.map(lambda part: (part[0] | None, part[1] | st.none())),
        inner.map(lambda part: (dict[str, part[0]], st.dictionaries(SAMPLES[str], part[1], max_size=2))),  # type: ignore[name-defined]
        st.tuples(inner, inner).map(lambda two: (two[0][0] | two[1][0], two[0][1] | two[1][1])),
        st.tuples(inner, inner).map(
            lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))
        ),  # type: ignore[misc]
    )


TYPES = st.recursive(st.sampled_from(LEAVES).map(lambda kind: (kind, SAMPLES[kind])), _grown, max_leaves=3)

WIDER: list[tuple[Any, Any]] = [
    (old, new) for old, new, wanted in TABLE if wanted == "compatible" and old in SAMPLES
]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """An old type, a new one that is related to it, and a value of the old one."""
    if draw(st.booleans()):
        leaves = st.sampled_from(LEAVES)
        old, new = draw(st.sampled_from(WIDER) | st.tuples(leaves, leaves))
        values = SAMPLES[old]
        around = draw(st.sampled_from(["", "list", "dict", "none", "tuple"]))
        if around == "list":
            return list[old], list[new], draw(st.lists(values, max_size=3))
        if around == "dict":
            return dict[str, old], dict[str, new], {"a": draw(values)}
        if around == "none":
            return old | None, new | None, draw(values | st.none())
        if around == "tuple":
            return tuple[old, str], tuple[new, str], (draw(values), "b")
        return old, new, draw(values)
    old, values = draw(TYPES)
    new = draw(
        st.one_of(
            st.just(old),
            st.just(old | None),
            TYPES.map(lambda drawn: drawn[0]),
            TYPES.map(lambda drawn: old | drawn[0]),
        )
    )
    return old, new, draw(values)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=pairs(), extra=st.sampled_from(["none", "added", "added with default", "removed"]))
def test_a_change_called_compatible_reads_what_the_old_class_has_recorded(drawn: Any, extra: str) -> None:
    old, new, value = drawn
    others: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    if extra != "none":
        others = (
            ({"other": (str, ...)}, {})
            if extra == "removed"
            else ({}, {"other": (str, ... if extra == "added" else "")})
        )
    then = made({"value": (old, ...), **others[0]})
    now = made({"value": (new, ...), **others[1]})
    found = compare(one(then), one(now))
    if any(change.verdict != "compatible" for change in found):
        event("needs an upcast")
        return
    event("compatible")
    given_fields = {"other": "x"} if extra == "removed" else {}
    try:
        payload = pack_payload(then(value=value, **given_fields))
    except (EventNotSerializable, ValueError):
        assume(False)
    recorded = then(value=value, **given_fields).value
    read = read_fields(now, unpack_fields(payload, tags_of(now))).value
    if not any(kind.__name__ in str((old, new)) for kind in (Row, RowWithDefault, RowLess, Tone, float)):
        assert (read, type(read)) == (recorded, type(recorded))


@settings(max_examples=200, deadline=None)
@given(drawn=pairs(), limit=st.sampled_from([None, 0, 1000]))
def test_a_change_of_a_command_called_compatible_reads_what_is_scheduled(
    drawn: Any, limit: int | None
) -> None:
    old, new, value = drawn

    def command(kind: Any) -> Any:
        return create_model("DrawnCommand", __base__=Command, __module__=__name__, value=(kind, ...))

    if limit is not None:
        old, new, value = int, Annotated[int, Field(gt=limit)], 0
    then, now = command(old), command(new)
    found = compare(of_command(then), of_command(now))
    if limit is not None:
        assert [change.verdict for change in found] == ["breaks"], "a rule judges commands"
    if any(change.verdict != "compatible" for change in found):
        return
    try:
        written = then(value=value).model_dump_json(round_trip=True)
        assume(then.model_validate_json(written) == then(value=value))
    except ValueError:
        assume(False)
    now.model_validate_json(written)


def of_command(command: Any) -> Catalog:
    def take(self: Any, command: Any) -> None: ...

    take.__annotations__["command"] = command
    kind = type("CatalogTaker", (AggregateRoot,), {"take": handles(take), "__module__": __name__})
    return catalog_of("drawn", [kind], [], [])


def test_what_is_in_doubt_needs_an_upcast_unless_nothing_has_changed() -> None:
    assert verdict(Decimal | str, Decimal | str) == "compatible"
    assert verdict(Row | RowWithMore, Row | RowWithMore) == "compatible"
    assert verdict(Row | Decimal, Row | Decimal | None) == "needs an upcast"
    before, after = (
        create_model("RowOfTwo", __module__=__name__, **fields)
        for fields in ({"count": (int, ...)}, {"count": (int, ...), "note": (str, "")})
    )
    assert verdict(before, after) == "compatible"
    assert verdict(before | Decimal, after | Decimal) == "needs an upcast", "it may be recorded by its class"


class Branch(BaseModel):
    branches: list["Branch"] = []
    leaves: int


@dataclasses.dataclass
class Spot:
    x: int
    next: "Spot | None" = None


UNUSUAL = [
    (Branch, "Branch"),
    (Spot, "Spot"),
    (Sequence[Branch], "Sequence[Branch]"),
    (Annotated[int, WrapSerializer(lambda value, write: write(value))], "int"),
    (tuple[int, ...], "tuple[int, ...]"),
    (Callable[[int], Any], "Callable[[int], Any]"),
]


@pytest.mark.parametrize(("kind", "text"), UNUSUAL, ids=[text for _, text in UNUSUAL])
def test_a_type_of_any_kind_has_a_name_and_reads_what_it_has_written(kind: Any, text: str) -> None:
    (entry,) = one(made({"value": (kind, ...)})).events
    assert entry.model.fields["value"].type == text
    assert changes_of((kind, ...), (kind, ...)) == ()
    assert verdict(kind, str) == "needs an upcast"


def test_a_dataclass_that_has_changed_needs_an_upcast() -> None:
    before = dataclasses.make_dataclass("Place", [("x", int)])
    after = dataclasses.make_dataclass("Place", [("x", int), ("y", int, 0)])
    assert verdict(before, before) == "compatible"
    assert verdict(before, after) == "needs an upcast"


def with_version(number: int, upcasts: tuple[int, ...] = (), names: tuple[str, ...] = ()) -> Catalog:
    kind = made({"version": (int, number), "value": (int if number == 1 else str, ...)})
    registry = EventRegistry([kind])
    for each in upcasts:
        registry.add_upcast(kind, each, lambda payload: payload)
    for name in names:
        registry.register(kind, name)
    return one(kind, registry)


VERSIONS = [
    # version and steps of the old program, those of the new one, verdict, reason
    (1, (), 2, (1,), "compatible", "reads version 1 through upcasts"),
    (1, (), 2, (), "needs an upcast", "register @upcasts('DrawnInCatalog', from_version=1)"),
    (1, (), 3, (2,), "needs an upcast", "the step from version 1 is missing"),
    (2, (1,), 2, (), "needs an upcast", "the step from version 1 is gone"),
    (2, (1,), 3, (2,), "needs an upcast", "the step from version 1 is gone"),
    (2, (1,), 1, (), "breaks", "version 2 is recorded, and the class has version 1"),
]


@pytest.mark.parametrize(
    ("old", "new", "wanted", "reason"), [((a, b), (c, d), e, f) for a, b, c, d, e, f in VERSIONS]
)
def test_a_higher_version_needs_a_step_from_each_version_that_is_recorded(
    old: tuple[int, tuple[int, ...]], new: tuple[int, tuple[int, ...]], wanted: str, reason: str
) -> None:
    first = compare(with_version(*old), with_version(*new))[0]
    assert first.verdict == wanted
    assert reason in first.reason


def test_a_class_that_is_gone_breaks_unless_another_reads_its_name() -> None:
    empty = catalog_of("drawn", [], [], [])
    (gone,) = compare(with_version(1), empty)
    assert (gone.verdict, gone.name) == ("breaks", "DrawnInCatalog")
    (new,) = compare(empty, with_version(1))
    assert (new.verdict, new.reason) == ("compatible", "it is new")
    renamed = EventRegistry([ParcelLost])
    renamed.register(ParcelLost, "ParcelMissing")
    before = one(ParcelLost).model_copy(
        update={
            "events": tuple(
                each.model_copy(update={"name": "ParcelMissing", "names": ("ParcelMissing",)})
                for each in one(ParcelLost).events
            )
        }
    )
    assert [change.verdict for change in compare(before, one(ParcelLost, renamed))] == ["compatible"]
    (lost,) = compare(one(ParcelLost, renamed), one(ParcelLost))
    assert lost.verdict == "breaks"
    assert "ParcelMissing" in lost.reason


def test_what_aggregates_and_subscribers_lose_breaks() -> None:
    whole = parcels()
    without = catalog_of(
        "post", [CatalogReturns], [], [ParcelSent, ParcelLost], EventRegistry([ParcelSent, ParcelLost])
    )
    reasons = {
        (change.verdict, change.name): change.reason
        for change in compare(whole, without)
        if change.verdict == "breaks"
    }
    assert "CatalogParcel does not handle it" in reasons["breaks", "SendParcel"]
    moved = whole.model_copy(
        update={"events": tuple(each.model_copy(update={"topic": "post.sent"}) for each in whole.events)}
    )
    found = [change for change in compare(whole, moved) if change.verdict == "breaks"]
    assert [change.reason for change in found] == [
        "its topic was parcels.sent and is post.sent: subscribers of parcels.sent do not receive new events"
    ]
    unapplied = catalog_of("post", [], [], [ParcelSent], EventRegistry([ParcelSent]))
    assert any("CatalogParcel does not apply it" in change.reason for change in compare(whole, unapplied))


# --- the command -------------------------------------------------------------------------------------------

PROGRAM = """\
from uno_actors import AggregateRoot, Command, DomainEvent, handles, subscribe

class Pay(Command[int]):
    cents: int

class Paid(DomainEvent):
    '''Money has come.'''
    cents: {kind}
    tags: frozenset[str] = frozenset({"a", "b", "c", "d"})
    topic: str = "tills.paid"

class Till(AggregateRoot):
    @handles
    def pay(self, command: Pay) -> int:
        return 0

    def apply_paid(self, event: Paid) -> None: ...

@subscribe(name="receipts")
def receipts(event: Paid) -> None: ...
"""

SEEDS = itertools.count(1)
"""No two processes order sets alike."""


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "uno_actors", "events", *words],
        cwd=directory,
        env={**os.environ, "PYTHONHASHSEED": str(next(SEEDS))},
        capture_output=True,
        text=True,
        check=False,
    )


def kept(directory: Path, kind: str) -> str:
    (directory / "till.py").write_text(PROGRAM.replace("{kind}", kind))
    made = run(directory, "catalog", "till", "--json")
    assert made.returncode == 0, made.stderr
    name = f"{kind}.json"
    (directory / name).write_text(made.stdout)
    return name


def test_two_programs_are_compared_with_an_exit_code_for_ci(tmp_path: Path) -> None:
    old, wider, other = (kept(tmp_path, kind) for kind in ("int", "float", "str"))
    same = run(tmp_path, "diff", old, old)
    assert (same.stdout, same.returncode) == ("nothing has changed\n", 0)
    compatible = run(tmp_path, "diff", old, wider, "--json")
    assert compatible.returncode == 0
    assert json.loads(compatible.stdout)["verdict"] == "compatible"
    incompatible = run(tmp_path, "diff", old, other)
    assert incompatible.returncode == 1
    assert (
        "needs an upcast  event Paid  cents  int has become str; write `version: int = 2`"
        in incompatible.stdout
    )
    assert incompatible.stdout.endswith("1 change: 1 needs an upcast\n")


def test_a_configuration_file_and_its_modules_give_the_same_catalog(tmp_path: Path) -> None:
    kept(tmp_path, "int")
    (tmp_path / "till.toml").write_text(
        '[system]\nname = "till"\n[aggregates]\ntypes = ["till:Till"]\n'
        '[[supervisors]]\nname = "mail"\n[[supervisors.handlers]]\nhandler = "till:receipts"\n'
    )
    by_file = run(tmp_path, "catalog", "till.toml", "--json")
    assert by_file.returncode == 0, by_file.stderr
    assert json.loads(by_file.stdout) == json.loads((tmp_path / "int.json").read_text())
    shown = run(tmp_path, "catalog", "till.toml").stdout.split()
    for word in ("Paid", "tills.paid", "Till", "receipts", "Pay"):
        assert word in shown
    schemas = json.loads(run(tmp_path, "schema", "till.toml").stdout)
    assert list(schemas["events"]) == ["Paid@1"]
    topics = json.loads(run(tmp_path, "schema", "int.json", "--asyncapi", "--release", "7").stdout)
    assert (topics["info"]["version"], list(topics["channels"])) == ("7", ["tills.paid"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("catalog", "absent_module"), "cannot be imported"),
        (("catalog", "a.toml", "b.toml"), "give one file, or modules"),
        (("diff", "absent.json", "absent.json"), "cannot be read"),
        (("diff", "wrong.json", "wrong.json"), "is not a catalog"),
    ],
    ids=["module", "two files", "no file", "no catalog"],
)
def test_a_wrong_source_is_named_with_exit_code_2(
    tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "wrong.json").write_text('{"program": 1}')
    wrong = run(tmp_path, *words)
    assert wrong.returncode == 2
    assert reason in " ".join(wrong.stderr.replace("│", " ").split())
