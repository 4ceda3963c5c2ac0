"""External writes are noticed, and records of the journal are not read again."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bank import Account, Balance, BankStore, Credit, credited
from tests.waiting import turns, until
from uno_actors import ActorSystem
from uno_actors.aggregates.external_writes import ExternalWrites
from uno_actors.store.codec import StreamId, to_record
from uno_actors.store.records import PAGE, Append, Appended, Heading, StoredRecord
from uno_actors.testing import inspect
from uno_stores import LmdbEventStore


class Reading(BankStore):
    """Counts how often its log is read, and how many records."""

    reads = records_read = 0

    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        self.reads += 1
        page = await super().read_log(after, limit)
        self.records_read += len(page)
        return page

    async def read_headings(self, after: int = 0, limit: int = PAGE) -> list[Heading]:
        self.reads += 1
        return [
            Heading(after + number, record.aggregate_type, record.aggregate_id, record.aggregate_version)
            for number, record in enumerate(self.records[after : after + limit], start=1)
        ]

    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        page = await super().read_stream(stream, after_version, limit)
        self.records_read += len(page)
        return page


def bank(store: Any) -> ActorSystem:
    return ActorSystem(store, aggregates=[Account], handlers=[])


async def eventually(reply: Callable[[], Awaitable[int]], expected: int) -> None:
    while await reply() != expected:  # noqa: ASYNC110 - asking is what shows it
        await asyncio.sleep(0.005)


async def test_an_aggregate_sees_what_another_system_has_recorded() -> None:
    store = BankStore()
    async with bank(store) as one, bank(store) as other:
        here, there = (system.aggregate(Account, "alice") for system in (one, other))
        assert await here.ask(Balance()) == await there.ask(Balance()) == 0
        for balance in (5, 10, 15):
            await here.ask(Credit(amount=5))
            await eventually(lambda: there.ask(Balance()), balance)
        await there.ask(Credit(amount=1))
        assert other.statistics().reruns == 0, "it knew already, and met no conflict"
        await eventually(lambda: here.ask(Balance()), 16)


async def test_an_aggregate_sees_what_another_process_has_recorded(tmp_path: Any) -> None:
    """A process can open an LMDB store only once, so the other one is a separate program."""
    program = f"""
import asyncio
import sys
from tests.bank import Account, Credit
from uno_actors import ActorSystem

async def main():
    async with ActorSystem("lmdb:{tmp_path}", aggregates=[Account], handlers=[]) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=7))

asyncio.run(main())
"""
    async with LmdbEventStore(tmp_path) as store, bank(store) as system:
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Balance()) == 0
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        assert await process.wait() == 0
        await eventually(lambda: alice.ask(Balance()), 7)


async def test_events_recorded_without_an_aggregate_count_too() -> None:
    store = BankStore()
    async with bank(store) as system:
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Credit(amount=1)) == 1
        await store.append(*credited(2, aggregate_id="alice"))
        await eventually(lambda: alice.ask(Balance()), 3)
        assert await alice.ask(Credit(amount=4)) == 7


async def test_a_system_that_is_alone_never_reads_its_log() -> None:
    store = Reading()
    async with bank(store) as system:
        refs = [system.aggregate(Account, f"a{number}") for number in range(50)]
        for _ in range(20):
            await asyncio.gather(*(ref.ask(Credit(amount=1)) for ref in refs))
        await until(lambda: not any("ExternalWrites._look" in repr(task) for task in asyncio.all_tasks()))
        assert store.reads == 0
        assert await refs[0].ask(Balance()) == 20
    assert system.statistics().activations == 50


async def test_no_record_is_read_of_what_is_not_active_here() -> None:
    store = Reading()
    async with bank(store) as system:
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Credit(amount=1)) == 1
        await store.append(*credited(*[5] * 700, aggregate_id="bob"), *credited(2))
        await store.append(*credited(2, aggregate_id="alice"))
        await eventually(lambda: alice.ask(Balance()), 3)
        assert store.reads == 2, "headings, in two pages"
        assert store.records_read == 1, "that of the aggregate that is active"
        assert len(inspect(system).aggregates) == 1
    assert system.statistics().activations == 1


async def test_events_recorded_while_an_aggregate_is_loaded_are_not_missed() -> None:
    class Slow(BankStore):
        go_on, begun, shown = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def last_version(self, *args: Any, **kwargs: Any) -> Any:
            end = await super().last_version(*args, **kwargs)  # up to which it reads
            self.begun.set()
            await self.go_on.wait()
            return end

        async def read_log(self, *args: Any, **kwargs: Any) -> Any:
            page = await super().read_log(*args, **kwargs)
            self.shown.set()
            return page

    store = Slow()
    await store.append(*credited(1, aggregate_id="alice"))
    async with bank(store) as system:
        reply = system.aggregate(Account, "alice").ask(Balance())
        await store.begun.wait()
        await store.append(*credited(2, aggregate_id="alice"))
        await store.shown.wait()
        await turns()  # the aggregate that is being loaded has heard of it
        store.go_on.set()
        assert await reply == 3


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(0, 7)), max_size=30))
def test_every_external_write_is_noticed(steps: list[tuple[bool, int, int]]) -> None:
    """Each step records some events, by the journal or by others, and gives checks some turns of the loop."""

    async def run() -> None:
        store, heard, tasks = BankStore(), list[Heading](), list[asyncio.Task[None]]()
        loop = asyncio.get_running_loop()

        class Listener:
            def __len__(self) -> int:
                return 1

            def on_heading(self, heading: Heading) -> None:
                heard.append(heading)

        def start(coroutine: Coroutine[Any, Any, None]) -> None:
            tasks.append(loop.create_task(coroutine))

        external_writes = ExternalWrites(store, [0], Listener(), start)
        theirs: list[int] = []
        for ours, count, given_turns in steps:
            records = tuple(to_record(event) for event in credited(*range(count)))
            (outcome,) = await store.commit([Append(records)])
            assert isinstance(outcome, Appended)
            if ours:
                external_writes.skip(outcome)
            else:
                theirs += outcome.positions
            external_writes.look_soon()
            await turns(given_turns)
        await asyncio.gather(*tasks)
        found = [heading.position for heading in heard]
        assert len(set(found)) == len(found)
        assert [position for position in found if position in theirs] == theirs
        assert external_writes.positions == await store.last_positions()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uno_actors.aggregates.external_writes.LOOK_AFTER", 0)
        asyncio.run(run())
