"""Leases of handlers: one process runs a handler, and another takes over when that process ends."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from uno_actors.clock import Clock, Timer
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.requests import Requests
from uno_actors.handlers.subscription import NO_LEASE, Subscription
from uno_actors.logs import get_logger
from uno_actors.store.port import EventStore, Lease

LEASE_EVERY = 1.0
"""Seconds between attempts to take the lease of a handler that another process runs."""


class Leases:
    """The leases that this process holds, and the handlers that wait for a lease.

    Args:
        store: Keeps the leases.
        control: Reads the operators' requests.
        clock: Times the next attempt.
        subscriptions: The system's handlers; the list may grow and shrink.
        start_task: Runs a coroutine as a task and keeps a reference to it.
        give_requests: Passes a handler the operators' requests, a mapping by handler name.
        on_lost: Called with the name of a handler that another process has taken over.
        name: Name of the system in logs.
    """

    def __init__(
        self,
        store: EventStore,
        control: HandlerControl,
        clock: Clock,
        subscriptions: list[Subscription],
        *,
        start_task: Callable[[Coroutine[Any, Any, Any]], object],
        give_requests: Callable[[Subscription, Mapping[str, Requests]], None],
        on_lost: Callable[[str], object],
        name: str,
    ) -> None:
        self._store = store
        self._control = control
        self._clock = clock
        self._subscriptions = subscriptions
        self._start_task = start_task
        self._give_requests = give_requests
        self._on_lost = on_lost
        self._leases: dict[str, Lease] = {}
        self._taking_over: Timer | None = None
        self._is_closed = False
        self._log = get_logger(system=name)

    async def take(self, name: str) -> bool:
        """Try to take the lease of a handler. Return whether this process now holds it."""
        lease = await self._store.lease(name)
        if lease is not None:
            self._hold(name, lease)
        return lease is not None

    def holds(self, name: str) -> bool:
        """Whether this process holds the lease and has not lost it."""
        return name in self._leases and not self._leases[name].is_lost

    def of(self, name: str) -> Lease:
        """The lease of a handler, as far as this process holds it."""
        return self._leases.get(name, NO_LEASE)

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
        self.take_over_later()

    def take_over_later(self) -> None:
        """Schedule the next attempt if any handler is on standby."""
        if self._taking_over is None and any(each.state == "standby" for each in self._subscriptions):
            self._taking_over = self._clock.call_later(
                LEASE_EVERY, lambda: self._start_task(self._take_over())
            )

    async def _take_over(self) -> None:
        """Take over handlers whose processes have ended, and continue from their checkpoints."""
        self._taking_over = None
        for subscription in tuple(self._subscriptions):
            if subscription.state == "standby":
                try:
                    await self._take_over_one(subscription)
                # A store may raise any exception, and a program may cancel the system's tasks.
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
                    self._log.error(
                        "handler cannot be taken over yet", handler=subscription.name, exc_info=error
                    )
        if not self._is_closed:
            self.take_over_later()

    async def _take_over_one(self, subscription: Subscription) -> None:
        if (
            subscription.progress.pending
        ):  # this process lost it while handling an event, and still handles it
            return
        await self.release(subscription.name)
        lease = await self._store.lease(subscription.name)
        if lease is None:
            return
        try:
            checkpoints, requests = await self._store.checkpoints(), await self._control.requests()
            if subscription.state == "standby":  # it was not stopped in the meantime
                subscription.take_over(checkpoints.get(subscription.name, subscription.progress.position))
                self._give_requests(subscription, requests)
                self._hold(subscription.name, lease)
                subscription.lease = lease
                self._log.info(
                    "handler taken over", handler=subscription.name, position=subscription.progress.position
                )
        finally:
            if not subscription.leased:
                await lease.release()

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
        """Stop trying to take over handlers. This releases no lease; `release_all` does."""
        self._is_closed = True
        if self._taking_over is not None:
            self._taking_over.cancel()
