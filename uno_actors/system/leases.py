"""Leases of handlers: one process runs a handler, and another takes it over when that process has ended."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from uno_actors.clock import Clock, Timer
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.requests import Requests
from uno_actors.handlers.subscription import Subscription
from uno_actors.logs import get_logger
from uno_actors.store.port import EventStore, Lease

LEASE_EVERY = 1.0
"""Seconds between two attempts to take the lease of a handler that another process runs."""


class Leases:
    """The leases that this process holds, and the handlers that wait for one.

    Args:
        store: Where the leases are kept.
        control: Reads what operators request.
        clock: For the next attempt.
        start_task: Runs a coroutine as a task that is not lost.
        subscriptions: The handlers; may grow and shrink.
        give_requests: Gives a handler the requests by handler name.
        on_lost: Told the name of a handler that another process has taken over.
        name: Of the system, for logs.
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
        """Take the lease of a handler, if it is free; whether it is ours."""
        lease = await self._store.lease(name)
        if lease is not None:
            self._hold(name, lease)
        return lease is not None

    def holds(self, name: str) -> bool:
        """Whether the lease is ours and not lost."""
        return name in self._leases and not self._leases[name].is_lost

    def _hold(self, name: str, lease: Lease) -> None:
        self._leases[name] = lease
        lease.when_lost(lambda: self._lost(name))

    def _lost(self, name: str) -> None:
        """Another process has taken over a handler that runs here."""
        self._on_lost(name)
        for subscription in self._subscriptions:
            if subscription.leased and subscription.name == name:
                self._log.warning("handler was taken over by another process", handler=name)
                subscription.stand_by()
        self.take_over_later()

    def take_over_later(self) -> None:
        """Try again soon, if a handler is on standby."""
        if self._taking_over is None and any(each.state == "standby" for each in self._subscriptions):
            self._taking_over = self._clock.call_later(
                LEASE_EVERY, lambda: self._start_task(self._take_over())
            )

    async def _take_over(self) -> None:
        """Take the handlers whose processes have ended, and continue where those have left off."""
        self._taking_over = None
        for subscription in tuple(self._subscriptions):
            if subscription.state == "standby":
                try:
                    await self._take_over_one(subscription)
                # Any store may raise anything, and a program may cancel tasks that are not its own.
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
                    self._log.error(
                        "handler cannot be taken over yet", handler=subscription.name, exc_info=error
                    )
        if not self._is_closed:
            self.take_over_later()

    async def _take_over_one(self, subscription: Subscription) -> None:
        if subscription.progress.pending:  # it was lost while an event was handled, which has not ended
            return
        await self.release(subscription.name)
        lease = await self._store.lease(subscription.name)
        if lease is None:
            return
        try:
            checkpoints, requests = await self._store.checkpoints(), await self._control.requests()
            if subscription.state == "standby":  # it was not stopped meanwhile
                subscription.take_over(checkpoints.get(subscription.name, subscription.progress.position))
                self._give_requests(subscription, requests)
                self._hold(subscription.name, lease)
                self._log.info(
                    "handler taken over", handler=subscription.name, position=subscription.progress.position
                )
        finally:
            if not subscription.leased:
                await lease.release()

    async def release(self, name: str) -> None:
        """Let another process have a handler."""
        if (lease := self._leases.pop(name, None)) is not None:
            await lease.release()

    async def release_all(self) -> None:
        """Let other processes have the handlers."""
        while self._leases:
            _, lease = self._leases.popitem()
            await lease.release()

    def close(self) -> None:
        """Try nothing more; the leases are released by `release_all`."""
        self._is_closed = True
        if self._taking_over is not None:
            self._taking_over.cancel()
