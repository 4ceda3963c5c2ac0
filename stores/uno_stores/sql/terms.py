"""The index of terms in an SQL database, and the check of conditions by it.

Each facet that a condition has used has a row in ``uno_facets`` with the position up to which it is indexed. Who
appends under a condition holds the lock on the head of the log. It first indexes what the rows lack, such as the
records that were appended without a condition, or by an earlier version of the program; then it checks, and moves the
rows with its own records. So an index is never behind the log when it is asked, and appends without a condition do
without it. For SQLite see also `uno_stores.sql.recent_terms`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import UnoError
from uno_actors.store.codec import Record
from uno_actors.store.conditions import MAX_STANDING, Condition, Wanted
from uno_actors.store.records import PAGE, Append, StoredRecord
from uno_actors.store.terms import PART, Facet, TermIndex, terms_of
from uno_stores.sql.log import LOG_PAGE, lock_heads, page_of, to_stored
from uno_stores.sql.recent_terms import MOST_FACETS, RecentTerms
from uno_stores.sql.schema import facets, log, terms

_LOOK = {
    "postgresql": text(
        """
        SELECT -number AS number, position FROM uno_facets
        JOIN unnest(CAST(:keys AS text[])) WITH ORDINALITY AS needed(key, number) ON uno_facets.key = needed.key
        UNION ALL
        SELECT wanted.number, found.position
        FROM unnest(CAST(:terms AS bigint[]), CAST(:afters AS bigint[])) WITH ORDINALITY AS wanted(term, after, number),
            LATERAL (
                SELECT position FROM uno_terms WHERE term = wanted.term AND position > wanted.after
                ORDER BY position LIMIT 1
            ) AS found
        """
    ),
    "sqlite": text(
        """
        SELECT -1 - needed.key AS number, position FROM json_each(:keys) AS needed
        CROSS JOIN uno_facets ON uno_facets.key = needed.value
        UNION ALL
        SELECT * FROM (
            SELECT 1 + wanted.key, (
                SELECT position FROM uno_terms
                WHERE term = json_extract(wanted.value, '$[0]') AND position > json_extract(wanted.value, '$[1]')
                ORDER BY position LIMIT 1
            ) AS first
            FROM json_each(:pairs) AS wanted
        ) WHERE first IS NOT NULL
        """
    ),
}
"""Facets as negative numbers, each with its position; the first position of each term after another position.

SQLite keeps the order of a CROSS JOIN.
"""
_WRITE = text(
    """
        WITH moved AS (
            INSERT INTO uno_facets (key, description, position)
            SELECT key, description, CAST(:end AS bigint)
            FROM unnest(CAST(:keys AS text[]), CAST(:descriptions AS text[])) AS moved(key, description)
            ORDER BY key
            ON CONFLICT (key) DO UPDATE SET position = excluded.position
        )
        INSERT INTO uno_terms (term, position)
        SELECT * FROM unnest(CAST(:terms AS bigint[]), CAST(:positions AS bigint[])) ON CONFLICT DO NOTHING
    """
)
_MOVE_SQLITE = text(
    """
    INSERT INTO uno_facets (key, description, position) VALUES (:key, :description, :end)
    ON CONFLICT (key) DO UPDATE SET position = excluded.position
    """
)
_INSERT_SQLITE = text(
    "INSERT OR IGNORE INTO uno_terms (term, position)"
    " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:terms)"
)
ENDS = select(facets.c.key, facets.c.position).where(facets.c.key.in_(bindparam("keys", expanding=True)))
FOUND = page_of(
    log.c.position,
    log.c.position.in_(
        select(terms.c.position)
        .where(
            terms.c.term == bindparam("term"),
            terms.c.position > bindparam("after"),
            terms.c.position <= bindparam("up_to"),
        )
        .order_by(terms.c.position)
        .limit(bindparam("limit"))
    ),
)
"""A page of the records that have a term."""


def number_of(term: bytes) -> int:
    """A term as the database has it: what is found by it is checked, so that eight bytes will do."""
    return int.from_bytes(term[:8], signed=True)


def key_of(facet: Facet) -> str:
    """The key of the row of a facet."""
    return facet.key.hex()


def up_to_of(position: int, end: int) -> int:
    """The position up to which a facet is indexed, by its row; 0 if that is the row of a longer log than this one."""
    return position if position <= end else 0


def facets_of(requests: Iterable[Append]) -> Set[Facet]:
    """What the conditions of ``requests`` need."""
    return {
        facet for request in requests if request.condition is not None for facet in request.condition.facets
    }


class Boundary:
    """The conditions of a group of requests, in a transaction that has locked the head of the log.

    Args:
        connection: In that transaction.
        end: The end of the log before the group.
        recent: The end of the index, if it is kept in memory; at ``end`` or empty.
    """

    def __init__(self, connection: AsyncConnection, end: int, recent: RecentTerms | None = None) -> None:
        self._connection = connection
        self._end = end
        self._end_of_group = end
        self._recent = recent
        self._is_kept = False
        self._index = TermIndex()
        self._standing: dict[tuple[Wanted, int], list[StoredRecord]] = {}
        self._errors: dict[Facet, UnoError] = {}
        self._is_stale = False

    async def prepare(self, conditions: Sequence[Condition]) -> None:
        """Find what stands against ``conditions`` so far, and index what the index lacks."""
        registries = {facet: each.registry for each in conditions for facet in each.facets}
        wanted = {(way, each.after): each for each in conditions for way in each.wanted}
        recent = self._recent
        if recent is not None and recent.facets and len(registries | recent.facets) <= MOST_FACETS:
            self.keep()
            recent.is_asked()
            registries = {facet: each for facet, each in registries.items() if facet not in recent.facets}
        needed = [*registries]
        sought = [each for each in wanted if needed or each[1] < self._start]
        ends: dict[int, int] = {}
        first: dict[int, int] = {}
        for number, position in await self._look(needed, sought) if sought else ():
            if number < 0:
                ends[-number - 1] = position
            else:
                first[number - 1] = position
        if needed:
            await self._require(registries, [ends.get(number, 0) for number in range(len(needed))])
            self._is_stale = self._is_stale or len(ends) < len(needed)
        for number, (way, after) in enumerate(sought):
            if number in first:
                registry = wanted[way, after].registry
                self._standing[way, after] = await self._matching(way, first[number], registry)

    @property
    def _start(self) -> int:
        """A position after which all is in memory."""
        return self._recent.start if self._recent is not None and self._is_kept else self._end

    async def _require(self, registries: Mapping[Facet, EventRegistry], ends: Sequence[int]) -> None:
        """Index by facets what their rows, which say ``ends``, lack."""
        up_to = {facet: up_to_of(end, self._end) for facet, end in zip(registries, ends, strict=True)}
        lacking = await self._log_after(min(up_to.values()))
        for facet, registry in registries.items():
            try:
                missing = (stored for stored in lacking if stored.position > up_to[facet])
                self._index.require(facet, registry, missing)
                self._errors.pop(facet, None)
            except UnoError as error:
                self._errors[facet] = error
        self._is_stale = self._is_stale or bool(lacking)
        if self._recent is not None and self._is_kept:
            self._recent.goes_back_to(max(up_to.values()))

    def keep(self) -> None:
        """Note the group in what is kept in memory."""
        assert self._recent is not None
        self._index = self._recent
        self._errors = self._recent.errors
        self._is_kept = True

    async def _look(self, needed: Sequence[Facet], wanted: Sequence[tuple[Wanted, int]]) -> Iterable[Any]:
        keys = [*map(key_of, needed)]
        pairs = [(number_of(way.term), after) for way, after in wanted]
        if (name := self._connection.dialect.name) == "sqlite":
            parameters: dict[str, Any] = {"keys": json.dumps(keys), "pairs": json.dumps(pairs)}
        else:
            numbers, afters = zip(*pairs, strict=True)
            parameters = {"keys": keys, "terms": [*numbers], "afters": [*afters]}
        return (await self._connection.execute(_LOOK[name], parameters)).all()

    async def _matching(self, way: Wanted, first: int, registry: EventRegistry) -> list[StoredRecord]:
        """The first records that are selected, among those from position ``first`` on that have the term."""
        found: list[StoredRecord] = []
        after = first - 1
        while len(found) < MAX_STANDING:
            terms_ = {"term": number_of(way.term), "after": after, "up_to": self._end, "limit": PAGE}
            page = to_stored((await self._connection.execute(FOUND, terms_)).all())
            if not page:
                break
            found += (stored for stored in page if way.matches(stored.record, registry))
            after = page[-1].position
        return found

    async def _log_after(self, position: int) -> list[StoredRecord]:
        found: list[StoredRecord] = []
        while position < self._end:
            page = await _log_page(self._connection, position, PAGE)
            found += page
            position = page[-1].position
        return found

    def check(self, condition: Condition, end: int) -> None:
        """Refuse if an event stands against ``condition``, those of earlier requests of the group included.

        Args:
            condition: One of the prepared ones.
            end: The end of the log with the earlier requests.

        Raises:
            AppendConditionFailed: One does.
            InvalidQuery: The position is beyond the end.
            UnoError: A record cannot be read.
        """
        condition.check_position(end)
        if self._errors:
            for facet in condition.facets & self._errors.keys():
                raise self._errors[facet]
        condition.check(self._find)

    def _find(self, wanted: Wanted, after: int) -> Iterator[tuple[int, Record]]:
        return chain(self._standing.get((wanted, after), ()), self._index.after(wanted.term, after))

    def add(self, position: int, record: Record) -> None:
        """Index a record of the group."""
        self._index.add_to_all(StoredRecord(position, record))
        self._end_of_group = position
        self._is_stale = True

    async def write(self) -> None:
        """Write what was indexed, the group included; what is kept in memory only when it is full."""
        if self._recent is not None and self._is_kept:
            if (part := self._recent.next_part(number_of)) is not None:
                await _write_entries(self._connection, part.entries, part.facets, part.end)
            return
        if self._is_stale and self._index.facets:
            await _write(self._connection, self._index.terms(), self._index.facets, self._end_of_group)
        if self._recent is not None:
            self._recent.forget()
            self._recent.begin(self._index.facets, self._end_of_group)


async def boundary_of(
    connection: AsyncConnection, requests: Sequence[Append], end: int, recent: RecentTerms | None = None
) -> Boundary | None:
    """What the conditions of ``requests`` rest on; ``None`` if nothing is to be checked or noted."""
    conditions = [request.condition for request in requests if request.condition is not None]
    is_kept = recent is not None and recent.is_at(end)
    if not conditions and not is_kept:
        return None
    boundary = Boundary(connection, end, recent)
    if conditions:
        await boundary.prepare(conditions)
    else:
        boundary.keep()
    return boundary


@dataclass(frozen=True, slots=True)
class ExtendIndex:
    """Index the next `PART` records by some facets, if more are missing; the result is whether more must follow.

    ``briefly`` is as for `lock_heads`.
    """

    facets: Mapping[Facet, EventRegistry]
    briefly: bool = True

    async def write(self, connection: AsyncConnection) -> bool:
        """Do it with the head of the log locked, as everything that moves the rows of facets."""
        end = (await lock_heads(connection, [0], 1, briefly=self.briefly))[0]
        rows = (await connection.execute(ENDS, {"keys": [*map(key_of, self.facets)]})).all()
        ends: dict[str, int] = {row.key: row.position for row in rows}
        up_to = {facet: up_to_of(ends.get(key_of(facet), 0), end) for facet in self.facets}
        start = min(up_to.values())
        if end - start <= PART:
            return False
        page = await _log_page(connection, start, PART)
        found = [
            (term, position)
            for position, record in page
            for facet, registry in self.facets.items()
            if position > up_to[facet]
            for term in terms_of(record, facet, registry)
        ]
        last = page[-1].position
        await _write(connection, found, self.facets, last)
        return last < end - PART


async def index_in(connection: AsyncConnection, requests: Iterable[Append]) -> None:
    """Bring the index near to the end of the log for the conditions of ``requests``, in a caller's transaction."""
    conditions = [request.condition for request in requests if request.condition is not None]
    needed = {facet: each.registry for each in conditions for facet in each.facets}
    if needed:
        while await ExtendIndex(needed, briefly=False).write(connection):
            pass


async def _log_page(connection: AsyncConnection, after: int, limit: int) -> list[StoredRecord]:
    return to_stored((await connection.execute(LOG_PAGE, {"after": after, "limit": limit})).all())


async def _write(
    connection: AsyncConnection, found: Iterable[tuple[bytes, int]], of: Iterable[Facet], end: int
) -> None:
    """Write terms with their positions, and move the rows of facets to ``end``."""
    entries = sorted({(number_of(term), position) for term, position in found})
    await _write_entries(connection, entries, of, end)


async def _write_entries(
    connection: AsyncConnection, entries: Sequence[tuple[int, int]], of: Iterable[Facet], end: int
) -> None:
    rows = sorted((key_of(facet), str(facet).replace("\0", " ").strip()) for facet in of)
    if connection.dialect.name == "sqlite":
        if entries:
            await connection.execute(_INSERT_SQLITE, {"terms": json.dumps(entries)})
        moved = [{"key": key, "description": description, "end": end} for key, description in rows]
        if moved:
            await connection.execute(_MOVE_SQLITE, moved)
        return
    numbers, positions = zip(*entries, strict=True) if entries else ((), ())
    keys, descriptions = zip(*rows, strict=True)
    parameters = {
        "keys": [*keys],
        "descriptions": [*descriptions],
        "end": end,
        "terms": [*numbers],
        "positions": [*positions],
    }
    await connection.execute(_WRITE, parameters)
