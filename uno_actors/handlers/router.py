"""The router: hands recorded events to handlers by topic, type and priority.

The router reads the log in order. For each event, every HIGH handler finishes before a NORMAL one starts, and
every NORMAL handler before a LOW one. Each handler receives its events in log order. Several events are under way
at once: while one waits for its LOW handlers, the next may already be with its HIGH handlers.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import AsyncExitStack
from contextvars import Context

from typing_extensions import override

from uno_actors.actors.actor import Actor
from uno_actors.clock import Clock, Timer
from uno_actors.errors import LeaseLost
from uno_actors.event_contexts import EventContexts
from uno_actors.handlers.routes import TIERS, Routes, Tiers
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.logs import get_logger
from uno_actors.observing import Observation
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE
from uno_actors.topics import TopicTrie

WINDOW = 4096
"""Maximum number of events under way at once; later events wait in the log."""
TURN = 1.0
"""Seconds that other handlers wait for a slow one; after that the slow handler reads the log by itself."""
CHECKPOINT_EVERY = 0.05
"""Seconds between two writes of checkpoints. After a crash, events since the last write may be delivered again."""


class Route:
    """Message to the router: the log has grown, or the window has room for more events."""


class SaveCheckpoints:
    """Message to the router: write the checkpoints that have changed."""


class RouterActor(Actor):
    """The actor that routes events; see the module. It runs on the event loop and calls subscriptions directly.

    Args:
        store: The store whose log the router reads.
        subscriptions: The handlers.
        position: The router starts after this position. Handlers with an earlier checkpoint catch up by themselves.
        clock: Times turns and writes of checkpoints.
        turn: Seconds; see `TURN`.
        contexts: Of the messages that cause events.
        observed: The observers of the system, if there are any.
    """

    def __init__(
        self,
        store: EventStore,
        subscriptions: list[Subscription],
        position: int,
        clock: Clock,
        turn: float = TURN,
        *,
        contexts: EventContexts | None = None,
        observed: Observation | None = None,
    ) -> None:
        super().__init__()
        self.position = position
        self.subscriptions = subscriptions
        self._store = store
        self._clock = clock
        self._turn = turn
        self._contexts = EventContexts() if contexts is None else contexts
        self._observed = observed
        self._log = get_logger(actor="router")
        self._by_topic: TopicTrie[Subscription] = TopicTrie()
        self._by_type: dict[tuple[str, str | None], list[Subscription]] = {}
        self._routes: Routes[tuple[str, str | None, str | None], Subscription] = Routes(self._matching)
        self._generation = -1
        self._under_way: tuple[deque[Delivery], ...] = tuple(deque() for _ in TIERS)
        self._dispatched = [position for _ in TIERS]
        self._count = 0
        self._starved = False  # reading stopped because the window was full
        self._advancing = False
        self._more_to_advance = False
        self._route_wanted = False
        self._saving: Timer | None = None
        self._save_wanted = False
        self._watching: Timer | None = None
        self._has_partitions = False
        for subscription in subscriptions:
            self._enter(subscription)

    def add(self, subscription: Subscription) -> None:
        """Add a handler. It reads events already dispatched to its priority from the log, and receives later ones."""
        self.subscriptions.append(subscription)
        self._enter(subscription)
        self._forget_routes()
        for still_above in self._under_way[: subscription.spec.priority]:
            for delivery in still_above:
                delivery.tiers = self._match(delivery)
        if self._watching is None:
            self._watching = self._clock.call_later(self._turn / 2, self._watch_turns)

    def remove(self, subscription: Subscription) -> None:
        """Remove a handler, which must be stopped."""
        self.subscriptions.remove(subscription)
        if subscription.spec.topic_pattern is not None:
            self._by_topic.remove(subscription.spec.topic_pattern, subscription)
        self._forget_routes()

    def _forget_routes(self) -> None:
        self._by_type.clear()
        self._routes.clear()

    def _enter(self, subscription: Subscription) -> None:
        self._contexts.is_wanted = True
        self._has_partitions = self._has_partitions or subscription.partition is not None
        if subscription.spec.topic_pattern is not None:
            self._by_topic.add(subscription.spec.topic_pattern, subscription)
        subscription.give_back = self._given_back

    @override
    async def on_start(self) -> None:
        self.cancel_timers()  # left from before a restart
        self._advancing = self._route_wanted = self._save_wanted = False
        self.progressed()  # writes what a failed run could not
        if self.subscriptions:  # without handlers there is nothing to watch and no need to read the log
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
        """Dispatch the events after the current position, as many as the window has room for."""
        self._route_wanted = False
        while (room := WINDOW - self._count) > 0:
            page = await self._store.read_log(self.position, min(PAGE, room))
            if not page:
                return
            self._advancing = True  # no event moves to its next tier until the whole page is dispatched
            for stored in page:
                delivery = Delivery(stored)
                delivery.tiers = self._match(delivery)
                if self._contexts:
                    delivery.context = self._contexts.take(delivery.record.event_id)
                if self._observed is not None:
                    self._observe(self._observed, delivery)
                self.position = stored.position
                self._count += 1
                self._dispatch(delivery)
            self._advancing = False
            self._advance()
            await asyncio.sleep(0)  # handlers that never await must not block the event loop
        self._starved = True

    def _observe(self, observed: Observation, delivery: Delivery) -> None:
        context = delivery.context or Context()
        context.run(observed.event_routed, delivery, sum(map(len, delivery.tiers)))

    def cancel_timers(self) -> None:
        """Cancel the timers for turns and checkpoints."""
        for timer in (self._watching, self._saving):
            if timer is not None:
                timer.cancel()
        self._watching = self._saving = None

    def route_soon(self) -> None:
        """Make the router read the log again. Calls before it does so share one message."""
        if not self._route_wanted and self.actor_ref.is_alive():
            self._route_wanted = True
            self.actor_ref.tell(Route())

    # --- matching ---

    def _match(self, delivery: Delivery) -> Tiers[Subscription]:
        """Return the handlers subscribed to the event, by priority; of a partitioned one, the partition it is in."""
        record = delivery.record
        if self._generation != self._store.event_registry.generation:
            self._generation = self._store.event_registry.generation
            self._forget_routes()
        tiers = self._routes[record.event_type, record.aggregate_type, record.topic]
        return _in_partitions(tiers, delivery) if self._has_partitions else tiers

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
    # Each tier has a queue of the events dispatched to it, in log order. When all handlers of the tier have
    # handled the first event of the queue, that event is dispatched to the next tier. So each tier, and with it
    # each handler, sees events in log order.

    def _dispatch(self, delivery: Delivery) -> None:
        """Hand ``delivery`` to the handlers of its current tier."""
        tier = delivery.tier
        delivery.since = self._clock.monotonic()
        self._under_way[tier].append(delivery)
        for subscription in delivery.tiers[tier]:
            if subscription.offer(delivery):
                delivery.waiting += 1
        self._dispatched[tier] = delivery.position

    def _advance(self) -> None:
        """Move each event that its tier's handlers have finished to the next tier, or out of the window.

        Dispatching an event may make a handler give others back, which calls this method again while the first
        call still runs. The inner call only makes the outer one check once more, so dispatches never interleave.
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
        """Note that a handler has finished ``delivery``, or has given up its turn."""
        delivery.waiting -= 1
        if not delivery.waiting:
            self._advance()

    def _leave_behind(self, subscription: Subscription) -> None:
        if subscription.live:
            self._log.warning("handler is slow, the others continue without it", handler=subscription.name)
            subscription.fall_behind()

    def _watch_turns(self) -> None:
        """Make slow handlers give up their turn, so that the other handlers can continue."""
        now = self._clock.monotonic()
        for subscription in self.subscriptions:
            since = subscription.busy_since
            if since is not None and now - since > self._turn:
                self._leave_behind(subscription)
        if self._starved:  # the handlers of the oldest events block the full window
            for queue in self._under_way:
                if queue and now - queue[0].since > self._turn:
                    for subscription in queue[0].tiers[queue[0].tier]:
                        if subscription.holds(queue[0]):
                            self._leave_behind(subscription)
        self.route_soon()  # another process may have appended, and not every store notifies
        self._watching = self._clock.call_later(self._turn / 2, self._watch_turns)

    # --- progress ---

    @property
    def under_way(self) -> int:
        """Number of events that were dispatched and that not all handlers have finished or given back."""
        return self._count

    def dispatched(self, subscription: Subscription) -> int:
        """Return the position up to which events were dispatched to handlers of this priority."""
        return self._dispatched[subscription.spec.priority]

    def checkpoint(self, subscription: Subscription) -> int:
        """Return the position up to which ``subscription`` has finished every event."""
        return subscription.checkpoint(self.dispatched(subscription))

    def progressed(self) -> None:
        """Schedule a write of the checkpoints; one write saves them together."""
        if self._saving is None:
            self._saving = self._clock.call_later(CHECKPOINT_EVERY, self._save_soon)

    def _save_soon(self) -> None:
        self._saving = None
        if self.actor_ref.is_alive() and not self._save_wanted:
            self._save_wanted = True
            self.actor_ref.tell(SaveCheckpoints())

    async def save_checkpoints(self, *, last: bool = False) -> None:
        """Write the checkpoints that have changed since the last write.

        A checkpoint that is being written elsewhere, perhaps with an earlier position, does not delay the others:
        it is written soon after, or if this is the ``last`` write, when the lock is free.
        """
        moved = {}
        for subscription in self.subscriptions:
            progress = subscription.progress
            now = progress.checkpoint, self.checkpoint(subscription)
            if not (subscription.leased and progress.checkpoint and progress.saved != now):
                continue
            if last or not progress.writes.locked():
                moved[subscription] = now
            else:
                self.progressed()
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
                await self.save_checkpoints(last=last)  # saves those of the other handlers
                return
            for subscription, now in moved.items():
                if (
                    subscription.progress.saved == before[subscription]
                ):  # otherwise a reset came in the meantime
                    subscription.progress.saved = now

    async def _save(self, subscriptions: Collection[Subscription]) -> None:
        """Write the checkpoints of ``subscriptions``, except of a projection whose checkpoint may not be moved now.

        Each checkpoint's lock is held during the write, so that only one write is under way. Otherwise a store with
        several connections could perform the older write last, and a projection would count events twice or skip
        some.
        """
        async with AsyncExitStack() as writing:
            for subscription in subscriptions:
                await writing.enter_async_context(subscription.progress.writes)
            # One that was given up in the meantime is no longer this process's to move.
            positions = {
                each.progress.checkpoint: self.checkpoint(each) for each in subscriptions if each.leased
            }
            positions.pop("", None)
            await self._store.save_progress(positions)


def _in_partitions(tiers: Tiers[Subscription], delivery: Delivery) -> Tiers[Subscription]:
    """``tiers`` without the partitions that ``delivery`` is not in; its shard is computed once for each kind of key."""
    shards: dict[object, int] = {}
    found: list[tuple[Subscription, ...]] = []
    for tier in tiers:
        kept = []
        for subscription in tier:
            if subscription.partition is not None:
                keys = id(subscription.keys)
                shard = shards.get(keys)
                if shard is None:
                    shard = shards[keys] = subscription.shard_of(delivery)
                if not subscription.has_shard(shard):
                    continue
            kept.append(subscription)
        found.append(tuple(kept))
    return tuple(found)
