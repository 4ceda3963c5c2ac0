"""Connections between two nodes, from either side: handshake, frames, heartbeats, and the end of it all."""

import asyncio
from collections import deque
from functools import partial
from typing import Protocol, cast

from uno_actors.clock import Clock, Timer
from uno_actors.cluster.links.frames import (
    ANSWERS,
    BATCH_BYTES,
    FAILURES,
    HEARTBEAT,
    LARGEST_FRAME,
    REQUESTS,
    FrameReader,
    MalformedFrame,
    as_batch,
    batches,
    frame,
)
from uno_actors.cluster.links.handshake import Calling, Hosting, Identity, Refused
from uno_actors.cluster.links.open_requests import OpenRequests
from uno_actors.cluster.links.port import LARGEST, Serve
from uno_actors.errors import describe
from uno_actors.logs import Logger

LINGER = 1.0
"""Maximum seconds for the last frames to leave when a connection is ended."""


class Holder(Protocol):
    """What a connection needs of the link that it belongs to."""

    clock: Clock
    log: Logger
    ttl: float
    identity: Identity
    serve: Serve

    def distrust(self, transport: asyncio.BaseTransport) -> str | None:
        """Why the other end of a new connection must not be talked to, if so."""

    def connected(self, host: "HostConnection") -> None:
        """Note a connection that another node has opened."""

    def disconnected(self, host: "HostConnection") -> None:
        """Note its end."""


class Peer(Protocol):
    """What a connection needs of the other node's requests."""

    node: str
    open: OpenRequests

    def ready(self) -> None:
        """The connection can take requests."""

    def flush(self) -> None:
        """Write the requests that wait."""

    def lost(self, connection: "CallerConnection", reason: str) -> None:
        """The connection has ended, or none could be made."""


class Connection(asyncio.Protocol):
    """One connection, from either side: frames, heartbeats, and the end of it all.

    Attributes:
        transport: Writes the bytes; ``None`` before there is a connection.
        ended: Set when the connection has ended.
    """

    def __init__(self, link: Holder) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.ended = asyncio.Event()
        self.is_ready = False
        self.is_paused = False
        self._reader = FrameReader()
        self._why = ""
        self._heard = self._made = link.clock.monotonic()
        self._has_written = False
        self._buffered = 0
        self._beat_due = 0.0
        self._timer: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol.connection_made`."""
        self.transport = cast("asyncio.Transport", transport)
        if self._why:  # given up while it was being made
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=BATCH_BYTES)
        self._heard = self._made = self.link.clock.monotonic()
        self._set_timer()
        reason = self.link.distrust(transport)
        if reason is not None:
            self.lose(reason, warn=True)
        else:
            self.greet()

    def greet(self) -> None:
        """Say what this side says first."""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        self._heard = self.link.clock.monotonic()
        try:
            for value in self._reader.feed(data):
                if self._why:
                    return
                if self.is_ready:
                    self.receive(*as_batch(value))
                else:
                    self.shake(value)
        except MalformedFrame as error:
            self.lose(f"malformed frame: {error}", warn=True)
        except Refused as refused:
            if not refused.by_other:
                self.write({"refused": refused.reason})
            self.lose(refused.reason, warn=True, at_once=refused.by_other)

    def shake(self, value: object) -> None:
        """Take a frame of the handshake."""
        raise NotImplementedError

    def receive(self, kind: int, numbers: list[int], bodies: list[bytes]) -> None:
        """Take another frame."""
        raise NotImplementedError

    def become_ready(self) -> None:
        """The handshake is complete."""
        self.is_ready = True
        self._reader.largest = LARGEST_FRAME

    def write(self, value: object) -> bool:
        """Write a frame, unless the connection has ended; returns whether more may be written now."""
        if self.transport is None or self._why or self.ended.is_set():
            return False
        self._has_written = True
        self.transport.write(frame(value))
        return not self.is_paused

    def lose(self, reason: str, *, warn: bool = False, at_once: bool = True) -> None:
        """End the connection; the first reason counts."""
        if self._why or self.ended.is_set():
            return
        self._why = reason
        self.is_ready = False
        if self._timer is not None:
            self._timer.cancel()
        if warn:
            self.link.log.warning(
                "connection between nodes refused",
                other=self.other,
                reason=reason,
            )
        if self.transport is None:
            self.connection_lost(None)
        elif at_once:
            self.transport.abort()
        else:
            self.transport.close()
            self._timer = self.link.clock.call_later(LINGER, self.abort)

    def abort(self) -> None:
        """End a connection that may be waiting for the other side."""
        if self.transport is not None and not self.ended.is_set():
            self.transport.abort()

    @property
    def other(self) -> str:
        """The other side, for logs."""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol.connection_lost`."""
        if self.ended.is_set():
            return
        self.ended.set()
        self.is_ready = False
        if self._timer is not None:
            self._timer.cancel()
        self.lost(self._why or ("the connection was closed" if exc is None else describe(exc)))

    def lost(self, reason: str) -> None:
        """The connection has ended."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """See `asyncio.Protocol.pause_writing`."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol.resume_writing`."""
        self.is_paused = False
        self.flush()

    def flush(self) -> None:
        """Write what waits, until the other side reads too slowly."""
        raise NotImplementedError

    def _set_timer(self) -> None:
        period = self.link.ttl / 4
        self._beat_due = self.link.clock.monotonic() + period
        self._timer = self.link.clock.call_later(period, self._beat)

    def _beat(self) -> None:
        now = self.link.clock.monotonic()
        period = self.link.ttl / 4
        transport = self.transport
        if transport is None:
            return
        buffered = transport.get_write_buffer_size()
        if self.is_paused and buffered < self._buffered:
            self._heard = now  # it reads, if slowly
        self._buffered = buffered
        # When this event loop itself was late, what the other side has said may not have been read yet.
        is_late = now - self._beat_due > period
        if not self.is_ready and now - self._made >= self.link.ttl:
            self.lose(f"no handshake within {self.link.ttl:g} s")
            return
        if now - self._heard >= 3 * period and not is_late:
            self.lose(f"nothing was heard for {now - self._heard:.1f} s")
            return
        if self.is_ready and not self._has_written and not self.is_paused:
            self.write([HEARTBEAT, [], []])
        self._has_written = False
        self._set_timer()


class HostConnection(Connection):
    """A connection that another node has opened: its requests arrive here."""

    def __init__(self, link: Holder) -> None:
        super().__init__(link)
        self._handshake = Hosting(link.identity)
        self._serving: set[int] = set()
        self._answers: deque[tuple[int, bytes]] = deque()
        self._is_flushing = False
        self._loop = asyncio.get_running_loop()

    @property
    def other(self) -> str:
        """See `Connection.other`."""
        return self._handshake.caller

    def greet(self) -> None:
        """See `Connection.greet`."""
        self.link.connected(self)

    def shake(self, value: object) -> None:
        """See `Connection.shake`."""
        self.write(self._handshake.receive(value))
        if self._handshake.is_ready:
            self.become_ready()

    def receive(self, kind: int, numbers: list[int], bodies: list[bytes]) -> None:
        """See `Connection.receive`."""
        if kind == REQUESTS:
            serve = self.link.serve
            for number, body in zip(numbers, bodies, strict=True):
                self._serving.add(number)
                try:
                    serve(body, partial(self._answer, number))
                except Exception as error:
                    self.link.log.exception("a request of another node could not be served")
                    self._fail(number, describe(error))
        elif kind != HEARTBEAT:
            raise MalformedFrame("answers to requests that were not sent on this connection")

    def _answer(self, number: int, body: bytes) -> None:
        if number not in self._serving:
            return
        if len(body) > LARGEST:
            self._fail(number, f"the answer has {len(body):,} bytes; at most {LARGEST:,} are allowed")
            return
        self._serving.discard(number)
        self._answers.append((number, body))
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self.flush)

    def _fail(self, number: int, reason: str) -> None:
        if number in self._serving:
            self._serving.discard(number)
            self.write([FAILURES, [number], [reason.encode(errors="replace")]])

    def flush(self) -> None:
        """See `Connection.flush`."""
        self._is_flushing = False
        if self.is_paused or not self.is_ready:
            return
        for numbers, bodies in batches(self._answers):
            if not self.write([ANSWERS, numbers, bodies]):
                return

    def pause_writing(self) -> None:
        """See `asyncio.Protocol.pause_writing`."""
        super().pause_writing()
        if self.transport is not None:
            self.transport.pause_reading()  # serve no more until the other side reads its answers

    def resume_writing(self) -> None:
        """See `asyncio.Protocol.resume_writing`."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        super().resume_writing()

    def finish(self, reason: str) -> None:
        """Write the answers that were given, and end the connection."""
        self.flush()
        self._serving.clear()
        self.lose(reason, at_once=False)

    def lost(self, reason: str) -> None:
        """See `Connection.lost`."""
        del reason
        self._serving.clear()
        self._answers.clear()
        self.link.disconnected(self)


class CallerConnection(Connection):
    """A connection to another node, for the requests of a `Peer`."""

    def __init__(self, link: Holder, peer: Peer) -> None:
        super().__init__(link)
        self._peer = peer
        self._handshake = Calling(link.identity, peer.node)

    @property
    def other(self) -> str:
        """See `Connection.other`."""
        return self._peer.node

    def greet(self) -> None:
        """See `Connection.greet`."""
        self.write(self._handshake.first())

    def shake(self, value: object) -> None:
        """See `Connection.shake`."""
        reply = self._handshake.receive(value)
        if reply is not None:
            self.write(reply)
        if self._handshake.is_ready:
            self.become_ready()
            self._peer.ready()

    def receive(self, kind: int, numbers: list[int], bodies: list[bytes]) -> None:
        """See `Connection.receive`."""
        end = self._peer.open.end
        if kind == ANSWERS:
            for number, body in zip(numbers, bodies, strict=True):
                end(number, body)
        elif kind == FAILURES:
            for number, reason in zip(numbers, bodies, strict=True):
                self._peer.open.fail(number, reason.decode(errors="replace"))
        elif kind != HEARTBEAT:
            raise MalformedFrame("requests on a connection that this node has opened")

    def flush(self) -> None:
        """See `Connection.flush`."""
        if self.is_ready:
            self._peer.flush()

    def lost(self, reason: str) -> None:
        """See `Connection.lost`."""
        self._peer.lost(self, reason)
