"""The README and the pages of the documentation are true: their programs run, and what they name exists."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import uno_actors
import uno_actors.testing
from tests.documents import BLOCK, DOCS, ROOT, SHOWN, Page, Runner, pages, run_page, without_chance

PAGES = pages()
README = PAGES[0]
GROUPS = ("store", "events", "handlers", "deadletters", "schedule")
"""Commands of the command line that have others."""
NAV = re.compile(r"^ +- (?:[\w ]+: )?(\S+\.md)$", re.MULTILINE)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The generator of the parts of the documentation that come from the code."""
    spec = ast.parse((DOCS / "generate.py").read_text(encoding="utf-8"))
    module = ModuleType("generate")
    module.__file__ = str(DOCS / "generate.py")
    exec(compile(spec, module.__file__, "exec"), vars(module))  # noqa: S102 - a folder of pages is no package
    return module


# --- what runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if page.has_programs], ids=lambda page: page.name)
def test_every_program_and_session_of_the_page_prints_what_it_says(
    page: Page, tmp_path: Path, runner: Runner
) -> None:
    """In order and in one directory, as a reader would: later programs import and continue the first."""
    wrong = [ran for ran in run_page(page, tmp_path, runner) if not ran.is_right]
    assert [f"{page.name}:{ran.block.line}\n{ran.error or ran.printed}" for ran in wrong] == []


def test_what_the_watchdog_says_of_a_busy_machine_is_not_of_the_output() -> None:
    said = (
        "2026-11-29 08:05:31,240 WARNING uno_actors: code holds the event loop system=system actor=watchdog\n"
        '  File "w.py", line 6, in main\n    time.sleep(3)\n'
    )
    assert without_chance(f"a\n{said}{said}b\n") == "a\nb"
    assert without_chance(f"a\n{said.replace('code holds the event loop', 'handler is slow')}b\n") != "a\nb"


def test_a_program_that_prints_something_else_is_found(tmp_path: Path, runner: Runner) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '# Page\n\n```python\nprint(1)\n```\n\n```text\n2\n```\n\n```python\nraise ValueError("no")\n```\n\n'
        "```console\n$ echo this\nthat\n```\n\n```python\nprint(3)\n```\n"
    )
    directory = tmp_path / "here"
    directory.mkdir()
    ran = list(run_page(Page(page), directory, runner))
    assert [each.is_right for each in ran] == [False, False, False, False]
    assert "ValueError: no" in ran[1].error


def test_the_programs_of_the_readme_run_in_a_fresh_interpreter_too(tmp_path: Path) -> None:
    """As `run_page` runs them, in processes forked from one that has imported the library, and as a reader does."""
    programs = [block for block in README.blocks if block.language == "python"]
    assert len(programs) == README.source.count("```python")
    for number, block in enumerate(programs):
        name = block.file or f"program_{number}.py"
        (tmp_path / name).write_text(block.text, encoding="utf-8")
        run = subprocess.run(
            [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert block.below is not None
        assert (run.stdout, run.returncode) == (block.below.text, 0), run.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_of_the_page_escapes_the_tests(page: Page) -> None:
    fences = re.findall(r"^ *```", page.source, re.MULTILINE)
    assert len(fences) == 2 * len(BLOCK.findall(page.source)), "a fence is indented or not closed"
    known = {"python", "text", "toml", "console", "py", *SHOWN}
    assert {block.language for block in page.blocks} <= known
    assert [block.line for block in page.blocks if block.language == "py" and not block.part_of] == []
    for block in page.blocks:
        if block.part_of:
            source = (ROOT / block.part_of).read_text(encoding="utf-8")
            for paragraph in block.text.strip().split("\n\n"):
                assert paragraph in source, f"{page.name}:{block.line}: {block.part_of} has changed"
        if block.language == "python3":
            ast.parse(block.text)


# --- what is named -----------------------------------------------------------------------------------------


def test_every_guarantee_names_tests_that_exist() -> None:
    """The table of promises and the tests agree, both ways."""
    source = (ROOT / "tests" / "test_guarantees.py").read_text(encoding="utf-8")
    written = set(re.findall(r"^async def (test_\w+)", source, re.MULTILINE))
    assert set(re.findall(r"`(test_\d+_\w+)`", README.source)) == written


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len(README.source.splitlines()) <= 250


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_the_page_has_a_target(page: Page) -> None:
    text = BLOCK.sub("", page.source)
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = page.path.parent / link if link else page.path
        assert target.exists(), link
        if anchor:
            headings = re.findall(
                r"^#+ (.+)$", BLOCK.sub("", target.read_text(encoding="utf-8")), re.MULTILINE
            )
            assert anchor in map(_anchor, headings), f"{link}#{anchor}"


def _anchor(heading: str) -> str:
    """The anchor that MkDocs and GitHub make from a heading."""
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_repository_that_the_page_names_exists(page: Page) -> None:
    text = BLOCK.sub("", page.source)
    for name in re.findall(r"`((?:examples|tests|docs|stores|uno_actors|uno_stores)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_public_name_that_a_page_writes_is_there(page: Page) -> None:
    """Names in the API reference, and names imported from the library in blocks that do not run."""
    for name in re.findall(r"^::: (\S+)$", page.source, re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        __import__(module)
        assert hasattr(sys.modules[module], attribute), name
    for name in re.findall(r"`(?:await )?system\.(\w+)\(", page.source):
        assert hasattr(uno_actors.ActorSystem, name), name


def test_every_public_name_is_in_the_reference() -> None:
    """Errors in the table of errors; everything else with its documentation."""
    reference = "\n".join(page.source for page in PAGES if "/reference/" in page.path.as_posix())
    described = set(re.findall(r"^::: uno_actors\.(\w+)$", reference, re.MULTILINE))
    table = Page(DOCS / "reference" / "errors.md").source
    errors = {name for name in uno_actors.__all__ if _is_error(getattr(uno_actors, name))}
    assert set(uno_actors.__all__) - errors - described == set()
    assert {name for name in errors if not re.search(rf"^\| `{name}` \|", table, re.MULTILINE)} == set()
    for name, kind in re.findall(r"^\| `(\w+)` \| (caller|world|internal) \|", table, re.MULTILINE):
        base = {
            "caller": uno_actors.CallerError,
            "world": uno_actors.WorldError,
            "internal": uno_actors.InternalError,
        }
        assert issubclass(getattr(uno_actors, name), base[kind]), name


def _is_error(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, uno_actors.UnoError)


def test_every_tool_for_tests_is_named() -> None:
    text = (DOCS / "how-to" / "testing.md").read_text() + (
        DOCS / "reference" / "api" / "testing.md"
    ).read_text()
    assert [
        name for name in uno_actors.testing.__all__ if name not in text and name not in _TYPES_OF_CHECKS
    ] == []


_TYPES_OF_CHECKS = {"Check", "CONTRACT", "MakeStore"}


# --- what is generated -------------------------------------------------------------------------------------


def test_the_generated_tables_name_all_keys_and_all_commands(generate: ModuleType) -> None:
    keys, commands = generate.configuration_keys(), generate.commands()
    for key in (
        "store_options",
        "remember_commands",
        "max_restarts",
        "auto_shutdown",
        "concurrency",
        "reset_after",
    ):
        assert f"| `{key}` |" in keys
    for command in ("check", "run", "tree", "schema", "store copy", "handlers replay", "deadletters retry"):
        assert f"## uno-actors {command}\n" in commands
    for option in ("--simulate", "--follow", "--resume", "--wait", "--store`, `-s"):
        assert f"`{option}`" in commands


def test_every_command_and_option_that_a_page_writes_is_there(generate: ModuleType) -> None:
    known = generate.commands()
    commands = set(re.findall(r"^## (uno-actors [a-z -]+)$", known, re.MULTILINE))
    options = set(re.findall(r"`(--[a-z-]+)`", known))
    shown = subprocess.run(
        [sys.executable, "-m", "uno_actors", "--help"], capture_output=True, text=True, check=True
    )
    own_options = set(re.findall(r"(--[a-z-]+)", shown.stdout))
    for page in PAGES:
        for line in re.findall(
            r"`(uno-actors [^`\n]+)`|^\$ .*?(uno-actors [^|;&<>\n]+)", page.source, re.MULTILINE
        ):
            words = "".join(line).split()
            if words[1] in own_options:
                continue
            name = " ".join(words[: 3 if words[1] in GROUPS else 2])
            is_group = len(words) == 2 and words[1] in GROUPS
            assert is_group or name in commands, f"{page.name}: {' '.join(words)}"
            assert {word.split("=")[0] for word in words if word.startswith("--")} <= options, (
                f"{page.name}: {words}"
            )


def test_a_page_asks_only_for_tables_that_exist(generate: ModuleType) -> None:
    for page in PAGES:
        for name in re.findall(r"<!-- generated: ([\w ]+) -->", page.source):
            assert name in generate.GENERATORS
    assert "<!--" not in generate.with_tables("<!-- generated: promises -->")


def test_the_way_of_one_command_is_given_by_file_and_line(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = re.findall(r"`(\S+\.py):(\d+)` \| `\w+\.(\w+)`", generate.steps())
    assert len(places) == len(generate.STEPS)
    for path, line, name in places:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    monkeypatch.setattr(generate, "STEPS", (("domain", "AggregateRoot.forgotten", "does something"),))
    with pytest.raises(LookupError, match="STEPS"):
        generate.steps()


def test_the_site_and_its_list_for_language_models_have_every_page(generate: ModuleType) -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = NAV.findall(config[config.index("\nnav:") :])
    assert sorted(listed) == sorted(page.path.relative_to(DOCS).as_posix() for page in PAGES[1:])
    text = generate.llms_txt(["index.md", {"Rest": [name for name in listed if name != "index.md"]}], DOCS)
    for page in PAGES[1:]:
        assert page.front_matter.get("description"), page.name
        assert page.front_matter["description"] in text
        assert f"- [{page.title}](" in text


def test_the_documentation_group_is_what_the_configuration_uses() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert {re.split(r"[\[>]", name)[0] for name in groups["docs"]} == {
        "mkdocs",
        "mkdocs-material",
        "mkdocstrings",
    }
    assert all(">=" in name for name in groups["docs"])
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in config, "fonts would be fetched from elsewhere"


def test_nothing_in_the_pages_is_fetched_from_elsewhere() -> None:
    found = [page.name for page in PAGES if re.search(r"!\[[^\]]*\]\(https?:|<script|<img", page.source)]
    assert found == []
