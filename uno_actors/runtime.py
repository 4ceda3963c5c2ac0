"""What runs while an actor system is up, on its event loop: made at the start, gone after the stop."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from uno_actors._pykka import PykkaActor
from uno_actors.actor import Actor, ActorRef
from uno_actors.aggregate import AggregateRoot
from uno_actors.aggregate_actor import Aggregates
from uno_actors.clock import Clock
from uno_actors.dispatcher import Dispatcher, DispatcherStatistics
from uno_actors.errors import NameTaken, SupervisorGaveUp, SystemNotRunning
from uno_actors.future import Future
from uno_actors.handler_actor import HandlerActor, HandlerStatistics, Subscription, Work
from uno_actors.handlers import HandlerSpec
from uno_actors.journal import Journal
from uno_actors.log import get_logger
from uno_actors.mailbox import DEFAULT, DeadMessages, make_mailbox
from uno_actors.process import ActorProcess, Failure, StopFlag
from uno_actors.router import TURN, RouterActor
from uno_actors.snapshots import check_every
from uno_actors.store import EventStore, Lease
from uno_actors.supervision import Child, SupervisorActor
from uno_actors.supervisor import Backoff, Supervisor
from uno_actors.watchdog import watchdog

if TYPE_CHECKING:
    from uno_actors.system import ActorSystem

A = TypeVar("A", bound=PykkaActor)

ROUTER_BACKOFF = Backoff(initial=0.1, max=5.0)
DRAIN_SHARE = 0.7
"""Of the time that stopping may take: what draining may use, so that some is left for the stops."""
LEASE_EVERY = 1.0
"""Seconds between two tries to take the lease of a handler that another process has."""
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
        for what in ("ask_timeout", "passivate_after"):
            if not getattr(self, what) > 0:
                raise ValueError(f"{what} must be a positive number of seconds; found {getattr(self, what)}")
        if self.stop_timeout < 0:
            raise ValueError(f"stop_timeout must not be negative; found {self.stop_timeout}")
        if self.max_active < 1:
            raise ValueError(f"max_active must be 1 or more; found {self.max_active}")
        if self.remember_commands < 0:
            raise ValueError(f"remember_commands must not be negative; found {self.remember_commands}")
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
        system: "ActorSystem",
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
        self._spawned: dict[ActorProcess, None] = {}  # in the order of their start
        self._names: dict[str, ActorProcess] = {}
        self._children: list[Child] = []
        self._leases: list[Lease] = []
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
        self._router_process: ActorProcess
        self._stop_listening: Callable[[], None] = lambda: None

    # --- starting ---

    async def start(self, supervised: Sequence[tuple[Supervisor, Sequence[HandlerSpec]]]) -> None:
        """Start router, supervisors and handlers: who has something to read reads it, the others are live."""
        store = self._store
        names = [spec.name for _, specs in supervised for spec in specs]
        leased = {
            name for name in names if await self._lease(name)
        }  # before checkpoints that others may move
        end = await store.last_position()
        checkpoints = await store.checkpoints()
        groups = [
            (supervisor, [await self._subscribe(spec, checkpoints, end) for spec in specs])
            for supervisor, specs in supervised
        ]
        self.subscriptions = [subscription for _, group in groups for subscription in group]
        for subscription in self.subscriptions:
            if subscription.name not in leased:
                subscription.stand_by()
        begun = {
            s.recorded_as: s.position
            for s in self.subscriptions
            if s.leased and s.recorded_as and s.name not in checkpoints
        }
        if begun:
            await store.save_progress(
                begun
            )  # a crash before the first event must not move where "latest" began
        self.router = RouterActor(store, self.subscriptions, end, self.clock, TURN)
        self._router_process = ActorProcess(
            self.router, self.dispatcher, factory=lambda: self.router, on_failed=self._router_failed
        )
        self._router_process.start()
        self._let_go.callback(self.router.cancel_timers)
        self._let_go.callback(self._router_process.kill)
        for supervisor, group in groups:
            await self._start_supervisor(supervisor, group)
        if self.subscriptions:  # else nobody wants to know
            self._stop_listening = store.on_commit(self.router.route_soon)
            self.router.route_soon()
        self._take_over_later()

    async def _subscribe(self, spec: HandlerSpec, checkpoints: dict[str, int], end: int) -> Subscription:
        position = 0 if spec.keeps_a_view else checkpoints.get(spec.name)
        if position is None:
            position = await self._start_of(spec, end)
        live = position >= end and not spec.keeps_a_view
        return Subscription(spec, position, self._store.event_registry, self.clock, live=live)

    async def _start_of(self, spec: HandlerSpec, end: int) -> int:
        """The position after which a handler begins that has no checkpoint."""
        if isinstance(spec.start, int):
            return spec.start
        if (moment := spec.starts_at) is None:
            return 0 if spec.start == "earliest" else end
        position = 0
        while position < end:
            for stored in await self._store.read_log(position):
                if stored.record.timestamp >= moment:
                    return stored.position - 1
                position = stored.position
            await asyncio.sleep(0)  # a long log must not keep the event loop from others
        return end

    async def _lease(self, name: str) -> bool:
        lease = await self._store.lease(name)
        if lease is not None:
            self._leases.append(lease)
        return lease is not None

    def _take_over_later(self) -> None:
        if any(subscription.state == "standby" for subscription in self.subscriptions):
            timer = self.clock.call_later(LEASE_EVERY, lambda: self.start_task(self._take_over()))
            self._let_go.callback(timer.cancel)

    async def _take_over(self) -> None:
        """Take the handlers whose holders have ended, and go on where those have left off."""
        for subscription in self.subscriptions:
            if subscription.state == "standby":
                try:
                    await self._take_over_one(subscription)
                except Exception as error:  # noqa: BLE001 - a store of somebody else's may raise anything
                    self._log.error(
                        "handler cannot be taken over yet", handler=subscription.name, exc_info=error
                    )
        self._take_over_later()

    async def _take_over_one(self, subscription: Subscription) -> None:
        lease = await self._store.lease(subscription.name)
        if lease is None:
            return
        try:
            checkpoints = await self._store.checkpoints()
            if subscription.state == "standby":  # it was not stopped meanwhile
                subscription.take_over(checkpoints.get(subscription.name, subscription.position))
                self._leases.append(lease)
                self._log.info(
                    "handler taken over", handler=subscription.name, position=subscription.position
                )
        finally:
            if not subscription.leased:
                await lease.release()

    async def release(self) -> None:
        """Let other processes have the handlers."""
        while self._leases:
            await self._leases.pop().release()

    async def _start_supervisor(self, supervisor: Supervisor, subscriptions: Sequence[Subscription]) -> None:
        shell = SupervisorActor(supervisor, self._store, self.clock, self._give_up)
        await self.spawn(shell)
        for subscription in subscriptions:
            child, started = self._start_child(subscription, shell)
            shell.children = (*shell.children, child)
            self._children.append(child)
            await started
            child.process.actor.actor_ref.tell(Work())

    def _start_child(
        self, subscription: Subscription, supervisor: SupervisorActor
    ) -> tuple[Child, Future[Any]]:
        def instance() -> HandlerActor:
            return HandlerActor(subscription, self._store, self.dispatcher, self.router, self._system)

        def failed(failure: Failure) -> None:
            supervisor.failed(child, failure)

        started: Future[Any] = Future()
        process = ActorProcess(
            instance(), self.dispatcher, factory=instance, on_failed=failed, started=started
        )
        child = Child(subscription, process, self.router.dispatched)
        subscription.wake = lambda: process.actor.actor_ref.tell(Work())
        process.start()
        return child, started

    def spawn(
        self,
        actor: A,
        parent: ActorProcess | None = None,
        name: str | None = None,
        *,
        own_thread: bool = False,
    ) -> "Future[ActorRef[A]]":
        """Start an actor that stands under no supervisor; see `ActorSystem.spawn` and `Actor.spawn`."""
        _fit(actor, own_thread=own_thread)
        started: Future[ActorRef[A]] = Future()
        ref = ActorRef(actor, self._settings.ask_timeout)
        ref.actor_inbox.dead = self.dead_messages
        actor._actor_ref = ref
        process = ActorProcess(actor, self.dispatcher, started=started, home=self, own_thread=own_thread)
        started.target = process
        if name is not None:
            owner = self._names.setdefault(name, process)
            if owner is not process:
                raise NameTaken(name, str(owner.actor))
            process.name = name
        self._spawned[process] = None
        if parent is not None:
            parent.add_child(process)
        process.start()
        return started

    def named(self, name: str) -> ActorRef[Any] | None:
        """The living actor of this name."""
        process = self._names.get(name)
        return None if process is None else cast("ActorRef[Any]", process.actor.actor_ref)

    def ended(self, process: ActorProcess) -> None:
        """Forget an actor that has ended, and its name."""
        self._spawned.pop(process, None)
        if process.name is not None:
            del self._names[process.name]

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as a task that is not lost."""
        task = self.dispatcher.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _router_failed(self, failure: Failure) -> None:
        """The router goes on where it stood: it fails only when its store does."""
        delay = ROUTER_BACKOFF.delay(self._router_process.restarts, 0.5)
        self._log.error("router failed", exc_info=failure.error, restart_in=delay)

        def restart() -> None:
            if not self.router.actor_stopped.is_set():
                self._router_process.restart()
                self.router.route_soon()

        self.clock.call_later(delay, restart)

    # --- running ---

    def statistics(self) -> SystemStatistics:
        """What the system has done so far."""
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
            dispatcher=self.dispatcher.statistics(),
            handlers={s.name: s.statistics(self.router.dispatched(s)) for s in self.subscriptions},
        )

    async def settled(self, timeout: float) -> None:
        """See `ActorSystem.settled`."""
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
                "commands are not answered yet" if self.aggregates.busy else "all commands are answered"
            )
            state = "; ".join([commands, f"the log ends at {end}", *behind])
            raise TimeoutError(f"not settled within {timeout:g} s: {state}") from None

    def _active(self) -> list[Subscription]:
        return [subscription for subscription in self.subscriptions if subscription.leased]

    async def _is_settled(self, subscriptions: Sequence[Subscription]) -> bool:
        if self.aggregates.busy:
            return False
        end = await self._store.last_position()
        return all(s.live and self.router.checkpoint(s) >= end for s in subscriptions)

    # --- stopping ---

    async def stop(self, timeout: float) -> None:
        """Drain, then stop the last started first, all within ``timeout`` seconds; what remains is abandoned."""
        begun = time.monotonic()
        deadline = begun + timeout
        try:
            await self._within(begun + timeout * DRAIN_SHARE, self._drain())
            for child in reversed(self._children):
                await self._stop_one(child.stop(), child.process, deadline)
            await self._within(max(deadline, time.monotonic() + 1), self.router.save_checkpoints())
            for process in (*reversed(self._spawned), self._router_process):
                await self._stop_one(process.stop(), process, deadline)
            await self._within(deadline, self._answered())
            await self._within(deadline, self.aggregates.save_snapshots())
            await self._within(max(deadline, time.monotonic() + 1), self.release())
        finally:
            self._stop_listening()
            self.close()

    async def _answered(self) -> None:
        while self.aggregates.busy:  # noqa: ASYNC110 - it has many causes
            await asyncio.sleep(LOOK_AGAIN)

    async def _drain(self) -> None:
        """Wait until nothing is left that can be done soon; handlers that are behind go on another time."""
        while not await self._is_settled([s for s in self.subscriptions if s.live]):  # noqa: ASYNC110 - as above
            await asyncio.sleep(LOOK_AGAIN)

    async def _stop_one(self, stopped: Awaitable[None], process: ActorProcess, deadline: float) -> None:
        if not await self._within(deadline, stopped):
            self._log.warning("actor did not stop in time and is abandoned", actor=str(process.actor))
            process.kill()

    async def _within(self, deadline: float, work: Awaitable[Any]) -> bool:
        """Await ``work`` until ``deadline``; whether it was done by then. What fails does not stop the stop."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await work
        except TimeoutError:
            return False
        except Exception as error:  # noqa: BLE001 - a store of somebody else's may raise anything
            self._log.error("stopping goes on after an error", exc_info=error)
            return False
        return True

    def close(self) -> None:
        """Let go of what needs no waiting; also after a start that failed."""
        self.aggregates.close(SystemNotRunning(self._settings.name, "stopped"))
        for child in self._children:
            child.abandon()
        for process in tuple(self._spawned):
            process.kill()
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
    if own_thread and inspect.iscoroutinefunction(actor.on_receive):
        raise ValueError(f"{kind} handles its messages in a coroutine, on the event loop: it needs no thread")
    if isinstance(actor, Actor):
        return
    if not own_thread:
        raise TypeError(f"{kind} is an actor of pykka's threads: spawn it with dispatcher='thread'")
    inbox = make_mailbox(getattr(actor, "mailbox", DEFAULT))
    inbox.urn = actor.actor_urn
    actor.actor_inbox, actor.actor_stopped = cast("Any", (inbox, StopFlag()))
