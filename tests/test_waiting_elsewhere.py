"""Callers wait for handlers that other nodes and processes run, which answer when they have handled the events."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import nodes_on
from tests.faults import waits_kept
from tests.new_stores import new_store_url
from tests.postgres import postgres
from tests.test_waiting_for_handlers import EVENTS, Amounts, Gate, Shelf, Stock, Stocked, of
from tests.waiting import ManualClock, turns, until
from tests.waiting_worker import Awaited
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    EventRegistry,
    EventSetAside,
    NotHandled,
    WaitTimeout,
    handles,
)
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.system import handlers_elsewhere
from uno_stores import InMemoryEventStore

ROOT = Path(__file__).parent.parent


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The safety net looks once, before the handler has begun, and never again: only an answer can end a wait."""
    monkeypatch.setattr(handlers_elsewhere, "LOOK_EVERY", 1e6)


def gated(gate: Gate, name: str = "there", **options: Any) -> HandlerSpec:
    return HandlerSpec(name, gate, event_type=Stocked, **options)


@asynccontextmanager
async def two_nodes(*handlers: object, **options: Any) -> AsyncIterator[tuple[ActorSystem, ActorSystem]]:
    """A node that runs the handlers, and one that runs none."""
    store, network = InMemoryEventStore(EVENTS), MemoryNetwork()
    first = {"cluster": {"name": "runs"}, "handlers": handlers, "aggregates": [Shelf]} | options
    async with nodes_on(store, network, "a", **first) as (runs,):
        other = {"cluster": {"name": "asks"}, "handlers": [], "aggregates": [Shelf]} | options
        async with nodes_on_too(store, network, runs, **other) as asks:
            yield runs, asks


@asynccontextmanager
async def nodes_on_too(
    store: InMemoryEventStore, network: MemoryNetwork, runs: ActorSystem, **options: Any
) -> AsyncIterator[ActorSystem]:
    from tests.cluster.nodes import all_see, system_on

    async with system_on(store, network, "b", **options) as asks:
        await all_see([runs, asks])
        yield asks


# --- nodes of a cluster ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_looks")
async def test_a_handler_on_another_node_ends_the_wait_by_its_answer() -> None:
    gate = Gate(is_open=False)
    async with two_nodes(gated(gate)) as (runs, asks):
        for system in (runs, asks):
            gate.open.clear()
            gate.began.clear()
            name = an_id_owned_by_shelf(system)
            reply = asks.aggregate(Shelf, name).ask(Stock(amount=1), wait_for="there")
            await gate.began.wait()
            await until(lambda: waits_kept(runs))
            assert not reply.done()
            gate.open.set()
            assert await reply == 1
            assert reply.position == await asks.store.last_position()


def an_id_owned_by_shelf(system: ActorSystem) -> str:
    number = 0
    while True:
        owner = system.cluster.owner(Shelf, f"shelf-{number}")
        if owner is not None and system.cluster.name == owner.name:
            return f"shelf-{number}"
        number += 1


def waits_of(system: ActorSystem) -> int:
    from tests.faults import waits_kept

    return waits_kept(system)


@pytest.mark.usefixtures("no_looks")
async def test_the_position_of_a_command_that_another_node_has_handled_comes_with_its_reply() -> None:
    async with two_nodes() as (runs, asks):
        name = an_id_owned_by_shelf(runs)
        there, here = (system.aggregate(Shelf, name).ask(Stock(amount=1)) for system in (asks, runs))
        assert sorted([await there, await here]) == [1, 2]
        assert {there.position, here.position} == {1, 2}
        again = asks.aggregate(Shelf, name).ask(Stock(amount=5, command_id="once"))
        await again
        repeated = asks.aggregate(Shelf, name).ask(Stock(amount=5, command_id="once"))
        await repeated
        assert (repeated.position, repeated.token) == (again.position, again.token) != (None, None)


@pytest.mark.usefixtures("no_looks")
async def test_how_the_handler_of_another_node_ends_a_wait_is_told_there() -> None:
    gate = Gate(fails_for=13)
    async with two_nodes(gated(gate, max_attempts=1)) as (runs, asks):
        with pytest.raises(EventSetAside) as aside:
            await asks.aggregate(Shelf, "a").ask(Stock(amount=13), wait_for="there")
        assert aside.value.reply == 13
        await runs.pause("there")
        with pytest.raises(NotHandled, match="it is paused"):
            await asks.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="there")
        await runs.resume("there")
        assert await asks.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="there") == 15


@pytest.mark.usefixtures("no_looks")
async def test_a_wait_for_a_node_that_does_not_answer_ends_with_its_time() -> None:
    gate = Gate(is_open=False)
    async with two_nodes(gated(gate)) as (_, asks):
        with pytest.raises(WaitTimeout, match="there runs in another process"):
            await asks.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="there", wait_timeout=0.05)
        gate.open.set()


@pytest.mark.usefixtures("no_looks")
async def test_a_node_that_takes_the_handler_over_ends_the_wait_that_began_for_another() -> None:
    """The holder ends between the command and its event; the asker itself takes the handler over."""
    store, network = InMemoryEventStore(EVENTS), MemoryNetwork()
    stuck, takes = Gate(is_open=False), Gate()
    options: dict[str, Any] = {"aggregates": [Shelf]}
    async with (
        nodes_on(store, network, "a", handlers=[gated(stuck)], **options) as (holder,),
        nodes_on_too(store, network, holder, handlers=[gated(takes)], **options) as other,
    ):
        await until(lambda: states(holder) | states(other) == {"live", "standby"})
        runs, asks = (holder, other) if states(holder) == {"live"} else (other, holder)
        gate, free = (stuck, takes) if runs is holder else (takes, stuck)
        gate.open.clear()
        reply = asks.aggregate(Shelf, an_id_owned_by_shelf(asks)).ask(Stock(amount=1), wait_for="there")
        await gate.began.wait()
        free.open.set()
        await runs.stop(timeout=0.1)
        assert await reply == 1


def states(system: ActorSystem) -> set[str]:
    return {each.state for each in system.statistics().handlers.values()}


@pytest.mark.usefixtures("no_looks")
async def test_the_partitions_of_a_handler_are_waited_for_on_the_nodes_that_run_them() -> None:
    spec = HandlerSpec("parted", Amounts, partitioned=4)
    store, network = InMemoryEventStore(EVENTS), MemoryNetwork()
    options: dict[str, Any] = {"aggregates": [Shelf], "handlers": [spec]}
    async with nodes_on(store, network, "ab", **options) as (a, b):
        await until(lambda: [*states_of(a), *states_of(b)].count("live") == 4 and "live" in states_of(b))
        for number in range(16):
            reply = a.aggregate(Shelf, f"shelf-{number}").ask(Stock(amount=3), wait_for=spec)
            assert await reply == 3
            assert await b.view(spec).get(f"shelf-{number}") == 3


def states_of(system: ActorSystem) -> list[str]:
    return [each.state for each in system.statistics().handlers.values()]


# --- systems and processes without a cluster ---------------------------------------------------------------


@pytest.mark.usefixtures("no_looks")
async def test_another_system_on_the_store_in_this_process_answers_too() -> None:
    store, gate = InMemoryEventStore(EVENTS), Gate(is_open=False)
    async with of(store, gated(gate), name="runs"), of(store, name="asks", clock=ManualClock()) as asks:
        reply = asks.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="there")
        await gate.began.wait()
        await turns()
        assert not reply.done()
        gate.open.set()
        assert await reply == 1


async def test_a_wait_that_is_cancelled_is_forgotten_by_the_system_that_was_asked() -> None:
    """However long it might have lasted: a page may be closed long before the time for its request is over."""
    store = InMemoryEventStore(EVENTS)
    async with of(store, gated(Gate(is_open=False)), name="runs") as runs, of(store, name="asks") as asks:
        await asks.aggregate(Shelf, "a").ask(Stock(amount=1))
        for _ in range(300):
            waiting = asyncio.ensure_future(asks.wait_for("there", 1, timeout=3600))
            asked = waits_kept(runs)
            await until(lambda asked=asked: waits_kept(runs) > asked)
            waiting.cancel()
            await asyncio.wait({waiting})
        assert waits_kept(runs) < 130


async def test_a_system_that_stops_ends_its_waits_for_handlers_of_others() -> None:
    store, gate = InMemoryEventStore(EVENTS), Gate(is_open=False)
    async with of(store, gated(gate), name="runs"):
        async with of(store, name="asks") as asks:
            reply = asks.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="there")
            await gate.began.wait()
        with pytest.raises(NotHandled, match="system 'asks' has stopped"):
            await reply
        gate.open.set()


async def test_a_handler_that_has_run_and_runs_nowhere_now_is_an_error_at_once() -> None:
    store = InMemoryEventStore(EVENTS)
    async with of(store, gated(Gate()), Amounts) as system:
        await system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=("there", Amounts))
    async with of(store, clock=ManualClock()) as system:
        for gone in ("there", Amounts):
            await system.wait_for(gone, 1)  # it has come there before
            with pytest.raises(NotHandled, match="no process runs it"):
                await system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=gone)


async def test_the_store_is_looked_at_where_no_process_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers_elsewhere, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(handlers_elsewhere.HandlersElsewhere, "peers", lambda *_: ())
    store, gate = InMemoryEventStore(EVENTS), Gate(is_open=False, fails_for=13)
    async with of(store, gated(gate, max_attempts=1), Amounts, name="runs"), of(store, name="asks") as asks:
        reply = asks.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=("there", Amounts))
        await gate.began.wait()
        gate.open.set()
        assert await reply == 1
        with pytest.raises(EventSetAside):
            await asks.aggregate(Shelf, "a").ask(Stock(amount=13), wait_for="there")


class Await(Command[int]):
    number: int


class Awaiting(AggregateRoot):
    @handles
    def record(self, command: Await) -> int:
        self.register_event(Awaited(number=command.number))
        return command.number

    def apply_awaited(self, event: Awaited) -> None:
        pass


class Worker:
    """A process of `tests.waiting_worker`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def says(self, word: str) -> None:
        assert self.process.stdout is not None
        while (line := await self.process.stdout.readline()).decode().strip() != word:
            assert line

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[Worker]:
    command = [sys.executable, "-m", "tests.waiting_worker", url]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    try:
        its = Worker(process)
        await its.says("running")
        yield its
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("engine", ["lmdb", "sqlite", "postgres"])
async def test_another_process_without_a_cluster_answers_when_its_handler_has_come_there(
    engine: str, tmp_path: Path
) -> None:
    url = await new_store_url(engine, tmp_path)
    registry = EventRegistry([Awaited])
    async with (
        ActorSystem(url, aggregates=[Awaiting], handlers=[], event_registry=registry) as asks,
        worker(url) as there,
    ):
        for number, error in ((1, None), (13, EventSetAside)):
            reply = asks.aggregate(Awaiting, "a").ask(Await(number=number), wait_for="there")
            await there.says("began")
            assert not reply.done()
            there.go_on()
            if error is None:
                assert await reply == number
            else:
                with pytest.raises(error):
                    await reply
        reply = asks.aggregate(Awaiting, "a").ask(Await(number=2), wait_for="there", wait_timeout=1)
        await there.says("began")
        there.process.kill()
        with pytest.raises(NotHandled) as killed:
            await reply
        assert killed.value.reply == 2
        with pytest.raises(NotHandled, match="no process runs it"):
            await asks.aggregate(Awaiting, "a").ask(Await(number=3), wait_for="there")


# --- several logs ------------------------------------------------------------------------------------------


async def test_each_log_has_its_positions_and_its_partitions_are_waited_for() -> None:
    url = f"{await postgres().new_url()}&logs=4"
    spec = HandlerSpec("parted", Amounts, partitioned=4)
    async with ActorSystem(url, aggregates=[Shelf], handlers=[spec], event_registry=EVENTS) as system:
        replies = []
        for number in range(12):
            reply = system.aggregate(Shelf, f"shelf-{number}").ask(Stock(amount=3), wait_for=spec)
            assert await reply == 3
            assert await system.view(spec).get(f"shelf-{number}") == 3
            replies.append(reply)
        tokens = ", ".join(reply.token or "" for reply in replies)
        await system.wait_for(spec, tokens)
        with pytest.raises(ValueError, match="is not a position in this store"):
            await system.wait_for(spec, 7)
