"""What a destination of forwarded events is, and how it says that something went wrong."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from cloudevents.core.v1.event import CloudEvent

from uno_actors.domain.events import DomainEvent
from uno_actors.errors import WorldError
from uno_actors.outside.cloud_events import Binding, Encoded, Mode, encode


class DeliveryRefused(WorldError):
    """A destination has refused an event, or has not answered in time. This counts as an attempt at the event.

    A destination that is away or busy raises `uno_actors.RetryLater` instead, which does not count.
    """


class DestinationGone(WorldError):
    """A destination wants no more events, as a webhook that answers 410. The handler is paused; nothing is lost."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event on its way out.

    Attributes:
        event: The event as recorded.
        cloud_event: The same as a CloudEvent.
        address: The subject, topic, routing key or stream; empty for a webhook.
        mode: How the destination writes it.
    """

    event: DomainEvent
    cloud_event: CloudEvent
    address: str
    mode: Mode

    @property
    def id(self) -> str:
        """The id of the event, by which receivers leave out what comes twice."""
        return self.event.event_id

    @property
    def correlation_id(self) -> str:
        """Common to all messages that originate from one first message."""
        return self.event.correlation_id or self.event.event_id

    def encoded(self, binding: Binding) -> Encoded:
        """Headers and body."""
        return encode(self.cloud_event, self.mode, binding)


class Destination(ABC):
    """Where events are forwarded to; subclass it for a place of your own.

    Attributes:
        kind: In the default name of the handler.
        mode: How it writes CloudEvents, if `uno_actors.outside.forward` is not told.
        has_one_address: Whether all events of a handler need one address to stay in order, as on a topic of Kafka.
    """

    kind: ClassVar[str]
    mode: ClassVar[Mode] = "binary"
    has_one_address: ClassVar[bool] = False

    @abstractmethod
    async def send(self, outgoing: Outgoing) -> None:
        """Hand one event over; return when the destination has confirmed that it has it.

        It connects when it is first used. Calls for events of different aggregates may overlap.

        Raises:
            DeliveryRefused: The destination does not take this event.
            RetryLater: The destination is away or busy.
            DestinationGone: It wants no more events.
        """

    async def close(self) -> None:  # noqa: B027 - for a destination that holds nothing
        """Release connections; a later `send` opens new ones."""
