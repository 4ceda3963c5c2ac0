"""One process through one event: it reacts, its commands are sent, and it reacts to those that were refused.

A reaction and the commands that it sends are recorded together where that is possible: where their aggregates are in
the memory of this node, and their streams in the same log. Elsewhere the reaction is recorded first. That all commands
of an event were sent is recorded with the next step of the process, if one follows soon.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from uno_actors.actors.future import Future
from uno_actors.aggregates.joint import Joint, Linger
from uno_actors.aggregates.ref import AggregateRef
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import CommandIdReused, CommandRejected, ReplyNotRecorded
from uno_actors.observing import Observation
from uno_actors.processes.messages import Known, Outgoing, Refusal
from uno_actors.processes.reactions import Reacting, command_of, step_of
from uno_actors.store.logs import log_of_stream
from uno_actors.store.port import EventStore
from uno_actors.tasks import begin, side_by_side

Caused = tuple[str, object]
"""An event or a refusal, after its id. ``None`` stands for a refusal to which the process has reacted."""

Refused = dict[int, object]
"""The refusals of the commands of one reaction, by their places."""


class System(Protocol):
    """The part of a system that steps need."""

    @property
    def store(self) -> EventStore:
        """Where streams are recorded."""

    def aggregate(self, aggregate_type: type[AggregateRoot], aggregate_id: str) -> AggregateRef:
        """A reference to one aggregate."""

    def _handles_here(self, ref: AggregateRef, command: Command[Any]) -> bool:
        """Whether this node handles the commands of this class for the aggregate."""


class Ignored(Exception):
    """The process does not react to an event: it has not started, or it has ended."""


async def take_step(
    manager: type[Reacting],
    process_id: str,
    event: DomainEvent,
    ignored: tuple[str, ...],
    system: System,
    *,
    lingers: bool = True,
) -> None:
    """Let a process react to ``event``, send its commands, and let it react to those that are refused.

    Args:
        manager: The class of the process.
        process_id: Its id.
        event: The event.
        ignored: See `uno_actors.processes.messages.Step`.
        system: The system.
        lingers: Whether that all was sent is recorded later, for the next step of the process to come with it.

    Raises:
        Ignored: The process does not react.
        InvalidAggregateId: ``process_id`` cannot name a process.
        CommandRejected: A command was refused, and there is no reaction to that.
        Exception: A reaction or an aggregate has failed.
    """
    await _Steps(manager, process_id, event, ignored, system).run(lingers=lingers)


class _Steps:
    """The reaction to an event, and those to the refusals that follow from it."""

    def __init__(
        self,
        manager: type[Reacting],
        process_id: str,
        event: DomainEvent,
        ignored: tuple[str, ...],
        system: System,
    ) -> None:
        self._manager = manager
        self._system = system
        self._event = event
        self._ignored = ignored
        self._process: AggregateRef = system.aggregate(manager, process_id)
        observed: Observation | None = getattr(system, "_observed", None)
        self._observed = observed if observed is not None and observed.in_contexts else None

    async def run(self, *, lingers: bool) -> None:
        """See `take_step`."""
        event = self._event
        waiting: deque[Caused] = deque([(event.event_id, event)])
        has_sent = False
        while waiting:
            to, message = waiting.popleft()
            if self._observed is None:
                sent, refused = await self._step(to, message)
            else:
                sent, refused = await self._observe(self._observed, to, message)
            has_sent = has_sent or bool(sent)
            waiting += refused
        if has_sent:
            over = step_of(self._manager, event, is_over=True)
            if not lingers:
                await self._process.ask(over)
            else:
                begin(asyncio.get_running_loop(), _quietly(self._process._ask_with(over, Linger())))

    async def _observe(self, observed: Observation, to: str, message: object) -> tuple[int, list[Caused]]:
        names, began = (self._manager.__name__, self._process.stream.aggregate_id), monotonic()
        observed.process_step_begun(*names, message)
        try:
            sent, refused = await self._step(to, message)
        except BaseException as error:
            observed.process_step_ended(*names, 0, monotonic() - began, error)
            raise
        observed.process_step_ended(*names, sent, monotonic() - began, None)
        return sent, refused

    async def _step(self, to: str, message: object) -> tuple[int, list[Caused]]:
        """Let the process react; send the commands, return their number and the refusals that follow."""
        if message is self._event:
            step = step_of(self._manager, self._event, ignored=self._ignored)
        else:
            step = step_of(self._manager, self._event, to, message)
        joint = Joint()
        recorded = self._process._ask_with(step, joint)
        recorded.add_done_callback(joint.answered)
        decided = await joint.decided
        outcomes: list[Refused | Exception] | None = None
        if decided is not None:
            outcomes = await self._send_all(to, decided, joint, recorded)
            joint.release()
        reaction = await recorded
        assert reaction is not None  # only the last step of an event has no commands
        refusals: Refused = {}
        if isinstance(reaction, Known):
            if reaction.ignored:
                raise Ignored(reaction.ignored)
            refusals.update(dict.fromkeys(reaction.refused))
        if outcomes is None or not joint.is_recorded:  # another writer was faster: it has reacted anew
            outcomes = await self._send_all(to, reaction, None, recorded, refusals)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            refusals |= outcome
        return len(reaction), [(f"{to}.{place}", refusals[place]) for place in sorted(refusals)]

    async def _send_all(
        self,
        to: str,
        commands: Sequence[Outgoing],
        joint: Joint | None,
        recorded: Future[Any],
        done: Refused | None = None,
    ) -> list[Refused | Exception]:
        """Send commands, those to one aggregate in order, those to several side by side.

        Args:
            to: The id of what the process reacts to.
            commands: In the order of the reaction.
            joint: Of the reaction; ``None`` once that is recorded.
            recorded: The reply to the reaction.
            done: The refusals to which the process has reacted.
        """
        by_target: dict[tuple[str, str], list[tuple[str, int, Outgoing]]] = {}
        for place, outgoing in enumerate(commands):
            if place not in (done or ()):
                target = outgoing.aggregate_type, outgoing.aggregate_id
                by_target.setdefault(target, []).append((to, place, outgoing))
        return await side_by_side(*(self._send(each, joint, recorded) for each in by_target.values()))

    async def _send(
        self, commands: list[tuple[str, int, Outgoing]], joint: Joint | None, recorded: Future[Any]
    ) -> Refused:
        """Send commands to one aggregate, in order; return the refusals."""
        refused: Refused = {}
        for to, place, outgoing in commands:
            aggregate, command = command_of(self._manager, outgoing, f"{to}.{place}")
            target = self._system.aggregate(aggregate, outgoing.aggregate_id)
            if joint is not None and not self._may_share(target, command):
                joint.release()
                await recorded
                if not joint.is_recorded:  # another writer was faster: it may have reacted otherwise
                    return refused
                joint = None
            try:
                await target._ask_with(command, follows=joint)
            except CommandRejected as rejection:
                refused[place] = Refusal(command, str(rejection))
            except (ReplyNotRecorded, CommandIdReused):
                pass  # it took effect before; the id is ours, so only the command class changed
        return refused

    def _may_share(self, target: AggregateRef, command: Command[Any]) -> bool:
        """Whether what ``target`` records can be in one transaction with the reaction."""
        logs = self._system.store.logs
        if logs > 1 and log_of_stream(target.stream, logs) != log_of_stream(self._process.stream, logs):
            return False
        return self._system._handles_here(target, command)


async def _quietly(reply: Future[Any]) -> None:
    """Wait for a reply that changes nothing: if it is an error, the event is repeated when it is delivered again."""
    with suppress(Exception):
        await reply
