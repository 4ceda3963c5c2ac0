"""The requests to one node that are under way: each ends exactly once, in time, and their number is bounded."""

import heapq

from uno_actors.clock import Clock, Timer
from uno_actors.cluster.links.port import LARGEST, WINDOW, WINDOW_BYTES, Delivery, Done, LinkFailure
from uno_actors.logs import get_logger
from uno_actors.quantities import LONGEST

log = get_logger(actor="link")


class _Request:
    __slots__ = ("done", "is_sent", "seconds", "size")

    def __init__(self, size: int, seconds: float, done: Done) -> None:
        self.size = size
        self.seconds = seconds
        self.done = done
        self.is_sent = False


class OpenRequests:
    """The requests to one node that have not ended.

    All deadlines share one timer. A request leaves its entry among the deadlines behind when it ends; these entries
    are removed when they are more than those of open requests.

    Args:
        clock: Measures the deadlines.
        to: Names the other node in reasons.
        window: Maximum number of open requests.
        window_bytes: Maximum sum of their bytes.
    """

    def __init__(self, clock: Clock, to: str, window: int = WINDOW, window_bytes: int = WINDOW_BYTES) -> None:
        self._clock = clock
        self._to = to
        self._window = window
        self._window_bytes = window_bytes
        self._open: dict[int, _Request] = {}
        self._bytes = 0
        self._last = 0
        self._deadlines: list[tuple[float, int]] = []
        self._timer: Timer | None = None
        self._timer_at = 0.0

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, number: int) -> bool:
        return number in self._open

    def refusal(self, size: int) -> LinkFailure | None:
        """Why a request of ``size`` bytes cannot be sent now, if so."""
        if size > LARGEST:
            return LinkFailure(
                Delivery.NEVER, f"the request has {size:,} bytes; at most {LARGEST:,} are allowed"
            )
        if len(self._open) >= self._window or self._bytes + size > self._window_bytes:
            reason = f"{len(self._open):,} requests with {self._bytes:,} bytes to {self._to} are under way"
            return LinkFailure(Delivery.NEVER, reason, full=True)
        return None

    def add(self, size: int, seconds: float, done: Done) -> int:
        """Open a request; returns its number."""
        self._last = number = self._last + 1
        self._open[number] = _Request(size, seconds, done)
        self._bytes += size
        until = self._clock.monotonic() + min(seconds, LONGEST)
        heapq.heappush(self._deadlines, (until, number))
        if self._timer is None or until < self._timer_at:
            self._set_timer(until)
        elif len(self._deadlines) > 2 * len(self._open) + _SPARE:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
            heapq.heapify(self._deadlines)
        return number

    def sent(self, number: int) -> bool:
        """Note that a request is sent now; ``False`` if it has ended, so that it must not be sent."""
        request = self._open.get(number)
        if request is None:
            return False
        request.is_sent = True
        return True

    def end(self, number: int, outcome: bytes | LinkFailure) -> None:
        """End a request; has no effect if it has ended."""
        request = self._open.pop(number, None)
        if request is not None:
            self._bytes -= request.size
            call_done(request.done, outcome)

    def fail(self, number: int, reason: str, *, late: bool = False) -> None:
        """End a request without an answer; has no effect if it has ended."""
        request = self._open.get(number)
        if request is not None:
            self.end(number, LinkFailure(_delivery(request), reason, late=late))

    def fail_all(self, reason: str) -> None:
        """End all requests that are open now without an answer."""
        self.fail_some(self.numbers(), reason)

    def fail_some(self, numbers: list[int], reason: str) -> None:
        """End these requests without an answer, except those that have ended."""
        for number in numbers:
            self.fail(number, reason)

    def is_sent(self, number: int) -> bool:
        """Whether a request is open and was sent."""
        request = self._open.get(number)
        return request is not None and request.is_sent

    def numbers(self) -> list[int]:
        """The numbers of the requests that are open now."""
        return list(self._open)

    def close(self, reason: str) -> None:
        """End all requests and the timer."""
        self.fail_all(reason)
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = until
        self._timer = self._clock.call_later(max(0.0, until - self._clock.monotonic()), self._look)

    def _look(self) -> None:
        """End the requests whose time is over."""
        self._timer = None
        now = self._clock.monotonic()
        late = []
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][1] not in self._open):
            late.append(heapq.heappop(self._deadlines)[1])
        if self._deadlines:
            self._set_timer(self._deadlines[0][0])
        for number in late:
            request = self._open.get(number)
            if request is not None:
                within = f"within {request.seconds:g} s"
                self.fail(
                    number,
                    f"{self._to} has not answered {within}"
                    if request.is_sent
                    else f"the request could not be sent to {self._to} {within}",
                    late=True,
                )


_SPARE = 1024


def _delivery(request: _Request) -> Delivery:
    return Delivery.UNKNOWN if request.is_sent else Delivery.NEVER


def call_done(done: Done, outcome: bytes | LinkFailure) -> None:
    """Call ``done``; if it raises, the other requests still end."""
    try:
        done(outcome)
    except Exception:
        log.exception("the end of a request between nodes could not be handled")
