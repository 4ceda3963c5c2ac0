"""Which handlers can read a store with several logs: those that need no order of all events."""

from collections.abc import Iterable

from uno_actors.errors import InvalidHandler
from uno_actors.handlers.spec import HandlerSpec


def check_log_order(specs: Iterable[HandlerSpec], logs: int) -> None:
    """Refuse handlers that cannot read the logs of a store each by itself.

    Args:
        specs: The handlers, or their partitions.
        logs: The number of logs of the store.

    Raises:
        InvalidHandler: There is one: it is not partitioned, or its partitions do not match the logs.
    """
    if logs == 1:
        return
    for spec in specs:
        name = spec.whole().name
        if not spec.partitions:
            raise InvalidHandler(
                f"handler {name} needs the order of all events, and the store has {logs} logs, which have none between"
                " them: if the order of the events of each aggregate is enough for it, give it partitioned=True; else"
                " use a store with one log"
            )
        if spec.partitions % logs:
            raise InvalidHandler(
                f"handler {name} has {spec.partitions} partitions and the store {logs} logs: each partition reads one"
                f" log, so their number must be a multiple of {logs}; partitioned=True chooses one"
            )
        if isinstance(spec.start, int):
            raise InvalidHandler(
                f"handler {name} starts after position {spec.start}, which is a place in one log at most, and the store"
                f" has {logs}: start it at 'earliest', 'latest' or a time"
            )
