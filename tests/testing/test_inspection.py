"""`inspect`: the parts of a system at one moment, in any state."""

import asyncio

from tests.waiting import until
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    EventHandler,
    Supervisor,
    handles,
)
from uno_actors.store.codec import StreamId
from uno_actors.testing import Inspection, inspect
from uno_stores import InMemoryEventStore


class Count(Command[int]):
    pass


class PartCounted(DomainEvent):
    pass


class Counter(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.count = 0

    @handles
    def add(self, command: Count) -> int:
        self.register_event(PartCounted())
        return self.count

    def apply_part_counted(self, event: PartCounted) -> None:
        self.count += 1


class Gate(EventHandler[PartCounted]):
    """Handles an event when the test lets it."""

    def __init__(self) -> None:
        super().__init__(PartCounted)
        self.entered, self.opened = asyncio.Event(), asyncio.Event()

    async def handle(self, event: PartCounted) -> None:
        self.entered.set()
        await self.opened.wait()


class Keeper(Actor):
    """Handles messages when the test lets it."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    async def on_receive(self, message: object) -> None:
        await self.gate.opened.wait()


async def test_the_parts_of_a_running_system_are_shown() -> None:
    gate = Gate()
    store = InMemoryEventStore()
    top = Supervisor("top", [gate])
    async with ActorSystem(store, handlers=[], supervisors=[top], ask_timeout=7) as system:
        counter = system.aggregate(Counter, "a")
        assert [await counter.ask(Count()) for _ in range(2)] == [1, 2]
        keeper = await system.spawn(Keeper, gate)
        for _ in range(3):
            keeper.tell("hello")
        asking = keeper.ask("hello")
        await gate.entered.wait()
        (name,) = system.statistics().handlers
        now = inspect(system)
        assert (now.state, now.settings.ask_timeout) == ("running", 7)
        assert [(one.name, [child.name for child in one.specs]) for one in now.supervisors] == [
            ("handlers", []),
            ("top", [name]),
        ]
        assert (now.handlers[name].position, now.handlers[name].retries) == (0, ())
        assert now.aggregates.keys() == {StreamId("Counter", "a")}
        (instance,) = now.aggregates.values()
        assert isinstance(instance, Counter)
        assert (instance.count, now.commands) == (2, 0)
        assert now.actors[keeper.actor_urn] >= 3
        gate.opened.set()
        await asking
        await system.settled()
        then = inspect(system)
        assert (then.router_position, then.handlers[name].position) == (2, 2)
        assert then.actors[keeper.actor_urn] == 0
        keeper.stop(block=False)
        await until(lambda: keeper.actor_urn not in inspect(system).actors)
        assert now.actors[keeper.actor_urn] >= 3, "what was seen before stays as it was"
    assert [record.event_type for record in store.records] == ["PartCounted", "PartCounted"]


async def test_a_system_that_has_not_started_or_has_stopped_is_shown_too() -> None:
    system = ActorSystem(handlers=[])
    before = inspect(system)
    assert before == Inspection("not started", before.settings, before.supervisors)
    async with system:
        await system.aggregate(Counter, "a").ask(Count())
    after = inspect(system)
    assert (after.state, after.tasks, after.commands, after.actors) == ("stopped", 0, 0, {})
