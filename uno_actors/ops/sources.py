"""Where the live page and the command line find what they show: a running system of this process, or a store."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from typing_extensions import override

from uno_actors.actors.loop_thread import on_other_loop
from uno_actors.cluster.settings import Cluster
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import SystemNotRunning
from uno_actors.flight_recorder.files import lines_of
from uno_actors.handlers.control import HandlerControl, HandlerInfo
from uno_actors.handlers.spec import Start
from uno_actors.handlers.subscription import Subscription
from uno_actors.inquiry.facts import ProcessFacts, Question, Silent
from uno_actors.ops.processes import Unanswered, ask_processes
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord
from uno_actors.store_urls import without_password
from uno_actors.system.control_socket import ControlRefused, control_directories, key_of, living
from uno_actors.system.inquiry_place import ask_sockets
from uno_actors.system.runtime import Runtime
from uno_actors.system.state import figures_of
from uno_actors.system.system import ActorSystem
from uno_actors.tasks import begin

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process that runs a system on the store.

    Attributes:
        system: Name of the system.
        process: Number of the process.
        uptime: Seconds since the system started.
        tree: The children of its supervision tree, as `uno_actors.supervision.child.TreeNode` has them.
        statistics: `uno_actors.system.statistics.SystemStatistics` as a table; ``None`` if the process does not tell.
        busy: `uno_actors.system.work.Busy` as tables.
        unanswered: Why there is no answer; ``None`` if there is one.
    """

    system: str
    process: int
    uptime: float = 0.0
    tree: Sequence[Mapping[str, Any]] = ()
    statistics: Mapping[str, Any] | None = None
    busy: Sequence[Mapping[str, Any]] = ()
    unanswered: str | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """From the answer of a process to the question ``figures``; see `uno_actors.system.state`."""
        return cls(
            str(answer["system"]),
            int(answer["pid"]),
            float(answer["uptime"]),
            answer["tree"]["children"],
            answer.get("statistics"),
            answer.get("busy", ()),
        )


class Source(ABC):
    """What is shown, and who carries out requests.

    Attributes:
        name: Of the system or the store, for people.
        place: URL of the store without its password; ``None`` if the store was given as an object.
        is_live: Whether it is a system of this process.
        cluster: The settings of its nodes.
    """

    name: str
    place: str | None
    is_live: bool
    cluster: Cluster

    @property
    @abstractmethod
    def store(self) -> EventStore:
        """The open store."""

    @abstractmethod
    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` on the event loop on which the store is used."""

    @abstractmethod
    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[Any]":
        """Run ``work`` as a task of its own on that loop, which is the current one."""

    @abstractmethod
    async def ask(self, question: Question) -> tuple[list[ProcessFacts], list[Silent]]:
        """See `uno_actors.inquiry.gathering.Place`."""

    @property
    def url(self) -> str | None:
        """URL of the store, for commands; ``None`` if none reaches it."""
        return self.place if self.place is not None and not self.place.startswith("memory:") else None

    @abstractmethod
    async def states(self) -> list[ProcessState]:
        """The processes that run a system on the store, on this machine."""

    @abstractmethod
    async def recordings(self) -> list[str]:
        """The latest steps of these processes, as lines; see `uno_actors.flight_recorder.files`."""

    @abstractmethod
    def aggregate_type(self, name: str) -> type[AggregateRoot] | None:
        """The class of this type of aggregates, if it is known here."""

    def subscribed(self, stored: StoredRecord) -> Collection[str] | None:
        """The names of the handlers that subscribe to an event; ``None`` if that is not known here."""
        return None

    def attempts(self, handler: str, position: int) -> int:
        """How often a handler has failed at an event that it will try again, as far as this process knows."""
        return 0

    # --- handlers ---

    async def handlers(self, *, partitions: bool = False) -> list[HandlerInfo]:
        """See `HandlerControl.handlers`."""
        return await HandlerControl(self.store).handlers(partitions=partitions)

    async def requested(self) -> None:  # noqa: B027 - nothing is in reach of a store
        """Have requests to handlers carried out at once, where that is in reach."""

    async def pause(self, name: str) -> None:
        """See `HandlerControl.pause`."""
        await HandlerControl(self.store).pause(name, by="the live page")
        await self.requested()

    async def resume(self, name: str) -> None:
        """See `HandlerControl.resume`."""
        await HandlerControl(self.store).resume(name)
        await self.requested()

    async def reset(self, name: str, to: Start) -> int:
        """See `HandlerControl.reset`."""
        position = await HandlerControl(self.store).reset(name, to)
        await self.requested()
        return position

    async def retry(self, handler: str, positions: Sequence[int] | None) -> int:
        """See `HandlerControl.retry`."""
        count = await HandlerControl(self.store).retry(handler, positions)
        await self.requested()
        return count


class SystemSource(Source):
    """A system of this process.

    Args:
        system: It may be started later.

    Attributes:
        system: The system.
    """

    is_live = True

    def __init__(self, system: ActorSystem) -> None:
        self.system = system
        self.name = system.name
        self.cluster = system._cluster or Cluster()
        self.place = None if system._url is None else without_password(system._url)

    @property
    def has_stopped(self) -> bool:
        """Whether the system has stopped for good."""
        return self.system._state in ("stopping", "stopped")

    @property
    @override
    def store(self) -> EventStore:
        return self.system.store

    @override
    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            dispatcher = self.runtime.dispatcher
        except SystemNotRunning:
            work.close()
            raise
        if dispatcher.is_current():
            return await work
        return await on_other_loop(dispatcher.loop, work)

    @override
    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[Any]":
        return self.runtime.start_task(work)  # ends with the system

    @property
    def runtime(self) -> Runtime:
        """The running parts of the system.

        Raises:
            SystemNotRunning: It was not started, or has stopped.
        """
        return self.system._running()

    @override
    async def ask(self, question: Question) -> tuple[list[ProcessFacts], list[Silent]]:
        return await self.system._place(self.runtime).ask(question)

    @override
    async def states(self) -> list[ProcessState]:
        return [ProcessState.of(figures_of(self.name, self.runtime, self.runtime.begun))]

    @override
    async def recordings(self) -> list[str]:
        return await asyncio.to_thread(lambda: [*lines_of(self.system.recording.now())])

    @override
    def aggregate_type(self, name: str) -> type[AggregateRoot] | None:
        return self.system._types.get(name) or class_of_type(name)

    @override
    def subscribed(self, stored: StoredRecord) -> Collection[str]:
        return names_of_subscribed(self.runtime.handlers.subscriptions, stored)

    @override
    def attempts(self, handler: str, position: int) -> int:
        for subscription in self.runtime.handlers.subscriptions:
            if subscription.name == handler:
                return subscription.failures.attempt(position) - 1
        return 0

    @override
    async def handlers(self, *, partitions: bool = False) -> list[HandlerInfo]:
        return await self.runtime.handlers.infos(partitions=partitions)

    @override
    async def requested(self) -> None:
        await self.runtime.handlers.look_at_requests()


class StoreSource(Source):
    """A store, with the processes of this machine and user that run a system on it.

    Args:
        store: The store, open.
        url: Its URL, by which processes are found.
        key: Distinguishes a file's system; see `uno_actors.system.control_socket.control_directory`.
        subscriptions: The handlers of a configuration file; ``None`` if they are not known.
        cluster: The settings of its nodes, of a configuration file.
    """

    is_live = False

    def __init__(
        self,
        store: EventStore,
        url: str,
        key: str | None = None,
        *,
        subscriptions: Sequence[Subscription] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._store = store
        self._url = url
        self._key = key_of(url) if key is None else key
        self._subscriptions = subscriptions
        self.name = self.place = without_password(url)
        self.cluster = cluster or Cluster()

    @property
    @override
    def store(self) -> EventStore:
        return self._store

    @override
    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    @override
    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[Any]":
        return begin(asyncio.get_running_loop(), work)

    @override
    async def ask(self, question: Question) -> tuple[list[ProcessFacts], list[Silent]]:
        return await ask_sockets(await asyncio.to_thread(self._sockets), question)

    def _sockets(self) -> list[Path]:
        try:
            directories = control_directories(self._url, self._key)
        except ControlRefused:  # this machine has no such sockets
            return []
        return sorted(path for directory in directories for path in living(directory))

    @override
    async def states(self) -> list[ProcessState]:
        return await asyncio.to_thread(self._asked)

    @override
    async def recordings(self) -> list[str]:
        def ask() -> list[Any]:
            return [*ask_processes(self._directories(), "recording", otherwise="tree")]

        answers = [each for each in await asyncio.to_thread(ask) if not isinstance(each, Unanswered)]
        return [line for each in answers for line in each.get("lines", ())]

    def _directories(self) -> list[Path]:
        """Where the sockets of the processes may be; nowhere if this machine has no such sockets."""
        try:
            return control_directories(self._url, self._key)
        except ControlRefused:
            return []

    def _asked(self) -> list[ProcessState]:
        directories = self._directories()
        return [
            ProcessState("", answer.process, unanswered=str(answer))
            if isinstance(answer, Unanswered)
            else ProcessState.of(answer)
            for answer in ask_processes(directories, "figures", otherwise="tree")
        ]

    @override
    def aggregate_type(self, name: str) -> type[AggregateRoot] | None:
        return class_of_type(name)

    @override
    def subscribed(self, stored: StoredRecord) -> Collection[str] | None:
        return None if self._subscriptions is None else names_of_subscribed(self._subscriptions, stored)


def class_of_type(name: str) -> type[AggregateRoot] | None:
    """The one loaded class of aggregates of this type; ``None`` if there is none, or several."""
    found = {each for each in _below(AggregateRoot) if each.aggregate_type == name}
    return found.pop() if len(found) == 1 else None


def _below(kind: type[AggregateRoot]) -> Iterator[type[AggregateRoot]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def names_of_subscribed(subscriptions: Iterable[Subscription], stored: StoredRecord) -> list[str]:
    """The names of the handlers that an event is for."""
    return [each.name for each in subscriptions if any(True for _ in each.wanted([stored]))]
