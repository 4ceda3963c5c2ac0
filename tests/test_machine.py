"""Limits of tests grow with the other load of the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import machine
from tests.machine import MEASURED, MOST, REFERENCE, deadline, measure, patience, slowness


@pytest.mark.parametrize(
    ("seconds", "load", "workers", "cores", "expected"),
    [
        (REFERENCE, 0, 2, 2, 1),  # a quiet machine
        (REFERENCE / 4, 0, 1, 64, 1),  # a fast one: limits are never below those that are written
        (REFERENCE, 4, 2, 2, 3),  # four busy processes, two of ours, two cores
        (2 * REFERENCE, 4, 2, 2, 6),  # slow cores besides
        (2 * REFERENCE, 0, 1, 2, 2),  # a container that may use half a core
        (1000.0, 500, 2, 2, MOST),  # what hangs is ended some day
    ],
)
def test_slowness_is_that_of_the_cores_times_their_load(
    seconds: float, load: float, workers: int, cores: int, expected: float
) -> None:
    assert slowness(seconds, load, workers, cores) == expected


def test_every_test_has_the_common_deadline_scaled(request: pytest.FixtureRequest) -> None:
    (own,) = request.node.get_closest_marker("timeout").args
    of_all = request.config.getoption("timeout")
    assert own == deadline(float(request.config.getini("timeout") if of_all is None else of_all))


@pytest.mark.timeout(7)
def test_a_test_with_its_own_deadline_has_that_one_scaled(request: pytest.FixtureRequest) -> None:
    (own,) = request.node.get_closest_marker("timeout").args
    assert own == deadline(7)
    assert own >= 7


def test_limits_inside_of_a_test_grow_with_the_load_of_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_measured", lambda: 2.0)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    found = []
    for load in (0.5, 4, 12, 1000):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0, 0))
        found.append(patience(3))
    assert found == [6, 6, 18, 3 * MOST]


def test_a_worker_uses_the_slowness_measured_by_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEASURED, "2.50")
    measure(workers=500)
    assert os.environ[MEASURED] == "2.50"
    monkeypatch.delenv(MEASURED)
    measure(workers=500)
    assert 1 < float(os.environ[MEASURED]) <= MOST


HANGING = """
import time

def test_hangs():
    try:
        time.sleep(600)
    finally:
        time.sleep(600)
"""


def test_what_its_deadline_does_not_end_is_ended_with_its_process_and_shows_where_it_was(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--timeout", "50", tmp_path],
        env=os.environ | {MEASURED: "0.02"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert 'test_hanging.py", line 8 in test_hangs' in run.stderr
