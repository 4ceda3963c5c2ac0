"""Draws the packages and who imports whom, from the imports in the code.

    python docs/packages.py > packages.svg

An arrow points from a package to one that it imports. An arrow that follows from others is left out: `system` imports
`errors` too, but a path of arrows leads there already. Imports for the type checker alone count.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import mean
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).parent.parent
PLACES = {"uno_actors": ROOT / "uno_actors", "uno_stores": ROOT / "stores" / "uno_stores"}
LEAVES = "leaves"
UNDRAWN = {"__init__", "__main__", "_public", "testing"}
"""Not drawn: the list of public names imports all, and tools for tests import what they test."""

WIDTH, HEIGHT, GAP, RISE, MARGIN = 214, 62, 26, 56, 60


class Package(NamedTuple):
    """A package as it is drawn.

    Attributes:
        modules: How many it has, without ``__init__``.
        lines: Of all its code.
        summary: The first sentence of its docstring.
        imports: The packages that it imports.
    """

    modules: int
    lines: int
    summary: str
    imports: frozenset[str]


@cache
def packages() -> dict[str, Package]:
    """The packages of the repository by name; the modules directly in ``uno_actors`` are the ``leaves``."""
    files: dict[str, list[Path]] = {}
    for top, place in PLACES.items():
        for path in sorted(place.rglob("*.py")):
            name = _package_of((top, *path.relative_to(place).with_suffix("").parts))
            if name not in UNDRAWN:
                files.setdefault(name, []).append(path)
    return {name: _package(name, paths) for name, paths in files.items()}


def _package(name: str, paths: list[Path]) -> Package:
    sources = {path: path.read_text(encoding="utf-8") for path in paths}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    (docstring,) = [ast.get_docstring(tree) for path, tree in trees.items() if _is_of_package(path)] or [""]
    summary = (docstring or "errors, logs, clock, topics, causality").partition(".")[0].replace("`", "")
    imported = {_package_of(tuple(other.split("."))) for tree in trees.values() for other in _imported(tree)}
    modules = sum(path.name != "__init__.py" for path in paths)
    lines = sum(source.count("\n") for source in sources.values())
    return Package(modules, lines, summary, frozenset(imported - {name} - UNDRAWN))


def _is_of_package(path: Path) -> bool:
    return path.name == "__init__.py" and path.parent.parent in {ROOT / "uno_actors", ROOT / "stores"}


def _package_of(parts: tuple[str, ...]) -> str:
    """The package of a module, by the parts of its dotted name."""
    top, *path = parts
    if top == "uno_stores":
        return top
    if not path or path[0] in UNDRAWN:
        return path[0] if path else "__init__"
    return path[0] if (PLACES["uno_actors"] / path[0]).is_dir() else LEAVES


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.partition(".")[0] in PLACES)


def heights(drawn: dict[str, Package]) -> dict[str, int]:
    """How high each package stands: one above the highest that it imports."""
    found: dict[str, int] = {}
    for name in TopologicalSorter({name: package.imports for name, package in drawn.items()}).static_order():
        found[name] = 1 + max((found[below] for below in drawn[name].imports), default=-1)
    return found


def arrows(drawn: dict[str, Package]) -> list[tuple[str, str]]:
    """The imports that do not follow from others."""

    @cache
    def reached(name: str) -> frozenset[str]:
        return drawn[name].imports.union(*map(reached, drawn[name].imports))

    return [
        (name, below)
        for name, package in drawn.items()
        for below in sorted(package.imports)
        if not any(below in reached(other) for other in package.imports)
    ]


def draw() -> str:
    """The drawing, as SVG."""
    drawn = packages()
    height = heights(drawn)
    rows = [[name for name in drawn if height[name] == row] for row in range(max(height.values()) + 1)]
    total = max(len(row) for row in rows) * (WIDTH + GAP) - GAP + 2 * MARGIN
    place: dict[str, tuple[float, float]] = {}
    for row, names in enumerate(rows):  # from the bottom; each as near as can be above what it imports
        names.sort(
            key=lambda name: mean(
                [place[below][0] for below in drawn[name].imports if below != LEAVES] or [0]
            )
        )
        left = (total - len(names) * (WIDTH + GAP) + GAP) / 2
        for column, name in enumerate(names):
            place[name] = (left + column * (WIDTH + GAP), GAP + (len(rows) - 1 - row) * (HEIGHT + RISE))
    bottom = GAP + len(rows) * (HEIGHT + RISE) - RISE + GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {bottom}" font-family="sans-serif">',
            "<title>The packages of uno_actors; an arrow points to what a package imports</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0 0 L8 4 L0 8 z" fill="#5c6bc0"/></marker></defs>',
            *(_arrow(place[above], place[below]) for above, below in arrows(drawn)),
            *(_box(name, drawn[name], place[name]) for name in drawn),
            "</svg>",
            "",
        ]
    )


def _arrow(above: tuple[float, float], below: tuple[float, float]) -> str:
    """A curve from the bottom of one box to the top of another, round the boxes of the rows between."""
    x1, y1, x2, y2 = above[0] + WIDTH / 2, above[1] + HEIGHT, below[0] + WIDTH / 2, below[1]
    if x1 == x2 and y2 - y1 > RISE:
        x = x1 - 0.9 * WIDTH
        path = f"M{x1:g} {y1:g} C{x:g} {y1 + RISE:g} {x:g} {y2 - RISE:g} {x2:g} {y2:g}"
    else:
        y, bend = y2 - RISE, RISE / 2
        path = f"M{x1:g} {y1:g} V{y:g} C{x1:g} {y + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    return f'<path d="{path}" fill="none" stroke="#5c6bc0" stroke-width="1.3" marker-end="url(#tip)"/>'


def _box(name: str, package: Package, place: tuple[float, float]) -> str:
    x, y = place
    size = f"{package.modules} modules, {package.lines:,} lines"
    words = package.summary if len(package.summary) <= 38 else f"{package.summary[:37].rstrip(' ,:')}…"
    lines = [
        (name, 20, 'font-size="14" font-weight="bold"'),
        (words, 38, 'font-size="10.5"'),
        (size, 53, 'font-size="10"'),
    ]
    texts = "".join(
        f'<text x="{x + WIDTH / 2:g}" y="{y + down}" text-anchor="middle" fill="#1a237e" {font}>{escape(text)}</text>'
        for text, down, font in lines
    )
    box = f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#e8eaf6" stroke="#5c6bc0"/>'
    return f"<g><title>{escape(package.summary)}</title>{box}{texts}</g>"


if __name__ == "__main__":
    sys.stdout.write(draw())
