"""A disk that is slow or full when the seed says so, and that forgets what was not synced when the power fails."""

import asyncio
import random
import zlib
from collections.abc import Iterator

from uno_actors.testing.simulation.core import Call, Core
from uno_actors.testing.simulation.loop import SimulatedLoop

HEADER = 8
"""Bytes before each frame: its length and its checksum."""
LONGEST_WRITE = 0.000_5
LONGEST_SYNC = 0.004
LONGEST_READ = 0.000_3


class DiskFull(Exception):
    """There is no room for a frame; nothing of it stays on the disk."""


class SyncFailed(Exception):
    """It is unknown whether what was written survives."""


class Disk:
    """One file of frames, which processes append to.

    A killed process leaves what it has written, even half a frame. A power failure also takes what was not synced:
    all of it, a part, or nothing.

    Args:
        core: Of the run.
        name: Names it in the story.

    Attributes:
        data: What was written.
        synced: Bytes that survive a power failure.
        slow: Factor of all its times.
        full_until: Until when it has no room.
        failing: Syncs that are still to fail.
    """

    def __init__(self, core: Core, name: str) -> None:
        self.name = name
        self.data = bytearray()
        self.synced = 0
        self.slow = 1.0
        self.slow_until = 0.0
        self.full_until = 0.0
        self.failing = 0
        self._core = core
        self._chance: random.Random = core.source(f"disk {name}")

    async def pause(self, longest: float) -> None:
        """Wait as long as it takes the disk to do something."""
        seconds = self._chance.random() ** 2 * longest
        if self._core.now < self.slow_until:
            seconds *= self.slow
        await pause(self._core, seconds)

    async def write(self, frame: bytes) -> None:
        """Append a frame; it survives the process, not yet a power failure.

        Raises:
            DiskFull: Nothing was written.
        """
        begin = len(self.data)
        whole = _framed(frame)
        half = self._chance.randrange(len(whole))
        self.data += whole[:half]
        await self.pause(LONGEST_WRITE)
        if self._core.now < self.full_until:
            del self.data[begin:]
            self._core.tell(self.name, "disk", "is full")
            raise DiskFull
        self.data += whole[half:]

    def put(self, frame: bytes) -> None:
        """Have a frame on the disk, written and synced, as it is before a run begins."""
        self.data += _framed(frame)
        self.synced = len(self.data)

    async def sync(self) -> None:
        """Make all that was written survive a power failure.

        Raises:
            SyncFailed: It may have been synced or not.
        """
        until = len(self.data)
        await self.pause(LONGEST_SYNC)
        if self.failing:
            self.failing -= 1
            self._core.tell(self.name, "disk", "failed to sync")
            if self._chance.random() < 0.5:
                self.synced = max(self.synced, until)
            raise SyncFailed
        self.synced = max(self.synced, until)

    def power_failure(self) -> int:
        """Lose what was not synced, or a part of it; return how many bytes are lost."""
        loose = len(self.data) - self.synced
        kept = self._chance.randrange(loose + 1) if loose and self._chance.random() < 0.5 else 0
        del self.data[self.synced + kept :]
        return loose - kept

    def frames(self, after: int) -> Iterator[tuple[int, bytes]]:
        """The whole frames after a place, each with the place where it ends."""
        at = after
        while at + HEADER <= len(self.data):
            length = int.from_bytes(self.data[at : at + 4], "big")
            end = at + HEADER + length
            frame = bytes(self.data[at + HEADER : end])
            if end > len(self.data) or zlib.crc32(frame) != int.from_bytes(self.data[at + 4 : at + 8], "big"):
                return
            yield end, frame
            at = end


def _framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + zlib.crc32(frame).to_bytes(4, "big") + frame


async def pause(core: Core, seconds: float) -> None:
    """Wait in the process that runs, in the time of the run."""
    loop = core.place
    if not isinstance(loop, SimulatedLoop) or core.closed:
        return
    future = loop.create_future()
    core.at(core.now + seconds, loop, Call(_end, future), "pause")
    await future


def _end(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
