"""A database of PostgreSQL with several logs: where events go, how they are read, and what is refused."""

import asyncio
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crash_worker import Account, Deposit
from tests.machine import patience
from tests.postgres import postgres
from tests.waiting import until
from uno_actors import (
    ActorSystem,
    DomainEvent,
    InvalidHandler,
    InvalidStoreUrl,
    OtherNumberOfLogs,
    SeveralLogs,
    open_store,
    subscribe,
)
from uno_actors.errors import ConcurrencyConflict
from uno_actors.store.codec import StreamId, to_record
from uno_actors.store.logs import (
    MAX_LOGS,
    is_position_in,
    last_of_log,
    log_of_position,
    log_of_record,
    log_of_stream,
    start_of_log,
    starts_of_logs,
)
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended
from uno_actors.testing.contract.events import Noted, noted


async def four_logs() -> str:
    return f"{await postgres().new_url()}&logs=4"


async def logs_of(store: EventStore) -> list[list[str]]:
    """The texts in each log, read page by page."""
    found: list[list[str]] = []
    for start in starts_of_logs(store.logs):
        found.append([])
        place = start
        while page := await store.read_log(place, 3):
            for position, record in page:
                assert place < position <= last_of_log(start)
                place = position
                found[-1].append(record.event_id)
    return found


# --- positions ---------------------------------------------------------------------------------------------


@given(st.integers(1, MAX_LOGS), st.integers(0, MAX_LOGS - 1), st.integers(1, 2**40 - 1))
def test_a_position_tells_its_log_and_whether_the_store_has_several(logs: int, log: int, number: int) -> None:
    log %= logs
    start = starts_of_logs(logs)[log]
    position = start + number
    assert log_of_position(position) == log_of_position(start) == log
    assert start_of_log(position) == start
    assert position <= last_of_log(position) == last_of_log(start)
    assert position < 2**53
    assert is_position_in(position, logs)
    assert is_position_in(number, logs) == (logs == 1)


@given(st.text(), st.text(), st.integers(1, MAX_LOGS))
def test_all_events_of_a_stream_have_its_log_and_events_without_one_that_of_their_correlation(
    aggregate_type: str, aggregate_id: str, logs: int
) -> None:
    record = to_record(Noted(correlation_id="c"))
    other = to_record(Noted(correlation_id="c"))
    assert log_of_record(record, logs) == log_of_record(other, logs)
    of_stream = record._replace(aggregate_type=aggregate_type, aggregate_id=aggregate_id)
    assert log_of_record(of_stream, logs) == log_of_stream(StreamId(aggregate_type, aggregate_id), logs)
    assert 0 <= log_of_record(of_stream, logs) < logs


# --- appending and reading ---------------------------------------------------------------------------------


async def test_events_spread_over_the_logs_and_each_log_has_no_gap() -> None:
    async with open_store(await four_logs()) as store:
        recorded = [
            each
            for number in range(60)
            for each in await store.append(Noted(aggregate_id=f"a{number % 20}", aggregate_type="Account"))
        ]
        by_log = defaultdict(list)
        for position, _ in recorded:
            by_log[log_of_position(position)].append(position)
        assert sorted(by_log) == [0, 1, 2, 3]
        for log, positions in by_log.items():
            start = starts_of_logs(4)[log]
            assert positions == [*range(start + 1, start + 1 + len(positions))]
        assert await store.last_positions() == [by_log[log][-1] for log in range(4)]
        found = await logs_of(store)
        assert found == [
            [event.event_id for position, event in recorded if log_of_position(position) == log]
            for log in range(4)
        ]
        everything = [each.position async for each in store.read_all()]
        assert sorted(everything) == sorted(position for position, _ in recorded)
        for log in range(4):
            assert [at for at in everything if log_of_position(at) == log] == by_log[log]
        assert len([each async for each in store.read_all(limit=7)]) == 7


async def test_an_append_to_several_streams_is_recorded_in_several_logs_or_not_at_all() -> None:
    async with open_store(await four_logs()) as store:
        events = [noted(f"s{number}", "first") for number in range(12)]
        positions = [position for position, _ in await store.append(*events)]
        assert len({log_of_position(position) for position in positions}) == 4
        before = await store.last_positions()
        taken = to_record(noted("s3", "again"))._replace(aggregate_version=7)
        outcomes = await store.commit(
            [
                Append((*(to_record(noted(f"s{number}", "second")) for number in range(3)), taken)),
                Append((to_record(noted("s5", "second")),), 1),
            ]
        )
        assert isinstance(outcomes[0], ConcurrencyConflict)
        assert isinstance(outcomes[1], Appended)
        after = await store.last_positions()
        assert Counter(end - start for start, end in zip(before, after, strict=True)) == {0: 3, 1: 1}


async def test_writers_of_many_logs_at_once_lose_nothing_and_leave_no_gap() -> None:
    """Groups lock several heads each, single events one: none waits for another for ever."""
    url = await four_logs()
    async with open_store(url) as one, open_store(url) as two, open_store(url) as three:

        async def client(store: EventStore, name: int) -> None:
            for number in range(10):
                streams = [f"s{(name + number * step) % 7}" for step in (1, 3)]
                await store.append(*(noted(stream) for stream in streams[: 1 + number % 2]))

        await asyncio.gather(*(client(store, name) for name in range(4) for store in (one, two, three)))
        found = await logs_of(one)
        assert sum(map(len, found)) == 3 * 4 * 15
        assert len({each for log in found for each in log}) == 3 * 4 * 15
        assert await one.last_positions() == [
            start + len(log) for start, log in zip(starts_of_logs(4), found, strict=True)
        ]
        for stream in range(7):
            versions = [event.aggregate_version for event in await one.get_events(f"s{stream}")]
            assert versions == [*range(1, len(versions) + 1)]


async def test_a_subscription_reads_all_logs_and_then_what_others_record() -> None:
    url = await four_logs()
    async with open_store(url) as store, open_store(url) as other:
        for number in range(10):
            await store.append(noted(f"a{number}", f"{number}"))
        heard: list[str] = []

        async def follow() -> None:
            async for _, event in store.subscribe(event_type=Noted):
                heard.append(event.text)

        following = asyncio.create_task(follow())
        await asyncio.wait_for(until(lambda: len(heard) == 10), patience(5))
        for number in range(10, 20):
            await other.append(noted(f"a{number}", f"{number}"))
        await asyncio.wait_for(until(lambda: len(heard) == 20), patience(5))
        assert sorted(heard, key=int) == [f"{number}" for number in range(20)]
        await store.close()
        await following


# --- what is refused ---------------------------------------------------------------------------------------


async def test_an_existing_store_keeps_its_number_of_logs() -> None:
    url = await postgres().new_url()
    async with open_store(f"{url}&logs=4") as store:
        await store.append(noted("a"))
    async with open_store(url) as store:
        await store.append(noted("b"))
        assert store.logs == 4
    for other in (1, 8):
        async with open_store(f"{url}&logs={other}") as store:
            with pytest.raises(OtherNumberOfLogs, match=f"logs=4 and cannot be opened with logs={other}"):
                await store.append(noted("c"))
    async with open_store(await postgres().new_url()) as store:
        await store.append(noted("a"))
        assert store.logs == 1
        assert await store.last_position() == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql+asyncpg://u@h/b?logs=0", "logs must be"),
        ("postgresql+asyncpg://u@h/b?logs=1025", "logs must be"),
        ("postgresql+asyncpg://u@h/b?logs=many", "many"),
        ("sqlite+aiosqlite:///bank.db?logs=2", "SQLite has one writer"),
    ],
)
def test_numbers_of_logs_that_cannot_be_are_refused(url: str, why: str) -> None:
    with pytest.raises(InvalidStoreUrl, match=why):
        open_store(url)


async def test_what_needs_one_order_is_refused() -> None:
    async with open_store(await four_logs()) as store:
        (recorded,) = await store.append(noted("a"))
        with pytest.raises(SeveralLogs, match="4 logs.*last_positions"):
            await store.last_position()
        with pytest.raises(SeveralLogs, match="name a position"):
            await store.read_log(0)
        with pytest.raises(SeveralLogs, match="read all events"):
            [_ async for _ in store.read_all(recorded.position)]
        with pytest.raises(SeveralLogs, match="read all events"):
            [_ async for _ in store.subscribe(recorded.position)]
        assert (await store.record_at(recorded.position)).record.event_id == recorded.event.event_id


# --- systems -----------------------------------------------------------------------------------------------


async def test_a_handler_that_needs_the_order_of_all_events_is_refused_at_the_start() -> None:
    @subscribe()
    async def audit(event: DomainEvent) -> None: ...

    url = await four_logs()
    with pytest.raises(InvalidHandler, match="audit needs the order of all events.*4 logs"):
        async with ActorSystem(url, aggregates=[Account], handlers=[audit]):
            pass


async def test_a_command_sent_again_takes_effect_once_wherever_it_looks_back_to() -> None:
    """A position of another log says nothing about a stream: it is then searched as a whole."""
    async with ActorSystem(
        await four_logs(), aggregates=[Account], handlers=[], remember_commands=8
    ) as system:
        accounts = [system.aggregate(Account, f"account-{number}") for number in range(6)]
        first = [Deposit(token=f"t{number}", parts=1) for number in range(6)]
        for account, command in zip(accounts, first, strict=True):
            await account.ask(command)
        for account in accounts:
            for number in range(20):
                await account.ask(Deposit(token=f"{account.stream.aggregate_id}-{number}", parts=1))
        ends = await system.store.last_positions()
        before = [await system.store.last_version(account.stream) for account in accounts]
        for account, command in zip(accounts, first, strict=True):
            for since in (0, *starts_of_logs(4), *(end for end in ends if not same_log(end, account.stream))):
                await account.ask(command, since=since)
        assert before == [await system.store.last_version(account.stream) for account in accounts]
        await system.settled()


def same_log(position: int, stream: StreamId) -> bool:
    return log_of_position(position) == log_of_stream(stream, 4)


async def test_what_other_systems_record_in_any_log_is_noticed() -> None:
    url = await four_logs()
    async with (
        ActorSystem(url, aggregates=[Account], handlers=[]) as one,
        ActorSystem(url, aggregates=[Account], handlers=[]) as two,
    ):
        for name in range(8):
            await one.aggregate(Account, f"a{name}").ask(Deposit(token=f"one-{name}", parts=1))
        for name in range(8):
            await two.aggregate(Account, f"a{name}").ask(Deposit(token=f"two-{name}", parts=1))
            await one.aggregate(Account, f"a{name}").ask(Deposit(token=f"three-{name}", parts=1))
        for name in range(8):
            assert await one.store.last_version(StreamId("Account", f"a{name}")) == 3
