"""What a handler fails at: attempts by event, and the failure that its supervisor is given."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from uno_actors.actors.signals import Failure
from uno_actors.errors import describe
from uno_actors.printable import traceback_text
from uno_actors.store.records import DeadLetter


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """An event at which a handler has failed.

    Attributes:
        position: Its place in the log.
        attempts: How many attempts at it have failed.
        first_failed: When the first of them failed; aware, in UTC.
    """

    position: int
    attempts: int
    first_failed: datetime


@dataclass(frozen=True, slots=True)
class HandlerFailure(Failure):
    """A failure of a handler's actor. Without ``event`` and ``in_batch``, the store is to blame.

    Attributes:
        event: The event that is to blame.
        in_batch: Whether one event of a batch is to blame, not known which.
    """

    event: FailedEvent | None = None
    in_batch: bool = False

    def poison(self, max_attempts: int) -> bool:
        """Whether the event has had all its attempts and becomes a dead letter."""
        return self.event is not None and self.event.attempts >= max_attempts

    def streak(self, max_attempts: int) -> int | None:
        """How often the handler has failed at the same event before; ``None`` if no event is to blame.

        A poisonous event is set aside, and the events of a batch come alone after a failure: both start from 0.
        """
        if self.event is None:
            return 0 if self.in_batch else None
        return 0 if self.poison(max_attempts) else self.event.attempts - 1


class Failures:
    """The failed attempts of one handler. It outlives restarts of the handler's actor.

    Attributes:
        total: Attempts that failed since the system started.
        alone_until: Up to this position, events come one at a time, since a batch with them has failed.
        postponed: Last attempts that failed while another event failed beside them: each is reported to the
            supervisor after the restart, which sets the event aside.
    """

    def __init__(self) -> None:
        self.total = 0
        self.alone_until = 0
        self.postponed: deque[tuple[FailedEvent, BaseException]] = deque()
        self._failed: dict[int, FailedEvent] = {}

    def attempt(self, position: int) -> int:
        """The number of the next attempt at the event at ``position``, from 1."""
        return self._failed[position].attempts + 1 if position in self._failed else 1

    def count(self, position: int) -> FailedEvent:
        """Count a failed attempt at the event at ``position``."""
        self.total += 1
        before = self._failed.get(position)
        attempts, first = (0, datetime.now(UTC)) if before is None else (before.attempts, before.first_failed)
        failed = self._failed[position] = FailedEvent(position, attempts + 1, first)
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
        """The event at ``position`` is handled or set aside."""
        if self._failed:
            self._failed.pop(position, None)

    def clear(self) -> None:
        """Forget all events: the handler is reset."""
        self.alone_until = 0
        self.postponed.clear()
        self._failed.clear()


class ErrorText(NamedTuple):
    """An error as dead letters keep it.

    Attributes:
        error: Class name and text.
        traceback: The same with the traceback.
        at: When it was recorded; aware, in UTC.
    """

    error: str
    traceback: str
    at: datetime


def error_text(error: BaseException) -> ErrorText:
    """``error`` as dead letters keep it."""
    return ErrorText(describe(error), traceback_text(error), datetime.now(UTC))
