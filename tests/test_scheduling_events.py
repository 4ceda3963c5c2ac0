"""What an aggregate records when it has a command sent later, or not any more."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CommandRejected,
    DomainEvent,
    EventSourcedRepository,
    InvalidAggregate,
    InvalidAggregateId,
    InvalidSchedule,
    UnknownCommand,
    Unscheduled,
    handles,
)
from uno_actors import Scheduled as Recorded
from uno_actors.recurrence import Recurrence
from uno_actors.testing import ManualClock
from uno_actors.testing import given as scenario


class CancelUnpaid(Command):
    reason: str = "not paid"


class PlaceLater(Command[str]):
    minutes: int = 15
    key: str | None = "payment"
    rejected: bool = False


class PayNow(Command): ...


class Scheduled(DomainEvent):
    """An event of the domain's own, of the same class name as the framework's."""


class LaterOrder(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.seen = 0

    @handles
    def place(self, command: PlaceLater) -> str:
        self.register_event(Scheduled())
        key = self.schedule(CancelUnpaid(), after=timedelta(minutes=command.minutes), key=command.key)
        if command.rejected:
            raise CommandRejected("not today")
        return key

    @handles
    def pay(self, command: PayNow) -> None:
        self.unschedule("payment")

    @handles
    def cancel(self, command: CancelUnpaid) -> None: ...

    def apply_scheduled(self, event: Scheduled) -> None:
        self.seen += 1


class Other(AggregateRoot): ...


def test_a_schedule_is_an_event_of_the_aggregate_in_the_order_of_the_others() -> None:
    order = LaterOrder("o-1")
    before = datetime.now(UTC)
    assert order.handle(PlaceLater()) == "payment"
    order.handle(PayNow())
    own, scheduled, unscheduled = order.pending_events
    assert isinstance(own, Scheduled)
    assert isinstance(scheduled, Recorded)
    assert isinstance(unscheduled, Unscheduled)
    assert [event.aggregate_version for event in order.pending_events] == [1, 2, 3]
    assert scheduled.command.model_dump() == {
        "aggregate_type": "LaterOrder",
        "aggregate_id": "o-1",
        "command": "CancelUnpaid",
        "fields": '{"reason":"not paid"}',
    }
    assert before + timedelta(minutes=15) <= scheduled.due <= datetime.now(UTC) + timedelta(minutes=15)
    assert scheduled.key == unscheduled.key == "payment"
    assert scheduled.correlation_id == own.correlation_id


def test_events_of_the_same_class_name_keep_their_methods() -> None:
    order = LaterOrder("o-1")
    order.handle(PlaceLater())
    assert order.seen == 1
    assert LaterOrder("o-1").replay(order.take_pending_events()).seen == 1


async def test_a_schedule_is_recorded_in_the_append_of_the_other_events_and_with_none_of_a_rejected_command() -> (
    None
):
    async with ActorSystem("memory:", aggregates=[LaterOrder], handlers=[]) as system:
        order = system.aggregate(LaterOrder, "o-1")
        with pytest.raises(CommandRejected):
            await order.ask(PlaceLater(rejected=True))
        await order.ask(PlaceLater())
        events = [recorded.event async for recorded in system.store.read_all()]
        assert [event.event_type for event in events] == ["Scheduled", "uno_actors.Scheduled"]
        assert system.statistics().commits == 1
        again = await EventSourcedRepository(LaterOrder, system.store).get_by_id("o-1")
        assert (again.version, again.seen) == (2, 1)


async def test_the_time_of_a_schedule_is_that_of_the_systems_clock() -> None:
    clock = ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    async with ActorSystem("memory:", aggregates=[LaterOrder], handlers=[], clock=clock) as system:
        clock.advance(3600)
        await system.aggregate(LaterOrder, "o-1").ask(PlaceLater())
        _, recorded = [recorded.event async for recorded in system.store.read_all()]
        assert isinstance(recorded, Recorded)
        assert recorded.due == datetime(2026, 3, 1, 13, 15, tzinfo=UTC)


def test_each_schedule_without_a_key_gets_one_of_its_own() -> None:
    order = LaterOrder("o-1")
    keys = {order.schedule(CancelUnpaid(), after=1) for _ in range(3)}
    assert len(keys) == 3
    assert keys == {event.event_id for event in order.pending_events}


SOON = datetime(2030, 1, 1, 12)  # noqa: DTZ001 - one without a zone is in UTC


@pytest.mark.parametrize(
    ("arguments", "due"),
    [
        ({"at": SOON}, SOON.replace(tzinfo=UTC)),
        ({"at": SOON.replace(tzinfo=timezone(timedelta(hours=2)))}, datetime(2030, 1, 1, 10, tzinfo=UTC)),
        ({"at": datetime(1970, 1, 1, tzinfo=UTC)}, datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_recorded_in_utc(arguments: dict[str, Any], due: datetime) -> None:
    order = LaterOrder("o-1")
    order.schedule(CancelUnpaid(), **arguments)
    (event,) = order.pending_events
    assert isinstance(event, Recorded)
    assert event.due == due
    assert event.due.utcoffset() == timedelta()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {},
            InvalidSchedule,
            "one of after=, at= and every= says when the command is due; found none of them",
        ),
        ({"after": 1, "at": SOON}, InvalidSchedule, "found after and at"),
        ({"after": -1}, InvalidSchedule, "found -1"),
        ({"after": timedelta(days=-1)}, InvalidSchedule, "0 to 3.16224e"),
        ({"after": float("nan")}, InvalidSchedule, "found nan"),
        ({"after": True}, InvalidSchedule, "found True"),
        ({"after": "1h"}, InvalidSchedule, "found '1h'"),
        ({"after": timedelta.max}, InvalidSchedule, "100 years"),
        ({"at": "tomorrow"}, InvalidSchedule, "at is a datetime; found 'tomorrow'"),
        (
            {"at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))},
            InvalidSchedule,
            "beyond the year 9999",
        ),
        ({"every": "0 9 * *"}, InvalidSchedule, "is not a cron expression"),
        ({"every": "0 9 30 2 *"}, InvalidSchedule, "is not a cron expression (Bad day-of-month)"),
        ({"every": 5}, InvalidSchedule, "every is a cron expression, as in"),
        (
            {"every": "0 9 * * mon", "tz": "Mars/Olympus"},
            InvalidSchedule,
            "no time zone is named 'Mars/Olympus'",
        ),
        ({"every": "0 9 * * mon", "tz": "../etc"}, InvalidSchedule, "no time zone is named"),
        ({"every": "0 9 * * mon", "tz": ""}, InvalidSchedule, "no time zone is named"),
        ({"after": 1, "tz": "Europe/Berlin"}, InvalidSchedule, "is the time zone of every="),
        ({"after": 1, "catch_up": "some"}, InvalidSchedule, 'catch_up is "all", "last" or "none"; found'),
        ({"after": 1, "key": ""}, InvalidSchedule, "key is a str of 1 to 255 bytes"),
        ({"after": 1, "key": "é" * 128}, InvalidSchedule, "key is a str of 1 to 255 bytes"),
        ({"after": 1, "key": "\ud800"}, InvalidSchedule, "key is a str of 1 to 255 bytes"),
        ({"after": 1, "to": LaterOrder}, InvalidSchedule, 'as in (Order, "o-1")'),
        ({"after": 1, "to": ("LaterOrder", "o-1")}, InvalidAggregate, "pass the class of an aggregate"),
        ({"after": 1, "to": (LaterOrder, "")}, InvalidAggregateId, "it is empty"),
        ({"after": 1, "to": (Other, "o-1")}, UnknownCommand, "CancelUnpaid"),
    ],
)
def test_a_schedule_that_says_nothing_sensible_is_refused_and_records_nothing(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    order = LaterOrder("o-1")
    with pytest.raises(error) as refused:
        order.schedule(CancelUnpaid(), **arguments)
    assert text in str(refused.value)
    assert order.pending_events == ()


def test_a_command_that_json_does_not_preserve_is_refused() -> None:
    class Raw(Command):
        data: Any

    class Keeper(AggregateRoot):
        @handles
        def keep(self, command: Raw) -> None: ...

    with pytest.raises(ValueError, match="cannot be read back from the JSON"):
        Keeper("k").schedule(Raw(data=(1, 2)), after=1)


class RingOf:
    class Ring(Command):
        times: int = 1

    class OtherRing(Command):
        times: int = 1

    OtherRing.__name__ = "Ring"


class TwoRings(AggregateRoot):
    @handles
    def ring(self, command: RingOf.Ring) -> None: ...

    @handles
    def other(self, command: RingOf.OtherRing) -> None: ...


def test_of_two_commands_of_one_name_the_one_that_would_be_read_is_scheduled_and_the_other_refused() -> None:
    TwoRings("a").schedule(RingOf.Ring(), after=1)
    with pytest.raises(
        ValueError, match=r"RingOf\.OtherRing cannot be sent later to TwoRings, .*RingOf\.Ring: "
    ):
        TwoRings("a").schedule(RingOf.OtherRing(), after=1)


class Photo(Command):
    image: bytes = b""


class PhotoInBase64(Photo):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Album(AggregateRoot):
    @handles
    def add(self, command: Photo) -> None: ...

    @handles
    def add_as_text(self, command: PhotoInBase64) -> None: ...


def test_bytes_that_json_cannot_write_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"Photo\(.* cannot be written as the JSON .*ser_json_bytes"):
        Album("a").schedule(Photo(image=b"\xff\x00"), after=1)
    Album("a").schedule(PhotoInBase64(image=b"\xff\x00"), after=1)


# --- times that recur --------------------------------------------------------------------------------------

BERLIN = "Europe/Berlin"


def times(every: str, tz: str, after: str, count: int) -> list[str]:
    found, moment = [], datetime.fromisoformat(after)
    recurrence = Recurrence(every, tz)
    for _ in range(count):
        moment = recurrence.first_after(moment) or moment
        found.append(f"{moment:%d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("every", "after", "expected"),
    [
        # The clocks skip 02:00 to 03:00, which is 01:00 UTC, on 29 March 2026: at the end of the gap.
        ("30 2 * * *", "2026-03-28T12:00Z", ["29 01:00", "30 00:30"]),
        ("0 9 * * *", "2026-03-28T12:00Z", ["29 07:00", "30 07:00"]),
        ("*/30 * * * *", "2026-03-29T00:00Z", ["29 00:30", "29 01:00", "29 01:30"]),
        # They repeat 02:00 to 03:00 on 25 October 2026, from 00:00 and from 01:00 UTC: once, at the first.
        ("30 2 * * *", "2026-10-24T12:00Z", ["25 00:30", "26 01:30"]),
        ("30 2 * * *", "2026-10-25T00:45Z", ["26 01:30"]),
        ("30 2 * * *", "2026-10-25T01:10Z", ["26 01:30"]),
        ("0 9 * * *", "2026-10-24T12:00Z", ["25 08:00", "26 08:00"]),
        ("*/30 * * * *", "2026-10-25T00:10Z", ["25 00:30", "25 01:00", "25 01:30", "25 02:00"]),
        ("0 9 * * mon", "2026-10-25T00:10Z", ["26 08:00", "02 08:00"]),
    ],
)
def test_a_recurring_time_is_right_on_both_sides_of_a_change_of_the_clocks(
    every: str, after: str, expected: list[str]
) -> None:
    assert times(every, BERLIN, after, len(expected)) == expected


MOMENTS = st.integers(0, 2 * 365 * 86400).map(
    lambda second: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
)
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"])
EXPRESSIONS = st.sampled_from(["30 2 * * *", "0 * * * *", "*/20 1-3 * * *", "15 0 1 * *", "0 9 * * mon-fri"])


@settings(max_examples=200, deadline=None)
@given(MOMENTS, ZONES, EXPRESSIONS)
def test_the_last_time_until_a_moment_is_the_one_that_forward_steps_reach(
    moment: datetime, tz: str, every: str
) -> None:
    recurrence = Recurrence(every, tz)
    following = recurrence.first_after(moment)
    assert following is not None
    assert following > moment
    last = recurrence.last_until(moment)
    assert last is not None
    assert last <= moment
    assert recurrence.first_after(last) == following


# --- in tests of programs ----------------------------------------------------------------------------------


def test_a_scenario_checks_what_is_scheduled_beside_the_events() -> None:
    then = scenario(LaterOrder).when(PlaceLater(minutes=30)).then(Scheduled()).replies("payment")
    then.schedules(CancelUnpaid(), after=timedelta(minutes=30), key="payment").schedules()
    scenario(LaterOrder).when(PayNow()).then().unschedules("payment")
    with pytest.raises(AssertionError, match="found CancelUnpaid"):
        scenario(LaterOrder).when(PlaceLater()).schedules(CancelUnpaid(), after=901)


class AddEachWeek(Command):
    tz: str = BERLIN


class WeeklyAlbum(AggregateRoot):
    @handles
    def begin(self, command: AddEachWeek) -> None:
        self.schedule(AddEachWeek(), every="0 9 * * mon", tz=command.tz, catch_up="all")


def test_a_scenario_compares_time_zones_too() -> None:
    scenario(WeeklyAlbum).when(AddEachWeek()).schedules(AddEachWeek, tz=BERLIN, catch_up="all")
    with pytest.raises(
        AssertionError, match=r"tz='Asia/Tokyo'.*tz is 'Asia/Tokyo', expected 'Europe/Berlin'; catch"
    ):
        scenario(WeeklyAlbum).when(AddEachWeek(tz="Asia/Tokyo")).schedules(
            AddEachWeek, tz=BERLIN, catch_up="none"
        )
