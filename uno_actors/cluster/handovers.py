"""Commands that wait a moment, until another node has let go of their aggregate."""

from collections.abc import Callable
from dataclasses import dataclass, field

from uno_actors.clock import Clock, Timer
from uno_actors.store.codec import StreamId

Again = Callable[[], object]
"""Delivers a command that has waited."""


@dataclass(slots=True)
class _Handover:
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
            self._under_way[stream] = _Handover(self._clock.call_later(seconds, lambda: self.end(stream)))

    def hold(self, stream: StreamId, again: Again, *, returned: bool = False) -> None:
        """Have a command wait that `begin` was called for.

        Args:
            stream: Of its aggregate.
            again: Delivers it.
            returned: Whether the other node has sent it back: it is older than those that were not sent there.
        """
        found = self._under_way[stream]
        (found.returned if returned else found.waiting).append(again)

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
