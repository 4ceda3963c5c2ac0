"""Subscribers of FastStream that take a message only when it was recorded.

=========== ============================================== ==========================================================
broker      the subscription                               a message that was not recorded
=========== ============================================== ==========================================================
NATS        a durable consumer of the stream               comes again at once, or after the ``ack_wait`` of it
Kafka       a consumer group, from the first message on    comes again, since its offset is not committed
RabbitMQ    a queue                                        is put back
Redis       a consumer group of a stream, from the first   is claimed again after ``claim_after``
            entry on
=========== ============================================== ==========================================================

Subjects without a stream, and channels and lists of Redis, forget a message as soon as it is delivered. They are
refused.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, Any

from faststream import AckPolicy, Context
from faststream.exceptions import NackMessage

from uno_actors.errors import InvalidHandler, describe
from uno_actors.outside.brokers import kind_of

Take = Callable[[Any], Awaitable[None]]
"""Records one message of FastStream, or raises."""


class NotTaken(Exception):
    """The message goes back to the broker."""


OURS = ("ack_policy", "decoder", "parser", "codec", "no_reply", "batch", "list", "channel", "no_ack")


def checked_options(broker: Any, options: Mapping[str, Any]) -> str:
    """The kind of a broker whose subscriptions can have these options.

    Raises:
        InvalidHandler: It is not a broker of FastStream, or messages could be lost.
    """
    kind = kind_of(broker)
    if kind is None:
        raise InvalidHandler(
            f"nothing can be received from {broker!r}: give a broker of FastStream (NatsBroker, KafkaBroker,"
            " RabbitBroker or RedisBroker)"
        )
    if taken := [name for name in OURS if name in options]:
        raise InvalidHandler(
            f"{', '.join(taken)} cannot be given: receive(...) takes each message by itself, and confirms it when it"
            " is recorded"
        )
    if kind == "nats" and not options.get("stream"):
        raise InvalidHandler(
            "a subject of NATS without a stream forgets a message as soon as it is delivered: give stream=... of"
            " JetStream"
        )
    return kind


async def start(subscriber: Any, kind: str) -> None:
    """Let one of the `subscribers` take messages; its broker must be connected."""
    if kind == "redis":
        # It makes a group that is not there, which may be lost at any time: from the first entry, and not from now on.
        subscriber.last_id = "0"
    await subscriber.start()


def subscribers(
    broker: Any,
    kind: str,
    subject: str,
    *,
    name: str,
    take: Take,
    options: Mapping[str, Any],
    claim_after: float,
) -> list[Any]:
    """The subscribers of FastStream for one receiver, not started."""
    group = group_of(name)
    common = {
        "ack_policy": AckPolicy.NACK_ON_ERROR,
        "decoder": _as_it_is,
        "no_reply": True,
        "persistent": False,
    }
    made: list[Any] = []
    match kind:
        case "nats":
            given = {"durable": group, "pull_sub": True, **options}
            made = [broker.subscriber(subject, **given, **common)]
        case "kafka":
            given = {"group_id": group, "auto_offset_reset": "earliest", **options}
            made = [broker.subscriber(subject, **given, **common)]
        case "rabbit":
            from faststream.rabbit import Channel  # noqa: PLC0415 - a library that only this broker needs

            given = {
                "channel": Channel(prefetch_count=1),
                **options,
            }  # else several are taken at once, in any order
            made = [broker.subscriber(subject, **given, **common)]
        case _:
            from faststream.redis import StreamSub  # noqa: PLC0415 - as above

            one: dict[str, Any] = {"group": group, "consumer": group, "last_id": ">"}
            milliseconds = max(1, round(claim_after * 1000))
            made = [
                broker.subscriber(stream=StreamSub(subject, **one), **options, **common),
                broker.subscriber(
                    stream=StreamSub(
                        subject,
                        **one,
                        min_idle_time=milliseconds,
                        polling_interval=max(10, milliseconds // 4),
                    ),
                    **options,
                    **common,
                ),
            ]

    async def taken(message: Annotated[Any, Context("message")]) -> None:
        try:
            await take(message)
        except NotTaken as back:
            raise NackMessage from back

    for subscriber in made:
        subscriber(taken)
    return made


def end_of_one(started: Iterable[Any]) -> str | None:
    """Why one of the started subscribers takes nothing any more; ``None`` if all do. FastStream only logs it."""
    for subscriber in started:
        if not subscriber.running:
            return "its subscriber has stopped"
        for task in getattr(subscriber, "tasks", ()):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return describe(error)
    return None


async def is_removed(broker: Any, kind: str, group: str, options: Mapping[str, Any]) -> bool:
    """Whether the server has no consumer any more; a client of NATS would ask for messages of it without end."""
    durable = options.get("durable", group)
    if kind != "nats" or not durable:
        return False
    from nats.js.errors import NotFoundError  # noqa: PLC0415 - a library that only this broker needs

    stream = options["stream"]
    try:
        client = await broker.connect()
        await client.jetstream().consumer_info(getattr(stream, "name", stream), durable)
    except NotFoundError:
        return True
    except Exception:  # noqa: BLE001 - the server is away, and the client connects again by itself
        return False
    return False


def group_of(name: str) -> str:
    """The name of a receiver as brokers allow it for a consumer."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


async def _as_it_is(message: Any) -> Any:
    """The body, which is decoded when the message is recorded: what cannot be decoded must not be lost."""
    return message.body
