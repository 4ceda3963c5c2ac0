"""``uno-actors simulate``: run a scenario, or repeat one of its runs and tell its story."""

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from uno_actors.cli.opening import has_effect
from uno_actors.cli.terminal import complain, say, say_json
from uno_actors.config.imports import imported
from uno_actors.printable import counted, printable


def simulate(
    context: typer.Context,
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME", help="A scenario, or a test made of one; the module may be a path."
        ),
    ],
    seed: Annotated[
        int | None, typer.Option(help="Repeat the run of this seed, and print its story.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Without --seed: number of seeds to run.")] = 200,
    faults: Annotated[
        int | None, typer.Option(min=0, help="With --seed: number of its faults, from the first.")
    ] = None,
    only_faults: Annotated[
        str | None, typer.Option(metavar="N,N", help="With --seed: only the faults with these numbers.")
    ] = None,
    commands: Annotated[
        int | None, typer.Option(min=0, help="With --seed: maximum number of commands.")
    ] = None,
    most: Annotated[int | None, typer.Option(help="Maximum number of faults that a seed plans.")] = None,
    kinds: Annotated[str | None, typer.Option(metavar="KIND,KIND", help="Kinds of faults.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Do not shorten the lines of the story.")] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the story as JSON, one object per line; without --seed the numbers."
        ),
    ] = False,
) -> None:
    """Run a scenario in virtual time, with faults. Exit code 1 if a run fails."""
    has_effect(context, seed is not None, "without --seed", "faults", "only_faults", "commands", "whole")
    has_effect(context, seed is None, "with --seed", "seeds")
    has_effect(context, only_faults is None, "with --only-faults", "faults")
    has_effect(context, not as_json, "with --json", "whole")
    # here, so that the other commands start without it
    simulation = importlib.import_module("uno_actors.testing.simulation.marking")
    running = importlib.import_module("uno_actors.testing.simulation.running")
    control = importlib.import_module("uno_actors.testing.simulation.control")
    repeating = importlib.import_module("uno_actors.testing.simulation.repeating")
    story = importlib.import_module("uno_actors.testing.simulation.timeline")
    sys.path.insert(0, str(Path.cwd()))
    options: dict[str, Any] = {}
    if most is not None:
        options["faults"] = most
    if kinds is not None:
        options["kinds"] = [kind.strip() for kind in kinds.split(",")]
    if ":" not in scenario or "::" in scenario:
        complain(
            f"{printable(scenario)}: name a scenario as MODULE:NAME, such as shop:orders or tests/test_shop.py:orders"
        )
        raise typer.Exit(2)
    try:
        made, found, kept = simulation.simulation_of(imported(repeating.with_its_folder(scenario)), **options)
        chosen = faults if only_faults is None else _numbers(only_faults)
    except (TypeError, ValueError) as error:
        complain(f"{printable(scenario)}: {printable(str(error))}")
        raise typer.Exit(2) from None
    try:
        if seed is None:
            done = running.simulate(found, range(seeds), **kept)
        else:
            with control.controlled():
                run = made.run(seed, chosen, commands)
    except running.SimulationFailed as failed:
        complain("\n".join(map(printable, str(failed).splitlines())))
        raise typer.Exit(1) from None
    except ValueError as error:  # one of the scenario would be the run's
        complain(f"{printable(scenario)}: {printable(str(error))}")
        raise typer.Exit(2) from None
    if seed is None:
        _say_figures(done, as_json=as_json)
        return
    if as_json:
        _say_as_json(run)
    else:
        for line in story.timeline(run, None if whole else story.LONGEST_TEXT):
            say(line)
    raise typer.Exit(0 if run.error is None else 1)


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--only-faults takes numbers of faults, as 1,3; found {text}") from None


def _say_figures(done: Any, *, as_json: bool) -> None:
    if as_json:
        say_json({"runs": done.runs, "faults": done.faults, "steps": done.steps, "seconds": done.seconds})
        return
    say(
        f"{counted(done.runs, 'run')} with {counted(done.faults, 'fault')}: {done.steps:,} steps,"
        f" {done.seconds:,.0f} s of virtual time in {done.took:.1f} s; nothing is broken"
    )


def _say_as_json(run: Any) -> None:
    for second, who, kind, what in run.story:
        say_json({"second": round(second, 6), "who": who, "kind": kind, "what": what})
