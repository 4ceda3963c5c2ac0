"""Commands that lose to other writers run again until their time is over; the rule as values, and carried out."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bank import EVENTS, Account, Balance, BankStore, Credit, Debit, credited
from tests.postgres import postgres
from tests.waiting import ManualClock, turns, until
from uno_actors import (
    ActorSystem,
    AggregateNotFound,
    AskTimeout,
    CommandRejected,
    ConcurrencyConflict,
    EventSourcedRepository,
    UnoError,
    open_store,
)
from uno_actors.aggregates.actor import BATCH
from uno_actors.aggregates.reruns import (
    LONGEST_TURN,
    QUIET_TURNS,
    RERUN_BACKOFF,
    Contention,
    may_run_again,
)
from uno_actors.aggregates.turns import LOOK_EVERY, OFTEN, SIGNAL, SIGNAL_AFTER
from uno_actors.store.codec import StreamId, to_record
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, Append, Appended, StoredRecord
from uno_stores import InMemoryEventStore, LmdbEventStore

ROOT = Path(__file__).parent.parent

# --- the rule ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "commands", "together", "losses", "pauses"),
    [
        (Contention(64), 64, 32, 1, False),  # the first rerun follows at once
        (Contention(64), 10, 5, 1, False),  # half of those that lost, not of those that could have
        (Contention(32, losses=1), 32, 16, 2, True),
        (Contention(2, losses=5), 2, 1, 6, True),
        (Contention(1, losses=6), 1, 1, 7, True),  # one command at a time, until it wins
        (Contention(8, quiet=3), 8, 4, 1, False),
    ],
)
def test_lost_append_is_followed_by_one_of_half_its_size(
    before: Contention, commands: int, together: int, losses: int, pauses: bool
) -> None:
    after = before.lost(commands, 0.0)
    assert (after.together, after.losses, after.quiet) == (together, losses, 0)
    assert (after.pause > 0) == pauses


@pytest.mark.parametrize(
    ("before", "together", "pause"),
    [
        (Contention(1, losses=4), 2, 0.02),
        (Contention(48), 64, 0.02),  # at most the limit
        (Contention(64, quiet=2), 64, 0.02),
    ],
)
def test_recorded_append_is_followed_by_a_larger_one_after_a_turn_of_others(
    before: Contention, together: int, pause: float
) -> None:
    assert before.recorded(0.02, 64, 0.0) == Contention(together, 0, before.quiet, pause)


def test_contention_ends_after_quiet_turns_and_every_other_writer_begins_the_count_anew() -> None:
    state: Contention | None = Contention(64).lost(64, 0.5)
    for others in (3, *[0] * (QUIET_TURNS - 1), 1, *[0] * (QUIET_TURNS - 1)):
        assert state is not None
        state = state.read(others)
        assert state is not None
        state = state.recorded(0.01, 64, 0.5)
    assert state.read(0) is None


@pytest.mark.parametrize(("now", "again"), [(29.9, True), (30.0, False), (30.1, False)])
def test_command_is_run_again_until_its_time_is_over(now: float, again: bool) -> None:
    assert may_run_again(now, 30.0) is again


chances = st.floats(0, 1, exclude_max=True)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, BATCH), chances, st.floats(0, 100))))
def test_commands_of_one_append_never_all_lose_together_again(
    steps: list[tuple[int, int, float, float]],
) -> None:
    """The next append is smaller than the one that lost, but not empty; pauses have their limits."""
    state = Contention(BATCH)
    for step, commands, chance, seconds in steps:
        if step == 0:
            size = min(commands, state.together)
            after = state.lost(size, chance)
            assert 1 <= after.together <= max(1, size // 2)
            assert after.pause <= RERUN_BACKOFF.max
            assert after.pause > 0 or after.losses == 1
        elif step == 1:
            after = state.recorded(seconds, BATCH, chance)
            assert state.together <= after.together <= BATCH
            assert min(seconds, LONGEST_TURN) <= after.pause <= LONGEST_TURN
            assert after.losses == 0
        else:
            after = state.read(commands - 1) or Contention(BATCH)
            assert after.pause == 0
        state = after


# --- several systems on one store --------------------------------------------------------------------------

CLIENTS, COMMANDS = 8, 6


async def ask_all(system: ActorSystem, name: str) -> None:
    """Every client credits the one account again and again; any error ends the test."""

    async def client(number: int) -> None:
        for count in range(COMMANDS):
            command = Credit(amount=1, command_id=f"{name}-{number}-{count}")
            await system.aggregate(Account, "hot").ask(command)

    await asyncio.gather(*map(client, range(CLIENTS)))


async def check_all(store: EventStore, names: Sequence[str]) -> None:
    """Each command is recorded once, and the versions have no gap."""
    records = [record async for _, record in store.read_records()]
    expected = {
        f"{name}-{number}-{count}" for name in names for number in range(CLIENTS) for count in range(COMMANDS)
    }
    assert Counter(record.answered for record in records) == Counter(expected)
    assert [record.aggregate_version for record in records] == [*range(1, len(expected) + 1)]


async def test_three_systems_share_a_hot_aggregate_without_a_conflict_that_an_asker_sees() -> None:
    store = BankStore()
    async with AsyncExitStack() as stack:
        systems = [await stack.enter_async_context(bank(store, name=f"s{n}")) for n in range(3)]
        await asyncio.gather(*(ask_all(system, f"s{n}") for n, system in enumerate(systems)))
        assert sum(system.statistics().reruns for system in systems) > 0
    await check_all_records(store)


async def check_all_records(store: BankStore) -> None:
    reopened = InMemoryEventStore(EVENTS)
    await reopened.commit([Append(store.records)])
    await check_all(reopened, ["s0", "s1", "s2"])


async def test_three_stores_on_postgresql_share_a_hot_aggregate_without_a_conflict_that_an_asker_sees() -> (
    None
):
    url = await postgres().new_url()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(url, EVENTS)) for _ in range(3)]
        systems = [await stack.enter_async_context(bank(store)) for store in stores]
        await asyncio.gather(*(ask_all(system, f"s{n}") for n, system in enumerate(systems)))
        assert sum(system.statistics().reruns for system in systems) > 0
        await check_all(stores[0], ["s0", "s1", "s2"])


PROGRAM = """
import asyncio, sys
from tests.bank import Account
from tests.test_reruns import ask_all
from uno_actors import ActorSystem

async def main(path, name):
    async with ActorSystem(f"lmdb:{path}", aggregates=[Account], handlers=[]) as system:
        print("ready", flush=True)
        sys.stdin.readline()
        await ask_all(system, name)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_three_processes_on_lmdb_share_a_hot_aggregate_without_a_conflict_that_an_asker_sees(
    tmp_path: Path,
) -> None:
    names = ["s0", "s1", "s2"]
    programs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, tmp_path / "store", name,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
        )
        for name in names
    ]  # fmt: skip
    try:
        for each in programs:
            assert each.stdout is not None
            assert await each.stdout.readline() == b"ready\n"
        for each in programs:
            assert each.stdin is not None
            each.stdin.write(b"go\n")
            await each.stdin.drain()
        assert [await each.wait() for each in programs] == [0, 0, 0]
    finally:
        for each in programs:
            if each.returncode is None:
                each.kill()
                await each.wait()
    async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
        await check_all(store, names)


# --- one system beside a writer ----------------------------------------------------------------------------

ALICE = StreamId("Account", "alice")


class Contested(BankStore):
    """Another writer is faster, again and again.

    Attributes:
        faster: How many appends it precedes.
        sizes: Events in each append of the system.
        reads: The versions after which streams were read.
    """

    def __init__(self, faster: float = float("inf")) -> None:
        super().__init__()
        self.faster = faster
        self.sizes: list[int] = []
        self.reads: list[int] = []

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        self.sizes += [len(request.records) for request in requests]
        if self.faster > 0:
            self.faster -= 1
            await InMemoryEventStore.commit(
                self, [Append((to_record(credited(1, aggregate_id="alice")[0]),))]
            )
        return await super().commit(requests)

    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        self.reads.append(after_version)
        return await super().read_stream(stream, after_version, limit)


@asynccontextmanager
async def bank(store: EventStore, **settings: Any) -> AsyncIterator[ActorSystem]:
    async with ActorSystem(store, aggregates=[Account], handlers=[], **settings) as system:
        yield system


async def pass_time(clock: ManualClock, condition: Callable[[], object]) -> None:
    await clock.advance_until(condition, 0.002)


@pytest.mark.parametrize("losses", [1, 3, 4, 30])
async def test_command_wins_in_the_end_however_often_it_lost(losses: int) -> None:
    store, clock = Contested(losses), ManualClock()
    async with bank(store, clock=clock) as system:
        reply = system.aggregate(Account, "alice").ask(Credit(amount=100))
        await pass_time(clock, reply.done)
        assert await reply == losses + 100
        assert system.statistics().reruns == losses
        assert system.statistics().failed == 0


async def test_commands_that_lost_together_are_run_again_in_smaller_and_smaller_appends() -> None:
    store, clock = Contested(4), ManualClock()
    async with bank(store, clock=clock) as system:
        alice = system.aggregate(Account, "alice")
        replies = [alice.ask(Credit(amount=1)) for _ in range(16)]
        await pass_time(clock, lambda: all(reply.done() for reply in replies))
        assert [await reply for reply in replies] == [*range(5, 21)], "each in its turn"
        assert store.sizes == [16, 8, 4, 2, 1, 2, 4, 8, 1]


async def test_loser_reads_only_what_is_new() -> None:
    store, clock = Contested(0), ManualClock()
    await store.append(*credited(*[1] * 150, aggregate_id="alice"))
    async with bank(store, clock=clock) as system:
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Balance()) == 150
        store.faster = 1  # of the first conflict nothing is known yet: its state holds what was not recorded
        assert await alice.ask(Credit(amount=1)) == 152
        store.faster, store.reads = 5, []
        reply = alice.ask(Credit(amount=1))
        await pass_time(clock, reply.done)
        assert await reply == 158
        assert store.reads == [152, 152, 153, 154, 155, 156][: len(store.reads)]
        assert len(store.reads) == 6
        assert system.statistics().activations == 2


async def test_aggregate_that_was_overtaken_reads_only_what_is_new() -> None:
    store = Contested(0)
    async with bank(store) as system:
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Credit(amount=1)) == 1
        store.reads = []
        for balance in (3, 5):
            await store.append(*credited(2, aggregate_id="alice"))
            while await alice.ask(Balance()) != balance:  # noqa: ASYNC110 - asking is what shows it
                await asyncio.sleep(0.001)
        assert store.reads == [1, 2]
        assert system.statistics().activations == 1


async def test_conflict_reaches_the_asker_when_its_time_is_over_and_says_how_often_it_was_tried() -> None:
    store, clock = Contested(), ManualClock()
    async with bank(store, clock=clock) as system:
        began = clock.now
        reply = system.aggregate(Account, "alice").ask(Credit(amount=100), timeout=0.5)
        await pass_time(clock, lambda: clock.now > began + 0.4)
        assert not reply.done()
        await turns()
        clock.advance(0.5)
        with pytest.raises(ConcurrencyConflict) as raised:
            await reply
        error = raised.value
        assert error.tries == len(store.sizes) > 20
        assert error.seconds == pytest.approx(0.5, abs=0.05)
        text = f"Credit was decided {error.tries} times within {error.seconds:.3g} s, and others were faster each time"
        assert text in str(error)
        assert "cluster=" in str(error)
        store.faster = 0
        await turns()
        assert await system.aggregate(Account, "alice").ask(Balance()) == error.tries, "it had no effect"
        assert system.statistics().failed == 1
        assert system.statistics().commands_waiting == 0


async def test_told_command_has_the_time_of_an_ask_and_then_is_a_dead_message() -> None:
    store, clock = Contested(), ManualClock()
    async with bank(store, clock=clock, ask_timeout=0.3) as system:
        began = clock.now
        system.aggregate(Account, "alice").tell(Credit(amount=100))
        await pass_time(clock, system.dead_messages)
        assert 0.3 <= clock.now - began < 0.4
        (dead,) = system.dead_messages()
        assert "others were faster each time" in dead.reason
        assert system.statistics().commands_waiting == 0


async def test_timeout_of_a_command_behind_says_what_its_aggregate_does() -> None:
    """It was not decided yet, so it met no conflict itself."""
    store, clock = Contested(), ManualClock()
    async with bank(store, clock=clock) as system:
        alice = system.aggregate(Account, "alice")
        first = alice.ask(Credit(amount=1))
        await pass_time(clock, lambda: len(store.sizes) > 10)
        await turns()
        behind = alice.ask(Credit(amount=1), timeout=0.0)
        clock.advance(0.0)
        with pytest.raises(
            AskTimeout, match="other writers continue its stream too; its last append lost"
        ) as raised:
            await behind
        assert "it waits" in str(raised.value)
        assert not raised.value.started
        store.faster = 0
        await pass_time(clock, first.done)


async def test_stopping_ends_a_back_off() -> None:
    store, clock = Contested(), ManualClock()
    async with bank(store, clock=clock) as system:
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1))
        await until(lambda: len(store.sizes) == 2)
        await system.stop(timeout=0.05)
        with pytest.raises(UnoError):
            await reply


async def test_pause_that_ends_during_a_read_lets_no_second_read_begin() -> None:
    """A command is looked up in the store while the append before it is under way, which a pause follows."""
    store, clock, gate = Contested(1), ManualClock(), asyncio.Semaphore(100)
    read_stream, under_way, most = store.read_stream, 0, 0

    async def take_time() -> None:
        clock.advance(0.01)

    async def slow(stream: StreamId, after_version: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await gate.acquire()
        under_way -= 1
        return await read_stream(stream, after_version, limit)

    async with bank(store, clock=clock) as system:
        alice, known = system.aggregate(Account, "alice"), Credit(amount=5)
        assert await alice.ask(known) == 6
        assert await alice.ask(Credit(amount=1)) == 7
        store.before_commit = take_time
        store.read_stream = slow  # type: ignore[method-assign]
        assert await alice.ask(Credit(amount=1)) == 8  # a pause follows, then a read
        while not gate.locked():
            await gate.acquire()
        replies = [alice.ask(Credit(amount=1)), alice.ask(known), alice.ask(Credit(amount=1))]
        clock.advance(LONGEST_TURN)
        await until(lambda: under_way)
        gate.release()  # the read before the three
        await until(replies[0].done)
        assert under_way == 1, "the second of them is looked up"
        clock.advance(LONGEST_TURN)
        await turns()
        while not all(reply.done() for reply in replies):
            gate.release()
            clock.advance(LONGEST_TURN)
            await turns()
        assert [await reply for reply in replies] == [9, 6, 10]
        assert most == 1
        assert system.statistics().activations == 2


# --- the signal of losers ----------------------------------------------------------------------------------


async def test_loser_signals_until_it_has_won() -> None:
    store, clock = Contested(), ManualClock()
    async with bank(store, clock=clock) as system:
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1))
        await pass_time(clock, lambda: len(store.sizes) == SIGNAL_AFTER - 1)
        assert not await store.is_leased(SIGNAL)
        await pass_time(clock, lambda: len(store.sizes) > SIGNAL_AFTER)
        await turns()
        assert await store.is_leased(SIGNAL)
        store.faster = 0
        await pass_time(clock, reply.done)
        await turns()
        assert not await store.is_leased(SIGNAL)


async def test_system_that_stops_signals_no_more() -> None:
    store, clock = Contested(), ManualClock()
    async with bank(store, clock=clock) as system:
        system.aggregate(Account, "alice").tell(Credit(amount=1))
        await pass_time(clock, lambda: len(store.sizes) > SIGNAL_AFTER)
        await turns()
        assert await store.is_leased(SIGNAL)
        await system.stop(timeout=0.1)
        assert not await store.is_leased(SIGNAL)


async def test_loser_whose_time_is_over_signals_no_more() -> None:
    store, clock = Contested(), ManualClock()
    async with bank(store, clock=clock) as system:
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1), timeout=0.5)
        await pass_time(clock, lambda: len(store.sizes) > SIGNAL_AFTER)
        await turns()
        assert await store.is_leased(SIGNAL)
        await pass_time(clock, reply.done)
        await turns()
        clock.advance(1.0)
        await turns()
        assert not await store.is_leased(SIGNAL)


@pytest.mark.parametrize("signals", [False, True])
async def test_winner_leaves_others_a_turn_if_one_signals(signals: bool) -> None:
    store, clock = BankStore(), ManualClock()
    lease = await store.lease(SIGNAL) if signals else None
    async with bank(store, clock=clock) as system:
        alice = system.aggregate(Account, "alice")

        async def take_time() -> None:
            clock.advance(0.01)

        store.before_commit = take_time
        for _ in range(OFTEN):
            await alice.ask(Credit(amount=1))
        clock.advance(LOOK_EVERY)
        await alice.ask(Credit(amount=1))  # after which it looks
        await turns()
        await alice.ask(Credit(amount=1))
        for _ in range(QUIET_TURNS):
            reply = alice.ask(Credit(amount=1))
            await turns()
            assert reply.done() == (lease is None), "it leaves others their turn"
            await pass_time(clock, reply.done)
        if lease is not None:
            await lease.release()
        await turns()
        assert await alice.ask(Credit(amount=1)) == OFTEN + QUIET_TURNS + 3, "there was no other writer"


# --- without actors ----------------------------------------------------------------------------------------


def credit(account: Account) -> int:
    balance: int = account.handle(Credit(amount=100))
    return balance


async def test_repositories_that_update_one_aggregate_at_once_lose_nothing() -> None:
    store = BankStore()
    await store.append(*credited(1, aggregate_id="alice"))
    repositories = [EventSourcedRepository(Account, store) for _ in range(4)]

    async def update(repository: EventSourcedRepository[Account]) -> None:
        for _ in range(5):
            await repository.update("alice", credit)

    await asyncio.gather(*map(update, repositories))
    assert (await repositories[0].get_by_id("alice")).balance == 2001
    assert store.versions() == [*range(1, 22)]


async def test_update_of_a_repository_ends_when_its_time_is_over() -> None:
    store = Contested()
    await InMemoryEventStore.append(store, *credited(1, aggregate_id="alice"))
    writer = EventSourcedRepository(Account, store)
    with pytest.raises(ConcurrencyConflict, match="credit was decided .* times within") as raised:
        await writer.update("alice", credit, timeout=0.2)
    assert raised.value.tries == len(store.sizes) - 1 > 3  # less the first event of the test
    assert (await writer.get_by_id("alice")).balance < 100 + raised.value.tries
    with pytest.raises(CommandRejected):
        await writer.update("alice", lambda account: account.handle(Debit(amount=10**9)))
    with pytest.raises(AggregateNotFound):
        await writer.update("bob", credit)
