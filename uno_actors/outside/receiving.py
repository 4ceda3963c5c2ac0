"""The handler that records messages of brokers, and `receive`, which makes it.

A message is confirmed when it is recorded. Each has a stream of its own, named after its source and id, and is
recorded as the first event of that stream: so the store refuses it when it comes again, in the same transaction. What a
program makes of a message is recorded at once; if that fails, the message is recorded as it came, and the handler tries
again as with any event, up to a dead letter.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from typing_extensions import override

from uno_actors.backoff import Backoff, chance
from uno_actors.domain.aggregate import MAX_TYPE_BYTES, AggregateRoot, unfit_name
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import (
    CommandIdReused,
    ConcurrencyConflict,
    InvalidHandler,
    OutcomeUnknown,
    ReplyNotRecorded,
    RetryLater,
    StoreFull,
    StoreUnavailable,
    describe,
)
from uno_actors.handlers.calls import HandlerCalls
from uno_actors.handlers.spec import EventPriority, HandlerContext, HandlerSpec, check_name
from uno_actors.handlers.strategy import HandlesProgress, OneByOne, OwnStrategy
from uno_actors.handlers.subscription import Subscription
from uno_actors.outside.brokers import connect, disconnect
from uno_actors.outside.messages import (
    Message,
    MessageTaken,
    ReceivedMessage,
    digest,
    fit_id,
    message_in,
    received,
)
from uno_actors.outside.subscribers import (
    NotTaken,
    checked_options,
    end_of_one,
    group_of,
    is_removed,
    start,
    subscribers,
)
from uno_actors.quantities import check_duration
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.tasks import begin

TO_CONNECT = 4.0
"""Seconds until a broker that cannot be connected to counts as away."""
AGAIN = Backoff(initial=0.1, max=5.0)
"""Between attempts to record a message while the store is away."""
LOOK_FOR_ENDS = 1.0
"""Seconds between looks whether a subscriber has ended by itself."""
LOOK_AGAIN = 0.1
"""Seconds between looks whether a paused receiver was resumed."""


@dataclass(frozen=True, slots=True)
class Send:
    """A command that follows from a message.

    Attributes:
        aggregate_type: The class of the aggregate.
        aggregate_id: Its id.
        command: The command; its ``command_id`` is derived from the message.
    """

    aggregate_type: type[AggregateRoot]
    aggregate_id: str
    command: Command[Any]


ToEvents = Callable[[Message], DomainEvent | Iterable[DomainEvent] | None]
"""From a message to the events that are recorded; ``None`` for none."""

ToCommands = Callable[[Message], Send | Iterable[Send] | None]
"""From a message to the commands that are sent; ``None`` for none."""


class Receiver(OwnStrategy[ReceivedMessage]):
    """Takes messages from a broker and records them; made by `receive`."""

    def __init__(
        self,
        broker: Any,
        subject: str,
        name: str,
        *,
        event: ToEvents | None,
        command: ToCommands | None,
        claim_after: float,
        options: dict[str, Any],
    ) -> None:
        super().__init__(ReceivedMessage)
        self._broker = broker
        self._kind = checked_options(broker, options)
        self._subject = subject
        self._name = name
        self._event = event
        self._command = command
        self._claim_after = claim_after
        self._options = options
        self._subscribers: list[Any] = []
        self._is_open = False
        self._changing = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._broken: str | None = None  # why it has to subscribe anew
        self._serving: Subscription | None = None  # of the one system that it runs in
        self._subscription: Subscription
        self._store: EventStore

    # --- messages that come ---

    async def open(self) -> None:
        """Begin to take messages, unless that is done. Of several partitions the first one does."""
        if self._subscription.partition not in (None, 1):
            return
        async with self._changing:
            if self._is_open and self._broken is not None:
                self._subscription.logger.warning(
                    "subscribes anew", subject=self._subject, reason=self._broken
                )
                await self._close()
            if not self._is_open:
                await self._open()

    async def _watch(self) -> None:
        """Let the handler subscribe anew when a subscriber has ended by itself, as when its consumer was removed."""
        while self._is_open and self._broken is None:
            await asyncio.sleep(LOOK_FOR_ENDS)
            self._broken = end_of_one(self._subscribers)
            if await is_removed(self._broker, self._kind, group_of(self._name), self._options):
                self._broken = "the server has no such consumer any more"
        if self._is_open:
            self._subscription.wake()

    async def _open(self) -> None:
        self._is_open, self._broken = True, None
        try:
            async with asyncio.timeout(TO_CONNECT):  # a client may try to connect without end
                await connect(self._broker)
                if not self._subscribers:
                    self._subscribers = subscribers(
                        self._broker,
                        self._kind,
                        self._subject,
                        name=self._name,
                        take=self._take,
                        options=self._options,
                        claim_after=self._claim_after,
                    )
                for subscriber in self._subscribers:
                    await start(subscriber, self._kind)
        except Exception as error:
            await self._close()
            raise RetryLater(f"nothing can be received from {self._subject}: {describe(error)}") from error
        self._watching = begin(asyncio.get_running_loop(), self._watch())
        self._subscription.logger.info("receives messages", subject=self._subject, broker=self._kind)

    async def close(self) -> None:
        """Take no more messages."""
        async with self._changing:
            await self._close()

    async def _close(self) -> None:
        self._is_open = False  # what is under way ends now
        if self._watching is not None:
            self._watching.cancel()
        for subscriber in self._subscribers:
            await subscriber.stop()
        await disconnect(self._broker)

    @override
    async def _ended(self) -> None:
        self._serving = None
        await self.close()

    async def _take(self, taken: Any) -> None:
        """Record a message, however long the store is away; return when it is recorded."""
        log = self._subscription.logger
        found = received(taken, self._kind, self._name)
        attempt = 0
        while True:
            await self._may_take()
            try:
                await self._record(found)
            except (StoreUnavailable, StoreFull, OutcomeUnknown) as error:
                log.warning(
                    "message cannot be recorded yet", message_id=found.message_id, error=describe(error)
                )
                await asyncio.sleep(AGAIN.delay(attempt, chance()))
                attempt += 1
            except Exception as error:
                log.exception(
                    "message goes back to the broker", message_id=found.message_id, error=describe(error)
                )
                await asyncio.sleep(AGAIN.max)
                raise NotTaken from error
            else:
                return

    async def _may_take(self) -> None:
        """Wait while the receiver is paused.

        Raises:
            NotTaken: It has stopped, or another process has the handler.
        """
        subscription = self._subscription
        while self._is_open and subscription.leased and subscription.requests.paused:  # noqa: ASYNC110 - see above
            await asyncio.sleep(LOOK_AGAIN)
        if self._is_open and not subscription.leased:
            self._closing = begin(asyncio.get_running_loop(), self.close())  # it waits for this call
            raise NotTaken
        if not self._is_open:
            raise NotTaken

    async def _record(self, found: ReceivedMessage) -> None:
        """Record what the program makes of a message, or else the message as it came."""
        if self._event is not None:
            try:
                await self._append(self._events_of(message_in(found), found, 1), found)
            except (StoreUnavailable, StoreFull, OutcomeUnknown):
                raise
            except Exception as error:  # noqa: BLE001 - the program's function may raise anything
                self._subscription.logger.warning(
                    "message is recorded as it came", message_id=found.message_id, error=describe(error)
                )
            else:
                return
        await self._append([found], found)

    async def _append(self, events: Sequence[DomainEvent], found: ReceivedMessage, version: int = 1) -> None:
        """Record ``events`` once: one of them has the place ``version`` in the stream of the message."""
        if not events:
            return
        try:
            await self._store.append(*events)
        except ConcurrencyConflict:
            stream = StreamId(self._name, cast("str", found.aggregate_id))
            if await self._store.last_version(stream) < version:
                raise
            self._subscription.logger.debug("message came before", message_id=found.message_id)

    def _events_of(self, message: Message, found: ReceivedMessage, version: int) -> list[DomainEvent]:
        """What a program makes of a message, from this version of the message's stream on."""
        assert self._event is not None
        made = self._event(message)
        events = [] if made is None else [made] if isinstance(made, DomainEvent) else [*made]
        for event in events:
            if not isinstance(event, DomainEvent):
                raise TypeError(f"the function for events returned {event!r}, which is not an event")
        if not events:
            return []
        in_its_stream = {"aggregate_type": self._name, "aggregate_id": found.aggregate_id}
        if all(event.aggregate_id is not None for event in events):
            events.insert(0, MessageTaken())  # else none would have a place in its stream
        correlation_id = fit_id(message.correlation_id) if message.correlation_id else found.event_id
        named, place = [], version
        for number, event in enumerate(events):
            metadata: dict[str, Any] = {
                "event_id": digest(found.event_id, str(version), str(number)),
                "correlation_id": event.correlation_id or correlation_id,
                "causation_id": event.causation_id or found.causation_id,
            }
            if event.aggregate_id is None:
                metadata |= {**in_its_stream, "aggregate_version": place}
                place += 1
            named.append(event.stamped(**metadata))
        return named

    # --- messages that were recorded as they came ---

    @override
    async def handle(self, event: ReceivedMessage, context: HandlerContext) -> None:
        if self._event is not None:
            await self._append(self._events_of(message_in(event), event, 2), event, 2)
        elif self._command is not None:
            await self._send(self._command, event, context)

    async def _send(self, command: ToCommands, event: ReceivedMessage, context: HandlerContext) -> None:
        message = message_in(event)
        made = command(message)
        for number, each in enumerate([] if made is None else [made] if isinstance(made, Send) else made):
            if not isinstance(each, Send):
                raise TypeError(f"the function for commands returned {each!r}, which is not a Send")
            ids: dict[str, str] = {"command_id": digest("command", event.event_id, str(number))}
            if message.correlation_id and each.command.correlation_id is None:
                ids["correlation_id"] = fit_id(message.correlation_id)
            aggregate = context.system.aggregate(each.aggregate_type, each.aggregate_id)
            # If it took effect before, the id is ours, so only the program's function has changed since.
            with suppress(ReplyNotRecorded, CommandIdReused):
                await aggregate.ask(each.command.model_copy(update=ids))

    @override
    def _strategy(
        self, subscription: Subscription, store: EventStore, router: HandlesProgress, calls: HandlerCalls
    ) -> "Receiving":
        if self._serving not in (None, subscription):
            raise InvalidHandler(
                f"receiver {self._name}: it runs in another system of this process already:"
                " make one for each system by receive(...)"
            )
        self._serving = self._subscription = subscription
        self._store = store
        return Receiving(self, subscription, store, router, calls)

    def __repr__(self) -> str:
        return f"Receiver({self._subject!r})"


class Receiving(OneByOne):
    """Goes through the messages that were recorded as they came, and keeps the receiver open meanwhile."""

    def __init__(
        self,
        receiver: Receiver,
        subscription: Subscription,
        store: EventStore,
        router: HandlesProgress,
        calls: HandlerCalls,
    ) -> None:
        super().__init__(subscription, store, router, calls)
        self._receiver = receiver

    @override
    async def work(self) -> bool:
        await self._receiver.open()
        return await super().work()


def receive(
    broker: Any,
    subject: str,
    *,
    name: str,
    event: ToEvents | type[DomainEvent] | None = None,
    command: ToCommands | None = None,
    priority: EventPriority = EventPriority.NORMAL,
    max_attempts: int = 5,
    claim_after: float = 30.0,
    partitioned: bool | int = False,
    **options: Any,
) -> HandlerSpec:
    """Record the messages of a broker, each once, or turn them into commands: give it among a system's ``handlers``.

    A message is confirmed when it is recorded, also if the process is killed at any moment; one that comes again is
    recognised by its source and id and records nothing. One process at a time receives, as for every handler.

    With ``event``, what it returns is recorded: events with an ``aggregate_id`` in their streams, others in the stream
    of the message, whose type is ``name``. With ``command``, the message is recorded as a `ReceivedMessage`, and the
    commands are sent from there, each with an id derived from the message, so that it takes effect once. With neither,
    handlers of your own get each `ReceivedMessage`.

    A message that cannot be read is recorded as it came and becomes a dead letter of ``name``, to be retried when the
    program has been repaired. Only one that cannot be recorded at all, such as one too large for the store, goes back
    to the broker, whose rules then apply.

    Args:
        broker: A broker of FastStream, best one for this system alone.
        subject: What to subscribe to: a subject of NATS, a topic of Kafka, a queue of RabbitMQ, a stream of Redis.
        name: The handler's name. It is also the type of the messages' streams and the name of the consumer or group at
            the broker, so it must stay.
        event: From a `Message` to an event, several or ``None``; or a class of events, whose fields are read from the
            message. A plain function that may be called again for the same message.
        command: From a `Message` to a `Send`, several or ``None``; as ``event``.
        priority: As for every handler.
        max_attempts: Number of failed attempts after which a message becomes a dead letter.
        claim_after: For Redis: seconds after which a message that a killed process had taken is taken again.
        partitioned: As for every handler: several nodes share the messages that were recorded as they came; the first
            partition takes them from the broker. A store with several logs needs it.
        **options: Further arguments of FastStream's ``broker.subscriber``, such as ``stream`` of NATS, which is needed.
            Without those for it, one message is taken at a time, in the order of the broker.

    Raises:
        InvalidHandler: An argument cannot be used, or a message could be lost.
    """
    check_name(name)
    if reason := unfit_name(name, MAX_TYPE_BYTES):
        raise InvalidHandler(f"receiver name {name!r}: {reason}")
    if event is not None and command is not None:
        raise InvalidHandler(f"receiver {name}: give event or command, not both")
    for function in (event, command):
        if function is not None and not callable(function):
            raise InvalidHandler(f"receiver {name}: {function!r} is not a function of a Message")
        if inspect.iscoroutinefunction(function):
            raise InvalidHandler(
                f"receiver {name}: {function!r} must be a plain function: it decides, and may be called again"
            )
    check_duration("claim_after", claim_after)
    target = Receiver(
        broker, subject, name, event=_reader(event), command=command, claim_after=claim_after, options=options
    )
    return HandlerSpec(
        name,
        target,
        ReceivedMessage,
        priority=priority,
        start="earliest",
        max_attempts=max_attempts,
        aggregate_type=name,
        partitioned=partitioned,
    )


def _reader(event: ToEvents | type[DomainEvent] | None) -> ToEvents | None:
    if isinstance(event, type):
        kind = event
        if not issubclass(kind, DomainEvent):
            raise InvalidHandler(f"{kind!r} is not a class of events")
        return lambda message: message.read(kind)
    return event
