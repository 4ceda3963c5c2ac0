"""Asks: a message on its way, the actor that answers it, and the deadline.

The message that an actor is handling serves two purposes: an ask that the actor makes inherits the remaining time, and
`uno_actors.actors.deadlock` finds actors that wait for each other.
"""

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from time import monotonic
from typing import Any, Protocol

from uno_actors.causality import _current as _current_cause
from uno_actors.clock import Timer


class PendingReply(Protocol):
    """The reply that an asker waits for."""

    @property
    def deadline(self) -> float | None:
        """Until when the asker waits, on ``time.monotonic``'s clock; ``None`` for no limit."""

    @property
    def target(self) -> "AskTarget | None":
        """The actor or aggregate that was asked."""

    def done(self) -> bool:
        """Whether there is a result, or the deadline has passed."""

    def offer(self, value: Any) -> bool:
        """Set the result if there is none yet."""

    def offer_exception(self, error: BaseException) -> bool:
        """Set an error as the result if there is none yet."""


class AskTarget(Protocol):
    """The receiver of an ask; it answers one message after the other."""

    @property
    def handling(self) -> "Envelope | None":
        """The message that it is handling now."""

    def run_inline(self) -> None:
        """Run now, inside the task that is about to wait for it, if that is possible."""

    def late(self, reply: "PendingReply", message: str, seconds: float) -> BaseException:
        """The error for an asker that has waited ``seconds`` for the reply to a ``message`` of this class."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on its event loop in ``seconds``; from any thread."""


class HandlingActor(Protocol):
    """The actor that handles a message."""

    handling: "Envelope | None"
    """The message that it is handling now."""
    waits: list[PendingReply] | None
    """The replies that the handling is waiting for now; ``None`` for none."""

    def runs_here(self) -> bool:
        """Whether the caller is the handling itself: in its task, or on its worker thread."""


class Envelope:
    """A message on its way to an actor, and later a record of its handling.

    Attributes:
        message: The message.
        reply_to: Where the reply goes; ``None`` if the message was told.
        at: When it was sent, on ``time.monotonic``'s clock.
        context: The context variables of its sender, in which it is handled; ``None`` if none were bound.
        actor: The actor that is handling it, or has done so.
        since: When handling it began.
    """

    __slots__ = ("actor", "at", "context", "message", "reply_to", "since")

    actor: HandlingActor
    since: float

    def __init__(self, message: Any, reply_to: PendingReply | None = None) -> None:
        self.message = message
        self.reply_to = reply_to
        context = copy_context()
        # As `context_of_sender`, in fewer steps: often nothing is bound, or the one variable of an actor that sends.
        if context and (len(context) > 1 or being_handled.get() is None):
            self.context = _to_take_along(context)
        else:
            self.context = None
        self.at = monotonic()


class Signal(Envelope):
    """A message of the runtime itself, such as to stop, or that a watched actor has ended. It has no context."""

    __slots__ = ()

    def __init__(self, message: Any, reply_to: PendingReply | None = None) -> None:
        super().__init__(message, reply_to)
        self.context = None


being_handled: ContextVar[Envelope | None] = ContextVar("uno_actors.being_handled", default=None)
"""The message on whose behalf the code runs, if an actor handles one."""


def time_left(seconds: float) -> float:
    """``seconds``, or the remaining time of the ask being handled, if that is less."""
    envelope = being_handled.get()
    if envelope is None:
        return seconds
    asker = envelope.reply_to
    if asker is None or envelope.actor.handling is not envelope:
        return seconds  # a task that outlives the handling does not inherit its time
    deadline = asker.deadline
    return seconds if deadline is None else max(0.0, min(seconds, deadline - monotonic()))


def context_of_sender() -> Context | None:
    """A copy of the context variables bound here, for a message to take along; ``None`` if there are none.

    The runtime's own variables do not count, and stay behind: they say what is being handled here.
    """
    context = copy_context()
    return _to_take_along(context) if context else None


def _to_take_along(context: Context) -> Context | None:
    if len(context) <= (being_handled.get() is not None) + (_current_cause.get() is not None):
        return None
    context.run(_leave_behind)
    return context


def copied_context() -> Context:
    """As `context_of_sender`, also if it is empty."""
    context = copy_context()
    if being_handled.get() is not None or _current_cause.get() is not None:
        context.run(_leave_behind)
    return context


def _leave_behind() -> None:
    if being_handled.get() is not None:
        being_handled.set(None)
    if _current_cause.get() is not None:
        _current_cause.set(None)
