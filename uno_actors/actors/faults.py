"""What happens when an actor fails: it stops, or its supervisor restarts it, resumes it or stops it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from uno_actors.actors.ask import Envelope, Signal
from uno_actors.actors.future import Future
from uno_actors.actors.mailbox import Mailbox
from uno_actors.actors.pykka import ActorRegistry, PykkaActor
from uno_actors.actors.relations import Relations
from uno_actors.actors.signals import Calls, Failure, Halt
from uno_actors.actors.stop_flag import StopFlag, once
from uno_actors.errors import bounded_traceback, shown
from uno_actors.logs import Logger


class CanFail(Protocol):
    """What `Faults` needs from its cell."""

    actor: Any
    inbox: Mailbox
    stopped: StopFlag
    is_open: bool
    was_killed: bool

    @property
    def log(self) -> Logger:
        """With its names bound."""

    @property
    def relations(self) -> Relations:
        """Its relations to others."""

    def replace_instance(self, new: PykkaActor) -> None:
        """Replace the instance by a new one, which has not started."""

    def begin_again(self, retry: Envelope | None) -> None:
        """Start the new instance; it handles ``retry`` first, if there is one."""

    def schedule(self) -> None:
        """Have a turn soon."""

    def retire(self) -> None:
        """Handle nothing more."""

    def stop_now(self) -> Calls:
        """Stop in this turn."""

    def is_stashed(self, envelope: Envelope) -> bool:
        """Whether the message is set aside."""

    def done_with(self, envelope: Envelope) -> None:
        """Note that the handling of a message has ended, without a reply."""


def unhandled(cell: object) -> str:
    """The text of the log for an error that no asker gets; it is pykka's."""
    return f"Unhandled exception in {cell}:"


class Faults:
    """The failures of one actor.

    Args:
        cell: The actor's cell.
        factory: Makes the instance for a restart.
        on_failed: The supervisor's function, called with each failure that no asker learns of.
        stops_all: Whether an error that is not an ``Exception`` stops all actors of pykka's registry.

    Attributes:
        restarts: How often the actor was restarted.
        count: Messages whose handling raised.
        is_suspended: Whether the instance has failed or was halted, so that nothing is handled until `restart` or
            `resume`.
    """

    # Class attributes are the defaults: most actors never fail.
    restarts = 0
    count = 0
    is_suspended = False
    _restarted: Future[None] | None = None  # to be set when a new instance has started
    _halted: Future[None] | None = None  # to be set when the instance has ended

    def __init__(
        self,
        cell: CanFail,
        factory: Callable[[], PykkaActor] | None,
        on_failed: Callable[[Failure], None] | None,
        *,
        stops_all: bool,
    ) -> None:
        self._cell = cell
        self._factory = factory
        self._on_failed = on_failed
        self._stops_all = stops_all

    # --- what the supervisor asks for ---

    def restart(self, retry: Envelope | None) -> Future[None]:
        """Replace a failed or halted instance by a new one behind the same mailbox and reference.

        Args:
            retry: A message that the new instance handles first.

        Returns:
            Set when ``on_start`` has succeeded, or to its error, with which ``on_failed`` is called too.

        Raises:
            RuntimeError: There is no factory.
        """
        if self._factory is None:
            raise RuntimeError(f"{self._cell} has no factory to be restarted from")
        self._restarted = restarted = Future[None]()
        self._cell.replace_instance(self._factory())
        self.restarts += 1
        self.is_suspended = False
        self._cell.begin_again(retry)
        return restarted

    def resume(self) -> None:
        """Let a failed instance continue unchanged with the next message."""
        self.is_suspended, self._cell.is_open = False, True
        self._cell.schedule()

    def halt(self) -> Future[None]:
        """End the instance after the message that it is handling, for `restart`; the future is set when it has."""
        halted: Future[None] = Future()
        with once:
            if self.is_suspended or self._cell.stopped.up:
                halted.offer(None)
                return halted
            if self._halted is not None:
                return self._halted
            self._halted = halted
        self._cell.inbox.put_back([Signal(Halt(), halted)])  # in front of the messages that wait
        return halted

    def halted(self) -> None:
        """The instance has ended because of `halt`."""
        self.is_suspended = True
        self._cell.is_open = False
        self._halted = None

    def end_restart(self, error: BaseException | None = None) -> None:
        """Tell the caller of `restart`, if there is one, that the instance has started or failed to."""
        restarted, self._restarted = self._restarted, None
        if restarted is None:
            return
        if error is None:
            restarted.offer(None)
        else:
            restarted.offer_exception(error)

    # --- what fails ---

    def failed_to_start(self, error: BaseException) -> None:
        """``on_start`` of a supervised or restarted instance raised ``error``."""
        self._suspend(error)
        self.end_restart(error)
        self._tell(Failure(error, while_starting=True))

    def failed_at(self, envelope: Envelope, error: BaseException) -> Calls:
        """The asker receives the error and the actor continues; if no asker waits, the actor has failed."""
        cell, asker = self._cell, envelope.reply_to
        self.count += 1
        if asker is not None:  # first of all: everything after it may take long, or fail
            cell.done_with(envelope)
            if not cell.is_stashed(envelope):
                # Frames of the error's traceback hold the envelope: without this there would be a cycle.
                envelope.reply_to = None
            asker.offer_exception(error)
        if not cell.was_killed:
            if self._stops_all and not isinstance(error, (Exception, asyncio.CancelledError)):
                yield from self._stop_all(error)
            elif asker is None:
                yield from self._fail(error, envelope)
            else:
                text = f"Exception returned from {cell} to caller:"
                cell.log.info(text, exc_info=error)
        if asker is None:
            cell.done_with(envelope)

    def _fail(self, error: BaseException, envelope: Envelope) -> Calls:
        """Let ``on_failure`` run; the supervisor decides what follows."""
        bounded_traceback(error.__traceback__)
        self._suspend(error)
        try:
            yield partial(self._cell.actor.on_failure, type(error), error, error.__traceback__)
        except BaseException:
            self._cell.log.exception(unhandled(self._cell))
        self._tell(Failure(error, while_starting=False, message=envelope))

    def _stop_all(self, error: BaseException) -> Calls:
        """Do what pykka does on SystemExit and the like, but without waiting, so it cannot hang."""
        text = f"{shown(error, repr)} in {self._cell}. Stopping all actors."
        self._cell.log.debug(text)
        yield from self._cell.stop_now()
        ActorRegistry.stop_all(block=False)

    def _suspend(self, error: BaseException) -> None:
        """Handle no message until ``on_failure`` has run and the supervisor has decided; without a supervisor, stop."""
        with once:
            has_supervisor = self._on_failed is not None and not self._cell.relations.awaits_stop
            if has_supervisor:
                self.is_suspended = True
            halted, self._halted = self._halted, None
        if has_supervisor:
            self._cell.is_open = False
        else:
            self._cell.log.error(unhandled(self._cell), exc_info=error)
            self._cell.retire()
        if halted is not None:
            halted.offer(None)  # which also withdraws the signal, if that still waits

    def _tell(self, failure: Failure) -> None:
        if self._on_failed is not None:
            self._on_failed(failure)
