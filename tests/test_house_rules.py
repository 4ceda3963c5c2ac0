"""Rules that the tests themselves keep."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = (ROOT / "uno_actors", ROOT / "stores" / "uno_stores")
TESTS = ROOT / "tests"

MAY_TOUCH_PRIVATE_NAMES = {"faults.py", "mutants.py", "test_contract.py"}
"""The modules of the tests that may: faults and mutants are brought about from inside. The stores
of ``test_contract`` derive from the reference implementation, and each breaks one of its promises."""

NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public names of Python's that look like private ones."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


def _defined(tree: ast.AST) -> Iterator[str]:
    """The private names that are assigned, declared or defined in ``tree``, as attributes or at the top."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self" | "cls")):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name


def _for_implementations(tree: ast.AST) -> Iterator[str]:
    """Methods that a class offers to its subclasses: their docstrings say so."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if (ast.get_docstring(node) or "").startswith("For implementations"):
                    yield name


@cache
def ours() -> frozenset[str]:
    """The private names of our packages."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for place in SOURCES for path in place.rglob("*.py")]
    defined = {name for tree in trees for name in _defined(tree) if is_private(name)}
    return frozenset(defined - NAMED_TUPLES - {name for tree in trees for name in _for_implementations(tree)})


def touched(source: str) -> list[str]:
    """The private names of ours that ``source`` touches, each with its line.

    They may be attributes, imports, and strings given to ``setattr`` and the like. What a class of the test itself
    has, under ``self``, is its own.
    """
    tree = ast.parse(source)
    found, own = [], set(_defined(tree))
    for node in ast.walk(tree):
        names: list[str] = []
        match node:
            case ast.Attribute(attr=name, value=ast.Name(id="self" | "cls")):
                names = [] if name in own else [name]
            case ast.Attribute(attr=name):
                names = [name]
            case ast.ImportFrom(module=str(module), names=aliases) if module.startswith("uno_"):
                names = [alias.name for alias in aliases]
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=arguments) if (
                called in ("setattr", "getattr", "delattr", "attrgetter", "calls_of")
            ):
                texts = [each.value for each in arguments if isinstance(each, ast.Constant)]
                names = [part for text in texts if isinstance(text, str) for part in text.split(".")]
        found += [f"{node.lineno}: {name}" for name in names if name in ours()]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(TESTS.rglob("*.py")) if path.name not in MAY_TOUCH_PRIVATE_NAMES],
    ids=lambda path: path.relative_to(TESTS).as_posix(),
)
def test_tests_leave_private_names_of_ours_alone(path: Path) -> None:
    found = touched(path.read_text(encoding="utf-8"))
    remedy = (
        "to see how things are use statistics(), uno_actors.testing.inspect or InMemoryEventStore.records; "
        "a fault that has to come from inside is a function of tests/faults.py"
    )
    assert found == [], remedy


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("store._environment.env", ["_environment"]),
        ("lambda: system._running().handlers", ["_running"]),
        ("class Store(InMemoryEventStore):\n    def all(self): return self._log", ["_log"]),
        ("class Own:\n    def __init__(self): self._log = []\n    def all(self): return self._log", []),
        ("from uno_actors.actors.turns import _withdrawn", ["_withdrawn"]),
        ("patch.setattr('uno_actors.actors.turns._withdrawn', print)", ["_withdrawn"]),
        ("getattr(store, '_environment')", ["_environment"]),
        ("record._replace(payload=b'')", []),
        ("super()._committed()", []),
    ],
)
def test_a_private_name_is_found_however_it_is_touched(source: str, names: list[str]) -> None:
    assert [found.split(": ")[1] for found in touched(source)] == names


# --- tasks -------------------------------------------------------------------------------------------------

MAY_MAKE_TASKS = {
    "uno_actors/tasks.py",
    "uno_actors/actors/loop_thread.py",
    "uno_actors/testing/contract",
    "uno_actors/cli/worker",
    "uno_actors/testing/simulation/control",
}
"""Where tasks are made in other ways: in the one module for it, on the loop of another thread (from a coroutine that
begins `surely`), by the programs of the contract's checks, in the process that supervises workers, where no code of a
program runs, and for a function of asyncio that makes them in a simulated run."""

MAKERS = {"create_task", "ensure_future", "run_coroutine_threadsafe", "TaskGroup", "Task"}
"""They make tasks by the program's task factory, or take no first step when they are cancelled before."""

MAKERS_OF_COROUTINES = {"gather", "shield", "wait_for"}
"""They do so too when they get a coroutine instead of a task."""


def tasks_made(source: str) -> list[int]:
    """The lines of ``source`` that make a task other than by `uno_actors.tasks.begin`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in MAKERS:
                found.append(node.lineno)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="asyncio"), attr=name), args=[first, *rest]
            ) if name in MAKERS_OF_COROUTINES and any(map(_makes_coroutines, [first, *rest])):
                found.append(node.lineno)
    return found


def _makes_coroutines(argument: ast.expr) -> bool:
    """Whether it calls something other than `begin`."""
    calls = [node for node in ast.walk(argument) if isinstance(node, ast.Call)]
    return bool(calls) and ast.unparse(calls[0].func) != "begin"


@pytest.mark.parametrize(
    "path",
    [
        path
        for place in SOURCES
        for path in sorted(place.rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(tuple(MAY_MAKE_TASKS))
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_library_makes_its_tasks_in_one_way(path: Path) -> None:
    remedy = (
        "use uno_actors.tasks.begin, so that callers get an answer with every task factory and cancellation"
    )
    assert tasks_made(path.read_text(encoding="utf-8")) == [], remedy


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("loop.create_task(work())", [1]),
        ("\nasyncio.ensure_future(work)", [2]),
        ("asyncio.get_running_loop().create_task(work(), name='x')", [1]),
        ("asyncio.Task(work(), loop=loop)", [1]),
        ("asyncio.run_coroutine_threadsafe(work(), loop)", [1]),
        ("asyncio.gather(*[work(n) for n in range(3)])", [1]),
        ("asyncio.shield(self.work())", [1]),
        ("asyncio.shield(begin(loop, self.work()))", []),
        ("asyncio.shield(self._end)", []),
        ("asyncio.gather(*tasks, return_exceptions=True)", []),
        ("begin(loop, work(), name='x')", []),
        ("task: asyncio.Task[None] = begin(loop, work())", []),
    ],
)
def test_a_task_is_found_however_it_is_made(source: str, lines: list[int]) -> None:
    assert tasks_made(source) == lines
