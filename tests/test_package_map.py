"""The drawing of the packages is made from the imports and shows all of them."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAP = runpy.run_path(str(ROOT / "docs" / "packages.py"))


def reached(arrows: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs that a path of arrows connects."""
    found = set(arrows)
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    return found


def test_arrows_lead_to_all_imported_packages_and_to_nothing_else() -> None:
    packages = MAP["packages"]()
    every = [(name, other) for name, package in packages.items() for other in package.imports]
    drawn = MAP["arrows"](packages)
    assert ("system", "bus") in drawn
    assert len(drawn) < len(every)
    assert reached(drawn) == reached(every)


def test_no_arrow_is_implied_by_others() -> None:
    drawn = MAP["arrows"](MAP["packages"]())
    for arrow in drawn:
        assert arrow not in reached([other for other in drawn if other != arrow])


def test_every_package_stands_above_what_it_imports() -> None:
    packages = MAP["packages"]()
    heights = MAP["heights"](packages)
    assert heights["leaves"] == 0
    for name, package in packages.items():
        assert all(heights[other] < heights[name] for other in package.imports)


@pytest.mark.parametrize("name", ["leaves", "actors", "domain", "handlers", "cli", "uno_stores"])
def test_packages_are_drawn_with_their_names(name: str) -> None:
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", MAP["draw"]())
    assert texts.count(name) == 1


def test_the_page_with_the_map_says_what_each_package_is_for() -> None:
    page = (ROOT / "docs" / "contributing" / "architecture.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert set(MAP["packages"]()) - {"leaves", "uno_stores"} <= described
