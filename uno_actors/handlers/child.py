"""An event handler as a supervised child: an event it keeps failing at becomes a dead letter."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

from typing_extensions import override

from uno_actors.actors.cell import ActorCell
from uno_actors.actors.future import Future
from uno_actors.actors.signals import Failure
from uno_actors.errors import LeaseLost, describe
from uno_actors.handlers.actor import Subscription
from uno_actors.logs import get_logger
from uno_actors.printable import traceback_text
from uno_actors.store.port import EventStore
from uno_actors.store.records import DeadLetter
from uno_actors.supervision.child import CellChild, ChildFailed, ChildSignal, TreeNode
from uno_actors.supervision.spec import ChildSpec

SET_ASIDE_AGAIN = 0.1
"""Seconds until a store that could not take a dead letter is asked again."""


class HandlerHost(Protocol):
    """What the handle of a handler needs from its system."""

    def handler_cell(
        self, subscription: Subscription, on_failed: Callable[[Failure], None]
    ) -> tuple[ActorCell, Future[Any]]:
        """Make the cell of a handler and start it."""

    def dispatched(self, subscription: Subscription) -> int:
        """The position up to which events have been handed out to handlers of its priority."""

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task that is not lost."""


class HandlerChild(CellChild):
    """A child that is an event handler: an event at which it has failed too often is set aside."""

    kind = "handler"

    def __init__(
        self,
        subscription: Subscription,
        spec: ChildSpec,
        tell: Callable[[ChildSignal], None],
        host: HandlerHost,
        store: EventStore,
    ) -> None:
        super().__init__(subscription.name, spec, tell)
        self._log = get_logger(handler=subscription.name)
        self.subscription = subscription
        self._host = host
        self._store = store
        self._error: BaseException | None = None  # the last
        self._poison: BaseException | None = None  # the error of the last attempt at an event

    @override
    def _make(self) -> Future[Any]:
        subscription = self.subscription
        self._cell, started = self._host.handler_cell(subscription, self._failed)
        return started

    @override
    async def start(self) -> None:
        was_stopped = self.subscription.state == "stopped"
        await self._set_aside_poison()  # before it begins again, which would be at this event
        if self.subscription.state == "stopped":
            if not was_stopped:
                return  # somebody wanted it so while the store took its time
            self.subscription.begin_again()
        await super().start()
        self.subscription.restarts = self.restarts
        self.subscription.has_started(self._host.dispatched(self.subscription))

    @override
    async def halt(self, until: float | None = None) -> None:
        if self.subscription.at_work:
            self.subscription.fall_behind("restarting")
        await super().halt(until)

    @override
    async def rest(self) -> None:
        await self.stop()  # what waits for it is in the log

    @override
    async def stop(self, until: float | None = None) -> None:
        self.subscription.stop(self._host.dispatched(self.subscription))
        await super().stop(until)

    @override
    def abandon(self) -> None:
        self.subscription.fall_behind("stopped")
        super().abandon()

    @override
    def _failed(self, failure: Failure) -> None:
        if failure.while_starting:
            return
        self._error = failure.error
        subscription, streak = self.subscription, None
        if subscription.state == "restarting":  # else no event is to blame, but the store
            if not subscription.failed_at:
                streak = 0  # one of a batch is to blame, and shows itself when they come alone
            elif subscription.failed_times >= subscription.spec.max_attempts:
                streak, self._poison = 0, failure.error
            else:
                streak = subscription.failed_times - 1
        self._tell(ChildFailed(self, self.incarnation, failure.error, streak))

    @override
    def resume(self) -> None:
        cell = self._cell
        task = self._host.start_task(self._resume(cell))

        def over(task: asyncio.Task[Any]) -> None:
            # The program may have cancelled it, which does not know it.
            if task.cancelled() and cell is self._cell is not None:
                self.resume()

        task.add_done_callback(over)

    async def _resume(self, cell: ActorCell | None) -> None:
        subscription = self.subscription
        if subscription.state != "restarting":  # no event is to blame, but the store
            await asyncio.sleep(SET_ASIDE_AGAIN)
        elif subscription.failed_at:
            self._poison = self._error
        await self._set_aside_poison()
        if cell is not None and cell.is_suspended and subscription.state != "stopped":
            if subscription.state == "restarting":
                subscription.state = "catching up"
            cell.resume()
            subscription.wake()

    async def _set_aside_poison(self) -> None:
        """Move the event at which it has failed too often to the dead letters, however long the store takes."""
        while self._poison is not None:
            if not self.subscription.leased:  # what becomes of the event is for another process to find out
                self._poison = None
                return
            try:
                await self._set_aside(self._poison)
            except LeaseLost:
                self.subscription.stand_by()
            except Exception as cause:  # noqa: BLE001 - whatever the store raises
                self._log.error("event cannot be set aside yet", exc_info=cause)
                await asyncio.sleep(SET_ASIDE_AGAIN)
            else:
                self._poison = None

    async def _set_aside(self, error: BaseException) -> None:
        """Move the event to the dead letters and the handler past it, in one transaction."""
        subscription = self.subscription
        position = subscription.failed_at
        (stored,) = await self._store.read_log(position - 1, 1)
        letter = DeadLetter(
            handler=subscription.name,
            position=position,
            event_type=stored.record.event_type,
            attempts=subscription.failed_times,
            error=describe(error),
            traceback=traceback_text(error),
            first_failed=subscription.first_failed,
            last_failed=datetime.now(UTC),
        )
        beyond = subscription.position_without(position)
        views = subscription.aside(position)
        async with subscription.writes:
            await self._store.save_progress({subscription.recorded_as: beyond}, [letter], views)
        subscription.leave(position)
        subscription.dead_letters += 1
        self._log.error(
            "event set aside",
            event_type=letter.event_type,
            position=position,
            attempts=letter.attempts,
            error=letter.error,
        )

    @override
    def node(self, *, restarting: bool) -> TreeNode:
        statistics = self.subscription.statistics(self._host.dispatched(self.subscription))
        return TreeNode(
            self.name, self.kind, statistics.state, self.spec.restart, self.restarts, statistics.waiting
        )
