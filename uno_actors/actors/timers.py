"""An actor's own timers: messages that it sends to itself later."""

from collections.abc import Callable, Hashable
from contextvars import Context
from typing import Any

from uno_actors.actors.ask import context_of_sender
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.clock import Clock, Timer
from uno_actors.quantities import check_duration


class Timers:
    """Pending messages, each under a key; starting a timer replaces the one under the same key.

    They are cancelled when the actor stops or is restarted. A message has the context variables that were bound where
    its timer was started. Usable from all functions of the actor, on any thread.

    Args:
        clock: For delays.
        dispatcher: On whose loop the clock's timers run.
        tell: Sends a message to the actor.
    """

    def __init__(self, clock: Clock, dispatcher: Dispatcher, tell: Callable[[Any], None]) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._tell = tell
        self._waiting: dict[Hashable, Timer] = {}

    def once(self, delay: float, message: Any, *, key: Hashable = None) -> None:
        """Send the actor ``message`` in ``delay`` seconds; the default key is the message itself.

        Raises:
            InvalidNumber: ``delay`` is not a number of seconds, or is negative.
        """
        check_duration("a timer's delay", delay, zero=True)
        self._start(message if key is None else key, delay, message, repeat=False)

    def periodic(self, interval: float, message: Any, *, key: Hashable = None) -> None:
        """Send the actor ``message`` every ``interval`` seconds; the default key is the message itself.

        Raises:
            InvalidNumber: ``interval`` is not a number of seconds, or is not positive.
        """
        check_duration("a timer's interval", interval)
        self._start(message if key is None else key, interval, message, repeat=True)

    def cancel(self, key: Hashable) -> None:
        """Cancel the timer under ``key``, if there is one."""
        self._dispatcher.call(lambda: self._forget(key))

    def cancel_all(self) -> None:
        """Cancel all timers."""
        self._dispatcher.call(self._forget_all)

    def _start(self, key: Hashable, seconds: float, message: Any, *, repeat: bool) -> None:
        context = context_of_sender() or Context()

        def fire() -> None:
            del self._waiting[key]
            if repeat:
                arm()
            context.run(self._tell, message)

        def arm() -> None:
            self._waiting[key] = self._clock.call_later(seconds, fire)

        def replace() -> None:
            self._forget(key)
            arm()

        self._dispatcher.call(replace)

    def _forget(self, key: Hashable) -> None:
        timer = self._waiting.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _forget_all(self) -> None:
        for key in tuple(self._waiting):
            self._forget(key)
