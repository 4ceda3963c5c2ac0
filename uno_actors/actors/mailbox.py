"""The bounded queue in front of an actor."""

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, Protocol, cast, get_args

from typing_extensions import override

from uno_actors.actors.ask import AskTarget, Envelope, PendingReply, Signal
from uno_actors.actors.dead_messages import dead_messages
from uno_actors.actors.future import Future
from uno_actors.actors.message_queue import ArrivalQueue, PriorityQueue
from uno_actors.actors.pykka import ActorDeadError, ActorStop, PykkaEnvelope
from uno_actors.errors import MailboxFull
from uno_actors.quantities import check_count

CAPACITY = 1000
"""Messages that may wait in a mailbox by default."""

WAIT_SECONDS = 30.0
"""How long a thread that tells waits for room if the policy is to wait."""

Overflow = Literal["reject", "wait", "drop_oldest", "dead_letter"]


@dataclass(frozen=True, slots=True)
class MailboxPolicy:
    """How many messages an actor's mailbox holds, what happens when it is full, and in which order messages leave it.

    A full mailbox never raises in a sender that tells. Instead:

    - ``reject``: an ask gets `MailboxFull` immediately; a told message becomes a dead message.
    - ``wait``: an ask waits for room until its deadline; a thread that tells waits for at most `WAIT_SECONDS`; a
      message told on an event loop's thread, which cannot wait, is kept aside. As many messages as the mailbox holds
      may wait like this; further ones are treated as with ``reject``.
    - ``drop_oldest``: the oldest message makes room: if it was asked, its asker gets `MailboxFull`; if it was told,
      it becomes a dead message.
    - ``dead_letter``: the new message becomes a dead message; if it was asked, its asker gets `MailboxFull` too.

    Args:
        capacity: Messages that may wait. Signals (stop, and `Terminated`) do not count.
        overflow: See above.
        priority: Gives a message its place: lower numbers go first, equal ones in order of arrival. Among
            signals, `Terminated` goes first and the stop signal last. Default is the order of arrival.

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


class Schedulable(Protocol):
    """The turns of an actor, as its mailbox sees them."""

    def schedule(self) -> None:
        """Have a turn soon; from any thread."""


class _NotStarted:
    """Stands for the turns of an actor that has not started."""

    __slots__ = ()

    def schedule(self) -> None:
        """Do nothing: the start will schedule the first turn."""


NOT_STARTED = _NotStarted()

_once = threading.RLock()
"""Guards steps that happen once in a mailbox's life."""


class Mailbox:
    """Messages that wait for an actor; any thread may put, only the actor's turns take.

    It takes no lock, because single operations of a ``deque`` are atomic. Threads that put at the same moment may
    exceed the capacity by their number. After `close` every ask is answered with ``pykka.ActorDeadError`` and every
    told message becomes a dead message.

    Args:
        policy: See `MailboxPolicy`.

    Attributes:
        cell: Handles the messages.
        dead: Keeps messages that will not be handled.
        turns: Scheduled when there is a message to take, unless `woken`.
        woken: Whether a turn was scheduled and the actor has not become idle since.
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
        "turns",
        "woken",
    )

    def __init__(self, policy: MailboxPolicy = DEFAULT) -> None:
        self.policy = policy
        self._urn: str | None = None
        self.cell: AskTarget | None = None
        self.dead = dead_messages
        self.turns: Schedulable = NOT_STARTED
        self.woken = False
        self.peak = 0
        self._queue: ArrivalQueue | PriorityQueue | None = None  # made for the first message
        self._limit = policy.capacity  # of the queue; each signal that waits raises it by one
        self._closed = False

    @property
    def urn(self) -> str:
        """The globally unique name of the actor that owns the mailbox; made when first used."""
        if self._urn is None:
            with _once:
                if self._urn is None:
                    self._urn = uuid.uuid4().urn
        return self._urn

    @urn.setter
    def urn(self, urn: str) -> None:
        self._urn = urn

    def put(self, envelope: PykkaEnvelope[Any], /) -> None:
        """Accept one of pykka's envelopes."""
        asker = cast("Future[Any] | None", envelope.reply_to)
        if asker is not None:
            asker.target = self.cell
        if isinstance(envelope.message, ActorStop):
            self.add_stop(asker)
        else:
            self.add(Envelope(envelope.message, asker))

    def add_stop(self, asker: PendingReply | None = None) -> None:
        """Accept the signal to stop, behind the messages that wait."""
        self.add_signal(ActorStop(), asker)

    def add_signal(self, message: Any, asker: PendingReply | None = None) -> None:
        """Accept a signal; it does not count, and there is always room for it."""
        self._limit += 1
        self.add(Signal(message, asker))

    @property
    def room(self) -> int:
        """Number of messages that find room now; less than 0 if threads that put at the same moment exceeded it."""
        return self._limit - len(self)

    def signal_taken(self) -> None:
        """Note that a signal is being handled, so it no longer raises the limit."""
        self._limit -= 1

    def add(self, envelope: Envelope) -> None:
        """Accept ``envelope``, or treat it as the policy demands."""
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
        if self._closed:  # perhaps just now: the thread that takes an envelope out answers it
            self._lose_all()
        elif not self.woken:
            self.woken = True
            self.turns.schedule()

    def take(self) -> Envelope | None:
        """The next message, or ``None``."""
        try:
            return self._make_queue().popleft()
        except IndexError:
            return None

    def open(self) -> "tuple[Sized, Callable[[], Envelope | None]]":
        """For a turn: an object that is true while messages wait, and a function that takes the next one."""
        queue = self._make_queue()
        return queue, queue.popleft

    def put_back(self, envelopes: Iterable[Envelope]) -> None:
        """Put messages that were taken back in front, in their order; capacity does not limit them."""
        returned = list(envelopes)
        for envelope in returned:
            if type(envelope) is Signal:
                self._limit += 1
        self._return(returned)
        if self._closed:
            self._lose_all()
        elif not self.woken:
            self.woken = True
            self.turns.schedule()

    def place(self, reply: object) -> int | None:
        """The place of the message whose asker waits for ``reply``, from 1; ``None`` if it was taken."""
        for place, envelope in enumerate(self._waiting(), start=1):
            if envelope.reply_to is reply:
                return place
        return None

    def oldest(self) -> float | None:
        """Age in seconds of the oldest message that waits; ``None`` if none waits."""
        waiting = self._waiting()
        return monotonic() - min(envelope.at for envelope in waiting) if waiting else None

    def get(self) -> PykkaEnvelope[Any]:
        """The next message; for pykka, which calls it only if there is one.

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
        """Answer the messages that wait, and all that arrive from now on: the actor is dead."""
        self._closed = True
        self._lose_all()

    def _make_queue(self) -> "ArrivalQueue | PriorityQueue":
        if self._queue is not None:
            return self._queue
        with _once:
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
            except RuntimeError:  # another thread has just put one
                continue

    def _lose_all(self) -> None:
        while self._queue:
            if (envelope := self.take()) is not None:
                self.lose(envelope)

    def lose(self, envelope: Envelope) -> None:
        """Answer the asker of ``envelope``, which will not be handled, or keep it as a dead message."""
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
    """A mailbox whose policy needs a lock: it makes senders wait, drops the oldest message, or has priorities."""

    __slots__ = ("_lock", "_parked")

    def __init__(self, policy: MailboxPolicy) -> None:
        super().__init__(policy)
        self._parked: deque[_Parked] = deque()
        self._lock = threading.RLock()

    @property
    def parked(self) -> int:
        """Number of messages that wait for room."""
        return len(self._parked)

    @override
    def add(self, envelope: Envelope) -> None:
        with self._lock:
            loser, parked = self._admit(envelope)
        if loser is not envelope and not self.woken:
            self.woken = True
            self.turns.schedule()
        if loser is not None:
            self.lose(loser)
        if parked is not None and parked.room is not None and not parked.room.wait(WAIT_SECONDS):
            self._give_up(parked)

    def _admit(self, envelope: Envelope) -> "tuple[Envelope | None, _Parked | None]":
        """The envelope that finds no room, if any; and ``envelope`` as it waits for room, if it does."""
        queue = self._make_queue()
        if self._closed:
            return envelope, None
        is_signal = type(envelope) is Signal
        if is_signal and self._parked:  # it goes behind earlier messages, in order of arrival
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
        with self._lock:  # from here on nothing is admitted
            self._closed = True
        self._lose_all()

    @override
    def _waiting(self) -> list[Envelope]:
        with self._lock:
            return [*(self._queue or ()), *(parked.envelope for parked in self._parked)]

    def _give_up(self, parked: "_Parked") -> None:
        """Stop the wait of a thread that tells, unless there is room just now."""
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
    """A message that waits for room, and the event that wakes the thread that waits with it."""

    envelope: Envelope
    room: threading.Event | None
