"""The account of all measurements."""

from uno_actors import (
    AggregateRoot,
    Command,
    DomainEvent,
    handles,
)


class Deposit(Command[int]):
    amount: int


class Look(Command[int]):
    """A query: it activates an aggregate and records nothing."""


class Deposited(DomainEvent):
    amount: int
    topic: str | None = "accounts.deposited"


class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.balance = 0

    @handles
    def deposit(self, command: Deposit) -> int:
        self.register_event(Deposited(amount=command.amount))
        return self.balance

    def apply_deposited(self, event: Deposited) -> None:
        self.balance += event.amount


class Seen(Account):
    """The account with a query."""

    aggregate_type = "Account"

    @handles
    def look(self, command: Look) -> int:
        return self.balance
