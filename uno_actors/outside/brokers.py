"""Brokers as destinations, through FastStream: NATS, Kafka, RabbitMQ and Redis.

============ ========================= ===================== ================================ ==========================
broker       address                   confirmed when        stays in order                   left out what comes twice
============ ========================= ===================== ================================ ==========================
NATS         subject: the topic        JetStream has it      in the stream                    by JetStream: Nats-Msg-Id
Kafka        topic: one for all        the leader has it     in the partition of aggregate    by the receiver: ce_id
RabbitMQ     routing key: the topic    the broker has it,    in the queue                     by the receiver:
                                       in a queue                                             message_id
Redis        stream: one for all       Redis has it          in the stream                    by the receiver: ce-id
============ ========================= ===================== ================================ ==========================
"""

import asyncio
from abc import abstractmethod
from typing import Any, ClassVar
from weakref import WeakSet

from typing_extensions import override

from uno_actors.errors import InvalidHandler, RetryLater, describe
from uno_actors.outside.destination import DeliveryRefused, Destination, Outgoing
from uno_actors.quantities import check_duration

TOO_LARGE = ("MaxPayloadError", "MessageSizeTooLargeError", "RecordTooLargeError", "BadSubjectError")
"""Errors of clients that are about one message."""

_connected: WeakSet[Any] = WeakSet()
"""The brokers that were connected here, and that are closed here."""


async def connect(broker: Any) -> Any:
    """The client of a FastStream broker, which is connected if the program has not done so."""
    if getattr(broker, "_connection", None) is None:
        client = await broker.connect()
        _connected.add(broker)
        return client
    return await broker.connect()


async def disconnect(broker: Any) -> None:
    """Close a broker that was connected here."""
    if broker in _connected:
        _connected.discard(broker)
        await broker.stop()


class ToBroker(Destination):
    """What all brokers have in common.

    Args:
        broker: A broker of FastStream. One that the program has not connected is connected when the first event is
            sent, and closed with the handler.
        timeout: Seconds until a broker that has not confirmed a message counts as away.
    """

    def __init__(self, broker: Any, *, timeout: float = 10.0) -> None:
        check_duration("timeout", timeout)
        self.broker = broker
        self._timeout = timeout

    @abstractmethod
    async def _publish(self, outgoing: Outgoing) -> None:
        """Publish one message and wait until it is confirmed."""

    @override
    async def send(self, outgoing: Outgoing) -> None:
        try:
            async with asyncio.timeout(self._timeout):  # a client may try to connect without end
                await connect(self.broker)
                await self._publish(outgoing)
        except (DeliveryRefused, RetryLater):
            raise
        except Exception as error:
            if isinstance(error, (ValueError, TypeError)) or type(error).__name__ in TOO_LARGE:
                raise DeliveryRefused(
                    f"{self.kind} does not take {outgoing.event}: {describe(error)}"
                ) from error
            raise RetryLater(f"{self.kind} is not available: {describe(error)}") from error

    @override
    async def close(self) -> None:
        await disconnect(self.broker)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.broker).__name__})"


class ToNats(ToBroker):
    """A subject of NATS that a stream of JetStream keeps.

    Args:
        broker: A ``faststream.nats.NatsBroker``.
        stream: The stream that keeps the subjects; by default the one that JetStream names.
        timeout: As for every broker.
    """

    kind: ClassVar[str] = "NATS"

    def __init__(self, broker: Any, *, stream: str | None = None, timeout: float = 10.0) -> None:
        super().__init__(broker, timeout=timeout)
        self._stream = stream
        self._streams: dict[str, str] = {}

    async def _stream_of(self, subject: str) -> str:
        if self._stream is not None:
            return self._stream
        if subject not in self._streams:
            from nats.js.errors import NotFoundError  # noqa: PLC0415 - a library that only this broker needs

            client = await self.broker.connect()
            try:
                self._streams[subject] = await client.jetstream().find_stream_name_by_subject(subject)
            except NotFoundError:
                raise RetryLater(
                    f"no stream of JetStream keeps the subject {subject}, so what is sent could be lost: add one, as in"
                    f" `nats stream add --subjects '{subject.partition('.')[0]}.>'`"
                ) from None
        return self._streams[subject]

    @override
    async def _publish(self, outgoing: Outgoing) -> None:
        headers, body = outgoing.encoded("http")
        stream = await self._stream_of(outgoing.address)
        try:
            await self.broker.publish(
                body,
                outgoing.address,
                headers={**headers, "Nats-Msg-Id": outgoing.id},
                correlation_id=outgoing.correlation_id,
                stream=stream,
                timeout=self._timeout,
            )
        except Exception:
            self._streams.pop(outgoing.address, None)  # the stream may be another one by now
            raise


class ToKafka(ToBroker):
    """A topic of Kafka. The id of the aggregate is the key, so its events stay in one partition.

    Configure the broker's producer for durable writes: ``KafkaBroker(..., acks="all", enable_idempotence=True)``.

    Args:
        broker: A ``faststream.kafka.KafkaBroker``.
        timeout: As for every broker.
    """

    kind: ClassVar[str] = "Kafka"
    has_one_address: ClassVar[bool] = True

    @override
    async def _publish(self, outgoing: Outgoing) -> None:
        headers, body = outgoing.encoded("kafka")
        key = outgoing.event.aggregate_id
        await self.broker.publish(
            body,
            outgoing.address,
            key=None if key is None else key.encode(),
            headers=headers,
            correlation_id=outgoing.correlation_id,
        )


class ToRabbit(ToBroker):
    """An exchange of RabbitMQ. A message that no queue takes is refused, not dropped.

    Args:
        broker: A ``faststream.rabbit.RabbitBroker``.
        exchange: The exchange, or its name; by default the one that passes a message to the queue of its routing key.
        timeout: As for every broker.
    """

    kind: ClassVar[str] = "RabbitMQ"

    def __init__(self, broker: Any, *, exchange: Any = None, timeout: float = 10.0) -> None:
        super().__init__(broker, timeout=timeout)
        self._exchange = exchange

    @override
    async def _publish(self, outgoing: Outgoing) -> None:
        headers, body = outgoing.encoded("rabbitmq")
        content_type = headers.pop("content-type")
        confirmed = await self.broker.publish(
            body,
            routing_key=outgoing.address,
            exchange=self._exchange,
            mandatory=True,
            persist=True,
            timeout=self._timeout,
            headers=headers,
            content_type=content_type,
            message_id=outgoing.id,
            correlation_id=outgoing.correlation_id,
            timestamp=outgoing.event.timestamp,
        )
        if type(confirmed).__name__ != "Ack":
            raise RetryLater(
                f"RabbitMQ has no queue for the routing key {outgoing.address!r}, so what is sent would be lost:"
                " bind one"
            )


class ToRedis(ToBroker):
    """A stream of Redis.

    Args:
        broker: A ``faststream.redis.RedisBroker``.
        maxlen: Greatest number of messages that the stream keeps; by default all.
        timeout: As for every broker.
    """

    kind: ClassVar[str] = "Redis"
    has_one_address: ClassVar[bool] = True

    def __init__(self, broker: Any, *, maxlen: int | None = None, timeout: float = 10.0) -> None:
        super().__init__(broker, timeout=timeout)
        self._maxlen = maxlen

    @override
    async def _publish(self, outgoing: Outgoing) -> None:
        headers, body = outgoing.encoded("http")
        await self.broker.publish(
            body,
            stream=outgoing.address,
            maxlen=self._maxlen,
            headers=headers,
            correlation_id=outgoing.correlation_id,
        )


_OF_MODULE = {"nats": ToNats, "kafka": ToKafka, "rabbit": ToRabbit, "redis": ToRedis}


def kind_of(broker: Any) -> str | None:
    """``nats``, ``kafka``, ``rabbit`` or ``redis``; ``None`` for what is no such broker of FastStream."""
    for base in type(broker).__mro__:
        package, _, rest = base.__module__.partition(".")
        kind = rest.partition(".")[0]
        if package == "faststream" and kind in _OF_MODULE:
            return kind
    return None


def destination_of(to: Any) -> Destination:
    """``to`` itself, or the destination for a broker of FastStream.

    Raises:
        InvalidHandler: It is neither.
    """
    if isinstance(to, Destination):
        return to
    kind = kind_of(to)
    if kind is None:
        raise InvalidHandler(
            f"events cannot be forwarded to {to!r}: give a broker of FastStream (NatsBroker, KafkaBroker, RabbitBroker"
            " or RedisBroker), a Webhook, or another Destination"
        )
    made: type[Any] = _OF_MODULE[kind]
    destination: Destination = made(to)
    return destination
