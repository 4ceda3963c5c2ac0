"""The links between the nodes of a simulated run."""

import math
from collections.abc import Callable
from functools import partial

from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.cluster.links.memory import MemoryLink, MemoryNetwork
from uno_actors.cluster.links.port import Serve
from uno_actors.testing.simulation.core import Call, Core
from uno_actors.testing.simulation.loop import SimulatedLoop


class SimulatedNetwork(MemoryNetwork):
    """A `MemoryNetwork` between processes of a run: what arrives, arrives in the process that it was sent to.

    Attributes:
        most_nodes: Maximum number of nodes that it had at once.
    """

    def __init__(self, core: Core) -> None:
        super().__init__(drop=0.0, delay=0.005, notice=1.0)
        self.most_nodes = 0
        self._core = core
        self._random = core.source("network")
        self._lossy = (0.0, 0.0)  # share of messages, and until when
        self._slow = (0.0, 0.0)  # seconds, and until when

    def lose(self, share: float, until: float) -> None:
        """Lose a share of all messages until some time of the run."""
        self._lossy = share, until

    def slow(self, seconds: float, until: float) -> None:
        """Have messages travel up to so many seconds until some time of the run."""
        self._slow = seconds, until

    @property
    def loses(self) -> bool:
        """Whether messages are lost now."""
        return self._core.now < self._lossy[1]

    def calm(self) -> None:
        """Join all nodes, and neither lose nor delay messages any more."""
        self.heal()
        self._lossy = self._slow = (0.0, 0.0)

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

    def cut_nodes(self, one: SimulatedLoop, other: SimulatedLoop) -> Callable[[], None]:
        """Lose all that two processes send each other; what is returned joins these two again."""
        links = self.link_of(one), self.link_of(other)
        if links[0] is None or links[1] is None:
            return lambda: None
        pair = links[0].node, links[1].node
        self.cut(*pair)
        return partial(self.heal, *pair)

    @override
    def _send(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        link, core = self._links.get(target), self._core
        drop = self._lossy[0] if self.loses else self.drop
        delay = self._slow[0] if core.now < self._slow[1] else self.delay
        if self._random.random() < drop or not isinstance(link, SimulatedLink):
            return
        when = core.now + self._random.random() * delay
        core.at(when, link.loop, Call(self._arrive, source, target, arrive), "message")


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

    @property
    @override
    def resend_after(self) -> float:
        network = self._network
        assert isinstance(network, SimulatedNetwork)
        return network.notice if network.loses or network.drop else math.inf

    @override
    async def start(self, node: str, serve: Serve) -> str:
        self.node = node
        address = await super().start(node, serve)
        network = self._network
        assert isinstance(network, SimulatedNetwork)
        network.most_nodes = max(network.most_nodes, len(network.nodes()))
        return address

    @override
    def _break_later(self, target: str, seconds: float, reason: str) -> None:
        opened = self._open.get(target)
        if opened is not None:
            core = self.loop.core
            fail = partial(opened.fail_some, opened.numbers(), reason)
            core.at(core.now + seconds, self.loop, Call(fail), "broken")
