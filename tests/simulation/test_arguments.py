"""What `simulate` and a world are given by mistake is refused, and what may be given works."""

import asyncio
import unittest
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.bank import EVENTS, Account, Credit
from uno_actors import ActorSystem
from uno_actors.testing.simulation import (
    InvariantBroken,
    Node,
    NotSimulated,
    SimulationFailed,
    World,
    simulate,
    simulated,
)


def make(node: Node) -> ActorSystem:
    return ActorSystem(node.store, aggregates=[Account], handlers=[])


async def one_node(world: World) -> None:
    await world.node("a", make)
    await world.ask(Account, "x", Credit(amount=1))


async def nothing(world: World) -> None: ...


def plain(world: World) -> None: ...


async def without_world() -> None: ...


async def with_more(world: World, count: int) -> None:
    for _ in world.commands(count):
        await one_node(world)


async def generator(world: World) -> Any:
    yield


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (partial(simulate, without_world), TypeError, r"takes the world and nothing else.*without_world\(\)"),
        (partial(simulate, with_more), TypeError, "takes the world and nothing else.*functools.partial"),
        (partial(simulate, generator), TypeError, "is a generator: remove its yield"),
        (partial(simulate, nothing, 0), ValueError, "no seed to run.*found 0"),
        (partial(simulate, nothing, []), ValueError, "no seed to run"),
        (partial(simulate, nothing, -3), ValueError, "no seed to run.*found -3"),
        (partial(simulate, nothing, "3"), TypeError, "seeds is a number of seeds.*found '3'"),
        (partial(simulate, nothing, faults=-1), ValueError, "faults is a number of faults.*found -1"),
        (partial(simulate, nothing, faults="2"), TypeError, "faults is a number of faults.*found '2'"),
        (partial(simulate, nothing, within=0), ValueError, "within is a number of seconds above 0; found 0"),
        (partial(simulate, nothing, within="1m"), TypeError, "within is a number of seconds.*found '1m'"),
        (partial(simulate, nothing, invariants=nothing), TypeError, "invariants is a list of functions"),
        (partial(simulate, nothing, invariants=["x"]), TypeError, "an invariant is a function.*found 'x'"),
        (partial(simulated, 0), ValueError, "no seed to run"),
        (partial(simulated, nothing), TypeError, "seeds is a number of seeds"),
    ],
    ids=lambda value: value.func.__name__ if isinstance(value, partial) else None,
)
def test_a_mistake_is_refused_before_the_first_run(
    call: Callable[[], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        call()
    assert type(raised.value) is error


def test_a_number_stands_for_so_many_seeds() -> None:
    assert simulate(nothing, 3, faults=0).runs == 3
    assert simulate(nothing, {5: "a", 7: "b"}, faults=0).runs == 2


def failure(scenario: Any, **options: Any) -> SimulationFailed:
    with pytest.raises(SimulationFailed) as failed:
        simulate(scenario, [1], faults=0, event_registry=EVENTS, **options)
    return failed.value


def test_a_plain_function_is_no_scenario() -> None:
    assert "a scenario is a coroutine function" in str(failure(plain))


@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError("mine"), GeneratorExit(), BaseException("b")]
)
def test_a_scenario_that_ends_by_any_error_has_failed(error: BaseException) -> None:
    async def scenario(world: World) -> None:
        await one_node(world)
        raise error

    failed = failure(scenario)
    assert failed.run.error is error
    assert "To repeat it" in str(failed)


async def fails() -> None:
    raise ValueError("the barrier is stuck")


def test_the_line_of_an_error_is_told_also_of_those_in_a_group() -> None:
    async def asserts(world: World) -> None:
        assert world.seed == "another"

    async def groups(world: World) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())

    line = asserts.__code__.co_firstlineno + 1
    assert f", at {__file__}:{line} in asserts\n" in str(failure(asserts))
    error = f"ValueError: the barrier is stuck, at {__file__}:{fails.__code__.co_firstlineno + 1} in fails\n"
    assert f"(1 sub-exception); {error}" in str(failure(groups))


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_error_of_a_task_of_the_scenario_is_not_lost(is_kept: bool) -> None:
    kept: list[object] = []

    async def scenario(world: World) -> None:
        await one_node(world)
        task = asyncio.create_task(fails())
        if is_kept:
            kept.append(task)
        del task
        await asyncio.sleep(1)

    assert str(failure(scenario).run.error).startswith(
        "no error is lost: scenario: the error of task fails() was never retrieved: ValueError("
    )


def test_an_error_that_is_awaited_is_not_lost() -> None:
    async def scenario(world: World) -> None:
        await one_node(world)
        tasks = [asyncio.create_task(fails()) for _ in range(3)]
        await asyncio.sleep(1)
        assert len(await asyncio.gather(*tasks, return_exceptions=True)) == 3

    assert simulate(scenario, 1, faults=0, event_registry=EVENTS).runs == 1


def test_a_task_that_is_left_over_is_named_with_the_line_that_has_started_it() -> None:
    def starting(node: Node) -> ActorSystem:
        kept.append(asyncio.create_task(asyncio.sleep(1e6)))
        return make(node)

    async def scenario(world: World) -> None:
        await world.node("a", starting)

    kept: list[object] = []
    line = starting.__code__.co_firstlineno + 1
    found = f"no task is left over: sleep, started at {__file__}:{line} in starting"
    assert found in str(failure(scenario).run.error)


def test_ctrl_c_ends_the_simulation() -> None:
    async def scenario(world: World) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, [1], faults=0)


def test_an_invariant_that_returns_false_is_broken() -> None:
    def there_is_gold(world: World) -> bool:
        return False

    async def there_is_silver(world: World) -> bool:
        return False

    for invariant in (there_is_gold, there_is_silver):
        error = failure(one_node, invariants=[invariant]).run.error
        assert isinstance(error, InvariantBroken)
        assert str(error) == f"{invariant.__name__}: it has returned False"


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda world: world.crash("b"), "there is no node 'b'; started were 'a'"),
        (lambda world: world.cut("a", "b"), "there is no node 'b'; started were 'a'"),
        (lambda world: world.stop("b"), "there is no node 'b'; started were 'a'"),
        (lambda world: world.power_failure("b"), "there is no disk 'b'; found 'disk'"),
        (lambda world: world.node(make), "the name of a node is a text"),
        (lambda world: world.node("", make), "the name of a node is a text"),
        (lambda world: world.jump("3"), "time jumps ahead by a number of seconds"),
    ],
    ids=["crash", "cut", "stop", "power failure", "a function as name", "no name", "jump"],
)
def test_a_name_that_the_world_does_not_know_is_refused(use: Callable[[World], Any], text: str) -> None:
    async def scenario(world: World) -> None:
        await one_node(world)
        found = use(world)
        if found is not None:
            await found

    error = failure(scenario).run.error
    assert isinstance(error, ValueError)
    assert text in str(error)


def test_a_node_that_is_down_may_be_killed_again() -> None:
    async def scenario(world: World) -> None:
        await one_node(world)
        world.crash("a")
        world.crash("a")
        await world.node("a")

    assert simulate(scenario, [1], faults=0, event_registry=EVENTS).runs == 1


def test_a_system_that_runs_already_is_refused() -> None:
    async def started(node: Node) -> ActorSystem:
        system = make(node)
        await system.start()
        return system

    async def scenario(world: World) -> None:
        await world.node("a", started)

    error = failure(scenario).run.error
    assert isinstance(error, NotSimulated)
    assert "a system that is running already. Make a new one each time" in str(error)


def test_a_command_that_waits_for_a_node_that_never_starts_is_named_at_its_line() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", make)
        await world.ask(Account, "x", Credit(amount=1), node="b")

    text = str(failure(scenario, within=60).run.error)
    assert f" at {__file__}:{scenario.__code__.co_firstlineno + 2} in scenario" in text


class Crashes:
    """A scenario that is no function."""

    async def __call__(self, world: World) -> None:
        await one_node(world)


@pytest.mark.parametrize(
    "scenario",
    [partial(with_more, count=1), Crashes(), Crashes().__call__],
    ids=["partial", "object", "method"],
)
def test_whatever_can_be_called_with_a_world_is_a_scenario(scenario: Any) -> None:
    simulate(scenario, 1, faults=0, event_registry=EVENTS)
    test = simulated(seeds=1, faults=0, event_registry=EVENTS)(scenario)
    test()
    assert test.__name__ in ("with_more", "Crashes", "__call__")


class OfUnittest(unittest.TestCase):
    """Its methods are scenarios, one of which fails."""

    __test__ = False

    async def helper(self, world: World) -> None:
        await one_node(world)

    @simulated(seeds=2, faults=0, event_registry=EVENTS)
    async def test_passes(self, world: World) -> None:
        await self.helper(world)

    @simulated(seeds=2, faults=0, event_registry=EVENTS)
    async def test_broken(self, world: World) -> None:
        await self.helper(world)
        self.fail("as it must")


def test_methods_of_a_test_class_are_scenarios() -> None:
    result = unittest.TestResult()
    OfUnittest("test_passes").run(result)
    assert result.wasSuccessful()
    OfUnittest("test_broken").run(result)
    assert len(result.failures) == 1
    assert "as it must" in result.failures[0][1]
    assert "not inside of a function or a class" in result.failures[0][1]
