"""The links between the nodes of a simulated run."""

from collections.abc import Callable
from functools import partial

from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.cluster.links.memory import MemoryLink, MemoryNetwork
from uno_actors.cluster.links.port import Serve
from uno_actors.testing.simulation.core import Call, Core
from uno_actors.testing.simulation.loop import SimulatedLoop


class SimulatedNetwork(MemoryNetwork):
    """A `MemoryNetwork` between processes of a run: what arrives, arrives in the process that it was sent to."""

    def __init__(self, core: Core) -> None:
        super().__init__(drop=0.0, delay=0.005, notice=1.0)
        self._core = core
        self._random = core.source("network")

    @override
    def link(self, clock: Clock | None = None) -> MemoryLink:
        super().link(clock)
        place = self._core.place
        assert isinstance(place, SimulatedLoop)
        return SimulatedLink(self, place)

    def link_of(self, loop: SimulatedLoop) -> "SimulatedLink | None":
        """The link of a process."""
        for link in self._links.values():
            if isinstance(link, SimulatedLink) and link.loop is loop:
                return link
        return None

    def killed(self, loop: SimulatedLoop) -> None:
        """A process was killed."""
        if (link := self.link_of(loop)) is not None:
            self.kill(link.node)

    def cut_nodes(self, one: SimulatedLoop, other: SimulatedLoop) -> None:
        """Lose all that two processes send each other."""
        links = self.link_of(one), self.link_of(other)
        if links[0] is not None and links[1] is not None:
            self.cut(links[0].node, links[1].node)

    @override
    def _send(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        link = self._links.get(target)
        if self._random.random() < self.drop or not isinstance(link, SimulatedLink):
            return
        when = self._core.now + self._random.random() * self.delay
        self._core.at(when, link.loop, Call(self._arrive, source, target, arrive), "message")


class SimulatedLink(MemoryLink):
    """A link of a `SimulatedNetwork`.

    Attributes:
        loop: Of its process.
        node: Its id in the network.
    """

    def __init__(self, network: SimulatedNetwork, loop: SimulatedLoop) -> None:
        super().__init__(network)
        self.loop = loop
        self.node = ""

    @override
    async def start(self, node: str, serve: Serve) -> str:
        self.node = node
        return await super().start(node, serve)

    @override
    def _break_later(self, target: str, seconds: float, reason: str) -> None:
        opened = self._open.get(target)
        if opened is not None:
            core = self.loop.core
            fail = partial(opened.fail_some, opened.numbers(), reason)
            core.at(core.now + seconds, self.loop, Call(fail), "broken")
