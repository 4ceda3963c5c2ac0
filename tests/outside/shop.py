"""The events that the tests of the world outside forward."""

from typing import Any

from uno_actors import DomainEvent


class OrderSent(DomainEvent):
    total: int
    topic: str = "orders.sent"


class OrderEnded(DomainEvent):
    topic: str = "orders.ended"


def sent(order: int, total: int = 1, **fields: Any) -> OrderSent:
    return OrderSent(aggregate_id=f"order-{order}", aggregate_type="Order", total=total, **fields)


def ended(order: int) -> OrderEnded:
    return OrderEnded(aggregate_id=f"order-{order}", aggregate_type="Order")
