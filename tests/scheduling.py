"""Orders whose payment has a deadline, for tests of commands that are sent later."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from uno_actors import ActorSystem, AggregateRoot, Command, CommandRejected, DomainEvent, handles
from uno_actors.store.port import EventStore
from uno_actors.testing import ManualClock


class CancelLater(Command[str]):
    minutes: float = 15
    key: str | None = "payment"
    note: str = ""


class PayLater(Command): ...


class CancelNow(Command):
    note: str = ""


class CancelledNow(DomainEvent):
    note: str = ""


class Deadline(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.notes: list[str] = []

    @handles
    def place(self, command: CancelLater) -> str:
        return self.schedule(
            CancelNow(note=command.note), after=timedelta(minutes=command.minutes), key=command.key
        )

    @handles
    def pay(self, command: PayLater) -> None:
        self.unschedule("payment")

    @handles
    def cancel(self, command: CancelNow) -> None:
        if command.note == "rejected":
            raise CommandRejected("it is paid")
        self.register_event(CancelledNow(note=command.note))

    def apply_cancelled_now(self, event: CancelledNow) -> None:
        self.notes.append(event.note)


@asynccontextmanager
async def running(
    store: EventStore | str, clock: ManualClock, scheduler: bool | None = None
) -> AsyncIterator[ActorSystem]:
    async with ActorSystem(
        store, aggregates=[Deadline], handlers=[], clock=clock, scheduler=scheduler
    ) as system:
        yield system


async def later(system: ActorSystem, clock: ManualClock, time: timedelta) -> None:
    """Let time pass and wait until what is due was sent."""
    await system.settled()
    clock.leap(time)
    await system.settled()


async def sent(store: EventStore) -> list[tuple[str, str]]:
    """Aggregate and note of each command that took effect, in order."""
    return [
        (event.aggregate_id or "", event.note) async for _, event in store.read_all(event_type=CancelledNow)
    ]


async def count(store: EventStore, event_type: str) -> int:
    return [record.event_type async for _, record in store.read_records()].count(event_type)
