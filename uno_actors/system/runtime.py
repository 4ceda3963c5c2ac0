"""The running parts of an actor system on its event loop. `Runtime` exists from start to stop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from uno_actors.actors.cell import ActorCell
from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.future import Future
from uno_actors.actors.inspection import messages_of
from uno_actors.actors.pykka import PykkaActor
from uno_actors.actors.watchdog import watchdog
from uno_actors.aggregates.directory import Aggregates
from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.aggregates.external_writes import ExternalWrites
from uno_actors.aggregates.journal import Journal
from uno_actors.cluster.node import Node
from uno_actors.cluster.served import CommandNames
from uno_actors.cluster.settings import Cluster
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import (
    SupervisorGaveUp,
    SystemNotRunning,
)
from uno_actors.event_contexts import EventContexts
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.subscription import Subscription
from uno_actors.logs import get_logger
from uno_actors.observing import Observation
from uno_actors.scheduling.scheduler import Scheduler
from uno_actors.settings import Settings
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.supervision.spec import Supervisor
from uno_actors.system.actor_host import ActorHost
from uno_actors.system.announcement import announcement_of, node_name, node_of
from uno_actors.system.handler_host import HandlerHost
from uno_actors.system.handlers_elsewhere import HandlersElsewhere
from uno_actors.system.statistics import SystemStatistics
from uno_actors.system.supervision_tree import SupervisionTree
from uno_actors.system.tree import handlers_in
from uno_actors.system.waiting import HandlerWaiting
from uno_actors.tasks import begin

A = TypeVar("A", bound=PykkaActor)

LEAVE_SHARE = 0.2
"""Share of the stop timeout in which other nodes hear that this one leaves."""
DRAIN_SHARE = 0.7
"""Share of the stop timeout that draining may use. The rest remains for stopping the actors."""
LOOK_AGAIN = 0.005
"""Seconds between checks whether all work is done."""


class Runtime:
    """The running parts of a system, and the order in which they start and stop.

    Args:
        system: The system that handlers see in their contexts.
        store: The open store.
        types: The aggregate classes by type name; the mapping may grow.
        settings: The system's options.
        give_up: Called with the error when a top-level supervisor gives up.
        cluster: Its options as a node of a cluster; ``None`` if it is none.
        contexts: Of the messages that cause events.
        observed: Its observers, if there are any.
        overrides: Functions that stand in for dependencies of handlers.
        recorder: The flight recorder of the system; ``None`` if it has none.

    Attributes:
        announcement: Of this system among those that work on its store; ``None`` if it has none.
        node: What it is as a node of a cluster; ``None`` if it is none.
        tree: The supervisors and their children.
        begun: When it was made, on ``time.monotonic``'s clock.
        elsewhere: The handlers of other processes.
        waiting: Waits of callers for handlers.
        deliver: Passes a command to its aggregate, here or on another node; see `Aggregates.deliver`.
    """

    def __init__(
        self,
        system: SystemServices,
        store: EventStore,
        types: dict[str, type[AggregateRoot]],
        settings: Settings,
        give_up: Callable[[SupervisorGaveUp], None],
        *,
        cluster: Cluster | None,
        contexts: EventContexts,
        observed: Observation | None,
        overrides: Mapping[Callable[..., Any], Callable[..., Any]],
        recorder: FlightRecorder | None,
    ) -> None:
        log = get_logger(system=settings.name, node=node_name(settings.name, cluster))
        self.dispatcher = Dispatcher(asyncio.get_running_loop(), log=log, recorder=recorder)
        watchdog.watch(self.dispatcher)
        self._store = store
        self._settings = settings
        self.clock = settings.clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self._log = log.bind(actor="system")
        self.dead_messages = DeadMessages(log)
        self.deciding = 0  # decisions without an aggregate that are under way
        self.actors = ActorHost(settings, self.dispatcher, self.dead_messages)
        self.announcement = announcement_of(settings, cluster or Cluster(), store, self.start_task, log)
        self.handlers = HandlerHost(
            settings,
            store,
            self.dispatcher,
            system,
            self.start_task,
            announcement=self.announcement,
            contexts=contexts,
            observed=observed,
            overrides=overrides,
        )
        self.tree = SupervisionTree(
            settings.name,
            settings.clock,
            self.actors,
            self.handlers,
            start_task=self.start_task,
            give_up=give_up,
            observed=observed,
            recorder=recorder,
        )
        self.journal = Journal(store, observed, log, recorder)
        self.aggregates = Aggregates(
            types,
            store,
            self.journal,
            self.dispatcher,
            settings,
            start=self.start_task,
            dead=self.dead_messages,
            contexts=contexts,
            observed=observed,
        )
        self.scheduler = Scheduler(
            settings.scheduler,
            store,
            settings.clock,
            types,
            start=self.tree.add,
            start_task=self.start_task,
            log=log,
        )
        self.deliver: Callable[[StreamId, CommandEnvelope, float], None] = self.aggregates.deliver
        self.node: Node | None = None
        if cluster is not None:
            self.node = node_of(
                settings,
                cluster,
                self.announcement,
                CommandNames(types),
                self.aggregates,
                known_position=lambda stream: self._external_writes.position(stream),  # noqa: PLW0108 - made at the start
                dead=self.dead_messages,
            )
            self.deliver = self.node.deliver
        self.elsewhere = HandlersElsewhere(
            self.handlers,
            store,
            settings.clock,
            start_task=self.start_task,
            announcement=self.announcement,
            node=self.node,
            log=log,
        )
        self.waiting = HandlerWaiting(
            self.handlers,
            self.elsewhere,
            store,
            settings.clock,
            start_task=self.start_task,
            on_loop=self.dispatcher.call,
        )
        self._let_go = ExitStack()  # cleanup for the end, even if the start fails halfway
        self.takes_work = False  # accepts commands and new actors
        self.begun = time.monotonic()

    # --- starting ---

    async def start(self, supervisors: Sequence[Supervisor]) -> None:
        """Start router, supervisors and children. Handlers with a backlog catch up; the others are live."""
        supervisors = [*supervisors, *await self.scheduler.begin(self.journal)]
        ends = await self.handlers.start([spec for each in supervisors for spec in handlers_in(each)])
        # From here on the system runs commands and routes their events: children started below may send some.
        self._follow_external_writes(ends)
        await self._join()
        self.handlers.listen()
        self.takes_work = True
        for supervisor in supervisors:
            await self.tree.start(supervisor)
        self.handlers.take_over_later()

    async def _join(self) -> None:
        """Become known to the other nodes of the cluster. Without one, the handlers announce the system later."""
        if self.node is not None:
            self.node.serve_types()
            await self.node.start()
            await self.node.announcement.start()

    async def _leave(self) -> None:
        """Have the other systems know that this one stops, so that they divide its work among themselves."""
        if self.announcement is not None:
            await self.announcement.leave()
        if self.node is not None:
            await self.node.leave()

    def _follow_external_writes(self, positions: Sequence[int]) -> None:
        self._external_writes = ExternalWrites(
            self._store, positions, self.aggregates, self.start_task, self.dispatcher.log
        )
        self.journal.on_append = self._external_writes.skip
        self._let_go.callback(self._store.on_commit(self._external_writes.look_soon))

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task and keep a reference, so that the task is not garbage-collected.

        A program may cancel tasks that it did not create, and `close` cancels all of these tasks. A coroutine that
        must finish anyway has to handle the cancellation itself.
        """
        task = begin(self.dispatcher.loop, coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- running ---

    def statistics(self) -> SystemStatistics:
        """The system's counters. Collecting them takes time proportional to the number of spawned actors."""
        totals = self.aggregates.statistics
        return SystemStatistics(
            commands=totals.commands,
            rejected=totals.rejected,
            failed=totals.failed,
            asked=totals.asked,
            asked_seconds=totals.asked_seconds,
            reruns=totals.reruns,
            repeated=totals.repeated,
            events_recorded=self.journal.events,
            commits=self.journal.commits,
            activations=totals.activations,
            events_replayed=totals.events_replayed,
            passivations=totals.passivations,
            snapshots=self.aggregates.snapshots.saved,
            active_aggregates=len(self.aggregates),
            dead_messages=self.dead_messages.count,
            actors=len(self.actors.cells),
            messages=messages_of(tuple(self.actors.cells)),
            commands_waiting=self._unanswered(),
            oldest_command=self.aggregates.oldest(),
            restarts=sum(node.restarts for node in self.tree.node().walk()),
            dispatcher=self.dispatcher.statistics(),
            handlers=self.handlers.statistics(),
            scheduler=self.scheduler.statistics(),
            supervisors=self.tree.statistics(),
        )

    async def settled(self, timeout: float) -> None:
        """See `ActorSystem.settled`."""
        self.handlers.check_not_in_handler("settled()")
        try:
            async with asyncio.timeout(timeout):
                while not await self.is_settled():  # noqa: ASYNC110 - no single event to await
                    await asyncio.sleep(LOOK_AGAIN)
        except TimeoutError:
            ends = await self._store.last_positions()
            commands = "commands are not answered yet" if self._unanswered() else "all commands are answered"
            end = f"the log ends at {ends[0]}" if len(ends) == 1 else f"there are {len(ends)} logs"
            state = "; ".join([commands, end, *self.handlers.lagging(ends)])
            raise TimeoutError(f"not settled within {timeout:g} s: {state}") from None

    async def is_settled(self) -> bool:
        """Whether every command is answered, none is due, and every handler here has handled every recorded event."""
        return not self.scheduler.has_due and await self._is_settled(self.handlers.active())

    async def _is_settled(self, subscriptions: Sequence[Subscription]) -> bool:
        if self._unanswered():
            return False
        ends = await self._store.last_positions()
        # Meanwhile a handler may have been done, and have caused events beyond that.
        if self._unanswered() or not self.handlers.have_handled(subscriptions, ends):
            return False
        return await self._store.last_positions() == ends

    def _unanswered(self) -> int:
        """Commands that are not answered yet, here or by other nodes."""
        return self.aggregates.waiting + self.deciding + (0 if self.node is None else self.node.waiting)

    # --- stopping ---

    async def stop(self, timeout: float) -> None:
        """Drain, then stop in reverse order of start, within ``timeout`` seconds. Abandon what still runs then."""
        begun = time.monotonic()
        deadline = begun + timeout
        try:
            self.handlers.move_no_more()
            self.scheduler.stop()
            await self._within(begun + timeout * LEAVE_SHARE, self._leave())
            await self._within(begun + timeout * DRAIN_SHARE, self._drain())
            for child in self.tree.last_first():
                # The child keeps the deadline itself; the extra second is a safety net.
                await self._within(deadline + 1, child.stop(deadline))
            last_save = self.handlers.router.save_checkpoints(last=True)
            await self._within(max(deadline, time.monotonic() + 1), last_save)
            self.actors.take_no_more()
            for cell in (*reversed(self.actors.cells), self.handlers.router_cell):
                await self._stop_one(cell.stop(), cell, deadline)
            await self._within(deadline, self._answered())
            await self._within(deadline, self.aggregates.saver.save())
            await self._within(deadline, self.aggregates.turns.close())
            await self.release(max(deadline, time.monotonic() + 1))
        finally:
            self.close()

    async def release(self, deadline: float) -> None:
        """Give up what other nodes wait for: the announcement, the link, and the leases of handlers.

        Each has a limit of its own, and is tried even if the one before it fails or takes until ``deadline``.
        """
        if self.node is not None:
            self.node.refuse()  # first, so that other nodes are not answered with what now ends here
            self.aggregates.close(SystemNotRunning(self._settings.name, "stopped"))
        await self._within(deadline, self.handlers.release())
        if self.announcement is not None:  # after the handlers: others who learn of it find them free
            await self._within(max(deadline, time.monotonic() + 1), self.announcement.withdraw())
        if self.node is not None:
            await self._within(max(deadline, time.monotonic() + 1), self.node.close())

    async def _answered(self) -> None:
        while self._unanswered():  # noqa: ASYNC110 - no single event to await
            await asyncio.sleep(LOOK_AGAIN)

    async def _drain(self) -> None:
        """Wait for commands and live handlers. Handlers that lag behind continue after the next start."""
        while not await self._is_settled(self.handlers.live()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(LOOK_AGAIN)

    async def _stop_one(self, stopped: Awaitable[None], cell: ActorCell, deadline: float) -> None:
        if not await self._within(deadline, stopped):
            self._log.warning("actor did not stop in time and is abandoned", actor=str(cell))
            cell.kill()

    async def _within(self, deadline: float, work: Awaitable[Any]) -> bool:
        """Await ``work`` until ``deadline``. Return whether it finished in time.

        Stopping continues if the work fails, and if the program cancels this task: the task belongs to the system
        and ends by its deadline.
        """
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await work
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            self._log.warning("stopping continues although its task was cancelled")
            return isinstance(work, Future) and await self._within(deadline, work)
        except Exception as error:  # noqa: BLE001 - a third-party store may raise anything
            self._log.error("stopping continues after an error", exc_info=error)
            return False
        return True

    def close(self) -> None:
        """Release everything that can be released without waiting. Also called after a failed start."""
        self.actors.take_no_more()
        if self.node is not None:
            self.node.refuse()
        if self.announcement is not None:
            self.announcement.close()
        self.aggregates.close(SystemNotRunning(self._settings.name, "stopped"))
        self.waiting.close(f"system {self._settings.name!r} has stopped")
        for child in self.tree.last_first():
            child.abandon()
        for cell in tuple(self.actors.cells):
            cell.kill()
        self.handlers.close()
        self.scheduler.close()
        self._let_go.close()
        for task in self._tasks:
            task.cancel()
        watchdog.forget(self.dispatcher)
        self.dispatcher.close()
