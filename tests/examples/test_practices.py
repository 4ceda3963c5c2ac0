"""The programs of examples/practices print what stands below them."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "examples" / "practices" / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = [part.partition("\n") for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]]


@pytest.mark.parametrize(("title", "text"), [(title, text) for title, _, text in SECTIONS])
def test_the_program_prints_what_stands_below_it(title: str, text: str, tmp_path: Path) -> None:
    programs = [
        (code, printed)
        for (language, code), (other, printed) in pairwise(BLOCK.findall(text))
        if (language, other) == ("python", "text")
    ]
    assert programs, f"{title} has no program"
    for code, printed in programs:
        (tmp_path / "program.py").write_text(code, encoding="utf-8")
        run = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert run.stdout == printed, run.stderr
        assert run.returncode == 0, run.stderr
