"""What actors and handlers are working at: for operators who look for the slow one."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from uno_actors.actors.inspection import line_in
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
    now = runtime.clock.monotonic()
    for child in tuple(runtime.tree.handlers()):
        since, position = child.subscription.busy_since, child.subscription.busy_at
        if since is not None and now - since > after:
            yield Busy(child.name, f"the event at position {position}", now - since, child.line)
