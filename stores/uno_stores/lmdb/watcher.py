"""The watcher: notices what other processes record, while the store has listeners."""

import asyncio
from collections.abc import Callable

from uno_actors.errors import UnoError
from uno_stores.lmdb.environment import Environment

LOOK_EVERY = 0.025
"""Seconds between two looks for what other processes have recorded."""


class Watcher:
    """Looks at the end of the log.

    Args:
        environment: Of the store.
        has_listeners: Whether the store has listeners now.
        committed: Calls the listeners.

    Attributes:
        loop: On which it looks; ``None`` while it does not.
    """

    def __init__(
        self, environment: Environment, has_listeners: Callable[[], bool], committed: Callable[[], None]
    ) -> None:
        self._environment = environment
        self._has_listeners = has_listeners
        self._committed = committed
        self._announced = 0  # listeners know of everything up to here
        self._told_of_loss = False
        self.loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        """Begin to look on the running event loop."""
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            self.loop = loop
            self._announced = self._end()
            loop.call_later(LOOK_EVERY, self._look)

    def committed(self, end: int) -> None:
        """This store has committed, and its log ends at ``end``: call the listeners."""
        self._announced = max(self._announced, end)
        self._committed()

    def _look(self) -> None:
        """Call the listeners if another process has recorded something."""
        if self._environment.closed or not self._has_listeners():
            self.loop = None
            return
        try:
            end = self._end()
            if end > self._announced:
                self._announced = end
                self._committed()
        except UnoError:  # the next reader gets the error; listeners that wait for events need a call to read
            if self._environment.files.lost() and not self._told_of_loss:
                self._told_of_loss = True
                self._committed()
        if self.loop is not None:
            self.loop.call_later(LOOK_EVERY, self._look)

    def _end(self) -> int:
        with self._environment.reading() as reading:
            return reading.end()
