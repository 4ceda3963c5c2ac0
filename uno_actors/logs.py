"""Logs as structured events with bound ids.

A program that has configured structlog gets the events in its own pipeline. In any other they go to the
standard library's logger ``uno_actors`` as one line, with the values as attributes of the record; only a
stack stands below it. Values and texts of errors come from outside: what is written follows the rules of
`uno_actors.printable`, so that no event can forge the line of another.
"""

import logging
from contextlib import suppress
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, WrappedLogger

from uno_actors.errors import describe
from uno_actors.printable import (
    LONGEST_ERROR,
    as_json,
    bounded,
    printable,
    printable_lines,
    text_of,
    traceback_text,
)

_logger = logging.getLogger("uno_actors")
_logger.addHandler(logging.NullHandler())


def _with_traceback(record: logging.LogRecord) -> bool:
    """Write the traceback before a formatter does, which would write it as it is."""
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        record.exc_text = _traceback(record.exc_info[1])
    return True


def _traceback(error: BaseException) -> str:
    return printable_lines(traceback_text(error).rstrip())


_logger.addFilter(_with_traceback)


class Logger:
    """The runtime's own logger: it names what it was made with in every event, and never raises.

    What is logged passes through the program's own processors, filters and handlers, and any of these may raise.
    That must not keep an asker from its answer or an actor from its next message, so that it ends here, in the one
    place: the event goes to the standard library's logger then, with what has failed.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: FilteringBoundLogger) -> None:
        self._logger = logger

    def debug(self, event: str, **values: object) -> None:
        """Log what helps to find a fault."""
        self._log("debug", event, values)

    def info(self, event: str, **values: object) -> None:
        """Log what is as it should be."""
        self._log("info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Log what somebody may want to change."""
        self._log("warning", event, values)

    def error(self, event: str, **values: object) -> None:
        """Log a failure."""
        self._log("error", event, values)

    def exception(self, event: str, **values: object) -> None:
        """Log the error that is being handled."""
        self._log("exception", event, values)

    def critical(self, event: str, **values: object) -> None:
        """Log the failure of the whole."""
        self._log("critical", event, values)

    def _log(self, level: str, event: str, values: dict[str, object]) -> None:
        error = values.get("exc_info")
        if isinstance(error, BaseException) and _may_be_false(error):
            # A tuple is true wherever it is looked at.
            values["exc_info"] = type(error), error, error.__traceback__
        try:
            getattr(self._logger, level)(event, **values)
        except KeyboardInterrupt:  # of the process
            raise
        except BaseException as failure:  # noqa: BLE001 - whatever a program's logging raises, SystemExit too
            self._log_plainly(level, event, failure)

    def _log_plainly(self, level: str, event: str, failure: BaseException) -> None:
        with suppress(Exception):  # a filter of the program's may raise here as well
            _logger.log(
                _LEVELS[level.upper()],
                "%s (the program's own logging failed at this event: %s)",
                event,
                describe(failure),
            )


_LEVELS = {**logging.getLevelNamesMapping(), "EXCEPTION": logging.ERROR}


def _may_be_false(error: BaseException) -> bool:
    return hasattr(type(error), "__bool__") or hasattr(type(error), "__len__")


def get_logger(**bound: object) -> Logger:
    """A logger of the runtime that names ``bound`` in every event; see `Logger`."""
    return Logger(program_logger(**bound))


def program_logger(**bound: object) -> FilteringBoundLogger:
    """The program's own logger, for its own code: it raises what the program's processors raise."""
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
    text = _shown(event.pop("event"))
    extra = {f"uno_{name}": value for name, value in event.items()}
    stack = event.pop("stack", None)  # below the line, where structlog's console shows it too
    values = " ".join(f"{name}={_shown(value)}" for name, value in event.items())
    line = f"{text} {values}".rstrip()
    below = "" if stack is None else f"\n{printable_lines(text_of(stack))}"
    return {"msg": f"{line}{below}", "exc_info": exc_info, "extra": extra}


def _shown(value: object) -> str:
    return printable(bounded(text_of(value), LONGEST_ERROR))


class _Shown:
    """A value that the console shows by its ``repr``."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        try:
            return _shown(repr(self._value))
        except Exception:  # noqa: BLE001 - whatever a value of others does when it is looked at
            return text_of(self._value)


def _for_console(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """``event`` with values that a terminal shows and does not obey."""
    for name, value in event.items():
        if name == "stack":
            event[name] = printable_lines(text_of(value))
        elif name == "event":
            event[name] = _shown(value)
        elif isinstance(value, str):
            text = bounded(value, LONGEST_ERROR)  # quoted by the console if it has spaces, and then escaped
            event[name] = text if _QUOTED & set(text) else printable(text)
        elif name != "exc_info":
            event[name] = _Shown(value)
    return event


_QUOTED = frozenset(" \t=\r\n\"'")
"""Characters for which the console of structlog quotes a value."""


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
        last += [
            structlog.processors.ExceptionRenderer(lambda exc_info: traceback_text(exc_info[1]).rstrip()),
            structlog.processors.JSONRenderer(lambda event, **_: as_json(event)),
        ]
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_write_traceback)
        last += [_for_console, renderer, _encodable(stream)]
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


def _write_traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    stream.write(_traceback(exc_info[1]))


def _encodable(stream: TextIO) -> structlog.typing.Processor:
    """Escapes what ``stream`` cannot encode, such as all but ASCII in the locale C."""
    encoding = getattr(stream, "encoding", None) or "utf-8"

    def encodable(_: WrappedLogger, __: str, line: Any) -> str:
        return str(line).encode(encoding, "backslashreplace").decode(encoding)

    return encodable
