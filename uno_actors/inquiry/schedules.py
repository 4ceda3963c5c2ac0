"""What is to be sent later, and why it was not sent: findings of facts, without any I/O."""

from collections.abc import Iterator

from uno_actors.inquiry.explanation import Finding, Remedy
from uno_actors.inquiry.facts import Facts, ScheduleFacts
from uno_actors.inquiry.handlers import obstacle_of
from uno_actors.inquiry.remedies import Remedies
from uno_actors.inquiry.words import age, error_of, event_of, moment
from uno_actors.scheduling.due_list import NAME, SENDER
from uno_actors.scheduling.entries import ScheduleInfo
from uno_actors.store.logs import log_of_position
from uno_actors.store.records import StoredRecord

GRACE = 2.0
"""Seconds by which a command may be late before that is worth a reason."""


def of_schedules(facts: Facts, remedies: Remedies) -> Iterator[Finding]:
    """The scheduled commands of the id."""
    for found in facts.schedules:
        if found.entry is not None:
            yield of_schedule(facts, found.entry, remedies, is_listed=found.is_listed)
        elif found.last is not None:
            yield _of_time(facts, found, found.last, remedies)


def _of_time(facts: Facts, found: ScheduleFacts, last: StoredRecord, remedies: Remedies) -> Finding:
    """What became of the last time of a schedule that has come."""
    when = moment(last.record.timestamp)
    if found.sent is None or found.due is None:
        what = (
            "was cancelled"
            if last.record.event_type.endswith("Unscheduled")
            else "was left out, because it was late"
        )
        return Finding(
            f"What was scheduled under the key {found.key!r} {what}, at {when}.", "failed", found.key
        )
    says = f"{found.to}, scheduled under the key {found.key!r}, was due at {moment(found.due)}"
    log = log_of_position(last.position)
    senders = facts.handlers_named(SENDER)
    sender = next((each for each in senders if log_of_position(each.info.position) == log), None)
    running = None if sender is None else facts.running(sender.name)
    position = 0 if sender is None else max(sender.info.position, running.position if running else 0)
    letter = next(
        (each for each in (sender.letters if sender else ()) if each.position == last.position), None
    )
    if letter is not None:
        mend = (remedies.retry(letter.handler, last.position), remedies.why(found.sent))
        says += f", and was refused at {moment(letter.last_failed)}: {error_of(letter.error)}."
        return Finding(says, "failed", found.key, mend)
    if sender is not None and position < last.position:
        obstacle = obstacle_of(facts, sender, remedies, last.position - position)
        says += f", and was not sent by the handler {SENDER}, because {obstacle.why}."
        return Finding(says, obstacle.state, found.key, obstacle.remedies)
    if found.recorded is None:
        says += (
            f" and was sent, at {when}. It has recorded nothing: it was refused, or had nothing to record."
        )
        return Finding(says, "note", found.key, (remedies.why(found.sent),))
    says += f" and was sent, at {when}. It has recorded {event_of(found.recorded)}."
    return Finding(says, "done", found.key, (remedies.why(found.sent),))


def of_schedule(facts: Facts, entry: ScheduleInfo, remedies: Remedies, *, is_listed: bool = True) -> Finding:
    """When a scheduled command is due, and why it is late."""
    late = (facts.now - entry.due).total_seconds()
    command = entry.command
    to = f"{command.aggregate_type}<{command.aggregate_id}>"
    every = "" if entry.every is None else f", and again at every {entry.every!r} ({entry.tz})"
    what = f"{command.command} to {to}, scheduled under the key {entry.key!r},"
    mend = (remedies.cancel_schedule(entry.id),) if is_listed else ()
    if late < GRACE:
        says = f"{what} is due at {moment(entry.due)}, in {age(max(0.0, -late))}{every}."
        return Finding(says, "waits", entry.key, mend, tuple(_not_running(facts, remedies)))
    says = f"{what} was due at {moment(entry.due)}, {age(late)} ago, and was not sent{every}."
    reasons = tuple(_not_running(facts, remedies))
    if not reasons:
        reasons = (Finding("The scheduler runs; it sends what is due in the order of the times.", "waits"),)
    run = (remedies.run_schedule(entry.id),) if is_listed else ()
    return Finding(says, "stuck", entry.key, (*run, *mend), reasons)


def _not_running(facts: Facts, remedies: Remedies) -> Iterator[Finding]:
    """Why the scheduler does not send what is due."""
    for name in (NAME, SENDER):
        for handler in facts.handlers_named(name):
            running = facts.running(name)
            if handler.info.paused:
                obstacle = obstacle_of(facts, handler, remedies, 0)
                yield Finding(
                    f"The scheduler does not run: {obstacle.why}.", "stuck", name, obstacle.remedies
                )
                return
            if handler.is_leased or (running is not None and running.is_leased):
                continue
            yield Finding("The scheduler does not run in any process.", "stuck", name, (_start(facts),))
            return
    if not any(facts.handlers_named(NAME)) and not any(process.schedules for process in facts.processes):
        yield Finding("The scheduler has not run on this store yet.", "stuck", NAME, (_start(facts),))


def _start(facts: Facts) -> Remedy:
    if facts.processes:
        names = ", ".join(sorted({process.system for process in facts.processes}))
        return Remedy("To run it", f"let one system have scheduler=True; {names} run without it")
    return Remedy(
        "To run it", "start a program that serves these aggregates; each system runs the scheduler by default"
    )
