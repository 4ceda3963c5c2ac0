"""Imports point one way, so that each package can be read, tested and changed without those above it."""

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACES = {"uno_actors": ROOT / "uno_actors", "uno_stores": ROOT / "stores" / "uno_stores"}

# From the bottom to the top. A package may import itself and what stands below its line.
DIRECTIONS: tuple[tuple[str, ...], ...] = (
    ("leaves",),  # the modules directly in uno_actors
    ("flight_recorder",),
    ("actors", "domain"),
    ("supervision", "store"),
    ("aggregates",),
    ("handlers",),
    ("cluster", "processes"),
    ("bus", "catalog", "config", "outside", "read_models", "scheduling"),
    ("inquiry",),
    ("rehearsal", "system"),
    ("_public",),
    ("ops",),
    ("fastapi",),
    ("testing",),
    ("cli",),
    ("__main__", "django"),  # whose command is that of cli
)

SHARED_BY_STORES = {
    "files",
    "guards",
    "locks",
    "memory_nodes",
    "node_files",
    "file_nodes",
    "file_leases",
    "given_leases",
}
"""Modules of uno_stores that are no store, and that stores share."""

STORES_MAY_IMPORT = {"leaves", "store", "domain.events"}
"""The parts of uno_actors that a store needs: the port and its values, the registry of events, and leaves."""


def modules_of(package: str) -> dict[str, str]:
    """The source of each module by its name inside the package: ``errors``, ``testing.clock``, ``__init__``."""
    directory = PLACES[package]
    return {
        ".".join(path.relative_to(directory).with_suffix("").parts).removesuffix(".__init__"): path.read_text(
            encoding="utf-8"
        )
        for path in sorted(directory.rglob("*.py"))
    }


def imported(source: str) -> Iterator[str]:
    """The dotted names that are imported: at the top, in functions, and for the type checker alone."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                raise AssertionError(f"line {node.lineno}: write imports in full, from the package's name on")


def imported_modules(source: str, package: str, known: Mapping[str, object]) -> set[str]:
    """The modules of ``package`` that ``source`` imports, by their names inside the package."""
    found = set()
    for name in imported(source):
        top, *path = name.split(".")
        if top != package:
            continue
        while path and ".".join(path) not in known:  # the last names are those of things in a module
            path.pop()
        found.add(".".join(path) or "__init__")
    return found


def package_of(module: str) -> str:
    """The package of a module of uno_actors; ``leaves`` for the modules directly in uno_actors."""
    first, *rest = module.split(".")
    return first if rest or first in HEIGHT else "leaves"


HEIGHT = {package: height for height, line in enumerate(DIRECTIONS) for package in line}
UNO_ACTORS = modules_of("uno_actors")
STORES = modules_of("uno_stores")
MODULES = [name for name in UNO_ACTORS if name != "__init__"]


@cache
def imports() -> dict[str, set[str]]:
    """The modules of uno_actors that each of them imports."""
    return {name: imported_modules(UNO_ACTORS[name], "uno_actors", UNO_ACTORS) for name in MODULES}


def test_there_are_modules_to_check() -> None:
    assert {"errors", "domain.events", "store.port", "__init__"} <= set(UNO_ACTORS)
    assert {"memory", "lmdb.store", "sql.store"} <= set(STORES)
    assert imports()["store.codec"] == {
        "errors",
        "domain.events",
        "domain.payload_reader",
        "domain.payloads",
        "domain.values",
    }


def test_every_package_has_one_place_in_the_order() -> None:
    packages = {package_of(module) for module in MODULES}
    assert packages == set(HEIGHT)
    assert len(HEIGHT) == sum(map(len, DIRECTIONS))


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_from_its_own_package_and_from_below(module: str) -> None:
    own = package_of(module)
    above = sorted(
        other
        for other in imports()[module]
        if package_of(other) != own and HEIGHT[package_of(other)] >= HEIGHT[own]
    )
    assert not above, f"uno_actors.{module} imports from above or beside: {', '.join(above)}"


@pytest.mark.parametrize("package", ["uno_actors", "uno_stores"])
def test_imports_have_no_cycle(package: str) -> None:
    modules = modules_of(package)
    graph = {
        name: imported_modules(source, package, modules) - {"__init__"} for name, source in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules of {package} import each other: {' -> '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("module", UNO_ACTORS)
def test_runtime_never_imports_the_stores(module: str) -> None:
    assert not imported_modules(UNO_ACTORS[module], "uno_stores", STORES)


@pytest.mark.parametrize("module", STORES)
def test_store_imports_the_port_the_codec_errors_and_events_only(module: str) -> None:
    for name in imported_modules(STORES[module], "uno_actors", UNO_ACTORS):
        assert {name, package_of(name)} & STORES_MAY_IMPORT, f"uno_stores.{module} imports uno_actors.{name}"


@pytest.mark.parametrize("module", [module for module in STORES if module != "__init__"])
def test_stores_do_not_import_each_other(module: str) -> None:
    own = module.partition(".")[0]
    others = {name.partition(".")[0] for name in imported_modules(STORES[module], "uno_stores", STORES)}
    assert others <= {own, *SHARED_BY_STORES}


HALVES = [
    (["actors"], {"domain", "store", "aggregates", "handlers", "bus", "system"}),
    (["domain", "store"], {"actors", "supervision", "aggregates", "handlers", "bus", "system"}),
]


@pytest.mark.parametrize(("half", "other"), HALVES, ids=["actors without events", "events without actors"])
def test_each_half_works_without_the_other(half: list[str], other: set[str]) -> None:
    names = [
        f"uno_actors.{package}.{module.name}"
        for package in half
        for module in pkgutil.iter_modules([str(PLACES["uno_actors"] / package)])
    ]
    program = f"import sys, {', '.join(names)}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[1] for name in run.stdout.split() if name.startswith("uno_actors.")}
    assert set(half) <= loaded
    assert not loaded & other


def test_pykka_is_imported_in_one_place_at_most() -> None:
    users = [name for name, source in UNO_ACTORS.items() if any(map(_is_pykka, imported(source)))]
    assert len(users) <= 1, f"pykka is imported in several modules: {', '.join(users)}"


def _is_pykka(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] == "pykka"


# --- that the tests above can see what they look for -------------------------------------------------------

SOURCES = [
    # source, modules of the package `uno_actors` that it imports
    ("import uno_actors.errors", {"errors"}),
    ("import uno_actors.errors as e, json", {"errors"}),
    ("from uno_actors.errors import UnoError", {"errors"}),
    ("from uno_actors import errors", {"errors"}),
    ("from uno_actors import ActorSystem", {"__init__"}),
    ("import uno_actors", {"__init__"}),
    ("def f():\n    from uno_actors.store import ANY", {"store"}),
    ("class A:\n    async def f(self):\n        if x:\n            import uno_actors.store", {"store"}),
    (
        "try:\n    import uno_actors.store\nexcept ImportError:\n    import uno_actors.codec",
        {"store", "codec"},
    ),
    ("if TYPE_CHECKING:\n    from uno_actors.store import ANY", {"store"}),
    (
        "if typing.TYPE_CHECKING:\n    import uno_actors.store\nelse:\n    import uno_actors.codec",
        {"store", "codec"},
    ),
    ("import json\nfrom uno_actors_contrib.errors import X", set()),
    ("x = 'import uno_actors.store'  # import uno_actors.codec", set()),
]


@pytest.mark.parametrize(("source", "wanted"), SOURCES)
def test_imports_are_seen_wherever_they_are_written(source: str, wanted: set[str]) -> None:
    known = {"errors": 0, "store": 0, "codec": 0, "__init__": 0}
    assert imported_modules(source, "uno_actors", known) == wanted


def test_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="line 2: write imports in full"):
        list(imported("import json\nfrom .errors import UnoError"))
