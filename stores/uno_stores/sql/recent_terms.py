"""The end of the index of terms, which the only writer of an SQLite file keeps in memory for a while.

A term goes to a place in the index that no other is near, so a record that is indexed alone has a page of the index
written. Many together, in order, share pages. So a writer notes the terms of its records here. When it has `MOST`,
its next transactions write them, each a part. The rows of the facets say up to where the tables have all: another
process, and this one after a crash, reads the rest from the log, as it does what was appended without conditions. What
is here counts only while the log ends where this writer has ended it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from typing_extensions import override

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import UnoError
from uno_actors.store.conditions import Condition
from uno_actors.store.terms import PART, Facet, Placed, TermIndex, terms_of

MOST = 8192
"""Records whose terms are written in one go."""
MOST_BYTES = 8 << 20
"""Bytes of payloads that are kept for them."""
MOST_FACETS = 32
"""Facets by which each record is indexed here; beyond that, only by those of the last condition."""
UNASKED = 16_384
"""Records without a condition among them, after which the terms of the next ones are not noted any more."""


class Part(NamedTuple):
    """What a transaction writes of the index in memory.

    Attributes:
        entries: Terms, as the database has them, with the positions of records.
        facets: Those whose rows it moves, as the tables have all for them then.
        end: The position up to which they do.
    """

    entries: Sequence[tuple[int, int]]
    facets: Sequence[Facet]
    end: int


class RecentTerms(TermIndex):
    """The terms of the records from `start` to `end`, by some facets, and perhaps of some before that.

    Attributes:
        start: The tables have all up to here.
        end: Position of the last record here, which may not be committed yet; -1 if nothing is known.
        committed: Position of the last record that is committed.
        errors: Why records cannot be read by facets that were dropped.
        is_lost: Whether something was forgotten that is not in the tables: they may be far behind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[Facet, UnoError] = {}
        self.is_lost = False
        self.committed = -1
        self.begin({}, -1)

    def forget(self) -> None:
        """Know nothing: another process has recorded, or a transaction of this one was undone."""
        self.is_lost = self.is_lost or self.end > self.start
        self.committed = -1
        self.begin({}, -1)

    def begin(self, facets: Mapping[Facet, EventRegistry], position: int) -> None:
        """Begin after ``position``, up to which the tables have all for ``facets``."""
        self.facets = dict(facets)
        self.errors.clear()
        self._found = {}
        self._being_written: dict[bytes, list[Placed]] = {}
        self._entries: list[tuple[int, int]] = []  # of these, the greatest first
        self._written_up_to = self.start = self.end = position
        self._bytes = self._unasked = 0

    def has(self, facets: Iterable[Facet]) -> bool:
        """Whether records are indexed by all of these."""
        return bool(self.facets) and all(facet in self.facets for facet in facets)

    def is_at(self, position: int) -> bool:
        """Whether the log, which ends at ``position``, ends where this does; else what is here is forgotten."""
        if self.end == position and self._unasked < UNASKED:
            return bool(self.facets)
        if self.end != -1:
            self.forget()
        return False

    def is_asked(self) -> None:
        """Note that a condition has needed it."""
        self._unasked = 0

    def goes_back_to(self, position: int) -> None:
        """Note that for a facet that was added, the tables have all up to ``position``."""
        self.start = max(self.start, position)

    @override
    def add_to_all(self, stored: Placed) -> None:
        position, record = stored
        self.end = position
        self._bytes += len(record.payload)
        self._unasked += 1
        for facet, registry in tuple(self.facets.items()):
            try:
                for each in terms_of(record, facet, registry):
                    self._found.setdefault(each, []).append(stored)
            except UnoError as error:
                self.errors[facet] = error
                del self.facets[facet]

    @override
    def after(self, wanted: bytes, position: int) -> Iterator[Placed]:
        if not self._being_written:
            return super().after(wanted, position)
        earlier = (stored for stored in self._being_written.get(wanted, ()) if stored[0] > position)
        return chain(earlier, super().after(wanted, position))

    def next_part(self, number_of: Callable[[bytes], int]) -> Part | None:
        """What the transaction under way writes of it: a part of what is here when there is much, by terms.

        Args:
            number_of: Returns a term as the database has it.
        """
        if not self._entries:
            if self.end - self._written_up_to < MOST and self._bytes < MOST_BYTES:
                return None
            entries = {(number_of(each), position) for each, position in self.terms()}
            self._entries = sorted(entries, reverse=True)
            self._being_written, self._found = self._found, {}
            self._written_up_to, self._bytes = self.end, 0
        entries_of_part = self._entries[-PART:]
        del self._entries[-PART:]
        if self._entries:
            return Part(entries_of_part, (), self.start)
        self._being_written = {}
        self.start = self._written_up_to
        return Part(entries_of_part, [*self.facets], self.start)

    def selected(self, condition: Condition) -> list[Placed]:
        """The records here that ``condition`` selects and that are committed."""
        found = condition.selected(lambda wanted, after: self.after(wanted.term, after))
        return [stored for stored in found if stored[0] <= self.committed]
