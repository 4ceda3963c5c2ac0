"""Commands of one aggregate that run ahead of a disk that refuses, fails and is shared, compared with the records."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bank import EVENTS, Account, Balance, Credit, CreditAndFail, Credited, Debit
from tests.machine import patience
from uno_actors import (
    ActorSystem,
    Command,
    CommandRejected,
    ConcurrencyConflict,
    EventNotSerializable,
    OutcomeUnknown,
    StoreUnavailable,
    UnoError,
)
from uno_actors.store.codec import Record, StreamId, read_payload, to_record
from uno_actors.store.records import Append, Appended
from uno_stores import InMemoryEventStore

TOO_LARGE = 100
ALICE = StreamId("Account", "alice")


class FaultyStore(InMemoryEventStore):
    """Refuses credits of `TOO_LARGE` and more; ``faults`` says what else happens to each commit."""

    def __init__(self, faults: Sequence[str] = ()) -> None:
        super().__init__(EVENTS)
        self.faults = list(faults)

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "unavailable":
            raise StoreUnavailable("memory:", "for a test")
        if fault == "unknown and lost":
            raise OutcomeUnknown("memory:", "for a test")
        if fault == "another writer":
            event = Credited(amount=7, aggregate_id="alice", aggregate_type="Account")
            await super().commit([Append((to_record(event),))])
        outcomes: list[Appended | UnoError] = []
        for request in requests:
            if any(amount(record) >= TOO_LARGE for record in request.records):
                outcomes.append(EventNotSerializable("Credited", "too large"))
            else:
                outcomes += await super().commit([request])
        if fault == "unknown and recorded":
            raise OutcomeUnknown("memory:", "for a test")
        return outcomes


def amount(record: Record) -> int:
    return int(read_payload(record)["amount"])


async def outcomes_of(
    store: FaultyStore, commands: Sequence[Command[int]], pauses: Sequence[int]
) -> list[Any]:
    """Ask alice for everything, after so many turns of the loop each."""
    async with ActorSystem(store, aggregates=[Account], handlers=[]) as system:
        alice = system.aggregate(Account, "alice")
        replies = []
        for command, pause in zip(commands, pauses, strict=True):
            for _ in range(pause):
                await asyncio.sleep(0)
            replies.append(asyncio.ensure_future(answer(alice.ask(command))))
        return await asyncio.gather(*replies, return_exceptions=True)


async def answer(reply: Any) -> Any:
    return await reply


async def test_an_event_that_the_store_refuses_fails_its_command_and_none_that_shared_the_append() -> None:
    store = FaultyStore()
    amounts = [1, 2, TOO_LARGE, 3, TOO_LARGE, 4]
    found = await outcomes_of(store, [Credit(amount=each) for each in amounts], [0] * len(amounts))
    assert [type(each) for each in found] == [int, int, EventNotSerializable, int, EventNotSerializable, int]
    assert [each for each in found if isinstance(each, int)] == [1, 3, 6, 10]
    assert [amount(record) for _, record in await store.read_stream(ALICE)] == [1, 2, 3, 4]


AMOUNTS = st.sampled_from([1, 2, 5, TOO_LARGE])
COMMANDS = st.one_of(
    AMOUNTS.map(lambda each: Credit(amount=each)),
    AMOUNTS.map(lambda each: Debit(amount=min(each, 20))),
    AMOUNTS.map(lambda each: CreditAndFail(amount=each)),
    st.builds(Balance),
)
FAULTS = st.sampled_from(
    ["", "", "", "another writer", "unavailable", "unknown and lost", "unknown and recorded"]
)


@settings(max_examples=150)
@given(st.data())
def test_the_reply_to_each_command_agrees_with_the_recorded_events(data: st.DataObject) -> None:
    commands = data.draw(st.lists(COMMANDS, min_size=1, max_size=20))
    for place in data.draw(st.lists(st.integers(0, len(commands) - 1), max_size=4)):
        commands.append(commands[place])  # a repetition
    pauses = data.draw(st.lists(st.integers(0, 4), min_size=len(commands), max_size=len(commands)))
    faults = data.draw(st.lists(FAULTS, max_size=8))
    store = FaultyStore(faults)

    found = asyncio.run(asyncio.wait_for(outcomes_of(store, commands, pauses), patience(5)))
    records = [record for record in store.records if record.stream == ALICE]
    balances, balance_after = [0], {}
    for record in records:
        change = amount(record) if record.event_type == "Credited" else -amount(record)
        balances.append(balances[-1] + change)
        if record.answered is not None:
            assert record.answered not in balance_after, "recorded twice"
            balance_after[record.answered] = balances[-1]
    assert [record.aggregate_version for record in records] == [*range(1, len(records) + 1)]
    assert min(balances) >= 0

    answered = {command.command_id: [] for command in commands}
    for command, outcome in zip(commands, found, strict=True):
        answered[command.command_id].append(outcome)
        check_outcome(command, outcome, balances, balance_after, faults)
    for command_id, outcomes in answered.items():
        if command_id in balance_after:
            assert any(isinstance(each, (int, OutcomeUnknown)) for each in outcomes)
    order = [command.command_id for command in commands if len(answered[command.command_id]) == 1]
    recorded = [each for each in balance_after if each in order]
    assert recorded == [each for each in order if each in balance_after]


def check_outcome(
    command: Command[int],
    outcome: object,
    balances: Sequence[int],
    balance_after: dict[str, int],
    faults: Sequence[str],
) -> None:
    match command, outcome:
        case Balance(), int():
            assert outcome in balances
        case ((Credit() | Debit()), int()):
            assert outcome == balance_after[command.command_id]
        case CreditAndFail(), _:
            assert isinstance(outcome, (ZeroDivisionError, StoreUnavailable, OutcomeUnknown))
        case Credit(amount=size), EventNotSerializable():
            assert size == TOO_LARGE
        case Debit(), CommandRejected():
            pass
        case _:
            assert isinstance(outcome, (StoreUnavailable, OutcomeUnknown, ConcurrencyConflict)), outcome
            assert any(faults), outcome
