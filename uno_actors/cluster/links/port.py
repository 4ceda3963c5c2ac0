"""The port to links, on one page: what a link between nodes implements.

A link carries requests, which are bytes, to the node at an address, and one answer, bytes too, back. Requests to one
node that are sent together travel together, and many may be under way at once; they are neither ordered nor repeated.
Every request ends once: with its answer, or with a `LinkFailure` that says whether the other node may have had it.
A link that can lose a single message without noticing says so: see `Link.resend_after`.
Requests to one node that are under way at once are bounded in number and bytes; more end with ``full=True`` at once.

An address names the node, too: a request never reaches another node that has taken over the place of a dead one.
"""

import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from uno_actors.clock import Clock
from uno_actors.logs import Logger, get_logger


class Delivery(enum.Enum):
    """Whether a request without an answer can have reached the other node."""

    NEVER = "never"
    """It did not, and will not."""
    UNKNOWN = "unknown"
    """It may have, now or later."""


@dataclass(frozen=True, slots=True)
class LinkFailure:
    """Why a request has no answer.

    Attributes:
        delivery: Whether the other node may have had it.
        reason: In words, such as ``connection refused``.
        full: Whether too many requests to that node are under way; it is not gone then.
        late: Whether the only trouble is that no answer came in the time given; it may not be gone then.
    """

    delivery: Delivery
    reason: str
    full: bool = False
    late: bool = False


Answer: TypeAlias = Callable[[bytes], None]
"""Called once, on the event loop, with the answer to a request. It never raises, also when the asker has gone."""
Serve: TypeAlias = Callable[[bytes, Answer], None]
"""Called on the event loop with each request that arrives. It must not raise."""
Done: TypeAlias = Callable[[bytes | LinkFailure], None]
"""Called once, on the event loop, with the answer or with why there is none. It must not raise."""


class Link(ABC):
    """Sends requests to other nodes and serves theirs. It belongs to one event loop and one process.

    Attributes:
        log: Has the names of the system bound.
    """

    log: Logger = get_logger(actor="link")

    @property
    def resend_after(self) -> float:
        """Seconds without an answer after which a request may have been lost without notice.

        Infinite for a link that loses nothing unless a connection breaks, which ends all its requests.
        """
        return math.inf

    @abstractmethod
    async def start(self, node: str, serve: Serve) -> str:
        """Accept requests for the node of this id, and return the address under which others reach it.

        Args:
            node: Letters, digits, ``-`` and ``_``, at most 64; unique to this start of the node.
            serve: Called with each request.

        Raises:
            LinkUnavailable: The address is taken or not allowed, or a file of a certificate cannot be used.
        """

    @abstractmethod
    def request(self, address: str, body: bytes, seconds: float, done: Done) -> None:
        """Send a request to the node at ``address``; connect first if necessary. Return at once.

        Args:
            address: As the other node announced it.
            body: At most `LARGEST` bytes.
            seconds: Until ``done`` is called with a failure if there is no answer.
            done: Called later, never before this call returns.
        """

    @abstractmethod
    def forget(self, address: str) -> None:
        """End the connection to a node that has left.

        Its open requests end soon: with `Delivery.UNKNOWN`, or with `Delivery.NEVER` if they were not sent yet.
        A later request connects again.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stop serving and end all connections; idempotent. Answers that were given are still sent.

        Open requests end before this returns: with `Delivery.UNKNOWN`, or `Delivery.NEVER` if they were not sent yet.
        """


class Network(Protocol):
    """What makes links for nodes of one process: ``Cluster(listen=network)``, as in tests."""

    def link(self, clock: Clock) -> Link:
        """A link for one more node."""


LARGEST = 64 * 1024 * 1024
"""Bytes of the largest request or answer."""
WINDOW = 16_384
"""Maximum number of requests to one node that are under way."""
WINDOW_BYTES = LARGEST
"""Maximum sum of their bytes."""
