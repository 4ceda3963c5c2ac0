"""The processes of a run: each has a loop, a store and a system of its own, until it stops or is killed."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, TypeVar

from uno_actors.actors.watchdog import line_of
from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.domain.commands import Command
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import CallerError, OutcomeUnknown, UnoError
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.store_urls import without_password
from uno_actors.system.system import ActorSystem
from uno_actors.testing.simulation.core import Core
from uno_actors.testing.simulation.escapes import frames_of_task, is_users
from uno_actors.testing.simulation.loop import NodeCrashed, SimulatedLoop, across
from uno_actors.testing.simulation.network import SimulatedNetwork
from uno_actors.testing.simulation.store import Shelf, SimulatedStore
from uno_actors.testing.simulation.witness import Witness
from uno_actors.testing.simulation.workers import SimulatedWorkers

R = TypeVar("R")


class InvariantBroken(UnoError):
    """What must always be so is not so.

    Attributes:
        invariant: Its name, in words.
        found: What was found instead.
    """

    def __init__(self, invariant: str, found: str) -> None:
        self.invariant = invariant
        self.found = found
        super().__init__(f"{invariant}: {found}")


class NotSimulated(CallerError, TypeError):
    """``make_system`` has made what the simulation cannot run."""

    def __init__(self, node: str, found: str, remedy: str) -> None:
        self.node = node
        super().__init__(f"node {node!r} cannot be simulated: make_system has returned {found}. {remedy}")


@dataclass(slots=True)
class Node:
    """One process of the run, from its start to its end; what ``make_system`` is given.

    Attributes:
        name: Its name in the scenario.
        store: The store that it opens.
        network: Its network, for ``Cluster(listen=node.network)``.
        incarnation: How often a node of this name was started.
    """

    name: str
    store: EventStore
    network: SimulatedNetwork
    incarnation: int
    _loop: SimulatedLoop
    _make: "MakeSystem"
    _shelf: Shelf
    _system: ActorSystem | None = None
    _pending: "dict[Any, CommandEnvelope]" = field(default_factory=dict)
    _awaited: "dict[asyncio.Future[Any], None]" = field(default_factory=dict)

    @property
    def is_up(self) -> bool:
        """Whether its process runs."""
        return not self._loop.is_closed()


MakeSystem = Callable[[Node], "ActorSystem | Awaitable[ActorSystem]"]


class Nodes:
    """The processes of a run, and the disks that they use.

    Args:
        core: Of the run.
        network: Between them.
        witness: Sees what their systems do.
        event_registry: Finds the classes of recorded events.

    Attributes:
        by_name: The latest process of each name.
        shelves: What is on each disk, by its name.
        audits: Disks that belong to the checks at the end, not to the scenario.
        loops: Of all processes that were ever started, and of the scenario.
        here: The loop of the scenario.
    """

    def __init__(
        self, core: Core, network: SimulatedNetwork, witness: Witness, event_registry: EventRegistry
    ) -> None:
        self._core = core
        self._network = network
        self._witness = witness
        self.event_registry = event_registry
        self.by_name: dict[str, Node] = {}
        self.shelves: dict[str, Shelf] = {}
        self.audits: dict[str, Shelf] = {}
        self.here = self._new_loop("scenario")
        self.loops = [self.here]

    def _new_loop(self, name: str) -> SimulatedLoop:
        loop = SimulatedLoop(self._core, name)
        loop.workers = SimulatedWorkers(loop, loop)
        return loop

    def shelf(self, name: str) -> Shelf:
        """The disk of this name, a new one if there is none."""
        found = self.audits.get(name) or self.shelves.get(name)
        if found is None:
            found = self.shelves[name] = Shelf(self._core, name, self.event_registry)
        return found

    def used_shelf(self, name: str) -> Shelf:
        """The disk of this name.

        Raises:
            ValueError: No node was started on it.
        """
        found = self.shelves.get(name)
        if found is None:
            known = ", ".join(map(repr, self.shelves)) or "none"
            raise ValueError(f"there is no disk {name!r}; found {known}")
        return found

    def check_known(self, *names: str) -> None:
        """Refuse names under which no node was ever started.

        Raises:
            ValueError: One is such a name.
        """
        for name in names:
            if name not in self.by_name:
                known = ", ".join(map(repr, self.by_name)) or "none"
                raise ValueError(f"there is no node {name!r}; started were {known}")

    def up(self) -> list[str]:
        """Names of the nodes whose processes run, in the order of their first start."""
        return [name for name, node in self.by_name.items() if node.is_up]

    def running(self) -> list[str]:
        """Names of the nodes whose systems run, sorted."""
        return [
            name
            for name, node in sorted(self.by_name.items())
            if node.is_up and node._system is not None and node._system._state == "running"
        ]

    def system(self, name: str) -> ActorSystem:
        """The system that node ``name`` runs now.

        Raises:
            NodeCrashed: It is down.
        """
        node = self.by_name.get(name)
        if node is None or node._system is None or not node.is_up:
            raise NodeCrashed(name)
        return node._system

    # --- starting ---

    async def start(self, name: str, make_system: MakeSystem | None, store: str = "") -> ActorSystem:
        """Start a process, and in it the system; see `World.node`."""
        found: object = name
        if not isinstance(found, str) or not found:
            raise ValueError(
                f"the name of a node is a text, as in world.node('shop', make_system); found {name!r}"
            )
        before = self.by_name.get(name)
        if before is not None and before.is_up:
            raise ValueError(f"node {name!r} runs already")
        make = make_system or (None if before is None else before._make)
        if make is None:
            raise ValueError(f"node {name!r} was never started: give it a make_system")
        if before is not None and make_system is None:
            store = before._shelf.name
        count = 1 if before is None else before.incarnation + 1
        loop = self._new_loop(name)
        self.loops.append(loop)
        shelf = self.shelf(store)
        own = SimulatedStore(shelf, loop, self.event_registry)
        node = self.by_name[name] = Node(name, own, self._network, count, loop, make, shelf)
        self._core.tell(name, "node", "starts" if count == 1 else f"starts again (start {count})")

        async def begin() -> ActorSystem:
            made = make(node)
            system = await made if inspect.isawaitable(made) else made
            self._attach(node, _checked(node, system))
            await system.start()
            return system

        system = await self.of_node(node, begin())
        self._core.tell(name, "node", "runs")
        return system

    def _attach(self, node: Node, system: ActorSystem) -> None:
        """Watch a system, and have calls from outside run in its process, and end when that is killed."""
        node._system = system
        for name, method in inspect.getmembers(type(system), inspect.iscoroutinefunction):
            if not name.startswith("_"):
                setattr(system, name, self._in_node(node, getattr(system, name), method))
        system._on_its_loop = self._in_node(node, _itself, _itself)  # type: ignore[method-assign]
        if node._shelf.name in self.audits:
            return
        system.observe(self._witness.of(node.name, node.incarnation))
        deliver = system.deliver

        def delivered(stream: StreamId, envelope: CommandEnvelope, timeout: float | None) -> None:
            future, command = envelope.future, envelope.command
            if future is not None:
                if self._core.place is not node._loop:
                    node._pending[future] = envelope
                future._when_done(partial(self._answered, node, stream, command))
            deliver(stream, envelope, timeout)

        system.deliver = delivered  # type: ignore[method-assign]

    def _in_node(self, node: Node, call: Callable[..., Coroutine[Any, Any, R]], like: Any) -> Any:
        """A coroutine function that runs in the process of ``node``, wherever it is called."""

        @wraps(like)
        async def called(*arguments: Any, **options: Any) -> R:
            coroutine = call(*arguments, **options)
            return await (coroutine if self._core.place is node._loop else self.of_node(node, coroutine))

        return called

    def _answered(self, node: Node, stream: StreamId, command: Command[Any], future: Any) -> None:
        node._pending.pop(future, None)
        if not self._core.closed and not node._loop.is_dead:
            self._witness.answered(node.name, stream, command, future._outcome)

    async def of_node(self, node: Node, coroutine: Coroutine[Any, Any, R]) -> R:
        """Await a coroutine that runs in a node; ends if the node is killed."""
        if not node.is_up:
            coroutine.close()
            raise NodeCrashed(node.name)
        here = self._core.place
        future = across(here if isinstance(here, SimulatedLoop) else self.here, node._loop, coroutine)
        node._awaited[future] = None
        try:
            result: R = await future
        finally:
            node._awaited.pop(future, None)
        return result

    # --- ending ---

    def kill(self, name: str, how: str) -> None:
        """End a process at once, with what waits for it."""
        node = self.by_name.get(name)
        if node is None or not node.is_up:
            return
        self._core.tell(name, "fault", how)
        node._loop.kill()
        self._network.killed(node._loop)
        node._shelf.killed(node.store)  # type: ignore[arg-type]
        for future in tuple(node._awaited):
            if not future.done():
                future.set_exception(NodeCrashed(name))
        for future, envelope in tuple(node._pending.items()):
            lost = OutcomeUnknown(f"node {name}", "it was killed", envelope.command.command_id)
            future.offer_exception(lost)
        node._pending.clear()

    async def stop(self, name: str) -> None:
        """Stop the system of a node in order, and end its process; what still runs in it is reported."""
        node = self.by_name[name]
        await self.system(name).stop()
        await asyncio.sleep(1.0)
        left = [task for task in node._loop.open_tasks() if not task.done()]
        await node.store.close()
        node._loop.kill()
        if left:
            raise InvariantBroken("no task is left over", "; ".join(map(where, left)))

    def waiting(self) -> list[str]:
        """What waits, a line for each task."""
        return [
            f"{loop.name}: {where(task)}"
            for loop in self.loops
            if not loop.is_dead
            for task in loop.open_tasks()
        ]


async def _itself(coroutine: Coroutine[Any, Any, R]) -> R:
    return await coroutine


def _checked(node: Node, made: Any) -> ActorSystem:
    """What ``make_system`` has returned, if it can be simulated.

    Raises:
        NotSimulated: It cannot.
    """
    if not isinstance(made, ActorSystem):
        raise NotSimulated(
            node.name,
            f"a {type(made).__name__}",
            "Return an ActorSystem on node.store. Of tenants, start a node for each, with a store of its own:"
            " world.node(tenant, make_system, store=tenant).",
        )
    if made._state != "not started":
        raise NotSimulated(
            node.name,
            f"a system that is {made._state} already",
            "Make a new one each time that make_system is called, and leave it to the simulation to start it.",
        )
    used: Any = made._store if made._template is None else without_password(made._template)
    if isinstance(used, SimulatedStore) or SimulatedStore in map(
        type, getattr(used, "__dict__", {}).values()
    ):
        return made
    raise NotSimulated(
        node.name,
        f"a system on {used!r}",
        "Make it on node.store: that is the disk on which faults strike, and which the invariants read.",
    )


def where(task: "asyncio.Task[Any]") -> str:
    """What a task runs, and the line of the user's code at which it waits, or that has started it."""
    name = getattr(task.get_coro(), "__qualname__", "task")
    frames = frames_of_task(task)
    own = next(filter(is_users, frames), None)
    started = getattr(task, "started", None)
    if own is None and started is not None:
        return f"{name}, started at {started}"
    own = own or next(iter(frames), None)
    return name if own is None else f"{name} at {line_of(own)}"
