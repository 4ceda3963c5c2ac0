"""The requests of operators to a handler, as the store keeps them and as the handler carries them out."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from uno_actors.domain.values import pack_value
from uno_actors.store.handler_names import CONTROL
from uno_actors.store.records import ViewChange
from uno_actors.store.view_keys import pack_key

PAUSED, RESET, RETRY = "paused", "reset", "retry"


class Pause(NamedTuple):
    """A request to handle nothing.

    Attributes:
        by: Who has paused it; empty if that is not recorded, as for pauses of older versions.
        note: Why; empty without a note.
        at: Since when, in UTC; ``None`` if that is not recorded.
    """

    by: str = ""
    note: str = ""
    at: datetime | None = None

    @classmethod
    def of(cls, recorded: object) -> "Pause":
        """From what the store keeps: older versions keep no more than that there is one."""
        return cls(*recorded) if isinstance(recorded, list) and len(recorded) == len(cls._fields) else cls()


class Reset(NamedTuple):
    """A request to continue from another place in the log.

    Attributes:
        request: Identifies the request.
        position: The handler continues after it. A projection always begins at the first event.
    """

    request: str
    position: int


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests to one handler.

    Attributes:
        paused: Whether it handles nothing.
        reset: Where it continues from.
        retry: Positions of dead letters that it tries again.
    """

    paused: bool = False
    reset: Reset | None = None
    retry: tuple[int, ...] = ()


NO_REQUESTS = Requests()


class ReportedStatus(NamedTuple):
    """What a running handler reports for other processes to read.

    Attributes:
        state: See `uno_actors.handlers.subscription.HandlerStatistics`.
        failures: Attempts that failed since its system started.
        restarts: Number of restarts by its supervisor.
    """

    state: str
    failures: int
    restarts: int


class PendingRequests:
    """The requests of one handler that are not carried out yet.

    Attributes:
        paused: Whether it handles nothing.
        reset: Where it continues from.
        retries: Positions of dead letters that it tries again, in order.
    """

    def __init__(self) -> None:
        self.paused = False
        self.reset: Reset | None = None
        self.retries: dict[int, None] = {}
        self._last = NO_REQUESTS
        self._carried_out = ""  # the last request to reset

    def __bool__(self) -> bool:
        """Whether there is something to carry out before the next event."""
        return self.reset is not None or bool(self.retries)

    def is_known(self, requests: Requests) -> bool:
        """Whether these are the requests that were taken last."""
        return requests == self._last

    def take(self, requests: Requests) -> None:
        """Adopt the current requests in the store; a reset that was carried out may still be among them."""
        self._last = requests
        self.paused = requests.paused
        if requests.reset is not None and requests.reset.request != self._carried_out:
            self.reset = requests.reset
        self.retries = dict.fromkeys(requests.retry)

    def was_reset(self, request: Reset) -> None:
        """Note that the reset was carried out."""
        self._carried_out = request.request
        if self.reset == request:  # otherwise a newer request came in the meantime
            self.reset = None
        if self._last.reset == request:
            self._last = replace(self._last, reset=None)

    def was_retried(self, position: int) -> None:
        """Note that the attempt at a dead letter is over, so it may be requested again."""
        self.retries.pop(position, None)
        self._last = replace(self._last, retry=tuple(self.retries))

    def clear(self) -> None:
        """Forget the requests: another process runs the handler and carries them out."""
        self.paused, self.reset, self.retries, self._last = False, None, {}, NO_REQUESTS


def request_entry(value: object, *key: str | int) -> ViewChange:
    """An entry among the requests, or its removal if ``value`` is ``None``."""
    return ViewChange(
        CONTROL, pack_key(key), None if value is None else pack_value(value, {}, may_share=True)
    )


def without_reset(name: str, request: str) -> list[ViewChange]:
    """The changes that remove a reset that was carried out, and keep a newer one.

    Older versions kept one entry for all resets of a handler.
    """
    return [request_entry(None, name, RESET, request), request_entry(None, name, RESET)]
