"""Child handles: how a supervisor starts, halts and stops a child, and the signals that it receives from it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from typing_extensions import override

from uno_actors.actors.ask import Envelope
from uno_actors.actors.cell import ActorCell
from uno_actors.actors.future import Future
from uno_actors.actors.pykka import ActorDeadError, PykkaActor
from uno_actors.actors.signals import Failure
from uno_actors.errors import describe
from uno_actors.supervision.spec import ChildSpec, Shutdown

Kind = Literal["handler", "actor", "supervisor", "process"]


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One supervisor, actor or handler of a running system.

    Attributes:
        name: Name of the child.
        kind: Whether it is a supervisor, an actor or a handler; a worker process under its supervisor process.
        state: For a handler or an actor the state in its statistics; for a supervisor ``running`` or ``stopped``.
            ``restarting`` while its supervisor restarts it.
        restart: See `uno_actors.supervision.spec.RestartType`.
        restarts: How often it was restarted.
        waiting: Messages or events in its queue.
        children: The children of a supervisor, in the order of their start.
    """

    name: str
    kind: Kind
    state: str
    restart: str = "permanent"
    restarts: int = 0
    waiting: int = 0
    children: "tuple[TreeNode, ...]" = ()

    def walk(self) -> "Iterator[TreeNode]":
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


# --- signals to the supervisor ---


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """A child has failed.

    Attributes:
        child: Its handle.
        incarnation: The number of the start since which it ran; see `ChildHandle`.
        error: What it raised.
        streak: How often the same event or message has failed before, if known.
    """

    child: "ChildHandle"
    incarnation: int
    error: BaseException
    streak: int | None = None


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """A child has exited by itself."""

    child: "ChildHandle"
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """A restart of a child has succeeded."""

    child: "ChildHandle"
    incarnation: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A restart of a child has failed."""

    child: "ChildHandle"
    incarnation: int
    error: BaseException


ChildSignal = ChildFailed | ChildEnded | ChildStarted | StartFailed


# --- handles ---


class ChildHandle:
    """Starts, halts and stops one child; lives on the event loop.

    Args:
        name: Name of the child.
        spec: Its specification.
        tell: Sends a signal to its supervisor; from any thread.

    Attributes:
        incarnation: Number of the current start, from 1; 0 before the first.
        restarts: How often the child was restarted.
    """

    kind: Kind

    def __init__(self, name: str, spec: ChildSpec, tell: Callable[[ChildSignal], None]) -> None:
        self.name = name
        self.spec = spec
        self.incarnation = 0
        self.restarts = 0
        self._tell = tell

    async def start(self) -> None:
        """Start the child, or restart it after a failure or a halt; messages that wait for it stay.

        Raises:
            Exception: What its start raised.
        """
        raise NotImplementedError

    async def halt(self, until: float | None = None) -> None:
        """End the running instance but keep messages that wait; by ``until`` of ``time.monotonic`` at the latest."""
        raise NotImplementedError

    async def rest(self) -> None:
        """End the running instance until the supervisor starts again, if it does; keep messages that wait."""
        await self.halt()

    async def stop(self, until: float | None = None) -> None:
        """Stop the child for good; by ``until`` of ``time.monotonic`` at the latest."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Stop the child for good without waiting for anything."""
        raise NotImplementedError

    def resume(self) -> None:
        """Let a failed child continue unchanged, without the message or event it failed at; not for supervisors."""
        raise NotImplementedError

    def node(self, *, restarting: bool) -> TreeNode:
        """Its node in the tree."""
        raise NotImplementedError

    async def _within(self, until: float | None, work: Awaitable[object]) -> bool:
        """Await ``work`` for as long as the child may take to stop; return whether it finished in time."""
        return await within(self.spec.patience, until, work)


async def within(patience: Shutdown, until: float | None, work: Awaitable[object]) -> bool:
    """Await ``work`` for ``patience``, but not beyond ``until`` (monotonic); return whether it finished in time."""
    limits = [] if until is None else [until - time.monotonic()]
    if not isinstance(patience, str):
        limits.append(patience)
    elif patience == "kill":
        limits.append(0.0)
    try:
        async with asyncio.timeout(max(0.0, min(limits)) if limits else None):
            await work
    except TimeoutError:
        return False
    return True


class CellChild(ChildHandle):
    """A child that is one actor."""

    _cell: ActorCell | None = None
    _retry: Envelope | None = None  # the message it failed at last, which is no longer in the mailbox

    def _make(self) -> "Future[Any]":
        """Make and start its cell; the future is set when it has started."""
        raise NotImplementedError

    def _message_again(self) -> Envelope | None:
        """Before a restart: the message to try again."""
        return None

    @override
    async def start(self) -> None:
        self.incarnation += 1
        cell = self._cell
        if cell is not None and cell.is_suspended:
            self.restarts += 1
            again = self._message_again()
            self._retry = None  # from here on it is in the mailbox, and may fail again at any moment
            try:
                restarted = cell.restart(again)
            except BaseException:
                self._retry = again
                raise
            await restarted
        else:
            self.restarts += self.incarnation > 1
            await self._make()

    @override
    async def halt(self, until: float | None = None) -> None:
        cell = self._cell
        if cell is not None and not cell.is_suspended:
            await self._end(cell, until, cell.halt)

    @override
    async def stop(self, until: float | None = None) -> None:
        cell, self._cell = self._cell, None
        if cell is not None:
            try:
                await self._end(cell, until, cell.stop)
            except asyncio.CancelledError:  # the caller no longer waits
                cell.kill()
                raise

    async def _end(self, cell: ActorCell, until: float | None, end: Callable[[], Future[None]]) -> None:
        if self.spec.patience != "kill":
            with suppress(ActorDeadError):  # it has ended in the meantime
                if await self._within(until, end()):
                    return
                cell.dispatcher.log.warning("actor did not stop in time and is abandoned", actor=str(cell))
        self._cell = None
        cell.kill()

    @override
    def abandon(self) -> None:
        cell, self._cell = self._cell, None
        if cell is not None:
            cell.kill()

    def _failed(self, failure: Failure) -> None:
        """Called by the cell, on any thread."""
        if not failure.while_starting:  # otherwise `start` raises it
            self._tell(ChildFailed(self, self.incarnation, failure.error))


class ActorHost(Protocol):
    """Where plain actors live."""

    def spawn_child(
        self,
        factory: Callable[[], PykkaActor],
        name: str | None,
        *,
        own_thread: bool,
        on_failed: Callable[[Failure], None],
        on_ended: Callable[[ActorCell], None],
    ) -> tuple[ActorCell, Future[Any]]:
        """Make a cell and start it; the future is set when it has started."""


class ActorChild(CellChild):
    """A child that is a plain actor: a message that it fails at is retried, and finally becomes a dead message."""

    kind = "actor"

    def __init__(
        self, name: str, spec: ChildSpec, tell: Callable[[ChildSignal], None], host: ActorHost
    ) -> None:
        super().__init__(name, spec, tell)
        self._host = host
        self._tried: Envelope | None = None  # the message that it failed at last
        self._attempts = 0  # at this message
        self._error: BaseException | None = None
        self._is_up = False  # its cell has started, so its end is not a failed start

    @override
    def _make(self) -> Future[Any]:
        spec = self.spec
        self._is_up = False
        self._cell, started = self._host.spawn_child(
            lambda: spec.run(*spec.args, **spec.kwargs),
            spec.name,
            own_thread=spec.dispatcher == "thread",
            on_failed=self._failed,
            on_ended=self._ended,
        )
        started.add_done_callback(self._has_started)
        return started

    def _has_started(self, started: Future[Any]) -> None:
        with suppress(Exception):
            started.get()
            self._is_up = True

    @override
    def _failed(self, failure: Failure) -> None:
        if failure.message is not None:
            self._attempts = self._attempts + 1 if failure.message is self._tried else 1
            self._tried = self._retry = failure.message
            self._error = failure.error
        super()._failed(failure)

    def _ended(self, cell: ActorCell) -> None:
        """Called when the cell has ended, on any thread; it exited by itself unless this handle has stopped it."""
        self._give_up_message(cell)
        if self._cell is cell:
            self._cell = None
            if self._is_up:
                self._tell(ChildEnded(self, self.incarnation))

    @override
    def _message_again(self) -> Envelope | None:
        if self._attempts >= (self.spec.max_attempts or 1) and self._cell is not None:
            self._give_up_message(self._cell)
        return self._retry

    @override
    def resume(self) -> None:
        if self._cell is not None:
            self._give_up_message(self._cell)
            self._cell.resume()

    def _give_up_message(self, cell: ActorCell) -> None:
        message, self._retry = self._retry, None
        if message is not None and self._error is not None:
            reason = f"the actor failed at it, at attempt {self._attempts}: {describe(self._error)}"
            cell.lose(message, reason)

    @override
    def node(self, *, restarting: bool) -> TreeNode:
        state, waiting = "stopped", 0
        if self._cell is not None:
            statistics = self._cell.statistics()
            state, waiting = statistics.state, statistics.waiting
        return TreeNode(
            self.name,
            self.kind,
            "restarting" if restarting else state,
            self.spec.restart,
            self.restarts,
            waiting,
        )
