"""The actor system: puts a store, aggregates, handlers and supervisors together, and runs them."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from uno_actors.actor import Actor, ActorProcess, ActorRef, Failure
from uno_actors.aggregate import AggregateRoot
from uno_actors.aggregate_actor import AggregateRef, Aggregates, Envelope
from uno_actors.clock import Clock, SystemClock
from uno_actors.codec import StreamId
from uno_actors.dispatcher import Dispatcher, LoopThread
from uno_actors.errors import InvalidHandler, SupervisorGaveUp, SystemNotRunning, UnknownAggregateType, UnoError
from uno_actors.future import Future
from uno_actors.handler_actor import HandlerActor, HandlerStatistics, Subscription, Work
from uno_actors.handlers import HandlerSpec, gather, handler_registry
from uno_actors.journal import Journal
from uno_actors.log import get_logger
from uno_actors.router import RouterActor
from uno_actors.store import EventStore, open_store
from uno_actors.supervision import Child, ChildFailed, SupervisorActor
from uno_actors.supervisor import Backoff, Supervisor

A = TypeVar("A", bound=Actor)
T = TypeVar("T")
G = TypeVar("G", bound=AggregateRoot)

DEFAULT_SUPERVISOR = "handlers"
"""Supervisor of handlers that stand under no other: any number of restarts, for each event has its attempts."""

ROUTER_BACKOFF = Backoff(initial=0.1, max=5.0)

State = Literal["new", "starting", "running", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class SystemStatistics:
    """What a system has done since it started.

    Attributes:
        commands: Commands answered with a reply.
        rejected: Commands rejected by a rule of the domain.
        failed: Commands answered with another error.
        reruns: Commands run again because another writer was faster or a commit failed.
        events_recorded: Events that commands have recorded.
        commits: Groups in which they were committed.
        activations: Aggregates loaded from the store.
        events_replayed: Events applied while loading.
        passivations: Idle aggregates that were let go.
        active_aggregates: Aggregates active now.
        handlers: By handler name.
    """

    commands: int
    rejected: int
    failed: int
    reruns: int
    events_recorded: int
    commits: int
    activations: int
    events_replayed: int
    passivations: int
    active_aggregates: int
    handlers: dict[str, HandlerStatistics]


class ActorSystem:
    """Aggregates, handlers and their supervisors over one store.

    Used as ``async with`` it runs on the present event loop; used as ``with`` it runs on a loop on a thread of
    its own, for synchronous programs. Leaving the block stops it: what was accepted is handled and recorded,
    live handlers get what was recorded, checkpoints are written, all within ``stop_timeout``.

    Args:
        store: A store, which stays open when the system stops; or a URL such as ``lmdb:./data/bank``.
        aggregates: The aggregate classes it serves; default is any that is asked for.
        handlers: Handlers, or modules that have some; default is all that was subscribed so far.
        supervisors: Supervisors with their handlers; a handler that stands under none is restarted without
            limit, each of its events ``max_attempts`` times.
        name: For logs.
        ask_timeout: Seconds until an ask without a reply ends with `AskTimeout`.
        passivate_after: Seconds without a command after which an aggregate is let go.
        max_active: Aggregates that stay active; beyond it those idle for longest are let go.
        stop_timeout: Seconds that stopping may take.
        clock: For everything that waits.

    Raises:
        InvalidHandler: Two handlers or supervisors have one name, or one of them is wrong.
        InvalidStoreUrl: No installed store has the URL's scheme.
    """

    def __init__(
        self,
        store: EventStore | str = "memory:",
        *,
        aggregates: Sequence[type[AggregateRoot]] | None = None,
        handlers: Iterable[object] | None = None,
        supervisors: Sequence[Supervisor] = (),
        name: str = "system",
        ask_timeout: float = 30.0,
        passivate_after: float = 300.0,
        max_active: int = 100_000,
        stop_timeout: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.failure: SupervisorGaveUp | None = None
        self._url = store if isinstance(store, str) else None
        self._store = None if isinstance(store, str) else store
        self._types = None if aggregates is None else {kind.aggregate_type: kind for kind in aggregates}
        self._supervised = _assign(handlers, supervisors)
        self._ask_timeout = ask_timeout
        self._passivate_after = passivate_after
        self._max_active = max_active
        self._stop_timeout = stop_timeout
        self._clock = clock or SystemClock()
        self._state: State = "new"
        self._thread: LoopThread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._processes: list[ActorProcess] = []
        self._log = get_logger(system=name)

    # --- what users call ---

    @property
    def store(self) -> EventStore:
        """The store; there is one from the start on."""
        if self._store is None:
            raise SystemNotRunning(self.name, self._state)
        return self._store

    def aggregate(self, aggregate_type: type[AggregateRoot], aggregate_id: str) -> AggregateRef:
        """A reference to one aggregate; no I/O, and the aggregate need not exist yet.

        Raises:
            UnknownAggregateType: The system does not serve this class.
            InvalidAggregateId: The id cannot name an aggregate.
        """
        name = aggregate_type.aggregate_type
        if self._types is None:
            known = self._aggregates.types if self._state == "running" else {}
            if known.setdefault(name, aggregate_type) is not aggregate_type:
                known[name] = aggregate_type
        elif self._types.get(name) is not aggregate_type:
            raise UnknownAggregateType(aggregate_type.__qualname__, self._types)
        return AggregateRef(self, aggregate_type, aggregate_id)

    def spawn(self, actor_class: type[A], *args: Any, **kwargs: Any) -> "Future[ActorRef[A]]":
        """Start an actor; the future has its reference once ``on_start`` has succeeded, else its error.

        Args:
            actor_class: The class.
            *args: For its constructor.
            **kwargs: For its constructor.

        Raises:
            SystemNotRunning: The system was not started, or has stopped.
        """
        self._check_running()
        actor = actor_class(*args, **kwargs)
        return self._start_actor(actor)

    def statistics(self) -> SystemStatistics:
        """What the system has done so far."""
        totals = self._aggregates.statistics
        return SystemStatistics(
            commands=totals.commands,
            rejected=totals.rejected,
            failed=totals.failed,
            reruns=totals.reruns,
            events_recorded=self._journal.events,
            commits=self._journal.commits,
            activations=totals.activations,
            events_replayed=totals.events_replayed,
            passivations=totals.passivations,
            active_aggregates=len(self._aggregates),
            handlers={
                subscription.name: subscription.statistics(self._router.dispatched(subscription))
                for subscription in self._subscriptions
            },
        )

    async def settled(self, timeout: float = 30.0) -> None:
        """Wait until every command is answered and every handler has done with all that is recorded.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: It was not so in time; the message names the handlers that are behind.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await self._is_settled(self._subscriptions):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            end = await self.store.last_position()
            behind = [f"{s.name} ({s.state} at {self._router.checkpoint(s)})" for s in self._subscriptions]
            raise TimeoutError(f"not settled within {timeout:g} s: the log ends at {end}; {', '.join(behind)}") from None

    # --- life ---

    async def start(self) -> None:
        """Start on the running event loop; ``async with`` does it for you.

        Raises:
            StoreUnavailable, StoreFormatError: The store cannot be opened.
            Exception: Whatever a handler class raised when it was instantiated.
        """
        if self._state != "new":
            raise SystemNotRunning(self.name, f"{self._state} and cannot be started again")
        self._state = "starting"
        try:
            await self._start()
        except BaseException:
            await self._stop(0)
            raise
        self._state = "running"
        self._log.info("system started", store=repr(self._store), handlers=len(self._subscriptions))

    async def stop(self, timeout: float | None = None) -> None:
        """Handle and record what was accepted, give live handlers what is recorded, and stop; idempotent.

        Args:
            timeout: Seconds; default is the system's ``stop_timeout``.
        """
        if self._state in ("stopping", "stopped"):
            return
        if self._state == "new":
            self._state = "stopped"
            return
        self._state = "stopping"
        await self._stop(self._stop_timeout if timeout is None else timeout)
        self._log.info("system stopped")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        if self.failure is not None and error is None:
            raise self.failure

    def __enter__(self) -> Self:
        self._thread = LoopThread(f"uno-{self.name}")
        try:
            self._thread.run(self.start())
        except BaseException:
            self._thread.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.run(self.stop())
            self._thread.close()
        if self.failure is not None and error is None:
            raise self.failure

    # --- starting ---

    async def _start(self) -> None:
        if self._store is None:
            self._store = open_store(self._url or "memory:")
        store = self._store
        self._dispatcher = Dispatcher(asyncio.get_running_loop())
        self._journal = Journal(store)
        self._aggregates = Aggregates(
            (self._types or {}).values(),
            store,
            self._journal,
            self._dispatcher,
            self._clock,
            passivate_after=self._passivate_after,
            max_active=self._max_active,
            start=self._start_task,
        )
        await self._start_handlers(store)
        self._stop_listening = store.on_commit(self._router.route_soon)
        self._router.route_soon()

    async def _start_handlers(self, store: EventStore) -> None:
        """Start router, supervisors and handlers: who has something to read reads, the others are live."""
        end = await store.last_position()
        checkpoints = await store.checkpoints()
        begun: dict[str, int] = {}
        by_supervisor: list[tuple[Supervisor, list[Subscription]]] = []
        self._subscriptions: list[Subscription] = []
        for supervisor, specs in self._supervised:
            group = []
            for spec in specs:
                position = checkpoints.get(spec.name)
                if position is None:
                    position = begun[spec.name] = 0 if spec.start == "earliest" else end
                group.append(Subscription(spec, position, store.event_registry, live=position >= end))
            by_supervisor.append((supervisor, group))
            self._subscriptions += group
        if begun:
            await store.save_progress(begun)  # a crash before the first event must not move where "latest" began
        self._router = RouterActor(store, self._subscriptions, end, self._clock)
        router = ActorProcess(
            self._router, self._dispatcher, factory=lambda: self._router, on_failed=self._router_failed
        )
        self._processes.append(router)
        self._router_process = router
        router.start()
        for supervisor, group in by_supervisor:
            await self._start_supervisor(supervisor, group, store)

    async def _start_supervisor(
        self, supervisor: Supervisor, subscriptions: Sequence[Subscription], store: EventStore
    ) -> None:
        shell = SupervisorActor(supervisor, store, self._clock, self._give_up)
        await self._start_actor(shell)
        children = []
        for subscription in subscriptions:
            child = self._child(subscription, shell, store)
            children.append(child)
            shell.children = tuple(children)
            started: Future[Any] = Future()
            child.process._started = started
            child.process.start()
            await started
            child.process.actor.actor_ref.tell(Work())

    def _child(self, subscription: Subscription, supervisor: SupervisorActor, store: EventStore) -> Child:
        def instance() -> HandlerActor:
            return HandlerActor(subscription, store, self._dispatcher, self._router, self)

        def failed(failure: Failure) -> None:
            if supervisor.actor_ref.is_alive():
                supervisor.actor_ref.tell(ChildFailed(child, failure))

        process = ActorProcess(instance(), self._dispatcher, factory=instance, on_failed=failed)
        child = Child(subscription, process)
        subscription.wake = lambda: process.actor.actor_ref.tell(Work())
        self._processes.append(process)
        return child

    def _start_actor(self, actor: A) -> "Future[ActorRef[A]]":
        started: Future[ActorRef[A]] = Future()
        actor._actor_ref = ActorRef(actor)
        process = ActorProcess(actor, self._dispatcher, started=started)
        self._processes.append(process)
        process.start()
        return started

    def _router_failed(self, failure: Failure) -> None:
        """The router goes on where it stood: it fails only when its store does."""
        self._log.error("router failed", exc_info=failure.error)
        delay = ROUTER_BACKOFF.delay(self._router_process.restarts, 0.5)

        def restart() -> None:
            if self._state in ("running", "stopping"):
                self._router_process.restart()
                self._router.route_soon()

        self._clock.call_later(delay, restart)

    def _give_up(self, error: SupervisorGaveUp) -> None:
        """A supervisor under the root has given up: the system ends with its error."""
        self.failure = error
        self._start_task(self.stop())

    # --- stopping ---

    async def _stop(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not await self._is_drained():
                    await asyncio.sleep(0.005)
        for process in reversed(self._processes):
            process.actor.actor_ref.stop(block=False)
        if hasattr(self, "_router"):
            with contextlib.suppress(UnoError):
                await self._router.save_checkpoints()
        if hasattr(self, "_aggregates"):
            self._aggregates.close()
        if hasattr(self, "_stop_listening"):
            self._stop_listening()
        if self._url is not None and self._store is not None:
            await self._store.close()
        if hasattr(self, "_dispatcher"):
            self._dispatcher.close()
        self._state = "stopped"

    async def _is_drained(self) -> bool:
        """Whether nothing is left to do that can be done soon: handlers that are behind go on another time."""
        if not hasattr(self, "_router") or self._router_process._suspended:
            return True
        return await self._is_settled([s for s in self._subscriptions if s.live])

    async def _is_settled(self, subscriptions: Sequence[Subscription]) -> bool:
        if self._aggregates.busy:
            return False
        end = await self.store.last_position()
        return all(self._router.checkpoint(subscription) >= end for subscription in subscriptions)

    # --- the way of a command ---

    def deliver(self, stream: StreamId, envelope: Envelope, timeout: float | None) -> None:
        """Hand a command over to the event loop; called by `AggregateRef`, from any thread."""
        self._check_running()
        seconds = self._ask_timeout if timeout is None else timeout
        if self._dispatcher.is_current():
            self._aggregates.deliver(stream, envelope, seconds)
        else:
            self._dispatcher.post(lambda: self._aggregates.deliver(stream, envelope, seconds))

    def _check_running(self) -> None:
        if self._state not in ("running", "stopping"):
            raise SystemNotRunning(self.name, self._state)

    def _start_task(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def __repr__(self) -> str:
        return f"<ActorSystem {self.name} {self._state}>"


def _assign(
    handlers: Iterable[object] | None, supervisors: Sequence[Supervisor]
) -> list[tuple[Supervisor, list[HandlerSpec]]]:
    """The handlers of each supervisor; those that stand under none come under the default one, first."""
    groups = [(supervisor, list(gather(supervisor.children))) for supervisor in supervisors]
    taken = [spec.name for _, specs in groups for spec in specs]
    others = gather(handler_registry.values() if handlers is None else handlers)
    free = [spec for spec in others if spec.name not in taken]
    default = Supervisor(DEFAULT_SUPERVISOR, max_restarts=None)
    groups.insert(0, (default, free))
    _check_unique("handlers", [*taken, *(spec.name for spec in free)])
    _check_unique("supervisors", [supervisor.name for supervisor, _ in groups])
    return groups


def _check_unique(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidHandler(f"two {what} are named {', '.join(map(repr, twice))}: give each a name of its own")
