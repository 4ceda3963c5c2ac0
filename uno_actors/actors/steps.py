"""The steps of an actor's life that call the actor's own functions, each written once for loop and worker threads.

Each is a generator of `Calls`: it yields the function to call and receives the result or the error.
"""

from functools import partial
from typing import Any, Protocol

from uno_actors.actors.ask import Envelope, Signal
from uno_actors.actors.faults import Faults, unhandled
from uno_actors.actors.future import Future
from uno_actors.actors.mailbox import Mailbox
from uno_actors.actors.pykka import ActorStop, ProxyCall, ProxyGetAttr, ProxySetAttr, get_attr_directly
from uno_actors.actors.relations import Relations
from uno_actors.actors.signals import Calls, Halt
from uno_actors.logs import Logger


class Lives(Protocol):
    """What the steps need from a cell."""

    actor: Any
    inbox: Mailbox
    handling: Envelope | None
    is_set_up: bool
    was_killed: bool
    has_on_start: bool
    has_on_stop: bool
    started: Future[Any] | None

    @property
    def log(self) -> Logger:
        """With its name bound."""

    @property
    def faults(self) -> Faults:
        """What happens when it fails."""

    @property
    def relations(self) -> Relations:
        """Its relations to others."""

    @property
    def has_children(self) -> bool:
        """Whether it has children now."""

    def has_begun(self) -> None:
        """``on_start`` has succeeded."""

    def retire(self) -> None:
        """Handle nothing more."""

    def cancel_timers(self) -> None:
        """Cancel the actor's timers."""

    def succeeded(self, envelope: Envelope, response: Any) -> None:
        """Note that a message was handled."""


def set_up(cell: Lives) -> Calls:
    """Run ``on_start``."""
    cell.is_set_up = True
    try:
        if cell.has_on_start:
            yield cell.actor.on_start
    except BaseException as error:  # noqa: BLE001 - one actor's SystemExit is that actor's failure
        if cell.started is None:
            cell.faults.failed_to_start(error)
        else:
            cell.retire()
            cell.started.offer_exception(error)
    else:
        cell.has_begun()
    cell.started = None


def handle(cell: Lives, envelope: Envelope) -> Calls:
    """Handle any message."""
    try:
        response = yield from _receive(cell, envelope.message)
    except BaseException as error:  # noqa: BLE001 - as above
        yield from cell.faults.failed_at(envelope, error)
    else:
        cell.succeeded(envelope, response)


def _receive(cell: Lives, message: Any) -> Calls:
    actor = cell.actor
    if isinstance(message, ActorStop):
        return (yield from stop_now(cell))
    if isinstance(message, Halt):
        cell.inbox.signal_taken()
        yield from end_instance(cell)
        return cell.faults.halted()
    if isinstance(message, ProxyCall):
        callee = get_attr_directly(actor, message.attr_path)
        return (yield partial(callee, *message.args, **message.kwargs))
    if isinstance(message, (ProxyGetAttr, ProxySetAttr)):
        return actor._handle_receive(message)
    if type(cell.handling) is Signal:
        cell.inbox.signal_taken()
    return (yield partial(actor.on_receive, message))


def stop_now(cell: Lives) -> Calls:
    """Stop in this turn."""
    cell.retire()
    yield from end_instance(cell)


def end_instance(cell: Lives) -> Calls:
    """Stop the children, then run ``on_stop``."""
    cell.cancel_timers()
    if cell.has_children:
        yield cell.relations.stop_children
    try:
        if cell.has_on_stop:
            yield cell.actor.on_stop
    except BaseException:
        if not cell.was_killed:
            cell.log.exception(unhandled(cell))
