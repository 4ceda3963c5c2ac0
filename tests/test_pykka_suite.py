"""pykka's own test suite passes on our runtime: `Actor` is a real pykka actor.

The suite is taken from pykka's source distribution of the installed version. One more entry in its table of
runtimes runs it on our classes; no test is left out and none is changed.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ENTRY = """
from uno_actors.actors.actor import Actor as UnoActor
from uno_actors.actors.future import Future as UnoFuture

RUNTIMES["uno_actors"] = pytest.param(
    Runtime(
        name="uno_actors",
        actor_class=UnoActor,
        event_class=threading.Event,
        future_class=UnoFuture,
        sleep_func=time.sleep,
    ),
    id="uno_actors",
)
"""


def suite(place: Path) -> Path:
    """Unpack pykka's tests, with our runtime entered before the fixture that reads the table."""
    version = importlib.metadata.version("pykka")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "-d", str(place), f"pykka=={version}"], check=True)
    with tarfile.open(place / f"pykka-{version}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    tests = place / f"pykka-{version}" / "tests"
    conftest = (tests / "conftest.py").read_text()
    table, fixture, rest = conftest.partition('@pytest.fixture(scope="session", params=RUNTIMES.values())')
    assert fixture, "pykka's conftest.py has changed"
    (tests / "conftest.py").write_text(table + ENTRY + fixture + rest)
    return tests


@pytest.mark.timeout(180)
def test_the_test_suite_of_pykka_passes_on_our_runtime(tmp_path: Path) -> None:
    tests = suite(tmp_path)
    source = tests.parent / "src"
    (tests.parent / "pyproject.toml").unlink()  # its pytest settings name tools that are not needed here
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tests.parent,
        env={**os.environ, "PYTHONPATH": str(tests.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert source.is_dir()
    assert run.returncode == 0, run.stdout[-8000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert "skipped" not in run.stdout
    assert run.stdout.count("FAILED") == 0
    ours = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-k", "uno_actors", "tests"],
        cwd=tests.parent,
        env={**os.environ, "PYTHONPATH": str(tests.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ours.stdout.count("[uno_actors") > 100
