"""Imports point one way, so that each module can be read, tested and changed without those above it."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom to the top. A module may import from its own layer and from those below.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("printable", "store_urls"),
    ("errors", "topics", "clock", "causality", "frozen_models", "log", "quantities", "tasks", "units"),
    ("values", "events", "payloads", "commands"),
    (
        "annotations",
        "marked_methods",
        "aggregate",
        "codec",
        "view_keys",
        "handler_names",
        "limits",
        "log_filter",
        "store_care",
        "causal_tree",
        "store",
        "snapshots",
        "fingerprint",
        "command_memory",
        "repository",
    ),
    (
        "_pykka",
        "asks",
        "timers",
        "future",
        "mailbox",
        "carrier",
        "dispatcher",
        "watchdog",
        "process",
        "actor",
        "supervisor",
        "family",
    ),
    (
        "handlers",
        "projections",
        "handler_control",
        "handler_moves",
        "lanes",
        "bus",
        "publisher",
        "handler_actor",
        "router",
        "journal",
        "aggregate_actor",
        "others",
        "runners",
        "tree",
        "reload",
        "supervision",
        "process_manager",
        "runtime",
    ),
    (
        "toml_lines",
        "config_errors",
        "config_values",
        "config_text",
        "config",
        "config_writer",
        "plan",
        "simulation",
    ),
    ("system",),
    ("bridges",),
    ("__init__",),
    (
        "terminal",
        "record_lines",
        "control",
        "check_cli",
        "service",
        "run_cli",
        "store_copy",
        "store_cli",
        "handlers_cli",
        "deadletters_cli",
        "cli",
    ),
    (
        "testing.clock",
        "testing.contract",
        "testing.faults",
        "testing.probe",
        "testing.scenario",
        "testing",
        "testing.plugin",
    ),
)

STORES_MAY_IMPORT = {
    "store",
    "store_care",
    "store_urls",
    "codec",
    "errors",
    "events",
    "handler_names",
    "limits",
    "log",
    "log_filter",
    "quantities",
    "units",
}
"""What a store needs of uno_actors: the port, the codec, the errors, the registry of events, and a logger."""


def modules_of(package: str) -> dict[str, str]:
    """The source of each module by its name inside of the package: ``errors``, ``testing.clock``, ``__init__``."""
    directory = ROOT / package
    return {
        ".".join(path.relative_to(directory).with_suffix("").parts).removesuffix(".__init__"): path.read_text(
            encoding="utf-8"
        )
        for path in sorted(directory.rglob("*.py"))
    }


def imported(source: str) -> Iterator[str]:
    """The dotted names that really are imported, in functions too; not those for the type checker alone."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                waiting += node.orelse
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                raise AssertionError(f"line {node.lineno}: write imports in full, from the package's name on")
            case _:
                waiting += ast.iter_child_nodes(node)


def imported_modules(source: str, package: str, known: Mapping[str, object]) -> set[str]:
    """The modules of ``package`` that ``source`` imports, by their names inside of it."""
    found = set()
    for name in imported(source):
        top, *path = name.split(".")
        if top != package:
            continue
        while path and ".".join(path) not in known:  # the last names are those of things in a module
            path.pop()
        found.add(".".join(path) or "__init__")
    return found


UNO_ACTORS = modules_of("uno_actors")
STORES = modules_of("stores")
IMPORTS = {name: imported_modules(source, "uno_actors", UNO_ACTORS) for name, source in UNO_ACTORS.items()}
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}


def test_there_is_something_to_look_at() -> None:
    assert {"errors", "events", "store", "__init__"} <= set(UNO_ACTORS)
    assert {"memory", "lmdb"} <= set(STORES)
    assert IMPORTS["codec"] == {"errors", "events", "payloads", "values"}


@pytest.mark.parametrize("module", UNO_ACTORS)
def test_module_stands_in_a_layer(module: str) -> None:
    assert module in HEIGHT, (
        f"uno_actors.{module} stands in no layer: put {module!r} into LAYERS at the top of {Path(__file__).name},"
        " above all that it imports and below all that import it"
    )


def test_each_module_stands_in_one_layer_only() -> None:
    assert len(HEIGHT) == sum(map(len, LAYERS))


@pytest.mark.parametrize("module", UNO_ACTORS)
def test_module_imports_from_its_own_layer_and_from_below(module: str) -> None:
    above = sorted(
        other for other in IMPORTS[module] if HEIGHT.get(other, -1) > HEIGHT.get(module, len(LAYERS))
    )
    assert not above, f"uno_actors.{module} imports from above: {', '.join(above)}"


def test_imports_have_no_cycle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"modules of uno_actors import each other: {' -> '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("module", UNO_ACTORS)
def test_runtime_never_imports_the_stores(module: str) -> None:
    assert not imported_modules(UNO_ACTORS[module], "stores", STORES)


@pytest.mark.parametrize("module", STORES)
def test_store_imports_the_port_the_codec_errors_and_events_only(module: str) -> None:
    assert imported_modules(STORES[module], "uno_actors", UNO_ACTORS) <= STORES_MAY_IMPORT


@pytest.mark.parametrize("module", [module for module in STORES if module != "__init__"])
def test_stores_do_not_import_each_other(module: str) -> None:
    parts = {name for name in STORES if name.startswith("_")}
    assert not imported_modules(STORES[module], "stores", STORES) - parts


def test_pykka_is_imported_in_one_place_at_the_most() -> None:
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
    ("if TYPE_CHECKING:\n    from uno_actors.store import ANY", set()),
    ("if typing.TYPE_CHECKING:\n    import uno_actors.store\nelse:\n    import uno_actors.codec", {"codec"}),
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
