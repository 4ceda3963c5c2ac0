"""What follows from the log: a list of orders in SQL, mail to customers, and webhooks to a partner."""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, TextIO

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from typing_extensions import override

from shop.orders import OrderCancelled, OrderConfirmed, OrderPaid, OrderPlaced
from uno_actors import Depends, subscribe
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.outside import Webhook, forward
from uno_actors.read_models import SqlProjection, create_schema


class Base(DeclarativeBase):
    pass


class ListedOrder(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    book: Mapped[str]
    state: Mapped[str]


async def sessions() -> AsyncIterator[Callable[[], AsyncSession]]:
    """Sessions on the database of the shop, whose tables are made where they are missing."""
    engine = create_async_engine(os.environ.get("SHOP_DATABASE", "sqlite+aiosqlite:///orders.db"))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await create_schema(engine)
    yield async_sessionmaker(engine)
    await engine.dispose()


MailedEvent = OrderPlaced | OrderPaid | OrderCancelled
OrderEvent = MailedEvent | OrderConfirmed
TEXTS = {"OrderPlaced": "Thank you for", "OrderPaid": "You have paid", "OrderCancelled": "We have cancelled"}


@subscribe(name="orders")
class Orders(SqlProjection[OrderEvent]):
    """The list of orders: each event is counted once, since it and the progress are one transaction."""

    session_factory: Annotated[Callable[[], AsyncSession], Depends(sessions, scope="system")]

    @override
    async def handle(self, event: OrderEvent, session: AsyncSession) -> None:
        state = event.topic.removeprefix("orders.")
        if isinstance(event, OrderPlaced):
            session.add(ListedOrder(id=event.aggregate_id, book=event.book, state=state))
        else:
            order = await session.get_one(ListedOrder, event.aggregate_id)
            order.state = f"{state}: {event.reason}" if isinstance(event, OrderCancelled) else state


def outbox() -> Iterator[TextIO]:
    """The outbox of a mail server, a file. It is open as long as the handler runs."""
    with Path(os.environ.get("SHOP_OUTBOX", "outbox.jsonl")).open("a", encoding="utf-8") as file:
        yield file


@subscribe(name="mail", start="earliest")
def send_mail(event: MailedEvent, outbox: Annotated[TextIO, Depends(outbox)]) -> None:
    """Write to the customer; the mail server recognises by the id what is written twice after a crash."""
    text = f"{TEXTS[event.event_type]} order {event.aggregate_id}"
    outbox.write(json.dumps({"id": event.event_id, "to": event.email, "text": text}) + "\n")
    outbox.flush()


def to_partner(url: str, secret: str) -> HandlerSpec:
    """Each event of an order, signed, to a partner in our network. The log is its outbox."""
    return forward("orders.>", to=Webhook(url, secret, internal=True), name="partner", start="earliest")
