"""Recorded commands as a scenario: what a recording of a running system becomes."""

import math
from typing import Any

import pytest

from tests.bank import EVENTS, Account, Balance, Credit, Debit
from uno_actors import ActorSystem, ConcurrencyConflict, InvalidAggregate, InvalidAggregateId
from uno_actors.store.records import StoredRecord
from uno_actors.testing.simulation import (
    Node,
    RecordedCommand,
    Run,
    Scenario,
    Simulation,
    SimulationFailed,
    World,
    replayed,
    simulate,
)
from uno_actors.testing.simulation.control import controlled


def one_account(node: Node) -> ActorSystem:
    return ActorSystem(node.store, aggregates=[Account], handlers=[], name=node.name)


def credit(at: float, amount: int = 1, node: str = "a") -> RecordedCommand:
    return RecordedCommand(at, node, Account, "x", Credit(amount=amount, command_id=f"credit-{at}"))


def run_of(scenario: Scenario, seed: int = 1, **options: Any) -> Run:
    with controlled():
        return Simulation(scenario, event_registry=EVENTS, **options).run(seed)


def told(run: Run, kind: str) -> list[tuple[float, str, str]]:
    return [(second, who, what) for second, who, of_kind, what in run.story if of_kind == kind]


def test_each_command_arrives_at_its_time_at_the_node_that_it_was_sent_to() -> None:
    scenario = replayed(one_account, [credit(70.0, node="b"), credit(0.5), credit(3_000.0)], nodes=["c"])
    run = run_of(scenario, faults=0)
    assert run.error is None
    arrived = told(run, "command")
    assert [who for _, who, _ in arrived] == ["a", "b", "a"]
    assert [second for second, _, _ in arrived] == pytest.approx([0.5, 70.0, 3_000.0], abs=0.1)
    assert {who for _, who, _ in told(run, "node")} == {"a", "b", "c"}


def test_a_rejected_command_is_answered_and_another_error_fails_the_run() -> None:
    rejected = (0.0, "a", Account, "x", Debit(amount=5))
    assert run_of(replayed(one_account, [rejected]), faults=0).error is None
    unknown = (0.0, "a", Account, "x", Credit(amount=1).model_copy(update={"command_id": 7}))
    assert "command_id" in str(run_of(replayed(one_account, [unknown]), faults=0).error)


def test_commands_are_sent_again_until_they_are_answered_whatever_goes_wrong() -> None:
    balances: list[int] = []

    async def scenario(world: World) -> None:
        await replayed(one_account, [credit(number * 0.2) for number in range(12)])(world)
        await world.settled()
        balances.append(await world.ask(Account, "x", Balance()))

    simulate(scenario, range(10), event_registry=EVENTS)
    assert {*balances} == {12}


async def recorded(*amounts: int) -> list[StoredRecord]:
    async with ActorSystem("memory:", aggregates=[Account], handlers=[], event_registry=EVENTS) as system:
        for amount in amounts:
            await system.aggregate(Account, "x").ask(Credit(amount=amount))
        return await system.store.read_log()


async def test_what_was_recorded_before_is_on_the_disk_and_survives_a_power_failure() -> None:
    history = await recorded(5, 7)
    seen: list[int] = []

    async def scenario(world: World) -> None:
        await replayed(one_account, [credit(0.0)], history=history)(world)
        world.power_failure()
        await world.node("a")
        seen.append(await world.ask(Account, "x", Balance()))

    assert run_of(scenario, faults=0).error is None
    assert {*seen} == {13}


async def test_a_history_that_misses_an_event_is_refused() -> None:
    history = await recorded(5, 7)
    found = run_of(replayed(one_account, [credit(0.0)], history=history[1:]), faults=0).error
    assert isinstance(found, ConcurrencyConflict)


def fragile(node: Node) -> ActorSystem:
    if node.incarnation > 1:
        raise LookupError("it does not come back")
    return one_account(node)


incident = replayed(fragile, [credit(number * 0.1) for number in range(20)])


def test_a_failing_incident_is_made_smaller_and_repeated_by_its_name() -> None:
    with pytest.raises(SimulationFailed, match="LookupError: it does not come back") as failed:
        simulate(incident, range(50), kinds=["crash"], event_registry=EVENTS)
    assert ":incident --seed " in failed.value.repeat
    assert failed.value.run.commands < 20


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        ((-1.0, "a", Account, "x", Credit(amount=1)), ValueError, "in seconds, from 0 up; found -1.0"),
        ((math.nan, "a", Account, "x", Credit(amount=1)), ValueError, "found nan"),
        (("now", "a", Account, "x", Credit(amount=1)), ValueError, "found 'now'"),
        ((0.0, None, Account, "x", Credit(amount=1)), TypeError, "the node of a command is its name"),
        ((0.0, "a", int, "x", Credit(amount=1)), InvalidAggregate, "int"),
        ((0.0, "a", Account, "", Credit(amount=1)), InvalidAggregateId, "aggregate id"),
        ((0.0, "a", Account, "x", "credit"), TypeError, "ends with the command; found 'credit'"),
        ((0.0, "a", Account, "x"), TypeError, r"is \(at, node, aggregate_type, aggregate_id, command\)"),
    ],
)
def test_what_is_not_a_recorded_command_is_refused(
    command: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        replayed(one_account, [command])


def test_a_replay_needs_a_node() -> None:
    with pytest.raises(ValueError, match="there is no node to start"):
        replayed(one_account, [])


async def test_a_restored_disk_holds_the_records_as_they_were() -> None:
    history = await recorded(5, 7)
    seen: list[StoredRecord] = []

    async def scenario(world: World) -> None:
        world.restore(history)
        system = await world.node("a", one_account)
        seen.extend(await system.store.read_log())

    assert run_of(scenario, faults=0).error is None
    assert seen == history
