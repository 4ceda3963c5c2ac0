"""How far a handler has come in the log, and the checkpoint that keeps it."""

import asyncio
from collections.abc import Iterable


class Progress:
    """A handler's position in the log. It outlives restarts of the handler's actor.

    A handler may take several events before the first is done, and a concurrent one finishes them in any order:
    its position stays before the first event that it has taken and not finished.

    Args:
        position: All events up to here are done.
        checkpoint: Name of its checkpoint; empty if that may not be moved yet.

    Attributes:
        position: All events up to here are done, whether the handler wants them or not.
        taken: No event beyond this position was taken.
        pending: Positions that were taken and are not done, in log order.
        ahead: Positions beyond a pending one that are done.
        checkpoint: Name of the checkpoint, or of the view that is built; empty if it may not be moved now.
        saved: Name and position of the checkpoint as this process wrote it last.
        read_under: The lease under which it was read from a place outside of the store, by a handler that keeps it
            there.
        writes: Held while the checkpoint is written: of two writes at once, the older might come last.
    """

    def __init__(self, position: int, checkpoint: str) -> None:
        self.position = self.taken = position
        self.pending: dict[int, None] = {}
        self.ahead: set[int] = set()
        self.checkpoint = checkpoint
        self.saved: tuple[str, int] | None = None
        self.read_under: object = None
        self.writes = asyncio.Lock()

    def take(self, positions: Iterable[int]) -> None:
        """Note that events were taken, in log order."""
        for position in positions:
            self.pending[position] = None
            self.taken = position

    def finish(self, position: int) -> None:
        """Note that the event at ``position`` was handled or set aside."""
        self.pending.pop(position, None)
        self.pass_to(self.taken)
        if position > self.position:
            self.ahead.add(position)

    def pass_to(self, position: int) -> None:
        """Note that all wanted events up to ``position`` were taken."""
        self.taken = position
        self.position = self.without(0)
        if self.ahead:
            self.ahead = {done for done in self.ahead if done > self.position}

    def without(self, position: int) -> int:
        """The position that follows once the event at ``position`` is done."""
        for first in self.pending:
            if first != position:
                return first - 1
        return self.taken

    def move_to(self, position: int) -> None:
        """Continue after ``position``, with nothing taken."""
        self.position = self.taken = position
        self.pending.clear()
        self.ahead.clear()
