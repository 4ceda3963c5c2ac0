"""Type checkers find nothing in the README's programs, as a reader would have them: `make check` runs these tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import programs

BIN = Path(sys.executable).parent
CACHE = Path(__file__).parent.parent / ".mypy_cache" / "readme"

CHECKERS = {
    "mypy": ["mypy", "--strict", "--cache-dir", str(CACHE), "."],
    "pyright": ["pyright", "--pythonpath", sys.executable, "."],
}

pytestmark = [pytest.mark.types, pytest.mark.timeout(600)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A directory with every program of the README."""
    for number, (code, _) in enumerate(programs()):
        name = code.removeprefix("# ").splitlines()[0] if code.startswith("# ") else f"program_{number}.py"
        (tmp_path / name).write_text(code)
    return tmp_path


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_finds_nothing_in_the_programs_of_the_readme(checker: str, written: Path) -> None:
    program, *arguments = CHECKERS[checker]
    run = subprocess.run(
        [BIN / program, *arguments], cwd=written, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_type_checkers_would_find_a_wrong_line(checker: str, written: Path) -> None:
    (written / "wrong.py").write_text(
        'from bank import Account, Deposit\nname: str = Account("alice").handle(Deposit(amount=1))\n'
    )
    program, *arguments = CHECKERS[checker]
    run = subprocess.run(
        [BIN / program, *arguments], cwd=written, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "wrong.py:2" in run.stdout
