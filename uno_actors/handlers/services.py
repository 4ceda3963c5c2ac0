"""The services that a system offers to its handlers."""

from typing import Any, Literal, Protocol, TypeVar, overload

from uno_actors.actors.actor import Actor, ActorRef
from uno_actors.actors.future import Future
from uno_actors.aggregates.ref import AggregateRef
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.handlers.view import KeepsView, PublishedView
from uno_actors.store.records import RecordedEvent
from uno_actors.store.view_keys import K

A = TypeVar("A", bound=Actor)


class Publishes(Protocol):
    """Records events that belong to no aggregate; see `uno_actors.bus.publisher.EventPublisher`."""

    async def publish(self, *events: DomainEvent) -> list[RecordedEvent]:
        """Record all of ``events`` or none, and return them as recorded."""


class SystemServices(Protocol):
    """The part of `uno_actors.system.system.ActorSystem` that handlers may use.

    A handler sends commands, publishes events, reads views and spawns actors. It cannot start, stop or reload the
    system: the system would then wait for the handler, and the handler for the system.
    """

    @property
    def name(self) -> str:
        """The system's name."""

    @property
    def publisher(self) -> Publishes:
        """Records events that belong to no aggregate in the system's store."""

    def aggregate(self, aggregate_type: type[AggregateRoot], aggregate_id: str) -> AggregateRef:
        """Return a reference to one aggregate; see `uno_actors.system.system.ActorSystem.aggregate`."""

    @overload
    def view(self, projection: KeepsView[K] | type[KeepsView[K]]) -> PublishedView[K]: ...
    @overload
    def view(self, projection: object) -> PublishedView: ...

    def view(self, projection: object) -> PublishedView[Any]:
        """Return the view of a projection; see `uno_actors.system.system.ActorSystem.view`."""

    def spawn(
        self,
        actor_class: type[A],
        *args: Any,
        name: str | None = None,
        dispatcher: Literal["shared", "thread"] = "shared",
        **kwargs: Any,
    ) -> "Future[ActorRef[A]]":
        """Start an actor; see `uno_actors.system.system.ActorSystem.spawn`."""

    @overload
    def actor(self, name: str) -> ActorRef[Any] | None: ...
    @overload
    def actor(self, name: str, actor_class: type[A]) -> ActorRef[A]: ...
