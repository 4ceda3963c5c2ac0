"""What others record: other processes, other systems, and whatever in this one does not go through its journal.

An active aggregate whose stream somebody else has continued would go on answering by a state of the past. So the
log is looked at when it has grown by more than the journal has recorded, and is not read when it has not.
"""

import asyncio
from bisect import insort
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from uno_actors.errors import describe
from uno_actors.logs import get_logger
from uno_actors.store.codec import Record
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, Appended

LOOK_AFTER = 0.01
"""Seconds from the news that the log has grown to a look at it, and from there to the reading of what the journal
has not been told of until then."""


class Hears(Protocol):
    """Who is to hear of it."""

    def __len__(self) -> int:
        """How many want to know."""

    def heard(self, record: Record) -> None:
        """Somebody has recorded this; perhaps the journal itself."""


class Others:
    """Tells ``hears`` of what the journal has not written. Lives on the event loop.

    Args:
        store: Whose log it reads.
        position: Where it begins: nobody needs to hear of what is before.
        hears: Is told.
        start: Starts a coroutine as a task that the system knows of.
    """

    def __init__(
        self,
        store: EventStore,
        position: int,
        hears: Hears,
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._store = store
        self._seen = position  # what is up to here was recorded by the journal, or told of
        self._ours: list[tuple[int, int]] = []  # first and last positions beyond a gap
        self._hears = hears
        self._start = start
        self._is_looking = self._has_grown = False
        self._log = get_logger(actor="others")

    def recorded(self, appended: Appended) -> None:
        """The journal has recorded this."""
        if not appended.records:
            return
        first, last = appended.positions.start, appended.positions.stop - 1
        if first == self._seen + 1 and not self._ours:  # as nearly always
            self._seen = last
            return
        insort(self._ours, (first, last))
        self._pass(self._seen)

    def _pass(self, position: int) -> None:
        """Nobody needs to hear of what is up to ``position``."""
        self._seen = max(self._seen, position)
        while self._ours and self._ours[0][0] <= self._seen + 1:
            self._seen = max(self._seen, self._ours.pop(0)[1])

    def grown(self) -> None:
        """The log has grown: have a look soon."""
        self._has_grown = True
        if not self._is_looking:
            self._is_looking = True
            self._start(self._look())

    async def _look(self) -> None:
        try:
            while self._has_grown:
                self._has_grown = False
                await asyncio.sleep(LOOK_AFTER)
                await self._tell(await self._store.last_position())
        except (
            asyncio.CancelledError
        ):  # the system ends, or the program has cancelled all tasks: the next news
            return  # brings another look
        except Exception as error:  # noqa: BLE001 - likewise; a store of somebody else's may raise anything
            self._log.warning("what others record cannot be read", reason=describe(error))
        finally:
            self._is_looking = False

    async def _tell(self, end: int) -> None:
        """Tell of what others have recorded up to ``end``."""
        if not len(self._hears):
            self._pass(end)
        if self._seen < end:
            await asyncio.sleep(LOOK_AFTER)
            await asyncio.sleep(0)  # what the store has told the loop by now has come to the journal
        while self._seen < end:
            page = await self._store.read_log(self._seen, min(PAGE, end - self._seen))
            for _, record in page:
                self._hears.heard(record)
            self._pass(page[-1].position if page else end)
