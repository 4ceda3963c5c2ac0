"""Conditions of appends on single stores: races between processes, older programs, one statement, damage, upcasts."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar
from uuid import UUID, uuid4

import lmdb
import pytest
from pydantic import ConfigDict, Field, StringConstraints, field_validator
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import StaticPool

from tests.faults import entries_looked_at, indexed_at_once
from tests.new_stores import new_store_url
from tests.postgres import postgres
from uno_actors import (
    AppendConditionFailed,
    Command,
    CorruptRecord,
    DomainEvent,
    EventNotReadable,
    EventNotSerializable,
    EventQuery,
    EventStore,
    InvalidEvent,
    InvalidQuery,
    Tag,
    open_store,
)
from uno_actors.cli.store_copy import copy_store
from uno_actors.domain.events import EventRegistry
from uno_actors.domain.payloads import mark_exact
from uno_actors.store.codec import to_record
from uno_actors.store.conditions import condition_of
from uno_actors.store.records import Append, Appended
from uno_actors.store.terms import LOOK_EVERY, PART
from uno_stores import LmdbEventStore
from uno_stores.lmdb.searching import sealed
from uno_stores.sql import DatabaseEventStore
from uno_stores.sql.kept import QuickStatement


class KeyTaken(DomainEvent):
    key: Annotated[str, Tag()]


def of(key: str) -> EventQuery:
    return EventQuery(KeyTaken, tags={"key": key})


async def took(store: EventStore, key: str) -> bool:
    try:
        await store.append(KeyTaken(key=key), unless=of(key))
    except AppendConditionFailed:
        return False
    return True


async def keys_in(store: EventStore) -> list[str]:
    return [event.key async for _, event in store.read_all(event_type=KeyTaken)]


# --- several stores on one place ---------------------------------------------------------------------------

WORKER = """
import asyncio, sys
from tests.stores.test_conditions import KeyTaken, took
from uno_actors import open_store

async def main() -> None:
    async with open_store(sys.argv[1]) as store:
        for number in range(60):
            await took(store, f"k{number}")
            if number % 3 == 0:  # as a program that knows no conditions
                await store.append(KeyTaken(key=f"{sys.argv[2]}-{number}"))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["lmdb", "sqlite", "postgres"])
async def test_of_several_processes_one_takes_each_key(kind: str, tmp_path: Path) -> None:
    urls = {"lmdb": f"lmdb:{tmp_path}/store", "sqlite": f"sqlite+aiosqlite:///{tmp_path}/store.db"}
    url = await postgres().new_url() if kind == "postgres" else urls[kind]
    async with open_store(url) as store:
        await store.append(KeyTaken(key="first"))
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, url, str(number), cwd=Path.cwd())
        for number in range(3)
    ]
    assert [await worker.wait() for worker in workers] == [0, 0, 0]
    async with open_store(url) as store:
        found = await keys_in(store)
        assert sorted(key for key in found if key.startswith("k")) == sorted(f"k{n}" for n in range(60))
        assert len(found) == 1 + 60 + 3 * 20
        assert not await took(store, "2-57")
        assert not await took(store, "first")


async def test_nodes_on_one_postgres_never_both_take_a_key() -> None:
    url = await postgres().new_url()
    async with open_store(url) as one, open_store(url) as other:

        async def take_all(store: EventStore) -> int:
            return sum([await took(store, f"k{number}") for number in range(40)])

        won = await asyncio.gather(*(take_all(store) for store in (one, other, one, other)))
        assert sum(won) == 40
        assert sorted(await keys_in(one)) == sorted(f"k{number}" for number in range(40))


# --- PostgreSQL: one statement -----------------------------------------------------------------------------


async def test_a_group_with_conditions_is_recorded_in_one_statement() -> None:
    engine = create_async_engine(await postgres().new_url())
    store = DatabaseEventStore(lambda: AsyncSession(engine), [KeyTaken])
    await store.create_schema()
    async with store:
        assert await took(store, "first")  # makes the index
        statements: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            if "INSERT INTO uno_log" in statement or "UPDATE uno_head" in statement:
                statements.append(statement)

        sqlalchemy_event.listen(engine.sync_engine, "before_cursor_execute", note)
        outcomes = await store.commit(
            [
                Append(
                    (to_record(KeyTaken(key=key)),), condition=condition_of(of(key), 0, store.event_registry)
                )
                for key in ("a", "b")
            ]
        )
        assert [isinstance(outcome, Appended) for outcome in outcomes] == [True, True]
        assert len(statements) == 1
        assert not await took(store, "a")
        assert not await took(store, "first")
        assert await keys_in(store) == ["first", "a", "b"]
    await engine.dispose()


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
async def test_a_condition_whose_answer_was_lost_is_recorded_once(
    executed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = QuickStatement.by_driver, 0

    async def by_driver(self: QuickStatement, driver: Any, terms: Mapping[str, Any]) -> Any:
        nonlocal calls
        if "ends" in terms:
            return await whole(self, driver, terms)
        calls += 1
        if executed:
            await whole(self, driver, terms)
        raise ConnectionResetError("the way to the server was cut")

    async with open_store(await postgres().new_url()) as store:
        assert await took(store, "first")
        with monkeypatch.context() as patched:
            patched.setattr(QuickStatement, "by_driver", by_driver)
            assert await took(store, "second")
        assert calls == 1
        assert await keys_in(store) == ["first", "second"]
        assert not await took(store, "second")


# --- in the caller's transaction ---------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres", "memory"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    if request.param == "memory":
        made = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    else:
        made = create_async_engine(await new_store_url(request.param, tmp_path))
    yield made
    await made.dispose()


@asynccontextmanager
async def store_on(engine: AsyncEngine) -> AsyncIterator[DatabaseEventStore]:
    """A store whose tables are made as by a version without conditions."""
    store = DatabaseEventStore(lambda: AsyncSession(engine), [KeyTaken], patience=2)
    await store.create_schema()
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE uno_terms"))
        await connection.execute(text("DROP TABLE uno_facets"))
    async with store:
        yield store


async def test_a_condition_is_checked_in_the_transaction_of_the_caller_whatever_that_holds(
    engine: AsyncEngine,
) -> None:
    """It may hold the lock on the database, or on the log: the index must be made in it, and not beside it."""
    async with store_on(engine) as store:
        await store.append(*(KeyTaken(key=f"old {number}") for number in range(2500)))
        async with AsyncSession(engine) as session:
            await store.append(KeyTaken(key="held"), session=session)
            for key in ("old 7", "old 2499", "held"):
                with pytest.raises(AppendConditionFailed):
                    await store.append(KeyTaken(key=key), unless=of(key), session=session)
            await store.append(KeyTaken(key="new"), unless=of("new"), session=session)
            await session.commit()
        async with AsyncSession(engine) as session:
            with pytest.raises(AppendConditionFailed):
                await store.append(KeyTaken(key="new"), unless=of("new"), session=session)
            await store.append(KeyTaken(key="undone"), unless=of("undone"), session=session)
            await session.rollback()
        assert not await took(store, "new")
        assert await took(store, "undone")
        assert (await keys_in(store))[2500:] == ["held", "new", "undone"]


async def test_an_append_that_fails_in_the_transaction_of_the_caller_leaves_no_trace_in_the_index(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ValueError("the database refuses a row")

    async with store_on(engine) as store:
        assert await took(store, "first")
        async with AsyncSession(engine) as session:
            with monkeypatch.context() as patched, pytest.raises(EventNotSerializable):
                patched.setattr("uno_stores.sql.writer.insert_rows", refuse)
                await store.append(KeyTaken(key="lost"), unless=of("lost"), session=session)
            await session.commit()  # of the rest
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT max(position) FROM uno_terms"))).scalar() == 1
            assert (await connection.execute(text("SELECT max(position) FROM uno_facets"))).scalar() == 1


# --- an index that is far behind ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_no_transaction_indexes_more_than_a_part_however_many_come_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appends under other conditions leave an index behind, as those without conditions do."""
    now = 0.0
    monkeypatch.setattr("uno_stores.sql.indexing.monotonic", lambda: now)
    indexed = indexed_at_once(monkeypatch)
    async with open_store(
        await new_store_url(kind, tmp_path), EventRegistry([KeyTaken, TaggedByMuch])
    ) as store:
        assert await took(store, "first")
        unless = EventQuery(TaggedByMuch, tags={"number": 0})
        await store.append(KeyTaken(key="other"), unless=unless)
        for number in range(2):
            await store.append(*(KeyTaken(key=f"{number} {each}") for each in range(3 * PART)))
            now += 2 * LOOK_EVERY
            if number:  # a look at one index is none at the other
                await store.append(KeyTaken(key="another"), unless=unless)
            won = await asyncio.gather(*(took(store, f"new {number} {each}") for each in range(20)))
            assert all(won)
        assert max(indexed) <= PART


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_of_all_that_stands_against_a_condition_little_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of the log is locked meanwhile."""
    async with open_store(await new_store_url(kind, tmp_path), EventRegistry([KeyTaken])) as store:
        await store.append(*(KeyTaken(key="same") for _ in range(1000)))
        with pytest.raises(AppendConditionFailed):
            await store.append(KeyTaken(key="same"), unless=of("same"))
        rows = entries_looked_at(monkeypatch)
        with pytest.raises(AppendConditionFailed) as refused:
            await store.append(KeyTaken(key="same"), unless=of("same"), after=20)
        assert [each.position for each in refused.value.events] == [*range(21, 31)]
        # The facet, which the writer of an SQLite file has in memory, and the first of the term.
        assert sum(rows) == (1 if kind == "sqlite" else 2)


# --- older programs and damage -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_tables_that_an_earlier_version_did_not_make_are_made_at_the_first_use(
    kind: str, tmp_path: Path
) -> None:
    url = await postgres().new_url() if kind == "postgres" else f"sqlite+aiosqlite:///{tmp_path}/store.db"
    engine = create_async_engine(url)
    for table in ("uno_terms", "uno_facets"):
        async with open_store(url) as store:
            assert await took(store, f"before {table}")
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE uno_terms"))
            await connection.execute(text("DROP TABLE uno_facets"))
        async with DatabaseEventStore(lambda: AsyncSession(engine), [KeyTaken]) as store:
            assert not await took(store, f"before {table}")
            assert await took(store, f"after {table}")
    await engine.dispose()


async def test_an_index_of_a_longer_log_is_made_again(tmp_path: Path) -> None:
    """As after the log alone was restored."""
    url = f"sqlite+aiosqlite:///{tmp_path}/store.db"
    async with open_store(url) as store:
        for number in range(5):
            assert await took(store, f"k{number}")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM uno_log WHERE position > 3"))
        await connection.execute(text("UPDATE uno_head SET last_position = 3"))
    await engine.dispose()
    async with open_store(url) as store:
        assert await took(store, "k4")
        assert not await took(store, "k1")
        assert await took(store, "k3")
        assert await keys_in(store) == ["k0", "k1", "k2", "k4", "k3"]


async def test_lmdb_keeps_the_index_where_earlier_versions_do_not_look(tmp_path: Path) -> None:
    async with open_store(f"lmdb:{tmp_path}/store") as store:
        assert await took(store, "a")
        assert await store.verify() is not None  # type: ignore[attr-defined]
    with lmdb.open(str(tmp_path / "store"), max_dbs=8) as env, env.begin() as txn:
        names = {bytes(key).decode() for key, _ in txn.cursor()}
        assert names == {"log", "streams", "checkpoints", "dead_letters", "snapshots", "views", "meta"}
        meta = [bytes(key) for key, _ in txn.cursor(env.open_db(b"meta", txn, create=False))]
    assert {key.partition(b"\0")[0] for key in meta} >= {b"term", b"facet", b"format", b"program"}


@pytest.mark.parametrize("prefix", [b"term\0", b"facet\0"], ids=["a term", "a facet"])
async def test_a_damaged_entry_of_the_index_is_reported(prefix: bytes, tmp_path: Path) -> None:
    async with open_store(f"lmdb:{tmp_path}/store") as store:
        assert await took(store, "a")
    with lmdb.open(str(tmp_path / "store"), max_dbs=8) as env, env.begin(write=True) as txn:
        meta = env.open_db(b"meta", txn, create=False)
        for key, value in [*txn.cursor(meta)]:
            if bytes(key).startswith(prefix) and len(key) > len(prefix):
                txn.put(key, bytes([value[0] ^ 1]) + value[1:], db=meta)
    async with open_store(f"lmdb:{tmp_path}/store") as store:
        with pytest.raises(CorruptRecord):
            await took(store, "a")


def broken_index(path: Path, what: str) -> None:
    """Damage the index of terms of an LMDB store."""
    with lmdb.open(str(path), max_dbs=8) as env, env.begin(write=True) as txn:
        meta = env.open_db(b"meta", txn, create=False)
        terms = [
            (key, value) for key, value in txn.cursor(meta) if key.startswith(b"term\0") and len(key) > 5
        ]
        (facet, row), *_ = [each for each in txn.cursor(meta) if each[0].startswith(b"facet\0")]
        key, value = terms[1]
        match what:
            case "a term is missing":
                txn.delete(key, db=meta)
            case "a term is damaged":
                txn.put(key, bytes([value[0] ^ 1]) + value[1:], db=meta)
            case "a term of no event":
                beyond = key[:-8] + (99).to_bytes(8)
                txn.put(beyond, sealed(beyond, b""), db=meta)
            case _:
                txn.put(facet, bytes([row[0] ^ 1]) + row[1:], db=meta)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a term is missing", "missing from the index of tag KeyTaken key"),
        ("a term is damaged", "wrong check sum"),
        ("a term of no event", "leads to position 99, and the log ends at 3"),
        ("a facet is damaged", "its check sum is wrong"),
    ],
)
async def test_a_check_of_the_store_finds_a_damaged_index_and_a_copy_has_none(
    what: str, said: str, tmp_path: Path
) -> None:
    async with open_store(f"lmdb:{tmp_path}/store") as store:
        for key in "abc":
            assert await took(store, key)
        assert not hasattr(await store.verify(), "reason")  # type: ignore[attr-defined]
    broken_index(tmp_path / "store", what)
    async with open_store(f"lmdb:{tmp_path}/store") as store:
        fault = await store.verify()  # type: ignore[attr-defined]
        assert said in fault.reason
        assert "uno-actors store copy" in fault.reason
        async with open_store(f"lmdb:{tmp_path}/copy") as copy:
            await copy_store(store, copy, lambda done, total: None)
            assert not await took(copy, "b")
            assert not hasattr(await copy.verify(), "reason")  # type: ignore[attr-defined]


async def test_a_check_passes_over_events_that_it_cannot_read_by_an_index(tmp_path: Path) -> None:
    """As the command line, which knows no class: older events are indexed by their upcasts."""
    registry = EventRegistry([MovedInLater])
    registry.add_upcast("conditions.MovedIn", 1, lambda old: {"address": old["house"]})
    query = EventQuery(MovedInLater, tags={"address": "A1"})
    async with open_store(f"lmdb:{tmp_path}/store", registry) as store:
        await store.commit([Append((to_record(MovedIn(house="a1")),))])
        await store.append(MovedInLater(address="A1"), unless=query)
        assert not hasattr(await store.verify(), "reason")  # type: ignore[attr-defined]
    async with open_store(f"lmdb:{tmp_path}/store", EventRegistry([])) as store:
        assert not hasattr(await store.verify(), "reason")  # type: ignore[attr-defined]


async def test_appends_without_conditions_write_no_index(tmp_path: Path) -> None:
    async with LmdbEventStore(tmp_path / "store") as store:
        await store.append(KeyTaken(key="a"))
        assert not hasattr(await store.verify(), "reason")
    with lmdb.open(str(tmp_path / "store"), max_dbs=8) as env, env.begin() as txn:
        meta = {bytes(key) for key, _ in txn.cursor(env.open_db(b"meta", txn, create=False))}
    assert meta == {b"format", b"program"}


# --- schema versions ---------------------------------------------------------------------------------------


class MovedIn(DomainEvent):
    event_type: str = "conditions.MovedIn"
    house: str


class MovedInLater(DomainEvent):
    event_type: str = "conditions.MovedIn"
    version: int = 2
    address: Annotated[str, Tag()]


@pytest.mark.parametrize("url", ["memory:", "lmdb:{}/store", "sqlite+aiosqlite:///{}/store.db"])
async def test_older_events_are_found_by_the_tags_of_their_upcasts(url: str, tmp_path: Path) -> None:
    registry = EventRegistry([MovedInLater])
    registry.add_upcast("conditions.MovedIn", 1, lambda old: {"address": old["house"].upper()})
    query = EventQuery(MovedInLater, tags={"address": "A1"})
    async with open_store(url.format(tmp_path), registry) as store:
        await store.commit([Append((to_record(MovedIn(house="a1")),))])
        with pytest.raises(AppendConditionFailed):
            await store.append(MovedInLater(address="A1"), unless=query)
        await store.append(
            MovedInLater(address="A2"), unless=EventQuery(MovedInLater, tags={"address": "A2"})
        )
        assert [event.address for _, event in (await store.select(query)).events] == ["A1"]  # type: ignore[attr-defined]


async def test_an_event_of_a_newer_program_stops_a_condition_that_cannot_read_it(tmp_path: Path) -> None:
    registry = EventRegistry([TaggedThen])
    async with open_store(f"lmdb:{tmp_path}/store", registry) as store:
        await store.commit([Append((to_record(TaggedNow(name="a")),))])
        unless = EventQuery(TaggedThen, tags={"name": "b"})
        with pytest.raises(EventNotReadable, match="a newer program recorded it"):
            await store.append(TaggedThen(name="b"), unless=unless)
        await store.append(TaggedThen(name="b"))  # others go on


class TaggedThen(DomainEvent):
    event_type: str = "conditions.Tagged"
    name: Annotated[str, Tag()]


class TaggedNow(DomainEvent):
    event_type: str = "conditions.Tagged"
    version: int = 2
    name: Annotated[str, Tag()]


# --- tags --------------------------------------------------------------------------------------------------


class TaggedByMuch(DomainEvent):
    key: Annotated[UUID, Tag()]
    names: Annotated[frozenset[str], Tag("name")]
    number: Annotated[int | None, Tag()] = None


@pytest.mark.parametrize("url", ["memory:", "lmdb:{}/store"])
async def test_tags_of_every_type_are_found(url: str, tmp_path: Path) -> None:
    key = uuid4()
    async with open_store(url.format(tmp_path)) as store:
        await store.append(TaggedByMuch(key=key, names=frozenset({"a", "b"}), number=7))
        await store.append(TaggedByMuch(key=uuid4(), names=frozenset()))
        for tags in ({"key": key}, {"key": str(key).upper()}, {"name": "a"}, {"name": "b"}, {"number": 7}):
            query = EventQuery(TaggedByMuch, tags=tags)  # type: ignore[arg-type]
            assert [position for position, _ in (await store.select(query)).events] == [1], tags
        assert not (await store.select(EventQuery(TaggedByMuch, tags={"number": 0}))).events


class Normalised(DomainEvent):
    email: Annotated[str, Tag(), StringConstraints(to_lower=True, strip_whitespace=True)]
    codes: Annotated[tuple[Annotated[str, StringConstraints(to_upper=True)], ...], Tag("code")] = ()
    nick: Annotated[str, Tag()] = "none"

    @field_validator("nick")
    @classmethod
    def _first_word(cls, nick: str) -> str:
        return nick.split(maxsplit=1)[0].casefold()


class Loud(DomainEvent):
    model_config = ConfigDict(str_to_upper=True)
    name: Annotated[str | None, Tag()] = None
    number: Annotated[int, Tag(), Field(lt=10)] = 0


@pytest.mark.parametrize("url", ["memory:", "lmdb:{}/store", "sqlite+aiosqlite:///{}/store.db"])
@pytest.mark.parametrize(
    ("event", "tags", "others"),
    [
        (Normalised(email=" Ann@X.org"), {"email": "ANN@x.org "}, {"email": "bob@x.org"}),
        (Normalised(email="a", codes=("x", "y")), {"code": "Y"}, {"code": "z"}),
        (Normalised(email="a", codes=("x", "y")), {"code": "y"}, {"code": "xy"}),
        (Normalised(email="a", nick="Ann Lee"), {"nick": "ANN"}, {"nick": "lee"}),
        (Loud(name="ann"), {"name": "Ann"}, {"name": "bob"}),
        (Loud(number=7), {"number": 7}, {"number": 12}),  # that no event can have
    ],
    ids=["annotation", "item", "item as given", "validator", "class", "number"],
)
async def test_a_tag_counts_as_its_field_records_it(
    url: str, event: DomainEvent, tags: dict[str, Any], others: dict[str, Any], tmp_path: Path
) -> None:
    async with open_store(url.format(tmp_path)) as store:
        await store.append(event)
        query = EventQuery(type(event), tags=tags)
        assert len((await store.select(query)).events) == 1
        with pytest.raises(AppendConditionFailed):
            await store.append(event.stamped(event_id="another"), unless=query)
        assert not (await store.select(EventQuery(type(event), tags=others))).events


class Pasture(str, Enum):  # noqa: UP042 - its str() is not its value
    HILL = "hill"


class Slot(IntEnum):
    FIRST = 1


class Herded(DomainEvent):
    pasture: Annotated[str, Tag()] | None = None
    names: tuple[Annotated[str, Tag("name")], ...] = ()
    slot: Annotated[int, Tag()] = 0


@pytest.mark.parametrize("url", ["memory:", "lmdb:{}/store", "sqlite+aiosqlite:///{}/store.db"])
@pytest.mark.parametrize(
    ("event", "tags", "same"),
    [
        (Herded(pasture=Pasture.HILL), {"pasture": Pasture.HILL}, {"pasture": "hill"}),
        (Herded(slot=Slot.FIRST), {"slot": Slot.FIRST}, {"slot": 1}),
        (Herded(names=("ann",)), {"name": "ann"}, {"name": "ann"}),
    ],
    ids=["text", "number", "mark of an item"],
)
async def test_a_member_of_an_enumeration_counts_as_its_value_and_a_mark_within_an_annotation_counts(
    url: str, event: DomainEvent, tags: dict[str, Any], same: dict[str, Any], tmp_path: Path
) -> None:
    async with open_store(url.format(tmp_path)) as store:
        for number, each in enumerate((tags, same)):
            await store.append(
                event.stamped(event_id=f"{number}"), unless=EventQuery(Herded, tags=each), after=number
            )
            with pytest.raises(AppendConditionFailed):
                await store.append(event.stamped(event_id="again"), unless=EventQuery(Herded, tags=each))


@pytest.mark.parametrize("after", [None, True, 1.0, "1", -1, 2**63])
async def test_what_is_no_position_is_refused_alike_by_every_store(after: Any, tmp_path: Path) -> None:
    for url in ("memory:", f"lmdb:{tmp_path}/store", f"sqlite+aiosqlite:///{tmp_path}/store.db"):
        async with open_store(url) as store:
            await store.append(Herded())
            with pytest.raises(ValueError, match="^after must be"):
                await store.append(Herded(), unless=EventQuery(Herded), after=after)


class TwoForms(DomainEvent):
    first: Annotated[str, Tag("name"), StringConstraints(to_lower=True)]
    last: Annotated[str, Tag("name")]


def test_a_tag_whose_fields_record_a_value_differently_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="'Ann' as 'ann' in first and 'Ann' in last"):
        condition_of(EventQuery(TwoForms, tags={"name": "Ann"}), 0, EventRegistry([TwoForms]))
    condition_of(EventQuery(TwoForms, tags={"name": "ann"}), 0, EventRegistry([TwoForms]))


def test_a_tag_costs_an_event_nothing() -> None:
    assert mark_exact(KeyTaken(key="a"))


class OddlyTagged(DomainEvent):
    price: Annotated[float, Tag()]


class MetadataTagged(DomainEvent):
    topic: Annotated[str | None, Tag()] = None


@pytest.mark.parametrize(
    ("event_type", "message"),
    [
        (OddlyTagged, "price has a Tag and is annotated with <class 'float'>: a tag is a str, int or UUID"),
        (MetadataTagged, "topic has a Tag and is metadata"),
    ],
)
async def test_a_field_that_cannot_have_a_tag_is_named(event_type: type[DomainEvent], message: str) -> None:
    async with open_store("memory:") as store:
        with pytest.raises(InvalidEvent, match=message):
            await store.select(EventQuery(event_type, tags={"price": "1"}))


class TestQueries:
    bad: ClassVar[dict[str, tuple[tuple[Any, ...], dict[str, Any]]]] = {
        "selects from the whole log": ((), {}),
        "tags and no event types": ((), {"tags": {"key": "a"}}),
        "give event types, or a topic": ((), {"topic": "*.taken"}),
        "it selects classes of events": ((Command,), {}),
        "tags is a dict": (("KeyTaken",), {"tags": ["key"]}),
        "topic is a topic pattern, as a str": (("KeyTaken",), {"topic": 5}),
        "it is not valid Unicode": ((), {"topic": "\ud800.taken"}),
    }

    @pytest.mark.parametrize("message", bad)
    def test_a_query_of_everything_is_refused_where_it_is_written(self, message: str) -> None:
        arguments, options = self.bad[message]
        with pytest.raises(InvalidQuery, match=message):
            EventQuery(*arguments, **options)

    async def test_a_value_that_is_not_unicode_is_refused(self) -> None:
        async with open_store("memory:") as store:
            with pytest.raises(InvalidQuery, match="the tag 'key' is not valid Unicode"):
                await store.select(of("\ud800"))

    def test_queries_are_values(self) -> None:
        assert of("a") == of("a")
        assert len({of("a"), of("a"), of("b")}) == 2
        assert repr(of("a")) == "EventQuery(KeyTaken, tags={'key': 'a'})"


def test_a_worker_finds_this_module() -> None:
    subprocess.run([sys.executable, "-c", "import tests.stores.test_conditions"], check=True)
