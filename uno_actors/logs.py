"""Logging: structured events with bound ids.

A program that has configured structlog gets the events in its own pipeline, even if it does so after a system was made.
In any other program they go to the standard library's logger ``uno_actors``, each as one line with the values as
attributes of the record; only a stack follows below the line. Where that logger has no handler either, warnings and
errors go to standard error: see `StandardError`. Values and error texts come from outside, so what is written follows
the rules of `uno_actors.printable`: no event can forge the line of another.

A line names its origin: ``system``, ``node``, and ``actor``, the part of the system that logs. The dispatcher of a
system has a logger with the first two bound, from which its parts derive theirs by `Logger.bind`. A line that is
logged while a message is handled has the ``correlation_id`` of that message.
"""

import logging
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from typing_extensions import override

from uno_actors.causality import current_cause
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

if TYPE_CHECKING:  # it imports rich, which takes longer than anything else here: only if the program uses it
    from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, Processor, WrappedLogger

_logger = logging.getLogger("uno_actors")


class StandardError(logging.StreamHandler[TextIO]):
    """Writes warnings and errors to standard error while no other handler takes them.

    The standard library does this by `logging.lastResort`, which this handler stands in for, with time and level in the
    line. As soon as the program has a handler for the logger ``uno_actors`` or one above it, this one is silent. So it
    is if the program has removed `logging.lastResort`, or set another.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Standard error, as the program has it now."""
        return sys.stderr

    @override
    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort
        if last is None or self._is_taken(record):
            return
        if last is not _LAST_RESORT:
            if record.levelno >= last.level:
                last.handle(record)
        elif sys.stderr is not None:  # None in a process that has none
            super().emit(record)

    def _is_taken(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


_LAST_RESORT = logging.lastResort
_logger.addHandler(StandardError())


def _with_traceback(record: logging.LogRecord) -> bool:
    """Format the traceback before a formatter does, which would not escape it."""
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        record.exc_text = _traceback(record.exc_info[1])
    return True


def _traceback(error: BaseException) -> str:
    return printable_lines(traceback_text(error).rstrip())


_logger.addFilter(_with_traceback)


class Logger:
    """The runtime's own logger: every event carries the bound values, and logging never raises.

    Events pass through the program's processors, filters and handlers, and any of these may raise. That must not cost
    an asker its reply or an actor its next message, so it is caught here, in one place: the event then goes to the
    standard library's logger, with the error.
    """

    __slots__ = ("_bound", "_logger")

    def __init__(self, bound: dict[str, object]) -> None:
        self._bound = bound
        self._logger: FilteringBoundLogger | None = None  # while the program has configured structlog

    @property
    def has_names(self) -> bool:
        """Whether values are bound, such as the names of a system."""
        return bool(self._bound)

    def bind(self, **more: object) -> "Logger":
        """A logger whose events carry ``more``, too."""
        return Logger({**self._bound, **more})

    def for_program(self) -> "FilteringBoundLogger":
        """A logger for the program's own code; it raises what the program's processors raise."""
        return program_logger(**self._bound)

    def debug(self, event: str, **values: object) -> None:
        """Log what helps to find a bug."""
        self._log("debug", event, values)

    def info(self, event: str, **values: object) -> None:
        """Log normal operation."""
        self._log("info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Log what may need attention."""
        self._log("warning", event, values)

    def error(self, event: str, **values: object) -> None:
        """Log a failure."""
        self._log("error", event, values)

    def exception(self, event: str, **values: object) -> None:
        """Log the error that is being handled."""
        self._log("exception", event, values)

    def critical(self, event: str, **values: object) -> None:
        """Log the failure of a whole system or supervisor."""
        self._log("critical", event, values)

    def _log(self, level: str, event: str, values: dict[str, object]) -> None:
        error = values.get("exc_info")
        if isinstance(error, BaseException) and _may_be_false(error):
            # The error may be false in a condition; a tuple is always true.
            values["exc_info"] = type(error), error, error.__traceback__
        try:
            self._correlate(values)
            if not _has_configured_structlog():
                self._logger = None
                _to_standard_library(level, {**self._bound, **values, "event": event})
                return
            if self._logger is None:
                self._logger = program_logger(**self._bound)
            getattr(self._logger, level)(event, **values)
        except KeyboardInterrupt:  # meant for the process
            raise
        except BaseException as failure:  # noqa: BLE001 - whatever a program's logging raises, even SystemExit
            self._log_plainly(level, event, failure)

    @staticmethod
    def _correlate(values: dict[str, object]) -> None:
        """Add the correlation id of the message being handled, unless the event has its own, or says it has none."""
        if "correlation_id" not in values:
            cause = current_cause()
            if cause is not None:
                values["correlation_id"] = cause.correlation_id
        elif values["correlation_id"] is None:
            del values["correlation_id"]

    def _log_plainly(self, level: str, event: str, failure: BaseException) -> None:
        with suppress(Exception):  # a filter of the program may raise here as well
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
    """A logger of the runtime whose events carry ``bound``; see `Logger`."""
    return Logger(bound)


class LogLimit:
    """Limits how many events of one kind are logged in a second; the others are counted. Usable from any thread.

    Args:
        per_second: Events that are logged in one second.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = self._logged = self._silent = 0
        self._lock = (
            threading.RLock()
        )  # a signal handler, or the garbage collector, may interrupt this thread here

    def take(self) -> dict[str, int] | None:
        """The values that an event has to carry to be logged now; ``None`` if it is only counted."""
        with self._lock:
            if (second := int(monotonic())) != self._second:
                self._second, self._logged = second, 0
            self._logged += 1
            if self._logged > self._per_second:
                self._silent += 1
                return None
            silent, self._silent = self._silent, 0
        return {"others_not_logged": silent} if silent else {}


def _has_configured_structlog() -> bool:
    """Whether the program has; one that has not imported it has not."""
    is_configured = getattr(sys.modules.get("structlog"), "is_configured", None)
    return is_configured is not None and bool(is_configured())


def _to_standard_library(level: str, event: dict[str, Any]) -> None:
    """Log as the logger that `program_logger` makes where structlog is not configured."""
    number = _LEVELS[level.upper()]
    if _logger.isEnabledFor(number):
        if level == "exception":
            event.setdefault("exc_info", True)
        _logger.log(number, **_one_line(None, level, event))


def program_logger(**bound: object) -> "FilteringBoundLogger":
    """A logger for the program's own code; it raises what the program's processors raise."""
    import structlog  # noqa: PLC0415 - see above

    if structlog.is_configured():
        return cast("FilteringBoundLogger", structlog.get_logger("uno_actors", **bound))
    logger = structlog.wrap_logger(
        _logger,
        processors=[structlog.stdlib.filter_by_level, _one_line],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return cast("FilteringBoundLogger", logger.bind(**bound))


def _one_line(_: "WrappedLogger", __: str, event: "EventDict") -> dict[str, Any]:
    exc_info = event.pop("exc_info", None)
    text = _shown(event.pop("event"))
    extra = {f"uno_{name}": value for name, value in event.items()}
    stack = event.pop("stack", None)  # below the line, as in structlog's console
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
        except Exception:  # noqa: BLE001 - the repr of a foreign value may raise anything
            return text_of(self._value)


def _for_console(_: "WrappedLogger", __: str, event: "EventDict") -> "EventDict":
    """``event`` with values that cannot control a terminal."""
    for name, value in event.items():
        if name == "stack":
            event[name] = printable_lines(text_of(value))
        elif name == "event":
            event[name] = _shown(value)
        elif isinstance(value, str):
            text = bounded(value, LONGEST_ERROR)  # the console quotes and escapes it if it has spaces
            event[name] = text if _QUOTED & set(text) else printable(text)
        elif name != "exc_info":
            event[name] = _Shown(value)
    return event


_QUOTED = frozenset(" \t=\r\n\"'")
"""Characters for which structlog's console quotes a value."""


def write_logs(stream: TextIO, level: str, form: Literal["text", "json"]) -> None:
    """Write the logs of this process, including those of ``logging``, to ``stream``; a service calls this once.

    Another call changes level and form.

    Args:
        stream: The destination.
        level: The least severe level that is written: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        form: ``text`` for people, ``json`` for one JSON object per line, exceptions included.
    """
    import structlog  # noqa: PLC0415 - see above

    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
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


def _write_traceback(stream: TextIO, exc_info: "ExcInfo") -> None:
    stream.write(_traceback(exc_info[1]))


def _encodable(stream: TextIO) -> "Processor":
    """Escapes characters that ``stream`` cannot encode, such as non-ASCII ones in the C locale."""
    encoding = getattr(stream, "encoding", None) or "utf-8"

    def encodable(_: "WrappedLogger", __: str, line: Any) -> str:
        return str(line).encode(encoding, "backslashreplace").decode(encoding)

    return encodable
