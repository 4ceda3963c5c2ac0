"""The recorder tests of ``eventsourcing`` pass on our stores, as its own persistence modules pass them.

They are taken from that package's source distribution of the installed version. No test is left out and none is
changed; `tests.eventsourcing_cases` names the recorders.
"""

import asyncio
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.new_stores import new_store_url

CASES = Path(__file__).parent / "eventsourcing_cases.py"
STORES = 80
"""More than there are tests: each has an empty store."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of ``eventsourcing``, with its tests."""
    version = importlib.metadata.version("eventsourcing")
    place = tmp_path_factory.mktemp("eventsourcing")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "-d", str(place), f"eventsourcing=={version}"], check=True)
    with tarfile.open(place / f"eventsourcing-{version}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    settings = place / f"eventsourcing-{version}" / "pyproject.toml"
    settings.unlink()  # they name tools that are not needed here
    return place / f"eventsourcing-{version}"


def suite(source: Path, listed: Path) -> subprocess.CompletedProcess[str]:
    """Run the cases beside the source of the package, each on one of the stores that are ``listed``."""
    cases = shutil.copy(CASES, source)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cases],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source), "STORE_URLS": str(listed)},
        capture_output=True,
        text=True,
        check=False,
    )


async def urls(kind: str, directory: Path) -> list[str]:
    if kind == "memory":
        return ["memory:"] * STORES
    places = [directory / str(number) for number in range(STORES)]
    for each in places:
        each.mkdir()
    return [await new_store_url(kind, each) for each in places]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["memory", "lmdb", "sqlite", "postgres"])
async def test_the_recorder_tests_of_eventsourcing_pass_on_our_stores(
    kind: str, source: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "urls"
    listed.write_text("\n".join(await urls(kind, tmp_path)))
    run = await asyncio.to_thread(suite, source, listed)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) > 40
    assert "skipped" not in run.stdout
