"""What others see of a running actor: its state, its counters and the line where it is."""

import sys
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from time import monotonic
from types import CoroutineType, FrameType
from typing import Any, Literal, Protocol

from uno_actors.actors.ask import Envelope, PendingReply
from uno_actors.actors.carrier import awaited_by
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.mailbox import Mailbox
from uno_actors.actors.watchdog import LIBRARIES, line_of, own_frame
from uno_actors.errors import AskTimeout

ActorState = Literal["starting", "idle", "handling", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class ActorStatistics:
    """An actor's current state and counters.

    Attributes:
        actor: Its name in logs.
        state: ``starting``, ``idle``, ``handling``, ``failed`` (waiting for its supervisor) or ``stopped``.
        waiting: Messages in its mailbox now.
        peak: The most messages that ever waited.
        oldest: Age in seconds of the oldest message that waits; ``None`` if none waits.
        stashed: Messages set aside.
        handled: Messages handled, whatever the outcome.
        failed: How many of them raised.
        restarts: How often a supervisor has restarted it.
        doing: What it is handling, since when and at which line.
    """

    actor: str
    state: ActorState
    waiting: int
    peak: int
    oldest: float | None
    stashed: int
    handled: int
    failed: int
    restarts: int
    doing: str


@dataclass(frozen=True, slots=True)
class MessageStatistics:
    """The messages of all live actors that a system has spawned.

    Attributes:
        waiting: Messages in their mailboxes.
        peak: The most messages that ever waited in one mailbox.
        oldest: Age in seconds of the oldest message that waits; ``None`` if none waits.
        handled: Messages handled, whatever the outcome.
        failed: How many of them raised.
    """

    waiting: int
    peak: int
    oldest: float | None
    handled: int
    failed: int


class Running(Protocol):
    """Where a cell runs."""

    @property
    def thread(self) -> int | None:
        """Ident of the worker thread that runs a function of the actor now."""

    @property
    def suspended(self) -> Coroutine[Any, Any, Any] | None:
        """The coroutine of the actor that waits for something now."""


class Inspected(Protocol):
    """What inspection reads from a cell."""

    @property
    def inbox(self) -> Mailbox:
        """Its mailbox."""

    @property
    def dispatcher(self) -> Dispatcher:
        """Where it runs."""

    @property
    def turns(self) -> Running:
        """Where it runs now."""

    @property
    def is_suspended(self) -> bool:
        """Whether it waits for its supervisor."""

    @property
    def restarts(self) -> int:
        """How often it was restarted."""

    @property
    def failed(self) -> int:
        """Messages whose handling raised."""

    @property
    def handling(self) -> Envelope | None:
        """The message that it is handling now."""

    @property
    def handled(self) -> int:
        """Messages handled."""

    @property
    def stashed(self) -> int:
        """Messages set aside."""

    @property
    def has_started(self) -> bool:
        """Whether ``on_start`` has succeeded."""

    @property
    def has_stopped(self) -> bool:
        """Whether it has stopped."""


def statistics_of(cell: Inspected) -> ActorStatistics:
    """The current state and counters of one actor."""
    inbox = cell.inbox
    return ActorStatistics(
        actor=str(cell),
        state=state_of(cell),
        waiting=len(inbox),
        peak=max(inbox.peak, len(inbox)),
        oldest=inbox.oldest(),
        stashed=cell.stashed,
        handled=cell.handled,
        failed=cell.failed,
        restarts=cell.restarts,
        doing=doing(cell),
    )


def messages_of(cells: Iterable[Inspected]) -> MessageStatistics:
    """The messages of several actors together."""
    waiting = peak = handled = failed = 0
    ages: list[float] = []
    for cell in cells:
        inbox = cell.inbox
        waiting += len(inbox)
        peak = max(peak, inbox.peak)
        if (age := inbox.oldest()) is not None:
            ages.append(age)
        handled += cell.handled
        failed += cell.failed
    return MessageStatistics(waiting, peak, max(ages, default=None), handled, failed)


def state_of(cell: Inspected) -> ActorState:
    """What the actor is doing, in one word."""
    if cell.has_stopped:
        return "stopped"
    if cell.is_suspended:
        return "failed"
    if not cell.has_started:
        return "starting"
    return "idle" if cell.handling is None else "handling"


def late(cell: Inspected, reply: PendingReply, message: str, seconds: float) -> AskTimeout:
    """The error for an asker that has waited ``seconds`` for the reply to a ``message`` of this class."""
    place, now = cell.inbox.place(reply), doing(cell)
    if place is not None:
        now = f"It was at place {place} of {len(cell.inbox)} in the mailbox. {now}"
    handling = cell.handling
    started = handling is not None and handling.reply_to is reply
    return AskTimeout(str(cell), message, seconds, started=started, doing=now)


def doing(cell: Inspected) -> str:
    """What the actor is handling, since when and at which line; errors tell it to askers that wait."""
    handling = cell.handling
    if handling is None:
        return f"{cell} is {state_of(cell)}"
    seconds = monotonic() - handling.since
    message = type(handling.message).__name__
    frame = _frame_of(cell)
    where = "" if frame is None else f", now at {line_of(frame)}"
    return f"{cell} has been handling {message} for {seconds:.3g} s{where}"


def line_in(cell: Inspected) -> str | None:
    """The line of the actor's code that runs or waits now: ``file:line in function``; ``None`` if none is known."""
    frame = _frame_of(cell)
    return None if frame is None else line_of(frame)


def line_on(thread: int) -> str | None:
    """The line of a program's code that runs on a thread now; ``None`` if none does."""
    frame = own_frame(sys._current_frames().get(thread))
    return None if frame is None else line_of(frame)


def _frame_of(cell: Inspected) -> FrameType | None:
    """The frame of the actor's code, or of code that it called, that is running or waiting."""
    turns = cell.turns
    if turns.thread is not None:
        return own_frame(sys._current_frames().get(turns.thread))
    if turns.suspended is not None:
        frame: FrameType | None = None
        waiting: object = turns.suspended
        while waiting is not None:
            found = waiting.cr_frame if isinstance(waiting, CoroutineType) else None
            if found is not None and not found.f_code.co_filename.startswith(LIBRARIES):
                frame = found
            waiting = awaited_by(waiting)
        return frame
    if cell.dispatcher.thread is not None:
        return own_frame(sys._current_frames().get(cell.dispatcher.thread))
    return None
