"""Where and how long a store may be used: in one process, on one event loop at a time, until it is closed."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable

from uno_actors.errors import StoreForked, StoreUnavailable


class Life:
    """The one owner of whether a store is open, and of the event loop on which it is used.

    Args:
        store: The URL of the store, for errors.
        moved: Called when the store is first used on another event loop, with whether it had one before.
        loop_ended: Awaited when the event loop ends before the store is closed.

    Attributes:
        closed: Whether the store is closed, or being closed.
    """

    def __init__(
        self, store: str, moved: Callable[[bool], None], loop_ended: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._moved = moved
        self._loop_ended = loop_ended
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stay: AsyncGenerator[None] | None = None
        self.closed = False

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a forked child of the one that opened the store."""
        return self._pid != os.getpid()

    def check(self) -> None:
        """Check that the store may be used in this process, on this event loop.

        Raises:
            StoreForked: It belongs to the parent process.
            StoreUnavailable: It was closed, or another event loop uses it.
        """
        if self.is_inherited:
            raise StoreForked(self._store)
        if self.closed:
            raise StoreUnavailable(self._store, "it was closed")
        self.enter(asyncio.get_running_loop())

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use the store on ``loop`` from now on.

        Raises:
            StoreUnavailable: Another event loop uses it.
        """
        if loop is self._loop:
            return
        before = self._loop
        if before is not None and before.is_running():
            raise StoreUnavailable(
                self._store, "another event loop, which is running, uses it: open a store for each of them"
            )
        self._loop = loop
        self._stay = self._stay_on()
        with contextlib.suppress(StopIteration):
            self._stay.__anext__().send(None)  # to where it waits for the end of the loop
        self._moved(before is not None)

    async def _stay_on(self) -> AsyncGenerator[None]:
        """Wait for the end of the event loop, which closes its generators, as that of `asyncio.run` does."""
        try:
            yield
        finally:
            if not self.closed:
                await self._loop_ended()

    async def leave(self) -> None:
        """Stop waiting for the end of the event loop; for a store that is closed."""
        if self._stay is not None:
            await self._stay.aclose()
