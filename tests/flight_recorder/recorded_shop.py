"""A program whose recording becomes a scenario; also imported by the file that is made."""

from decimal import Decimal

from uno_actors import ActorSystem, AggregateRoot, Command, CommandRejected, DomainEvent, handles, subscribe
from uno_actors.testing.simulation import Node


class Bought(DomainEvent):
    item: str
    price: Decimal
    note: str = ""


class Buy(Command[int]):
    item: str
    price: Decimal
    note: str = ""


class Rewarded(DomainEvent):
    points: int


class Reward(Command[None]):
    points: int


class Doubled(Command[None]):
    """Its field is in no event."""

    half: int


class RecordedBasket(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.items = 0

    @handles
    def buy(self, command: Buy) -> int:
        if self.items >= 100:
            raise CommandRejected("the basket is full")
        self.register_event(Bought(item=command.item, price=command.price, note=command.note))
        return self.items

    @handles
    def reward(self, command: Reward) -> None:
        self.register_event(Rewarded(points=command.points))

    @handles
    def double(self, command: Doubled) -> None:
        self.register_event(Rewarded(points=command.half * 2))

    def apply_bought(self, event: Bought) -> None:
        self.items += 1

    def apply_rewarded(self, event: Rewarded) -> None: ...


@subscribe(Bought, name="recorded-rewards", start="earliest")
async def rewards(event: Bought, context) -> None:  # type: ignore[no-untyped-def]
    command = Reward(points=1, command_id=f"reward-{event.event_id}")
    await context.system.aggregate(RecordedBasket, f"points of {event.aggregate_id}").ask(command)


def make_system(node: Node) -> ActorSystem:
    return ActorSystem(node.store, aggregates=[RecordedBasket], handlers=[rewards], name=node.name)
