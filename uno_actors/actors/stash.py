"""Messages that an actor sets aside for later."""

from typing import Protocol

from uno_actors.actors.ask import Envelope
from uno_actors.actors.mailbox import Mailbox
from uno_actors.errors import MailboxFull


class Stashing(Protocol):
    """The cell whose messages are set aside."""

    handling: Envelope | None
    inbox: Mailbox


class Stash:
    """The messages that one actor has set aside, in that order; at most as many as its mailbox holds.

    Args:
        cell: The actor's cell.
    """

    __slots__ = ("_cell", "_envelopes", "_last")

    def __init__(self, cell: Stashing) -> None:
        self._cell = cell
        self._envelopes: list[Envelope] = []
        self._last: Envelope | None = None

    def add(self) -> None:
        """See `Actor.stash`."""
        envelope, capacity = self._cell.handling, self._cell.inbox.policy.capacity
        if envelope is None:
            raise RuntimeError(f"{self._cell} handles no message that could be set aside")
        if len(self._envelopes) >= capacity:
            raise MailboxFull(f"{self._cell} (its stash)", capacity)
        if envelope not in self._envelopes:
            self._envelopes.append(envelope)
            self._last = envelope

    def handled(self, envelope: Envelope) -> bool:
        """Note that handling ``envelope`` has ended; return whether it was set aside, so its asker keeps waiting."""
        if envelope is not self._last:
            return False
        self._last = None
        return True

    def unstash_all(self) -> None:
        """See `Actor.unstash_all`."""
        envelopes, self._envelopes = self._envelopes, []
        if envelopes:
            self._cell.inbox.put_back(envelopes)

    def __contains__(self, envelope: Envelope) -> bool:
        return envelope in self._envelopes

    def __len__(self) -> int:
        return len(self._envelopes)
