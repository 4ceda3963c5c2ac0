"""`.ci/setup`, by which `make` sets up `.venv`: with scripts for Python and pip that fail on demand."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / ".ci" / "setup"

PYTHON = """#!/bin/sh
echo "python $*" >> calls
case "$*" in
--version) echo "Python 3.99" ;;
*version_info*) [ ! -e old ] ;;
"-m venv"*)
    [ ! -e no_venv ] || { echo "ensurepip is not available"; exit 1; }
    mkdir -p .venv/bin && cp pip.sh .venv/bin/python
    ;;
esac
"""

PIP = """#!/bin/sh
echo "pip $*" >> calls
case "$*" in
"-m pip --version") ;;
*--group*)
    echo "Collecting pydantic>=2.11"
    [ ! -e no_network ] || { echo "ERROR: No matching distribution found for pydantic>=2.11"; exit 1; }
    echo "Installing collected packages: pydantic, pykka"
    ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name, text in (("python", PYTHON), ("pip.sh", PIP)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def set_up(clone: Path) -> "subprocess.CompletedProcess[str]":
    (clone / "calls").unlink(missing_ok=True)
    return subprocess.run(
        [SETUP, "./python", "--group", "dev"], cwd=clone, capture_output=True, text=True, check=False
    )


def test_each_step_is_shown(clone: Path) -> None:
    run = set_up(clone)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        "Setting up 1/3: making .venv by Python 3.99",
        "Setting up 2/3: pip",
        "Setting up 3/3: pip install --group dev (the first time, this takes a minute)",
        "  Collecting pydantic>=2.11",
        "  Installing 2 packages",
        "Setting up: done",
    ]


def test_on_a_terminal_the_packages_share_a_line(clone: Path) -> None:
    ours, its = pty.openpty()
    run = subprocess.run([SETUP, "./python", "--group", "dev"], cwd=clone, stdout=its, check=False)
    os.close(its)
    shown = ""
    while "done" not in shown:
        shown += os.read(ours, 10_000).decode()
    os.close(ours)
    assert run.returncode == 0
    assert "\r\x1b[K  Collecting pydantic>=2.11\r\x1b[K  Installing 2 packages" in shown


def test_packages_that_cannot_be_installed_are_named_and_the_next_run_resumes(clone: Path) -> None:
    (clone / "no_network").touch()
    run = set_up(clone)
    assert run.returncode == 1
    assert "ERROR: No matching distribution found for pydantic>=2.11" in run.stderr
    assert "Setting up failed: pip install --group dev" in run.stderr
    assert "No matching distribution" in (clone / ".venv" / "setup.log").read_text()

    (clone / "no_network").unlink()
    assert set_up(clone).returncode == 0
    assert "venv" not in (clone / "calls").read_text(), "what is there is not made again"


@pytest.mark.parametrize(
    ("cause", "said"),
    [("old", "needs Python 3.11 or newer; run: make PYTHON="), ("no_venv", "python3-venv")],
)
def test_an_unsuitable_python_is_reported_and_the_next_run_starts_over(
    clone: Path, cause: str, said: str
) -> None:
    (clone / cause).touch()
    (clone / ".venv" / "bin").mkdir(parents=True)  # half an environment
    run = set_up(clone)
    assert run.returncode == 1
    assert said in run.stderr
    (clone / cause).unlink()
    assert set_up(clone).returncode == 0


def test_a_missing_python_is_reported(clone: Path) -> None:
    (clone / "python").unlink()
    run = set_up(clone)
    assert run.returncode == 1
    assert "make PYTHON=/path/to/python3.11" in run.stderr
