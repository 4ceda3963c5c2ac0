"""The commands that a log holds, with the version of the aggregate before each."""

from datetime import UTC, datetime

from uno_actors import AggregateRoot, Command, DomainEvent, EventRegistry, handles
from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.domain.schedules import Fired
from uno_actors.rehearsal.decisions import RecordedCommand, decided
from uno_actors.rehearsal.recorded_commands import recorded_commands
from uno_stores import InMemoryEventStore


class Remind(Command[int]):
    times: int


class RemindedOnce(DomainEvent):
    n: int


class Reminder(AggregateRoot):
    @handles
    def remind(self, command: Remind) -> int:
        for n in range(command.times):
            self.register_event(RemindedOnce(n=n))
        return self.version

    def apply_reminded_once(self, event: RemindedOnce) -> None: ...


def fired(number: int, times: int) -> Fired:
    command = OutgoingCommand.of("Reminder", "a", Remind(times=times))
    due = datetime(2026, 1, number, tzinfo=UTC)
    return Fired(schedule="s", key="k", owner_type=None, owner_id=None, command=command, due=due)


async def test_a_command_that_a_schedule_has_fired_is_found_with_the_version_before_it() -> None:
    store = InMemoryEventStore(EventRegistry([RemindedOnce, Fired]))
    aggregate = Reminder("a")
    commands = []
    for number, times in enumerate((2, 3, 0), start=1):  # the last one has recorded nothing
        event = fired(number, times)
        position = (await store.append(event.stamped(aggregate_id="s", aggregate_type="Schedules")))[
            0
        ].position
        command = event.command.read(Remind, event.command_id)
        commands.append(RecordedCommand(position, "Reminder", "a", "Remind", event.command.fields,
                                        event.command_id, aggregate.version))  # fmt: skip
        aggregate.handle(command)
        if pending := aggregate.take_pending_events():
            await store.append(*pending)
    ends = [await store.last_position()]
    assert await recorded_commands(store, ends, 10) == commands[:2]
    assert await recorded_commands(store, ends, 1) == commands[1:2]
    decision = decided(Reminder("a").replay([]), commands[0])
    assert (decision.outcome, [name for name, _ in decision.events]) == ("accepted", ["RemindedOnce"] * 2)
