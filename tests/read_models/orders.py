"""A shop whose orders are listed in SQL tables, for the tests of read models."""

from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from uno_actors import DomainEvent
from uno_actors.read_models import SqlProjection, SyncSqlProjection


class OrderPlacedHere(DomainEvent):
    amount: int
    fails: bool = False


class OrderShippedHere(DomainEvent):
    pass


class Base(DeclarativeBase):
    """Of the shop's tables."""


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]
    shipped: Mapped[bool] = mapped_column(default=False)


class CannotCount(Exception):
    """The event says so."""


Events = OrderPlacedHere | OrderShippedHere


class Orders(SqlProjection[Events]):
    """With a model of SQLAlchemy. An order that is counted twice violates its primary key."""

    failing = True

    async def handle(self, event: Events, session: AsyncSession) -> None:
        match event:
            case OrderPlacedHere():
                session.add(Order(id=event.aggregate_id, amount=event.amount))
                await session.flush()
                if event.fails and self.failing:
                    raise CannotCount
            case OrderShippedHere():
                (await session.get_one(Order, event.aggregate_id)).shipped = True

    async def on_rebuild(self, session: AsyncSession) -> None:
        await session.execute(text("DELETE FROM orders"))


class PlainOrders(SyncSqlProjection[Events]):
    """The same on a worker thread."""

    failing = True

    def handle(self, event: Events, session: Session) -> None:
        match event:
            case OrderPlacedHere():
                session.add(Order(id=event.aggregate_id, amount=event.amount))
                session.flush()
                if event.fails and self.failing:
                    raise CannotCount
            case OrderShippedHere():
                session.get_one(Order, event.aggregate_id).shipped = True

    def on_rebuild(self, session: Session) -> None:
        session.execute(text("DELETE FROM orders"))


def placed(number: int, amount: int = 1, **fields: Any) -> OrderPlacedHere:
    return OrderPlacedHere(aggregate_id=f"order-{number}", aggregate_type="Order", amount=amount, **fields)


async def listed(engine: AsyncEngine) -> dict[str, int]:
    """The amount of each order in the table."""
    async with engine.connect() as connection:
        return {row.id: row.amount for row in await connection.execute(select(Order.id, Order.amount))}


async def has_listed(engine: AsyncEngine, orders: dict[str, int]) -> bool:
    """Whether the table has these orders and no others; for `tests.waiting.until`."""
    return await listed(engine) == orders
