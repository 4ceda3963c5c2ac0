"""How the faults of a plan strike: what happens to nodes, disks, clocks and links, and how that ends."""

import asyncio
from collections.abc import Callable, Sequence

from uno_actors.errors import WorldError
from uno_actors.tasks import begin
from uno_actors.testing.simulation.core import Call, Core
from uno_actors.testing.simulation.faults import Fault
from uno_actors.testing.simulation.loop import NodeCrashed
from uno_actors.testing.simulation.network import SimulatedNetwork
from uno_actors.testing.simulation.nodes import Node, Nodes

LONGEST_DOWN = 2.0
"""Maximum seconds until a node that a fault has killed comes back."""
LONGEST_FAULT = 3.0
"""Maximum seconds for which a disk is full, a node frozen or a link bad."""
MOST_LOST = 0.5
"""Maximum share of messages that lossy links lose."""
LONGEST_DELAY = 1.0
"""Maximum seconds that a message travels over slow links."""
START_AGAIN = 0.2
"""Seconds until a node that could not start tries again, as a service manager does."""


class Strikes:
    """The faults of a run.

    Args:
        core: Of the run.
        nodes: That they hit.
        network: That they hit.
        faults: What happens.
        length: The steps of the run without faults: the measure of their moments.

    Attributes:
        happened: Those that have struck, in order.
        failure: Why a node that was killed cannot come back; the run ends with it.
        ended_at: The step at which the scenario has ended the faults; ``None`` if it has not.
    """

    def __init__(
        self, core: Core, nodes: Nodes, network: SimulatedNetwork, faults: Sequence[Fault], length: int
    ) -> None:
        self.happened: list[Fault] = []
        self.failure: Exception | None = None
        self.ended_at: int | None = None
        self._core = core
        self._nodes = nodes
        self._network = network
        self._faults = sorted(faults, key=lambda fault: -fault.moment)
        self._length = length
        self._down: dict[str, None] = {}  # killed by a fault, and not back yet
        self._starting: dict[str, None] = {}
        self._background: list[asyncio.Task[None]] = []
        core.before_step = self._before_step if self._faults else None

    def _before_step(self) -> None:
        core = self._core
        while self._faults and core.steps >= self._faults[-1].moment * self._length:
            fault = self._faults.pop()
            self.happened.append(fault)
            core.place = core.outside
            up = self._nodes.up()
            if up:
                self._strike(fault, self._nodes.by_name[up[int(fault.target * len(up))]])
        if not self._faults:
            core.before_step = None

    # --- what strikes ---

    def _strike(self, fault: Fault, node: Node) -> None:
        seconds = fault.size**2 * LONGEST_FAULT
        until = self._core.now + seconds
        match fault.kind:
            case "crash":
                self._nodes.kill(node.name, "is killed")
                self.later(node.name, fault.size * LONGEST_DOWN)
            case "power failure":
                for each in self.power_failure(node._shelf.name):
                    self.later(each, fault.size * LONGEST_DOWN)
            case "disk full" | "slow disk" | "failed sync":
                self._strike_disk(fault.kind, node, seconds)
            case "freeze":
                self._core.tell(node.name, "fault", f"stands still for {seconds:.2f} s")
                node._loop.frozen_until = until
            case "clock":
                self._strike_clock(fault, node)
            case "cut":
                self._cut(node, seconds)
            case "lossy links":
                share = fault.size * MOST_LOST
                self._core.tell("network", "fault", f"loses {share:.0%} of the messages for {seconds:.2f} s")
                self._network.lose(share, until)
            case "slow links":
                longest = fault.size * LONGEST_DELAY
                self._core.tell(
                    "network", "fault", f"messages travel up to {longest:.2f} s for {seconds:.2f} s"
                )
                self._network.slow(longest, until)

    def _strike_disk(self, kind: str, node: Node, seconds: float) -> None:
        disk, until = node._shelf.disk, self._core.now + seconds
        match kind:
            case "disk full":
                self._core.tell(disk.name, "fault", f"has no room for {seconds:.2f} s")
                disk.full_until = until
            case "slow disk":
                self._core.tell(disk.name, "fault", f"is 100 times slower for {seconds:.2f} s")
                disk.slow, disk.slow_until = 100.0, until
            case "failed sync":
                self._core.tell(disk.name, "fault", "will fail to sync")
                disk.failing += 1

    def _strike_clock(self, fault: Fault, node: Node) -> None:
        loop = node._loop
        loop.offset += (fault.size - 0.5) * 600
        loop.drift(1 + (fault.size - 0.5) * 0.02)
        self._core.tell(
            node.name,
            "fault",
            f"its clock is {loop.offset:+.0f} s off and runs {loop.rate:.4f} times as fast",
        )

    def _cut(self, node: Node, seconds: float) -> None:
        up = self._nodes.up()
        if len(up) > 1:
            other = up[(up.index(node.name) + 1) % len(up)]
            heal = self.cut(node.name, other)
            self._core.at(self._core.now + seconds, self._nodes.here, Call(heal), "heal")

    def cut(self, one: str, other: str) -> Callable[[], None]:
        """Lose all that two nodes send each other, until what is returned is called, or all are joined."""
        self._core.tell("network", "fault", f"{one} and {other} are cut off from each other")
        by_name = self._nodes.by_name
        return self._network.cut_nodes(by_name[one]._loop, by_name[other]._loop)

    def power_failure(self, store: str) -> list[str]:
        """Kill all nodes on a disk, and lose what was not synced to it; return their names."""
        shelf = self._nodes.shelves[store]
        names = [name for name in self._nodes.up() if self._nodes.by_name[name]._shelf is shelf]
        for name in names:
            self._nodes.kill(name, "loses its power")
        lost = shelf.power_failure()
        self._core.tell(store, "fault", f"power failure: {lost} bytes were not synced and are lost")
        return names

    # --- what comes back ---

    def is_away(self, name: str) -> bool:
        """Whether a fault has killed a node that comes back."""
        return name in self._down or name in self._starting

    def started(self, name: str) -> None:
        """The scenario starts a node itself."""
        self._down.pop(name, None)

    def later(self, name: str, seconds: float) -> None:
        """Start a node again that a fault has killed."""
        self._down[name] = None

        def start() -> None:
            if name in self._down:
                self._background.append(begin(self._nodes.here, self._start_again(name)))

        self._core.at(self._core.now + seconds, self._nodes.here, Call(start), "comes back")

    async def _start_again(self, name: str) -> None:
        if name not in self._down or name in self._starting:
            return
        del self._down[name]
        self._starting[name] = None
        try:
            await self._nodes.start(name, None)
        except (NodeCrashed, ValueError):
            pass  # killed again, or started by the scenario
        except WorldError as error:
            self.failed_to_start(name, error)
        except Exception as error:  # noqa: BLE001 - the run ends with it
            self.failure = error
        finally:
            self._starting.pop(name, None)

    def failed_to_start(self, name: str, error: WorldError) -> None:
        """A disk was full, say: try again soon."""
        self._core.tell(name, "node", f"cannot start: {error}")
        self._nodes.kill(name, "ends")
        self.later(name, START_AGAIN)

    async def end(self) -> None:
        """Nothing goes wrong from now on, and all nodes that faults have killed come back."""
        self._faults.clear()
        if self.ended_at is None:
            self.ended_at = self._core.steps
        self._network.calm()
        for shelf in self._nodes.shelves.values():
            shelf.disk.full_until = shelf.disk.slow_until = 0.0
            shelf.disk.failing = 0
        for node in self._nodes.by_name.values():
            node._loop.frozen_until = 0.0
        while self._down or self._starting:
            for name in tuple(self._down):
                await self._start_again(name)
            await asyncio.sleep(0.01)
