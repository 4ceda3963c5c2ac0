"""What must be so in the shop, whatever happens to its machines: ``uno-actors simulate shop.scenarios:orders``."""

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

from shop.checkout import PAYMENT, Checkout
from shop.handlers import outbox, send_mail
from shop.orders import CancelOrder, Order, OrderCancelled, OrderPaid, OrderPlaced, PayOrder, PlaceOrder
from shop.stock import Deliver, Stock
from uno_actors import ActorSystem, CommandRejected
from uno_actors.testing.simulation import InvariantBroken, Node, World

COPIES = 4
"""Fewer than are ordered."""


async def orders(world: World) -> None:
    """Customers order more books than there are; some pay soon, some at the last second, some never."""
    mail_server = io.StringIO()

    def mail() -> Iterator[TextIO]:
        yield mail_server

    def make_system(node: Node) -> ActorSystem:
        # The list of orders in SQL is not here: its driver has threads.
        return ActorSystem(
            node.store,
            name="shop",
            aggregates=[Order, Stock, Checkout],
            handlers=[Checkout.handler(start="earliest", max_attempts=100), send_mail],
            dependency_overrides={outbox: mail},
        )

    await world.node("shop", make_system)
    await world.ask(Stock, "dune", Deliver(copies=COPIES))
    placed: list[str] = []

    async def customer(name: str) -> None:
        for number in world.commands(3):
            order = f"{name}-{number}"
            await world.ask(
                Order, order, PlaceOrder(book="dune", copies=1, email=f"{name}@example.com", command_id=order)
            )
            placed.append(order)
            await asyncio.sleep(world.chance.random() * 0.2)
            await act(world, order, ("pay", "cancel", "wait", "wait"))

    await asyncio.gather(customer("ann"), customer("ben"))
    world.jump(PAYMENT.total_seconds() - 2)

    async def at_the_last_second(order: str) -> None:
        await asyncio.sleep(world.chance.random() * 4)
        await act(world, order, ("pay", "pay", "wait"))

    await asyncio.gather(*(at_the_last_second(order) for order in placed))
    await world.settled()
    # For what was confirmed late. The clock of the shop may be minutes off, and run slow.
    world.jump(PAYMENT.total_seconds() * 1.02)
    await asyncio.sleep(40)
    await world.settled()
    await world.check(every_order_ends)
    await world.check(no_book_appears_or_disappears)
    mailed = {json.loads(line)["id"] for line in mail_server.getvalue().splitlines()}
    for event in world.log():
        if isinstance(event, OrderPlaced | OrderPaid | OrderCancelled) and event.event_id not in mailed:
            raise InvariantBroken(
                "every customer gets a mail", f"none about {event.topic} {event.aggregate_id}"
            )


async def act(world: World, order: str, choices: tuple[str, ...]) -> None:
    """A customer pays or cancels, if it is not too early or too late for that."""
    with suppress(CommandRejected):
        match world.chance.choice(choices):
            case "pay":
                await world.ask(Order, order, PayOrder())
            case "cancel":
                await world.ask(Order, order, CancelOrder())


def every_order_ends(world: World) -> None:
    """Each order is paid or cancelled, and none is both."""
    ends: dict[str | None, list[str]] = {}
    for event in world.log():
        if isinstance(event, OrderPlaced):
            ends[event.aggregate_id] = []
        elif isinstance(event, OrderPaid | OrderCancelled):
            ends[event.aggregate_id].append(event.topic)
    for order, found in ends.items():
        if len(found) != 1:
            raise InvariantBroken("every order ends once", f"{order}: {', '.join(found) or 'is still open'}")


def no_book_appears_or_disappears(world: World) -> None:
    """What is not paid is in stock again."""
    events = world.log()
    stock = Stock("dune").replay(event for event in events if event.aggregate_type == "Stock")
    sold = sum(isinstance(event, OrderPaid) for event in events)
    if stock.free + sold != COPIES:
        raise InvariantBroken(
            "no book appears or disappears", f"{stock.free} in stock, {sold} sold, of {COPIES} delivered"
        )
