"""Systems on one store spread their handlers over all of them, and lose no event while handlers move."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.bank import BankStore, Credited, credited
from tests.waiting import ManualClock, until
from uno_actors import ActorSystem, HandlerContext, Projection
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.cluster.settings import Cluster
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.membership import Member

NAMES = [f"h{number}" for number in range(6)]


class Recorder:
    """Notes which system handled which event; a handler may be held up in the middle of one."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, str, int]] = []
        self.hold: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []

    def spec(self, system: str, handler: str, **options: Any) -> HandlerSpec:
        async def handle(event: Credited, context: HandlerContext) -> None:
            self.begun.append(handler)
            if handler in self.hold:
                await self.hold[handler].wait()
            self.handled.append((system, handler, context.position))

        return HandlerSpec(handler, handle, start="earliest", **options)

    def positions(self, handler: str) -> list[int]:
        return [position for _, name, position in self.handled if name == handler]


@pytest.fixture
def store() -> BankStore:
    return BankStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def system(
    store: BankStore, clock: ManualClock, name: str, specs: Sequence[HandlerSpec], **options: Any
) -> ActorSystem:
    return ActorSystem(store, name=name, aggregates=[], handlers=specs, clock=clock, **options)


def held(running: ActorSystem) -> list[str]:
    states = running.statistics().handlers
    return sorted(name for name, each in states.items() if each.state in ("live", "catching up"))


def standing_by(running: ActorSystem) -> list[str]:
    return sorted(name for name, each in running.statistics().handlers.items() if each.state == "standby")


async def balanced(clock: ManualClock, systems: Sequence[ActorSystem], names: Sequence[str] = NAMES) -> None:
    """Wait until each handler is held once, and no system has more than one more than another."""

    def is_so() -> bool:
        counts = [len(held(each)) for each in systems]
        every = sorted(name for each in systems for name in held(each))
        return max(counts) - min(counts) <= 1 and every == sorted(names)

    await clock.advance_until(is_so)


async def test_the_first_system_takes_all_handlers_at_its_start(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    async with system(store, clock, "a", [recorder.spec("a", name) for name in NAMES]) as first:
        assert held(first) == NAMES
        clock.advance(60)
        await until(lambda: held(first) == NAMES)


async def test_systems_that_join_and_leave_share_the_handlers_and_lose_no_event(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    async with AsyncExitStack() as stack:
        running = []
        for count, name in enumerate("abc", 1):
            started = system(store, clock, name, [recorder.spec(name, handler) for handler in NAMES])
            running.append(await stack.enter_async_context(started))
            await store.append(*credited(count))
            await balanced(clock, running)
            await store.append(*credited(count))
            await clock.advance_until(lambda: len(recorder.handled) >= 12 * len(running))
        await running[0].stop()
        await store.append(*credited(7))
        await balanced(clock, running[1:])
        await clock.advance_until(lambda: len(recorder.handled) >= 7 * 6)
    for handler in NAMES:
        assert recorder.positions(handler) == list(range(1, 8))
    assert len({name for name, _, _ in recorder.handled}) == 3


async def test_handler_is_given_up_only_when_the_nodes_have_not_changed_for_a_renewal(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    """A system that comes and goes within less moves nothing."""
    async with system(store, clock, "a", [recorder.spec("a", name) for name in NAMES]) as first:
        clock.advance(5)
        moved = []
        for number in range(5):
            name = f"b{number}"
            async with system(store, clock, name, [recorder.spec(name, handler) for handler in NAMES]):
                for _ in range(15):
                    clock.advance(0.1)
                    await asyncio.sleep(0.002)
                    moved += standing_by(first)
        assert moved == []


async def test_handler_moves_between_two_events_and_neither_twice_nor_never(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    recorder.hold = {name: asyncio.Event() for name in NAMES}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            system(store, clock, "a", [recorder.spec("a", name) for name in NAMES])
        )
        await store.append(*credited(*range(1, 6)))
        await until(lambda: len(recorder.begun) == 6)
        second = await stack.enter_async_context(
            system(store, clock, "b", [recorder.spec("b", name) for name in NAMES])
        )

        def states() -> Counter[str]:
            return Counter(each.state for each in first.statistics().handlers.values())

        await clock.advance_until(lambda: states()["handing over"] == 3)
        clock.advance(3)
        await asyncio.sleep(0.05)
        assert held(second) == []  # they are in the middle of an event
        assert recorder.handled == []
        for event in recorder.hold.values():
            event.set()
        await balanced(clock, [first, second])
        await clock.advance_until(lambda: len(recorder.handled) >= 30)
    for name in NAMES:
        assert recorder.positions(name) == [1, 2, 3, 4, 5]


async def test_handler_stays_while_attempts_at_an_event_are_counted(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    """Otherwise each move would begin the count again, and a poison event would never be set aside."""
    attempts: list[tuple[str, int]] = []

    def specs(name: str) -> list[HandlerSpec]:
        def poison(handler: str) -> HandlerSpec:
            async def handle(event: Credited, context: HandlerContext) -> None:
                attempts.append((handler, context.attempt))
                raise ValueError("poison")

            return HandlerSpec(handler, handle, start="earliest", max_attempts=8)

        return [poison(handler) for handler in NAMES]

    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(system(store, clock, "a", specs("a")))
        await store.append(*credited(1))
        await clock.advance_until(lambda: len({handler for handler, _ in attempts}) == 6)
        for name in NAMES:
            await first.pause(name)
        second = await stack.enter_async_context(system(store, clock, "b", specs("b")))
        for _ in range(60):  # longer than a handler waits that may move
            clock.advance(0.1)
            await asyncio.sleep(0.002)
        for name in NAMES:
            await first.resume(name)
        await balanced(clock, [first, second])
        await clock.advance_until(lambda: len(attempts) >= 48)
    for name in NAMES:
        assert [attempt for handler, attempt in attempts if handler == name] == list(range(1, 9))
    assert len(await store.dead_letters()) == 6


async def test_paused_handlers_and_requests_move_too(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            system(store, clock, "a", [recorder.spec("a", name) for name in NAMES])
        )
        for name in NAMES:
            await first.pause(name)
        await store.append(*credited(1, 2))
        second = await stack.enter_async_context(
            system(store, clock, "b", [recorder.spec("b", name) for name in NAMES])
        )
        await clock.advance_until(lambda: len(standing_by(first)) == 3 and len(standing_by(second)) == 3)
        assert recorder.handled == []
        for name in NAMES:
            await second.resume(name)
        await clock.advance_until(lambda: len(recorder.handled) == 12)
        assert {name for name, _, _ in recorder.handled} == {"a", "b"}


class Sums(Projection[Credited, str]):
    """Counts each event once."""

    async def handle(self, event: Credited) -> None:
        self.view.put("sum", await self.view.get("sum", 0) + event.amount)
        await asyncio.sleep(0)


async def test_views_count_each_event_once_though_their_projections_move(
    store: BankStore, clock: ManualClock
) -> None:
    specs = [HandlerSpec(f"view-{number}", Sums) for number in range(4)]
    names = [spec.name for spec in specs]
    await store.append(*credited(*[1] * 500))
    async with AsyncExitStack() as stack:
        running = []
        for name in "abc":
            running.append(await stack.enter_async_context(system(store, clock, name, specs)))
            await store.append(*credited(*[1] * 300))
            await balanced(clock, running, names)
        await store.append(*credited(*[1] * 100))
        for each in running:
            await each.settled()
        for spec in specs:
            assert await running[0].view(spec).get("sum") == 1500


async def test_node_that_runs_a_handler_is_shown(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(
                system(store, clock, name, [recorder.spec(name, handler) for handler in NAMES])
            )
            for name in "ab"
        ]
        await balanced(clock, running)
        shown: dict[str, str | None] = {}
        while Counter(str(node)[0] for node in shown.values()) != {"a": 3, "b": 3}:
            clock.advance(0.5)
            await asyncio.sleep(0.01)
            shown = {info.name: info.node for info in await running[0].handlers()}
        for each in running:
            assert {name for name, node in shown.items() if str(node).startswith(f"{each.name}@")} == set(
                held(each)
            )


async def test_lease_that_its_node_does_not_take_is_taken_by_another_and_kept(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    """A node that announces handlers and cannot run them must not make them go to and fro."""
    async with system(store, clock, "a", [recorder.spec("a", name) for name in NAMES]) as first:
        ghost = store.membership(1000.0, clock)
        assert ghost is not None
        await ghost.announce(Member(id="ghost", name="ghost", handlers=tuple(NAMES), roles=("handlers",)))
        await clock.advance_until(lambda: len(standing_by(first)) == 3)
        await clock.advance_until(lambda: held(first) == NAMES)
        for _ in range(100):
            clock.advance(0.2)
            await asyncio.sleep(0.001)
            assert held(first) == NAMES


async def test_node_without_the_role_runs_no_handlers(
    store: BankStore, clock: ManualClock, recorder: Recorder
) -> None:
    network = MemoryNetwork()
    specs = {name: [recorder.spec(name, handler) for handler in NAMES] for name in "ab"}
    apart = system(store, clock, "a", specs["a"], cluster=Cluster(listen=network, roles=("aggregates",)))
    async with (
        apart as commands,
        system(store, clock, "b", specs["b"], cluster=Cluster(listen=network)) as handlers,
    ):
        clock.advance(30)
        await asyncio.sleep(0.05)
        assert (held(commands), held(handlers)) == ([], NAMES)
