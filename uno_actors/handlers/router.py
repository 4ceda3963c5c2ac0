"""The router: hands recorded events to handlers by topic, type and priority.

The router reads the log in order, or several logs, each in its order, and hands each page to the
`uno_actors.handlers.log_router.LogRouter` of its log. It writes the checkpoints of all handlers together.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import groupby

from typing_extensions import override

from uno_actors.actors.actor import Actor
from uno_actors.clock import Clock, Timer
from uno_actors.errors import LeaseLost
from uno_actors.event_contexts import EventContexts
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.handlers.log_router import LogRouter
from uno_actors.handlers.subscription import Subscription
from uno_actors.handlers.waits import ProgressWaits
from uno_actors.logs import Logger, get_logger
from uno_actors.observing import Observation
from uno_actors.store.logs import log_of_position
from uno_actors.store.merging import page_of_each
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, StoredRecord

WINDOW = 4096
"""Maximum number of events under way at once; later events wait in the log. Several logs share it."""
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

    Attributes:
        waits: The waits for the handlers.

    Args:
        store: The store whose logs the router reads.
        subscriptions: The handlers.
        positions: The router starts after this position of each log. Handlers with an earlier checkpoint catch up by
            themselves.
        clock: Times turns and writes of checkpoints.
        turn: Seconds; see `TURN`.
        contexts: Of the messages that cause events.
        observed: The observers of the system, if there are any.
        log: Has the names of the system bound.
    """

    def __init__(
        self,
        store: EventStore,
        subscriptions: list[Subscription],
        positions: Sequence[int],
        clock: Clock,
        turn: float = TURN,
        *,
        contexts: EventContexts | None = None,
        observed: Observation | None = None,
        log: Logger | None = None,
        recorder: FlightRecorder | None = None,
    ) -> None:
        super().__init__()
        self.subscriptions = subscriptions
        self._store = store
        self._clock = clock
        self._turn = turn
        self._contexts = EventContexts() if contexts is None else contexts
        self._log = (log or get_logger()).bind(actor="router")
        self.waits = ProgressWaits(self.checkpoint)
        self._logs = [
            LogRouter(
                position,
                store.event_registry,
                clock,
                progressed=self.progressed,
                has_room=self._has_room,
                waits=self.waits,
                contexts=self._contexts,
                observed=observed,
                recorder=recorder,
            )
            for position in positions
        ]
        self._window = max(1, WINDOW // len(positions))
        self._route_wanted = False
        self._saving: Timer | None = None
        self._save_wanted = False
        self._watching: Timer | None = None
        for subscription in subscriptions:
            self._enter(subscription)

    @property
    def logs(self) -> Sequence[LogRouter]:
        """The router of each log."""
        return self._logs

    def add(self, subscription: Subscription) -> None:
        """Add a handler. It reads events already dispatched to its priority from the log, and receives later ones."""
        self.subscriptions.append(subscription)
        self._enter(subscription)
        if self._watching is None:
            self._watching = self._clock.call_later(self._turn / 2, self._watch_turns)
        self.route_soon()  # its log may have grown while no handler here read it

    def remove(self, subscription: Subscription) -> None:
        """Remove a handler, which must be stopped."""
        self.subscriptions.remove(subscription)
        self._look_at_waits()
        self._logs[subscription.log].remove(subscription)

    def _enter(self, subscription: Subscription) -> None:
        subscription.changed = self._look_at_waits
        self._contexts.is_wanted = True
        self._logs[subscription.log].add(subscription)

    @override
    async def on_start(self) -> None:
        self.cancel_timers()  # left from before a restart
        self._route_wanted = self._save_wanted = False
        for log in self._logs:
            log.fail()
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
        """Dispatch the events after the current positions, as many as there is room for."""
        self._route_wanted = False
        while logs := [*self._readable()]:
            page = await self._read(logs)
            if not page:
                return
            for log, records in self._by_log(page):
                log.route(records)
            await asyncio.sleep(0)  # handlers that never await must not block the event loop

    def _readable(self) -> Iterator[LogRouter]:
        """The logs to read: those whose events have a handler here, and room."""
        for log in self._logs:
            if log.under_way >= self._window:
                log.starved = True
            elif len(self._logs) == 1:
                yield log
            elif log.has_readers:
                if not log.is_read:
                    log.begin_reading()
                yield log
            else:
                log.is_read = False

    async def _read(self, logs: Sequence[LogRouter]) -> Sequence[StoredRecord]:
        """The next events of ``logs``, those of one log together."""
        if len(self._logs) == 1:
            (log,) = logs
            return await self._store.read_log(log.position, min(PAGE, self._window - log.under_way))
        return await self._store.read_logs([log.position for log in logs], page_of_each(len(self._logs)))

    def _by_log(self, page: Sequence[StoredRecord]) -> Iterator[tuple[LogRouter, Sequence[StoredRecord]]]:
        if len(self._logs) == 1:
            yield self._logs[0], page
            return
        for number, records in groupby(page, key=lambda stored: log_of_position(stored.position)):
            yield self._logs[number], [*records]

    def _has_room(self, log: LogRouter) -> None:
        if log.under_way <= self._window // 2:
            log.starved = False
            self.route_soon()

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
        for log in self._logs:
            if log.starved:  # the handlers of the oldest events block the full window
                for subscription in [*log.blocking(now - self._turn)]:
                    self._leave_behind(subscription)
        self.route_soon()  # another process may have appended, and not every store notifies
        self._watching = self._clock.call_later(self._turn / 2, self._watch_turns)

    # --- progress ---

    @property
    def under_way(self) -> int:
        """Number of events that were dispatched and that not all handlers have finished or given back."""
        return sum(log.under_way for log in self._logs)

    def dispatched(self, subscription: Subscription) -> int:
        """Return the position up to which events were dispatched to handlers of this priority."""
        return self._logs[subscription.log].dispatched(subscription)

    def checkpoint(self, subscription: Subscription) -> int:
        """Return the position up to which ``subscription`` has finished every event."""
        return subscription.checkpoint(self.dispatched(subscription))

    def progressed(self) -> None:
        """Note that a handler may have come further: end the waits for it, and write the checkpoints soon, together."""
        if self.waits.are_open:
            self.waits.look()
        if self._saving is None:
            self._saving = self._clock.call_later(CHECKPOINT_EVERY, self._save_soon)

    def _look_at_waits(self) -> None:
        if self.waits.are_open:
            self.waits.look()

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
