"""The end of the index of terms, which the only writer of an SQLite file keeps in memory for a while."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.faults import indexed_at_once
from uno_actors import AppendConditionFailed, DomainEvent, EventQuery, EventStore, Tag, open_store
from uno_actors.store.terms import PART
from uno_stores.sql import recent_terms


class SeatTaken(DomainEvent):
    seat: Annotated[str, Tag()]
    row: Annotated[str, Tag()] = "any"


def of(seat: str) -> EventQuery:
    return EventQuery(SeatTaken, tags={"seat": seat})


async def took(store: EventStore, seat: str, *, by: str = "seat") -> bool:
    query = of(seat) if by == "seat" else EventQuery(SeatTaken, tags={"row": seat})
    try:
        await store.append(SeatTaken(seat=seat, row=seat), unless=query)
    except AppendConditionFailed:
        return False
    return True


async def index_of(path: Path) -> tuple[int, int]:
    """How many terms the tables have, and up to where they have all."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    async with engine.connect() as connection:
        terms = (await connection.execute(text("SELECT count(*) FROM uno_terms"))).scalar_one()
        position = (await connection.execute(text("SELECT min(position) FROM uno_facets"))).scalar_one()
    await engine.dispose()
    return terms, position


def few_at_once(monkeypatch: pytest.MonkeyPatch, most: int, part: int = 3) -> None:
    monkeypatch.setattr(recent_terms, "MOST", most)
    monkeypatch.setattr(recent_terms, "PART", part)


async def test_the_index_is_written_in_parts_once_there_is_much_and_is_asked_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_at_once(monkeypatch, 10, 4)
    path = tmp_path / "seats.db"
    async with open_store(f"sqlite+aiosqlite:///{path}") as store:
        found = []
        for number in range(24):
            assert await took(store, f"s{number}")
            assert not await took(store, f"s{number // 2}")
            assert len((await store.select(of(f"s{number // 2}"))).events) == 1
            found.append(await index_of(path))
        assert found[0] == (1, 1)
        assert found[9] == (1, 1)
        assert found[10] == (9, 1)  # two parts of the ten, as that many transactions
        assert found[-1] == (21, 21)
        ends = [end for _, end in found]
        assert ends == sorted(ends)
        assert set(ends) == {1, 11, 21}


async def test_what_was_not_written_is_read_from_the_log_by_another_store_and_after_an_end(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/seats.db"
    async with open_store(url) as one, open_store(url) as other:
        for number in range(6):
            assert await took(one, f"s{number}")
        assert not await took(other, "s5")
        assert await took(other, "s6")
        assert not await took(one, "s6")
        assert not await took(one, "s0")
        assert [len((await store.select(of("s6"))).events) for store in (one, other)] == [1, 1]
        assert await took(one, "s7")
    async with open_store(url) as again:
        assert not await took(again, "s7")
        assert await took(again, "s8")


async def test_appends_without_conditions_are_noted_until_none_has_asked_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_terms, "UNASKED", 5)
    async with open_store(f"sqlite+aiosqlite:///{tmp_path}/seats.db") as store:
        assert await took(store, "first")
        read = indexed_at_once(monkeypatch)
        for number in range(4):
            await store.append(SeatTaken(seat=f"p{number}"))
        assert not await took(store, "p3")
        assert read == []  # nothing of the log
        for number in range(4, 12):
            await store.append(SeatTaken(seat=f"p{number}"))
        assert not await took(store, "p11")
        assert max(read) > 5
        assert not await took(store, "p5")


async def test_a_transaction_that_is_undone_leaves_nothing_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ValueError("the database refuses a row")

    async with open_store(f"sqlite+aiosqlite:///{tmp_path}/seats.db") as store:
        assert await took(store, "first")
        with monkeypatch.context() as patched, pytest.raises(Exception, match="refuses a row"):
            patched.setattr("uno_stores.sql.writer.insert_rows", refuse)
            await store.append(SeatTaken(seat="lost"), unless=of("lost"))
        assert not (await store.select(of("lost"))).events
        assert await took(store, "lost")
        assert not await took(store, "lost")
        assert not await took(store, "first")


async def test_further_facets_come_to_those_in_memory(tmp_path: Path) -> None:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path}/seats.db") as store:
        for number in range(5):
            assert await took(store, f"s{number}")
        assert not await took(store, "s3", by="row")
        assert await took(store, "s5", by="row")
        assert not await took(store, "s5")
        assert not await took(store, "s1", by="row")
        assert not await took(store, "s1")
        assert (await store.select(EventQuery(SeatTaken, tags={"row": "s2"}))).events


async def test_what_was_not_noted_any_more_is_indexed_in_parts_before_a_transaction_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_terms, "UNASKED", 10)
    async with open_store(f"sqlite+aiosqlite:///{tmp_path}/seats.db") as store:
        assert await took(store, "first")
        for _ in range(3):
            await store.append(*(SeatTaken(seat="many") for _ in range(PART)))
        read = indexed_at_once(monkeypatch)
        assert not await took(store, "many")
        assert await took(store, "second")
        assert max(read) <= PART


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),  # the store
        st.sampled_from(["take", "by row", "append", "select", "reopen", "both"]),
        st.sampled_from("abcdef"),
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(steps=STEPS, most=st.integers(1, 6), part=st.integers(1, 3))
def test_two_stores_on_a_file_answer_as_a_model(
    steps: list[tuple[int, str, str]], most: int, part: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('model')}/seats.db"

    async def scenario() -> None:
        stores: list[Any] = [open_store(url), open_store(url)]
        seats: list[str] = []
        for number, step, seat in steps:
            store = stores[number]
            match step:
                case "take" | "by row":
                    assert await took(store, seat, by="seat" if step == "take" else "row") == (
                        seat not in seats
                    )
                    seats += [seat] * (seat not in seats)
                case "append":
                    await store.append(SeatTaken(seat=seat, row=seat))
                    seats.append(seat)
                case "select":
                    found = (await store.select(of(seat))).events
                    assert len(found) <= seats.count(seat)
                case "both":
                    won = await asyncio.gather(*(took(each, seat) for each in (*stores, store)))
                    assert won.count(True) == (seat not in seats)
                    seats += [seat] * (seat not in seats)
                case _:
                    await store.close()
                    stores[number] = open_store(url)
        for store in stores:
            for seat in set(seats):
                assert not await took(store, seat)
            await store.close()

    with pytest.MonkeyPatch.context() as patched:
        few_at_once(patched, most, part)
        asyncio.run(scenario())
