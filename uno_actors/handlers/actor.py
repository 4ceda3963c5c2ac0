"""The actor that runs one event handler: live from its queue, or catching up from the log.

Its `uno_actors.handlers.subscription.Subscription` survives restarts of the actor. Its strategy decides the order in
which events are handled, see `uno_actors.handlers.strategy`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from typing_extensions import override

from uno_actors.actors.actor import Actor
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.signals import Failure
from uno_actors.errors import LeaseLost
from uno_actors.handlers.calls import HandlerCalls
from uno_actors.handlers.concurrent import Concurrent
from uno_actors.handlers.failures import FailedEvent, HandlerFailure, error_text
from uno_actors.handlers.projection import Projection
from uno_actors.handlers.requests import RETRY, Reset, request_entry
from uno_actors.handlers.resources import Resources
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import BoundHandler, EventHandler
from uno_actors.handlers.strategy import EventFailed, HandlesProgress, InOrder, OneByOne, OwnStrategy
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.handlers.view_building import ViewBuilding
from uno_actors.observing import Observation
from uno_actors.store.port import EventStore
from uno_actors.store.records import DeadLetter, ViewChange


class Work:
    """The one message to a `HandlerActor`: there is something to do."""


class _Blame(NamedTuple):
    """The event or batch that makes the actor fail; see `HandlerFailure`."""

    event: FailedEvent | None = None
    in_batch: bool = False


class HandlerActor(Actor):
    """Runs one handler over its deliveries, and carries out the requests of operators between two events.

    A failure of the handler is a failure of this actor. Its supervisor decides how to continue.
    """

    def __init__(
        self,
        subscription: Subscription,
        store: EventStore,
        dispatcher: Dispatcher,
        router: HandlesProgress,
        system: SystemServices,
        *,
        resources: Resources,
        observed: Observation | None = None,
    ) -> None:
        super().__init__()
        self._observed = observed
        self._subscription = subscription
        self._store = store
        self._router = router
        self._dispatcher = dispatcher
        self._system = system
        self._resources = resources
        self._is_made = False
        self._log = subscription.logger
        self._calls: HandlerCalls
        self._strategy: InOrder
        self._blame = _Blame()

    @property
    def subscription(self) -> Subscription:
        """The subscription of the handler that this actor runs."""
        return self._subscription

    @override
    async def on_start(self) -> None:
        if not self._resources.needs:
            await self._make_handler()
        if self._is_made and self._subscription.leased:
            self._subscription.turns += 1
            try:
                with self._standing_by_if_lost():
                    await self._strategy.prepare()  # from now on operators see the view too
            finally:
                self._subscription.turns -= 1
        self._subscription.recover()

    @override
    async def on_stop(self) -> None:
        if self._is_made and isinstance(owner := self._calls.handler.owner, EventHandler):
            await owner._ended()

    async def _make_handler(self) -> None:
        """Make the handler, and open anew what it depends on."""
        subscription = self._subscription
        handler = await self._resources.make(subscription.overdue)
        self._calls = HandlerCalls(
            subscription,
            handler,
            self._store,
            self._dispatcher,
            self._system,
            stays=self._is_waited_for,
            observed=self._observed,
        )
        self._strategy = self._strategy_for(handler)
        self._is_made = True

    async def _open(self) -> None:
        """Make a handler that has dependencies, at its first work, so that no other part of the system waits for it.

        A failure of this is one of the handler: its supervisor decides how to continue.
        """
        try:
            await self._make_handler()
        except BaseException:
            self._subscription.fail()
            raise

    def _strategy_for(self, handler: BoundHandler) -> InOrder:
        subscription, spec = self._subscription, self._subscription.spec
        parts = subscription, self._store, self._router, self._calls
        target = handler.owner
        if isinstance(target, Projection):
            return target._strategy_of(*parts) or ViewBuilding(target, *parts)
        if isinstance(target, OwnStrategy):
            return target._strategy(*parts)
        if spec.concurrency > 1:
            return Concurrent(*parts)
        if handler.is_async and spec.batch is None and spec.timeout is None:
            return OneByOne(*parts)
        return InOrder(*parts)

    def _is_waited_for(self) -> bool:
        """Whether the actor was not abandoned."""
        return not self.actor_stopped.up

    def failure(self, failure: Failure) -> HandlerFailure:
        """Return ``failure`` of this actor with the event that caused it."""
        return HandlerFailure(failure.error, failure.while_starting, failure.message, *self._blame)

    @contextmanager
    def _standing_by_if_lost(self) -> Iterator[None]:
        """Stand by if another process has taken the handler over; this does not count as a failure."""
        try:
            yield
        except LeaseLost as lost:
            if self._subscription.name not in lost.handlers:
                raise
            self._subscription.stand_by()

    @override
    async def on_receive(self, message: Work) -> None:
        self._blame, error = _Blame(), None
        self._subscription.turns += 1
        try:
            with self._standing_by_if_lost():
                await self._work()
        except EventFailed as failed:
            error = failed.error
            if (
                self._subscription.state == "restarting"
            ):  # otherwise it was stopped or taken over in the meantime
                self._blame = _Blame(failed.event, failed.in_batch)
        finally:
            self._subscription.turns -= 1
            if not self._subscription.leased:
                self._subscription.release()
                if self._resources.needs:  # they are for the process that runs the handler
                    self._is_made = False
                    await self._resources.close(self._subscription.overdue)
        if error is not None:
            raise error  # raised here to keep its own cause and context

    async def _work(self) -> None:
        subscription = self._subscription
        if subscription.overdue:  # calls must not overlap; the overdue call wakes the actor when it ends
            return
        if subscription.failures.postponed:
            event, error = subscription.failures.postponed.popleft()
            subscription.fail()
            raise EventFailed(error, event)
        subscription.release()
        if subscription.at_work and not self._is_made:
            await self._open()
        while subscription.at_work:
            await self._strategy.prepare()
            more = await self._carry_out_requests() if subscription.requests else await self._strategy.work()
            if not more:
                return

    # --- requests of operators ---

    async def _carry_out_requests(self) -> bool:
        """Reset the handler or retry dead letters; return false if the actor must wait for an overdue call."""
        subscription, requests = self._subscription, self._subscription.requests
        if subscription.live:
            subscription.step_aside(self._router.dispatched(subscription))
        subscription.release()
        letters: dict[int, DeadLetter] | None = None
        while subscription.at_work and requests and not subscription.overdue:
            await self._strategy.prepare()
            if requests.reset is not None:
                await self._reset(requests.reset)
                continue
            if letters is None:
                found = await self._store.dead_letters(subscription.name)
                letters = {letter.position: letter for letter in found}
            position = next(iter(requests.retries))
            done = request_entry(None, subscription.name, RETRY, position)
            if (letter := letters.pop(position, None)) is not None:
                await self._retry(letter, done)
            else:  # the dead letter was dropped
                await self._store.save_progress({}, views=[done])
            subscription.retried(position)
        return not subscription.overdue

    async def _reset(self, request: Reset) -> None:
        await self._strategy.reset(request)
        self._subscription.requests.was_reset(request)
        self._log.info("handler reset", position=self._subscription.progress.position)

    async def _retry(self, letter: DeadLetter, done: ViewChange) -> None:
        """Handle the event of a dead letter. On success remove the letter; otherwise count one more attempt."""
        subscription, position = self._subscription, letter.position
        stored = await self._store.record_at(position)
        delivery = Delivery(stored)
        error = None
        if await self._strategy.needs_retry(position):
            subscription.failures.resume_from(letter)
            subscription.start(delivery)
            error = await self._strategy.retry(delivery)
            subscription.finish(position)
        if error is None:
            changes = self._strategy.changes_of_retry(position)
            await self._store.save_progress({}, (), [*changes, done], [(subscription.name, position)])
            subscription.handled += 1
            subscription.aside.discard(position)
            self._log.info(
                "dead letter handled",
                event_type=letter.event_type,
                position=position,
                correlation_id=stored.record.correlation_id,
            )
            return
        subscription.failures.total += 1
        text = error_text(error)
        again = letter._replace(
            attempts=letter.attempts + 1, error=text.error, traceback=text.traceback, last_failed=text.at
        )
        await self._store.save_progress({}, [again], [done])
        self._log.warning(
            "dead letter failed again",
            position=position,
            attempts=again.attempts,
            error=again.error,
            correlation_id=stored.record.correlation_id,
        )
        await self._make_handler()  # as after any other failure
