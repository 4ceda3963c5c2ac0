"""What a running system knows of an id, for an inquiry; see `uno_actors.inquiry`.

The functions only read, and may be called from any thread: while code of the program holds the event loop, no other
thread than the watchdog's can answer.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from uno_actors.actors.watchdog import watchdog
from uno_actors.aggregates.actor import AggregateActor
from uno_actors.aggregates.inspection import Deciding, Unanswered, deciding_now, unanswered
from uno_actors.cluster.hops import Hop
from uno_actors.domain.commands import Command
from uno_actors.errors import describe
from uno_actors.flight_recorder.steps import Step
from uno_actors.handlers.child import HandlerChild
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscription import Subscription
from uno_actors.inquiry.facts import (
    AggregateFacts,
    ChildFacts,
    CommandFacts,
    DeadFacts,
    ProcessFacts,
    Question,
    RunningHandler,
)
from uno_actors.store.logs import log_of_position
from uno_actors.store.records import StoredRecord
from uno_actors.supervision.supervisor import SupervisorActor
from uno_actors.system.runtime import Runtime
from uno_actors.system.work import seconds_of

ATTEMPTS = 5
"""How often values are read that another thread may change meanwhile."""
STEPS = 50
"""Steps that a process tells."""
NAMES = 5_000
"""Names of aggregates in memory that a process tells."""


def facts_of(name: str, runtime: Runtime, question: Question) -> ProcessFacts:
    """What a running system knows of an id.

    Args:
        name: Of the system.
        runtime: Its running parts.
        question: The id, and events of which it is asked which handlers subscribe to them.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _facts_of(name, runtime, question)
        except RuntimeError:  # a collection has changed while it was read on another thread
            continue
    return _facts_of(name, runtime, question)


def _facts_of(name: str, runtime: Runtime, question: Question) -> ProcessFacts:
    dispatcher = runtime.dispatcher
    is_elsewhere = dispatcher.thread != threading.get_ident()
    deciding = deciding_now(runtime.aggregates) if is_elsewhere else None
    held = watchdog.held(dispatcher) if is_elsewhere else None
    announcement = runtime.announcement
    return ProcessFacts(
        system=name,
        process=os.getpid(),
        node=name if announcement is None else announcement.member.name,
        held_for=None if held is None else held.seconds,
        line=None if held is None else held.line,
        router=_router(runtime),
        serves=tuple(sorted(runtime.aggregates.types)),
        remembers=runtime.aggregates.remember_commands,
        commands=tuple(_commands(runtime, question.id, deciding)),
        aggregates=tuple(_aggregates(runtime, question, deciding)),
        dead=tuple(_dead(runtime, question.id)),
        steps=_steps(runtime, question),
        handlers=tuple(_handlers(runtime, question.events)),
        children=tuple(_children(runtime, question.id)),
        schedules=runtime.scheduler.statistics().runs,
        names=tuple(_names(runtime)),
    )


# --- commands ---


def _commands(runtime: Runtime, wanted: str, deciding: Deciding | None) -> Iterator[CommandFacts]:
    if deciding is not None and deciding.envelope.command.command_id == wanted:
        stream = deciding.actor.stream
        yield CommandFacts(
            wanted,
            type(deciding.envelope.command).__name__,
            stream.aggregate_type,
            stream.aggregate_id,
            "is decided",
            deciding.seconds,
            line=deciding.line,
            waiting=deciding.actor.waiting,
        )
    for found in unanswered(runtime.aggregates, wanted):
        if deciding is None or found.envelope is not deciding.envelope:
            yield _waiting(found, deciding)
    for hop in () if runtime.node is None else runtime.node.under_way():
        if hop.envelope.command.command_id == wanted:
            yield _travelling(hop, runtime.clock.monotonic())


def _waiting(found: Unanswered, deciding: Deciding | None) -> CommandFacts:
    actor, envelope = found.actor, found.envelope
    obstacle = actor.obstacle
    if envelope.withdrawn:
        stage = "is over"
    elif found.place is None:
        stage = "is recorded"
    elif obstacle is not None and found.place == 1:
        stage = "loads"
    else:
        stage = "waits"
    first = next((each for each, is_decided in actor.commands() if not is_decided), None)
    behind = first if first is not envelope else None
    line = seconds = None
    if deciding is not None:  # of this aggregate, or of another one on the same loop
        line, seconds = deciding.line, deciding.seconds
        if deciding.actor is actor:
            behind = deciding.envelope
    return CommandFacts(
        envelope.command.command_id,
        type(envelope.command).__name__,
        actor.stream.aggregate_type,
        actor.stream.aggregate_id,
        stage,  # type: ignore[arg-type]
        found.seconds,
        found.place,
        actor.waiting,
        None if behind is None else type(behind.command).__name__,
        seconds if deciding is not None and deciding.actor is actor else None,
        line if deciding is not None and deciding.actor is actor else None,
        obstacle=obstacle,
    )


def _travelling(hop: Hop, now: float) -> CommandFacts:
    return CommandFacts(
        hop.envelope.command.command_id,
        type(hop.envelope.command).__name__,
        hop.stream.aggregate_type,
        hop.stream.aggregate_id,
        "has no node" if hop.node is None else "travels",
        now - hop.sent,
        node=hop.node,
        obstacle="; ".join(hop.refused.values()) or None,
    )


def _steps(runtime: Runtime, question: Question) -> tuple[Step, ...]:
    """The latest steps about the id; reading them takes a tenth of a second, so only where they are wanted."""
    recorder = runtime.dispatcher.recorder
    return () if recorder is None or not question.steps else recorder.steps_of(question.id)[-STEPS:]


def _dead(runtime: Runtime, wanted: str) -> Iterator[DeadFacts]:
    for dead in runtime.dead_messages:
        message = dead.message
        if isinstance(message, Command) and message.command_id == wanted:
            yield DeadFacts(dead.actor, type(message).__name__, dead.reason, dead.at)


# --- aggregates ---


def _aggregates(runtime: Runtime, question: Question, deciding: Deciding | None) -> Iterator[AggregateFacts]:
    now = runtime.clock.monotonic()
    for actor in runtime.aggregates.active():
        stream = actor.stream
        if stream in question.streams or question.id in (
            stream.aggregate_id,
            f"{stream.aggregate_type}/{stream.aggregate_id}",
            str(stream),
        ):
            yield _aggregate(actor, now, deciding)


def _aggregate(actor: AggregateActor, now: float, deciding: Deciding | None) -> AggregateFacts:
    instance = actor.instance
    is_deciding = deciding is not None and deciding.actor is actor
    return AggregateFacts(
        actor.stream.aggregate_type,
        actor.stream.aggregate_id,
        None if instance is None else instance.version,
        actor.waiting,
        sum(is_decided for _, is_decided in actor.commands()),
        max(0.0, now - actor.last_used),
        actor.obstacle,
        type(deciding.envelope.command).__name__ if deciding is not None and is_deciding else None,
        deciding.line if deciding is not None and is_deciding else None,
    )


# --- handlers ---


def _handlers(runtime: Runtime, events: Iterable[StoredRecord]) -> Iterator[RunningHandler]:
    children = {child.name: child for child in tuple(runtime.tree.handlers())}
    supervisors = runtime.tree.statistics()
    waiting = {child: each for rules in supervisors.values() for child, each in rules.restarting.items()}
    owners = runtime.tree.supervisors_of_handlers()
    for subscription in tuple(runtime.handlers.subscriptions):
        child = children.get(subscription.name)
        owner = owners.get(subscription.name, "")
        yield _handler(
            runtime,
            subscription,
            child,
            tuple(events),
            waiting.get(subscription.name),
            owner,
            supervisors[owner].reason if owner in supervisors else None,
        )


def _handler(  # noqa: PLR0917 - made in one place
    runtime: Runtime,
    subscription: Subscription,
    child: HandlerChild | None,
    events: Iterable[StoredRecord],
    restart_in: float | None,
    owner: str,
    gave_up: str | None,
) -> RunningHandler:
    now = subscription.statistics(runtime.handlers.dispatched(subscription))
    failure = None if child is None else child.last_failure
    failed = None if failure is None else failure.event
    attempts = 0 if failed is None else subscription.failures.attempt(failed.position) - 1
    is_failing = failure is not None and (attempts > 0 or restart_in is not None)
    return RunningHandler(
        name=subscription.name,
        state=now.state,
        is_leased=subscription.leased,
        position=now.position,
        wants=tuple(stored.position for stored in subscription.wanted(_in_its_log(subscription, events))),
        takes=takes(subscription.spec),
        start=str(subscription.spec.start),
        began=subscription.began,
        busy_at=subscription.busy_at,
        busy_for=0.0 if child is None else seconds_of(child, runtime),
        line=None if child is None else child.line,
        failing_at=failed.position if failed is not None and is_failing else None,
        attempts=attempts,
        max_attempts=subscription.spec.max_attempts,
        error=describe(failure.error) if failure is not None and is_failing else None,
        restart_in=restart_in,
        supervisor=owner,
        gave_up=gave_up,
    )


def _router(runtime: Runtime) -> str | None:
    handlers = runtime.handlers
    has_failed = handlers.router_cell.is_suspended and handlers.router_error is not None
    return describe(handlers.router_error) if has_failed and handlers.router_error is not None else None


def _in_its_log(subscription: Subscription, events: Iterable[StoredRecord]) -> list[StoredRecord]:
    return [stored for stored in events if log_of_position(stored.position) == subscription.log]


def _children(runtime: Runtime, wanted: str) -> Iterator[ChildFacts]:
    """The actors and supervisors of a name, and their own supervisors."""
    supervisors = runtime.tree.statistics()
    waiting = {child: each for rules in supervisors.values() for child, each in rules.restarting.items()}
    found = set()
    for node in runtime.tree.node().walk():
        for child in node.children:
            if child.name == wanted and child.kind in ("actor", "supervisor"):
                found.add(child.kind)
                own = supervisors.get(child.name) if child.kind == "supervisor" else None
                yield ChildFacts(
                    child.name,
                    child.kind,
                    own.state if own is not None and child.state != "restarting" else child.state,
                    child.waiting,
                    child.restarts,
                    node.name if node.name in supervisors else "",
                    waiting.get(child.name),
                    _doing(runtime, wanted) if child.kind == "actor" else None,
                    None if own is None else own.reason,
                    tuple((each.name, each.state) for each in child.children),
                )
    cell = None if "actor" in found else runtime.actors.cell(wanted)
    if cell is not None and not isinstance(cell.actor, SupervisorActor):
        now = cell.statistics()
        yield ChildFacts(wanted, "actor", now.state, now.waiting, now.restarts, doing=now.doing)


def _doing(runtime: Runtime, name: str) -> str | None:
    cell = runtime.actors.cell(name)
    return None if cell is None else cell.statistics().doing


def takes(spec: HandlerSpec) -> str:
    """What a handler subscribes to, in words."""
    kinds: Iterable[Any] = spec.event_type if isinstance(spec.event_type, tuple) else (spec.event_type,)
    types = " or ".join(kind.type_name() for kind in kinds if kind is not None)
    topic = "" if spec.topic_pattern is None else f"topic {spec.topic_pattern.text}"
    aggregate = "" if spec.aggregate_type is None else f"events of {spec.aggregate_type}"
    return ", ".join(part for part in (types, topic, aggregate) if part) or "every event"


def _names(runtime: Runtime) -> Iterator[str]:
    yield from {whole_name(each.name) for each in runtime.handlers.subscriptions}
    yield from (node.name for node in runtime.tree.node().walk() if node.kind == "actor")
    for actor in runtime.aggregates.active()[:NAMES]:
        yield actor.stream.aggregate_id
        yield f"{actor.stream.aggregate_type}/{actor.stream.aggregate_id}"
