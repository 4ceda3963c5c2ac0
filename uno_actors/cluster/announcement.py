"""The announcement of this node: it is made when the system starts, renewed in time, changed, and withdrawn at the end.

A running system has one. All that divide work among the nodes read the members here: `uno_actors.cluster.node` routes
commands by them, and handlers are spread over them.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from uno_actors.clock import Clock, Timer
from uno_actors.errors import describe
from uno_actors.logs import Logger, get_logger
from uno_actors.store.membership import Member, Membership

RENEWALS = 3
"""How often an announcement is renewed within the time after which it ends."""


class Announcement:
    """This node among the members, and the view of the others. Lives on the event loop.

    A view may be old by the time that an announcement lasts. A node whose loop hangs renews nothing, and ends.

    Args:
        membership: Of the store.
        member: This node.
        seconds: Until an announcement ends that is not renewed; the same as `EventStore.membership` was given.
        clock: Times the renewals.
        start_task: Starts a coroutine as a task of the system.
        log: Has the names of the system bound.
    """

    def __init__(
        self,
        membership: Membership,
        member: Member,
        seconds: float,
        clock: Clock,
        start_task: Callable[[Coroutine[Any, Any, None]], object],
        *,
        log: Logger | None = None,
    ) -> None:
        self._membership = membership
        self._member = member
        self._others: tuple[Member, ...] = ()
        self._leaving: set[str] = set()
        self._clock = clock
        self._start_task = start_task
        self._listeners: list[Callable[[], object]] = []
        self._every = seconds / RENEWALS
        self._timer: Timer | None = None
        self._calling = asyncio.Lock()
        self._is_started = False
        self._announcing = False  # a call of the store is under way
        self._again = False  # and another is needed after it
        self._failed = False  # the last one failed
        self._is_over = False
        self._log = (log or get_logger(node=member.name)).bind(actor="announcement")

    @property
    def member(self) -> Member:
        """This node, as it announces itself now."""
        return self._member

    @property
    def others(self) -> tuple[Member, ...]:
        """The other members, sorted by id, as last seen."""
        return self._others

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, this one included, sorted by id."""
        return tuple(sorted((*self._others, self._member), key=lambda member: member.id))

    @property
    def renewed_every(self) -> float:
        """Seconds between two renewals."""
        return self._every

    def when_changed(self, listener: Callable[[], object]) -> None:
        """Have ``listener`` called on the event loop after each change of `members`."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Announce this node and take the first view of the others.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        self._membership.when_changed(self.refresh)
        self._is_started = True
        await self._take_view()
        self._renew_later()

    def start_later(self) -> None:
        """Announce this node in the background after the time of one renewal, unless it is announced already.

        It is for systems that only divide handlers: one that ends sooner is not worth moving any.
        """
        if not self._is_started and self._timer is None and not self._is_over:
            self._timer = self._clock.call_later(self._every, self._start)

    def _start(self) -> None:
        if not self._is_started:
            self._membership.when_changed(self.refresh)
            self._is_started = True
            self.refresh()

    def change(self, **fields: Any) -> None:
        """Change fields of this node's announcement. `members` shows it at once, the other nodes see it soon."""
        member = replace(self._member, **fields)
        if member != self._member:
            self._member = member
            self._tell()
            self.refresh()

    def note_leaving(self, member_id: str) -> None:
        """Another member has said itself that it leaves; the views that still come may not show it yet."""
        self._leaving.add(member_id)
        self._see(self._others)

    def refresh(self) -> None:
        """Announce this node again soon, and take a new view of the others."""
        if self._is_over or not self._is_started:
            return
        if self._announcing:
            self._again = True
            return
        self._announcing = True
        self._start_task(self._announce())

    async def leave(self) -> None:
        """Announce that this node leaves and must not be chosen any more. Return when the store has it."""
        self._member = replace(self._member, leaving=True)
        self._tell()
        if not self._is_started:
            return
        try:
            await self._take_view()
        except Exception as error:  # noqa: BLE001 - a store may raise anything; then the announcement ends by itself
            self._log.warning("node cannot announce that it leaves", reason=describe(error))

    async def withdraw(self) -> None:
        """End the announcement; idempotent."""
        self.close()
        if self._is_started:
            async with self._calling:
                await self._membership.withdraw()

    def close(self) -> None:
        """Renew no more, without waiting: the announcement ends by itself."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    async def _announce(self) -> None:
        try:
            self._again = True
            while self._again and not self._is_over:
                self._again = False
                await self._take_view()
            self._failed = False
        # A store may raise any exception, and a program may cancel the system's tasks.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            if not self._failed:
                self._log.warning("node cannot announce itself yet", reason=describe(error))
            self._failed = True  # the last view stays: it is only a matter of speed
        finally:
            self._announcing = False
        self._renew_later()

    async def _take_view(self) -> None:
        async with self._calling:  # what was announced last must reach the store last
            if not self._is_over:
                members = await self._membership.announce(self._member)
                self._see(members)

    def _renew_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_over:
            self._timer = self._clock.call_later(self._every, self.refresh)

    def _see(self, members: tuple[Member, ...]) -> None:
        self._leaving.intersection_update([member.id for member in members])
        others = tuple(
            replace(member, leaving=True) if member.id in self._leaving else member
            for member in members
            if member.id != self._member.id
        )
        if others != self._others:
            self._others = others
            self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            try:
                listener()
            except Exception as error:  # noqa: BLE001 - the others must learn of it too
                self._log.error("a listener of the members failed", exc_info=error)
