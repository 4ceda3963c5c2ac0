"""Frames: how requests and answers are written to a stream.

A frame is a length in four bytes, the highest first, and as many bytes of msgpack. A frame of the handshake is a map;
any other is ``[kind, numbers, bodies]``, so that requests that are sent together need one frame. The forms of the
handshake's first frame and of a refusal never change, because other versions must understand them.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgpack

from uno_actors.cluster.links.port import LARGEST

REQUESTS, ANSWERS, FAILURES, HEARTBEAT = 1, 2, 3, 4
BATCH_BYTES = 256 * 1024
"""A frame with several bodies has about as many bytes at most; one body may have more."""
LARGEST_FRAME = LARGEST + 2 * BATCH_BYTES
"""Bytes of the largest frame between nodes that know each other."""
LARGEST_GREETING = 4096
"""Bytes of the largest frame of the handshake: a stranger cannot make a node reserve more."""
LARGEST_BATCH = 4096
"""Maximum number of bodies in a frame."""

Batch: TypeAlias = tuple[int, list[int], list[bytes]]
"""Kind, numbers of requests, and their bodies."""


class MalformedFrame(ValueError):
    """Bytes that are not a frame of this protocol; the connection is closed."""


def frame(value: object) -> bytes:
    """The bytes of a frame."""
    packed: bytes = msgpack.packb(value)
    return len(packed).to_bytes(4, "big") + packed


def batches(
    waiting: "deque[tuple[int, bytes]]", limit: int = BATCH_BYTES
) -> Iterator[tuple[list[int], list[bytes]]]:
    """Take numbers and bodies out of ``waiting``, as many at a time as go into one frame.

    Args:
        waiting: Is empty at the end.
        limit: Bytes of several bodies together.
    """
    while waiting:
        numbers: list[int] = []
        bodies: list[bytes] = []
        size = 0
        while waiting and len(numbers) < LARGEST_BATCH and (not size or size + len(waiting[0][1]) <= limit):
            number, body = waiting.popleft()
            numbers.append(number)
            bodies.append(body)
            size += len(body) + 16
        yield numbers, bodies


def as_batch(value: object) -> Batch:
    """``value``, found in a frame, as kind, numbers and bodies.

    Raises:
        MalformedFrame: It is something else.
    """
    if type(value) is not list or len(value) != 3:
        raise MalformedFrame("a frame is [kind, numbers, bodies]")
    kind, numbers, bodies = value
    if type(kind) is not int or kind not in (REQUESTS, ANSWERS, FAILURES, HEARTBEAT):
        raise MalformedFrame("a frame of unknown kind")
    if type(numbers) is not list or type(bodies) is not list or len(numbers) != len(bodies):
        raise MalformedFrame("a frame has as many numbers as bodies")
    if not set(map(type, numbers)) <= {int} or not set(map(type, bodies)) <= {bytes}:
        raise MalformedFrame("numbers are whole, and bodies are bytes")
    return kind, numbers, bodies


class FrameReader:
    """Takes frames out of a stream.

    Attributes:
        largest: Bytes of the largest frame that is accepted.
    """

    def __init__(self) -> None:
        self.largest = LARGEST_GREETING
        self._rest = bytearray()
        self._wanted = 4

    def feed(self, data: bytes) -> list[Any]:
        """The values of the frames that end in ``data``, the next bytes of the stream.

        Raises:
            MalformedFrame: The bytes are not frames.
        """
        whole: bytes | bytearray = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            whole, self._rest = self._rest, bytearray()
        found = []
        start = 0
        self._wanted = 4
        while len(whole) - start >= 4:
            length = int.from_bytes(whole[start : start + 4], "big")
            if length > self.largest:
                raise MalformedFrame(
                    f"a frame of {length:,} bytes; at most {self.largest:,} are allowed here"
                )
            end = start + 4 + length
            if end > len(whole):
                self._wanted = 4 + length
                break
            found.append(unpacked(memoryview(whole)[start + 4 : end]))
            start = end
        if start < len(whole):
            self._rest = bytearray(memoryview(whole)[start:])
        return found


def unpacked(packed: bytes | memoryview) -> Any:
    """The value in the bytes of a frame.

    Raises:
        MalformedFrame: It is not msgpack.
    """
    try:
        return msgpack.unpackb(packed)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedFrame(f"a frame that is not msgpack: {type(error).__name__}") from None
