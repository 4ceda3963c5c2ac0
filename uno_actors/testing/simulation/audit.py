"""The views of a run's projections, and what new ones make of the same log."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.view import entry_of
from uno_actors.scheduling.due_list import DueList, DueLists
from uno_actors.store.records import Append
from uno_actors.system.system import ActorSystem
from uno_actors.testing.simulation.nodes import Node
from uno_actors.testing.simulation.store import Shelf, _now
from uno_actors.testing.simulation.world import World

View = dict[bytes, bytes]


async def fold(world: World, shelf: Shelf, specs: Mapping[str, HandlerSpec]) -> dict[str, tuple[View, View]]:
    """For each projection its view as it is, and as a new one makes it of the log."""
    if not specs:
        return {}
    nodes = world.nodes
    number = sum(name.startswith("audit ") for name in nodes.by_name) + 1
    name = f"audit {number} of {shelf.name}"
    nodes.audits[name] = audit = Shelf(world.core, name, nodes.event_registry)
    for positions in shelf.commits:
        records = tuple(shelf.records[position - 1] for position in positions)
        _now(audit.state.commit([Append(records, None)]))
    wholes = {whole_name(spec.name): _anew(spec.whole()) for spec in specs.values()}

    def make(node: Node) -> ActorSystem:
        return ActorSystem(node.store, aggregates=[], handlers=[*wholes.values()], name="audit")

    node_name = f"audit {number}"
    system = await nodes.start(node_name, make, name)
    await system.settled(60.0)
    found: dict[str, tuple[View, View]] = {}
    for handler in specs:
        found[handler] = await _view(shelf, handler), await _view(audit, handler)
    await world.stop(node_name)
    del nodes.audits[name]
    return found


def _anew(spec: HandlerSpec) -> HandlerSpec:
    """The projection for another system beside the one in which it runs: that would share what it holds."""
    if isinstance(spec.target, type):
        return spec
    target = copy(spec.target)
    if isinstance(target, DueList):
        lists = DueLists(target.lists.clock)
        lists.is_stopping = True  # it makes its list, and sends nothing
        return replace(spec, target=DueList(lists))
    return replace(spec, target=target)


async def _view(shelf: Shelf, handler: str) -> View:
    entry: Any = _now(entry_of(shelf.state, handler))
    if entry.current is None:
        return {}
    return dict(_now(shelf.state.read_view(entry.current, limit=None)))
