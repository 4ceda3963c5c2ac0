"""Deadlines of processes: a command to itself that is due, unless it was unscheduled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.new_stores import new_store_url
from uno_actors import ActorSystem, AggregateRoot, Command, DomainEvent, ProcessManager, handles, reacts
from uno_actors.testing import ManualClock


class RoomAsked(DomainEvent):
    room: str


class DepositCame(DomainEvent):
    room: str


class DepositMissed(DomainEvent):
    pass


class RoomGiven(DomainEvent):
    pass


class GiveRoom(Command[None]):
    pass


class DepositIsDue(Command[None]):
    pass


class Room(AggregateRoot):
    @handles
    def give(self, command: GiveRoom) -> None:
        self.register_event(RoomGiven())

    def apply_room_given(self, event: RoomGiven) -> None: ...


class Booking(ProcessManager):
    sends_to = (Room,)

    @reacts(starts=True, by="room")
    def ask(self, event: RoomAsked) -> None:
        self.schedule(DepositIsDue(), after=timedelta(days=3), key="deposit")

    @reacts(by="room")
    def paid(self, event: DepositCame) -> None:
        self.unschedule("deposit")
        self.end()

    @handles
    def miss(self, command: DepositIsDue) -> None:
        if not self.has_ended:
            self.register_event(DepositMissed())

    @reacts(by="aggregate_id")
    def give_room(self, event: DepositMissed) -> None:
        self.send(Room, self.id, GiveRoom())
        self.end()

    def apply_deposit_missed(self, event: DepositMissed) -> None: ...


@asynccontextmanager
async def hotel(url: str, clock: ManualClock) -> AsyncIterator[ActorSystem]:
    handler = Booking.handler(start="earliest")
    async with ActorSystem(url, aggregates=[Room, Booking], handlers=[handler], clock=clock) as system:
        yield system


async def given_rooms(system: ActorSystem) -> list[str]:
    return [event.aggregate_id or "" async for _, event in system.store.read_all(event_type=RoomGiven)]


@pytest.mark.parametrize("engine", ["lmdb", "sqlite", "postgres"])
async def test_a_deadline_that_passes_while_the_program_is_down_is_met_by_the_next_one(
    engine: str, tmp_path: Path
) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    url = await new_store_url(engine, tmp_path)
    async with hotel(url, clock) as system:
        await system.publisher.publish(*(RoomAsked(room=room) for room in ("1", "2", "3")))
        await system.publisher.publish(DepositCame(room="2"))
        await system.settled()
        clock.leap(timedelta(days=2))
        await system.settled()
        assert await given_rooms(system) == []
    clock.leap(timedelta(days=2))
    async with hotel(url, clock) as system:
        await system.settled()
        assert sorted(await given_rooms(system)) == ["1", "3"]
        await system.publisher.publish(DepositCame(room="1"))
        await system.settled()
        assert await system.store.dead_letters() == []
        assert await system.schedules() == []
        missed = [event async for _, event in system.store.read_all(event_type=DepositMissed)]
        assert len(missed) == 2
