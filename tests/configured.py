"""The objects that the configuration files of tests name."""

import asyncio
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pykka
from typing_extensions import override

from uno_actors import Actor, AggregateRoot, DomainEvent, EventHandler, EventPriority, handles, subscribe
from uno_actors.domain.commands import Command


class Sell(Command[int]):
    price: int = 1


class Sold(DomainEvent):
    price: int
    topic: str = "shop.sold"


class Shop(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.takings = 0

    @handles
    def sell(self, command: Sell) -> int:
        self.register_event(Sold(price=command.price))
        return self.takings

    def apply_sold(self, event: Sold) -> None:
        self.takings += event.price


class Warehouse(AggregateRoot):
    pass


handled: list[tuple[str, int]] = []
"""The events that each handler was given, by handler."""


def mail(event: DomainEvent) -> None:
    handled.append(("mail", event.aggregate_version or 0))


@subscribe(
    topic_pattern="shop.*", name="audit", priority=EventPriority.HIGH, max_attempts=3, start="earliest"
)
async def audit(event: DomainEvent) -> None:
    handled.append(("audit", event.aggregate_version or 0))


class Counter(EventHandler[Sold]):
    @override
    def handle(self, event: Sold) -> None:
        handled.append(("counter", event.price))


class Clerk(Actor):
    def __init__(self, greeting: str = "hello", times: int = 1) -> None:
        super().__init__()
        self.greeting = greeting
        self.times = times

    @override
    async def on_receive(self, message: Any) -> str:
        return " ".join([self.greeting] * self.times)


class Machine(Actor):
    """Takes any arguments, and works on its own thread too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    @override
    def on_receive(self, message: Any) -> None:
        return None


class Abstract(AggregateRoot, ABC):
    @abstractmethod
    def settle(self) -> None: ...


class Demanding(AggregateRoot):
    def __init__(self, id: str, rate: float) -> None:
        super().__init__(id)


class Unfinished(EventHandler[Sold]):
    def __init__(self, server: str) -> None:
        super().__init__(Sold)


class Threaded(pykka.ThreadingActor):
    pass


counter = Counter()
number = 7


# --- for services that are run as processes of their own ---


def note(event: Sold) -> None:
    """Take some time, then write a line."""
    time.sleep(float(os.environ.get("SECONDS_EACH", "0")))
    with Path(os.environ["NOTES"]).open("a", encoding="utf-8") as notes:
        notes.write(f"{event.price}\n")


if "IMPORT_MARK" in os.environ:  # it takes as long as the file is there
    Path(os.environ["IMPORT_MARK"]).touch()
    while Path(os.environ["IMPORT_MARK"]).exists():
        time.sleep(0.01)


def get_stuck(event: Sold) -> None:
    """Never return."""
    note(event)
    time.sleep(3600)


def fail(event: Sold) -> None:
    raise ValueError(f"{event.price} is too much")


class Unmakable(EventHandler[Sold]):
    def __init__(self) -> None:
        super().__init__(Sold)
        raise OSError("no mail server")


class SlowToStart(Actor):
    @override
    async def on_start(self) -> None:
        note(Sold(price=1))
        await asyncio.sleep(3600)
