"""The wait-for graph: who waits for whom, and asks that can never be answered."""

import asyncio
import threading
from types import TracebackType

from uno_actors.actors.ask import Envelope, Handles, Reply, being_handled
from uno_actors.errors import DeadlockError

_lock = threading.RLock()  # a signal handler may ask on the thread that it interrupts here


class waiting_for:  # noqa: N801 - used as a function in `with`
    """Note, inside the block, that the message being handled stands still until ``reply`` is there.

    Raises:
        DeadlockError: It can never come, for whoever must give it waits for this message.
    """

    __slots__ = ("_envelope", "_reply")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __enter__(self) -> None:
        envelope = being_handled.get()
        if envelope is not None and not (envelope.actor.handling is envelope and _runs(envelope.actor)):
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


def _runs(actor: Handles) -> bool:
    """Whether the caller is the handling itself: in its task, or on its worker thread."""
    if asyncio._get_running_loop() is None:
        return threading.get_ident() == actor.thread
    return actor.task is not None and asyncio.current_task() is actor.task


def _cycle(start: Envelope, reply: Reply) -> list[str] | None:
    """The names of those who would wait for each other, or ``None``."""
    path = [str(start.actor)]
    seen: set[int] = set()
    found = _follow(start, reply, path, seen)
    return path if found else None


def _follow(start: Envelope, reply: Reply, path: list[str], seen: set[int]) -> bool:
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
