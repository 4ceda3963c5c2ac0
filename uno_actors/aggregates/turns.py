"""Turns: how the aggregates of one process learn that those of another lose every append to them.

The winner of a stream sees nothing of the losers: they record nothing. So a process whose aggregate loses again and
again leases `SIGNAL`, and a process with an aggregate that appends all the time looks now and then for that lease.
"""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from uno_actors.store.port import EventStore, Lease

SIGNAL = "uno_actors@turns"
"""The name that is leased; see `EventStore.lease`. No handler has an ``@`` in its name."""
SIGNAL_AFTER = 3
"""Appends that an aggregate loses in a row before it signals."""
LOOK_EVERY = 0.25
"""Seconds between two looks, for as long as aggregates append without a break, and between two tries to signal."""
OFTEN = 8
"""Appends of an aggregate from one look to the next for which it takes part: fewer leave others their turn anyway."""


class Winner(Protocol):
    """An aggregate that appends."""

    def yield_turns(self) -> None:
        """Leave others a turn after each append."""


class Turns:
    """The signal of one system, and its view of that of others. Lives on the event loop.

    Args:
        store: Whose leases it uses.
        start: Starts a coroutine as a task of the system.
    """

    def __init__(self, store: EventStore, start: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._look_at = self._signal_at = 0.0
        self._store = store
        self._start = start
        self._losers: set[object] = set()
        self._lease: Lease | None = None
        self._is_changing = False
        self._winners: dict[Winner, int] = {}  # since the last look

    def lose(self, loser: object, now: float) -> None:
        """Signal that ``loser`` loses again and again, until `recover` is called."""
        self._losers.add(loser)
        if self._lease is None and now >= self._signal_at:
            self._signal_at = now + LOOK_EVERY
            self._change()

    def recover(self, loser: object) -> None:
        """The ``loser`` has recorded something, or has nothing to record."""
        if loser in self._losers:
            self._losers.remove(loser)
            self._change()

    def won(self, winner: Winner, now: float) -> None:
        """The ``winner`` has recorded an append: perhaps it takes part in the next look."""
        self._winners[winner] = self._winners.get(winner, 0) + 1
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            winners, self._winners = self._winners, {}
            often = [each for each, appends in winners.items() if appends >= OFTEN]
            if often and self._lease is None:
                self._start(self._look(often))

    async def _look(self, winners: Sequence[Winner]) -> None:
        with suppress(Exception):  # a store of another package may raise anything; the next look may succeed
            if await self._store.is_leased(SIGNAL):
                for each in winners:
                    each.yield_turns()

    async def close(self) -> None:
        """Signal no more."""
        self._losers.clear()
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    def _change(self) -> None:
        if not self._is_changing:
            self._is_changing = True
            self._start(self._take_or_release())

    async def _take_or_release(self) -> None:
        try:
            with suppress(Exception):  # likewise; without the signal the others win more often
                if self._losers and self._lease is None:
                    self._lease = await self._store.lease(SIGNAL)
                if not self._losers and self._lease is not None:
                    lease, self._lease = self._lease, None
                    await lease.release()
        finally:
            self._is_changing = False
