"""Why a handler has not handled an event, or what keeps it: findings of facts, without any I/O."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from uno_actors.handlers.partitions import log_of_partition, whole_name
from uno_actors.inquiry.explanation import Finding, Remedy, State
from uno_actors.inquiry.facts import Facts, HandlerFacts, ProcessFacts, RunningHandler
from uno_actors.inquiry.remedies import Remedies
from uno_actors.inquiry.words import age, behind, error_of, listed, moment
from uno_actors.printable import counted
from uno_actors.store.handler_names import partition_in
from uno_actors.store.logs import log_of_position, shard_of_record
from uno_actors.store.records import DeadLetter, StoredRecord

LONG = 1.0
"""Seconds from which on the call under way is the reason why a handler is behind."""


class Obstacle(NamedTuple):
    """What keeps a handler from its next event.

    Attributes:
        why: In words that follow "because".
        state: Whether it continues by itself.
        remedies: What mends it.
    """

    why: str
    state: State
    remedies: tuple[Remedy, ...] = ()


# --- of one event ---


def of_event(facts: Facts, stored: StoredRecord, remedies: Remedies) -> Iterator[Finding]:
    """What became of an event at each handler.

    Args:
        facts: All facts.
        stored: The event.
        remedies: Of the place.
    """
    uninterested: dict[str, str] = {}
    past: list[str] = []
    taken: set[str] = set()
    for handler in facts.handlers:
        running, whole = facts.running(handler.name), whole_name(handler.name)
        if is_internal(handler.name) or not _may_have(handler, running, stored, len(facts.ends)):
            if running is not None and not is_internal(handler.name):
                uninterested[whole] = f"{whole} takes {running.takes}"
            continue
        taken.add(whole)
        letter = next((each for each in handler.letters if each.position == stored.position), None)
        if letter is not None:
            yield _of_letter(handler, letter, remedies)
        elif running is not None and running.began is not None and running.began >= stored.position:
            yield _of_later_start(running, running.began, stored, remedies)
        elif _position(handler, running) < stored.position:
            yield _of_waiting(facts, handler, stored, remedies)
        elif running is None:
            past.append(handler.name)
        else:
            yield _of_handled(handler, running)
    if past:
        yield Finding(
            f"Past it: {listed(past)}. Which events they subscribe to is known only while the program runs.",
            "done",
        )
    others = [each for name, each in uninterested.items() if name not in taken]
    if others:
        yield Finding(f"Not for it: {listed(others)}.")
    if all(is_internal(handler.name) for handler in facts.handlers):
        yield Finding("No handler has run on this store.")


def is_internal(name: str) -> bool:
    """Whether a handler is one of the system's own, of which people know nothing."""
    return whole_name(name).startswith("uno_actors.")


def _may_have(handler: HandlerFacts, running: RunningHandler | None, stored: StoredRecord, logs: int) -> bool:
    """Whether a handler or partition gets an event, as far as that is known."""
    if any(letter.position == stored.position for letter in handler.letters):
        return True
    if running is not None:
        return stored.position in running.wants
    part = partition_in(handler.name)
    if part is None:
        return log_of_position(handler.info.position) == log_of_position(stored.position)
    _, number, count = part
    if log_of_partition(number, logs) != log_of_position(stored.position):
        return False
    return shard_of_record(stored.record) % count == number - 1


def _of_letter(handler: HandlerFacts, letter: DeadLetter, remedies: Remedies) -> Finding:
    says = (
        f"{handler.name} has given it up after {counted(letter.attempts, 'attempt')}, the last at"
        f" {moment(letter.last_failed)}: {error_of(letter.error)}. It is one of its dead letters."
    )
    if handler.info.retries:
        return Finding(
            f"{says} {counted(handler.info.retries, 'letter')} will be tried again.", "waits", handler.name
        )
    mend = (
        remedies.show_letter(handler.name, letter.position),
        remedies.retry(handler.name, letter.position),
    )
    return Finding(says, "failed", handler.name, mend)


def _of_later_start(running: RunningHandler, began: int, stored: StoredRecord, remedies: Remedies) -> Finding:
    says = f"{running.name} starts at {running.start!r}: it began after position {began}, and never gets this event."
    return Finding(says, "stuck", running.name, (remedies.replay(running.name, stored.position - 1),))


def _of_handled(handler: HandlerFacts, running: RunningHandler) -> Finding:
    may_be_older = running.start == "latest" and running.began is None
    unless = f", unless it began later: it starts at {running.start!r}" if may_be_older else ""
    return Finding(f"{handler.name} has handled it{unless}.", "done", handler.name)


def _position(handler: HandlerFacts, running: RunningHandler | None) -> int:
    """The position of a handler as the process says that runs it, or else as the store says."""
    at = running.position if running is not None and running.is_leased else 0
    return max(handler.info.position, at)


def _of_waiting(facts: Facts, handler: HandlerFacts, stored: StoredRecord, remedies: Remedies) -> Finding:
    running = facts.running(handler.name)
    events = max(1, stored.position - _position(handler, running))
    seconds = max(0.0, (facts.now - stored.record.timestamp).total_seconds())
    ended = running is not None and (running.gave_up is not None or running.state == "stopped")
    if running is not None and running.failing_at == stored.position and not ended:
        return _of_failing(handler, running)
    if running is not None and running.busy_at == stored.position:
        says = f"{handler.name} has been handling it for {age(running.busy_for)}{_at(running.line)}."
        return Finding(says, "waits", handler.name)
    obstacle = obstacle_of(facts, handler, remedies, events)
    says = f"{handler.name} has not handled it: it is {behind(events, seconds)}, because {obstacle.why}."
    return Finding(says, obstacle.state, handler.name, obstacle.remedies)


def _of_failing(handler: HandlerFacts, running: RunningHandler) -> Finding:
    return Finding(f"{handler.name} has failed at it {_failure(running)}.", "waits", handler.name)


def _failure(running: RunningHandler) -> str:
    """How often a handler has failed at an event, when it tries again, and the error."""
    times = f"{running.attempts} of {running.max_attempts} times"
    if running.attempts >= running.max_attempts:
        after = "and sets it aside as a dead letter"
    elif running.restart_in is None:
        after = "and tries again now"
    else:
        after = f"and tries again in {age(running.restart_in)}"
    return f"{times} {after}: {error_of(running.error or '')}"


def _at(line: str | None) -> str:
    return "" if line is None else f", now at {line}"


# --- of a handler ---


def obstacle_of(facts: Facts, handler: HandlerFacts, remedies: Remedies, events: int) -> Obstacle:  # noqa: PLR0911
    """What keeps a handler from its next event.

    Args:
        facts: All facts.
        handler: The handler, which is behind.
        remedies: Of the place.
        events: By how many events it is behind.
    """
    name, running = handler.name, facts.running(handler.name)
    if handler.info.paused:
        return Obstacle(_paused(handler), "stuck", (remedies.resume(whole_name(name)),))
    if (lost := _lost_holder(facts, handler, running)) is not None:
        return lost
    if not handler.is_leased and (running is None or not running.is_leased):
        return _runs_nowhere(facts, handler, remedies)
    if running is None:
        where = "" if handler.info.node is None else f" on node {handler.info.node}"
        return Obstacle(f"it is {handler.info.state}{where}, which could not be asked", "waits")
    if running.gave_up is not None:
        mend = (remedies.restart_child(running.supervisor, name),)
        return Obstacle(f"its supervisor {running.supervisor} gave up: {running.gave_up}", "stuck", mend)
    if running.state == "stopped":
        mend = (remedies.restart_child(running.supervisor, name),)
        return Obstacle("it was stopped", "stuck", mend)
    if running.failing_at is not None and running.error is not None:
        return Obstacle(f"it has failed at position {running.failing_at}, {_failure(running)}", "waits")
    if running.restart_in is not None or running.state == "restarting":
        when = "" if running.restart_in is None else f" in {age(running.restart_in)}"
        reason = "" if running.error is None else f" after {error_of(running.error)}"
        return Obstacle(f"its supervisor {running.supervisor} restarts it{when}{reason}", "waits")
    if (of_process := _obstacle_in(facts.process_of(name))) is not None:
        return of_process
    if running.busy_for >= LONG:
        return Obstacle(_busy(running), "waits")
    if running.state == "handing over":
        return Obstacle("it is being handed over to another node", "waits")
    rebuilt = "its view is being built from the first event" if handler.is_building else ""
    return Obstacle(_works(running, events, rebuilt), "waits")


def _obstacle_in(process: ProcessFacts | None) -> Obstacle | None:
    """What keeps all handlers of a process from their next events."""
    if process is None:
        return None
    if process.held_for is not None:
        return Obstacle(_held(process), "stuck")
    if process.router is not None:
        why = f"the router of process {process.process}, which hands out events, has failed and is restarted"
        return Obstacle(f"{why}: {error_of(process.router)}", "waits")
    return None


def _paused(handler: HandlerFacts) -> str:
    pause = handler.pause
    by = f" by {pause.by}" if pause is not None and pause.by else ""
    since = f" since {moment(pause.at)}" if pause is not None and pause.at is not None else ""
    note = f', with the note "{pause.note}"' if pause is not None and pause.note else ""
    return f"it is paused{by}{since}{note}"


def _lost_holder(facts: Facts, handler: HandlerFacts, running: RunningHandler | None) -> Obstacle | None:
    """The obstacle if the node that runs a handler answers no more."""
    if running is not None and running.is_leased:
        return None
    node = facts.node(handler.info.node)
    if not handler.is_leased:
        return None
    if node is not None and node.unreachable is not None:
        why = f"the node that runs it, {node.name}, does not answer: {node.unreachable}"
        return Obstacle(why, "stuck", (Remedies.kill(node.host, node.process),))
    for silent in facts.silent:
        if node is None or node.process == silent.process:
            why = f"the process that runs it, process {silent.process}, does not answer: {silent.reason}"
            return Obstacle(why, "stuck", (Remedies.kill("", silent.process),))
    return None


def _runs_nowhere(facts: Facts, handler: HandlerFacts, remedies: Remedies) -> Obstacle:
    running = facts.running(handler.name)
    if running is not None:
        return Obstacle(f"no process runs it now, and {_whose(facts, handler.name)} is about to", "waits")
    if not facts.processes:
        return Obstacle("no process runs it: start the program that has it", "stuck")
    name = whole_name(handler.name)
    why = f"no process runs it: {_having(facts.processes)} not have it"
    running_now = [each for process in facts.processes for each in process.handlers if each.is_leased]
    new = {each.name: each.began for each in running_now if each.began is not None and each.name != name}
    renamed = get_close_matches(name, new, 1)
    for other in renamed:
        began, position = new[other] or 0, handler.info.position
        if began >= position:
            why += f". Perhaps it has another name now: {other} is new, and began after position {began}"
            skipped = (remedies.replay(other, position),) if began > position else ()
            return Obstacle(why, "stuck", (*skipped, remedies.forget(name)))
    return Obstacle(why, "stuck", (remedies.forget(name),))


def _whose(facts: Facts, name: str) -> str:
    for process in facts.processes:
        if any(each.name == name for each in process.handlers):
            return f"process {process.process}"
    return "a process"


def _having(processes: Sequence[ProcessFacts]) -> str:
    names = [f"{process.system} in process {process.process}" for process in processes]
    return f"{listed(names, 3)} {'does' if len(names) == 1 else 'do'}"


def _held(process: ProcessFacts) -> str:
    return (
        f"the program has held the event loop of process {process.process} for {age(process.held_for or 0)}"
        f"{_at(process.line)}"
    )


def _busy(running: RunningHandler) -> str:
    what = (
        "its last call has been running"
        if running.busy_at is None
        else f"it has been at position {running.busy_at}"
    )
    return f"{what} for {age(running.busy_for)}{_at(running.line)}"


def _works(running: RunningHandler, events: int, rebuilt: str) -> str:
    rate = running.rate
    if rate:
        pace = f"it works along at {round(rate):,} events/s, ready in about {age(events / rate)}"
    else:
        pace = f"it is {running.state} at position {running.position}, and has its turn next"
    return f"{rebuilt}: {pace}" if rebuilt else pace


# --- answers about a handler ---


def of_handler(facts: Facts, remedies: Remedies) -> Iterator[Finding]:
    """How the handler of the id stands, each of its partitions by itself."""
    found = list(facts.handlers_named(facts.id))
    parts = [_of_part(facts, handler, remedies) for handler in found]
    if len(parts) == 1:
        yield parts[0]
    elif parts:
        stuck = [part for part in parts if part.state != "done"]
        says = f"Handler {facts.id} has {len(parts)} partitions; {len(parts) - len(stuck)} of them are up to date."
        yield Finding(says, "note", facts.id, below=tuple(stuck))


def _of_part(facts: Facts, handler: HandlerFacts, remedies: Remedies) -> Finding:
    running = facts.running(handler.name)
    info = handler.info
    position = running.position if running is not None and running.is_leased else info.position
    lag = max(0, info.position + info.lag - position)
    where = _where(facts, handler)
    below = tuple(_of_handler_letters(handler, remedies))
    kind = "View" if info.view is not None else "Handler"
    if not lag:
        obstacle = obstacle_of(facts, handler, remedies, 0) if _needs_attention(facts, handler) else None
        because = "" if obstacle is None else f" But {obstacle.why}."
        says = f"{kind} {handler.name} has come to the end of the log, position {position}{where}.{because}"
        state: State = "done" if obstacle is None else obstacle.state
        return Finding(says, state, handler.name, () if obstacle is None else obstacle.remedies, below)
    obstacle = obstacle_of(facts, handler, remedies, lag)
    says = (
        f"{kind} {handler.name} is {behind(lag, handler.seconds)}, at position {position}{where},"
        f" because {obstacle.why}."
    )
    return Finding(says, obstacle.state, handler.name, obstacle.remedies, below)


def _needs_attention(facts: Facts, handler: HandlerFacts) -> bool:
    """Whether a handler without lag would not handle the next event."""
    running = facts.running(handler.name)
    stopped = running is not None and (running.gave_up is not None or running.state == "stopped")
    runs = handler.is_leased or (running is not None and running.is_leased)
    return handler.info.paused or stopped or not runs


def _where(facts: Facts, handler: HandlerFacts) -> str:
    process = facts.process_of(handler.name)
    if process is not None:
        return f", in process {process.process} ({process.node})"
    return "" if handler.info.node is None else f", on node {handler.info.node}"


def _of_handler_letters(handler: HandlerFacts, remedies: Remedies) -> Iterator[Finding]:
    letters = sorted(handler.letters, key=lambda letter: letter.last_failed)
    if not letters:
        return
    last = letters[-1]
    says = (
        f"{counted(len(letters), 'dead letter')}; the last is {last.event_type} at position {last.position},"
        f" given up at {moment(last.last_failed)}: {error_of(last.error)}."
    )
    mend = (remedies.show_letter(handler.name, last.position), remedies.retry(handler.name, last.position))
    yield Finding(says, "failed", handler.name, mend)
