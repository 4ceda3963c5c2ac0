"""What became of an event, or of all events of a correlation: findings of facts, without any I/O."""

from collections.abc import Iterator

from uno_actors.inquiry.commands import effects
from uno_actors.inquiry.explanation import Finding
from uno_actors.inquiry.facts import Facts
from uno_actors.inquiry.gathering import ASKED
from uno_actors.inquiry.handlers import of_event
from uno_actors.inquiry.remedies import Remedies
from uno_actors.inquiry.words import event_of, moment
from uno_actors.printable import counted


def of_event_id(facts: Facts, remedies: Remedies) -> Iterator[Finding]:
    """What caused the event of the id, what it caused, and who has handled it."""
    stored = facts.log.event
    if stored is None:
        return
    record = stored.record
    topic = "" if record.topic is None else f", topic {record.topic}"
    says = f"Event {record.event_id} is {event_of(stored)}, recorded at {moment(record.timestamp)}{topic}."
    below = [
        *_causes(facts),
        *of_event(facts, stored, remedies),
        *effects(facts, remedies),
    ]
    yield Finding(says, "done", str(record.stream or ""), below=tuple(below))


def _causes(facts: Facts) -> Iterator[Finding]:
    """The command that caused an event, and the events that caused that."""
    stored, causes = facts.log.event, facts.log.causes
    assert stored is not None
    record = stored.record
    direct = causes[0] if causes and causes[0].record.event_id == record.causation_id else None
    if direct is not None:
        yield Finding(f"It was caused by {event_of(direct)} ({direct.record.event_id}).")
    elif record.causation_id is not None:
        origin = "" if not causes else f", and that by {event_of(causes[0])} ({causes[0].record.event_id})"
        yield Finding(f"It was caused by command {record.causation_id}{origin}.")


def of_correlation(facts: Facts, remedies: Remedies) -> Iterator[Finding]:
    """What followed from one first message, and where it is not done."""
    stored, total = facts.log.correlated, facts.log.correlated_total
    if not stored:
        return
    first, last = stored[0].record, stored[-1].record
    says = (
        f"Correlation {facts.id} has {counted(total, 'event')}, from {moment(first.timestamp)} to"
        f" {moment(last.timestamp)}."
    )
    below = []
    for each in stored[:ASKED]:
        handled = tuple(
            finding for finding in of_event(facts, each, remedies) if finding.state not in ("done", "note")
        )
        says_of = f"{event_of(each)}."
        below.append(Finding(says_of if not handled else f"{event_of(each)}:", "done", below=handled))
    if total > len(below):
        below.append(Finding(f"{counted(total - len(below), 'further event')}."))
    if all(not finding.below for finding in below) and not facts.processes and facts.handlers:
        below.append(Finding("Which handlers have these events is known only while the program runs."))
    yield Finding(says, "done", "", (remedies.trace(facts.id),), tuple(below))
