"""What actors and handlers are working at: for operators who look for the slow one."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from uno_actors.actors.inspection import line_in
from uno_actors.system.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Busy:
    """An actor or a handler that is handling a message or an event now.

    Attributes:
        who: Its name.
        what: The class of the message, or the position of the event.
        seconds: Since when.
        line: The line of its code that runs or waits now: ``file:line in function``; ``None`` if none is known.
    """

    who: str
    what: str
    seconds: float
    line: str | None


def busy_in(runtime: Runtime, after: float) -> Iterator[Busy]:
    """The actors and handlers of a running system that have worked at one thing for longer than ``after`` seconds.

    Aggregates are not among them: their methods hold the event loop, and so would hold this function, too.
    """
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
