"""What type checkers must see in the public names; checked by `make check`, never run."""

from typing import Any, Literal, assert_type

from pydantic import Field

from uno_actors import (
    ANY,
    EXISTS,
    Actor,
    ActorRef,
    ActorSystem,
    AggregateRef,
    AggregateRoot,
    Checkpoint,
    Command,
    CommandReply,
    DecisionModel,
    DomainEvent,
    EventBus,
    EventHandler,
    EventPriority,
    EventPublisher,
    EventQuery,
    EventStore,
    FailedDelivery,
    Future,
    HandlerContext,
    ProcessManager,
    Projection,
    PublishedView,
    RecordedEvent,
    Refusal,
    View,
    bridge,
    decide,
    decides,
    get_event_bus,
    get_event_publisher,
    get_event_store,
    handles,
    published_view,
    reacts,
    register_event,
    subscribe,
    upcasts,
)
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.view_keys import Key
from uno_actors.testing import Given, GivenFixture, GivenProcess, SimulatedFixture, given
from uno_actors.testing.simulation import Simulated, World


class Deposit(Command[int]):
    amount: int


class Close(Command):
    pass


class Deposited(DomainEvent):
    amount: int
    version: int = 2
    topic: str | None = "accounts.deposited"


class Withdrawn(DomainEvent):
    amount: int
    topic: str = "accounts.withdrawn"


class Account(AggregateRoot):
    @handles
    def deposit(self, command: Deposit) -> int:
        return command.amount


assert_type(Account("a").deposit(Deposit(amount=1)), int)
assert_type(Account("a").handle(Deposit(amount=1)), int)
assert_type(Account("a").handle(Close()), Any)


def repeated(key: str | None) -> str:
    """The key of a request, if it has one."""
    return Deposit(amount=1, command_id=key).command_id


assert_type(Deposit(amount=1).command_id, str)
assert_type(Deposit(amount=1, command_id=None).command_id, str)


class Approve(Command[bool]):
    pass


def of_an_int(command: Command[int]) -> int:
    return Account("a").handle(command)


of_an_int(Approve())  # a bool is an int


class CanClose:
    """A mixin for aggregates."""

    @handles()
    def close(self, command: Close) -> str:
        return "closed"


assert_type(CanClose().close(Close()), str)
assert_type(Withdrawn(amount=1).topic, str)
assert_type(Deposited(amount=1).topic, str | None)


class Refunded(Withdrawn):
    """Fields may be narrowed again, and have any default."""

    event_type: Literal["Refunded"] = "Refunded"
    notes: list[str] = Field(default_factory=list)


assert_type(Refunded(amount=1).event_type, Literal["Refunded"])


@register_event(name="money_in")
class MoneyIn(DomainEvent):
    amount: int


assert_type(MoneyIn(amount=1).amount, int)


@upcasts(Deposited, from_version=1)
def whole_numbers(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@subscribe(topic_pattern="accounts.*")
async def with_context(event: Deposited, context: HandlerContext) -> None:
    assert_type(context.position, int)
    assert_type(context.system.aggregate(Account, "a"), AggregateRef)


class Receipts(EventHandler[Deposited]):
    def __init__(self) -> None:
        super().__init__(Deposited)

    async def handle(self, event: Deposited) -> None:
        assert_type(event.amount, int)


class ReceiptsWithContext(EventHandler[Deposited]):
    def handle(self, event: Deposited, context: HandlerContext) -> None:
        assert_type(context.attempt, int)


subscribe(topic_pattern="accounts.*")(ReceiptsWithContext())


@subscribe(name="balances")
class Balances(Projection[Deposited]):
    async def handle(self, event: Deposited, context: HandlerContext) -> None:
        self.view.put(("of", event.aggregate_id), event.amount)
        self.view.put((event.aggregate_type, event.aggregate_version, event.correlation_id), event.amount)
        await self.view.get(event.topic)
        assert_type(self.view, View)


class Ranks(Projection[Deposited, tuple[str, int]]):
    """It states the type of its keys, too."""

    async def handle(self, event: Deposited) -> None:
        self.view.put(("of", event.amount), event.amount)
        for key, _ in await self.view.range("of"):
            assert_type(key, tuple[str, int])
            self.view.delete(key)
        assert_type(self.view, View[tuple[str, int]])


class Names(Projection[Deposited, str | None]):
    async def handle(self, event: Deposited) -> None:
        self.view.put(event.aggregate_id, event.amount)


class Plain(Actor):
    async def on_start(self) -> None: ...

    def on_receive(self, text: str) -> int:
        return len(text)


@subscribe()
async def of_several(event: Deposited | Withdrawn) -> None: ...


class OfSeveral(EventHandler[Deposited | Withdrawn]):
    async def handle(self, event: Deposited | Withdrawn) -> None: ...


class Process(ProcessManager):
    @reacts
    def on_money(self, event: Deposited | Withdrawn) -> None: ...

    @reacts()
    def on_refusal(self, refusal: Refusal[Deposit]) -> None:
        assert_type(refusal.command, Deposit)


class KeyedProcess(ProcessManager):
    @reacts(starts=True, by="aggregate_id")
    def on_deposited(self, event: Deposited) -> None:
        self.end()

    @reacts(by=lambda event: [event.amount])
    def on_withdrawn(self, event: Withdrawn) -> None: ...


assert_type(given(KeyedProcess), GivenProcess[KeyedProcess])
assert_type(given(KeyedProcess).when(Deposited(amount=1)).sends().aggregate, KeyedProcess)
assert_type(KeyedProcess("a").has_ended, bool)


bus = get_event_bus()
assert_type(bus, EventBus)
assert_type(get_event_publisher(), EventPublisher)
assert_type(get_event_store(), EventStore)


@bus.subscribe(topic_pattern="accounts.*", priority=EventPriority.HIGH)
async def on_the_bus(event: Deposited, context: HandlerContext) -> None: ...


@bus.subscribe
def also_on_the_bus(event: DomainEvent) -> None: ...


bus.subscribe(handler=on_the_bus, event_type=Deposited, name="other")
bus.subscribe(ReceiptsWithContext())
bus.subscribe(Receipts)
assert_type(bus.unsubscribe(on_the_bus), bool)
assert_type(bus.dead_letters(), list[FailedDelivery])


def to_withdrawn(event: DomainEvent) -> Withdrawn | None:
    return None


async def published(system: ActorSystem, other: ActorSystem) -> None:
    await system.bus.publish(Deposited(amount=1), Withdrawn(amount=1), raise_errors=True)
    assert_type(await system.publisher.publish(Deposited(amount=1)), list[RecordedEvent])
    bridge(system, other, "accounts.>", translate=to_withdrawn, start="earliest")


async def in_async_code(system: ActorSystem, store: EventStore) -> None:
    account = system.aggregate(Account, "a")
    assert_type(account.ask(Deposit(amount=1)), CommandReply[int])
    assert_type(await account.ask(Deposit(amount=1)), int)
    waited = account.ask(Deposit(amount=1), wait_for=("view", Account), wait_timeout=5)
    assert_type(waited, CommandReply[int])
    assert_type(await waited, int)
    assert_type(waited.position, int | None)
    assert_type(waited.token, str | None)
    assert_type(await account.ask(Close()), Any)
    assert_type(account.ask(Deposit(amount=1)).map(str), Future[str])
    assert_type(await system.spawn(Plain), ActorRef[Plain])
    assert_type(await store.get_events("a"), list[DomainEvent])
    assert_type(await store.append(Deposited(amount=1)), list[RecordedEvent])
    assert_type(await store.append(Deposited(amount=1), expected_version=ANY), list[RecordedEvent])
    await store.append(Deposited(amount=1), expected_version=EXISTS, checkpoint=Checkpoint("in", 3, was=2))
    assert_type(await store.drop_progress("in"), bool)
    async for recorded in store.read_all(topic_pattern=("a.*", "b"), aggregate_id="a", until=7):
        assert_type(recorded, RecordedEvent)
    async for recorded in store.read_all():
        assert_type(recorded.event, DomainEvent)
    async for recorded in store.read_all(event_type="money_in"):
        assert_type(recorded, RecordedEvent)
    async for position, event in store.read_all(event_type=Deposited):
        assert_type(position, int)
        assert_type(event, Deposited)
    async for deposited in store.subscribe(event_type=Deposited):
        assert_type(deposited, RecordedEvent[Deposited])
    assert_type(system.actor("plain"), ActorRef[Any] | None)
    assert_type(system.actor("plain", Plain), ActorRef[Plain])


async def viewed(system: ActorSystem, store: EventStore) -> None:
    assert_type(system.view(Balances), PublishedView)
    assert_type(await published_view(store, Balances).range("of", limit=3), list[tuple[Key, Any]])
    assert_type(system.view(Ranks), PublishedView[tuple[str, int]])
    assert_type(system.view(Ranks()), PublishedView[tuple[str, int]])
    assert_type(system.view(HandlerSpec("ranks", Ranks)), PublishedView)
    ranks = published_view(store, Ranks)
    assert_type(ranks, PublishedView[tuple[str, int]])
    for (name, rank), _ in await ranks.range("of", after=("of", 3)):
        assert_type(name, str)
        assert_type(rank, int)
    for key, _ in await system.view(Names).range(after=(None,)):
        assert_type(key, str | None)


async def with_a_view(event: Deposited, context: HandlerContext) -> None:
    assert_type(context.system.view(Ranks), PublishedView[tuple[str, int]])
    assert_type(context.system.view(Balances), PublishedView)


def in_synchronous_code() -> None:
    with ActorSystem("memory:") as system:
        assert_type(system.aggregate(Account, "a").ask(Deposit(amount=1)).get(timeout=5), int)


class Balance(DecisionModel):
    total: int = 0

    def apply_deposited(self, event: Deposited) -> None:
        self.total += event.amount


@decides(lambda command: EventQuery(Deposited))
def deposit_at_most_once(command: Deposit, balance: Balance) -> int:
    balance.register_event(Deposited(amount=command.amount))
    return balance.total


async def decisions(system: ActorSystem, store: EventStore) -> None:
    assert_type(await system.decide(deposit_at_most_once, Deposit(amount=1)), int)
    assert_type(await decide(store, deposit_at_most_once, Deposit(amount=1)), int)
    await system.decide(deposit_at_most_once, Close())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    selection = await store.select(EventQuery(Deposited, topic="accounts.>"))
    await store.append(Deposited(amount=1), unless=EventQuery(Deposited), after=selection.position)
    assert_type(selection.events, list[RecordedEvent])


# --- fixtures of the plugin for pytest ---


def rules(given: GivenFixture) -> None:
    assert_type(given(Account), Given[Account])
    assert_type(given(KeyedProcess), GivenProcess[KeyedProcess])


def runs(simulated: SimulatedFixture) -> None:
    async def scenario(world: World) -> None: ...

    assert_type(simulated(scenario, 5, faults=0), Simulated)
