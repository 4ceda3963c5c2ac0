"""The bounded queue in front of an actor, and what becomes of messages that find no room or no actor."""

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, cast, get_args

from typing_extensions import override

from uno_actors.actors.ask import AskTarget, Envelope, PendingReply, Signal
from uno_actors.actors.dead_messages import dead_messages
from uno_actors.actors.future import Future
from uno_actors.actors.message_queue import ArrivalQueue, PriorityQueue
from uno_actors.actors.pykka import ActorDeadError, ActorStop, PykkaEnvelope
from uno_actors.errors import MailboxFull
from uno_actors.quantities import check_count

CAPACITY = 1000
"""Messages that may wait before a mailbox has no room for more."""

WAIT_SECONDS = 30.0
"""How long a thread that tells waits for room, where the policy is to wait."""

Overflow = Literal["reject", "wait", "drop_oldest", "dead_letter"]


@dataclass(frozen=True, slots=True)
class MailboxPolicy:
    """How much an actor's mailbox holds, what it does when it is full, and in which order it is emptied.

    A full mailbox never raises into a sender that only told. What it does instead:

    - ``reject``: an ask gets `MailboxFull` at once; a told message becomes a dead message.
    - ``wait``: an ask waits for room, within its time; a thread that tells waits for `WAIT_SECONDS` at the
      most; what is told on an event loop's thread, which cannot wait, is kept aside. As many again as the
      mailbox holds may wait so; beyond that as for ``reject``.
    - ``drop_oldest``: the message that waits for longest makes room: it gets `MailboxFull` if it was asked,
      and becomes a dead message if it was told.
    - ``dead_letter``: the new message becomes a dead message; if it was asked, it gets `MailboxFull` too.

    Args:
        capacity: Messages that may wait. Signals (stop, and `Terminated`) do not count.
        overflow: See above.
        priority: Gives a message its place: lower numbers go first, equal ones in order of arrival. Of the
            signals, `Terminated` goes first and the stop last. Default is the order of arrival.

    Raises:
        ValueError: A value is out of its range.
    """

    capacity: int = CAPACITY
    overflow: Overflow = "reject"
    priority: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        check_count("a mailbox's capacity", self.capacity, 1)
        if self.overflow not in get_args(Overflow):
            allowed = ", ".join(get_args(Overflow))
            raise ValueError(f"a mailbox's overflow must be one of {allowed}; found {self.overflow!r}")


DEFAULT = MailboxPolicy()

_seldom = threading.RLock()
"""Guards moments that come once in a mailbox's life."""


class Mailbox:
    """Messages that wait for an actor; any thread may put, the actor's execution takes.

    It takes no lock: what it does rests on single operations of a ``deque``, which are atomic. Threads that
    put in the same moment may exceed the capacity by their number. After `close` every ask is answered with
    ``pykka.ActorDeadError`` and whatever is told is a dead message.

    Args:
        policy: See `MailboxPolicy`.

    Attributes:
        cell: What handles the messages.
        dead: Where messages go that will not be handled.
        wake: Called when there is something to take, unless `woken`.
        woken: Whether `wake` was called and the actor has not come to rest since.
        peak: The most messages that ever waited.
    """

    __slots__ = (
        "_closed",
        "_limit",
        "_queue",
        "_urn",
        "cell",
        "dead",
        "peak",
        "policy",
        "wake",
        "woken",
    )

    def __init__(self, policy: MailboxPolicy = DEFAULT) -> None:
        self.policy = policy
        self._urn: str | None = None
        self.cell: AskTarget | None = None
        self.dead = dead_messages
        self.wake: Callable[[], None] = _nobody_waits
        self.woken = False
        self.peak = 0
        self._queue: ArrivalQueue | PriorityQueue | None = None  # made when the first message comes
        self._limit = policy.capacity  # of the queue; each signal that waits raises it by one
        self._closed = False

    @property
    def urn(self) -> str:
        """The name in the world of the actor whose mailbox it is; made when somebody wants to know."""
        if self._urn is None:
            with _seldom:
                if self._urn is None:
                    self._urn = uuid.uuid4().urn
        return self._urn

    @urn.setter
    def urn(self, urn: str) -> None:
        self._urn = urn

    def put(self, envelope: PykkaEnvelope[Any], /) -> None:
        """Accept an envelope of pykka's."""
        asker = cast("Future[Any] | None", envelope.reply_to)
        if asker is not None:
            asker.target = self.cell
        if isinstance(envelope.message, ActorStop):
            self.add_stop(asker)
        else:
            self.add(Envelope(envelope.message, asker))

    def add_stop(self, asker: PendingReply | None = None) -> None:
        """Accept the signal to stop behind what waits."""
        self.add_signal(ActorStop(), asker)

    def add_signal(self, message: Any, asker: PendingReply | None = None) -> None:
        """Accept a signal, which does not count and for which there is always room."""
        self._limit += 1
        self.add(Signal(message, asker))

    def signal_taken(self) -> None:
        """A signal is being handled: it raises the limit no more."""
        self._limit -= 1

    def add(self, envelope: Envelope) -> None:
        """Accept ``envelope``, or do with it what the policy says."""
        queue = self._queue
        if queue is None:
            queue = self._make_queue()
        count = len(queue)
        if count >= self._limit and type(envelope) is not Signal:
            self.lose(envelope)
            return
        if count >= self.peak:
            self.peak = count + 1
        queue.append(envelope)
        if self._closed:  # perhaps since a moment ago: whoever takes an envelope out first, answers it
            self._lose_all()
        elif not self.woken:
            self.woken = True
            self.wake()

    def take(self) -> Envelope | None:
        """The next message, or ``None``."""
        try:
            return self._make_queue().popleft()
        except IndexError:
            return None

    def open(self) -> "tuple[Sized, Callable[[], Envelope | None]]":
        """For the one who empties it: what is true while messages wait, and how to take the next one."""
        queue = self._make_queue()
        return queue, queue.popleft

    def put_back(self, envelopes: Iterable[Envelope]) -> None:
        """Put messages that were taken in front again, in their order; they had their room already."""
        returned = list(envelopes)
        for envelope in returned:
            if type(envelope) is Signal:
                self._limit += 1
        self._return(returned)
        if self._closed:
            self._lose_all()
        elif not self.woken:
            self.woken = True
            self.wake()

    def place(self, reply: object) -> int | None:
        """The place of the message whose asker waits for ``reply``, from 1; ``None`` if it was taken."""
        for place, envelope in enumerate(self._waiting(), start=1):
            if envelope.reply_to is reply:
                return place
        return None

    def oldest(self) -> float | None:
        """Seconds since the message was sent that waits for longest; ``None`` if none waits."""
        waiting = self._waiting()
        return monotonic() - min(envelope.at for envelope in waiting) if waiting else None

    def get(self) -> PykkaEnvelope[Any]:
        """The next message; for pykka, which asks only if there is one.

        Raises:
            IndexError: There is none.
        """
        envelope = self.take()
        if envelope is None:
            raise IndexError("the mailbox is empty")
        return PykkaEnvelope(envelope.message, cast("Future[Any] | None", envelope.reply_to))

    def empty(self) -> bool:
        """Whether no message waits."""
        return not self._queue

    def close(self) -> None:
        """Answer what waits and whatever comes from now on: the actor is dead."""
        self._closed = True
        self._lose_all()

    def _make_queue(self) -> "ArrivalQueue | PriorityQueue":
        if self._queue is not None:
            return self._queue
        with _seldom:
            if self._queue is None:
                self._queue = (
                    ArrivalQueue() if self.policy.priority is None else PriorityQueue(self.policy.priority)
                )
            return self._queue

    def _return(self, envelopes: list[Envelope]) -> None:
        self._make_queue().put_back(envelopes)

    def _waiting(self) -> list[Envelope]:
        while True:
            try:
                return list(self._queue or ())
            except RuntimeError:  # another thread has put one meanwhile
                continue

    def _lose_all(self) -> None:
        while self._queue:
            if (envelope := self.take()) is not None:
                self.lose(envelope)

    def lose(self, envelope: Envelope) -> None:
        """Tell whoever should know that ``envelope`` will not be handled."""
        message, asker = envelope.message, envelope.reply_to
        stop = isinstance(message, ActorStop)
        reason = "actor is dead" if self._closed else "mailbox is full"
        if not stop and (asker is None or (self.policy.overflow == "dead_letter" and not self._closed)):
            self.dead.add(str(self), message, reason)
        if asker is None:
            return
        if stop:
            asker.offer(None)
        elif self._closed:
            asker.offer_exception(ActorDeadError(f"{self} stopped before handling the message"))
        else:
            asker.offer_exception(MailboxFull(str(self), self.policy.capacity))

    def __len__(self) -> int:
        return len(self._queue or ())

    def __str__(self) -> str:
        return "an actor" if self.cell is None else str(self.cell)


class OrderedMailbox(Mailbox):
    """A mailbox whose policy looks at what waits: it makes others wait, drops the oldest, or has priorities."""

    __slots__ = ("_lock", "_parked")

    def __init__(self, policy: MailboxPolicy) -> None:
        super().__init__(policy)
        self._parked: deque[_Parked] = deque()
        self._lock = threading.RLock()

    @override
    def add(self, envelope: Envelope) -> None:
        with self._lock:
            loser, parked = self._admit(envelope)
        if loser is not envelope and not self.woken:
            self.woken = True
            self.wake()
        if loser is not None:
            self.lose(loser)
        if parked is not None and parked.room is not None and not parked.room.wait(WAIT_SECONDS):
            self._give_up(parked)

    def _admit(self, envelope: Envelope) -> "tuple[Envelope | None, _Parked | None]":
        """Who finds no room, if anybody; and whether ``envelope`` waits for some."""
        queue = self._make_queue()
        if self._closed:
            return envelope, None
        is_signal = type(envelope) is Signal
        if is_signal and self._parked:  # it goes behind those that came before it, as in the order of arrival
            self._parked.append(_Parked(envelope, None))
            return None, None
        if is_signal or len(queue) < self._limit:
            queue.append(envelope)
            self.peak = max(self.peak, len(queue))
            return None, None
        if self.policy.overflow == "drop_oldest":
            oldest = queue.remove_oldest()
            queue.append(envelope)
            return oldest, None
        if self.policy.overflow == "wait" and len(self._parked) < self.policy.capacity:
            blocks = envelope.reply_to is None and asyncio._get_running_loop() is None
            parked = _Parked(envelope, threading.Event() if blocks else None)
            self._parked.append(parked)
            return None, parked
        return envelope, None

    @override
    def take(self) -> Envelope | None:
        with self._lock:
            envelope = super().take()
            if self._parked and self._queue is not None and len(self._queue) < self._limit:
                parked = self._parked.popleft()
                self._queue.append(parked.envelope)
                if parked.room is not None:
                    parked.room.set()
            return envelope

    @override
    def open(self) -> "tuple[Sized, Callable[[], Envelope | None]]":
        return self._make_queue(), self.take

    @override
    def _return(self, envelopes: list[Envelope]) -> None:
        with self._lock:
            super()._return(envelopes)

    @override
    def close(self) -> None:
        with self._lock:  # from here on none is admitted
            self._closed = True
        self._lose_all()

    @override
    def _waiting(self) -> list[Envelope]:
        with self._lock:
            return [*(self._queue or ()), *(parked.envelope for parked in self._parked)]

    def _give_up(self, parked: "_Parked") -> None:
        """The thread that told has waited long enough, unless room was found in this very moment."""
        with self._lock:
            if parked not in self._parked:
                return
            self._parked.remove(parked)
        self.lose(parked.envelope)


def make_mailbox(policy: MailboxPolicy = DEFAULT) -> Mailbox:
    """An empty mailbox with this policy."""
    lean = policy.priority is None and policy.overflow in ("reject", "dead_letter")
    return Mailbox(policy) if lean else OrderedMailbox(policy)


@dataclass(frozen=True, slots=True, eq=False)
class _Parked:
    """A message that waits for room, and what wakes the thread that waits with it."""

    envelope: Envelope
    room: threading.Event | None


def _nobody_waits() -> None:
    """The wake-up of a mailbox whose actor has not started."""
