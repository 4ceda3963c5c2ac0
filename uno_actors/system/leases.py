"""Leases of handlers: one process runs a handler, and another takes over when that process ends or it is its turn.

A process takes every free lease when it starts. Once it sees the other nodes, handlers are balanced over those that
can run them, see `uno_actors.handlers.balancing`: a node gives up the handlers that others are to run, between two
events, and takes those that it is to run itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from uno_actors.clock import Clock, Timer
from uno_actors.cluster.announcement import Announcement
from uno_actors.handlers.balancing import ROLE, preferred_holders
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.layouts import runs_otherwise
from uno_actors.handlers.partitions import first_position
from uno_actors.handlers.requests import Requests
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscription import NO_LEASE, Subscription
from uno_actors.logs import Logger
from uno_actors.store.port import EventStore, Lease

LEASE_EVERY = 1.0
"""Seconds between attempts to take the lease of a handler that another process runs."""
HANDOVER_EVERY = 0.1
"""Seconds between attempts while another process is expected to give up the handler, and between looks at one that is
being given up here."""
HANDOVER_FOR = 10.0
"""Seconds after a change of the nodes in which the handlers are expected to move; a busy one may take longer."""


class Leases:
    """The leases that this process holds, and the handlers that wait for a lease.

    Args:
        store: Keeps the leases.
        control: Reads the operators' requests.
        clock: Times the next look.
        subscriptions: The system's handlers; the list may grow and shrink.
        announcement: Shows the other nodes; ``None`` if the store keeps none, and then no handler moves.
        start_task: Runs a coroutine as a task and keeps a reference to it.
        give_requests: Passes a handler the operators' requests, a mapping by handler name.
        dispatched: Returns the position up to which events were dispatched to handlers of this priority.
        save: Writes the checkpoints of this process's handlers.
        begun: Called with a handler that was taken over, and the checkpoints by name.
        on_lost: Called with the name of a handler that another process runs now.
        log: Has the names of the system bound.

    Attributes:
        writes: Held while something is written under the leases of several handlers: none is given up then.
    """

    def __init__(
        self,
        store: EventStore,
        control: HandlerControl,
        clock: Clock,
        subscriptions: list[Subscription],
        announcement: Announcement | None,
        *,
        start_task: Callable[[Coroutine[Any, Any, Any]], object],
        give_requests: Callable[[Subscription, Mapping[str, Requests]], None],
        dispatched: Callable[[Subscription], int],
        save: Callable[[], Awaitable[None]],
        begun: Callable[[Subscription, dict[str, int]], Awaitable[None]],
        on_lost: Callable[[str], object],
        log: Logger,
    ) -> None:
        self._store = store
        self._control = control
        self._clock = clock
        self._subscriptions = subscriptions
        self._announcement = announcement
        self._start_task = start_task
        self._give_requests = give_requests
        self._dispatched = dispatched
        self._save = save
        self._begun = begun
        self._on_lost = on_lost
        self._leases: dict[str, Lease] = {}
        self.writes = asyncio.Lock()
        self._holders: dict[str, str] = {}  # the nodes that are to run the handlers
        self._changed_at = clock.monotonic()  # since when they are to
        self._free_since: dict[str, float] = {}  # leases that another node is to take
        self._kept: set[str] = set()  # taken although another node was to, which did not
        self._timer: Timer | None = None
        self._is_looking = self._look_again = self._is_closed = False
        self._log = log.bind(actor="leases")
        if announcement is not None:
            announcement.when_changed(self._see)

    async def take(self, *specs: HandlerSpec) -> None:
        """Try to take the leases of handlers; `holds` says which of them this process has now."""
        if not self._is_for_handlers or not specs:
            return
        checkpoints = await self._store.checkpoints()
        known: dict[str, bool] = {}
        for spec in specs:
            lease = await self._store.lease(spec.name)
            if lease is None:
                continue
            if await runs_otherwise(self._store, spec, checkpoints, known):
                await lease.release()
            else:
                self._hold(spec.name, lease)

    def holds(self, name: str) -> bool:
        """Whether this process holds the lease and has not lost it."""
        return name in self._leases and not self._leases[name].is_lost

    def of(self, name: str) -> Lease:
        """The lease of a handler, as far as this process holds it."""
        return self._leases.get(name, NO_LEASE)

    def announce(self) -> None:
        """Let the other nodes know which handlers this one can run. It is announced later if it has none yet."""
        if self._announcement is not None:
            names = tuple(sorted(subscription.name for subscription in self._subscriptions))
            self._announcement.change(handlers=names)

    def _hold(self, name: str, lease: Lease) -> None:
        self._leases[name] = lease
        lease.when_lost(lambda: self._lost(name))

    def _lost(self, name: str) -> None:
        """Put a handler on standby after another process has taken it over."""
        self._on_lost(name)
        for subscription in self._subscriptions:
            if subscription.leased and subscription.name == name:
                self._log.warning("handler was taken over by another process", handler=name)
                subscription.stand_by()
        self.look_later()

    # --- which handlers are to run here ---

    @property
    def _is_for_handlers(self) -> bool:
        return self._announcement is None or ROLE in self._announcement.member.roles

    def _see(self) -> None:
        """Adopt a new view of the nodes. Each change begins a new wait, so a node that flickers moves nothing."""
        assert self._announcement is not None
        holders = preferred_holders(self._announcement.members)
        if holders != self._holders and not self._is_closed:
            self._holders = holders
            self._changed_at = self._clock.monotonic()
            self._free_since.clear()
            self._kept.clear()
            self._look_soon()

    def _is_ours(self, name: str) -> bool:
        """Whether this node is to run the handler, or no node is."""
        holder = self._holders.get(name)
        return holder is None or self._announcement is None or holder == self._announcement.member.id

    @property
    def _stable_for(self) -> float:
        return self._clock.monotonic() - self._changed_at

    @property
    def _patience(self) -> float:
        return LEASE_EVERY if self._announcement is None else self._announcement.renewed_every

    def _leaves(self, subscription: Subscription) -> bool:
        """Whether a handler that runs here is to run elsewhere, however long the view has been stable."""
        name = subscription.name
        return not self._is_ours(name) and name not in self._kept and subscription.may_hand_over

    # --- looking ---

    def look_later(self) -> None:
        """Schedule the next look if a handler is on standby or is to be given up."""
        if self._timer is not None or self._is_looking or self._is_closed:
            return
        if (delay := self._delay()) is not None:
            self._timer = self._clock.call_later(delay, self._look_soon)

    def _delay(self) -> float | None:
        """Seconds until the next look; ``None`` if there is nothing to look at."""
        delays = []
        expects = self._stable_for < self._patience + HANDOVER_FOR
        for subscription in self._subscriptions:
            if subscription.state == "standby":
                is_expected = (
                    expects and subscription.name in self._holders and self._is_ours(subscription.name)
                )
                delays.append(HANDOVER_EVERY if is_expected else LEASE_EVERY)
            elif subscription.state == "handing over":
                delays.append(HANDOVER_EVERY)
            elif self.holds(subscription.name) and self._leaves(subscription):
                delays.append(max(self._patience - self._stable_for, HANDOVER_EVERY))
        return min(delays, default=None)

    def _look_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_looking:
            self._look_again = True
        elif not self._is_closed:
            self._is_looking = True
            self._start_task(self._look())

    async def _look(self) -> None:
        """Take over handlers whose lease is free and to be taken here, and give up those that others are to run."""
        try:
            self._look_again = True
            while self._look_again and not self._is_closed:
                self._look_again = False
                leased = await self._leased_elsewhere()
                for subscription in tuple(self._subscriptions):
                    await self._look_at(subscription, leased)
        finally:
            self._is_looking = False
        self.look_later()

    async def _leased_elsewhere(self) -> set[str] | None:
        """The leased ones of those handlers that other nodes are to have: looked up at once, for they may be many.

        ``None`` if they cannot be looked up.
        """
        names = [
            each.name
            for each in self._subscriptions
            if each.state == "standby" and not self._is_ours(each.name)
        ]
        if not names or not self._is_for_handlers:
            return set()
        try:
            return await self._store.leased_among(names)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as in `_look_at`
            self._log.error("leases cannot be looked up yet", exc_info=error)
            return None

    async def _look_at(self, subscription: Subscription, leased: set[str] | None) -> None:
        try:
            if subscription.state == "standby":
                if self._may_take(subscription.name, leased):
                    await self._take_over(subscription)
            elif subscription.state == "handing over" or self.holds(subscription.name):
                await self._consider_handing_over(subscription)
        # A store may raise any exception, and a program may cancel the system's tasks.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            self._log.error("handler cannot be taken over yet", handler=subscription.name, exc_info=error)

    def _may_take(self, name: str, leased: set[str] | None) -> bool:
        """Whether to take a lease: this node is to have it, or the one that is does not take it."""
        if not self._is_for_handlers:
            return False
        if self._is_ours(name):
            return True
        if leased is None or name in leased:
            self._free_since.pop(name, None)
            return False
        now = self._clock.monotonic()
        return now - self._free_since.setdefault(name, now) >= self._patience

    async def _take_over(self, subscription: Subscription) -> None:
        """Continue from the checkpoint of a handler that no other process runs."""
        if (
            subscription.progress.pending
        ):  # this process lost it while handling an event, and still handles it
            return
        name = subscription.name
        await self.release(name)
        lease = await self._store.lease(name)
        if lease is None:
            return
        try:
            checkpoints, requests = await self._store.checkpoints(), await self._control.requests()
            if await runs_otherwise(self._store, subscription.spec, checkpoints, {}):
                return
            if subscription.state == "standby" and not self._is_closed:  # it was not stopped in the meantime
                position = first_position(subscription.spec, checkpoints, subscription.logs)
                subscription.take_over(subscription.progress.position if position is None else position)
                self._give_requests(subscription, requests)
                self._hold(name, lease)
                subscription.lease = lease
                self._free_since.pop(name, None)
                if not self._is_ours(name):
                    self._kept.add(name)
                await self._begun(subscription, checkpoints)
                self._log.info(
                    "handler taken over", handler=subscription.name, position=subscription.progress.position
                )
        finally:
            if not subscription.leased:
                await lease.release()

    async def _consider_handing_over(self, subscription: Subscription) -> None:
        """Give up a handler that another node is to run, when it is between two events."""
        if not self._leaves(subscription) or self._stable_for < self._patience:
            subscription.stay()
            return
        if subscription.state != "handing over":
            subscription.hand_over(self._dispatched(subscription))
        if subscription.is_at_rest:
            await self._hand_over(subscription)

    async def _hand_over(self, subscription: Subscription) -> None:
        name = subscription.name
        async with self.writes:
            await self._save()
            if (
                subscription.state != "handing over"
                or not subscription.is_at_rest
                or not self._leaves(subscription)
            ):
                return  # it was stopped or lost in the meantime, or the nodes have changed
            subscription.release()
            subscription.stand_by()
            self._on_lost(name)
            async with subscription.progress.writes:
                await self.release(name)
        self._log.info(
            "handler given up to another node",
            handler=name,
            position=subscription.progress.position,
            node=self._name_of(self._holders.get(name)),
        )

    def _name_of(self, member_id: str | None) -> str | None:
        members = () if self._announcement is None else self._announcement.members
        return next((member.name for member in members if member.id == member_id), None)

    # --- giving up ---

    async def release(self, name: str) -> None:
        """Give up the lease of a handler, so that another process may take it."""
        if (lease := self._leases.pop(name, None)) is not None:
            await lease.release()

    async def release_all(self) -> None:
        """Give up all leases, so that other processes may take them."""
        while self._leases:
            _, lease = self._leases.popitem()
            await lease.release()

    def close(self) -> None:
        """Move no more handlers. This releases no lease; `release_all` does."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
