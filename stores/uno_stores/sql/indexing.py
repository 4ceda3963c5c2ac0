"""Keeps the index of terms near to the end of the log, so that the transaction that needs it has little left to do."""

import asyncio
from time import monotonic

from uno_actors.store.conditions import Condition
from uno_actors.store.terms import PART, Facet, is_fresh
from uno_stores.sql import schema
from uno_stores.sql.reader import Reader
from uno_stores.sql.tables import Tables
from uno_stores.sql.terms import ExtendIndex
from uno_stores.sql.writer import Writer


class Indexing:
    """What a store knows of how far its index of terms is behind the log.

    Args:
        tables: Of the store.
        reader: Looks.
        writer: Indexes.
    """

    def __init__(self, tables: Tables, reader: Reader, writer: Writer) -> None:
        self._tables = tables
        self._reader = reader
        self._writer = writer
        self._looked: dict[Facet, float] = {}
        self._has_tables = False
        self.move()

    def move(self) -> None:
        """Start over on another event loop."""
        self._turn = asyncio.Lock()

    async def catch_up(self, condition: Condition) -> None:
        """Bring the index near to the end of the log.

        This looks at each facet once in `LOOK_EVERY` seconds, as other writes seldom bring it far behind. The other
        callers wait for that look: an index that is far behind must not be brought up in one transaction.

        Raises:
            SeveralLogs: The store has several.
        """
        if self.is_near(condition):
            return
        recent = self._writer.recent
        if recent is not None and recent.has(condition.facets) and not recent.is_lost:
            self._looked |= dict.fromkeys(condition.facets, monotonic())  # the others need not wait
            await self.up_to(condition)
            return
        async with self._turn:
            if not self.is_near(condition):
                await self.up_to(condition)

    def is_near(self, condition: Condition) -> bool:
        """Whether the last look has found the index near to the end of the log, and is fresh enough."""
        recent = self._writer.recent
        if recent is not None and recent.is_lost:
            return False
        return is_fresh(self._looked, condition.facets, monotonic())

    async def up_to(self, condition: Condition) -> int:
        """As `catch_up`, at once; return the position up to which the index is complete at least."""
        await self.prepare()
        while True:
            lag, end = await self._reader.lag_of(condition.facets)
            recent = self._writer.recent
            if recent is not None:
                recent.is_lost = False
                if recent.has(condition.facets):
                    lag = min(lag, max(0, end - recent.committed))
            if lag <= PART:
                self._looked |= dict.fromkeys(condition.facets, monotonic())
                return end - lag
            while await self._writer.submit(ExtendIndex(dict.fromkeys(condition.facets, condition.registry))):
                pass

    async def prepare(self) -> None:
        """Make the tables of the index if a database that was made by an earlier version lacks them.

        Raises:
            SeveralLogs: The store has several logs, and can have no conditions.
        """
        if self._has_tables:
            return
        if await self._reader.logs() > 1:
            raise self._reader.refused("a condition of an append", "use a store with one log for it")
        await self._tables.add_missing(schema.facets, schema.terms)
        self._has_tables = True
