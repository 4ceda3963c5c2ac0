"""What the event documentation of the Uno framework shows, section by section, works here by the names of this project.

Sections: events, event bus, event handlers, event store, topic-based routing, correlation and causation, event
persistence, event sourcing, integration of bounded contexts. Its best practices are in ``docs/how-to``.
"""

import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from uno_actors import (
    ActorSystem,
    AggregateNotFound,
    AggregateRoot,
    ConcurrencyConflict,
    DomainEvent,
    EventHandler,
    EventPriority,
    EventRegistry,
    EventSourcedRepository,
    UnknownEventType,
    bridge,
    get_event_bus,
    get_event_publisher,
    get_event_store,
    register_event,
    subscribe,
)
from uno_actors.bus.publisher import event_defaults
from uno_actors.handlers.subscribe import HandlerRegistry
from uno_actors.testing import Probe
from uno_stores import InMemoryEventStore
from uno_stores.sql import DatabaseEventStore, create_database_event_store


class MemberJoinedEvent(DomainEvent):
    member_id: str
    name: str
    email: str = "nobody@example.org"


class MemberLeftEvent(DomainEvent):
    member_id: str


class CardPrintedEvent(DomainEvent):
    member_id: str


ANN = {"member_id": "member-1", "name": "ann", "email": "ann@example.org"}


@pytest.fixture(autouse=True)
def _defaults_of_its_own(own_handlers: HandlerRegistry) -> Iterator[None]:
    with event_defaults():
        yield


# --- events ------------------------------------------------------------------------------------------------


def test_an_event_has_metadata_context_correlation_routing_and_payload() -> None:
    event = MemberJoinedEvent(**ANN)
    assert event.event_type == "MemberJoinedEvent"
    assert len(event.event_id) == 32
    assert event.timestamp.tzinfo is UTC
    assert datetime.now(UTC) - event.timestamp < timedelta(minutes=1)
    assert event.version == 1
    assert (
        event.aggregate_id,
        event.aggregate_type,
        event.correlation_id,
        event.causation_id,
        event.topic,
    ) == (
        None,
        None,
        None,
        None,
        None,
    )
    assert (event.member_id, event.name, event.email) == ("member-1", "ann", "ann@example.org")


def test_events_are_immutable_and_of_declared_fields() -> None:
    event = MemberJoinedEvent(**ANN)
    with pytest.raises(ValidationError, match="frozen"):
        event.name = "eve"
    with pytest.raises(ValidationError, match="nickname"):
        MemberJoinedEvent(**ANN, nickname="a")


# --- event bus ---------------------------------------------------------------------------------------------


async def test_a_handler_subscribes_by_type_topic_and_priority() -> None:
    bus, seen = get_event_bus(), []

    async def greet(event: MemberJoinedEvent) -> None:
        seen.append(event.name)

    bus.subscribe(
        handler=greet,
        event_type=MemberJoinedEvent,
        topic_pattern="members.*",
        priority=EventPriority.HIGH,
    )
    await bus.publish(MemberJoinedEvent(**ANN, topic="members.joined"))
    await bus.publish(MemberJoinedEvent(**ANN, topic="guests.joined"))
    await bus.publish(MemberLeftEvent(member_id="member-1", topic="members.left"))
    assert seen == ["ann"]


async def test_publishing_returns_when_the_handlers_have_run_the_most_important_first() -> None:
    bus, seen = get_event_bus(), []

    def note(name: str, priority: EventPriority) -> None:
        async def handle(event: MemberJoinedEvent) -> None:
            seen.append(name)

        bus.subscribe(handle, MemberJoinedEvent, priority=priority, name=name)

    note("statistics", EventPriority.LOW)
    note("mail", EventPriority.NORMAL)
    note("security", EventPriority.HIGH)
    await bus.publish(MemberJoinedEvent(**ANN))
    assert seen == ["security", "mail", "statistics"]


# --- event handlers ----------------------------------------------------------------------------------------


async def test_functions_handle_events_coroutines_on_the_loop_and_plain_ones_on_a_thread() -> None:
    seen: dict[str, threading.Thread] = {}

    @subscribe(event_type=MemberJoinedEvent)
    async def joined(event: MemberJoinedEvent) -> None:
        seen[event.name] = threading.current_thread()

    @subscribe(event_type=MemberLeftEvent)
    def left(event: MemberLeftEvent) -> None:
        seen[event.member_id] = threading.current_thread()

    await get_event_bus().publish(MemberJoinedEvent(**ANN))
    await get_event_bus().publish(MemberLeftEvent(member_id="member-1"))
    assert seen["ann"] is threading.current_thread()
    assert seen["member-1"] is not threading.current_thread()


async def test_classes_handle_events() -> None:
    class Greeter(EventHandler[MemberJoinedEvent]):
        def __init__(self) -> None:
            super().__init__(MemberJoinedEvent)
            self.greeted: list[str] = []

        async def handle(self, event: MemberJoinedEvent) -> None:
            self.greeted.append(event.name)

    greeter = Greeter()
    get_event_bus().subscribe(greeter)
    await get_event_bus().publish(MemberJoinedEvent(**ANN))
    await get_event_bus().publish(MemberLeftEvent(member_id="member-1"))
    assert greeter.greeted == ["ann"]


# --- event store -------------------------------------------------------------------------------------------


async def test_the_default_store_keeps_events_in_memory_and_gives_those_since_a_version() -> None:
    store = get_event_store()
    for name in ("ann", "anne", "anna"):
        await store.append(
            MemberJoinedEvent(member_id="1", name=name, aggregate_id="member-1", aggregate_type="Member")
        )
    events = await store.get_events(aggregate_id="member-1", since_version=1)
    assert [(event.aggregate_version, event.name) for event in events] == [(2, "anne"), (3, "anna")]


async def test_a_store_gives_events_since_a_moment_naive_times_are_utc() -> None:
    store = get_event_store()
    for year in (2022, 2023, 2024):
        moment = datetime(year, 1, 1, tzinfo=UTC)
        await store.append(
            MemberJoinedEvent(**ANN, timestamp=moment, aggregate_id="member-1", aggregate_type="Member")
        )
    events = await store.get_events(aggregate_id="member-1", since_timestamp=datetime(2023, 1, 1))  # noqa: DTZ001
    assert [event.timestamp.year for event in events] == [2023, 2024]


async def test_the_log_is_replayed_in_its_order() -> None:
    store = get_event_store()
    await store.append(MemberJoinedEvent(**ANN), MemberLeftEvent(member_id="member-1"))
    assert [recorded.event.event_type async for recorded in store.read_all()] == [
        "MemberJoinedEvent",
        "MemberLeftEvent",
    ]


# --- topic-based routing -----------------------------------------------------------------------------------


async def test_topics_are_routed_by_patterns() -> None:
    bus = get_event_bus()
    heard: dict[str, list[str]] = {"members.joined": [], "members.*": [], "*.joined": [], "members.>": []}
    for pattern, events in heard.items():
        bus.subscribe(
            handler=lambda event, events=events: events.append(event.topic),
            topic_pattern=pattern,
            name=pattern,
        )
    for topic in ("members.joined", "members.left", "guests.joined", "members.card.printed"):
        await bus.publish(CardPrintedEvent(member_id="member-1", topic=topic))
    assert heard == {
        "members.joined": ["members.joined"],
        "members.*": ["members.joined", "members.left"],
        "*.joined": ["members.joined", "guests.joined"],
        "members.>": ["members.joined", "members.left", "members.card.printed"],
    }


# --- correlation and causation -----------------------------------------------------------------------------


def test_events_name_what_they_belong_to_and_what_caused_them() -> None:
    joined = MemberJoinedEvent(**ANN, correlation_id="request-7")
    printed = CardPrintedEvent(
        member_id="member-1", correlation_id=joined.correlation_id, causation_id=joined.event_id
    )
    assert (printed.correlation_id, printed.causation_id) == ("request-7", joined.event_id)


async def test_events_that_a_handler_publishes_are_linked_automatically() -> None:
    bus, printed = get_event_bus(), Probe()

    @subscribe(MemberJoinedEvent)
    async def print_card(event: MemberJoinedEvent) -> None:
        await bus.publish(CardPrintedEvent(member_id=event.member_id))

    bus.subscribe(printed.handler(CardPrintedEvent).target, CardPrintedEvent, name="printed")
    joined = MemberJoinedEvent(**ANN, correlation_id="request-7")
    await bus.publish(joined)
    card = await printed.expect(CardPrintedEvent)
    assert (card.correlation_id, card.causation_id) == ("request-7", joined.event_id)


# --- event persistence -------------------------------------------------------------------------------------


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/members.db")
    yield engine
    await engine.dispose()


async def test_events_are_persisted_in_a_database(engine: AsyncEngine) -> None:
    store = DatabaseEventStore(
        session_factory=lambda: AsyncSession(engine),
        event_types={"MemberJoinedEvent": MemberJoinedEvent},
    )
    await store.create_schema()
    for year in (2022, 2023, 2024):
        moment = datetime(year, 6, 1, tzinfo=UTC)
        await store.append(
            MemberJoinedEvent(**ANN, timestamp=moment, aggregate_id="member-1", aggregate_type="Member")
        )
    await store.close()

    reader = DatabaseEventStore(lambda: AsyncSession(engine), {"MemberJoinedEvent": MemberJoinedEvent})
    since = datetime(2023, 1, 1)  # noqa: DTZ001 - as it is written there
    events = await reader.get_events(aggregate_id="member-1", since_timestamp=since)
    assert [(event.aggregate_version, event.timestamp.year) for event in events] == [(2, 2023), (3, 2024)]
    assert {type(event) for event in events} == {MemberJoinedEvent}
    await reader.close()


async def test_creating_the_schema_again_keeps_recorded_events(engine: AsyncEngine) -> None:
    async with DatabaseEventStore(lambda: AsyncSession(engine)) as store:
        await store.create_schema()
        await store.append(MemberJoinedEvent(**ANN, aggregate_id="member-1", aggregate_type="Member"))
        await store.create_schema()
        assert len(await store.get_events(aggregate_id="member-1")) == 1


async def test_a_database_store_made_in_one_step_is_ready_and_reads_by_its_registry(
    engine: AsyncEngine,
) -> None:
    store = await create_database_event_store(
        session_factory=lambda: AsyncSession(engine), event_registry=EventRegistry([MemberJoinedEvent])
    )
    for name in ("ann", "anne", "anna"):
        await store.append(
            MemberJoinedEvent(member_id="1", name=name, aggregate_id="member-1", aggregate_type="Member")
        )
    events = await store.get_events(aggregate_id="member-1", since_version=1)
    assert [event.name for event in events] == ["anne", "anna"]
    await store.close()

    async with DatabaseEventStore(lambda: AsyncSession(engine), [MemberLeftEvent]) as knows_others:
        with pytest.raises(UnknownEventType, match="MemberJoinedEvent"):
            await knows_others.get_events(aggregate_id="member-1")


async def test_a_recorded_name_is_read_as_the_class_that_it_is_mapped_to(engine: AsyncEngine) -> None:
    class MemberAsOfTodayEvent(DomainEvent):
        member_id: str
        name: str
        email: str
        title: str = "none"

    async with await create_database_event_store(lambda: AsyncSession(engine)) as store:
        await store.append(MemberJoinedEvent(**ANN, aggregate_id="member-1", aggregate_type="Member"))
    today = {"MemberJoinedEvent": MemberAsOfTodayEvent}
    async with DatabaseEventStore(lambda: AsyncSession(engine), event_types=today) as store:
        (event,) = await store.get_events(aggregate_id="member-1")
    assert isinstance(event, MemberAsOfTodayEvent)
    assert (event.name, event.title) == ("ann", "none")


# --- event sourcing ----------------------------------------------------------------------------------------


@register_event
class TitleGivenEvent(DomainEvent):
    title: str


class Member(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.name: str | None = None
        self.email: str | None = None
        self.title: str | None = None

    def join(self, name: str, email: str) -> None:
        self.register_event(MemberJoinedEvent(member_id=self.id, name=name, email=email))

    def give_title(self, title: str) -> None:
        self.register_event(TitleGivenEvent(title=title))

    def apply_memberjoined(self, event: MemberJoinedEvent) -> None:
        self.name, self.email = event.name, event.email

    def apply_title_given(self, event: TitleGivenEvent) -> None:
        self.title = event.title


async def test_an_aggregate_is_rebuilt_from_its_events() -> None:
    store = get_event_store()
    repository = EventSourcedRepository(aggregate_type=Member, event_store=store)
    with pytest.raises(AggregateNotFound, match="Member<member-1>"):
        await repository.get_by_id("member-1")
    member = Member("member-1")
    member.join("ann", "ann@example.org")
    await repository.save(member)
    member.give_title("captain")
    await repository.save(member)
    rebuilt = await repository.get_by_id("member-1")
    assert (rebuilt.name, rebuilt.email, rebuilt.title, rebuilt.version) == (
        "ann",
        "ann@example.org",
        "captain",
        2,
    )
    (joined, _) = await store.get_events(aggregate_id="member-1")
    assert (joined.aggregate_type, joined.aggregate_version) == ("Member", 1)


async def test_an_aggregate_is_rebuilt_from_a_database(engine: AsyncEngine) -> None:
    async with await create_database_event_store(session_factory=lambda: AsyncSession(engine)) as store:
        member = Member("member-1")
        member.join("ann", "ann@example.org")
        await EventSourcedRepository(aggregate_type=Member, event_store=store).save(member)
        member.give_title("captain")
        await EventSourcedRepository(aggregate_type=Member, event_store=store).save(member)

    async with DatabaseEventStore(session_factory=lambda: AsyncSession(engine)) as store:
        repository = EventSourcedRepository(aggregate_type=Member, event_store=store)
        rebuilt = await repository.get_by_id("member-1")
        assert (rebuilt.name, rebuilt.title, rebuilt.version) == ("ann", "captain", 2)
        with pytest.raises(AggregateNotFound, match="Member<member-2>"):
            await repository.get_by_id("member-2")


async def test_of_two_concurrent_saves_the_second_decides_again() -> None:
    repository = EventSourcedRepository(Member, get_event_store())
    one, other = Member("member-1"), Member("member-1")
    one.join("ann", "ann@example.org")
    other.join("eve", "eve@example.org")
    await repository.save(one)
    with pytest.raises(ConcurrencyConflict):
        await repository.save(other)
    assert (await repository.get_by_id("member-1")).name == "ann"


# --- integration of bounded contexts -----------------------------------------------------------------------


async def test_one_context_publishes_and_another_one_subscribes() -> None:
    profiles: list[str] = []

    @subscribe(topic_pattern="members.joined")
    async def create_profile(event: MemberJoinedEvent) -> None:
        profiles.append(event.member_id)

    await get_event_publisher().publish(MemberJoinedEvent(**ANN, topic="members.joined"))
    assert profiles == ["member-1"]
    (recorded,) = [recorded.event async for recorded in get_event_store().read_all()]
    assert recorded.topic == "members.joined"


async def test_contexts_with_their_own_stores_are_bridged() -> None:
    events = EventRegistry([MemberJoinedEvent])
    profiles = Probe()
    members = ActorSystem(InMemoryEventStore(events), name="members", handlers=[])
    shop = ActorSystem(
        InMemoryEventStore(events), name="shop", handlers=[profiles.handler(topic_pattern="members.>")]
    )
    bridge(members, shop, "members.joined")
    async with shop, members:
        await members.publisher.publish(MemberJoinedEvent(**ANN, topic="members.joined"))
        assert (await profiles.expect(MemberJoinedEvent)).name == "ann"
