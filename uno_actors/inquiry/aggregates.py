"""Where an aggregate lives and what it does: findings of facts, without any I/O."""

from collections.abc import Iterator

from uno_actors.inquiry.commands import MUST_NOT_WAIT
from uno_actors.inquiry.explanation import Finding
from uno_actors.inquiry.facts import AggregateFacts, Facts, ProcessFacts, StreamFacts
from uno_actors.inquiry.remedies import Remedies
from uno_actors.inquiry.schedules import of_schedule
from uno_actors.inquiry.words import age, moment
from uno_actors.printable import counted
from uno_actors.store.codec import StreamId

SHOWN = 5
"""Schedules that an answer names."""


def of_aggregates(facts: Facts, remedies: Remedies) -> Iterator[Finding]:
    """Each aggregate of the id."""
    recorded = {each.stream for each in facts.streams}
    for stream in facts.streams:
        yield _of_stream(facts, stream, remedies)
    for process in facts.processes:
        for aggregate in process.aggregates:
            stream_id = StreamId(aggregate.aggregate_type, aggregate.aggregate_id)
            if stream_id not in recorded:
                recorded.add(stream_id)
                yield _of_stream(facts, StreamFacts(stream_id, 0), remedies)


def _of_stream(facts: Facts, found: StreamFacts, remedies: Remedies) -> Finding:
    stream, last = found.stream, found.last
    if last is None:
        says = f"Aggregate {stream} has no events."
    else:
        record = last.record
        by = "" if record.answered is None else f", recorded by command {record.answered}"
        says = (
            f"Aggregate {stream} is at version {found.version:,}; its last event is {record.event_type} at position"
            f" {last.position}, of {moment(record.timestamp)}{by}."
        )
    below = [*_places(facts, stream), *_snapshot(found)]
    below += [of_schedule(facts, entry, remedies) for entry in found.schedules[:SHOWN]]
    if (more := len(found.schedules) - SHOWN) > 0:
        below.append(Finding(f"{counted(more, 'further scheduled command')}."))
    return Finding(says, "done", str(stream), below=tuple(below))


def _snapshot(found: StreamFacts) -> Iterator[Finding]:
    if found.snapshot is not None:
        version, taken = found.snapshot
        yield Finding(f"It has a snapshot of version {version:,}, taken at {moment(taken)}.")


def _places(facts: Facts, stream: StreamId) -> Iterator[Finding]:
    """Where it is in memory, and who would load it."""
    found = [
        (process, aggregate)
        for process in facts.processes
        for aggregate in process.aggregates
        if (aggregate.aggregate_type, aggregate.aggregate_id) == stream
    ]
    for process, aggregate in found:
        yield _in_memory(process, aggregate)
    owner = facts.owners.get(stream)
    if found:
        if owner is not None and all(process.node != owner for process, _ in found):
            yield Finding(f"Commands for it go to node {owner} now.")
        return
    if owner is not None:
        node = facts.node(owner)
        if node is not None and node.unreachable is not None:
            says = f"Commands for it go to node {owner}, which does not answer: {node.unreachable}."
            yield Finding(says, "stuck", owner, (Remedies.kill(node.host, node.process),))
            return
        yield Finding(
            f"It is in the memory of no process that was asked; commands for it go to node {owner}."
        )
        return
    serving = [process for process in facts.processes if stream.aggregate_type in process.serves]
    if serving:
        names = ", ".join(f"process {process.process} ({process.node})" for process in serving)
        yield Finding(f"It is not in memory; its next command loads it, in {names}.")
    elif facts.processes:
        kinds = sorted({kind for process in facts.processes for kind in process.serves}) or ["none"]
        yield Finding(
            f"No process serves {stream.aggregate_type}; those that run serve {', '.join(kinds)}.", "stuck"
        )
    else:
        yield Finding("No process runs a system on this store.")


def _in_memory(process: ProcessFacts, aggregate: AggregateFacts) -> Finding:
    where = f"process {process.process} ({process.node})"
    if aggregate.deciding is not None:
        at = "" if aggregate.line is None else f", now at {aggregate.line}"
        says = (
            f"It is in the memory of {where} and is deciding {aggregate.deciding} for {age(aggregate.idle)}{at};"
            f" {counted(aggregate.waiting, 'command')} {'waits' if aggregate.waiting == 1 else 'wait'} behind it."
        )
        return Finding(says, "stuck", process.node, (MUST_NOT_WAIT,))
    version = "" if aggregate.version is None else f" at version {aggregate.version:,}"
    waiting = aggregate.waiting + aggregate.recording
    if waiting:
        what = []
        if aggregate.waiting:
            what.append(f"{counted(aggregate.waiting, 'command')} in its mailbox")
        if aggregate.recording:
            what.append(f"{counted(aggregate.recording, 'command')} decided, whose events wait for the store")
        because = "" if aggregate.obstacle is None else f", because {aggregate.obstacle}"
        return Finding(
            f"It is in the memory of {where}{version}, with {' and '.join(what)}{because}.", "waits"
        )
    failed = aggregate.obstacle is not None and "cannot" in aggregate.obstacle
    if failed:
        return Finding(f"In {where}, {aggregate.obstacle}.", "failed")
    return Finding(f"It is in the memory of {where}{version}, idle for {age(aggregate.idle)}.", "done")
