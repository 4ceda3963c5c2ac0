"""The link over NATS, where nodes must not open ports: requests and answers are messages of its core.

Each node subscribes to a subject of its own, and to one for answers. A server says at once that a subject has no
subscriber, so a request to a node that has gone never arrives. While the connection to the servers is down, nothing is
sent; the client would send it later, when its asker has long gone elsewhere.

What a server lets pass is its own matter: user, password and TLS are those of the URL. With a secret, each message
carries an HMAC besides, so that other clients of the same servers cannot give orders to nodes.
"""

import asyncio
import hmac
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

import msgpack
from typing_extensions import override

from uno_actors.clock import Clock, Timer
from uno_actors.cluster.links.frames import (
    ANSWERS,
    BATCH_BYTES,
    FAILURES,
    HEARTBEAT,
    REQUESTS,
    Batch,
    MalformedFrame,
    as_batch,
    batches,
    unpacked,
)
from uno_actors.cluster.links.handshake import PROTOCOL, own_version
from uno_actors.cluster.links.open_requests import OpenRequests, call_done
from uno_actors.cluster.links.port import Delivery, Done, Link, LinkFailure, Serve
from uno_actors.errors import LinkUnavailable, describe
from uno_actors.store_urls import without_password, without_secrets
from uno_actors.tasks import begin

SCHEME = "nats:"
_OVERHEAD = 1024
"""Bytes of a message that are kept free for what surrounds a body."""
_REFUSED = b"\0"
_MAC_BYTES = 32


class NatsLink(Link):
    """A link over NATS.

    Args:
        url: URLs of the servers, separated by commas.
        cluster: Name of the cluster, the same for all nodes of a store; a token of subjects.
        secret: Known to all nodes, or ``None``.
        ttl: Seconds after which a node that says nothing is taken for gone.
        clock: Measures all times.
    """

    def __init__(self, url: str, *, cluster: str, secret: str | None, ttl: float, clock: Clock) -> None:
        self.clock = clock
        self.ttl = ttl
        self._url = url
        self._prefix = f"uno.{cluster}"
        self._secret = (secret or "none").encode()
        self._node = ""
        self._client: Any = None
        self._requests: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serve: Serve | None = None
        self._peers: dict[str, _Peer] = {}
        self._answers: dict[str, deque[tuple[int, bytes]]] = {}
        self._messages: deque[tuple[str, str, bytes]] = deque()
        self._work = asyncio.Event()
        self._echo = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._is_closed = False
        self._lives = 0

    @property
    @override
    def resend_after(self) -> float:
        """See `Link.resend_after`: a server drops what a slow client does not take in time."""
        return 2 * self.ttl

    @property
    def largest(self) -> int:
        """Bytes of the largest body that the server lets pass."""
        return max(0, int(self._client.max_payload) - _OVERHEAD)

    async def start(self, node: str, serve: Serve) -> str:
        """See `Link.start`."""
        try:
            from nats.aio.client import Client  # noqa: PLC0415 - of an extra
        except ImportError:
            raise LinkUnavailable(
                without_password(self._url), "nats-py is not installed: pip install 'uno-actors[nats]'"
            ) from None
        self._loop = asyncio.get_running_loop()
        self._node, self._serve = node, serve
        client: Any = Client()
        self._client = client
        try:
            async with asyncio.timeout(max(self.ttl, 2.0)):
                await client.connect(
                    servers=self._url.split(","),
                    name=f"uno_actors {self._prefix} {node}",
                    error_cb=self._report,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                    connect_timeout=max(1, round(self.ttl)),
                    reconnect_time_wait=0.25,
                    max_reconnect_attempts=-1,
                    ping_interval=self.ttl / 2,
                )
                self._requests = await client.subscribe(f"{self._prefix}.to.{node}", cb=self._arrived)
                await client.subscribe(f"{self._prefix}.re.{node}.>", cb=self._answered)
                # The client's own flush may overtake the subscriptions, and requests would find no node.
                self._writer = begin(self._loop, self._write(), name=f"writer of node {node}")
                self.beat(node, self.reply_to(node))
                await self._echo.wait()
        except Exception as error:  # noqa: BLE001 - the client raises many kinds
            await self.close()
            reason = without_secrets(describe(error), self._url)
            raise LinkUnavailable(
                without_password(self._url), f"{reason}: is a NATS server there, and may this user use it?"
            ) from None
        return f"{SCHEME}{self._prefix}.to.{node}"

    def request(self, address: str, body: bytes, seconds: float, done: Done) -> None:
        """See `Link.request`."""
        peer = self._peers.get(address)
        if (failure := self._refusal(address, body)) is None:
            if peer is None:
                peer = self._peers[address] = _Peer(self, address.removeprefix(f"{SCHEME}{self._prefix}.to."))
            if (failure := peer.open.refusal(len(body))) is None:
                peer.add(body, seconds, done)
                self._work.set()
                return
        asyncio.get_running_loop().call_soon(call_done, done, failure)

    def _refusal(self, address: str, body: bytes) -> LinkFailure | None:
        reason = self._obstacle(address, body)
        return None if reason is None else LinkFailure(Delivery.NEVER, reason)

    def _obstacle(self, address: str, body: bytes) -> str | None:
        if self._writer is None or self._is_closed:
            return "the link of this node is not open"
        if not address.startswith(f"{SCHEME}{self._prefix}.to."):
            return "this node has a link over NATS: give all nodes of a cluster the same kind of `listen`"
        if not self._client.is_connected:
            return "this node has lost its connection to NATS"
        if len(body) > self.largest:
            return f"the request has {len(body):,} bytes; {self._limit}"
        return None

    @property
    def _limit(self) -> str:
        return (
            f"at most {self.largest:,} are allowed by the NATS server: raise its max_payload, which is"
            f" {self._client.max_payload:,}"
        )

    def forget(self, address: str) -> None:
        """See `Link.forget`."""
        peer = self._peers.pop(address, None)
        if peer is not None and self._loop is not None:
            self._loop.call_soon(peer.close, f"{address} has left")

    async def close(self) -> None:
        """See `Link.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        for peer in self._peers.values():
            peer.close("the link of this node was closed")
        self._peers.clear()
        if self._client is None:
            return
        if self._writer is not None:
            with suppress(Exception):
                async with asyncio.timeout(1.0):
                    if self._requests is not None:
                        await self._requests.unsubscribe()
                    self._echo.clear()  # it comes back when the server has taken all before: the last answers, too
                    self.send(self.reply_to(self._node), (HEARTBEAT, [], []))
                    await self._echo.wait()
            self._writer.cancel()
        with suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._client.close()

    # --- writing ------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Publish what was put in store since the last turn of the loop."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._flush()
            except Exception as error:  # noqa: BLE001 - the client reconnects
                self.log.warning("NATS does not take messages", reason=describe(error))

    async def _flush(self) -> None:
        limit = min(BATCH_BYTES, self.largest)
        for peer in list(self._peers.values()):
            for numbers, bodies in batches(peer.waiting, limit):
                here = [at for at, number in enumerate(numbers) if peer.open.sent(number)]
                if here:
                    sent = [numbers[at] for at in here], [bodies[at] for at in here]
                    reply = f"{peer.reply}.{sent[0][0]}.{sent[0][-1]}"
                    await self._publish(f"{self._prefix}.to.{peer.node}", (REQUESTS, *sent), reply)
        answers, self._answers = self._answers, {}
        for subject, waiting in answers.items():
            for numbers, bodies in batches(waiting, limit):
                await self._publish(subject, (ANSWERS, numbers, bodies))
        while self._messages:
            subject, reply, data = self._messages.popleft()
            await self._client.publish(subject, data, reply)

    async def _publish(self, subject: str, batch: Batch, reply: str = "") -> None:
        await self._client.publish(subject, self._sealed(subject, batch), reply)

    def send(self, subject: str, batch: Batch, reply: str = "") -> None:
        """Publish a single message soon."""
        self._messages.append((subject, reply, self._sealed(subject, batch)))
        self._work.set()

    def beat(self, node: str, reply: str) -> None:
        """Ask another node for a sign of life."""
        self.send(f"{self._prefix}.to.{node}", (HEARTBEAT, [], []), f"{reply}.0.0")

    def reply_to(self, node: str) -> str:
        """A subject for answers of a node: a new one each time, so that no answer meets a later request."""
        self._lives += 1
        return f"{self._prefix}.re.{self._node}.{node}.{self._lives}"

    def _sealed(self, subject: str, batch: Batch) -> bytes:
        packed: bytes = msgpack.packb(batch)
        return bytes((PROTOCOL,)) + self._mac(subject, packed) + packed

    def _mac(self, subject: str, packed: bytes) -> bytes:
        return hmac.digest(self._secret, subject.encode() + b"\0" + packed, "sha256")

    # --- reading ------------------------------------------------------------------------------------------

    def _unsealed(self, subject: str, data: bytes) -> Batch:
        """The batch in a message.

        Raises:
            MalformedFrame: It is none, or no node of this cluster has sent it.
        """
        if data[:1] != bytes((PROTOCOL,)):
            raise MalformedFrame(
                f"it has version {data[0] if data else 'none'} of the protocol between nodes, and node {self._node}"
                f" version {PROTOCOL} (uno_actors {own_version()}): run equal versions"
            )
        mac, packed = data[1 : 1 + _MAC_BYTES], data[1 + _MAC_BYTES :]
        if not hmac.compare_digest(mac, self._mac(subject, packed)):
            raise MalformedFrame(f"its sender and node {self._node} have different secrets")
        return as_batch(unpacked(packed))

    async def _arrived(self, message: Any) -> None:
        """A request or heartbeat of another node."""
        reply = message.reply.rsplit(".", 2)[0]
        try:
            kind, numbers, bodies = self._unsealed(message.subject, message.data)
        except MalformedFrame as error:
            self.log.warning("message to this node refused", reason=str(error))
            if message.reply.startswith(f"{self._prefix}.re."):
                self._messages.append((message.reply, "", _REFUSED + str(error).encode()))
                self._work.set()
            return
        if self._is_closed or self._serve is None or not reply.startswith(f"{self._prefix}.re."):
            return
        if kind == HEARTBEAT:
            self.send(reply, (HEARTBEAT, [], []))
        elif kind == REQUESTS:
            for number, body in zip(numbers, bodies, strict=True):
                waits = {number}
                try:
                    self._serve(body, partial(self._answer, reply, waits))
                except Exception as error:
                    self.log.exception("a request of another node could not be served")
                    self._fail(reply, waits, describe(error))

    def _answer(self, reply: str, waits: set[int], body: bytes) -> None:
        if not waits or self._is_closed:
            return
        if len(body) > self.largest:
            self._fail(reply, waits, f"the answer has {len(body):,} bytes; {self._limit}")
            return
        self._answers.setdefault(reply, deque()).append((waits.pop(), body))
        self._work.set()

    def _fail(self, reply: str, waits: set[int], reason: str) -> None:
        if waits:
            self.send(reply, (FAILURES, [waits.pop()], [reason.encode(errors="replace")]))

    async def _answered(self, message: Any) -> None:
        """An answer of another node, or the server's word that the node does not exist."""
        self._echo.set()
        parts = message.subject.removeprefix(f"{self._prefix}.re.{self._node}.").split(".")
        peer = self._peers.get(f"{SCHEME}{self._prefix}.to.{parts[0]}")
        if peer is None or not f"{message.subject}.".startswith(f"{peer.reply}."):
            return
        if (message.headers or {}).get("Status") == "503" or message.data[:1] == _REFUSED:
            text = message.data[1:].decode(errors="replace")
            peer.refused(int(parts[2]), int(parts[3]), text or f"no node listens as {parts[0]}")
            return
        try:
            peer.receive(*self._unsealed(message.subject, message.data))
        except MalformedFrame as error:
            self.log.warning("answer to this node refused", other=peer.node, reason=str(error))

    # --- the connection -----------------------------------------------------------------------------------

    async def _disconnected(self) -> None:
        for peer in self._peers.values():
            peer.waiting.clear()
            peer.open.fail_all("this node has lost its connection to NATS")
        if not self._is_closed:
            self.log.warning("connection to NATS lost")

    async def _reconnected(self) -> None:
        self.log.info("connected to NATS again")

    async def _report(self, error: Exception) -> None:
        self.log.warning("NATS reports an error", reason=without_secrets(describe(error), self._url))


class _Peer:
    """Another node, as this one sends requests to it."""

    def __init__(self, link: NatsLink, node: str) -> None:
        self.node = node
        self.open = OpenRequests(link.clock, f"node {node}")
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.reply = link.reply_to(node)
        self._link = link
        self._heard = 0.0
        self._timer: Timer | None = None
        self._due = 0.0

    def add(self, body: bytes, seconds: float, done: Done) -> None:
        """Put a request in store for the writer."""
        if self._timer is None:
            self._heard = self._link.clock.monotonic()
            self._set_timer()
        self.waiting.append((self.open.add(len(body), seconds, done), body))

    def receive(self, kind: int, numbers: list[int], bodies: list[bytes]) -> None:
        """Take what the other node has sent."""
        self._heard = self._link.clock.monotonic()
        for number, body in zip(numbers, bodies, strict=True):
            if kind == ANSWERS:
                self.open.end(number, body)
            elif kind == FAILURES:
                self.open.fail(number, body.decode(errors="replace"))

    def refused(self, first: int, last: int, reason: str) -> None:
        """The requests of one message have not reached the node; a heartbeat, which has none, has not either."""
        if first == 0:
            self.open.fail_some(
                [number for number in self.open.numbers() if self.open.is_sent(number)], reason
            )
        for number in range(max(first, last - 10_000), last + 1):
            self.open.end(number, LinkFailure(Delivery.NEVER, reason))

    def close(self, reason: str) -> None:
        """End all requests."""
        if self._timer is not None:
            self._timer.cancel()
        self.waiting.clear()
        self.open.close(reason)

    def _set_timer(self) -> None:
        period = self._link.ttl / 4
        self._due = self._link.clock.monotonic() + period
        self._timer = self._link.clock.call_later(period, self._beat)

    def _beat(self) -> None:
        """While requests are open: whether the other node still lives."""
        self._timer = None
        now = self._link.clock.monotonic()
        period = self._link.ttl / 4
        if now - self._heard >= 3 * period and now - self._due <= period:
            self.waiting.clear()
            self.open.fail_all(f"nothing was heard of node {self.node} for {now - self._heard:.1f} s")
        if len(self.open):
            self._link.beat(self.node, self.reply)
            self._set_timer()
