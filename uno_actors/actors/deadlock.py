"""The wait-for graph: which actor waits for which, and asks that can therefore never be answered.

Actors that wait for each other in a cycle get a `DeadlockError` at once, not a timeout later. A wait counts only while
it lasts, and only where the handling itself is blocked: in its own task, or on the worker thread that runs it. Waiting
for the first of several replies is therefore never mistaken for a deadlock.
"""

import threading
from types import TracebackType
from typing import Any

from uno_actors.actors.ask import AskTarget, Envelope, PendingReply, being_handled
from uno_actors.errors import DeadlockError

_lock = threading.RLock()  # a signal handler may ask on the thread that it interrupts here


class waiting_for:  # noqa: N801 - used as a function in `with`
    """Note, inside the block, that the message being handled waits for ``reply``.

    Raises:
        DeadlockError: The reply can never come, because the actor that owes it waits for this message.
    """

    __slots__ = ("_envelope", "_reply")

    def __init__(self, reply: PendingReply) -> None:
        self._reply = reply

    def __enter__(self) -> None:
        envelope = being_handled.get()
        if envelope is not None and not (envelope.actor.handling is envelope and envelope.actor.runs_here()):
            envelope = None
        self._envelope = envelope
        if envelope is None:
            return
        with _lock:
            cycle = _cycle(envelope, self._reply)
            if cycle is not None:
                raise DeadlockError(cycle)
            actor = envelope.actor
            actor.waits = [*(actor.waits or ()), self._reply]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._envelope is not None:
            actor = self._envelope.actor
            with _lock:
                actor.waits = [reply for reply in actor.waits or () if reply is not self._reply]


class _Owed:
    """The reply that an actor would owe to the message being handled."""

    deadline = None

    def __init__(self, target: AskTarget) -> None:
        self.target = target

    def done(self) -> bool:
        return False

    def offer(self, value: Any) -> bool:
        return False

    def offer_exception(self, error: BaseException) -> bool:
        return False


def cycle_through(target: AskTarget) -> list[str] | None:
    """The names of the actors that would wait for each other if the message being handled waited for ``target`` too.

    ``None`` if no message is being handled, or the wait would end.
    """
    envelope = being_handled.get()
    if envelope is None or envelope.actor.handling is not envelope:
        return None
    with _lock:
        return _cycle(envelope, _Owed(target))


def _cycle(start: Envelope, reply: PendingReply) -> list[str] | None:
    """The names of the actors that would wait for each other, or ``None``."""
    path = [str(start.actor)]
    seen: set[int] = set()
    found = _follow(start, reply, path, seen)
    return path if found else None


def _follow(start: Envelope, reply: PendingReply, path: list[str], seen: set[int]) -> bool:
    target = reply.target
    busy = None if target is None or reply.done() else target.handling
    if busy is None or id(busy) in seen:
        return False
    seen.add(id(busy))
    path.append(str(busy.actor))
    if busy is start or any(_follow(start, other, path, seen) for other in busy.actor.waits or ()):
        return True
    path.pop()
    return False
