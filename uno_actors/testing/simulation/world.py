"""The world of a simulated run, as a scenario sees it: its nodes, disks and links, and what goes wrong with them."""

import asyncio
import gc
import inspect
import random
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.errors import OutcomeUnknown, SystemNotRunning, UnoError, WorldError
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord
from uno_actors.system.system import ActorSystem
from uno_actors.tasks import begin as begin_task
from uno_actors.testing.simulation.core import Call, Core
from uno_actors.testing.simulation.faults import Fault
from uno_actors.testing.simulation.loop import NodeCrashed, SimulatedLoop, across
from uno_actors.testing.simulation.network import SimulatedNetwork
from uno_actors.testing.simulation.store import Shelf, SimulatedStore
from uno_actors.testing.simulation.witness import Witness
from uno_actors.testing.simulation.workers import SimulatedWorkers

R = TypeVar("R")

LONGEST_DOWN = 2.0
"""Maximum seconds until a node that a fault has killed comes back."""
LONGEST_FAULT = 3.0
"""Maximum seconds for which a disk is full, a node frozen or a link cut."""
SETTLE_SECONDS = 120.0
"""Seconds within which everything must be handled, once nothing goes wrong any more."""
AGAIN_SECONDS = 0.2
"""Maximum seconds after which `World.ask` sends a command again."""


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


Invariant = Callable[["World"], "Awaitable[object] | None"]
"""Raises if the world is not as it must be."""


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


MakeSystem = Callable[[Node], "ActorSystem | Awaitable[ActorSystem]"]


class World:
    """What a scenario works with.

    Attributes:
        chance: For the scenario's own choices.
        seed: Of the run.
        witness: What commands and handlers have done, in order.
        length: The steps of the scenario, once it has ended.
        failure: Why a node that a fault had killed cannot come back; it ends the run.
    """

    def __init__(
        self,
        core: Core,
        faults: Sequence[Fault] = (),
        length: int = 0,
        *,
        commands: int | None = None,
        registry: EventRegistry = event_registry,
    ) -> None:
        self.core = core
        self.seed = core.seed
        self.chance: random.Random = core.source("scenario")
        self.witness = Witness(core)
        self.network = SimulatedNetwork(core)
        self.shelves: dict[str, Shelf] = {}
        self.audits: dict[str, Shelf] = {}
        self.loop = self._new_loop("scenario")
        self.commands_given = 0
        self.happened: list[Fault] = []
        self._registry = registry
        self._limit = commands
        self._nodes: dict[str, Node] = {}
        self._stopped: set[str] = set()
        self._incarnations: dict[str, int] = {}
        self._loops = [self.loop]
        self._faults = sorted(faults, key=lambda fault: -fault.moment)
        self._length = length
        self.length = 0
        self.failure: Exception | None = None
        self._down: dict[str, None] = {}  # killed by a fault, and not back yet
        self._starting: dict[str, None] = {}
        self._background: list[asyncio.Task[None]] = []
        core.before_step = self._before_step if self._faults else None

    def _new_loop(self, name: str) -> SimulatedLoop:
        loop = SimulatedLoop(self.core, name)
        loop.workers = SimulatedWorkers(loop, loop)
        return loop

    # --- nodes ---

    async def node(
        self, name: str, make_system: MakeSystem | None = None, *, store: str = "disk"
    ) -> ActorSystem:
        """Start a process of the world, and in it the system that ``make_system(node)`` returns.

        Args:
            name: Of the node.
            make_system: Makes the system on ``node.store``, or awaits what it needs first. Default is that of the
                last start of this node.
            store: Name of the disk that its store is on. Nodes with one name share a store.

        Returns:
            The running system, for use until the node is killed.

        Raises:
            ValueError: A node of this name runs.
            NodeCrashed: It was killed before its system ran.
        """
        try:
            return await self._start(name, make_system, store)
        except NodeCrashed:
            if name not in self._down:  # not killed by a fault, after which it comes back
                raise
        except WorldError as error:
            if not self.happened:
                raise
            self._failed_to_start(name, error)
        while name in self._down or name in self._starting:  # noqa: ASYNC110 - no single event to await
            await asyncio.sleep(0.01)
        return self.system(name)

    async def _start(self, name: str, make_system: MakeSystem | None, store: str) -> ActorSystem:
        before = self._nodes.get(name)
        if before is not None and not before._loop.is_closed():
            raise ValueError(f"node {name!r} runs already")
        make = make_system or (None if before is None else before._make)
        if make is None:
            raise ValueError(f"node {name!r} was never started: give it a make_system")
        if before is not None and make_system is None:
            store = before._shelf.name
        count = self._incarnations[name] = self._incarnations.get(name, 0) + 1
        self._stopped.discard(name)
        self._down.pop(name, None)
        loop = self._new_loop(name)
        self._loops.append(loop)
        shelf = self.audits.get(store) or self._shelf(store)
        node = Node(name, SimulatedStore(shelf, loop, self._registry), self.network, count, loop, make, shelf)
        self._nodes[name] = node
        self.core.tell(name, "node", "starts" if count == 1 else f"starts again (start {count})")

        async def start() -> ActorSystem:
            made = make(node)
            system = await made if inspect.isawaitable(made) else made
            self._attach(node, system)
            await system.start()
            return system

        system = await self._of_node(node, start())
        self.core.tell(name, "node", "runs")
        return system

    def _shelf(self, name: str) -> Shelf:
        found = self.shelves.get(name)
        if found is None:
            found = self.shelves[name] = Shelf(self.core, name, self._registry)
        return found

    def restore(self, records: Iterable[StoredRecord], store: str = "disk") -> None:
        """Have a disk hold what another store holds, before the first node is started on it.

        Args:
            records: As ``await store.read_log()`` of that store returns them, from its first event on.
            store: Name of the disk.

        Raises:
            ConcurrencyConflict: A stream does not begin with its first event, or one is missing.
        """
        self._shelf(store).restore(stored.record for stored in records)

    async def _of_node(self, node: Node, coroutine: Coroutine[Any, Any, R]) -> R:
        """Await a coroutine that runs in a node; ends if the node is killed."""
        if node._loop.is_closed():
            coroutine.close()
            raise NodeCrashed(node.name)
        future = across(self.loop, node._loop, coroutine)
        node._awaited[future] = None
        try:
            result: R = await future
        finally:
            node._awaited.pop(future, None)
        return result

    def _attach(self, node: Node, system: ActorSystem) -> None:
        """Watch a system, and have calls from outside end when its node is killed."""
        node._system = system
        if node._shelf.name in self.audits:
            return
        system.observe(self.witness.of(node.name, node.incarnation))
        deliver = system.deliver

        def delivered(stream: StreamId, envelope: CommandEnvelope, timeout: float | None) -> None:
            future, command = envelope.future, envelope.command
            if future is not None:
                if self.core.place is not node._loop:
                    node._pending[future] = envelope
                future._when_done(partial(self._answered, node, stream, command))
            deliver(stream, envelope, timeout)

        async def on_its_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
            if self.core.place is node._loop:
                return await coroutine
            return await self._of_node(node, coroutine)

        system.deliver = delivered  # type: ignore[method-assign]
        system._on_its_loop = on_its_loop  # type: ignore[method-assign]

    def _answered(self, node: Node, stream: StreamId, command: Command[Any], future: Any) -> None:
        node._pending.pop(future, None)
        if not self.core.closed and not node._loop.is_dead:
            self.witness.answered(node.name, stream, command, future._outcome)

    def system(self, name: str) -> ActorSystem:
        """The system that node ``name`` runs now.

        Raises:
            NodeCrashed: It is down.
        """
        node = self._nodes.get(name)
        if node is None or node._system is None or node._loop.is_closed():
            raise NodeCrashed(name)
        return node._system

    def running(self) -> list[str]:
        """Names of the nodes whose systems run, sorted."""
        return [
            name
            for name, node in sorted(self._nodes.items())
            if not node._loop.is_closed() and node._system is not None and node._system._state == "running"
        ]

    def crash(self, name: str) -> None:
        """Kill a node at once, as by SIGKILL. What it has written to its disk stays. Start it again with `node`."""
        self._kill(name, "is killed")

    def _kill(self, name: str, how: str) -> None:
        node = self._nodes.get(name)
        if node is None or node._loop.is_closed():
            return
        self.core.tell(name, "fault", how)
        node._loop.kill()
        self.network.killed(node._loop)
        node._shelf.killed(node.store)  # type: ignore[arg-type]
        for future in tuple(node._awaited):
            if not future.done():
                future.set_exception(NodeCrashed(name))
        for future, envelope in tuple(node._pending.items()):
            lost = OutcomeUnknown(f"node {name}", "it was killed", envelope.command.command_id)
            future.offer_exception(lost)
        node._pending.clear()

    def power_failure(self, store: str = "disk") -> list[str]:
        """Kill all nodes on a disk, and lose what was not synced to it; returns their names."""
        shelf = self.shelves[store]
        names = [
            name for name, node in self._nodes.items() if node._shelf is shelf and not node._loop.is_closed()
        ]
        for name in names:
            self._kill(name, "loses its power")
        lost = shelf.power_failure()
        self.core.tell(store, "fault", f"power failure: {lost} bytes were not synced and are lost")
        return names

    async def stop(self, name: str) -> None:
        """Stop the system of a node in order, and end its process."""
        node = self._nodes[name]
        system = self.system(name)
        self._stopped.add(name)
        await self._of_node(node, system.stop())
        await self._end(node)

    async def _end(self, node: Node) -> None:
        """End a process whose system has stopped; what still runs in it is reported."""
        await asyncio.sleep(1.0)
        left = [task for task in node._loop.open_tasks() if not task.done()]
        await node.store.close()
        node._loop.kill()
        if left:
            raise InvariantBroken("no task is left over", "; ".join(map(where, left)))

    # --- what clients do ---

    def commands(self, count: int) -> Iterator[int]:
        """The numbers 0 to ``count`` - 1; fewer while a failing run is made smaller."""
        for number in range(count):
            if self._limit is not None and self.commands_given >= self._limit:
                return
            self.commands_given += 1
            yield number

    async def ask(
        self,
        aggregate_type: type[AggregateRoot],
        aggregate_id: str,
        command: Command[R],
        *,
        node: str | None = None,
        since: int | None = None,
    ) -> R:
        """Send a command as a careful client does: until it is answered, again with the same id if the world fails.

        Args:
            aggregate_type: Class of the aggregate.
            aggregate_id: Its id.
            command: The command; each try has its ``command_id``.
            node: Where to send it; default is any node that runs, chosen by the seed for each try.
            since: As of `AggregateRef.ask`.

        Raises:
            CommandRejected: As the aggregate raises it, like all errors that are not of the world.
        """
        while True:
            name = node or (self.chance.choice(up) if (up := self.running()) else None)
            try:
                if name is not None:
                    return (
                        await self.system(name)
                        .aggregate(aggregate_type, aggregate_id)
                        .ask(command, since=since)
                    )
            except (WorldError, SystemNotRunning, NodeCrashed) as error:
                self.core.tell(
                    "client",
                    "ask",
                    f"{type(command).__name__} {command.command_id[:6]}: {type(error).__name__}",
                )
            await asyncio.sleep(self.chance.random() * AGAIN_SECONDS)

    # --- what must be so ---

    async def check(self, invariant: Invariant) -> None:
        """Check ``invariant(world)`` now; it raises if it is broken.

        Raises:
            InvariantBroken: As the invariant raises it.
        """
        found = invariant(self)
        if inspect.isawaitable(found):
            await found

    async def settled(self) -> None:
        """End all that is wrong, start the nodes that faults have killed, and wait until everything is handled.

        Raises:
            InvariantBroken: Not everything was handled in time.
        """
        self._calm()
        while self._down or self._starting:
            for name in tuple(self._down):
                await self._start_again(name)
            await asyncio.sleep(0.01)
        for name in self.running():
            try:
                async with asyncio.timeout(SETTLE_SECONDS + 10):
                    await self.system(name).settled(SETTLE_SECONDS)
            except TimeoutError as error:
                raise InvariantBroken("nothing hangs", f"node {name}: {error}") from error

    # --- what goes wrong ---

    def cut(self, one: str, other: str) -> None:
        """Lose all that two nodes send each other, until `heal`."""
        self.core.tell("network", "fault", f"{one} and {other} are cut off from each other")
        self.network.cut_nodes(self._nodes[one]._loop, self._nodes[other]._loop)

    def heal(self) -> None:
        """Join all nodes again."""
        self.network.heal()

    def _before_step(self) -> None:
        core = self.core
        while self._faults and core.steps >= self._faults[-1].moment * self._length:
            fault = self._faults.pop()
            self.happened.append(fault)
            core.place = core.outside
            self._strike(fault)
        if not self._faults:
            core.before_step = None

    def _strike(self, fault: Fault) -> None:
        up = [name for name, node in self._nodes.items() if not node._loop.is_closed()]
        if not up:
            return
        name = up[int(fault.target * len(up))]
        node, core = self._nodes[name], self.core
        seconds = fault.size**2 * LONGEST_FAULT
        disk = node._shelf.disk
        match fault.kind:
            case "crash":
                self.crash(name)
                self._later(name, fault.size * LONGEST_DOWN)
            case "power failure":
                for each in self.power_failure(node._shelf.name):
                    self._later(each, fault.size * LONGEST_DOWN)
            case "disk full":
                core.tell(disk.name, "fault", f"has no room for {seconds:.2f} s")
                disk.full_until = core.now + seconds
            case "slow disk":
                core.tell(disk.name, "fault", f"is 100 times slower for {seconds:.2f} s")
                disk.slow, disk.slow_until = 100.0, core.now + seconds
            case "failed sync":
                core.tell(disk.name, "fault", "will fail to sync")
                disk.failing += 1
            case "freeze":
                core.tell(name, "fault", f"stands still for {seconds:.2f} s")
                node._loop.frozen_until = core.now + seconds
            case "clock":
                node._loop.offset += (fault.size - 0.5) * 600
                node._loop.drift(1 + (fault.size - 0.5) * 0.02)
                core.tell(
                    name,
                    "fault",
                    f"its clock is {node._loop.offset:+.0f} s off and runs {node._loop.rate:.4f} times as fast",
                )
            case "cut" if len(up) > 1:
                other = up[(up.index(name) + 1) % len(up)]
                self.cut(name, other)
                core.at(core.now + seconds, self.loop, Call(self.heal), "heal")

    def _later(self, name: str, seconds: float) -> None:
        """Start a node again that a fault has killed."""
        self._down[name] = None

        def begin() -> None:
            if name in self._down:
                self._background.append(begin_task(self.loop, self._start_again(name)))

        self.core.at(self.core.now + seconds, self.loop, Call(begin), "comes back")

    async def _start_again(self, name: str) -> None:
        if name not in self._down or name in self._starting:
            return
        del self._down[name]
        self._starting[name] = None
        try:
            await self._start(name, None, "")
        except (NodeCrashed, ValueError):
            pass  # killed again, or started by the scenario
        except WorldError as error:
            self._failed_to_start(name, error)
        except Exception as error:  # noqa: BLE001 - the run ends with it
            self.failure = error
        finally:
            self._starting.pop(name, None)

    def _failed_to_start(self, name: str, error: WorldError) -> None:
        """A disk was full, say: try again, as a service manager does."""
        self.core.tell(name, "node", f"cannot start: {error}")
        self._kill(name, "ends")
        self._later(name, 0.2)

    def _calm(self) -> None:
        """Nothing goes wrong from now on."""
        self._faults.clear()
        self.heal()
        for shelf in self.shelves.values():
            shelf.disk.full_until = shelf.disk.slow_until = 0.0
            shelf.disk.failing = 0
        for node in self._nodes.values():
            node._loop.frozen_until = 0.0

    # --- the end ---

    async def finish(self, invariants: Sequence[Invariant]) -> None:
        """After the scenario: settle, check, stop all nodes, and look for what is left."""
        await self.settled()
        for invariant in invariants:
            await self.check(invariant)
        for name in self.running():
            await self.stop(name)
        for loop in self._loops:
            for context in loop.errors:
                raise InvariantBroken(
                    "no error is lost", f"{loop.name}: {context.get('message')}: {context.get('exception')!r}"
                )

    def waiting(self) -> list[str]:
        """What waits, a line for each task."""
        return [
            f"{loop.name}: {where(task)}"
            for loop in self._loops
            if not loop.is_dead
            for task in loop.open_tasks()
        ]

    def end(self) -> None:
        """Free all that is left."""
        self.core.close()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # coroutines of killed processes are never awaited
                for loop in self._loops:
                    loop.end()
                self._nodes.clear()
                gc.collect()  # here, where what is left of them can do no harm
        finally:
            sys.unraisablehook = hook
            self.core.outside.enter()


def where(task: "asyncio.Task[Any]") -> str:
    """What a task runs, and the line at which it waits."""
    coroutine: Any = task.get_coro()
    name = getattr(coroutine, "__qualname__", "task")
    place = ""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            place = f" at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return f"{name}{place}"
