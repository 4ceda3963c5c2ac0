"""Messages between a rehearsal and its workers: msgpack, each after its length, through pipes."""

import struct
from typing import IO, Any

import msgpack

_LENGTH = struct.Struct(">I")
_pack = msgpack.Packer(unicode_errors="surrogatepass").pack


class Ended(Exception):
    """The other side has closed its end."""


class Channel:
    """Two pipes.

    Args:
        inward: To read from.
        outward: To write to.
    """

    def __init__(self, inward: IO[bytes], outward: IO[bytes]) -> None:
        self._inward = inward
        self._outward = outward

    def send(self, message: object) -> None:
        """Send a message of values that msgpack can write.

        Raises:
            Ended: The other side is gone.
        """
        data: bytes = _pack(message)
        try:
            self._outward.write(_LENGTH.pack(len(data)) + data)
            self._outward.flush()
        except (OSError, ValueError) as error:
            raise Ended from error

    def receive(self) -> Any:
        """The next message.

        Raises:
            Ended: There is none.
        """
        try:
            head = self._inward.read(_LENGTH.size)
            data = self._inward.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
        except (OSError, ValueError) as error:
            raise Ended from error
        if not data:
            raise Ended
        return msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")
