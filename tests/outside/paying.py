"""What the tests of the way in make of foreign messages."""

from typing import Any

from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, handles
from uno_actors.outside import Message, Send


class PaymentSeen(DomainEvent):
    order: str
    amount: int
    topic: str = "payments.seen"


class BillPaid(DomainEvent):
    amount: int


class PayHere(Command[int]):
    amount: int


class PaidOrder(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.paid = 0

    @handles
    def pay(self, command: PayHere) -> int:
        if command.amount <= 0:
            raise CommandRejected("amount must be positive")
        self.register_event(BillPaid(amount=command.amount))
        return self.paid

    def apply_bill_paid(self, event: BillPaid) -> None:
        self.paid += event.amount


def pay(message: Message) -> Send:
    fields: Any = message.data
    return Send(PaidOrder, fields["order"], PayHere(amount=fields["amount"]))
