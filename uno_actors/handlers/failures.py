"""Failures of a handler: failed attempts by event, and the failure that its supervisor receives."""

from collections import deque
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from uno_actors.actors.signals import Failure
from uno_actors.errors import describe
from uno_actors.printable import traceback_text
from uno_actors.store.records import DeadLetter


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """An event whose handling has failed.

    Attributes:
        position: The event's position in the log.
        attempts: Number of failed attempts.
        first_failed: Time of the first failed attempt; aware, in UTC.
        context: Of the message that caused the event, for the next attempt; ``None`` if it has none.
    """

    position: int
    attempts: int
    first_failed: datetime
    context: Context | None = None


@dataclass(frozen=True, slots=True)
class HandlerFailure(Failure):
    """A failure of a handler's actor. Without ``event`` and ``in_batch``, no event caused it.

    Attributes:
        event: The event that caused the failure.
        in_batch: Whether an unknown event of a batch caused the failure.
    """

    event: FailedEvent | None = None
    in_batch: bool = False

    @property
    def blames_nothing(self) -> bool:
        """Whether no event caused it, but the store or something else that the handler needs."""
        return self.event is None and not self.in_batch

    def poison(self, max_attempts: int) -> bool:
        """Whether the event has used up its attempts and becomes a dead letter."""
        return self.event is not None and self.event.attempts >= max_attempts

    def streak(self, max_attempts: int) -> int | None:
        """Return how often the same event has failed before; ``None`` if no event caused the failure.

        The result is 0 for a poison event, which is set aside, and for a batch, whose events come alone next.
        """
        if self.event is None:
            return 0 if self.in_batch else None
        return 0 if self.poison(max_attempts) else self.event.attempts - 1


class Failures:
    """The failed attempts of one handler. They survive restarts of the handler's actor.

    Attributes:
        total: Attempts that failed since the system started.
        alone_until: Up to this position, events come one at a time, because a batch with them has failed.
        postponed: Last attempts that failed while another event failed at the same time. Each is reported to
            the supervisor after the restart, so that the event is set aside.
    """

    def __init__(self) -> None:
        self.total = 0
        self.alone_until = 0
        self.postponed: deque[tuple[FailedEvent, BaseException]] = deque()
        self._failed: dict[int, FailedEvent] = {}

    @property
    def any_counted(self) -> bool:
        """Whether attempts are counted for an event that is not done."""
        return bool(self._failed or self.postponed)

    def attempt(self, position: int) -> int:
        """Return the number of the next attempt at the event at ``position``, counted from 1."""
        return self._failed[position].attempts + 1 if position in self._failed else 1

    def context(self, position: int) -> Context | None:
        """Return the context for the next attempt at the event at ``position``, if an attempt with one has failed."""
        failed = self._failed.get(position)
        return None if failed is None else failed.context

    def count(self, position: int, context: Context | None = None) -> FailedEvent:
        """Count a failed attempt at the event at ``position``, which had this ``context``."""
        self.total += 1
        before = self._failed.get(position)
        attempts, first = (0, datetime.now(UTC)) if before is None else (before.attempts, before.first_failed)
        failed = self._failed[position] = FailedEvent(position, attempts + 1, first, context)
        self.alone_until = max(self.alone_until, position)
        return failed

    def count_batch(self, last: int) -> None:
        """Count a failed batch that ends at position ``last``: its events come one at a time next."""
        self.total += 1
        self.alone_until = last

    def resume_from(self, letter: DeadLetter) -> None:
        """Continue counting from the attempts of a dead letter."""
        self._failed[letter.position] = FailedEvent(letter.position, letter.attempts, letter.first_failed)

    def forget(self, position: int) -> None:
        """Note that the event at ``position`` was handled or set aside."""
        if self._failed:
            self._failed.pop(position, None)

    def clear(self) -> None:
        """Forget all events, because the handler is reset."""
        self.alone_until = 0
        self.postponed.clear()
        self._failed.clear()


class ErrorText(NamedTuple):
    """An error in the form that dead letters store.

    Attributes:
        error: Class name and text.
        traceback: Class name, text and traceback.
        at: Time at which this was made; aware, in UTC.
    """

    error: str
    traceback: str
    at: datetime


def error_text(error: BaseException) -> ErrorText:
    """Return ``error`` in the form that dead letters store."""
    return ErrorText(describe(error), traceback_text(error), datetime.now(UTC))
