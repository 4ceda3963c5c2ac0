"""Aggregates as actors: load, decide, append, adopt, reply."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.bank import (
    Account,
    Balance,
    BankStore,
    Credit,
    CreditAndExit,
    CreditAndFail,
    Credited,
    Debit,
    Unheard,
    credited,
)
from tests.machine import patience
from tests.waiting import ManualClock, turns, until
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRef,
    AggregateRoot,
    AskTimeout,
    Command,
    CommandRejected,
    DomainEvent,
    ExitRaised,
    InvalidAggregateId,
    MailboxFull,
    OutcomeUnknown,
    StoreUnavailable,
    SystemNotRunning,
    UnknownAggregateType,
    UnknownCommand,
    UnknownEventType,
    handles,
)
from uno_actors.actors.future import GetTimeout
from uno_actors.aggregates.actor import BATCH, CAPACITY, AggregateActor
from uno_actors.store.codec import to_record
from uno_actors.store.records import Append
from uno_actors.testing import inspect
from uno_stores import InMemoryEventStore


@asynccontextmanager
async def bank(
    store: BankStore | None = None, **settings: Any
) -> AsyncIterator[tuple[ActorSystem, BankStore]]:
    store = store or BankStore()
    async with ActorSystem(store, aggregates=[Account], handlers=[], **settings) as system:
        yield system, store


async def in_flight(store: BankStore, account: AggregateRef, amount: int = 1) -> Any:
    """A credit whose append is in flight and blocked until the gate is opened."""
    store.gate.clear()
    before = store.commits_asked
    reply = account.ask(Credit(amount=amount))
    await until(lambda: store.commits_asked > before)
    return reply


def other_writer(store: BankStore, *amounts: int) -> Any:
    """Append to the stream of alice, bypassing the gate."""
    records = [to_record(event) for event in credited(*amounts, aggregate_id="alice")]
    return InMemoryEventStore.commit(store, [Append(tuple(records))])


# --- activation ---


async def test_a_reference_does_no_io_and_the_first_command_activates() -> None:
    async with bank() as (system, _):
        account = system.aggregate(Account, "alice")
        await turns()
        assert system.statistics().active_aggregates == 0
        assert await account.ask(Balance()) == 0
        assert system.statistics().active_aggregates == 1
        assert system.statistics().activations == 1
        assert repr(account) == "AggregateRef(Account<alice>)"


async def test_an_aggregate_is_loaded_from_its_own_stream() -> None:
    store = BankStore()
    await store.append(*credited(1, 2, 3, aggregate_id="alice"), *credited(100, aggregate_id="bob"))
    await store.append(*credited(1000))
    async with bank(store) as (system, _):
        assert await system.aggregate(Account, "alice").ask(Balance()) == 6
        assert await system.aggregate(Account, "bob").ask(Balance()) == 100
        assert system.statistics().events_replayed == 4


async def test_a_stream_longer_than_a_page_is_replayed_whole() -> None:
    store = BankStore()
    await store.append(*credited(*[1] * 1300, aggregate_id="alice"))
    async with bank(store) as (system, _):
        assert await system.aggregate(Account, "alice").ask(Credit(amount=1)) == 1301
    assert store.versions() == list(range(1, 1302))


async def test_commands_that_come_while_it_is_loaded_wait_and_keep_their_order() -> None:
    class SlowToRead(BankStore):
        reading = asyncio.Event()

        async def last_version(self, *arguments: Any) -> Any:
            await self.reading.wait()
            return await super().last_version(*arguments)

    async with bank(SlowToRead()) as (system, store):
        account = system.aggregate(Account, "alice")
        replies = [account.ask(Credit(amount=1)) for _ in range(3)]
        await turns()
        replies += [account.ask(Credit(amount=1)) for _ in range(3)]
        await turns()
        assert not any(reply.done() for reply in replies)
        store.reading.set()  # type: ignore[attr-defined]
        assert [await reply for reply in replies] == [1, 2, 3, 4, 5, 6]
        assert system.statistics().activations == 1


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (StoreUnavailable("memory:", "the disk is away"), StoreUnavailable, "the disk is away"),
        (ValueError("what a stranger's store raises"), ValueError, "stranger"),
        (SystemExit(2), ExitRaised, "SystemExit: 2"),
    ],
)
async def test_a_stream_that_cannot_be_read_fails_each_command_with_the_cause_and_is_read_again(
    spoil: BaseException, error: type[BaseException], message: str
) -> None:
    clock = ManualClock()
    async with bank(clock=clock) as (system, store):
        account = system.aggregate(Account, "alice")
        store.read_stream_errors.append(spoil)
        replies = [account.ask(Credit(amount=1)) for _ in range(3)]
        for reply in replies:
            with pytest.raises(error, match=message):
                await reply
        if error is not StoreUnavailable:  # which may be over at once: what is wrong with the stream may not
            with pytest.raises(error, match=message):
                await account.ask(Credit(amount=1))
            clock.advance(0.1)
        assert await account.ask(Credit(amount=1)) == 1
        assert system.statistics().failed == (3 if error is StoreUnavailable else 4)
        await system.settled()


async def test_an_event_of_an_unknown_type_makes_each_command_fail_with_that_error() -> None:
    class ForgottenByTheBank(DomainEvent):
        pass

    store = BankStore()
    await store.append(ForgottenByTheBank(aggregate_id="alice", aggregate_type="Account"))
    async with bank(store) as (system, _):
        for _ in range(2):
            with pytest.raises(UnknownEventType, match="ForgottenByTheBank"):
                await system.aggregate(Account, "alice").ask(Balance())
        assert await system.aggregate(Account, "bob").ask(Balance()) == 0


# --- deciding ---


async def test_a_rejection_reaches_the_caller_and_records_nothing() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        with pytest.raises(CommandRejected, match="the balance is 0") as caught:
            await account.ask(Debit(amount=5))
        assert caught.value.reason == "the balance is 0"
        assert await account.ask(Credit(amount=7)) == 7
        assert await account.ask(Debit(amount=5)) == 2
        assert store.versions() == [1, 2]
        statistics = system.statistics()
        assert (statistics.commands, statistics.rejected, statistics.failed) == (2, 1, 0)
        assert statistics.activations == 1, "a rejection needs no replay"


async def test_an_unknown_command_is_refused_where_it_is_sent() -> None:
    async with bank() as (system, _):
        account = system.aggregate(Account, "alice")
        known = "Balance, Credit, CreditAndExit, CreditAndFail, Debit"
        with pytest.raises(UnknownCommand, match=f"Account does not handle Unheard; it handles: {known}"):
            account.ask(Unheard())
        with pytest.raises(UnknownCommand):
            account.tell(Unheard())
        assert system.statistics().active_aggregates == 0


async def test_an_invalid_id_is_refused_where_the_reference_is_made() -> None:
    async with bank() as (system, _):
        for wrong in ("", "a\0b", "x" * 256, 3):
            with pytest.raises(InvalidAggregateId):
                system.aggregate(Account, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "error"),
    [(CreditAndFail(amount=5), ZeroDivisionError), (CreditAndExit(amount=5), ExitRaised)],
)
async def test_an_error_after_register_event_records_nothing(
    command: Command[int], error: type[BaseException]
) -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        assert await account.ask(Credit(amount=1)) == 1
        with pytest.raises(error):
            await account.ask(command)
        assert await account.ask(Balance()) == 1
        assert await account.ask(Credit(amount=1)) == 2
        assert store.versions() == [1, 2]


async def test_events_decided_before_a_failing_command_are_recorded() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Balance())
        replies = [
            account.ask(command)
            for command in (Credit(amount=1), CreditAndFail(amount=10), Credit(amount=1), Balance())
        ]
        outcomes = await asyncio.gather(*replies, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [int, ZeroDivisionError, int, int]
        assert [outcomes[0], outcomes[2], outcomes[3]] == [1, 2, 2]
        assert store.versions() == [1, 2]
        assert system.statistics().reruns == 0, "it is not loaded before what was decided is recorded"


async def test_after_a_command_fails_during_an_append_the_aggregate_is_loaded_with_the_appended_events() -> (
    None
):
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Balance())
        first = await in_flight(store, account, 10)
        fails, last = account.ask(CreditAndFail(amount=5)), account.ask(Credit(amount=1))
        await turns()
        store.gate.set()
        assert await first == 10
        with pytest.raises(ZeroDivisionError):
            await fails
        assert await last == 11
        assert system.statistics().reruns == 0
        assert store.versions() == [1, 2]


async def test_a_command_that_fails_leaves_no_half_changed_state_even_if_it_changed_state_without_an_event() -> (
    None
):
    class Tamper(Command[None]):
        pass

    class Show(Command[int]):
        pass

    class Careless(AggregateRoot):
        def __init__(self, id: str) -> None:
            super().__init__(id=id)
            self.total = 0

        @handles
        def tamper(self, command: Tamper) -> None:
            self.total += 5
            raise OSError("half way")

        @handles
        def show(self, command: Show) -> int:
            return self.total

    async with ActorSystem(BankStore(), handlers=[]) as system:
        careless = system.aggregate(Careless, "c")
        with pytest.raises(OSError, match="half way"):
            await careless.ask(Tamper())
        assert await careless.ask(Show()) == 0


async def test_an_event_that_cannot_be_recorded_fails_its_command_alone() -> None:
    class Odd(DomainEvent):
        what: Any = None

    class Keep(Command[int]):
        what: Any

    class Keeper(AggregateRoot):
        @handles
        def keep(self, command: Keep) -> int:
            self.register_event(Odd(what=command.what))
            return self.version

        def apply_odd(self, event: Odd) -> None: ...

    async with ActorSystem(BankStore(), handlers=[]) as system:
        keeper = system.aggregate(Keeper, "k")
        with pytest.raises(Exception, match="Odd cannot be recorded"):
            await keeper.ask(Keep(what=object()))


async def test_many_commands_on_one_aggregate_do_not_starve_other_aggregates() -> None:
    async with bank() as (system, store):
        busy, other = system.aggregate(Account, "alice"), system.aggregate(Account, "bob")
        await asyncio.gather(busy.ask(Balance()), other.ask(Balance()))
        store.gate.clear()
        done: list[str] = []
        for _ in range(5 * BATCH):
            busy.ask(Balance()).add_done_callback(lambda _: done.append("alice"))
        other.ask(Balance()).add_done_callback(lambda _: done.append("bob"))
        await until(lambda: len(done) == 5 * BATCH + 1)
        assert done.index("bob") <= BATCH


# --- recording ---


async def test_commands_run_ahead_of_the_disk_but_their_replies_wait_for_it() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Balance())
        first = await in_flight(store, account)
        behind = [account.ask(Credit(amount=1)) for _ in range(5)]
        question = account.ask(Balance())
        await turns()
        assert not any(reply.done() for reply in (first, *behind, question))
        assert store.versions() == []
        store.gate.set()
        assert [await reply for reply in (first, *behind, question)] == [1, 2, 3, 4, 5, 6, 6]
        assert system.statistics().commits == 2, "what was decided in the meantime makes one append"


async def test_a_query_with_no_append_before_it_does_not_wait() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Credit(amount=1))
        store.gate.clear()
        assert await account.ask(Balance()) == 1


async def test_a_failure_at_the_end_of_a_batch_does_not_hold_up_the_next_batch() -> None:
    async with bank() as (system, _):
        account = system.aggregate(Account, "alice")
        await account.ask(Balance())
        batch = [account.ask(Balance()) for _ in range(BATCH - 1)]
        fails = account.ask(CreditAndFail(amount=1))
        behind = account.ask(Balance())
        with pytest.raises(ZeroDivisionError):
            await fails
        async with asyncio.timeout(patience(5)):
            assert await behind == 0
        assert [await each for each in batch] == [0] * (BATCH - 1)


async def test_a_failed_commit_answers_its_commands_and_reruns_those_of_the_next_batch() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Credit(amount=10))
        fails = await in_flight(store, account, 100)
        behind = [account.ask(Credit(amount=1)), account.ask(Debit(amount=50)), account.ask(Balance())]
        await turns()
        store.commit_errors.append(StoreUnavailable("memory:", "for a test"))
        store.gate.set()
        with pytest.raises(StoreUnavailable, match="for a test"):
            await fails
        assert await behind[0] == 11
        with pytest.raises(CommandRejected, match="the balance is 11"):
            await behind[1]
        assert await behind[2] == 11
        assert store.versions() == [1, 2]
        assert system.statistics().reruns == 3
        await system.settled()


async def test_a_query_after_a_commit_that_fails_is_run_again_on_the_recorded_state() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Credit(amount=10))
        fails = await in_flight(store, account, 100)
        question = account.ask(Balance())
        await turns()
        store.commit_errors.append(StoreUnavailable("memory:", "for a test"))
        store.gate.set()
        with pytest.raises(StoreUnavailable):
            await fails
        assert await question == 10


async def test_a_rejection_in_a_commit_that_fails_stays_a_rejection() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Balance())
        first = await in_flight(store, account)
        fails, rejected = account.ask(Credit(amount=1)), account.ask(Debit(amount=50))
        await turns()

        async def fail_the_second() -> None:
            if first.done():
                raise StoreUnavailable("memory:", "for a test")

        store.before_commit = fail_the_second
        store.gate.set()
        with pytest.raises(StoreUnavailable):
            await fails
        with pytest.raises(CommandRejected, match="the balance is 2"):
            await rejected
        assert await first == 1


async def test_another_writer_makes_the_loser_decide_again_on_what_is_recorded() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Credit(amount=10))
        first = await in_flight(store, account, 1)
        behind = account.ask(Debit(amount=14))
        await turns()
        await other_writer(store, 5)
        store.gate.set()
        assert await first == 16
        assert await behind == 2
        assert store.versions() == [1, 2, 3, 4]
        assert system.statistics().reruns == 2


async def test_after_an_append_of_unknown_outcome_the_stream_is_read_again() -> None:
    """The events of the failed commit are recorded all the same."""
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Balance())

        async def record_and_fail() -> None:
            store.before_commit = None
            await other_writer(store, 7)
            store.commit_errors.append(OutcomeUnknown("memory:", "the power went"))

        store.before_commit = record_and_fail
        with pytest.raises(OutcomeUnknown, match="may or may not be recorded"):
            await account.ask(Credit(amount=7))
        assert await account.ask(Credit(amount=1)) == 8
        assert store.versions() == [1, 2]


async def test_a_command_sent_by_tell_is_handled_and_its_failure_is_logged_and_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bank() as (system, _):
        account = system.aggregate(Account, "alice")
        account.tell(Credit(amount=3))
        command = Debit(amount=9)
        account.tell(command)
        await system.settled()
        assert await account.ask(Balance()) == 3
        (dead,) = system.dead_messages()
        assert (dead.actor, dead.message) == ("Account<alice@1>", command)
        assert dead.reason == "CommandRejected: the balance is 3"
        assert "actor=Account<alice@1> message=Debit reason=CommandRejected" in caplog.text


# --- bounds ---


async def test_a_full_mailbox_refuses_at_once_and_loses_nothing_that_it_accepted() -> None:
    async with bank() as (system, store):
        account = system.aggregate(Account, "alice")
        replies = [account.ask(Credit(amount=1)) for _ in range(CAPACITY)]
        too_many = account.ask(Credit(amount=1))
        assert too_many.done()
        with pytest.raises(MailboxFull, match=r"mailbox of Account<alice> is full \(1000 messages wait\)"):
            await too_many
        assert [await reply for reply in replies] == list(range(1, CAPACITY + 1))
        await system.settled()
        assert store.versions() == list(range(1, CAPACITY + 1))


async def test_an_ask_whose_command_still_waits_is_withdrawn_when_it_times_out() -> None:
    clock = ManualClock()
    async with bank(clock=clock) as (system, store):
        account = system.aggregate(Account, "alice")
        reply = account.ask(Credit(amount=1), timeout=5)
        other = account.ask(Credit(amount=10), timeout=50)
        clock.advance(5)
        assert reply.done()
        with pytest.raises(AskTimeout, match="withdrawn and has no effect. .*2 commands waiting") as caught:
            await reply
        assert (caught.value.started, caught.value.seconds) == (False, 5)
        assert await other == 10
        assert store.versions() == [1]
        await system.settled()
        assert system.statistics().commands == 1


async def test_an_ask_that_times_out_after_its_command_started_says_so_and_takes_effect() -> None:
    clock = ManualClock()
    async with bank(clock=clock, ask_timeout=7) as (system, store):
        account = system.aggregate(Account, "alice")
        reply = await in_flight(store, account)
        clock.advance(6.9)
        assert not reply.done()
        clock.advance(0.1)
        with pytest.raises(
            AskTimeout, match="may still take effect.*its events wait to be recorded"
        ) as caught:
            await reply
        assert caught.value.started
        assert inspect(system).commands
        store.gate.set()
        await system.settled()
        assert await account.ask(Balance()) == 1


async def test_a_command_that_times_out_during_a_rerun_is_counted_once() -> None:
    clock = ManualClock()
    async with bank(clock=clock) as (system, store):
        account = system.aggregate(Account, "alice")
        await account.ask(Balance())
        first = await in_flight(store, account, 1)
        behind = account.ask(Credit(amount=1), timeout=1)
        await turns()
        clock.advance(2)
        store.commit_errors.append(StoreUnavailable("memory:", "for a test"))
        store.gate.set()
        with pytest.raises(StoreUnavailable):
            await first
        with pytest.raises(AskTimeout):
            await behind
        await system.settled()
        assert inspect(system).commands == 0
        assert await account.ask(Balance()) == 1, "it was begun, and took effect"


async def test_a_command_whose_reply_the_sender_sets_itself_is_handled_and_counted_once() -> None:
    async with bank() as (system, _):
        account = system.aggregate(Account, "alice")
        reply = account.ask(Credit(amount=1))
        reply.set(100)
        assert await account.ask(Balance()) == 1
        assert await reply == 100
        assert system.statistics().commands_waiting == 0


def test_a_thread_does_not_wait_forever_for_a_loop_that_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the loop that would report the timeout."""
    monkeypatch.setattr("uno_actors.aggregates.envelope.LOOP_LATE", 0.05)
    held, go_on = threading.Event(), threading.Event()

    class Holds(Actor):
        async def on_receive(self, message: object) -> None:
            held.set()
            go_on.wait(20)

    with ActorSystem(aggregates=[Account], handlers=[]) as system:
        account = system.aggregate(Account, "alice")
        system.spawn(Holds).get().tell("hold")
        held.wait(20)
        reply = account.ask(Credit(amount=1), timeout=0.01)
        with pytest.raises(GetTimeout):
            reply.get(timeout=0.001)
        with pytest.raises(AskTimeout, match="no reply from Account<alice> to Credit .*event loop") as caught:
            reply.get()
        assert (caught.value.started, caught.value.seconds) == (True, 0.01)
        go_on.set()
        assert account.ask(Credit(amount=10)).get() in (10, 11)
        system.run(system.settled())


async def test_commands_that_are_answered_in_time_share_one_timer() -> None:
    clock = ManualClock()
    async with bank(clock=clock) as (system, _):
        await turns()
        before = clock.pending()
        for _ in range(5):
            await system.aggregate(Account, "alice").ask(Credit(amount=1))
        assert clock.pending() == before + 1
        for _ in range(5):
            await system.aggregate(Account, "alice").ask(Credit(amount=1), timeout=7)
        assert clock.pending() == before + 1, "one for those with a time of their own, and it was cancelled"


async def test_a_system_reports_how_long_commands_have_waited() -> None:
    clock = ManualClock()
    async with bank(clock=clock) as (system, store):
        account = system.aggregate(Account, "alice")
        first = await in_flight(store, account)
        clock.advance(2)
        second = account.ask(Credit(amount=1))
        clock.advance(1)
        statistics = system.statistics()
        assert (statistics.commands_waiting, statistics.oldest_command) == (2, 3)
        store.gate.set()
        assert (await first, await second) == (1, 2)
        statistics = system.statistics()
        assert (statistics.commands_waiting, statistics.oldest_command) == (0, None)


# --- passivation ---


async def test_an_idle_aggregate_is_passivated_after_its_time_and_can_be_activated_again() -> None:
    clock = ManualClock()
    async with bank(clock=clock, passivate_after=60) as (system, _):
        account = system.aggregate(Account, "alice")
        assert await account.ask(Credit(amount=4)) == 4
        clock.advance(59)
        assert system.statistics().active_aggregates == 1
        clock.advance(61)
        statistics = system.statistics()
        assert (statistics.active_aggregates, statistics.passivations) == (0, 1)
        assert await account.ask(Balance()) == 4
        assert system.statistics().activations == 2


async def test_an_aggregate_in_use_is_not_passivated() -> None:
    clock = ManualClock()
    async with bank(clock=clock, passivate_after=60) as (system, store):
        used, busy = system.aggregate(Account, "alice"), system.aggregate(Account, "bob")
        await asyncio.gather(used.ask(Balance()), busy.ask(Balance()))
        reply = await in_flight(store, busy)
        for _ in range(10):
            clock.advance(25)
            await used.ask(Balance())
        assert system.statistics().active_aggregates == 2
        assert system.statistics().passivations == 0
        store.gate.set()
        with pytest.raises(AskTimeout):
            await reply
        await system.settled()


async def test_a_command_that_arrives_during_passivation_goes_to_the_next_activation() -> None:
    clock = ManualClock()
    async with bank(clock=clock, passivate_after=60) as (system, store):
        account = system.aggregate(Account, "alice")
        for round_ in range(1, 6):
            reply = account.ask(Credit(amount=1), timeout=10_000)
            clock.advance(200)
            later = account.ask(Credit(amount=1), timeout=10_000)
            assert (await reply, await later) == (2 * round_ - 1, 2 * round_)
            clock.advance(200)
        assert system.statistics().reruns == 0, "never two at once"
        assert system.statistics().activations == 5
        assert store.versions() == list(range(1, 11))


async def test_beyond_the_limit_the_longest_idle_aggregates_are_passivated() -> None:
    async with bank(max_active=3) as (system, _):
        for name in ("a", "b", "c"):
            await system.aggregate(Account, name).ask(Credit(amount=1))
        await system.aggregate(Account, "a").ask(Balance())
        await system.aggregate(Account, "d").ask(Balance())
        assert system.statistics().active_aggregates == 3
        await asyncio.gather(*(system.aggregate(Account, name).ask(Balance()) for name in ("a", "c", "d")))
        assert system.statistics().activations == 4, "only b was let go"
        assert await system.aggregate(Account, "b").ask(Balance()) == 1
        assert system.statistics().activations == 5


async def test_a_new_aggregate_is_not_passivated_in_place_of_busy_ones() -> None:
    async with bank(max_active=1) as (system, store):
        busy, new = system.aggregate(Account, "alice"), system.aggregate(Account, "bob")
        await busy.ask(Balance())
        reply = await in_flight(store, busy)
        replies = [new.ask(Credit(amount=1)), new.ask(Credit(amount=1))]
        assert system.statistics().active_aggregates == 2
        store.gate.set()
        assert await reply == 1
        assert [await reply for reply in replies] == [1, 2]
        assert system.statistics().reruns == 0, "one live actor per aggregate"
        assert system.statistics().activations == 2


async def test_after_a_burst_the_limit_holds_again() -> None:
    clock = ManualClock()
    async with bank(max_active=10, passivate_after=60, clock=clock) as (system, _):
        accounts = [system.aggregate(Account, f"account-{n}") for n in range(200)]
        await asyncio.gather(*(account.ask(Credit(amount=1)) for account in accounts))
        assert system.statistics().active_aggregates >= 10
        await system.aggregate(Account, "one-more").ask(Balance())
        clock.advance(60 / 4)
        assert system.statistics().active_aggregates == 10
        assert await asyncio.gather(*(account.ask(Balance()) for account in accounts)) == [1] * 200
        assert system.statistics().reruns == 0


async def test_a_burst_of_busy_aggregates_beyond_the_limit_is_not_searched_again_for_each_new_one() -> None:
    """The search for an idle aggregate costs the same however many are busy."""
    looked = 0
    async with bank(max_active=5) as (system, store):
        store.gate.clear()

        class Counting(AggregateActor):
            __slots__ = ()

            @property
            def idle(self) -> bool:
                nonlocal looked
                looked += 1
                return AggregateActor.idle.fget(self)  # type: ignore[attr-defined, no-any-return]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("uno_actors.aggregates.directory.AggregateActor", Counting)
            replies = [system.aggregate(Account, f"account-{n}").ask(Credit(amount=1)) for n in range(1000)]
        assert len(inspect(system).aggregates) == 1000
        assert looked <= 20 * 1000
        store.gate.set()
        assert await asyncio.gather(*replies) == [1] * 1000


# --- the end ---


async def test_stopping_answers_commands_that_wait_for_an_append_that_never_ends() -> None:
    store = BankStore()
    async with bank(store, stop_timeout=0.01) as (system, _):
        account = system.aggregate(Account, "alice")
        await account.ask(Balance())
        begun = await in_flight(store, account)
        behind = account.ask(Credit(amount=1))
        await turns()
    with pytest.raises(OutcomeUnknown):
        await begun
    with pytest.raises(SystemNotRunning):
        await behind  # it was never sent to the disk, so this is certain
    store.gate.set()
    await turns()
    assert store.versions() in ([], [1])


async def test_stopping_answers_commands_that_wait_for_a_read_that_never_ends() -> None:
    class NeverRead(BankStore):
        async def last_version(self, *_: Any) -> Any:
            await asyncio.Event().wait()

    async with bank(NeverRead(), stop_timeout=0.01) as (system, _):
        reply = system.aggregate(Account, "alice").ask(Balance())
        await turns()
    assert reply.done()
    with pytest.raises(SystemNotRunning):
        await reply


async def test_a_type_that_is_not_served_is_refused_with_those_that_are() -> None:
    class Stranger(AggregateRoot):
        pass

    async with bank() as (system, _):
        with pytest.raises(UnknownAggregateType, match=r"does not serve .*Stranger.*It serves: .*Account"):
            system.aggregate(Stranger, "s")


async def test_events_name_their_command_as_cause() -> None:
    async with bank() as (system, store):
        command = Credit(amount=1, correlation_id="c" * 32)
        await system.aggregate(Account, "alice").ask(command)
        (event,) = await store.get_events("alice")
        assert isinstance(event, Credited)
        assert (event.correlation_id, event.causation_id) == ("c" * 32, command.command_id)


async def test_the_statistics_have_the_mean_time_to_answer() -> None:
    store = BankStore()
    async with ActorSystem(store, aggregates=[Account], handlers=[]) as system:
        account = system.aggregate(Account, "a")
        await account.ask(Credit(amount=1))
        before = system.statistics()
        assert before.asked == 1
        store.gate.clear()
        began = time.monotonic()
        asked = asyncio.ensure_future(account.ask(Credit(amount=1)))
        account.tell(Credit(amount=1))  # nothing waits for its answer
        await until(lambda: store.commits_asked == 2)
        under_way = time.monotonic()
        while time.monotonic() < under_way + 0.01:
            await turns(1)
        at_least = time.monotonic() - under_way
        store.gate.set()
        await asked
        took = time.monotonic() - began
        await until(lambda: system.statistics().commands == 3)
        after = system.statistics()
        assert after.asked == 2
        assert at_least <= after.asked_seconds - before.asked_seconds <= took
