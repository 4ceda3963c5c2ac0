"""The actor system: a service starts it, sends it commands, and stops it.

This module is over 500 lines on purpose: it is the public face of the package. Most lines are docstrings and
signatures that users read; the methods delegate to `uno_actors.system.runtime`.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from uno_actors.actors.actor import ActorRef
from uno_actors.actors.ask import being_handled, time_left
from uno_actors.actors.dead_messages import DeadMessage
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.future import Future
from uno_actors.actors.loop_thread import LoopThread, on_other_loop
from uno_actors.actors.pykka import PykkaActor
from uno_actors.aggregates import observed as observing
from uno_actors.aggregates.deciding import C, Decider, R, decide
from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.aggregates.ref import AggregateRef
from uno_actors.bus.bus import EventBus
from uno_actors.bus.publisher import EventPublisher
from uno_actors.causality import current_cause
from uno_actors.clock import Clock
from uno_actors.cluster.settings import Cluster, as_cluster
from uno_actors.cluster.view import ClusterView
from uno_actors.config.reader import Config, control_key, load
from uno_actors.config.writer import write_config
from uno_actors.domain.aggregate import AggregateRoot, check_events, check_is_aggregate
from uno_actors.domain.commands import Command
from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.domain.schedules import CatchUp
from uno_actors.errors import (
    InvalidAggregate,
    InvalidTenant,
    NoCluster,
    SupervisorGaveUp,
    SystemNotRunning,
    UnknownActor,
    UnknownAggregateType,
    describe,
    shown,
)
from uno_actors.event_contexts import EventContexts
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.flight_recorder.steps import Step
from uno_actors.forks import on_fork
from uno_actors.handlers.control import HandlerControl, HandlerInfo
from uno_actors.handlers.dependencies import PARTS, checked_overrides
from uno_actors.handlers.partitions import partitions_of
from uno_actors.handlers.projection import published_view
from uno_actors.handlers.spec import HandlerSpec, Start
from uno_actors.handlers.view import KeepsView, PublishedView
from uno_actors.inquiry.explanation import Explanation
from uno_actors.inquiry.gathering import SEARCH
from uno_actors.inquiry.inquiry import inquire
from uno_actors.logs import get_logger
from uno_actors.observing import Observer, observation
from uno_actors.quantities import check_duration
from uno_actors.resources import closed, opened
from uno_actors.scheduling.control import ScheduleControl
from uno_actors.scheduling.entries import ScheduleInfo
from uno_actors.settings import Settings
from uno_actors.store.codec import StreamId
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store.view_keys import K
from uno_actors.store_urls import without_password
from uno_actors.supervision.child import TreeNode
from uno_actors.supervision.reload import Reloaded, as_running, difference, names_below
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.system.announcement import node_name
from uno_actors.system.facts import facts_of
from uno_actors.system.inquiry_place import SystemPlace
from uno_actors.system.recording import SystemRecording
from uno_actors.system.runtime import Runtime
from uno_actors.system.state import open_control
from uno_actors.system.statistics import SystemStatistics
from uno_actors.system.supervisor_ref import SupervisorRef
from uno_actors.system.tenant_stores import belongs_to, check_cause
from uno_actors.system.tree import (
    assign,
    check_dependencies,
    check_unique,
    handler_names,
    handlers_in,
    on_logs,
)
from uno_actors.system.waiting import PlannedWait
from uno_actors.tasks import begin, end_of
from uno_actors.tenants import check_tenant, is_template, url_of_tenant

A = TypeVar("A", bound=PykkaActor)

T = TypeVar("T")

CLOSE_TIME = 2.0
"""Minimum time for closing the store, in seconds, even if the stop timeout is shorter or used up."""

State = Literal["not started", "starting", "running", "stopping", "stopped"]


class _Forks:
    """Counts forks between the import of this module and this process. Asks read the count without a system call."""

    def __init__(self) -> None:
        self.count = 0
        on_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


_forks = _Forks()


class ActorSystem:
    """Aggregates, handlers and their supervisors over one store.

    This class is long because programs call it directly: most of its lines document its methods.

    With ``async with``, the system runs on the current event loop. With ``with``, for synchronous programs, it
    runs on an event loop in its own thread. Leaving the block stops the system. Within ``stop_timeout`` it handles
    and records the commands that it has accepted, delivers recorded events to live handlers, and writes
    checkpoints.

    Args:
        store: A store, which stays open when the system stops; or a URL such as ``lmdb:./data/bank``. With a tenant,
            the URL has ``{tenant}`` in its path or in the name of its database: ``lmdb:./data/{tenant}``.
        aggregates: The aggregate classes that the system serves; default is every class that a caller asks for.
        handlers: Handlers, modules that contain handlers, or the names of such modules; default is every handler
            subscribed so far.
        supervisors: Supervisors with their handlers. The system restarts a handler without a supervisor without
            limit, and tries each of its events ``max_attempts`` times.
        name: Name of the system in logs. With a tenant it becomes ``name/tenant``.
        tenant: The tenant whose system this is. It has a store of its own; see `uno_actors.Tenants` for many.
        ask_timeout: Seconds until an ask without a reply ends with `AskTimeout`.
        passivate_after: Seconds without a command after which the system passivates an aggregate.
        max_active: Maximum number of active aggregates. Above it, the system passivates the longest idle ones.
        snapshot_every: Number of events between two snapshots of an aggregate. A snapshot spares loading from the
            first event. 0 or ``None`` for no snapshots. The system saves them in the background, and works
            without them.
        remember_commands: Number of latest events for which an aggregate remembers the command that recorded
            them; 0 for none. If such a command is sent again with the same ``command_id``, it records nothing
            and gets its first reply. A different command with that id is refused with `CommandIdReused`. A
            command that recorded nothing is handled again. For commands that may be repeated later, see
            ``since`` of `AggregateRef.ask`. Commands sent by handlers do not need it.
        stop_timeout: Maximum duration of stopping, in seconds.
        scheduler: Whether the system sends the commands that are scheduled on its store (see `schedule`), taking turns
            with other systems that do. Default is as soon as there are some: it has to serve their aggregates.
        cluster: Makes the system one node of several on its store: commands go to the node that has the aggregate in
            memory. ``True`` for the processes of one machine, a `Cluster` for several machines.
        recorder: Number of steps that the flight recorder keeps in memory: what has happened to commands, events and
            handlers, with ids and times (see `recording`). ``True`` for 10,000, ``False`` for none.
        recordings: Directory in which recordings are written; default is ``recordings`` in the directory of the store.
        record_timeouts: Whether a recording is written, at most once a minute, when a command has timed out.
        clock: Clock for all timeouts and delays.
        observers: Watch what the system does, for traces, metrics and the like; see `uno_actors.observing`.
        event_registry: For a store opened by URL: maps recorded events to classes. Default is the process-wide
            registry. Bounded contexts in one process need separate registries if their events share names.
        dependency_overrides: For tests: functions that stand in for those in ``Depends(...)`` of handlers, by the
            function that they replace.

    Raises:
        InvalidHandler: Two handlers or two supervisors have the same name, or one of them is invalid.
        InvalidAggregate: One of the aggregate classes is not an aggregate class.
        UnknownAggregateType: Two of the aggregate classes have the same type name.
        InvalidTenant: No tenant can have this name, or the store has ``{tenant}`` and no tenant is given.
        InvalidStoreUrl: A tenant is given, and tenants would share the store.
    """

    def __init__(
        self,
        store: EventStore | str = "memory:",
        *,
        tenant: str | None = None,
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
        scheduler: bool | None = None,
        recorder: bool | int = True,
        recordings: str | None = None,
        record_timeouts: bool = False,
        cluster: Cluster | bool | None = None,
        clock: Clock | None = None,
        observers: Iterable[Observer] = (),
        event_registry: EventRegistry = event_registry,
        dependency_overrides: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
    ) -> None:
        self._template = store if isinstance(store, str) else None
        self._base_name = name
        self._tenant = None if tenant is None else check_tenant(tenant)
        self._url = _url_for(self._template, tenant)
        name = name if tenant is None else f"{name}/{tenant}"
        self._settings = Settings.of(locals())
        self.name = name
        self.failure: SupervisorGaveUp | None = None
        self._opening: dict[str, bool] = {}  # for its store
        self._store = None if isinstance(store, str) else store
        self._event_registry = event_registry
        self._types: dict[str, type[AggregateRoot]] = {}
        self._runtime: Runtime | None = None
        self._serves_any = aggregates is None
        if isinstance(aggregates, (type, str)):
            raise InvalidAggregate(
                repr(aggregates), "aggregates is a list of classes, as in aggregates=[Account]"
            )
        for aggregate_type in aggregates or ():
            self._serve(aggregate_type)
        self._overrides = checked_overrides(dependency_overrides)
        self._supervised = assign(handlers, supervisors)
        self._cluster = as_cluster(cluster)
        self._file_key: str | None = None  # of its configuration file, for `uno-actors tree FILE`
        self._observed = observation(observers)
        self._recording: SystemRecording | None = None
        self._recorder: FlightRecorder | None = None
        self._contexts = EventContexts()
        self._state: State = "not started"
        self._forks = _forks.count
        self._stopping: asyncio.Task[None] | None = None
        self._asked = AsyncExitStack()  # answers other processes
        self._has_stopped = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._thread: LoopThread | None = None
        self._log = get_logger(system=name, actor="system")
        self._bus = EventBus(name, system=self)

    @classmethod
    def from_config(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """Create the system that a configuration file describes. Put the file's directory on ``sys.path``.

        This does not configure logging: only ``uno-actors run`` applies ``[logging]``.

        Args:
            path: Path of the TOML file.
            **options: Options of the constructor; they override the file.

        Raises:
            InvalidConfig: The file is invalid; the error lists every fault with its line.
        """
        return cls._of(load(path), **options)

    @classmethod
    def _of(cls, config: Config, **options: Any) -> Self:
        """The system of a configuration file that was read; see `from_config`."""
        system = cls(**{**config.arguments(), **options})
        system._file_key = control_key(config.file, system.tenant)
        return system

    def to_config(self) -> str:
        """The text of a configuration file from which `from_config` creates the same system.

        The text omits ``clock``, ``observers``, ``event_registry`` and ``dependency_overrides``, which a file cannot
        express, and ``tenant``: the URL of its store has ``{tenant}``.

        Raises:
            NotConfigurable: A file cannot name some parts of the system; the error lists all of them.
        """
        types = None if self._serves_any else list(self._types.values())
        settings = replace(self._settings, name=self._base_name)
        return write_config(self._template, types, settings, self._supervised, self._cluster)

    # --- the public API ---

    @property
    def store(self) -> EventStore:
        """The event store.

        Raises:
            SystemNotRunning: The store is a URL, and the system, which opens it at its start, has not started.
            OtherTenant: A handler of another tenant asks for it.
        """
        if self._store is None:
            raise SystemNotRunning(self.name, self._state)
        if self._tenant is not None:
            check_cause(self._tenant, self._store)
        return self._store

    @property
    def tenant(self) -> str | None:
        """The tenant whose system this is; ``None`` if it is that of no tenant."""
        return self._tenant

    @property
    def bus(self) -> EventBus:
        """The bus for events between parts of this system that need no recording. In memory, lost with the process.

        It serves handlers subscribed with ``system.bus.subscribe(...)``. It does not serve the system's own
        handlers and carries no recorded events: the system delivers those from the store.
        """
        return self._bus

    @property
    def publisher(self) -> EventPublisher:
        """Records events that come from no aggregate, for the system's handlers; as durable as `store`.

        ``publish`` returns when the events are recorded, ``await system.settled()`` when they are handled.

        Raises:
            SystemNotRunning: As for `store`.
        """
        return EventPublisher(
            self.store, contexts=self._contexts, observed=self._observed, recorder=self._recorder
        )

    @property
    def cluster(self) -> ClusterView:
        """The cluster as this node sees it: its members, who owns what, and counters.

        Raises:
            NoCluster: The system is not a node of a cluster.
            SystemNotRunning: The system was not started, or has stopped.
        """
        if self._cluster is None:
            raise NoCluster(self.name)
        node = self._running().node
        assert node is not None
        return ClusterView(node)

    def aggregate(self, aggregate_type: type[AggregateRoot], aggregate_id: str) -> AggregateRef:
        """Return a reference to one aggregate. This does no I/O, and the aggregate need not exist yet.

        Raises:
            UnknownAggregateType: The system does not serve this class.
            InvalidAggregate: The class is not an aggregate class.
            InvalidAggregateId: The id is not a valid aggregate id.
        """
        try:
            is_served = self._types.get(aggregate_type.aggregate_type) is aggregate_type
        except AttributeError:  # not an aggregate class
            is_served = False
        if not is_served:
            check_is_aggregate(aggregate_type)
            if not self._serves_any:
                raise UnknownAggregateType(_qualified(aggregate_type), map(_qualified, self._types.values()))
            self._serve(aggregate_type)
        return AggregateRef(self, aggregate_type, aggregate_id)

    async def decide(self, decider: Decider[C, R], command: C, *, timeout: float | None = None) -> R:
        """Let a function marked with `decides` decide ``command``; return its reply when its events are durable.

        The decision rests on events of any streams, by the function's query. If others record such events meanwhile,
        it is decided again, until ``timeout`` is over. It needs no aggregate and runs on this node. A command with
        the ``command_id`` of one that has recorded events gets the reply of that one.

        Args:
            decider: The function.
            command: A command of its type.
            timeout: Seconds; default is the system's ``ask_timeout``.

        Raises:
            AppendConditionFailed: The time is over; it says how often it was decided. Nothing was recorded.
            SystemNotRunning: The system was not started, or has stopped.
            Exception: As `uno_actors.aggregates.deciding.decide`, which needs no system.
        """
        self._accepting()
        seconds = time_left(self._settings.ask_timeout if timeout is None else timeout)
        return await self._on_its_loop(self._decide(decider, command, seconds))

    async def _decide(self, decider: Decider[C, R], command: C, seconds: float) -> R:
        runtime = self._accepting()
        runtime.deciding += 1
        try:
            return await decide(self.store, decider, command, timeout=seconds)
        finally:
            runtime.deciding -= 1

    @overload
    def view(self, projection: KeepsView[K] | type[KeepsView[K]]) -> PublishedView[K]: ...
    @overload
    def view(self, projection: object) -> PublishedView: ...

    def view(self, projection: object) -> PublishedView[Any]:
        """The view of a projection, for reading: as of the projection's last catch-up, or as of now.

        Args:
            projection: As passed to the system: an instance or subclass of `Projection`, or a `HandlerSpec`.

        Raises:
            InvalidHandler: ``projection`` is none of these.
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
        """Start an actor. The future resolves to its reference when ``on_start`` succeeds, or to its error.

        If the actor does not start within ``ask_timeout``, the system abandons it, and awaiting or getting the
        future raises `StartTimeout`.

        Args:
            actor_class: Class of the actor.
            *args: Positional arguments of its constructor.
            name: Name under which `actor` finds it while it lives.
            dispatcher: ``shared`` runs coroutine functions on the event loop and plain functions on worker
                threads. ``thread`` runs plain functions on a thread of the actor's own, for code that must always
                run on the same thread. It also runs a ``pykka.ThreadingActor``.
            **kwargs: Keyword arguments of its constructor.

        Raises:
            NameTaken: Another living actor has the name.
            TypeError, ValueError: The class cannot run on this dispatcher.
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
        """Return the living actor spawned under ``name``, or ``None``. With a class, the actor must exist.

        Args:
            name: Name of the actor.
            actor_class: Required class of the actor; type checkers then know the reference's type.

        Raises:
            UnknownActor: ``actor_class`` is given, and no living actor has this class and name.
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
        """The system's counters since its start. They remain readable after it has stopped.

        Raises:
            SystemNotRunning: The system was not started.
        """
        if self._runtime is None:
            raise SystemNotRunning(self.name, self._state)
        return self._runtime.statistics()

    def dead_messages(self) -> list[DeadMessage]:
        """The latest messages told to actors or aggregates but not handled, with the reasons; oldest first.

        Raises:
            SystemNotRunning: The system was not started.
        """
        if self._runtime is None:
            raise SystemNotRunning(self.name, self._state)
        return list(self._runtime.dead_messages)

    @property
    def recording(self) -> SystemRecording:
        """The flight recorder: the latest steps of this system on this node, to be read or written to a file.

        Raises:
            SystemNotRunning: The system was not started.
        """
        if self._recording is None:
            raise SystemNotRunning(self.name, self._state)
        return self._recording

    def steps_of(self, wanted: str) -> tuple[Step, ...]:
        """What has happened to a command, an event, an aggregate or a handler lately on this node, the latest last.

        Args:
            wanted: Id of a command, an event, a correlation or an aggregate; an aggregate as in ``Account<alice>``; or
                the name of a handler or a child.

        Returns:
            The steps that are about it, of those that the flight recorder still has: none if it is off.

        Raises:
            SystemNotRunning: The system was not started.
        """
        return self.recording.steps_of(wanted)

    def supervisor(self, name: str) -> "SupervisorRef":
        """The supervisor of this name, anywhere in the tree.

        Raises:
            UnknownSupervisor: The system has no supervisor of this name.
            SystemNotRunning: The system was not started, or has stopped.
        """
        self._running().tree.supervisor(name)
        return SupervisorRef(self, name)

    def tree(self) -> TreeNode:
        """The supervision tree: supervisors, their handlers and actors, and the state of each.

        Raises:
            SystemNotRunning: The system was not started.
        """
        if self._runtime is None:
            raise SystemNotRunning(self.name, self._state)
        return self._runtime.tree.node()

    async def reload(self, config: Config | str | os.PathLike[str]) -> Reloaded:
        """Change the running tree to that of a configuration file. Children whose specification is unchanged run on.

        Only handlers and supervisors change. Changes of ``[system]`` and ``[aggregates]`` require a restart.

        Args:
            config: Path of the file, or the result of `uno_actors.config.reader.load`.

        Raises:
            InvalidConfig: The file is invalid; nothing has changed.
            InvalidHandler, InvalidSupervisor: A handler or supervisor is invalid; nothing has changed.
            SystemNotRunning: The system was not started, or has stopped.
        """
        if not isinstance(config, Config):
            config = load(config)
        wanted = assign(config.handlers, config.supervisors)
        return await self._on_its_loop(self._reload([on_logs(each, self.store.logs) for each in wanted]))

    async def _reload(self, wanted: list[Supervisor]) -> Reloaded:
        async with self._reloading:
            runtime = self._accepting()
            present = {node.name: node for node in runtime.tree.node().children}
            running = [
                as_running(supervisor, names_below(present[supervisor.name]))
                for supervisor in self._supervised
                if supervisor.name in present
            ]
            change = difference(running, wanted)
            failed = await runtime.tree.change(change)
            self._supervised = wanted
            return Reloaded(
                tuple(change.stopped), tuple(name for name in change.started if name not in failed), failed
            )

    async def settled(self, timeout: float = 30.0) -> None:
        """Wait until every command is answered and every handler is live and has handled every recorded event.

        This does not wait for handlers that are paused or that another process runs.

        Args:
            timeout: Maximum wait, in seconds.

        Raises:
            WaitsForItself: A handler of this system makes the call; it would wait for its own return.
            TimeoutError: The system did not settle in time; the message names the handlers that lag.
            SystemNotRunning: The system was not started, or has stopped.
        """
        check_duration("timeout", timeout, zero=True)
        await self._running().settled(timeout)

    async def wait_for(self, handlers: object, position: int | str, timeout: float = 30.0) -> None:
        """Wait until handlers have handled every event up to a position, so that their views show it.

        The handlers may run in this or another process. A handler's progress ends the wait; nothing polls.

        Args:
            handlers: As ``wait_for`` of `AggregateRef.ask`.
            position: The ``position`` or the ``token`` of a reply to a command, or of a recorded event.
            timeout: Maximum wait, in seconds.

        Raises:
            WaitTimeout: The handlers did not come so far in time.
            EventSetAside: One of them has the event, or another of its command, among its dead letters.
            NotHandled: One of them cannot come so far now: it is paused or stopped, or no process runs it.
            InvalidPosition: The log has no such event, or the token is not one of this store.
            InvalidHandler: One of ``handlers`` is not a handler.
            WaitsForItself, DeadlockError: The caller is a handler for whose end an awaited one waits.
            SystemNotRunning: The system was not started, or has stopped.
        """
        check_duration("timeout", timeout, zero=True)
        runtime = self._running()
        await self._on_its_loop(runtime.waiting.until(handlers, position, timeout))

    async def handlers(self, *, partitions: bool = False) -> list[HandlerInfo]:
        """The state of every handler that has run on the store, in this or another process, sorted by name.

        Args:
            partitions: Whether to return each partition of a partitioned handler by itself.

        Raises:
            SystemNotRunning: The system was not started, or has stopped.
        """
        return await self._running().handlers.infos(partitions=partitions)

    async def pause(self, name: str, *, by: str = "", note: str = "") -> None:
        """Pause a handler until it is resumed. The pause applies in every process and survives restarts.

        The handler finishes the event that it is handling. In another process it pauses within half a second.

        Args:
            name: Name of the handler.
            by: Who pauses it, for people who ask `why`.
            note: Why, likewise.

        Raises:
            UnknownHandler: No handler of this name has run on the store.
            SystemNotRunning: The system was not started, or has stopped.
        """
        runtime = self._running()
        await HandlerControl(self.store).pause(name, by=by, note=note)
        await runtime.handlers.look_at_requests()

    async def resume(self, name: str) -> None:
        """Resume a paused handler.

        Raises:
            UnknownHandler, SystemNotRunning: As `pause`.
        """
        runtime = self._running()
        await HandlerControl(self.store).resume(name)
        await runtime.handlers.look_at_requests()

    async def reset(self, name: str, to: Start) -> int:
        """Move a handler to another position in the log; see `HandlerControl.reset`.

        Args:
            name: Name of the handler.
            to: ``earliest``, ``latest``, a position or a time. A projection accepts only ``earliest``: it then
                builds a new view, while readers keep reading the old one.

        Returns:
            The position after which the handler continues.

        Raises:
            InvalidReset: The log does not reach ``to``, ``to`` is not a valid place, or a projection is reset to
                anything but its beginning.
            UnknownHandler, SystemNotRunning: As `pause`.
        """
        runtime = self._running()
        position = await HandlerControl(self.store).reset(name, to)
        await runtime.handlers.look_at_requests()
        return position

    async def retry_dead_letters(self, handler: str, positions: Sequence[int] | None = None) -> int:
        """Request that a handler retry some or all of its dead letters; see `HandlerControl.retry`.

        The call returns when the request is recorded, not when the handler has carried it out.

        Args:
            handler: Name of the handler.
            positions: Log positions of the dead letters; default is all.

        Returns:
            The number of dead letters to retry.

        Raises:
            NoDeadLetter: The handler has no dead letter at one of the positions.
            UnknownHandler, SystemNotRunning: As `pause`.
        """
        runtime = self._running()
        count = await HandlerControl(self.store).retry(handler, positions)
        await runtime.handlers.look_at_requests()
        return count

    async def why(self, wanted: str, *, searching: float = SEARCH) -> Explanation:
        """Why something is not done, or what became of it; ``print`` shows the answer as ``uno-actors why`` does.

        This system, its store, the other processes on this machine and the nodes of the cluster are asked, each within
        a few seconds. What could not be asked, the answer says. While code of the program holds the event loop,
        this call waits as everything does; ``uno-actors why`` answers even then.

        Args:
            wanted: The id of a command, an event, a correlation, an aggregate (``Type/id`` or the id) or a schedule,
                or the name of a handler, a view, an actor or a supervisor.
            searching: Maximum number of seconds for which the log is searched, from its end.

        Raises:
            SystemNotRunning: The system was not started, or has stopped.
        """
        runtime = self._running()
        return await self._on_its_loop(inquire(self._place(runtime), wanted, searching=searching))

    def _place(self, runtime: Runtime) -> SystemPlace:
        """Where an inquiry looks for facts."""
        url = self._url if self._url is not None and not self._url.startswith("memory:") else None
        shown_url = None if url is None else without_password(url)
        return SystemPlace(self.name, runtime, self.store, shown_url, self._cluster or Cluster())

    async def unsubscribe(self, name: str) -> None:
        """Stop running a handler in this system. It ends after the event that it is handling.

        Its checkpoint stays. If another process stands by for the handler, that process takes over.

        Raises:
            UnknownHandler: The system runs no handler of this name.
            SystemNotRunning: The system was not started, or has stopped.
        """
        await self._running().tree.unsubscribe(name)

    async def schedule(
        self,
        command: Command[Any],
        *,
        to: tuple[type[AggregateRoot], str],
        after: timedelta | float | None = None,
        at: datetime | None = None,
        every: str | None = None,
        tz: str = "UTC",
        catch_up: CatchUp = "last",
        key: str | None = None,
    ) -> str:
        """Have ``command`` sent later. It is durable when this returns; in a synchronous program, use `run`.

        To schedule again under a key replaces what was scheduled there, sent or not. If that recurs and is the same,
        nothing changes, unless an operator has cancelled it: a program may schedule what recurs whenever it starts.
        See `AggregateRoot.schedule` for commands that an aggregate schedules together with its events.

        Args:
            command: As for `AggregateRoot.schedule`, like the others.
            to: Class and id of the aggregate to send it to.
            after: Seconds, or a ``timedelta``, from now.
            at: The time; one without a zone is in UTC. A time that has passed means at once.
            every: A cron expression.
            tz: The name of the time zone of ``every``.
            catch_up: Which of the times that have passed while no scheduler ran are made up for.
            key: Names the schedule among those of all programs; default is a new key.

        Returns:
            The key.

        Raises:
            InvalidSchedule, UnknownCommand, InvalidAggregate, InvalidAggregateId, ValueError: As for
                `AggregateRoot.schedule`.
            StoreUnavailable, StoreFull, OutcomeUnknown: The store failed; see each class.
            SystemNotRunning: The system was not started, or has stopped.
        """
        runtime = self._accepting()
        await runtime.scheduler.use()
        return await self._schedules().schedule(
            command, to=to, after=after, at=at, every=every, tz=tz, catch_up=catch_up, key=key
        )

    async def unschedule(self, key: str) -> None:
        """Have a command not sent that `schedule` has scheduled under ``key``; if there is none, nothing changes.

        Raises:
            InvalidSchedule: The key is not valid.
            StoreUnavailable, StoreFull, OutcomeUnknown: The store failed; see each class.
            SystemNotRunning: The system was not started, or has stopped.
        """
        self._accepting()
        await self._schedules().unschedule(key)

    async def schedules(
        self, *, limit: int | None = None, after: ScheduleInfo | None = None
    ) -> list[ScheduleInfo]:
        """What is to be sent, ordered by due time; see `ScheduleControl.schedules`.

        Args:
            limit: Maximum number. Default is no limit.
            after: Only those after this one: the last of the previous page.

        Raises:
            SystemNotRunning: The system was not started, or has stopped.
        """
        self._running()
        return await self._schedules().schedules(limit=limit, after=after)

    def _schedules(self) -> ScheduleControl:
        return ScheduleControl(self.store, self._settings.clock)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the system's loop and return its result, in a synchronous program.

        Use it to call coroutine functions: ``system.run(system.settled())``, ``system.run(store.dead_letters())``.

        Raises:
            SystemNotRunning: The system was not started by ``with``, or has stopped.
        """
        if self._thread is None or self._state == "stopped":
            coroutine.close()
            raise SystemNotRunning(self.name, self._state if self._thread else "not started by `with`")
        return self._thread.run(coroutine)

    # --- starting and stopping ---

    async def start(self) -> None:
        """Start the system on the running event loop. ``async with`` calls this for you.

        Raises:
            InvalidStoreUrl, StoreUnavailable, StoreFormatError: The store cannot be opened.
            SystemNotRunning: The system was started before.
            Exception: A handler class raised it when instantiated.
        """
        if self._state != "not started":
            raise SystemNotRunning(self.name, f"{self._state} and cannot be started again")
        self._state = "starting"
        self._forks = _forks.count
        try:
            if self._store is None:
                self._store = open_store(self._url or "", self._event_registry, **self._opening)
            if self._tenant is not None:
                belongs_to(self._store, self._tenant)
            self._begin_recording(self._store)
            logs = len(await self._store.last_positions())
            self._supervised = [on_logs(supervisor, logs) for supervisor in self._supervised]
            self._runtime = Runtime(
                self,
                self._store,
                self._types,
                self._settings,
                self._give_up,
                cluster=self._cluster,
                contexts=self._contexts,
                observed=self._observed,
                overrides=self._overrides,
                recorder=self._recorder,
            )
            self._log = self._runtime.dispatcher.log.bind(actor="system")
            self._bus.log_to(self._runtime.dispatcher.log)
            if self._observed is not None:
                self._observed.log_to(self._runtime.dispatcher.log)
            self._runtime.elsewhere.facts = partial(facts_of, self.name, self._runtime)
            await self._runtime.start(self._supervised)
            await open_control(
                self._asked,
                self.name,
                self._runtime,
                cluster=self._cluster,
                url=self._url,
                key=self._file_key,
                recording=self.recording,
            )
        except BaseException:
            if self._runtime is not None:
                self._runtime.close()
                await self._runtime.release(time.monotonic() + CLOSE_TIME)
                self._runtime = None
            await self._close_store(CLOSE_TIME)
            self._state = "stopped"
            raise
        self._state = "running"
        opened(
            self, f"system {self.name!r}, which runs", "await system.stop(), or `async with` around its use"
        )
        if self._observed is not None:
            self._observed.system_started()
        self._log.info("system started", store=shown(self._store, repr))
        if self.failure is not None:
            self._give_up(self.failure)  # a supervisor gave up while others were starting

    def _begin_recording(self, store: EventStore) -> None:
        settings = self._settings
        self._recording = SystemRecording(
            self.name,
            node_name(self.name, self._cluster),
            settings.steps,
            settings.recordings,
            on_timeout=settings.record_timeouts,
        )
        self._recording.begin(store.directory)
        self._recorder = self._recording.recorder if self._recording.is_on else None

    async def stop(self, timeout: float | None = None) -> None:
        """Handle accepted commands, deliver recorded events to live handlers, and stop. Idempotent.

        Args:
            timeout: Maximum duration, in seconds; default is the system's ``stop_timeout``.
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
            await self._asked.aclose()
            await self._close_store(max(CLOSE_TIME, deadline - time.monotonic()))
            self._state = "stopped"
            closed(self)
            self._has_stopped.set()
            self._log.info("system stopped")

    async def _close_store(self, seconds: float) -> None:
        if self._url is not None and self._store is not None:
            await self._in_time(self._store.close(), seconds)

    async def _in_time(self, work: Coroutine[Any, Any, None], seconds: float) -> None:
        """Await ``work`` for at most ``seconds``, so that an unresponsive store cannot block the stop."""
        try:
            async with asyncio.timeout(seconds) as limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
            self._log.warning("store did not end in time and is left to itself", store=repr(self._store))

    def _give_up(self, error: SupervisorGaveUp) -> None:
        """Stop the system with the error of a top-level supervisor that gave up."""
        self.failure = error
        if self._recording is not None:
            self._recording.write_if_possible(describe(error))
        if self._runtime is not None:
            runtime = self._runtime
            runtime.dispatcher.post(lambda: self._stopping or runtime.start_task(self.stop()))

    async def wait_stopped(self) -> None:
        """Wait until the system has stopped. A service calls this inside ``async with``, after its setup.

        Raises:
            SupervisorGaveUp: The system stopped because a top-level supervisor gave up.
            SystemNotRunning: The system was never started.
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
        self._record_end(error)
        await self.stop()
        if self.failure is not None and error is None:
            raise self.failure

    def start_sync(self) -> Self:
        """Start the system on an event loop in its own thread, in a synchronous program. ``with`` calls this for you.

        It is for programs that have no block to run in, such as the worker process of a web server. Stop it with
        `stop_sync` before the program's main thread ends. An ``atexit`` function is late: no thread may start then,
        and so no plain handler may run.

        Returns:
            The system.

        Raises:
            InvalidStoreUrl, StoreUnavailable, StoreFormatError, SystemNotRunning, Exception: As for `start`.
        """
        before, self._thread = self._thread, LoopThread(f"uno-{self.name}")
        try:
            self._thread.run(self.start())
        except BaseException:
            self._thread.close()
            self._thread = before
            raise
        opened(self, f"system {self.name!r}, which runs", "system.stop_sync(), or `with` around its use")
        return self

    def stop_sync(self, timeout: float | None = None) -> None:
        """Stop a system that `start_sync` has started, as `stop` does, and end its thread. Idempotent.

        In a forked process it does nothing: the system is that of the parent.

        Args:
            timeout: As for `stop`.
        """
        if self._thread is not None and self._thread.is_alive():
            try:
                self._thread.run(self.stop(timeout))
            finally:
                self._thread.close()

    def _record_end(self, error: BaseException | None) -> None:
        """Write the latest steps if the program's own code ends the system by an error."""
        recording = self._recording
        is_crash = isinstance(error, Exception) and self.failure is None and self._state == "running"
        if is_crash and recording is not None and recording.directory is not None:
            recording.write_if_possible(f"the program ends with {describe(error)}")  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self.start_sync()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._record_end(error)
        self.stop_sync()
        if self.failure is not None and error is None:
            raise self.failure

    # --- delivering commands ---

    def deliver(self, stream: StreamId, envelope: CommandEnvelope, timeout: float | None) -> None:
        """Pass a command to the event loop. `AggregateRef` calls this, from any thread."""
        runtime = self._accepting()
        if self._tenant is not None:
            check_cause(self._tenant, self._store)
        seconds = time_left(self._settings.ask_timeout if timeout is None else timeout)
        if envelope.future is not None:
            envelope.future.seconds = seconds
        if self._recorder is not None and envelope.future is None:
            envelope.asked = time.monotonic()
        observed = self._observed
        if observed is not None and observed.in_contexts:
            observing.send(observed, stream, envelope)
        if runtime.dispatcher.is_current():
            runtime.deliver(stream, envelope, seconds)
        elif not runtime.dispatcher.post(lambda: runtime.deliver(stream, envelope, seconds)):
            error = SystemNotRunning(self.name, "stopped")
            if observed is not None and observed.in_contexts:
                observing.end(observed, stream, envelope, error)
            raise error

    def waiting(self, wait_for: object, seconds: float | None) -> PlannedWait:
        """A wait for handlers. `AggregateRef` calls this, from any thread."""
        check_duration("wait_timeout", seconds, zero=True, none=True)
        return self._accepting().waiting.plan(
            wait_for, self._settings.ask_timeout if seconds is None else seconds
        )

    def _handles_here(self, ref: AggregateRef, command: Any) -> bool:
        """Whether this node handles the commands of this class for the aggregate."""
        node = self._running().node
        return node is None or node.handles_here(ref.stream, type(command))

    def _dispatcher(self) -> Dispatcher | None:
        """The system's dispatcher if the caller runs on its loop."""
        dispatcher = None if self._runtime is None else self._runtime.dispatcher
        return dispatcher if dispatcher is not None and dispatcher.is_current() else None

    def observe(self, observer: Observer) -> None:
        """Add an observer to a system that has not started yet, as ``observers`` does at its construction.

        Raises:
            SystemNotRunning: The system has started and takes no more observers.
            TypeError: It is not an `Observer`.
        """
        if self._state != "not started":
            raise SystemNotRunning(self.name, f"{self._state} and takes no more observers")
        watching = () if self._observed is None else self._observed.watching
        self._observed = observation([*watching, observer])
        self._bus._observed = self._observed

    def _add_handler(self, spec: HandlerSpec) -> None:
        """Add a handler to a system that has not started yet."""
        if self._state != "not started":
            raise SystemNotRunning(self.name, f"{self._state} and takes no more handlers")
        default, *others = self._supervised
        taken = [other for supervisor in self._supervised for other in handlers_in(supervisor)]
        check_unique("handlers", handler_names([spec, *taken]))
        check_dependencies([spec])
        added = [ChildSpec(part, part.name) for part in partitions_of(spec)]
        default = replace(default, children=(*default.children, *added))
        self._supervised = [default, *others]

    async def _on_its_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine on the system's loop, even if that loop runs in another thread."""
        try:
            dispatcher = self._running().dispatcher
        except SystemNotRunning:
            coroutine.close()
            raise
        if dispatcher.is_current():
            return await coroutine
        return await on_other_loop(dispatcher.loop, coroutine)

    def _shares_store_with(self, other: "ActorSystem") -> bool:
        """Whether both systems are known to share a store. Every ``memory:`` URL opens a separate store."""
        if self._url is not None and self._url == other._url:
            return self._url != "memory:"
        return self._store is not None and self._store is other._store

    @property
    def _registry(self) -> EventRegistry:
        """The event registry of the store, or the one that the store will be opened with."""
        return self._event_registry if self._store is None else self._store.event_registry

    def _running(self) -> Runtime:
        """The runtime between start and stop, for calls that observe or change the system."""
        return self._runtime_in("running", "stopping")

    def _taking(self) -> Runtime:
        """The runtime while it accepts commands: from the start of handlers and actors, which may send some."""
        if self._runtime is not None and self._runtime.takes_work:
            return self._runtime_in("starting", "running", "stopping")
        return self._running()

    def _accepting(self) -> Runtime:
        """Like `_taking`, for new work. While the system stops, only its handlers and actors may add work."""
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
        """Serve an aggregate class. A class defined again, as in a notebook, replaces its earlier definition."""
        check_is_aggregate(aggregate_type)
        other = self._types.get(aggregate_type.aggregate_type)
        if other is not None and _qualified(other) != _qualified(aggregate_type):
            raise UnknownAggregateType(_qualified(aggregate_type), [_qualified(other)])
        check_events(aggregate_type, self._registry)
        self._types[aggregate_type.aggregate_type] = aggregate_type
        runtime = self._runtime
        if other is not None and runtime is not None:
            runtime.dispatcher.call(lambda: runtime.aggregates.passivate_type(aggregate_type.aggregate_type))
        if runtime is not None and runtime.node is not None:
            runtime.dispatcher.call(runtime.node.serve_types)

    def __repr__(self) -> str:
        return f"<ActorSystem {self.name} ({self._state})>"


def _url_for(template: str | None, tenant: str | None) -> str | None:
    """The URL of the store of a system.

    Raises:
        InvalidTenant, InvalidStoreUrl: See `ActorSystem`.
    """
    if template is None:
        return None
    if tenant is not None:
        return url_of_tenant(template, tenant)
    if is_template(template):
        raise InvalidTenant(
            None,
            f"the store {without_password(template)} is that of many tenants: give the system one of them, as in"
            " tenant='acme', or serve all by Tenants",
        )
    return template


PARTS[ActorSystem] = "system"


def _qualified(aggregate_type: type[AggregateRoot]) -> str:
    return f"{aggregate_type.__module__}.{aggregate_type.__qualname__}"
