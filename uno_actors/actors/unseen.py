"""Errors that nothing looks at: those of asks whose futures are dropped."""

from uno_actors.logs import Logger, LogLimit, get_logger
from uno_actors.printable import text_of

LOGGED_PER_SECOND = 10
"""Unseen errors logged in one second; the others are counted."""

_limit = LogLimit(LOGGED_PER_SECOND)


class Unseen:
    """Logs the error of a future when the garbage collector finds that nothing has looked at it, as asyncio does.

    Only a future that fails gets one, so that asks that succeed cost nothing.

    Args:
        error: The error.
        asked: The actor or aggregate that was asked.
        message: Class of the message.
        log: Has the names of the system bound; default is that of the actor.
        correlation_id: Of the message; ``None`` if it has none.

    Attributes:
        is_seen: Whether something has got or awaited the future, or has a callback there.
    """

    __slots__ = ("_asked", "_correlation_id", "_error", "_log", "_message", "is_seen")

    def __init__(
        self,
        error: BaseException,
        asked: object,
        message: str,
        log: Logger | None = None,
        correlation_id: str | None = None,
    ) -> None:
        self.is_seen = False
        self._error = error
        self._asked = asked
        self._message = message
        self._log = log
        self._correlation_id = correlation_id

    def __del__(self) -> None:
        if self.is_seen or (more := _limit.take()) is None:
            return
        log: Logger = self._log or getattr(self._asked, "log", None) or get_logger()
        log.error(
            "an ask failed, and nothing has looked at its reply",
            actor=text_of(self._asked),
            message=self._message,
            correlation_id=self._correlation_id,  # not that of the message at which the collector interrupts
            exc_info=self._error,
            **more,
        )
