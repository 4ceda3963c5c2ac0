"""External writes: events that other processes and systems record, or this one without its journal.

An active aggregate would answer from an old state after another writer has appended to its stream. So the headings of
the log are read when it has grown by more than the journal has recorded, and only then. A heading only says whose event
is at a position; the aggregate reads its new events with its next command.
"""

import asyncio
from bisect import insort
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from uno_actors.errors import describe
from uno_actors.logs import Logger, get_logger
from uno_actors.store.codec import StreamId
from uno_actors.store.logs import log_of_position, log_of_stream
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, Appended, Heading

LOOK_AFTER = 0.01
"""Seconds from the notice that the log has grown until its end is checked, and from there until the records that the
journal has not reported are read."""


class Listener(Protocol):
    """Is shown the external writes; `uno_actors.aggregates.directory.Aggregates`."""

    def __len__(self) -> int:
        """How many aggregates are active; without any, external writes are skipped."""

    def on_heading(self, heading: Heading) -> None:
        """Take note of an external write; some may be those of the journal itself."""


class ExternalWrites:
    """Shows a listener the headings of what the journal has not written. Lives on the event loop.

    Args:
        store: Whose log it reads.
        positions: The position of the last record of each log that need not be shown.
        listener: Gets the records after that.
        start: Starts a coroutine as a task of the system.
        log: Has the names of the system bound.

    Attributes:
        position: Up to here all records are the journal's or were shown.
    """

    def __init__(
        self,
        store: EventStore,
        positions: Sequence[int],
        listener: Listener,
        start: Callable[[Coroutine[Any, Any, None]], object],
        log: Logger | None = None,
    ) -> None:
        self._store = store
        self._logs = [_SeenLog(position) for position in positions]
        self._listener = listener
        self._start = start
        self._is_looking = self._has_grown = False
        self._log = (log or get_logger()).bind(actor="external_writes")

    def skip(self, appended: Appended) -> None:
        """Skip a record that the journal wrote itself."""
        if not appended.records:
            return
        positions = appended.positions
        if isinstance(positions, range):
            self._logs[log_of_position(positions.start)].skip(positions.start, positions.stop - 1)
            return
        for position in positions:
            self._logs[log_of_position(position)].skip(position, position)

    def position(self, stream: StreamId) -> int:
        """The one of the `positions` that belongs to the log of ``stream``."""
        return self._logs[log_of_stream(stream, len(self._logs))].seen

    @property
    def positions(self) -> list[int]:
        """The position in each log up to which all records are the journal's or were shown."""
        return [log.seen for log in self._logs]

    def look_soon(self) -> None:
        """Check the log, which has grown."""
        self._has_grown = True
        if not self._is_looking:
            self._is_looking = True
            self._start(self._look())

    async def _look(self) -> None:
        try:
            while self._has_grown:
                self._has_grown = False
                await asyncio.sleep(LOOK_AFTER)
                await self._show(await self._store.last_positions())
        except asyncio.CancelledError:
            return  # the system stops, or the program cancels all tasks; the next commit brings another look
        except Exception as error:  # noqa: BLE001 - likewise; a store of another package may raise anything
            self._log.warning("external writes cannot be read", reason=describe(error))
        finally:
            self._is_looking = False

    async def _show(self, ends: Sequence[int]) -> None:
        """Show the records of others up to the ``ends`` of the logs."""
        logs = [*zip(self._logs, ends, strict=True)]
        if not len(self._listener):
            for log, end in logs:
                log.advance(end)
        if any(log.seen < end for log, end in logs):
            await asyncio.sleep(LOOK_AFTER)
            await asyncio.sleep(0)  # the journal now has what the store has reported to the loop
        for log, end in logs:
            while log.seen < end:
                page = await self._store.read_headings(log.seen, min(PAGE, end - log.seen))
                for heading in page:
                    self._listener.on_heading(heading)
                log.advance(page[-1].position if page else end)


class _SeenLog:
    """What is known of one log: up to ``seen`` all records are the journal's or were shown."""

    __slots__ = ("_ours", "seen")

    def __init__(self, seen: int) -> None:
        self.seen = seen
        self._ours: list[tuple[int, int]] = []  # the journal's first and last positions beyond a gap

    def skip(self, first: int, last: int) -> None:
        """Note that the journal has written these records."""
        if first == self.seen + 1 and not self._ours:  # as nearly always
            self.seen = last
            return
        insort(self._ours, (first, last))
        self.advance(self.seen)

    def advance(self, position: int) -> None:
        """Note that all records up to ``position``, and perhaps some after it, are the journal's or were shown."""
        self.seen = max(self.seen, position)
        while self._ours and self._ours[0][0] <= self.seen + 1:
            self.seen = max(self.seen, self._ours.pop(0)[1])
