"""The shop over HTTP: ``uvicorn shop.service:app``.

SHOP_STORE is the URL of the log, ``lmdb:data`` by default; SHOP_DATABASE that of the SQL database with the list of
orders. With SHOP_HOOK and SHOP_HOOK_SECRET a partner gets each event of an order.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shop.checkout import Checkout
from shop.handlers import ListedOrder, Orders, send_mail, sessions, to_partner
from shop.orders import CancelOrder, Order, PayOrder, PlaceOrder
from shop.stock import Deliver, Stock
from uno_actors import ActorSystem, AggregateRef
from uno_actors.clock import Clock
from uno_actors.fastapi import (
    add_page,
    add_probes,
    add_problem_details,
    aggregate,
    command,
    lifespan,
    wait_for,
)


def make_system(clock: Clock | None = None) -> ActorSystem:
    """The shop, which a test may give a clock of its own."""
    url = os.environ.get("SHOP_HOOK")
    partner = [to_partner(url, os.environ["SHOP_HOOK_SECRET"])] if url else []
    return ActorSystem(
        os.environ.get("SHOP_STORE", "lmdb:data"),
        name="shop",
        aggregates=[Order, Stock, Checkout],
        handlers=[Checkout.handler(start="earliest"), Orders, send_mail, *partner],
        clock=clock,
    )


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """The system, and the sessions of the service itself."""
    async with asynccontextmanager(sessions)() as make, lifespan(make_system)(app) as state:
        yield {**state, "sessions": make}


app = FastAPI(title="A shop", lifespan=running)
add_problem_details(app)
add_probes(app)  # /livez and /readyz
add_page(app)  # /ops

AnOrder = Annotated[AggregateRef, aggregate(Order)]
AStock = Annotated[AggregateRef, aggregate(Stock)]
KnownOrder = Annotated[AggregateRef, aggregate(Order, must_exist=True)]


async def session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.sessions() as opened:
        yield opened


@app.put("/stock/{id}")
async def deliver(stock: AStock, delivery: Annotated[Deliver, command(Deliver)]) -> int:
    return await stock.ask(delivery)


@app.put("/orders/{id}", status_code=202)
async def place(order: AnOrder, placing: Annotated[PlaceOrder, command(PlaceOrder)]) -> None:
    await order.ask(placing)


@app.post("/orders/{id}/payment", status_code=202)
async def pay(order: KnownOrder, payment: Annotated[PayOrder, command(PayOrder)]) -> None:
    await order.ask(payment)


@app.post("/orders/{id}/cancellation", status_code=202)
async def cancel(order: KnownOrder, cancellation: Annotated[CancelOrder, command(CancelOrder)]) -> None:
    await order.ask(cancellation)


@app.get("/orders", dependencies=[wait_for(Orders)])
async def list_orders(session: Annotated[AsyncSession, Depends(session)]) -> dict[str, str]:
    """The orders by id, with their states; a client that sends ``Uno-Position`` sees what it has written."""
    return {order.id: order.state for order in await session.scalars(select(ListedOrder))}
