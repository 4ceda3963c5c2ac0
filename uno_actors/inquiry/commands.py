"""What became of a command: findings of facts, without any I/O."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from uno_actors.inquiry.explanation import Finding, Remedy, State
from uno_actors.inquiry.facts import CommandFacts, Facts, ProcessFacts
from uno_actors.inquiry.handlers import of_event
from uno_actors.inquiry.remedies import Remedies
from uno_actors.inquiry.words import age, error_of, event_of, moment
from uno_actors.printable import counted

MUST_NOT_WAIT = Remedy(
    "A method of an aggregate must not wait or compute for long",
    "move that into a handler, and send a command with the result",
)


def of_command(facts: Facts, remedies: Remedies) -> Iterator[Finding]:
    """Where the command of the id is now, and what became of it."""
    if facts.log.of_command:
        yield _recorded(facts, remedies)
    for process in facts.processes:
        for command in process.commands:
            yield _under_way(facts, process, command)
        for dead in process.dead:
            says = (
                f"{dead.message} {facts.id} was told to {dead.actor} and was not handled:"
                f" {error_of(dead.reason)}, at {moment(dead.at)}, in process {process.process}."
            )
            yield Finding(says, "failed", dead.actor)
        if not process.commands and not process.dead and not facts.log.of_command:
            yield from _of_steps(facts, process)


ENDS: Mapping[str, tuple[str, State]] = {
    "rejected": ("was rejected by", "failed"),
    "timed out": ("was not answered in time by", "failed"),
    "failed": ("has failed at", "failed"),
    "answered": ("was answered by", "done"),
}
"""The last steps of commands, in words."""


def _of_steps(facts: Facts, process: ProcessFacts) -> Iterator[Finding]:
    """What the flight recorder of a process knows of a command that is not in the log."""
    steps = [step for step in process.steps if step.command_id == facts.id]
    if not steps:
        return
    last = next((step for step in reversed(steps) if step.kind in ENDS), steps[-1])
    verb, state = ENDS.get(last.kind, (f"was {last.kind} to", "note"))
    when = moment(datetime.fromtimestamp(last.time, UTC))
    place = next((step.position for step in reversed(steps) if step.position), None)
    recorded = "it has recorded nothing" if place is None else f"its last event is at position {place}"
    recorded = f"; {recorded}" if last.kind == "answered" else ""
    reason = "" if last.reason is None else f": {error_of(last.reason)}"
    where = f"in process {process.process} ({process.node})"
    says = f"{last.what} {facts.id} {verb} {last.who}, {where}, at {when}{recorded}"
    yield Finding(f"{says}{reason}.", state, last.who)


def _recorded(facts: Facts, remedies: Remedies) -> Finding:
    events = facts.log.of_command
    last = events[-1]
    when = moment(last.record.timestamp)
    if len(events) == 1:
        says = f"Command {facts.id} is recorded as {event_of(last)}, at {when}."
    else:
        others = ", ".join(event_of(stored) for stored in events)
        says = f"Command {facts.id} is recorded as {counted(len(events), 'event')}, at {when}: {others}."
    below = [*_cause(facts), *_repetition(facts)]
    for stored in events:
        found = list(of_event(facts, stored, remedies))
        if len(events) == 1:
            below += found
        else:
            below.append(Finding(f"{event_of(stored)}:", below=tuple(found)))
    below += effects(facts, remedies)
    return Finding(says, "done", str(last.record.stream or ""), below=tuple(below))


def _cause(facts: Facts) -> Iterator[Finding]:
    for stored in facts.log.causes[:1]:
        yield Finding(f"It was caused by {event_of(stored)} ({stored.record.event_id}).")


def _repetition(facts: Facts) -> Iterator[Finding]:
    """Whether the command is recognised if it is sent again."""
    last = facts.log.of_command[-1].record
    since = facts.newest - (last.aggregate_version or 0)
    remembers = max((process.remembers for process in facts.processes), default=0)
    if remembers and since >= remembers:
        yield Finding(
            f"Sent again, it would not be recognised: {counted(since, 'event')} of {last.stream} follow, and the"
            f" system remembers the commands of {remembers:,}. Give since= to ask."
        )


def effects(facts: Facts, remedies: Remedies) -> Iterator[Finding]:
    """What an event or a command has caused."""
    found = facts.log.effects
    if not found:
        return
    shown = tuple(Finding(f"{event_of(stored)}.") for stored in found[:5])
    first = facts.log.event or facts.log.of_command[0]
    more = (remedies.trace(first.record.correlation_id),) if first.record.correlation_id else ()
    yield Finding(f"It has caused {counted(len(found), 'event')}:", remedies=more, below=shown)


# --- under way ---


def _under_way(facts: Facts, process: ProcessFacts, command: CommandFacts) -> Finding:
    stream = f"{command.aggregate_type}<{command.aggregate_id}>"
    what, where = f"{command.command} {command.command_id}", f"in process {process.process} ({process.node})"
    lasting = "" if command.seconds is None else f" for {age(command.seconds)}"
    at = "" if command.line is None else f", now at {command.line}"
    match command.stage:
        case "is decided":
            says = (
                f"{what} is being decided by {stream}, {where},{lasting}{at}. Until it ends, this process handles"
                " nothing else on its event loop."
            )
            return Finding(says, "stuck", stream, (MUST_NOT_WAIT,))
        case "is recorded":
            since = "" if command.seconds is None else f" {age(command.seconds)}"
            says = f"{what} was decided by {stream}, {where}; its events have waited{since} for the store."
            return Finding(says, "waits", stream)
        case "is over":
            says = f"{what} was not handled by {stream}, {where}: the time of its sender was over before its turn came."
            return Finding(says, "failed", stream)
        case "travels":
            return _travels(facts, command, f"{what} was sent to node {command.node}, the owner of {stream},")
        case "has no node":
            refused = "" if command.obstacle is None else f": {command.obstacle}"
            says = f"{what} has waited{lasting} {where} for a node that serves it for {stream}{refused}."
            return Finding(says, "stuck", stream, (_start_one(command.aggregate_type),))
    return _in_mailbox(process, command, f"{what} waits in the mailbox of {stream}, {where}")


def _in_mailbox(process: ProcessFacts, command: CommandFacts, begin: str) -> Finding:
    stream = f"{command.aggregate_type}<{command.aggregate_id}>"
    lasting = "" if command.seconds is None else f" It was asked {age(command.seconds)} ago."
    place = f"at place {command.place} of {command.waiting}"
    at = "" if command.line is None else f", now at {command.line}"
    if command.behind is not None and command.behind_seconds is not None:
        running = f"behind {command.behind}, which has been running for {age(command.behind_seconds)}{at}"
        return Finding(f"{begin}, {place}, {running}.{lasting}", "stuck", stream, (MUST_NOT_WAIT,))
    before = "" if command.behind is None else f", behind {command.behind}"
    because = "" if command.obstacle is None else f", because {command.obstacle}"
    if process.held_for is not None:
        because = f", because the program has held the event loop of the process for {age(process.held_for)}"
        because += "" if process.line is None else f", now at {process.line}"
    state: State = "waits" if process.held_for is None else "stuck"
    return Finding(f"{begin}, {place}{before}{because}.{lasting}", state, stream)


def _travels(facts: Facts, command: CommandFacts, begin: str) -> Finding:
    stream = f"{command.aggregate_type}<{command.aggregate_id}>"
    since = f"{age(command.seconds or 0)} ago"
    node = facts.node(command.node)
    if node is None and facts.nodes:
        return Finding(
            f"{begin} {since}, which has ended since; it is sent to the next owner.", "waits", stream
        )
    if node is not None and node.unreachable is not None:
        says = f"{begin} {since}, which does not answer: {node.unreachable}."
        return Finding(says, "stuck", stream, (Remedies.kill(node.host, node.process),))
    return Finding(f"{begin} {since}, which has not answered yet.", "waits", stream)


def _start_one(aggregate_type: str) -> Remedy:
    return Remedy(
        "To have it handled", f"start a node that serves {aggregate_type}, with the role 'aggregates'"
    )
