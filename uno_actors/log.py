"""Logs as structured events with bound ids.

A program that has configured structlog gets the events in its own pipeline. In any other they go to the
standard library's logger ``uno_actors`` as one line, with the values as attributes of the record; only a
stack stands below it.
"""

import logging
from typing import Any, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_logger = logging.getLogger("uno_actors")
_logger.addHandler(logging.NullHandler())


def get_logger(**bound: object) -> FilteringBoundLogger:
    """A logger that names ``bound`` in every event."""
    if structlog.is_configured():
        return cast("FilteringBoundLogger", structlog.get_logger("uno_actors", **bound))
    logger = structlog.wrap_logger(
        _logger,
        processors=[structlog.stdlib.filter_by_level, _one_line],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return cast("FilteringBoundLogger", logger.bind(**bound))


def _one_line(_: WrappedLogger, __: str, event: EventDict) -> dict[str, Any]:
    exc_info = event.pop("exc_info", None)
    text = str(event.pop("event"))
    extra = {f"uno_{name}": value for name, value in event.items()}
    stack = event.pop("stack", None)  # below the line, where structlog's console shows it too
    values = " ".join(f"{name}={value}" for name, value in event.items())
    line = f"{text} {values}".rstrip()
    return {"msg": line if stack is None else f"{line}\n{stack}", "exc_info": exc_info, "extra": extra}
