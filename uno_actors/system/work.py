"""What actors and handlers are working at: for operators who look for the slow one."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from uno_actors.actors.inspection import line_in
from uno_actors.handlers.child import HandlerChild
from uno_actors.system.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Busy:
    """An actor or a handler that is handling a message or an event now, or an aggregate whose command waits.

    Attributes:
        who: Its name.
        what: The class of the message or the command, or the position of the event.
        seconds: Since when.
        line: The line of its code that runs or waits now: ``file:line in function``; ``None`` if none is known.
    """

    who: str
    what: str
    seconds: float
    line: str | None


def busy_in(runtime: Runtime, after: float) -> Iterator[Busy]:
    """The actors and handlers of a running system that have worked at one thing for longer than ``after`` seconds.

    A method of an aggregate holds the event loop, and so would hold this function, too. Of the aggregates, it is the
    one with the command that has waited longest: for the store, or behind other commands.
    """
    waited, command = runtime.aggregates.oldest(), runtime.aggregates.oldest_command
    if waited is not None and command is not None and waited > after:
        yield Busy(command[0], command[1], waited, None)
    now = monotonic()
    for cell in tuple(runtime.actors.cells):
        handling = cell.handling
        if handling is not None and now - handling.since > after:
            yield Busy(str(cell), type(handling.message).__name__, now - handling.since, line_in(cell))
    for child in tuple(runtime.tree.handlers()):
        seconds, position = seconds_of(child, runtime), child.subscription.busy_at
        if seconds > after:
            what = (
                "a call that it no longer waits for"
                if position is None
                else f"the event at position {position}"
            )
            yield Busy(child.name, what, seconds, child.line)


def seconds_of(child: HandlerChild, runtime: Runtime) -> float:
    """Seconds since which a handler is at work; 0 if it is not."""
    subscription = child.subscription
    if subscription.busy_since is not None:
        return runtime.clock.monotonic() - subscription.busy_since
    # It has given up its turn, and a function on a thread cannot be stopped.
    busy = runtime.dispatcher.workers.busy
    begun = [busy[thread] for thread in tuple(subscription.threads) if thread in busy]
    return monotonic() - min(begun) if begun else 0.0
