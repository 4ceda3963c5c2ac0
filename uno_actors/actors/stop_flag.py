"""The flag that an actor has stopped."""

import threading

once = threading.RLock()
"""Guards steps that happen once in an actor's life, so that no actor needs a lock of its own for them."""


class StopFlag:
    """What ``Actor.actor_stopped`` is: a flag that becomes a ``threading.Event`` when a thread waits for it."""

    __slots__ = ("_event", "up")

    def __init__(self) -> None:
        self.up = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """Whether the actor has stopped."""
        return self.up

    def set(self) -> None:
        """Mark the actor as stopped."""
        self.up = True
        if self._event is not None:  # a thread that creates it later checks the flag itself
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait on this thread, for at most ``timeout`` seconds; return whether the actor has stopped."""
        with once:
            if self._event is None:
                self._event = threading.Event()
            if self.up:
                self._event.set()
        return self._event.wait(timeout)
