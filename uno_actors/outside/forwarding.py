"""The handler that hands recorded events on, and `forward`, which makes it."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from typing_extensions import override

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidHandler, RetryLater
from uno_actors.handlers.dependencies import is_async
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.spec import EventHandler, EventPriority, HandlerContext, HandlerSpec, Start
from uno_actors.outside.brokers import destination_of
from uno_actors.outside.cloud_events import Mode, cloud_event_of, payload_of, source_of
from uno_actors.outside.destination import DeliveryRefused, Destination, DestinationGone, Outgoing
from uno_actors.topics import ALL_THE_REST, ONE_TOKEN, TopicPattern

Data = Callable[[DomainEvent], Any]
"""From an event to what is sent of it; ``None`` sends nothing."""

Address = str | Callable[[DomainEvent], str]
"""Where events go at the destination."""


@runtime_checkable
class _Pauses(Protocol):
    """The part of a system that pauses its handlers."""

    async def pause(self, name: str) -> None:
        """Pause a handler until it is resumed."""


class Forward(EventHandler[DomainEvent]):
    """Hands events to a destination, one after the other; made by `forward`."""

    def __init__(
        self,
        to: Destination,
        *,
        address: Address,
        mode: Mode,
        source: str | None,
        schema: Callable[[DomainEvent], str] | None,
        data: Data,
    ) -> None:
        super().__init__()
        self._to = to
        self._address = address
        self._mode = mode
        self._source = source
        self._schema = schema
        self._data = data

    def outgoing(self, event: DomainEvent, system: str) -> Outgoing | None:
        """What is sent of an event by a system; ``None`` if nothing is."""
        data = self._data(event)
        if data is None:
            return None
        schema = None if self._schema is None else self._schema(event)
        cloud_event = cloud_event_of(event, self._source or source_of(system), data, schema)
        address = self._address if isinstance(self._address, str) else self._address(event)
        if not isinstance(address, str):
            raise DeliveryRefused(
                f"the address of {event} must be a str, and the function for it returned {address!r}"
            )
        return Outgoing(event, cloud_event, address, self._mode)

    @override
    async def handle(self, event: DomainEvent, context: HandlerContext) -> None:
        outgoing = self.outgoing(event, context.system.name)
        if outgoing is None:
            return
        try:
            await self._to.send(outgoing)
        except DestinationGone as gone:
            await self._pause(context, gone)

    async def _pause(self, context: HandlerContext, gone: DestinationGone) -> None:
        """Keep this event and all that follow until an operator resumes the handler or gives it another destination."""
        name = whole_name(context.handler)
        context.logger.error(
            "handler pauses itself", reason=str(gone), remedy=f"uno-actors handlers resume {name!r}"
        )
        if isinstance(context.system, _Pauses):
            await context.system.pause(name)
        raise RetryLater(f"{gone}: the handler is paused until it is resumed") from gone

    @override
    async def _ended(self) -> None:
        await self._to.close()

    def __repr__(self) -> str:
        return f"Forward({self._to!r})"


def forward(
    topic_pattern: str,
    to: Any,
    *,
    name: str | None = None,
    address: Address | None = None,
    mode: Mode | None = None,
    source: str | None = None,
    schema: Callable[[DomainEvent], str] | None = None,
    data: Data = payload_of,
    event_type: type[DomainEvent] | tuple[type[DomainEvent], ...] | None = None,
    aggregate_type: type[AggregateRoot] | str | None = None,
    priority: EventPriority = EventPriority.LOW,
    start: Start = "latest",
    max_attempts: int = 10,
    concurrency: int = 1,
    partitioned: bool | int = False,
) -> HandlerSpec:
    """Hand recorded events to a broker or a webhook, as CloudEvents: give the result among a system's ``handlers``.

    The log is the outbox. Each event is handed over at least once, also if the process is killed at any moment, and
    those of one aggregate in their order. The id of an event is the id of its message, by which receivers recognise
    what comes twice. A destination that is away makes the handler wait, not set events aside; one that refuses an event
    makes it a dead letter after ``max_attempts``.

    Args:
        topic_pattern: Which events, by their topic.
        to: A broker of FastStream, a `Webhook`, or another `Destination`.
        name: The handler's name, under which its checkpoint is kept. By default it says what goes where, such as
            ``forward orders.> to NATS``.
        address: Where events go at the destination, or a function of the event. By default the event's topic; on Kafka
            and Redis, where only what has the same topic or stream stays in order, the part of the pattern before its
            first wildcard, such as ``orders``.
        mode: ``binary`` or ``structured``. Default is ``binary`` for brokers; for a webhook ``structured``, because its
            signature covers the body alone.
        source: The ``source`` of the CloudEvents, a URI or a part of one. Default is ``/`` and the name of the system.
        schema: Returns the ``dataschema`` of an event, a URI.
        data: Returns what is sent of an event, or ``None`` to send nothing. Default is its payload.
        event_type: Only events of this class, or of one of these classes.
        aggregate_type: Only events of aggregates of this class.
        priority: By default `EventPriority.LOW`: the handlers of the system come first.
        start: As for every handler.
        max_attempts: Number of refusals after which an event goes to the dead letters.
        concurrency: Number of events under way at once, each of a different aggregate.
        partitioned: As for every handler.

    Raises:
        InvalidTopic: The pattern is malformed.
        InvalidHandler: Another argument cannot be used.
    """
    pattern = TopicPattern(topic_pattern)
    destination = destination_of(to)
    if mode not in (None, "binary", "structured"):
        raise InvalidHandler(f"mode must be 'binary' or 'structured', not {mode!r}")
    if source is not None and not _is_uri_reference(source):
        raise InvalidHandler(f"source must be a URI, or a part of one such as '/shop', not {source!r}")
    if not isinstance(address, str):
        _check_function("address", address)
    _check_function("data", data)
    _check_function("schema", schema)
    target = Forward(
        destination,
        address=_default_address(pattern, destination) if address is None else address,
        mode=mode or destination.mode,
        source=source,
        schema=schema,
        data=data,
    )
    return HandlerSpec(
        name or f"forward {pattern.text} to {destination.kind}",
        target,
        event_type,
        pattern,
        priority,
        start,
        max_attempts,
        None,
        concurrency,
        None,
        aggregate_type,  # type: ignore[arg-type]  # the spec replaces a class with its name
        partitioned,
    )


def _check_function(name: str, given: object) -> None:
    """Refuse what cannot be called with an event, or awaits, by an `InvalidHandler`."""
    if given is None:
        return
    if not callable(given):
        raise InvalidHandler(f"{name} must be a function of the event, not {given!r}")
    if is_async(given):
        raise InvalidHandler(
            f"{name}: {given!r} must be a plain function of the event: what it returns is sent at once"
        )


def _default_address(pattern: TopicPattern, destination: Destination) -> Address:
    if not destination.has_one_address:
        return _topic_of
    literal = [*pattern.tokens]
    for place, token in enumerate(pattern.tokens):
        if token in (ONE_TOKEN, ALL_THE_REST):
            literal = [*pattern.tokens[:place]]
            break
    if not literal:
        raise InvalidHandler(
            f"{destination.kind} keeps only what goes to one address in order, and {pattern.text!r} begins with a"
            " wildcard: give address=..."
        )
    return ".".join(literal)


def _topic_of(event: DomainEvent) -> str:
    return event.topic or event.event_type


def _is_uri_reference(source: object) -> bool:
    if not isinstance(source, str) or not source or not source.isprintable() or " " in source:
        return False
    try:
        urlsplit(source)
    except ValueError:
        return False
    return True
