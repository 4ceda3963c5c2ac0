"""Messages that no actor will handle."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from uno_actors.logs import get_logger

KEPT = 1000
"""Dead messages that are kept for inspection; older ones are forgotten."""

LOGGED_PER_SECOND = 10
"""Dead messages logged in one second; the others are counted."""


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

    Attributes:
        count: How many messages were dropped.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept: deque[DeadMessage] = deque(maxlen=KEPT)
        self._second = 0
        self._logged = 0
        self._silent = 0
        self._lock = threading.RLock()  # a signal handler may tell on the thread that it interrupts here
        self._log = get_logger()

    def add(self, actor: str, message: object, reason: str) -> None:
        """Keep a message that will not be handled, and the reason."""
        self._kept.append(DeadMessage(actor, message, reason, datetime.now(UTC)))
        with self._lock:
            self.count += 1
            if (second := int(monotonic())) != self._second:
                self._second, self._logged = second, 0
            self._logged += 1
            if self._logged > LOGGED_PER_SECOND:
                self._silent += 1
                return
            silent, self._silent = self._silent, 0
        more = {"others_not_logged": silent} if silent else {}
        self._log.warning(
            "message dropped", actor=actor, message=type(message).__name__, reason=reason, **more
        )

    def __iter__(self) -> Iterator[DeadMessage]:
        return iter(tuple(self._kept))


dead_messages = DeadMessages()
"""Dead messages of actors outside any system."""
