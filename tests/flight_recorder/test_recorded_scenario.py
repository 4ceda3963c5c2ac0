"""A recording becomes a scenario of the simulation, as far as the log has its commands."""

import asyncio
import runpy
from decimal import Decimal
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.flight_recorder.recorded_shop import Buy, Doubled, RecordedBasket, rewards
from uno_actors import ActorSystem
from uno_actors.testing.simulation import simulate

EVIL = 'x"""\nimport os; os.abort()\u202e'
SYSTEM = "tests.flight_recorder.recorded_shop:make_system"


async def recorded(directory: Path) -> tuple[str, Path]:
    """The URL of a store and a recording of what was done on it."""
    url = f"lmdb:{directory / 'store'}"
    async with ActorSystem(url, aggregates=[RecordedBasket], handlers=[rewards]) as system:
        basket = system.aggregate(RecordedBasket, EVIL)
        await basket.ask(Buy(item=EVIL, price=Decimal("1.50"), command_id="c-1"))
        await basket.ask(Buy(item="pen", price=Decimal(2), note="blue", command_id="c-2"))
        await basket.ask(Doubled(half=4, command_id="c-3"))
        await system.settled()
        return url, system.recording.write(directory)


async def test_commands_are_found_by_their_events_and_proven_by_their_fingerprints(tmp_path: Path) -> None:
    url, path = await recorded(tmp_path)
    made = tmp_path / "incident.py"
    ended = await _run("recording", str(path), "--scenario", str(made), "--store", url, "--system", SYSTEM)
    assert "2 commands to send, 3 not sent" in ended
    source = made.read_text(encoding="utf-8")
    commands = runpy.run_path(str(made))["COMMANDS"]
    assert [each[2:4] for each in commands] == [(RecordedBasket, EVIL)] * 2
    assert [each[4] for each in commands] == [
        Buy(item=EVIL, price=Decimal("1.50"), command_id="c-1"),
        Buy(item="pen", price=Decimal(2), note="blue", command_id="c-2"),
    ]
    assert commands[0][0] < commands[1][0]
    left_out = [line for line in source.splitlines() if line.startswith("    # ") and "not sent" in line]
    assert sum("a handler has sent it" in line for line in left_out) == 2
    assert sum("c-3" in line and "its fields are not those of its events" in line for line in left_out) == 1


async def _run(*arguments: str) -> str:
    ended = await asyncio.to_thread(run_command, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_scenario_runs_in_the_simulation(tmp_path: Path) -> None:
    url, path = asyncio.run(recorded(tmp_path))
    made = tmp_path / "incident.py"
    ended = run_command("recording", str(path), "--scenario", str(made), "--store", url, "--system", SYSTEM)
    assert ended.returncode == 0, ended.stderr
    scenario = runpy.run_path(str(made))["recorded"]
    assert simulate(scenario, range(3)).runs == 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "needs --store URL"),
        (("--store", "lmdb:x"), "--system MODULE:NAME"),
        (("--store", "lmdb:x", "--system", "tests.flight_recorder.recorded_shop:make_sytem"), "did you mean"),
    ],
    ids=["nothing", "no system", "misspelled"],
)
async def test_what_a_scenario_needs_is_said(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    _, path = await recorded(tmp_path)
    made = str(tmp_path / "incident.py")
    ended = await asyncio.to_thread(run_command, "recording", str(path), "--scenario", made, *arguments)
    assert ended.returncode == 2
    assert reason in " ".join(ended.stderr.replace("│", " ").split())
