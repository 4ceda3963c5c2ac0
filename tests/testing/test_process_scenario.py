"""Given what a process has reacted to, when an event comes, then it sends and schedules these commands."""

from datetime import UTC, datetime, timedelta

import pytest

from uno_actors import (
    AggregateRoot,
    Command,
    CommandRejected,
    DomainEvent,
    InvalidAggregate,
    ProcessManager,
    Refusal,
    handles,
    reacts,
)
from uno_actors.testing import GivenProcess, given


class TableBooked(DomainEvent):
    table: str
    guests: int = 2


class GuestsArrived(DomainEvent):
    table: str


class TableFreed(DomainEvent):
    by: str


class GuestsAreLate(DomainEvent):
    pass


class Lay(Command[None]):
    covers: int


class Clear(Command[None]):
    pass


class RingUp(Command[None]):
    number: int = 0


class FreeTable(Command[str]):
    by: str


class Table(AggregateRoot):
    @handles
    def lay(self, command: Lay) -> None: ...

    @handles
    def clear(self, command: Clear) -> None: ...


class Guest(AggregateRoot):
    @handles
    def ring_up(self, command: RingUp) -> None: ...


class Evening(ProcessManager):
    sends_to = (Table, Guest)

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.freed = ""
        self.cheats = 0

    @reacts(starts=True, by="table")
    def on_booked(self, event: TableBooked) -> None:
        if event.guests > 20:
            self.cheats += 1  # a mistake
        self.send(Table, event.table, Lay(covers=event.guests))
        self.send(Guest, "first", RingUp(number=1))
        self.schedule(RingUp(), to=(Guest, "first"), after=timedelta(hours=1), key="late")
        self.schedule(FreeTable(by="cleaner"), at=datetime(2030, 1, 1, tzinfo=UTC), key="cleaning")

    @reacts(by="table")
    def on_arrived(self, event: GuestsArrived) -> None:
        self.unschedule("late")

    @reacts(by="aggregate_id")
    def on_freed(self, event: TableFreed) -> None:
        self.send(Table, self.id, Clear())
        self.end()

    @reacts
    def on_not_laid(self, refusal: Refusal[Lay]) -> None:
        self.register_event(TableFreed(by=refusal.reason))

    @handles
    def free(self, command: FreeTable) -> str:
        if self.freed:
            raise CommandRejected("it is free")
        self.register_event(TableFreed(by=command.by))
        return "freed"

    def apply_table_freed(self, event: TableFreed) -> None:
        self.freed = event.by


BOOKED = given(Evening, TableBooked(table="7"))


def test_a_process_sends_and_schedules_commands() -> None:
    then = given(Evening).when(TableBooked(table="7", guests=4))
    then.sends(Lay(covers=4), to=(Table, "7")).sends(RingUp, to=Guest).sends()
    then.schedules(RingUp(), to=(Guest, "first"), after=3600, key="late")
    then.schedules(FreeTable, to=(Evening, "7"), at=datetime(2030, 1, 1, tzinfo=UTC)).schedules()
    then.then().unschedules()
    BOOKED.when(GuestsArrived(table="7")).unschedules("late").schedules().sends()


def test_the_past_of_a_process_is_what_it_has_reacted_to_and_recorded() -> None:
    freed = given(Evening, TableBooked(table="7"), TableFreed(by="host", aggregate_id="7"))
    freed.when(GuestsArrived(table="7")).ignores().leaves(freed="host", has_ended=True)
    given(Evening, TableFreed(by="host"), id="7").when(FreeTable(by="x")).then(CommandRejected("it is free"))


def test_commands_and_refusals_come_to_a_process_too() -> None:
    BOOKED.when(FreeTable(by="host")).then(TableFreed(by="host")).replies("freed").sends()
    BOOKED.when(FreeTable(by="host"), FreeTable(by="other")).then(TableFreed, CommandRejected("it is free"))
    BOOKED.when(Refusal(Lay(covers=2), "broken")).then(TableFreed(by="broken")).leaves(freed="broken")
    with pytest.raises(CommandRejected, match="Evening has no reaction to Refusal"):
        BOOKED.when(Refusal(Clear(), "no cloth"))


def test_the_id_of_a_process_follows_from_the_first_event() -> None:
    assert BOOKED.when().aggregate.id == "7"
    assert given(Evening).when(TableBooked(table="8")).aggregate.id == "8"
    assert given(Evening, id="9").when().aggregate.id == "9"


DIFFERENCES = [
    (lambda t: t.sends(Lay(covers=3)), "expected that it sends Lay(covers=3), found Lay(covers=2) to (Table, '7')"
     " (covers is 2, expected 3)"),
    (lambda t: t.sends(Lay, to=(Table, "8")), "sends Lay to (Table, '8'), found Lay(covers=2) to (Table, '7')"),
    (lambda t: t.sends(Lay, to=Guest), "sends Lay to Guest, found Lay(covers=2) to (Table, '7')"),
    (lambda t: t.sends(RingUp), "sends RingUp, found Lay"),
    (lambda t: t.sends(Lay).sends(), "sends RingUp(number=1) to (Guest, 'first'), and nothing was expected"),
    (lambda t: t.sends(Lay).sends(RingUp).sends(Lay), "sends Lay, found nothing after Lay(covers=2) to (Table"),
    (lambda t: t.schedules(RingUp, after=60), "found RingUp {\"number\":0} to (Guest, 'first'), after=1:00:00,"
     " key='late' (it is due after 1:00:00, expected 60)"),
    (lambda t: t.schedules(RingUp(number=3)), "(number is 0, expected 3)"),
    (lambda t: t.schedules(Lay), "(it is a RingUp)"),
    (lambda t: t.schedules(RingUp, to=(Table, "1"), key="x", every="* * * * *"), "(expected to Table; expected to '1';"
     " every is None, expected '* * * * *'; its key is 'late', expected 'x')"),
    (lambda t: t.schedules(RingUp, at=datetime(2031, 1, 1, tzinfo=UTC)), "it is due at 2001-01-01 01:00:00+00:00,"
     " expected 2031"),
    (lambda t: t.schedules(RingUp).schedules(), "schedules FreeTable {\"by\":\"cleaner\"}"),
    (lambda t: t.unschedules("late"), "expected that it unschedules 'late', found nothing"),
    (lambda t: t.ends(), "expected that the process ends, and it does not"),
    (lambda t: t.ignores(), "expected that the process ignores it, and it reacts"),
    (lambda t: t.then(TableFreed), "- TableFreed"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "text"), DIFFERENCES, ids=map(str, range(len(DIFFERENCES))))
def test_a_difference_is_shown_with_the_story(check, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssertionError) as raised:
        check(given(Evening).when(TableBooked(table="7")))
    assert str(raised.value).startswith("Evening '7', given nothing, when TableBooked(table='7', guests=2)")
    assert text in str(raised.value)


def test_an_ignored_event_is_named_as_the_reason_that_nothing_is_sent() -> None:
    with pytest.raises(
        AssertionError, match="found nothing: the event is ignored, because no process has started"
    ):
        given(Evening).when(GuestsArrived(table="7")).sends(Lay)


def test_state_that_a_reaction_changes_and_a_replay_would_lose_is_found() -> None:
    with pytest.raises(
        AssertionError, match="cheats is 1 but 0 after a replay. Change state in apply methods alone"
    ):
        given(Evening).when(TableBooked(table="7", guests=30))


def test_events_that_do_not_reach_the_process_are_refused() -> None:
    with pytest.raises(InvalidAggregate, match=r"GuestsArrived\(table='8'\) belongs to '8', and this is '7'"):
        BOOKED.when(GuestsArrived(table="8"))
    with pytest.raises(
        InvalidAggregate, match=r"it does not react to GuestsAreLate\(\); it reacts to TableBooked"
    ):
        BOOKED.when(GuestsAreLate())


def test_a_scenario_may_be_continued_in_several_ways() -> None:
    assert isinstance(BOOKED, GivenProcess)
    BOOKED.when(FreeTable(by="a")).leaves(freed="a")
    BOOKED.when(FreeTable(by="b")).leaves(freed="b")
    assert repr(BOOKED) == "given(Evening, TableBooked(table='7', guests=2))"


def test_aggregates_schedule_commands_too() -> None:
    class Alarm(AggregateRoot):
        @handles
        def set_for(self, command: RingUp) -> None:
            self.schedule(Clear(), to=(Table, "7"), every="0 9 * * mon", key="weekly")

    given(Alarm).when(RingUp()).then().schedules(Clear(), to=(Table, "7"), every="0 9 * * mon", key="weekly")
