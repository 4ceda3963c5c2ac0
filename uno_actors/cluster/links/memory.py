"""The reference of links: nodes of one process on a network that loses, delays and cuts as a test wants it.

What it does by chance follows from its seed, and all its times are those of the clock, so a run with a manual clock
repeats exactly.
"""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from uno_actors.clock import Clock, SystemClock
from uno_actors.cluster.links.open_requests import OpenRequests, call_done
from uno_actors.cluster.links.port import LARGEST, Delivery, Done, Link, LinkFailure, Serve
from uno_actors.errors import LinkUnavailable, describe

SCHEME = "memory:"


class MemoryNetwork:
    """A network for nodes of one process: ``Cluster(listen=network)``.

    Args:
        seed: Of all that happens by chance.
        drop: Share of messages that are lost without a word, from 0 to 1.
        delay: Maximum seconds for which a message travels, so that messages overtake each other.
        notice: Seconds until a node notices that it is cut off from another one, or that the other one hangs.
        clock: Measures the times.

    Attributes:
        drop: As given; may be changed at any time, and `delay` too.
        delay: See there.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        drop: float = 0.0,
        delay: float = 0.0,
        notice: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.drop = drop
        self.delay = delay
        self.notice = notice
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - repeatable
        self._links: dict[str, MemoryLink] = {}
        self._cuts: dict[frozenset[str], float] = {}
        self._hung: dict[str, _Hung] = {}

    @property
    def clock(self) -> Clock:
        """Measures the times."""
        if self._clock is None:
            self._clock = SystemClock()
        return self._clock

    def link(self, clock: Clock | None = None) -> "MemoryLink":
        """A link for one more node; the first one's clock is the network's, if it was given none."""
        if self._clock is None:
            self._clock = clock
        return MemoryLink(self)

    def nodes(self) -> list[str]:
        """Ids of the nodes that run, sorted."""
        return sorted(self._links)

    def cut(self, one: str, other: str) -> None:
        """Lose all that two nodes send each other, until `heal`; what was under way between them ends unknown."""
        if _pair(one, other) not in self._cuts:
            self._cuts[_pair(one, other)] = self.clock.monotonic()
            for node, peer in ((one, other), (other, one)):
                if (link := self._links.get(node)) is not None:
                    link._break_later(peer, self.notice, "nothing was heard")

    def isolate(self, node: str) -> None:
        """Cut a node off from all that run now."""
        for other in self._links:
            if other != node:
                self.cut(node, other)

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """Join two nodes again; with one, all that it was cut off from; with none, all."""
        for pair in [pair for pair in self._cuts if {one, other} - {None} <= pair]:
            del self._cuts[pair]

    def hang(self, node: str) -> None:
        """Have what is sent to a node or by it wait until `wake`, as when its process is stopped by a signal."""
        if node not in self._hung:
            self._hung[node] = _Hung(self.clock.monotonic(), [])
            for name, link in self._links.items():
                if name != node:
                    link._break_later(node, self.notice, "nothing was heard")

    def wake(self, node: str) -> None:
        """End `hang`: what has waited arrives now."""
        if (hung := self._hung.pop(node, None)) is not None:
            for arrive in hung.waiting:
                arrive()

    def kill(self, node: str) -> None:
        """End a node's connections as if its process were killed: what it answers now reaches no other node."""
        if (link := self._links.get(node)) is not None:
            link._end("this node was killed", "the connection was reset", 0.0)

    def _send(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        """Have ``arrive`` called when a message has travelled from one node to another, if it is not lost."""
        if self._random.random() < self.drop:
            return
        self._later(self._random.random() * self.delay, lambda: self._arrive(source, target, arrive))

    def _arrive(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        if _pair(source, target) in self._cuts:
            return
        for node in (source, target):
            if (hung := self._hung.get(node)) is not None:
                hung.waiting.append(lambda: self._arrive(source, target, arrive))
                return
        arrive()

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        if seconds > 0:
            self.clock.call_later(seconds, call)
        else:
            asyncio.get_running_loop().call_soon(call)

    def _silent_since(self, source: str, target: str) -> float | None:
        """Since when a node does not answer another one; ``None`` if it does."""
        since = self._cuts.get(_pair(source, target))
        hung = self._hung.get(target)
        return since if hung is None or (since is not None and since < hung.since) else hung.since


@dataclass(slots=True)
class _Hung:
    since: float
    waiting: list[Callable[[], None]]


def _pair(one: str, other: str) -> frozenset[str]:
    return frozenset((one, other))


class MemoryLink(Link):
    """A link of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._node = ""
        self._serve: Serve | None = None
        self._open: dict[str, OpenRequests] = {}
        self._why_closed = "the link of this node was not started"

    @property
    @override
    def resend_after(self) -> float:
        """See `Link.resend_after`."""
        return self._network.notice if self._network.drop else math.inf

    async def start(self, node: str, serve: Serve) -> str:
        """See `Link.start`."""
        if node in self._network._links:
            raise LinkUnavailable(f"{SCHEME}{node}", "another node of the network has this id")
        self._node, self._serve, self._why_closed = node, serve, ""
        self._network._links[node] = self
        return f"{SCHEME}{node}"

    def request(self, address: str, body: bytes, seconds: float, done: Done) -> None:
        """See `Link.request`."""
        network, target = self._network, address.removeprefix(SCHEME)
        if self._why_closed:
            self._refuse(done, self._why_closed)
            return
        opened = self._open.get(target)
        if opened is None:
            opened = self._open[target] = OpenRequests(network.clock, f"node {target}")
        if (failure := opened.refusal(len(body))) is not None:
            network._later(0, lambda: call_done(done, failure))
            return
        if target not in network._links:
            self._refuse(done, "connection refused")
            return
        number = opened.add(len(body), seconds, done)
        since = network._silent_since(self._node, target)
        if (
            since is not None and network.clock.monotonic() - since >= network.notice
        ):  # no new connection is made
            network._later(network.notice, lambda: opened.fail(number, f"{address} does not answer"))
            return
        if since is not None:
            rest = since + network.notice - network.clock.monotonic()
            network._later(rest, lambda: opened.fail(number, "nothing was heard"))
        opened.sent(number)
        network._send(self._node, target, lambda: self._arrived(opened, target, number, body))

    def _arrived(self, opened: OpenRequests, target: str, number: int, body: bytes) -> None:
        link = self._network._links.get(target)
        if link is None or link._serve is None:
            return
        waits = True

        def answer(reply: bytes) -> None:
            nonlocal waits
            if waits and not link._why_closed:
                waits = False
                if len(reply) > LARGEST:
                    reason = f"the answer has {len(reply):,} bytes; at most {LARGEST:,} are allowed"
                    self._network._send(target, self._node, lambda: opened.fail(number, reason))
                else:
                    self._network._send(target, self._node, lambda: opened.end(number, reply))

        try:
            link._serve(body, answer)
        except Exception as error:
            self.log.exception("a request of another node could not be served")
            reason = describe(error)
            self._network._send(target, self._node, lambda: opened.fail(number, reason))

    def forget(self, address: str) -> None:
        """See `Link.forget`."""
        opened = self._open.pop(address.removeprefix(SCHEME), None)
        if opened is not None:
            self._network._later(0, lambda: opened.close(f"{address} has left"))

    async def close(self) -> None:
        """See `Link.close`."""
        reason = "the link of this node was closed"
        self._end(reason, "the connection was closed", self._network.delay)

    def _refuse(self, done: Done, reason: str) -> None:
        self._network._later(0, lambda: call_done(done, LinkFailure(Delivery.NEVER, reason)))

    def _break_later(self, target: str, seconds: float, reason: str) -> None:
        """End the requests to a node that were sent until now, after some seconds."""
        opened = self._open.get(target)
        if opened is not None:
            numbers = opened.numbers()
            self._network._later(seconds, partial(opened.fail_some, numbers, reason))

    def _end(self, own: str, others: str, seconds: float) -> None:
        """Leave the network: requests of this node end now, those to it in some seconds."""
        if self._why_closed:
            self._why_closed = own
            return
        self._why_closed = own
        del self._network._links[self._node]
        for link in self._network._links.values():
            link._break_later(self._node, seconds, others)
        opened = list(self._open.values())
        self._open.clear()
        for requests in opened:
            requests.close(own)
