"""The journal commits in groups and reports each outcome."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.bank import BankStore, Credit, credited
from tests.waiting import turns, until
from uno_actors import ConcurrencyConflict, InvalidSchedule, OutcomeUnknown, StoreUnavailable, UnoError
from uno_actors.aggregates.journal import AppendOutcome, Journal
from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.domain.schedules import Scheduled
from uno_actors.store.codec import to_record
from uno_actors.store.records import Append, Appended


def request(aggregate_id: str, *amounts: int, expected: int | None = None) -> Append:
    return Append(tuple(map(to_record, credited(*amounts, aggregate_id=aggregate_id))), expected)


class Outcomes(list[AppendOutcome]):
    def take(self, outcome: AppendOutcome) -> None:
        self.append(outcome)


async def test_one_request_is_committed_and_answered() -> None:
    store, outcomes = BankStore(), Outcomes()
    journal = Journal(store)
    journal.append(request("alice", 1, 2), outcomes.take)
    assert outcomes == [], "not before it is durable"
    await until(lambda: outcomes)
    (outcome,) = outcomes
    assert isinstance(outcome, Appended)
    assert outcome.positions == range(1, 3)
    assert (journal.commits, journal.events) == (1, 2)


async def test_requests_during_a_commit_form_the_next_group() -> None:
    store, outcomes = BankStore(), Outcomes()
    store.gate.clear()
    journal = Journal(store)
    journal.append(request("alice", 1), outcomes.take)
    await until(lambda: store.commits_asked)
    for name in "bcdef":
        journal.append(request(name, 1), outcomes.take)
    await turns()
    assert store.groups == [1]
    store.gate.set()
    await until(lambda: len(outcomes) == 6)
    assert store.groups == [1, 5]
    assert [outcome.positions.start for outcome in outcomes if isinstance(outcome, Appended)] == list(
        range(1, 7)
    )
    assert (journal.commits, journal.events) == (2, 6)


async def test_requests_in_one_turn_of_the_loop_are_one_group() -> None:
    store, outcomes = BankStore(), Outcomes()
    journal = Journal(store)
    for name in "abc":
        journal.append(request(name, 1), outcomes.take)
    await until(lambda: len(outcomes) == 3)
    assert store.groups == [3]


async def test_it_starts_again_after_being_idle() -> None:
    store, outcomes = BankStore(), Outcomes()
    journal = Journal(store)
    for count in (1, 2, 3):
        journal.append(request("alice", count), outcomes.take)
        await until(lambda: len(outcomes) == count)  # noqa: B023 - awaited here
    assert store.versions() == [1, 2, 3]


async def test_a_request_submitted_while_an_outcome_is_taken_is_not_forgotten() -> None:
    store, outcomes = BankStore(), Outcomes()
    journal = Journal(store)

    def once_more(outcome: AppendOutcome) -> None:
        outcomes.append(outcome)
        journal.append(request("alice", 2), outcomes.take)

    journal.append(request("alice", 1), once_more)
    await until(lambda: len(outcomes) == 2)
    assert store.versions() == [1, 2]


async def test_each_request_has_its_own_outcome() -> None:
    store, good, bad = BankStore(), Outcomes(), Outcomes()
    await store.append(*credited(1, aggregate_id="alice"))
    journal = Journal(store)
    journal.append(request("alice", 9, expected=0), bad.take)
    journal.append(request("alice", 2, expected=1), good.take)
    await until(lambda: good and bad)
    assert isinstance(bad[0], ConcurrencyConflict)
    assert isinstance(good[0], Appended)
    assert journal.events == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreUnavailable("memory:", "away"), StoreUnavailable),  # the store knows: nothing was recorded
        (OSError("what a stranger's store raises"), OutcomeUnknown),  # its outcome is unknown
        (SystemExit(1), OutcomeUnknown),
    ],
)
async def test_a_store_that_fails_answers_the_whole_group_and_is_used_again(
    error: BaseException, expected: type[UnoError]
) -> None:
    store, outcomes = BankStore(), Outcomes()
    store.commit_errors.append(error)
    journal = Journal(store)
    journal.append(request("alice", 1), outcomes.take)
    journal.append(request("bob", 1), outcomes.take)
    await until(lambda: len(outcomes) == 2)
    assert [type(outcome) for outcome in outcomes] == [expected] * 2
    assert str(error) in str(outcomes[0])
    journal.append(request("alice", 1), outcomes.take)
    await until(lambda: len(outcomes) == 3)
    assert isinstance(outcomes[2], Appended)
    assert journal.events == 1


async def test_a_store_that_returns_too_few_outcomes_is_not_trusted() -> None:
    class Forgetful(BankStore):
        async def commit(self, requests: Sequence[Append]) -> list[Any]:
            return (await super().commit(requests))[:1]

    outcomes = Outcomes()
    journal = Journal(Forgetful())
    journal.append(request("alice", 1), outcomes.take)
    journal.append(request("bob", 1), outcomes.take)
    await until(lambda: len(outcomes) == 2)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * 2


async def test_a_failure_to_take_an_outcome_does_not_keep_the_others_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, outcomes = BankStore(), Outcomes()
    journal = Journal(store)

    def fail(_: AppendOutcome) -> None:
        raise ValueError("cannot take it")

    journal.append(request("alice", 1), fail)
    journal.append(request("bob", 1), outcomes.take)
    await until(lambda: outcomes)
    assert "cannot take it" in caplog.text
    journal.append(request("bob", 1), outcomes.take)
    await until(lambda: len(outcomes) == 2)


async def test_a_commit_that_was_cancelled_is_answered_as_unknown() -> None:
    """As a store's own tasks may be when it is closed, or all tasks when a program ends."""
    store, outcomes = BankStore(), Outcomes()
    store.commit_errors.append(asyncio.CancelledError())
    journal = Journal(store)
    journal.append(request("alice", 1), outcomes.take)
    await until(lambda: outcomes)
    assert isinstance(outcomes[0], OutcomeUnknown)
    journal.append(request("alice", 1), outcomes.take)
    await until(lambda: len(outcomes) == 2)
    assert isinstance(outcomes[1], Appended)


async def test_a_schedule_that_is_refused_refuses_no_other_request_of_its_group() -> None:
    """The others are of other aggregates, whose commands came in the same moment."""
    store, refused, others = BankStore(), Outcomes(), Outcomes()
    journal = Journal(store)

    async def refuse() -> None:
        raise InvalidSchedule("no scheduler can run on this store")

    journal.before_schedules = refuse
    to_send = OutgoingCommand.of("account", "alice", Credit(amount=1))
    schedule = Scheduled(key="later", command=to_send, due=datetime.now(UTC), aggregate_id="alice")
    journal.append(request("bob", 1), others.take)
    journal.append(Append((to_record(schedule),)), refused.take)
    journal.append(request("carol", 2), others.take)
    await until(lambda: len(refused) + len(others) == 3)
    assert [type(outcome) for outcome in refused] == [InvalidSchedule]
    assert [type(outcome) for outcome in others] == [Appended] * 2
    assert [record.event_type for record in store.records] == ["Credited"] * 2


@pytest.mark.parametrize(
    "error", [ConnectionError("away"), asyncio.CancelledError()], ids=["error", "cancelled"]
)
async def test_a_schedule_that_cannot_be_prepared_is_an_error_of_the_store_and_the_journal_continues(
    error: BaseException,
) -> None:
    store, outcomes = BankStore(), Outcomes()
    journal = Journal(store)

    async def fail() -> None:
        raise error

    journal.before_schedules = fail
    to_send = OutgoingCommand.of("account", "alice", Credit(amount=1))
    schedule = Scheduled(key="later", command=to_send, due=datetime.now(UTC), aggregate_id="alice")
    journal.append(Append((to_record(schedule),)), outcomes.take)
    await until(lambda: outcomes)
    assert isinstance(outcomes[0], StoreUnavailable)
    journal.append(request("bob", 1), outcomes.take)
    await until(lambda: len(outcomes) == 2)
    assert isinstance(outcomes[1], Appended)
