"""The classes from which programs derive their read models."""

from collections.abc import Callable
from typing import Any, ClassVar, Generic

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from typing_extensions import override

from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.calls import HandlerCalls
from uno_actors.handlers.dependencies import is_async
from uno_actors.handlers.spec import BoundHandler, E, HandlerContext
from uno_actors.handlers.strategy import HandlesProgress, KeepsProgress
from uno_actors.handlers.subscription import Subscription
from uno_actors.quantities import is_count
from uno_actors.read_models.filling import Filling, FillingOnThread
from uno_actors.store.port import EventStore

_METHODS = ("handle", "on_rebuild", "on_live")
"""What programs define: all of them on the event loop, or all on a thread."""


class BoundToSession(BoundHandler):
    """``handle`` of a read model; it is given the session of the transaction that is under way."""

    session: Any = None

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function, ReadModel._given)

    @override
    def __call__(self, given: DomainEvent | list[DomainEvent], context: HandlerContext | None) -> Any:
        if self.takes_context:
            return self.function(given, self.session, context)
        return self.function(given, self.session)


class ReadModel(KeepsProgress[E], Generic[E]):
    """What both kinds of read models have in common.

    A read model begins at the first event of the log, and all that it writes through its session is recorded together
    with how far it has come: after any crash each event is counted exactly once. It accepts the options of
    `uno_actors.handlers.spec.HandlerSpec` except ``start`` and ``concurrency``; ``batch`` is the maximum number of
    events in one transaction.

    With ``partitioned``, several nodes fill its tables side by side, each with the events of other aggregates: a row
    is written because of events of one aggregate only, or by a statement that adds to it. Each partition has its own
    progress. ``on_rebuild`` and ``on_live`` are called once for all partitions. Another number of partitions needs a
    new version.

    Attributes:
        version: Version of its tables. A new version begins at the first event, beside the old one.
    """

    version: ClassVar[int] = 1

    _given = ("the event", "the session")

    @override
    def _bound(self) -> BoundHandler:
        if not is_count(self.version, 1):
            raise InvalidHandler(f"{type(self).__name__}: version must be 1 or more, not {self.version!r}")
        if getattr(self, "session_factory", None) is None:
            raise InvalidHandler(
                f"{type(self).__name__} needs sessions: give the system an instance, as in"
                f" {type(self).__name__}(async_sessionmaker(engine)), or set session_factory in the class"
            )
        if not callable(self.session_factory):  # type: ignore[attr-defined]
            raise InvalidHandler(
                f"{type(self).__name__}: session_factory makes sessions, as async_sessionmaker(engine) does, and"
                f" {self.session_factory!r} does not"  # type: ignore[attr-defined]
            )
        return BoundToSession(self.handle)

    def _check_methods(self, *, are_async: bool, wanted: str) -> None:
        for method in _METHODS:
            if is_async(getattr(self, method)) is not are_async:
                raise InvalidHandler(f"{type(self).__name__}.{method} must be {wanted}")


class SqlProjection(ReadModel[E], Generic[E]):
    """A read model in the program's own tables: ``async def handle(self, event, session)``.

    Example:
        >>> class Orders(SqlProjection[OrderPlaced | OrderShipped]):
        ...     async def handle(self, event: OrderPlaced | OrderShipped, session: AsyncSession) -> None:
        ...         if isinstance(event, OrderPlaced):
        ...             session.add(Order(id=event.aggregate_id, total=event.total))
        ...         else:
        ...             (await session.get_one(Order, event.aggregate_id)).shipped = True

    ``handle`` may take the `HandlerContext` as a third parameter. It must not commit. If it fails, nothing is written.

    Args:
        session_factory: Makes sessions on the database that holds the tables, as an ``async_sessionmaker`` does. A
            class that sets it as an attribute needs no argument.
    """

    session_factory: Callable[[], AsyncSession]

    def __init__(self, session_factory: Callable[[], AsyncSession] | None = None) -> None:
        super().__init__()
        if session_factory is not None:
            self.session_factory = session_factory

    async def on_rebuild(self, session: AsyncSession) -> None:
        """Make the tables of this version, or empty them: the first event follows.

        Called before a version handles its first event, and when an operator resets it to ``earliest``. Without it,
        the tables must be there and empty, and a reset to ``earliest`` is refused.
        """

    async def on_live(self, session: AsyncSession) -> None:
        """Let readers use the tables of this version from now on: it has reached the end of the log.

        Called once for each time it was built, in the transaction that notes it; so the switch is made at once. With
        partitions, the last one that reaches its end calls it.
        """

    @override
    def _bound(self) -> BoundHandler:
        bound = super()._bound()
        self._check_methods(are_async=True, wanted="async def; a SyncSqlProjection has a plain one")
        return bound

    @override
    def _strategy(
        self, subscription: Subscription, store: EventStore, router: HandlesProgress, calls: HandlerCalls
    ) -> Filling:
        return Filling(self, subscription, store, router, calls)


class SyncSqlProjection(ReadModel[E], Generic[E]):
    """As `SqlProjection`, with plain functions and a plain `Session`: they run on a worker thread.

    Args:
        session_factory: Makes sessions, as a ``sessionmaker`` does.
    """

    session_factory: Callable[[], Session]

    def __init__(self, session_factory: Callable[[], Session] | None = None) -> None:
        super().__init__()
        if session_factory is not None:
            self.session_factory = session_factory

    def on_rebuild(self, session: Session) -> None:
        """See `SqlProjection.on_rebuild`."""

    def on_live(self, session: Session) -> None:
        """See `SqlProjection.on_live`."""

    @override
    def _bound(self) -> BoundHandler:
        bound = super()._bound()
        self._check_methods(are_async=False, wanted="a plain def; a SqlProjection has async def")
        return bound

    @override
    def _strategy(
        self, subscription: Subscription, store: EventStore, router: HandlesProgress, calls: HandlerCalls
    ) -> FillingOnThread:
        if subscription.spec.timeout is not None:
            raise InvalidHandler(
                f"handler {subscription.name}: a plain function cannot be ended, and its transaction neither: use the"
                " timeouts of the database, or a SqlProjection"
            )
        return FillingOnThread(self, subscription, store, router, calls)
