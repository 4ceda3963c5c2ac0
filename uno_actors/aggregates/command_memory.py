"""What an active aggregate remembers about the commands that wrote its stream.

The memory costs three bytes for each of the last events. It answers "not handled before" at once; a command that it
seems to contain is compared with the record before it counts.

The memory covers a fixed number of events. A command that may have been recorded earlier is sent with the position of
the log after which it may have been recorded (`AggregateRef.ask`). The aggregate then reads its stream from there, and
its memory covers these events until the aggregate is loaded again. `Landmarks` save that reading where they show that
nothing was recorded in between.
"""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE

SLACK = 256
"""Events that an extended memory covers beyond those needed, besides a quarter, so that it is not extended again for
each event that follows."""

_WIDTH = 3
NO_COMMAND = b"\0" * _WIDTH
"""The mark of an event that is not the last one of a command."""


class Landmarks(tuple[tuple[int, int], ...]):
    """Some versions of a stream with their positions in the log, in order: they show what came after a position.

    An immutable value; what it states about recorded events stays true.
    """

    __slots__ = ()
    KEPT: ClassVar[int] = 5

    def with_one(self, version: int, position: int, every: int) -> "Landmarks":
        """Add a recorded event, unless one within ``every`` versions before it is known; keep the last ones."""
        if self and version - self[-1][0] < every:
            return self
        return Landmarks((*self[1 - self.KEPT :], (version, position)))

    def show(self, oldest: int, since: int) -> bool:
        """Whether they prove that all events after position ``since`` have a version after ``oldest``."""
        return any(version >= oldest and position <= since for version, position in self)


NO_LANDMARKS = Landmarks()


class CommandMemory(bytearray):
    """The commands that the last events of a stream answered: a ring of marks by version, three bytes each.

    A subclass of ``bytearray`` because a system may keep a million of them.

    Attributes:
        reach: Number of events that it covers; 0 to remember nothing.
    """

    __slots__ = ("reach",)

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def copied(self) -> "CommandMemory":
        """An equal one, which later notes in this one do not reach."""
        memory = CommandMemory(self.reach)
        memory.extend(self)
        return memory

    @staticmethod
    def mark(command_id: str | None) -> bytes:
        """The three bytes that stand for a command; `NO_COMMAND` for ``None``."""
        if command_id is None:
            return NO_COMMAND
        return (hash(command_id) & 0xFF_FFFF or 1).to_bytes(_WIDTH, "little")

    def note(self, version: int, mark: bytes) -> None:
        """Remember which command has the event of ``version`` as its last one.

        Args:
            version: One more than in the previous call.
            mark: See `mark`.
        """
        reach = self.reach
        if not reach:
            return
        place = version % reach * _WIDTH
        if place >= len(self):
            if mark == NO_COMMAND:
                return
            self.extend(bytes(place + _WIDTH - len(self)))
        self[place : place + _WIDTH] = mark

    def versions(self, mark: bytes, head: int) -> Sequence[int]:
        """The remembered versions whose events may be the last ones of the command of this mark.

        Args:
            mark: See `mark`.
            head: The version that was noted last.
        """
        place = self.find(mark)
        found: list[int] = []
        while place >= 0:
            slot, askew = divmod(place, _WIDTH)
            if not askew:
                found.append(head - (head - slot) % self.reach)
            place = self.find(mark, place + 1)
        return found

    def reaches(self, head: int, since: int, after: int | None, landmarks: Landmarks) -> bool:
        """Whether it covers all events that a command may have recorded.

        Args:
            head: The version that was noted last.
            since: Position of the log after which the command may have been recorded.
            after: Version of the stream after which it may have been recorded; ``None`` if that is not known.
            landmarks: Known places of the stream.
        """
        oldest = head - self.reach
        if oldest <= 0:
            return True
        return landmarks.show(oldest, since) if after is None else after >= oldest

    async def extended(self, store: EventStore, stream: StreamId, head: int, after: int) -> "CommandMemory":
        """A memory that reaches back to version ``after`` or further, read from the store; itself if it already does.

        Args:
            store: Where the stream is recorded.
            stream: Its name.
            head: Its last version, all recorded.
            after: A version.
        """
        if after >= head - self.reach:
            return self
        memory = CommandMemory((head - after) * 5 // 4 + SLACK)
        version = max(0, head - memory.reach)
        while version < head and (
            page := await store.read_stream(stream, version, min(PAGE, head - version))
        ):
            for _, record in page:
                version += 1
                memory.note(version, self.mark(record.answered))
            await asyncio.sleep(0)  # a long stream must not block the event loop
        return memory


async def version_at(store: EventStore, stream: StreamId, position: int, head: int) -> tuple[int, int]:
    """The last version of ``stream``, up to ``head``, that is recorded at or before ``position``; and its position.

    Reads one record at a time, about as often as ``head`` can be halved.
    """
    low, low_position, high = 0, 0, head
    middle = head  # most often nothing was recorded since
    while low < high:
        page = await store.read_stream(stream, middle - 1, 1)
        if page and page[0].position <= position:
            low, low_position = middle, page[0].position
        else:
            high = middle - 1
        middle = (low + high + 1) // 2
    return low, low_position
