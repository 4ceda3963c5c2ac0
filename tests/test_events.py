"""Domain events, the registry that finds their classes, and the steps between their schemas."""

import gc
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from uno_actors.causality import Cause
from uno_actors.domain.events import METADATA, DomainEvent, EventRegistry, event_registry
from uno_actors.domain.registration import register_event, upcasts
from uno_actors.errors import AmbiguousEventType, EventNotReadable, InvalidTopic, UnknownEventType


class Minted(DomainEvent):
    amount: int
    topic: str = "accounts.minted"


class Renamed(DomainEvent):
    event_type: str = "test_events.OldName"
    version: int = 3


class MintedTwice(Minted):
    pass


# --- the event ---------------------------------------------------------------------------------------------


def test_event_has_metadata_by_default() -> None:
    before = datetime.now(UTC)
    event = Minted(amount=1)
    after = datetime.now(UTC)

    assert event.event_type == "Minted"
    assert event.version == 1
    assert event.topic == "accounts.minted"
    assert before <= event.timestamp <= after
    assert event.timestamp.tzinfo is UTC
    assert re.fullmatch("[0-9a-f]{32}", event.event_id)
    assert event.aggregate_id is event.aggregate_type is event.aggregate_version is None
    assert event.correlation_id is event.causation_id is None


def test_each_event_has_its_own_id() -> None:
    assert len({Minted(amount=1).event_id for _ in range(100)}) == 100


def test_metadata_is_what_every_event_has() -> None:
    assert set(Minted.model_fields) - METADATA == {"amount"}


def test_event_type_is_the_class_name_unless_overridden() -> None:
    assert Minted.type_name() == "Minted"
    assert MintedTwice.type_name() == "MintedTwice"
    assert MintedTwice(amount=1).event_type == "MintedTwice"
    assert Renamed.type_name() == Renamed().event_type == "test_events.OldName"


def test_subclass_of_a_renamed_event_has_its_own_name_again() -> None:
    class Further(Renamed):
        pass

    assert Further.type_name() == "Further"
    assert Further.schema_version() == 3


def test_schema_version_is_the_default_of_the_class() -> None:
    assert Minted.schema_version() == 1
    assert Renamed.schema_version() == Renamed().version == 3


def test_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Minted(amount=1).amount = 2  # type: ignore[misc]


def test_event_refuses_fields_that_it_does_not_have() -> None:
    with pytest.raises(ValidationError, match="amuont"):
        Minted(amount=1, amuont=2)  # type: ignore[call-arg]


class Redated(DomainEvent):
    timestamp: datetime  # declared again, as a topic is


@pytest.mark.parametrize("event_type", [DomainEvent, Redated])
def test_naive_timestamp_is_read_as_utc(event_type: type[DomainEvent]) -> None:
    naive = datetime(2024, 6, 1, 12)  # noqa: DTZ001 - naive on purpose
    assert event_type(timestamp=naive).timestamp == datetime(2024, 6, 1, 12, tzinfo=UTC)


def test_timestamp_of_another_zone_is_converted_to_utc() -> None:
    tokyo = datetime(2024, 6, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    event = Minted(amount=1, timestamp=tokyo)
    assert event.timestamp == tokyo
    assert event.timestamp.isoformat() == "2024-06-01T03:00:00+00:00"


def test_malformed_topic_is_refused_where_the_class_is_written() -> None:
    with pytest.raises(InvalidTopic, match="empty token"):

        class _Wrong(DomainEvent):
            topic: str = "accounts..minted"


@pytest.mark.parametrize("event_type", [DomainEvent, Redated, Minted])
def test_malformed_topic_is_refused_where_the_event_is_made(event_type: type[DomainEvent]) -> None:
    fields = {"timestamp": datetime.now(UTC), "topic": "accounts.*"}
    with pytest.raises(ValidationError, match="wildcards belong to patterns"):
        event_type(**fields, **({"amount": 1} if event_type is Minted else {}))


def test_stamped_is_a_copy_with_other_metadata() -> None:
    event = Minted(amount=1)
    stamped = event.stamped(aggregate_id="alice", aggregate_type="Account", aggregate_version=3)
    assert (event.aggregate_id, stamped.aggregate_id) == (None, "alice")
    assert stamped.event_id == event.event_id
    assert str(stamped) == "Minted Account<alice@3>"
    assert str(event) == "Minted"


def test_event_names_itself_as_the_cause_of_what_follows() -> None:
    event = Minted(amount=1)
    assert event.cause == Cause(event.event_id, event.event_id)
    assert Minted(amount=1, correlation_id="first", event_id="me").cause == Cause("first", "me")


def test_events_with_the_same_values_are_equal() -> None:
    event = Minted(amount=1)
    assert Minted.model_validate_json(event.model_dump_json()) == event
    assert event != event.stamped(aggregate_id="alice")


def test_field_with_an_alias_may_be_given_by_either_name() -> None:
    class Aliased(DomainEvent):
        amount: Annotated[int, Field(alias="amountInCents")]

    assert Aliased(amount=1).amount == Aliased(amountInCents=1).amount == 1  # type: ignore[call-arg]


# --- the registry ------------------------------------------------------------------------------------------


def test_every_subclass_registers_itself() -> None:
    class OnlyInTestEvents(DomainEvent):
        pass

    assert event_registry.resolve("OnlyInTestEvents") is OnlyInTestEvents
    assert event_registry.resolve("test_events.OldName") is Renamed


def test_registry_holds_what_it_is_given_and_nothing_else() -> None:
    registry = EventRegistry([Minted])
    assert registry.resolve("Minted") is Minted
    assert registry.names() == ["Minted"]
    with pytest.raises(UnknownEventType):
        registry.resolve("MintedTwice")


def test_unknown_type_is_reported_with_the_remedy_and_the_known_types() -> None:
    registry = EventRegistry([Renamed, Minted])
    with pytest.raises(UnknownEventType) as caught:
        registry.resolve("Withdrawn")
    assert caught.value.event_type == "Withdrawn"
    assert "import the module that defines it" in str(caught.value)
    assert "@register_event(name='Withdrawn')" in str(caught.value)
    assert str(caught.value).endswith("Registered: Minted, test_events.OldName")


def test_registry_of_a_mapping_reads_recorded_names_as_given_classes() -> None:
    registry = EventRegistry({"Minted": MintedTwice, "Paid": Minted})
    assert registry.resolve("Minted") is MintedTwice
    assert registry.resolve("Paid") is Minted


def test_two_classes_of_one_name_are_refused_where_one_must_be_chosen_and_both_named() -> None:
    def context() -> type[DomainEvent]:
        class Shared(DomainEvent):
            event_type: str = "test_events.Shared"

        return Shared

    def other_context() -> type[DomainEvent]:
        class Shared(DomainEvent):
            event_type: str = "test_events.Shared"

        return Shared

    mine, other = context(), other_context()
    with pytest.raises(AmbiguousEventType) as caught:
        event_registry.resolve("test_events.Shared")
    assert "context.<locals>.Shared" in str(caught.value)
    assert "other_context.<locals>.Shared" in str(caught.value)
    assert "event_registry=EventRegistry([...])" in str(caught.value)
    assert EventRegistry([mine]).resolve("test_events.Shared") is mine
    assert EventRegistry([other]).resolve("test_events.Shared") is other


def test_forgotten_class_leaves_its_name_to_the_others() -> None:
    def context() -> type[DomainEvent]:
        class Forgotten(DomainEvent):
            event_type: str = "test_events.Forgotten"

        return Forgotten

    def other_context() -> type[DomainEvent]:
        class Forgotten(DomainEvent):
            event_type: str = "test_events.Forgotten"

        return Forgotten

    mine, other = context(), other_context()
    assert event_registry.classes() >= {mine, other}
    event_registry.forget(other)
    assert event_registry.resolve("test_events.Forgotten") is mine
    event_registry.forget(mine)
    with pytest.raises(UnknownEventType):
        event_registry.resolve("test_events.Forgotten")
    assert not event_registry.classes() & {mine, other}
    assert "test_events.Forgotten" not in event_registry.names()


def test_class_defined_again_replaces_itself() -> None:
    def cell() -> type[DomainEvent]:
        class Again(DomainEvent):
            event_type: str = "test_events.Again"

        return Again

    first, second = cell(), cell()
    assert event_registry.resolve("test_events.Again") is second is not first


def test_registry_keeps_no_class_alive() -> None:
    def define() -> None:
        class Gone(DomainEvent):
            event_type: str = "test_events.Gone"

        assert event_registry.resolve("test_events.Gone") is Gone

    define()
    gc.collect()
    with pytest.raises(UnknownEventType):
        event_registry.resolve("test_events.Gone")
    assert "test_events.Gone" not in event_registry.names()


def test_register_event_as_a_bare_decorator_returns_the_class() -> None:
    @register_event
    class Plain(DomainEvent):
        event_type: str = "test_events.Plain"

    assert Plain.type_name() == "test_events.Plain"
    assert event_registry.resolve("test_events.Plain") is Plain


def test_register_event_with_a_name_reads_events_of_the_old_name_too() -> None:
    @register_event(name="test_events.BeforeRenaming")
    class AfterRenaming(DomainEvent):
        pass

    assert event_registry.resolve("test_events.BeforeRenaming") is AfterRenaming
    assert event_registry.resolve("AfterRenaming") is AfterRenaming


# --- upcasts -----------------------------------------------------------------------------------------------


def test_upcasts_chain_from_the_recorded_version_to_the_current_one() -> None:
    registry = EventRegistry()
    registry.add_upcast("Moved", 1, lambda payload: {**payload, "steps": [1]})
    registry.add_upcast("Moved", 2, lambda payload: {**payload, "steps": [*payload.get("steps", ()), 2]})
    registry.add_upcast("Moved", 3, lambda payload: {**payload, "steps": [*payload.get("steps", ()), 3]})
    assert registry.upcast("Moved", 1, 4, {"x": 0}) == {"x": 0, "steps": [1, 2, 3]}
    assert registry.upcast("Moved", 2, 3, {}) == {"steps": [2]}
    assert registry.upcast("Moved", 4, 4, {"x": 0}) == {"x": 0}


def test_missing_step_is_reported_with_the_line_to_write() -> None:
    registry = EventRegistry()
    registry.add_upcast("Moved", 1, lambda payload: payload)
    with pytest.raises(EventNotReadable, match=re.escape("@upcasts('Moved', from_version=2)")) as caught:
        registry.upcast("Moved", 1, 3, {})
    assert (caught.value.event_type, caught.value.recorded, caught.value.current) == ("Moved", 1, 3)


def test_event_of_a_newer_program_is_refused() -> None:
    with pytest.raises(EventNotReadable, match="recorded by a newer program"):
        EventRegistry().upcast("Moved", 2, 1, {})


@pytest.mark.parametrize("from_version", [0, -1])
def test_schema_versions_start_at_1(from_version: int) -> None:
    with pytest.raises(ValueError, match=f"start at 1; found from_version={from_version}"):
        upcasts("Moved", from_version)(lambda payload: payload)


@pytest.mark.parametrize("named", [Renamed, "test_events.OldName"])
def test_upcasts_takes_the_class_or_the_recorded_name(named: Any) -> None:
    @upcasts(named, from_version=1)
    def step(payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "by": repr(named)}

    assert event_registry.upcast("test_events.OldName", 1, 2, {}) == step({}) == {"by": repr(named)}
