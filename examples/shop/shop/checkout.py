"""The checkout: reserves the book, confirms the order, waits for the payment, or puts the book back."""

from datetime import timedelta

from shop.orders import CancelOrder, ConfirmOrder, Order, OrderCancelled, OrderPaid, OrderPlaced
from shop.stock import Release, Reserve, Reserved, Stock
from uno_actors import DomainEvent, ProcessManager, Refusal, reacts

PAYMENT = timedelta(days=3)


class CheckoutBegun(DomainEvent):
    book: str


class Checkout(ProcessManager):
    """One for each order, with the order's id."""

    sends_to = (Stock, Order)

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.book = ""

    @reacts(starts=True, by="aggregate_id")
    def begin(self, event: OrderPlaced) -> None:
        self.register_event(CheckoutBegun(book=event.book))
        self.send(Stock, event.book, Reserve(order_id=self.id, copies=event.copies))

    @reacts(by="order_id")
    def wait(self, event: Reserved) -> None:
        self.send(Order, self.id, ConfirmOrder())
        self.schedule(CancelOrder(reason="not paid"), to=(Order, self.id), after=PAYMENT, key="payment")

    @reacts
    def give_up(self, refusal: Refusal[Reserve]) -> None:
        self.send(Order, self.id, CancelOrder(reason=refusal.reason))

    @reacts(by="aggregate_id")
    def finish(self, event: OrderPaid) -> None:
        self.unschedule("payment")
        self.end()

    @reacts(by="aggregate_id")
    def undo(self, event: OrderCancelled) -> None:
        self.unschedule("payment")
        self.send(Stock, self.book, Release(order_id=self.id))
        self.end()

    def apply_checkout_begun(self, event: CheckoutBegun) -> None:
        self.book = event.book
