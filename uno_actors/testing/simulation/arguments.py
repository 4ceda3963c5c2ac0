"""What `simulate` is given, checked before the first run."""

import inspect
import math
from collections.abc import Iterable
from typing import Any

from uno_actors.testing.simulation.world import Invariant

NO_SEED = "there is no seed to run, so nothing would be tested: give a number of seeds from 1 up, or a list of seeds"


def check_scenario(scenario: Any) -> None:
    """Refuse what cannot be called with a world alone.

    Raises:
        TypeError: It cannot.
    """
    if isinstance(scenario, type) or not callable(scenario):
        raise TypeError(f"a scenario is a function, async def scenario(world); found {scenario!r}")
    name = describe_function(scenario)
    try:
        signature = inspect.signature(scenario, follow_wrapped=False)
    except (TypeError, ValueError):  # it has none that Python can read
        return
    try:
        signature.bind(None)
    except TypeError:
        raise TypeError(
            f"a scenario takes the world and nothing else, async def scenario(world); found {name}{signature}. Bind"
            " what else it needs with functools.partial, or give it a default"
        ) from None
    if inspect.isasyncgenfunction(scenario):
        raise TypeError(f"a scenario is a coroutine function, and {name} is a generator: remove its yield")


def describe_function(function: Any) -> str:
    """The name of a function, or what stands for one."""
    return str(getattr(function, "__qualname__", None) or repr(function))


def check_numbers(faults: object, within: object) -> None:
    """Refuse a number of faults or seconds that has no meaning.

    Raises:
        TypeError: It is not a number.
        ValueError: It is out of range.
    """
    if not isinstance(faults, int) or isinstance(faults, bool):
        raise TypeError(f"faults is a number of faults, from 0 up; found {faults!r}")
    if faults < 0:
        raise ValueError(f"faults is a number of faults, from 0 up; found {faults!r}")
    if not isinstance(within, int | float):
        raise TypeError(f"within is a number of seconds above 0; found {within!r}")
    if not 0 < within < math.inf:
        raise ValueError(f"within is a number of seconds above 0; found {within!r}")


def checked_invariants(invariants: Any) -> tuple[Invariant, ...]:
    """The invariants as a tuple.

    Raises:
        TypeError: It is not a list of functions.
    """
    if not isinstance(invariants, Iterable):
        raise TypeError(f"invariants is a list of functions, as [*ALWAYS, own]; found {invariants!r}")
    found = tuple(invariants)
    for each in found:
        if not callable(each):
            raise TypeError(f"an invariant is a function of the world; found {each!r}")
    return found


def checked_seeds(seeds: Any) -> Iterable[int]:
    """The seeds, of which a number is so many, from 0 up.

    Raises:
        TypeError: They are neither a number nor a list of numbers.
        ValueError: There is none.
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise ValueError(f"{NO_SEED}; found {seeds}")
        return range(seeds)
    if isinstance(seeds, bool | str | bytes) or not isinstance(seeds, Iterable):
        raise TypeError(f"seeds is a number of seeds, or a list of them, as range(200); found {seeds!r}")
    return seeds
