"""The router: hands recorded events to handlers by topic, type and priority.

It reads the log in order. For each event every HIGH handler finishes before a NORMAL one starts, and NORMAL
before LOW; per handler the order is that of the log. Several events are under way at once: while one waits
for its LOW handlers, the next may be with its HIGH ones.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import AsyncExitStack

from typing_extensions import override

from uno_actors.actors.actor import Actor
from uno_actors.clock import Clock, Timer
from uno_actors.errors import LeaseLost
from uno_actors.handlers.routes import TIERS, Routes, Tiers
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.logs import get_logger
from uno_actors.store.codec import Record
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE
from uno_actors.topics import TopicTrie

WINDOW = 4096
"""Events under way at once; the rest waits in the log."""
TURN = 1.0
"""Seconds that others wait for one handler's event; after that it catches up by itself."""
CHECKPOINT_EVERY = 0.05
"""Seconds between two writes of checkpoints: what a crash may deliver again."""


class Route:
    """Message to the router: the log has grown, or there is room for more events under way."""


class SaveCheckpoints:
    """Message to the router: write the checkpoints that have moved."""


class RouterActor(Actor):
    """See the module. Runs on the event loop; subscriptions are told of their deliveries directly.

    Args:
        store: Whose log it reads.
        subscriptions: The handlers.
        position: Where it begins: handlers whose checkpoint is before it catch up by themselves.
        clock: For turns and checkpoints.
        turn: Seconds; see `TURN`.
    """

    def __init__(
        self,
        store: EventStore,
        subscriptions: list[Subscription],
        position: int,
        clock: Clock,
        turn: float = TURN,
    ) -> None:
        super().__init__()
        self.position = position
        self.subscriptions = subscriptions
        self._store = store
        self._clock = clock
        self._turn = turn
        self._log = get_logger(actor="router")
        self._by_topic: TopicTrie[Subscription] = TopicTrie()
        self._by_type: dict[tuple[str, str | None], list[Subscription]] = {}
        self._routes: Routes[tuple[str, str | None, str | None], Subscription] = Routes(self._matching)
        self._generation = -1
        self._under_way: tuple[deque[Delivery], ...] = tuple(deque() for _ in TIERS)
        self._dispatched = [position for _ in TIERS]
        self._count = 0
        self._starved = False  # it stopped reading because the window was full
        self._advancing = False
        self._more_to_advance = False
        self._route_wanted = False
        self._saving: Timer | None = None
        self._save_wanted = False
        self._watching: Timer | None = None
        for subscription in subscriptions:
            self._enter(subscription)

    def add(self, subscription: Subscription) -> None:
        """One more handler: what has been handed out to its priority, it reads by itself; the rest it is given."""
        self.subscriptions.append(subscription)
        self._enter(subscription)
        self._forget_routes()
        for still_above in self._under_way[: subscription.spec.priority]:
            for delivery in still_above:
                delivery.tiers = self._match(delivery.record)
        if self._watching is None:
            self._watching = self._clock.call_later(self._turn / 2, self._watch_turns)

    def remove(self, subscription: Subscription) -> None:
        """One handler less; it is stopped."""
        self.subscriptions.remove(subscription)
        if subscription.spec.topic_pattern is not None:
            self._by_topic.remove(subscription.spec.topic_pattern, subscription)
        self._forget_routes()

    def _forget_routes(self) -> None:
        self._by_type.clear()
        self._routes.clear()

    def _enter(self, subscription: Subscription) -> None:
        if subscription.spec.topic_pattern is not None:
            self._by_topic.add(subscription.spec.topic_pattern, subscription)
        subscription.give_back = self._given_back

    @override
    async def on_start(self) -> None:
        self.cancel_timers()  # when it is started again after a failure
        self._advancing = self._route_wanted = self._save_wanted = False
        self.progressed()  # what it could not write then is written now
        if self.subscriptions:  # else there is nobody to watch, and nobody to read the log for
            self._watching = self._clock.call_later(self._turn / 2, self._watch_turns)

    @override
    async def on_stop(self) -> None:
        self.cancel_timers()

    @override
    async def on_receive(self, message: Route | SaveCheckpoints) -> None:
        if isinstance(message, SaveCheckpoints):
            self._save_wanted = False
            await self.save_checkpoints()
        else:
            await self._route()

    async def _route(self) -> None:
        """Hand out what the log has beyond the present position, as far as there is room."""
        self._route_wanted = False
        while (room := WINDOW - self._count) > 0:
            page = await self._store.read_log(self.position, min(PAGE, room))
            if not page:
                return
            self._advancing = True  # nothing moves on before the whole page has been dispatched in order
            for stored in page:
                delivery = Delivery(stored)
                delivery.tiers = self._match(delivery.record)
                self.position = stored.position
                self._count += 1
                self._dispatch(delivery)
            self._advancing = False
            self._advance()
            await asyncio.sleep(0)  # handlers that never wait must not keep the loop from others
        self._starved = True

    def cancel_timers(self) -> None:
        """Forget what was to be done later."""
        for timer in (self._watching, self._saving):
            if timer is not None:
                timer.cancel()
        self._watching = self._saving = None

    def route_soon(self) -> None:
        """Have the router look at the log again; any number of calls makes one message."""
        if not self._route_wanted and self.actor_ref.is_alive():
            self._route_wanted = True
            self.actor_ref.tell(Route())

    # --- matching ---

    def _match(self, record: Record) -> Tiers[Subscription]:
        """The handlers that want the event, by priority."""
        if self._generation != self._store.event_registry.generation:
            self._generation = self._store.event_registry.generation
            self._forget_routes()
        return self._routes[record.event_type, record.aggregate_type, record.topic]

    def _matching(self, route: tuple[str, str | None, str | None]) -> Iterable[Subscription]:
        event_type, aggregate_type, topic = route
        kind = event_type, aggregate_type
        by_type = self._by_type.get(kind)
        if by_type is None:
            by_type = self._by_type[kind] = [
                subscription
                for subscription in self.subscriptions
                if subscription.spec.topic_pattern is None and subscription.wants_type(*kind)
            ]
        if topic is None:
            return by_type
        by_topic = self._by_topic.match(topic)
        return [*by_type, *(subscription for subscription in by_topic if subscription.wants_type(*kind))]

    # --- tiers ---
    # Each tier has a queue of the events dispatched to it, in log order. When the first of them has been
    # handled by all its handlers of this tier, it is dispatched to the next: so each tier, and with it each
    # handler, sees the order of the log.

    def _dispatch(self, delivery: Delivery) -> None:
        """Hand ``delivery`` to the handlers of its present tier."""
        tier = delivery.tier
        delivery.since = self._clock.monotonic()
        self._under_way[tier].append(delivery)
        for subscription in delivery.tiers[tier]:
            if subscription.offer(delivery):
                delivery.waiting += 1
        self._dispatched[tier] = delivery.position

    def _advance(self) -> None:
        """Let every event that has all its handlers' answers move on to the next tier, or be done with.

        Handing out an event may make a handler give others back, and so lead here again while the first call
        is not done: that call then looks once more, so that nothing is handed out in between.
        """
        self._more_to_advance = True
        if self._advancing:
            return
        self._advancing = True
        while self._more_to_advance:
            self._more_to_advance = False
            for tier, queue in enumerate(self._under_way):
                while queue and not queue[0].waiting:
                    self._move_on(queue.popleft(), tier + 1)
        self._advancing = False
        if self._starved and self._count <= WINDOW // 2:
            self._starved = False
            self.route_soon()

    def _move_on(self, delivery: Delivery, tier: int) -> None:
        if tier < len(TIERS):
            delivery.tier = tier
            self._dispatch(delivery)
        else:
            self._count -= 1
            self.progressed()

    def _given_back(self, delivery: Delivery) -> None:
        """One handler has done with ``delivery``, or gives up its turn."""
        delivery.waiting -= 1
        if not delivery.waiting:
            self._advance()

    def _leave_behind(self, subscription: Subscription) -> None:
        if subscription.live:
            self._log.warning("handler is slow, others go on without it", handler=subscription.name)
            subscription.fall_behind()

    def _watch_turns(self) -> None:
        """Have handlers that hold others up give up their turn, so that the others can go on."""
        now = self._clock.monotonic()
        for subscription in self.subscriptions:
            since = subscription.busy_since
            if since is not None and now - since > self._turn:
                self._leave_behind(subscription)
        if self._starved:  # those whose events fill the window delay all that comes after it
            for queue in self._under_way:
                if queue and now - queue[0].since > self._turn:
                    for subscription in queue[0].tiers[queue[0].tier]:
                        if subscription.holds(queue[0]):
                            self._leave_behind(subscription)
        self.route_soon()  # another process may have written, to a store that does not tell of it
        self._watching = self._clock.call_later(self._turn / 2, self._watch_turns)

    # --- progress ---

    def dispatched(self, subscription: Subscription) -> int:
        """The position up to which events have been handed out to handlers of its priority."""
        return self._dispatched[subscription.spec.priority]

    def checkpoint(self, subscription: Subscription) -> int:
        """The position up to which ``subscription`` has done with everything."""
        return subscription.checkpoint(self.dispatched(subscription))

    def progressed(self) -> None:
        """Have checkpoints written soon; they are written in groups."""
        if self._saving is None:
            self._saving = self._clock.call_later(CHECKPOINT_EVERY, self._save_soon)

    def _save_soon(self) -> None:
        self._saving = None
        if self.actor_ref.is_alive() and not self._save_wanted:
            self._save_wanted = True
            self.actor_ref.tell(SaveCheckpoints())

    async def save_checkpoints(self) -> None:
        """Write the checkpoints that have moved since they were last written."""
        moved = {}
        for subscription in self.subscriptions:
            progress = subscription.progress
            now = progress.checkpoint, self.checkpoint(subscription)
            free = subscription.leased and progress.checkpoint and not progress.writes.locked()
            if free and progress.saved != now:
                moved[subscription] = now
        if moved:
            before = {subscription: subscription.progress.saved for subscription in moved}
            try:
                await self._save(moved)
            except LeaseLost as lost:
                theirs = [each for each in moved if each.name in lost.handlers]
                if not theirs:
                    raise
                for subscription in theirs:
                    subscription.stand_by()
                await self.save_checkpoints()  # of the others
                return
            for subscription, now in moved.items():
                if subscription.progress.saved == before[subscription]:  # else it was reset meanwhile
                    subscription.progress.saved = now

    async def _save(self, subscriptions: Collection[Subscription]) -> None:
        """Write the checkpoints of these, but for a projection that records one with what it has written.

        No other write of the same checkpoint is under way meanwhile: else a store with several connections could
        carry out the older one last, and a projection would count events again or leave some out.
        """
        async with AsyncExitStack() as writing:
            for subscription in subscriptions:
                await writing.enter_async_context(subscription.progress.writes)
            positions = {each.progress.checkpoint: self.checkpoint(each) for each in subscriptions}
            positions.pop("", None)
            await self._store.save_progress(positions)
