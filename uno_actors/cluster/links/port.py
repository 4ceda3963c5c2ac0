"""The port to links, on one page: what a link between nodes implements.

A link carries requests, which are bytes, to the node at an address, and one answer, bytes too, back. Requests to one
node that are sent together travel together, and many may be under way at once; they are neither ordered nor repeated.
Every request ends: with its answer, or with a `LinkFailure` that tells whether the other node may have had it.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


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
    """

    delivery: Delivery
    reason: str
    full: bool = False


Answer: TypeAlias = Callable[[bytes], None]
"""Called once, on the event loop, with the answer to a request."""
Serve: TypeAlias = Callable[[bytes, Answer], None]
"""Called on the event loop with each request that arrives. It must not raise."""
Done: TypeAlias = Callable[[bytes | LinkFailure], None]
"""Called once, on the event loop, with the answer or with why there is none."""


class Link(ABC):
    """Sends requests to other nodes and serves theirs. It belongs to one event loop."""

    @abstractmethod
    async def start(self, node: str, serve: Serve) -> str:
        """Accept requests for the node of this id, and return the address under which others reach it.

        Raises:
            LinkUnavailable: The address is taken or not allowed.
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
        """End the connection to a node that has left. Its open requests end with `Delivery.UNKNOWN`."""

    @abstractmethod
    async def close(self) -> None:
        """Stop serving and end all connections; open requests end with `Delivery.UNKNOWN`. Idempotent."""


LARGEST = 64 * 1024 * 1024
"""Bytes of the largest request or answer."""
