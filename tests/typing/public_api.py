"""What type checkers must see in the public names; checked by `make check`, never run."""

from typing import Any, assert_type

from uno_actors import (
    Actor,
    ActorRef,
    ActorSystem,
    AggregateRef,
    AggregateRoot,
    Command,
    DomainEvent,
    EventBus,
    EventHandler,
    EventPriority,
    EventPublisher,
    EventStore,
    FailedDelivery,
    Future,
    HandlerContext,
    Projection,
    PublishedView,
    RecordedEvent,
    View,
    bridge,
    get_event_bus,
    get_event_publisher,
    get_event_store,
    handles,
    published_view,
    register_event,
    subscribe,
    upcasts,
)
from uno_actors.projections import Key


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
        self.view.put(("of", event.aggregate_id or ""), event.amount)
        assert_type(self.view, View)


class Plain(Actor):
    async def on_start(self) -> None: ...

    def on_receive(self, message: str) -> int:
        return len(message)


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
    assert_type(account.ask(Deposit(amount=1)), Future[int])
    assert_type(await account.ask(Deposit(amount=1)), int)
    assert_type(await account.ask(Close()), Any)
    assert_type(account.ask(Deposit(amount=1)).map(str), Future[str])
    assert_type(await system.spawn(Plain), ActorRef[Plain])
    assert_type(await store.get_events("a"), list[DomainEvent])
    assert_type(await store.append(Deposited(amount=1)), list[RecordedEvent])
    async for recorded in store.read_all():
        assert_type(recorded.event, DomainEvent)


async def viewed(system: ActorSystem, store: EventStore) -> None:
    assert_type(system.view(Balances), PublishedView)
    assert_type(await published_view(store, Balances).range("of", limit=3), list[tuple[Key, Any]])


def in_synchronous_code() -> None:
    with ActorSystem("memory:") as system:
        assert_type(system.aggregate(Account, "a").ask(Deposit(amount=1)).get(timeout=5), int)
