"""The flights of the example, rehearsed with an aircraft that was changed on purpose, on each kind of store."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run_command
from tests.new_stores import new_store_url
from tests.rehearsal.programs import found
from tests.rehearsal.recorded_flights import program
from uno_actors.store_urls import with_options

pytestmark = pytest.mark.timeout(180)

EVENTS = 2_000
NOT_REPORTED = (
    "self.flights[str(event.flight)] = Phase.ARRIVED",
    "self.flights[str(event.flight)] = Phase.ARRIVED if event.delay is not None else Phase.DEPARTED",
)
"""A flight whose delay was not reported counts as one that has not arrived."""


def rehearse(url: str, old: Path, new: Path) -> dict[str, Any]:
    ended = run_command("rehearse", "aircraft", "-s", url, "--old", str(old), "--new", str(new), "--json")
    assert ended.returncode in (0, 1), ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


@pytest.mark.parametrize(("engine", "logs"), [("lmdb", 1), ("sqlite", 1), ("postgres", 1), ("postgres", 4)])
async def test_an_aircraft_that_was_changed_parts_at_the_first_flight_that_shows_it(
    engine: str, logs: int, tmp_path: Path
) -> None:
    url = await new_store_url(engine, tmp_path)
    url = with_options(url, {"logs": str(logs)} if logs > 1 else {})
    command = [sys.executable, "-m", "tests.rehearsal.recorded_flights", url, str(EVENTS)]
    subprocess.run(command, check=True)  # noqa: ASYNC221 - nothing else is to be done
    old = program(tmp_path / "old")
    new = program(tmp_path / "new", NOT_REPORTED, ("+ event.delay)", "+ max(0, event.delay))"))

    def compared() -> tuple[dict[str, Any], dict[str, Any]]:
        return rehearse(url, old, old), rehearse(url, old, new)

    same, report = await asyncio.to_thread(compared)
    assert same["findings"] == []
    assert same["compared"]["events"] == EVENTS
    weights = {(weight, what, of) for weight, what, of, _ in found(report)}
    assert weights == {
        ("difference", "state differs", "Aircraft.flights"),
        ("difference", "view differs", "aircraft.Delays"),
    }
    states = next(each for each in report["findings"] if each["of"] == "Aircraft.flights")
    assert states["count"] >= 1
    assert "(FlightArrived v1 at position " in states["example"]
    assert "is ARRIVED in the old code, DEPARTED in the new" in states["example"]
