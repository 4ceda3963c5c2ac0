"""How a projection goes through its events: it counts several in one transaction, together with its position.

Whenever its actor starts, the projection continues from the position in the store.
"""

import time
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from uno_actors.handlers.calls import Called, HandlerCalls
from uno_actors.handlers.projection import PROJECTION_BATCH, Projection, publish, publish_part
from uno_actors.handlers.requests import Reset, without_reset
from uno_actors.handlers.strategy import HandlesProgress, InOrder
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.handlers.view import aside_key, view_to_write
from uno_actors.store.port import EventStore
from uno_actors.store.records import ViewChange

PROJECTION_SECONDS = 0.1
"""After this time a projection records what it has counted; it does not give up its turn earlier."""


class ViewBuilding(InOrder):
    """Passes events to a projection one after the other, and records their changes in one transaction.

    Args:
        projection: The handler.
        subscription: The handler's subscription.
        store: The store that holds the log and the view.
        router: Receives reports of progress.
        calls: Calls the handler.
    """

    def __init__(
        self,
        projection: Projection[Any, Any],
        subscription: Subscription,
        store: EventStore,
        router: HandlesProgress,
        calls: HandlerCalls,
    ) -> None:
        super().__init__(subscription, store, router, calls)
        self._projection = projection
        self._view_is = "unknown"

    @override
    async def prepare(self) -> None:
        if self._view_is == "unknown" or not self._subscription.progress.checkpoint:
            await self._find_view()

    async def _find_view(self, *, also: Sequence[ViewChange] = ()) -> None:
        """Look up which view to write and its position: a commit that was reported as failed may have succeeded.

        With ``also``, begin a new view, as requested, and record these changes in the same transaction.
        """
        subscription, projection = self._subscription, self._projection
        view, position = await view_to_write(
            self._store,
            subscription.name,
            projection.version,
            subscription.log_start,
            anew=bool(also),
            also=also,
        )
        if also:
            subscription.move_to(position)
        progress = subscription.progress
        if view != progress.checkpoint or position > progress.position:
            progress.checkpoint, progress.position = view, position
        projection.begin(self._store, view)
        self._view_is = "building"
        subscription.is_shown = False

    @override
    async def _reached_end(self) -> bool:
        if self._view_is != "building":
            return False
        subscription = self._subscription
        view = subscription.progress.checkpoint
        if subscription.partition is not None:
            await publish_part(self._store, subscription.spec, view)
        else:
            await publish(self._store, subscription.spec, view)
        self._view_is = "published"
        subscription.is_shown = True
        return True

    @override
    def _size(self, source: Sequence[Delivery]) -> int:
        return min(self._subscription.spec.batch or PROJECTION_BATCH, len(source))

    @override
    async def _call(self, batch: Sequence[Delivery]) -> Called:
        view = self._projection.view
        count, error = 0, None
        deadline = time.monotonic() + PROJECTION_SECONDS
        while error is None and count < len(batch) and not (count and time.monotonic() > deadline):
            handled, error = await self._calls.call([batch[count]])
            if error is None:
                view.keep()
            else:
                view.forget()
            count += handled
        if changes := view.take_changes():
            await self._record(batch[count - 1].position, changes)
        return count, error

    async def _record(self, position: int, changes: Sequence[ViewChange]) -> None:
        """Record the projection's changes with its position, which nothing else may move at the same time.

        A write that fails may still have been recorded, so the view is looked up again.
        """
        subscription = self._subscription
        progress = subscription.progress
        name, progress.checkpoint = progress.checkpoint, ""
        try:
            async with progress.writes:
                await self._store.save_progress({name: position}, views=changes)
        except Exception:
            self._view_is = "unknown"
            if subscription.live:  # the other handlers need not wait for the store
                subscription.fall_behind()
            raise
        progress.checkpoint = name

    # --- requests of operators ---

    @override
    async def reset(self, request: Reset) -> None:
        await self._find_view(also=without_reset(self._subscription.name, request.request))

    @override
    async def needs_retry(self, position: int) -> bool:
        key = aside_key(position)  # absent if a rebuild of the view has counted the event
        return bool(await self._store.read_view(self._subscription.progress.checkpoint, key, key + b"\0", 1))

    @override
    def changes_of_retry(self, position: int) -> list[ViewChange]:
        view = self._projection.view
        view.keep()
        aside = ViewChange(self._subscription.progress.checkpoint, aside_key(position), None)
        return [*view.take_changes(), aside]
