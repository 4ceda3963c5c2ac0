"""The stock of one book."""

from pydantic import Field

from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, handles


class Deliver(Command[int]):  # the reply is how many are free
    copies: int = Field(gt=0)


class Reserve(Command[None]):
    order_id: str
    copies: int


class Release(Command[None]):
    order_id: str


class Delivered(DomainEvent):
    copies: int


class Reserved(DomainEvent):
    order_id: str
    copies: int


class Released(DomainEvent):
    order_id: str


class Stock(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.free = 0
        self.reserved: dict[str, int] = {}

    @handles
    def deliver(self, command: Deliver) -> int:
        self.register_event(Delivered(copies=command.copies))
        return self.free

    @handles
    def reserve(self, command: Reserve) -> None:
        if command.copies > self.free:
            raise CommandRejected(f"only {self.free} of {self.id} left")
        self.register_event(Reserved(order_id=command.order_id, copies=command.copies))

    @handles
    def release(self, command: Release) -> None:
        if command.order_id in self.reserved:
            self.register_event(Released(order_id=command.order_id))

    def apply_delivered(self, event: Delivered) -> None:
        self.free += event.copies

    def apply_reserved(self, event: Reserved) -> None:
        self.free -= event.copies
        self.reserved[event.order_id] = event.copies

    def apply_released(self, event: Released) -> None:
        self.free += self.reserved.pop(event.order_id)
