"""The world of a simulated run, as a scenario sees it: its nodes, disks and links, and what goes wrong with them."""

import asyncio
import gc
import inspect
import math
import random
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry
from uno_actors.errors import SystemNotRunning, WorldError
from uno_actors.store.codec import to_event
from uno_actors.store.records import StoredRecord
from uno_actors.system.system import ActorSystem
from uno_actors.testing.simulation.core import Core
from uno_actors.testing.simulation.faults import Fault
from uno_actors.testing.simulation.loop import NodeCrashed
from uno_actors.testing.simulation.network import SimulatedNetwork
from uno_actors.testing.simulation.nodes import InvariantBroken, MakeSystem, Nodes
from uno_actors.testing.simulation.striking import Strikes
from uno_actors.testing.simulation.witness import Witness

R = TypeVar("R")

SETTLE_SECONDS = 120.0
"""Seconds within which everything must be handled, once nothing goes wrong any more."""
AGAIN_SECONDS = 0.2
"""Maximum seconds after which `World.ask` sends a command again."""

Invariant = Callable[["World"], "Awaitable[object] | bool | None"]
"""Raises if the world is not as it must be; to return ``False`` says the same without a reason."""


class World:
    """What a scenario works with.

    Attributes:
        chance: For the scenario's own choices.
        seed: Of the run.
        witness: What commands and handlers have done, in order.
        nodes: The processes of the run, and the disks.
        strikes: The faults of the run.
        network: Links the nodes.
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
        self.nodes = Nodes(core, self.network, self.witness, registry)
        self.strikes = Strikes(core, self.nodes, self.network, faults, length)
        self.loop = self.nodes.here
        self.commands_given = 0
        self._limit = commands

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
            The running system, for use until the node is killed. Its coroutine functions run in the node, wherever
            they are called.

        Raises:
            ValueError: A node of this name runs, or it is not a name.
            NodeCrashed: It was killed before its system ran.
            NotSimulated: What ``make_system`` has returned is not a system on ``node.store``.
        """
        strikes = self.strikes
        try:
            strikes.started(name)
            return await self.nodes.start(name, make_system, store)
        except NodeCrashed:
            if not strikes.is_away(name):  # not killed by a fault, after which it comes back
                raise
        except WorldError as error:
            if not strikes.happened:
                raise
            strikes.failed_to_start(name, error)
        while strikes.is_away(name):  # noqa: ASYNC110 - no single event to await
            await asyncio.sleep(0.01)
        return self.system(name)

    def restore(self, records: Iterable[StoredRecord], store: str = "disk") -> None:
        """Have a disk hold what another store holds, before the first node is started on it.

        Args:
            records: As ``await store.read_log()`` of that store returns them, from its first event on.
            store: Name of the disk.

        Raises:
            ConcurrencyConflict: A stream does not begin with its first event, or one is missing.
        """
        self.nodes.shelf(store).restore(stored.record for stored in records)

    def log(self, store: str = "disk") -> list[DomainEvent]:
        """The events that are recorded on a disk, in the order of the log. This takes no time in the run.

        Raises:
            ValueError: No node was started on this disk.
            UnknownEventType, EventNotReadable: The event registry of the simulation cannot read an event.
        """
        shelf = self.nodes.used_shelf(store)
        registry = self.nodes.event_registry
        return [
            to_event(record, registry, position) for position, record in enumerate(shelf.records, start=1)
        ]

    def system(self, name: str) -> ActorSystem:
        """The system that node ``name`` runs now.

        Raises:
            NodeCrashed: It is down.
        """
        return self.nodes.system(name)

    def running(self) -> list[str]:
        """Names of the nodes whose systems run, sorted."""
        return self.nodes.running()

    def crash(self, name: str) -> None:
        """Kill a node at once, as by SIGKILL. What it has written to its disk stays. Start it again with `node`.

        A node that is down already stays down.

        Raises:
            ValueError: No node of this name was ever started.
        """
        self.nodes.check_known(name)
        self.nodes.kill(name, "is killed")

    def power_failure(self, store: str = "disk") -> list[str]:
        """Kill all nodes on a disk, and lose what was not synced to it; returns their names.

        Raises:
            ValueError: No node was started on this disk.
        """
        self.nodes.used_shelf(store)
        return self.strikes.power_failure(store)

    async def stop(self, name: str) -> None:
        """Stop the system of a node in order, and end its process.

        Raises:
            ValueError: No node of this name was ever started.
            NodeCrashed: It is down.
        """
        self.nodes.check_known(name)
        await self.nodes.stop(name)

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
        """Check ``invariant(world)`` now; it raises if it is broken, or returns ``False``.

        Raises:
            InvariantBroken: As the invariant raises it.
        """
        found: object = invariant(self)
        if inspect.isawaitable(found):
            found = await found
        if found is False:  # as a predicate says it
            raise InvariantBroken(getattr(invariant, "__name__", repr(invariant)), "it has returned False")

    async def settled(self) -> None:
        """End all that is wrong, start the nodes that faults have killed, and wait until everything is handled.

        Raises:
            InvariantBroken: Not everything was handled in time.
        """
        await self.strikes.end()
        for name in self.running():
            try:
                async with asyncio.timeout(SETTLE_SECONDS + 10):
                    await self.system(name).settled(SETTLE_SECONDS)
            except TimeoutError as error:
                raise InvariantBroken("nothing hangs", f"node {name}: {error}") from error

    # --- what goes wrong ---

    def cut(self, one: str, other: str) -> None:
        """Lose all that two nodes send each other, until `heal`.

        Raises:
            ValueError: No node of one of these names was ever started.
        """
        self.nodes.check_known(one, other)
        self.strikes.cut(one, other)

    def heal(self) -> None:
        """Join all nodes again."""
        self.network.heal()

    def jump(self, seconds: float) -> None:
        """Let the clocks of all nodes jump ahead, as if all machines had been suspended meanwhile.

        What is due then happens at once. An idle system has little to do, but something many times a second: a jump
        spares the steps of days.

        Raises:
            ValueError: ``seconds`` is not a number above 0.
        """
        found: object = seconds
        if not isinstance(found, int | float) or not 0 < found < math.inf:
            raise ValueError(f"time jumps ahead by a number of seconds above 0; found {seconds!r}")
        self.core.tell("world", "time", f"jumps ahead by {seconds:,.0f} s")
        self.core.now += seconds
        self.core.longest += seconds

    # --- the end ---

    async def finish(self, invariants: Sequence[Invariant]) -> None:
        """After the scenario: settle, check, stop all nodes, and look for what is left."""
        await self.settled()
        for invariant in invariants:
            await self.check(invariant)
        for name in self.running():
            await self.stop(name)
        for loop in self.nodes.loops:
            loop.open_tasks()  # notes the errors of those that have ended
            for context in loop.errors:
                raise InvariantBroken(
                    "no error is lost", f"{loop.name}: {context.get('message')}: {context.get('exception')!r}"
                )

    def end(self) -> None:
        """Free all that is left."""
        self.core.close()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # coroutines of killed processes are never awaited
                for loop in self.nodes.loops:
                    loop.end()
                self.nodes.by_name.clear()
                gc.collect()  # here, where what is left of them can do no harm
        finally:
            sys.unraisablehook = hook
            self.core.outside.enter()
