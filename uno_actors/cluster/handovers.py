"""Commands that wait a moment, until another node has let go of their aggregate."""

from collections.abc import Callable
from dataclasses import dataclass, field

from uno_actors.aggregates.actor import CAPACITY
from uno_actors.clock import Clock, Timer
from uno_actors.store.codec import StreamId

Again = Callable[[], object]
"""Delivers a command that has waited."""


@dataclass(slots=True)
class _Handover:
    until: float
    timer: Timer
    returned: list[Again] = field(default_factory=list)
    waiting: list[Again] = field(default_factory=list)


class Handovers:
    """The aggregates that are on their way from one node to another. Lives on the event loop.

    The node that gets one handles its commands when the other node has let go of it, in the order in which they were
    sent. If that takes too long, it begins anyway: both then meet at the expected version of the stream.

    Args:
        clock: Measures the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._under_way: dict[StreamId, _Handover] = {}

    def __contains__(self, stream: StreamId) -> bool:
        return stream in self._under_way

    @property
    def waiting(self) -> int:
        """Commands that wait."""
        return sum(len(each.returned) + len(each.waiting) for each in self._under_way.values())

    def begin(self, stream: StreamId, seconds: float) -> None:
        """Have the commands of an aggregate wait until `end`, but no longer than some ``seconds``."""
        if stream not in self._under_way:
            until = self._clock.monotonic() + seconds
            self._under_way[stream] = _Handover(until, self._timer(stream, seconds))

    def hold(self, stream: StreamId, again: Again, seconds: float, *, returned: bool = False) -> None:
        """Have a command wait, until the end of what was begun for its aggregate.

        Args:
            stream: Of its aggregate.
            again: Delivers it.
            seconds: For which its sender waits; half of that is left for the command.
            returned: Whether the other node has sent it back: it is older than those that were not sent there.
        """
        found = self._under_way[stream]
        (found.returned if returned else found.waiting).append(again)
        if len(found.returned) + len(found.waiting) > CAPACITY:
            self.end(stream)  # no more can wait than in a mailbox
            return
        until = self._clock.monotonic() + seconds / 2
        if until < found.until:
            found.timer.cancel()
            found.until, found.timer = until, self._timer(stream, seconds / 2)

    def _timer(self, stream: StreamId, seconds: float) -> Timer:
        return self._clock.call_later(seconds, lambda: self.end(stream))

    def end(self, stream: StreamId) -> None:
        """Deliver what waits; has no effect if nothing does."""
        found = self._under_way.pop(stream, None)
        if found is not None:
            found.timer.cancel()
            for again in (*found.returned, *found.waiting):
                again()

    def end_all(self) -> None:
        """As `end`, for all aggregates."""
        for stream in tuple(self._under_way):
            self.end(stream)
