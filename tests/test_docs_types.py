"""Type checkers find nothing in the programs of the documentation, written as readers do: `make check` runs this."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, Page, pages

BIN = Path(sys.executable).parent
CACHE = ROOT / ".mypy_cache" / "docs"

CHECKERS = {
    "mypy": ["mypy", "--strict", "--cache-dir", str(CACHE), "."],
    "pyright": ["pyright", "--pythonpath", sys.executable, "."],
}

pytestmark = [pytest.mark.types, pytest.mark.timeout(600)]

Names = dict[str, str]
"""The modules that programs of a page import, by name, with the file in which the checkers find them."""


def write_programs(page: Page, directory: Path) -> Names:
    """Write the programs of a page beside those of all other pages, each under its own name."""
    names: Names = {}
    for other in page.ancestors():
        names = write_programs(other, directory)
    prefix = re.sub(r"\W", "_", page.name.removesuffix(".md"))
    for number, (name, text) in enumerate(page.programs()):
        module, changed = name.removesuffix(".py"), text
        for known, written in names.items():
            changed = re.sub(rf"^(from|import) {known}\b", rf"\1 {written}", changed, flags=re.MULTILINE)
        names[module] = f"{prefix}_{number}_{module}"
        (directory / f"{names[module]}.py").write_text(changed, encoding="utf-8")
    return names


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every program of the README and the pages."""
    directory = tmp_path_factory.mktemp("programs")
    for page in pages():
        write_programs(page, directory)
    return directory


def check(checker: str, directory: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = CHECKERS[checker]
    return subprocess.run(
        [BIN / program, *arguments], cwd=directory, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_finds_nothing_in_the_programs_of_the_documentation(
    checker: str, written: Path
) -> None:
    assert len(list(written.glob("*.py"))) == sum(page.source.count("```python\n") for page in pages())
    run = check(checker, written)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_type_checkers_would_find_a_wrong_line(checker: str, tmp_path: Path) -> None:
    names = write_programs(pages()[0], tmp_path)
    (tmp_path / "wrong.py").write_text(
        f"from {names['bank']} import Account, Deposit\n"
        'name: str = Account("alice").handle(Deposit(amount=1))\n'
    )
    run = check(checker, tmp_path)
    assert run.returncode == 1
    assert "wrong.py:2" in run.stdout
