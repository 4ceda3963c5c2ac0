"""What the one statement of `uno_stores.sql.quick_append` needs for a group with conditions.

The statement reads the index before it has the lock on the head of the log. It inserts nothing unless the facets are
indexed up to the position of the head as it is when it has the lock. If another transaction has recorded in between,
the head is beyond that, and so is what the statement did not see.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from uno_actors.store.codec import Record
from uno_actors.store.conditions import Condition
from uno_actors.store.records import Append, StoredRecord
from uno_actors.store.terms import Facet, TermIndex
from uno_stores.sql.terms import key_of, number_of

_BEYOND = 2**62
"""Stands for the end of the log, which is not known yet: the records of the group have positions after it."""

HOLDS = """
            AND last_position >= CAST(:furthest AS bigint)
            AND CAST(:facets AS bigint) = (
                SELECT count(*) FROM uno_facets
                WHERE key = ANY(CAST(:keys AS text[])) AND position = uno_head.last_position)
            AND NOT EXISTS (
                SELECT FROM unnest(CAST(:terms AS bigint[]), CAST(:afters AS bigint[])) AS wanted(term, after)
                WHERE wanted.after < (
                    SELECT position FROM uno_terms WHERE uno_terms.term = wanted.term
                    ORDER BY position DESC LIMIT 1))
"""
"""SQL: the conditions hold, and the index has all that they rest on."""
INDEXED = """, indexed AS (
        INSERT INTO uno_terms (term, position)
        SELECT DISTINCT new.term, moved.last_position - CAST(:count AS bigint) + new.number
        FROM moved, unnest(CAST(:new_terms AS bigint[]), CAST(:numbers AS bigint[])) AS new(term, number)
    ), kept AS (
        UPDATE uno_facets SET position = moved.last_position FROM moved WHERE key = ANY(CAST(:keys AS text[]))
    )
"""
"""SQL: index the records of the group."""


class Unless(NamedTuple):
    """The conditions of a group.

    Attributes:
        facets: What they need.
        wanted: The terms that must not be there, each after a position.
        new: The terms of the records of the group, with their numbers in it, from 1.
    """

    facets: frozenset[Facet]
    wanted: frozenset[tuple[int, int]]
    new: tuple[tuple[int, int], ...]

    @property
    def place(self) -> tuple[int, int] | None:
        """A term of the group by which it excludes itself, with the number of its record; ``None`` if it does not.

        Once it is recorded, its own conditions refuse it: it cannot be recorded twice, and the term finds it.
        """
        terms = {term for term, _ in self.wanted}
        return next((each for each in self.new if each[0] in terms), None)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of `HOLDS` and `INDEXED`."""
        return {
            "furthest": max(after for _, after in self.wanted),
            "facets": len(self.facets),
            "keys": [*map(key_of, self.facets)],
            "terms": [term for term, _ in self.wanted],
            "afters": [after for _, after in self.wanted],
            "new_terms": [term for term, _ in self.new],
            "numbers": [number for _, number in self.new],
        }


def unless_of(requests: Sequence[Append], records: Sequence[Sequence[Record]]) -> Unless | None:
    """The conditions of ``requests`` and the terms of the ``records`` of each.

    Returns:
        ``None`` if one of them stands against the condition of another, or cannot be indexed.
    """
    conditions = [request.condition for request in requests if request.condition is not None]
    index = TermIndex()
    index.facets = {facet: each.registry for each in conditions for facet in each.facets}
    facets = frozenset(index.facets)
    position = _BEYOND
    for request, of_request in zip(requests, records, strict=True):
        if request.condition is not None and not _holds(request.condition, index):
            return None
        for record in of_request:
            position += 1
            index.add_to_all(StoredRecord(position, record))
    if index.facets.keys() != facets:
        return None
    wanted = frozenset((number_of(way.term), each.after) for each in conditions for way in each.wanted)
    return Unless(facets, wanted, tuple((number_of(term), at - _BEYOND) for term, at in index.terms()))


def _holds(condition: Condition, index: TermIndex) -> bool:
    found = condition.selected(lambda wanted, after: index.after(wanted.term, after))
    return next(found, None) is None
