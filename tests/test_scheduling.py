"""Commands that are scheduled are sent when they are due: once each, whatever happens in between."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.new_stores import new_store_url
from tests.scheduling import (
    CancelLater,
    CancelledNow,
    CancelNow,
    Deadline,
    PayLater,
    count,
    later,
    running,
    sent,
)
from tests.waiting import until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    EventRegistry,
    EventSourcedRepository,
    Fired,
    InvalidSchedule,
    ScheduleControl,
    ScheduleInfo,
    UnknownSchedule,
    handles,
    open_store,
)
from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.domain.schedules import scheduled
from uno_actors.scheduling.due_list import AHEAD, AT_ONCE
from uno_actors.scheduling.entries import LATE, due_step
from uno_actors.store.records import DeadLetter
from uno_actors.testing import ManualClock, failing
from uno_stores.memory import InMemoryEventStore

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=31)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NEW_YEAR)


@pytest.mark.parametrize("engine", ["memory", "lmdb", "sqlite", "postgres"])
async def test_a_command_is_sent_once_when_it_is_due_and_a_month_passes_at_once(
    engine: str, tmp_path: Path, clock: ManualClock
) -> None:
    url = "memory:" if engine == "memory" else await new_store_url(engine, tmp_path)
    async with running(url, clock) as system:
        for number in range(3):
            ask = system.aggregate(Deadline, f"o-{number}").ask
            await ask(CancelLater(minutes=60 * 24 * 30 + number, note=str(number)))
        await later(system, clock, timedelta(days=29))
        assert await sent(system.store) == []
        assert [entry.owner_id for entry in await system.schedules()] == ["o-0", "o-1", "o-2"]
        await later(system, clock, timedelta(days=1, minutes=1))
        assert sorted(await sent(system.store)) == [("o-0", "0"), ("o-1", "1")]
        await later(system, clock, MONTH)
        assert sorted(await sent(system.store)) == [("o-0", "0"), ("o-1", "1"), ("o-2", "2")]
        assert await system.schedules() == []
        statistics = system.statistics().scheduler
        assert (statistics.fired, statistics.sent, statistics.failed, statistics.waiting) == (3, 3, 0, 0)


@pytest.mark.parametrize("operation", ["checkpoints", "drop_view", "last_position"])
async def test_a_scheduler_that_could_not_start_starts_when_the_store_works_again(
    operation: str, clock: ManualClock
) -> None:
    async with running("memory:", clock) as system:
        with failing(system.store, operation) as faults:
            await system.aggregate(Deadline, "o-1").ask(CancelLater(minutes=10, note="late"))

            def has_tried_again() -> bool:
                clock.advance(1)
                return faults.hits >= 2

            await until(has_tried_again)

        def has_started() -> bool:
            clock.advance(1)
            return system.statistics().scheduler.waiting == 1

        await until(has_started)
        await later(system, clock, timedelta(minutes=10))
        assert await sent(system.store) == [("o-1", "late")]


async def test_a_command_that_is_unscheduled_or_replaced_is_not_sent(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        await system.aggregate(Deadline, "paid").ask(CancelLater(note="no"))
        await system.aggregate(Deadline, "replaced").ask(CancelLater(note="no"))
        await system.aggregate(Deadline, "paid").ask(PayLater())
        await system.aggregate(Deadline, "replaced").ask(CancelLater(minutes=60, note="yes"))
        await later(system, clock, timedelta(minutes=30))
        assert await sent(system.store) == []
        await later(system, clock, MONTH)
        assert await sent(system.store) == [("replaced", "yes")]


async def test_keys_are_those_of_one_aggregate(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater())
        await system.aggregate(Deadline, "b").ask(CancelLater())
        await system.schedule(CancelNow(note="outside"), to=(Deadline, "c"), after=1, key="payment")
        await system.aggregate(Deadline, "a").ask(PayLater())
        await later(system, clock, MONTH)
        assert sorted(await sent(system.store)) == [("b", ""), ("c", "outside")]


async def test_what_one_program_has_scheduled_another_sends(tmp_path: Path, clock: ManualClock) -> None:
    url = await new_store_url("lmdb", tmp_path)
    async with running(url, clock, scheduler=False) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater())
        await later(system, clock, MONTH)
        assert await sent(system.store) == []
        assert "uno_actors.scheduler" not in system.statistics().handlers
    async with running(url, clock) as system:
        await later(system, clock, timedelta())
        assert await sent(system.store) == [("a", "")]


async def test_what_a_script_saves_without_a_system_is_sent_by_the_next_system(
    tmp_path: Path, clock: ManualClock
) -> None:
    url = await new_store_url("lmdb", tmp_path)
    async with open_store(url) as store:
        order = Deadline("a")
        order.handle(CancelLater())
        await EventSourcedRepository(Deadline, store).save(order)
    clock.leap(100 * 366 * 86400)
    async with running(url, clock) as system:
        await system.settled()
        assert await sent(system.store) == [("a", "")]


async def test_a_running_system_notices_that_another_has_begun_to_schedule(
    tmp_path: Path, clock: ManualClock
) -> None:
    url = await new_store_url("sqlite", tmp_path)
    async with running(url, clock) as system:
        async with running(url, clock, scheduler=False) as other:
            await other.aggregate(Deadline, "a").ask(CancelLater())
        clock.leap(MONTH)
        while "uno_actors.scheduler" not in system.statistics().handlers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await system.settled()
        assert await sent(system.store) == [("a", "")]


async def test_a_store_without_schedules_gets_no_handlers_for_them(
    tmp_path: Path, clock: ManualClock
) -> None:
    url = await new_store_url("lmdb", tmp_path)
    async with running(url, clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelNow())
        assert system.statistics().handlers == {}
        assert await system.store.checkpoints() == {}
    async with running(url, clock, scheduler=True) as system:
        assert set(system.statistics().handlers) == {"uno_actors.schedules", "uno_actors.scheduler"}


async def test_one_of_two_systems_sends_and_the_other_takes_over(tmp_path: Path, clock: ManualClock) -> None:
    url = await new_store_url("sqlite", tmp_path)
    async with running(url, clock) as second:
        async with running(url, clock, scheduler=True) as first:
            await first.aggregate(Deadline, "a").ask(CancelLater())
            await first.aggregate(Deadline, "b").ask(CancelLater(minutes=60 * 24 * 60))
            clock.leap(MONTH)  # the second one notices, too
            await first.settled()
            await second.settled()
            assert first.statistics().scheduler.sent == 1
        clock.leap(MONTH)
        while second.statistics().scheduler.sent == 0:
            clock.advance(1)
            await asyncio.sleep(0.01)
        assert sorted(await sent(second.store)) == [("a", ""), ("b", "")]


async def test_the_list_is_built_again_without_sending_again(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater())
        await system.aggregate(Deadline, "b").ask(CancelLater(minutes=60 * 24 * 60))
        await later(system, clock, MONTH)
        before = await system.schedules()
        await system.reset("uno_actors.schedules", "earliest")
        await later(system, clock, timedelta())
        assert await system.schedules() == before
        assert len(before) == 1
        await system.reset("uno_actors.scheduler", "earliest")
        await system.settled()
        assert await sent(system.store) == [("a", "")]
        assert await count(system.store, "uno_actors.Fired") == 1


async def test_a_command_that_was_sent_belongs_to_the_chain_of_the_one_that_scheduled_it(
    clock: ManualClock,
) -> None:
    async with running("memory:", clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater(correlation_id="chain"))
        await later(system, clock, MONTH)
        events = [event async for _, event in system.store.read_all()]
        assert {event.correlation_id for event in events} == {"chain"}
        scheduled, fired, cancelled = events
        assert isinstance(fired, Fired)
        assert fired.causation_id == scheduled.event_id
        assert cancelled.causation_id == fired.command_id


# --- from outside -------------------------------------------------------------------------------------------


async def test_a_program_schedules_and_unschedules(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        await system.schedule(
            CancelNow(note="1"), to=(Deadline, "a"), at=NEW_YEAR + timedelta(days=1), key="one"
        )
        await system.schedule(CancelNow(note="2"), to=(Deadline, "a"), after=60, key="two")
        key = await system.schedule(CancelNow(note="3"), to=(Deadline, "a"), after=60)
        await system.unschedule("two")
        await system.unschedule("unknown")
        await system.settled()
        assert [entry.key for entry in await system.schedules()] == [key, "one"]
        assert [entry.owner_type for entry in await system.schedules()] == [None, None]
        await later(system, clock, MONTH)
        assert sorted(await sent(system.store)) == [("a", "1"), ("a", "3")]


async def test_a_recurring_schedule_that_is_made_at_each_start_is_made_once(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        for _ in range(3):
            await system.schedule(CancelNow(), to=(Deadline, "a"), every="0 9 * * mon", key="weekly")
        assert await count(system.store, "uno_actors.Scheduled") == 1
        await system.schedule(CancelNow(), to=(Deadline, "a"), every="0 10 * * mon", key="weekly")
        await system.settled()
        assert [(entry.every, entry.due) for entry in await system.schedules()] == [
            ("0 10 * * mon", datetime(2026, 1, 5, 10, tzinfo=UTC))
        ]


async def test_a_recurring_schedule_that_an_operator_has_cancelled_is_made_again_by_the_program(
    clock: ManualClock,
) -> None:
    async with running("memory:", clock) as system:
        control = ScheduleControl(system.store, clock)
        for expected in (1, 2):
            for _ in range(2):
                await system.schedule(CancelNow(), to=(Deadline, "a"), every="0 9 * * *", key="daily")
            await later(system, clock, timedelta(days=1))  # that it was sent before changes nothing
            assert await count(system.store, "uno_actors.Scheduled") == expected
            (daily,) = await system.schedules()
            await control.cancel(daily.id)
            await system.settled()
            assert await system.schedules() == []


def test_a_synchronous_program_schedules(clock: ManualClock) -> None:
    with ActorSystem("memory:", aggregates=[Deadline], handlers=[]) as system:
        system.run(system.schedule(CancelNow(note="now"), to=(Deadline, "a"), after=0, key="soon"))
        system.run(system.settled())
        assert system.run(sent(system.store)) == [("a", "now")]


async def test_what_is_not_valid_is_refused_where_it_is_scheduled(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        with pytest.raises(InvalidSchedule, match="9 o'clock\" is not a cron expression"):
            await system.schedule(CancelNow(), to=(Deadline, "a"), every="9 o'clock")
        with pytest.raises(InvalidSchedule, match='as in "0 9 \\* \\* mon"; found 5'):
            await system.schedule(CancelNow(), to=(Deadline, "a"), every=5)  # type: ignore[arg-type]
        assert await system.store.last_position() == 0


# --- times that recur, and times that were missed -----------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "late", "expected"),
    [
        ("all", timedelta(), "fired 1, next 2"),
        ("all", timedelta(days=3, hours=1), "fired 1, next 2"),
        ("last", timedelta(), "fired 1, next 2"),
        ("last", timedelta(days=3, hours=1), "fired 4, next 5"),
        ("last", timedelta(days=3), "fired 4, next 5"),
        ("none", timedelta(), "fired 1, next 2"),
        ("none", LATE, "fired 1, next 2"),
        ("none", LATE + timedelta(seconds=1), "passed 1, next 2"),
        ("none", timedelta(days=3), "fired 4, next 5"),
        ("none", timedelta(days=3, hours=1), "passed 4, next 5"),
        ("once all", timedelta(days=3), "fired 1"),
        ("once last", timedelta(days=3), "fired 1"),
        ("once none", LATE, "fired 1"),
        ("once none", timedelta(days=3), "passed 1"),
    ],
)
def test_what_was_missed_follows_the_policy(catch_up: str, late: timedelta, expected: str) -> None:
    first = datetime(2026, 1, 1, 9, tzinfo=UTC)
    policy: Any = catch_up.removeprefix("once ")
    when: Any = {"every": "0 9 * * *"} if policy == catch_up else {"at": first}
    command = OutgoingCommand.of("Deadline", "a", CancelNow())
    event = scheduled(command, None, first - timedelta(hours=1), catch_up=policy, **when)
    step = due_step(ScheduleInfo.of(event), first + late)
    text = f"{type(step).__name__.lower()} {step.due.day}"
    assert text + (f", next {step.next_due.day}" if step.next_due else "") == expected


@pytest.mark.parametrize(("catch_up", "expected"), [("all", 31), ("last", 1), ("none", 0)])
async def test_a_month_in_which_nothing_ran_is_made_up_for_by_the_policy(
    catch_up: str, expected: int, tmp_path: Path, clock: ManualClock
) -> None:
    url = await new_store_url("lmdb", tmp_path)
    async with running(url, clock) as system:
        await system.schedule(
            CancelNow(),
            to=(Deadline, "a"),
            every="0 9 * * *",
            catch_up=catch_up,  # type: ignore[arg-type]
            key="daily",
        )
    clock.leap(MONTH)
    async with running(url, clock) as system:
        await system.settled()
        assert len(await sent(system.store)) == expected
        (entry,) = await system.schedules()
        assert entry.due == datetime(2026, 2, 1, 9, tzinfo=UTC)
        await later(system, clock, timedelta(hours=9))
        assert len(await sent(system.store)) == expected + 1


async def test_each_day_has_its_command_while_the_scheduler_runs(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        await system.schedule(
            CancelNow(), to=(Deadline, "a"), every="30 2 * * *", tz="Europe/Berlin", key="daily"
        )
        clock.leap(datetime(2026, 3, 27, tzinfo=UTC) - clock_time(clock))
        await later(system, clock, timedelta())
        for _ in range(4 * 24):
            await later(system, clock, timedelta(hours=1))
        fired = [event.due async for _, event in system.store.read_all(event_type=Fired)]
        assert [f"{due:%d %H:%M}" for due in fired[-4:]] == ["27 01:30", "28 01:30", "29 01:00", "30 00:30"]
        assert len(await sent(system.store)) == len(fired)


def clock_time(clock: ManualClock) -> datetime:
    return datetime.fromtimestamp(clock.time(), UTC)


# --- steps of the clock -------------------------------------------------------------------------------------


async def test_a_clock_that_is_set_back_sends_nothing_early_and_nothing_twice(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        await system.schedule(CancelNow(), to=(Deadline, "a"), every="0 * * * *", key="hourly")
        await later(system, clock, timedelta(hours=1))
        assert len(await sent(system.store)) == 1
        clock.stepped -= 2 * 3600
        await later(system, clock, timedelta(hours=2, minutes=59))
        assert len(await sent(system.store)) == 1
        await later(system, clock, timedelta(minutes=1))
        assert len(await sent(system.store)) == 2


async def test_a_clock_that_is_set_forward_is_noticed_within_half_a_minute(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        await system.schedule(CancelNow(), to=(Deadline, "a"), after=86400)
        await system.settled()
        clock.stepped += 86400
        clock.leap(30)
        await system.settled()
        assert len(await sent(system.store)) == 1


# --- failures -----------------------------------------------------------------------------------------------


class Gone(AggregateRoot):
    @handles
    def cancel(self, command: CancelNow) -> None: ...


async def test_a_rejected_command_has_its_answer_which_is_logged_and_counted_and_no_fault(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        async with running("memory:", clock) as system:
            await system.aggregate(Deadline, "a").ask(CancelLater(note="rejected"))
            await system.aggregate(Deadline, "b").ask(CancelLater(minutes=16))
            await later(system, clock, MONTH)
            assert await sent(system.store) == [("b", "")]
            assert await system.store.dead_letters() == []
            statistics = system.statistics()
            assert statistics.scheduler[-3:] == (1, 0, 1)  # sent, failed, rejected
            assert statistics.handlers["uno_actors.scheduler"].failures == 0
    assert "scheduled command was rejected" in caplog.text
    assert "it is paid" in caplog.text


async def test_a_rejection_that_an_earlier_version_set_aside_is_retried_and_removed(
    clock: ManualClock,
) -> None:
    async with running("memory:", clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater(note="rejected"))
        await later(system, clock, MONTH)
        letter = DeadLetter(
            "uno_actors.scheduler", 2, "uno_actors.Fired", 1, "it is paid", "", NEW_YEAR, NEW_YEAR
        )
        await system.store.save_progress({}, [letter])
        await system.retry_dead_letters("uno_actors.scheduler")
        while await system.store.dead_letters():
            clock.advance(1)
            await asyncio.sleep(0.01)


async def test_a_command_to_an_aggregate_that_is_not_served_becomes_a_dead_letter(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        await system.schedule(CancelNow(), to=(Gone, "a"), after=1)
        await system.schedule(CancelNow(), to=(Deadline, "b"), after=2)
        await system.settled()
        clock.leap(MONTH)
        while not (letters := await system.store.dead_letters()):
            clock.advance(1)
            await asyncio.sleep(0.001)
        assert "does not serve" in letters[0].error
        await system.settled()
        assert await sent(system.store) == [("b", "")]


def second(number: int) -> datetime:
    return NEW_YEAR + timedelta(seconds=number)


# --- many at once -------------------------------------------------------------------------------------------


class Watched(InMemoryEventStore):
    """Notes how much is read and recorded at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []
        self.commits: list[int] = []

    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = 512
    ) -> list[tuple[bytes, bytes]]:
        found = await super().read_view(view, start, end, limit)
        if view.startswith("uno_actors.schedules@"):
            self.pages.append(len(found))
        return found

    async def commit(self, requests: Sequence) -> list:  # type: ignore[type-arg]
        self.commits.append(sum(len(request.records) for request in requests))
        return await super().commit(requests)


async def test_many_that_are_due_at_once_are_taken_a_page_at_a_time(clock: ManualClock) -> None:
    store, number = Watched(), AHEAD + AT_ONCE + 7
    order = Deadline("many")
    for each in range(number):
        order.schedule(CancelNow(note=str(each)), to=(Deadline, f"o-{each % 50}"), at=second(each))
    await EventSourcedRepository(Deadline, store).save(order)
    store.pages.clear()
    store.commits.clear()
    clock.leap(MONTH)
    async with running(store, clock) as system:
        await system.settled(60)
        notes = Counter(note for _, note in await sent(store))
        assert notes == Counter(str(each) for each in range(number))
        assert system.statistics().scheduler.waiting == 0
    assert max(store.pages) <= AT_ONCE + 300
    assert max(store.commits) <= AT_ONCE


async def test_commands_to_one_aggregate_are_sent_in_the_order_of_their_times(clock: ManualClock) -> None:
    store = InMemoryEventStore()
    order = Deadline("o")
    for each in reversed(range(40)):
        order.schedule(CancelNow(note=str(each)), at=second(each))
    await EventSourcedRepository(Deadline, store).save(order)
    clock.leap(MONTH)
    async with running(store, clock) as system:
        await system.settled()
        assert [note for _, note in await sent(store)] == [str(each) for each in range(40)]


# --- operators ----------------------------------------------------------------------------------------------


async def test_operators_list_cancel_and_run_what_is_scheduled(clock: ManualClock) -> None:
    async with running("memory:", clock) as system:
        control = ScheduleControl(system.store, clock)
        for minutes, name in enumerate("abc", start=15):
            await system.aggregate(Deadline, name).ask(CancelLater(minutes=minutes, note=name))
        await system.schedule(CancelNow(note="daily"), to=(Deadline, "d"), every="0 9 * * *", key="daily")
        await system.settled()
        first, second, third, daily = await control.schedules()
        assert [first, second, third, daily] == await control.schedules(limit=2) + await control.schedules(
            after=second
        )
        assert await control.get(first.id) == first
        await control.cancel(first.id)
        await control.run_now(second.id)
        await control.run_now(daily.id)
        await system.settled()
        assert sorted(await sent(system.store)) == [("b", "b"), ("d", "daily")]
        assert await control.schedules() == [third, daily.at(daily.due, 1)]
        for gone in (first, second):
            with pytest.raises(UnknownSchedule, match=f"nothing is scheduled as {gone.id}"):
                await control.get(gone.id)
        await later(system, clock, timedelta(hours=10))
        assert sorted(await sent(system.store)) == [("b", "b"), ("c", "c"), ("d", "daily"), ("d", "daily")]
        await control.cancel(daily.id)
        await later(system, clock, MONTH)
        assert len(await sent(system.store)) == 4


async def test_what_an_operator_does_and_the_scheduler_does_at_the_same_time_happens_once(
    clock: ManualClock,
) -> None:
    async with running("memory:", clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater())
        await system.settled()
        control = ScheduleControl(system.store, clock)
        (entry,) = await control.schedules()
        results = await asyncio.gather(
            control.run_now(entry.id),
            control.cancel(entry.id),
            control.run_now(entry.id),
            return_exceptions=True,
        )
        assert sum(isinstance(result, UnknownSchedule) for result in results) == 2
        await later(system, clock, MONTH)
        assert len(await sent(system.store)) == 1


async def test_a_schedule_whose_time_zone_is_unknown_here_delays_no_other_and_is_not_waited_for(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a machine with an older list of time zones."""
    async with running("memory:", clock) as system:
        to = Deadline, "a"
        await system.schedule(CancelNow(note="daily"), to=to, every="0 9 * * *", tz="Pacific/Kanton", key="d")
        await system.schedule(CancelNow(note="soon"), to=to, after=timedelta(hours=24, seconds=5))
        await system.settled()

        class Older(ZoneInfo):
            def __new__(cls, key: str) -> Any:
                if key == "Pacific/Kanton":
                    raise ZoneInfoNotFoundError(key)
                return ZoneInfo(key)

        monkeypatch.setattr("uno_actors.recurrence.ZoneInfo", Older)
        clock.leap(timedelta(hours=24))
        await system.settled(5)
        assert "scheduled command cannot be sent" in caplog.text
        assert await sent(system.store) == []
        clock.advance(5.001)
        await until(lambda: system.statistics().scheduler.sent == 1)
        assert await sent(system.store) == [("a", "soon")]
        assert [entry.key for entry in await system.schedules()] == ["d"]


async def test_to_cancel_a_schedule_leaves_the_one_that_has_taken_its_key_meanwhile(
    clock: ManualClock,
) -> None:
    async with running("memory:", clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater(minutes=15, note="first"))
        await system.settled()
        (first,) = await system.schedules()
        await system.aggregate(Deadline, "a").ask(CancelLater(minutes=30, note="second"))
        # What `ScheduleControl.cancel` does if it has read the list before it changed.
        await system.store.append(first.cancelled(), expected_version=first.version)
        await later(system, clock, MONTH)
        assert await sent(system.store) == [("a", "second")]


# --- a model ------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.sampled_from("abc"), st.sampled_from([1, 5, 60])),
        st.tuples(st.just("pay"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("pass"), st.just(""), st.sampled_from([1, 4, 30, 100])),
        st.tuples(st.just("restart"), st.just(""), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_what_is_sent_is_what_a_model_of_one_alarm_for_each_order_says(
    steps: list[tuple[str, str, int]],
) -> None:
    async def scenario() -> None:
        clock, store = ManualClock(NEW_YEAR), InMemoryEventStore()
        alarms: dict[str, int] = {}
        expected: Counter[str] = Counter()
        now = 0
        system = ActorSystem(store, aggregates=[Deadline], handlers=[], clock=clock)
        await system.start()
        try:
            for step, name, minutes in steps:
                if step == "place":
                    await system.aggregate(Deadline, name).ask(CancelLater(minutes=minutes))
                    alarms[name] = now + minutes
                elif step == "pay":
                    await system.aggregate(Deadline, name).ask(PayLater())
                    alarms.pop(name, None)
                elif step == "pass":
                    await later(system, clock, timedelta(minutes=minutes))
                    now += minutes
                    for due in [each for each, at in alarms.items() if at <= now]:
                        del alarms[due]
                        expected[due] += 1
                else:
                    await system.stop()
                    system = ActorSystem(store, aggregates=[Deadline], handlers=[], clock=clock)
                    await system.start()
            await system.settled()
            assert Counter(name for name, _ in await sent(store)) == expected
            assert {entry.owner_id for entry in await system.schedules()} == set(alarms)
            assert system.statistics().scheduler.waiting == len(alarms)
        finally:
            await system.stop()

    asyncio.run(scenario())


async def test_a_store_with_a_registry_of_its_own_knows_the_events_of_schedules(clock: ManualClock) -> None:
    store = InMemoryEventStore(EventRegistry([CancelledNow]))
    async with running(store, clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater())
        await later(system, clock, MONTH)
        assert await sent(store) == [("a", "")]
        assert store.event_registry.names() == ["CancelledNow"]


def anonymous_memory() -> int:
    """Bytes of memory of this process that are not of files."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) << 10


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_hundred_thousand_that_are_due_at_once_are_sent_once_each_in_little_memory(
    tmp_path: Path, clock: ManualClock
) -> None:
    url, number = await new_store_url("lmdb", tmp_path), 100_000
    async with open_store(url) as store:
        for begin in range(0, number, 1000):
            order = Deadline(f"scheduler-{begin}")
            for each in range(begin, begin + 1000):
                order.schedule(
                    CancelNow(note=str(each)), to=(Deadline, f"o-{each % 5000}"), at=second(each % 60)
                )
            await EventSourcedRepository(Deadline, store).save(order)
    clock.leap(MONTH)
    before = most = anonymous_memory()
    async with running(url, clock) as system:
        while system.statistics().scheduler.sent < number:
            await asyncio.sleep(0.5)
            most = max(most, anonymous_memory())
        await system.settled()
        notes = Counter(note for _, note in await sent(system.store))
        assert notes == Counter(str(each) for each in range(number))
        assert await count(system.store, "uno_actors.Fired") == number
    assert most - before < 200 << 20
