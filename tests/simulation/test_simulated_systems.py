"""Whole systems in virtual time: runs that repeat, faults that strike, and invariants that notice."""

import asyncio
import gc
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bank import EVENTS, Account, Credit, Credited
from uno_actors import ActorSystem, AskTimeout, HandlerContext, OutcomeUnknown, Projection, subscribe
from uno_actors.store.records import Append, DeadLetter, Snapshot, ViewChange
from uno_actors.testing.simulation import (
    InvariantBroken,
    Node,
    NodeCrashed,
    NotRepeatable,
    Simulation,
    SimulationFailed,
    World,
    simulate,
)
from uno_actors.testing.simulation.control import controlled
from uno_actors.testing.simulation.faults import plan

SEEDS = range(5)


@subscribe(name="totals")
class Totals(Projection[Credited, str]):
    async def handle(self, event: Credited) -> None:
        self.view.put("total", event.amount + await self.view.get("total", 0))


def account_system(node: Node) -> ActorSystem:
    return ActorSystem(node.store, aggregates=[Account], handlers=[Totals])


async def some_credits(world: World) -> None:
    await world.node("a", account_system)
    for number in world.commands(6):
        await world.ask(Account, f"account-{number % 2}", Credit(amount=1))


# --- runs repeat -------------------------------------------------------------------------------------------


DISK = "disk full,slow disk,failed sync,power failure"
LINKS = "cut,lossy links,slow links,freeze,clock"


def runs(*words: str, hash_seed: int = 0) -> str:
    """What a process prints that runs a scenario."""
    program = Path(__file__).parent / "scenario_runs.py"
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, str(program), *words]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("scenario", "kinds", "has"),
    [
        ("bank", "crash", {"bank fault: is killed"}),
        ("purses", DISK, {"a worker", "disk fault: power failure", "disk fault: will fail to sync"}),
        ("purses in a cluster", LINKS, {"a message", "b worker", "network fault: ", "fault: its clock is "}),
        ("shop", "crash", {"shop worker", "world time: jumps ahead", "uno_actors.Fired of "}),
    ],
)
def test_a_seed_gives_the_same_run_to_its_last_step_in_processes_with_other_hashes(
    scenario: str, kinds: str, has: set[str]
) -> None:
    one = runs("trace", scenario, "3", kinds, hash_seed=1)
    assert one.count("\n") > 1_500
    assert {part for part in has if part not in one} == set()
    assert one == runs("trace", scenario, "3", kinds, hash_seed=2)


def test_other_seeds_give_other_runs() -> None:
    with controlled():
        simulation = Simulation(some_credits, event_registry=EVENTS)
        assert len({simulation.run(seed).digest for seed in SEEDS}) == len(SEEDS)


def test_what_differs_from_run_to_run_is_reported_with_its_first_step() -> None:
    runs = []

    async def scenario(world: World) -> None:
        runs.append(1)
        for _ in runs:
            await asyncio.sleep(1)

    with pytest.raises(NotRepeatable, match="two runs with seed 3 differ, first where one has"):
        simulate(scenario, [3])


def test_time_passes_only_in_the_run() -> None:
    seen = []

    async def scenario(world: World) -> None:
        began = time.monotonic(), time.time()
        await asyncio.sleep(1_000)
        seen.append((time.monotonic() - began[0], time.time() - began[1]))

    before = time.monotonic()
    simulate(scenario, [0], faults=0)
    assert time.monotonic() - before < 60
    assert seen[0] == seen[1] == (pytest.approx(1_000, abs=0.01), pytest.approx(1_000, abs=0.01))


def test_objects_that_the_program_has_frozen_stay_frozen() -> None:
    kept = [[number] for number in range(1000)]
    gc.freeze()  # as the servers do that fork workers
    simulate(some_credits, [1], event_registry=EVENTS)
    assert gc.get_freeze_count() > len(kept)


def test_time_may_jump_by_days_and_what_is_due_happens() -> None:
    seen = []

    async def scenario(world: World) -> None:
        began = time.time()
        asyncio.get_running_loop().call_later(86_400, seen.append, "a day")
        world.jump(90_000)
        await asyncio.sleep(1)
        seen.append(round(time.time() - began))
        with pytest.raises(ValueError, match="above 0; found -1"):
            world.jump(-1)

    simulate(scenario, [0], faults=0)
    assert seen[:2] == ["a day", 90_001]


def test_the_log_of_a_disk_is_read_as_events() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", account_system)
        await world.ask(Account, "x", Credit(amount=4))
        (event,) = world.log()
        assert isinstance(event, Credited)
        assert (event.amount, event.aggregate_id) == (4, "x")
        with pytest.raises(ValueError, match="there is no disk 'b'; found 'disk'"):
            world.log("b")

    once(scenario)


# --- the bank ----------------------------------------------------------------------------------------------


def test_no_money_appears_or_disappears_at_the_bank_whatever_goes_wrong() -> None:
    seeds, faults = map(int, runs("simulate", "bank", "30").split())
    assert seeds == 30
    assert faults > 30


# --- processes that are killed -----------------------------------------------------------------------------


def once(scenario: object) -> None:
    """Run a scenario that brings its own faults."""
    simulate(scenario, SEEDS, faults=0, event_registry=EVENTS)  # type: ignore[arg-type]


def test_a_killed_node_runs_nothing_more_and_its_callers_learn_that_the_outcome_is_unknown() -> None:
    cleaned = []

    @subscribe(name="slow", start="earliest")
    async def slow(event: Credited, context: HandlerContext) -> None:
        try:
            await asyncio.sleep(5)
        finally:
            cleaned.append(context.attempt)

    async def scenario(world: World) -> None:
        cleaned.clear()
        system = await world.node(
            "a", lambda node: ActorSystem(node.store, aggregates=[Account], handlers=[slow])
        )
        account = system.aggregate(Account, "x")
        await account.ask(Credit(amount=1))
        await asyncio.sleep(0.1)
        reply = account.ask(Credit(amount=2))
        world.crash("a")
        with pytest.raises(OutcomeUnknown):
            await reply
        with pytest.raises(NodeCrashed):
            world.system("a")
        await asyncio.sleep(10)
        assert cleaned == []
        again = await world.node("a")
        await again.aggregate(Account, "x").ask(Credit(amount=4))

    once(scenario)


def test_what_was_acknowledged_survives_a_power_failure() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", account_system)
        balances = [await world.ask(Account, "x", Credit(amount=1)) for _ in range(5)]
        world.power_failure()
        await world.node("a")
        assert balances[-1] + 1 == await world.ask(Account, "x", Credit(amount=1))

    once(scenario)


def test_a_disk_keeps_whole_frames_only_and_loses_what_was_not_synced() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", account_system)
        await world.ask(Account, "x", Credit(amount=1))
        disk = world.nodes.shelves["disk"].disk
        whole = len(disk.data)
        await world.stop("a")
        disk.data += b"\0\0\0\xff torn"
        await world.node("a")
        assert await world.ask(Account, "x", Credit(amount=1)) == 2
        await world.stop("a")
        assert len(disk.data) > whole

    once(scenario)


def test_a_store_on_a_disk_is_read_back_as_it_was_after_a_power_failure() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", account_system)
        await world.ask(Account, "x", Credit(amount=1))
        moment = world.nodes.shelves["disk"].records[0].timestamp
        stream = world.nodes.shelves["disk"].records[0].stream
        assert stream is not None
        letter = DeadLetter("h", 1, "Credited", 5, "E", "T", moment, moment)
        other = letter._replace(position=2)
        snapshot = Snapshot(stream, 1, 1, b"state", moment)

        async def work(node: Node) -> ActorSystem:
            store = node.store
            await store.save_progress({"h": 1}, [letter, other], [ViewChange("v", b"k", b"1")])
            await store.save_progress({}, views=[ViewChange("v", b"k", None), ViewChange("v", b"l", b"2")])
            await store.drop_dead_letter("h", 2)
            await store.save_snapshots([snapshot])
            return account_system(node)

        await world.node("b", work)
        world.power_failure()
        del system

        async def look(node: Node) -> ActorSystem:
            store = node.store
            assert (await store.checkpoints())["h"] == 1
            assert await store.dead_letters("h") == [letter]
            assert await store.read_view("v") == [(b"l", b"2")]
            assert await store.read_snapshot(stream) == snapshot
            assert [stored.position for stored in await store.read_log()] == [1]
            return account_system(node)

        await world.node("b", look)

    once(scenario)


def test_two_nodes_on_a_store_are_fenced_by_the_expected_version() -> None:
    async def scenario(world: World) -> None:
        await asyncio.gather(world.node("a", account_system), world.node("b", account_system))
        await asyncio.gather(
            *(world.ask(Account, "x", Credit(amount=1), node=node) for node in "ab" for _ in range(5))
        )
        assert await world.ask(Account, "x", Credit(amount=1)) == 11

    once(scenario)


# --- what is broken is noticed -----------------------------------------------------------------------------


def failure(scenario: object, **options: object) -> SimulationFailed:
    with pytest.raises(SimulationFailed) as failed:
        simulate(scenario, event_registry=EVENTS, **options)  # type: ignore[arg-type]
    return failed.value


def test_a_run_that_hangs_names_what_waits_and_where() -> None:
    async def scenario(world: World) -> None:
        await asyncio.get_running_loop().create_future()

    failed = failure(scenario, seeds=[1], faults=0)
    assert "nothing hangs: nothing can run any more" in str(failed)
    assert f" at {__file__}:" in str(failed)
    assert " in scenario" in str(failed)


def test_a_run_that_never_ends_is_given_up() -> None:
    async def scenario(world: World) -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    assert "nothing hangs: no end after" in str(failure(scenario, seeds=[1], faults=0, within=60))


def test_a_task_that_is_left_over_is_named_with_its_line() -> None:
    async def scenario(world: World) -> None:
        async def forgotten() -> None:
            await asyncio.sleep(100)

        async def make(node: Node) -> ActorSystem:
            world.kept = asyncio.create_task(forgotten())  # type: ignore[attr-defined]
            return account_system(node)

        await world.node("a", make)

    assert "no task is left over" in str(failed := failure(scenario, seeds=[1], faults=0))
    assert "forgotten at " in str(failed)


def test_an_acknowledged_command_that_is_not_in_the_log_is_noticed() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", account_system)
        await world.ask(Account, "x", Credit(amount=1))
        shelf = world.nodes.shelves["disk"]
        shelf.disk.synced = 0
        world.power_failure()
        await world.node("a")

    found = str(failure(scenario, seeds=range(10), faults=0))
    assert "no acknowledged command is lost: Credit" in found


def test_a_command_that_is_recorded_twice_is_noticed() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", account_system)
        await world.ask(Account, "x", Credit(amount=1))

        async def again(node: Node) -> ActorSystem:
            (first, *_) = await node.store.read_log()
            await node.store.commit([Append((first.record._replace(aggregate_version=None),))])
            return account_system(node)

        await world.node("b", again)

    assert "no command is doubled" in str(failure(scenario, seeds=[1], faults=0))


def test_a_view_that_does_not_follow_from_the_log_is_noticed() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", account_system)
        await world.ask(Account, "x", Credit(amount=1))
        await world.settled()

        async def spoil(node: Node) -> ActorSystem:
            (view,) = [name for name in await node.store.checkpoints() if "totals" in name]
            await node.store.save_progress({}, views=[ViewChange(view, b"key", b"spoilt")])
            return ActorSystem(node.store, aggregates=[Account], handlers=[])

        await world.node("b", spoil)

    assert "views follow from the log" in str(failure(scenario, seeds=[1], faults=0))


def test_a_handler_that_misses_an_event_is_noticed() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", account_system)
        await world.ask(Account, "x", Credit(amount=1))
        await world.stop("a")

        async def skip(node: Node) -> ActorSystem:
            await node.store.append(Credited(amount=1, aggregate_id="x", aggregate_type="Account"))
            (view,) = [name for name in await node.store.checkpoints() if "totals" in name]
            await node.store.save_progress({view: 2})
            return account_system(node)

        await world.node("a", skip)

    assert "handlers handle at least once" in str(failure(scenario, seeds=[1], faults=0))


# --- the smallest run that fails ---------------------------------------------------------------------------


async def fragile(world: World) -> None:
    """Does not survive that its node is killed after its second command."""
    system = await world.node("a", account_system)
    for number in world.commands(20):
        try:
            await system.aggregate(Account, "x").ask(Credit(amount=1))
        except (OutcomeUnknown, AskTimeout, RuntimeError):
            if number >= 2:
                raise InvariantBroken("it survives", "it does not") from None
            return


def test_a_failing_run_is_made_smaller_and_its_command_line_repeats_it() -> None:
    failed = failure(fragile, seeds=range(100), kinds=["crash", "slow disk", "clock"])
    smallest = failed.run
    assert len(smallest.faults) == 1
    assert smallest.commands < 20
    found = re.fullmatch(
        r"uno-actors simulate \S+:fragile --seed (\d+) --only-faults (\d+) --commands (\d+) --kinds .*",
        failed.repeat,
    )
    assert found is not None
    seed, fault, commands = map(int, found.groups())
    with controlled():
        simulation = Simulation(fragile, kinds=["crash", "slow disk", "clock"], event_registry=EVENTS)
        assert simulation.run(seed, [fault], commands).digest == smallest.digest
    assert any("is killed" in text for _, _, kind, text in smallest.story if kind == "fault")


def test_a_run_without_some_of_its_faults_keeps_the_others() -> None:
    for seed in range(20):
        assert [fault.number for fault in plan(seed, 8)] == [*range(1, len(plan(seed, 8)) + 1)]
        assert plan(seed, 8)[0] == plan(seed, 1)[0]
    assert {len(plan(seed, 3)) for seed in range(50)} == {1, 2, 3}
    assert plan(0, 0) == []
