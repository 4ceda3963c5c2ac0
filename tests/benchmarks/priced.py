"""An aggregate with rules that take a third of a millisecond, as a price of many parts does."""

from uno_actors import AggregateRoot, Command, DomainEvent, handles

PARTS = 4_000


class Price(Command[int]):
    amount: int


class Priced(DomainEvent):
    price: int


class Offer(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.price = 0

    @handles
    def quote(self, command: Price) -> int:
        price = command.amount
        for part in range(PARTS):
            price = (price * 31 + part) % 1_000_003
        self.register_event(Priced(price=price))
        return self.price

    def apply_priced(self, event: Priced) -> None:
        self.price = event.price
