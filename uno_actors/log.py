"""Logs as structured events with bound ids.

A program that has configured structlog gets the events in its own pipeline. In any other they go to the
standard library's logger ``uno_actors`` as one line, with the values as attributes of the record; only a
stack stands below it.
"""

import logging
from typing import Any, Literal, TextIO, cast

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


def write_logs(stream: TextIO, level: str, form: Literal["text", "json"]) -> None:
    """Have this process write its logs, those of ``logging`` too, to ``stream``: what a service does, once.

    Calling it again changes level and form.

    Args:
        stream: Where to.
        level: The least severe that is written: ``debug``, ``info``, ``warning``, ``error``, ``critical``.
        form: ``text`` for people, ``json`` for one JSON object a line, exceptions included.
    """
    common: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if form == "json":
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        plain = structlog.dev.plain_traceback
        last += [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=last, foreign_pre_chain=[*common, structlog.stdlib.ExtraAdder()]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
