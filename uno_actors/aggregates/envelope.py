"""A command on its way to its aggregate, and the reply that its sender waits for."""

import math
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any, Protocol, TypeVar

from typing_extensions import override

from uno_actors.actors.future import Future, GetTimeout
from uno_actors.actors.unseen import Unseen
from uno_actors.aggregates.reruns import may_run_again
from uno_actors.clock import Timer
from uno_actors.domain.commands import Command
from uno_actors.errors import AskTimeout, ConcurrencyConflict
from uno_actors.logs import Logger
from uno_actors.position_tokens import position_token
from uno_actors.store.codec import StreamId
from uno_actors.store.records import Appended

R = TypeVar("R")

LOOP_LATE = 1.0
"""Seconds after the timeout of a command when a thread that waits for the reply gives up on the loop."""


class CommandReply(Future[R]):
    """The future reply to a command.

    The loop on which the aggregates run enforces its timeout. A thread that waits for the reply also keeps the time
    itself: `LOOP_LATE` seconds after the timeout it reports that the loop is blocked or gone.

    Attributes:
        seconds: The timeout.
        asked: When it was asked, by `time.monotonic`.
        position: Position in the log of the last event that the command has recorded, once there is a reply; ``None``
            before, and if it has recorded none. A repeated command has the position of its first time.
        token: The position as text, for a later request: the header ``Uno-Position`` of `uno_actors.fastapi`.
    """

    seconds = math.inf
    _recorded: tuple[Appended, int] | None = None
    _place: tuple[int, str] | None = None
    _when_recorded: "Callable[[CommandReply[Any]], object] | None" = None
    _log: Logger | None = None
    _correlation_id: str | None = None

    def __init__(self, stream: StreamId, command_type: type[Command[R]]) -> None:
        self._stream = stream
        self._command_type = command_type
        self.asked = monotonic()

    @property
    def place(self) -> tuple[int, str] | None:
        """Position and id of the last event that the command has recorded; ``None`` as for `position`."""
        if self._place is None and self._recorded is not None:
            self._place = place_in(*self._recorded)
        return self._place

    @property
    def stream(self) -> StreamId:
        """The stream of the aggregate."""
        return self._stream

    @property
    def position(self) -> int | None:
        """See the class."""
        return None if self.place is None else self.place[0]

    @property
    def token(self) -> str | None:
        """See the class."""
        return None if self.place is None else position_token(*self.place)

    def is_at(self, place: tuple[int, str] | None) -> None:
        """Note where the events of the command are, before the reply is set; see `place`."""
        if place is not None:
            self._place = place
            if self._when_recorded is not None:
                self._when_recorded(self)

    def tell(self, when_recorded: "Callable[[CommandReply[Any]], object]") -> None:
        """Have ``when_recorded`` called with this reply on the event loop, before a reply with a position is set."""
        self._when_recorded = when_recorded

    @override
    def _source(self) -> str:
        return str(self._stream)

    def fail(self, error: BaseException, command: Command[Any], log: Logger) -> bool:
        """Set the error of ``command``, which is logged if nothing looks at it; return whether it was set."""
        self._log, self._correlation_id = log, command.correlation_id
        return self.offer_exception(error)

    @override
    def _unseen(self, error: BaseException) -> Unseen | None:
        if self._log is None:
            return None
        return Unseen(error, self._stream, self._command_type.__name__, self._log, self._correlation_id)

    @override
    def _wait(self, timeout: float | None) -> None:
        left = max(0.0, self.asked + self.seconds + LOOP_LATE - monotonic())
        if timeout is not None and timeout <= left:
            super()._wait(timeout)
            return
        try:
            super()._wait(left)
        except GetTimeout:
            doing = "The event loop of its system does not run, or is held by code that blocks it"
            command = self._command_type.__name__
            raise AskTimeout(str(self._stream), command, self.seconds, started=True, doing=doing) from None


class Receiver(Protocol):
    """The actor of the aggregate that a command was delivered to."""

    stream: StreamId

    @property
    def doing(self) -> str:
        """What it does, for an asker whose time is over."""


class Failed:
    """The result of a command that raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def place_in(appended: Appended, end: int) -> tuple[int, str]:
    """Position and id of the last one of the first ``end`` events of an append."""
    return appended.positions[end - 1], appended.records[end - 1].event_id


class EarlierResult:
    """The result that a repeated command had the first time.

    Attributes:
        result: The result.
        first: The command of the first time, if its events were under way then.
    """

    __slots__ = ("_place", "first", "result")

    def __init__(
        self, result: Any, place: tuple[int, str] | None = None, first: "CommandEnvelope | None" = None
    ) -> None:
        self.result = result
        self.first = first
        self._place = place

    @property
    def place(self) -> tuple[int, str] | None:
        """Where the last event of the first time is: its position and id."""
        if self.first is not None:
            return self.first.place
        return self._place


class CommandEnvelope:
    """A command, its reply, and how far it has come.

    Attributes:
        command: The command.
        future: The reply; ``None`` if none waits, or once it is answered.
        context: The context variables of its sender; ``None`` if none were bound.
        receiver: The actor that it was delivered to, if there is a reply.
        started: Whether its aggregate has decided, or an earlier result was found.
        withdrawn: Whether it has timed out before that: it is not handled any more.
        timer: The timer of its own timeout.
        alone: Whether its events must not share an append with those of other commands.
        conflicts: How often another writer was faster.
        conflict: The last time; only if there was one.
        first_conflict: When it was the first time, by the system's clock; only if there was one.
        end: Number of records in its batch up to its last one; 0 if it has recorded none.
        appended: Its batch as recorded; only if it has recorded something.
        held: What may hold its append for a moment; see `uno_actors.aggregates.joint`.
        leads: Whether its append takes no more commands, because others are to follow it.
        follows: The joint that its append follows.
        earlier: The result of the first time, if it is a repetition.
        unrelated: Versions whose commands look the same in the memory but are different.
        looks_back: Whether it may have been recorded further back than the aggregate remembers; see `look_back`.
        since: Position of the log after which it may have been recorded.
        store: The store whose position ``since`` is; ``None`` for that of the system.
        after: Version of the stream after which it may have been recorded; ``None`` if that is not known yet.
        told: Whether observers hear of it, in its context.
        sent: When it was sent from here, and 0 if it was not or its sender has an answer; only if it is observed.
        arrived: When it came to the mailbox; only if it is observed.
        queued: When it was last put into the mailbox; only if it is observed.
        waited: Seconds in the mailbox until it was taken last; only if it is observed.
        deciding: Seconds that its method took, if it was called; only if it is observed.
        asked: When it was sent if no reply waits, for the flight recorder, as are the following.
        taken: When it was taken from the mailbox, if it was.
        decided: When its method ended, if it was called; 0 if an earlier result was found.
        events: Number of events that it has registered.
    """

    __slots__ = (
        "after",
        "alone",
        "appended",
        "arrived",
        "asked",
        "command",
        "conflict",
        "conflicts",
        "context",
        "decided",
        "deciding",
        "earlier",
        "end",
        "events",
        "first_conflict",
        "follows",
        "future",
        "held",
        "leads",
        "looks_back",
        "queued",
        "receiver",
        "sent",
        "since",
        "started",
        "store",
        "taken",
        "timer",
        "told",
        "unrelated",
        "waited",
        "withdrawn",
    )

    appended: Appended
    conflict: ConcurrencyConflict
    first_conflict: float
    receiver: Receiver
    since: int
    store: object
    after: int | None
    sent: float
    arrived: float
    queued: float
    waited: float
    deciding: float | None
    asked: float
    taken: float
    decided: float
    events: int

    def __init__(
        self,
        command: Command[Any],
        future: CommandReply[Any] | None,
        context: Context | None = None,
    ) -> None:
        self.command = command
        self.future = future
        self.context = context
        self.started = self.withdrawn = self.alone = self.looks_back = self.told = self.leads = False
        self.conflicts = self.end = 0
        self.held: Any = None
        self.follows: Any = None
        self.timer: Timer | None = None
        self.earlier: EarlierResult | None = None
        self.unrelated: tuple[int, ...] = ()

    @property
    def place(self) -> tuple[int, str] | None:
        """Position and id of its last event, once that is recorded; ``None`` if it has none."""
        if self.end:
            return place_in(self.appended, self.end)
        return None if self.earlier is None else self.earlier.place

    def look_back(self, since: int, store: object = None, after: int | None = None) -> None:
        """Note that it may have been recorded further back than the memory reaches, but only after these places.

        Args:
            since: Position in the log of ``store``.
            store: ``None`` for that of the system.
            after: Version of the stream; ``None`` if it is not known yet.
        """
        self.looks_back, self.since, self.store, self.after = True, since, store, after

    def survives(
        self,
        conflict: ConcurrencyConflict,
        now: float,
        told_for: float,
        *,
        looks_back: bool,
        is_repetition: bool,
    ) -> bool:
        """Whether it is to be run again after another writer was faster; see `uno_actors.aggregates.reruns`.

        Args:
            conflict: What its append met.
            now: By the system's clock.
            told_for: Seconds after the first conflict for which a command is run again that was told. One that was
                asked is run again until its asker has timed out.
            looks_back: Whether to look first if it was handled: the other writer may have recorded this very command,
                and more events than the aggregate remembers. What was recorded before is known.
            is_repetition: Whether it had the result of its first time.
        """
        if not self.conflicts:
            self.first_conflict = now
        self.conflicts += 1
        self.conflict = conflict
        if self.future is not None:
            is_over = self.future.done()
        else:
            is_over = not may_run_again(now, self.first_conflict + told_for)
        if is_over:
            return False
        # A repetition was decided by its first time, which may have been recorded before: what it looks for stays.
        if looks_back and not (self.looks_back and is_repetition):
            self.look_back(0, after=conflict.expected)
        return True

    def gave_up(self, now: float) -> ConcurrencyConflict:
        """The error of a command that has met conflicts until its time was over."""
        seconds = now - self.first_conflict
        return self.conflict.until_late(type(self.command).__name__, self.conflicts, seconds)

    def answer(self, result: Any, log: Logger) -> bool:
        """Set the reply, or the error if ``result`` is `Failed`; return whether the sender still waits.

        Args:
            result: What the command has come to.
            log: Of the system, for an error at which the sender does not look.
        """
        if self.timer is not None:
            self.timer.cancel()
        future = self.future
        if future is None:
            return False
        # The frames in the error's traceback refer to this envelope, which must not refer to the error.
        self.future = None
        if isinstance(result, Failed):
            return future.fail(result.error, self.command, log)
        if self.end:
            future._recorded = self.appended, self.end
            if future._when_recorded is not None:
                future._when_recorded(future)
        elif self.earlier is not None:
            future.is_at(self.earlier.place)
        return future.offer(result)
