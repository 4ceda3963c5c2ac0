"""An aggregate as it was, at a version and at a time."""

import importlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.bank import EVENTS, Account, Credit, Credited
from uno_actors import (
    ActorSystem,
    AggregateNotFound,
    ConcurrencyConflict,
    EventSourcedRepository,
    InvalidAggregate,
    InvalidMoment,
    NoSuchVersion,
)
from uno_actors.aggregates.history import version_at
from uno_actors.cli.app import app
from uno_actors.store.codec import StreamId
from uno_stores import InMemoryEventStore

START = datetime(2026, 1, 1, tzinfo=UTC)


def at_minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def credited(amount: int, minute: float) -> Credited:
    return Credited(amount=amount, aggregate_id="a", aggregate_type="Account", timestamp=at_minute(minute))


@pytest.fixture
async def store() -> AsyncIterator[InMemoryEventStore]:
    """With one event a minute, which credits 1, 2, 3, 4 and 5."""
    async with InMemoryEventStore(EVENTS) as opened:
        await opened.append(*[credited(amount, amount) for amount in range(1, 6)])
        yield opened


async def test_an_aggregate_is_read_as_of_any_version(store: InMemoryEventStore) -> None:
    accounts = EventSourcedRepository(Account, store)
    found = [await accounts.get_by_id("a", version=version) for version in range(1, 6)]
    assert [account.balance for account in found] == [1, 3, 6, 10, 15]
    assert [account.version for account in found] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("moment", "balance"),
    [
        (at_minute(1), 1),
        (at_minute(2.5), 3),
        (at_minute(99), 15),
        (at_minute(3).replace(tzinfo=None), 6),
        (at_minute(4).astimezone(timezone(timedelta(hours=5))), 10),
    ],
    ids=["at the event", "between", "later than all", "without a zone", "in another zone"],
)
async def test_an_aggregate_is_read_as_of_a_time(
    store: InMemoryEventStore, moment: datetime, balance: int
) -> None:
    assert (await EventSourcedRepository(Account, store).get_by_id("a", at=moment)).balance == balance


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 5))
async def test_no_event_from_the_first_later_one_on_is_applied(minutes: list[int], limit: int) -> None:
    """Also where clocks of several machines gave an event an earlier time than the one before it."""
    async with InMemoryEventStore(EVENTS) as store:
        await store.append(*[credited(1, minute) for minute in minutes])
        expected = next((at for at, minute in enumerate(minutes) if minute > limit), len(minutes))
        assert await version_at(store, StreamId("Account", "a"), at_minute(limit)) == expected


async def test_a_system_reads_an_aggregate_as_it_was_while_commands_change_it() -> None:
    async with ActorSystem(InMemoryEventStore(EVENTS), aggregates=[Account], handlers=[]) as system:
        account = system.aggregate(Account, "a")
        for amount in (1, 2, 3):
            await account.ask(Credit(amount=amount))
        assert [(await account.at(version)).balance for version in (1, 2, 3)] == [1, 3, 6]
        assert (await account.at(datetime.now(UTC))).balance == 6
        with pytest.raises(NoSuchVersion, match="has 3 events: there is no version 4 yet") as none:
            await account.at(4)
        assert none.value.last == 3


async def test_a_snapshot_serves_versions_from_its_own_on(store: InMemoryEventStore) -> None:
    accounts = EventSourcedRepository(Account, store, snapshot_every=1)
    await accounts.get_by_id("a")
    assert (await store.read_snapshot(StreamId("Account", "a"))) is not None
    for version, balance in ((5, 15), (2, 3)):
        assert (await accounts.get_by_id("a", version=version)).balance == balance


async def test_what_was_read_as_of_the_past_cannot_be_saved(store: InMemoryEventStore) -> None:
    accounts = EventSourcedRepository(Account, store)
    past = await accounts.get_by_id("a", version=2)
    past.register_event(Credited(amount=1))
    with pytest.raises(ConcurrencyConflict):
        await accounts.save(past)
    assert await store.last_version(StreamId("Account", "a")) == 5


@pytest.mark.parametrize(
    "asked",
    [
        {"version": 0},
        {"version": True},
        {"version": "3"},
        {"version": START},
        {"at": "2026"},
        {"at": 3},
        {"version": 1, "at": START},
    ],
    ids=str,
)
async def test_what_is_neither_a_version_nor_a_time_is_refused(
    store: InMemoryEventStore, asked: dict[str, Any]
) -> None:
    with pytest.raises(InvalidMoment):
        await EventSourcedRepository(Account, store).get_by_id("a", **asked)


async def test_an_aggregate_that_began_later_says_so_and_not_that_it_has_no_events(
    store: InMemoryEventStore,
) -> None:
    accounts = EventSourcedRepository(Account, store)
    with pytest.raises(AggregateNotFound, match="had no events yet at 2000-01-01T00:00:00") as early:
        await accounts.get_by_id("a", at=datetime(2000, 1, 1, tzinfo=UTC))
    assert early.value.at == datetime(2000, 1, 1, tzinfo=UTC)
    with pytest.raises(AggregateNotFound, match="has no events: create it") as none:
        await accounts.get_by_id("carol", at=datetime(2000, 1, 1, tzinfo=UTC))
    assert none.value.at is None


def test_a_repository_refuses_what_is_no_class_of_aggregates(store: InMemoryEventStore) -> None:
    with pytest.raises(InvalidAggregate, match="a repository needs a class"):
        EventSourcedRepository(store, Account)  # type: ignore[arg-type, type-var]


PROGRAM = """
from uno_actors import AggregateRoot, Command, DomainEvent, handles

class Lifted(DomainEvent):
    kilos: int

class Lift(Command[int]):
    kilos: int

class Crane(AggregateRoot):
    def __init__(self, id):
        super().__init__(id=id)
        self.load = 0

    @handles
    def lift(self, command: Lift) -> int:
        self.register_event(Lifted(kilos=command.kilos))
        return self.load

    def apply_lifted(self, event: Lifted) -> None:
        self.load += event.kilos
"""
FILE = """
[system]
store = "lmdb:./store"

[aggregates]
types = ["cranes:Crane"]
"""


def test_the_command_shows_a_state_and_what_an_event_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "cranes.py").write_text(PROGRAM)
    (tmp_path / "cranes.toml").write_text(FILE)
    with ActorSystem.from_config("cranes.toml") as system:
        cranes = importlib.import_module("cranes")
        for kilos in (5, 7, 9):
            system.aggregate(cranes.Crane, "c-1").ask(cranes.Lift(kilos=kilos)).get()

    def show(*options: str) -> Result:
        return CliRunner().invoke(app, ["store", "state", "c-1", "--config", "cranes.toml", *options])

    assert json.loads(show("--json").stdout)["state"] == {"load": 21}
    shown = show("--at", "2")
    assert "c-1 at version 2 of 3: Lifted" in shown.stdout
    assert [line.split() for line in shown.stdout.splitlines()[2:]] == [
        ["load", "5", "12"], [], ["STATE", "VALUE"], ["load", "12"],
    ]  # fmt: skip
    assert json.loads(show("--at", "2099-01-01", "--json").stdout)["version"] == 3
    for wrong, why in (
        (show("--at", "1999-01-01T00:00Z"), "had no events by then"),
        (show("--at", "4"), "has 3 events"),
        (show("--at", "yesterday"), "found 'yesterday'"),
        (CliRunner().invoke(app, ["store", "state", "c-1"]), "by --config"),
    ):
        assert why in str(wrong.exception)


async def test_before_its_first_event_an_aggregate_is_not_found(store: InMemoryEventStore) -> None:
    accounts = EventSourcedRepository(Account, store)
    with pytest.raises(AggregateNotFound):
        await accounts.get_by_id("a", at=START)
    with pytest.raises(AggregateNotFound):
        await accounts.get_by_id("b", version=1)
