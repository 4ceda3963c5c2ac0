"""Headings: what stores read to notice what others record, and what that costs them."""

import asyncio
from pathlib import Path

from tests.bank import EVENTS, Noted, credited
from tests.faults import change_value, leases_are_overdue, statements_of_kept_connection
from tests.postgres import postgres
from uno_actors import open_store
from uno_actors.store.records import Heading
from uno_stores import LmdbEventStore
from uno_stores.lmdb.reader import U64
from uno_stores.sql.log import HEADINGS
from uno_stores.sql.store import DatabaseEventStore
from uno_stores.sql.watcher import ASK_EVERY


def test_database_is_asked_for_no_payload() -> None:
    assert [column.name for column in HEADINGS.selected_columns] == list(Heading._fields)


async def test_damaged_record_has_an_empty_heading_and_hides_no_other(tmp_path: Path) -> None:
    """Readers of the record get the error; those that only look for news must hear of the rest."""
    async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
        await store.append(*[Noted(text="x", aggregate_id="a", aggregate_type="T") for _ in range(3)])
        change_value(store, "log", U64.pack(2), b"\x93 no record")
        assert await store.read_headings() == [(1, "T", "a", 1), (2, None, None, None), (3, "T", "a", 3)]


async def test_postgresql_is_asked_once_a_second_by_a_store_that_waits_and_holds_no_lease() -> None:
    """Without a lease there is nothing to renew; a store that believed it late would ask without a pause."""
    async with open_store(await postgres().new_url(), EVENTS) as store:
        assert isinstance(store, DatabaseEventStore)
        lease = await store.lease("mail")
        assert lease is not None
        await lease.release()
        grown = asyncio.Event()
        leases_are_overdue(store)
        store.on_commit(grown.set)
        await store.append(*credited(1))
        await grown.wait()
        asked = statements_of_kept_connection(store)
        await asyncio.sleep(1.5 * ASK_EVERY)  # what must not happen has no event
        assert len(asked) <= 2
