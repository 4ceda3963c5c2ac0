"""An order: placed, confirmed when its book is reserved, then paid, or cancelled."""

from pydantic import Field

from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, handles


class PlaceOrder(Command[None]):
    book: str = Field(pattern=r"^[a-z-]{1,40}$")
    copies: int = Field(gt=0, le=100)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")


class ConfirmOrder(Command[None]): ...


class PayOrder(Command[None]): ...


class CancelOrder(Command[None]):
    reason: str = "as the customer wishes"


class OrderPlaced(DomainEvent):
    topic: str = "orders.placed"
    book: str
    copies: int
    email: str


class OrderConfirmed(DomainEvent):
    topic: str = "orders.confirmed"


class OrderPaid(DomainEvent):
    topic: str = "orders.paid"
    email: str


class OrderCancelled(DomainEvent):
    topic: str = "orders.cancelled"
    email: str
    reason: str


class Order(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.state = "new"
        self.email = ""

    @handles
    def place(self, command: PlaceOrder) -> None:
        if self.state != "new":
            raise CommandRejected(f"order {self.id} was placed before")
        self.register_event(OrderPlaced(book=command.book, copies=command.copies, email=command.email))

    @handles
    def confirm(self, command: ConfirmOrder) -> None:
        if self.state == "placed":  # the customer may have cancelled it
            self.register_event(OrderConfirmed())

    @handles
    def pay(self, command: PayOrder) -> None:
        if self.state != "confirmed":  # there may be no book for it
            raise CommandRejected(f"order {self.id} is {self.state}, so it cannot be paid")
        self.register_event(OrderPaid(email=self.email))

    @handles
    def cancel(self, command: CancelOrder) -> None:
        if self.state == "paid":  # at the last moment: the deadline has become void
            raise CommandRejected(f"order {self.id} is paid")
        if self.state in ("placed", "confirmed"):
            self.register_event(OrderCancelled(email=self.email, reason=command.reason))

    def apply_order_placed(self, event: OrderPlaced) -> None:
        self.state, self.email = "placed", event.email

    def apply_order_confirmed(self, event: OrderConfirmed) -> None:
        self.state = "confirmed"

    def apply_order_paid(self, event: OrderPaid) -> None:
        self.state = "paid"

    def apply_order_cancelled(self, event: OrderCancelled) -> None:
        self.state = "cancelled"
