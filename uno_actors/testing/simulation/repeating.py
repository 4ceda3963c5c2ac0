"""How a run is repeated: the command line, and the place of the scenario as that names it."""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

Chosen = int | Sequence[int] | None
"""Which faults of a seed's plan happen: so many of the first, those of these numbers, or all."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scenario is found.

    Attributes:
        module: The name of its module, or the path of its file from the current directory.
        name: In its module; ``None`` if it has none there, as a function inside of another one, or a method.
        has_options: Whether a test of that name was made by ``@simulated``, which keeps the options.
    """

    module: str
    name: str | None
    has_options: bool


@dataclass(frozen=True, slots=True)
class Repeat:
    """How one run of a scenario is repeated.

    Attributes:
        place: Where the scenario is found.
        seed: Of the run.
        faults: Which faults of the seed's plan happened.
        commands: Maximum number of commands; ``None`` for all.
        most: Maximum number of faults that were planned; ``None`` for the default.
        kinds: Kinds of faults; empty for the default.
        lost: Names of the options that a command line cannot give.
    """

    place: Place
    seed: object
    faults: Chosen
    commands: int | None
    most: int | None = None
    kinds: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The command line."""
        words = [
            f"uno-actors simulate {self.place.module}:{self.place.name or 'SCENARIO'} --seed {self.seed}"
        ]
        if isinstance(self.faults, int):
            words.append(f"--faults {self.faults}")
        else:
            words.append(f"--only-faults {','.join(map(str, self.faults or ()))}")
        if self.commands is not None:
            words.append(f"--commands {self.commands}")
        if self.most is not None:
            words.append(f"--most {self.most}")
        if self.kinds:
            words.append(f"--kinds '{','.join(self.kinds)}'")
        return " ".join(words)

    @override
    def __str__(self) -> str:
        lines = [f"To repeat it: {self.line}"]
        if self.place.name is None:
            lines.append(
                "That command needs the scenario under a name in its module, not inside of a function or a class, and"
                " without fixtures."
            )
        if self.lost and not self.place.has_options:
            lines.append(
                f"It does not know {', '.join(self.lost)}: give options to @simulated(...) above the scenario instead."
            )
        return "\n".join(lines)


def place_of(scenario: Any) -> Place:
    """Where ``uno-actors simulate`` finds a scenario."""
    in_module, whole_name = (
        getattr(scenario, "__module__", ""),
        getattr(scenario, "__qualname__", "<callable>"),
    )
    module = sys.modules.get(in_module)
    named = {} if module is None else vars(module)
    tests = [
        name
        for name, value in named.items()
        if getattr(getattr(value, "simulated", None), "scenario", None) is scenario
    ]
    own = [name for name, value in named.items() if value is scenario]
    path = None if "<" in whole_name or "." in whole_name or _needs_more(scenario) else whole_name
    name = next(iter([*tests, *own]), path)
    return Place(_written(in_module, getattr(module, "__file__", None)), name, bool(tests))


def _needs_more(scenario: Any) -> bool:
    """Whether it was written with more than the world: pytest gives it fixtures."""
    try:
        written = inspect.signature(scenario).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(each.default is each.empty and each.kind is not each.VAR_KEYWORD for each in written) > 1


def _written(module: str, file: str | None) -> str:
    """A module as it can be imported from the current directory, or else the path of its file."""
    here = Path.cwd()
    if file is None or not Path(file).is_relative_to(here):
        return module
    whole = here.joinpath(*module.split("."))
    if Path(file) in (whole.with_suffix(".py"), whole / "__init__.py"):
        return module
    return Path(file).relative_to(here).as_posix()


def with_its_folder(place: str) -> str:
    """``module:name`` for ``path/to/module.py:name``, whose folder is put on ``sys.path``; others as they are."""
    path, _, name = place.rpartition(":")
    if not path.endswith(".py"):
        return place
    folder, names = Path(path).resolve().parent, [Path(path).stem]
    while (folder / "__init__.py").exists():
        folder, names = folder.parent, [folder.name, *names]
    sys.path.insert(0, str(folder))
    return f"{'.'.join(names)}:{name}"
