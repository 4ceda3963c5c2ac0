"""Messages that an actor sets aside for later."""

from uno_actors.actors.ask import Envelope


class Stash:
    """The messages that one actor has set aside, in the order in which it did.

    Args:
        capacity: How many it holds.
    """

    __slots__ = ("_capacity", "_envelopes", "_last")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._envelopes: list[Envelope] = []
        self._last: Envelope | None = None

    def add(self, envelope: Envelope) -> bool:
        """Set ``envelope`` aside; whether there was room."""
        if len(self._envelopes) >= self._capacity:
            return False
        if envelope not in self._envelopes:
            self._envelopes.append(envelope)
            self._last = envelope
        return True

    def handled(self, envelope: Envelope) -> bool:
        """Note that handling ``envelope`` has ended; whether it was set aside meanwhile, so its asker waits on."""
        if envelope is not self._last:
            return False
        self._last = None
        return True

    def take_all(self) -> list[Envelope]:
        """Empty the stash."""
        envelopes, self._envelopes = self._envelopes, []
        return envelopes

    def __contains__(self, envelope: Envelope) -> bool:
        return envelope in self._envelopes

    def __len__(self) -> int:
        return len(self._envelopes)
