"""Checks the index of terms of an LMDB store against the log and back."""

from collections.abc import Iterator
from itertools import chain, islice

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import CorruptRecord, UnoError
from uno_actors.store.maintenance import Fault
from uno_actors.store.records import PAGE, StoredRecord
from uno_actors.store.terms import Facet, terms_of
from uno_stores.lmdb.environment import Environment
from uno_stores.lmdb.reader import U64, Reading
from uno_stores.lmdb.searching import is_sound
from uno_stores.lmdb.terms import TERMS, facets_in, name_of_term

REMEDY = (
    "the index of conditions (`unless=`, `@decides`) is damaged, and the events are whole: copy the store by"
    " `uno-actors store copy`, which leaves the index out; the copy makes its own"
)


def fault_in_terms(environment: Environment, registry: EventRegistry) -> Fault | None:
    """The first fault of the index, if it has any.

    Args:
        environment: Of the store.
        registry: Finds the classes of events of older versions; those that it does not know are not compared.
    """
    try:
        with environment.reading() as reading:
            facets = facets_in(reading)
            first = next(reading.ascending(reading.databases.meta, TERMS), None)
        has_terms = first is not None and first[0].startswith(TERMS)
        faults = chain(
            _missing(environment, facets, registry), _leading_nowhere(environment) if has_terms else ()
        )
        return next(faults, None)
    except CorruptRecord as error:
        return _fault(None, str(error))


def _fault(position: int | None, reason: str) -> Fault:
    return Fault(position, f"{reason}: {REMEDY}")


def _missing(environment: Environment, facets: dict[Facet, int], registry: EventRegistry) -> Iterator[Fault]:
    """Terms of records that the index lacks: a condition would not see those records."""
    position, last = 0, max(facets.values(), default=0)
    while position < last:
        with environment.reading() as reading:
            page = reading.log_page(position, PAGE)
            for stored in page:
                for facet, end in facets.items():
                    if stored.position <= end:
                        yield from _missing_of(reading, stored, facet, registry)
        if not page:
            yield _fault(None, f"an index reaches to position {last}, and the log ends at {position}")
            return
        position = page[-1].position


def _missing_of(
    reading: Reading, stored: StoredRecord, facet: Facet, registry: EventRegistry
) -> Iterator[Fault]:
    position, record = stored
    try:
        terms = terms_of(record, facet, registry)
    except UnoError:  # this program has no class of that version
        return
    for term in terms:
        key = TERMS + term + U64.pack(position)
        data = reading.txn.get(key, db=reading.databases.meta)
        what = " ".join(str(facet).replace("\0", " ").split())
        if data is None:
            yield _fault(position, f"position {position}: it is missing from the index of {what}")
        elif not is_sound(key, bytes(data)):
            yield _fault(
                position, f"position {position}: its entry in the index of {what} has a wrong check sum"
            )


def _leading_nowhere(environment: Environment) -> Iterator[Fault]:
    """Entries that lead to no record."""
    start = TERMS
    while True:
        with environment.reading() as reading:
            end = reading.end()
            page = list(islice(reading.entries(reading.databases.meta, start, name_of_term), PAGE))
        for key, _ in page:
            if not key.startswith(TERMS):
                return
            position = int.from_bytes(key[-U64.size :]) if len(key) > len(TERMS) else 1
            if not 1 <= position <= end:
                yield _fault(
                    None, f"{name_of_term(key)} leads to position {position}, and the log ends at {end}"
                )
        if not page:
            return
        start = page[-1][0] + b"\0"
