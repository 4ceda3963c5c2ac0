"""Commands that are sent later on stores with several logs, and on copies between one log and several."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import scheduling
from tests.postgres import postgres
from tests.scheduling import CancelLater, CancelNow, Deadline, PayLater, count, later, running
from tests.waiting import until
from uno_actors import ScheduleControl, UnknownSchedule, open_store
from uno_actors.cli.store_copy import copy_store
from uno_actors.domain.schedules import Fired
from uno_actors.scheduling.entries import stream_of
from uno_actors.shards import name_in, shard_of_key
from uno_actors.store.logs import log_of_stream
from uno_actors.store.port import EventStore
from uno_actors.testing import ManualClock

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=31)
LOGS = 3
NAMES = [f"o-{number}" for number in range(12)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NEW_YEAR)


@pytest.fixture
async def url() -> str:
    return f"{await postgres().new_url()}&logs={LOGS}"


async def sent(store: EventStore) -> list[tuple[str, str]]:
    """Aggregate and note of each command that took effect; logs have no order between them."""
    return sorted(await scheduling.sent(store))


# --- streams ------------------------------------------------------------------------------------------------


@given(st.text(), st.text(), st.sampled_from([2, 3, 64, 1024]))
def test_what_happens_to_a_schedule_is_in_the_shard_of_its_owner(kind: str, key: str, logs: int) -> None:
    stream = stream_of("0190-event", (kind, key), logs)
    assert shard_of_key(*stream) == shard_of_key(kind, key)
    assert log_of_stream(stream, logs) == shard_of_key(kind, key) % logs
    assert stream == stream_of("0190-event", (kind, key), 2)  # in stores with any number of logs
    assert name_in(stream.aggregate_id) == "0190-event"


def test_on_one_log_the_stream_of_a_schedule_has_its_id_alone() -> None:
    stream = stream_of("0190-event", ("Order", "7"), 1)
    assert stream == (Fired.STREAM_TYPE, "0190-event")
    assert name_in(stream.aggregate_id) == "0190-event"


@pytest.mark.parametrize("key", ["#x", "x#y", "\N{ARABIC-INDIC DIGIT ONE}#x", "-1#x", "9999#x"])
def test_any_other_key_of_a_schedule_has_a_shard(key: str) -> None:
    assert 0 <= shard_of_key(Fired.STREAM_TYPE, key) < 1024


# --- one store ----------------------------------------------------------------------------------------------


async def test_a_command_is_sent_once_when_it_is_due(url: str, clock: ManualClock) -> None:
    async with running(url, clock) as system:
        for number, name in enumerate(NAMES):
            await system.aggregate(Deadline, name).ask(CancelLater(minutes=15 + number, note=name))
        await later(system, clock, timedelta(minutes=14))
        assert await sent(system.store) == []
        assert [entry.owner_id for entry in await system.schedules()] == NAMES
        assert system.statistics().scheduler.waiting == len(NAMES)
        await later(system, clock, timedelta(minutes=6.5))
        assert await sent(system.store) == sorted((name, name) for name in NAMES[:6])
        await later(system, clock, MONTH)
        assert await sent(system.store) == sorted((name, name) for name in NAMES)
        assert await system.schedules() == []
        statistics = system.statistics().scheduler
        assert (statistics.fired, statistics.sent, statistics.failed, statistics.waiting) == (12, 12, 0, 0)
        assert statistics.runs


async def test_a_command_that_is_unscheduled_or_replaced_is_not_sent(url: str, clock: ManualClock) -> None:
    async with running(url, clock) as system:
        for name in NAMES:
            await system.aggregate(Deadline, name).ask(CancelLater(note="first"))
            await system.aggregate(Deadline, name).ask(CancelLater(minutes=20, note="second"))
        for name in NAMES[::2]:
            await system.aggregate(Deadline, name).ask(PayLater())
        await later(system, clock, MONTH)
        assert await sent(system.store) == sorted((name, "second") for name in NAMES[1::2])


async def test_programs_schedule_what_recurs_and_operators_list_cancel_and_run_it(
    url: str, clock: ManualClock
) -> None:
    async with running(url, clock) as system:
        control = ScheduleControl(system.store, clock)
        for _ in range(2):
            for name in NAMES:
                to = Deadline, name
                await system.schedule(CancelNow(note="daily"), to=to, every="0 9 * * *", key=name)
        await system.settled()
        entries = await control.schedules()
        assert sorted(entry.key for entry in entries) == sorted(NAMES)
        first, second, *rest = entries
        assert [first, second] == await control.schedules(limit=2)
        assert rest == await control.schedules(after=second)
        await control.cancel(first.id)
        await control.run_now(second.id)
        with pytest.raises(UnknownSchedule):
            await control.cancel(second.id)  # of the list as it was
        await system.settled()
        assert await sent(system.store) == [(second.key, "daily")]
        assert {entry.id for entry in await control.schedules()} == {second.id, *(each.id for each in rest)}
        await later(system, clock, timedelta(hours=10))
        await later(system, clock, timedelta(days=1))
        daily = Counter({(each.key, "daily"): 2 for each in rest})
        assert Counter(await sent(system.store)) == daily + Counter({(second.key, "daily"): 3})
        for name in NAMES:  # the one that was cancelled is made again
            await system.schedule(CancelNow(note="daily"), to=(Deadline, name), every="0 9 * * *", key=name)
        await system.settled()
        assert sorted(entry.key for entry in await control.schedules()) == sorted(NAMES)
        assert await count(system.store, "uno_actors.Scheduled") == len(NAMES) + 1


async def test_the_list_is_built_again_without_sending_again(url: str, clock: ManualClock) -> None:
    async with running(url, clock) as system:
        for number, name in enumerate(NAMES):
            await system.aggregate(Deadline, name).ask(CancelLater(minutes=15 if number % 2 else 10**5))
        await later(system, clock, MONTH)
        before = await system.schedules()
        await system.reset("uno_actors.schedules", "earliest")
        await later(system, clock, timedelta())
        assert await system.schedules() == before
        assert len(before) == len(NAMES) // 2
        await system.reset("uno_actors.scheduler", "earliest")
        await system.settled()
        assert (
            len(await sent(system.store)) == await count(system.store, "uno_actors.Fired") == len(NAMES) // 2
        )


async def test_systems_share_the_list_and_what_one_leaves_another_takes_over(
    url: str, clock: ManualClock
) -> None:
    async with running(url, clock, scheduler=True) as first:
        async with running(url, clock, scheduler=True) as second:
            for name in NAMES:
                await first.aggregate(Deadline, name).ask(CancelLater(note=name))
            await first.settled()
            await second.settled()
            clock.leap(timedelta(minutes=16))
            await until(lambda: first.statistics().scheduler.sent + second.statistics().scheduler.sent == 12)
            for name in NAMES:
                await first.aggregate(Deadline, name).ask(CancelLater(note="again"))
        clock.leap(MONTH)
        while await count(first.store, "CancelledNow") < 24:
            clock.advance(1)
            await asyncio.sleep(0.01)
        assert await sent(first.store) == sorted((name, note) for name in NAMES for note in (name, "again"))


async def test_a_system_without_scheduler_leaves_it_to_others(url: str, clock: ManualClock) -> None:
    async with running(url, clock, scheduler=False) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater())
        await later(system, clock, MONTH)
        assert await sent(system.store) == []
    async with running(url, clock) as system:
        await system.settled()
        assert await sent(system.store) == [("a", "")]


# --- copies -------------------------------------------------------------------------------------------------


async def copied(source: str, target: str) -> str:
    async with open_store(source) as one, open_store(target) as other:
        await copy_store(one, other, lambda done, total: None)
    return target


async def test_what_is_scheduled_continues_in_copies_with_other_numbers_of_logs(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A time is fired in one of them; nothing that was fired or cancelled before comes again."""
    url = f"lmdb:{tmp_path}/one"
    expected: Counter[tuple[str, str]] = Counter()
    async with running(url, clock) as system:
        for name in NAMES:
            to = Deadline, name
            await system.schedule(CancelNow(note="daily"), to=to, every="0 9 * * *", key=name)
            await system.aggregate(Deadline, name).ask(CancelLater(note="once"))
            await system.aggregate(Deadline, name).ask(CancelLater(minutes=10**5, note="late", key="late"))
        await later(system, clock, timedelta(hours=10))
        expected += Counter((name, note) for name in NAMES for note in ("daily", "once"))
        assert Counter(await sent(system.store)) == expected
        entries = {entry.key: entry for entry in await system.schedules()}
        await ScheduleControl(system.store, clock).cancel(entries[NAMES[0]].id)
    for number, logs in enumerate((3, 5, 1, 4)):
        target = f"lmdb:{tmp_path}/{number}" if logs == 1 else f"{await postgres().new_url()}&logs={logs}"
        url = await copied(url, target)
        async with running(url, clock) as system:
            await system.settled()
            assert Counter(await sent(system.store)) == expected
            await later(system, clock, timedelta(days=1))
            expected += Counter((name, "daily") for name in NAMES[1:])
            assert Counter(await sent(system.store)) == expected
    async with running(url, clock) as system:
        await later(system, clock, timedelta(days=90))
        found = Counter(await sent(system.store))
        assert {name for name, note in found if note == "late"} == set(NAMES)
        assert all(times == 1 for (_, note), times in found.items() if note in ("once", "late"))


async def test_a_copy_of_a_store_with_schedules_has_them_sent(tmp_path: Path, clock: ManualClock) -> None:
    """Its systems know that there are some."""
    source = f"lmdb:{tmp_path}/one"
    async with running(source, clock) as system:
        await system.aggregate(Deadline, "a").ask(CancelLater())
        await system.settled()
    target = await copied(source, f"sqlite+aiosqlite:///{tmp_path}/copy.db")
    async with running(target, clock) as system:
        await later(system, clock, MONTH)
        assert await sent(system.store) == [("a", "")]
