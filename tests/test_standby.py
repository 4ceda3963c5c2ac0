"""A handler is active under one lease at a time; the other system stands by and takes over."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from tests.bank import BankStore, Credited, credited
from tests.machine import patience
from tests.waiting import ManualClock, turns, until
from uno_actors import ActorSystem, HandlerContext, Supervisor, subscribe
from uno_actors.handlers.spec import EventHandler
from uno_actors.store.port import Lease
from uno_actors.testing import inspect

Handled = list[tuple[str, int]]
System = Callable[[str], ActorSystem]


@pytest.fixture
def handled() -> Handled:
    """Which system has handled the event of which position."""
    return []


@pytest.fixture
def store() -> BankStore:
    return BankStore()


def system(store: BankStore, name: str, handled: Handled, start: str = "earliest") -> ActorSystem:
    @subscribe(event_type=Credited, name="mail", start=start)
    async def mail(event: Credited, context: HandlerContext) -> None:
        handled.append((name, context.position))

    return ActorSystem(store, name=name, aggregates=[], handlers=[mail], clock=ManualClock())


async def pass_time(running: ActorSystem, condition: Callable[[], object]) -> None:
    clock = inspect(running).settings.clock
    assert isinstance(clock, ManualClock)
    await clock.advance_until(condition)


async def is_free(store: BankStore) -> bool:
    return not await store.is_leased("mail")


def state(running: ActorSystem) -> str:
    return running.statistics().handlers["mail"].state


async def test_second_system_stands_by_and_handles_nothing(store: BankStore, handled: Handled) -> None:
    async with system(store, "first", handled) as first, system(store, "second", handled) as second:
        await store.append(*credited(1, 2, 3))
        await first.settled()
        await second.settled(timeout=patience(1))  # which does not wait for what others handle
        await pass_time(second, lambda: inspect(second).router_position == 3)
        assert (state(first), state(second)) == ("live", "standby")
        assert second.statistics().handlers["mail"].handled == 0
        assert handled == [("first", 1), ("first", 2), ("first", 3)]


async def test_stand_by_leaves_the_checkpoint_alone(store: BankStore, handled: Handled) -> None:
    async with system(store, "first", handled) as first:
        second = system(store, "second", handled)
        await second.start()
        await store.append(*credited(1, 2, 3))
        await first.settled()
        await pass_time(first, lambda: store.saved.get("mail") == 3)
        await asyncio.wait_for(second.stop(), patience(5))
        assert store.saved == {"mail": 3}
    assert store.saved == {"mail": 3}


@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_second_takes_over_where_the_first_has_left_off(
    store: BankStore, handled: Handled, start: str
) -> None:
    first, second = system(store, "first", handled, start), system(store, "second", handled, start)
    await first.start()
    await second.start()
    await store.append(*credited(1, 2))
    await first.settled()
    await first.stop()
    await store.append(*credited(3))
    await pass_time(second, lambda: state(second) == "live")
    await second.settled()
    await store.append(*credited(4))
    await second.settled()
    assert handled == [("first", 1), ("first", 2), ("second", 3), ("second", 4)]
    await second.stop()
    assert store.saved == {"mail": 4}
    assert not await store.is_leased("mail")


async def test_lease_is_looked_for_once_a_second_only_while_it_is_missing(
    store: BankStore, handled: Handled
) -> None:
    asked: list[str] = []
    take = store.lease

    def lease(name: str) -> Awaitable[Lease | None]:
        asked.append(name)
        return take(name)

    store.lease = lease  # type: ignore[method-assign,assignment]
    first, second = system(store, "first", handled), system(store, "second", handled)
    await first.start()
    await second.start()
    asked.clear()
    clock = inspect(second).settings.clock
    assert isinstance(clock, ManualClock)
    for seconds in range(1, 5):
        clock.advance(1.0)
        await until(lambda: len(asked) == seconds)  # noqa: B023 - awaited at once
        await asyncio.sleep(0)
    await first.stop()
    await pass_time(second, lambda: state(second) == "live")
    asked.clear()
    clock.advance(10.0)
    await turns()
    assert asked == []
    await second.stop()


async def test_take_over_that_fails_gives_the_lease_back_and_is_tried_again(
    store: BankStore, handled: Handled
) -> None:
    first, second = system(store, "first", handled), system(store, "second", handled)
    await first.start()
    await second.start()
    await first.stop()
    failures = 2
    read = store.checkpoints

    async def checkpoints() -> dict[str, int]:
        nonlocal failures
        if failures:
            failures -= 1
            raise ConnectionError("not now")
        return await read()

    store.checkpoints = checkpoints  # type: ignore[method-assign]
    await store.append(*credited(1))
    await pass_time(second, lambda: failures == 1)
    await until(lambda: is_free(store))
    assert state(second) == "standby"
    await pass_time(second, lambda: handled == [("second", 1)])
    await second.stop()


async def test_system_that_does_not_start_gives_its_leases_back(store: BankStore, handled: Handled) -> None:
    class Fails(EventHandler[Credited]):
        def __init__(self) -> None:
            super().__init__()
            raise ZeroDivisionError

        async def handle(self, event: Credited) -> None: ...

    with pytest.raises(ZeroDivisionError):
        await ActorSystem(
            store,
            aggregates=[],
            handlers=[],
            supervisors=[Supervisor("s", children=[subscribe(name="mail")(Fails)])],
        ).start()
    assert not await store.is_leased("mail")
    async with system(store, "next", handled) as running:
        assert state(running) == "live"


async def test_new_handler_begins_nothing_while_another_has_its_lease(
    store: BankStore, handled: Handled
) -> None:
    saved: list[Mapping[str, int]] = []
    save = store.save_progress

    async def save_progress(checkpoints: Mapping[str, int], dead_letters: tuple[()] = ()) -> None:
        saved.append(checkpoints)
        await save(checkpoints, dead_letters)

    store.save_progress = save_progress  # type: ignore[method-assign,assignment]
    lease = await store.lease("mail")
    async with system(store, "second", handled, "latest") as second:
        assert state(second) == "standby"
        await store.append(*credited(1))
        assert lease is not None
        assert saved == []
        await lease.release()  # its holder ended before it had begun
        await pass_time(second, lambda: handled == [("second", 1)])  # "latest" is when this system started
