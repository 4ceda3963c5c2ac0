"""Messages that no actor will handle."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from uno_actors.logs import Logger, LogLimit, get_logger

KEPT = 1000
"""Dead messages that are kept for inspection; older ones are forgotten."""

LOGGED_PER_SECOND = 10
"""Dead messages logged in one second; the others are counted."""


def correlation_of(message: object) -> dict[str, object]:
    """The correlation id of a message, for a log; of one that has none, that of the message being handled."""
    found = getattr(message, "__dict__", {}).get("correlation_id")
    return {"correlation_id": found} if isinstance(found, str) else {}


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that was told and will not be handled.

    Attributes:
        actor: Its receiver.
        message: The message.
        reason: Why it will not be handled.
        at: When it was dropped.
    """

    actor: str
    message: Any
    reason: str
    at: datetime


class DeadMessages:
    """Keeps the last `KEPT` dead messages and logs at most `LOGGED_PER_SECOND`; usable from any thread.

    Args:
        log: Has the names of the system bound.

    Attributes:
        count: How many messages were dropped.
    """

    def __init__(self, log: Logger | None = None) -> None:
        self.count = 0
        self._kept: deque[DeadMessage] = deque(maxlen=KEPT)
        self._counting = threading.RLock()  # a signal handler may tell on the thread that it interrupts here
        self._limit = LogLimit(LOGGED_PER_SECOND)
        self._log = log or get_logger()

    def add(self, actor: str, message: object, reason: str) -> None:
        """Keep a message that will not be handled, and the reason."""
        self._kept.append(DeadMessage(actor, message, reason, datetime.now(UTC)))
        with self._counting:
            self.count += 1
        if (more := self._limit.take()) is None:
            return
        self._log.warning(
            "message dropped",
            actor=actor,
            message=type(message).__name__,
            reason=reason,
            **correlation_of(message),
            **more,
        )

    def __iter__(self) -> Iterator[DeadMessage]:
        return iter(tuple(self._kept))


dead_messages = DeadMessages()
"""Dead messages of actors outside any system."""
