"""The reply to a command whose sender also waits for the handlers of its events."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from typing_extensions import override

from uno_actors.actors.ask import AskTarget
from uno_actors.aggregates.envelope import CommandReply
from uno_actors.errors import NotHandled
from uno_actors.store.codec import StreamId

R = TypeVar("R")

Handled = Callable[[NotHandled | None], None]
"""Called once, on the event loop: the handlers have handled the events, or the error says why not."""


class BeginsWait(Protocol):
    """Begins the wait for handlers; on the event loop."""

    def __call__(self, position: int, stream: StreamId, done: Handled, *, is_new: bool) -> None:
        """Wait until they have handled the events of a command.

        Args:
            position: Of its last event.
            stream: Of its aggregate.
            done: Called at the end.
            is_new: Whether the events were recorded just now.
        """


class HandledReply(CommandReply[R]):
    """Gets the reply to a command once handlers have handled the events that it has recorded.

    Args:
        first: The reply of the aggregate.
        stream: Of the aggregate.
        target: Stands for the handlers among actors that wait for each other.
        seconds: How long the handlers are waited for.
        begin: Begins the wait.
        ended: Called when there is a result.
    """

    def __init__(
        self,
        first: CommandReply[R],
        stream: StreamId,
        target: AskTarget,
        *,
        seconds: float,
        begin: BeginsWait,
        ended: Callable[[], object],
    ) -> None:
        super().__init__(stream, first._command_type)
        self.target = target
        self._first = first
        self._wait_seconds = seconds
        self._begin = begin
        self._ended = ended
        first.add_done_callback(self._replied)

    @override
    def _wait(self, timeout: float | None) -> None:
        self.seconds = self._first.seconds + self._wait_seconds
        super()._wait(timeout)

    def _replied(self, _: Any) -> None:
        first = self._first
        assert first._outcome is not None
        value, error, _ = first._outcome
        self._log, self._correlation_id = first._log, first._correlation_id
        self._place = first.place
        if error is not None:
            self._ended()
            self.offer_exception(error)
        elif self._place is None:
            self._ended()
            self.offer(value)
        else:
            is_new = first._recorded is not None
            self._begin(self._place[0], self._stream, lambda why: self._handled(value, why), is_new=is_new)

    def _handled(self, value: Any, why: NotHandled | None) -> None:
        self._ended()
        if why is None:
            self.offer(value)
            return
        why.reply, why.token = value, self.token
        self.offer_exception(why)
