"""The pages of the documentation as the tests see them, and the way their programs, files and sessions are run.

What a fenced block means is said by its language:

============ ==================================================================================================
``python``   a program; the ``text`` block right below it is what it prints, without one it prints nothing
``toml``     a configuration file that ``uno-actors check`` finds right; a ``text`` block below it is the output;
             or a ``pyproject.toml``
``console``  a session: commands behind ``$``, each with what it prints
``py``       an excerpt of a file in this repository, which a comment above it names: ``<!-- part of PATH -->``;
             other languages may be excerpts in the same way
``text``     output; or a drawing, where no program stands above it
others       are shown and not run: see `SHOWN`
============ ==================================================================================================

A first line ``# bank.py`` names the file that a block is kept in. The blocks of a page run in order, in one directory.
A page whose front matter says ``files_from: other.md`` begins with the files of that page, and one that says
``directory_from: examples/bank`` with a copy of that directory.

``python -m tests.documents --rewrite [PAGE...]`` writes below each program what it prints today.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BIN = Path(sys.executable).parent

SHOWN = frozenset({"ini", "yaml", "sh", "sql", "json", "dockerfile", "js", "python3"})
"""Languages of blocks that cannot run here: they need a server, a service manager or a package that we do not have."""

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.MULTILINE | re.DOTALL)
_PART = re.compile(r"<!-- part of (\S+) -->")
_NAME = re.compile(r"# (\S+\.\w+)\n")
_ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)")
_REDIRECTION = re.compile(r" (2?)> (\S+)")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_HEX = re.compile(r"\b[0-9a-f]{32}\b")
_TOOK = re.compile(r"\bin [\d.]+ ?s\b")
_REVISION = re.compile(r"\([0-9a-f]{10}\)")
_LAG = re.compile(r"(\d events?) and [\d.]+ \w+ behind")
_HELD = re.compile(r"^\S+ \S+ WARNING \S+ code holds .*\n(?:  .*\n)*", re.MULTILINE)
"""What the watchdog says of a machine that has other work to do, with its stack."""
_PROCESS = re.compile(r"process \d+, up [\d.]+ \w+")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: Behind the fence.
        text: Between the fences.
        start: Where its text begins on the page, in characters.
        line: Of its first fence, from 1.
        above: The line above the fence.
        below: Its output: the ``text`` block that is nothing but blank lines away.
    """

    language: str
    text: str
    start: int
    line: int
    above: str
    below: "Block | None" = None

    @property
    def part_of(self) -> str | None:
        """The file in the repository of which it is an excerpt."""
        found = _PART.fullmatch(self.above)
        return found[1] if found else None

    @property
    def file(self) -> str | None:
        """The file that its first line names."""
        found = _NAME.match(self.text)
        return found[1] if found else None


class Page:
    """A page, with its blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = path.read_text(encoding="utf-8")
        found = _FRONT_MATTER.match(self.source)
        lines = found[1].splitlines() if found else []
        self.front_matter = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def title(self) -> str:
        """Its heading."""
        found = re.search(r"^# (.+)$", self.source, re.MULTILINE)
        assert found, f"{self.name} has no heading"
        return found[1]

    @property
    def blocks(self) -> list[Block]:
        """All blocks, in order; output is found at its program as well."""
        matches = list(BLOCK.finditer(self.source))
        found: list[Block] = []
        for place, match in enumerate(matches):
            above = self.source[: match.start()].rstrip("\n").rpartition("\n")[2]
            below = matches[place + 1] if place + 1 < len(matches) else None
            is_output = below is not None and below[1] == "text"
            is_output = is_output and not self.source[match.end() : below.start()].strip() if below else False
            output = (
                Block("text", below[2], below.start(2), 0, "") if below is not None and is_output else None
            )
            line = self.source.count("\n", 0, match.start()) + 1
            found.append(Block(match[1], match[2], match.start(2), line, above, output))
        return found

    @property
    def has_programs(self) -> bool:
        """Whether something in it is run."""
        return any(block.language in ("python", "toml", "console") for block in self.blocks)

    def ancestors(self) -> Iterator["Page"]:
        """The pages whose files this one begins with, the first first."""
        if name := self.front_matter.get("files_from"):
            other = Page(self.path.parent / name)
            yield from other.ancestors()
            yield other

    def programs(self) -> Iterator[tuple[str, str]]:
        """Names and texts of all Python files of this page; those with no name are numbered."""
        for number, block in enumerate(block for block in self.blocks if block.language == "python"):
            yield block.file or f"program_{number}.py", block.text

    def write_files(self, directory: Path) -> None:
        """Write the files that this page begins with."""
        if name := self.front_matter.get("directory_from"):
            ignored = shutil.ignore_patterns("__pycache__", "data", "*.jsonl")
            shutil.copytree(ROOT / name, directory, ignore=ignored, dirs_exist_ok=True)
        for page in self.ancestors():
            for block in page.blocks:
                if block.file and block.language in ("python", "toml"):
                    write(directory, block.file, block.text)


def write(directory: Path, name: str, text: str) -> None:
    """Write a file, and the directories above it."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def pages() -> list[Page]:
    """The README and every page of the site."""
    return [Page(ROOT / "README.md"), *(Page(path) for path in sorted(DOCS.rglob("*.md")))]


class Runner:
    """Runs programs and commands; see `tests.document_runner`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.document_runner"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, directory: Path, words: list[str], environment: dict[str, str]) -> dict[str, Any]:
        """Run a program of Python, or the command ``uno-actors``, in ``directory``."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"directory": str(directory), "words": words, "environment": environment}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@dataclass(frozen=True)
class Ran:
    """A block, its expected output, and its actual output."""

    block: Block
    expected: str
    printed: str
    error: str = ""

    @property
    def is_right(self) -> bool:
        """Whether it printed what it should; times and random ids differ."""
        return not self.error and without_chance(self.printed) == without_chance(self.expected)


def without_chance(text: str) -> str:
    """``text`` without the parts that differ between runs."""
    lines = "\n".join(line.rstrip() for line in _HELD.sub("", text).splitlines())
    lines = _REVISION.sub("(<revision>)", _LAG.sub(r"\1 and <time> behind", _TOOK.sub("in <time>", lines)))
    return _PROCESS.sub("<process>", _HEX.sub("<id>", _MOMENT.sub("<moment>", lines)))


def run_page(page: Page, directory: Path, runner: Runner) -> Iterator[Ran]:
    """Run the blocks of a page in order."""
    page.write_files(directory)
    for number, block in enumerate(page.blocks):
        expected = block.below.text if block.below else ""
        if block.part_of:
            continue
        if block.language == "python":
            name = block.file or f"program_{number}.py"
            write(directory, name, block.text)
            answer = runner.run(directory, [name], {})
            error = answer["errors"] if answer["code"] else ""
            yield Ran(block, expected, answer["output"], error)
        elif block.language == "toml":
            name = block.file or "system.toml"
            write(directory, name, block.text)
            if name == "pyproject.toml":
                tomllib.loads(block.text)
                continue
            answer = runner.run(directory, ["uno-actors", "check", name], {})
            error = answer["errors"] + answer["output"] if answer["code"] else ""
            yield Ran(block, expected, answer["output"] if block.below else "", error)
        elif block.language == "console":
            yield Ran(block, block.text, session(block.text, directory, runner))


def session(text: str, directory: Path, runner: Runner) -> str:
    """The output of a session; with a background job a shell runs all commands, otherwise most run without one."""
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    if any("&" in command for command in commands):
        return _by_shell("\n".join(f"echo '$ {command}'\n{command}" for command in commands), directory, {})
    shown, environment = "", dict[str, str]()
    for command in commands:
        shown += f"$ {command}\n"
        line, files = _without_redirections(command)
        words = shlex.split(line)
        own = dict(environment)
        while words and (assigned := _ASSIGNMENT.fullmatch(words[0])):
            own[assigned[1]] = assigned[2]
            words = words[1:]
        if words[0] == "export":
            environment |= [words[1].split("=", 1)]
        elif words[0] in ("uno-actors", "python") and not any(mark in line for mark in "|<>$*"):
            answer = runner.run(directory, words[1:] if words[0] == "python" else words, own)
            for name, what in (("output", ""), ("errors", "2")):
                if what in files:
                    write(directory, files[what], answer[name])
                else:
                    shown += answer[name]
        else:
            shown += _by_shell(command, directory, environment)
    return shown


def _without_redirections(command: str) -> tuple[str, dict[str, str]]:
    """A command, and the files that its output (``""``) and its errors (``"2"``) go to."""
    return _REDIRECTION.sub("", command), dict(_REDIRECTION.findall(command))


def _by_shell(script: str, directory: Path, environment: dict[str, str]) -> str:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["/bin/sh", "-c", f"exec 2>&1\n{script}"], cwd=directory, capture_output=True, text=True, check=False,
        timeout=60, env={**os.environ, **environment, "PATH": path},
    )  # fmt: skip
    return run.stdout


def rewrite(page: Page, runner: Runner) -> None:
    """Write the output of each program of a page below it, and the output of its commands into each session."""
    with tempfile.TemporaryDirectory() as directory:
        ran = list(run_page(page, Path(directory), runner))
    source = page.source
    for each in (
        replace(each, printed=re.sub(r" +$", "", each.printed, flags=re.MULTILINE)) for each in reversed(ran)
    ):
        if each.error:
            print(f"{page.name}:{each.block.line} fails\n{each.error}", file=sys.stderr)
        if each.is_right:
            continue
        place = each.block if each.block.language == "console" else each.block.below
        if place is not None:
            source = source[: place.start] + each.printed + source[place.start + len(place.text) :]
        elif each.printed:
            end = each.block.start + len(each.block.text) + len("```")
            source = f"{source[:end]}\n\n```text\n{each.printed}```{source[end:]}"
        print(f"{page.name}:{each.block.line} rewritten", file=sys.stderr)
    page.path.write_text(source, encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Rewrite the pages that are named, or all."""
    if arguments[:1] != ["--rewrite"]:
        sys.exit(__doc__)
    named = [Page(Path(name).resolve()) for name in arguments[1:]]
    runner = Runner()
    for page in named or pages():
        rewrite(page, runner)
    runner.close()


if __name__ == "__main__":
    main(sys.argv[1:])
