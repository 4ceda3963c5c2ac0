"""Handlers on a store with several logs: each partition reads one log, by itself, wherever it runs."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.balance_worker import Balanced
from tests.faults import routers_of_logs
from tests.on_logs import ACCOUNTS, LOGS, Handled, LogPaid, LogSums, pay_all, sums, system
from tests.postgres import postgres
from tests.test_balance_processes import HANDLERS, Worker, shares_are, started
from tests.waiting import has_no_dead_letters, until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    EventHandler,
    EventPriority,
    HandlerContext,
    InvalidHandler,
    InvalidReset,
    InvalidSupervisor,
    ProcessManager,
    Supervisor,
    handles,
    open_store,
    published_view,
    reacts,
)
from uno_actors.cli import app as cli
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.partitions import log_of_partition, partitions_of, usual_partitions
from uno_actors.handlers.router import RouterActor
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscription import Subscription
from uno_actors.shards import SHARDS
from uno_actors.store.codec import StreamId
from uno_actors.store.handler_names import partition_in, partition_name
from uno_actors.store.logs import log_of_position, log_of_stream, starts_of_logs
from uno_actors.store.port import EventStore
from uno_actors.testing import ManualClock, inspect


@pytest.fixture
async def url() -> str:
    return f"{await postgres().new_url()}&logs={LOGS}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[EventStore]:
    async with open_store(url) as opened:
        yield opened


@pytest.fixture
def handled() -> Handled:
    return Handled()


# --- partitions and logs ---


@given(st.integers(1, SHARDS), st.integers(1, 8), st.integers(0, SHARDS - 1))
def test_the_partition_of_a_shard_reads_the_log_of_the_shard(logs: int, each: int, shard: int) -> None:
    for count in (logs * each, usual_partitions(logs)):
        assert log_of_partition(shard % count + 1, logs) == shard % logs


@pytest.mark.parametrize(
    ("logs", "count"), [(1, 16), (2, 16), (4, 16), (5, 20), (16, 16), (24, 24), (64, 64), (200, 200)]
)
def test_partitioned_handlers_have_as_many_partitions_for_each_log(logs: int, count: int) -> None:
    spec = HandlerSpec("mail", print, partitioned=True)
    parts = partitions_of(spec, logs)
    assert [part.name for part in parts] == [partition_name("mail", n, count) for n in range(1, count + 1)]
    assert {part.partitions for part in parts} == {count}
    assert {part.whole() for part in parts} == {spec}
    assert Counter(log_of_partition(part.partition, logs) for part in parts) == dict.fromkeys(
        range(logs), count // logs
    )


async def test_a_handler_that_is_not_partitioned_or_does_not_match_the_logs_is_refused(
    url: str, handled: Handled
) -> None:
    for spec, why in (
        (handled.spec(partitioned=False), "mail needs the order of all.*4 logs.*partitioned=True"),
        (handled.spec(partitioned=6), "mail has 6 partitions and the store 4 logs.*a multiple of 4"),
        (handled.spec(start=7), "mail starts after position 7.*'earliest', 'latest' or a time"),
    ):
        with pytest.raises(InvalidHandler, match=why):
            async with system(url, spec):
                pass
    async with system(url) as running:
        with pytest.raises(InvalidHandler, match="mail needs the order of all"):
            await running.supervisor("handlers").start_child(handled.spec(partitioned=False))
        with pytest.raises(InvalidSupervisor, match=r"is 4: give them a supervisor of their own"):
            await running.supervisor("handlers").start_child(handled.spec())


# --- running ---


async def test_what_is_recorded_while_a_handler_is_added_is_handled_at_once(
    url: str, handled: Handled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each partition is added after the first one listens, when no handler reads its log yet."""
    async with system(url, clock=ManualClock()) as running:  # nothing looks at the logs by itself
        add, added = RouterActor.add, list[str]()

        async def pay() -> None:
            await pay_all(running.store, len(added))
            await asyncio.sleep(0)

        async def while_it_is_added(*args: Any, **options: Any) -> None:
            await save_progress(*args, **options)
            await pay()

        def noted(router: RouterActor, subscription: Subscription) -> None:
            added.append(subscription.name)
            add(router, subscription)

        save_progress = running.store.save_progress
        monkeypatch.setattr(running.store, "save_progress", while_it_is_added)
        monkeypatch.setattr(RouterActor, "add", noted)
        await running.supervisor("handlers").start_child(Supervisor("mails", children=[handled.spec()]))
        monkeypatch.undo()
        await until(lambda: handled.all_are(range(len(added))))


@pytest.mark.parametrize("partitioned", [4, 8, True])
async def test_each_partition_handles_the_events_of_its_log_in_order(
    url: str, store: EventStore, handled: Handled, partitioned: bool | int
) -> None:
    await pay_all(store, 1, 2)  # it catches up with these
    async with system(url, handled.spec(partitioned=partitioned)) as running:
        await running.settled()
        assert handled.all_are([1, 2])
        for number in range(3, 8):
            await pay_all(store, number)  # live, and by another process
        ends = await store.last_positions()
        await until(lambda: len(handled.calls) == 7 * len(ACCOUNTS))
        assert handled.all_are(range(1, 8))
        await running.settled()
        count = 16 if partitioned is True else partitioned
        statistics = running.statistics().handlers
        assert sorted(statistics) == sorted(partition_name("mail", n, count) for n in range(1, count + 1))
        for name, each in statistics.items():
            _, number, _ = partition_in(name) or ("", 0, 0)
            assert each.position == ends[log_of_partition(number, LOGS)], "it has passed the end of its log"
            assert each.state == "live"
        await running.stop()
    shares = Counter(each for _, _, each, _ in handled.calls)
    assert shares == dict.fromkeys(ACCOUNTS, 7)
    assert len({(part, each) for _, part, each, _ in handled.calls}) == len(ACCOUNTS)
    checkpoints = await store.checkpoints()
    assert {log_of_position(each) for each in checkpoints.values()} == set(range(LOGS))


async def test_what_was_handled_is_not_handled_again_after_a_restart(
    url: str, store: EventStore, handled: Handled
) -> None:
    await pay_all(store, 1)
    async with system(url, handled.spec()) as running:
        await running.settled()
    await pay_all(store, 2)
    async with system(url, handled.spec()) as running:
        await running.settled()
    assert handled.all_are([1, 2])


async def test_a_handler_starts_at_the_end_or_at_a_time_of_each_log(
    url: str, store: EventStore, handled: Handled
) -> None:
    await pay_all(store, 1, 2)
    moment = max([recorded.event.timestamp async for recorded in store.read_all()])
    await pay_all(store, 3)
    late, timed = Handled(), Handled()
    specs = late.spec(name="late", start="latest"), timed.spec(name="timed", start=moment)
    async with system(url, *specs) as running:
        await pay_all(store, 4)
        await running.settled()
    assert late.all_are([4])
    last = [account for account in ACCOUNTS if timed.numbers_of(account) == [2, 3, 4]]
    assert 1 <= len(last) <= len(ACCOUNTS)
    assert all(timed.numbers_of(account) in ([3, 4], [2, 3, 4]) for account in ACCOUNTS)


async def test_higher_priorities_come_first_for_each_event(url: str, store: EventStore) -> None:
    order: list[tuple[str, str, int]] = []

    def spec(name: str, priority: EventPriority) -> HandlerSpec:
        async def handle(event: LogPaid) -> None:
            await asyncio.sleep(0)
            order.append((name, event.aggregate_id or "", event.number))

        return HandlerSpec(name, handle, start="earliest", partitioned=4, priority=priority)

    specs = [spec(priority.name, priority) for priority in reversed(EventPriority)]
    async with system(url, *specs) as running:
        await pay_all(store, 1, 2)
        await running.settled()
    for account in ACCOUNTS:
        for number in (1, 2):
            names = [name for name, *event in order if event == [account, number]]
            assert names == ["HIGH", "NORMAL", "LOW"]


async def test_a_slow_partition_delays_no_other_log(url: str, store: EventStore, handled: Handled) -> None:
    released = asyncio.Event()

    async def handle(event: LogPaid, context: HandlerContext) -> None:
        if context.handler == "slow@1of4":
            await released.wait()
        handled.calls.append(("a", context.handler, event.aggregate_id or "", event.number))

    async with system(url, HandlerSpec("slow", handle, start="earliest", partitioned=4)) as running:
        for number in range(1, 6):
            await pay_all(store, number)
        await until(lambda: _others_are_done(running))
        assert running.statistics().handlers["slow@1of4"].handled == 0
        released.set()
        await running.settled()
    assert handled.all_are(range(1, 6))


def _others_are_done(running: ActorSystem) -> bool:
    found = running.statistics().handlers
    done = sum(each.handled for each in found.values())
    return done == 5 * sum(1 for account in ACCOUNTS if _log_of(account) != 0)


def _log_of(account: str) -> int:
    return log_of_stream(StreamId("Account", account), LOGS)


async def test_nodes_share_the_partitions_and_each_has_one_holder(
    url: str, store: EventStore, handled: Handled
) -> None:
    await pay_all(store, 1)
    async with (
        system(url, handled.spec("a"), name="a") as one,
        system(url, handled.spec("b"), name="b") as two,
    ):
        number = 1
        while (
            Counter(_running(one)) + Counter(_running(two)) != Counter(_names(4)) or len(_running(one)) != 2
        ):
            number += 1
            await pay_all(store, number)
            await asyncio.sleep(0.05)
        await pay_all(store, number + 1)
        await one.settled()
        await two.settled()
        await two.stop()  # what it had continues here
        await pay_all(store, number + 2)
        await until(lambda: len(_running(one)) == 4)
        await one.settled()
    assert handled.all_are(range(1, number + 3))
    assert {name for name, *_ in handled.calls} == {"a", "b"}


def _names(count: int, name: str = "mail") -> list[str]:
    return [partition_name(name, number, count) for number in range(1, count + 1)]


def _running(running: ActorSystem) -> list[str]:
    found = running.statistics().handlers
    return [name for name, each in found.items() if each.state in ("live", "catching up", "handing over")]


async def test_a_node_reads_only_the_logs_whose_partitions_it_runs(
    url: str, store: EventStore, handled: Handled
) -> None:
    leases = [await store.lease(name) for name in _names(4)[1:]]
    async with system(url, handled.spec()) as running:
        await pay_all(store, 1, 2, 3)
        await running.settled()
        assert {_log_of(account) for _, _, account, _ in handled.calls} == {0}
        routers = routers_of_logs(running)
        assert [each.is_read for each in routers] == [True, False, False, False]
        assert [each.position for each in routers[1:]] == starts_of_logs(4)[1:]
        await store.save_progress(dict(zip(_names(4)[1:], (await store.last_positions())[1:], strict=True)))
        for lease in leases:
            assert lease is not None
            await lease.release()
        await until(lambda: len(_running(running)) == 4)
        await pay_all(store, 4)
        await running.settled()
    for account in ACCOUNTS:
        assert handled.numbers_of(account) == ([1, 2, 3, 4] if _log_of(account) == 0 else [4])


@pytest.mark.timeout(240)
async def test_partitions_of_a_killed_process_continue_elsewhere_and_lose_nothing() -> None:
    """Real processes on three logs, two partitions each; one is killed while events are recorded."""
    url = f"{await postgres().new_url()}&logs=3"
    async with open_store(url) as store:
        recorded: list[int] = []

        async def record(count: int) -> None:
            for _ in range(count):
                number = len(recorded)
                event = _balanced(number)
                recorded.extend(each.position for each in await store.append(event))
                await asyncio.sleep(0.002)

        await record(1)
        workers: list[Worker] = []
        for _ in range(3):
            workers.append(await started(url, "partitions"))
            recording = asyncio.create_task(record(60))
            await shares_are(store, workers)
            await recording
        recording = asyncio.create_task(record(150))
        await asyncio.sleep(0.1)
        await workers[0].kill()
        await shares_are(store, workers[1:])
        await recording
        while sum(each.lag for each in await HandlerControl(store).handlers(partitions=True)):  # noqa: ASYNC110 - others move it
            await asyncio.sleep(0.05)
        for worker in workers[1:]:
            await worker.end()
        assert {position for worker in workers for _, position in worker.handled} == set(recorded)
        for number in range(1, HANDLERS + 1):
            name = partition_name("h", number, HANDLERS)
            by_worker = [[at for handler, at in worker.handled if handler == name] for worker in workers]
            for positions in by_worker:
                assert positions == sorted(set(positions)), "in log order, and each at most once"
                assert {log_of_position(at) for at in positions} <= {log_of_partition(number, 3)}
            graceful = by_worker[1] + by_worker[2]
            assert len(graceful) == len(set(graceful)), "a partition that is given up leaves its checkpoint"


def _balanced(number: int) -> DomainEvent:
    return Balanced(number=number, aggregate_id=f"a{number % 25}", aggregate_type="Account")


# --- views ---


class LogSumsAgain(LogSums):
    version = 10


async def test_the_parts_of_a_view_count_each_event_once_and_are_read_as_one(
    url: str, store: EventStore
) -> None:
    await pay_all(store, 1)
    async with system(url, sums()) as running:
        await pay_all(store, 2)
        await running.settled()
        assert dict(await running.view(sums()).range()) == dict.fromkeys(ACCOUNTS, 3)
        assert await running.view(sums()).get("account-7") == 3
        assert [key for key, _ in await running.view(sums()).range(after="account-1", limit=3)] == sorted(
            ACCOUNTS
        )[2:5]
        await running.reset("sums", "earliest")
        await running.settled()
        assert dict(await running.view(sums()).range()) == dict.fromkeys(ACCOUNTS, 3)
        (whole,) = await running.handlers()
        assert (whole.view, whole.lag, whole.partitions) == ("sums@1.1", 0, 4)
    async with system(url, sums(LogSumsAgain)) as running:
        await pay_all(store, 3)
        await running.settled()
        assert dict(await running.view(sums(LogSumsAgain)).range()) == dict.fromkeys(ACCOUNTS, 60)


async def test_the_view_of_a_store_that_was_not_used_yet_is_read(url: str, store: EventStore) -> None:
    """How many partitions a view has follows from the number of logs, which the store then does not know."""
    spec = sums(partitioned=True)
    await pay_all(store, 1)
    async with system(url, spec) as running:
        await running.settled()
        assert len(running.statistics().handlers) == 16
    async with open_store(url) as other:
        assert await published_view(other, spec).get("account-3") == 1


async def test_view_is_built_anew_for_another_number_of_partitions(url: str, store: EventStore) -> None:
    await pay_all(store, 1)
    async with system(url, sums()) as running:
        await running.settled()
    async with system(url, sums(partitioned=8)) as running:
        await pay_all(store, 2)
        await running.settled()
        assert dict(await running.view(sums(partitioned=8)).range()) == dict.fromkeys(ACCOUNTS, 3)
    left = {each.partition("@")[2].partition("@")[0] for each in await store.checkpoints()}
    assert left == {f"{number}of8" for number in range(1, 9)}


# --- process managers ---


class LogOrder(Command[None]):
    number: int


class LogOrdered(DomainEvent):
    number: int


class LogNote(Command[None]):
    number: int


class LogNoted(DomainEvent):
    number: int


class LogShop(AggregateRoot):
    @handles
    def order(self, command: LogOrder) -> None:
        self.register_event(LogOrdered(number=command.number))

    def apply_logordered(self, event: LogOrdered) -> None: ...


class LogBook(AggregateRoot):
    @handles
    def note(self, command: LogNote) -> None:
        self.register_event(LogNoted(number=command.number))

    def apply_lognoted(self, event: LogNoted) -> None: ...


class LogFlow(ProcessManager):
    """A process gets events of several shops, so from several logs."""

    partitioned = True
    sends_to = (LogBook,)

    @reacts
    def ordered(self, event: LogOrdered) -> None:
        self.send(LogBook, self.id, LogNote(number=event.number))


async def test_a_process_gets_the_events_of_all_logs_once_and_those_of_one_aggregate_in_order(
    url: str,
) -> None:
    types = [LogShop, LogBook, LogFlow]
    async with (
        ActorSystem(url, aggregates=types, handlers=[LogFlow.handler(start="earliest")], name="a") as one,
        ActorSystem(url, aggregates=types, handlers=[LogFlow.handler(start="earliest")], name="b") as two,
    ):
        for number in range(60):
            command = LogOrder(number=number, correlation_id=f"flow-{number % 3}")
            await one.aggregate(LogShop, f"shop-{number % 10}").ask(command)
        await one.settled()
        await two.settled()
        noted: list[int] = []
        for flow in range(3):
            events = await one.store.get_events(f"flow-{flow}", aggregate_type="LogBook")
            found = [event.number for event in events if isinstance(event, LogNoted)]
            noted += found
            for shop in range(10):
                of_shop = [number for number in found if number % 10 == shop]
                assert of_shop == sorted(of_shop)
        assert sorted(noted) == [*range(60)]


# --- operators ---


async def test_operators_see_a_handler_over_all_logs(url: str, store: EventStore, handled: Handled) -> None:
    await pay_all(store, 1)
    async with system(url, handled.spec()) as running:
        await running.settled()
        await running.pause("mail@2of4")
        await pay_all(store, 2, 3)
        await running.settled()
        lag = 2 * sum(_log_of(account) == 1 for account in ACCOUNTS)
        (whole,) = await running.handlers()
        assert (whole.name, whole.partitions, whole.lag, whole.dead_letters) == ("mail", 4, lag, 0)
        assert log_of_position(whole.position) == 1, "that of the partition with the greatest lag"
        assert [each.lag for each in await running.handlers(partitions=True)] == [0, lag, 0, 0]
        await running.pause("mail")
        await pay_all(store, 4)
        (whole,) = await running.handlers()
        assert whole.lag == lag + len(ACCOUNTS), "the lags of all logs are added up"
        await running.resume("mail")
        await running.settled()
    assert handled.all_are([1, 2, 3, 4])


async def test_a_handler_is_reset_and_replayed_in_each_of_its_logs(
    url: str, store: EventStore, handled: Handled
) -> None:
    await pay_all(store, 1)
    moment = max([recorded.event.timestamp async for recorded in store.read_all()])
    await asyncio.sleep(0.002)
    await pay_all(store, 2)
    async with system(url, handled.spec()) as running:
        await running.settled()
        await running.reset("mail", "earliest")
        await running.settled()
        assert handled.all_are([1, 2, 1, 2])
        handled.calls.clear()
        await running.reset("mail@1of4", "earliest")
        await running.settled()
        assert all(
            handled.numbers_of(account) == ([1, 2] if _log_of(account) == 0 else []) for account in ACCOUNTS
        )
        handled.calls.clear()
        await running.reset("mail", moment)
        await running.settled()
        assert {number for *_, number in handled.calls} <= {1, 2}
        assert all(handled.numbers_of(account)[-1:] == [2] for account in ACCOUNTS)
        handled.calls.clear()
        (end, *_) = await store.last_positions()
        with pytest.raises(InvalidReset, match="one of 4 logs.*such as 'mail@1of4'"):
            await running.reset("mail", end - 1)
        with pytest.raises(InvalidReset, match="such as 'mail@1of4'"):
            await running.reset("mail@3of4", end - 1)
        assert await running.reset("mail@1of4", end - 1) == end - 1
        await running.settled()
        assert len(handled.calls) == 1


async def test_dead_letters_of_all_logs_are_retried(url: str, store: EventStore, handled: Handled) -> None:
    handled.fails = True
    async with system(url, handled.spec(max_attempts=1)) as running:
        await pay_all(store, 1)
        await until(lambda: _letters_are(store, len(ACCOUNTS)))
        handled.fails = False
        assert await running.retry_dead_letters("mail") == len(ACCOUNTS)
        await until(lambda: has_no_dead_letters(store))
    assert handled.all_are([1])


async def _letters_are(store: EventStore, count: int) -> bool:
    return len(await store.dead_letters()) == count


async def test_a_handler_with_another_number_of_partitions_continues_in_each_log(
    url: str, store: EventStore, handled: Handled
) -> None:
    handled.fails = True
    await pay_all(store, 1)
    async with system(url, handled.spec(max_attempts=1)):
        await until(lambda: _letters_are(store, len(ACCOUNTS)))
    handled.fails = False
    await pay_all(store, 2)
    async with system(url, handled.spec(partitioned=8)) as running:
        await running.settled()
        assert handled.all_are([2])
        assert await running.retry_dead_letters("mail") == len(ACCOUNTS)
        await until(lambda: has_no_dead_letters(store))
    assert handled.all_are([2, 1])
    assert sorted(await store.checkpoints()) == _names(8)


async def test_commands_show_and_reset_handlers_by_log(url: str, store: EventStore, handled: Handled) -> None:
    await pay_all(store, 1, 2)
    async with system(url, handled.spec()) as running:
        await running.settled()
    listed = await asyncio.to_thread(_said, "handlers", "list", "--store", url, "--partitions")
    assert all(f"mail@{number}of4" in listed for number in range(1, 5))
    said = await asyncio.to_thread(_said, "handlers", "replay", "mail", "--store", url)
    total = 2 * len(ACCOUNTS)
    assert said == f"mail: continues after a position of each of 4 logs: {total} positions handled again\n"
    async with system(url, handled.spec()) as running:
        await running.settled()
    assert handled.all_are([1, 2, 1, 2])


def _said(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, [*arguments])
    assert not result.exit_code, result.output + repr(result.exception)
    return result.output


def test_a_configuration_keeps_saying_that_a_handler_is_partitioned() -> None:
    """The number of partitions is that of the store, not one that the program has chosen."""
    running = ActorSystem(aggregates=[], handlers=[_Letters])
    assert "partitioned" not in running.to_config(), "the class says it"
    (default, *_) = inspect(running).supervisors
    assert len(default.specs) == 16


class _Letters(EventHandler[LogPaid]):
    partitioned = True

    async def handle(self, event: LogPaid) -> None: ...
