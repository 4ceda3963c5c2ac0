"""Asks under way: what each actor is handling, until when, and whom it waits for meanwhile.

From this two things follow: an ask made while another is handled inherits its remaining time, and actors that
wait for each other in a circle get a `DeadlockError` at once instead of waiting until their time is over.

A wait counts while it lasts and no longer; it is noted only where the handling itself stands still: in its
own task, or on the worker thread that runs it. Waiting for the first of several replies is therefore never
mistaken for a deadlock.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic
from typing import Any, Protocol

from uno_actors.clock import Timer


class Reply(Protocol):
    """What an asker waits for."""

    @property
    def deadline(self) -> float | None:
        """Until when it is waited for, on ``time.monotonic``'s clock; ``None`` for ever."""

    @property
    def target(self) -> "Answers | None":
        """Who was asked."""

    def done(self) -> bool:
        """Whether there is a result, or nobody waits any more."""

    def offer(self, value: Any) -> bool:
        """Set the result if there is none yet."""

    def offer_exception(self, error: BaseException) -> bool:
        """Set an error as the result if there is none yet."""


class Answers(Protocol):
    """Who is asked: it answers when it has handled what it is handling now."""

    @property
    def handling(self) -> "Envelope | None":
        """What it is handling now."""

    def lend(self) -> None:
        """Run now, on the thread of who is about to wait for it, if that may be."""

    def late(self, reply: "Reply", message: str, seconds: float) -> BaseException:
        """The error for whoever has waited ``seconds`` for the reply to a ``message`` of this class."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on its event loop in ``seconds``; from any thread."""


class Handles(Protocol):
    """Who handles a message."""

    handling: "Envelope | None"
    """What it is handling now."""
    task: "asyncio.Task[None] | None"
    """The task in which it runs now; ``None`` on a worker thread."""
    thread: int | None
    """Ident of the worker thread that runs a function of it now."""
    waits: list[Reply] | None
    """The replies for which the handling stands still now; ``None`` for none."""


class Envelope:
    """A message on its way to an actor; once it is being handled, also what is known of that.

    Attributes:
        message: The message.
        reply_to: Where the reply goes; ``None`` if the message was told.
        at: When it was sent, on ``time.monotonic``'s clock.
        actor: Who is handling it, or has done so.
        since: When the handling began.
    """

    __slots__ = ("actor", "at", "message", "reply_to", "since")

    actor: Handles
    since: float

    def __init__(self, message: Any, reply_to: Reply | None = None) -> None:
        self.message = message
        self.reply_to = reply_to
        self.at = monotonic()


being_handled: ContextVar[Envelope | None] = ContextVar("uno_actors.being_handled", default=None)
"""The message on whose behalf code runs, if an actor handles it."""


def time_left(seconds: float) -> float:
    """``seconds``, or what is left of the ask being handled if that is less."""
    envelope = being_handled.get()
    if envelope is None:
        return seconds
    asker = envelope.reply_to
    if asker is None or envelope.actor.handling is not envelope:
        return seconds  # what a handling started and left behind does not inherit its time
    deadline = asker.deadline
    return seconds if deadline is None else max(0.0, min(seconds, deadline - monotonic()))
