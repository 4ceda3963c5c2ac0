"""The bounded queue in front of an actor, and what becomes of messages that find no room or no actor."""

import asyncio
import heapq
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Literal, cast, get_args

from uno_actors._pykka import ActorDeadError, ActorStop, Envelope
from uno_actors.asks import Answers
from uno_actors.errors import MailboxFull
from uno_actors.future import Future
from uno_actors.log import get_logger

CAPACITY = 1000
"""Messages that may wait before a mailbox has no room for more."""
WAIT_SECONDS = 30.0
"""How long a thread that tells waits for room, where the policy is to wait."""
KEPT = 1000
"""Dead messages that are kept to be looked at; older ones are forgotten."""
LOGGED_PER_SECOND = 10
"""Dead messages that are logged in one second; the others are counted."""

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
        capacity: Messages that may wait. Stop signals do not count.
        overflow: See above.
        priority: Gives a message its place: lower numbers go first, equal ones in order of arrival. Stop
            signals go last. Default is the order of arrival.

    Raises:
        ValueError: A value is out of its range.
    """

    capacity: int = CAPACITY
    overflow: Overflow = "reject"
    priority: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"a mailbox's capacity must be 1 or more; found {self.capacity}")
        if self.overflow not in get_args(Overflow):
            allowed = ", ".join(get_args(Overflow))
            raise ValueError(f"a mailbox's overflow must be one of {allowed}; found {self.overflow!r}")


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that was told and will not be handled.

    Attributes:
        actor: Whom it was for.
        message: The message.
        reason: Why.
        at: When.
    """

    actor: str
    message: Any
    reason: str
    at: datetime


class DeadMessages:
    """Keeps the last `KEPT` dead messages and logs them, `LOGGED_PER_SECOND` at the most; from any thread.

    Attributes:
        count: How many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept: deque[DeadMessage] = deque(maxlen=KEPT)
        self._second = 0
        self._logged = 0
        self._silent = 0
        self._lock = threading.Lock()
        self._log = get_logger()

    def add(self, actor: str, message: object, reason: str) -> None:
        """Keep a message that will not be handled, and why."""
        self._kept.append(DeadMessage(actor, message, reason, datetime.now(UTC)))
        with self._lock:
            self.count += 1
            if (second := int(time.monotonic())) != self._second:
                self._second, self._logged = second, 0
            self._logged += 1
            if self._logged > LOGGED_PER_SECOND:
                self._silent += 1
                return
            silent, self._silent = self._silent, 0
        more = {"others_not_logged": silent} if silent else {}
        self._log.warning(
            "message dropped", actor=actor, message=type(message).__name__, reason=reason, **more
        )

    def __iter__(self) -> Iterator[DeadMessage]:
        return iter(tuple(self._kept))


dead_messages = DeadMessages()
"""Those of actors that no system runs."""


class Mailbox:
    """Messages that wait for an actor; any thread may put, the actor's execution takes.

    After `close` every ask is answered with ``pykka.ActorDeadError`` and whatever is told is a dead message.

    Args:
        policy: See `MailboxPolicy`.

    Attributes:
        owner: Name of the actor.
        process: What handles the messages.
        dead: Where messages go that will not be handled.
        wake: Called when there is something to take.
        peak: The most messages that ever waited.
    """

    __slots__ = (
        "_closed",
        "_lock",
        "_parked",
        "_queue",
        "_signals",
        "dead",
        "owner",
        "peak",
        "policy",
        "process",
        "wake",
    )

    def __init__(self, policy: MailboxPolicy | None = None) -> None:
        self.policy = policy or MailboxPolicy()
        self.owner = "an actor"
        self.process: Answers | None = None
        self.dead = dead_messages
        self.wake: Callable[[], None] = _nobody_waits
        self.peak = 0
        self._queue = _Queue() if self.policy.priority is None else _PriorityQueue(self.policy.priority)
        self._parked: deque[_Parked] = deque()
        self._signals = 0  # stop signals in the queue, which do not count
        self._lock = threading.Lock()
        self._closed = False

    def put(self, envelope: Envelope[Any], /) -> None:
        """Accept ``envelope``, or do with it what the policy says; blocks only where that is to wait."""
        if envelope.reply_to is not None:
            _asker(envelope).target = self.process
        with self._lock:
            loser, parked = self._admit(envelope)
        if loser is not envelope:
            self.wake()
        if loser is not None:
            self._lose(loser)
        if parked is not None and parked.room is not None and not parked.room.wait(WAIT_SECONDS):
            self._give_up(parked)

    def _admit(self, envelope: Envelope[Any]) -> "tuple[Envelope[Any] | None, _Parked | None]":
        """Who finds no room, if anybody; and whether ``envelope`` waits for some."""
        if self._closed:
            return envelope, None
        if self._has_room() or isinstance(envelope.message, ActorStop):
            self._accept(envelope)
            return None, None
        if self.policy.overflow == "drop_oldest":
            oldest = self._queue.remove_oldest()
            self._accept(envelope)
            return oldest, None
        if self.policy.overflow == "wait" and len(self._parked) < self.policy.capacity:
            blocks = envelope.reply_to is None and asyncio._get_running_loop() is None
            parked = _Parked(envelope, threading.Event() if blocks else None)
            self._parked.append(parked)
            return None, parked
        return envelope, None

    def _has_room(self) -> bool:
        return len(self._queue) - self._signals < self.policy.capacity

    def _accept(self, envelope: Envelope[Any]) -> None:
        self._signals += isinstance(envelope.message, ActorStop)
        self._queue.append(envelope)
        self.peak = max(self.peak, len(self._queue))

    def take(self) -> Envelope[Any] | None:
        """The next message, or ``None``."""
        with self._lock:
            if not self._queue:
                return None
            envelope = self._queue.popleft()
            self._signals -= isinstance(envelope.message, ActorStop)
            if self._parked and self._has_room():
                self._admit_parked(self._parked.popleft())
            return envelope

    def _admit_parked(self, parked: "_Parked") -> None:
        self._accept(parked.envelope)
        if parked.room is not None:
            parked.room.set()

    def put_back(self, envelopes: Iterable[Envelope[Any]]) -> None:
        """Put messages that were taken in front again, in their order; they had their room already."""
        with self._lock:
            self._queue.put_back(list(envelopes))
        self.wake()

    def place(self, envelope: Envelope[Any]) -> int | None:
        """The place of ``envelope`` in the queue, from 1; ``None`` if it was taken."""
        with self._lock:
            waiting = [*self._queue, *(parked.envelope for parked in self._parked)]
        return waiting.index(envelope) + 1 if envelope in waiting else None

    def get(self) -> Envelope[Any]:
        """The next message; for pykka, which asks only if there is one.

        Raises:
            IndexError: There is none.
        """
        envelope = self.take()
        if envelope is None:
            raise IndexError("the mailbox is empty")
        return envelope

    def empty(self) -> bool:
        """Whether no message waits."""
        return not self._queue

    def close(self) -> None:
        """Answer what waits and whatever comes from now on: the actor is dead."""
        with self._lock:
            self._closed = True
            waiting = [*self._queue, *(parked.envelope for parked in self._parked)]
            rooms = [parked.room for parked in self._parked if parked.room is not None]
            self._queue.clear()
            self._parked.clear()
        for room in rooms:
            room.set()
        for envelope in waiting:
            self._lose(envelope)

    def _give_up(self, parked: "_Parked") -> None:
        """The thread that told has waited long enough, unless room was found in this very moment."""
        with self._lock:
            if parked not in self._parked:
                return
            self._parked.remove(parked)
        self._lose(parked.envelope)

    def _lose(self, envelope: Envelope[Any]) -> None:
        """Tell whoever should know that ``envelope`` will not be handled."""
        message, told = envelope.message, envelope.reply_to is None
        stop = isinstance(message, ActorStop)
        reason = "actor is dead" if self._closed else "mailbox is full"
        if not stop and (told or (self.policy.overflow == "dead_letter" and not self._closed)):
            self.dead.add(self.owner, message, reason)
        if told:
            return
        asker = _asker(envelope)
        if stop:
            asker.offer(None)
        elif self._closed:
            asker.offer_exception(ActorDeadError(f"{self.owner} stopped before handling the message"))
        else:
            asker.offer_exception(MailboxFull(self.owner, self.policy.capacity))

    def __len__(self) -> int:
        return len(self._queue)


@dataclass(frozen=True, slots=True, eq=False)
class _Parked:
    """A message that waits for room, and what wakes the thread that waits with it."""

    envelope: Envelope[Any]
    room: threading.Event | None


class _Queue(deque[Envelope[Any]]):
    """Messages in order of arrival."""

    def remove_oldest(self) -> Envelope[Any] | None:
        """Take out the message that waits for longest; stop signals stay."""
        for place, envelope in enumerate(self):
            if not isinstance(envelope.message, ActorStop):
                del self[place]
                return envelope
        return None

    def put_back(self, envelopes: list[Envelope[Any]]) -> None:
        self.extendleft(reversed(envelopes))


class _PriorityQueue:
    """Messages by priority, equal ones in order of arrival; stop signals last."""

    def __init__(self, priority: Callable[[Any], float]) -> None:
        self._priority = priority
        self._heap: list[tuple[float, int, Envelope[Any]]] = []
        self._arrivals = count()
        self._returns = count(-1, -1)

    def append(self, envelope: Envelope[Any]) -> None:
        heapq.heappush(self._heap, (self._place(envelope), next(self._arrivals), envelope))

    def popleft(self) -> Envelope[Any]:
        return heapq.heappop(self._heap)[2]

    def remove_oldest(self) -> Envelope[Any] | None:
        waiting = [entry for entry in self._heap if not isinstance(entry[2].message, ActorStop)]
        if not waiting:
            return None
        oldest = min(waiting, key=lambda entry: entry[1])
        self._heap.remove(oldest)
        heapq.heapify(self._heap)
        return oldest[2]

    def put_back(self, envelopes: list[Envelope[Any]]) -> None:
        for envelope in reversed(envelopes):  # in front of equals that never were taken
            heapq.heappush(self._heap, (self._place(envelope), next(self._returns), envelope))

    def clear(self) -> None:
        self._heap.clear()

    def _place(self, envelope: Envelope[Any]) -> float:
        return math.inf if isinstance(envelope.message, ActorStop) else self._priority(envelope.message)

    def __iter__(self) -> Iterator[Envelope[Any]]:
        return (envelope for _, _, envelope in sorted(self._heap, key=lambda entry: entry[:2]))

    def __len__(self) -> int:
        return len(self._heap)


def _asker(envelope: Envelope[Any]) -> Future[Any]:
    """Who waits for a reply and may have given up meanwhile; all that come to an `Actor` are of our class."""
    return cast("Future[Any]", envelope.reply_to)


def _nobody_waits() -> None:
    """The wake-up of a mailbox whose actor has not started."""
