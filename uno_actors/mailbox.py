"""The bounded queue in front of an actor."""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from uno_actors._pykka import ActorDeadError, ActorStop, Envelope
from uno_actors.asks import Answers
from uno_actors.errors import MailboxFull
from uno_actors.future import Future
from uno_actors.log import get_logger

CAPACITY = 1000
"""Messages that may wait before a mailbox refuses more."""


class Mailbox:
    """Messages in order of arrival; any thread may put, the actor's execution takes.

    A full mailbox answers an ask with `MailboxFull` and drops a told message with a warning: it never raises
    into a sender that only told. Stop signals are always accepted. After `close` every ask is answered with
    ``pykka.ActorDeadError``.
    """

    __slots__ = ("_closed", "_messages", "capacity", "dropped", "owner", "process", "wake")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.owner = "an actor"
        self.process: Answers | None = None
        self.dropped = 0
        self.wake: Callable[[], None] = _nobody_waits
        self._messages: deque[Envelope[Any]] = deque()
        self._closed = False

    def put(self, envelope: Envelope[Any], /) -> None:
        """Accept ``envelope`` or answer it; never blocks."""
        if len(self._messages) >= self.capacity and not isinstance(envelope.message, ActorStop):
            self._refuse(envelope)
            return
        if envelope.reply_to is not None:
            _asker(envelope).target = self.process
        self._messages.append(envelope)
        if self._closed:  # looked at after the append, so that one of the two sees the other
            self.close()
        else:
            self.wake()

    def take(self) -> Envelope[Any] | None:
        """The next message, or ``None``."""
        try:
            return self._messages.popleft()
        except IndexError:
            return None

    def place(self, envelope: Envelope[Any]) -> int | None:
        """The place of ``envelope`` in the queue, from 1; ``None`` if it was taken."""
        waiting = list(self._messages)
        return waiting.index(envelope) + 1 if envelope in waiting else None

    def get(self) -> Envelope[Any]:
        """The next message.

        Raises:
            IndexError: There is none.
        """
        return self._messages.popleft()

    def empty(self) -> bool:
        """Whether no message waits."""
        return not self._messages

    def close(self) -> None:
        """Answer what waits and whatever comes from now on: the actor is dead."""
        self._closed = True
        while (envelope := self.take()) is not None:
            if envelope.reply_to is None:
                if not isinstance(envelope.message, ActorStop):
                    self._drop(envelope, "actor is dead")
            elif isinstance(envelope.message, ActorStop):
                _asker(envelope).offer(None)
            else:
                error = ActorDeadError(f"{self.owner} stopped before handling the message")
                _asker(envelope).offer_exception(error)

    def _refuse(self, envelope: Envelope[Any]) -> None:
        if envelope.reply_to is None:
            self._drop(envelope, "mailbox is full")
        else:
            _asker(envelope).offer_exception(MailboxFull(self.owner, self.capacity))

    def _drop(self, envelope: Envelope[Any], reason: str) -> None:
        self.dropped += 1
        kind = type(envelope.message).__name__
        get_logger(actor=self.owner).warning(
            "message dropped", reason=reason, message=kind, dropped=self.dropped
        )

    def __len__(self) -> int:
        return len(self._messages)


def _asker(envelope: Envelope[Any]) -> Future[Any]:
    """Who waits for a reply and may have given up meanwhile; all that come to an `Actor` are of our class."""
    return cast("Future[Any]", envelope.reply_to)


def _nobody_waits() -> None:
    """The wake-up of a mailbox whose actor has not started."""
