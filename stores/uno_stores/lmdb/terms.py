"""The index of terms of an LMDB store: in the database ``meta``, which earlier versions of this program leave alone.

Each facet that a condition has used has a row with the position up to which it is indexed. A transaction that appends
under a condition first indexes what the rows lack, such as the records of an earlier version of the program, then
checks, and moves the rows with its own records. So an index is never behind the log when it is asked.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import lmdb
import msgpack

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import CorruptRecord, UnoError
from uno_actors.store.conditions import Condition, Wanted
from uno_actors.store.records import PAGE, StoredRecord
from uno_actors.store.terms import PART, Facet, TermIndex, terms_of
from uno_stores.lmdb.reader import U64, Reading
from uno_stores.lmdb.searching import Databases, Item, sealed

TERMS = b"term\0"
"""Precedes a term and a position; the value is the check alone."""
_FACETS = b"facet\0"
"""Precedes the key of a facet; the value has its fields and the position up to which it is indexed."""
_BOUNDS = (TERMS, b"term\xff")
"""Entries before and after all terms: so those beside a missing term are sound ones, as `Search` demands."""


def indexed_up_to(reading: Reading, facet: Facet) -> int | None:
    """The position up to which ``facet`` is indexed; ``None`` if it is not."""
    fields = reading.meta(_FACETS + facet.key, f"the index of {facet}")
    if fields is None:
        return None
    position = int(fields[-1])
    return position if position <= reading.end() else 0  # else it is that of a longer log


def facets_in(reading: Reading) -> dict[Facet, int]:
    """All facets, each with the position up to which it is indexed.

    Raises:
        CorruptRecord: A row cannot be read.
    """
    found: dict[Facet, int] = {}
    for key, _ in reading.ascending(reading.databases.meta, _FACETS):
        if not key.startswith(_FACETS):
            break
        fields = reading.meta(key, _a_facet(key)) or []
        try:
            kind, event_type, tag, names, version, position = fields
            facet = Facet(kind, event_type, tag, tuple(names), version)
        except (TypeError, ValueError) as error:
            raise CorruptRecord(_a_facet(key), f"its row has other fields: {error}") from error
        found[facet] = position if position <= reading.end() else 0  # that of a longer log
    return found


def lag_of(reading: Reading, facets: Iterable[Facet]) -> int:
    """The number of records that the index of one of ``facets`` lacks."""
    return reading.end() - min((indexed_up_to(reading, facet) or 0 for facet in facets), default=0)


def positions_of(reading: Reading, term: bytes, after: int) -> Iterator[int]:
    """The positions after ``after`` of the records that have a term. The index must have its bounds."""
    prefix = TERMS + term
    for key, _ in reading.entries(reading.databases.meta, prefix + U64.pack(after + 1), name_of_term):
        if not key.startswith(prefix):
            return
        yield int.from_bytes(key[-U64.size :])


def record_at(reading: Reading, position: int) -> StoredRecord:
    """The record at an indexed position."""
    place = U64.pack(position)
    return reading.stored(place, reading.data(place) or b"")


def found_by(reading: Reading, term: bytes, after: int, up_to: int) -> list[StoredRecord]:
    """At most `PAGE` records from after ``after`` to ``up_to`` that have a term."""
    page: list[StoredRecord] = []
    for position in positions_of(reading, term, after):
        if position > up_to or len(page) == PAGE:
            break
        page.append(record_at(reading, position))
    return page


class Terms:
    """The index in one write transaction.

    Args:
        reading: Reads in the transaction.
        known: The facets that are indexed up to the end of the log; those that this transaction adds are added.
        end: The end of the log before the transaction.
    """

    __slots__ = ("_bare", "_end", "_index", "_is_stale", "_reading")

    def __init__(self, reading: Reading, known: dict[Facet, EventRegistry], end: int) -> None:
        self._reading = reading
        self._end = end
        self._index = TermIndex()
        self._index.facets = known
        self._bare: set[Facet] = set()
        self._is_stale = False

    @property
    def is_used(self) -> bool:
        """Whether records must be added."""
        return bool(self._index.facets)

    def add(self, stored: StoredRecord) -> None:
        """Index a record that the transaction appends."""
        self._index.add_to_all(stored)
        self._is_stale = True

    def check(self, condition: Condition, appended: Iterable[StoredRecord], end: int) -> None:
        """Refuse if an event stands against ``condition``.

        Args:
            condition: Of the next request.
            appended: The records that the transaction has appended so far.
            end: The position of the last of them.

        Raises:
            AppendConditionFailed: One does.
            InvalidQuery: The position is beyond the end.
            EventNotReadable, CorruptRecord: A record cannot be read.
        """
        condition.check_position(end)
        for facet in condition.facets.difference(self._index.facets):
            up_to = indexed_up_to(self._reading, facet)
            missing = self._log_after(up_to or 0)
            self._index.require(facet, condition.registry, chain(missing, appended))
            self._is_stale = True
            if up_to is None:
                self._bare.add(facet)
        condition.check(self._find)

    def _find(self, wanted: Wanted, after: int) -> Iterator[StoredRecord]:
        reading, term = self._reading, wanted.term
        if wanted.facet not in self._bare and after < self._end:
            for position in positions_of(reading, term, after):
                yield record_at(reading, position)
        for position, record in self._index.after(term, after):
            yield StoredRecord(position, record)

    def _log_after(self, position: int) -> Iterator[StoredRecord]:
        while page := self._reading.log_page(position, PAGE):
            yield from page
            position = page[-1].position

    def items(self, end: int) -> list[Item]:
        """What the transaction writes to the index, if the log ends at ``end`` after it."""
        if not self._is_stale:
            return []
        return _items(self._index.terms(), dict.fromkeys(self._index.facets, end))


def _items(terms: Iterable[tuple[bytes, int]], ends: Mapping[Facet, int]) -> list[Item]:
    """The entries of terms, of the facets with their new ends, and of the bounds, in the order of their keys."""
    keys = {*_BOUNDS, *(TERMS + term + U64.pack(position) for term, position in terms)}
    rows = {_FACETS + facet.key: msgpack.packb([*facet, end]) for facet, end in ends.items()}
    return [(key, sealed(key, rows.get(key, b""))) for key in sorted(keys | rows.keys())]


class Writes(Protocol):
    """The transaction of a job; see `uno_stores.lmdb.jobs.Writing`."""

    reading: Reading
    txn: lmdb.Transaction
    databases: Databases


@dataclass(frozen=True, slots=True)
class ExtendIndex:
    """Index the next `PART` records by some facets; the result is whether more must follow, or an error."""

    facets: Mapping[Facet, EventRegistry]

    def write(self, writing: Writes) -> bool | UnoError:
        """See `Work.write`."""
        reading = writing.reading
        ends = {facet: indexed_up_to(reading, facet) or 0 for facet in self.facets}
        start = min(ends.values())
        page = reading.log_page(start, PART)
        terms: list[tuple[bytes, int]] = []
        try:
            for position, record in page:
                for facet, registry in self.facets.items():
                    if position > ends[facet]:
                        terms += ((each, position) for each in terms_of(record, facet, registry))
        except UnoError as error:
            return error
        last = page[-1].position if page else start
        items = _items(terms, {facet: max(end, last) for facet, end in ends.items()})
        with writing.txn.cursor(writing.databases.meta) as cursor:
            cursor.putmulti(items)
        return last < reading.end() - PART


def _a_facet(key: bytes) -> str:
    return f"the row {key.hex()} of the index of terms"


def name_of_term(key: bytes) -> str:
    """An entry of the index, for errors."""
    return f"the entry {key.hex()} of the index of terms"
