"""A program as its aggregates and handlers: loaded from a configuration file, or from modules."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from uno_actors.catalog.reading import handlers_in, loaded_aggregates
from uno_actors.config.analysis import Node, analyse
from uno_actors.config.reader import load
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import describe
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import gather

FAILURES = (Exception, SystemExit)
"""What code of a program may raise; in production, too, the end of a program there is a failure of one event."""


class NotAProgram(Exception):
    """The sources name no program; the text says why."""


class Program(NamedTuple):
    """What a program records and handles.

    Attributes:
        name: Of its system, or of its first module.
        aggregates: Its aggregates and process managers.
        handlers: Its handlers, those under supervisors included.
    """

    name: str
    aggregates: list[type[AggregateRoot]]
    handlers: list[HandlerSpec]

    @property
    def types(self) -> dict[str, type[AggregateRoot]]:
        """The aggregates by the name of their type."""
        return {kind.aggregate_type: kind for kind in self.aggregates}


def is_file(source: str) -> bool:
    """Whether a source is a configuration file and not a module."""
    return Path(source).suffix in (".toml", ".json")


def program_of(sources: Sequence[str]) -> Program:
    """The program in a configuration file, or in modules, which are imported.

    Raises:
        InvalidConfig: The configuration file has faults.
        NotAProgram: A module cannot be imported, or files and modules are mixed.
    """
    if any(map(is_file, sources)):
        if len(sources) > 1:
            raise NotAProgram("give one file, or modules")
        config = load(Path(sources[0]))
        tree = analyse(config.supervisors, config.system.stop_timeout).tree
        types = config.aggregates.types
        handlers = list(gather([*config.handlers, *_handlers(tree)]))
        return Program(config.system.name, list(loaded_aggregates() if types is None else types), handlers)
    modules = []
    for source in sources:
        try:
            modules.append(importlib.import_module(source))
        except FAILURES as error:  # a module may raise anything
            raise NotAProgram(f"module {source!r} cannot be imported ({describe(error)})") from None
    handlers = [spec for module in modules for spec in handlers_in(module)]
    return Program(sources[0].partition(".")[0], loaded_aggregates(), handlers)


def file_of(kind: type) -> str | None:
    """The file in which a class is defined."""
    return getattr(sys.modules.get(kind.__module__), "__file__", None)


def _handlers(nodes: Sequence[Node]) -> Iterator[HandlerSpec]:
    for node in nodes:
        if node.handler is not None:
            yield node.handler
        yield from _handlers(node.children)
