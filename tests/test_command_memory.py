"""A command that is sent again: recorded once, and answered with its first reply."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.bank import (
    EVENTS,
    Account,
    Balance,
    BankStore,
    Credit,
    CreditAndFail,
    Credited,
    Debit,
    Noted,
    credited,
)
from tests.faults import record_changes
from tests.new_stores import new_store_url
from tests.waiting import has_no_dead_letters, turns, until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CommandIdReused,
    CommandRejected,
    ConcurrencyConflict,
    HandlerContext,
    InvalidCommand,
    OutcomeUnknown,
    ReplyNotRecorded,
    StoreFull,
    UnoError,
    handles,
    open_store,
)
from uno_actors.aggregates.command_memory import CommandMemory
from uno_actors.aggregates.fingerprint import fingerprint
from uno_actors.aggregates.recording import (
    MAX_REPLY,
    pack_answer,
    pack_reply,
    recorded_reply,
)
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.codec import read_payload, to_record
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, Append, Appended, StoredRecord
from uno_stores import LmdbEventStore


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
    """A reference in a new system, whose aggregates are not active yet."""
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


async def test_the_id_decides_and_the_caller_may_choose_it() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Credit(amount=5, command_id="order 17 🚀")) == 5
        assert await alice.ask(Credit(amount=5, command_id="order 17 🚀")) == 5
        assert await alice.ask(Credit(amount=7, command_id="order 18")) == 12
        assert await system.aggregate(Account, "bob").ask(Credit(amount=1, command_id="order 17 🚀")) == 1
        assert await amounts(store) == [5, 7]


def test_an_id_cannot_be_empty() -> None:
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


class Kind(Enum):
    FIRST = (1, "a")
    ALSO_FIRST = FIRST
    SECOND = object()


class Bits(Flag):
    ONE = 1
    TWO = 2


class Weight(int):
    """An ``int`` subclass, which would be read as an ``int``."""


class Part(BaseModel):
    name: str
    extras: list[str] = []


class RarePart(Part):
    rarity: int


class Pair(NamedTuple):
    left: Any
    right: Any


class Offer(Command[Kind | Bits | Part | RarePart | Pair | Receipt]):
    """The reply is one of these, or something else."""


OFFERED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4)
    | st.decimals() | st.dates() | st.times() | st.datetimes(timezones=st.none() | st.timezones()) | st.timedeltas()
    | st.uuids() | st.sampled_from([*Kind, *Bits, Bits.ONE | Bits.TWO, Weight(3), object(), sys])
    | st.builds(Part, name=st.text(max_size=3)) | st.builds(RarePart, name=st.text(max_size=3), rarity=st.integers()),
    lambda inner: st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=2) | st.integers() | st.sampled_from([*Kind, (1, "x")]), inner, max_size=3)
    | st.builds(Pair, inner, inner)
    | st.builds(lambda items: Part.model_construct(name="x", extras=items), st.lists(inner, max_size=2))
    | st.builds(Receipt, inner, inner),
    max_leaves=6,
)  # fmt: skip


@given(OFFERED)
def test_a_repetition_gets_an_equal_reply_of_the_same_type_or_an_error_that_there_is_none(reply: Any) -> None:
    command = Offer()
    event = Credited(amount=1, aggregate_id="alice", aggregate_type="Shop")
    packed, given = pack_answer(command, reply)
    assert shown(given) == shown(reply)
    record = to_record(event, command.command_id, packed)
    try:
        again = recorded_reply(record, command)
    except ReplyNotRecorded:
        return
    assert shown(again) == shown(reply)


def shown(value: Any) -> Any:
    """A value and its type, and those of all that it contains."""
    kind = type(value)
    match value:
        case dict():
            return kind, [(shown(key), shown(item)) for key, item in value.items()]
        case list() | tuple() | set() | frozenset():
            return kind, [shown(item) for item in value]
        case BaseModel() | Receipt():
            return kind, shown(vars(value))
        case _:
            return kind, repr(value)


class Remember(Command[list[str]]):
    text: str


class Diary(AggregateRoot):
    """It replies with one of its own lists, against all advice."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.texts: list[str] = []

    @handles
    def remember(self, command: Remember) -> list[str]:
        self.register_event(Noted(text=command.text))
        return self.texts

    def apply_noted(self, event: Noted) -> None:
        self.texts.append(event.text)


async def test_a_recorded_reply_does_not_change_with_the_aggregate() -> None:
    store = BankStore()
    async with ActorSystem(store, aggregates=[Diary], handlers=[]) as system:
        diary = system.aggregate(Diary, "d")
        store.gate.clear()
        first, second = Remember(text="a"), Remember(text="b")
        replies = [diary.ask(command) for command in (first, second, first)]
        await until(lambda: store.commits_asked)
        store.gate.set()
        assert await asyncio.gather(*replies) == [["a"], ["a", "b"], ["a"]]
        assert await diary.ask(first) == ["a"]


class Foreign:
    def __repr__(self) -> str:
        raise RuntimeError("shy")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [(Foreign(), "a Foreign cannot be restored"), (iter([]), "list_iterator"), ("x" * MAX_REPLY, "65,536 are recorded"),
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
        assert [await alice.ask(plain) for _ in (1, 2)] == ["plain", "plain"], "it continues"


async def test_a_reply_whose_class_has_changed_is_an_error_and_nothing_is_recorded() -> None:
    command = Buy()
    async with running() as (system, store):
        await system.aggregate(Shop, "alice").ask(command)
    (stored,) = await store.read_log()
    record_changes(store, 1, reply=stored.record.reply.replace(b"amount", b"number"))
    with pytest.raises(ReplyNotRecorded, match="Receipt has other fields"):
        await ask_again(store, Shop, command)
    assert await amounts(store) == [1]


# --- while the first is handled ---


async def test_a_repetition_waits_for_the_first_command_and_gets_its_reply() -> None:
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


async def test_after_an_unknown_outcome_the_same_id_gets_the_answer() -> None:
    """The commit succeeded, and the store failed to report it."""

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


async def test_of_two_processes_the_loser_replies_with_what_the_winner_recorded() -> None:
    """Both have the aggregate active; the expected version is the fence, and after the conflict the id is found."""
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


# --- an id that another command has ---


@asynccontextmanager
async def store_of(url: str) -> AsyncIterator[EventStore]:
    async with open_store(url, EVENTS) as store:
        yield store


@pytest.fixture(params=["lmdb", "sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await new_store_url(request.param, tmp_path)


OTHERS: list[Command[Any]] = [
    Credit(amount=6, command_id="x"),
    Debit(amount=5, command_id="x"),
    Balance(command_id="x"),
    CreditAndFail(amount=5, command_id="x"),
]
"""Commands with the id of ``Credit(amount=5, command_id="x")``."""


async def assert_reused(alice: Any, command: Command[Any]) -> None:
    with pytest.raises(CommandIdReused, match=f"{type(command).__name__} was not handled") as raised:
        await alice.ask(command)
    assert (raised.value.command_id, raised.value.stream) == (command.command_id, "Account<alice>")


@pytest.mark.parametrize("other", OTHERS, ids=repr)
async def test_another_command_with_the_same_id_is_refused_and_never_gets_the_first_reply(
    other: Command[Any],
) -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        first = Credit(amount=5, command_id="x")
        assert await alice.ask(first) == 5
        for _ in range(2):
            await assert_reused(alice, other)
            assert await alice.ask(first) == 5
        await assert_reused(alice, first.model_copy(update={"amount": 7}))
        assert await alice.ask(first.model_copy(update={"correlation_id": "c", "causation_id": "k"})) == 5
        assert await amounts(store) == [5]


async def test_it_is_refused_after_a_restart_behind_a_snapshot_and_in_another_process(url: str) -> None:
    first, other = Credit(amount=5, command_id="x"), OTHERS[0]
    async with store_of(url) as store, running(store, snapshot_every=2) as (system, _):
        alice = system.aggregate(Account, "alice")
        await alice.ask(first)
        await alice.ask(Credit(amount=1))
        await assert_reused(alice, other)
        async with running(store) as (elsewhere, _):
            await assert_reused(elsewhere.aggregate(Account, "alice"), other)
            assert await elsewhere.aggregate(Account, "alice").ask(first) == 5
    async with store_of(url) as store, running(store, snapshot_every=2) as (system, _):
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Balance()) == 6
        assert system.statistics().events_replayed == 0, "there is a snapshot"
        await assert_reused(alice, other)
        assert await alice.ask(first) == 5
        assert await amounts(store) == [5, 1]


async def test_it_is_refused_after_the_aggregate_was_passivated() -> None:
    async with running(max_active=1) as (system, store):
        alice = system.aggregate(Account, "alice")
        await alice.ask(Credit(amount=5, command_id="x"))
        await system.aggregate(Account, "bob").ask(Balance())
        assert system.statistics().passivations == 1
        await assert_reused(alice, OTHERS[0])
        assert await amounts(store) == [5]


async def test_while_the_first_is_handled_the_other_waits_for_its_outcome() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        store.gate.clear()
        first = Credit(amount=5, command_id="x")
        replies = [alice.ask(first)]
        await until(lambda: store.commits_asked)
        replies += [alice.ask(command) for command in (OTHERS[0], first, OTHERS[1], Credit(amount=1), first)]
        await turns()
        assert not any(reply.done() for reply in replies)
        store.gate.set()
        found = await asyncio.gather(*map(answered, replies), return_exceptions=True)
        assert [each if isinstance(each, int) else type(each) for each in found] == [
            5,
            CommandIdReused,
            5,
            CommandIdReused,
            6,
            5,
        ]
        assert "is under way: Credit" in str(found[1])
        assert await amounts(store) == [5, 1]


async def test_if_the_first_fails_the_other_may_use_the_id() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        store.gate.clear()
        store.commit_errors.append(StoreFull("memory:", "no room"))
        first = Credit(amount=5, command_id="x")
        replies = [alice.ask(first)]
        await until(lambda: store.commits_asked)
        replies += [alice.ask(OTHERS[0]), alice.ask(first)]
        await turns()
        store.gate.set()
        found = await asyncio.gather(*map(answered, replies), return_exceptions=True)
        assert [type(found[0]), found[1], type(found[2])] == [StoreFull, 6, CommandIdReused]
        assert await amounts(store) == [6]


async def test_a_command_that_recorded_nothing_leaves_its_id_to_others() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(Balance(command_id="x")) == 0
        with pytest.raises(CommandRejected):
            await alice.ask(Debit(amount=1, command_id="x"))
        assert await alice.ask(Credit(amount=5, command_id="x")) == 5
        await assert_reused(alice, Balance(command_id="x"))
        assert await amounts(store) == [5]


async def test_commands_recorded_by_older_versions_get_their_recorded_replies() -> None:
    """Older versions recorded replies without fingerprints."""
    async with running() as (system, store):
        event = Credited(amount=5, aggregate_id="alice", aggregate_type="Account")
        await store.commit([Append((to_record(event, "x", pack_reply(5, Credit)),))])
        for command in (Credit(amount=5, command_id="x"), Credit(amount=6, command_id="x")):
            assert await system.aggregate(Account, "alice").ask(command) == 5
        event = Credited(amount=1, aggregate_id="bob", aggregate_type="Account")
        await store.commit([Append((to_record(event, "x", pack_reply(sys, Credit)),))])
        with pytest.raises(ReplyNotRecorded, match="a module cannot be restored"):
            await system.aggregate(Account, "bob").ask(Credit(amount=1, command_id="x"))


async def test_a_recorded_reply_stands_behind_its_fingerprint() -> None:
    """As in the format; an older version reads it as a reply that was not recorded."""
    command = Credit(amount=5, command_id="x")
    async with running() as (system, store):
        await system.aggregate(Account, "alice").ask(command)
        (stored,) = await store.read_log()
    assert stored.record.reply == b"\xc1\x01" + fingerprint(command) + b"\x05"


@pytest.mark.parametrize(
    ("update", "wrong"),
    [
        ({"command_id": 5}, "command_id"),
        ({"correlation_id": b"c"}, "correlation_id"),
        ({"causation_id": 1.5}, "causation_id"),
    ],
)
async def test_an_id_that_could_not_be_read_again_is_refused_before_the_command_is_sent(
    update: dict[str, Any], wrong: str
) -> None:
    """pydantic does not validate updates of a copy."""
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        with pytest.raises(InvalidCommand, match=f"Credit cannot be sent: its {wrong} must be a string"):
            alice.ask(Credit(amount=1).model_copy(update=update))
        copy = Credit(amount=1, command_id="x").model_copy(update={"command_id": None})
        assert [await alice.ask(copy) for _ in range(2)] == [1, 2], "each is a new one"
        assert await amounts(store) == [1, 1]


async def answered(reply: Any) -> Any:
    return await reply


# --- repetitions that come later than the memory reaches ---


async def fill(alice: Any, count: int = 9) -> None:
    for _ in range(count):
        await alice.ask(Credit(amount=0))


@pytest.mark.parametrize("remembered", [0, 1, 4])
@pytest.mark.parametrize("snapshot_every", [0, 3])
async def test_a_command_is_searched_for_from_the_given_position(
    url: str, remembered: int, snapshot_every: int
) -> None:
    settings = {"remember_commands": remembered, "snapshot_every": snapshot_every}
    command = Credit(amount=5, command_id="x")
    async with store_of(url) as store, running(store, **settings) as (system, _):
        alice = system.aggregate(Account, "alice")
        await fill(alice)
        since = await store.last_position()
        await system.aggregate(Account, "bob").ask(Credit(amount=1))
        assert await alice.ask(command, since=since) == 5
        await fill(alice)
        for place in (since, 0, 3):
            assert await alice.ask(command, since=place) == 5
        await fill(alice)
        assert await alice.ask(command, since=since) == 5
        with pytest.raises(CommandIdReused):
            await alice.ask(Credit(amount=6, command_id="x"), since=since)
    async with store_of(url) as store, running(store, **settings) as (system, _):
        alice = system.aggregate(Account, "alice")
        assert await alice.ask(command, since=since) == 5
        assert await alice.ask(Credit(amount=7, command_id="y"), since=since) == 12
        assert sum(await amounts(store)) == 12


class CountingStore(BankStore):
    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    async def read_stream(self, stream: Any, after_version: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        page = await super().read_stream(stream, after_version, limit)
        self.reads.append(len(page))
        return page


async def test_nothing_is_read_for_a_command_that_is_new() -> None:
    """Not even if the stream is longer than the memory; and older events are read once."""
    async with running(CountingStore(), remember_commands=8) as (system, store):
        alice = system.aggregate(Account, "alice")
        await fill(alice, 40)
        store.reads.clear()
        for number in range(60):
            position = await store.last_position()
            await alice.ask(Credit(amount=1, command_id=f"{number}"), since=position)
        assert store.reads == []
        for number in range(59, -1, -1):
            assert await alice.ask(Credit(amount=1, command_id=f"{number}"), since=40 + number) == number + 1
        assert sum(await amounts(store)) == 60
        looked_up = 60
        assert len(store.reads) < looked_up + 60, "by halves and page by page, and mostly not at all"


class Till(Account):
    """Another stream, to which the handler below does not subscribe."""


async def test_a_stream_that_was_searched_as_a_whole_is_not_read_again_for_each_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uno_actors.aggregates.command_memory.SLACK", 2)
    async with running(CountingStore(), remember_commands=2) as (system, store):
        alice = system.aggregate(Account, "alice")
        await fill(alice, 100)
        store.reads.clear()
        for number in range(100):
            await alice.ask(Credit(amount=1, command_id=f"{number}"), since=0)
        assert sum(store.reads) < 1000, "a few times, and not a hundred"
        assert sum(await amounts(store)) == 100


async def test_a_handler_may_send_its_commands_again_at_any_time() -> None:
    """It derives their ids from the event, and they cannot be recorded before the event."""
    fail = True

    async def pay(event: Credited, context: HandlerContext) -> None:
        receipt = Credit(amount=event.amount, command_id=f"{event.event_id}-receipt")
        await context.system.aggregate(Till, "till").ask(receipt)
        await context.system.aggregate(Till, "till").ask(Credit(amount=100))
        if fail:
            raise RuntimeError("after it has sent")

    spec = HandlerSpec(
        "pay", pay, event_type=Credited, aggregate_type=Account, start="earliest", max_attempts=1
    )
    store = BankStore()
    async with ActorSystem(store, aggregates=[Account, Till], handlers=[spec], remember_commands=4) as system:

        async def receipts() -> list[int]:
            return [amount for amount in await amounts(store, "till") if amount < 100]

        for amount in (1, 2):
            await system.aggregate(Account, "alice").ask(Credit(amount=amount))
        await system.settled()
        for _ in range(20):
            await system.aggregate(Till, "till").ask(Credit(amount=100))
        assert len(await store.dead_letters()) == 2
        fail = False
        await system.retry_dead_letters("pay")
        await system.settled()
        await until(lambda: has_no_dead_letters(store))
        assert await receipts() == [1, 2]
        for _ in range(20):
            await system.aggregate(Till, "till").ask(Credit(amount=100))
        await system.reset("pay", to="earliest")
        await system.settled()
        assert await receipts() == [1, 2]


async def test_positions_of_another_systems_log_are_not_mistaken_for_own_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The handled event has a later position there than its command has here."""
    monkeypatch.setattr("uno_actors.aggregates.command_memory.SLACK", 0)
    here = BankStore()
    async with running(here, remember_commands=2) as (system, _):
        alice = system.aggregate(Account, "alice")

        async def credit(event: Credited, context: HandlerContext) -> None:
            await alice.ask(Credit(amount=event.amount, command_id=f"of {event.event_id}"))

        spec = HandlerSpec("credit", credit, event_type=Credited, start="earliest")
        there = BankStore()
        await there.append(*[Noted(text="")] * 20, *credited(5))
        async with ActorSystem(there, handlers=[spec]) as other:
            await other.settled()
            await fill(alice, 30)
            await other.reset("credit", to="earliest")
            await other.settled()
        assert sum(await amounts(here)) == 5


async def test_after_an_unknown_outcome_the_error_says_from_which_position_to_search() -> None:
    class Mute(BankStore):
        async def commit(self, requests: Any) -> list[Appended | UnoError]:
            outcomes = await super().commit(requests)
            if self.commits_asked == 7:
                raise OutcomeUnknown("memory:", "the power went")
            return outcomes

    async with running(Mute(), remember_commands=2) as (system, store):
        alice = system.aggregate(Account, "alice")
        await fill(alice, 6)
        command = Credit(amount=5)
        with pytest.raises(OutcomeUnknown, match=r"ask\(\.\.\., since=6\)") as raised:
            await alice.ask(command)
        await fill(alice)
        assert raised.value.since == 6
        assert await alice.ask(command, since=raised.value.since) == 5
        assert sum(await amounts(store)) == 5


async def test_after_a_conflict_with_many_events_all_of_them_are_searched() -> None:
    """Two processes are sent one command. The slower one meets a conflict when the other has gone far ahead."""
    command = Credit(amount=5, command_id="x")
    async with (
        running(remember_commands=2) as (one, store),
        running(store, remember_commands=2) as (other, _),
    ):
        await one.aggregate(Account, "alice").ask(Credit(amount=0))
        await other.aggregate(Account, "alice").ask(Balance())

        async def ahead() -> None:
            store.before_commit = None
            await other.aggregate(Account, "alice").ask(command)
            await fill(other.aggregate(Account, "alice"))

        store.before_commit = ahead
        assert await one.aggregate(Account, "alice").ask(command) == 5
        assert sum(await amounts(store)) == 5


async def test_a_failed_search_fails_only_that_command() -> None:
    async with running(remember_commands=2) as (system, store):
        alice = system.aggregate(Account, "alice")
        await fill(alice)
        store.read_stream_errors.append(OSError("the disk is gone"))
        with pytest.raises(OSError, match="the disk is gone"):
            await alice.ask(Credit(amount=1, command_id="x"), since=0)
        assert await alice.ask(Credit(amount=1, command_id="x"), since=0) == 1


async def test_an_invalid_position_is_refused() -> None:
    async with running() as (system, _):
        for wrong in (-1, 1.5, "1"):
            with pytest.raises(ValueError, match="since must be a position"):
                system.aggregate(Account, "alice").ask(Credit(amount=1), since=wrong)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_each_id_takes_effect_once_however_little_is_remembered_and_with_any_writer(
    data: st.DataObject,
) -> None:
    """Two systems on one store, with any memory, send commands of few ids at any time, among others."""
    ids = st.sampled_from(["x", "y", None])
    steps = data.draw(
        st.lists(st.tuples(st.integers(0, 1), ids, st.sampled_from([1, 2]), st.integers(0, 3)), max_size=25)
    )
    remembered = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    every = data.draw(st.sampled_from([0, 2]))
    slack = data.draw(st.integers(0, 3))
    store = BankStore()

    async def run() -> list[tuple[Command[Any], Any]]:
        async with (
            running(store, remember_commands=remembered[0], snapshot_every=every) as (one, _),
            running(store, remember_commands=remembered[1]) as (other, _),
        ):
            refs = [system.aggregate(Account, "alice") for system in (one, other)]
            asked = []
            for place, command_id, amount, pause in steps:
                command = Credit(amount=amount, command_id=command_id)
                asked.append((command, asyncio.ensure_future(answered(refs[place].ask(command, since=0)))))
                await turns(pause)
            await asyncio.wait([reply for _, reply in asked]) if asked else None
            return [(command, reply.exception() or reply.result()) for command, reply in asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uno_actors.aggregates.command_memory.SLACK", slack)
        found = asyncio.run(asyncio.wait_for(run(), 20))
    balance, recorded = 0, {}
    for record in store.records:
        amount = read_payload(record)["amount"]
        balance += amount
        assert record.answered not in recorded, "recorded twice"
        recorded[record.answered] = amount, balance
    for command, outcome in found:
        if isinstance(outcome, ConcurrencyConflict):
            continue  # the other was faster four times
        amount, reply = recorded[command.command_id]
        if isinstance(outcome, CommandIdReused):
            assert command.amount != amount
        else:
            assert (command.amount, outcome) == (amount, reply)


# --- looking it up ---


def collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "uno_actors.aggregates.command_memory.CommandMemory.mark", staticmethod(lambda _: b"abc")
    )


async def test_commands_that_only_look_alike_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    collide(monkeypatch)
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        commands = [Credit(amount=amount) for amount in range(1, 6)]
        wanted = [1, 3, 6, 10, 15]
        assert [await alice.ask(command) for command in commands] == wanted
        assert await asyncio.gather(*(alice.ask(command) for command in commands[::-1])) == wanted[::-1]
        assert await amounts(store) == [1, 2, 3, 4, 5]


async def test_searching_keeps_the_order_of_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "uno_actors.aggregates.command_memory.CommandMemory.mark",
        staticmethod(lambda command_id: command_id[:3].encode()),
    )
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        first = Credit(amount=1, command_id="aaa one")
        await alice.ask(first)
        ten, hundred = Credit(amount=10, command_id="aaa two"), Credit(amount=100, command_id="aaa three")
        replies = [alice.ask(command) for command in (ten, Balance(), first, hundred, Balance())]
        assert await asyncio.gather(*replies) == [11, 11, 1, 111, 111]
        assert await amounts(store) == [1, 10, 100]


async def test_a_search_is_repeated_after_another_system_has_recorded_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Version 1 belongs to a command that looks alike; it fails because the other process recorded this very one."""
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


async def test_a_command_that_failed_is_not_searched_for() -> None:
    async with running() as (system, store):
        alice = system.aggregate(Account, "alice")
        command = Credit(amount=1)
        store.commit_errors.append(StoreFull("memory:", "no room"))
        with pytest.raises(StoreFull):
            await alice.ask(command)
        assert await alice.ask(Balance()) == 0
        store.read_stream_errors.append(OSError("it is active and need not read"))
        assert await alice.ask(command) == 1


async def test_a_query_with_the_same_id_does_not_answer_for_the_command_after_it() -> None:
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


async def test_a_read_that_fails_fails_only_the_repetition() -> None:
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


async def test_a_conflict_during_the_search_for_a_repetition_loses_neither() -> None:
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
async def test_the_memory_covers_the_configured_number_of_events(size: int) -> None:
    async with running(remember_commands=size) as (system, store):
        alice = system.aggregate(Account, "alice")
        commands = [Credit(amount=1, command_id=f"c{number}") for number in range(size + 2)]
        for command in commands:
            await alice.ask(command)
        assert await alice.ask(commands[2]) == 3, "the oldest that is remembered"
    assert await ask_again(store, Account, commands[2], remember_commands=size) == 3
    assert await ask_again(store, Account, commands[-1], remember_commands=size) == size + 2
    assert await ask_again(store, Account, commands[1], remember_commands=size) == size + 3, "forgotten"


async def test_with_a_snapshot_the_memory_covers_as_many_events() -> None:
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


async def test_no_command_is_remembered_if_the_option_is_zero() -> None:
    async with running(remember_commands=0) as (system, store):
        alice = system.aggregate(Account, "alice")
        command = Credit(amount=1)
        assert [await alice.ask(command) for _ in range(3)] == [1, 2, 3]
        store.commit_errors.append(OutcomeUnknown("memory:", "the power went"))
        with pytest.raises(OutcomeUnknown, match="Read the stream before"):
            await alice.ask(command)
    with pytest.raises(ValueError, match="remember_commands"):
        ActorSystem(handlers=[], remember_commands=-1)


async def test_lmdb_keeps_what_the_memory_needs(tmp_path: Path) -> None:
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
    memory = CommandMemory(size)
    for version, command_id in enumerate(commands, begun + 1):
        memory.note(version, memory.mark(command_id))
    head = begun + len(commands)
    last = dict(enumerate(commands, begun + 1)).items()
    for wanted in "abcdef":
        model = [version for version, command_id in last if command_id == wanted and version > head - size]
        assert sorted(memory.versions(memory.mark(wanted), head)) == model


@given(st.lists(st.text("ab", min_size=3, max_size=3), max_size=40), st.integers(1, 9))
def test_memory_does_not_find_an_id_that_spans_two_entries(commands: list[str], size: int) -> None:
    memory = CommandMemory(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uno_actors.aggregates.command_memory.CommandMemory.mark", staticmethod(str.encode))
        for version, command_id in enumerate(commands, 1):
            memory.note(version, memory.mark(command_id))
        for wanted in set(commands):
            last = list(enumerate(commands, 1))[-size:]
            model = [version for version, command_id in last if command_id == wanted]
            assert sorted(memory.versions(memory.mark(wanted), len(commands))) == model


def test_memory_of_a_full_window_stays_within_its_share_of_an_idle_aggregate() -> None:
    memory = CommandMemory(256)
    for version in range(1, 1000):
        memory.note(version, memory.mark(str(version)))
    assert sys.getsizeof(memory) <= 900
    few = CommandMemory(256)
    few.note(3, few.mark("c"))
    assert sys.getsizeof(few) <= 100
