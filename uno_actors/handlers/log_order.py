"""Which handlers can read a store with several logs: those that need no order of all events."""

from collections.abc import Iterable

from uno_actors.errors import InvalidHandler
from uno_actors.handlers.spec import HandlerSpec


def check_log_order(specs: Iterable[HandlerSpec], logs: int) -> None:
    """Refuse handlers that need one order of all events, if the store has several logs.

    Args:
        specs: The handlers.
        logs: The number of logs of the store.

    Raises:
        InvalidHandler: There is one.
    """
    if logs == 1:
        return
    for spec in specs:
        raise InvalidHandler(
            f"handler {spec.name} needs the order of all events, and the store has {logs} logs, which have none between"
            " them: use a store with one log"
        )
