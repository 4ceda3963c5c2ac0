"""The host of a system's handlers: runs their cells and the router, holds their leases, serves operators' requests."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from uno_actors.actors.ask import being_handled
from uno_actors.actors.cell import ActorCell
from uno_actors.actors.deadlock import cycle_through
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.future import Future
from uno_actors.actors.signals import Failure
from uno_actors.backoff import Backoff
from uno_actors.clock import Timer
from uno_actors.cluster.announcement import Announcement
from uno_actors.errors import InvalidHandler, WaitsForItself
from uno_actors.event_contexts import EventContexts
from uno_actors.handlers.actor import HandlerActor, Work
from uno_actors.handlers.child import HandlerChild
from uno_actors.handlers.control import (
    HandlerControl,
    HandlerInfo,
    grouped,
    position_of,
    status_entries,
)
from uno_actors.handlers.failures import HandlerFailure
from uno_actors.handlers.layouts import replace_other_layouts
from uno_actors.handlers.log_order import check_log_order
from uno_actors.handlers.moves import checkpoint_of, warn_of_skipped, warn_of_unnamed
from uno_actors.handlers.partitions import first_position, log_of_partition, other_layouts
from uno_actors.handlers.requests import NO_REQUESTS, ReportedStatus, Requests
from uno_actors.handlers.resources import Provision, Resources
from uno_actors.handlers.router import TURN, RouterActor
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscription import HandlerStatistics, Subscription
from uno_actors.observing import Observation
from uno_actors.settings import Settings
from uno_actors.store.logs import log_of_position, start_of_log
from uno_actors.store.port import EventStore
from uno_actors.supervision.child import ChildSignal
from uno_actors.supervision.spec import ChildSpec
from uno_actors.system.leases import Leases

ROUTER_BACKOFF = Backoff(initial=0.1, max=5.0)
LOOK_AT_REQUESTS = 0.5
"""Seconds between checks for operators' requests."""


class HandlerHost:
    """The handlers of a system. Every method runs on the event loop.

    This class is long because its short methods share the subscriptions and the router, and mostly delegate to them.

    Args:
        settings: The system's options.
        store: The store whose log the handlers read.
        dispatcher: Runs the handlers.
        system: The system that handlers see in their contexts.
        start_task: Runs a coroutine as a task and keeps a reference to it.
        announcement: Of the system; ``None`` if its store keeps no members.
        contexts: Of the messages that cause events.
        observed: The observers of the system, if there are any.
        overrides: Functions that stand in for dependencies of handlers.
    """

    def __init__(
        self,
        settings: Settings,
        store: EventStore,
        dispatcher: Dispatcher,
        system: SystemServices,
        start_task: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        *,
        announcement: Announcement | None,
        contexts: EventContexts,
        observed: Observation | None,
        overrides: Mapping[Callable[..., Any], Callable[..., Any]],
    ) -> None:
        self.observed = observed
        self.recorder = dispatcher.recorder
        self._contexts = contexts
        self.subscriptions: list[Subscription] = []
        self.router: RouterActor
        self.router_cell: ActorCell
        self.router_error: BaseException | None = None  # with which the router has failed last
        self.cells: dict[str, ActorCell] = {}  # of the handlers, by name
        self.start_task = start_task
        self._clock = settings.clock
        self._store = store
        self._dispatcher = dispatcher
        self._system = system
        self._provision = Provision(
            system, store, settings.clock, dispatcher, start_task=start_task, overrides=overrides
        )
        self._control = HandlerControl(store)
        self._announcement = announcement
        self._leases = Leases(
            store,
            self._control,
            settings.clock,
            self.subscriptions,
            announcement,
            start_task=start_task,
            give_requests=self._give_requests,
            dispatched=self.dispatched,
            save=lambda: self.router.save_checkpoints(last=True),
            begun=self._taken_over,
            on_lost=lambda name: self._reported.pop(name, None),
            log=dispatcher.log,
        )
        self._names: set[str] = set()  # names of the handlers in the tree
        self._reported: dict[str, tuple[ReportedStatus, str | None]] = {}
        self._looking: Timer | None = None
        self._cannot_look = False
        self._is_listening = self._is_closed = False
        self._let_go = ExitStack()  # cleanup for the end, even if the start fails halfway
        self._log = dispatcher.log.bind(actor="handlers")

    @property
    def logs(self) -> int:
        """The number of logs of the store."""
        return self._store.logs

    # --- starting ---

    async def start(self, specs: Sequence[HandlerSpec]) -> list[int]:
        """Subscribe the handlers and start the router. Return the position of each log after which it routes events.

        Raises:
            InvalidHandler: A handler cannot read the logs of a store with several, each by itself.
        """
        store = self._store
        check_log_order(specs, len(await store.last_positions()))
        # Take leases first: another process may still move the checkpoints of handlers whose leases it holds.
        await self._leases.take(*specs)
        ends = await store.last_positions()
        checkpoints = await store.checkpoints()
        await self._warn_of_names(specs, checkpoints, ends)
        self.subscriptions.extend([await self._subscribe(spec, checkpoints, ends) for spec in specs])
        for subscription in self.subscriptions:
            if not self._leases.holds(subscription.name):
                subscription.stand_by()
        self._leases.announce()
        await self._record_begin(self.subscriptions, checkpoints)
        self.router = RouterActor(
            store,
            self.subscriptions,
            ends,
            self._clock,
            TURN,
            contexts=self._contexts,
            observed=self.observed,
            log=self._dispatcher.log,
            recorder=self.recorder,
        )
        self.router_cell = ActorCell(
            self.router, self._dispatcher, factory=lambda: self.router, on_failed=self._router_failed
        )
        self.router_cell.start()
        self._let_go.callback(self.router.cancel_timers)
        self._let_go.callback(self.router_cell.kill)
        if self.subscriptions:
            await self.look_at_requests()
        return ends

    def listen(self) -> None:
        """Route new events and follow requests from now on. Without handlers, do nothing."""
        if self.subscriptions and not self._is_listening:
            self._is_listening = True
            self._let_go.callback(self._store.on_commit(self.router.route_soon))
            self.router.route_soon()
            self._look_later()
            if self._announcement is not None:
                self._announcement.start_later()

    def take_over_later(self) -> None:
        """Start waiting for the leases of handlers that other processes run."""
        self._leases.look_later()

    async def _record_begin(self, subscriptions: Sequence[Subscription], checkpoints: dict[str, int]) -> None:
        """Save the first positions, so that a crash before the first event does not move where "latest" began.

        With them goes a first status, by which the checkpoint is known as that of a handler. A handler that has run
        with another number of partitions then replaces what is kept of that.
        """
        new = [
            s
            for s in subscriptions
            if s.leased and s.progress.checkpoint and checkpoints.get(s.name) != s.progress.position
        ]
        if new:
            begun = {s.progress.checkpoint: s.progress.position for s in new}
            statuses = {s.name: _status_of(s) for s in new}
            await self._store.save_progress(begun, views=status_entries(statuses))
        for subscription in subscriptions:
            if subscription.leased and other_layouts(subscription.spec, checkpoints):
                now = await self._store.checkpoints()
                await replace_other_layouts(self._store, self._control, subscription, now)

    async def _taken_over(self, subscription: Subscription, checkpoints: dict[str, int]) -> None:
        await self._record_begin([subscription], checkpoints)
        self.router.route_soon()  # it may not have read this log before

    async def _warn_of_names(
        self, specs: Sequence[HandlerSpec], checkpoints: Mapping[str, int], ends: Sequence[int]
    ) -> None:
        if self._store.is_durable:
            given = [spec for spec in specs if spec.partition is None]  # a partitioned one has got its name
            warn_of_unnamed(given, checkpoints)
            running = [subscription.spec for subscription in self.subscriptions]
            if any(spec.start == "latest" and spec.name not in checkpoints for spec in given):
                known = [
                    name for name in await self._control.plain() if not await self._store.is_leased(name)
                ]
                warn_of_skipped(given, [*running, *specs], known, checkpoints, ends[0])

    async def _subscribe(
        self, spec: HandlerSpec, checkpoints: dict[str, int], ends: Sequence[int]
    ) -> Subscription:
        others = [subscription.name for subscription in self.subscriptions]
        logs = len(ends)
        end = ends[log_of_partition(spec.partition, logs)]
        position = start_of_log(end) if spec.keeps_a_view else first_position(spec, checkpoints, logs)
        if position is None:
            position = checkpoint_of(spec, checkpoints, others)
        began = None
        if position is None:
            position = began = await position_of(self._store, spec.start, end)
        subscription = Subscription(
            spec,
            position,
            self._store.event_registry,
            self._clock,
            logs=len(ends),
            logger=self._dispatcher.log,
        )
        subscription.resources = Resources(spec, self._provision, subscription.logger)
        subscription.lease = self._leases.of(spec.name)
        subscription.began = began
        return subscription

    async def make_child(self, spec: ChildSpec, tell: Callable[[ChildSignal], None]) -> HandlerChild:
        """Create the child handle of a handler for its supervisor. Subscribe the handler if it is new.

        Raises:
            InvalidHandler: The system already runs a handler of this name.
        """
        handler = spec.run
        assert isinstance(handler, HandlerSpec)
        if handler.name in self._names:
            raise InvalidHandler(f"two handlers are named {handler.name!r}: give each a name of its own")
        self._names.add(handler.name)
        known = [subscription for subscription in self.subscriptions if subscription.name == handler.name]
        try:
            subscription = known[0] if known else await self._add(handler)
        except BaseException:
            await self._free(handler.name)
            raise
        return HandlerChild(subscription, spec, tell, self, self._store)

    async def _add(self, spec: HandlerSpec) -> Subscription:
        """Subscribe a handler while the system runs."""
        check_log_order([spec], self._store.logs)
        await self._leases.take(spec)
        leased = self._leases.holds(spec.name)
        checkpoints, ends = await self._store.checkpoints(), await self._store.last_positions()
        await self._warn_of_names([spec], checkpoints, ends)
        subscription = await self._subscribe(spec, checkpoints, ends)
        if not leased:
            subscription.stand_by()
        await self._record_begin([subscription], checkpoints)
        if leased:
            self._give_requests(subscription, await self._control.requests())
        self.router.add(subscription)
        self._leases.announce()
        self.listen()
        self.take_over_later()
        return subscription

    async def remove(self, child: HandlerChild) -> None:
        """Remove a stopped handler. Its checkpoint stays in the store."""
        try:
            await self.router.save_checkpoints(last=True)
        finally:
            self.router.remove(child.subscription)
            self._leases.announce()
            await self._free(child.name)

    async def _free(self, name: str) -> None:
        """Free the name and the lease of a removed handler."""
        self._names.discard(name)
        self.cells.pop(name, None)
        await self._leases.release(name)

    def handler_cell(
        self, subscription: Subscription, on_failed: Callable[[HandlerFailure], None]
    ) -> tuple[ActorCell, Future[Any]]:
        """See `uno_actors.handlers.child.HandlerCells`."""
        assert subscription.resources is not None
        resources = subscription.resources

        def instance() -> HandlerActor:
            return HandlerActor(
                subscription,
                self._store,
                self._dispatcher,
                self.router,
                self._system,
                resources=resources,
                observed=self.observed,
            )

        def failed(failure: Failure) -> None:
            actor = cell.actor
            assert isinstance(actor, HandlerActor)
            on_failed(actor.failure(failure))

        started: Future[Any] = Future()
        cell = ActorCell(instance(), self._dispatcher, factory=instance, on_failed=failed, started=started)
        cell.name = subscription.name  # in logs and errors
        self.cells[subscription.name] = cell
        subscription.wake = lambda: cell.actor.actor_ref.tell(Work())
        cell.start()
        return cell, started

    def dispatched(self, subscription: Subscription) -> int:
        """See `uno_actors.handlers.child.HandlerCells`."""
        return self.router.dispatched(subscription)

    def _router_failed(self, failure: Failure) -> None:
        """Restart the router after a delay; it resumes at its position. It fails only if the store fails."""
        delay = ROUTER_BACKOFF.delay(self.router_cell.restarts, 0.5)
        self.router_error = failure.error
        self._log.error("router failed", exc_info=failure.error, restart_in=delay)

        def restart() -> None:
            if not self.router.actor_stopped.is_set():
                self.router_cell.restart()
                self.router.route_soon()

        self._clock.call_later(delay, restart)

    # --- operators' requests ---

    async def look_at_requests(self) -> None:
        """Pass operators' requests to the handlers that this process runs."""
        requests = await self._control.requests()
        for subscription in self._leased():
            self._give_requests(subscription, requests)

    def _give_requests(self, subscription: Subscription, requests: Mapping[str, Requests]) -> None:
        wanted = requests.get(subscription.name, NO_REQUESTS)
        subscription.take_requests(wanted, self.router.dispatched(subscription))

    async def _report(self) -> None:
        """Report changes in the status of this process's handlers, for other processes to read."""
        async with self._leases.writes:
            await self._report_changes()

    async def _report_changes(self) -> None:
        status = {subscription.name: _status_of(subscription) for subscription in self._leased()}
        node = self._node
        new = {name: each for name, each in status.items() if self._reported.get(name) != (each, node)}
        if new:
            await self._control.report(new, node)
            self._reported |= {name: (each, node) for name, each in new.items()}

    @property
    def _node(self) -> str | None:
        """The name of this node, if others work on the store too."""
        announcement = self._announcement
        return announcement.member.name if announcement is not None and announcement.others else None

    def _look_later(self) -> None:
        self._looking = self._clock.call_later(LOOK_AT_REQUESTS, lambda: self.start_task(self._look_again()))

    async def _look_again(self) -> None:
        try:
            await self.look_at_requests()
            await self._report()
            self.take_over_later()  # a lease may have been lost while a checkpoint was written
            self._cannot_look = False
        # A store may raise any exception, and a program may cancel the system's tasks.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            if not self._cannot_look and not self._is_closed:  # closed while it looked, as its store was
                self._log.error("handlers cannot be controlled yet", exc_info=error)
            self._cannot_look = True
        if not self._is_closed:
            self._look_later()

    # --- status ---

    def statistics(self) -> dict[str, HandlerStatistics]:
        """The statistics of each handler, by handler name."""
        return {each.name: each.statistics(self.router.dispatched(each)) for each in self.subscriptions}

    def _leased(self) -> list[Subscription]:
        return [subscription for subscription in self.subscriptions if subscription.leased]

    def active(self) -> list[Subscription]:
        """The handlers that this process runs and that are not paused."""
        return [subscription for subscription in self._leased() if not subscription.requests.paused]

    def live(self) -> list[Subscription]:
        """The live handlers."""
        return [subscription for subscription in self.subscriptions if subscription.live]

    def lagging(self, ends: Sequence[int]) -> list[str]:
        """Describe each active handler that has not handled every event up to the end of its log, one of ``ends``."""
        positions = [(each, self.router.checkpoint(each)) for each in self.active()]
        return [
            f"{each.name} is {each.state} at {position}"
            for each, position in positions
            if position < ends[log_of_position(position)] or not each.live
        ]

    def have_handled(self, subscriptions: Sequence[Subscription], ends: Sequence[int]) -> bool:
        """Whether these handlers are live, have no request pending, and have handled every event up to the ``ends``."""
        positions = [
            self.router.checkpoint(each) for each in subscriptions if each.live and not each.requests
        ]
        return len(positions) == len(subscriptions) and all(
            position >= ends[log_of_position(position)] for position in positions
        )

    async def infos(self, *, partitions: bool) -> list[HandlerInfo]:
        """See `ActorSystem.handlers`."""
        ours = {each.name: each for each in self.subscriptions}
        found = await self._control.handlers(partitions=True)
        now = [self._as_it_is(info, ours[info.name]) if info.name in ours else info for info in found]
        return now if partitions else grouped(now)

    def _as_it_is(self, info: HandlerInfo, subscription: Subscription) -> HandlerInfo:
        """The stored information of a handler, updated with this process's own."""
        now = subscription.statistics(self.router.dispatched(subscription))
        if not subscription.leased:
            return replace(info, state=now.state)
        end = info.position + info.lag
        position = min(now.position, end)
        return replace(
            info,
            state=now.state,
            position=position,
            lag=end - position,
            failures=now.failures,
            node=self._node,
        )

    def check_not_in_handler(self, what: str) -> None:
        """Refuse a call that waits for every handler if a handler of this system makes it, or waits for its end."""
        for subscription in self.active():
            cell = self.cells.get(subscription.name)
            circle = None if cell is None else cycle_through(cell)
            if circle is not None and len(circle) > 2:
                raise WaitsForItself(subscription.name, what, circle)
        envelope = being_handled.get()
        if envelope is None or envelope.actor.handling is not envelope:
            return  # a handler that has returned may have left this task running
        actor = getattr(envelope.actor, "actor", None)
        if isinstance(actor, HandlerActor) and actor.subscription in self.subscriptions:
            raise WaitsForItself(actor.subscription.name, what)

    # --- stopping ---

    def move_no_more(self) -> None:
        """Take no more handlers from other nodes, and give none up, before the system stops."""
        self._leases.close()

    async def release(self) -> None:
        """Give up all leases, so that other processes may run the handlers."""
        await self._leases.release_all()

    def close(self) -> None:
        """Stop the router and all scheduled work, without waiting."""
        self._is_closed = True
        self._leases.close()
        if self._looking is not None:
            self._looking.cancel()
        self._let_go.close()


def _status_of(subscription: Subscription) -> ReportedStatus:
    now = subscription.statistics(0)
    return ReportedStatus(now.state, now.failures, now.restarts)
