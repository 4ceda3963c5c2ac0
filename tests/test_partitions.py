"""Partitioned handlers: the events of one aggregate in order in one partition, the partitions on several systems."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bank import BankStore, Credited
from tests.faults import letters_in, views_with_entries
from tests.test_balance import balanced, held, system
from tests.waiting import ManualClock
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    EventHandler,
    HandlerContext,
    InvalidHandler,
    InvalidReset,
    ProcessManager,
    Projection,
    UnknownHandler,
    handles,
    reacts,
    subscribe,
)
from uno_actors.config.reader import load
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.handler_names import handler_of, partition_in, partition_name, view_name
from uno_actors.testing import inspect
from uno_stores import InMemoryEventStore

ACCOUNTS = [f"account-{number}" for number in range(40)]


class Seen:
    """What was handled: system, partition, aggregate and version of each event, in order."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, str, str, int]] = []
        self.fails = False

    def spec(
        self, system: str, name: str = "mail", partitioned: bool | int = 4, **options: Any
    ) -> HandlerSpec:
        async def handle(event: Credited, context: HandlerContext) -> None:
            if self.fails:
                raise ValueError("not now")
            self.handled.append((system, context.handler, event.aggregate_id or "", event.amount))

        return HandlerSpec(name, handle, start="earliest", partitioned=partitioned, **options)

    def of_account(self, account: str) -> list[int]:
        return [amount for _, _, each, amount in self.handled if each == account]


@pytest.fixture
def store() -> BankStore:
    return BankStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def seen() -> Seen:
    return Seen()


def names(count: int = 4, name: str = "mail") -> list[str]:
    return [partition_name(name, number, count) for number in range(1, count + 1)]


async def credit_all(store: BankStore, *amounts: int) -> None:
    for amount in amounts:
        for account in ACCOUNTS:
            await store.append(
                Credited(
                    amount=amount, aggregate_id=account, aggregate_type="Account", aggregate_version=amount
                )
            )


# --- names ---


@given(
    st.from_regex(r"[^@\0]+", fullmatch=True), st.integers(1, 1024), st.integers(1, 1024), st.integers(1, 99)
)
def test_handler_is_found_in_every_name_of_its_own(name: str, number: int, count: int, version: int) -> None:
    partition = partition_name(name, number, count)
    assert partition_in(partition) == (name, number, count)
    assert handler_of(partition) == partition
    assert handler_of(view_name(partition, version, 2)) == partition
    assert handler_of(view_name(name, version)) == name
    assert partition_in(view_name(name, version, 3)) is None


@pytest.mark.parametrize("name", ["mail@3of16", "mail@"])
def test_no_handler_of_a_user_has_the_name_of_a_partition(name: str, seen: Seen) -> None:
    with pytest.raises(InvalidHandler, match="no @"):
        seen.spec("a", name)


@pytest.mark.parametrize("count", [1, 0.5, -1, 1025, "4"])
def test_other_numbers_of_partitions_are_refused(count: Any, seen: Seen) -> None:
    with pytest.raises(InvalidHandler, match="partitioned must be true, false or 2 to 1024"):
        seen.spec("a", partitioned=count)


def test_partitions_can_be_asked_for_in_each_way() -> None:
    class Mail(EventHandler[Credited]):
        partitioned = 8

        async def handle(self, event: Credited) -> None: ...

    @subscribe(name="letters", partitioned=True)
    async def letters(event: Credited) -> None: ...

    running = ActorSystem(aggregates=[], handlers=[Mail, letters])
    (default, *_) = inspect(running).supervisors
    found = Counter(
        (partition_in(str(spec.known_name)) or ("",))[0].rpartition(".")[2] for spec in default.specs
    )
    assert found == {"Mail": 8, "letters": 16}


# --- running ---


async def test_events_of_one_aggregate_come_in_order_in_one_partition(
    store: BankStore, clock: ManualClock, seen: Seen
) -> None:
    async with system(store, clock, "a", [seen.spec("a")]) as running:
        await credit_all(store, 1, 2)  # live
        await running.settled()
        await running.pause("mail")
        await credit_all(store, 3, 4)
        await running.resume("mail")  # catching up
        await running.settled()
    for account in ACCOUNTS:
        assert seen.of_account(account) == [1, 2, 3, 4]
        assert len({part for _, part, each, _ in seen.handled if each == account}) == 1
    shares = Counter(part for _, part, _, _ in seen.handled)
    assert sorted(shares) == names()


async def test_partitions_are_spread_over_systems_and_lose_nothing_when_those_come_and_go(
    store: BankStore, clock: ManualClock, seen: Seen
) -> None:
    async with AsyncExitStack() as stack:
        running: list[ActorSystem] = []
        for amount, name in enumerate("abc", 1):
            started = system(store, clock, name, [seen.spec(name, partitioned=True)])
            running.append(await stack.enter_async_context(started))
            await credit_all(store, amount)
            await balanced(clock, running, names(16))
        await running[1].stop()
        await credit_all(store, 4)
        await balanced(clock, [running[0], running[2]], names(16))
        await clock.advance_until(lambda: len(seen.handled) >= 160)
    for account in ACCOUNTS:
        assert seen.of_account(account) == [1, 2, 3, 4]
    assert {name for name, *_ in seen.handled} == {"a", "b", "c"}


async def test_events_without_an_aggregate_go_by_their_correlation(
    store: BankStore, clock: ManualClock, seen: Seen
) -> None:
    async with system(store, clock, "a", [seen.spec("a")]) as running:
        for amount in range(1, 31):
            await store.append(Credited(amount=amount, correlation_id=f"c{amount % 3}"))
            await store.append(Credited(amount=100 + amount))
        await running.settled()
    assert len(seen.handled) == 60
    for rest in range(3):
        parts = [(part, amount) for _, part, _, amount in seen.handled if amount < 100 and amount % 3 == rest]
        assert len({part for part, _ in parts}) == 1
        assert [amount for _, amount in parts] == sorted(amount for _, amount in parts)


class PartitionOrder(Command[None]):
    number: int


class PartitionOrdered(DomainEvent):
    number: int


class PartitionNoted(DomainEvent):
    number: int


class PartitionNote(Command[None]):
    number: int


class PartitionShop(AggregateRoot):
    @handles
    def order(self, command: PartitionOrder) -> None:
        self.register_event(PartitionOrdered(number=command.number))

    def apply_partitionordered(self, event: PartitionOrdered) -> None: ...


class PartitionBook(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.noted: list[int] = []

    @handles
    def note(self, command: PartitionNote) -> None:
        self.register_event(PartitionNoted(number=command.number))

    def apply_partitionnoted(self, event: PartitionNoted) -> None:
        self.noted.append(event.number)


class PartitionFlow(ProcessManager):
    partitioned = 4
    sends_to = (PartitionBook,)

    @reacts
    def ordered(self, event: PartitionOrdered) -> None:
        self.send(PartitionBook, self.id, PartitionNote(number=event.number))


class PartitionFlowByKey(PartitionFlow):
    @classmethod
    def process_id(cls, event: DomainEvent) -> str | None:
        return f"key-{event.number % 5}" if isinstance(event, PartitionOrdered) else None


@pytest.mark.parametrize("kind", [PartitionFlow, PartitionFlowByKey])
async def test_one_partition_has_all_events_of_a_process(kind: type[PartitionFlow]) -> None:
    store = InMemoryEventStore()
    aggregates = [PartitionShop, PartitionBook, kind]
    async with ActorSystem(
        store, aggregates=aggregates, handlers=[kind.handler(start="earliest")]
    ) as running:
        for number in range(40):
            command = PartitionOrder(number=number, correlation_id=f"flow-{number % 7}")
            await running.aggregate(PartitionShop, f"shop-{number % 3}").ask(command)
        await running.settled()
        statistics = running.statistics().handlers
        assert sum(each.handled for each in statistics.values()) == 40
        assert sum(each.handled > 0 for each in statistics.values()) > 1
    ids = (
        {f"flow-{number}" for number in range(7)} if kind is PartitionFlow else {f"key-{n}" for n in range(5)}
    )
    for each in ids:
        events = await store.get_events(each, aggregate_type="PartitionBook")
        noted = [event.number for event in events if isinstance(event, PartitionNoted)]
        assert noted == sorted(noted)
        assert noted


# --- operators ---


async def test_partitions_are_one_handler_to_operators_unless_asked_for(
    store: BankStore, clock: ManualClock, seen: Seen
) -> None:
    async with system(store, clock, "a", [seen.spec("a"), seen.spec("a", "plain", False)]) as running:
        await credit_all(store, 1)
        await running.settled()
        whole, plain = await running.handlers()
        assert (whole.name, whole.partitions, whole.state, whole.lag) == ("mail", 4, "live", 0)
        assert (plain.name, plain.partitions) == ("plain", 0)
        assert [each.name for each in await running.handlers(partitions=True)] == [*names(), "plain"]
        await running.pause(names()[1])
        assert [each.paused for each in await running.handlers(partitions=True)] == [
            False,
            True,
            False,
            False,
            False,
        ]
        await running.resume("mail")
        await running.reset("mail", "earliest")
        await running.settled()
        assert len([each for each in seen.handled if each[1] != "plain"]) == 80
        with pytest.raises(UnknownHandler, match="letter"):
            await running.pause("letter")
        await running.unsubscribe("mail")
        assert [each.name for each in await running.handlers() if each.state == "live"] == ["plain"]


async def test_dead_letters_of_all_partitions_are_retried(
    store: BankStore, clock: ManualClock, seen: Seen
) -> None:
    seen.fails = True
    async with system(store, clock, "a", [seen.spec("a", max_attempts=1)]) as running:
        await credit_all(store, 1)
        await clock.advance_until(lambda: letters_in(store) == len(ACCOUNTS))
        seen.fails = False
        assert len(await HandlerControl(store).dead_letters("mail")) == len(ACCOUNTS)
        assert await running.retry_dead_letters("mail") == len(ACCOUNTS)
        await clock.advance_until(lambda: not letters_in(store))
    assert {account: seen.of_account(account) for account in ACCOUNTS} == {
        account: [1] for account in ACCOUNTS
    }


# --- another number of partitions ---


LAYOUTS: list[tuple[bool | int, bool | int]] = [(False, 4), (4, False), (4, 3), (2, True), (False, 2)]


@pytest.mark.parametrize(("before", "after"), LAYOUTS)
async def test_handler_with_another_number_of_partitions_continues_where_it_was(
    store: BankStore, clock: ManualClock, seen: Seen, before: bool | int, after: bool | int
) -> None:
    async with system(store, clock, "a", [seen.spec("a", partitioned=before)]) as running:
        await credit_all(store, 1)
        await running.settled()
        await running.pause("mail")
    await credit_all(store, 2)
    async with system(store, clock, "b", [seen.spec("b", partitioned=after)]) as running:
        assert [each.paused for each in await running.handlers()] == [True]
        await running.resume("mail")
        await running.settled()
        (whole,) = await running.handlers()
        assert whole.partitions == (16 if after is True else int(after))
    for account in ACCOUNTS:
        assert seen.of_account(account) == [1, 2]
    left = {handler_of(name) for name in await store.checkpoints()}
    assert left == set(names(16 if after is True else int(after)) if after else ["mail"])


@pytest.mark.parametrize(("before", "after"), LAYOUTS)
async def test_dead_letters_stay_with_the_events_of_their_partition(
    store: BankStore, clock: ManualClock, seen: Seen, before: bool | int, after: bool | int
) -> None:
    seen.fails = True
    async with system(store, clock, "a", [seen.spec("a", partitioned=before, max_attempts=1)]) as first:
        await credit_all(store, 1)
        await clock.advance_until(lambda: letters_in(store) == len(ACCOUNTS))
        await first.settled()  # what of one partition is not recorded, another layout handles once more
    seen.fails = False
    async with system(store, clock, "b", [seen.spec("b", partitioned=after)]) as running:
        assert await running.retry_dead_letters("mail") == len(ACCOUNTS)
        await clock.advance_until(lambda: not letters_in(store))
    assert {account: seen.of_account(account) for account in ACCOUNTS} == {
        account: [1] for account in ACCOUNTS
    }
    if after:
        parts = {(each, part) for _, part, each, _ in seen.handled}
        assert len(parts) == len(ACCOUNTS)


@pytest.mark.parametrize(("before", "after"), LAYOUTS)
async def test_handler_stands_by_while_it_runs_with_another_number_of_partitions(
    store: BankStore, clock: ManualClock, seen: Seen, before: bool | int, after: bool | int
) -> None:
    """Two processes with different programs, as while one is deployed, must not handle the same event."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            system(store, clock, "a", [seen.spec("a", partitioned=before)])
        )
        second = await stack.enter_async_context(
            system(store, clock, "b", [seen.spec("b", partitioned=after)])
        )
        await credit_all(store, 1)
        await first.settled()
        for _ in range(60):
            clock.advance(0.2)
            await asyncio.sleep(0.001)
            assert held(second) == []
        await first.stop()
        await credit_all(store, 2)
        await clock.advance_until(lambda: len(held(second)) == len(second.statistics().handlers))
        await second.settled()
    for account in ACCOUNTS:
        assert seen.of_account(account) == [1, 2]


# --- views ---


class PartitionSums(Projection[Credited, tuple[str, str]]):
    """The sum of each account; the version says by what the amounts are multiplied."""

    async def handle(self, event: Credited) -> None:
        key = (event.aggregate_id or "", "sum")
        self.view.put(key, await self.view.get(key, 0) + event.amount * self.version)


class PartitionSumsAgain(PartitionSums):
    version = 10


def sums(kind: type[PartitionSums] = PartitionSums, partitioned: bool | int = 4) -> HandlerSpec:
    return HandlerSpec("sums", kind, partitioned=partitioned)


async def view_of(running: ActorSystem, spec: HandlerSpec) -> dict[str, int]:
    return {key[0]: value for key, value in await running.view(spec).range()}


def all_accounts(value: int) -> dict[str, int]:
    return dict.fromkeys(sorted(ACCOUNTS), value)


async def test_parts_of_a_view_are_read_as_one_and_count_each_event_once_while_they_move(
    store: BankStore, clock: ManualClock
) -> None:
    async with AsyncExitStack() as stack:
        running: list[ActorSystem] = []
        for amount, name in enumerate("abc", 1):
            running.append(await stack.enter_async_context(system(store, clock, name, [sums()])))
            await credit_all(store, amount)
            await balanced(clock, running, names(4, "sums"))
        for each in running:
            await each.settled()
        view = running[0].view(sums())
        assert await view_of(running[1], sums()) == all_accounts(6)
        assert await view.get(("account-7", "sum")) == 6
        assert await view.get(("nobody", "sum"), "none") == "none"
        page = await view.range(limit=5)
        assert [key[0] for key, _ in page] == sorted(ACCOUNTS)[:5]
        assert [key[0] for key, _ in await view.range(after=page[-1][0], limit=2)] == sorted(ACCOUNTS)[5:7]
        assert await view.range(("account-7",)) == [(("account-7", "sum"), 6)]


async def test_readers_get_the_view_of_before_until_all_parts_are_built(
    store: BankStore, clock: ManualClock
) -> None:
    again = sums(PartitionSumsAgain)
    async with system(store, clock, "a", [sums()]) as running:
        await credit_all(store, 1)
        await running.settled()
        await running.pause("sums@2of4")
    async with system(store, clock, "b", [again]) as running:
        await clock.advance_until(lambda: held(running) == names(4, "sums")[:1] + names(4, "sums")[2:])
        await running.settled()  # all but the paused one
        assert await view_of(running, again) == all_accounts(1)
        await credit_all(store, 2)
        await running.settled()
        assert await view_of(running, again) == all_accounts(1)  # it no longer changes
        await running.resume("sums")
        await running.settled()
        assert await view_of(running, again) == all_accounts(30)
    async with system(store, clock, "c", [again]) as running:
        await running.settled()
        assert {view for view in views_with_entries(store) if "sums" in view} == {
            f"{name}@10" for name in names(4, "sums")
        }


async def test_partitioned_view_is_rebuilt_as_a_whole(store: BankStore, clock: ManualClock) -> None:
    async with system(store, clock, "a", [sums()]) as running:
        await credit_all(store, 1, 2)
        await running.settled()
        with pytest.raises(InvalidReset, match="reset 'sums'"):
            await running.reset("sums@1of4", "earliest")
        await running.reset("sums", "earliest")
        await running.settled()
        assert await view_of(running, sums()) == all_accounts(3)
        (whole,) = await running.handlers()
        assert (whole.view, whole.reset_to, whole.lag) == ("sums@1.1", None, 0)


@pytest.mark.parametrize(("before", "after"), LAYOUTS)
async def test_view_is_built_anew_for_another_number_of_partitions(
    store: BankStore, clock: ManualClock, before: bool | int, after: bool | int
) -> None:
    async with system(store, clock, "a", [sums(partitioned=before)]) as running:
        await credit_all(store, 1)
        await running.settled()
    async with system(store, clock, "b", [sums(partitioned=after)]) as running:
        await credit_all(store, 2)
        await running.settled()
        assert await view_of(running, sums(partitioned=after)) == all_accounts(3)
        assert [(each.name, each.lag) for each in await running.handlers()] == [("sums", 0)]
        kept = {handler_of(name) for name in await store.checkpoints()}
        assert kept == (set(names(16 if after is True else int(after), "sums")) if after else {"sums"})


# --- configuration files ---


def test_files_say_partitioned_too(tmp_path: Path) -> None:
    path = tmp_path / "system.toml"
    path.write_text(
        '[[handlers]]\nname = "mail"\nhandler = "tests.test_partitions:posted"\npartitioned = 4\n',
        encoding="utf-8",
    )
    load(path)
    running = ActorSystem.from_config(path)
    assert "partitioned = 4" in running.to_config()
    assert running.to_config().count("[[handlers]]") == 1
    again = tmp_path / "again.toml"
    again.write_text(running.to_config(), encoding="utf-8")
    assert ActorSystem.from_config(again).to_config() == running.to_config()


async def posted(event: Credited) -> None:
    """For the configuration file."""
