"""Transfers between accounts end correctly, even if the program is killed at every step."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import patience
from uno_actors.domain.events import EventRegistry
from uno_stores import LmdbEventStore

ENDS = {
    "rent": "done",
    "gift": "undone: carol is closed",
    "yacht": "refused: bob cannot pay 1000",
    "alice": "70",
    "bob": "80",
    "carol": "0",
}
WORKER = Path(__file__).parent / "transfer_killed.py"


def run(store: Path, kill_after: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(WORKER), str(store), str(kill_after)],
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(60),
        cwd=WORKER.parents[2],
    )


def ends(output: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) +(.*)$", output, re.MULTILINE))


def test_transfers_are_done_undone_or_refused(tmp_path: Path) -> None:
    finished = run(tmp_path / "store")
    assert finished.returncode == 0, finished.stderr
    assert ends(finished.stdout) == ENDS
    again = run(tmp_path / "store")
    assert ends(again.stdout) == ENDS, "what is done is not done again"


async def test_no_money_is_lost_or_made_however_often_the_program_is_killed(tmp_path: Path) -> None:
    """Each run dies after its fifth write to the disk, whatever that is, and the next one resumes.

    A run that finds nothing to do makes fewer: it takes the lease of the handler, and gives it up.
    """
    kills = 0
    while (finished := run(tmp_path / "store", 5)).returncode == -signal.SIGKILL:
        kills += 1
        assert kills < 60, "it makes no progress"
    assert finished.returncode == 0, finished.stderr
    assert ends(finished.stdout) == ENDS
    assert kills >= 5
    async with LmdbEventStore(tmp_path / "store", EventRegistry()) as store:
        records = [stored.record for stored in await store.read_log(0, 1000)]
    moved = [record.event_type for record in records if record.event_type.startswith("Money")]
    assert sorted(moved) == ["MoneyDeposited"] * 2 + ["MoneyWithdrawn"] * 2, "each once"


@pytest.mark.soak
@pytest.mark.parametrize("kill_after", range(1, 40))
def test_a_kill_after_any_one_write_changes_nothing(tmp_path: Path, kill_after: int) -> None:
    run(tmp_path / "store", kill_after)
    finished = run(tmp_path / "store")
    assert finished.returncode == 0, finished.stderr
    assert ends(finished.stdout) == ENDS
