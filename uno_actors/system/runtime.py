"""What runs while an actor system is up, on its event loop: made at the start, gone after the stop."""

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from uno_actors.actors.actor import Actor, ActorRef, StartReply
from uno_actors.actors.ask import being_handled, time_left
from uno_actors.actors.cell import ActorCell
from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.actors.dispatcher import Dispatcher, DispatcherStatistics
from uno_actors.actors.future import Future
from uno_actors.actors.inspection import MessageStatistics, messages_of
from uno_actors.actors.mailbox import DEFAULT, make_mailbox
from uno_actors.actors.pykka import PykkaActor
from uno_actors.actors.signals import Failure
from uno_actors.actors.stop_flag import StopFlag
from uno_actors.actors.watchdog import watchdog
from uno_actors.aggregates.directory import Aggregates
from uno_actors.aggregates.external_writes import ExternalWrites
from uno_actors.aggregates.journal import Journal
from uno_actors.aggregates.snapshots import check_every
from uno_actors.backoff import Backoff
from uno_actors.clock import Clock, Timer
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import (
    InvalidHandler,
    InvalidSupervisor,
    NameTaken,
    SupervisorGaveUp,
    SystemNotRunning,
    UnknownHandler,
    UnknownSupervisor,
    WaitsForItself,
)
from uno_actors.handlers.actor import HandlerActor, Work
from uno_actors.handlers.child import HandlerChild
from uno_actors.handlers.control import HandlerControl, HandlerInfo, position_of
from uno_actors.handlers.failures import HandlerFailure
from uno_actors.handlers.moves import checkpoint_of, warn_of_skipped, warn_of_unnamed
from uno_actors.handlers.requests import NO_REQUESTS, ReportedStatus, Requests
from uno_actors.handlers.router import TURN, RouterActor
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscription import HandlerStatistics, Subscription
from uno_actors.logs import get_logger
from uno_actors.quantities import check_count, check_duration
from uno_actors.store.port import EventStore, Lease
from uno_actors.supervision.child import ActorChild, ChildFailed, ChildHandle, ChildSignal, TreeNode
from uno_actors.supervision.reload import Difference
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.supervision.supervisor import SupervisorActor, SupervisorChild
from uno_actors.system.tree import handlers_in, resolve_child
from uno_actors.tasks import begin

A = TypeVar("A", bound=PykkaActor)

ROUTER_BACKOFF = Backoff(initial=0.1, max=5.0)
DRAIN_SHARE = 0.7
"""Of the time that stopping may take: what draining may use, so that some is left for the stops."""
LEASE_EVERY = 1.0
"""Seconds between two tries to take the lease of a handler that another process has."""
LOOK_AT_REQUESTS = 0.5
"""Seconds between two looks at what operators ask of handlers."""
LOOK_AGAIN = 0.005
"""Seconds between two looks at whether everything is done."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a system was told; see `ActorSystem`."""

    name: str
    ask_timeout: float
    passivate_after: float
    max_active: int
    snapshot_every: int | None
    remember_commands: int
    stop_timeout: float
    clock: Clock

    def __post_init__(self) -> None:
        check_duration("ask_timeout", self.ask_timeout)
        check_duration("passivate_after", self.passivate_after)
        check_duration("stop_timeout", self.stop_timeout, zero=True)
        check_count("max_active", self.max_active, 1)
        check_count("remember_commands", self.remember_commands)
        check_every(self.snapshot_every)


@dataclass(frozen=True, slots=True)
class SystemStatistics:
    """What a system has done since it started.

    Attributes:
        commands: Commands answered with a reply.
        rejected: Commands rejected by a rule of the domain.
        failed: Commands answered with another error.
        reruns: Commands run again because another writer was faster or a commit failed.
        repeated: Commands answered with the outcome that they had the first time.
        events_recorded: Events that commands have recorded.
        commits: Groups in which they were committed.
        activations: Aggregates loaded from the store.
        events_replayed: Events applied while loading.
        passivations: Idle aggregates that were let go.
        snapshots: Snapshots of aggregates that were saved.
        active_aggregates: Aggregates active now.
        dead_messages: Messages that were told and not handled; see `ActorSystem.dead_messages`.
        actors: Spawned actors that live now, the system's own supervisors included.
        messages: What waits for them, and what they have handled.
        commands_waiting: Commands that are not answered yet.
        oldest_command: Seconds since the one of them was sent that waits for longest, of those with the system's
            own timeout; ``None`` if there is none.
        restarts: How often children of its supervisors were restarted.
        dispatcher: Its event loop and worker threads.
        handlers: By handler name.
    """

    commands: int
    rejected: int
    failed: int
    reruns: int
    repeated: int
    events_recorded: int
    commits: int
    activations: int
    events_replayed: int
    passivations: int
    snapshots: int
    active_aggregates: int
    dead_messages: int
    actors: int
    messages: MessageStatistics
    commands_waiting: int
    oldest_command: float | None
    restarts: int
    dispatcher: DispatcherStatistics
    handlers: dict[str, HandlerStatistics]


class Runtime:
    """The running parts of a system, and the order in which they start and stop.

    Args:
        system: For handlers' contexts.
        store: Open.
        types: The aggregate classes by type name; may grow.
        settings: See there.
        give_up: Told when a supervisor under the root has given up.
    """

    def __init__(
        self,
        system: SystemServices,
        store: EventStore,
        types: dict[str, type[AggregateRoot]],
        settings: Settings,
        give_up: Callable[[SupervisorGaveUp], None],
    ) -> None:
        self.dispatcher = Dispatcher(asyncio.get_running_loop())
        watchdog.watch(self.dispatcher)
        self.subscriptions: list[Subscription] = []
        self._system = system
        self._store = store
        self._settings = settings
        self.clock = settings.clock
        self._give_up = give_up
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spawned: dict[ActorCell, None] = {}  # in the order of their start
        self._names: dict[str, ActorCell] = {}
        self._spawning = threading.RLock()  # a signal handler may spawn on the thread that it interrupts here
        self._takes_no_more = False  # actors: those that there are, are being stopped
        self._is_closed = False
        self._tree: list[SupervisorChild] = []
        self._supervisors: dict[str, SupervisorActor] = {}
        self._handlers: set[str] = set()  # names of those that stand in the tree
        self._on_ended: dict[ActorCell, Callable[[ActorCell], None]] = {}
        self._leases: dict[str, Lease] = {}
        self._control = HandlerControl(store)
        self._reported: dict[str, ReportedStatus] = {}
        self._looking: Timer | None = None
        self._taking_over: Timer | None = None
        self._cannot_look = False
        self._log = get_logger(system=settings.name)
        self.dead_messages = DeadMessages()
        self.journal = Journal(store)
        self.aggregates = Aggregates(
            types,
            store,
            self.journal,
            self.dispatcher,
            self.clock,
            ask_timeout=settings.ask_timeout,
            passivate_after=settings.passivate_after,
            max_active=settings.max_active,
            snapshot_every=settings.snapshot_every,
            remember_commands=settings.remember_commands,
            start=self.start_task,
            dead=self.dead_messages,
        )
        self._let_go = ExitStack()  # what is to be done at the end, however far the start came
        self.router: RouterActor
        self._router_cell: ActorCell
        self._is_listening = False
        self.takes_work = False  # commands and new actors

    # --- starting ---

    async def start(self, supervisors: Sequence[Supervisor]) -> None:
        """Start router, supervisors and children: handlers with something to read read it, the others are live."""
        store = self._store
        specs = [spec for supervisor in supervisors for spec in handlers_in(supervisor)]
        leased = [
            spec.name for spec in specs if await self._lease(spec.name)
        ]  # before checkpoints that others may move
        end = await store.last_position()
        checkpoints = await store.checkpoints()
        await self._warn_of_names(specs, checkpoints, end)
        self.subscriptions = [await self._subscribe(spec, checkpoints, end) for spec in specs]
        for subscription in self.subscriptions:
            if subscription.name not in leased or self._leases[subscription.name].is_lost:
                subscription.stand_by()
        await self._record_begin(self.subscriptions, checkpoints)
        self.router = RouterActor(store, self.subscriptions, end, self.clock, TURN)
        self._router_cell = ActorCell(
            self.router, self.dispatcher, factory=lambda: self.router, on_failed=self._router_failed
        )
        self._router_cell.start()
        self._let_go.callback(self.router.cancel_timers)
        self._let_go.callback(self._router_cell.kill)
        if self.subscriptions:
            await self.look_at_requests()
        # From here on commands work, and what they record is handed out: whatever starts below may send some.
        self._follow_external_writes(end)
        self._listen()
        self.takes_work = True
        for supervisor in supervisors:
            await self._start_top(supervisor)
        self._take_over_later()

    def _follow_external_writes(self, position: int) -> None:
        external_writes = ExternalWrites(self._store, position, self.aggregates, self.start_task)
        self.journal.on_append = external_writes.skip
        self._let_go.callback(self._store.on_commit(external_writes.look_soon))

    async def _start_top(self, supervisor: Supervisor) -> None:
        child = SupervisorChild(supervisor, ChildSpec(supervisor), self._root_signal, self)
        self._tree.append(child)
        await child.start()

    def _listen(self) -> None:
        if self.subscriptions and not self._is_listening:  # else nobody wants to know
            self._is_listening = True
            self._let_go.callback(self._store.on_commit(self.router.route_soon))
            self.router.route_soon()
            self._look_later()
            self._let_go.callback(self._look_no_more)

    async def _record_begin(self, subscriptions: Sequence[Subscription], checkpoints: dict[str, int]) -> None:
        """A crash before the first event must not move where "latest" began."""
        begun = {
            s.progress.checkpoint: s.progress.position
            for s in subscriptions
            if s.leased and s.progress.checkpoint and s.name not in checkpoints
        }
        if begun:
            await self._store.save_progress(begun)

    async def _warn_of_names(
        self, specs: Sequence[HandlerSpec], checkpoints: Mapping[str, int], end: int
    ) -> None:
        if self._store.is_durable:
            warn_of_unnamed(specs, checkpoints)
            running = [subscription.spec for subscription in self.subscriptions]
            warn_of_skipped(specs, running, await self._control.plain(), checkpoints, end)

    async def _subscribe(self, spec: HandlerSpec, checkpoints: dict[str, int], end: int) -> Subscription:
        others = [subscription.name for subscription in self.subscriptions]
        position = 0 if spec.keeps_a_view else checkpoint_of(spec, checkpoints, others)
        if position is None:
            position = await position_of(self._store, spec.start, end)
        return Subscription(spec, position, self._store.event_registry, self.clock)

    async def _lease(self, name: str) -> bool:
        lease = await self._store.lease(name)
        if lease is not None:
            self._hold(name, lease)
        return lease is not None

    def _hold(self, name: str, lease: Lease) -> None:
        self._leases[name] = lease
        lease.when_lost(lambda: self._lost(name))

    def _lost(self, name: str) -> None:
        """Another process has taken over a handler that runs here."""
        self._reported.pop(name, None)
        for subscription in self._leased():
            if subscription.name == name:
                self._log.warning("handler was taken over by another process", handler=name)
                subscription.stand_by()
        self._take_over_later()

    def _take_over_later(self) -> None:
        if self._taking_over is None and any(each.state == "standby" for each in self.subscriptions):
            self._taking_over = self.clock.call_later(LEASE_EVERY, lambda: self.start_task(self._take_over()))

    async def _take_over(self) -> None:
        """Take the handlers whose holders have ended, and go on where those have left off."""
        self._taking_over = None
        for subscription in tuple(self.subscriptions):
            if subscription.state == "standby":
                try:
                    await self._take_over_one(subscription)
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as in `_look_again`
                    self._log.error(
                        "handler cannot be taken over yet", handler=subscription.name, exc_info=error
                    )
        if not self._is_closed:
            self._take_over_later()

    async def _take_over_one(self, subscription: Subscription) -> None:
        if subscription.progress.pending:  # it was lost while an event was handled, which has not ended
            return
        if (lost := self._leases.pop(subscription.name, None)) is not None:
            await lost.release()
        lease = await self._store.lease(subscription.name)
        if lease is None:
            return
        try:
            checkpoints, requests = await self._store.checkpoints(), await self._control.requests()
            if subscription.state == "standby":  # it was not stopped meanwhile
                subscription.take_over(checkpoints.get(subscription.name, subscription.progress.position))
                self._give_requests(subscription, requests)
                self._hold(subscription.name, lease)
                self._log.info(
                    "handler taken over", handler=subscription.name, position=subscription.progress.position
                )
        finally:
            if not subscription.leased:
                await lease.release()

    async def release(self) -> None:
        """Let other processes have the handlers."""
        while self._leases:
            _, lease = self._leases.popitem()
            await lease.release()

    async def look_at_requests(self) -> None:
        """Have the handlers that run here do what operators ask for."""
        requests = await self._control.requests()
        for subscription in self._leased():
            self._give_requests(subscription, requests)

    async def _tell(self) -> None:
        """Tell operators how the handlers are that run here."""
        now = {subscription.name: subscription.statistics(0) for subscription in self._leased()}
        reported = {
            name: ReportedStatus(each.state, each.failures, each.restarts) for name, each in now.items()
        }
        new = {name: each for name, each in reported.items() if self._reported.get(name) != each}
        if new:
            await self._control.report(new)
            self._reported |= new

    def _give_requests(self, subscription: Subscription, requests: Mapping[str, Requests]) -> None:
        subscription.take_requests(
            requests.get(subscription.name, NO_REQUESTS), self.router.dispatched(subscription)
        )

    def _look_later(self) -> None:
        self._looking = self.clock.call_later(LOOK_AT_REQUESTS, lambda: self.start_task(self._look_again()))

    def _look_no_more(self) -> None:
        for timer in (self._looking, self._taking_over):
            if timer is not None:
                timer.cancel()

    async def _look_again(self) -> None:
        try:
            await self.look_at_requests()
            await self._tell()
            self._take_over_later()  # one that was lost while its checkpoint was written
            self._cannot_look = False
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - of a store, or see `start_task`
            if not self._cannot_look:
                self._log.error("handlers cannot be controlled yet", exc_info=error)
            self._cannot_look = True
        if not self._is_closed:
            self._look_later()

    async def unsubscribe(self, name: str) -> None:
        """See `ActorSystem.unsubscribe`."""
        for supervisor in self._supervisors.values():
            if isinstance(supervisor.children.get(name), HandlerChild):
                await supervisor.drop_children([name])
                return
        raise UnknownHandler(name, [subscription.name for subscription in self.subscriptions])

    # --- the tree ---

    async def start_supervisor(
        self,
        rules: Supervisor,
        gave_up: Callable[[SupervisorGaveUp], None],
        has_ended: Callable[[], None],
    ) -> SupervisorActor:
        """See `uno_actors.supervision.supervisor.SupervisorHost`."""
        if rules.name in self._supervisors:
            raise InvalidSupervisor(f"supervisor {rules.name!r}", "the system has one of this name already")
        self._supervisors[rules.name] = supervisor = SupervisorActor(rules, self, gave_up, has_ended)
        await self.spawn(supervisor)
        return supervisor

    def resolve_child(self, child: Any) -> list[ChildSpec]:
        """See `uno_actors.supervision.supervisor.SupervisorHost`."""
        return resolve_child(child)

    async def make_child(self, spec: ChildSpec, tell: Callable[[ChildSignal], None]) -> ChildHandle:
        """See `uno_actors.supervision.supervisor.SupervisorHost`."""
        if isinstance(spec.run, Supervisor):
            return SupervisorChild(spec.run, spec, tell, self)
        if not isinstance(spec.run, HandlerSpec):
            return ActorChild(spec.known_name or "", spec, tell, self)
        if spec.run.name in self._handlers:
            raise InvalidHandler(f"two handlers are named {spec.run.name!r}: give each a name of its own")
        self._handlers.add(spec.run.name)
        known = [subscription for subscription in self.subscriptions if subscription.name == spec.run.name]
        try:
            subscription = known[0] if known else await self._add_subscription(spec.run)
        except BaseException:
            await self._free(spec.run.name)
            raise
        return HandlerChild(subscription, spec, tell, self, self._store)

    async def forget(self, child: ChildHandle) -> None:
        """See `uno_actors.supervision.supervisor.SupervisorHost`."""
        if isinstance(child, SupervisorChild) and (supervisor := child.supervisor) is not None:
            for other in supervisor.children.values():
                await self.forget(other)
            self._supervisors.pop(supervisor.rules.name, None)
            supervisor.actor_ref.stop(block=False)
        elif isinstance(child, HandlerChild):
            try:
                await self.router.save_checkpoints()
            finally:
                self.router.remove(child.subscription)
                await self._free(child.name)

    async def _free(self, name: str) -> None:
        """Let another handler have the name of one that is gone."""
        self._handlers.discard(name)
        if (lease := self._leases.pop(name, None)) is not None:
            await lease.release()

    async def _add_subscription(self, spec: HandlerSpec) -> Subscription:
        """A handler that comes while the system runs."""
        leased = await self._lease(spec.name)
        checkpoints, end = await self._store.checkpoints(), await self._store.last_position()
        await self._warn_of_names([spec], checkpoints, end)
        subscription = await self._subscribe(spec, checkpoints, end)
        if not leased:
            subscription.stand_by()
        await self._record_begin([subscription], checkpoints)
        if leased:
            self._give_requests(subscription, await self._control.requests())
        self.router.add(subscription)
        self._listen()
        self._take_over_later()
        return subscription

    def handler_cell(
        self, subscription: Subscription, on_failed: Callable[[HandlerFailure], None]
    ) -> tuple[ActorCell, Future[Any]]:
        """See `uno_actors.handlers.child.HandlerHost`."""

        def instance() -> HandlerActor:
            return HandlerActor(subscription, self._store, self.dispatcher, self.router, self._system)

        def failed(failure: Failure) -> None:
            actor = cell.actor
            assert isinstance(actor, HandlerActor)
            on_failed(actor.failure(failure))

        started: Future[Any] = Future()
        cell = ActorCell(instance(), self.dispatcher, factory=instance, on_failed=failed, started=started)
        cell.name = subscription.name  # in logs and errors
        subscription.wake = lambda: cell.actor.actor_ref.tell(Work())
        cell.start()
        return cell, started

    def dispatched(self, subscription: Subscription) -> int:
        """See `uno_actors.handlers.child.HandlerHost`."""
        return self.router.dispatched(subscription)

    def spawn_child(
        self,
        factory: Callable[[], PykkaActor],
        name: str | None,
        *,
        own_thread: bool,
        on_failed: Callable[[Failure], None],
        on_ended: Callable[[ActorCell], None],
    ) -> tuple[ActorCell, Future[Any]]:
        """See `uno_actors.supervision.child.ActorHost`."""
        cell, started = self._make_cell(
            factory(), name, own_thread=own_thread, factory=factory, on_failed=on_failed
        )
        self._on_ended[cell] = on_ended
        return cell, started

    def _root_signal(self, signal: ChildSignal) -> None:
        """A supervisor at the top has given up, and with it the system; or it has ended, which is all right."""
        if isinstance(signal, ChildFailed) and isinstance(signal.error, SupervisorGaveUp):
            self._give_up(signal.error)

    async def change(self, wanted: Difference) -> dict[str, Exception]:
        """Turn the tree into another; what is in both runs on.

        Returns:
            By name the children that could not be started, and why; they are left out.
        """
        for name in wanted.stop:
            await self._stop_top(name)
        supervisors = [(change, self._supervisors[change.rules.name]) for change in wanted.changes]
        for change, supervisor in reversed(supervisors):
            await supervisor.drop_children(change.stop)
        for change, supervisor in supervisors:
            supervisor.adopt(change.rules)
        failed: dict[str, Exception] = {}
        for change, supervisor in supervisors:
            for spec in change.start if supervisor.is_running else ():  # else they come with their supervisor
                try:
                    await supervisor.start_child(spec)
                except Exception as error:  # noqa: BLE001 - whatever its start raises
                    failed[spec.known_name or ""] = error
            supervisor.adopt(change.rules)
        for added in wanted.start:
            try:
                await self._start_top(added)
            except Exception as error:  # noqa: BLE001 - whatever the start of a child raises
                failed[added.name] = error
                await self._stop_top(added.name)
        return failed

    async def _stop_top(self, name: str) -> None:
        for child in [child for child in self._tree if child.name == name]:
            await child.stop()
            await self.forget(child)
            self._tree.remove(child)

    def supervisor(self, name: str) -> SupervisorActor:
        """The supervisor of this name.

        Raises:
            UnknownSupervisor: There is none.
        """
        if name not in self._supervisors:
            raise UnknownSupervisor(self._settings.name, name, self._supervisors)
        return self._supervisors[name]

    def tree(self) -> TreeNode:
        """All supervisors with what stands under them."""
        nodes = tuple(child.node(restarting=False) for child in self._tree)
        return TreeNode(self._settings.name, "supervisor", "running", children=nodes)

    def spawn(
        self,
        actor: A,
        parent: ActorCell | None = None,
        name: str | None = None,
        *,
        own_thread: bool = False,
    ) -> "Future[ActorRef[A]]":
        """Start an actor that stands under no supervisor; see `ActorSystem.spawn` and `Actor.spawn`."""
        seconds = time_left(self._settings.ask_timeout)
        return self._make_cell(actor, name, parent, own_thread=own_thread, seconds=seconds)[1]

    def _make_cell(
        self,
        actor: A,
        name: str | None,
        parent: ActorCell | None = None,
        *,
        own_thread: bool,
        seconds: float | None = None,
        factory: Callable[[], PykkaActor] | None = None,
        on_failed: Callable[[Failure], None] | None = None,
    ) -> "tuple[ActorCell, Future[ActorRef[A]]]":
        """Make a process of this system and start it; the future has its reference when it has started.

        It is abandoned if it has not started within ``seconds``, as far as the future is looked at.
        """
        _fit(actor, own_thread=own_thread)
        started: Future[ActorRef[A]] = Future() if seconds is None else StartReply(seconds)
        ref = ActorRef(actor, self._settings.ask_timeout)
        ref.actor_inbox.dead = self.dead_messages
        actor._actor_ref = ref
        cell = ActorCell(
            actor,
            self.dispatcher,
            factory=factory,
            on_failed=on_failed,
            started=started,
            host=self,
            own_thread=own_thread,
        )
        started.target = cell
        with self._spawning:  # at the end of the system either it is seen there, or refused here
            if self._takes_no_more:
                raise SystemNotRunning(self._settings.name, "stopping and takes no more actors")
            if name is not None:
                owner = self._names.setdefault(name, cell)
                if owner is not cell:
                    raise NameTaken(name, str(owner))
                cell.name = name
            self._spawned[cell] = None
        if parent is not None:
            parent.add_child(cell)
        cell.start()
        return cell, started

    def named(self, name: str) -> ActorRef[Any] | None:
        """The living actor of this name."""
        cell = self._names.get(name)
        return None if cell is None else cast("ActorRef[Any]", cell.actor.actor_ref)

    def ended(self, cell: ActorCell) -> None:
        """Forget an actor that has ended, and its name."""
        self._spawned.pop(cell, None)
        if cell.name is not None:
            del self._names[cell.name]
        if (listener := self._on_ended.pop(cell, None)) is not None:
            listener(cell)

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task that is not lost.

        A program may cancel tasks that are not its own. What is to be done all the same is the coroutine's affair;
        `close` cancels all of them, too.
        """
        task = begin(self.dispatcher.loop, coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _router_failed(self, failure: Failure) -> None:
        """The router goes on where it stood: it fails only when its store does."""
        delay = ROUTER_BACKOFF.delay(self._router_cell.restarts, 0.5)
        self._log.error("router failed", exc_info=failure.error, restart_in=delay)

        def restart() -> None:
            if not self.router.actor_stopped.is_set():
                self._router_cell.restart()
                self.router.route_soon()

        self.clock.call_later(delay, restart)

    # --- running ---

    def statistics(self) -> SystemStatistics:
        """What the system has done so far; the time grows with the number of spawned actors."""
        totals = self.aggregates.statistics
        return SystemStatistics(
            commands=totals.commands,
            rejected=totals.rejected,
            failed=totals.failed,
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
            actors=len(self._spawned),
            messages=messages_of(tuple(self._spawned)),
            commands_waiting=self.aggregates.waiting,
            oldest_command=self.aggregates.oldest(),
            restarts=sum(node.restarts for node in self.tree().walk()),
            dispatcher=self.dispatcher.statistics(),
            handlers={s.name: s.statistics(self.router.dispatched(s)) for s in self.subscriptions},
        )

    async def settled(self, timeout: float) -> None:
        """See `ActorSystem.settled`."""
        self._check_not_in_handler("settled()")
        try:
            async with asyncio.timeout(timeout):
                while not await self._is_settled(self._active()):  # noqa: ASYNC110 - it has many causes
                    await asyncio.sleep(LOOK_AGAIN)
        except TimeoutError:
            end = await self._store.last_position()
            positions = [(s, self.router.checkpoint(s)) for s in self._active()]
            behind = [
                f"{s.name} is {s.state} at {position}"
                for s, position in positions
                if position < end or not s.live
            ]
            commands = (
                "commands are not answered yet" if self.aggregates.waiting else "all commands are answered"
            )
            state = "; ".join([commands, f"the log ends at {end}", *behind])
            raise TimeoutError(f"not settled within {timeout:g} s: {state}") from None

    def _check_not_in_handler(self, what: str) -> None:
        """Refuse what ends only when every handler has returned, where one of ours is what calls it."""
        envelope = being_handled.get()
        if envelope is None or envelope.actor.handling is not envelope:
            return  # a handler may have started it, and left it behind
        actor = getattr(envelope.actor, "actor", None)
        if isinstance(actor, HandlerActor) and actor.subscription in self.subscriptions:
            raise WaitsForItself(actor.subscription.name, what)

    def _leased(self) -> list[Subscription]:
        return [subscription for subscription in self.subscriptions if subscription.leased]

    def _active(self) -> list[Subscription]:
        return [subscription for subscription in self._leased() if not subscription.requests.paused]

    async def handlers(self) -> list[HandlerInfo]:
        """See `ActorSystem.handlers`."""
        ours = {each.name: each for each in self.subscriptions}
        found = await self._control.handlers()
        return [self._as_it_is(info, ours[info.name]) if info.name in ours else info for info in found]

    def _as_it_is(self, info: HandlerInfo, subscription: Subscription) -> HandlerInfo:
        """What the store knows of a handler, corrected by what we know."""
        now = subscription.statistics(self.router.dispatched(subscription))
        if not subscription.leased:
            return replace(info, state=now.state)
        end = info.position + info.lag
        position = min(now.position, end)
        return replace(info, state=now.state, position=position, lag=end - position, failures=now.failures)

    async def _is_settled(self, subscriptions: Sequence[Subscription]) -> bool:
        if self.aggregates.waiting:
            return False
        end = await self._store.last_position()
        return all(s.live and not s.requests and self.router.checkpoint(s) >= end for s in subscriptions)

    # --- stopping ---

    async def stop(self, timeout: float) -> None:
        """Drain, then stop the last started first, all within ``timeout`` seconds; what remains is abandoned."""
        begun = time.monotonic()
        deadline = begun + timeout
        try:
            await self._within(begun + timeout * DRAIN_SHARE, self._drain())
            for child in reversed(self._tree):
                # It keeps to the deadline by itself.
                await self._within(deadline + 1, child.stop(deadline))
            await self._within(max(deadline, time.monotonic() + 1), self.router.save_checkpoints())
            self._take_no_more()
            for cell in (*reversed(self._spawned), self._router_cell):
                await self._stop_one(cell.stop(), cell, deadline)
            await self._within(deadline, self._answered())
            await self._within(deadline, self.aggregates.saver.save())
            await self._within(max(deadline, time.monotonic() + 1), self.release())
        finally:
            self.close()

    async def _answered(self) -> None:
        while self.aggregates.waiting:  # noqa: ASYNC110 - it has many causes
            await asyncio.sleep(LOOK_AGAIN)

    async def _drain(self) -> None:
        """Wait until nothing is left that can be done soon; handlers that are behind go on another time."""
        while not await self._is_settled([s for s in self.subscriptions if s.live]):  # noqa: ASYNC110 - as above
            await asyncio.sleep(LOOK_AGAIN)

    async def _stop_one(self, stopped: Awaitable[None], cell: ActorCell, deadline: float) -> None:
        if not await self._within(deadline, stopped):
            self._log.warning("actor did not stop in time and is abandoned", actor=str(cell))
            cell.kill()

    async def _within(self, deadline: float, work: Awaitable[Any]) -> bool:
        """Await ``work`` until ``deadline``; whether it was done by then. What fails does not stop the stop.

        Nor does it if the program cancels this task, which is the system's own and ends by its deadline.
        """
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await work
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            self._log.warning("stopping goes on, though its task was cancelled")
            return isinstance(work, Future) and await self._within(deadline, work)
        except Exception as error:  # noqa: BLE001 - a store of somebody else's may raise anything
            self._log.error("stopping goes on after an error", exc_info=error)
            return False
        return True

    def _take_no_more(self) -> None:
        with self._spawning:  # whoever spawns has entered the actor before, or is refused from here on
            self._takes_no_more = True

    def close(self) -> None:
        """Let go of what needs no waiting; also after a start that failed."""
        self._is_closed = True
        self._take_no_more()
        self.aggregates.close(SystemNotRunning(self._settings.name, "stopped"))
        for child in reversed(self._tree):
            child.abandon()
        for cell in tuple(self._spawned):
            cell.kill()
        self._let_go.close()
        for task in self._tasks:
            task.cancel()
        watchdog.forget(self.dispatcher)
        self.dispatcher.close()


def _fit(actor: PykkaActor, *, own_thread: bool) -> None:
    """See to it that ``actor`` can run there; one of pykka's threads is given the inbox of our runtime.

    Raises:
        TypeError, ValueError: It cannot.
    """
    kind = type(actor).__name__
    if not hasattr(actor, "actor_inbox"):
        raise TypeError(f"{kind}.__init__ must begin with super().__init__(), else it has no mailbox")
    if own_thread and inspect.iscoroutinefunction(actor.on_receive):
        raise ValueError(f"{kind} handles its messages in a coroutine, on the event loop: it needs no thread")
    if isinstance(actor, Actor):
        return
    if not own_thread:
        raise TypeError(f"{kind} is an actor of pykka's threads: spawn it with dispatcher='thread'")
    inbox = make_mailbox(getattr(actor, "mailbox", DEFAULT))
    inbox.urn = actor.actor_urn
    actor.actor_inbox, actor.actor_stopped = cast("Any", (inbox, StopFlag()))
