"""Deadlines of processes: a command to itself that is due, unless it was unscheduled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.new_stores import new_store_url
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    ProcessManager,
    Scheduled,
    Unscheduled,
    handles,
    reacts,
)
from uno_actors.testing import ManualClock, given


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


# --- the end of a process ---


class WatchBegan(DomainEvent):
    watch: str


class WatchLeft(DomainEvent):
    watch: str


class BellRang(DomainEvent):
    what: str


class Ring(Command[None]):
    what: str


class Watch(ProcessManager):
    """Rings at times of its own, and rings the bell of another aggregate."""

    sends_to = (Room,)

    @reacts(starts=True, by="watch")
    def begin(self, event: WatchBegan) -> None:
        self.schedule(Ring(what="once"), after=timedelta(days=1), key="once")
        self.schedule(Ring(what="soon"), after=timedelta(days=2), key="soon")
        self.schedule(Ring(what="hourly"), every="0 * * * *", key="hourly")
        self.schedule(GiveRoom(), to=(Room, self.id), after=timedelta(days=1), key="room")

    @reacts(by="watch")
    def leave(self, event: WatchLeft) -> None:
        self.end()

    @handles
    def ring(self, command: Ring) -> None:
        self.register_event(BellRang(what=command.what))
        if command.what == "soon":
            self.end()

    def apply_bell_rang(self, event: BellRang) -> None: ...


@asynccontextmanager
async def watching(clock: ManualClock) -> AsyncIterator[ActorSystem]:
    handler = Watch.handler(start="earliest")
    async with ActorSystem("memory:", aggregates=[Room, Watch], handlers=[handler], clock=clock) as system:
        yield system


async def rung(system: ActorSystem) -> set[str]:
    return {event.what async for _, event in system.store.read_all(event_type=BellRang)}


async def unscheduled(system: ActorSystem) -> list[str]:
    return [event.key async for _, event in system.store.read_all(event_type=Unscheduled)]


async def test_the_end_of_a_process_ends_its_deadlines_and_no_command_to_another_aggregate() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    async with watching(clock) as system:
        await system.publisher.publish(WatchBegan(watch="w"), WatchLeft(watch="w"))
        await system.settled()
        assert [entry.key for entry in await system.schedules()] == ["room"]
        clock.leap(timedelta(days=31))
        await system.settled()
        assert await rung(system) == set()
        assert await given_rooms(system) == ["w"]


async def test_a_process_that_ends_at_its_deadline_unschedules_the_others_alone() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    async with watching(clock) as system:
        await system.publisher.publish(WatchBegan(watch="w"))
        await system.settled()
        clock.leap(timedelta(days=2, hours=1))
        await system.settled()
        assert await rung(system) == {"once", "soon", "hourly"}
        assert await unscheduled(system) == ["once", "hourly"]  # that "once" has come is not recorded
        clock.leap(timedelta(days=31))
        await system.settled()
        assert await system.schedules() == []
        assert await system.store.dead_letters() == []


async def test_a_deadline_that_is_due_at_the_moment_of_the_end_does_nothing() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    async with watching(clock) as system:
        for again in range(2):  # the second time it has started anew
            await system.publisher.publish(WatchBegan(watch="w"), WatchLeft(watch="w"))
            await system.settled()
            ids = [event.event_id async for _, event in system.store.read_all(event_type=Scheduled)]
            for late in ids[4 * again : 4 * again + 3]:
                ring = Ring(what="late", command_id=f"{late}.20260101T000000000000")
                await system.aggregate(Watch, "w").ask(ring)
            assert await rung(system) == set()
        await system.publisher.publish(WatchBegan(watch="w"))
        await system.settled()
        await system.aggregate(Watch, "w").ask(
            Ring(what="late", command_id=f"{ids[4]}.20260101T000000000001")
        )
        assert await rung(system) == set()
        await system.aggregate(Watch, "w").ask(Ring(what="by hand"))
        assert await rung(system) == {"by hand"}


def test_deadlines_are_kept_in_snapshots_and_earlier_snapshots_have_none() -> None:
    fresh = Watch("w").to_snapshot()
    assert not fresh.keys() & {"_deadlines", "_late", "_ended"}
    left = given(Watch, WatchBegan(watch="w")).when(WatchLeft(watch="w")).ends().aggregate
    snapshot = left.to_snapshot()
    copy = Watch("w")
    copy.from_snapshot(snapshot)
    for late in snapshot["_late"]:
        copy.handle(Ring(what="late", command_id=f"{late}.20260101T000000000000"))
    assert len(snapshot["_late"]) == 3
    assert copy.pending_events == ()
    copy.from_snapshot(fresh)
    assert copy.to_snapshot() == fresh
