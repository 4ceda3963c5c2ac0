"""The contexts of messages whose events were recorded just now: their handlers are called in copies of them.

They are kept in memory alone, and only until the router has read the event. What is read from the log later, by a
handler that catches up, by another process or after a restart, has no context.
"""

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Context
from typing import Protocol

KEPT = 8192
"""Maximum number of contexts that are kept; twice as many as events that a router has under way."""


class HasEventId(Protocol):
    """An event, or the record of one."""

    @property
    def event_id(self) -> str:
        """Its id."""


class EventContexts:
    """Contexts by the ids of events. Any thread may keep one; the router takes them.

    Attributes:
        is_wanted: Whether there is a router that takes them.
    """

    def __init__(self) -> None:
        self.is_wanted = False
        self._contexts: OrderedDict[str, Context] = OrderedDict()

    def keep(self, event_id: str, context: Context) -> None:
        """Keep the context of an event that is about to be recorded."""
        if self.is_wanted:
            contexts = self._contexts
            contexts[event_id] = context
            if len(contexts) > KEPT:  # the oldest, say of an event whose append has failed
                with suppress(KeyError):
                    contexts.popitem(last=False)

    def keep_all(self, events: Iterable[HasEventId], context: Context) -> None:
        """As `keep`, for several events."""
        for event in events:
            self.keep(event.event_id, context)

    def take(self, event_id: str) -> Context | None:
        """The context of a recorded event, if it is kept; from now on it is not."""
        return self._contexts.pop(event_id, None)

    def __len__(self) -> int:
        return len(self._contexts)
