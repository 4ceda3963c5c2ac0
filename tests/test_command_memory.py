"""A command that is sent again: recorded once, answered with what was answered the first time."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores import LmdbEventStore
from tests.bank import EVENTS, Account, Balance, BankStore, Credit, Credited, Debit
from tests.waiting import turns, until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CommandRejected,
    ConcurrencyConflict,
    OutcomeUnknown,
    ReplyNotRecorded,
    StoreFull,
    UnoError,
    handles,
)
from uno_actors.codec import to_record
from uno_actors.command_memory import MAX_REPLY, CommandMemory, pack_reply
from uno_actors.store import Append, Appended, EventStore


@dataclass(frozen=True)
class Receipt:
    amount: Decimal
    seen: frozenset[str] = frozenset()


class Buy(Command[Receipt]):
    answer: Any = None


class Refund(Command):
    """Its events name another cause."""


class BuyAll(Command[None]):
    parts: int = 3


class Shop(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.bought = 0
        self.handled = 0

    @handles
    def buy(self, command: Buy) -> Any:
        self.handled += 1
        self.register_event(Credited(amount=1))
        return Receipt(Decimal("1.50")) if command.answer is None else command.answer

    @handles
    def buy_all(self, command: BuyAll) -> None:
        for _ in range(command.parts):
            self.register_event(Credited(amount=1))

    @handles
    def refund(self, command: Refund) -> int:
        self.register_event(Credited(amount=1))
        self.register_event(Credited(amount=-1, causation_id="the customer"))
        return self.bought

    def apply_credited(self, event: Credited) -> None:
        self.bought += event.amount


@asynccontextmanager
async def running(store: EventStore | None = None, **settings: Any) -> AsyncIterator[tuple[ActorSystem, Any]]:
    store = store or BankStore()
    async with ActorSystem(store, aggregates=[Account, Shop], handlers=[], **settings) as system:
        yield system, store


async def amounts(store: EventStore, aggregate_id: str = "alice") -> list[int]:
    return [event.amount for event in await store.get_events(aggregate_id) if isinstance(event, Credited)]


async def ask_again(
    store: EventStore, kind: type[AggregateRoot], command: Command[Any], **settings: Any
) -> Any:
    """Of a new system, whose aggregates are not active yet."""
    async with running(store, **settings) as (system, _):
        return await system.aggregate(kind, "alice").ask(command)


# --- what a repeated command gets ---


async def test_a_repeated_command_records_nothing_and_gets_the_first_reply() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        first = Credit(amount=5)
        assert await alice.ask(first) == 5
        assert await alice.ask(Credit(amount=1)) == 6
        assert [await alice.ask(first) for _ in range(3)] == [5, 5, 5]
        assert await alice.ask(Balance()) == 6
        assert await amounts(store) == [5, 1]
        assert system.statistics().repeated == 3
    assert await ask_again(store, Account, first) == 5
    assert await amounts(store) == [5, 1]


async def test_the_id_counts_and_may_be_the_callers_own() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Credit(amount=5, command_id="order 17 🚀")) == 5
        assert await alice.ask(Credit(amount=5, command_id="order 17 🚀")) == 5
        assert await alice.ask(Credit(amount=7, command_id="order 18")) == 12
        assert await system.aggregate(Account, "bob").ask(Credit(amount=1, command_id="order 17 🚀")) == 1
        assert await amounts(store) == [5, 7]


def test_an_id_cannot_be_empty_for_all_such_would_be_one() -> None:
    with pytest.raises(ValueError, match="command_id"):
        Credit(amount=1, command_id="")


async def test_a_command_that_recorded_nothing_is_handled_again() -> None:
    async with running() as (system, _):
        alice = system.aggregate(Account, "alice")
        debit, question = Debit(amount=3), Balance()
        assert await alice.ask(question) == 0
        with pytest.raises(CommandRejected):
            await alice.ask(debit)
        await alice.ask(Credit(amount=10))
        assert await alice.ask(question) == 10
        assert await alice.ask(debit) == 7
        assert await alice.ask(debit) == 7
        assert await alice.ask(Balance()) == 7


async def test_all_events_of_a_command_count_and_an_explicit_cause_does_not_hide_it() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Shop, "alice")
        many, refund = BuyAll(), Refund()
        assert await alice.ask(many) is None
        assert await alice.ask(refund) == 3
        assert await alice.ask(many) is None
        assert await alice.ask(refund) == 3
        caused = await alice.ask(Refund(command_id="the customer"))
        assert caused == 3, "the cause of an event is no command of this aggregate"
        assert await amounts(store) == [1, 1, 1, 1, -1, 1, -1]
    assert await ask_again(store, Shop, refund) == 3
    records = [record for _, record in await store.read_log()]
    assert [record.answered for record in records[:5]] == [
        None,
        None,
        many.command_id,
        None,
        refund.command_id,
    ]
    assert [record.causation_id for record in records[3:5]] == [refund.command_id, "the customer"]


@pytest.mark.parametrize(
    "reply",
    [None, True, -7, 2**80, 1.5, "é", b"\xff", [1, [2]], {"a": {1: None}}, (1, (2,)), {3}, Decimal("1.50"),
     Receipt(Decimal(2), frozenset({"x"})), [Receipt(Decimal(3))]],
    ids=repr,
)  # fmt: skip
async def test_the_reply_comes_back_type_for_type(reply: object) -> None:
    command = Buy(answer=reply)
    async with running() as (system, store):
        first = await system.aggregate(Shop, "alice").ask(command)
        again = await system.aggregate(Shop, "alice").ask(command)
    for found in (first, again, await ask_again(store, Shop, command)):
        assert (repr(found), type(found)) == (repr(first), type(first))


class Foreign:
    def __repr__(self) -> str:
        raise RuntimeError("shy")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [(Foreign(), "a Foreign cannot be restored"), (iter([]), "list_iterator"), ("x" * MAX_REPLY, "bytes, recorded are"),
     (sys, "a module"), ("\ud800", "surrogates")],
    ids=["foreign", "iterator", "long", "module", "surrogate"],
)  # fmt: skip
async def test_a_reply_that_cannot_be_recorded_is_given_once_and_then_an_error_says_so(
    reply: Any, reason: str
) -> None:
    command = Buy(answer=reply)
    async with running() as (system, store):
        alice = system.aggregate(Shop, "alice")
        assert await alice.ask(command) is reply
        with pytest.raises(ReplyNotRecorded, match=reason) as raised:
            await alice.ask(command)
        assert raised.value.command_id == command.command_id
        assert await amounts(store) == [1]
        plain = Buy(answer="plain")
        assert [await alice.ask(plain) for _ in (1, 2)] == ["plain", "plain"], "it goes on"


async def test_a_reply_whose_class_has_changed_is_an_error_and_nothing_is_recorded() -> None:
    command = Buy()
    async with running() as (system, store):
        await system.aggregate(Shop, "alice").ask(command)
    (stored,) = await store.read_log()
    store._log[0] = stored.record._replace(reply=stored.record.reply.replace(b"amount", b"number"))
    with pytest.raises(ReplyNotRecorded, match="Receipt has other fields"):
        await ask_again(store, Shop, command)
    assert await amounts(store) == [1]


# --- while the first is under way ---


async def test_a_repetition_waits_for_the_first_that_is_under_way_and_gets_its_reply() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        store.gate.clear()
        first, behind = Credit(amount=5), Credit(amount=1)
        replies = [alice.ask(first)]
        await until(lambda: store.commits_asked)
        replies += [alice.ask(command) for command in (first, behind, behind, first)]
        await turns()
        assert not any(reply.done() for reply in replies)
        store.gate.set()
        assert await asyncio.gather(*replies) == [5, 5, 6, 6, 5]
        assert await amounts(store) == [5, 1]


async def test_if_the_first_fails_the_repetition_is_handled_as_if_it_were_the_first() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        store.gate.clear()
        store.commit_errors.append(StoreFull("memory:", "no room"))
        command = Credit(amount=5)
        first = alice.ask(command)
        await until(lambda: store.commits_asked)
        second, third = alice.ask(command), alice.ask(command)
        await turns()
        store.gate.set()
        with pytest.raises(StoreFull):
            await first
        assert (await second, await third) == (5, 5)
        assert await amounts(store) == [5]


async def test_an_outcome_that_is_unknown_is_asked_for_with_the_same_id() -> None:
    """The commit came to its end, and the store failed to say so."""

    class Mute(BankStore):
        async def commit(self, requests: Any) -> list[Appended | UnoError]:
            outcomes = await super().commit(requests)
            if self.commits_asked == 1:
                raise OutcomeUnknown("memory:", "the power went")
            return outcomes

    async with running(Mute()) as (system, store):
        alice = system.aggregate(Account, "alice")
        command = Credit(amount=5)
        with pytest.raises(OutcomeUnknown, match="Send the same command again") as raised:
            await alice.ask(command)
        assert raised.value.command_id == command.command_id
        assert await alice.ask(Credit(amount=5, command_id=raised.value.command_id)) == 5
        assert await amounts(store) == [5]


async def test_between_two_processes_the_loser_answers_with_what_the_winner_recorded() -> None:
    """Both have the aggregate active; the expected version is the fence, and behind it the id is found."""
    async with running() as (one, store), running(store) as (other, _):
        alice, alice_too = one.aggregate(Account, "alice"), other.aggregate(Account, "alice")
        assert await alice.ask(Credit(amount=1)) == 1
        assert await alice_too.ask(Balance()) == 1
        command = Credit(amount=5)
        assert await alice.ask(command) == 6
        assert await alice_too.ask(command) == 6
        assert await amounts(store) == [1, 5]
        assert other.statistics().reruns == 1
        both = Credit(amount=7)
        assert await asyncio.gather(alice.ask(both), alice_too.ask(both)) == [13, 13]
        assert await amounts(store) == [1, 5, 7]


# --- looking it up ---


def collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uno_actors.command_memory._hash", lambda command_id: b"abc")


async def test_commands_that_only_look_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    collide(monkeypatch)
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        commands = [Credit(amount=amount) for amount in range(1, 6)]
        wanted = [1, 3, 6, 10, 15]
        assert [await alice.ask(command) for command in commands] == wanted
        assert await asyncio.gather(*(alice.ask(command) for command in commands[::-1])) == wanted[::-1]
        assert await amounts(store) == [1, 2, 3, 4, 5]


async def test_looking_up_keeps_the_order_of_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uno_actors.command_memory._hash", lambda command_id: command_id[:3].encode())
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        first = Credit(amount=1, command_id="aaa one")
        await alice.ask(first)
        ten, hundred = Credit(amount=10, command_id="aaa two"), Credit(amount=100, command_id="aaa three")
        replies = [alice.ask(command) for command in (ten, Balance(), first, hundred, Balance())]
        assert await asyncio.gather(*replies) == [11, 11, 1, 111, 111]
        assert await amounts(store) == [1, 10, 100]


async def test_what_looked_alike_and_was_not_recorded_is_looked_at_again_when_another_has_recorded_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Version 1 is of a command that looks alike; it fails, for the other process has put this very one there."""
    collide(monkeypatch)
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        command = Credit(amount=5)
        event = Credited(amount=5, aggregate_id="alice", aggregate_type="Account")
        store.gate.clear()
        alike = alice.ask(Credit(amount=1))
        await until(lambda: store.commits_asked)
        asked = alice.ask(command)
        await turns()
        record = to_record(event, command.command_id, pack_reply(5, Credit))
        await super(BankStore, store).commit([Append((record,))])
        store.gate.set()
        assert (await asked, await alike) == (5, 6)
        assert await amounts(store) == [5, 1]


async def test_a_command_that_failed_is_looked_for_nowhere() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        command = Credit(amount=1)
        store.commit_errors.append(StoreFull("memory:", "no room"))
        with pytest.raises(StoreFull):
            await alice.ask(command)
        assert await alice.ask(Balance()) == 0
        store.read_stream_errors.append(OSError("it is active and need not read"))
        assert await alice.ask(command) == 1


async def test_a_question_of_the_same_id_does_not_answer_for_the_command_behind_it() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        store.gate.clear()
        replies = [alice.ask(Credit(amount=1))]
        await until(lambda: store.commits_asked)
        credit = Credit(amount=5, command_id="x")
        replies += [alice.ask(command) for command in (Balance(command_id="x"), credit, credit)]
        await turns()
        store.gate.set()
        assert await asyncio.gather(*replies) == [1, 1, 6, 6]


async def test_a_store_that_fails_to_be_read_is_an_error_of_the_repetition_alone() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        command = Credit(amount=1)
        await alice.ask(command)
        store.read_stream_errors.append(OSError("no"))
        replies = await asyncio.gather(
            alice.ask(command), alice.ask(Credit(amount=2)), return_exceptions=True
        )
        assert [repr(reply) for reply in replies] == ["OSError('no')", "3"]
        assert await alice.ask(command) == 1


async def test_a_conflict_while_a_repetition_is_looked_up_loses_neither() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        command = Credit(amount=1)
        await alice.ask(command)
        store.gate.clear()
        pending = alice.ask(Credit(amount=10))
        await until(lambda: store.commits_asked == 2)
        event = Credited(amount=100, aggregate_id="alice", aggregate_type="Account")
        await super(BankStore, store).commit([Append((to_record(event),))])
        again = alice.ask(command)
        store.gate.set()
        assert (await pending, await again) == (111, 1)
        assert await amounts(store) == [1, 100, 10]


@pytest.mark.parametrize("size", [1, 3, 256])
async def test_the_memory_reaches_back_so_many_events(size: int) -> None:
    async with running(remember_commands=size) as (system, store):
        alice = system.aggregate(Account, "alice")
        commands = [Credit(amount=1, command_id=f"c{number}") for number in range(size + 2)]
        for command in commands:
            await alice.ask(command)
        assert await alice.ask(commands[2]) == 3, "the oldest that is remembered"
    assert await ask_again(store, Account, commands[2], remember_commands=size) == 3
    assert await ask_again(store, Account, commands[-1], remember_commands=size) == size + 2
    assert await ask_again(store, Account, commands[1], remember_commands=size) == size + 3, "forgotten"


async def test_with_a_snapshot_the_memory_reaches_back_as_far() -> None:
    async with running(snapshot_every=2, remember_commands=5) as (system, store):
        alice = system.aggregate(Account, "alice")
        commands = [Credit(amount=1) for _ in range(9)]
        for command in commands:
            await alice.ask(command)
    async with running(store, snapshot_every=2, remember_commands=5) as (system, _):
        alice = system.aggregate(Account, "alice")
        assert [await alice.ask(command) for command in commands[4:]] == [5, 6, 7, 8, 9]
        assert system.statistics().events_replayed == 1
        assert await alice.ask(commands[3]) == 10


async def test_none_is_remembered_if_none_is_wanted() -> None:
    async with running(remember_commands=0) as (system, store):
        alice = system.aggregate(Account, "alice")
        command = Credit(amount=1)
        assert [await alice.ask(command) for _ in range(3)] == [1, 2, 3]
        store.commit_errors.append(OutcomeUnknown("memory:", "the power went"))
        with pytest.raises(OutcomeUnknown, match="Read the stream before"):
            await alice.ask(command)
    with pytest.raises(ValueError, match="remember_commands"):
        ActorSystem(handlers=[], remember_commands=-1)


async def test_conflicts_without_end_are_still_told(tmp_path: Path) -> None:
    async with running() as (system, store):

        async def faster() -> None:
            event = Credited(amount=1, aggregate_id="alice", aggregate_type="Account")
            await super(BankStore, store).commit([Append((to_record(event),))])

        store.before_commit = faster
        with pytest.raises(ConcurrencyConflict):
            await system.aggregate(Account, "alice").ask(Credit(amount=1))


async def test_lmdb_keeps_what_is_needed_for_it(tmp_path: Path) -> None:
    command = Buy()
    for _ in range(2):
        async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
            assert await ask_again(store, Shop, command) == Receipt(Decimal("1.50"))
            assert await amounts(store) == [1]


# --- the memory itself ---


@given(st.integers(1, 9), st.integers(0, 30), st.lists(st.sampled_from([None, *"abcdef"]), max_size=40))
def test_memory_finds_what_a_list_of_the_last_events_would(
    size: int, begun: int, commands: list[str | None]
) -> None:
    memory = CommandMemory()
    for version, command_id in enumerate(commands, begun + 1):
        memory.note(version, command_id, size)
    head = begun + len(commands)
    last = dict(enumerate(commands, begun + 1)).items()
    for wanted in "abcdef":
        model = [version for version, command_id in last if command_id == wanted and version > head - size]
        assert sorted(memory.versions(wanted, head, size)) == model


@given(st.lists(st.text("ab", min_size=3, max_size=3), max_size=40), st.integers(1, 9))
def test_memory_does_not_find_what_stands_across_two_places(commands: list[str], size: int) -> None:
    memory = CommandMemory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uno_actors.command_memory._hash", str.encode)
        for version, command_id in enumerate(commands, 1):
            memory.note(version, command_id, size)
        for wanted in set(commands):
            last = list(enumerate(commands, 1))[-size:]
            model = [version for version, command_id in last if command_id == wanted]
            assert sorted(memory.versions(wanted, len(commands), size)) == model


def test_memory_of_a_full_window_stays_within_its_share_of_an_idle_aggregate() -> None:
    memory = CommandMemory()
    for version in range(1, 1000):
        memory.note(version, str(version), 256)
    assert sys.getsizeof(memory) <= 900
    few = CommandMemory()
    few.note(3, "c", 256)
    assert sys.getsizeof(few) <= 100
