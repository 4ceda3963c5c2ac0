"""An event handler as a supervised child: an event that keeps failing becomes a dead letter."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from typing_extensions import override

from uno_actors.actors.cell import ActorCell
from uno_actors.actors.future import Future
from uno_actors.actors.inspection import line_in, line_on
from uno_actors.errors import LeaseLost
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.handlers.failures import FailedEvent, HandlerFailure, error_text
from uno_actors.handlers.subscription import Subscription
from uno_actors.observing import Observation
from uno_actors.store.port import EventStore
from uno_actors.store.records import DeadLetter
from uno_actors.supervision.child import CellChild, ChildFailed, ChildSignal, TreeNode
from uno_actors.supervision.spec import ChildSpec

SET_ASIDE_AGAIN = 0.1
"""Seconds to wait before another attempt to store a dead letter."""


class HandlerCells(Protocol):
    """The part of the system that the child handle of a handler needs."""

    observed: Observation | None
    recorder: FlightRecorder | None

    def handler_cell(
        self, subscription: Subscription, on_failed: Callable[[HandlerFailure], None]
    ) -> tuple[ActorCell, Future[Any]]:
        """Make the actor cell of a handler and start it."""

    def dispatched(self, subscription: Subscription) -> int:
        """Return the position up to which events were dispatched to handlers of this priority."""

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task to which the system keeps a reference."""


class HandlerChild(CellChild):
    """The child handle of an event handler. It sets aside an event that has failed too often."""

    kind = "handler"

    def __init__(
        self,
        subscription: Subscription,
        spec: ChildSpec,
        tell: Callable[[ChildSignal], None],
        host: HandlerCells,
        store: EventStore,
    ) -> None:
        super().__init__(subscription.name, spec, tell)
        self._log = subscription.logger
        self.subscription = subscription
        self._host = host
        self._store = store
        self._last: HandlerFailure | None = None
        self._poison: HandlerFailure | None = None  # the last failure of an event that must be set aside

    @override
    def _make(self) -> Future[Any]:
        subscription = self.subscription
        self._cell, started = self._host.handler_cell(subscription, self._handler_failed)
        return started

    @override
    async def start(self) -> None:
        was_stopped = self.subscription.state == "stopped"
        await self._set_aside_poison()  # otherwise the restarted handler would get this event again
        if self.subscription.state == "stopped":
            if not was_stopped:
                return  # the handler was stopped while the store was slow
            self.subscription.start_again()
        await super().start()
        self.subscription.restarts = self.restarts
        self.subscription.has_started(self._host.dispatched(self.subscription))

    @override
    async def halt(self, until: float | None = None) -> None:
        if self.subscription.at_work:
            self.subscription.fall_behind("restarting")
        await super().halt(until)
        await self._close_resources(until)

    @override
    async def rest(self) -> None:
        await self.stop()  # the waiting events are in the log

    @override
    async def stop(self, until: float | None = None) -> None:
        self.subscription.stop(self._host.dispatched(self.subscription))
        try:
            await super().stop(until)
            await self._close_resources(until)
        finally:
            self._abandon_resources()

    @override
    def abandon(self) -> None:
        self.subscription.fall_behind("stopped")
        super().abandon()
        self._abandon_resources()

    async def _close_resources(self, until: float | None = None) -> None:
        """Close what the handler depends on, within the time that it has to stop."""
        resources = self.subscription.resources
        if resources is None or not resources.is_open:
            return
        if not await self._within(until, resources.close(self.subscription.overdue)):
            self._log.warning("resources of the handler did not close in time and are left to themselves")

    def _abandon_resources(self) -> None:
        if self.subscription.resources is not None:
            self.subscription.resources.abandon()

    @property
    def last_failure(self) -> HandlerFailure | None:
        """Its last failure since the system started; ``None`` without one."""
        return self._last

    @property
    def line(self) -> str | None:
        """The line of the handler's code that runs or waits now; ``None`` if none is known."""
        for thread in tuple(self.subscription.threads):
            return line_on(thread)
        return None if self._cell is None else line_in(self._cell)

    def _handler_failed(self, failure: HandlerFailure) -> None:
        if failure.while_starting:
            return
        self._last = failure
        max_attempts = self.subscription.spec.max_attempts
        if failure.poison(max_attempts):
            self._poison = failure
        self._tell(ChildFailed(self, self.incarnation, failure.error, failure.streak(max_attempts)))

    @override
    def resume(self) -> None:
        cell = self._cell
        task = self._host.start_task(self._resume(cell))

        def over(task: asyncio.Task[Any]) -> None:
            # User code may have cancelled the task by accident.
            if task.cancelled() and cell is self._cell is not None:
                self.resume()

        task.add_done_callback(over)

    async def _resume(self, cell: ActorCell | None) -> None:
        subscription, last = self.subscription, self._last
        if subscription.state != "restarting" or last is None or last.blames_nothing:
            await asyncio.sleep(SET_ASIDE_AGAIN)
        elif last.event is not None:
            self._poison = last
        await self._set_aside_poison()
        if cell is not None and cell.is_suspended and subscription.state != "stopped":
            subscription.recover()
            cell.resume()
            subscription.wake()

    async def _set_aside_poison(self) -> None:
        """Move the event that failed too often to the dead letters; retry until the store accepts it."""
        while (poison := self._poison) is not None and poison.event is not None:
            if not self.subscription.leased:  # another process now handles the event
                self._poison = None
                return
            try:
                await self._set_aside(poison.event, poison.error)
            except LeaseLost:
                self.subscription.stand_by()
            except Exception as cause:  # noqa: BLE001 - whatever the store raises
                self._log.error("event cannot be set aside yet", exc_info=cause)
                await asyncio.sleep(SET_ASIDE_AGAIN)
            else:
                self._poison = None

    async def _set_aside(self, failed: FailedEvent, error: BaseException) -> None:
        """Store the event as a dead letter and move the handler past it, in one transaction."""
        subscription, position = self.subscription, failed.position
        stored = await self._store.record_at(position)
        text = error_text(error)
        letter = DeadLetter(
            handler=subscription.name,
            position=position,
            event_type=stored.record.event_type,
            attempts=failed.attempts,
            error=text.error,
            traceback=text.traceback,
            first_failed=failed.first_failed,
            last_failed=text.at,
        )
        progress = subscription.progress
        beyond = progress.without(position)
        views = subscription.changes_aside(position)
        async with progress.writes:
            await self._store.save_progress({progress.checkpoint: beyond}, [letter], views)
        subscription.aside.add(position)
        subscription.leave(position)
        subscription.dead_letters += 1
        subscription.changed()
        if self._host.observed is not None:
            self._host.observed.dead_letter(subscription.name, letter)
        if self._host.recorder is not None:
            self._host.recorder.dead_letter(subscription.name, letter, stored.record)
        self._log.error(
            "event set aside",
            event_type=letter.event_type,
            position=position,
            attempts=letter.attempts,
            error=letter.error,
            correlation_id=stored.record.correlation_id,
        )

    @override
    def node(self, *, restarting: bool) -> TreeNode:
        statistics = self.subscription.statistics(self._host.dispatched(self.subscription))
        return TreeNode(
            self.name, self.kind, statistics.state, self.spec.restart, self.restarts, statistics.waiting
        )
