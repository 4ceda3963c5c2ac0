"""The README's programs run as they stand and print what it says they print."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs() -> list[tuple[str, str]]:
    """Each Python block with the text block after it."""
    blocks = BLOCK.findall(README)
    return [
        (code, text)
        for (language, code), (other, text) in itertools.pairwise(blocks)
        if (language, other) == ("python", "text")
    ]


def test_every_program_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    """In order and in one directory, as a reader would: later programs import and continue the first."""
    found = programs()
    assert len(found) == README.count("```python")
    for number, (code, expected) in enumerate(found):
        name = code.removeprefix("# ").splitlines()[0] if code.startswith("# ") else f"program_{number}.py"
        (tmp_path / name).write_text(code)
        run = subprocess.run(
            [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout == expected, name


def test_the_session_of_the_readme_goes_as_it_says(tmp_path: Path) -> None:
    """Each command by the shell, beside the store that the programs made; times of day differ."""
    before = README.partition("```console")[0]
    for number, (code, _) in enumerate(programs()):
        if "lmdb:bank" in code and code in before:
            name = "bank.py" if code.startswith("# bank.py") else f"program_{number}.py"
            (tmp_path / name).write_text(code)
            subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, check=True)
    (session,) = (code for language, code in BLOCK.findall(README) if language == "console")
    commands = [line.removeprefix("$ ") for line in session.splitlines() if line.startswith("$ ")]
    script = "exec 2>&1\n" + "\n".join(f"echo '$ {command}'\n{command}" for command in commands)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["/bin/sh", "-c", script], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    moment = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
    assert moment.sub("", run.stdout) == moment.sub("", session)


def test_the_configuration_file_of_the_readme_is_the_banks_and_is_checked_as_it_says() -> None:
    (shown, checked) = next(
        (code, text)
        for (language, code), (other, text) in itertools.pairwise(BLOCK.findall(README))
        if (language, other) == ("toml", "text")
    )
    bank = ROOT / "examples" / "bank"
    assert shown == (bank / "bank.toml").read_text()
    command = [Path(sys.executable).with_name("uno-actors"), "check", "bank.toml"]
    run = subprocess.run(command, cwd=bank, capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == (checked, 0)


def test_every_guarantee_names_tests_that_exist() -> None:
    """The table of promises and the tests agree, both ways."""
    source = (ROOT / "tests" / "test_guarantees.py").read_text()
    written = set(re.findall(r"^async def (test_\w+)", source, re.MULTILINE))
    assert set(re.findall(r"`(test_\d+_\w+)`", README)) == written


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_parts_of_examples_are_as_they_are_in_the_example() -> None:
    parts = re.findall(r"<!-- part of (\S+) -->\n```py\n(.*?)```", README, re.DOTALL)
    assert len(parts) == README.count("```py\n")
    for path, part in parts:
        source = (ROOT / path).read_text(encoding="utf-8")
        for paragraph in part.strip().split("\n\n"):
            assert paragraph in source, f"{path} has changed"
