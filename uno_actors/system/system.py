"""The actor system: what a service starts, sends commands to, and stops."""

import asyncio
import os
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from uno_actors.actors.actor import ActorRef
from uno_actors.actors.ask import being_handled, time_left
from uno_actors.actors.dead_messages import DeadMessage
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.future import Future
from uno_actors.actors.loop_thread import LoopThread, on_other_loop
from uno_actors.actors.pykka import PykkaActor
from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.aggregates.ref import AggregateRef
from uno_actors.bus.bus import EventBus
from uno_actors.bus.publisher import EventPublisher
from uno_actors.causality import current_cause
from uno_actors.clock import Clock, SystemClock
from uno_actors.config.reader import Config, load
from uno_actors.config.writer import write_config
from uno_actors.domain.aggregate import AggregateRoot, check_events, check_is_aggregate
from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.errors import (
    InvalidAggregate,
    SupervisorGaveUp,
    SystemNotRunning,
    UnknownActor,
    UnknownAggregateType,
    shown,
)
from uno_actors.forks import on_fork
from uno_actors.handlers.control import HandlerControl, HandlerInfo
from uno_actors.handlers.projection import published_view
from uno_actors.handlers.spec import HandlerSpec, Start
from uno_actors.handlers.view import PublishedView
from uno_actors.logs import get_logger
from uno_actors.quantities import check_duration
from uno_actors.store.codec import StreamId
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.supervision.child import TreeNode
from uno_actors.supervision.reload import Reloaded, as_running, difference, names_below
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.system.runtime import Runtime
from uno_actors.system.settings import Settings
from uno_actors.system.statistics import SystemStatistics
from uno_actors.system.supervisor_ref import SupervisorRef
from uno_actors.system.tree import assign, check_unique, handlers_in
from uno_actors.tasks import begin, end_of

A = TypeVar("A", bound=PykkaActor)

T = TypeVar("T")

CLOSE_TIME = 2.0
"""Seconds that closing the store may take at the least, however little time there was for stopping."""

State = Literal["not started", "starting", "running", "stopping", "stopped"]


class _Forks:
    """How often this process was forked off since the module was imported; each ask looks, so it is no system call."""

    def __init__(self) -> None:
        self.count = 0
        on_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


_forks = _Forks()


class ActorSystem:
    """Aggregates, handlers and their supervisors over one store.

    Longer than other classes: it is what programs call, and most of its lines say what that does.

    Used as ``async with`` it runs on the present event loop; used as ``with`` it runs on a loop on a thread of
    its own, for synchronous programs. Leaving the block stops it: what was accepted is handled and recorded,
    live handlers get what was recorded, checkpoints are written, all within ``stop_timeout``.

    Args:
        store: A store, which stays open when the system stops; or a URL such as ``lmdb:./data/bank``.
        aggregates: The aggregate classes it serves; default is any that is asked for.
        handlers: Handlers, or modules that have some, or the names of such modules; default is all that was
            subscribed so far.
        supervisors: Supervisors with their handlers; a handler that stands under none is restarted without
            limit, each of its events ``max_attempts`` times.
        name: For logs.
        ask_timeout: Seconds until an ask without a reply ends with `AskTimeout`.
        passivate_after: Seconds without a command after which an aggregate is let go.
        max_active: Aggregates that stay active; beyond it those idle for longest are let go.
        snapshot_every: Events between two snapshots of an aggregate, so that loading it need not begin at its
            first event; 0 or ``None`` to take none. Saved behind the commands, never needed.
        remember_commands: For how many of its last events an aggregate knows which commands recorded them: one
            of these that is sent again, with the same ``command_id``, records nothing and gets the reply of
            the first time; another command with that id is refused with `CommandIdReused`. 0 for none. One that
            had recorded nothing is handled again. For commands that may be sent again later, see
            `AggregateRef.ask` and its ``since``; those that handlers send need it not.
        stop_timeout: Seconds that stopping may take.
        clock: For everything that waits.
        event_registry: For a store that is opened by URL: finds the classes of recorded events. Default is
            the process-wide registry; bounded contexts in one process whose events share names have their own.

    Raises:
        InvalidHandler: Two handlers or supervisors have one name, or one of them is wrong.
        InvalidAggregate: One of the aggregate classes is none.
        UnknownAggregateType: Two of the aggregate classes have one type name.
    """

    def __init__(
        self,
        store: EventStore | str = "memory:",
        *,
        aggregates: Iterable[type[AggregateRoot]] | None = None,
        handlers: Iterable[object] | None = None,
        supervisors: Sequence[Supervisor] = (),
        name: str = "system",
        ask_timeout: float = 30.0,
        passivate_after: float = 300.0,
        max_active: int = 100_000,
        snapshot_every: int | None = 200,
        remember_commands: int = 256,
        stop_timeout: float = 10.0,
        clock: Clock | None = None,
        event_registry: EventRegistry = event_registry,
    ) -> None:
        self.name = name
        self.failure: SupervisorGaveUp | None = None
        self._url = store if isinstance(store, str) else None
        self._store = None if isinstance(store, str) else store
        self._event_registry = event_registry
        self._types: dict[str, type[AggregateRoot]] = {}
        self._serves_any = aggregates is None
        if isinstance(aggregates, (type, str)):
            raise InvalidAggregate(
                repr(aggregates), "aggregates is a list of classes, as in aggregates=[Account]"
            )
        for aggregate_type in aggregates or ():
            self._serve(aggregate_type)
        self._supervised = assign(handlers, supervisors)
        self._settings = Settings(
            name=name,
            ask_timeout=ask_timeout,
            passivate_after=passivate_after,
            max_active=max_active,
            snapshot_every=snapshot_every,
            remember_commands=remember_commands,
            stop_timeout=stop_timeout,
            clock=clock or SystemClock(),
        )
        self._state: State = "not started"
        self._forks = _forks.count
        self._runtime: Runtime | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._has_stopped = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._thread: LoopThread | None = None
        self._log = get_logger(system=name)
        self._bus = EventBus(name, system=self)

    @classmethod
    def from_config(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """The system that a configuration file describes; its directory is put on ``sys.path``.

        Logging is left as it is: ``uno-actors run`` follows ``[logging]``, a program has its own.

        Args:
            path: Of the TOML file.
            **options: Of the constructor, in place of what the file says.

        Raises:
            InvalidConfig: The file is wrong; with everything that is, each with its line.
        """
        return cls(**{**load(path).arguments(), **options})

    def to_config(self) -> str:
        """The text of a configuration file of this system: `from_config` makes the same of it.

        What a file cannot say is left out: ``clock`` and ``event_registry``.

        Raises:
            NotConfigurable: A file cannot name all that it is made of; with everything that it cannot.
        """
        settings = self._settings
        system = {
            "name": self.name,
            "store": self._url,
            "ask_timeout": settings.ask_timeout,
            "stop_timeout": settings.stop_timeout,
        }
        aggregates = {
            "types": None if self._serves_any else list(self._types.values()),
            "passivate_after": settings.passivate_after,
            "max_active": settings.max_active,
            "snapshot_every": settings.snapshot_every or 0,
            "remember_commands": settings.remember_commands,
        }
        return write_config(system, aggregates, self._supervised)

    # --- what users call ---

    @property
    def store(self) -> EventStore:
        """The event store.

        Raises:
            SystemNotRunning: It was given as a URL and is opened by the start.
        """
        if self._store is None:
            raise SystemNotRunning(self.name, self._state)
        return self._store

    @property
    def bus(self) -> EventBus:
        """For events between the parts of this system that are not recorded: in memory, and lost with the process.

        It serves what is subscribed to it, ``system.bus.subscribe(...)``. The handlers that the system was
        given are not on it, nor does it carry recorded events: those go from the store to the handlers.
        """
        return self._bus

    @property
    def publisher(self) -> EventPublisher:
        """Records events that come from no aggregate, durably as `store` does, for the handlers of the system.

        ``publish`` returns when they are recorded; ``await system.settled()`` when they are handled.

        Raises:
            SystemNotRunning: As for `store`.
        """
        return EventPublisher(self.store)

    def aggregate(self, aggregate_type: type[AggregateRoot], aggregate_id: str) -> AggregateRef:
        """A reference to one aggregate; no I/O, and the aggregate need not exist yet.

        Raises:
            UnknownAggregateType: The system does not serve this class.
            InvalidAggregate: It is no class of an aggregate.
            InvalidAggregateId: The id cannot name an aggregate.
        """
        try:
            is_served = self._types.get(aggregate_type.aggregate_type) is aggregate_type
        except AttributeError:  # it is no class of an aggregate
            is_served = False
        if not is_served:
            check_is_aggregate(aggregate_type)
            if not self._serves_any:
                raise UnknownAggregateType(_qualified(aggregate_type), map(_qualified, self._types.values()))
            self._serve(aggregate_type)
        return AggregateRef(self, aggregate_type, aggregate_id)

    def view(self, projection: object) -> PublishedView:
        """The view of a projection, to read it: as it was when the projection had last caught up, or is now.

        Args:
            projection: As it was given to the system: a `Projection`, a class of it, or a `HandlerSpec`.

        Raises:
            InvalidHandler: It is none of these.
            SystemNotRunning: As for `store`.
        """
        return published_view(self.store, projection)

    def spawn(
        self,
        actor_class: type[A],
        *args: Any,
        name: str | None = None,
        dispatcher: Literal["shared", "thread"] = "shared",
        **kwargs: Any,
    ) -> "Future[ActorRef[A]]":
        """Start an actor; the future has its reference once ``on_start`` has succeeded, else its error.

        One that has not started within ``ask_timeout`` is abandoned, and the future, if it is awaited or got, ends
        with `StartTimeout`.

        Args:
            actor_class: The class.
            *args: For its constructor.
            name: Under which `actor` finds it while it lives.
            dispatcher: ``shared``: coroutine functions on the event loop, plain ones on worker threads.
                ``thread``: plain functions on a thread that is its own, for code that must always run on the
                same one; also a ``pykka.ThreadingActor`` can be spawned so.
            **kwargs: For its constructor.

        Raises:
            NameTaken: Another living actor has the name.
            TypeError, ValueError: Its class cannot run there.
            SystemNotRunning: The system was not started, or has stopped.
        """
        if dispatcher not in ("shared", "thread"):
            raise ValueError(f"dispatcher must be 'shared' or 'thread'; found {dispatcher!r}")
        actor, own_thread = actor_class(*args, **kwargs), dispatcher == "thread"
        return self._accepting().actors.spawn(actor, name=name, own_thread=own_thread)

    @overload
    def actor(self, name: str) -> ActorRef[Any] | None: ...
    @overload
    def actor(self, name: str, actor_class: type[A]) -> ActorRef[A]: ...

    def actor(self, name: str, actor_class: type[A] | None = None) -> ActorRef[Any] | None:
        """The living actor that was spawned under ``name``; ``None`` if there is none, unless a class is given.

        Args:
            name: Its name.
            actor_class: What it must be, so that there must be one, and type checkers know it.

        Raises:
            UnknownActor: There is no actor of this class and name.
            SystemNotRunning: The system was not started, or has stopped.
        """
        found = self._taking().actors.named(name)
        if actor_class is not None:
            if found is None:
                raise UnknownActor(self.name, name, "none that lives was spawned under this name")
            if not issubclass(found.actor_class, actor_class):
                kinds = f"{found.actor_class.__name__}, not a {actor_class.__name__}"
                raise UnknownActor(self.name, name, f"the one of this name is a {kinds}")
        return found

    def statistics(self) -> SystemStatistics:
        """What the system has done since it started; also after it has stopped.

        Raises:
            SystemNotRunning: It was not started.
        """
        if self._runtime is None:
            raise SystemNotRunning(self.name, self._state)
        return self._runtime.statistics()

    def dead_messages(self) -> list[DeadMessage]:
        """The last messages that were told to actors or aggregates and were not handled, oldest first, and why.

        Raises:
            SystemNotRunning: It was not started.
        """
        if self._runtime is None:
            raise SystemNotRunning(self.name, self._state)
        return list(self._runtime.dead_messages)

    def supervisor(self, name: str) -> "SupervisorRef":
        """The supervisor of this name, wherever it stands in the tree.

        Raises:
            UnknownSupervisor: There is none.
            SystemNotRunning: The system was not started, or has stopped.
        """
        self._running().supervisor(name)
        return SupervisorRef(self, name)

    def tree(self) -> TreeNode:
        """The supervisors, with the handlers and actors under them, and how they are.

        Raises:
            SystemNotRunning: The system was not started.
        """
        if self._runtime is None:
            raise SystemNotRunning(self.name, self._state)
        return self._runtime.tree()

    async def reload(self, config: Config | str | os.PathLike[str]) -> Reloaded:
        """Make the running tree that of a configuration file; children whose specification is the same run on.

        Only handlers and supervisors change: what ``[system]`` and ``[aggregates]`` say takes a new start.

        Args:
            config: Path of the file; or what `uno_actors.config.reader.load` has made of it.

        Raises:
            InvalidConfig: The file is wrong; nothing has changed.
            InvalidHandler, InvalidSupervisor: Likewise.
            SystemNotRunning: The system was not started, or has stopped.
        """
        if not isinstance(config, Config):
            config = load(config)
        return await self._on_its_loop(self._reload(assign(config.handlers, config.supervisors)))

    async def _reload(self, wanted: list[Supervisor]) -> Reloaded:
        async with self._reloading:
            runtime = self._accepting()
            present = {node.name: node for node in runtime.tree().children}
            running = [
                as_running(supervisor, names_below(present[supervisor.name]))
                for supervisor in self._supervised
                if supervisor.name in present
            ]
            change = difference(running, wanted)
            failed = await runtime.change(change)
            self._supervised = wanted
            return Reloaded(
                tuple(change.stopped), tuple(name for name in change.started if name not in failed), failed
            )

    async def settled(self, timeout: float = 30.0) -> None:
        """Wait until every command is answered and every handler is live and has done with all that is recorded.

        Not waited for are handlers that are paused, or that another process runs.

        Args:
            timeout: Seconds.

        Raises:
            WaitsForItself: A handler of this system calls it, which is not done before it returns.
            TimeoutError: It was not so in time; the message names the handlers that are behind.
            SystemNotRunning: The system was not started, or has stopped.
        """
        check_duration("timeout", timeout, zero=True)
        await self._running().settled(timeout)

    async def handlers(self) -> list[HandlerInfo]:
        """How every handler is that has run on the store, here or in another process, by name.

        Raises:
            SystemNotRunning: The system was not started, or has stopped.
        """
        return await self._running().handlers.infos()

    async def pause(self, name: str) -> None:
        """Have a handler handle nothing until it is resumed, wherever it runs and also after restarts.

        An event that it is handling is finished. In another process it pauses within half a second.

        Raises:
            UnknownHandler: None of this name has run on the store.
            SystemNotRunning: The system was not started, or has stopped.
        """
        runtime = self._running()
        await HandlerControl(self.store).pause(name)
        await runtime.handlers.look_at_requests()

    async def resume(self, name: str) -> None:
        """Have a paused handler go on.

        Raises:
            UnknownHandler, SystemNotRunning: As `pause`.
        """
        runtime = self._running()
        await HandlerControl(self.store).resume(name)
        await runtime.handlers.look_at_requests()

    async def reset(self, name: str, to: Start) -> int:
        """Have a handler go on from another place; see `HandlerControl.reset`.

        Args:
            name: Of the handler.
            to: ``earliest``, ``latest``, a position or a time. A projection is reset to ``earliest`` alone: its
                view is built anew, beside the one that is read.

        Returns:
            The position after which it goes on.

        Raises:
            InvalidReset: The log does not reach so far, or it is a projection.
            UnknownHandler, SystemNotRunning: As `pause`.
        """
        runtime = self._running()
        position = await HandlerControl(self.store).reset(name, to)
        await runtime.handlers.look_at_requests()
        return position

    async def retry_dead_letters(self, handler: str, positions: Sequence[int] | None = None) -> int:
        """Have a handler given some of its dead letters once more, or all; see `HandlerControl.retry`.

        It returns when that is asked for, not when it is done.

        Args:
            handler: Its name.
            positions: Those of the letters.

        Returns:
            How many.

        Raises:
            NoDeadLetter: There is none at one of the positions.
            UnknownHandler, SystemNotRunning: As `pause`.
        """
        runtime = self._running()
        count = await HandlerControl(self.store).retry(handler, positions)
        await runtime.handlers.look_at_requests()
        return count

    async def unsubscribe(self, name: str) -> None:
        """Have this system run a handler no more: it ends after the event that it is handling.

        Its checkpoint stays; another process that stands by for it takes over.

        Raises:
            UnknownHandler: The system runs none of this name.
            SystemNotRunning: The system was not started, or has stopped.
        """
        await self._running().unsubscribe(name)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """In a synchronous program: run a coroutine on the system's loop and return its result.

        For what is awaited elsewhere, as in ``system.run(system.settled())`` or ``system.run(store.dead_letters())``.

        Raises:
            SystemNotRunning: It was not started by ``with``, or has stopped.
        """
        if self._thread is None or self._state == "stopped":
            coroutine.close()
            raise SystemNotRunning(self.name, self._state if self._thread else "not started by `with`")
        return self._thread.run(coroutine)

    # --- life ---

    async def start(self) -> None:
        """Start on the running event loop; ``async with`` does it for you.

        Raises:
            InvalidStoreUrl, StoreUnavailable, StoreFormatError: The store cannot be opened.
            SystemNotRunning: It was started before.
            Exception: Whatever a handler class raised when it was instantiated.
        """
        if self._state != "not started":
            raise SystemNotRunning(self.name, f"{self._state} and cannot be started again")
        self._state = "starting"
        self._forks = _forks.count
        try:
            if self._store is None:
                self._store = open_store(self._url or "", self._event_registry)
            self._runtime = Runtime(self, self._store, self._types, self._settings, self._give_up)
            await self._runtime.start(self._supervised)
        except BaseException:
            if self._runtime is not None:
                self._runtime.close()
                await self._in_time(self._runtime.handlers.release(), CLOSE_TIME)
                self._runtime = None
            await self._close_store(CLOSE_TIME)
            self._state = "stopped"
            raise
        self._state = "running"
        self._log.info("system started", store=shown(self._store, repr))
        if self.failure is not None:
            self._give_up(self.failure)  # that of a supervisor, while others were still being started

    async def stop(self, timeout: float | None = None) -> None:
        """Handle and record what was accepted, give live handlers what is recorded, and stop; idempotent.

        Args:
            timeout: Seconds; default is the system's ``stop_timeout``.
        """
        check_duration("timeout", timeout, zero=True, none=True)
        if self._state == "running":
            self._state = "stopping"
            seconds = self._settings.stop_timeout if timeout is None else timeout
            self._stopping = begin(asyncio.get_running_loop(), self._stop(seconds))
        if self._stopping is not None:
            await end_of(self._stopping, f"stopping system {self.name!r}")

    async def _stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        try:
            await self._running().stop(timeout)
        finally:
            await self._close_store(max(CLOSE_TIME, deadline - time.monotonic()))
            self._state = "stopped"
            self._has_stopped.set()
            self._log.info("system stopped")

    async def _close_store(self, seconds: float) -> None:
        if self._url is not None and self._store is not None:
            await self._in_time(self._store.close(), seconds)

    async def _in_time(self, work: Coroutine[Any, Any, None], seconds: float) -> None:
        """Await ``work`` for so long: whoever stops a system waits for no store that does not answer."""
        try:
            async with asyncio.timeout(seconds) as limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
            self._log.warning("store did not end in time and is left to itself", store=repr(self._store))

    def _give_up(self, error: SupervisorGaveUp) -> None:
        """A supervisor under the root has given up: the system ends with its error."""
        self.failure = error
        if self._runtime is not None:
            runtime = self._runtime
            runtime.dispatcher.post(lambda: self._stopping or runtime.start_task(self.stop()))

    async def wait_stopped(self) -> None:
        """Wait until the system has stopped: what a service does inside ``async with`` when all else is set up.

        Raises:
            SupervisorGaveUp: It has stopped because a supervisor under the root gave up.
            SystemNotRunning: It was never started.
        """
        if self._runtime is None:
            raise SystemNotRunning(self.name, self._state)
        await self._has_stopped.wait()
        if self.failure is not None:
            raise self.failure

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
            try:
                self._thread.run(self.stop())
            finally:
                self._thread.close()
        if self.failure is not None and error is None:
            raise self.failure

    # --- the way of a command ---

    def deliver(self, stream: StreamId, envelope: CommandEnvelope, timeout: float | None) -> None:
        """Hand a command over to the event loop; called by `AggregateRef`, from any thread."""
        runtime = self._accepting()
        seconds = time_left(self._settings.ask_timeout if timeout is None else timeout)
        if envelope.future is not None:
            envelope.future.seconds = seconds
        if runtime.dispatcher.is_current():
            runtime.aggregates.deliver(stream, envelope, seconds)
        elif not runtime.dispatcher.post(lambda: runtime.aggregates.deliver(stream, envelope, seconds)):
            raise SystemNotRunning(self.name, "stopped")

    def _dispatcher(self) -> Dispatcher | None:
        """The system's dispatcher, if it runs on this loop."""
        dispatcher = None if self._runtime is None else self._runtime.dispatcher
        return dispatcher if dispatcher is not None and dispatcher.is_current() else None

    def _add_handler(self, spec: HandlerSpec) -> None:
        """Have the system, not started yet, run one more handler."""
        if self._state != "not started":
            raise SystemNotRunning(self.name, f"{self._state} and takes no more handlers")
        default, *others = self._supervised
        taken = [other.name for supervisor in self._supervised for other in handlers_in(supervisor)]
        check_unique("handlers", [spec.name, *taken])
        default = replace(default, children=(*default.children, ChildSpec(spec, spec.name)))
        self._supervised = [default, *others]

    async def _on_its_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine on the loop on which the system runs, be it another thread's."""
        try:
            dispatcher = self._running().dispatcher
        except SystemNotRunning:
            coroutine.close()
            raise
        if dispatcher.is_current():
            return await coroutine
        return await on_other_loop(dispatcher.loop, coroutine)

    def _shares_store_with(self, other: "ActorSystem") -> bool:
        """Whether the two are known to have one store; each ``memory:`` is another."""
        if self._url is not None and self._url == other._url:
            return self._url != "memory:"
        return self._store is not None and self._store is other._store

    @property
    def _registry(self) -> EventRegistry:
        """That of the store, which reads the events."""
        return self._event_registry if self._store is None else self._store.event_registry

    def _running(self) -> Runtime:
        """The runtime between start and stop, for what observes or changes the system."""
        return self._runtime_in("running", "stopping")

    def _taking(self) -> Runtime:
        """The runtime while it takes commands: as soon as handlers and actors start, for they may send some."""
        if self._runtime is not None and self._runtime.takes_work:
            return self._runtime_in("starting", "running", "stopping")
        return self._running()

    def _accepting(self) -> Runtime:
        """As `_taking`, for what is new: while the system stops, only what handlers and actors still need."""
        runtime = self._taking()
        if self._state == "stopping" and current_cause() is None and being_handled.get() is None:
            raise SystemNotRunning(self.name, self._state)
        return runtime

    def _runtime_in(self, *states: State) -> Runtime:
        if self._forks != _forks.count:
            raise SystemNotRunning(self.name, "that of the parent of this forked process; start one here")
        if self._runtime is None or self._state not in states:
            raise SystemNotRunning(self.name, self._state) from self.failure
        return self._runtime

    def _serve(self, aggregate_type: type[AggregateRoot]) -> None:
        """Take a class into service; one that was defined again, as in a notebook, replaces itself."""
        check_is_aggregate(aggregate_type)
        other = self._types.get(aggregate_type.aggregate_type)
        if other is not None and _qualified(other) != _qualified(aggregate_type):
            raise UnknownAggregateType(_qualified(aggregate_type), [_qualified(other)])
        check_events(aggregate_type, self._registry)
        self._types[aggregate_type.aggregate_type] = aggregate_type
        if other is not None and (runtime := self._runtime) is not None:
            runtime.dispatcher.call(lambda: runtime.aggregates.passivate_type(aggregate_type.aggregate_type))

    def __repr__(self) -> str:
        return f"<ActorSystem {self.name} ({self._state})>"


def _qualified(aggregate_type: type[AggregateRoot]) -> str:
    return f"{aggregate_type.__module__}.{aggregate_type.__qualname__}"
