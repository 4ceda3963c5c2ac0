"""The router of one log: which handlers get an event, and in which order of priority.

For each event, every HIGH handler finishes before a NORMAL one starts, and every NORMAL handler before a LOW one. Each
handler receives its events in log order. Several events are under way at once: while one waits for its LOW handlers,
the next may already be with its HIGH handlers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context

from uno_actors.clock import Clock
from uno_actors.domain.events import EventRegistry
from uno_actors.event_contexts import EventContexts
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.handlers.routes import TIERS, Routes, Tiers
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.handlers.waits import ProgressWaits
from uno_actors.observing import Observation
from uno_actors.store.records import StoredRecord
from uno_actors.topics import TopicTrie


class LogRouter:
    """Routes the events of one log to the handlers that read it. It calls subscriptions directly.

    Args:
        position: Routing starts after this position. Handlers with an earlier checkpoint catch up by themselves.
        registry: Finds the classes of events.
        clock: Measures how long an event waits for its handlers.
        progressed: Called when checkpoints may have changed.
        has_room: Called when events have left, while the log is ``starved``.
        waits: The waits for the handlers.
        contexts: Of the messages that cause events.
        observed: The observers of the system, if there are any.
        recorder: Its flight recorder, if it has one.

    Attributes:
        position: All events up to here are dispatched.
        subscriptions: The handlers that read this log.
        under_way: Number of events that were dispatched and that not all handlers have finished or given back.
        starved: Whether reading stopped because too many events were under way.
        is_read: Whether the log is read now.
    """

    def __init__(
        self,
        position: int,
        registry: EventRegistry,
        clock: Clock,
        *,
        progressed: Callable[[], None],
        has_room: "Callable[[LogRouter], None]",
        waits: ProgressWaits,
        contexts: EventContexts,
        observed: Observation | None,
        recorder: FlightRecorder | None = None,
    ) -> None:
        self._recorder = recorder
        self.position = position
        self.subscriptions: list[Subscription] = []
        self.under_way = 0
        self.starved = False
        self.is_read = False
        self._registry = registry
        self._clock = clock
        self._progressed = progressed
        self._has_room = has_room
        self._waits = waits
        self._contexts = contexts
        self._observed = observed
        self._by_topic: TopicTrie[Subscription] = TopicTrie()
        self._by_type: dict[tuple[str, str | None], list[Subscription]] = {}
        self._routes: Routes[tuple[str, str | None, str | None], Subscription] = Routes(self._matching)
        self._generation = -1
        self._has_filters = False
        self._queues: tuple[deque[Delivery], ...] = tuple(deque() for _ in TIERS)
        self._dispatched = [position for _ in TIERS]
        self._advancing = False
        self._more_to_advance = False

    def add(self, subscription: Subscription) -> None:
        """Add a handler. It reads events already dispatched to its priority from the log, and receives later ones."""
        self.subscriptions.append(subscription)
        self._has_filters = self._has_filters or subscription.is_filtered
        if subscription.spec.topic_pattern is not None:
            self._by_topic.add(subscription.spec.topic_pattern, subscription)
        subscription.give_back = self._given_back
        self._forget_routes()
        for still_above in self._queues[: subscription.spec.priority]:
            for delivery in still_above:
                delivery.tiers = self._match(delivery)

    def remove(self, subscription: Subscription) -> None:
        """Remove a handler, which must be stopped."""
        self.subscriptions.remove(subscription)
        if subscription.spec.topic_pattern is not None:
            self._by_topic.remove(subscription.spec.topic_pattern, subscription)
        self._forget_routes()

    def topics(self) -> frozenset[str]:
        """The topic patterns by which handlers are found, and their beginnings."""
        return self._by_topic.branches()

    def route(self, page: Sequence[StoredRecord]) -> None:
        """Dispatch a page of the log, which follows the position."""
        self._advancing = True  # no event moves to its next tier until the whole page is dispatched
        for stored in page:
            delivery = Delivery(stored)
            delivery.tiers = self._match(delivery)
            if self._contexts:
                delivery.context = self._contexts.take(delivery.record.event_id)
            if self._observed is not None and self._observed.in_contexts:
                self._observe(self._observed, delivery)
            self.position = stored.position
            self.under_way += 1
            self._dispatch(delivery)
        self._advancing = False
        if self._recorder is not None and page:
            self._recorder.routed(page[0].position, page[-1].position, len(page))
        self._advance()

    def _observe(self, observed: Observation, delivery: Delivery) -> None:
        context = delivery.context or Context()
        context.run(observed.event_routed, delivery, sum(map(len, delivery.tiers)))

    @property
    def has_readers(self) -> bool:
        """Whether this process runs a handler that reads this log."""
        return any(subscription.leased for subscription in self.subscriptions)

    def begin_reading(self) -> None:
        """Skip what the handlers that run here have done, perhaps on other nodes, while the log was not read here."""
        self.is_read = True
        done = min((each.progress.position for each in self.subscriptions if each.leased), default=0)
        if done > self.position and not self.under_way:
            self.position = done
            self._dispatched = [done for _ in TIERS]

    def fail(self) -> None:
        """Note that dispatching a page may have failed in the middle; the next page continues after the position."""
        self._advancing = False

    # --- matching ---

    def _forget_routes(self) -> None:
        self._by_type.clear()
        self._routes.clear()

    def _match(self, delivery: Delivery) -> Tiers[Subscription]:
        """Return the handlers subscribed to the event, by priority; of a partitioned one, the partition it is in."""
        record = delivery.record
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._forget_routes()
        tiers = self._routes[record.event_type, record.aggregate_type, record.topic]
        return _in_partitions(tiers, delivery) if self._has_filters else tiers

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
        self._queues[tier].append(delivery)
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
            for tier, queue in enumerate(self._queues):
                while queue and not queue[0].waiting:
                    self._move_on(queue.popleft(), tier + 1)
        self._advancing = False
        if self._waits.are_open:  # those of handlers that want no event of the page, too
            self._waits.look()
        if self.starved:
            self._has_room(self)

    def _move_on(self, delivery: Delivery, tier: int) -> None:
        if tier < len(TIERS):
            delivery.tier = tier
            self._dispatch(delivery)
        else:
            self.under_way -= 1
            self._progressed()

    def _given_back(self, delivery: Delivery) -> None:
        """Note that a handler has finished ``delivery``, or has given up its turn."""
        delivery.waiting -= 1
        if not delivery.waiting:
            self._advance()

    def blocking(self, since: float) -> Iterable[Subscription]:
        """The handlers that the first events of the queues wait for, if they came before ``since``."""
        for queue in self._queues:
            if queue and queue[0].since < since:
                for subscription in queue[0].tiers[queue[0].tier]:
                    if subscription.holds(queue[0]):
                        yield subscription

    # --- progress ---

    def dispatched(self, subscription: Subscription) -> int:
        """Return the position up to which events were dispatched to handlers of this priority."""
        return self._dispatched[subscription.spec.priority]


def _in_partitions(tiers: Tiers[Subscription], delivery: Delivery) -> Tiers[Subscription]:
    """``tiers`` without the partitions that ``delivery`` is not in; its shards are computed once per kind of key."""
    shards: dict[object, tuple[int, ...]] = {}
    found: list[tuple[Subscription, ...]] = []
    for tier in tiers:
        kept = []
        for subscription in tier:
            if subscription.is_filtered:
                keys = id(subscription.keys)
                found_in = shards.get(keys)
                if found_in is None:
                    found_in = shards[keys] = subscription.shards_of(delivery)
                if not subscription.has_shard(found_in):
                    continue
            kept.append(subscription)
        found.append(tuple(kept))
    return tuple(found)
