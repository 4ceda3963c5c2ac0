"""An aggregate beside other writers of its stream: its pauses, and whether it signals that it loses."""

from collections.abc import Callable
from typing import Protocol

from uno_actors.aggregates.reruns import Contention
from uno_actors.aggregates.turns import SIGNAL_AFTER, Turns
from uno_actors.backoff import chance
from uno_actors.clock import Clock, Timer


class Directory(Protocol):
    """What it uses of `uno_actors.aggregates.directory.Aggregates`."""

    clock: Clock
    turns: Turns


class Contending:
    """Carries out `Contention` for one aggregate. Lives on the event loop.

    Args:
        directory: Of the aggregate.
        most: Commands that one append of an aggregate holds at most.

    Attributes:
        state: What follows for the next append.
    """

    __slots__ = ("_began", "_directory", "_most", "_timer", "state")

    def __init__(self, directory: Directory, most: int) -> None:
        self.state = Contention(most)
        self._directory = directory
        self._most = most
        self._timer: Timer | None = None
        self._began = directory.clock.monotonic()

    def begin(self) -> None:
        """The stream is read for the next append."""
        self._began = self._directory.clock.monotonic()

    def has_read(self, others: int) -> bool:
        """The stream was read and had so many events of others; whether there are still other writers."""
        after = self.state.read(others)
        if after is not None:
            self.state = after
        return after is not None

    def lost(self, commands: int) -> None:
        """An append of so many ``commands`` met a faster writer."""
        self.state = self.state.lost(commands, chance())
        if self.state.losses >= SIGNAL_AFTER:
            self._directory.turns.lose(self, self._directory.clock.monotonic())

    def recorded(self) -> None:
        """An append was recorded."""
        took = self._directory.clock.monotonic() - self._began
        self.state = self.state.recorded(took, self._most, chance())
        self.rest()

    def rest(self) -> None:
        """Nothing waits that loses."""
        self._directory.turns.recover(self)

    def pause(self, then: Callable[[], object]) -> None:
        """Call ``then`` after the pause."""
        self._timer = self._directory.clock.call_later(self.state.pause, then)

    def cancel(self) -> None:
        """End the pause without a call."""
        if self._timer is not None:
            self._timer.cancel()
