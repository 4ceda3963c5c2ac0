"""A scenario for the simulation, made of a recording and of the log.

Commands are not recorded, but the last event of a command has its fingerprint. So a command is found again if its
fields have the values of fields of its events: it is built from these, and its fingerprint proves that it is the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from uno_actors.aggregates.recording import is_command_of
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import UnoError, describe
from uno_actors.flight_recorder.steps import Step
from uno_actors.ops.sources import class_of_type
from uno_actors.printable import printable
from uno_actors.store.codec import StreamId, to_event
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord

ENDS = ("answered", "rejected", "timed out", "failed")
MOST_EVENTS = 256
"""Events of a stream that are searched for those of one command."""


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A command of a recording.

    Attributes:
        sent: Its first step.
        end: Its last step; ``None`` if it was under way.
        found: The command; ``None`` if it is not in the log.
        reason: Why it is not.
    """

    sent: Step
    end: Step | None = None
    found: Command[Any] | None = None
    reason: str = ""


def commands_in(steps: Iterable[Step]) -> list[SentCommand]:
    """The commands of a recording by their ids, ordered by time."""
    found: dict[str, SentCommand] = {}
    for step in steps:
        if step.command_id is None or step.aggregate_id is None or not step.what:
            continue
        known = found.setdefault(step.command_id, SentCommand(step))
        if step.kind in ENDS and (known.end is None or known.end.position is None):
            found[step.command_id] = replace(known, end=step)
    return sorted(found.values(), key=lambda each: each.sent.time)


async def looked_up(store: EventStore, sent: SentCommand) -> SentCommand:
    """``sent`` with the command as the log has it, or with the reason why it has it not."""
    end = sent.end
    if end is None:
        return replace(sent, reason="it was under way")
    if end.position is None:
        recorded = "it recorded nothing, and the log has no trace of it"
        return replace(sent, reason=recorded if end.kind == "answered" else f"{end.kind}: {end.reason or ''}")
    try:
        found = await _found(store, sent.sent, end.position)
    except (UnoError, LookupError) as error:
        return replace(sent, reason=describe(error))
    return replace(sent, reason=found) if isinstance(found, str) else replace(sent, found=found)


async def _found(store: EventStore, step: Step, position: int) -> Command[Any] | str:
    """The command whose last event is at ``position``, or why it is not sent."""
    stored = await store.record_at(position)
    if stored.record.answered != step.command_id:
        return f"position {position} has another command"
    if stored.record.command_causation_id is not None:
        return "a handler has sent it, and sends it again by itself"
    found = _same(_class_of(step), await _events_of(store, stored), stored)
    return found or "its fields are not those of its events, and the log has no others"


def _class_of(step: Step) -> type[Command[Any]]:
    aggregate = _aggregate_of(step)
    for kind in aggregate._commands:
        if kind.__name__ == step.what:
            return kind
    raise LookupError(f"{aggregate.__name__} handles no {step.what} today")


def _aggregate_of(step: Step) -> type[AggregateRoot]:
    aggregate = class_of_type(step.aggregate_type or "")
    if aggregate is None:
        raise LookupError(f"the module of --system knows no one aggregate {step.aggregate_type!r}")
    return aggregate


async def _events_of(store: EventStore, last: StoredRecord) -> Sequence[DomainEvent]:
    """The events of the command whose last one is ``last``, the last one first."""
    record = last.record
    stream = StreamId(record.aggregate_type or "", record.aggregate_id or "")
    version = record.aggregate_version or 0
    page = await store.read_stream(stream, max(0, version - MOST_EVENTS), min(version, MOST_EVENTS))
    own = [stored for stored in page if stored.record.causation_id == record.causation_id]
    return [to_event(each.record, store.event_registry, each.position) for each in reversed(own)]


def _same(kind: type[Command[Any]], events: Sequence[DomainEvent], last: StoredRecord) -> Command[Any] | None:
    """The command of this class whose fields are those of the events, if its fingerprint is the recorded one."""
    names = [name for name in kind.model_fields if name not in Command.model_fields]
    values: dict[str, Any] = {}
    for name in names:
        for event in events:
            if name in type(event).model_fields and name not in DomainEvent.model_fields:
                values.setdefault(name, getattr(event, name))
    required = {name for name in names if kind.model_fields[name].is_required()}
    for fields in (values, {name: value for name, value in values.items() if name in required}):
        try:
            command = kind(command_id=last.record.answered, **fields)
        except ValueError:  # of pydantic: a field is missing, or has another type
            continue
        if is_command_of(last.record, command):
            return command
    return None


def scenario(commands: Sequence[SentCommand], system: str, recording: str) -> Iterator[str]:
    """The lines of a Python file with the scenario ``recorded``.

    Args:
        commands: Ordered by time, each looked up.
        system: ``MODULE:NAME`` of the function that makes the system of a node of the simulation.
        recording: Says of what it is made.
    """
    module, _, name = system.partition(":")
    found = [each for each in commands if each.found is not None]
    classes = {_aggregate_of(each.sent) for each in found} | {type(each.found) for each in found}
    first = commands[0].sent.time if commands else 0.0
    yield f'"""{_quoted(recording)}: {len(found)} of {len(commands)} commands are in the log."""'
    yield ""
    yield f"from {module} import {name.partition('.')[0]}"
    yield from sorted(
        f"from {each.__module__} import {each.__qualname__.partition('.')[0]}" for each in classes
    )
    yield "from uno_actors.testing.simulation import replayed"
    yield ""
    yield "COMMANDS = ["
    yield "    # seconds, node, class and id of the aggregate, command"
    for each in commands:
        step = each.sent
        at = round(step.time - first, 6)
        if each.found is None:
            what = f"{at} {step.node}: {step.what} {step.command_id} for {step.who}: not sent; {each.reason}"
            yield f"    # {printable(what)}"
            continue
        kind = type(each.found).__qualname__
        built = f"{kind}.model_validate_json({each.found.model_dump_json(exclude_unset=True)!r})"
        place = f"{_aggregate_of(step).__qualname__}, {step.aggregate_id!r}"
        yield f"    ({at}, {step.node!r}, {place}, {built}),"
    yield "]"
    yield ""
    without_commands = "" if found else ", nodes=['node']"
    yield f"recorded = replayed({name}, COMMANDS{without_commands})"


def _quoted(text: str) -> str:
    return printable(text).replace("\\", "/").replace('"', "'")
